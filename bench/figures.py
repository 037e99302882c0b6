"""Figures: samples, what they are held against, and how they are written down."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Which = Literal["median", "p95", "p99", "worst"]


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the sample below which this share of them lies (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) + 0.999999) - 1))]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must not exceed."""

    which: Which
    limit: float


@dataclass(frozen=True, slots=True)
class Raw:
    """The primitive that a figure is compared with: what it is, and its samples."""

    name: str
    samples: Sequence[float]


@dataclass(slots=True)
class Figure:
    """One measured thing.

    :param unit: of all its samples, ``ms``, ``MB`` or ``x`` (a ratio).
    :param bars: all of them must hold; without any it is told for information.
    """

    name: str
    unit: str
    samples: Sequence[float]
    bars: Sequence[Bar] = ()
    raw: Raw | None = None
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def value(self, which: Which) -> float:
        """Return the median, a quantile or the worst of the samples."""
        if which == "median":
            return statistics.median(self.samples)
        if which == "worst":
            return max(self.samples)
        return quantile(self.samples, int(which[1:]) / 100)

    @property
    def met(self) -> bool | None:
        """Whether all bars hold; None where there is none."""
        return all(self.value(bar.which) <= bar.limit for bar in self.bars) if self.bars else None

    def to_json(self) -> dict[str, Any]:
        """Return everything that was measured."""
        raw = self.raw
        return {
            "name": self.name,
            "unit": self.unit,
            "count": len(self.samples),
            "median": self.value("median"),
            "p95": self.value("p95"),
            "p99": self.value("p99"),
            "worst": self.value("worst"),
            "bars": {bar.which: bar.limit for bar in self.bars},
            "met": self.met,
            "raw": {"name": raw.name, "median": statistics.median(raw.samples), "samples": list(raw.samples)}
            if raw
            else None,
            "note": self.note,
            "samples": list(self.samples),
            **self.extra,
        }

    def cells(self) -> list[str]:
        """Return its line of the table."""
        raw = ""
        if self.raw:
            middle = statistics.median(self.raw.samples)
            raw = f"{_short(middle)} ({self.value('median') / middle:.1f} x) {self.raw.name}"
        bars = ", ".join(f"{bar.which} ≤ {bar.limit:g}" for bar in self.bars)
        met = {True: "met", False: "**missed**", None: ""}[self.met]
        which: Which = "p95" if any(bar.which == "p95" for bar in self.bars) else "p99"
        middle_text, tail = _short(self.value("median")), _short(self.value(which))
        return [self.name, str(len(self.samples)), middle_text, tail, self.unit, bars, met, raw, self.note]


HEAD = ("what", "samples", "median", "p99 (p95)", "unit", "bar", "", "raw primitive beside it", "note")


def table(figures: Sequence[Figure]) -> str:
    """Write the figures as a Markdown table."""
    lines = [HEAD, ["---"] * len(HEAD), *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


@contextmanager
def timed(samples: list[float]) -> Iterator[None]:
    """Add the milliseconds that the block took."""
    begun = time.perf_counter()
    yield
    samples.append((time.perf_counter() - begun) * 1000)


def until(check: Callable[[], Any], seconds: float = 15.0, pause: float = 0.002) -> Any:
    """Ask until the answer is true, and return it.

    :raises TimeoutError: it is not in this time.
    """
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{getattr(check, '__name__', 'It')} is still {answer!r} after {seconds:g} s.")
        time.sleep(pause)
    return answer
