"""Starting, stopping, rebooting and destroying virtual routers."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import DOMAIN_ADMINS
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.errors import BadParameter
from controlplane.network import implement, redundancy, replacement
from controlplane.network.routers import Router, router_views
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile import targets
from controlplane.reconcile.hosted import reached_at
from controlplane.reconcile.targets import Target
from controlplane.work.workflows import Flow, workflow
from controlplane.zone.hosts import Host
from systemvm import VERSION


def stop(session: Session, router: Router) -> list[Target]:
    """Have the router's services and shell taken away; its rows and addresses stay."""
    router.running, router.state = False, "Stopping"
    if router.target is not None:
        router.target.absent = True
    session.flush()
    return [*router.targets(session), *redundancy.others(session, router)]


def start(session: Session, router: Router) -> list[Target]:
    """Have the router come up again in a new shell."""
    router.running, router.state, router.boot, router.version = True, "Starting", router.boot + 1, VERSION
    if router.target is not None:
        router.target.absent = False
    session.flush()
    redundancy.join(session, router)
    return [*router.targets(session), *redundancy.others(session, router)]


@reached_at("router")
def where_it_is(session: Session, target: Target) -> tuple[str, Mapping[str, str]]:
    """Return where the host of a router without an agent answers: its driver applies the router's bundles, too."""
    host = session.scalars(
        select(Host).join(Router, Router.host_id == Host.id).where(Router.target_id == target.id)
    ).one()
    return host.url, host.details | {"username": host.username, "password": host.password or ""}


class StartRouter(Command, name="startRouter", answer=one("router", router_views), roles=DOMAIN_ADMINS, job=True,
                  event="ROUTER.START", instance="DomainRouter"):  # fmt: skip
    """Start a virtual router."""

    id: Router = required()

    def run(self, ctx: Context) -> Router:
        """Raise the generation of the router and its host."""
        if self.id.running:
            raise BadParameter(f"Invalid parameter id value={self.id.uuid}: router {self.id.name} is {self.id.state}.")
        ctx.touched.extend(start(ctx.session, self.id))
        return self.id


class StopRouter(Command, name="stopRouter", answer=one("router", router_views), roles=DOMAIN_ADMINS, job=True,
                 event="ROUTER.STOP", instance="DomainRouter"):  # fmt: skip
    """Stop a virtual router: its network has no services until it is started again."""

    id: Router = required()
    forced: bool | None = optional(False)

    def run(self, ctx: Context) -> Router:
        """Raise the generation of the router and its host; a forced stop does not mind that it stands stopped."""
        if not self.id.running and not self.forced:
            raise BadParameter(f"Invalid parameter id value={self.id.uuid}: router {self.id.name} is {self.id.state}.")
        ctx.touched.extend(stop(ctx.session, self.id))
        return self.id


class RebootRouter(Command, name="rebootRouter", answer=one("router", router_views), roles=DOMAIN_ADMINS, job=True,
                   event="ROUTER.REBOOT", instance="DomainRouter"):  # fmt: skip
    """Have a virtual router begin anew: everything in it is made again, and its id and name stay.

    What it does for its guests goes on: a new shell is made and checked in the dark, takes over with all connections,
    and the old one is removed. A router of two leaves in order, and the other half takes over. A forced reboot does
    what CloudStack's does: the shell is taken away and made anew, empty, with a gap in between.
    """

    id: Router = required()
    forced: bool | None = optional(False)

    def run(self, ctx: Context) -> Router:
        """Hand it to a workflow; a forced reboot also starts a router that was stopped."""
        if not self.id.running and not self.forced:
            raise BadParameter(f"Invalid parameter id value={self.id.uuid}: router {self.id.name} is {self.id.state}.")
        ctx.go_on("rebootRouter", self.id, forced=bool(self.forced))
        return self.id


@workflow("rebootRouter")
def reboot(flow: Flow) -> None:
    """Have another shell take over, or take the router's away and have it made again."""
    if not flow.arguments.get("forced") and flow.step(_stands_alone, flow.subject):
        replacement.replace(flow, flow.subject, keep=True)
        return
    flow.wait(flow.step(_stop, flow.subject))
    flow.wait(flow.step(_start, flow.subject))


def _stands_alone(session: Session, uuid: str) -> bool:
    router = _router(session, uuid)
    return router.running and not redundancy.is_linked(session, router)


def _stop(session: Session, uuid: str) -> list[tuple[int, int]]:
    return targets.touch(session, stop(session, _router(session, uuid)))


def _start(session: Session, uuid: str) -> list[tuple[int, int]]:
    return targets.touch(session, start(session, _router(session, uuid)))


def _router(session: Session, uuid: str) -> Router:
    return session.scalars(select(Router).where(Router.uuid == uuid)).one()


class DestroyRouter(Command, name="destroyRouter", answer=one("router", router_views), roles=DOMAIN_ADMINS, job=True,
                    event="ROUTER.DESTROY", instance="DomainRouter"):  # fmt: skip
    """Destroy a virtual router; its network gets a new one when it is next needed or restarted."""

    id: Router = required()

    def run(self, ctx: Context) -> Router:
        """Have it taken down for good."""
        ctx.touched.extend(implement.remove_router(ctx.session, self.id))
        return self.id


class ChangeServiceForRouter(Command, name="changeServiceForRouter", answer=one("router", router_views),
                             roles=DOMAIN_ADMINS, event="ROUTER.UPGRADE", instance="DomainRouter"):  # fmt: skip
    """Give a stopped virtual router another system offering."""

    id: Router = required()
    serviceofferingid: ServiceOffering = required()

    def run(self, ctx: Context) -> Router:
        """Check the offering and take it."""
        del ctx
        offering = self.serviceofferingid
        if offering.system_vm_type != "domainrouter":
            raise BadParameter(
                f"Invalid parameter serviceofferingid value={offering.uuid}: it must be a system offering for routers."
            )
        if self.id.running:
            raise BadParameter(f"Invalid parameter id value={self.id.uuid}: stop router {self.id.name} first.")
        self.id.service_offering_id = offering.id
        return self.id
