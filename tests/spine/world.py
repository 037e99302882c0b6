"""What the tests of the whole cloud do again and again."""

from __future__ import annotations

import itertools
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs import CloudStackApiException

from controlplane.demo_zone import NOW, TEMPLATE
from controlplane.run import Standing
from systemvm import enter, netns
from tests.spine import wire

SERVICES = ("Dhcp", "Dns", "Firewall", "Lb", "PortForwarding", "SourceNat", "StaticNat", "UserData")
ISOLATED = "DefaultIsolatedNetworkOfferingWithSourceNatService"

_names = itertools.count(1)


@dataclass
class World:
    """A running cloud with one zone."""

    cloud: Standing
    zone: str

    @property
    def api(self) -> Any:
        """The public ``cs`` client, as the root admin."""
        return self.cloud.client

    def run(self, where: str, *argv: str, seconds: float = 10) -> subprocess.CompletedProcess[str]:
        """Run a command at ``internet``, ``vm/NAME``, ``router/NAME`` or ``host/NAME``."""
        command = enter.command(where, argv, prefix=self.cloud.fabric.prefix, states=self.states)
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)

    def space(self, where: str) -> str:
        """Return the network namespace of a place, for programs of the machine and sockets of the test."""
        kind, _, name = where.partition("/")
        if kind == "vm":
            return enter._guest(name, self.states).space
        space = self.cloud.fabric.prefix + (name or kind)
        return enter._newest(space) if kind == "router" else space

    def beside(self, where: str, *argv: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine, which the guest need not have, in the network namespace of a place."""
        argv = ("ip", "netns", "exec", self.space(where), *argv)
        return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)

    def ask(self, address: str, port: int, *, where: str = "internet", **options: Any) -> str:
        """Return what answers at an address and port; see :func:`tests.spine.wire.ask`."""
        return wire.ask(self.space(where), address, port, **options)

    def pings(self, where: str, address: str, *options: str) -> bool:
        """Tell whether an address answers one ping within a second."""
        done = self.beside(where, "busybox", "ping", "-c1", "-W1", *options, address)
        assert "1 packets transmitted" in done.stdout, done
        return done.returncode == 0

    @property
    def states(self) -> list[Path]:
        """The folders of the hosts' agents."""
        return [self.cloud.place.state(host) for host in self.cloud.fabric.hosts]

    def curl(self, url: str, *options: str, where: str = "internet") -> str:
        """Fetch a URL from out on the internet; empty when nothing answers within two seconds."""
        return self.run(where, "curl", "-s", "-m", "2", *options, url).stdout.strip()

    def network(self, offering: str = ISOLATED, **options: Any) -> Any:
        """Make a network with this offering."""
        found = self.api.listNetworkOfferings(name=offering)["networkoffering"][0]
        name = f"net-{next(_names)}"
        return self.api.createNetwork(name=name, zoneid=self.zone, networkofferingid=found["id"], **options)["network"]

    def guest(self, network: str, **options: Any) -> Any:
        """Deploy a small guest on the network and wait for the job."""
        return self.api.deployVirtualMachine(**(self.wanted(network) | options), **NOW)["virtualmachine"]

    def wanted(self, network: str) -> dict[str, str]:
        """Return what deployVirtualMachine needs for a small guest on the network."""
        template = self.api.listTemplates(templatefilter="executable", name=TEMPLATE, zoneid=self.zone)["template"][0]
        offering = self.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]
        wanted = {"name": f"vm-{next(_names)}", "zoneid": self.zone, "templateid": template["id"]}
        return wanted | {"serviceofferingid": offering["id"], "networkids": network}

    def address(self, network: str) -> Any:
        """Acquire a public address for the network."""
        return self.api.associateIpAddress(zoneid=self.zone, networkid=network, **NOW)["ipaddress"]

    def forward(self, ip: Any, guest: Any, public: int, private: int, **options: Any) -> Any:
        """Forward a port of an address to a guest; other protocols, ranges and sources by CloudStack's names."""
        wanted = {"protocol": "tcp", "publicport": public, "privateport": private} | options
        wanted |= {"ipaddressid": ip["id"], "virtualmachineid": guest["id"]}
        return self.api.createPortForwardingRule(**wanted, **NOW)["portforwardingrule"]

    def balance(self, ip: Any, guests: list[Any], public: int, **options: Any) -> Any:
        """Balance a port of an address among guests."""
        wanted = {"name": f"lb-{next(_names)}", "algorithm": "roundrobin", "publicport": public, "privateport": 80}
        rule = self.api.createLoadBalancerRule(**(wanted | options), publicipid=ip["id"], **NOW)["loadbalancer"]
        members = ",".join(guest["id"] for guest in guests)
        self.api.assignToLoadBalancerRule(id=rule["id"], virtualmachineids=members, **NOW)
        return rule

    def offering(self, services: Sequence[str] = SERVICES, **options: Any) -> str:
        """Make and enable a network offering with these of the virtual router's services; return its name."""
        name = f"offering-{next(_names)}"
        providers = [{"service": service, "provider": "VirtualRouter"} for service in services]
        wanted = {"name": name, "displaytext": name, "guestiptype": "Isolated", "traffictype": "Guest"} | options
        made = self.api.createNetworkOffering(
            supportedservices=",".join(services), serviceproviderlist=providers, **wanted
        )["networkoffering"]
        self.api.updateNetworkOffering(id=made["id"], state="Enabled")
        return name

    def give_address(self, guest: Any, address: str) -> None:
        """Give a guest an address (``192.0.2.1/24``) by hand, once its DHCP client can no longer take it away."""
        name = f"vm/{guest['name']}"
        until(lambda: self.run(name, "cat", "/run/udhcpc.eth0.pid").stdout)
        self.run(name, "sh", "-c", "kill $(cat /run/udhcpc.eth0.pid)")
        until(lambda: not self.run(name, "pidof", "udhcpc").stdout.strip())
        self.run(name, "ip", "address", "add", address, "dev", "eth0")

    def clear(self, guests: Sequence[Any], *networks: Any) -> None:
        """Expunge guests, then delete networks."""
        for guest in guests:
            self.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
        for network in networks:
            self.api.deleteNetwork(id=network["id"], **NOW)

    def host(self, number: int) -> str:
        """Return the id of a host, counted from 1."""
        return self.api.listHosts(name=f"host-{number}")["host"][0]["id"]

    def refused(self, command: str, **parameters: Any) -> str:
        """Return the sentence with which a call is refused, at once or by its job; it must be refused."""
        try:
            getattr(self.api, command)(**parameters, **({"fetch_result": True} if parameters else {}))
        except CloudStackApiException as refused:
            return refused.error["errortext"]
        raise AssertionError(f"{command} was not refused")

    def kernel(self) -> dict[str, list[str]]:
        """Return what the zone has in the kernel: of each namespace its links, addresses, routes and packet filter."""
        asked = (("ip", "-br", "link"), ("ip", "-br", "addr"), ("ip", "route"), ("nft", "-s", "list", "ruleset"))
        found = {}
        for space in netns.names(self.cloud.fabric.prefix):
            lines = [
                line for argv in asked for line in self.beside(f"at/{self._plain(space)}", *argv).stdout.splitlines()
            ]
            found[space] = sorted(re.sub(r"@\S+", "", line) for line in lines)
        return found

    def _plain(self, space: str) -> str:
        return space.removeprefix(self.cloud.fabric.prefix)

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return rows of the control plane's own database."""
        with closing(sqlite3.connect(self.database)) as rows, rows:
            return rows.execute(query, values).fetchall()

    def rows(self) -> dict[str, int]:
        """Return how many rows each table has."""
        tables = [name for (name,) in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: self.sql(f"SELECT count(*) FROM {name}")[0][0] for name in tables}

    @property
    def database(self) -> Path:
        """The control plane's database."""
        return self.cloud.place.control / "netspine.db"

    def appliance(self, router: Any) -> Path:
        """The folder that a router's agent has of it."""
        name = self._plain(self.space(f"router/{router['name']}"))
        return next(state / "targets" / name for state in self.states if (state / "targets" / name).exists())

    def router(self, network: str) -> Any:
        """The router that serves the network."""
        return self.api.listRouters(networkid=network, listall=True)["router"][0]


def until(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Ask again until the answer is true, and return it; fail when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.05)
