"""Links: names, addresses, routes, policy rules, sysctls and shaping of a target's interfaces, found by their MAC.

The interfaces themselves are plugged by the host's own bundle, which may come a moment later: this service waits for
them. Only differences are touched, so an unchanged interface loses no packet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from systemvm import gate, netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.services import Place, shaping
from systemvm.services.arp import announce
from systemvm.services.routing import set_routes, set_rules

FILE = "interfaces.json"
_WAIT = 5.0
_UP = 0x1
_UNIVERSE, _LINK_SCOPE = 0, 253
_NODAD = 0x02  # IFA_F_NODAD: see rtnetlink(7)


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface as it is to be.

    :param addresses: in CIDR notation, all of them, the first being the source of the target's own traffic.
    :param mtu: bytes; 0 leaves it.
    :param rate: Mbit/s of what leaves through it; 0 is unlimited.
    :param shared: the MAC that it shares with a redundant router's other half, behind a gate; empty where it has none.
    """

    mac: str
    name: str
    addresses: tuple[str, ...]
    mtu: int
    rate: int
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The whole file."""

    interfaces: tuple[Interface, ...]
    routes: tuple[Mapping[str, Any], ...]
    rules: tuple[Mapping[str, Any], ...]
    sysctls: Mapping[str, str]


def read(text: str) -> Wanted:
    """Read ``interfaces.json``.

    :raises ValueError: a value in it cannot be; the sentence says which.
    """
    data = json.loads(text)
    interfaces = tuple(
        Interface(
            mac=entry["mac"].lower(),
            name=entry["name"],
            addresses=tuple(str(ip_interface(address)) for address in entry.get("addresses", ())),
            mtu=int(entry.get("mtu") or 0),
            rate=int(entry.get("rate") or 0),
            shared=(entry.get("shared") or "").lower(),
        )
        for entry in data["interfaces"]
    )
    for what in ("mac", "name"):
        values = [getattr(interface, what) for interface in interfaces]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"Two interfaces have the {what} {twice[0]}.")
    for key in data.get("sysctls", {}):
        _sysctl(key)
    return Wanted(
        interfaces,
        tuple(data.get("routes", ())),
        tuple(data.get("rules", ())),
        {key: str(value) for key, value in data.get("sysctls", {}).items()},
    )


class Links:
    """The service ``links``."""

    name = "links"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Read the file, and wait for the target's namespace, in which the later checks are made."""
        if not (staged / FILE).exists():
            return []
        try:
            read((staged / FILE).read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
            return [
                Failure(FILE, f"{FILE}: {line}{error!r}" if isinstance(error, KeyError) else f"{FILE}: {line}{error}")
            ]
        deadline = time.monotonic() + _WAIT
        while place.namespace and not netns.exists(place.namespace):
            if time.monotonic() > deadline:
                reason = f"The namespace {place.namespace} is not there: the host's own bundle makes it."
                return [Failure(FILE, f"{FILE}: {reason}")]
            time.sleep(0.02)
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Wait for the interfaces and make them so."""
        self._bring(place, _WAIT)
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Make them so again."""
        return self._bring(place, 0)

    def _bring(self, place: Place, wait: float) -> list[str]:
        file = place.current / FILE
        if not file.exists():
            return []
        wanted = read(file.read_text(encoding="utf-8"))
        with netns.netlink(place.namespace) as ip:
            found = _await(ip, wanted, wait, place)
            done = _rename(ip, wanted, found)
            done += _set_gates(ip, place, wanted, found)
            with netns.entered(place.namespace):
                done += _set_sysctls(wanted.sysctls)  # before: no IPv6 address can be added where IPv6 is off
            appeared: list[tuple[str, str]] = []
            for interface in wanted.interfaces:
                index = found[interface.mac]["index"]
                done += _set_link(ip, interface, index)
                fresh, gone = _set_addresses(ip, interface, index)
                appeared += [(interface.name, address) for address in fresh]
                done += [f"address {address} on {interface.name}" for address in [*fresh, *gone]]
                done += shaping.set_rate(ip, interface.name, index, interface.rate)
            indexes = {interface.name: found[interface.mac]["index"] for interface in wanted.interfaces}
            done += set_routes(ip, wanted.routes, indexes)
            done += set_rules(ip, wanted.rules)
        with netns.entered(place.namespace):
            for name, address in appeared:
                announce(name, address)
        return done

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell whether every interface is there and has its carrier."""
        wanted = read((place.current / FILE).read_text(encoding="utf-8"))
        with netns.netlink(place.namespace) as ip:
            links = _found(ip, wanted)
        health = []
        for interface in wanted.interfaces:
            link = links.get(interface.mac)
            reason = "" if link and link.get_attr("IFLA_CARRIER") else "it has no carrier"
            if link is None:
                reason = f"no interface has the MAC {interface.mac}"
            health.append((f"links/{interface.name}", reason))
        return Observation(bundle.target, health=tuple(health))

    def remove(self, place: Place) -> None:
        """Leave the interfaces to the host, which made them and takes them away with the namespace."""


def _await(ip: IPRoute, wanted: Wanted, wait: float, place: Place) -> dict[str, Any]:
    deadline = time.monotonic() + wait
    while True:
        found = _found(ip, wanted)
        missing = [interface for interface in wanted.interfaces if interface.mac not in found]
        if not missing:
            return found
        if time.monotonic() > deadline:
            which = ", ".join(f"{interface.name} ({interface.mac})" for interface in missing)
            raise RuntimeError(f"{FILE}: {place.name} has no interface {which}: the host's own bundle plugs them.")
        time.sleep(0.02)


def _found(ip: IPRoute, wanted: Wanted) -> dict[str, Any]:
    """Return the namespace's interfaces by their MAC; one that has its shared MAC already counts as its own."""
    own = {interface.shared: interface.mac for interface in wanted.interfaces if interface.shared}
    macs = ((link.get_attr("IFLA_ADDRESS"), link) for link in ip.get_links())
    return {own.get(mac, mac): link for mac, link in macs}


def _set_gates(ip: IPRoute, place: Place, wanted: Wanted, found: Mapping[str, Any]) -> list[str]:
    """Gate what is shared before it has an address or the shared MAC: until then there is nothing to let out."""
    shared = {found[item.mac]["index"]: item for item in wanted.interfaces if item.shared}
    others = {found[item.mac]["index"] for item in wanted.interfaces if not item.shared}
    run = place.folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    done = [f"gate of {shared[index].name}" for index in gate.ensure(ip, run, shared)]
    gate.ensure_no(ip, run, others)
    for index, interface in shared.items():
        if found[interface.mac].get_attr("IFLA_ADDRESS") != interface.shared:
            _set_down_and(ip, index, address=interface.shared)  # so its link-local address is made of this one
            done.append(f"MAC of {interface.name}")
    return done


def _rename(ip: IPRoute, wanted: Wanted, found: Mapping[str, Any]) -> list[str]:
    names = {interface.mac: interface.name for interface in wanted.interfaces}
    wrong = {mac: name for mac, name in names.items() if found[mac].get_attr("IFLA_IFNAME") != name}
    squatters = [link for mac, link in found.items() if link.get_attr("IFLA_IFNAME") in wrong.values()]
    for link in squatters:
        _set_down_and(ip, link["index"], ifname=f"was{link['index']}")
    for mac, name in wrong.items():
        _set_down_and(ip, found[mac]["index"], ifname=name)
    return [f"name {name}" for name in wrong.values()]


def _set_down_and(ip: IPRoute, index: int, **change: Any) -> None:
    ip.link("set", index=index, state="down")  # kernels before 6.2 rename no interface that is up
    ip.link("set", index=index, **change)


def _set_link(ip: IPRoute, interface: Interface, index: int) -> list[str]:
    link = ip.get_links(index)[0]
    done = []
    if interface.mtu and link.get_attr("IFLA_MTU") != interface.mtu:
        ip.link("set", index=index, mtu=interface.mtu)
        done.append(f"MTU of {interface.name}")
    if not link["flags"] & _UP:
        ip.link("set", index=index, state="up")
        done.append(f"{interface.name} up")
    return done


def _set_addresses(ip: IPRoute, interface: Interface, index: int) -> tuple[list[str], list[str]]:
    """Make the addresses exactly these; return those that appeared and those that vanished."""
    there = _addresses(ip, index, interface.addresses)
    fresh = [address for address in interface.addresses if address not in there]
    gone = [address for address in there if address not in interface.addresses]
    for address in gone:
        parsed = ip_interface(address)
        ip.addr("del", index=index, address=str(parsed.ip), prefixlen=parsed.network.prefixlen)
    # Without promote_secondaries the kernel removes the other addresses of a subnet with its first one.
    still = _addresses(ip, index, interface.addresses) if gone else there
    for address in interface.addresses:
        if address not in still:
            _add_address(ip, index, address)
    return fresh, gone


def _add_address(ip: IPRoute, index: int, address: str) -> None:
    parsed = ip_interface(address)
    options: dict[str, Any] = {"index": index, "address": str(parsed.ip), "prefixlen": parsed.network.prefixlen}
    if parsed.version == 4 and parsed.network.prefixlen < 31:
        options["broadcast"] = str(parsed.network.broadcast_address)
    if parsed.version == 6:
        options["flags"] = _NODAD  # unique by the control plane's tables, and wanted at once
    ip.addr("add", **options)


def _addresses(ip: IPRoute, index: int, wanted: Sequence[str]) -> list[str]:
    """Return the interface's addresses, without the link-local ones that nobody asked for: they are the kernel's."""
    found = []
    for entry in ip.get_addr(index=index):
        address = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
        text = str(ip_interface(f"{address}/{entry['prefixlen']}"))
        if entry["scope"] != _LINK_SCOPE or text in wanted:
            found.append(text)
    return found


def _sysctl(key: str) -> Path:
    path = key if "/" in key else key.replace(".", "/")
    if not path.startswith("net/") or ".." in path:
        raise ValueError(f"The sysctl {key} is refused: only those of the network (net.…) belong to a namespace.")
    return Path("/proc/sys") / path


def _set_sysctls(wanted: Mapping[str, str]) -> list[str]:
    """Write what differs; the calling thread is inside the namespace, so these are the namespace's own."""
    done = []
    # IPv6 is put on last: by then it is settled how the kernel's own addresses come about (accept_dad)
    for key, value in sorted(wanted.items(), key=lambda item: item[0].endswith("disable_ipv6")):
        path = _sysctl(key)
        if path.read_text(encoding="ascii").split() != value.split():
            path.write_text(value, encoding="ascii")
            done.append(f"sysctl {key}")
    return done
