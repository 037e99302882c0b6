"""Two routers with a network each and an internet between them, brought about by the agent's own Applier.

Router ``a`` is 203.0.113.5 with 10.1.1.0/24 behind it, router ``b`` is 203.0.113.6 with 10.2.1.0/24; their guests are
``.5``. Between them is a bridge, on which everything can be overheard, and 203.0.113.1.
"""

import itertools
import os
import socket
import struct
import time
from contextlib import contextmanager

from drivers.ipsec import Tunnel
from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import ApplianceFacts, Network, Nic, PublicAddress
from systemvm import netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.ledger import Ledger
from systemvm.services import HostSettings, Place
from systemvm.services import charon as charon_module
from systemvm.services.charon import Charon, text
from systemvm.services.kinds import KINDS
from tests.golden.router.cases import uid

_numbers = itertools.count()
SERVICES = frozenset({"Dns", "SourceNat", "Firewall"})
ADDRESS = {"a": "203.0.113.5", "b": "203.0.113.6"}
INSIDE = {"a": "10.1.1", "b": "10.2.1"}
CONNECTION = {"a": uid(20, 1), "b": uid(20, 2)}
NUMBER = {"a": 1, "b": 2}


def tunnel(side, **more):
    """The tunnel from one side to the other."""
    other = "b" if side == "a" else "a"
    values = {
        "id": CONNECTION[side],
        "local": ADDRESS[side],
        "networks": (f"{INSIDE[side]}.0/24",),
        "peer": ADDRESS[other],
        "remotes": (f"{INSIDE[other]}.0/24",),
        "psk": "a very secret key",
        "version": "ikev2",
        "ike_policy": "aes256-sha256;modp2048",
        "esp_policy": "aes128-sha256;ecp256",
        **more,
    }
    return Tunnel(**values)


def facts(side, *tunnels, services=SERVICES, **more):
    """What is wanted of one router."""
    number = NUMBER[side]
    outer, inner = f"02:00:00:00:0{number}:01", f"02:00:00:00:0{number}:02"
    network = Network(uid(2, number), f"{INSIDE[side]}.0/24", f"{INSIDE[side]}.1", inner, "x.example", services)
    return ApplianceFacts(
        target=uid(9, number),
        name=f"r-{side}",
        nics=(
            Nic(uid(4, 0), outer, uid(5, 0), "Public", ADDRESS[side], 24, "203.0.113.1", 0),
            Nic(uid(4, 1), inner, network.id, "Guest", network.gateway, 24, "", 1, network.id),
        ),
        addresses=(PublicAddress(uid(1, number), ADDRESS[side], 24, "203.0.113.1", outer, True, network.id),),
        networks=(network,),
        tunnels=tunnels,
        **more,
    )


class VpnLab:
    def __init__(self, folder, kinds=KINDS):
        self.prefix = f"tv{os.getpid()}n{next(_numbers)}-"
        self.outside = f"{self.prefix}o"
        self.applier = Applier(HostSettings("h", "", self.prefix, folder), Ledger(folder / "ledger"), kinds)
        self.services = {service.name for service in kinds["router"]}
        self.generations = itertools.count(1)
        self.bundles = {}
        netns.ensure(self.outside)
        self.ip(self.outside, "link add br0 type bridge", "link set br0 up", "addr add 203.0.113.1/24 dev br0")
        for side, number in NUMBER.items():
            netns.ensure(self.router(side))
            netns.ensure(self.guest(side))
            self.wire(self.outside, f"w{side}", self.router(side), f"02:00:00:00:0{number}:01", "x0")
            self.ip(self.outside, f"link set w{side} master br0")
            self.wire(self.guest(side), "eth0", self.router(side), f"02:00:00:00:0{number}:02", "x1")
            inside = INSIDE[side]
            self.ip(self.guest(side), f"addr add {inside}.5/24 dev eth0", f"route add default via {inside}.1")

    def router(self, side):
        return f"{self.prefix}r-{side}"

    def guest(self, side):
        return f"{self.prefix}g{side}"

    @staticmethod
    def ip(name, *commands):
        for command in commands:
            netns.run(name, ["ip", *command.split()])

    def wire(self, one, device, other, mac, its):
        self.ip(one, f"link add {device} type veth peer name {its} address {mac} netns {other}")
        self.ip(one, f"link set {device} up")

    def apply(self, wanted):
        """Make a router what the facts say; return the outcome."""
        router = VirtualRouter()
        files, elements = router.render(router.plan(wanted))
        files = tuple(file for file in files if file.service in self.services)
        bundle = Bundle(wanted.target, wanted.name, "router", next(self.generations), files, elements)
        outcome = self.applier.apply(bundle)
        if outcome.status == "applied":
            self.bundles[wanted.name[-1]] = bundle
        return outcome

    def join(self, *, a=(), b=(), **more):
        """Join both sides by a tunnel; return the outcomes."""
        return [
            self.apply(facts(side, tunnel(side, **(more | dict(own)))))
            for side, own in (("a", a), ("b", b))
        ]  # fmt: skip

    def state(self, side):
        """What the daemon says of the side's connection, after the agent has looked after it."""
        said = self.applier.ensure(self.bundles[side])
        self.repairs = [*getattr(self, "repairs", ()), *said]
        return dict(self.applier.observe(self.bundles[side]).states).get(CONNECTION[side])

    def connected(self, *sides):
        return {self.state(side) for side in sides or ("a", "b")} == {"Connected"}

    def pid(self, side):
        import json

        path = self.applier.place(self.bundles[side]).folder / "run/charon.pid"
        return json.loads(path.read_text())[0] if path.exists() else None

    def remove(self):
        for bundle in self.bundles.values():
            self.applier.remove(bundle)
        for name in netns.names(self.prefix):
            netns.ensure_no(name)


class Wire:
    """Everything that passes the internet between the routers, as it is on the wire."""

    def __init__(self, lab):
        with netns.entered(lab.outside):
            self.line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003))
            self.line.bind(("wa", 0x0003))
        self.line.setblocking(False)

    def packets(self):
        """(source, destination, protocol, payload) of each IPv4 packet since the last look."""
        found = []
        while True:
            try:
                frame = self.line.recv(65536)
            except BlockingIOError:
                return found
            if frame[12:14] == b"\x08\x00":
                ip = frame[14:]
                ends = socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20])
                found.append((*ends, ip[9], ip[(ip[0] & 15) * 4 :]))

    def close(self):
        self.line.close()


def ports(payload):
    return struct.unpack("!HH", payload[:4])


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
    return value


class Dialler:
    """A client's IKE daemon, which dials in as a user (IKEv2, EAP-MSCHAPv2)."""

    def __init__(self, namespace, folder, authority, monkeypatch):
        self.charon = Charon(Place("client", namespace, folder, HostSettings("c", "", "", folder)))
        self.authority, self.monkeypatch = authority, monkeypatch

    @contextmanager
    def dialled(self, server, user, password):
        """Be connected for the length of the block; yields the own address and what can be reached."""
        with self.monkeypatch.context() as patch:  # unlike a router, a client has address and routes from the daemon
            patch.setattr(charon_module, "_CONF", charon_module._CONF.replace(" = no\n", " = yes\n"))
            self.charon.start()
        with self.charon.session() as session:
            session.load_cert({"type": "X509", "flag": "CA", "data": self.authority})
            session.load_shared({"type": "EAP", "data": password, "owners": [user]})
            session.load_conn({"home": {
                "version": "2", "remote_addrs": [server], "vips": ["0.0.0.0"], "proposals": ["default"],
                "local": {"auth": "eap-mschapv2", "eap_id": user, "id": user},
                "remote": {"auth": "pubkey", "id": server},
                "children": {"net": {"remote_ts": ["0.0.0.0/0"], "esp_proposals": ["default"]}},
            }})  # fmt: skip
            list(session.initiate({"child": "net", "timeout": "8000", "loglevel": "1"}))
            (sa,) = (sa for found in session.list_sas() for sa in found.values())
            yield text(sa["local-vips"][0]), text(next(iter(sa["child-sas"].values()))["remote-ts"][0])

    def stop(self):
        self.charon.daemon.stop()
