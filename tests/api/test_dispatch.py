"""Dispatch: what every command has in common."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from controlplane.api.caller import EVERYONE
from controlplane.api.command import REGISTRY, Command, flat, success
from controlplane.api.dispatch import ATTEMPTS
from controlplane.api.parameters import optional
from controlplane.api.responses import Response
from controlplane.db.configuration import ConfigurationValue
from controlplane.errors import BadParameter, InUse, MissingParameter, Unauthenticated


def test_an_unknown_command_is_told_as_one_that_is_not_allowed(cloud):
    with pytest.raises(Unauthenticated, match="does not exist or is not available for user"):
        cloud("noSuchCommand")


@dataclass(kw_only=True)
class SeenResponse(Response):
    """What a command of this test saw."""

    text: str | None = None
    number: int | None = None


@pytest.fixture
def define(cloud):
    """Define commands for the length of a test."""
    before = set(REGISTRY)
    yield Command
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


class LostRace(Exception):
    sqlstate = "40001"


def test_a_transaction_that_lost_a_race_is_run_again(cloud, define):
    tries = []

    class Raced(define, name="testRaced", answer=success(), roles=EVERYONE):
        """Lose twice, then win."""

        def run(self, ctx):
            tries.append(ctx)
            ctx.session.add(ConfigurationValue(name=f"try {len(tries)}", value="x"))
            if len(tries) < 3:
                raise DBAPIError("UPDATE", {}, LostRace())

    assert cloud("testRaced") == {"success": True}
    assert len({id(ctx.session) for ctx in tries}) == 3
    with cloud.database.read() as session:
        kept = [session.get(ConfigurationValue, (f"try {number}", "Global", 0)) for number in (1, 2, 3)]
    assert [row is not None for row in kept] == [False, False, True]


def test_a_transaction_is_not_run_again_for_ever(cloud, define):
    tries = []

    class Raced(define, name="testRaced", answer=success(), roles=EVERYONE):
        """Always lose."""

        def run(self, ctx):
            tries.append(1)
            raise DBAPIError("UPDATE", {}, LostRace())

    with pytest.raises(InUse, match="try again"):
        cloud("testRaced")
    assert len(tries) == ATTEMPTS


@pytest.mark.parametrize("error", [DBAPIError("x", {}, Exception("disk full")), ValueError("bug")])
def test_other_failures_are_not_tried_again(cloud, define, error):
    tries = []

    class Broken(define, name="testBroken", answer=success(), roles=EVERYONE):
        """Fail."""

        def run(self, ctx):
            tries.append(1)
            raise error

    with pytest.raises(type(error)):
        cloud("testBroken")
    assert len(tries) == 1


def test_a_conflict_that_only_the_database_saw_is_a_refusal(cloud, define):
    class Twice(define, name="testTwice", answer=success(), roles=EVERYONE):
        """Take what is taken."""

        def run(self, ctx):
            raise IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed: nics.mac"))

    with pytest.raises(InUse, match=r"nics\.mac"):
        cloud("testTwice")


def test_what_takes_long_keeps_nobody_from_writing(cloud, define):
    class Slow(define, name="testSlow", answer=flat(SeenResponse), roles=EVERYONE):
        """Look up before the transaction what is used in it."""

        text: str = optional()

        def prepare(self, ctx):
            self.found = len(self.text)
            with cloud.database.write() as session:  # would wait for ever inside of a command's own transaction
                session.add(ConfigurationValue(name="meanwhile", value="x"))

        def run(self, ctx):
            assert ctx.session.get(ConfigurationValue, ("meanwhile", "Global", 0)) is not None
            return SeenResponse(text=self.text, number=self.found)

    assert cloud("testSlow", text="abc") == {"text": "abc", "number": 3}


def test_names_are_read_in_lower_case_however_they_are_spelt(cloud, define):
    class Camel(define, name="testCamel", answer=flat(SeenResponse), roles=EVERYONE, unsupported=("otherName",)):
        """Take a parameter that CloudStack spells with a capital."""

        someText: str = optional()  # noqa: N815

        def run(self, ctx):
            return SeenResponse(text=self.someText)

    for name in ("someText", "SOMETEXT", "sometext"):
        assert cloud("testCamel", **{name: "x"}) == {"text": "x"}
    for name in ("otherName", "othername"):
        with pytest.raises(BadParameter, match="otherName of testCamel is not supported"):
            cloud("testCamel", **{name: "x"})


@pytest.mark.parametrize("sent", [{}, {"jobid": ""}, {"jobid": " "}])
def test_a_missing_parameter_is_named(cloud, sent):
    with pytest.raises(MissingParameter, match=r"queryasyncjobresult due to missing parameter jobid"):
        cloud("queryAsyncJobResult", **sent)


@pytest.mark.parametrize("sent", [{"page": 1}, {"pagesize": 5}, {"page": 1, "pagesize": ""}])
def test_the_paging_rule_comes_before_required_parameters(cloud, sent):
    with pytest.raises(BadParameter, match="page and pagesize go together"):
        cloud("listTrafficTypes", **sent)
