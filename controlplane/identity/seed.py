"""What every cloud begins with: ROOT, the default roles, the system account and the admin."""

from __future__ import annotations

from pwdlib import PasswordHash
from sqlalchemy import select
from sqlalchemy.orm import Session

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


def fill(session: Session, admin_password: str) -> None:
    """Make what is missing; an existing admin keeps its password."""
    if session.scalar(select(Domain.id).limit(1)) is not None:
        return
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
