"""Networks as guests see them: who hears whom, names, addresses, interfaces, metadata, speed and counters."""

from __future__ import annotations

import base64
import json
import socket

import pytest

from controlplane.demo_zone import NOW
from systemvm import netns
from tests.spine.wire import ask, listening
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
MEBIBYTE = 1 << 20


def shout(world: World, guest, address: str) -> None:
    """Send frames to everyone on the guest's network: an ARP request and a broadcast."""
    where = f"vm/{guest['name']}"
    world.run(where, "arping", "-c", "2", "-w", "1", "-I", "eth0", address)
    with netns.entered(world.space(where)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"hear me", ("10.1.1.255", 9))


def test_one_network_spans_two_hosts_and_another_with_the_same_cidr_hears_nothing(world: World, net, guests):
    first, second = guests
    stranger = world.guest(world.network()["id"], hostid=world.host(1), ipaddress=first["nic"][0]["ipaddress"])
    mac = bytes.fromhex(first["nic"][0]["macaddress"].replace(":", ""))
    assert stranger["nic"][0]["ipaddress"] == first["nic"][0]["ipaddress"]
    assert first["hostname"] == stranger["hostname"] != second["hostname"]
    until(lambda: world.pings(f"vm/{first['name']}", second["nic"][0]["ipaddress"]))
    assert world.pings(f"vm/{second['name']}", first["nic"][0]["ipaddress"], "-s", "1472")
    spaces = [world.space(f"vm/{guest['name']}") for guest in (second, stranger)]
    with listening(spaces[0], "eth0") as heard, listening(spaces[1], "eth0") as unheard:
        shout(world, first, "10.1.1.77")
        until(lambda: any(frame[6:12] == mac and b"hear me" in frame for frame in heard))
        assert any(frame[6:12] == mac and frame[12:14] == b"\x08\x06" for frame in heard)
        assert not [frame for frame in unheard if frame[6:12] == mac]
        assert not world.pings(f"vm/{stranger['name']}", second["nic"][0]["ipaddress"])
    vni = int(world.api.listNetworks(id=net["id"])["network"][0]["vlan"])
    with listening(world.space("underlay"), "h1") as frames:
        assert world.pings(f"vm/{first['name']}", second["nic"][0]["ipaddress"])
        assert any(int.from_bytes(frame[46:49]) == vni and mac in frame[50:] for frame in frames)


def test_guests_are_found_by_name_in_the_networks_domain(world: World):
    net = world.network(networkdomain="shop.example")
    first, second = (world.guest(net["id"], hostid=world.host(number)) for number in (1, 2))
    where, address = f"vm/{first['name']}", second["nic"][0]["ipaddress"]
    assert "search shop.example" in until(lambda: world.run(where, "cat", "/etc/resolv.conf").stdout)
    for name in (second["name"], f"{second['name']}.shop.example"):
        assert f"Address: {address}" in until(lambda name=name: _lookup(world, where, name))
    backwards = world.run(where, "nslookup", address).stdout
    assert f"name = {second['name']}.shop.example" in backwards
    world.api.updateNetwork(id=net["id"], networkdomain="store.example", **NOW)
    assert address in until(lambda: _lookup(world, where, f"{second['name']}.store.example"))
    assert not _lookup(world, where, f"{second['name']}.shop.example")


def _lookup(world: World, where: str, name: str) -> str:
    done = world.run(where, "nslookup", "-type=a", name, "10.1.1.1")
    return done.stdout if "Name:" in done.stdout else ""


def test_a_guest_is_told_its_own_metadata_only(world: World, net, guests):
    key = world.api.createSSHKeyPair(name="of-the-spine")["keypair"]
    script = base64.b64encode(b"#!/bin/sh\necho ran >>/var/lib/ran\n").decode()
    guest = world.guest(net["id"], userdata=script, keypair="of-the-spine")
    where = f"vm/{guest['name']}"
    until(lambda: world.run(where, "cat", "/var/lib/ran").stdout == "ran\n")
    assert world.run(where, "cat", "/root/.ssh/authorized_keys").stdout.startswith("ssh-")
    assert key["privatekey"].startswith("-----BEGIN")
    told = {name: _meta(world, guest, name) for name in ("instance-id", "local-ipv4", "local-hostname", "public-keys")}
    assert told["local-ipv4"] == guest["nic"][0]["ipaddress"]
    assert told["local-hostname"] == guest["name"]
    assert told["public-keys"] in world.run(where, "cat", "/root/.ssh/authorized_keys").stdout
    assert _meta(world, guests[0], "instance-id") not in ("", told["instance-id"])
    assert _meta(world, guests[0], "public-keys") == ""
    assert world.run(f"vm/{guests[0]['name']}", "wget", "-qO-", "http://10.1.1.1/latest/user-data").stdout == ""
    world.api.stopVirtualMachine(id=guest["id"], **NOW)
    changed = base64.b64encode(b"plain text, 'quoted' \"and\" \\ more\n").decode()
    world.api.updateVirtualMachine(id=guest["id"], userdata=changed)
    world.api.startVirtualMachine(id=guest["id"], **NOW)
    fetched = until(lambda: world.run(where, "wget", "-qO-", "http://10.1.1.1/latest/user-data").stdout)
    assert fetched == base64.b64decode(changed).decode()


def _meta(world: World, guest, name: str) -> str:
    return world.run(f"vm/{guest['name']}", "wget", "-qO-", f"http://10.1.1.1/latest/meta-data/{name}").stdout.strip()


def test_a_password_is_set_and_cannot_be_fetched_again(world: World, net):
    guest = world.guest(net["id"])
    where = f"vm/{guest['name']}"
    first = until(lambda: _shadow(world, where))
    assert _hash(world, where, first, guest["password"]) == first
    assert _password(world, where) == "saved_password"
    assert "password" not in world.api.listVirtualMachines(id=guest["id"])["virtualmachine"][0]
    world.api.stopVirtualMachine(id=guest["id"], **NOW)
    reset = world.api.resetPasswordForVirtualMachine(id=guest["id"], **NOW)["virtualmachine"]["password"]
    assert reset != guest["password"]
    world.api.startVirtualMachine(id=guest["id"], **NOW)
    second = until(lambda: (now := _shadow(world, where)) != first and now)
    assert _hash(world, where, second, reset) == second
    assert _password(world, where) == "saved_password"


def _shadow(world: World, where: str) -> str:
    lines = world.run(where, "cat", "/etc/shadow").stdout.splitlines()
    found = next((line.split(":")[1] for line in lines if line.startswith("root:")), "")
    return found if found.startswith("$6$") else ""


def _hash(world: World, where: str, shadow: str, password: str) -> str:
    return world.run(where, "mkpasswd", "-m", "sha512", password, shadow.split("$")[2]).stdout.strip()


def _password(world: World, where: str) -> str:
    request = "printf 'GET / HTTP/1.0\\r\\nDomU_Request: send_my_password\\r\\n\\r\\n' | nc -w 2 10.1.1.1 8080"
    return world.run(where, "sh", "-c", request).stdout.splitlines()[-1].strip()


def test_a_second_address_of_an_interface_is_forwarded_to(world: World, net, guests):
    guest = guests[1]
    extra = world.api.addIpToNic(nicid=guest["nic"][0]["id"], **NOW)["nicsecondaryip"]
    where = f"vm/{guest['name']}"
    assert world.run(where, "ip", "addr", "add", f"{extra['ipaddress']}/24", "dev", "eth0").returncode == 0
    ip = world.address(net["id"])
    rule = world.forward(ip, guest, 90, 80, vmguestip=extra["ipaddress"])
    with listening(world.space(where), "eth0") as frames:
        assert world.curl(f"http://{ip['ipaddress']}:90/") == guest["name"]
        assert any(frame[30:34] == socket.inet_aton(extra["ipaddress"]) for frame in frames)
    assert "port forwarding" in world.refused("removeIpFromNic", id=extra["id"])
    world.api.deletePortForwardingRule(id=rule["id"], **NOW)
    world.api.removeIpFromNic(id=extra["id"], **NOW)
    (shown,) = world.api.listNics(virtualmachineid=guest["id"])["nic"]
    assert not shown.get("secondaryip")


def test_interfaces_come_and_go_while_the_guest_runs_and_the_default_moves(world: World, net):
    guest, other = world.guest(net["id"]), world.network(gateway="10.9.9.1", netmask="255.255.255.0")
    where = f"vm/{guest['name']}"
    until(lambda: "default via 10.1.1.1" in world.run(where, "ip", "route").stdout)
    started = world.run(where, "stat", "-c", "%Y", "/proc/1").stdout
    nics = world.api.addNicToVirtualMachine(virtualmachineid=guest["id"], networkid=other["id"], **NOW)
    added = next(nic for nic in nics["virtualmachine"]["nic"] if nic["networkid"] == other["id"])
    until(lambda: added["ipaddress"] in world.run(where, "ip", "-4", "addr", "show", "eth1").stdout)
    assert world.pings(where, "10.9.9.1")
    assert "default via 10.9.9.1" not in world.run(where, "ip", "route").stdout
    assert world.run(where, "stat", "-c", "%Y", "/proc/1").stdout == started, "it was not restarted"
    world.api.updateDefaultNicForVirtualMachine(virtualmachineid=guest["id"], nicid=added["id"], **NOW)
    world.api.rebootVirtualMachine(id=guest["id"], **NOW)
    until(lambda: "default via 10.9.9.1 dev eth1" in world.run(where, "ip", "route").stdout)
    assert "default via 10.1.1.1" not in world.run(where, "ip", "route").stdout
    assert "default" in world.refused("removeNicFromVirtualMachine", virtualmachineid=guest["id"], nicid=added["id"])
    first = guest["nic"][0]["id"]
    world.api.removeNicFromVirtualMachine(virtualmachineid=guest["id"], nicid=first, **NOW)
    until(lambda: "eth0" not in world.run(where, "ip", "link").stdout)
    assert world.pings(where, "10.9.9.1")


def test_a_networks_rate_holds(world: World):
    net = world.network(world.offering(networkrate=20, egressdefaultpolicy=True))
    guest = world.guest(net["id"])
    where = f"vm/{guest['name']}"
    until(lambda: "default via" in world.run(where, "ip", "route").stdout)
    server = netns.popen(world.space("internet"), ["iperf3", "-s", "-p", "5201"], stdout=-3)
    try:
        until(lambda: ask(world.space("internet"), "127.0.0.1", 5201, seconds=0.1) == "" and _listens(world))
        for way in ((), ("-R",)):
            done = world.beside(where, "iperf3", "-J", "-t", "2", "-O", "1", "-c", "198.51.100.1", *way)
            speed = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
            assert 17e6 <= speed <= 23e6, (way, speed)
    finally:
        server.terminate()
        server.wait()


def _listens(world: World) -> bool:
    return ":5201" in world.beside("internet", "ss", "-ltn").stdout


def test_bytes_are_counted_in_both_directions(world: World, net, guests):
    ip = world.address(net["id"])
    world.forward(ip, guests[0], 8000, 80)
    where = f"vm/{guests[0]['name']}"
    world.run(where, "sh", "-c", f"head -c {4 * MEBIBYTE} /dev/zero >/www/large")
    before = _counted(world, net, ip)
    done = world.beside("internet", "curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", _large(ip))
    assert int(done.stdout) == 4 * MEBIBYTE
    after = until(lambda: (now := _counted(world, net, ip))["out"] > before["out"] + 4 * MEBIBYTE and now)
    for name in ("out", "network_out"):
        assert 4 * MEBIBYTE < after[name] - before[name] < 4.5 * MEBIBYTE, name
    for name in ("in", "network_in"):
        assert 500 < after[name] - before[name] < MEBIBYTE, name


def _large(ip) -> str:
    return f"http://{ip['ipaddress']}:8000/large"


def _counted(world: World, net, ip) -> dict[str, int]:
    """Return the bytes that the control plane holds: of the address, and of the network."""
    query = "SELECT counters FROM observations JOIN targets ON targets.id = target_id WHERE name = ?"
    ((text,),) = world.sql(query, world.router(net["id"])["name"])
    found = {name: size for name, (_, size, *_) in json.loads(text).items()}
    of = {"": ip["id"].replace("-", ""), "network_": net["id"].replace("-", "")}
    return {f"{kind}{way}": found.get(f"{way}_{who}", 0) for kind, who in of.items() for way in ("in", "out")}
