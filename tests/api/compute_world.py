"""A zone with hosts, offerings, accounts and networks as rows, and agents that speak the real protocol."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import select

from controlplane.identity.accounts import Account
from controlplane.identity.roles import RoleRow
from controlplane.identity.users import User
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp, VlanRange
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile.door import Door, digest_of
from controlplane.reconcile.targets import Agent, Target
from controlplane.storage.templates import Template
from controlplane.work.signals import signals
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone
from systemvm.bundle import Bundle, Failure, Observation, Outcome

GIB = 1 << 30
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA22lRKyr2PJlqCH2C0zlCWAfQWVgUGRSxrKn4ZHGlFn me"
SERVICES = {name: ["VirtualRouter"] for name in ("Dhcp", "Dns", "UserData", "SourceNat", "PortForwarding", "StaticNat")}


@dataclass
class HostAgent:
    """An agent as the control plane meets it: hello, pull, outcome, observation.

    :ivar broken: guests (UUID, or ``*``) that this host cannot start.
    :ivar refusing: it answers every bundle with a failure of the whole.
    :ivar failing: targets, by name, that it cannot bring about.
    :ivar shells: the appliances' shells that it was last told to hold, by name.
    """

    door: Door
    number: int
    broken: set[str] = field(default_factory=set)
    refusing: bool = False
    failing: set[str] = field(default_factory=set)
    holds: dict[str, dict[str, Any]] = field(default_factory=dict)
    shells: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        woken = threading.Event()
        with signals.subscribed([f"agent/{self.number}"], woken.set):
            while not self.ended.is_set():
                woken.clear()
                answer = self.door.pull(self.number, {})
                if answer is None:
                    woken.wait(1)
                    continue
                for data in answer["bundles"]:
                    self.door.outcomes(self.number, [self.apply(Bundle.from_json(data))])

    def apply(self, bundle: Bundle) -> Outcome:
        if self.refusing or (bundle.name in self.failing and not bundle.absent):
            failures = (Failure("segments.json", "line 1: no"),)
            return Outcome(bundle.target, bundle.generation, bundle.digest, "failed", failures)
        failures = []
        if bundle.kind == "host":
            self.holds, self.shells = guests_in(bundle), shells_in(bundle)
            for guest in self.holds.values():
                if guest["running"] and self.broken & {"*", guest["id"]}:
                    failures.append(Failure(guest["id"], "no such image"))
        return Outcome(bundle.target, bundle.generation, bundle.digest, "applied", tuple(failures))

    def see(self, target: str, **states: str) -> None:
        found = tuple((unit.replace("_", "-"), state) for unit, state in states.items())
        self.door.observations(self.number, [Observation(target, states=found)])


def guests_in(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """The guests of a host's bundle by UUID."""
    files = [json.loads(file.content) for file in bundle.files if file.path.startswith("guests/")]
    return {guest["id"]: guest for guest in files}


def shells_in(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """The shells of a host's bundle by name."""
    files = [json.loads(file.content) for file in bundle.files if file.path.startswith("shells/")]
    return {shell["name"]: shell for shell in files}


@dataclass
class World:
    """What the tests name: the database's rows and agents."""

    cloud: Any
    door: Door
    zone: str
    offering: str
    template: str
    network: str
    hosts: list[str]
    agents: list[HostAgent]

    def deploy(self, **parameters: Any) -> dict[str, Any]:
        """Deploy and wait; the machine, or the failed job's error."""
        given = {"zoneid": self.zone, "serviceofferingid": self.offering, "templateid": self.template}
        given |= {"networkids": self.network}
        cloud = parameters.pop("cloud", self.cloud)
        return self.job(cloud("deployVirtualMachine", **{**given, **parameters}))

    def job(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Wait for a job, and return its object or error."""
        from controlplane.work.jobs import PENDING, Job

        uuid = answer["jobid"]

        def ended() -> bool:
            with self.cloud.database.read() as session:
                return session.scalars(select(Job.status).where(Job.uuid == uuid)).one() != PENDING

        assert signals.wait([f"job/{uuid}"], ended, 20), "the job does not end"
        with self.cloud.database.read() as session:
            result = session.scalars(select(Job.result).where(Job.uuid == uuid)).one()
        assert result is not None
        return next(iter(result.values())) if len(result) == 1 else result

    def nobody_holds(self, vm: str = "") -> bool:
        """Whether, within a few seconds, no host holds the guest (any, by default) any more."""
        names = [f"target/{number}" for number in range(1, 99)]
        return signals.wait(
            names, lambda: not any(not vm or vm in agent.holds for agent in self.agents if agent.holds), 5
        )

    def rows(self, table: Any, *conditions: Any) -> list[Any]:
        """Rows of a table as they are now."""
        with self.cloud.database.read() as session:
            return list(session.scalars(select(table).where(*conditions)))


@contextmanager
def world(cloud: Any, hosts: int = 2):
    """Fill the database and have the agents run."""
    door = Door(cloud.database)
    with cloud.database.write() as session:
        for name in ("alice", "bob"):
            _account(session, name)
        made = _zone(session, hosts)
        names = {"network": _network(session, "alice", "web", made["physical"], made["network_offering"]).uuid}
        agents = [HostAgent(door, number) for number in made["agents"]]
    threads = [threading.Thread(target=agent.run) for agent in agents]
    for agent, thread in zip(agents, threads, strict=True):
        door.hello(agent.number, {})
        thread.start()
    try:
        yield World(
            cloud.as_user("alice"), door, made["zone"], made["offering"], made["template"], names["network"],
            made["hosts"], agents,
        )  # fmt: skip
    finally:
        for agent in agents:
            agent.ended.set()
            signals.notify(f"agent/{agent.number}")
        for thread in threads:
            thread.join()


def _account(session: Any, name: str) -> None:
    root = session.scalars(select(Account).where(Account.name == "admin")).one().domain
    role = session.scalars(select(RoleRow).where(RoleRow.type == "User", RoleRow.is_default)).first()
    account = Account(name=name, type=0, domain_id=root.id, role_id=role.id)
    session.add(account)
    session.flush()
    session.add(User(username=name, password="!", account_id=account.id, domain_id=root.id))


def _zone(session: Any, count: int) -> dict[str, Any]:
    zone = Zone(
        name="z1", network_type="Advanced", allocation_state="Enabled", dns1="192.0.2.53", internal_dns1="192.0.2.53"
    )
    session.add(zone)
    session.flush()
    physical = PhysicalNetwork(name="p", zone_id=zone.id, state="Enabled", isolation="VXLAN", vnets=[[5000, 5999]])
    pod = Pod(
        name="pod",
        zone_id=zone.id,
        gateway="10.0.0.1",
        netmask="255.255.255.0",
        start_ip="10.0.0.9",
        end_ip="10.0.0.99",
    )
    session.add_all([physical, pod])
    session.flush()
    cluster = Cluster(name="c", zone_id=zone.id, pod_id=pod.id, hypervisor="LXC")
    session.add(cluster)
    session.flush()
    rows = [_host(session, cluster, f"host-{number}") for number in range(1, count + 1)]
    admin = session.scalars(select(Account).where(Account.name == "admin")).one()
    template = Template(
        name="box", display_text="box", format="TAR", hypervisor="LXC", path="/images/box.tar", state="Ready",
        is_public=True, account_id=admin.id, domain_id=admin.domain_id, size=1 << 20,
    )  # fmt: skip
    offering = ServiceOffering(name="tiny", display_text="tiny", cpus=1, mhz=500, memory=128)
    network_offering = NetworkOffering(
        name="iso", unique_name="iso", display_text="iso", guest_type="Isolated", services=SERVICES, state="Enabled"
    )
    session.add_all([template, offering, network_offering])
    _public_range(session, physical)
    session.flush()
    return {
        "zone": zone.uuid, "physical": physical, "offering": offering.uuid, "template": template.uuid,
        "hosts": [host.uuid for host in rows], "agents": [host.target.agent_id for host in rows],
        "network_offering": network_offering,
    }  # fmt: skip


def _public_range(session: Any, physical: PhysicalNetwork) -> None:
    given = {"gateway": "203.0.113.1", "netmask": "255.255.255.0", "start_ip": "203.0.113.10", "end_ip": "203.0.113.40"}
    row = VlanRange(zone_id=physical.zone_id, physical_network_id=physical.id, **given)
    session.add(row)
    session.flush()
    for last in range(10, 41):
        address = f"203.0.113.{last}"
        session.add(PublicIp(range_id=row.id, zone_id=row.zone_id, address=address, number=int(IPv4Address(address))))


def _host(session: Any, cluster: Cluster, name: str) -> Host:
    agent = Agent(name=name, token=digest_of(name))
    session.add(agent)
    session.flush()
    target = Target(kind="host", name=name, agent_id=agent.id)
    session.add(target)
    session.flush()
    host = Host(
        name=name, url=f"http://{name}", zone_id=cluster.zone_id, pod_id=cluster.pod_id, cluster_id=cluster.id,
        hypervisor="LXC", state="Up", cpus=4, mhz=2000, memory=4 * GIB, target_id=target.id,
    )  # fmt: skip
    session.add(host)
    session.flush()
    return host


def _network(session: Any, owner: str, name: str, physical: PhysicalNetwork, offering: NetworkOffering) -> Network:
    account = session.scalars(select(Account).where(Account.name == owner)).one()
    network = Network(
        name=name, account_id=account.id, domain_id=account.domain_id, zone_id=physical.zone_id,
        physical_network_id=physical.id, offering_id=offering.id, guest_type="Isolated", cidr="10.1.1.0/24",
        gateway="10.1.1.1", network_domain="example.test",
    )  # fmt: skip
    session.add(network)
    session.flush()
    return network


def second_network(there: World) -> str:
    """One more network of alice; its UUID."""
    with there.cloud.database.write() as session:
        first = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        made = _network(session, "alice", "back", first.physical_network, first.offering)
        made.cidr, made.gateway = "10.2.2.0/24", "10.2.2.1"
        return made.uuid
