"""What one host is to hold, as typed values: segments, the shells of appliances, and guests.

Every name that an interface will carry on the host is decided here and travels in the bundle, so that whoever writes
filters for a guest's port (security groups) knows it from the facts alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drivers.config_drive import ConfigDrive, files
from drivers.vocabulary import Nic, Segment

VXLAN = "vxlan"
VLAN = "vlan"
VSWITCH = "vs"
PVLAN = "pvlan"
UNTAGGED = "untagged"

APPLIANCES = "0e:00:00:00:00:00/ff:00:00:00:00:00"
"""The MACs that redundant routers share (see ``drivers.network.virtual_router.redundancy.shared_mac``)."""

ISOLATED, PROMISCUOUS = "i", "p"
_PRIVATE = re.compile(r"pvlan://(\d{1,4})-([icp])(\d{1,4})", re.ASCII)
ANYBODY = "00:00:00:00:00:00/00:00:00:00:00:00"
"""Every MAC: where guests may send from others than their own."""
_LAST_VNI = 2**24 - 1
_LAST_VLAN = 4094


def port_name(nic: str, shell: str = "") -> str:
    """Return the name of the host's end of a NIC's virtual cable: ``vif`` and 12 hex digits, of the NIC's UUID.

    :param shell: the target whose shell it leads into: such a cable is called ``vir…``. So a filter knows a guest by
        the name alone, and holds it before it was told anything of it.
    """
    return f"{'vir' if shell else 'vif'}{_short(nic + shell, 6)}"


def _short(text: str, size: int) -> str:
    return hashlib.blake2s(text.encode(), digest_size=size).hexdigest()


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """One bridge, and what joins it to the other hosts.

    :param kind: ``vxlan``, ``vlan`` (802.1Q), ``vs`` (802.1Q by the flows of Open vSwitch), ``pvlan`` (the same, in a
        private VLAN) or ``untagged``; ``number`` is the VNI or the VLAN id, 0 when untagged.
    :param bridge: its name on the host; ``device`` the VXLAN device, 802.1Q interface or cable to the switch in it.
    :param uplink: the host's device or bridge by name; empty means the one that the host was given for ``traffic``.
    :param mtu: of the guests' frames, in bytes.
    :param members: of a ``vs`` or ``pvlan`` segment: the MACs on this host that are sent frames from elsewhere, each
        ``/mask``; :data:`ANYBODY` where the guests' MACs are their own business.
    :param primary: of a ``pvlan`` segment: its primary VLAN, which is ``number`` where it is promiscuous.
    :param secondaries: of a promiscuous one: the VLANs below the primary one.
    :param alone: of an isolated one: its guests do not hear each other.
    :param hub: the bridge sends every frame to every port.
    :param zone: of its connections, where security groups guard a port of it; else 0.
    """

    id: str
    kind: str
    number: int
    bridge: str
    device: str
    traffic: str
    uplink: str
    mtu: int
    members: tuple[str, ...] = ()
    primary: int = 0
    secondaries: tuple[int, ...] = ()
    alone: bool = False
    hub: bool = False
    zone: int = 0

    @classmethod
    def of(cls, segment: Segment, members: tuple[str, ...] = ()) -> SegmentConfig:
        """Read CloudStack's broadcast URI.

        :param members: the MACs of the segment on this host.
        :raises ValueError: this host cannot carry such a segment.
        """
        kind, number = _isolation(segment)
        more: dict[str, Any] = {"hub": segment.hub}
        if kind == PVLAN:
            primary, role, number = private_vlan(segment)
            more |= {"primary": primary, "secondaries": segment.secondaries, "alone": role == ISOLATED}
        # Untagged and 802.1Q segments of two uplinks are two broadcast domains; a VNI is one throughout the zone.
        mark = _short(f"{segment.traffic} {segment.label}", 2)
        bridge, device = {
            VXLAN: (f"brvx-{number}", f"vxlan{number}"),
            VLAN: (f"brvl-{number}-{mark}", f"vlan{number}-{mark}"),
            VSWITCH: (f"brvs-{number}-{mark}", f"vs{number}-{mark}"),
            PVLAN: (f"brpv-{number}-{mark}", f"pv{number}-{mark}"),
            UNTAGGED: (f"brun-{mark}", ""),
        }[kind]
        named = segment.id, kind, number, bridge, device, segment.traffic, segment.label, segment.mtu
        return cls(*named, members=members if kind in (VSWITCH, PVLAN) else (), **more)


def _isolation(segment: Segment) -> tuple[str, int]:
    kind, _, value = segment.uri.partition("://")
    if kind == PVLAN:
        return PVLAN, 0
    if kind == VLAN and value == UNTAGGED:
        return UNTAGGED, 0
    last = {VXLAN: _LAST_VNI, VLAN: _LAST_VLAN, VSWITCH: _LAST_VLAN}.get(kind)
    if last is None:
        raise ValueError(
            f"Segment {segment.id} is {segment.uri!r}: an LXC host carries vxlan://, vlan://, vs:// and pvlan:// only."
        )
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= last):
        raise ValueError(f"Segment {segment.id} is {segment.uri!r}: the number must be from 1 to {last}.")
    return kind, int(value)


def private_vlan(segment: Segment) -> tuple[int, str, int]:
    """Read CloudStack's URI of a private VLAN, ``pvlan://PRIMARY-iSECONDARY``, where the letter is the role's.

    :return: the primary VLAN, the role (``i``, ``c`` or ``p``), and the VLAN whose tag its own frames have.
    :raises ValueError: it is none.
    """
    match = _PRIVATE.fullmatch(segment.uri)
    if match is None or not all(1 <= int(match[part]) <= _LAST_VLAN for part in (1, 3)):
        raise ValueError(
            f"Segment {segment.id} is {segment.uri!r}: a private VLAN is pvlan://PRIMARY-iSECONDARY (or -c, -p), with "
            f"numbers from 1 to {_LAST_VLAN}."
        )
    primary, role, secondary = int(match[1]), match[2], int(match[3])
    if (primary == secondary) != (role == PROMISCUOUS):
        raise ValueError(
            f"Segment {segment.id} is {segment.uri!r}: a promiscuous segment has the primary VLAN itself, and no other "
            "has."
        )
    return primary, role, secondary


@dataclass(frozen=True, slots=True)
class PortConfig:
    """A virtual cable from a segment's bridge into a guest or a shell.

    :param id: the NIC's UUID.
    :param port: the end in the bridge; ``device`` the end inside, ``ethN``, with the address ``mac``.
    :param rate: Mbit/s in each direction, 0 is unlimited.
    :param isolated: no frame goes between it and another such port of its bridge.
    """

    id: str
    port: str
    device: str
    mac: str
    segment: str
    mtu: int
    rate: int
    isolated: bool = False

    @classmethod
    def of(cls, nic: Nic, owner: str = "", *, isolated: bool = False) -> PortConfig:
        """Keep of a NIC what the host has to do with.

        :param owner: the target of the shell that has it, empty for a guest: while one shell takes over from another,
            both have the NIC, and each has a cable of its own.
        """
        device = f"eth{nic.device}"
        return cls(nic.id, port_name(nic.id, owner), device, nic.mac, nic.segment, nic.mtu, nic.rate, isolated)


@dataclass(frozen=True, slots=True)
class ShellConfig:
    """The namespace of one appliance; a higher ``boot`` is a new, empty one.

    :param dark: its cables are in no bridge; ``follows`` names the shell from which it takes over when they are.
    """

    id: str
    name: str
    running: bool
    boot: int
    ports: tuple[PortConfig, ...]
    dark: bool = False
    follows: str = ""


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """One container.

    :param cpus: how many processors' time it may use at most; ``mhz`` its weight for each of them under contention.
    :param memory: MiB.
    """

    id: str
    name: str
    hostname: str
    running: bool
    boot: int
    image: str
    image_checksum: str
    cpus: int
    mhz: int
    memory: int
    ports: tuple[PortConfig, ...]


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """The packet filter of a host's guests.

    :param guarded: a port has security groups: connections are tracked.
    :param elements: of each set and map of the template.
    :param refused: what was left out, by the id of its rule, group or NIC, and why.
    """

    guarded: bool
    elements: Mapping[str, tuple[str, ...]]
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """What is on a guest's drive: paths, and the files' contents as base64, in the order of the paths."""

    vm: str
    files: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, drive: ConfigDrive) -> DriveConfig:
        """Write a drive's files down."""
        found = files(drive)
        return cls(drive.vm, tuple((path, base64.b64encode(found[path]).decode()) for path in sorted(found)))


@dataclass(frozen=True, slots=True)
class HostConfig:
    """All that one host is to hold, each tuple in the order of its ids."""

    segments: tuple[SegmentConfig, ...]
    shells: tuple[ShellConfig, ...]
    guests: tuple[GuestConfig, ...]
    filters: FilterConfig
    drives: tuple[DriveConfig, ...] = ()

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """What is left out, by its UUID, and why."""
        return self.filters.refused
