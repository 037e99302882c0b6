"""Errors as CloudStack's clients know them: an HTTP status, a cause code and a sentence a person can act on.

Numbers: WIRE protocol of CloudStack 4.18-4.22, section "errors".
"""

from __future__ import annotations


class ApiError(Exception):
    """A refusal or failure that the caller is told about; nothing has been changed.

    :param text: names the parameter or object, its value and what would be right.
    """

    status = 530
    cause = 4250

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Unauthenticated(ApiError):
    """Who is calling is not known, or the role does not allow the command."""

    status, cause = 401, 0


class BadParameter(ApiError):
    """A parameter is missing, malformed or does not fit the state of things."""

    status, cause = 431, 4350


class MissingParameter(BadParameter):
    """A required parameter is missing."""

    cause = 9999


class BadMap(ApiError):
    """The name of a map parameter is malformed."""

    status, cause = 430, 9999


class Unsupported(ApiError):
    """The command, feature or parameter is not supported."""

    status, cause = 432, 4390


class Forbidden(ApiError):
    """The caller may not act on this object or account."""

    status, cause = 531, 4365


class LoginFailed(ApiError):
    """Wrong credentials."""

    status, cause = 531, 0


class LimitReached(ApiError):
    """The account, domain or project has reached its limit for this kind of resource."""

    status, cause = 535, 4280


class NoCapacity(ApiError):
    """There is no host, storage or network that could take it."""

    status, cause = 533, 4325


class NoAddress(NoCapacity):
    """All addresses of the range are taken."""

    cause = 4320


class Unavailable(ApiError):
    """An agent, host or device does not answer."""

    status, cause = 534, 4380


class InUse(ApiError):
    """It cannot be deleted or changed because something uses it."""

    status, cause = 536, 4375


class RuleConflict(ApiError):
    """Another rule already claims the same ports of the same address."""

    status, cause = 537, 4360


class TooMany(ApiError):
    """The caller asks more often than it may."""

    status, cause = 429, 4545
