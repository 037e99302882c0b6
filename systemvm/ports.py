"""Ports: virtual cables (veth) from a host's bridges into the namespaces of guests and appliances.

What must stay true: only the difference is touched, so the other cables of a running guest never blink; the host's end
has a name that follows from the NIC's UUID, so filters can be written before the port is there; an isolated one is up
only once it is isolated (bridge(8)).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from systemvm import links, netns
from systemvm.links import Link

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_ROOT: Final = 0x10000
_INGRESS: Final = 0xFFFF0000
_ALL_PROTOCOLS: Final = 0x0003
_BYTES_PER_MBIT: Final = 125_000
_SMALLEST_BURST: Final = 64 * 1024  # one full GSO packet must fit


@dataclass(frozen=True, slots=True)
class Port:
    """A cable as the bundle has it: see ``drivers.hypervisor.namespace.config.PortConfig``."""

    id: str
    port: str
    device: str
    mac: str
    segment: str
    mtu: int
    rate: int
    isolated: bool = False

    @property
    def limits(self) -> str:
        """What else the cable was made with, as its alias says at its end."""
        return f"{self.rate}{'i' if self.isolated else ''}"

    @property
    def shaper(self) -> str:
        """The device (ifb) that slows down what comes out of the guest."""
        return f"ifb{self.port[3:]}"

    @property
    def counter(self) -> str:
        """The name under which its bytes are reported, without the direction."""
        return f"nic_{self.id.replace('-', '')}"


@dataclass(frozen=True, slots=True)
class Bay:
    """Where cables end.

    :param namespace: the host's network namespace; ``prefix`` that of the agent.
    :param bridges: segment id → its bridge in the host's namespace.
    :param present: the host's links as they were when the pass over them began, less what was removed and with the
        cables that were made or moved since.
    """

    namespace: str
    prefix: str
    bridges: Mapping[str, str]
    present: dict[str, Link]

    def plug(self, space: str, wanted: Sequence[Port], *, up: bool = False, dark: bool = False) -> list[str]:
        """Bring the cables into ``space`` to what is wanted; return what was done, empty when all was as it should be.

        :param up: also bring up the ends inside (a guest's own init does that itself).
        :param dark: their ends here are in no bridge.
        :raises RuntimeError: a segment has no bridge here.
        """
        names = {port.port for port in wanted}
        extra = [link for link in self.held(space) if link.name not in names]
        different = [port for port in wanted if not self._is_right(space, port, dark)]
        if not extra and not different:
            return []
        done: list[str] = []
        with netns.netlink(self.namespace) as ip:
            for link in extra:
                self._remove(ip, link)
                done.append(f"unplugged {link.name} from {space}")
            done += [self._ensure(ip, space, port, dark) for port in different]
        for port in different if dark else ():
            links.mute(self.namespace, port.port)
        if up:
            _bring_up(space, different)
        return done

    def is_lit(self, port: Port) -> bool:
        """Tell whether the cable is there, in its bridge."""
        link = self.present.get(port.port)
        return link is not None and link.master == self._bridge(port).index

    def _bridge(self, port: Port) -> Link:
        name = self.bridges.get(port.segment)
        if name is None:
            raise RuntimeError(f"The segment {port.segment} of NIC {port.mac} is not on this host.")
        return self.present[name]

    def _cable(self, space: str, port: Port) -> str:
        return links.mark(self.prefix, "port") + f"{space} {port.device} {port.mac} "

    def _alias(self, space: str, port: Port) -> str:
        return f"{self._cable(space, port)}{port.mtu} {port.limits}"

    def _is_right(self, space: str, port: Port, dark: bool) -> bool:
        link = self.present.get(port.port)
        if link is None or not link.up:
            return False
        master = 0 if dark else self._bridge(port).index
        return link.alias == self._alias(space, port) and link.mtu == port.mtu and link.master == master

    def _ensure(self, ip: IPRoute, space: str, port: Port, dark: bool) -> str:
        bridge, cable = self._bridge(port), self._cable(space, port)
        master = 0 if dark else bridge.index
        link = self.present.get(port.port)
        if link is not None and not link.alias.startswith(cable):
            self._remove(ip, link)
            link = None
        if link is None:
            self._make(ip, space, port, master)
            return f"plugged {port.device} ({port.mac}) into {space}"
        if link.mtu != port.mtu:
            _resize(ip, space, link.index, port.mtu)
        if link.alias.split()[-1] != port.limits:
            _limit(ip, link.index, port)
        if master and port.isolated:
            ip.link("set", index=link.index, master=master, state="down")
            ip.brport("set", index=link.index, isolated=1)
        ip.link("set", index=link.index, master=master, state="up", ifalias=self._alias(space, port))
        self.present[port.port] = links.read(ip, port.port)[port.port]
        where = "nothing" if dark else bridge.name
        return f"put {port.device} of {space} on {where} with {port.rate or 'unlimited'} Mbit/s"

    def _make(self, ip: IPRoute, space: str, port: Port, master: int) -> None:
        inside = {"ifname": port.device, "net_ns_fd": space, "address": port.mac, "mtu": port.mtu}
        cable = {"ifname": port.port, "kind": "veth", "mtu": port.mtu, "peer": inside}
        cable |= {"master": master} if master else {}
        try:
            ip.link("add", **cable)
        except NetlinkError as error:
            if error.code != errno.EEXIST or not _forget(space, port.device):
                raise
            ip.link("add", **cable)
        links.silence(self.namespace, port.port)
        number = links.index(ip, port.port)
        if port.rate:
            _limit(ip, number, port)
        if master and port.isolated:
            ip.brport("set", index=number, isolated=1)
        ip.link("set", index=number, state="up", ifalias=self._alias(space, port))
        self.present[port.port] = links.read(ip, port.port)[port.port]

    def _remove(self, ip: IPRoute, link: Link) -> None:
        ip.link("del", index=link.index)
        del self.present[link.name]
        shaper = self.present.pop(f"ifb{link.name[3:]}", None)
        if shaper is not None:
            ip.link("del", index=shaper.index)

    def held(self, space: str) -> list[Link]:
        """Return the host's ends of all cables into ``space``."""
        owned = links.mark(self.prefix, "port") + f"{space} "
        return [link for link in self.present.values() if link.alias.startswith(owned)]

    def mac_of(self, link: Link) -> str:
        """Return the MAC of the end inside, which its alias tells."""
        return link.alias.split()[-3]

    def move(self, old: str, new: Sequence[Port]) -> None:
        """Have the bridges' frames go to these cables instead of those into ``old``, one bridge after the other.

        Never are both in a bridge, and all happens within one call into the kernel.
        """
        before = {link.master: link for link in self.held(old) if link.master}
        moves: list[tuple[Link, int]] = []
        for port in new:
            bridge, link = self._bridge(port), self.present[port.port]
            if leaving := before.pop(bridge.index, None):
                moves.append((leaving, 0))
            if link.master != bridge.index:
                moves.append((link, bridge.index))
        moves += [(leaving, 0) for leaving in before.values()]
        links.remaster(self.namespace, [(link.index, master) for link, master in moves])
        self.present.update({link.name: replace(link, master=master) for link, master in moves})

    def unplug(self, space: str) -> None:
        """Take every cable out of ``space``; repeatable."""
        self.plug(space, ())


def _forget(space: str, device: str) -> bool:
    """Remove the end inside of a cable whose host is gone: the kernel does so, too, but in its own time."""
    with netns.netlink(space) as within:
        found = within.link_lookup(ifname=device)
        for number in found:
            within.link("del", index=number)
    return bool(found)


def _resize(ip: IPRoute, space: str, number: int, mtu: int) -> None:
    """Give both ends of a cable another MTU, whatever the end inside is called by now: nothing is unplugged."""
    (message,) = ip.get_links(number)
    ip.link("set", index=number, mtu=mtu)
    with netns.netlink(space) as within:
        within.link("set", index=message.get_attr("IFLA_LINK"), mtu=mtu)


def _bring_up(space: str, wanted: Sequence[Port]) -> None:
    with netns.netlink(space) as ip:
        for port in wanted:
            ip.link("set", index=links.index(ip, port.device), state="up")


def _limit(ip: IPRoute, number: int, port: Port) -> None:
    """Limit both directions from outside the guest, where it cannot undo it: tc-tbf(8), and an ifb for its upload."""
    for shaper in ip.link_lookup(ifname=port.shaper):
        ip.tc("del", index=number, handle=_ROOT, root=True)
        ip.tc("del", "ingress", number, _INGRESS)
        ip.link("del", index=shaper)
    if not port.rate:
        return
    speed = port.rate * _BYTES_PER_MBIT
    bucket = {"rate": speed, "burst": max(_SMALLEST_BURST, speed // 100), "latency": "50ms"}
    ip.link("add", ifname=port.shaper, kind="ifb", state="up")
    shaper = links.index(ip, port.shaper)
    ip.tc("add", "tbf", number, handle=_ROOT, **bucket)
    ip.tc("add", "tbf", shaper, handle=_ROOT, **bucket)
    ip.tc("add", "ingress", number, _INGRESS)
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": shaper}
    everything: dict[str, Any] = {"keys": ["0x0/0x0+0"], "target": _ROOT | 1, "action": redirect}
    ip.tc("add-filter", "u32", number, parent=_INGRESS, protocol=_ALL_PROTOCOLS, prio=1, **everything)


def counters(present: Mapping[str, Link], wanted: Sequence[Port]) -> list[tuple[str, int, int]]:
    """Return (name, packets, bytes) of each port: ``nic_<hex>_in`` went into the guest, ``nic_<hex>_out`` came out."""
    found = []
    for port in wanted:
        if link := present.get(port.port):
            found += [(f"{port.counter}_in", *link.sent), (f"{port.counter}_out", *link.received)]
    return found
