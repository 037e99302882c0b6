"""A zone that has Shared networks: see :mod:`tests.api.compute_world`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.compute_world import World, world

SHARED = "DefaultSharedNetworkOffering"
WHERE = {"gateway": "10.8.1.1", "netmask": "255.255.255.0", "startip": "10.8.1.10", "endip": "10.8.1.12", "vlan": "300"}
SECOND = {"gateway": "10.8.2.1", "netmask": "255.255.255.0", "startip": "10.8.2.10", "endip": "10.8.2.20"}
V6 = {"ip6gateway": "2001:db8:8::1", "ip6cidr": "2001:db8:8::/64"}


@contextmanager
def shared_world(cloud: Any) -> Any:
    """A zone of one host whose physical network can carry such networks."""
    with world(cloud, hosts=1) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            for name in ("VirtualRouter", "SecurityGroupProvider", "ConfigDrive"):
                provider = NetworkServiceProvider(physical_network_id=physical.id, name=name, state="Enabled")
                session.add(provider)
        yield made


def network(there: World, cloud: Any, offering: str = SHARED, **given: Any) -> dict[str, Any]:
    """Make a network of the offering."""
    found = cloud("listNetworkOfferings", name=offering)["networkoffering"][0]
    wanted = {"name": "common", "zoneid": there.zone, "networkofferingid": found["id"]} | given
    return cloud("createNetwork", **wanted)["network"]


def root(cloud: Any) -> str:
    """The id of the ROOT domain."""
    return cloud("listDomains", name="ROOT")["domain"][0]["id"]
