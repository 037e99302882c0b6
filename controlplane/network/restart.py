"""Restarting networks and VPCs: their routers are brought to the desired state again, or replaced without a gap."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.errors import BadParameter
from controlplane.network import implement, redundancy, replacement
from controlplane.network.networks import Network, Whole, router_providers, services_of
from controlplane.network.routers import redundant_state
from controlplane.network.vpcs import Vpc
from controlplane.reconcile import targets
from controlplane.work.workflows import Flow, workflow

Waits = list[tuple[int, int]]


class RestartNetwork(Command, name="restartNetwork", answer=success(), roles=EVERYONE, job=True,
                     event="NETWORK.RESTART", instance="Network"):  # fmt: skip
    """Bring a network's router to the desired state again; with cleanup, by a new router that takes over without a gap.

    The routers of a redundant network are made anew one after the other, the one that stands by first.
    A live patch brings the present router to what this release makes of it: templates live on the control plane, so
    that is what any restart without cleanup does.
    """

    id: Network = required()
    cleanup: bool | None = optional(False)
    livepatch: bool | None = optional(False)
    makeredundant: bool | None = optional(False)

    def run(self, ctx: Context) -> None:
        """Touch the router, or hand its replacement, or the making of one that was destroyed, to a workflow."""
        ctx.instance = self.id
        _refuse_both(cleanup=self.cleanup, livepatch=self.livepatch)
        if self.id.state not in ("Implementing", "Implemented"):
            raise BadParameter(
                f"Invalid parameter id value={self.id.uuid}: network {self.id.name} is {self.id.state}, not running."
            )
        if not router_providers(self.id):
            raise BadParameter(
                f"Invalid parameter id value={self.id.uuid}: network {self.id.name} has no router that could be "
                f"restarted: its offering {self.id.offering.name} has no service of one."
            )
        outward = self.id.offering.routed or "SourceNat" in services_of(self.id)
        if self.makeredundant and (self.id.vpc_id is not None or not outward):
            raise BadParameter(
                f"Invalid parameter makeredundant value=true: network {self.id.name} has no router of its own with "
                "source NAT or routes, which another could stand in for; for a VPC's tier it is restartVPC that takes "
                "this."
            )
        self.id.redundant = self.id.redundant or bool(self.makeredundant)
        lacks_one = router_providers(self.id) and not self.id.targets(ctx.session)
        if lacks_one or (self.cleanup and self.id.vpc_id is None):  # a tier's router is its VPC's to replace
            self.id.restart_required = False
            ctx.go_on("restartNetwork", self.id)
        elif self.makeredundant:
            ctx.go_on("completeNetwork", self.id)
        else:
            ctx.touch(self.id)


class RestartVpc(Command, name="restartVPC", answer=success(), roles=EVERYONE, job=True, instance="Vpc",
                 event="VPC.RESTART"):  # fmt: skip
    """Bring a VPC's router to the desired state again; with cleanup, by a new router that takes over without a gap.

    A live patch is what a restart without cleanup does, as for restartNetwork.
    """

    id: Vpc = required()
    cleanup: bool | None = optional(False)
    livepatch: bool | None = optional(False)
    makeredundant: bool | None = optional(False)

    def run(self, ctx: Context) -> None:
        """Touch the router, or hand its replacement, or the making of one that is not there, to a workflow."""
        vpc = ctx.instance = self.id
        _refuse_both(cleanup=self.cleanup, livepatch=self.livepatch)
        vpc.redundant = vpc.redundant or bool(self.makeredundant)
        if self.cleanup or not implement.routers_of(ctx.session, vpc):
            vpc.restart_required = False
            ctx.go_on("restartVpc", vpc)
        elif self.makeredundant:
            ctx.go_on("completeVpc", vpc)
        else:
            ctx.touch(vpc)


def _refuse_both(*, cleanup: bool | None, livepatch: bool | None) -> None:
    if cleanup and livepatch:
        raise BadParameter(
            "Invalid parameter livepatch value=true: cleanup=true replaces the router; a live patch keeps it. "
            "Give one of them."
        )


@workflow("restartNetwork")
def restart_network(flow: Flow) -> None:
    """Have new routers take the places of a network's, one by one, and make those that are missing or were stopped."""
    _renew(flow)
    flow.wait(flow.step(_bring_up_network, flow.subject))


@workflow("restartVpc")
def restart_vpc(flow: Flow) -> None:
    """Do so for a VPC's."""
    _renew(flow)
    flow.wait(flow.step(_bring_up_vpc, flow.subject))


@workflow("completeNetwork")
def complete_network(flow: Flow) -> None:
    """Give a network's router its other half."""
    flow.wait(flow.step(_bring_up_network, flow.subject))


@workflow("completeVpc")
def complete_vpc(flow: Flow) -> None:
    """Do so for a VPC's."""
    flow.wait(flow.step(_bring_up_vpc, flow.subject))


def _renew(flow: Flow) -> None:
    flow.wait(flow.step(_remove_stopped, flow.subject))
    for router in flow.step(_halves, flow.subject):
        flow.wait(flow.step(_remove, router))
        flow.wait(flow.step(_bring_up, flow.subject))
    for router in flow.step(_serving, flow.subject):
        replacement.replace(flow, router)


def _whole(session: Session, uuid: str) -> Whole:
    network = session.scalar(select(Network).where(Network.uuid == uuid))
    return network or session.scalars(select(Vpc).where(Vpc.uuid == uuid)).one()


def _remove_stopped(session: Session, uuid: str) -> Waits:
    stopped = [router for router in implement.routers_of(session, _whole(session, uuid)) if not router.running]
    return targets.touch(session, [target for router in stopped for target in implement.remove_router(session, router)])


def _halves(session: Session, uuid: str) -> list[str]:
    """Return the routers that have another half, the one that holds the addresses last.

    Where there is to be one router only, the last is not among them: it is replaced, without a gap.
    """
    whole = _whole(session, uuid)
    found = [router for router in implement.serving(session, whole) if redundancy.is_linked(session, router)]
    standing = {router.id: redundant_state(session, router) for router in found}
    found.sort(key=lambda one: (standing[one.id] == "PRIMARY", one.id))
    return [router.uuid for router in (found if redundancy.is_redundant(whole) else found[:-1])]


def _remove(session: Session, uuid: str) -> Waits:
    router = replacement.router_of(session, uuid)
    return targets.touch(session, implement.remove_router(session, router)) if router.removed is None else []


def _serving(session: Session, uuid: str) -> list[str]:
    whole = _whole(session, uuid)
    pairs = redundancy.is_redundant(whole)
    found = implement.serving(session, whole)
    return [one.uuid for one in found if not (pairs and redundancy.is_linked(session, one))]


def _bring_up(session: Session, uuid: str) -> Waits:
    is_vpc = isinstance(_whole(session, uuid), Vpc)
    return _bring_up_vpc(session, uuid) if is_vpc else _bring_up_network(session, uuid)


def _bring_up_network(session: Session, uuid: str) -> Waits:
    network = session.scalars(select(Network).where(Network.uuid == uuid)).one()
    return implement.ensure_implemented(session, network) if network.removed is None else []


def _bring_up_vpc(session: Session, uuid: str) -> Waits:
    vpc = session.scalars(select(Vpc).where(Vpc.uuid == uuid)).one()
    routers = implement.ensure_vpc_routers(session, vpc) if vpc.removed is None else []
    return targets.touch(session, [target for router in routers for target in router.targets(session)])
