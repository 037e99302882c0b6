"""Segments: the bridges of a host, and what joins each to the same segment on other hosts.

A segment is known by its bridge's name. Its VXLAN device speaks from the host's tunnel address over the guest uplink,
to a multicast group that follows from the VNI (RFC 7348); an 802.1Q interface sits on the uplink of its traffic type.
Where the kernel has no 802.1Q, and always for segments of the provider Ovs, Open vSwitch puts the tag on instead: a
cable joins the bridge to the virtual switch on the uplink.
A segment that nothing wants any more goes when its last port has gone.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2.netlink.exceptions import NetlinkError

from systemvm import links, netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.links import Link
from systemvm.openflow import Lane
from systemvm.ovs import Vswitch
from systemvm.ports import Bay
from systemvm.services import HostSettings, Place

if TYPE_CHECKING:
    from pyroute2 import IPRoute

VXLAN_OVERHEAD = 50
"""Bytes that VXLAN over IPv4 needs of the uplink's MTU beyond the guests': inner Ethernet, VXLAN, UDP and IPv4."""

_VXLAN_PORT = 4789
_LONGEST_NAME = 15
_AGEING = 30_000
"""How long a bridge remembers where a MAC is unless told otherwise: in hundredths of a second."""
ANYBODY = "00:00:00:00:00:00/00:00:00:00:00:00"
"""Among the members of a segment: whoever it is."""
SWITCHED = ("vs", "pvlan")
"""The kinds that Open vSwitch carries always."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as the bundle has it: see ``drivers.hypervisor.namespace.config.SegmentConfig``."""

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

    @property
    def lane(self) -> Lane:
        """What it is to the virtual switch; a plain VLAN is sent everything, as is one whose guests' MACs are free."""
        members = self.members if self.kind in SWITCHED and ANYBODY not in self.members else None
        return Lane(self.far_end, self.number, members, self.primary, self.secondaries, self.alone)

    @property
    def far_end(self) -> str:
        """The virtual switch's end of the cable whose other end is ``device``."""
        return f"o{self.device}"

    def uplink_of(self, host: HostSettings) -> str:
        """Return the host's device for this traffic.

        :raises RuntimeError: the host was given none.
        """
        name = self.uplink or host.uplinks.get(self.traffic, "")
        if not name:
            raise RuntimeError(f"the agent was given no uplink for {self.traffic} traffic")
        return name


def wanted(bundle: Bundle) -> tuple[Segment, ...]:
    """Return the segments of a bundle."""
    texts = (file.content for file in bundle.files if file.service == Segments.name)
    found = (segment for text in texts for segment in json.loads(text))
    lists = ("members", "secondaries")
    return tuple(Segment(**(one | {name: tuple(one.get(name, ())) for name in lists})) for one in found)


def bay(host: HostSettings, bundle: Bundle | None) -> Bay:
    """Read the host's links once, for a pass over all that is plugged into the segments of a bundle."""
    present = {}
    if not host.namespace or netns.exists(host.namespace):
        with netns.netlink(host.namespace) as ip:
            present = links.read(ip)
    names = {segment.id: _bridge_name(host, present, segment) for segment in (wanted(bundle) if bundle else ())}
    made = {segment: name for segment, name in names.items() if name in present}
    return Bay(host.namespace, host.prefix, made, present)


def prune(host: HostSettings, bundle: Bundle | None, present: Mapping[str, Link]) -> list[str]:
    """Remove the host's segments that the bundle does not have and that no port is in; return what was removed.

    :param present: the host's links; those made since are in segments that the bundle has.
    """
    keep = {name for segment in wanted(bundle) for name in (segment.bridge, segment.device)} if bundle else set()
    mark = links.mark(host.prefix, "segment")
    ours = {link.name: link for link in present.values() if link.alias.startswith(mark)}
    unused = []
    for link in ours.values():
        if link.kind != "bridge" or link.name in keep:
            continue
        ports = [other for other in present.values() if other.master == link.index]
        uplink = link.alias.removeprefix(mark)
        if all(port.name in ours or port.name == uplink for port in ports):
            unused += [*(port for port in ports if port.name in ours), link]
    if unused:
        with netns.netlink(host.namespace) as ip:
            for link in unused:
                ip.link("del", index=link.index)
    return [f"removed the unused bridge {link.name}" for link in unused if link.kind == "bridge"]


def _bridge_name(host: HostSettings, present: Mapping[str, Link], segment: Segment) -> str:
    if segment.kind == "untagged":
        uplink = present.get(segment.uplink or host.uplinks.get(segment.traffic, ""))
        if uplink is not None and uplink.kind == "bridge":
            return uplink.name  # the operator's own bridge, as CloudStack's traffic labels name it
    return segment.bridge


class Segments:
    """The service that holds the bridges of a host."""

    name = "segments"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """See that the file is what the driver writes."""
        del place, staged
        try:
            found = wanted(bundle)
        except (ValueError, TypeError) as error:
            return [Failure("segments.json", f"The segments cannot be read: {error}.")]
        names = {name for segment in found for name in (segment.bridge, segment.device)}
        return [
            Failure("segments.json", f"{n!r} is too long for an interface's name.")
            for n in names
            if len(n) > _LONGEST_NAME
        ]

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Make what is missing; a segment that cannot be made is a failure of its own."""
        del old
        return self._bring_about(place, new)[1]

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Make again what was lost, and remove what nothing uses."""
        return self._bring_about(place, bundle)[0]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Say of each segment whether it carries."""
        found = bay(place.host, bundle).bridges
        reason = f"{place.host.host} does not have its bridge."
        health = [(f"segment {s.id}", "" if s.id in found else reason) for s in wanted(bundle)]
        switch = Vswitch(place)
        if switch.wanted:
            health.append(("openvswitch", switch.trouble()))
        return Observation(bundle.target, health=tuple(health))

    def remove(self, place: Place) -> None:
        """Remove every segment that no port is in, and end the virtual switch."""
        Vswitch(place).remove()
        prune(place.host, None, bay(place.host, None).present)

    def _bring_about(self, place: Place, bundle: Bundle) -> tuple[list[str], list[Failure]]:
        done, failures, host = [], [], place.host
        if host.namespace:
            _leave_frames_alone(host.namespace)
        with netns.netlink(host.namespace) as ip:
            maker = _Maker(ip, host, links.read(ip))
            for segment in wanted(bundle):
                try:
                    done += maker.ensure(segment)
                except (RuntimeError, NetlinkError, OSError) as error:
                    failures.append(Failure(segment.id, _sentence(host, segment, error)))
        done += prune(host, bundle, maker.present)
        try:
            done += _switch(place, maker)
        except (RuntimeError, OSError) as error:
            switched = (segment for on in maker.switched.values() for segment in on)
            failures += [Failure(segment.id, _sentence(host, segment, error)) for segment in switched]
        return done, failures


def _switch(place: Place, maker: _Maker) -> list[str]:
    """Have Open vSwitch carry the segments that are its."""
    lanes = {}
    for uplink, segments in maker.switched.items():
        lanes[uplink] = list(dict.fromkeys(segment.lane for segment in segments))
    return Vswitch(place).ensure(lanes, {link.name: link.index for link in maker.present.values()})


def _leave_frames_alone(namespace: str) -> None:
    """Keep bridged frames out of the L3 hooks: every new namespace begins with them on where br_netfilter is there."""
    with netns.entered(namespace):
        for family in ("ip", "ip6", "arp"):
            switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables")
            if switch.exists() and switch.read_text().strip() != "0":
                switch.write_text("0")


def _sentence(host: HostSettings, segment: Segment, error: Exception) -> str:
    what = segment.kind if segment.kind == "untagged" else f"{segment.kind} {segment.number}"
    if segment.kind == "vlan" and not isinstance(error, NetlinkError) and "Open vSwitch" in str(error):
        error = RuntimeError(f"its kernel has no 802.1Q (module 8021q, CONFIG_VLAN_8021Q), and {error}")
    if isinstance(error, NetlinkError) and error.code == errno.EOPNOTSUPP and segment.kind == "vxlan":
        error = RuntimeError("its kernel has no VXLAN (module vxlan, CONFIG_VXLAN)")
    if isinstance(error, NetlinkError):
        error = RuntimeError(f"its kernel says: {os.strerror(abs(error.code))}")
    return f"{host.host} cannot carry {segment.traffic} {what}: {error}"


class _Maker:
    """One pass over the links of a host."""

    def __init__(self, ip: IPRoute, host: HostSettings, present: dict[str, Link]) -> None:
        self.ip, self.host, self.present = ip, host, present
        self.mark = links.mark(host.prefix, "segment")
        self.switched: dict[str, list[Segment]] = {}
        """Uplink → the segments on it that Open vSwitch carries."""

    def ensure(self, segment: Segment) -> list[str]:
        uplink = self._uplink(segment)
        if segment.kind == "untagged" and uplink.kind == "bridge":
            if segment.hub:
                raise RuntimeError(f"{uplink.name} is the operator's own bridge, and is not made to flood all frames")
            return []
        if segment.kind == "untagged":
            self._refuse_addressed(uplink)
        if segment.kind == "vxlan" and not self.host.tunnel:
            raise RuntimeError("the agent was given no tunnel address")
        done = []
        bridge = self.present.get(segment.bridge)
        if bridge is None or (bridge.mtu, bridge.hub, bridge.up) != (segment.mtu, segment.hub, True):
            bridge = self._bridge(segment, bridge, uplink)
            done.append(f"made the bridge {segment.bridge}")
        if segment.kind == "untagged":
            port, made = uplink, False
        else:
            port, made = self._device(segment, uplink)
        if made or port.master != bridge.index or not port.up:
            self.ip.link("set", index=port.index, master=bridge.index, state="up")
            done.append(f"joined {port.name} to {segment.bridge}")
        return done

    def _uplink(self, segment: Segment) -> Link:
        name = segment.uplink_of(self.host)
        link = self.present.get(name)
        if link is None:
            raise RuntimeError(f"there is no device {name}")
        needed = segment.mtu + (VXLAN_OVERHEAD if segment.kind == "vxlan" else 0)
        if link.mtu < needed:
            raise RuntimeError(
                f"frames of {segment.mtu} bytes need an MTU of {needed} on {name}, which has {link.mtu}: "
                f"raise it, or lower the network's MTU to {segment.mtu - needed + link.mtu}"
            )
        return link

    def _refuse_addressed(self, uplink: Link) -> None:
        """A device in a bridge no longer receives for its own addresses: the host would cut itself off."""
        for message in self.ip.get_addr(index=uplink.index, family=2):
            raise RuntimeError(
                f"{uplink.name} carries the host's own address {message.get_attr('IFA_ADDRESS')}: "
                "put it into a bridge that carries the address, and name that bridge as the uplink"
            )

    def _bridge(self, segment: Segment, bridge: Link | None, uplink: Link) -> Link:
        if bridge is None:
            # A guest that plays MLD querier must not decide who hears the neighbours' solicitations: so flood them.
            self.ip.link("add", ifname=segment.bridge, kind="bridge", mtu=segment.mtu, br_mcast_snooping=0)
            links.silence(self.host.namespace, segment.bridge)
        number = links.index(self.ip, segment.bridge)
        if (
            bridge is not None and bridge.hub
        ) != segment.hub:  # one that forgets at once floods (bridge(8), ageing_time)
            self.ip.link("set", index=number, kind="bridge", br_ageing_time=0 if segment.hub else _AGEING)
        held = uplink.name if segment.kind == "untagged" else ""
        self.ip.link("set", index=number, mtu=segment.mtu, state="up", ifalias=f"{self.mark}{held}")
        return self._read(segment.bridge)

    def _device(self, segment: Segment, uplink: Link) -> tuple[Link, bool]:
        spec: dict[str, int | str] = {"kind": "vlan", "link": uplink.index, "vlan_id": segment.number}
        if segment.kind == "vxlan":
            links.admit_groups(self.host.namespace)
            spec = {
                "kind": "vxlan",
                "vxlan_id": segment.number,
                "vxlan_local": self.host.tunnel,
                "vxlan_group": group(segment.number),
                "vxlan_link": uplink.index,
                "vxlan_port": _VXLAN_PORT,
            }
        made_as = f"{self.mark}{' '.join(str(value) for value in spec.values())}"
        cable = f"{self.mark}{segment.far_end}"
        device = self.present.get(segment.device)
        if device is not None and device.alias == made_as:
            return self._resized(device, segment), False
        if device is not None and device.alias == cable and segment.far_end in self.present:
            self._resized(self.present[segment.far_end], segment)
            self._carry(segment, uplink)
            return self._resized(device, segment), False
        if device is not None:
            self.ip.link("del", index=device.index)
        if segment.kind in SWITCHED or not self._add(segment, spec):
            peer = {"ifname": segment.far_end, "mtu": segment.mtu}
            self.ip.link("add", ifname=segment.device, kind="veth", mtu=segment.mtu, peer=peer)
            self._carry(segment, uplink)
            made_as = cable
        links.silence(self.host.namespace, segment.device)
        self.ip.link("set", index=links.index(self.ip, segment.device), ifalias=made_as)
        return self._read(segment.device), True

    def _resized(self, link: Link, segment: Segment) -> Link:
        """Give a device that is there the segment's MTU: frames go on passing meanwhile."""
        if link.mtu == segment.mtu:
            return link
        self.ip.link("set", index=link.index, mtu=segment.mtu)
        return self._read(link.name)

    def _add(self, segment: Segment, spec: dict[str, int | str]) -> bool:
        """Make the kernel's own device; False where its 802.1Q is not there and Open vSwitch can do the same."""
        try:
            self.ip.link("add", ifname=segment.device, mtu=segment.mtu, **spec)
        except NetlinkError as error:
            if segment.kind == "vlan" and error.code == errno.EOPNOTSUPP:
                return False
            if segment.kind != "vxlan" or error.code != errno.EEXIST:
                raise
            name = next((link.name for link in self.present.values() if _vni(self.ip, link) == segment.number), "")
            what = f"its device {name} has" if name else "another device of it has"
            raise RuntimeError(f"{what} this VNI already: remove it, or use another VNI") from None
        return True

    def _carry(self, segment: Segment, uplink: Link) -> None:
        """Note that Open vSwitch has the segment, with its end of the cable up."""
        links.silence(self.host.namespace, segment.far_end)
        self.ip.link("set", index=links.index(self.ip, segment.far_end), state="up")
        self._read(segment.far_end)
        self.switched.setdefault(uplink.name, []).append(segment)

    def _read(self, name: str) -> Link:
        self.present[name] = links.read(self.ip, name)[name]
        return self.present[name]


def _vni(ip: IPRoute, link: Link) -> int | None:
    if link.kind != "vxlan":
        return None
    (message,) = ip.get_links(link.index)
    number: int | None = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VXLAN_ID")
    return number


def group(vni: int) -> str:
    """Return the multicast group of a VNI: ``239.`` and its three bytes, as CloudStack's agents choose it."""
    return f"239.{vni >> 16 & 255}.{vni >> 8 & 255}.{vni & 255}"
