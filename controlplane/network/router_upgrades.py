"""Upgrading virtual routers: those that an older release made are replaced, some at a time, each without a gap.

The first goes alone, and others follow once it stands: what is wrong with a release shows on one router. Whatever
fails, the failed one's predecessor goes on serving, and what has not begun is not begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from controlplane.api.caller import DOMAIN_ADMINS
from controlplane.api.command import Command, many
from controlplane.api.context import Context, visible
from controlplane.api.parameters import optional
from controlplane.api.responses import Response
from controlplane.db.base import new_uuid
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, MissingParameter, Unavailable
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.network.router_changes import reboot
from controlplane.network.routers import Router, is_outdated
from controlplane.work import workflows
from controlplane.work.jobs import FAILED, Job
from controlplane.work.workflows import Flow, workflow
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

PARALLEL = define(
    "router.upgrade.parallel",
    2,
    "Routers that upgradeRouterTemplate replaces at a time, once the first one stands",
    category="Network",
    within=(1, 16),
)
PATIENCE = 600.0
"""Seconds that the others wait for the first one."""


@dataclass(kw_only=True)
class UpgradeResponse(Response):
    """The job that upgrades one router."""

    jobid: str


def upgrade_views(ctx: Context, rows: Sequence[Job]) -> list[UpgradeResponse]:
    """Show the jobs of an upgrade."""
    del ctx
    return [UpgradeResponse(jobid=job.uuid) for job in rows]


class UpgradeRouterTemplate(Command, name="upgradeRouterTemplate", answer=many("asyncjobs", upgrade_views),
                            roles=DOMAIN_ADMINS, event="ROUTER.UPGRADE"):  # fmt: skip
    """Replace the running routers that an older release made (``requiresupgrade``), each by a job of its own.

    One goes first; once it stands, ``router.upgrade.parallel`` at a time. One that fails goes on serving as it was, and
    those that have not begun stay as they are. Guests' traffic and changes of rules go on all the while.
    """

    id: Router | None = optional()
    zoneid: Zone | None = optional()
    podid: Pod | None = optional()
    clusterid: Cluster | None = optional()
    domainid: Domain | None = optional()
    account: str | None = optional()

    def run(self, ctx: Context) -> list[Job]:
        """Make a job for each router, in as many rows as may go at a time."""
        found = ctx.session.scalars(self._chosen(ctx).order_by(Router.id)).all()
        routers = [router for router in found if is_outdated(router)]
        batch, lanes, jobs = new_uuid(), PARALLEL.number(ctx.session), list[Job]()
        for place, router in enumerate(routers):
            first = jobs[0].uuid if jobs else ""
            job = Job(
                account_id=ctx.caller.account_id,
                domain_id=ctx.caller.domain_id,
                user_id=ctx.caller.user_id,
                command="rebootRouter",
                parameters={"batch": batch, "first": first},
                instance_type="DomainRouter",
                instance_uuid=router.uuid,
                workflow="upgradeRouter",
                serial=f"{batch}/{place % lanes}",
            )
            ctx.session.add(job)
            ctx.session.flush()
            workflows.start_after_commit(ctx.session, job)
            jobs.append(job)
        return jobs

    def _chosen(self, ctx: Context) -> Select[Router]:
        names = ("id", "zoneid", "podid", "clusterid")
        given = [name for name in names if getattr(self, name) is not None]
        given += ["domainid"] if self.domainid is not None or self.account is not None else []
        if not given:
            raise MissingParameter(
                "Unable to execute API command upgraderoutertemplate due to missing parameter: give one of "
                f"{', '.join(names)} and domainid, the latter with or without account."
            )
        if len(given) > 1:
            raise BadParameter(
                f"Invalid parameters {' and '.join(given)}: which routers to upgrade is said by one of "
                f"{', '.join(names)} and domainid (with account), not by several."
            )
        serving = Router.running, Router.removed.is_(None), Router.retired.is_(None), Router.dark.is_(False)
        query = select(Router).where(*serving, visible(Router, ctx.caller))
        if self.id is not None:
            return query.where(Router.id == self.id.id)
        if self.zoneid is not None:
            return query.where(Router.zone_id == self.zoneid.id)
        if self.account is not None:
            return query.where(Router.account_id == account_named(ctx, self.account, self.domainid).id)
        if self.domainid is not None:
            return query.where(Router.domain_id == self.domainid.id)
        query = query.join(Host, Router.host_id == Host.id)
        if self.clusterid is not None:
            return query.where(Host.cluster_id == self.clusterid.id)
        assert self.podid is not None
        return query.where(Host.pod_id == self.podid.id)


@workflow("upgradeRouter")
def upgrade(flow: Flow) -> None:
    """Have the router begin anew, when the first of its batch stands and none has failed."""
    first = flow.arguments["first"]
    if first and not flow.wait_for_job(first, PATIENCE):
        raise Unavailable(f"This router was not upgraded: the first one, by job {first}, has not come to an end.")
    flow.step(_go_on, flow.arguments["batch"])
    reboot(flow)


def _go_on(session: Session, batch: str) -> None:
    failed = session.scalar(select(Job).where(Job.serial.like(f"{batch}/%"), Job.status == FAILED).limit(1))
    if failed is not None:
        name = session.scalar(select(Router.name).where(Router.uuid == failed.instance_uuid)) or failed.instance_uuid
        reason = (failed.result or {}).get("errortext", "")
        raise Unavailable(f"This router was not upgraded, and serves as before, since that of {name} failed: {reason}")
