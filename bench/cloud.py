"""The cloud that is measured: one host, one zone, made through the API, in namespaces of its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import insert, select

from bench.caller import Caller
from bench.figures import until
from controlplane import demo_zone, rooms, run
from controlplane.db.base import Base, new_stamp, new_uuid
from controlplane.db.secrets import load_key
from controlplane.db.session import Database
from controlplane.settings import Settings
from systemvm import netns
from systemvm.bundle import Bundle
from systemvm.container import Container
from systemvm.fabric import Fabric
from systemvm.ledger import Ledger

PORTS = range(18400, 18500)
HOST = "host-1"
ISOLATED = "DefaultIsolatedNetworkOfferingWithSourceNatService"
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest that runs.

    :ivar space: its network namespace.
    """

    id: str
    name: str
    address: str
    mac: str
    space: str


@dataclass(frozen=True)
class Cloud:
    """A cloud that stands."""

    standing: run.Standing
    zone: str
    caller: Caller
    database: Database

    @property
    def fabric(self) -> Fabric:
        """The physical network."""
        return self.standing.fabric

    @property
    def host_space(self) -> str:
        """The namespace that plays the host."""
        return self.fabric.namespace(HOST)

    @property
    def state(self) -> Path:
        """The folder of the host's agent."""
        return self.standing.place.state(HOST)

    @cached_property
    def template(self) -> str:
        """The guests' template."""
        listed = self.caller.call("listTemplates", templatefilter="all", name=demo_zone.TEMPLATE, zoneid=self.zone)
        return str(listed["template"][0]["id"])

    @cached_property
    def size(self) -> str:
        """The guests' service offering."""
        return str(self.caller.call("listServiceOfferings", name="Small Instance")["serviceoffering"][0]["id"])

    @cached_property
    def offering(self) -> str:
        """The networks' offering."""
        return str(self.caller.call("listNetworkOfferings", name=ISOLATED)["networkoffering"][0]["id"])

    def another(self) -> Caller:
        """Return a further client, with a connection of its own."""
        return Caller(self.standing.place.ini)

    def network(self, **options: object) -> dict[str, Any]:
        """Make a network."""
        given = {"name": f"net-{next(_numbers)}", "zoneid": self.zone, "networkofferingid": self.offering}
        made: dict[str, Any] = self.caller.call("createNetwork", **(given | options))["network"]
        return made

    def wish(self, network: str, **options: object) -> dict[str, object]:
        """Return the parameters of a guest's deployment."""
        wanted = {"name": f"vm-{next(_numbers)}", "zoneid": self.zone, "templateid": self.template}
        return wanted | {"serviceofferingid": self.size, "networkids": network} | options

    def guest(self, network: str) -> Guest:
        """Deploy a guest, and stay until it has its lease."""
        vm = self.caller.job("deployVirtualMachine", **self.wish(network))["virtualmachine"]
        guest = self.guest_of(vm)
        until(lambda: has_address(guest))
        return guest

    def guest_of(self, vm: dict[str, Any]) -> Guest:
        """Return the guest that an answer of the API is about."""
        nic = vm["nic"][0]
        record = Container(self.state / "guests" / str(vm["id"])).record
        space = record.space if record else self.fabric.prefix + str(vm["instancename"])
        return Guest(vm["id"], vm["name"], nic["ipaddress"], nic["macaddress"], space)

    def address(self, network: str) -> dict[str, Any]:
        """Acquire a public address for the network."""
        made: dict[str, Any] = self.caller.job("associateIpAddress", zoneid=self.zone, networkid=network)["ipaddress"]
        return made

    def router(self, network: str) -> dict[str, Any]:
        """Return the router of a network."""
        found: dict[str, Any] = self.caller.call("listRouters", networkid=network, listall="true")["router"][0]
        return found

    def held(self, name: str) -> Bundle:
        """Return what the agent's ledger holds of a target."""
        for bundle in Ledger(self.state / "ledger"):
            if bundle.name == name:
                return bundle
        raise LookupError(f"The ledger has no target {name}.")

    def copy(self, table: type[Base], model: dict[str, Any], changes: Sequence[dict[str, Any]]) -> None:
        """Insert copies of a row, each with changes, without any touch: the next call brings them about."""
        own = {name: made for name, made in (("uuid", new_uuid), ("stamp", new_stamp)) if name in model}
        rows = [model | {name: made() for name, made in own.items()} | change for change in changes]
        for row in rows:
            row.pop("id", None)
        with self.database.write() as session:
            session.execute(insert(table), rows)

    def row(self, table: type[Base], **where: object) -> dict[str, Any]:
        """Return one row."""
        with self.database.read() as session:
            found = session.execute(select(table.__table__).filter_by(**where)).mappings().one()
        return dict(found)


def has_address(guest: Guest) -> bool:
    """Tell whether the guest's interface has its address, which it only gets by DHCP."""
    if not netns.exists(guest.space):
        return False
    with netns.netlink(guest.space) as ip:
        return any(message.get_attr("IFA_LOCAL") == guest.address for message in ip.get_addr(family=socket.AF_INET))


@contextmanager
def standing(hosts: tuple[str, ...] = (HOST,)) -> Iterator[Cloud]:
    """Hold a cloud up for the length of the block."""
    fabric = Fabric(f"nb-{os.getpid()}-", hosts)
    with TemporaryDirectory(prefix="netspine-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the control plane has dropped root when it opens its own folder below
        place = run.Place(folder)
        with run.standing(Settings(port=_free_port()), place, fabric) as cloud:
            zone = demo_zone.ensure_zone(cloud.client, run.specs_of(cloud), place.template)
            for factor in ("cpu.overprovisioning.factor", "mem.overprovisioning.factor"):
                cloud.client.updateConfiguration(
                    name=factor, value="100"
                )  # more small guests than the machine is worth
            rooms.enter()
            load_key(place.control / "key")
            database, caller = Database(cloud.settings.database_url), Caller(place.ini)
            try:
                yield Cloud(cloud, zone["id"], caller, database)
            finally:
                caller.close()
                database.close()


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError(f"No port of {PORTS} is free.")


@contextmanager
def serving(space: str, port: int, word: bytes) -> Iterator[None]:
    """Answer each TCP connection to this port inside a namespace with a word, from a thread."""
    with netns.entered(space):
        server = socket.create_server(("0.0.0.0", port), backlog=1024)
    ending = threading.Event()

    def answer() -> None:
        while not ending.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(word)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
