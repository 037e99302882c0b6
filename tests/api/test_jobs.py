"""Jobs as their owners ask about them: fields, whose jobs are seen, failures, and what is pending."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.api.context import Context
from controlplane.db.base import now
from controlplane.errors import ApiError, BadParameter, MissingParameter, NoCapacity, Unavailable
from controlplane.events.jobs import pending_jobs
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.roles import RoleRow
from controlplane.identity.users import User
from controlplane.work import jobs
from controlplane.work.jobs import Job


@pytest.fixture
def people(cloud):
    """A domain below ROOT with its admin and a user, and a user in ROOT."""
    with cloud.database.write() as session:
        root = session.scalars(select(Domain)).one()
        sales = Domain(name="sales", name_path="ROOT/sales", level=1, parent_id=root.id)
        session.add(sales)
        session.flush()
        sales.path = f"{root.path}{sales.id}/"
        roles = {role.type: role.id for role in session.scalars(select(RoleRow))}
        for name, kind, number, domain in (
            ("dora", "DomainAdmin", 2, sales),
            ("sam", "User", 0, sales),
            ("una", "User", 0, root),
            ("resi", "ResourceAdmin", 3, root),
        ):
            account = Account(name=name, type=number, domain_id=domain.id, role_id=roles[kind])
            session.add(account)
            session.flush()
            session.add(User(username=name, password="!", account_id=account.id, domain_id=domain.id))
    return {name: cloud.as_user(name) for name in ("dora", "sam", "una", "resi")} | {"admin": cloud}


def job_of(people, name, **fields):
    """A pending job of this person."""
    caller = people[name].caller
    owner = {"account_id": caller.account_id, "domain_id": caller.domain_id, "user_id": caller.user_id}
    with people["admin"].database.write() as session:
        job = Job(
            **owner, **({"command": "deleteNetwork", "instance_type": "Network", "instance_uuid": "n-1"} | fields)
        )
        session.add(job)
        session.flush()
        return job.uuid


def end(people, uuid, error=None):
    with people["admin"].database.write() as session:
        job = session.scalars(select(Job).where(Job.uuid == uuid)).one()
        jobs.fail(session, job, error) if error else jobs.succeed(session, job)


def test_a_pending_job_has_no_result(people):
    uuid = job_of(people, "sam")
    answer = people["sam"]("queryAsyncJobResult", jobid=uuid)
    assert answer | {"accountid": 1, "domainid": 1, "userid": 1, "created": 1} == {
        "accountid": 1,
        "account": "sam",
        "domainid": 1,
        "domainpath": "ROOT/sales",
        "userid": 1,
        "cmd": "deleteNetwork",
        "jobstatus": 0,
        "jobprocstatus": 0,
        "jobresultcode": 0,
        "jobinstancetype": "Network",
        "jobinstanceid": "n-1",
        "created": 1,
        "jobid": uuid,
    }
    assert answer["created"].endswith("+0000")


def test_a_job_that_went_well(people):
    uuid = job_of(people, "sam")
    end(people, uuid)
    answer = people["sam"]("queryAsyncJobResult", jobid=uuid)
    assert (answer["jobstatus"], answer["jobresultcode"], answer["jobresulttype"]) == (1, 0, "object")
    assert answer["jobresult"] == {"success": True}
    assert answer["completed"].endswith("+0000")


def test_a_job_that_failed(people):
    uuid = job_of(people, "sam")
    end(people, uuid, BadParameter("This is wrong."))
    answer = people["sam"]("queryAsyncJobResult", jobid=uuid)
    assert (answer["jobstatus"], answer["jobresultcode"]) == (2, 431)
    assert answer["jobresult"] == {"errorcode": 431, "errortext": "This is wrong."}


@pytest.mark.parametrize("error", [ApiError, NoCapacity, Unavailable])
def test_only_root_admins_read_how_the_cloud_is_built(people, error):
    uuid = job_of(people, "sam")
    end(people, uuid, error("host-7 has no room"))
    for name, told in (("admin", True), ("dora", False), ("sam", False)):
        answer = people[name]("queryAsyncJobResult", jobid=uuid)
        assert answer["jobresult"]["errorcode"] == answer["jobresultcode"] == error.status
        assert ("host-7" in answer["jobresult"]["errortext"]) is told


def test_a_job_whose_object_is_gone_ends_all_the_same(people):
    uuid = job_of(people, "sam", command="updateNetwork", instance_uuid="gone")
    end(people, uuid)
    answer = people["sam"]("queryAsyncJobResult", jobid=uuid)
    assert (answer["jobstatus"], answer["jobresultcode"]) == (2, 536)
    assert "network was deleted before" in answer["jobresult"]["errortext"]


@pytest.mark.parametrize(("owner", "seers"), [("sam", {"admin", "dora", "sam"}), ("una", {"admin", "una"})])
def test_whose_jobs_are_seen(people, owner, seers):
    uuid = job_of(people, owner)
    for name in ("admin", "dora", "sam", "una"):
        listed = people[name]("listAsyncJobs", listall=True).get("asyncjobs", [])
        assert (uuid in {job["jobid"] for job in listed}) is (name in seers), name
        if name in seers:
            assert people[name]("queryAsyncJobResult", jobid=uuid)["jobid"] == uuid
        else:
            with pytest.raises(BadParameter, match=f"jobid value={uuid}") as foreign:
                people[name]("queryAsyncJobResult", jobid=uuid)
            with pytest.raises(BadParameter) as missing:
                people[name]("queryAsyncJobResult", jobid=uuid[:-1] + "0")
            assert foreign.value.text == missing.value.text.replace(uuid[:-1] + "0", uuid)


def test_a_job_is_found_by_its_object(people):
    first, second = job_of(people, "sam"), job_of(people, "sam")
    ask = {"resourceid": "N-1", "resourcetype": "Network"}
    assert people["sam"]("queryAsyncJobResult", **ask)["jobid"] == second != first
    with pytest.raises(BadParameter, match="resourceid"):
        people["una"]("queryAsyncJobResult", **ask)
    for missing in ({}, {"resourceid": "n-1"}, {"resourcetype": "Network"}):
        with pytest.raises(MissingParameter, match="queryasyncjobresult due to missing parameter jobid"):
            people["sam"]("queryAsyncJobResult", **missing)


def test_the_list_has_what_is_pending(people):
    ended, waiting = job_of(people, "sam"), job_of(people, "sam", instance_uuid="n-2")
    end(people, ended)
    answer = people["sam"]("listAsyncJobs")
    assert (answer["count"], [job["jobid"] for job in answer["asyncjobs"]]) == (1, [waiting])
    assert people["sam"]("listAsyncJobs", resourceid="n-2", resourcetype="network")["count"] == 1
    assert people["sam"]("listAsyncJobs", resourceid="n-1") == {}
    assert people["sam"]("listAsyncJobs", keyword="DELETENET")["count"] == 1
    later = now() + timedelta(minutes=1)
    assert people["sam"]("listAsyncJobs", startdate=f"{later:%Y-%m-%dT%H:%M:%S+0000}") == {}
    assert people["sam"]("listAsyncJobs", startdate="2001-01-01")["count"] == 1
    assert people["admin"]("listAsyncJobs", account="sam", domainid=answer["asyncjobs"][0]["domainid"])["count"] == 1
    with pytest.raises(BadParameter, match="managementserverid"):
        people["admin"]("listAsyncJobs", managementserverid="x")


def test_objects_know_their_newest_pending_job(people):
    with people["admin"].database.read() as session:
        ctx = Context(session, people["admin"].caller)
        users = list(session.scalars(select(User).order_by(User.id)))
        one, other = users[0], users[1]
    job_of(people, "sam", instance_uuid=one.uuid)
    newest = job_of(people, "sam", instance_uuid=one.uuid)
    ended = job_of(people, "sam", instance_uuid=other.uuid)
    end(people, ended)
    with people["admin"].database.read() as session:
        ctx = Context(session, people["admin"].caller)
        assert pending_jobs(ctx, users) == {one.uuid: (newest, 0)}
        assert pending_jobs(ctx, []) == {}


def test_a_list_takes_the_same_queries_however_long_it_is(people):
    from sqlalchemy import event

    def queries():
        seen = []
        engine = people["admin"].database.engine
        event.listen(engine, "before_cursor_execute", listener := lambda *args: seen.append(args[2]))
        people["admin"]("listAsyncJobs", listall=True)
        event.remove(engine, "before_cursor_execute", listener)
        return len(seen)

    job_of(people, "sam")
    few = queries()
    for name in ("sam", "una", "dora") * 5:
        job_of(people, name)
    assert queries() == few
