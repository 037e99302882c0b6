"""A simulated host as its address and its details describe it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from systemvm.bundle import Bundle, Failure, Observation, Outcome

SERVICE: Final = "simulator"


@dataclass(frozen=True, slots=True)
class Device:
    """How a simulated host behaves.

    :param latency: milliseconds that one apply takes on average (``latency_ms``); each takes from half to one and a
        half of it.
    :param fault_rate: 0 to 1: which part of the starts of guests fails. Another host, or another start of the same
        guest, is another draw.
    :param fail_guests: UUIDs or names of guests that never start here; ``*`` is all of them.
    :param seed: chooses the draws.
    """

    latency: float = 0.0
    fault_rate: float = 0.0
    fail_guests: frozenset[str] = frozenset()
    seed: str = "0"

    @classmethod
    def of(cls, address: str, settings: Mapping[str, str]) -> Device:
        """Read the host's URL query (``http://sim-7/?latency_ms=20``) and its details, which win.

        :raises ValueError: a setting is no number where one is needed, or out of its range.
        """
        said = dict(parse_qsl(urlsplit(address).query)) | dict(settings)
        names = (name.strip() for name in said.get("fail_guests", "").split(","))
        return cls(
            latency=_number(said, "latency_ms", 60_000),
            fault_rate=_number(said, "fault_rate", 1),
            fail_guests=frozenset(name for name in names if name),
            seed=said.get("seed", "0"),
        )

    def apply(self, bundle: Bundle) -> Outcome:
        """Take the time that it takes, and fail the guests whose lot it is."""
        seconds = self.latency / 1000 * (0.5 + self._draw("latency", bundle.target, bundle.generation))
        time.sleep(seconds)
        failures = tuple(
            Failure(guest["id"], f"The simulated host {bundle.name} did not start {guest['name']}.")
            for guest in _units(bundle, "guests")
            if guest["running"] and self._fails(bundle, guest)
        )
        return Outcome(bundle.target, bundle.generation, bundle.digest, "applied", failures, seconds=seconds)

    def observe(self, bundle: Bundle) -> Observation:
        """Return the state that each guest and shell is in after :meth:`apply`."""
        states = {guest["id"]: self._state(bundle, guest) for guest in _units(bundle, "guests")}
        states |= {shell["id"]: "running" if shell["running"] else "absent" for shell in _units(bundle, "shells")}
        return Observation(bundle.target, states=tuple(states.items()))

    def _state(self, bundle: Bundle, guest: Mapping[str, Any]) -> str:
        if not guest["running"] or self._fails(bundle, guest):
            return "stopped"
        return "running"

    def _fails(self, bundle: Bundle, guest: Mapping[str, Any]) -> bool:
        if self.fail_guests & {"*", guest["id"], guest["name"]}:
            return True
        return self._draw("fault", bundle.target, guest["id"], guest["boot"]) < self.fault_rate

    def _draw(self, *about: object) -> float:
        """Return a number from 0 up to 1 that always is the same for the same seed and matter."""
        digest = hashlib.blake2b(repr((self.seed, *about)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def _number(said: Mapping[str, str], name: str, most: float) -> float:
    text = said.get(name, "0")
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {text!r}: a simulated host needs a number from 0 to {most:g} there.")
    return number


def _units(bundle: Bundle, kind: str) -> list[dict[str, Any]]:
    return [unit for file in bundle.files if file.service == SERVICE for unit in json.loads(file.content)[kind]]
