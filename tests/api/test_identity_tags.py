"""Tags: on what is the caller's own, and on nothing else."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.api.context import Context
from controlplane.compute.virtual_machines import SshKeyPair
from controlplane.errors import ApiError, BadParameter
from controlplane.identity import tags
from controlplane.identity.accounts import Account
from controlplane.identity.tags import tagged, tags_of
from controlplane.storage.templates import Template
from tests.api.people import Company


@pytest.fixture
def company(cloud):
    return Company(cloud)


@pytest.fixture
def things(cloud, company, monkeypatch):
    """Taggable things: a key pair of each person, and a public template of Larry's."""
    monkeypatch.setattr(tags, "_tables", tags._tables | {"Thing": SshKeyPair, "Image": Template})
    found = {}
    for name in ("sam", "sid", "larry"):
        company.account(name)
    with cloud.database.write() as session:
        for name in ("sam", "sid", "larry"):
            owner = session.scalars(select(Account).where(Account.name == name)).one()
            row = SshKeyPair(name=name, public_key="", fingerprint="", account_id=owner.id, domain_id=owner.domain_id)
            session.add(row)
            session.flush()
            found[name] = row.uuid
        image = Template(
            name="i", display_text="i", format="RAW", is_public=True, account_id=owner.id, domain_id=owner.domain_id
        )
        session.add(image)
        session.flush()
        found["image"] = image.uuid
    return found


def put(cloud, kind, ids, *pairs, command="createTags", **more):
    parameters = {"command": command, "resourcetype": kind, "resourceids": ids, **more}
    for index, (key, value) in enumerate(pairs):
        parameters |= {f"tags[{index}].key": key} | ({f"tags[{index}].value": value} if value is not None else {})
    return cloud.raw(parameters)


def listed(cloud, **where):
    return sorted((tag["key"], tag["value"]) for tag in cloud("listTags", **where).get("tag", []))


def test_putting_listing_and_taking_off(cloud, company, things):
    sam = company("sam")
    put(sam, "thing", things["sam"], ("env", "prod"), ("tier", "web"), customer="acme")
    (tag,) = sam("listTags", key="env")["tag"]
    assert (tag["value"], tag["resourcetype"], tag["resourceid"], tag["account"], tag["domain"], tag["customer"]) == (
        "prod", "Thing", things["sam"], "sam", "sales", "acme",
    )  # fmt: skip
    assert listed(sam, resourceid=things["sam"]) == [("env", "prod"), ("tier", "web")]
    assert listed(sam, customer="acme", value="web") == [("tier", "web")]
    assert listed(sam, resourcetype="Nothing") == []
    with pytest.raises(BadParameter, match="already has the tag env=prod"):
        put(sam, "Thing", things["sam"], ("env", "test"))
    with pytest.raises(BadParameter, match="has the tag env=test"):
        put(sam, "Thing", things["sam"], ("env", "test"), command="deleteTags")
    put(sam, "Thing", things["sam"], ("env", None), command="deleteTags")
    assert listed(sam) == [("tier", "web")]
    put(sam, "Thing", things["sam"], command="deleteTags")
    assert listed(sam) == []
    sam.raw({"command": "createTags", "resourcetype": "Thing", "resourceids": things["sam"], "tags[0].spread": "yes"})
    assert listed(sam) == [("spread", "yes")]


def test_nothing_of_others(cloud, company, things):
    put(cloud, "Thing", things["larry"], ("k", "v"))
    for name, foreign in (("sam", "sid"), ("sam", "larry"), ("sally", "larry")):
        caller = company(name)
        for command in ("createTags", "deleteTags"):
            with pytest.raises(BadParameter) as refused:
                put(caller, "Thing", things[foreign], ("x", "y"), command=command)
            with pytest.raises(BadParameter) as missing:
                put(caller, "Thing", "123e4567-e89b-42d3-a456-426614174000", ("x", "y"), command=command)
            assert refused.value.text.replace(things[foreign], "") == missing.value.text.replace(
                "123e4567-e89b-42d3-a456-426614174000", ""
            )
    with pytest.raises(ApiError, match="somebody else"):
        put(company("sam"), "Image", things["image"], ("x", "y"))
    assert listed(company("sam"), listall=True) == []
    assert listed(company("sally"), listall=True, isrecursive=True) == []
    assert listed(company("larry")) == [("k", "v")], "an admin's tag belongs to the owner of the thing"
    with pytest.raises(ApiError):
        put(company("sam"), "Account", company.account("sid")["id"], ("x", "y"))


def test_one_bad_id_changes_nothing(cloud, company, things):
    with pytest.raises(BadParameter):
        put(company("sam"), "Thing", f"{things['sam']},{things['sid']}", ("x", "y"))
    assert listed(cloud, listall=True) == []
    put(company("sally"), "Thing", f"{things['sam']},{things['sid']}", ("x", "y"))
    assert listed(cloud, listall=True) == [("x", "y"), ("x", "y")]


@pytest.mark.parametrize(
    ("kind", "pair", "words"),
    [
        ("Nonsense", ("a", "b"), "must be one of .*User, Account"),
        ("Thing", ("a\nb", "c"), "control characters"),
        ("Thing", ("a", "b\0"), "control characters"),
        ("Thing", (" ", "b"), "not blank"),
        ("Thing", ("a", "b" * 256), "at most 255"),
    ],
)
def test_bad_tags(company, things, kind, pair, words):
    with pytest.raises(BadParameter, match=words):
        put(company("sam"), kind, things["sam"], pair)


def test_rows_with_their_tags(cloud, company, things):
    put(cloud, "Thing", f"{things['sam']},{things['sid']}", ("env", "prod"))
    put(cloud, "Thing", things["sam"], ("tier", "web"))
    with cloud.database.read() as session:
        ctx = Context(session, cloud.caller)
        rows = session.scalars(select(SshKeyPair).order_by(SshKeyPair.id)).all()
        found = tags_of(ctx, "Thing", rows)
        assert [[tag.key for tag in found[row.id]] for row in rows] == [["env", "tier"], ["env"], []]

        def carrying(*wanted):
            query = select(SshKeyPair.name).where(tagged(SshKeyPair, "Thing", wanted))
            return session.scalars(query.order_by(SshKeyPair.id)).all()

        assert carrying({"key": "env", "value": "prod"}) == ["sam", "sid"]
        assert carrying({"key": "env", "value": "prod"}, {"tier": "web"}) == ["sam"]
        assert carrying({"key": "tier"}) == ["sam"]
        assert carrying({"key": "tier", "value": "db"}) == []


def test_what_takes_the_place_of_a_deleted_row_has_none_of_its_tags(cloud, company, things):
    put(cloud, "Thing", things["larry"], ("k", "v"))
    with cloud.database.write() as session:
        old = session.scalars(select(SshKeyPair).where(SshKeyPair.name == "larry")).one()
        session.delete(old)
        session.flush()
        new = SshKeyPair(
            id=old.id, name="new", public_key="", fingerprint="", account_id=old.account_id, domain_id=old.domain_id
        )
        session.add(new)
        session.flush()
        assert tags_of(Context(session, cloud.caller), "Thing", [new]) == {old.id: []}
