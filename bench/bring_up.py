"""Routers and guests from nothing, and a large DHCP table."""

from __future__ import annotations

import subprocess
import time
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select

from bench.caller import PAUSE
from bench.cloud import Cloud, has_address
from bench.dhcp import await_offer
from bench.figures import Bar, Figure, Raw, timed, until
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.nics import Nic
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target
from systemvm import netns

ROUTERS, FIRST_GUESTS, NEXT_GUESTS, HOSTS = 8, 6, 10, 600


def router(cloud: Cloud) -> list[Figure]:
    """Start machines on new networks: from the call to the first DHCP offer of a router that was not there before."""
    offered: list[float] = []
    applied: list[float] = []
    for _ in range(ROUTERS):
        network = str(cloud.network()["id"])
        vm = cloud.caller.job("deployVirtualMachine", **cloud.wish(network, startvm="false"))["virtualmachine"]
        before = _bridges(cloud)
        with timed(offered):
            job = cloud.caller.call("startVirtualMachine", id=vm["id"])["jobid"]
            while not (fresh := _bridges(cloud) - before):
                time.sleep(PAUSE)
            await_offer(cloud.host_space, fresh.pop(), vm["nic"][0]["macaddress"])
        cloud.caller.result(job)
        applied.append(_touch_to_applied(cloud, network))
        cloud.caller.job("destroyVirtualMachine", id=vm["id"], expunge="true")
        cloud.caller.job("deleteNetwork", id=network)
    raw = Raw("netns, 2 veth, nft -f, dnsmasq until it offers", [_primitive(cloud) for _ in range(5)])
    bar = [Bar("median", 500)]
    return [
        Figure("a router from nothing: startVirtualMachine → its first DHCP offer", "ms", offered, bar, raw),
        Figure("… by its row: first touch → outcome stored", "ms", applied, bar),
    ]


def _bridges(cloud: Cloud) -> set[str]:
    """Return the host's bridges of guest networks."""
    with netns.netlink(cloud.host_space) as ip:
        names = {str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links(kind="bridge")}
    return {name for name in names if name.startswith("brvx-")}


def _touch_to_applied(cloud: Cloud, network: str) -> float:
    name = cloud.router(network)["name"]
    query = select(Target.created, Target.applied).join(Router, Router.target_id == Target.id)
    with cloud.database.read() as session:
        created, applied = session.execute(query.where(Router.name == name)).one()
    assert applied is not None
    return float((applied - created).total_seconds() * 1000)


def _primitive(cloud: Cloud) -> float:
    """Take the time of what a router is at the least: a namespace, two cables, a rule set and a DHCP server."""
    space, peer = f"{cloud.fabric.prefix}prim", f"{cloud.fabric.prefix}prim-peer"
    samples: list[float] = []
    process = None
    with TemporaryDirectory(prefix="netspine-bench-") as folder:
        rules = Path(folder) / "rules.nft"
        rules.write_text("table inet t { chain c { type filter hook input priority 0; policy accept; }; }\n")
        argv = ["dnsmasq", "-k", "-C", "/dev/null", "-p0", "--dhcp-range=10.9.0.10,10.9.0.99", "--no-ping"]
        netns.ensure(peer)
        try:
            with timed(samples):
                netns.ensure(space)
                for name in ("p0", "p1"):
                    netns.run(peer, ["ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", space])
                    netns.run(peer, ["ip", "link", "set", name, "up"])
                    netns.run(space, ["ip", "link", "set", name, "up"])
                netns.run(space, ["ip", "addr", "add", "10.9.0.1/24", "dev", "p0"])
                netns.run(space, ["nft", "-f", str(rules)])
                process = netns.popen(space, [*argv, f"--dhcp-leasefile={folder}/leases"], stderr=subprocess.DEVNULL)
                await_offer(peer, "p0", "02:00:00:00:00:01")
        finally:
            if process is not None:
                process.terminate()
                process.wait()
            netns.ensure_no(space)
            netns.ensure_no(peer)
    return samples[0]


def guests(cloud: Cloud) -> list[Figure]:
    """Deploy machines: from the call to the lease, first on new networks and then on one that is there."""
    networks = [str(cloud.network()["id"]) for _ in range(FIRST_GUESTS)]
    first = [_deploy(cloud, network) for network in networks]
    following = [_deploy(cloud, networks[-1]) for _ in range(NEXT_GUESTS)]
    bar = [Bar("worst", 2000)]
    return [
        Figure("deployVirtualMachine → the guest has its lease, on a new network", "ms", first, bar),
        Figure("deployVirtualMachine → the guest has its lease, on a network that is there", "ms", following, bar),
    ]


def _deploy(cloud: Cloud, network: str) -> float:
    samples: list[float] = []
    with timed(samples):
        answer = cloud.caller.call("deployVirtualMachine", **cloud.wish(network))
        vm = cloud.caller.call("listVirtualMachines", id=answer["id"])["virtualmachine"][0]
        guest = cloud.guest_of(vm)
        until(lambda: has_address(guest))
    cloud.caller.result(answer["jobid"])
    return samples[0]


def hosts(cloud: Cloud) -> list[Figure]:
    """Put the rows of 600 stopped machines on a network: from the next call to the DHCP offer for the last of them."""
    before = _bridges(cloud)
    network = cloud.network(gateway="10.20.0.1", netmask="255.255.248.0")
    guest = cloud.guest(network["id"])
    bridge = next(iter(_bridges(cloud) - before))
    last = _insert_hosts(cloud, network["cidr"], guest.id)
    samples: list[float] = []
    with timed(samples):
        cloud.caller.job("createEgressFirewallRule", networkid=network["id"], protocol="all")
        offered = await_offer(cloud.host_space, bridge, last["mac"])
    if offered != last["address"]:
        raise RuntimeError(f"The last of {HOSTS} hosts is offered {offered}, not {last['address']}.")
    name = f"{HOSTS} DHCP hosts at once: call → job done and the last has its offer"
    return [Figure(name, "ms", samples, [Bar("worst", 1000)])]


def _insert_hosts(cloud: Cloud, cidr: str, model: str) -> dict[str, str]:
    """Copy a machine's rows; return address and MAC of the last copy."""
    vm = cloud.row(VirtualMachine, uuid=model)
    nic = cloud.row(Nic, vm_id=vm["id"])
    names = [f"many-{number}" for number in range(HOSTS)]
    stopped = {"state": "Stopped", "running": False, "host_id": None}
    cloud.copy(VirtualMachine, vm, [stopped | {"name": name, "display_name": name, "hostname": name} for name in names])
    query = select(VirtualMachine.id).where(VirtualMachine.name.in_(names)).order_by(VirtualMachine.id)
    with cloud.database.read() as session:
        numbers = session.scalars(query).all()
    addresses = [str(address) for address in ip_network(cidr).hosts()][-HOSTS:]
    macs = [f"02:be:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(HOSTS)]
    columns = "vm_id", "address", "mac", "guest_name"
    given = zip(numbers, addresses, macs, names, strict=True)
    cloud.copy(Nic, nic, [dict(zip(columns, values, strict=True)) for values in given])
    return {"address": addresses[-1], "mac": macs[-1]}
