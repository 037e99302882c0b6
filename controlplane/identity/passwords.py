"""Passwords: the policy that a new one must meet, and its hash.

A password is never stored, logged, put in an event or answered; what is stored is its Argon2 hash.
"""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from controlplane.db.configuration import define
from controlplane.errors import BadParameter
from controlplane.identity.seed import passwords

_POLICY = "Password Policy"
_SCOPES = ("Domain",)
MINIMUM_LENGTH = define(
    "password.policy.minimum.length",
    8,
    "How many characters a password has at least",
    category=_POLICY,
    scopes=_SCOPES,
    within=(1, 255),
)
_CLASSES = tuple(
    (
        define(
            f"password.policy.minimum.{name.replace(' ', '.')}",
            0,
            f"How many {name} a password has at least",
            category=_POLICY,
            scopes=_SCOPES,
            within=(0, 255),
        ),
        name,
        re.compile(pattern),
    )
    for name, pattern in (
        ("uppercase letters", "[A-Z]"),
        ("lowercase letters", "[a-z]"),
        ("digits", "[0-9]"),
        ("special characters", "[^A-Za-z0-9]"),
    )
)
MAY_CONTAIN_USERNAME = define(
    "password.policy.allowPasswordToContainUsername",
    True,
    "Whether a password may contain the user's name",
    category=_POLICY,
    scopes=_SCOPES,
)
PATTERN = define(
    "password.policy.regex",
    "",
    "A regular expression that a whole password must match; empty allows any",
    category=_POLICY,
    scopes=_SCOPES,
)


def hashed(session: Session, password: str, username: str, domain_id: int) -> str:
    """Return the hash of a new password that meets the domain's policy.

    :raises BadParameter: it does not; the sentence names every rule that it breaks, never the password.
    """
    wrong = []
    least = MINIMUM_LENGTH.number(session, domain=domain_id)
    if len(password) < least:
        wrong.append(f"it must have at least {least} characters")
    for setting, name, pattern in _CLASSES:
        wanted = setting.number(session, domain=domain_id)
        if len(pattern.findall(password)) < wanted:
            wrong.append(f"it must have at least {wanted} {name}")
    if not MAY_CONTAIN_USERNAME.flag(session, domain=domain_id) and username.lower() in password.lower():
        wrong.append("it may not contain the user's name")
    expression = PATTERN.text(session, domain=domain_id)
    if expression and not _matches(expression, password):
        wrong.append("it must match the pattern in password.policy.regex")
    if wrong:
        raise BadParameter(f"Invalid parameter password: {', and '.join(wrong)}.")
    return passwords.hash(password)


def _matches(expression: str, password: str) -> bool:
    try:
        return re.fullmatch(expression, password) is not None
    except re.error as error:
        raise BadParameter(f"The setting password.policy.regex is no regular expression: {error}.") from None
