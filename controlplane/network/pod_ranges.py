"""The ranges of a basic zone's guests: each is a pod's, and so is its subnet."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import BadParameter, RuleConflict
from controlplane.network.guest_ranges import subnet_of
from controlplane.network.pod_networks import network_of
from controlplane.network.public_ips import VlanRange
from controlplane.network.vlan_ranges import Span
from controlplane.zone import syntax
from controlplane.zone.pods import Pod, Subnet
from controlplane.zone.zones import BASIC, Zone


def complete(session: Session, asked: Any) -> None:
    """Fill in what a createVlanIpRange for a pod's guests need not say: the network, gateway and netmask.

    :raises BadParameter: it is for guests, and does not say which pod's; or it is a pod's where pods have no ranges.
    """
    zone: Zone | None = asked.zoneid or (asked.podid.zone if asked.podid else None)
    zone = asked.networkid.zone if asked.networkid else zone
    if zone is None or zone.network_type != BASIC:
        if asked.podid is not None and asked.networkid is not None:
            raise BadParameter(
                f"Invalid parameter podid value={asked.podid.uuid}: the networks of Advanced zones are the same in all "
                "pods; leave it out."
            )
        return
    if asked.networkid is None and asked.forvirtualnetwork is not False:
        return
    asked.zoneid, asked.networkid = zone, asked.networkid or network_of(session, zone)
    if asked.networkid is None:
        raise BadParameter(
            f"Invalid parameter networkid: zone {zone.name} has no guest network yet; make it first (createNetwork)."
        )
    pod: Pod | None = asked.podid
    if pod is None or pod.zone_id != zone.id:
        value = f" value={pod.uuid}" if pod else ""
        raise BadParameter(f"Invalid parameter podid{value}: name the pod of zone {zone.name} whose guests it is for.")
    if asked.gateway is None and asked.netmask is None and pod.gateway:
        asked.gateway, asked.netmask = pod.gateway, pod.netmask


def refuse_outside(session: Session, pod: Pod | None, span: Span | None) -> None:
    """Refuse a range whose subnet is another pod's, or whose addresses are those of the pod's own hosts.

    A pod may have guests in a subnet besides its own, as where they are on wires of their own.

    :raises RuleConflict: the sentence names the other pod or the addresses.
    """
    if pod is None or span is None:
        return
    _refuse_other_pods(session, pod.zone_id, Subnet(span.gateway, str(span.subnet.netmask)), pod)
    if not pod.gateway or not syntax.subnet(pod.gateway, pod.netmask).overlaps(span.subnet):
        return
    own = syntax.subnet(pod.gateway, pod.netmask)
    if own != span.subnet or pod.gateway != span.gateway:
        raise RuleConflict(
            f"Invalid parameter gateway value={span.gateway}: {span.subnet} overlaps the subnet {own} of pod "
            f"{pod.name}, whose gateway is {pod.gateway}: use these, or a subnet apart."
        )
    if span.first <= IPv4Address(pod.end_ip) and IPv4Address(pod.start_ip) <= span.last:
        raise RuleConflict(
            f"Invalid parameter startip value={span.first}: the addresses {span.first}-{span.last} overlap "
            f"{pod.start_ip}-{pod.end_ip}, which pod {pod.name} has for system VMs: choose others of {span.subnet}."
        )


def refuse_taken(session: Session, zone_id: int, subnet: Subnet, pod: Pod | None) -> None:
    """Refuse addresses of a pod that are those of guests.

    :param pod: the one that is to have them; None is a new one.
    :raises RuleConflict: the sentence names the pod, or the range.
    """
    if not subnet.gateway:
        return
    _refuse_other_pods(session, zone_id, subnet, pod, of_guests=True)
    ranges = (
        session.scalars(select(VlanRange).where(VlanRange.pod_id == pod.id, VlanRange.gateway != "")) if pod else ()
    )
    for row in ranges:
        first, last = IPv4Address(row.start_ip), IPv4Address(row.end_ip)
        if first <= IPv4Address(subnet.end) and IPv4Address(subnet.start) <= last:
            raise RuleConflict(
                f"Invalid parameter startip value={subnet.start}: the addresses {subnet.start}-{subnet.end} overlap "
                f"the range {row.start_ip}-{row.end_ip} of the pod's guests."
            )


def _refuse_other_pods(
    session: Session, zone_id: int, subnet: Subnet, pod: Pod | None, *, of_guests: bool = False
) -> None:
    wanted = syntax.subnet(subnet.gateway, subnet.netmask)
    mine = pod.id if pod is not None else 0
    found = []
    if not of_guests:
        others = select(Pod).where(Pod.zone_id == zone_id, Pod.id != mine, Pod.removed.is_(None), Pod.gateway != "")
        found = [(syntax.subnet(row.gateway, row.netmask), row) for row in session.scalars(others)]
    guests = select(VlanRange, Pod).join(Pod, VlanRange.pod_id == Pod.id)
    guests = guests.where(VlanRange.zone_id == zone_id, VlanRange.pod_id != mine, VlanRange.gateway != "")
    found += [(subnet_of(row), other) for row, other in session.execute(guests)]
    for block, other in found:
        if block.overlaps(wanted):
            raise RuleConflict(
                f"Invalid parameter gateway value={subnet.gateway}: {wanted} overlaps {block} of pod {other.name}: "
                "a subnet is one pod's, as frames do not leave it."
            )
