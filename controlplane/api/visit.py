"""The visit: what the few commands that begin or end a session need to know of the HTTP request behind a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SESSION_COOKIE = "JSESSIONID"
KEY_COOKIE = "sessionkey"


@dataclass
class Visit:
    """One HTTP request.

    :ivar address: of the client.
    :ivar cookies: that came with it.
    :ivar leaving: cookies that go with the answer, by name; an empty value ends the cookie.
    :ivar site: what a browser says of the page that sent it (Fetch Metadata, ``Sec-Fetch-Site``); empty elsewhere.
    """

    address: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)
    leaving: dict[str, str] = field(default_factory=dict)
    site: str = ""

    @property
    def from_elsewhere(self) -> bool:
        """Whether a browser says that a page of another origin sent it."""
        return self.site in ("cross-site", "same-site")
