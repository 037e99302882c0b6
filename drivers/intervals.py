"""Overlapping rules cut into disjoint pieces, each of which belongs to exactly one rule.

nftables' interval sets take no overlapping elements, and a counter per rule only means something when each packet has
one rule. A rule is a box: an interval in each dimension (ports, sources, destinations). Where boxes overlap, the one
of lower rank has the place. The work is a sweep along one dimension, and in each segment of it a sweep along the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import pairwise

Interval = tuple[int, int]
Box = tuple[Interval, ...]
Piece = tuple[Box, int]
"""A box and the rank of the rule that it belongs to."""

LIMIT = 300_000
"""Steps after which a rule set is refused: only rules made to cut each other into shreds come near it."""


def disjoint(boxes: Sequence[Piece], limit: int = LIMIT) -> list[Piece]:
    """Cut the boxes of one key into disjoint ones that cover the same, each with the lowest rank that covered it.

    :param boxes: of one number of dimensions, in any order.
    :param limit: steps after which it is given up.
    :raises ValueError: they cut each other into too many pieces.
    """
    if len(boxes) == 1:
        return list(boxes)
    return _disjoint(sorted(boxes), [limit])


def _disjoint(boxes: Sequence[Piece], steps: list[int]) -> list[Piece]:
    """Do so for sorted boxes; ``steps`` counts down."""
    pieces: list[Piece] = []
    cluster: list[Piece] = []
    end = -1
    for item in boxes:
        first, last = item[0][0]
        if first > end:
            pieces += _cluster(cluster, steps)
            cluster = [item]
            end = last
        else:
            cluster.append(item)
            end = max(end, last)
    pieces += _cluster(cluster, steps)
    return pieces


def _cluster(boxes: list[Piece], steps: list[int]) -> list[Piece]:
    """Cut boxes that hang together along the first dimension."""
    if len(boxes) < 2:
        return boxes
    if len(boxes[0][0]) == 1:
        return _line(boxes)
    pieces: list[Piece] = []
    before: list[Piece] = []
    start = end = -1
    for segment, active in _segments(boxes):
        _count(steps, len(active))
        inner = (
            _disjoint(sorted((box[1:], rank) for box, rank in active), steps)
            if len(active) > 1
            else [(box[1:], rank) for box, rank in active]
        )
        if inner == before and segment[0] == end + 1:
            end = segment[1]
            continue
        pieces += [(((start, end), *box), rank) for box, rank in before]
        before, (start, end) = inner, segment
    pieces += [(((start, end), *box), rank) for box, rank in before]
    return pieces


def _segments(boxes: Sequence[Piece]) -> Iterator[tuple[Interval, list[Piece]]]:
    """Yield the stretches along the first dimension between which nothing begins or ends, with the boxes there."""
    opening: dict[int, list[int]] = {}
    closing: dict[int, list[int]] = {}
    for index, (box, _) in enumerate(boxes):
        opening.setdefault(box[0][0], []).append(index)
        closing.setdefault(box[0][1] + 1, []).append(index)
    marks = sorted(opening.keys() | closing.keys())
    active: set[int] = set()
    for start, after in pairwise(marks):
        active.difference_update(closing.get(start, ()))
        active.update(opening.get(start, ()))
        if active:
            yield (start, after - 1), [boxes[index] for index in active]


def _line(boxes: Sequence[Piece]) -> list[Piece]:
    """Cut boxes of one dimension, sorted by their start: one sweep with a heap of the ranks that cover the point."""
    pieces: list[Piece] = []
    heap: list[tuple[int, int]] = []
    marks = sorted({box[0][0] for box, _ in boxes} | {box[0][1] + 1 for box, _ in boxes})
    following = 0
    for start, after in pairwise(marks):
        while following < len(boxes) and boxes[following][0][0][0] <= start:
            box, rank = boxes[following]
            heappush(heap, (rank, box[0][1]))
            following += 1
        while heap and heap[0][1] < start:
            heappop(heap)
        if heap:
            rank = heap[0][0]
            if pieces and pieces[-1][1] == rank and pieces[-1][0][0][1] == start - 1:
                start = pieces.pop()[0][0][0]  # noqa: PLW2901
            pieces.append((((start, after - 1),), rank))
    return pieces


def layered(boxes: Sequence[Piece]) -> list[tuple[Box, frozenset[int]]]:
    """Cut the boxes of one key into disjoint ones that cover the same, each with all the ranks that covered it.

    :raises ValueError: they cut each other into too many pieces.
    """
    return _layered(sorted(set(boxes)), [LIMIT])


def _layered(boxes: Sequence[Piece], steps: list[int]) -> list[tuple[Box, frozenset[int]]]:
    pieces: list[tuple[Box, frozenset[int]]] = []
    for segment, active in _segments(boxes):
        _count(steps, len(active))
        if len(active[0][0]) == 1:
            inner: list[tuple[Box, frozenset[int]]] = [((), frozenset(rank for _, rank in active))]
        else:
            inner = _layered(sorted({(box[1:], rank) for box, rank in active}), steps)
        pieces += [((segment, *box), ranks) for box, ranks in inner]
    return pieces


def _count(steps: list[int], spent: int) -> None:
    steps[0] -= spent
    if steps[0] < 0:
        raise ValueError("The rules overlap in too many ways to be told apart: use fewer, or less nested, ranges.")
