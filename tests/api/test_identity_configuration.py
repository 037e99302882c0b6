"""Settings: what they may be, where they hold, and who changed them."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.db.configuration import SETTINGS, define
from controlplane.errors import BadParameter, Unauthenticated
from controlplane.identity.configuration import ConfigurationChange
from controlplane.identity.passwords import MINIMUM_LENGTH
from tests.api.people import Company


@pytest.fixture
def company(cloud):
    return Company(cloud)


@pytest.fixture
def settings(monkeypatch):
    """Settings of the test's own."""
    monkeypatch.setattr("controlplane.db.configuration.SETTINGS", SETTINGS.copy())
    monkeypatch.setattr("controlplane.identity.configuration.SETTINGS", own := SETTINGS.copy())
    monkeypatch.setattr("controlplane.db.configuration.SETTINGS", own)
    return {
        "number": define("test.number", 5, "a number", category="Test", within=(1, 10), scopes=("Domain",)),
        "flag": define("test.flag", False, "a flag", category="Test"),
        "choice": define("test.choice", "Red", "a choice", category="Test", choices=("Red", "Blue")),
        "text": define("test.text", "", "a text", category="Test"),
    }


def value(cloud, name, **where):
    return cloud("listConfigurations", name=name, **where)["configuration"][0]["value"]


def test_a_change_is_in_force_at_once_and_remembered(cloud, company):
    changed = cloud("updateConfiguration", name="password.policy.minimum.length", value=" 10 ")["configuration"]
    assert (changed["value"], changed["defaultvalue"], changed["type"]) == ("10", "8", "Number")
    with cloud.database.read() as session:
        assert MINIMUM_LENGTH.number(session) == 10
    cloud("updateConfiguration", name="PASSWORD.policy.minimum.length", value=11)
    assert cloud("resetConfiguration", name="password.policy.minimum.length")["configuration"]["value"] == "8"
    with cloud.database.read() as session:
        assert MINIMUM_LENGTH.number(session) == 8
        history = session.scalars(select(ConfigurationChange).order_by(ConfigurationChange.id)).all()
    assert [(row.old, row.new, row.user_id) for row in history] == [
        (None, "10", cloud.caller.user_id),
        ("10", "11", cloud.caller.user_id),
        ("11", None, cloud.caller.user_id),
    ]
    told = cloud("listEvents", type="CONFIGURATION.VALUE.EDIT")["event"]
    assert told[1]["description"].endswith("password.policy.minimum.length (Global) from '10' to '11'")
    assert told[1]["username"] == "admin"


def test_the_narrowest_place_wins(cloud, company):
    sales, name = company.domain("sales"), "password.policy.minimum.length"
    local = cloud("updateConfiguration", name=name, value=20, domainid=sales)["configuration"]
    assert (local["value"], local["scope"]) == ("20", "Domain")
    assert (value(cloud, name), value(cloud, name, domainid=sales)) == ("8", "20")
    cloud("updateConfiguration", name=name, value=9)
    assert (value(cloud, name), value(cloud, name, domainid=sales)) == ("9", "20")
    assert value(cloud, name, domainid=company.domain("labs")) == "9"
    assert cloud("resetConfiguration", name=name, domainid=sales)["configuration"]["value"] == "9"
    assert value(cloud, name, domainid=sales) == "9"
    with pytest.raises(BadParameter, match="can be set for Global, Domain, not for a Account"):
        cloud("updateConfiguration", name=name, value=9, accountid=company.account("sam")["id"])
    with pytest.raises(BadParameter, match="at most one"):
        cloud("updateConfiguration", name=name, value=9, domainid=sales, accountid=company.account("sam")["id"])


@pytest.mark.parametrize(
    ("which", "text", "kept"),
    [
        ("number", "10", "10"),
        ("number", "+3", None),
        ("number", "007", "7"),
        ("number", "0", None),
        ("number", "11", None),
        ("number", "", None),
        ("number", "٣", None),
        ("number", "9" * 30, None),
        ("flag", "TRUE", "true"),
        ("flag", "yes", None),
        ("choice", "blue", "Blue"),
        ("choice", "green", None),
        ("text", "", ""),
        ("text", "a b", "a b"),
    ],
)
def test_what_a_value_may_be(cloud, settings, which, text, kept):
    name = settings[which].name
    if kept is None:
        with pytest.raises(BadParameter, match=f"{name} must be"):
            cloud("updateConfiguration", name=name, value=text)
        assert value(cloud, name) == settings[which].default
    else:
        assert cloud("updateConfiguration", name=name, value=text)["configuration"]["value"] == kept
        assert value(cloud, name) == kept


def test_listing(cloud, settings):
    shown = cloud("listConfigurations", category="test")
    assert [row["name"] for row in shown["configuration"]] == ["test.choice", "test.flag", "test.number", "test.text"]
    assert shown["configuration"][0]["options"] == "Red,Blue"
    assert cloud("listConfigurations", keyword="A NUMBER")["count"] == 1
    assert (
        cloud("listConfigurations", group="Test", subgroup="Others", page=2, pagesize=3)["configuration"][0]["name"]
        == "test.text"
    )
    assert cloud("listConfigurations", parent="x") == {}
    groups = cloud("listConfigurationGroups")["configurationgroup"]
    assert {group["name"] for group in groups} == {setting.category for setting in SETTINGS.values()} | {"Test"}
    (group,) = cloud("listConfigurationGroups", group="test")["configurationgroup"]
    assert group["subgroup"] == [{"name": "Others", "precedence": 1}]
    for parameters, words in (
        ({"name": "no.such", "value": "1"}, "no such setting"),
        ({"name": "test.text"}, "give one"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud("updateConfiguration", **parameters)


def test_settings_are_the_root_admins(cloud, company):
    for name in ("sally", "sam"):
        for command in ("listConfigurations", "updateConfiguration", "resetConfiguration"):
            with pytest.raises(Unauthenticated):
                company(name)(command, name="session.timeout", value="1")
