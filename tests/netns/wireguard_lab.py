"""A WireGuard client of its own, behind a NAT whose mapping can be changed under it; made with wg(8), not with our code."""

import hashlib
import itertools
import subprocess
from pathlib import Path

from systemvm import netns
from tests.netns.router_lab import Lab, until

_numbers = itertools.count()


def genkey():
    """A private key and its public one."""
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    return private, subprocess.run(
        ["wg", "pubkey"], input=private, capture_output=True, text=True, check=True
    ).stdout.strip()


class Client:
    """A namespace behind the outside's NAT: 172.16.N.2, seen as 203.0.113.1 until :meth:`rebind`."""

    def __init__(self, lab: Lab):
        self.lab, number = lab, next(_numbers)
        self.space = f"{lab.prefix}c{number}"
        self.block = f"172.16.{number}"
        self.wire, self.table = f"c{number}", f"nat{number}"
        self.handle = "tc" + hashlib.sha256(self.space.encode()).hexdigest()[:12]
        self.process = None
        netns.ensure(self.space)
        lab._wire(lab.outside, self.wire, self.space, f"02:00:00:00:03:0{number}", "eth0")
        lab.ip(lab.outside, f"addr add {self.block}.1/24 dev {self.wire}")
        lab.ip(self.space, f"addr add {self.block}.2/24 dev eth0", f"route add default via {self.block}.1")
        netns.run(lab.outside, ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        self.rebind("203.0.113.1", 40000 + number)

    def rebind(self, address, port):
        """Have the NAT forget the client and show it with another address and port."""
        chain = f"chain out {{ type nat hook postrouting priority srcnat; ip saddr {self.block}.0/24 udp sport 1-65535"
        table = f"table ip {self.table}\ndelete table ip {self.table}\ntable ip {self.table} {{ {chain} snat to {address}:{port}\n}}\n}}\n"
        netns.run(self.lab.outside, ["nft", "-f", "-"], text_in=table)
        subprocess.run(["ip", "netns", "exec", self.lab.outside, "conntrack", "-D", "-s", f"{self.block}.2"],
                       capture_output=True, check=False)  # fmt: skip

    def up(self, text, address):
        """Start the tunnel with a configuration as wg(8) reads it, and this address; wait for the interface."""
        log = (self.lab.folder / f"{self.handle}.log").open("ab")
        self.process = netns.popen(self.space, ["wireguard-go", "-f", self.handle], stdout=log, stderr=log)
        log.close()
        until(Path(f"/var/run/wireguard/{self.handle}.sock").is_socket)
        netns.run(self.space, ["wg", "setconf", self.handle, "/dev/stdin"], text_in=text)
        self.lab.ip(self.space, f"addr add {address} dev {self.handle}", f"link set {self.handle} mtu 1420 up")
        for cidr in self.allowed():
            netns.run(self.space, ["ip", "route", "replace", cidr, "dev", self.handle])

    def allowed(self):
        return netns.run(self.space, ["wg", "show", self.handle, "allowed-ips"]).split()[1:]

    def down(self):
        if self.process:
            self.process.terminate()
            self.process.wait(5)
            self.process = None

    def remove(self):
        self.down()
        netns.ensure_no(self.space)
