"""Ground for rules: a zone with public ranges, accounts, networks, machines and a router, as rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import event, select

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.identity.accounts import Account
from controlplane.identity.roles import RoleRow
from controlplane.identity.users import User
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic, SecondaryAddress, new_mac
from controlplane.network.public_ips import PublicIp, VlanRange
from controlplane.network.routers import Router
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile.targets import Target, settle
from controlplane.storage.templates import Template
from controlplane.work.jobs import Job
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.zones import Zone
from systemvm.bundle import Failure, Outcome

SERVICES = {
    name: ["VirtualRouter"]
    for name in (
        "Dhcp",
        "Dns",
        "Firewall",
        "Lb",
        "PortForwarding",
        "SourceNat",
        "StaticNat",
        "UserData",
    )
}


@dataclass
class Ground:
    """The rows by name, and commands that are waited for."""

    cloud: Any
    zone: str = ""
    numbers: dict[str, int] = field(default_factory=dict)
    counter: Any = field(default_factory=lambda: itertools.count(1))

    def account(self, name: str) -> Any:
        """The cloud as the user of an account, which is made when it is not there."""
        with self.cloud.database.write() as session:
            root = session.scalars(select(Account).where(Account.name == "admin")).one().domain
            if session.scalar(select(Account.id).where(Account.name == name)) is None:
                role = session.scalars(select(RoleRow).where(RoleRow.type == "User", RoleRow.is_default)).first()
                account = Account(name=name, type=0, domain_id=root.id, role_id=role.id)
                session.add(account)
                session.flush()
                session.add(User(username=name, password="!", account_id=account.id, domain_id=root.id))
        return self.cloud.as_user(name)

    def range(self, first: str, count: int, **more: Any) -> str:
        """A public range with its addresses."""
        with self.cloud.database.write() as session:
            owner = more.pop("owner", None)
            if owner:
                more["account_id"] = session.scalars(select(Account.id).where(Account.name == owner)).one()
            row = VlanRange(
                zone_id=self.numbers["zone"],
                physical_network_id=self.numbers["physical"],
                gateway=more.pop("gateway", "203.0.113.1"),
                netmask=more.pop("netmask", "255.255.255.0"),
                start_ip=first,
                end_ip=str(IPv4Address(first) + count - 1),
                **more,
            )
            session.add(row)
            session.flush()
            for offset in range(count):
                address = IPv4Address(first) + offset
                session.add(
                    PublicIp(
                        range_id=row.id, zone_id=row.zone_id, vlan=row.vlan, address=str(address), number=int(address)
                    )
                )
            return row.uuid

    def network(self, owner: str, name: str = "web", **more: Any) -> str:
        """An isolated network, not implemented: its jobs end at once."""
        with self.cloud.database.write() as session:
            account = session.scalars(select(Account).where(Account.name == owner)).one()
            offering = NetworkOffering(
                name=f"{name}-offering",
                unique_name=f"{owner}-{name}",
                display_text="",
                guest_type=more.get("guest_type", "Isolated"),
                state="Enabled",
                services=more.pop("services", SERVICES),
                conserve_mode=more.pop("conserve_mode", True),
            )
            session.add(offering)
            session.flush()
            fields = {"guest_type": "Isolated", "cidr": "10.1.1.0/24", "gateway": "10.1.1.1"} | more
            row = Network(
                name=name,
                account_id=account.id,
                domain_id=account.domain_id,
                zone_id=self.numbers["zone"],
                physical_network_id=self.numbers["physical"],
                offering_id=offering.id,
                **fields,
            )
            session.add(row)
            session.flush()
            self.numbers[row.uuid] = row.id
            return row.uuid

    def machine(self, network: str, name: str, address: str, *further: str, state: str = "Running") -> str:
        """A machine with a NIC on the network."""
        with self.cloud.database.write() as session:
            net = session.scalars(select(Network).where(Network.uuid == network)).one()
            row = VirtualMachine(
                name=name,
                hostname=name,
                state=state,
                zone_id=net.zone_id,
                template_id=self.numbers["template"],
                offering_id=self.numbers["offering"],
                hypervisor="LXC",
                cpus=1,
                mhz=500,
                memory=128,
                account_id=net.account_id,
                domain_id=net.domain_id,
            )
            session.add(row)
            session.flush()
            nic = Nic(vm_id=row.id, network_id=net.id, mac=new_mac(), address=address, default=True)
            nic.secondary = [SecondaryAddress(network_id=net.id, address=one) for one in further]
            session.add(nic)
            session.flush()
            for one in (address, *further):
                session.add(NetworkAddress(network_id=net.id, address=one, nic_id=nic.id))
            self.numbers[row.uuid] = row.id
            return row.uuid

    def router(self, network: str) -> int:
        """A router that serves the network, as the target's number; nobody answers for it but :meth:`settle`."""
        with self.cloud.database.write() as session:
            net = session.scalars(select(Network).where(Network.uuid == network)).one()
            target = Target(kind="router", name=f"r-{next(self.counter)}-VM")
            session.add(target)
            session.flush()
            owner = {"account_id": net.account_id, "domain_id": net.domain_id}
            router = Router(name=target.name, network_id=net.id, zone_id=net.zone_id, target_id=target.id, **owner)
            session.add(router)
            session.flush()
            net.state = "Implemented"
            session.add(
                Nic(router_id=router.id, network_id=net.id, mac=new_mac(), address=net.gateway or "", traffic="Guest")
            )
            return target.id

    def settle(self, target: int, failure: str = "") -> None:
        """The router's agent has applied what is desired, or could not."""
        with self.cloud.database.write() as session:
            row = session.get_one(Target, target)
            failures = (Failure("nft", failure),) if failure else ()
            status = "failed" if failure else "applied"
            settle(session, row, Outcome(row.uuid, row.desired_generation, "digest", status, failures))

    def address(self, cloud: Any, network: str, **more: Any) -> str:
        """Associate an address; its id."""
        return cloud("associateIpAddress", networkid=network, **more)["id"]

    def done(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The result of a job that has ended."""
        status, result = self.job(answer)
        assert status == 1, result
        return next(iter(result.values())) if len(result) == 1 else result

    def job(self, answer: dict[str, Any]) -> tuple[int, Any]:
        """Status and result of a job."""
        with self.cloud.database.read() as session:
            return session.execute(select(Job.status, Job.result).where(Job.uuid == answer["jobid"])).one()

    def rows(self, table: Any, *conditions: Any) -> list[Any]:
        """Rows of a table as they are now."""
        with self.cloud.database.read() as session:
            return list(session.scalars(select(table).where(*conditions)))

    def queries(self, call: Any) -> int:
        """How many statements a call sends."""
        sent: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            sent.append(statement)

        event.listen(self.cloud.database.engine, "before_cursor_execute", note)
        try:
            call()
        finally:
            event.remove(self.cloud.database.engine, "before_cursor_execute", note)
        return len(sent)


def lay(cloud: Any) -> Ground:
    """Fill the database with a zone, a range of 20 addresses and the accounts alice and bob."""
    ground = Ground(cloud)
    with cloud.database.write() as session:
        zone = Zone(name="z", network_type="Advanced", allocation_state="Enabled", dns1="192.0.2.53", internal_dns1="")
        session.add(zone)
        session.flush()
        physical = PhysicalNetwork(name="p", zone_id=zone.id, state="Enabled", isolation="VXLAN", vnets=[[5000, 5999]])
        admin = session.scalars(select(Account).where(Account.name == "admin")).one()
        template = Template(
            name="box",
            display_text="box",
            format="TAR",
            account_id=admin.id,
            domain_id=admin.domain_id,
        )
        offering = ServiceOffering(name="tiny", display_text="tiny", cpus=1, mhz=500, memory=128)
        session.add_all([physical, template, offering])
        session.flush()
        ground.zone = zone.uuid
        ground.numbers |= {
            "zone": zone.id,
            "physical": physical.id,
            "template": template.id,
            "offering": offering.id,
        }
    ground.account("alice")
    ground.account("bob")
    ground.range("203.0.113.10", 20)
    return ground
