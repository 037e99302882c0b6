"""Events: one per change, in order, for whom it concerns."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.db.base import now
from controlplane.errors import ApiError, BadParameter
from controlplane.events.events import Event, _words
from controlplane.identity import ownership
from controlplane.identity.accounts import Account
from controlplane.reconcile.targets import Target
from tests.api.people import Company, done


@pytest.fixture
def company(cloud):
    return Company(cloud)


def events(cloud, **where):
    return list(reversed(cloud("listEvents", **where).get("event", [])))


def short(rows):
    return [(row["type"], row["state"], row["level"]) for row in rows]


def test_a_change_leaves_one_event_and_a_job_two(cloud, company):
    sales = company.domain("sales")
    (made,) = events(cloud)
    assert (made["type"], made["state"], made["level"], made["username"]) == (
        "DOMAIN.CREATE",
        "Created",
        "INFO",
        "admin",
    )
    assert (made["resourceid"], made["resourcetype"], made["resourcename"]) == (sales, "Domain", "sales")
    assert made["description"] == f"Create domain 'sales' ({sales})"
    assert (made["account"], made["domain"], made["archived"]) == ("admin", "ROOT", False)
    cloud("updateDomain", id=sales, name="trade")
    done(cloud, cloud("deleteDomain", id=sales))
    rows = events(cloud)
    assert short(rows) == [
        ("DOMAIN.CREATE", "Created", "INFO"),
        ("DOMAIN.UPDATE", "Completed", "INFO"),
        ("DOMAIN.DELETE", "Scheduled", "INFO"),
        ("DOMAIN.DELETE", "Completed", "INFO"),
    ]
    assert rows[3]["parentid"] == rows[2]["id"]
    assert rows[3]["description"] == f"Done: Delete domain 'trade' ({sales})"
    assert rows[3]["resourceid"] == sales


def test_a_refusal_leaves_none_and_a_read_leaves_none(cloud, company):
    company.domain("sales")
    before = len(events(cloud))
    with pytest.raises(BadParameter):
        cloud("createDomain", name="sales")
    cloud("listDomains")
    assert len(events(cloud)) == before


def test_a_job_that_ends_at_once_has_its_events_in_order(cloud, company):
    cloud.raw(
        {
            "command": "createTags",
            "resourcetype": "Account",
            "resourceids": company.account("sam")["id"],
            "tags[0].a": "b",
        }
    )
    rows = events(cloud, type="CREATE_TAGS")
    assert [row["state"] for row in rows] == ["Scheduled", "Completed"]
    assert rows[0]["resourcename"] == "sam"


def test_a_failed_job_says_why_to_those_who_may_know(cloud, company, monkeypatch):
    monkeypatch.setattr(ownership, "REMOVERS", {stage: [] for stage in ownership.STAGES})

    def fail(_session, _account):
        raise ApiError("host kvm-17 is on fire")

    ownership.on_account_removed(fail)
    done(cloud, cloud("deleteAccount", id=company.account("sam")["id"]))
    (row,) = events(cloud, level="ERROR")
    assert (row["type"], row["state"]) == ("ACCOUNT.DELETE", "Completed")
    assert row["description"].startswith("Failed: Delete account 'sam'")
    assert "kvm-17 is on fire" in row["description"]
    sally = company.account("sally")
    with cloud.database.write() as session:
        event = session.query(Event).filter_by(uuid=row["id"]).one()
        owner = session.query(Account).filter_by(uuid=sally["id"]).one()
        event.account_id, event.domain_id = owner.id, owner.domain_id
    (told,) = events(company("sally"), level="ERROR")
    assert "kvm-17" not in told["description"]


def test_whose_events_are_listed(cloud, company):
    sam, sally = company("sam"), company("sally")
    sam("registerUserKeys", id=company.user("sam")["id"])
    assert short(events(sam)) == [("REGISTER.USER.KEY", "Completed", "INFO")]
    assert events(sally, listall=True)[-1]["username"] == "sam"
    assert events(company("laura"), listall=True) == []
    assert events(sally, account="sam", domainid=company.domain("sales")) == events(sam)
    foreign = events(cloud)[0]["id"]
    for command, parameters in (
        ("listEvents", {"id": foreign}),
        ("listEvents", {"startid": foreign}),
        ("archiveEvents", {"ids": foreign}),
        ("deleteEvents", {"ids": foreign}),
    ):
        with pytest.raises(BadParameter, match="not yours to use"):
            sam(command, **parameters)


def test_archiving_and_deleting_reach_the_own_only(cloud, company):
    sam = company("sam")
    sam("registerUserKeys", id=company.user("sam")["id"])
    sam("registerUserKeys", id=company.user("sam")["id"])
    total = cloud("listEvents", listall=True)["count"]
    first, second = events(sam)
    sam("archiveEvents", ids=first["id"])
    assert [row["id"] for row in events(sam)] == [second["id"]]
    assert [row["archived"] for row in events(sam, archived=True)] == [True, False]
    sam("deleteEvents", startdate="2020-01-01")
    assert events(sam, archived=True) == []
    assert cloud("listEvents", listall=True)["count"] == total - 2
    with pytest.raises(BadParameter, match="give ids, or"):
        sam("deleteEvents")
    sam("archiveEvents", type="DOMAIN.CREATE")
    assert events(cloud, type="DOMAIN.CREATE"), "those of others stay"


def test_filters(cloud, company):
    sales = company.domain("sales")
    company.account("sam")
    assert short(events(cloud, resourceid=sales)) == [("DOMAIN.CREATE", "Created", "INFO")]
    assert short(events(cloud, resourcetype="account")) == [("ACCOUNT.CREATE", "Created", "INFO")]
    assert len(events(cloud, keyword="create ACCOUNT")) == 1
    assert events(cloud, state="scheduled") == []
    today = f"{now():%Y-%m-%d}"
    assert len(events(cloud, startdate=today, enddate=today)) == 2
    assert events(cloud, startdate="2020-01-01", enddate="2020-01-02") == []
    with pytest.raises(BadParameter, match="before startdate"):
        cloud("listEvents", startdate="2020-01-02", enddate="2020-01-01")
    job = done(cloud, cloud("deleteDomain", id=company.domain("labs")))
    assert job["jobstatus"] == 1
    begun = events(cloud, state="Scheduled")[0]
    assert [row["state"] for row in events(cloud, startid=begun["id"])] == ["Scheduled", "Completed"]


def test_jobs_that_have_not_ended(cloud, company, monkeypatch):
    monkeypatch.setattr(ownership, "STOPPERS", [lambda session, _account: [session.query(Target).one()]])
    with cloud.database.write() as session:
        session.add(Target(kind="nothing", name="t"))
    cloud("disableAccount", id=company.account("sam")["id"], lock=False)
    done(cloud, cloud("disableAccount", id=company.account("sid")["id"], lock=True))
    with cloud.database.write() as session:
        for row in session.query(Event):
            row.created = now() - timedelta(minutes=5)
    (pending,) = events(cloud, entrytime=600, duration=60)
    assert (pending["resourcename"], pending["state"]) == ("sam", "Scheduled")
    assert events(cloud, entrytime=60, duration=10) == []
    for parameters in ({"entrytime": 60}, {"entrytime": 60, "duration": 61}):
        with pytest.raises(BadParameter):
            cloud("listEvents", **parameters)


def test_the_types(cloud):
    names = [row["name"] for row in cloud("listEventTypes")["eventtype"]]
    assert names == sorted(set(names))
    assert {"DOMAIN.CREATE", "USER.LOGIN", "CREATE_TAGS"} <= set(names)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("createPortForwardingRule", "Create port forwarding rule"),
        ("createVPCOffering", "Create VPC offering"),
        ("addIpToNic", "Add ip to nic"),
        ("resetSSHKeyForVirtualMachine", "Reset SSH key for virtual machine"),
    ],
)
def test_a_command_as_words(command, words):
    assert _words(command) == words
