"""Ways: where a router leads from a network or VPC, so that no two rules of it claim the same addresses.

Each room that has the router lead somewhere registers what it has by :func:`leads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import RuleConflict

if TYPE_CHECKING:
    from controlplane.network.networks import Whole


class Way(NamedTuple):
    """Addresses that a router leads to.

    :ivar what: as a sentence has it after the CIDR: ``static route <id>``.
    :ivar owner: UUID of the row that it is of.
    :ivar connected: the router has an address in it: it is more than a route.
    """

    what: str
    cidr: IPv4Network
    owner: str = ""
    connected: bool = False


Source = Callable[[Session, "Whole"], Iterable[Way]]
_sources: list[Source] = []


def leads(source: Source) -> Source:
    """Register, as a decorator, what tells the ways of one kind that a network or VPC has."""
    _sources.append(source)
    return source


def ways_of(session: Session, whole: Whole, *, but: str = "") -> list[Way]:
    """Return all that the router of a network or VPC leads to; its row is locked from then on.

    :param but: UUID of the row whose own ways do not count, as it is being changed.
    """
    session.execute(select(type(whole).id).where(type(whole).id == whole.id).with_for_update())
    return [way for source in _sources for way in source(session, whole) if not but or way.owner != but]


def must_be_free(parameter: str, cidr: IPv4Network, others: Sequence[Way]) -> None:
    """Make sure that a CIDR overlaps none of these.

    :raises RuleConflict: it does; the sentence names what.
    """
    for other in others:
        if cidr.overlaps(other.cidr):
            raise RuleConflict(
                f"Invalid parameter {parameter} value={cidr}: it overlaps {other.cidr}, {other.what}; choose another."
            )
