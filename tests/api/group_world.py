"""A zone with a guarded network (a Shared one with security groups) for alice and one for bob, on hosts with agents."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from controlplane.compute.host_facts import host_facts
from controlplane.identity.accounts import Account
from controlplane.network.networks import Network
from controlplane.network.public_ips import VlanRange
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.reconcile.targets import Target
from controlplane.zone.hosts import Host
from drivers.vocabulary import HostFacts
from tests.api.compute_world import World, world


@dataclass
class GroupWorld:
    """What the tests name: the world, and the guarded network of each account."""

    world: World
    cloud: Any
    bob: Any
    guarded: dict[str, str]

    def deploy(self, who: str = "alice", **more: Any) -> dict[str, Any]:
        """A machine on the owner's guarded network."""
        cloud = self.cloud if who == "alice" else self.bob
        return self.world.deploy(cloud=cloud, **{"networkids": self.guarded[who], **more})

    def group(self, name: str, who: str = "alice", **more: Any) -> str:
        """Make a group; its id."""
        cloud = self.cloud if who == "alice" else self.bob
        return cloud("createSecurityGroup", name=name, **more)["securitygroup"]["id"]

    def allow(self, group: str, *, egress: bool = False, cloud: Any = None, **rule: Any) -> dict[str, Any]:
        """Authorize, and wait; the group with the new rules, or the failed job's error."""
        command = "authorizeSecurityGroupEgress" if egress else "authorizeSecurityGroupIngress"
        raw = {"command": command, "securitygroupid": group} | {key: str(value) for key, value in rule.items()}
        return self.world.job((cloud or self.cloud).raw(raw))

    def facts(self) -> list[HostFacts]:
        """What each host is told now."""
        with self.cloud.database.read() as session:
            return [host_facts(session, host.target) for host in session.scalars(select(Host).order_by(Host.id))]

    def told(self) -> dict[str, int]:
        """How often each host was told something new, by name."""
        return {target.name: target.desired_generation for target in self.world.rows(Target, Target.kind == "host")}


def offering_of(session: Any, **more: Any) -> NetworkOffering:
    """An offering whose networks' ports are guarded."""
    services = {"SecurityGroup": ["SecurityGroupProvider"]}
    row = NetworkOffering(
        name="guarded", unique_name="guarded", display_text="", guest_type="Shared", services=services, state="Enabled"
    )
    session.add(row)
    session.flush()
    return row


def guarded_network(session: Any, owner: str, offering: NetworkOffering, block: str) -> Network:
    """A guarded network of the account; guests get .10 to .99 of its block."""
    account = session.scalars(select(Account).where(Account.name == owner)).one()
    first = session.scalars(select(Network).order_by(Network.id)).first()
    network = Network(
        name=f"{owner}-guarded", account_id=account.id, domain_id=account.domain_id, zone_id=first.zone_id,
        physical_network_id=first.physical_network_id, offering_id=offering.id, guest_type="Shared",
        cidr=f"{block}.0/24", gateway=f"{block}.1", network_domain="example.test",
    )  # fmt: skip
    session.add(network)
    session.flush()
    span = {"gateway": f"{block}.1", "netmask": "255.255.255.0", "start_ip": f"{block}.10", "end_ip": f"{block}.99"}
    where = {"zone_id": first.zone_id, "physical_network_id": first.physical_network_id, "network_id": network.id}
    session.add(VlanRange(**where, **span))
    session.flush()
    return network


@contextmanager
def group_world(cloud: Any, hosts: int = 2):
    """Fill the database and have the agents run."""
    with world(cloud, hosts) as there:
        with cloud.database.write() as session:
            offering = offering_of(session)
            names = {"alice": "10.5.1", "bob": "10.5.2"}
            guarded = {who: guarded_network(session, who, offering, block).uuid for who, block in names.items()}
        yield GroupWorld(there, there.cloud, cloud.as_user("bob"), guarded)
