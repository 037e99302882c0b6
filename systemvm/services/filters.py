"""filters: what the guests of a host may send and receive, in force before the first frame of any of them.

A cable into a guest is held by its name alone until something is known of it, and the host holds no guest without the
filter: where it cannot be loaded, what comes after it (shells, guests) is not brought about either. The connections
that the present rules would not let begin are cut off, whatever let them begin.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from systemvm import links, netns, verdicts
from systemvm.bundle import Bundle, Elements, Failure, Observation
from systemvm.conntrack import Table
from systemvm.services import HostSettings, Place, elements, guests, segments
from systemvm.services.nft import Nft

if TYPE_CHECKING:
    from systemvm.links import Link

_SWITCH = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class Filters:
    """The service ``nft`` of a host."""

    name = "nft"

    def __init__(self) -> None:
        self._nft = Nft()

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Dry-run a new skeleton."""
        return self._nft.check(place, staged, _here(place.host, bundle))

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Hand over the difference in one transaction, then cut off what it no longer allows.

        :raises RuntimeError: it was refused, or the kernel cannot filter bridged packets: nothing may come after it.
        """
        before, after = _here(place.host, old) if old else None, _here(place.host, new)
        for failure in self._nft.activate(place, before, after):
            raise RuntimeError(failure.reason)
        if old is None or segments.wanted(old) != segments.wanted(new):
            self._hand_over(place.host, new)
        if before is None or _narrower(before, after):
            _cut(place.host, new)
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Load the tables again where somebody changed them, and have the bridges ask them."""
        return self._nft.ensure(place, _here(place.host, bundle)) + self._hand_over(place.host, bundle)

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Return what each port sent that it may not, as ``nic_<hex>_refused``, and what could not be a filter."""
        found = self._nft.observe(place, _here(place.host, bundle))
        texts = (file.content for file in bundle.files if file.service == self.name and file.path == "refused.json")
        refused = tuple((f"filter {unit}", reason) for text in texts for unit, reason in json.loads(text))
        return replace(found, health=found.health + refused)

    def remove(self, place: Place) -> None:
        """Let everything pass again, once no guest is left."""
        if not place.host.namespace or netns.exists(place.host.namespace):
            self._nft.remove(place)

    def _hand_over(self, host: HostSettings, bundle: Bundle) -> list[str]:
        """Have the bridges of guarded segments, and no others, hand their packets to the tables of the L3 hooks."""
        bay = segments.bay(host, bundle)
        wanted = {bay.bridges[each.id]: bool(each.zone) for each in segments.wanted(bundle) if each.id in bay.bridges}
        ours = links.mark(host.prefix, "segment")
        wrong = [
            bay.present[name]
            for name, handing in wanted.items()
            if bay.present[name].filtered != handing and (handing or bay.present[name].alias.startswith(ours))
        ]
        if any(wanted.values()):
            _require(host.namespace)
        return [_switch(host, link, on=not link.filtered) for link in wrong]


def _here(host: HostSettings, bundle: Bundle) -> Bundle:
    """Return the bundle with the bridges by the names that they have on this host: some are the operator's own."""
    planned = {segment.id: segment.bridge for segment in segments.wanted(bundle) if segment.zone}
    if not any(segment.kind == "untagged" and segment.zone for segment in segments.wanted(bundle)):
        return bundle
    real = segments.bay(host, bundle).bridges
    names = {bridge: real.get(segment, bridge) for segment, bridge in planned.items()}
    return replace(
        bundle, elements=tuple(_renamed(each, names) if each.name == "zones" else each for each in bundle.elements)
    )


def _renamed(entry: Elements, names: dict[str, str]) -> Elements:
    items = (item.partition(" ") for item in entry.items)
    return Elements(entry.name, tuple(sorted(f"{names.get(bridge, bridge)} {rest}" for bridge, _, rest in items)))


def _require(namespace: str) -> None:
    """See that the kernel hands bridged packets to the L3 hooks where a bridge asks for it.

    :raises RuntimeError: it cannot.
    """
    with netns.entered(namespace):
        if _SWITCH.exists():
            return
    subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    with netns.entered(namespace):
        if not _SWITCH.exists():
            raise RuntimeError(
                "Security groups need the kernel's bridge netfilter, which this host does not have: "
                "module br_netfilter, CONFIG_BRIDGE_NETFILTER."
            )
        for family in ("ip", "ip6", "arp"):  # the module begins with every bridge of the host handed over
            _SWITCH.with_name(f"bridge-nf-call-{family}tables").write_text("0")


def _switch(host: HostSettings, bridge: Link, *, on: bool) -> str:
    with netns.netlink(host.namespace) as ip:
        ip.link("set", index=bridge.index, kind="bridge", br_nf_call_iptables=int(on), br_nf_call_ip6tables=int(on))
    return f"{bridge.name} {'hands its packets' if on else 'no longer hands its packets'} to the security groups"


def _narrower(old: Bundle, new: Bundle) -> bool:
    """Tell whether something that passed may not pass any more: only an element that went can be why."""
    before, after = elements.by_name(old), elements.by_name(new)
    return any(
        not set(before[name]) <= set(after.get(name, ()))
        for name in before
        if name in verdicts.SETS and before[name] != after.get(name)
    )


def _cut(host: HostSettings, bundle: Bundle) -> int:
    """Delete the connections that the rules would not let begin; return how many."""
    zones = {segment.id: segment.zone for segment in segments.wanted(bundle) if segment.zone}
    with Table(host.namespace) as table:
        known = set(zones.values())
        tracked = [entry for entry in table.entries() if verdicts.zone_of(entry) in known] if zones else []
        if not tracked:
            return 0
        ports = [port for guest in guests.wanted(bundle) for port in guest.ports if port.segment in zones]
        judge = verdicts.Judge({port.port: zones[port.segment] for port in ports}, elements.by_name(bundle))
        return sum(table.delete(entry) for entry in tracked if not judge.allows(entry))
