"""Guests as their routers and hosts are told of them, and what is seen of them."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session

from controlplane.compute.take_down import stopped
from controlplane.compute.virtual_machines import GONE, MachineKeyPair, SshKeyPair, VirtualMachine
from controlplane.network.addressing import link_local
from controlplane.network.guest_ranges import SHARED, range_with, ranges_in, subnet_of
from controlplane.network.ipv6_prefixes import SUBNET
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp, used_by
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile.observations import on_observation
from controlplane.reconcile.targets import Target
from controlplane.storage.templates import Template
from controlplane.work.jobs import PENDING, Job
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.zones import Zone
from drivers import vocabulary
from drivers.vocabulary import Guest, Lease, Metadata

log = logging.getLogger(__name__)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_GUEST = (
    VirtualMachine.id,
    VirtualMachine.uuid,
    VirtualMachine.instance_name,
    VirtualMachine.hostname,
    VirtualMachine.cpus,
    VirtualMachine.mhz,
    VirtualMachine.memory,
    VirtualMachine.running,
    VirtualMachine.root_size,
    VirtualMachine.boot,
    Template.path,
    Template.url,
    Template.checksum,
)
_PORT = (
    Nic.vm_id,
    Nic.uuid,
    Nic.mac,
    Nic.traffic,
    Nic.address,
    Nic.device,
    Nic.rate,
    Nic.default,
    Network.uuid.label("network"),
    Network.id.label("number"),
    Network.guest_type,
    Network.cidr,
    Network.gateway,
    Network.mtu,
    Nic.address6,
    Network.gateway6,
)


def lease_facts(session: Session, network: Network, pod_id: int | None = None) -> tuple[Lease, ...]:
    """Return the address of each guest on the network, stopped ones included, by address.

    :param pod_id: only those with addresses of this pod.
    """
    rows = session.execute(
        select(
            VirtualMachine.uuid,
            Nic.mac,
            Nic.address,
            VirtualMachine.hostname,
            Nic.default,
            VirtualMachine.dhcp_options,
            Nic.address6,
        )
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .where(Nic.network_id == network.id, _in_pod(pod_id), _ADDRESSED, *_THERE)
        .order_by(Nic.address, Nic.address6)
    )
    mine = network.uuid
    return tuple(
        Lease(vm, mac, address, name, default, _options(options[mine]) if mine in options else (), address6)
        for vm, mac, address, name, default, options, address6 in rows
    )


_ADDRESSED = (Nic.address != "") | (Nic.address6 != "")
_THERE = VirtualMachine.removed.is_(None), VirtualMachine.state.not_in(GONE)


def _in_pod(pod_id: int | None) -> ColumnElement[bool]:
    return Nic.pod_id == pod_id if pod_id is not None else true()


def _options(chosen: dict[str, str]) -> tuple[tuple[int, str], ...]:
    return tuple(sorted((int(number), value) for number, value in chosen.items()))


def metadata_facts(session: Session, network: Network, pod_id: int | None = None) -> tuple[Metadata, ...]:
    """Return what each guest may read about itself on the network, by address.

    :param pod_id: only those with addresses of this pod.
    """
    return described(session, network, _ADDRESSED, _in_pod(pod_id))


def described(session: Session, network: Network, *which: ColumnElement[bool]) -> tuple[Metadata, ...]:
    """Return what guests on the network are told about themselves, whoever tells them.

    :param which: those of the NICs and machines that are meant.
    """
    rows = session.execute(
        select(
            VirtualMachine.id,
            VirtualMachine.uuid,
            VirtualMachine.hostname,
            VirtualMachine.user_data,
            VirtualMachine.user_data_details,
            VirtualMachine.password,
            Nic.id.label("nic"),
            Nic.address,
            Nic.address6,
            Nic.mac,
            ServiceOffering.name.label("offering"),
            Cluster.uuid.label("cluster"),
        )
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .join(ServiceOffering, VirtualMachine.offering_id == ServiceOffering.id)
        .outerjoin(Host, VirtualMachine.host_id == Host.id)
        .outerjoin(Cluster, Host.cluster_id == Cluster.id)
        .where(Nic.network_id == network.id, *which, *_THERE)
        .order_by(Nic.address, Nic.address6, VirtualMachine.uuid)
    ).all()
    keys = _keys(session, network)
    public, source_nat = _public_addresses(session, network)
    zone = session.scalars(select(Zone.name).where(Zone.id == network.zone_id)).one()
    return tuple(
        Metadata(
            row.uuid,
            row.address,
            _items(row, zone, keys.get(row.id, ""), public.get(row.nic, source_nat)),
            row.user_data or "",
            row.password or "",
            (row.address6, link_local(row.mac)) if row.address6 else (),
        )
        for row in rows
    )


def _items(row: Any, zone: str, keys: str, public: str) -> tuple[tuple[str, str], ...]:
    items = {
        "service-offering": _UNSAFE.sub("-", row.offering),
        "availability-zone": _UNSAFE.sub("-", zone),
        "local-ipv4": row.address,
        "ipv6": row.address6,
        "local-hostname": row.hostname,
        "public-ipv4": public,
        "public-hostname": public,
        "instance-id": row.uuid,
        "vm-id": row.uuid,
        "public-keys": keys,
        "cloud-identifier": f"CloudStack-{{{row.cluster}}}" if row.cluster else "",
    }
    if not row.address6:
        del items["ipv6"]
    return tuple(sorted((row.user_data_details | items).items()))


def _keys(session: Session, network: Network) -> dict[int, str]:
    query = (
        select(MachineKeyPair.vm_id, SshKeyPair.public_key)
        .select_from(Nic)
        .join(MachineKeyPair, MachineKeyPair.vm_id == Nic.vm_id)
        .join(SshKeyPair, MachineKeyPair.keypair_id == SshKeyPair.id)
        .where(Nic.network_id == network.id, Nic.vm_id.is_not(None))
        .order_by(SshKeyPair.id)
    )
    found: dict[int, str] = {}
    for vm, key in session.execute(query):
        found[vm] = f"{found[vm]}\n{key}" if vm in found else key
    return found


def _public_addresses(session: Session, network: Network) -> tuple[dict[int, str], str]:
    query = select(PublicIp.nic_id, PublicIp.address, PublicIp.static_nat, PublicIp.source_nat)
    own: dict[int, str] = {}
    shared = ""
    for nic, address, static_nat, source_nat in session.execute(query.where(used_by(network.whole))):
        if static_nat and nic is not None:
            own[nic] = address
        elif source_nat:
            shared = address
    return own, shared


def guest_facts(session: Session, host: Host) -> tuple[Guest, ...]:
    """Return the guests that the host is to hold, running or not, by UUID.

    A NIC on a network that is not implemented is left out: there is nothing to plug it into.
    """
    rows = session.execute(
        select(*_GUEST)
        .join(Template, VirtualMachine.template_id == Template.id)
        .where(
            VirtualMachine.host_id == host.id,
            VirtualMachine.removed.is_(None),
            VirtualMachine.state.not_in(("Expunging", "Error")),
        )
        .order_by(VirtualMachine.uuid)
    ).all()
    nics = _nics(session, host)
    return tuple(
        Guest(
            id=row.uuid,
            name=row.instance_name,
            hostname=row.hostname,
            image=row.path or row.url,
            cpus=row.cpus,
            mhz=row.mhz,
            memory=row.memory,
            nics=tuple(nics[row.id]),
            running=row.running,
            root_size=row.root_size,
            boot=row.boot,
            image_checksum=row.checksum,
        )
        for row in rows
    )


def _nics(session: Session, host: Host) -> dict[int, list[vocabulary.Nic]]:
    rows = session.execute(
        select(*_PORT)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .join(Network, Nic.network_id == Network.id)
        .where(VirtualMachine.host_id == host.id, Network.vnet.is_not(None))
        .order_by(Nic.vm_id, Nic.device)
    ).all()
    shared = ranges_in(session, {row.number for row in rows if row.guest_type == SHARED})
    found: dict[int, list[vocabulary.Nic]] = defaultdict(list)
    prefixes: dict[str, int] = {}
    for row in rows:
        within = range_with(shared.get(row.number, ()), row.address)
        gateway, cidr = (within.gateway, str(subnet_of(within))) if within else (row.gateway, row.cidr)
        if cidr and cidr not in prefixes:
            prefixes[cidr] = ipaddress.IPv4Network(cidr).prefixlen
        found[row.vm_id].append(
            vocabulary.Nic(
                id=row.uuid,
                mac=row.mac,
                segment=row.network,
                traffic=row.traffic,
                address=row.address,
                prefix=prefixes.get(cidr or "", 0),
                gateway=gateway or "",
                device=row.device,
                network=row.network,
                rate=row.rate,
                default=row.default,
                mtu=row.mtu,
                address6=row.address6,
                prefix6=SUBNET if row.address6 else 0,
                gateway6=row.gateway6 or "",
            )
        )
    return found


def see_guests(session: Session, target: Target, observation: Any) -> None:
    """Take note of guests that have stopped by themselves; what is on its way is left alone."""
    if target.applied_generation < target.desired_generation:
        return  # it may have been seen before the newest bundle
    down = {unit for unit, state in observation.states if state in ("stopped", "absent")}
    if not down:
        return
    query = select(VirtualMachine).where(
        VirtualMachine.uuid.in_(down), VirtualMachine.state == "Running", VirtualMachine.running
    )
    for vm in session.scalars(query):
        busy = select(Job.id).where(Job.instance_uuid == vm.uuid, Job.status == PENDING)
        if session.scalar(busy.limit(1)) is not None:
            continue
        log.warning("Guest %s of %s has stopped by itself", vm.instance_name, target.name)
        stopped(session, vm)
        vm.error = "It stopped by itself."


@on_observation("router")
def see_passwords(session: Session, target: Target, observation: Any) -> None:
    """Forget the passwords that guests have fetched."""
    if target.applied_generation < target.desired_generation:
        return  # the one that was fetched may be an older one
    taken = [unit.removesuffix("/password") for unit, state in observation.states if state == "taken"]
    if taken:
        for vm in session.scalars(select(VirtualMachine).where(VirtualMachine.uuid.in_(taken))):
            vm.password = None
