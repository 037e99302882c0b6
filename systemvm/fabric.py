"""A zone's physical network made of namespaces: an internet, an underlay, and a namespace per host between them.

It plays what a data centre has before the cloud comes: nothing of the machine's own network is touched. Public frames
travel untagged from each host's ``pub0`` to the internet's bridge; tunnels travel from ``und0`` over the underlay,
whose MTU leaves room for VXLAN around full-sized guest frames.

Where guests are on flat networks (basic zones), each pod has one: untagged frames travel from the ``gst0`` of its hosts
to a bridge of the internet's, which plays the operator's router and has the pod's gateway there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from systemvm import links, netns
from systemvm.services import HostSettings

if TYPE_CHECKING:
    from pyroute2 import IPRoute

PUBLIC: Final = "pub0"
UNDERLAY: Final = "und0"
GUESTS: Final = "gst0"
_BRIDGE: Final = "br0"
_TUNNELS: Final = IPv4Network("172.31.255.0/24")
_UNDERLAY_MTU: Final = 1600
_MTU: Final = 1500
_NODAD: Final = 0x02  # IFA_F_NODAD: nobody else is there to have the address


class Flat(NamedTuple):
    """The flat guest network of a pod.

    :param gateway: the operator's address in it, and its length.
    :param hosts: names of the hosts that are on it.
    """

    gateway: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fabric:
    """A physical network.

    :param prefix: put before the name of each namespace.
    :param hosts: names of the hosts, at most 250; their order decides their tunnel addresses.
    :param gateway: address and length of the public range's gateway, which the internet holds.
    :param clients: addresses from elsewhere that the internet holds too, so that clients can come from several sources.
    :param gateway6: the same over IPv6, and ``clients6`` likewise; it has no route to any guest's prefix.
    :param pods: the pods' flat guest networks; none where guest networks travel over the underlay.
    """

    prefix: str
    hosts: tuple[str, ...] = ("host-1",)
    gateway: str = "203.0.113.1/24"
    clients: tuple[str, ...] = tuple(f"198.51.100.{number}" for number in range(1, 9))
    gateway6: str = "2001:db8:ffff::1/64"
    clients6: tuple[str, ...] = tuple(f"2001:db8:c::{number}" for number in range(1, 9))
    pods: tuple[Flat, ...] = ()

    @property
    def internet(self) -> str:
        """The namespace of the internet."""
        return f"{self.prefix}internet"

    @property
    def underlay(self) -> str:
        """The namespace of the switch between the hosts' guest uplinks."""
        return f"{self.prefix}underlay"

    def namespace(self, host: str) -> str:
        """Return the namespace that plays the host."""
        return f"{self.prefix}{host}"

    def tunnel(self, host: str) -> str:
        """Return the host's VXLAN address."""
        return str(_TUNNELS[self.hosts.index(host) + 1])

    def settings(self, host: str, state: Path) -> HostSettings:
        """Return what the agent of this host is to be told."""
        return HostSettings(
            host=host,
            namespace=self.namespace(host),
            prefix=self.prefix,
            state=state,
            uplinks={"Public": PUBLIC, "Guest": GUESTS if self.pods else UNDERLAY},
            tunnel=self.tunnel(host),
        )

    def ensure(self) -> list[str]:
        """Make what is missing of the network; return the namespaces and cables that were made now."""
        spaces = (self.internet, self.underlay, *(self.namespace(host) for host in self.hosts))
        done = [space for space in spaces if netns.ensure(space)]
        for space, mtu in ((self.internet, _MTU), (self.underlay, _UNDERLAY_MTU)):
            _ensure_bridge(space, _BRIDGE, mtu)
        _forward(self.internet)
        _ensure_addresses(self.internet, _BRIDGE, (self.gateway, self.gateway6))
        clients = tuple(f"{client}/32" for client in self.clients)
        _ensure_addresses(self.internet, "lo", clients + tuple(f"{client}/128" for client in self.clients6))
        for number, host in enumerate(self.hosts, start=1):
            space = self.namespace(host)
            port = f"h{number}"
            done += _ensure_cable((self.internet, _BRIDGE), port, space, PUBLIC, _MTU)
            done += _ensure_cable((self.underlay, _BRIDGE), port, space, UNDERLAY, _UNDERLAY_MTU)
            _ensure_addresses(space, UNDERLAY, (f"{self.tunnel(host)}/{_TUNNELS.prefixlen}",))
        return done + self._ensure_pods()

    def _ensure_pods(self) -> list[str]:
        done = []
        for number, pod in enumerate(self.pods, start=1):
            bridge = f"pod{number}"
            _ensure_bridge(self.internet, bridge, _MTU)
            _ensure_addresses(self.internet, bridge, (pod.gateway,))
            for host in pod.hosts:
                port = f"g{self.hosts.index(host) + 1}"
                done += _ensure_cable((self.internet, bridge), port, self.namespace(host), GUESTS, _MTU)
        if self.pods:
            _route(self.internet)
        return done

    def ensure_no(self) -> None:
        """Remove the network; repeatable. What lives on the hosts is removed before, by their agents."""
        for host in self.hosts:
            space = self.namespace(host)
            if netns.exists(space):
                with netns.netlink(space) as ip:
                    for device in (PUBLIC, UNDERLAY, GUESTS):
                        for number in ip.link_lookup(ifname=device):
                            ip.link("del", index=number)
            netns.ensure_no(space)
        netns.ensure_no(self.internet)
        netns.ensure_no(self.underlay)

    @contextmanager
    def standing(self) -> Iterator[Fabric]:
        """Hold the network up for the length of the block."""
        try:
            self.ensure()
            yield self
        finally:
            self.ensure_no()


def _ensure_bridge(space: str, name: str, mtu: int) -> None:
    with netns.netlink(space) as ip:
        if not ip.link_lookup(ifname=name):
            # Without a querier, snooping would in time forget who wants a VNI's group: so flood it.
            ip.link("add", ifname=name, kind="bridge", mtu=mtu, br_mcast_snooping=0, state="up")


def _ensure_cable(switch: tuple[str, str], port: str, space: str, device: str, mtu: int) -> list[str]:
    with netns.netlink(space) as ip:
        if ip.link_lookup(ifname=device):
            return []
    with netns.netlink(switch[0]) as ip:
        for number in ip.link_lookup(ifname=port):
            ip.link("del", index=number)  # its other end is in a namespace that has lost its name
        peer = {"ifname": device, "net_ns_fd": space, "mtu": mtu}
        ip.link("add", ifname=port, kind="veth", mtu=mtu, master=links.index(ip, switch[1]), state="up", peer=peer)
    with netns.netlink(space) as ip:
        ip.link("set", index=links.index(ip, device), state="up")
    return [f"{space}/{device}"]


def _ensure_addresses(space: str, device: str, addresses: tuple[str, ...]) -> None:
    with netns.netlink(space) as ip:
        number = links.index(ip, device)
        present = _addresses(ip, number)
        for address in addresses:
            if address not in present:
                plain, _, length = address.partition("/")
                flags = {"flags": _NODAD} if ":" in plain else {}
                ip.addr("add", index=number, address=plain, prefixlen=int(length), **flags)


def _addresses(ip: IPRoute, number: int) -> set[str]:
    found = ip.get_addr(index=number)
    local = ((message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"), message) for message in found)
    return {f"{address}/{message['prefixlen']}" for address, message in local}


def _forward(space: str) -> None:
    """Have the namespace pass IPv6 on, and take nobody's adverts for a way out."""
    with netns.entered(space):
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def _route(space: str) -> None:
    """Have the namespace lead from pod to pod, and take no packet from where its source is not."""
    with netns.entered(space):
        for switch in ("ip_forward", "conf/all/rp_filter"):
            Path(f"/proc/sys/net/ipv4/{switch}").write_text("1")
