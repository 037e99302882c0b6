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

    A private VLAN (RFC 5517) is a primary VLAN with lanes below it: what comes from a promiscuous one has the primary's
    tag and reaches all; what comes from another has that one's own, and reaches itself and the promiscuous ones.

    :param port: the switch's end of the cable to the segment's bridge; ``vlan`` 1-4094.
    :param members: the MACs, ``/mask`` allowed, that live on this host and are to be sent what is addressed to them;
        None sends them everything.
    :param primary: of a private VLAN: the primary VLAN, of a promiscuous lane ``vlan`` itself; 0 is none.
    :param secondaries: of a promiscuous lane: all VLANs below the primary one, on whatever host.
    :param alone: of an isolated lane: it does not hear itself, either.
    """

    port: str
    vlan: int
    members: tuple[str, ...] | None = None
    primary: int = 0
    secondaries: tuple[int, ...] = ()
    alone: bool = False

    @property
    def promiscuous(self) -> bool:
        """Whether it reaches all lanes of its private VLAN."""
        return self.primary == self.vlan

    @property
    def wanted(self) -> tuple[str, ...]:
        """The destinations whose frames it is sent; an empty one is all that nobody else here has."""
        if self.members is None:
            return ("", _GROUP) if self.primary else ("",)
        return (_GROUP, *self.members)

    def hears(self, other: Lane) -> bool:
        """Tell whether it gets what another lane of this host sends."""
        same = self.primary == other.primary != 0 and self.vlan != other.vlan
        return same and (self.promiscuous or other.promiscuous)

    @property
    def heard_tags(self) -> set[int]:
        """The tags whose frames it gets from the uplink."""
        own = set() if self.alone else {self.vlan}
        return own | set(self.secondaries) | ({self.primary} if self.primary else set())


def flows(lanes: Iterable[Lane]) -> tuple[str, ...]:
    """Return the flows of the switch, each one line, in a fixed order."""
    lanes = list(lanes)
    found = {"priority=0 actions=drop"}
    for lane in lanes:
        found |= _leaving(lane, [other for other in lanes if other.hears(lane)])
    for tag in {tag for lane in lanes for tag in lane.heard_tags}:
        outputs = _outputs(lane for lane in lanes if tag in lane.heard_tags)
        for mac, ports in outputs.items():
            found.add(f"{_first(mac)},in_port={UPLINK},dl_vlan={tag}{_to(mac)} actions=pop_vlan,{ports}")
    return tuple(sorted(found))


def _leaving(lane: Lane, near: list[Lane]) -> set[str]:
    """Return the flows for what comes out of a lane: to the uplink, and to the lanes here that hear it."""
    tagged = f"push_vlan:0x8100,set_field:{_PRESENT | lane.vlan}->vlan_vid,output:{UPLINK}"
    found = set()
    for mac, ports in ({"": ""} | _outputs(near)).items():
        # whoever has a single MAC of its own lives here and nowhere else
        alone = mac and "/" not in mac
        actions = ports if alone else ",".join(filter(None, (ports, tagged)))
        found.add(f"{_first(mac)},in_port={lane.vlan},{_UNTAGGED}{_to(mac)} actions={actions}")
    return found


def _outputs(lanes: Iterable[Lane]) -> dict[str, str]:
    """Return, by destination, the action that sends a frame to each of the lanes that want it."""
    found: dict[str, set[int]] = {}
    for lane in lanes:
        for mac in lane.wanted:
            found.setdefault(mac, set()).add(lane.vlan)
    return {mac: ",".join(f"output:{port}" for port in sorted(ports)) for mac, ports in found.items()}


def _first(mac: str) -> str:
    """Return the priority of a flow for a destination: before that for all others."""
    return f"priority={110 if mac else 100}"


def _to(mac: str) -> str:
    return f",dl_dst={mac}" if mac else ""
