"""MTUs of networks: what may be chosen, and changing them where guests and routers run.

The operator bounds what routers have, as guests' packets must fit the hosts' uplinks, tunnel headers and all. A host
that cannot carry a new MTU says so, and everything gets back the one that it had.
"""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.context import Context
from controlplane.compute.outcomes import Waits, standing, trouble
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, Unavailable
from controlplane.network.implement import routers_of
from controlplane.network.networks import Network, Whole
from controlplane.network.nics import Nic
from controlplane.network.public_ips import VlanRange
from controlplane.network.segments import public_segment_id
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target, touch
from controlplane.work.workflows import Flow, workflow
from controlplane.zone.hosts import Host
from controlplane.zone.zones import Zone

LEAST, GREATEST = 576, 9000
PUBLIC_MOST = define(
    "vr.public.interface.max.mtu",
    1500,
    "Greatest MTU of routers' public interfaces, and what they have unless another is chosen",
    category="Network",
    scopes=("Zone",),
    within=(LEAST, GREATEST),
)
PRIVATE_MOST = define(
    "vr.private.interface.max.mtu",
    1500,
    "Greatest MTU of guest networks, and what they have unless another is chosen",
    category="Network",
    scopes=("Zone",),
    within=(LEAST, GREATEST),
)
USERS_MAY = define(
    "allow.end.users.to.specify.vr.mtu",
    False,
    "Accounts may choose the MTUs of their networks and VPCs; otherwise root admins alone",
    category="Network",
    scopes=("Zone",),
)
_MOST = {"publicmtu": PUBLIC_MOST, "privatemtu": PRIVATE_MOST}
_PATIENCE = 60.0


def mtu(value: int) -> int:
    """Return the value, which must be an MTU in bytes (RFC 791: every host takes 576).

    :raises ValueError: it is too small or too large.
    """
    if not LEAST <= value <= GREATEST:
        raise ValueError(f"an MTU is {LEAST} to {GREATEST} bytes here")
    return value


def chosen(ctx: Context, zone: Zone, parameter: str, value: int | None) -> int:
    """Return the MTU that something new gets in the zone: the wanted one, or the greatest.

    :param parameter: ``publicmtu`` or ``privatemtu``.
    :raises BadParameter: the zone does not have it, or the caller may not choose one.
    """
    most = _MOST[parameter].number(ctx.session, zone=zone.id)
    if value is None:
        return most
    if not ctx.caller.is_admin and not USERS_MAY.flag(ctx.session, zone=zone.id):
        raise BadParameter(
            f"Invalid parameter {parameter} value={value}: accounts choose no MTU in zone {zone.name}, where networks "
            f"have {most}; leave it out."
        )
    if value > most:
        raise BadParameter(
            f"Invalid parameter {parameter} value={value}: in zone {zone.name} it is {most} at most "
            f"({_MOST[parameter].name})."
        )
    return value


def change(ctx: Context, network: Network, private: int | None, public: int | None) -> None:
    """Change the MTUs of a network, and of the interfaces of its routers and guests, while they run.

    :raises BadParameter: the zone does not have it, or the caller may not choose one.
    """
    before = {"private": network.mtu, "public": network.public_mtu}
    if private is not None:
        network.mtu = chosen(ctx, network.zone, "privatemtu", private)
    if public is not None:
        network.public_mtu = chosen(ctx, network.zone, "publicmtu", public)
    if before != {"private": network.mtu, "public": network.public_mtu}:
        _bring_about(ctx, network, before)


def change_vpc(ctx: Context, vpc: Vpc, public: int) -> None:
    """Change the MTU of a VPC's public interfaces while its routers run; it is that of its tiers, too.

    :raises BadParameter: the zone does not have it, or the caller may not choose one.
    """
    before = {"public": vpc.public_mtu}
    _set_public(ctx.session, vpc, chosen(ctx, vpc.zone, "publicmtu", public))
    if before["public"] != vpc.public_mtu:
        _bring_about(ctx, vpc, before)


def _set_public(session: Session, vpc: Vpc, public: int) -> None:
    vpc.public_mtu = public
    for tier in session.scalars(select(Network).where(Network.vpc_id == vpc.id, Network.removed.is_(None))):
        tier.public_mtu = public


def _bring_about(ctx: Context, what: Whole, before: dict[str, int]) -> None:
    carriers = _carriers(ctx.session, what)
    if carriers:
        ctx.touched += carriers
        ctx.go_on("changeMtu", what, **before)


def _carriers(session: Session, what: Whole) -> list[Target]:
    """Return the routers, their hosts, and those of the guests."""
    routers = routers_of(session, what if isinstance(what, Vpc) else what.whole)
    found = {target.id: target for router in routers for target in router.targets(session)}
    guests = select(Target).join(Host, Host.target_id == Target.id)
    guests = guests.join(VirtualMachine, VirtualMachine.host_id == Host.id).join(Nic, Nic.vm_id == VirtualMachine.id)
    if not isinstance(what, Vpc):
        found |= {target.id: target for target in session.scalars(guests.where(Nic.network_id == what.id))}
    return list(found.values())


@workflow("changeMtu")
def change_mtu(flow: Flow) -> None:
    """Wait until routers and hosts have the new MTU, and go back to the former one where they cannot."""
    waits = flow.step(await_mtu, flow.subject)
    with suppress(Unavailable):  # the next step says who did not answer
        flow.wait(waits, _PATIENCE)
    reason = flow.step(judge_mtu, flow.subject, waits)
    if reason:
        flow.step(give_up_mtu, flow.subject, flow.arguments)
        raise Unavailable(f"The MTU stays as it was. {reason}")


def await_mtu(session: Session, uuid: str) -> Waits:
    """Return what must be reached."""
    return standing(_carriers(session, _subject(session, uuid)))


def judge_mtu(session: Session, uuid: str, waits: Waits) -> str:
    """Return why the new MTU cannot be; empty when it is everywhere."""
    what = _subject(session, uuid)
    ranges = select(VlanRange.vlan).join(Nic, Nic.range_id == VlanRange.id)
    numbers = [router.id for router in routers_of(session, what if isinstance(what, Vpc) else what.whole)]
    vlans = session.scalars(ranges.where(Nic.router_id.in_(numbers)).distinct())
    return trouble(session, waits, [uuid, *(public_segment_id(what.zone_id, vlan) for vlan in vlans)])


def give_up_mtu(session: Session, uuid: str, before: dict[str, int]) -> None:
    """Go back to the former MTU."""
    what = _subject(session, uuid)
    if isinstance(what, Vpc):
        _set_public(session, what, before["public"])
    else:
        what.mtu, what.public_mtu = before["private"], before["public"]
    touch(session, _carriers(session, what))


def _subject(session: Session, uuid: str) -> Whole:
    found = session.scalar(select(Vpc).where(Vpc.uuid == uuid))
    return found or session.scalars(select(Network).where(Network.uuid == uuid)).one()
