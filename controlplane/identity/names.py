"""Names and texts that people give: what is allowed in them, so that none can break out of a path, a file or a log."""

from __future__ import annotations

import re
import uuid
import zoneinfo

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_TIMEZONE = re.compile(r"[A-Za-z0-9_+/-]{1,40}")
_DNS_NAME_LENGTH = 190  # leaves room for a host name in the 253 characters of a DNS name


def text(value: str) -> str:
    """Check a free text: it is one line of printable characters.

    :raises ValueError: it holds a control character.
    """
    if not value.isprintable():
        raise ValueError("it may not hold control characters or line breaks")
    return value


def name(value: str) -> str:
    """Check a name: it is not blank, and has no blank at its ends.

    :raises ValueError: what is wrong with it.
    """
    if not value.strip() or value != value.strip():
        raise ValueError("it may be neither blank nor begin or end with a blank")
    return text(value)


def path_part(value: str) -> str:
    """Check the name of a domain: it is one part of a path such as ``ROOT/sales``.

    :raises ValueError: what is wrong with it.
    """
    if "/" in value:
        raise ValueError("it may not hold /, which separates the domains of a path")
    return name(value)


def dns_domain(value: str) -> str:
    """Check the DNS domain that guests are in (RFC 1035, 2.3.1); an empty one is none.

    :raises ValueError: it is no domain name.
    """
    labels = value.split(".")
    if value and (len(value) > _DNS_NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in labels)):
        raise ValueError(
            f"it must be a domain name such as cloud.example.org, of at most {_DNS_NAME_LENGTH} characters: "
            "labels of letters, digits and hyphens"
        )
    return value.lower()


def timezone(value: str) -> str:
    """Check the name of a time zone (IANA tz database).

    :raises ValueError: there is none of this name.
    """
    try:
        if value and _TIMEZONE.fullmatch(value):
            zoneinfo.ZoneInfo(value)
            return value
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValueError("it must name a time zone such as Europe/Berlin or UTC")


def new_id(value: str) -> str:
    """Check the UUID that the caller wants a new object to have.

    :raises ValueError: it is no UUID.
    """
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("it must be a UUID such as 123e4567-e89b-42d3-a456-426614174000") from None
