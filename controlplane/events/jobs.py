"""Jobs as their owners ask about them (queryAsyncJobResult, listAsyncJobs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, flat, many
from controlplane.api.context import Context, visible
from controlplane.api.envelope import text_for
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.db.base import Row
from controlplane.errors import BadParameter, MissingParameter
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.users import User
from controlplane.work.jobs import FAILED, PENDING, Job


@dataclass(kw_only=True)
class JobResponse(Response):
    """A job: whose it is, what it does to which object, and what came of it."""

    accountid: str
    account: str
    domainid: str
    domainpath: str
    userid: str
    cmd: str
    jobstatus: int
    jobprocstatus: int = 0
    jobresultcode: int
    jobresulttype: str | None = None
    jobresult: dict[str, Any] | None = None
    jobinstancetype: str | None = None
    jobinstanceid: str | None = None
    created: datetime
    completed: datetime | None = None
    jobid: str


def job_views(ctx: Context, rows: Sequence[Job]) -> list[JobResponse]:
    """Return the jobs as their owners see them."""
    owners = select(User.id, User.uuid, Account.uuid, Account.name, Domain.uuid, Domain.name_path)
    owners = owners.join(Account, User.account_id == Account.id).join(Domain, Account.domain_id == Domain.id)
    found = ctx.session.execute(owners.where(User.id.in_({job.user_id for job in rows})))
    fields = ("userid", "accountid", "account", "domainid", "domainpath")
    whose: dict[int, dict[str, Any]] = {number: dict(zip(fields, whom, strict=True)) for number, *whom in found}
    return [_view(ctx, job, whose[job.user_id]) for job in rows]


def _view(ctx: Context, job: Job, owner: dict[str, Any]) -> JobResponse:
    result = job.result if job.status != PENDING else None
    if result is not None and job.status == FAILED:
        text = text_for(job.code, str(result.get("errortext", "")), admin=ctx.caller.is_admin)
        result = result | {"errortext": text}
    return JobResponse(
        **owner,
        cmd=job.command,
        jobstatus=job.status,
        jobresultcode=job.code,
        jobresulttype="object" if result is not None else None,
        jobresult=result,
        jobinstancetype=job.instance_type or None,
        jobinstanceid=job.instance_uuid or None,
        created=job.created,
        completed=job.completed,
        jobid=job.uuid,
    )


def pending_jobs(ctx: Context, rows: Sequence[Row]) -> dict[str, tuple[str, int]]:
    """Return the newest pending job of each of these objects that has one: by the object's UUID, (job UUID, status).

    Ready for the fields ``jobid`` and ``jobstatus`` that objects carry in lists.
    """
    about = Job.instance_uuid.in_([row.uuid for row in rows]), Job.status == PENDING
    query = select(Job.instance_uuid, Job.uuid, Job.status).where(*about).order_by(Job.id)
    return {instance: (uuid, status) for instance, uuid, status in ctx.session.execute(query)}


class QueryAsyncJobResult(Command, name="queryAsyncJobResult", answer=flat(JobResponse), roles=EVERYONE):
    """Ask how a job stands; its result is there once it has ended."""

    writes = False

    jobid: Job | None = optional(description="id of the job")
    resourceid: str | None = optional(description="instead of a job's id: id of the object that the job is about")
    resourcetype: str | None = optional(description="with resourceid: type of the object, as jobinstancetype has it")

    def run(self, ctx: Context) -> JobResponse:
        """Return the job, or the newest one about the object."""
        (view,) = job_views(ctx, [self.jobid or self._newest(ctx)])
        return view

    def _newest(self, ctx: Context) -> Job:
        if self.resourceid is None or self.resourcetype is None:
            raise MissingParameter(
                "Unable to execute API command queryasyncjobresult due to missing parameter jobid: "
                "give it, or resourceid and resourcetype."
            )
        about = Job.instance_uuid == self.resourceid.lower(), Job.instance_type == self.resourcetype
        job = ctx.session.scalar(select(Job).where(*about, visible(Job, ctx.caller)).order_by(Job.id.desc()).limit(1))
        if job is None:
            raise BadParameter(
                f"Invalid parameter resourceid value={self.resourceid}: no job about a {self.resourcetype} with this "
                "id exists, or it is not yours to see."
            )
        return job


class ListAsyncJobs(
    OwnedListing,
    name="listAsyncJobs",
    answer=many("asyncjobs", job_views),
    roles=EVERYONE,
    unsupported=("managementserverid",),
):
    """List the jobs that have not ended yet."""

    table = Job
    keywords = (Job.command,)
    projectid = tags = None

    startdate: datetime | None = optional(description="only jobs that began then or later")
    resourceid: str | None = matching(Job.instance_uuid, description="only jobs about the object with this id")
    resourcetype: str | None = matching(Job.instance_type, description="only jobs about objects of this type")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Leave out what has ended."""
        del ctx
        query = query.where(Job.status == PENDING)
        return query.where(Job.created >= self.startdate) if self.startdate else query
