"""Who calls: a frozen value made by authentication, and what its role allows."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """CloudStack's role types; the value is the type's name in the API."""

    ADMIN = "Admin"
    RESOURCE_ADMIN = "ResourceAdmin"
    DOMAIN_ADMIN = "DomainAdmin"
    USER = "User"


ACCOUNT_TYPES = {Role.USER: 0, Role.ADMIN: 1, Role.DOMAIN_ADMIN: 2, Role.RESOURCE_ADMIN: 3}
"""The number that ``accounttype`` carries for each role type."""

EVERYONE = frozenset(Role)
ADMINS = frozenset({Role.ADMIN})
DOMAIN_ADMINS = frozenset({Role.ADMIN, Role.DOMAIN_ADMIN})


@dataclass(frozen=True, slots=True)
class Caller:
    """The user on whose behalf a command runs.

    :param domain_path: ``/``-separated numbers of the domains from ROOT down, ending in ``/``: a prefix is an ancestor.
    :param rules: the role's rules in order, as (pattern, allow); the first that matches decides.
    :param projects: accounts of the projects that the caller is a member of.
    """

    user_id: int
    account_id: int
    domain_id: int
    domain_path: str
    role: Role
    rules: tuple[tuple[str, bool], ...] = ()
    projects: tuple[int, ...] = ()

    @property
    def is_admin(self) -> bool:
        """Whether the caller is a root admin."""
        return self.role is Role.ADMIN

    def may(self, command: str, default: frozenset[Role]) -> bool:
        """Tell whether the role allows the command.

        :param default: the roles that may call it when no rule of the role names it.
        """
        for pattern, allow in self.rules:
            if fnmatch.fnmatchcase(command.lower(), pattern.lower()):
                return allow
        return self.role in default
