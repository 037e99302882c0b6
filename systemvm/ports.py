"""Ports: virtual cables (veth) from a host's bridges into the namespaces of guests and appliances.

What must stay true: only the difference is touched, so the other cables of a running guest never blink; the host's end
has a name that follows from the NIC's UUID, so filters can be written before the port is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

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
    :param present: the host's links as they were when the pass over them began, less what was removed since.
    """

    namespace: str
    prefix: str
    bridges: Mapping[str, str]
    present: dict[str, Link]

    def plug(self, space: str, wanted: Sequence[Port], *, up: bool = False) -> list[str]:
        """Bring the cables into ``space`` to what is wanted; return what was done, empty when all was as it should be.

        :param up: also bring up the ends inside (a guest's own init does that itself).
        :raises RuntimeError: a segment has no bridge here.
        """
        owned = links.mark(self.prefix, "port") + f"{space} "
        names = {port.port for port in wanted}
        extra = [link for link in self.present.values() if link.alias.startswith(owned) and link.name not in names]
        different = [port for port in wanted if not self._is_right(space, port)]
        if not extra and not different:
            return []
        done = []
        with netns.netlink(self.namespace) as ip:
            for link in extra:
                self._remove(ip, link)
                done.append(f"unplugged {link.name} from {space}")
            done += [self._ensure(ip, space, port) for port in different]
        if up:
            _bring_up(space, different)
        return done

    def _bridge(self, port: Port) -> Link:
        name = self.bridges.get(port.segment)
        if name is None:
            raise RuntimeError(f"The segment {port.segment} of NIC {port.mac} is not on this host.")
        return self.present[name]

    def _cable(self, space: str, port: Port) -> str:
        return links.mark(self.prefix, "port") + f"{space} {port.device} {port.mac} {port.mtu} "

    def _is_right(self, space: str, port: Port) -> bool:
        link = self.present.get(port.port)
        if link is None or not link.up:
            return False
        return link.alias == f"{self._cable(space, port)}{port.rate}" and link.master == self._bridge(port).index

    def _ensure(self, ip: IPRoute, space: str, port: Port) -> str:
        bridge, cable = self._bridge(port), self._cable(space, port)
        link = self.present.get(port.port)
        if link is not None and not link.alias.startswith(cable):
            self._remove(ip, link)
            link = None
        if link is None:
            self._make(ip, space, port, bridge.index)
            return f"plugged {port.device} ({port.mac}) into {space}"
        if link.alias != f"{cable}{port.rate}":
            _limit(ip, link.index, port)
        ip.link("set", index=link.index, master=bridge.index, state="up", ifalias=f"{cable}{port.rate}")
        return f"put {port.device} of {space} on {bridge.name} with {port.rate or 'unlimited'} Mbit/s"

    def _make(self, ip: IPRoute, space: str, port: Port, bridge: int) -> None:
        inside = {"ifname": port.device, "net_ns_fd": space, "address": port.mac, "mtu": port.mtu}
        ip.link("add", ifname=port.port, kind="veth", mtu=port.mtu, master=bridge, peer=inside)
        links.silence(self.namespace, port.port)
        number = links.index(ip, port.port)
        if port.rate:
            _limit(ip, number, port)
        ip.link("set", index=number, state="up", ifalias=f"{self._cable(space, port)}{port.rate}")

    def _remove(self, ip: IPRoute, link: Link) -> None:
        ip.link("del", index=link.index)
        del self.present[link.name]
        shaper = self.present.pop(f"ifb{link.name[3:]}", None)
        if shaper is not None:
            ip.link("del", index=shaper.index)

    def unplug(self, space: str) -> None:
        """Take every cable out of ``space``; repeatable."""
        self.plug(space, ())


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
