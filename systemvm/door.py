"""The agent's side of the control plane's door: four calls, all made by the agent, so that it may sit behind firewalls.

Every method raises :class:`Closed` where the control plane could not be reached or would not answer: the caller tries
again, nothing is lost by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

from systemvm.bundle import Bundle, Failure, Observation, Outcome

_NO_BASES: Mapping[str, Bundle] = MappingProxyType({})


class Closed(Exception):
    """The control plane did not take or answer a call.

    ``unknown`` tells that it answered that it does not know this host (any more): a new ``hello`` is due.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Pull:
    """What a pull brought.

    :param bundles: what is wanted of targets that do not stand there yet.
    :param refused: what must be told about bundles that arrived damaged.
    :param known: every target of this host.
    """

    bundles: tuple[Bundle, ...]
    refused: tuple[Outcome, ...]
    known: frozenset[str]


class Door:
    """The door of one control plane. Its methods may be called from several threads at once."""

    def __init__(self, server: str, token: str) -> None:
        """Prepare the calls; nothing is sent yet.

        :param server: the control plane's URL.
        :param token: this agent's own bearer token.
        """
        self._client = httpx.Client(
            base_url=server.rstrip("/") + "/agent/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(10, read=60),
            trust_env=False,
        )
        self._unlike: set[str] = set()

    def close(self) -> None:
        """Hang up: a call under way in another thread ends with :class:`Closed`."""
        self._client.close()

    def hello(self, host: str, ledger: Mapping[str, tuple[int, str]], inventory: Mapping[str, object]) -> str:
        """Say who is there and where its targets stand; return the target's UUID of the host itself."""
        said = self._call("POST", "hello", json={"host": host, "ledger": ledger, "inventory": inventory})
        return str(said["target"])

    def pull(self, holding: Mapping[str, int], bases: Mapping[str, Bundle] = _NO_BASES, wait: int = 25) -> Pull:
        """Ask what is wanted, and wait for it.

        :param holding: target → generation that is already being worked on, or that failed and will be tried again.
        :param bases: target → bundle that is here: the control plane may send the difference to it alone.
        :param wait: seconds that the control plane may keep the call open.
        """
        bases = {target: base for target, base in bases.items() if target not in self._unlike}
        params = {
            "wait": str(wait),
            "holding": ",".join(f"{target}:{holding[target]}" for target in sorted(holding)),
            "bases": ",".join(f"{target}:{base.digest}" for target, base in bases.items()),
        }
        said = self._call("GET", "bundle", params=params)
        bundles, refused = [], []
        for data in said["bundles"]:
            try:
                bundles.append(Bundle.from_json(data, bases.get(data["target"])))
            except (ValueError, KeyError, TypeError) as error:
                if data.get("target") in bases:
                    self._unlike.add(data["target"])  # it is asked for as a whole then
                    continue
                failure = Failure("bundle", f"It cannot be read: {error}")
                held = (str(data.get("target")), int(data.get("generation", 0)), str(data.get("digest")))
                refused.append(Outcome(*held, "refused", (failure,)))
        return Pull(tuple(bundles), tuple(refused), frozenset(said["known"]))

    def outcome(self, outcomes: Sequence[Outcome]) -> None:
        """Tell what came of bundles."""
        self._call("POST", "outcome", json={"outcomes": [outcome.to_json() for outcome in outcomes]})

    def observe(self, observations: Sequence[Observation]) -> None:
        """Tell what was read back."""
        self._call("POST", "observation", json={"observations": [seen.to_json() for seen in observations]})

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **options)
        except (httpx.HTTPError, RuntimeError) as error:
            raise Closed(f"{method} {path} did not reach {self._client.base_url}: {error!r}") from error
        if answer.is_error:
            unknown = answer.status_code in (401, 403, 404)
            raise Closed(f"{method} {path} was answered {answer.status_code}: {answer.text[:200]}", unknown=unknown)
        try:
            said = answer.json() if answer.content else {}
        except ValueError as error:
            raise Closed(f"{method} {path} was answered with no JSON: {answer.text[:200]!r}") from error
        return said if isinstance(said, dict) else {}
