"""A zone whose agents answer, with the providers of VPCs enabled, and what makes VPCs and tiers in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.compute_world import World, world

TIER, TIER_WITHOUT_LB, TIER_INTERNAL = (
    f"DefaultIsolatedNetworkOfferingForVpcNetworks{end}" for end in ("", "NoLB", "WithInternalLB")
)


@dataclass
class VpcWorld:
    """The world, and short forms of the commands; ``cloud`` is alice's."""

    there: World
    admin: Any

    @property
    def cloud(self) -> Any:
        return self.there.cloud

    def offering(self, name: str = TIER) -> str:
        return self.admin("listNetworkOfferings", name=name)["networkoffering"][0]["id"]

    def vpc_offering(self, name: str = "Default VPC offering") -> str:
        return self.admin("listVPCOfferings", name=name)["vpcoffering"][0]["id"]

    def vpc(self, name: str = "shop", **more: Any) -> dict[str, Any]:
        cloud = more.pop("cloud", self.cloud)
        given = {"cidr": "10.1.0.0/16", "zoneid": self.there.zone, "vpcofferingid": self.vpc_offering()} | more
        return self.done(cloud("createVPC", name=name, **given))

    def tier(self, vpc: str, name: str = "web", number: int = 1, **more: Any) -> dict[str, Any]:
        cloud = more.pop("cloud", self.cloud)
        given = {"gateway": f"10.1.{number}.1", "netmask": "255.255.255.0", "zoneid": self.there.zone}
        given |= {"networkofferingid": self.offering(), "vpcid": vpc} | more
        return cloud("createNetwork", name=name, **given)["network"]

    def done(self, answer: dict[str, Any]) -> dict[str, Any]:
        return self.there.job(answer)


@contextmanager
def vpc_world(cloud: Any, hosts: int = 1) -> Iterator[VpcWorld]:
    """Make the world."""
    with world(cloud, hosts=hosts) as there:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            for name in ("VirtualRouter", "VpcVirtualRouter", "InternalLbVm"):
                session.add(NetworkServiceProvider(physical_network_id=physical.id, name=name, state="Enabled"))
        yield VpcWorld(there, cloud)
