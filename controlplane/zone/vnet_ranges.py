"""Ranges of VLANs and VNIs: sorted, disjoint ``[first, last]`` pairs, and the text that the API has for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

Ranges = list[list[int]]

HIGHEST = {"VLAN": 4094, "VXLAN": 16777214}
"""The highest number of each isolation method; the lowest is 1."""

_PART = re.compile(r"\s*(\d{1,8})\s*(?:-\s*(\d{1,8})\s*)?", re.ASCII)


def parse(text: str, isolation: str = "VXLAN") -> Ranges:
    """Read ranges such as ``5000-5999,7000-7100``; neighbours are joined.

    :param isolation: ``VLAN`` or ``VXLAN``: decides which numbers there are.
    :raises ValueError: it cannot be read, leads backwards, overlaps itself or leaves what the isolation method has.
    """
    found: Ranges = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise ValueError(f"{part.strip()!r} is no range: write ranges as 100-199,300-399")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first:
            raise ValueError(f"the range {part.strip()} leads backwards")
        if first < 1 or last > HIGHEST[isolation]:
            raise ValueError(f"{part.strip()} is not within the {isolation} numbers 1-{HIGHEST[isolation]}")
        found.append([first, last])
    found.sort()
    for (_, end), (start, _) in pairwise(found):
        if start <= end:
            raise ValueError(f"{start} is in two of the ranges")
    return joined(found)


def joined(ranges: Iterable[Sequence[int]]) -> Ranges:
    """Return the same numbers as the fewest ranges, sorted."""
    result: Ranges = []
    for first, last in sorted((first, last) for first, last in ranges):
        if result and first <= result[-1][1] + 1:
            result[-1][1] = max(last, result[-1][1])
        else:
            result.append([first, last])
    return result


def text_of(ranges: Iterable[Sequence[int]]) -> str:
    """Write ranges as the API has them."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def holds(ranges: Iterable[Sequence[int]], number: int) -> bool:
    """Tell whether the number is in one of the ranges."""
    return any(first <= number <= last for first, last in ranges)


def overlap(one: Iterable[Sequence[int]], other: Sequence[Sequence[int]]) -> Ranges:
    """Return the numbers that are in both."""
    found = []
    for first, last in one:
        for start, end in other:
            if max(first, start) <= min(last, end):
                found.append([max(first, start), min(last, end)])
    return joined(found)


def without(ranges: Iterable[Sequence[int]], taken: Sequence[Sequence[int]]) -> Ranges:
    """Return the numbers of ``ranges`` that are not in ``taken``."""
    left = [[first, last] for first, last in ranges]
    for start, end in taken:
        left = [
            part
            for first, last in left
            for part in ([first, min(last, start - 1)], [max(first, end + 1), last])
            if part[0] <= part[1]
        ]
    return joined(left)
