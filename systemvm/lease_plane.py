"""The line to the control plane of the process that renews leases: a thread that asks for all routers at once.

Its questions are made one after the other, so that a vote that is given back can not overtake the question for it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
from typing import Any
from urllib.parse import urlsplit

_PATIENCE = 0.5

Answer = tuple[str, int, int, bool | None]


class Plane:
    """The control plane, as far as leases go.

    :ivar news: readable when there are answers.
    """

    def __init__(self) -> None:
        self.news, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Condition()
        self._asks: dict[str, tuple[dict[str, Any], int, int]] = {}
        self._releases: list[dict[str, Any]] = []
        self._answers: list[Answer] = []
        self._server, self._token = "", ""
        self._line: http.client.HTTPConnection | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def point(self, server: str, token: str) -> None:
        """Tell where it is, and the file with the token that the host's agent has."""
        with self._lock:
            if (server, token) != (self._server, self._token):
                self._server, self._token, self._line = server, token, None

    def ask(self, name: str, entry: dict[str, Any], number: int, length: int) -> None:
        """Ask for its vote for a router; the answer comes in a moment."""
        what = {"owner": entry["group"], "router": entry["member"], "roster": entry["roster"]}
        with self._lock:
            self._asks[name] = (what | {"round": number, "milliseconds": length // 1_000_000}, number, length)
            self._lock.notify()

    def release(self, entry: dict[str, Any], number: int) -> None:
        """Give its vote back."""
        with self._lock:
            self._releases.append({"owner": entry["group"], "router": entry["member"], "round": number})
            self._lock.notify()

    def answers(self) -> list[Answer]:
        """Return what was answered since: router, round, length in ns, and the vote; None where nobody answered."""
        with self._lock:
            found, self._answers = self._answers, []
            with contextlib.suppress(BlockingIOError):
                os.read(self.news, 512)
        return found

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._asks and not self._releases:
                    self._lock.wait()
                asks, self._asks = self._asks, {}
                releases, self._releases = self._releases, []
            body = {"asks": [ask for ask, _, _ in asks.values()], "releases": releases}
            votes = self._call(json.dumps(body).encode())
            with self._lock:
                for name, (ask, number, length) in asks.items():
                    vote = None if votes is None else bool(votes.get(str(ask["router"])))
                    self._answers.append((name, number, length, vote))
            os.write(self._write, b"!")

    def _call(self, body: bytes) -> dict[str, Any] | None:
        """Return the votes by router; None where nobody answered."""
        for fresh in (False, True):  # a line that was kept may have been closed meanwhile
            try:
                if fresh or self._line is None:
                    self._line = self._connect()
                with open(self._token, encoding="ascii") as file:  # noqa: PTH123
                    headers = {"Authorization": f"Bearer {file.read().strip()}", "Content-Type": "application/json"}
                self._line.request("POST", f"{urlsplit(self._server).path.rstrip('/')}/agent/v1/leases", body, headers)
                answer = self._line.getresponse()
                said = answer.read()
                if answer.status == 200:
                    votes = json.loads(said)["votes"]
                    return votes if isinstance(votes, dict) else None
            except TimeoutError:
                self._line = None
                return None
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                self._line = None
        return None

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._server)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=_PATIENCE)
