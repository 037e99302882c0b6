"""A zone of host namespaces for tests: each host has its services as the agent has them, and leaves nothing behind."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from drivers.hypervisor.namespace import Namespace
from drivers.security import GroupMembers, PortFilter, SecurityGroup
from drivers.vocabulary import Guest, HostFacts, Nic, Segment, Shell
from systemvm import enter, guest_image, netns
from systemvm.bundle import Bundle, Failure
from systemvm.fabric import Fabric
from systemvm.services import Place
from systemvm.services.drives import Drives
from systemvm.services.filters import Filters
from systemvm.services.guests import Guests
from systemvm.services.segments import Segments
from systemvm.services.shells import Shells

NET = Segment("net-1", "vxlan://5001", "Guest")
OTHER = Segment("net-2", "vxlan://5002", "Guest")
PUBLIC = Segment("public", "vlan://untagged", "Public")

Thing = Segment | Guest | Shell | PortFilter | SecurityGroup | GroupMembers


def until(true: Callable[[], object], seconds: float = 10) -> object:
    """Poll until it is true; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return found


def nic(number: int, segment: Segment = NET, device: int = 0, **more) -> Nic:
    mac = f"02:00:00:{int(segment.uri.rpartition('/')[2].replace('untagged', '0')) % 256:02x}:{device:02x}:{number:02x}"
    kind = segment.traffic
    return Nic(
        f"{segment.id}-{number}-{device}", mac, segment.id, kind, f"10.1.1.{number}", 24, "10.1.1.1", device, **more
    )


class Zone:
    """Hosts on one fabric."""

    def __init__(self, fabric: Fabric, state: Path) -> None:
        self.fabric, self.state = fabric, state
        self.image = state / "template.tar.gz"
        guest_image.pack(self.image)
        self.generation = 0
        self.bundles: dict[str, Bundle] = {}
        self.services = (Segments(), Filters(), Shells(), Drives(), Guests())

    def guest(self, number: int, *nics: Nic, **more) -> Guest:
        plain = Guest(
            f"guest-{number}",
            f"i-2-{number}-VM",
            f"vm{number}",
            str(self.image),
            1,
            500,
            64,
            nics or (nic(number),),
            boot=1,
        )
        return replace(plain, **more)

    def place(self, host: str) -> Place:
        return Place(
            host, self.fabric.namespace(host), self.state / host, self.fabric.settings(host, self.state / host)
        )

    def apply(self, host: str, *things: Thing) -> list[Failure]:
        """Apply what the host is to hold, in the agent's order; return the failures.

        A guest's port of which no filter is given is held to its MAC, as on an L2 network.
        """
        segments, guests, shells, given, groups, members = (
            tuple(thing for thing in things if isinstance(thing, kind))
            for kind in (Segment, Guest, Shell, PortFilter, SecurityGroup, GroupMembers)
        )
        plain = [PortFilter(nic.id, nic.segment, nic.mac, None) for guest in guests for nic in guest.nics]
        filters = tuple(({each.nic: each for each in plain} | {each.nic: each for each in given}).values())
        facts = HostFacts(host, host, segments, guests, shells, (), filters, groups, members)
        driver = Namespace()
        files, elements = driver.render(driver.plan(facts))
        self.generation += 1
        old, new = self.bundles.get(host), Bundle(host, host, "host", self.generation, files, elements)
        place = self.place(host)
        assert [f for service in self.services for f in service.check(place, place.folder, new)] == []
        self.bundles[host] = new
        return [failure for service in self.services for failure in service.activate(place, old, new)]

    def ensure(self, host: str) -> list[str]:
        return [done for service in self.services for done in service.ensure(self.place(host), self.bundles[host])]

    def states(self, host: str) -> dict[str, str]:
        return {
            unit: state
            for service in self.services
            for unit, state in service.observe(self.place(host), self.bundles[host]).states
        }

    def pid(self, host: str, guest: str) -> int:
        return json.loads((self.state / host / "guests" / guest / "record.json").read_text())["pid"]

    def links(self, host: str) -> set[str]:
        """Return every interface of a host with its index, which is another one when it was made anew."""
        with netns.netlink(self.fabric.namespace(host)) as ip:
            return {f"{link.get_attr('IFLA_IFNAME')} {link['index']}" for link in ip.get_links()}

    def pids(self, host: str) -> set[str]:
        records = (self.state / host / "guests").glob("*/record.json")
        return {f"{record.parent.name} {self.pid(host, record.parent.name)}" for record in records}

    def exec(self, where: str, *argv: str, fails: bool = False) -> str:
        states = [self.state / host for host in self.fabric.hosts]
        line = enter.command(where, argv, prefix=self.fabric.prefix, states=states)
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
        assert fails or done.returncode == 0, f"{where}: {argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def address(self, number: int, address: str) -> None:
        """Give a guest an address by hand, once its DHCP client can no longer take it away."""
        name = f"vm/i-2-{number}-VM"
        until(lambda: self.exec(name, "cat", "/run/udhcpc.eth0.pid", fails=True))
        self.exec(name, "sh", "-c", "kill $(cat /run/udhcpc.eth0.pid)", fails=True)
        until(lambda: not self.exec(name, "pidof", "udhcpc", fails=True))
        self.exec(name, "ip", "link", "set", "eth0", "up")
        self.exec(name, "ip", "address", "add", f"{address}/24", "dev", "eth0")

    def remove(self) -> None:
        for host in self.fabric.hosts:
            for service in reversed(self.services):
                service.remove(self.place(host))

    def leftovers(self) -> list[str]:
        """Return what of this zone is still on the machine: namespaces, mounts, processes and groups."""
        left = netns.names(self.fabric.prefix)
        left += [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.state) in line]
        left += [str(path) for path in Path("/sys/fs/cgroup").rglob(f"netspine-{self.fabric.prefix}*")]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if "ovs" in (line := process.read_text()) and str(self.state) in line:
                    left.append(line)
        for process in Path("/proc").glob("[0-9]*/mountinfo"):
            try:
                if str(self.state) in process.read_text():
                    left.append(str(process))
            except OSError:
                continue
        return left


@contextmanager
def zone(prefix: str, state: Path, *hosts: str) -> Iterator[Zone]:
    with Fabric(prefix, hosts).standing() as fabric:
        made = Zone(fabric, state)
        try:
            yield made
        finally:
            made.remove()
    until(lambda: not made.leftovers())
