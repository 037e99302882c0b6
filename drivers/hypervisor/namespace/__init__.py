"""Hosts whose guests are containers and whose appliances are network namespaces (``LXC`` in the API).

What must stay true: a bundle has one file per thing, so that one more guest is one more file and the agent sees at a
glance what changed; every thing is named by its UUID, and interface names follow from UUIDs alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from drivers.config_drive import ConfigDrive
from drivers.hypervisor.namespace import filters
from drivers.hypervisor.namespace.config import (
    ANYBODY,
    APPLIANCES,
    DriveConfig,
    GuestConfig,
    HostConfig,
    PortConfig,
    SegmentConfig,
    ShellConfig,
)
from drivers.protocol import Rendered
from drivers.vocabulary import Guest, HostFacts, Nic, Shell
from systemvm.bundle import Elements, File

Carried = Mapping[str, SegmentConfig]
"""The segments of a host by their ids."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


class Namespace:
    """The driver of hosts of hypervisor type LXC."""

    name = "LXC"
    kind = "host"

    def plan(self, facts: HostFacts) -> HostConfig:
        """Decide which bridges, shells and guests the host holds.

        :raises ValueError: a segment's isolation is not one that such a host has, a NIC is on a segment that is not
            among the facts, or a name would not do as a file's.
        """
        segments = _segments(facts)
        carried = {segment.id: segment for segment in segments}
        shells = tuple(_shell(shell, carried) for shell in sorted(facts.shells, key=lambda shell: shell.name))
        guests = tuple(_guest(guest, carried) for guest in sorted(facts.guests, key=lambda guest: guest.id))
        drives = tuple(_drive(drive) for drive in sorted(facts.drives, key=lambda drive: drive.vm))
        return HostConfig(segments, shells, guests, filters.plan(facts, segments), drives)

    def render(self, config: HostConfig) -> Rendered:
        """Write one JSON file per shell, guest and drive, one of all segments, and the packet filter's skeleton."""
        files = [File("segments.json", _json([asdict(segment) for segment in config.segments]), "segments")]
        files += [File("nftables.nft", _filter().render(part=config.filters), "nft")]
        if config.filters.refused:
            files += [File("refused.json", _json(config.filters.refused), "nft")]
        files += [File(f"shells/{shell.name}.json", _json(asdict(shell)), "shells") for shell in config.shells]
        files += [File(f"guests/{guest.id}.json", _json(asdict(guest)), "guests") for guest in config.guests]
        files += [File(f"drives/{d.vm}.json", _json(asdict(d)), "drives", secret=True) for d in config.drives]
        return tuple(files), tuple(Elements(name, items) for name, items in sorted(config.filters.elements.items()))


@cache
def _filter() -> Template:
    loader = PackageLoader("templates", "host")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - no web page; what goes in was checked
    return environment.get_template("nftables.nft.j2")


def _segments(facts: HostFacts) -> tuple[SegmentConfig, ...]:
    """Decide on the bridges; networks that share a VLAN share its bridge, and what the bridge does."""
    members, zones = _members(facts), filters.zones(facts.filters)
    found = [SegmentConfig.of(segment, members.get(segment.id, ())) for segment in sorted(facts.segments)]
    sharing: dict[str, list[SegmentConfig]] = {}
    for segment in found:
        sharing.setdefault(segment.bridge, []).append(segment)
    return tuple(replace(segment, **_of_bridge(sharing[segment.bridge], zones)) for segment in found)


def _of_bridge(segments: Sequence[SegmentConfig], zones: Mapping[str, int]) -> dict[str, Any]:
    return {
        "members": tuple(sorted({mac for segment in segments for mac in segment.members})),
        "hub": any(segment.hub for segment in segments),
        "mtu": max(segment.mtu for segment in segments),
        "zone": max(zones.get(segment.id, 0) for segment in segments),
    }


def _members(facts: HostFacts) -> dict[str, tuple[str, ...]]:
    """Return the MACs that live here by segment; a router among them may speak with one that it shares."""
    found: dict[str, set[str]] = {}
    for shell in facts.shells:
        for nic in shell.nics:
            found.setdefault(nic.segment, set()).update((nic.mac, APPLIANCES))
    for nic in (nic for guest in facts.guests for nic in guest.nics):
        found.setdefault(nic.segment, set()).add(nic.mac)
    for port in facts.filters:
        if port.forged:
            found.setdefault(port.segment, set()).add(ANYBODY)
    return {segment: tuple(sorted(macs)) for segment, macs in found.items()}


def _shell(shell: Shell, carried: Carried) -> ShellConfig:
    _check_name(shell.name)
    ports = _ports(shell.name, shell.nics, carried, shell.target)
    if shell.follows:
        _check_name(shell.follows)
    return ShellConfig(shell.target, shell.name, shell.running, shell.boot, ports, shell.dark, shell.follows)


def _guest(guest: Guest, carried: Carried) -> GuestConfig:
    _check_name(guest.name)
    _check_name(guest.id)
    return GuestConfig(
        id=guest.id,
        name=guest.name,
        hostname=guest.hostname,
        running=guest.running,
        boot=guest.boot,
        image=guest.image,
        image_checksum=guest.image_checksum,
        cpus=guest.cpus,
        mhz=guest.mhz,
        memory=guest.memory,
        ports=_ports(guest.name, guest.nics, carried),
    )


def _drive(drive: ConfigDrive) -> DriveConfig:
    _check_name(drive.vm)
    for name, _ in drive.items:
        _check_name(name)
    return DriveConfig.of(drive)


def _ports(owner: str, nics: Iterable[Nic], carried: Carried, shell: str = "") -> tuple[PortConfig, ...]:
    nics = sorted(nics, key=lambda nic: nic.device)
    for nic in nics:
        if nic.segment not in carried:
            raise ValueError(f"NIC {nic.mac} of {owner} is on segment {nic.segment}, which is not among the facts.")
    ports = tuple(PortConfig.of(nic, shell, isolated=carried[nic.segment].alone) for nic in nics)
    if len({port.device for port in ports}) < len(ports):
        raise ValueError(f"Two NICs of {owner} have the same device number; each needs its own.")
    return ports


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a guest, shell or item of metadata: use letters, digits, '.', '_' and '-'."
        )


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
