"""A host's filter of its guests: from nothing, what it takes of the bridge, and of one new connection."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.cloud import Cloud
from bench.figures import Bar, Figure, quantile, timed, until
from drivers.hypervisor.namespace import Namespace
from drivers.hypervisor.namespace.config import PortConfig
from drivers.security import GroupMembers, GroupRule, PortFilter, SecurityGroup
from drivers.vocabulary import HostFacts, Nic, Segment
from systemvm import netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.fabric import Fabric
from systemvm.ledger import Ledger
from systemvm.ports import Port
from systemvm.services import HostSettings, segments
from systemvm.services.filters import Filters
from systemvm.services.segments import Segments

HOST = "host-1"
NET = Segment("bench", "vxlan://7001", "Guest")
GUESTS, RULES, LOADS = 100, 50, 5
ROUNDS, SECONDS = 6, 1.0
FEW, MANY, FLOWS, TURNS = 10, 10_000, 4000, 8
QUIET = 0.9
KEPT = 0.9
"""Share of the unfiltered bridge's speed that the filtered one keeps."""
_ETHERNET, _IP, _UDP = "!6s6sH", "!BBHHHBBH4s4s", "!HHHH"


def nic(number: int) -> Nic:
    """Return a guest's NIC; its address follows from the number."""
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    return Nic(f"nic-{number}", mac, NET.id, "Guest", f"10.9.{number >> 8}.{number & 255}", 16, "10.9.0.1", 0)


def rules_of(guest: int, count: int) -> tuple[GroupRule, ...]:
    """Return rules of all kinds: single ports, ranges, ICMP, and by group, from networks of several sizes."""
    found = []
    for number in range(count):
        kind, start = ("tcp", "tcp", "udp", "tcp", "icmp")[number % 5], 1000 + number
        end = start + number % 7
        source = f"10.{9 + number % 3}.{number % 256}.0/{(16, 24, 32)[number % 3]}"
        head = ("icmp", number % 9, -1) if kind == "icmp" else (kind, start, end)
        by_group = number % 10 == 3
        cidrs = () if by_group else (source, "2001:db8::/32")
        found.append(GroupRule(f"r-{guest}-{number}", *head, cidrs, f"g-{(guest + 1) % GUESTS}" if by_group else ""))
    return tuple(found)


def facts(numbers: Sequence[int], count: int, *more: GroupRule, guarded: bool = True) -> HostFacts:
    """Return a host whose guests are each in a group of their own."""
    nics = [nic(number) for number in numbers]
    groups = tuple(SecurityGroup(f"g-{number}", rules_of(number, count) + more, ()) for number in numbers)
    filters = tuple(
        PortFilter(each.id, NET.id, each.mac, (each.address,), (group.id,) if guarded else None)
        for each, group in zip(nics, groups, strict=True)
    )
    members = tuple(GroupMembers(group.id, (each.address,)) for each, group in zip(nics, groups, strict=True))
    return HostFacts(HOST, HOST, (NET,), (), (), (), filters, groups if guarded else (), members if guarded else ())


@dataclass
class Lab:
    """A host of its own, whose guests are bare namespaces."""

    fabric: Fabric
    folder: Path
    generation: int = 0

    @property
    def settings(self) -> HostSettings:
        """What the agent of the host was told."""
        return self.fabric.settings(HOST, self.folder)

    @property
    def space(self) -> str:
        """The host's namespace."""
        return self.fabric.namespace(HOST)

    def bundle(self, wanted: HostFacts) -> Bundle:
        """Return what the host is to be."""
        driver = Namespace()
        files, elements = driver.render(driver.plan(wanted))
        self.generation += 1
        return Bundle(HOST, HOST, "host", self.generation, files, elements)

    def apply(self, bundle: Bundle, folder: str = "agent") -> float:
        """Apply and return the milliseconds that it took.

        :param folder: of the agent: another one begins with nothing.
        """
        ledger = Ledger(self.folder / folder / "ledger")
        agent = Applier(self.settings, ledger, {"host": (Segments(), Filters())}, frozenset({"host"}))
        outcome = agent.apply(bundle)
        if outcome.status not in ("applied", "unchanged") or outcome.failures:
            raise RuntimeError(f"The host's filter was not applied: {outcome.failures}")
        return outcome.seconds * 1000

    def plug(self, number: int, bundle: Bundle) -> str:
        """Make a guest's namespace with its cable and address; return its name."""
        space, wanted = f"{self.fabric.prefix}g{number}", PortConfig.of(nic(number))
        netns.ensure(space)
        port = Port(**{name: getattr(wanted, name) for name in wanted.__dataclass_fields__})
        segments.bay(self.settings, bundle).plug(space, (port,), up=True)
        netns.run(space, ["ip", "address", "replace", f"{nic(number).address}/16", "dev", "eth0"])
        return space


@contextmanager
def lab(cloud: Cloud) -> Iterator[Lab]:
    """Have a host stand for the length of the block."""
    with TemporaryDirectory(prefix="netspine-bench-") as name:
        fabric = Fabric(f"{cloud.fabric.prefix}f", (HOST,))
        with fabric.standing():
            try:
                yield Lab(fabric, Path(name))
            finally:
                for space in netns.names(f"{fabric.prefix}g"):
                    netns.ensure_no(space)


def measures(cloud: Cloud) -> list[Figure]:
    """Measure all of it."""
    with lab(cloud) as host:
        return [*from_nothing(host), *throughput(host), *one_connection(host)]


def from_nothing(host: Lab) -> list[Figure]:
    """Apply a full host to an empty kernel, again and again."""
    wanted, planned, applied = facts(range(10, 10 + GUESTS), RULES), list[float](), list[float]()
    for turn in range(LOADS):
        with timed(planned):
            bundle = host.bundle(wanted)
        netns.run(host.space, ["nft", "flush", "ruleset"])
        applied.append(host.apply(bundle, f"agent-{turn}"))
    count = sum(len(entry.items) for entry in bundle.elements)
    name = f"a host with {GUESTS} guests of {RULES} rules each, from nothing"
    note = f"{count} elements; planned in {planned[0]:.0f} ms first, {median(planned[1:]):.0f} ms later"
    return [Figure(f"{name}: apply → in the kernel", "ms", applied, [Bar("worst", 1000)], note=note)]


def throughput(host: Lab) -> list[Figure]:
    """Compare the bridge with and without its filter, turn by turn: groups, addresses alone, nothing."""
    everything = GroupRule("iperf", "tcp", 5201, 5201, ("10.9.0.0/16",))
    guarded = facts((10, 11), RULES, everything)
    bundle = host.bundle(guarded)
    host.apply(bundle)
    spaces = [host.plug(number, bundle) for number in (10, 11)]
    speeds: dict[str, list[float]] = {"groups": [], "addresses": [], "nothing": []}
    server = netns.popen(spaces[1], ["iperf3", "-s"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(spaces[1], 5201))
        for _ in range(ROUNDS):
            host.apply(host.bundle(guarded))
            speeds["groups"] += _speeds(spaces[0], nic(11).address)
            host.apply(host.bundle(facts((10, 11), 0, guarded=False)))
            speeds["addresses"] += _speeds(spaces[0], nic(11).address)
            netns.run(host.space, ["nft", "flush", "ruleset"])
            speeds["nothing"] += _speeds(spaces[0], nic(11).address)
    finally:
        server.kill()
        server.wait()
    figures = []
    plain = quantile(speeds["nothing"], QUIET)
    for name, what in (("groups", "with addresses held and groups"), ("addresses", "with addresses held alone")):
        held = quantile(speeds[name], QUIET)
        note = f"{plain:.1f} Gb/s without, {held:.1f} with, in the best tenth of {len(speeds[name])} moments"
        whole = f"TCP between two guests: the plain bridge / {what}"
        extra = {"gbits": speeds[name], "plain_gbits": speeds["nothing"]}
        figures.append(Figure(whole, "x", [plain / held], [Bar("median", 1 / KEPT)], note=note, extra=extra))
    return figures


def _listens(space: str, port: int) -> bool:
    return f":{port} " in netns.run(space, ["ss", "-Hltn"])


def _speeds(space: str, address: str) -> list[float]:
    """Return the speeds of many moments in Gb/s: others on the machine slow most of them down, and speed none up."""
    line = ["iperf3", "-c", address, "-t", str(SECONDS), "-O", "0.2", "-i", "0.1", "-J"]
    moments = json.loads(netns.run(space, line))["intervals"]
    return [moment["sum"]["bits_per_second"] / 1e9 for moment in moments if not moment["sum"]["omitted"]]


def one_connection(host: Lab) -> list[Figure]:
    """Have first packets of ever new connections sent, each a call that ends when the other guest has it.

    The rules are those of one group; the one that lets the packets in is the last of them.
    """
    spent: dict[int, list[float]] = {FEW: [], MANY: []}
    last = GroupRule("z-last", "udp", 9, 9, ("10.9.0.0/16",))
    wanted = {count: host.bundle(facts((10, 11), count, last)) for count in (FEW, MANY)}
    spaces = [host.plug(number, wanted[FEW]) for number in (10, 11)]
    with netns.entered(spaces[0]):
        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        line.bind(("eth0", 0x0800))
    with line, netns.entered(spaces[1]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", 9))
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ear.setblocking(False)
        for turn in range(TURNS):
            for count in (FEW, MANY):
                bundle = wanted[count]
                host.generation += 1
                host.apply(Bundle(HOST, HOST, "host", host.generation, bundle.files, bundle.elements))
                spent[count].append(_first_packets(line, ear, turn))
    few, many = spent[FEW][1:], spent[MANY][1:]  # the first turn warms up
    ratios = [one / other for one, other in zip(many, few, strict=True)]
    note = f"{median(few):.1f} µs with {FEW}, {median(many):.1f} µs with {MANY}, the whole way from guest to guest"
    name = f"the first packet of a connection: {MANY} rules / {FEW} rules"
    return [Figure(name, "x", ratios, [Bar("median", 1.3)], note=note, extra={"few_us": few, "many_us": many})]


def _first_packets(line: socket.socket, ear: socket.socket, turn: int) -> float:
    """Return the microseconds of one; every packet must have arrived."""
    frames = [_frame(1024 + number, turn) for number in range(FLOWS)]
    arrived, seconds = 0, 0.0
    for first in range(0, FLOWS, 200):
        begun = time.perf_counter()
        for frame in frames[first : first + 200]:
            line.send(frame)
        seconds += time.perf_counter() - begun
        arrived += _drained(ear, 200)
    if arrived != FLOWS:
        raise RuntimeError(f"{FLOWS - arrived} of {FLOWS} first packets did not arrive.")
    return seconds / FLOWS * 1e6


def _drained(ear: socket.socket, wanted: int) -> int:
    count, deadline = 0, time.monotonic() + 1
    while count < wanted and time.monotonic() < deadline:
        try:
            ear.recv(64)
            count += 1
        except BlockingIOError:
            time.sleep(0.001)
    return count


def _frame(sport: int, turn: int) -> bytes:
    """Return a UDP packet from guest 10 to guest 11; the turn makes it another connection."""
    source, target = nic(10), nic(11)
    macs = (bytes.fromhex(each.mac.replace(":", "")) for each in (target, source))
    ends = (socket.inet_aton(source.address), socket.inet_aton(target.address))
    udp = struct.pack(_UDP, (sport + turn * FLOWS) % 64_000 + 1024, 9, 12, 0) + b"spin"
    head = struct.pack(_IP, 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, *ends)
    total = sum(struct.unpack("!10H", head))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack(_ETHERNET, *macs, 0x0800) + head[:10] + struct.pack("!H", check) + head[12:] + udp
