"""A router with ten thousand rules: all of them from nothing, one more, and connections while they are swapped."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import update

from bench.cloud import HOST, Cloud, Guest, serving
from bench.figures import Bar, Figure, timed, until
from bench.forwarding import WORD_PORT, wait_for_connection, wish
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.nics import Nic
from controlplane.network.port_forwarding import PortForward
from systemvm import netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.ledger import Ledger
from systemvm.services import HostSettings, elements
from systemvm.services.nft import Nft

RULES, MORE, LOADS, CONNECTIONS, SWAPS = 10_000, 30, 5, 10_000, 10
FIRST_PORT, EXTRA_PORT = 10_000, 30_000
STRIDE = 7919
"""A prime: the ports are asked in no order."""


@dataclass(frozen=True, slots=True)
class Site:
    """The network with the large router.

    :param guests: two, so that the rules can lead to another one.
    :param spare: public ports that no rule has yet.
    """

    guests: tuple[Guest, Guest]
    address: dict[str, Any]
    router: str
    spare: Iterator[int] = field(default_factory=lambda: iter(range(EXTRA_PORT, 65536)))


def prepare(cloud: Cloud) -> Site:
    """Make the network, its guests and a first rule, and put the other rows beside it without telling anyone."""
    network = str(cloud.network()["id"])
    guests = cloud.guest(network), cloud.guest(network)
    address = cloud.address(network)
    first = wish(address["id"], guests[0], FIRST_PORT, WORD_PORT)
    rule = cloud.caller.job("createPortForwardingRule", **first)["portforwardingrule"]["id"]
    uuids = {port: f"00000000-0000-4000-8000-{port:012d}" for port in range(FIRST_PORT + 1, FIRST_PORT + RULES)}
    given = uuids.items()
    models = [cloud.row(table, **where) for table, where in (
        (PortForward, {"uuid": rule}), (FirewallRule, {"related_uuid": rule}), (PortClaim, {"rule_uuid": rule}),
    )]  # fmt: skip
    cloud.copy(PortForward, models[0], [{"uuid": u, "public_start": p, "public_end": p} for p, u in given])
    cloud.copy(FirewallRule, models[1], [{"start": p, "end": p, "related_uuid": u} for p, u in given])
    cloud.copy(PortClaim, models[2], [{"port": p, "rule_uuid": u} for p, u in given])
    return Site(guests, address, str(cloud.router(network)["name"]))


def whole_chain(cloud: Cloud, site: Site) -> list[Figure]:
    """Bring all ten thousand about with one call, and then one more at a time."""
    whole: list[float] = []
    more: list[float] = []
    with timed(whole):
        _one_more(cloud, site)
    first = _agent_milliseconds(cloud, site)[-1]
    for _ in range(MORE):
        with timed(more):
            _one_more(cloud, site)
    name = f"{RULES} rules and their firewall rules in one change: call → in the kernel"
    agent = _agent_milliseconds(cloud, site)[-MORE:]
    return [
        Figure(name, "ms", whole, [Bar("worst", 1000)], note=f"the agent's part: {first:.0f} ms"),
        Figure(
            f"one more rule on a router with {RULES}",
            "ms",
            more,
            [Bar("median", 100)],
            note=f"the agent's part: {median(agent):.0f} ms",
        ),
    ]


def _one_more(cloud: Cloud, site: Site) -> None:
    given = wish(site.address["id"], site.guests[0], next(site.spare), WORD_PORT)
    cloud.caller.job("createPortForwardingRule", **given)


def _agent_milliseconds(cloud: Cloud, site: Site) -> list[float]:
    """Read from the agent's log how long its applies of the router took."""
    log = cloud.standing.place.log(f"agent-{HOST}").read_text()
    return [
        float(found) * 1000 for found in re.findall(rf"{re.escape(site.router)} generation \d+: \w+ in ([\d.]+) s", log)
    ]


def from_nothing(cloud: Cloud, site: Site) -> list[Figure]:
    """Compare the agent's apply of the whole rule set with ``nft -f`` of the same, turn by turn."""
    held = cloud.held(site.router)
    files = tuple(file for file in held.files if file.service == "nft")
    bundle = replace(held, files=files, name="load", target="load")
    count = sum(len(entry.items) for entry in bundle.elements)
    ours: list[float] = []
    raw: list[float] = []
    with TemporaryDirectory(prefix="netspine-bench-") as name:
        file = Path(name) / "rules.nft"
        file.write_text(elements.replacing(files[0].content, bundle.elements))
        for turn in range(LOADS):
            with _space(f"{cloud.fabric.prefix}raw") as space, timed(raw):
                netns.run(space, ["nft", "-f", str(file)])
            ours.append(_apply(cloud, Path(name) / str(turn), bundle))
    ratios = [one / other for one, other in zip(ours, raw, strict=True)]
    note = f"{count} elements: {median(ours):.0f} ms, from the check to the ledger on disk, nft -f {median(raw):.0f} ms"
    name = f"the agent's apply of {RULES} rules from nothing, against nft -f of the same"
    return [Figure(name, "x", ratios, [Bar("median", 1.5)], note=note, extra={"ms": ours, "raw_ms": raw})]


def _apply(cloud: Cloud, folder: Path, bundle: Bundle) -> float:
    settings = HostSettings("bench", "", cloud.fabric.prefix, folder)
    arrived = Bundle.from_json(bundle.to_json())
    with _space(cloud.fabric.prefix + bundle.name):
        outcome = Applier(settings, Ledger(folder / "ledger"), {bundle.kind: (Nft(),)}).apply(arrived)
    if outcome.status != "applied":
        raise RuntimeError(f"The rule set was not applied: {outcome.failures}")
    return outcome.seconds * 1000


@contextmanager
def _space(name: str) -> Iterator[str]:
    netns.ensure(name)
    try:
        yield name
    finally:
        netns.ensure_no(name)


def swaps(cloud: Cloud, site: Site) -> list[Figure]:
    """Lead all rules to the other guest and back while one connection after the other is made.

    Every connection must be taken, and in one swap the answer may change once: a second change, back to the guest
    before, would be a connection that met the old set after another had met the new one.
    """
    words: list[bytes] = []
    ending, done = threading.Event(), 0
    with serving(site.guests[0].space, WORD_PORT, b"0"), serving(site.guests[1].space, WORD_PORT, b"1"):
        with netns.entered(cloud.fabric.internet):
            wait_for_connection(site.address["ipaddress"], FIRST_PORT)
        thread = threading.Thread(target=_connect_on, args=(cloud, site, words, ending))
        thread.start()
        try:
            while len(words) < CONNECTIONS or done < SWAPS:
                done += 1
                _lead_to(cloud, site, site.guests[done % 2])
                wanted = len(words) + CONNECTIONS // SWAPS // 2
                until(lambda least=wanted: len(words) >= least, 60)
        finally:
            ending.set()
            thread.join(10)
    refused = words.count(b"")
    changes = sum(one != other for one, other in pairwise(word for word in words if word))
    mixed = abs(changes - done)
    note = f"{len(words)} connections over {done} swaps: {refused} refused, {mixed} mixed"
    return [
        Figure(
            "connections that met neither the old set nor the new one",
            "",
            [refused + mixed],
            [Bar("worst", 0)],
            note=note,
        )
    ]


def _lead_to(cloud: Cloud, site: Site, guest: Guest) -> None:
    """Change all the rows at once, and have them brought about by the next call."""
    nic = cloud.row(Nic, mac=guest.mac)
    rule = PortForward
    mine = (
        rule.public_start.between(FIRST_PORT, FIRST_PORT + RULES - 1),
        rule.nic_id.in_(cloud.row(Nic, mac=each.mac)["id"] for each in site.guests),
    )
    with cloud.database.write() as session:
        session.execute(update(rule).where(*mine).values(vm_id=nic["vm_id"], nic_id=nic["id"], guest=guest.address))
    _one_more(cloud, site)


def _connect_on(cloud: Cloud, site: Site, words: list[bytes], ending: threading.Event) -> None:
    """Connect again and again; an empty word is a connection that was not taken."""
    number = 0
    with netns.entered(cloud.fabric.internet):
        while not ending.is_set():
            number = (number + STRIDE) % RULES
            try:
                with socket.create_connection((site.address["ipaddress"], FIRST_PORT + number), timeout=3) as one:
                    words.append(one.recv(1))
            except OSError:
                words.append(b"")
