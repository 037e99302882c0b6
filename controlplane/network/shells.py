"""Shells: the machines that routers live in, with their interfaces, as their hosts are to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from controlplane.network import ipv6, redundancy
from controlplane.network.guest_ranges import subnet_at
from controlplane.network.networks import Whole
from controlplane.network.nics import Nic
from controlplane.network.public_ips import VlanRange
from controlplane.network.routers import Router
from controlplane.network.segments import guest_segment_id, private_segment_id, public_segment_id, serving_mac
from controlplane.zone.hosts import Host
from drivers import vocabulary
from drivers.vocabulary import PublicAddress, Shell


def shell_facts(session: Session, host: Host) -> tuple[Shell, ...]:
    """Return the shells of the routers that this host holds."""
    here = Router.host_id == host.id, Router.running, Router.removed.is_(None)
    routers = session.scalars(
        select(Router)
        .where(*here)
        .options(joinedload(Router.network), joinedload(Router.vpc), joinedload(Router.target))
    )
    shells = []
    for router in routers:
        assert router.target is not None
        facts = tuple(nic_fact(session, router.whole, nic) for nic in nics_of(session, router))
        shells.append(
            Shell(
                router.target.uuid,
                router.shell,
                facts,
                boot=router.boot,
                dark=router.dark,
                follows=_follows(session, router),
            )
        )
    return tuple(sorted(shells, key=lambda shell: shell.name))


def _follows(session: Session, router: Router) -> str:
    """Return the name of the shell on this host from which it takes over, once it is to serve."""
    if router.dark or router.replaces_id is None:
        return ""
    old = session.get_one(Router, router.replaces_id)
    return old.shell if old.host_id == router.host_id else ""


def nics_of(session: Session, router: Router) -> Sequence[Nic]:
    """Return the router's interfaces by position; while one replaces another, both have those of the serving one."""
    eager = joinedload(Nic.network), joinedload(Nic.private_gateway)
    query = select(Nic).order_by(Nic.device).options(*eager)
    own = session.scalars(query.where(Nic.router_id == router.id)).all()
    if own or not router.dark:
        return own
    others = select(Router.id).where(or_(Router.id == router.replaces_id, Router.replaces_id == router.id))
    lent = session.scalars(query.where(Nic.router_id.in_(others))).all()
    return _unlinked(session, router.whole, lent) if any(nic.traffic == redundancy.LINK for nic in lent) else lent


def _unlinked(session: Session, whole: Whole, lent: Sequence[Nic]) -> list[Nic]:
    """Return the interfaces of a router without another half that is to replace a redundant one: copies of its rows."""
    fields = [column.key for column in Nic.__table__.columns]
    found = []
    for nic in lent:
        if nic.traffic != redundancy.LINK:
            copy = Nic(**{field: getattr(nic, field) for field in fields})
            set_committed_value(copy, "network", nic.network)
            set_committed_value(copy, "private_gateway", nic.private_gateway)
            copy.mac = _serving_mac(session, whole, nic)
            found.append(copy)
    return found


def unlink(session: Session, router: Router) -> None:
    """Have the router, which took over from a redundant one and has no other half, keep the MACs that were served."""
    nics = session.scalars(select(Nic).where(Nic.router_id == router.id)).all()
    if not any(nic.traffic == redundancy.LINK for nic in nics):
        return
    for nic in nics:
        if nic.traffic == redundancy.LINK:
            session.delete(nic)
        else:
            nic.mac = _serving_mac(session, router.whole, nic)
    session.flush()


def _serving_mac(session: Session, whole: Whole, nic: Nic) -> str:
    return serving_mac(whole, nic, session.get(VlanRange, nic.range_id) if nic.range_id else None)


def nic_fact(session: Session, whole: Whole, nic: Nic, addresses: tuple[PublicAddress, ...] = ()) -> vocabulary.Nic:
    """Return a router's interface as its host and the router itself see it."""
    if nic.traffic == redundancy.LINK:
        where, length = redundancy.link_id(whole), redundancy.LINK_PREFIX
        return vocabulary.Nic(nic.uuid, nic.mac, where, "Control", nic.address, length, "", nic.device)
    network = nic.network
    if network is not None:
        prefix = subnet_at(session, network, nic.address).prefixlen if nic.address else 0
        side, where = guest_segment_id(network, router=True), network.uuid
        return vocabulary.Nic(
            nic.uuid, nic.mac, side, "Guest", nic.address, prefix, "", nic.device, where, mtu=network.mtu
        )
    if (private := nic.private_gateway) is not None:
        prefix = IPv4Network(f"{private.gateway}/{private.netmask}", strict=False).prefixlen
        where = private_segment_id(private.physical_network_id, private.vlan)
        return vocabulary.Nic(nic.uuid, nic.mac, where, "Guest", nic.address, prefix, "", nic.device)
    assert nic.range_id is not None
    row = session.get_one(VlanRange, nic.range_id)
    first = min((a for a in addresses if a.nic == nic.mac), key=lambda a: (not a.source_nat, a.address), default=None)
    gateway = row.gateway if whole.cidr else ""  # the range may have IPv4, and the network none
    prefix = IPv4Network(f"{gateway}/{row.netmask}", strict=False).prefixlen if gateway else 0
    outside = ipv6.outside_of(session, whole)
    if outside is None or outside.vlan != row.vlan:
        outside = ipv6.Outside("", 0, "", row.vlan, row.id)
    return vocabulary.Nic(
        nic.uuid,
        nic.mac,
        public_segment_id(row.zone_id, row.vlan),
        "Public",
        first.address if first else "",
        prefix,
        gateway,
        nic.device,
        mtu=whole.public_mtu,
        address6=outside.address,
        prefix6=outside.prefix,
        gateway6=outside.gateway,
    )
