"""Security groups with a thousand members over many hosts: a change is in every host's kernel."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import select

from bench.cloud import Cloud, standing
from bench.figures import Bar, Figure, timed, until
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.nics import Nic
from controlplane.network.security_groups import SecurityGroupMember
from controlplane.zone.hosts import Host
from systemvm.libnftables import Context, NftError

HOSTS = tuple(f"host-{number}" for number in range(1, 21))
MEMBERS, CHANGES, FIRST_PORT = 1000, 8, 20_000
GUARDED = "DefaultSharedNetworkOfferingWithSGService"
FIRST, MASK = IPv4Address("10.80.0.10"), "255.255.240.0"
SPARE = str(FIRST - 1)
PATIENCE = 60.0
_RULES, _CIRCLES = "map inet netspine in_circle_ports", "set inet netspine circles4"


def changes() -> list[Figure]:
    """Hold a cloud of many hosts up, and change a group that has members on all of them."""
    with standing(HOSTS) as cloud:
        group, guest = _members(cloud)
        kernels = [Context(cloud.fabric.namespace(host)) for host in HOSTS]
        try:
            _allow(cloud, group, FIRST_PORT)  # the hosts hear of all the others
            _wait(kernels, _RULES, f"{FIRST_PORT} .")
            return [_rules(cloud, group, kernels), _addresses(cloud, guest, kernels)]
        finally:
            for kernel in kernels:
                kernel.close()


def _rules(cloud: Cloud, group: str, kernels: list[Context]) -> Figure:
    samples: list[float] = []
    for port in range(FIRST_PORT + 2, FIRST_PORT + 2 + 2 * CHANGES, 2):
        with timed(samples):
            _allow(cloud, group, port)
            _wait(kernels, _RULES, f"{port} .")
    name = f"a rule by group on {MEMBERS} members over {len(HOSTS)} hosts: call → in every kernel"
    return Figure(name, "ms", samples, [Bar("median", 1000)])


def _addresses(cloud: Cloud, guest: str, kernels: list[Context]) -> Figure:
    samples: list[float] = []
    nic = _nic(cloud, guest)["id"]
    for _ in range(CHANGES):
        with timed(samples):
            made = cloud.caller.job("addIpToNic", nicid=nic, ipaddress=SPARE)["nicsecondaryip"]["id"]
            _wait(kernels, _CIRCLES, f". {SPARE}")
        with timed(samples):
            cloud.caller.job("removeIpFromNic", id=made)
            _wait(kernels, _CIRCLES, f". {SPARE}", there=False)
    name = f"a member's address more or less, of {MEMBERS} over {len(HOSTS)} hosts: call → in every kernel"
    return Figure(name, "ms", samples, [Bar("median", 1000)])


def _nic(cloud: Cloud, guest: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.caller.call("listNics", virtualmachineid=guest)["nic"][0]
    return found


def _wait(kernels: list[Context], what: str, word: str, *, there: bool = True) -> None:
    """Stay until all kernels list the word, or none does."""
    for kernel in kernels:
        until(partial(_lists, kernel, what, word, there=there), PATIENCE)


def _lists(kernel: Context, what: str, word: str, *, there: bool) -> bool:
    try:
        return (word in kernel.run(f"list {what}")) == there
    except NftError:
        return False  # the host has no groups yet


def _allow(cloud: Cloud, group: str, port: int) -> None:
    named = {"usersecuritygrouplist[0].account": "admin", "usersecuritygrouplist[0].group": "bench"}
    given = {"securitygroupid": group, "protocol": "tcp", "startport": port, "endport": port}
    cloud.caller.job("authorizeSecurityGroupIngress", **given, **named)


def _members(cloud: Cloud) -> tuple[str, str]:
    """Make the network, the group and one guest, and put the rows of the other members beside it, on all hosts."""
    physical = cloud.caller.call("listPhysicalNetworks", zoneid=cloud.zone)["physicalnetwork"][0]["id"]
    provider = cloud.caller.job("addNetworkServiceProvider", physicalnetworkid=physical, name="SecurityGroupProvider")
    cloud.caller.job("updateNetworkServiceProvider", id=provider["networkserviceprovider"]["id"], state="Enabled")
    offering = cloud.caller.call("listNetworkOfferings", name=GUARDED)["networkoffering"][0]["id"]
    where = {"gateway": "10.80.0.1", "netmask": MASK, "startip": "10.80.0.2", "endip": "10.80.15.250", "vlan": "7801"}
    network = cloud.network(networkofferingid=offering, **where)
    group = str(cloud.caller.call("createSecurityGroup", name="bench")["securitygroup"]["id"])
    guest = cloud.caller.job("deployVirtualMachine", **cloud.wish(network["id"], securitygroupids=group))
    vm = cloud.row(VirtualMachine, uuid=guest["virtualmachine"]["id"])
    nic, member = cloud.row(Nic, vm_id=vm["id"]), cloud.row(SecurityGroupMember, vm_id=vm["id"])
    with cloud.database.read() as session:
        hosts = session.scalars(select(Host.id).order_by(Host.id)).all()[-len(HOSTS) :]
    names = [f"member-{number}" for number in range(1, MEMBERS)]
    stopped = {"state": "Stopped", "running": False}
    shown = [stopped | {"name": name, "display_name": name, "hostname": name} for name in names]
    placed = [each | {"host_id": hosts[number % len(hosts)]} for number, each in enumerate(shown)]
    cloud.copy(VirtualMachine, vm, [each | {"instance_name": f"i-9-{n}-VM"} for n, each in enumerate(placed)])
    query = select(VirtualMachine.id).where(VirtualMachine.name.in_(names)).order_by(VirtualMachine.id)
    with cloud.database.read() as session:
        numbers = session.scalars(query).all()
    macs = [f"02:bf:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(MEMBERS)]
    cloud.copy(Nic, nic, [
        {"vm_id": number, "address": str(FIRST + 100 + place), "mac": macs[place], "guest_name": names[place]}
        for place, number in enumerate(numbers)
    ])  # fmt: skip
    cloud.copy(SecurityGroupMember, member, [{"vm_id": number} for number in numbers])
    return group, str(guest["virtualmachine"]["id"])
