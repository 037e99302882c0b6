"""addHost: a host with an agent that will dial in, or one that the control plane drives itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import select

from controlplane.api.command import Command, many
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.db.base import new_uuid
from controlplane.errors import BadParameter
from controlplane.reconcile.door import digest_of
from controlplane.reconcile.targets import Agent, Target
from controlplane.zone import clusters, syntax
from controlplane.zone.clusters import Cluster
from controlplane.zone.host_views import host_views
from controlplane.zone.hosts import Host, ensure_local_pool
from controlplane.zone.hypervisors import driver_of
from controlplane.zone.pods import Pod
from controlplane.zone.zones import STATES, Zone
from drivers.protocol import Hosted

SHORTEST_TOKEN = 16
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_SIZES = {"cpus": (8, 1024), "mhz": (2000, 100_000), "memory": (16384, 16 << 20)}
"""What a host without an agent has unless its URL says otherwise (memory in MiB), and the most that it may say."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where and what a new host is.

    :param settings: the URL's query.
    """

    name: str
    address: str
    settings: dict[str, str]


def place_of(url: str) -> Place:
    """Read a host's URL: ``http://NAME``, ``lxc://NAME``, ``http://sim/c0/h1?latency_ms=20``.

    :raises BadParameter: it has no host's name.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    name = "-".join(part for part in (parts.hostname or "", *parts.path.split("/")) if part)
    if not _NAME.fullmatch(name):
        raise BadParameter(f"Invalid parameter url value={url}: it must be http://NAME, where NAME is the host's name.")
    try:
        address = str(IPv4Address(parts.hostname or ""))
    except ValueError:
        address = ""
    return Place(name, address, dict(parse_qsl(parts.query)))


class AddHost(Command, name="addHost", answer=many("host", host_views), instance="Host", event="HOST.CREATE"):
    """Add a host to a cluster.

    A host with an agent is named by the URL and knows the password as its token: it is Connecting until the agent says
    hello. A simulated host is Up at once; its URL's query may say cpus, mhz, memory (MiB), latency_ms, fault_rate …
    """

    unsupported = ("externaldetails", "storageaccessgroups")

    zoneid: Zone = required()
    podid: Pod = required()
    clusterid: Cluster | None = optional()
    clustername: str | None = optional(check=syntax.name, description="made in the pod when it has none of this name")
    hypervisor: str = required()
    url: str = required()
    username: str | None = optional("", check=syntax.name)
    password: str | None = optional(description="the agent's token")
    hosttags: list[str] | None = optional()
    allocationstate: str | None = optional("Enabled", choices=STATES)

    def run(self, ctx: Context) -> list[Host]:
        """Check that all fits together, and write host, target and agent."""
        if self.podid.zone_id != self.zoneid.id:
            raise BadParameter(
                f"Invalid parameter podid value={self.podid.uuid}: it is not in zone {self.zoneid.name}."
            )
        driver, place = driver_of(self.hypervisor), place_of(self.url)
        cluster = self._cluster(ctx)
        if cluster.hypervisor != driver.name:
            raise BadParameter(
                f"Invalid parameter hypervisor value={self.hypervisor}: "
                f"cluster {cluster.name} is of {cluster.hypervisor} hosts."
            )
        try:
            tags = syntax.tag_list(self.hosttags or [])
        except ValueError as error:
            raise BadParameter(f"Invalid parameter hosttags: {error}.") from None
        host = Host(
            name=place.name,
            url=self.url,
            zone_id=self.zoneid.id,
            pod_id=self.podid.id,
            cluster=cluster,
            hypervisor=driver.name,
            resource_state=self.allocationstate,
            address=place.address,
            username=self.username,
            arch=cluster.arch,
            tags=tags,
        )
        if isinstance(driver, Hosted):
            self._host_it(ctx, host, place)
        else:
            self._expect_agent(ctx, host)
        ctx.session.add(host)
        host.target = Target(kind=driver.kind, name=host.name, agent=self._agent)
        ctx.session.flush()
        ensure_local_pool(ctx.session, host, {})
        ctx.instance = host
        ctx.touch(host)
        return [host]

    _agent: Agent | None = None

    def _cluster(self, ctx: Context) -> Cluster:
        if self.clusterid is not None:
            if self.clusterid.pod_id != self.podid.id:
                raise BadParameter(
                    f"Invalid parameter clusterid value={self.clusterid.uuid}: it is not in pod {self.podid.name}."
                )
            return self.clusterid
        if not self.clustername:
            raise BadParameter("Invalid parameter clusterid: say which cluster, by clusterid or by clustername.")
        named = Cluster.pod_id == self.podid.id, Cluster.name == self.clustername, Cluster.removed.is_(None)
        found = ctx.session.scalar(select(Cluster).where(*named))
        return found or clusters.add(ctx, self.zoneid, self.podid, self.clustername, self.hypervisor)

    def _host_it(self, ctx: Context, host: Host, place: Place) -> None:
        taken = select(Host.id).where(Host.zone_id == host.zone_id, Host.name == host.name, Host.removed.is_(None))
        if ctx.session.scalar(taken) is not None:
            host.name = f"{host.name}-{new_uuid()[:8]}"
        host.state, host.password = "Up", self.password
        sizes = {name: _size(place, name) for name in _SIZES}
        host.cpus, host.mhz, host.memory = sizes["cpus"], sizes["mhz"], sizes["memory"] << 20
        host.details = {name: value for name, value in place.settings.items() if name not in _SIZES}

    def _expect_agent(self, ctx: Context, host: Host) -> None:
        token = self.password or ""
        if len(token) < SHORTEST_TOKEN:
            raise BadParameter(
                f"Invalid parameter password: it is the agent's token, and must have {SHORTEST_TOKEN} characters "
                "at least that nobody can guess."
            )
        if host.name in set(ctx.session.scalars(select(Agent.name))):
            raise BadParameter(f"Invalid parameter url value={self.url}: there is a host {host.name}.")
        digest = digest_of(token)
        if ctx.session.scalar(select(Agent.id).where(Agent.token == digest)) is not None:
            raise BadParameter("Invalid parameter password: another host's agent has this token; each needs its own.")
        self._agent = Agent(name=host.name, token=digest)
        ctx.session.add(self._agent)
        host.state = "Connecting"


def _size(place: Place, name: str) -> int:
    default, most = _SIZES[name]
    text = place.settings.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= most:
        raise BadParameter(f"Invalid parameter url: {name}={text} must be a whole number from 1 to {most}.")
    return int(text)
