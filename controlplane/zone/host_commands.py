"""Commands on hosts that are there: change, reconnect, maintain and delete them."""

from __future__ import annotations

from sqlalchemy import select, update

from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter, InUse, Unavailable
from controlplane.network.routers import Router
from controlplane.reconcile.door import digest_of
from controlplane.reconcile.targets import Agent
from controlplane.storage.templates import OsCategory
from controlplane.storage.volumes import StoragePool, Volume
from controlplane.work import jobs
from controlplane.zone import syntax
from controlplane.zone.add_host import SHORTEST_TOKEN, place_of
from controlplane.zone.clusters import Cluster
from controlplane.zone.host_views import host_views
from controlplane.zone.hosts import Host, patience, state_of

NOWHERE = 1 << 62
"""A generation that is above any other."""


class UpdateHost(Command, name="updateHost", answer=one("host", host_views), instance="Host", event="HOST.UPDATE"):
    """Update a host; what is not given stays. A disabled host is given nothing new and keeps what it has."""

    unsupported = ("cleanupexternaldetails", "externaldetails", "istagarule")

    id: Host = required()
    name: str | None = optional(check=syntax.domain)
    allocationstate: str | None = optional(choices=("Enable", "Disable"))
    annotation: str | None = optional(check=syntax.name)
    hosttags: list[str] | None = optional()
    oscategoryid: OsCategory | None = optional()
    url: str | None = optional(description="of a host without an agent")

    def run(self, ctx: Context) -> Host:
        """Change what is given; a new URL is driven at once."""
        host = self.id
        if self.allocationstate:
            if host.resource_state not in ("Enabled", "Disabled"):
                raise BadParameter(
                    f"Invalid parameter allocationstate: host {host.name} is in {host.resource_state}; "
                    "use cancelHostMaintenance."
                )
            host.resource_state = f"{self.allocationstate}d"
        if self.name:
            self._rename(ctx, host, self.name)
        if self.hosttags is not None:
            try:
                host.tags = syntax.tag_list(self.hosttags)
            except ValueError as error:
                raise BadParameter(f"Invalid parameter hosttags: {error}.") from None
        if self.oscategoryid is not None:
            host.os_category_id = self.oscategoryid.id
        if self.annotation is not None:
            host.annotation, host.annotated = self.annotation, ctx.now
        if self.url is not None:
            if host.target is None or host.target.agent is not None:
                raise BadParameter(f"Invalid parameter url: host {host.name} has an agent, which dials in by itself.")
            place = place_of(self.url)
            host.url, host.address = self.url, place.address
            host.details = {
                name: value for name, value in place.settings.items() if name not in ("cpus", "mhz", "memory")
            }
            ctx.touch(host)
        return host

    def _rename(self, ctx: Context, host: Host, name: str) -> None:
        taken = select(Host.id).where(
            Host.zone_id == host.zone_id, Host.name == name, Host.id != host.id, Host.removed.is_(None)
        )
        if ctx.session.scalar(taken) is not None:
            raise BadParameter(f"Invalid parameter name value={name}: the zone has a host with this name.")
        host.name = name
        if host.target is not None:
            host.target.name = name
            if host.target.agent is not None:
                host.target.agent.name = name


class ReconnectHost(
    Command, name="reconnectHost", answer=one("host", host_views), job=True, instance="Host", event="HOST.RECONNECT"
):
    """Have a host look again at all that is wanted of it; the job ends when it has."""

    id: Host = required()

    def run(self, ctx: Context) -> Host:
        """Refuse when nobody would answer."""
        host = self.id
        if state_of(host, ctx.now - patience(ctx.session)) != "Up":
            raise Unavailable(f"Host {host.name} cannot be asked: its agent is not connected. Start it there.")
        ctx.touch(host)
        return host


def tenants_of(ctx: Context, host: Host) -> list[str]:
    """Return what runs on a host, in words."""
    machines = select(VirtualMachine.instance_name).where(
        VirtualMachine.host_id == host.id, VirtualMachine.removed.is_(None), VirtualMachine.state != "Stopped"
    )
    routers = select(Router.name).where(Router.host_id == host.id, Router.removed.is_(None), Router.running)
    found = [f"machine {name}" for name in ctx.session.scalars(machines)]
    return found + [f"router {name}" for name in ctx.session.scalars(routers)]


class PrepareHostForMaintenance(
    Command,
    name="prepareHostForMaintenance",
    answer=one("host", host_views),
    job=True,
    instance="Host",
    event="MAINT.PREPARE",
):
    """Take a host out of service: nothing new is placed there.

    Nothing can be moved while it runs yet, so what runs there must be stopped first.
    """

    id: Host = required()

    def run(self, ctx: Context) -> Host:
        """Refuse while anything runs there."""
        host = self.id
        if host.resource_state == "Maintenance":
            raise BadParameter(f"Invalid parameter id value={host.uuid}: host {host.name} is in maintenance already.")
        tenants = tenants_of(ctx, host)
        if tenants:
            raise InUse(
                f"Host {host.name} cannot go into maintenance: {', '.join(tenants[:20])} would have to be moved while "
                "running, which is not possible yet. Disable the host (updateHost), and stop or restart them."
            )
        host.resource_state = "Maintenance"
        return host


class CancelHostMaintenance(
    Command,
    name="cancelHostMaintenance",
    answer=one("host", host_views),
    job=True,
    instance="Host",
    event="MAINT.CANCEL",
):
    """Put a host back into service."""

    id: Host = required()

    def run(self, ctx: Context) -> Host:
        """Refuse where there is nothing to cancel; the host looks again at what is wanted of it."""
        del ctx
        host = self.id
        if host.resource_state not in ("Maintenance", "PrepareForMaintenance", "ErrorInMaintenance"):
            raise BadParameter(f"Invalid parameter id value={host.uuid}: host {host.name} is {host.resource_state}.")
        host.resource_state = "Enabled"
        return host


class DeleteHost(Command, name="deleteHost", answer=success(), instance="Host", event="HOST.DELETE"):
    """Delete a host that holds nothing.

    With ``forced`` machines count as stopped: they lose what was on the host's own disk only if
    ``forcedestroylocalstorage`` says so. Routers are never forced: restart their networks with the host disabled.
    """

    id: Host = required()
    forced: bool | None = optional(False)
    forcedestroylocalstorage: bool | None = optional(False)

    def run(self, ctx: Context) -> None:
        """Refuse while it is used, and take host, pool, target and agent off the books."""
        host, ctx.instance = self.id, self.id
        self._refuse_routers(ctx, host)
        on_it = VirtualMachine.host_id == host.id, VirtualMachine.removed.is_(None)
        names = list(ctx.session.scalars(select(VirtualMachine.instance_name).where(*on_it)))
        if names and not self.forced:
            raise InUse(f"Host {host.name} cannot be deleted: it holds the machines {', '.join(names[:20])}.")
        stopped = {"state": "Stopped", "running": False, "host_id": None, "last_host_id": None}
        ctx.session.execute(update(VirtualMachine).where(*on_it).values(**stopped))
        forget = VirtualMachine.last_host_id == host.id
        ctx.session.execute(update(VirtualMachine).where(forget).values(last_host_id=None))
        self._end_pools(ctx, host)
        _forget_target(ctx, host)
        host.removed, host.removed_key, host.state = ctx.now, host.id, "Removed"

    def _refuse_routers(self, ctx: Context, host: Host) -> None:
        query = select(Router.name).where(Router.host_id == host.id, Router.removed.is_(None))
        names = list(ctx.session.scalars(query))
        if names:
            raise InUse(
                f"Host {host.name} cannot be deleted: it holds the routers {', '.join(names)}. "
                "Disable the host and restart their networks with cleanup=true, which makes them anew elsewhere."
            )

    def _end_pools(self, ctx: Context, host: Host) -> None:
        pools = select(StoragePool).where(StoragePool.host_id == host.id, StoragePool.removed.is_(None))
        for pool in ctx.session.scalars(pools):
            on_it = Volume.pool_id == pool.id, Volume.removed.is_(None)
            names = list(ctx.session.scalars(select(Volume.name).where(*on_it)))
            if names and not self.forcedestroylocalstorage:
                raise InUse(
                    f"Host {host.name} cannot be deleted: its own disk holds the volumes {', '.join(names[:20])}. "
                    "forcedestroylocalstorage=true gives them up."
                )
            if names:
                ctx.session.execute(update(Volume).where(*on_it).values(pool_id=None, state="Allocated"))
            pool.removed = ctx.now


def _forget_target(ctx: Context, host: Host) -> None:
    """Delete the host's target and agent; jobs that wait for it end, as it has nothing left to do."""
    target = host.target
    if target is None:
        return
    jobs.reached(ctx.session, target.id, NOWHERE)
    agent, host.target = target.agent, None
    ctx.session.flush()
    ctx.session.delete(target)
    ctx.session.flush()
    if agent is not None:
        ctx.session.delete(agent)


class UpdateHostPassword(Command, name="updateHostPassword", answer=success(), event="HOST.UPDATE", instance="Host"):
    """Give a host's agent a new token: from now on only an agent that shows it is served."""

    unsupported = ("update_passwd_on_host",)

    hostid: Host | None = optional()
    clusterid: Cluster | None = optional()
    username: str = required(check=syntax.name)
    password: str = required()

    def run(self, ctx: Context) -> None:
        """Change the digest, or the credentials of a host without an agent."""
        host = self.hostid
        if host is None or self.clusterid is not None:
            raise BadParameter("Invalid parameter hostid: say which host; no two hosts share a token.")
        ctx.instance, host.username = host, self.username
        if host.target is None or host.target.agent is None:
            host.password = self.password
            return
        if len(self.password) < SHORTEST_TOKEN:
            raise BadParameter(f"Invalid parameter password: a token has {SHORTEST_TOKEN} characters at least.")
        digest = digest_of(self.password)
        others = select(Agent.id).where(Agent.token == digest, Agent.id != host.target.agent.id)
        if ctx.session.scalar(others) is not None:
            raise BadParameter("Invalid parameter password: another host's agent has this token; each needs its own.")
        host.target.agent.token = digest
