"""A zone made through the API, as the tests need it again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TOKEN = "a-token-that-is-long-enough"
DNS = {"dns1": "192.0.2.53", "internaldns1": "192.0.2.54"}


def job(cloud: Any, command: str, **parameters: Any) -> dict[str, Any]:
    """Run an asynchronous command that needs no agent, and return its job's result."""
    started = cloud(command, **parameters)
    from sqlalchemy import select

    from controlplane.work.jobs import Job

    with cloud.database.read() as session:
        found = session.scalars(select(Job).where(Job.uuid == started["jobid"])).one()
    assert found.status == 1, found.result
    return started | (found.result or {})


@dataclass
class Zone:
    id: str
    physical: str
    pod: str
    cluster: str
    range: str


def make_zone(
    cloud: Any, name: str = "z1", *, net: int = 1, hypervisor: str = "Simulator", vlan: str = "100-199"
) -> Zone:
    """Make an enabled advanced zone with one physical network, a pod, a cluster and a public range."""
    zone = cloud("createZone", name=name, networktype="Advanced", **DNS)["zone"]["id"]
    physical = job(cloud, "createPhysicalNetwork", name="net", zoneid=zone, vlan=vlan)["id"]
    for traffic in ("Guest", "Public", "Management"):
        job(cloud, "addTrafficType", physicalnetworkid=physical, traffictype=traffic)
    enable_router(cloud, physical)
    job(cloud, "updatePhysicalNetwork", id=physical, state="Enabled")
    pod = cloud(
        "createPod",
        zoneid=zone,
        name="pod",
        gateway=f"10.{net}.0.1",
        netmask="255.255.255.0",
        startip=f"10.{net}.0.10",
        endip=f"10.{net}.0.20",
    )["pod"]["id"]
    vlans = cloud(
        "createVlanIpRange",
        zoneid=zone,
        forvirtualnetwork=True,
        vlan="untagged",
        gateway=f"198.51.{net}.1",
        netmask="255.255.255.0",
        startip=f"198.51.{net}.10",
        endip=f"198.51.{net}.19",
    )["vlan"]["id"]
    (cluster,) = cloud(
        "addCluster", zoneid=zone, podid=pod, clustername="c", clustertype="CloudManaged", hypervisor=hypervisor
    )["cluster"]
    cloud("updateZone", id=zone, allocationstate="Enabled")
    return Zone(zone, physical, pod, cluster["id"], vlans)


def enable_router(cloud: Any, physical: str) -> None:
    """Enable the virtual router's element and provider."""
    provider = cloud("listNetworkServiceProviders", physicalnetworkid=physical, name="VirtualRouter")
    number = provider["networkserviceprovider"][0]["id"]
    element = cloud("listVirtualRouterElements", nspid=number)["virtualrouterelement"][0]["id"]
    job(cloud, "configureVirtualRouterElement", id=element, enabled=True)
    job(cloud, "updateNetworkServiceProvider", id=number, state="Enabled")


def add_host(cloud: Any, zone: Zone, url: str = "http://sim-1", **parameters: Any) -> dict[str, Any]:
    """Add a host to the zone's cluster."""
    (host,) = cloud(
        "addHost",
        **{"zoneid": zone.id, "podid": zone.pod, "clusterid": zone.cluster, "hypervisor": "Simulator", "url": url}
        | parameters,
    )["host"]
    return host
