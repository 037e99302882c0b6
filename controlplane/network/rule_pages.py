"""Pages of rules: of the rows that come by the ten thousand, only what changed since the last look is read again.

A table's rows are numbered; as many as a page holds in a row are one page. Each row carries a random stamp, which every
change of it, through whatever process, replaces (:class:`~controlplane.db.base.Stamped`). One query over an index
counts the rows and sums the stamps of each page of a network: a page with the same count and sum as before holds what
it held. Nothing has to be told of a change, so there is nothing that several processes, an undone transaction or a
deleted row could get wrong; that a change leaves a sum as it was is as likely as to guess a stamp, 1 in 2⁴⁸.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Engine, Table, bindparam, func, select
from sqlalchemy.orm import Session

from controlplane.db.session import engine_of

SIZE = 256
"""Numbers in a page."""
FEW = 64
"""More pages than these are read with one look at all of the network's rows."""
MOST = 1 << 16
"""Facts that are kept of one table."""

Fact = TypeVar("Fact")
Page = tuple[tuple[int, int], tuple[Fact, ...]]
"""The count and sum of a page's rows, and its facts."""
Kept = tuple[Mapping[int, str], dict[int, Page[Fact]]]
"""The addresses that a network's facts were made with, and its pages by their number."""


class Pages(Generic[Fact]):
    """The facts of one table's rows, as they were last read, by network."""

    def __init__(self, table: Table, columns: Sequence[ColumnElement[Any]], *conditions: ColumnElement[bool]) -> None:
        """Prepare the queries.

        :param columns: what a fact is made of, in this order.
        :param conditions: which of the network's rows are meant.
        """
        self._size = SIZE
        page, mine = table.c.id // SIZE, table.c.network_id == bindparam("network")
        self._sums = select(page, func.count(), func.sum(table.c.stamp)).where(mine).group_by(page).order_by(page)
        self._all = select(page, *columns).where(mine, *conditions).order_by(table.c.id)
        between = table.c.id >= bindparam("first"), table.c.id < bindparam("end")  # what an index finds
        self._some = self._all.where(page.in_(bindparam("pages", expanding=True)), *between)
        self._kept: WeakKeyDictionary[Engine, OrderedDict[int, Kept[Fact]]] = WeakKeyDictionary()
        self._lock = Lock()

    def read(
        self, session: Session, network: int, addresses: Mapping[int, str], fact: Callable[..., Fact | None]
    ) -> tuple[Fact, ...]:
        """Return the facts of a network's rules, in the order of their rows.

        :param addresses: the network's public addresses by number.
        :param fact: makes a fact of the columns' values, or None where the rule is to be left out; it may look at the
            addresses, and at nothing else.
        """
        sums = {page: (count, total) for page, count, total in session.execute(self._sums, {"network": network})}
        known = self._known(session, network, addresses)
        stale = [page for page, total in sums.items() if page not in known or known[page][0] != total]
        fresh: dict[int, list[Fact]] = {page: [] for page in stale}
        if fresh:
            few, span = len(fresh) <= FEW, {"first": min(fresh) * self._size, "end": (max(fresh) + 1) * self._size}
            given = {"network": network} | ({"pages": list(fresh)} | span if few else {})
            for page, *values in session.execute(self._some if few else self._all, given):
                made = fact(*values) if page in fresh else None
                if made is not None:
                    fresh[page].append(made)
        pages = {page: (total, tuple(fresh[page])) if page in fresh else known[page] for page, total in sums.items()}
        self._keep(session, network, (addresses, pages))
        return tuple(chain.from_iterable(facts for _, facts in pages.values()))

    def _known(self, session: Session, network: int, addresses: Mapping[int, str]) -> dict[int, Page[Fact]]:
        with self._lock:
            networks = self._kept.get(engine_of(session), OrderedDict())
            kept = networks.get(network)
        return kept[1] if kept and kept[0] == addresses else {}

    def _keep(self, session: Session, network: int, kept: Kept[Fact]) -> None:
        """Keep a network's pages, and forget those of the networks that were not asked for longest."""
        with self._lock:
            networks = self._kept.setdefault(engine_of(session), OrderedDict())
            networks[network] = kept
            networks.move_to_end(network)
            while len(networks) > 1 and sum(map(_facts, networks.values())) > MOST:
                networks.popitem(last=False)


def _facts(kept: Kept[Any]) -> int:
    return sum(len(facts) for _, facts in kept[1].values())
