"""Redundant routers: which routers are each other's, the link between them, and what each is told of the other.

What must stay true: a router that joins another gets no vote of the control plane before the other has learnt of it,
or is gone; whoever is missing in the other's roster could otherwise be outvoted without knowing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base
from controlplane.errors import NoCapacity
from controlplane.network.addressing import lowest_number
from controlplane.network.networks import Network, Whole
from controlplane.network.nics import NetworkAddress, Nic, new_mac
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target
from controlplane.zone.dedicated_vnets import ranges_for
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType, Vnet
from drivers import redundancy as noun

LINK, LINK_DEVICE, LINK_PREFIX = "Control", 1, 24
_LINK_NET = "169.254.240"


class RouterPair(Base):
    """The redundant routers of one owner, and whom the control plane has voted for.

    :ivar owner: the UUID of the network or VPC.
    :ivar vnet: number of the segment between the routers.
    :ivar holder: the UUID of the router that has the vote ``until`` then; empty is nobody.
    :ivar epoch: counts the holders.
    :ivar round: the holder's newest question.
    """

    __tablename__ = "router_pairs"

    owner: Mapped[str] = mapped_column(String(40), primary_key=True)
    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"))
    vnet: Mapped[int]
    holder: Mapped[str] = mapped_column(String(40), default="")
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    until: Mapped[datetime | None]
    round: Mapped[int] = mapped_column(BigInteger, default=0)


def is_redundant(whole: Whole) -> bool:
    """Tell whether the network or VPC is to have two routers: by its offering, or because it was made so."""
    return whole.redundant or (isinstance(whole, Network) and whole.offering.redundant_router)


def is_linked(session: Session, router: Router) -> bool:
    """Tell whether the router has, or had, another half: whoever takes its place must join as a newcomer."""
    return session.scalar(select(Nic.id).where(Nic.router_id == router.id, Nic.traffic == LINK)) is not None


def kin(session: Session, router: Router) -> Sequence[Router]:
    """Return all routers of the same owner and provider whose rows are there, itself and those that go among them."""
    mine = Router.network_id == router.network_id if router.vpc_id is None else Router.vpc_id == router.vpc_id
    same = mine, Router.provider == router.provider, Router.part == router.part
    return session.scalars(select(Router).where(*same).order_by(Router.id)).all()


def members(session: Session, router: Router) -> list[Router]:
    """Return the routers of the same owner that vote, itself among them where it does."""
    return [one for one in kin(session, router) if votes(one)]


def votes(router: Router) -> bool:
    """Tell whether a router takes part: it is to run, and neither replaces another nor was replaced."""
    return router.running and router.removed is None and router.retired is None and not router.dark


def paired(session: Session) -> list[list[Router]]:
    """Return the routers that are there of each owner whose routers are redundant."""
    linked = select(Router).join(Nic, Nic.router_id == Router.id).where(Nic.traffic == LINK, Router.removed.is_(None))
    found: dict[tuple[int | None, int | None, str], list[Router]] = {}
    for router in session.scalars(linked.order_by(Router.id)):
        found.setdefault((router.network_id, router.vpc_id, router.provider), []).append(router)
    return list(found.values())


def roster(session: Session, router: Router) -> str:
    """Return the name of the present roster of the router's owner."""
    return noun.roster([(one.uuid, one.boot) for one in members(session, router)])


def others(session: Session, router: Router) -> list[Target]:
    """Return the targets of the routers that must learn that this one comes or goes; none where it stands alone."""
    if session.get(RouterPair, router.whole.uuid) is None:
        return []
    return [one.target for one in members(session, router) if one.id != router.id and one.target is not None]


def join(session: Session, router: Router) -> None:
    """Note for whom a router must wait that comes to others: until they have learnt of it it is nobody's candidate."""
    there = [target for target in others(session, router) if target.desired_generation]
    # each is touched in this transaction
    router.votes_after = [[target.id, target.desired_generation + 1] for target in there]


def may_have_votes(session: Session, router: Router) -> bool:
    """Tell whether all that were there before the router have learnt of it, or are gone."""
    for number, generation in router.votes_after:
        target = session.get(Target, number)
        if target is not None and target.applied_generation < generation:
            return False
    return True


def ensure_link(session: Session, router: Router) -> RouterPair:
    """Return the pair of the router's owner, with the router on the link between the two."""
    pair = session.get(RouterPair, router.whole.uuid) or _new_pair(session, router.whole)
    mine = select(Nic.id).where(Nic.router_id == router.id, Nic.traffic == LINK)
    if session.scalar(mine) is None:
        near = [one.id for one in kin(session, router)]
        taken = set(session.scalars(select(Nic.address).where(Nic.router_id.in_(near), Nic.traffic == LINK)))
        numbers = ((router.id + step) % 250 + 1 for step in range(250))
        address = next(text for number in numbers if (text := f"{_LINK_NET}.{number}") not in taken)
        device = LINK_DEVICE
        session.add(Nic(router_id=router.id, traffic=LINK, mac=new_mac(), address=address, device=device))
        session.flush()
    return pair


def _new_pair(session: Session, whole: Whole) -> RouterPair:
    query = select(PhysicalNetwork).order_by(PhysicalNetwork.id).with_for_update()
    if isinstance(whole, Network):
        query = query.where(PhysicalNetwork.id == whole.physical_network_id)
    else:
        carries = PhysicalNetwork.traffic_types.any(TrafficType.traffic == "Guest")
        query = query.where(PhysicalNetwork.zone_id == whole.zone_id, carries)
    physical = session.scalars(query).first()
    assert physical is not None, "a zone that has routers carries guests"
    taken = set(session.scalars(select(Vnet.number).where(Vnet.physical_network_id == physical.id)))
    choices = (lowest_number(ranges, taken) for ranges in ranges_for(session, physical, whole.account_id))
    number = next((choice for choice in choices if choice is not None), None)
    if number is None:
        raise NoCapacity(f"Physical network {physical.name} has no VLAN or VNI left for the link of redundant routers.")
    session.add(Vnet(physical_network_id=physical.id, number=number))
    pair = RouterPair(owner=whole.uuid, physical_network_id=physical.id, vnet=number)
    session.add(pair)
    session.flush()
    return pair


def share(session: Session, router: Router, network: Network, device: int) -> bool:
    """Give the router an interface with the addresses that its other half has on the network.

    :return: False where no other half has any: then they are to be taken.
    """
    near = [one.id for one in kin(session, router) if one.id != router.id and one.removed is None]
    twin = session.scalar(select(Nic).where(Nic.router_id.in_(near), Nic.network_id == network.id).limit(1))
    if twin is None:
        return False
    nic = Nic(router_id=router.id, network_id=network.id, mac=new_mac(), device=device)
    nic.address, nic.address6 = twin.address, twin.address6
    session.add(nic)
    session.flush()
    return True


def hand_over_addresses(session: Session, nic: Nic) -> None:
    """Let the other router's interface answer for the addresses that this one, which goes, was given for both."""
    if nic.network_id is None or nic.router_id is None:
        return
    near = [one.id for one in kin(session, session.get_one(Router, nic.router_id)) if one.id != nic.router_id]
    same = Nic.network_id == nic.network_id, Nic.router_id.in_(near)
    heir = session.scalar(select(Nic.id).where(*same).limit(1))
    if heir is not None:
        session.execute(update(NetworkAddress).where(NetworkAddress.nic_id == nic.id).values(nic_id=heir))


def remain(session: Session, router: Router) -> bool:
    """Tell whether a router of the same owner is there yet, besides this one, that is or may have been on the link."""
    there = [one for one in kin(session, router) if one.id != router.id and one.target_id is not None]
    return any(one.removed is not None or is_linked(session, one) for one in there)


def forget(session: Session, whole: Whole) -> None:
    """Give the link's number back once the last router is gone."""
    pair = session.get(RouterPair, whole.uuid)
    if pair is not None:
        mine = Vnet.physical_network_id == pair.physical_network_id, Vnet.number == pair.vnet
        session.execute(delete(Vnet).where(*mine))
        session.delete(pair)
        session.flush()


def link_id(whole: Whole) -> str:
    """Return the name of the segment between the routers of a network or VPC."""
    return f"link-{whole.uuid}"


def links(session: Session, host: Host) -> list[tuple[PhysicalNetwork, str, int]]:
    """Return (physical network, segment's name, number) of the links of the routers that a host is to hold."""
    here = Router.host_id == host.id, Router.running, Router.removed.is_(None), Nic.traffic == LINK
    found = []
    for router in session.scalars(select(Router).join(Nic, Nic.router_id == Router.id).where(*here)):
        pair = session.get(RouterPair, router.whole.uuid)
        if pair is not None:
            physical = session.get_one(PhysicalNetwork, pair.physical_network_id)
            found.append((physical, link_id(router.whole), pair.vnet))
    return found


def facts(session: Session, router: Router) -> noun.Redundancy | None:
    """Return what a router is told of its other half; None where it is to have none."""
    link = select(Nic).where(Nic.router_id == router.id, Nic.traffic == LINK)
    own = session.scalar(link)
    if own is None:
        return None
    all_members = members(session, router)
    peer = next((one for one in all_members if one.id != router.id), None)
    far = session.scalar(select(Nic.address).where(Nic.router_id == peer.id, Nic.traffic == LINK)) if peer else None
    left = [one for one in kin(session, router) if one.id != router.id and not _is_down(one)]
    return noun.Redundancy(
        group=router.whole.uuid,
        member=router.uuid,
        peer=peer.uuid if peer and far else "",
        roster=tuple((one.uuid, one.boot) for one in all_members),
        rank=router.id,
        sole=votes(router) and not left,
        nic=own.mac,
        address=own.address,
        peer_address=far or "",
    )


def _is_down(router: Router) -> bool:
    """Tell whether a router is known to run nowhere."""
    target = router.target
    return target is None or (target.absent and target.applied_generation >= target.desired_generation)
