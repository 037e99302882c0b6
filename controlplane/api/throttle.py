"""The throttle: how often an account may call, where the operator has switched that on."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits.strategies import FixedWindowRateLimiter

from controlplane.api.caller import Caller
from controlplane.db.configuration import define
from controlplane.db.session import Database
from controlplane.errors import TooMany

ENABLED = define("api.throttling.enabled", False, "Limit how often an account may call the API", category="API")
INTERVAL = define("api.throttling.interval", 1, "Seconds in which calls are counted", category="API", within=(1, 3600))
MOST = define(
    "api.throttling.max", 25, "Calls that an account may make in an interval", category="API", within=(1, None)
)


class Throttle:
    """Counts calls by account, in this process; root admins are not limited."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @cached_property
    def _limiter(self) -> FixedWindowRateLimiter:
        from limits.storage import MemoryStorage  # only who throttles pays for it: 2 MB
        from limits.strategies import FixedWindowRateLimiter

        return FixedWindowRateLimiter(MemoryStorage())

    def check(self, caller: Caller) -> None:
        """Count one call.

        :raises TooMany: the account has made all the calls that the interval allows.
        """
        if caller.is_admin or not caller.account_id:
            return
        with self._database.read() as session:
            if not ENABLED.flag(session):
                return
            seconds, most = INTERVAL.number(session), MOST.number(session)
        from limits import RateLimitItemPerSecond

        if not self._limiter.hit(RateLimitItemPerSecond(most, seconds), str(caller.account_id)):
            raise TooMany(f"Your account may make {most} calls in {seconds} s and has made them: wait a moment.")
