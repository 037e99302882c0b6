"""Pages of rules: what is kept of former looks is never told for what is there."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import delete, select, update

from controlplane.network import rule_pages
from controlplane.network.port_forwarding import PortForward, forward_facts
from controlplane.network.rule_pages import Pages


@pytest.fixture
def rules(ground, network):
    """Makes rules as rows, and returns the model's columns."""
    alice = ground.account("alice")
    ip, vm = ground.address(alice, network), ground.machine(network, "vm1", "10.1.1.10")
    given = {"ipaddressid": ip, "virtualmachineid": vm, "protocol": "tcp", "openfirewall": "false"}
    for port in range(1, 5):
        alice("createPortForwardingRule", publicport=port, privateport=80, **given)
    row = ground.rows(PortForward)[0]
    names = ("network_id", "public_ip_id", "vm_id", "nic_id", "guest", "account_id", "domain_id", "protocol")
    return {name: getattr(row, name) for name in names} | {"private_start": 80, "private_end": 80}


def seen(ground, network):
    with ground.cloud.database.read() as session:
        return forward_facts(session, ground.numbers[network])


def written(ground):
    """What the rows are, read without any memory."""
    rows = sorted(ground.rows(PortForward), key=lambda row: row.id)
    return [(row.uuid, row.public_start, row.guest, tuple(row.sources)) for row in rows]


def told(facts):
    return [(fact.id, fact.public_start, fact.guest, fact.sources) for fact in facts]


def one_change(session, dice, rules, port):
    numbers = session.scalars(select(PortForward.id)).all()
    kind = dice.choice(("add", "add", "delete", "delete last", "assign", "bulk", "replace"))
    if kind == "add" or not numbers:
        session.add(PortForward(public_start=port, public_end=port, **rules))
    elif kind == "delete":
        session.execute(delete(PortForward).where(PortForward.id == dice.choice(numbers)))
    elif kind == "delete last":
        session.execute(delete(PortForward).where(PortForward.id == max(numbers)))
    elif kind == "assign":
        session.get_one(PortForward, dice.choice(numbers)).sources = [f"198.51.100.{port % 200}/32"]
    elif kind == "bulk":
        some = dice.sample(list(numbers), min(3, len(numbers)))
        session.execute(update(PortForward).where(PortForward.id.in_(some)).values(guest=f"10.1.1.{port % 200}"))
    else:  # a number that is given to another row: SQLite gives the last one again
        session.delete(session.get_one(PortForward, max(numbers)))
        session.flush()
        session.add(PortForward(public_start=port, public_end=port, **rules))


@pytest.mark.parametrize("size", [1, 3, 256])
def test_whatever_was_read_before_the_rows_are_told(ground, network, rules, monkeypatch, size):
    monkeypatch.setattr(rule_pages, "SIZE", size)
    monkeypatch.setattr(rule_pages, "FEW", 2)
    other = Pages(PortForward.__table__, (PortForward.__table__.c.uuid, PortForward.__table__.c.guest))
    dice, number = random.Random(size), ground.numbers[network]
    for turn in range(60):
        with ground.cloud.database.write() as session:
            for _ in range(dice.randint(1, 3)):
                one_change(session, dice, rules, 100 + turn)
            kept = dice.random() < 0.7
            if dice.random() < 0.3:
                session.flush()
                forward_facts(session, number)  # a look at what is about to be undone
            if not kept:
                session.rollback()
        with ground.cloud.database.read() as session:
            assert told(forward_facts(session, number)) == written(ground)
            found = other.read(session, number, {}, lambda uuid, guest: (uuid, guest))
            assert [uuid for uuid, _ in found] == [uuid for uuid, *_ in written(ground)]


def test_only_the_pages_that_changed_are_read_again(ground, network, rules, monkeypatch):
    made = []
    pages = Pages(PortForward.__table__, (PortForward.__table__.c.id,))
    with ground.cloud.database.write() as session:
        session.add_all(PortForward(public_start=port, public_end=port, **rules) for port in range(1000, 2000))

    def look():
        made.clear()
        with ground.cloud.database.read() as session:
            return pages.read(session, ground.numbers[network], {}, lambda number: made.append(number) or number)

    assert len(look()) == len(made) == 1004
    assert len(look()) == 1004
    assert made == []
    with ground.cloud.database.write() as session:
        session.execute(update(PortForward).where(PortForward.id == 300).values(display=False))
    assert len(look()) == 1004
    assert made == list(range(256, 512))


def test_another_address_makes_other_facts(ground, network, rules):
    pages = Pages(PortForward.__table__, (PortForward.__table__.c.public_ip_id,))
    with ground.cloud.database.read() as session:
        for address in ("203.0.113.10", "203.0.113.11"):
            known = {rules["public_ip_id"]: address}
            found = pages.read(session, ground.numbers[network], known, known.get)
            assert set(found) == {address}


def test_what_was_not_asked_for_longest_is_forgotten(ground, network, rules, monkeypatch):
    monkeypatch.setattr(rule_pages, "MOST", 4)
    made = []
    pages = Pages(PortForward.__table__, (PortForward.__table__.c.id,))
    other = ground.network("bob", "other")
    with ground.cloud.database.write() as session:
        session.add(PortForward(public_start=9, public_end=9, **(rules | {"network_id": ground.numbers[other]})))
    with ground.cloud.database.read() as session:
        for asked, fresh in ((network, 4), (network, 0), (other, 1), (network, 4)):
            made.clear()
            pages.read(session, ground.numbers[asked], {}, lambda number: made.append(number) or number)
            assert len(made) == fresh
