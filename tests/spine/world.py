"""What the tests of the whole cloud do again and again."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.demo_zone import NOW, TEMPLATE
from controlplane.run import Standing
from systemvm import enter

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
        fabric, place = self.cloud.fabric, self.cloud.place
        states = [place.state(host) for host in fabric.hosts]
        command = enter.command(where, argv, prefix=fabric.prefix, states=states)
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)

    def curl(self, url: str, *options: str, where: str = "internet") -> str:
        """Fetch a URL from out on the internet; empty when nothing answers within two seconds."""
        return self.run(where, "curl", "-s", "-m", "2", *options, url).stdout.strip()

    def network(self, offering: str = "DefaultIsolatedNetworkOfferingWithSourceNatService", **options: Any) -> Any:
        """Make a network with this offering."""
        found = self.api.listNetworkOfferings(name=offering)["networkoffering"][0]
        name = f"net-{next(_names)}"
        return self.api.createNetwork(name=name, zoneid=self.zone, networkofferingid=found["id"], **options)["network"]

    def guest(self, network: str, **options: Any) -> Any:
        """Deploy a small guest on the network and wait for the job."""
        template = self.api.listTemplates(templatefilter="all", name=TEMPLATE, zoneid=self.zone)["template"][0]
        offering = self.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]
        name = f"vm-{next(_names)}"
        wanted = {"name": name, "zoneid": self.zone, "templateid": template["id"], "serviceofferingid": offering["id"]}
        return self.api.deployVirtualMachine(**(wanted | {"networkids": network} | options), **NOW)["virtualmachine"]

    def address(self, network: str) -> Any:
        """Acquire a public address for the network."""
        return self.api.associateIpAddress(zoneid=self.zone, networkid=network, **NOW)["ipaddress"]

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
