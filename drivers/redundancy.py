"""The noun of redundant routers, as facts; see ``drivers.vocabulary``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Redundancy:
    """That a router is one of two that serve the same owner, of which one holds the addresses.

    :param group: the UUID of the owner: a network or a VPC.
    :param member: this router's UUID; ``peer`` the other's, empty while there is none.
    :param roster: (UUID, number of its shell) of each of them.
    :param rank: where none holds the addresses yet, the lower goes first.
    :param sole: there is no other, and none that was before is still there.
    :param nic: the MAC of the interface on the link between the two; ``address`` is this router's on it.
    """

    group: str
    member: str
    peer: str
    roster: tuple[tuple[str, int], ...]
    rank: int
    sole: bool
    nic: str
    address: str
    peer_address: str = ""


def roster(members: Iterable[tuple[str, int]]) -> str:
    """Return the name of a roster: its routers, each with its shell's number, as a new shell has promised nothing."""
    return ",".join(f"{name}/{boot}" for name, boot in sorted(members))


def shared_mac(group: str, segment: str) -> str:
    """Return the MAC that an owner's routers have on a segment: always the same, locally administered (IEEE 802)."""
    digest = hashlib.sha256(f"{group} {segment}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x0E, *digest[:5]))
