"""OpenFlow: what the virtual switch on an uplink does with each frame, as a pure function of the segments on it.

There is no controller and nothing is learnt: a frame that no flow names is dropped, and a flow never goes by itself.
Between the segment's own port, whose frames have no tag, and the uplink stands the tag of IEEE 802.1Q, so hosts need
nothing else to agree on. The flows are written as ``ovs-ofctl dump-flows`` prints them, so that reading back compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

UPLINK: Final = 65000
"""The uplink's OpenFlow port; that of a segment is its VLAN's number."""

_GROUP: Final = "01:00:00:00:00:00/01:00:00:00:00:00"
_UNTAGGED: Final = "vlan_tci=0x0000/0x1fff"
_PRESENT: Final = 0x1000  # OFPVID_PRESENT: the frame has a tag


@dataclass(frozen=True, slots=True)
class Lane:
    """One segment on an uplink.

    :param port: the switch's end of the cable to the segment's bridge; ``vlan`` 1-4094.
    :param members: the MACs, ``/mask`` allowed, that live on this host and are to be sent what is addressed to them;
        None sends them everything.
    """

    port: str
    vlan: int
    members: tuple[str, ...] | None = None


def flows(lanes: Iterable[Lane]) -> tuple[str, ...]:
    """Return the flows of the switch, each one line, in a fixed order."""
    found = {"priority=0 actions=drop"}
    for lane in lanes:
        tagged = f"push_vlan:0x8100,set_field:{_PRESENT | lane.vlan}->vlan_vid,output:{UPLINK}"
        found.add(f"priority=100,in_port={lane.vlan},{_UNTAGGED} actions={tagged}")
        wanted = ("",) if lane.members is None else (f",dl_dst={mac}" for mac in (_GROUP, *lane.members))
        arriving = f"priority=100,in_port={UPLINK},dl_vlan={lane.vlan}"
        found |= {f"{arriving}{which} actions=pop_vlan,output:{lane.vlan}" for which in wanted}
    return tuple(sorted(found))
