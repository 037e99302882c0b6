"""What every cloud begins with: ROOT, the default roles, the system account and the admin."""

from __future__ import annotations

from pwdlib import PasswordHash
from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import Role
from controlplane.api.command import REGISTRY
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.roles import RolePermission, RoleRow
from controlplane.identity.users import User

passwords = PasswordHash.recommended()

DEFAULT_ROLES = (
    ("Root Admin", "Admin", "Default root admin role"),
    ("Resource Admin", "ResourceAdmin", "Default resource admin role"),
    ("Domain Admin", "DomainAdmin", "Default domain admin role"),
    ("User", "User", "Default user role"),
)
"""Their rules are none (the commands say what each type may call); but Root Admin may call all."""

_SECRETS = frozenset({"getUserKeys", "getVMPassword", "getUploadParamsForTemplate", "getUploadParamsForIso"})
"""Commands that change nothing, but that let their caller do what it otherwise may not."""
_USER_SUPPORT = (
    "startVirtualMachine",
    "stopVirtualMachine",
    "rebootVirtualMachine",
    "createVolume",
    "attachVolume",
    "detachVolume",
    "uploadVolume",
    "attachIso",
    "detachIso",
    "registerTemplate",
    "registerIso",
)
_ADMIN_SUPPORT = (
    *_USER_SUPPORT,
    "prepareHostForMaintenance",
    "cancelHostMaintenance",
    "enableStorageMaintenance",
    "cancelStorageMaintenance",
    "createServiceOffering",
    "createDiskOffering",
    "createNetworkOffering",
    "createVPCOffering",
)
LIMITED_ROLES = (
    ("Read-Only Admin - Default", Role.ADMIN, "Default read-only admin role", ()),
    ("Read-Only User - Default", Role.USER, "Default read-only user role", ()),
    ("Support Admin - Default", Role.ADMIN, "Default support admin role", _ADMIN_SUPPORT),
    ("Support User - Default", Role.USER, "Default support user role", _USER_SUPPORT),
)
"""Roles that may call what shows something to their type, a few commands more, and nothing else."""


def fill(session: Session, admin_password: str) -> None:
    """Make what is missing; an existing admin keeps its password."""
    if session.scalar(select(Domain.id).limit(1)) is None:
        _begin(session, admin_password)
    for name, kind, description, more in LIMITED_ROLES:
        _fill_limited_role(session, name, kind, description, more)


def _begin(session: Session, admin_password: str) -> None:
    root = Domain(name="ROOT", name_path="ROOT", level=0)
    session.add(root)
    session.flush()
    root.path = f"/{root.id}/"
    for name, kind, description in DEFAULT_ROLES:
        session.add(RoleRow(name=name, type=kind, description=description, is_default=True))
    session.flush()
    admin_role = session.scalars(select(RoleRow).where(RoleRow.type == "Admin")).one()
    admin_role.rules.append(RolePermission(rule="*", permission="allow", position=0))
    for name, password in (("system", ""), ("admin", admin_password)):
        account = Account(name=name, type=1, domain_id=root.id, role_id=admin_role.id, default=True)
        session.add(account)
        session.flush()
        # the system account has no hash that any password could match: nobody logs in as it
        hashed = passwords.hash(password) if password else "!"
        user = User(username=name, password=hashed, account_id=account.id, domain_id=root.id, default=True)
        user.firstname, user.lastname = name, "cloud"
        session.add(user)


def _fill_limited_role(session: Session, name: str, kind: Role, description: str, more: tuple[str, ...]) -> None:
    """Make the role, or bring its rules up to the commands that there are now."""
    role = session.scalar(select(RoleRow).where(RoleRow.name == name))
    if role is None:
        role = RoleRow(name=name, type=kind.value, description=description, is_default=True)
        session.add(role)
    shown = (command for command, described in REGISTRY.items() if not described.writes and kind in described.roles)
    allowed = sorted({*shown, *more} - _SECRETS)
    wanted = [*((command, "allow") for command in allowed), ("*", "deny")]
    if [(rule.rule, rule.permission) for rule in role.rules] != wanted:
        role.rules = [
            RolePermission(rule=rule, permission=permission, position=position)
            for position, (rule, permission) in enumerate(wanted)
        ]
