"""Counters that only rise: the kernel's and the daemons' begin anew when a table or a process is replaced.

What is reported is the base plus the last reading. A reading below the last one means that a part was counted anew,
and what was lost is added to the base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

Count = tuple[int, int]
"""Packets and bytes."""


class Tally:
    """The counters of one target, kept in a file over restarts of the agent."""

    def __init__(self, file: Path) -> None:
        """Go on where the file stands."""
        self._file = file
        self._base: dict[str, Count] = {}
        self._last: dict[str, Count] = {}
        if file.exists():
            self._base = {name: (count[0], count[1]) for name, count in json.loads(file.read_text()).items()}

    def read(self, counts: Mapping[str, Count]) -> dict[str, Count]:
        """Take a reading and return the totals; a counter that is gone is forgotten."""
        for name, last in self._last.items():
            now = counts.get(name, (0, 0))
            if now < last and name in counts:
                self._add(name, (last[0] - now[0], max(last[1] - now[1], 0)))
        self._last = dict(counts)
        self._base = {name: base for name, base in self._base.items() if name in counts}
        return {name: _sum(self._base.get(name, (0, 0)), count) for name, count in counts.items()}

    def fold(self, counts: Mapping[str, Count] | None = None) -> None:
        """Keep what was counted so far, as all counters are about to begin at zero.

        :param counts: a reading of just now; without one the last is taken.
        """
        for name, count in (self._last if counts is None else counts).items():
            self._add(name, count)
        self._last = {}
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._base), encoding="ascii")
        fresh.replace(self._file)

    def _add(self, name: str, count: Count) -> None:
        self._base[name] = _sum(self._base.get(name, (0, 0)), count)


def _sum(one: Count, other: Count) -> Count:
    return one[0] + other[0], one[1] + other[1]
