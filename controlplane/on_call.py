"""For people on call: where a target stands and why, and what its rows mean; nothing is touched."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.db.session import Database
from controlplane.reconcile.bundles import make
from controlplane.reconcile.targets import Found, Target
from controlplane.work.jobs import Job, JobWait


def why(database: Database, name: str) -> Iterator[str]:
    """Say how far a target has come, what its agent last said, and who waits for it.

    :raises LookupError: there is no such target.
    """
    with database.read() as session:
        target = _target(session, name)
        agent = f"agent {target.agent.name}, last seen {target.agent.seen}" if target.agent else "the control plane"
        yield f"{target.name} ({target.kind}, {target.uuid}), served by {agent}"
        yield f"desired generation   {target.desired_generation}{' (to be taken down)' if target.absent else ''}"
        yield f"applied generation   {target.applied_generation} at {target.applied}, digest {target.digest[:12]}"
        if target.failed_generation:
            yield f"failed generation    {target.failed_generation}: {target.reason}"
        for unit, reason in sorted(target.failures.items()):
            yield f"failed unit          {unit}: {reason}"
        found = session.get(Found, target.id)
        for check, reason in sorted(found.health.items()) if found else ():
            yield f"health {found.at if found else ''}  {check}: {reason or 'well'}"
        waiting = select(Job, JobWait.generation).join(JobWait).where(JobWait.target_id == target.id)
        for job, generation in session.execute(waiting.order_by(Job.id)):
            yield f"job {job.uuid}  {job.command} waits for generation {generation} since {job.created}"


def plan(database: Database, name: str) -> Iterator[str]:
    """Write out the bundle that the rows mean for a target now; secrets are left out.

    :raises LookupError: there is no such target.
    :raises ValueError: the driver cannot do what the rows ask for.
    """
    with database.read() as session:
        target = _target(session, name)
        bundle, refused = make(session, target)
        same = "as applied" if bundle.digest == target.digest else f"applied is {target.digest[:12] or 'nothing'}"
        yield f"# {bundle.name} generation {bundle.generation} digest {bundle.digest[:12]}, {same}"
        for reason in refused.values():
            yield f"# {reason}"
        for file in bundle.files:
            yield f"\n--- {file.path} ({file.service})"
            yield "(secret)" if file.secret else file.content.rstrip("\n")
        for elements in bundle.elements:
            if elements.items:
                yield f"\n--- elements of {elements.name} ({len(elements.items)})"
                yield "\n".join(elements.items)


def _target(session: Session, name: str) -> Target:
    target = session.scalar(select(Target).where((Target.name == name) | (Target.uuid == name)))
    if target is None:
        names = ", ".join(session.scalars(select(Target.name).order_by(Target.name).limit(20))) or "none"
        raise LookupError(f"There is no target {name}. There are: {names}.")
    return target
