"""A host of containers: its segments, guests, shells and drives, and the filter of the guests' ports."""

from dataclasses import replace

from drivers.config_drive import DHCP, STATIC, ConfigDrive, DriveLink, files
from drivers.hypervisor.namespace import Namespace
from drivers.security import GroupMembers, GroupRule, PortFilter, SecurityGroup
from drivers.vocabulary import Guest, HostFacts, Nic, Segment, Shell
from systemvm.bundle import Bundle, File
from systemvm.openflow import flows
from systemvm.services.segments import wanted

NET, FLAT = Segment("net", "vxlan://5001", "Guest"), Segment("flat", "vlan://100", "Guest", "eth1")


def uid(kind, number):
    return f"{kind:08x}-0000-4000-8000-{number:012x}"


def nic(number, segment=NET, **more):
    mac, address = f"02:00:00:00:00:{number:02x}", f"10.1.1.{number}"
    return Nic(uid(1, number), mac, segment.id, "Guest", address, 24, "10.1.1.1", 0, uid(2, 1), **more)


def guest(number, *nics):
    return Guest(uid(3, number), f"i-2-{number}-VM", f"vm{number}", "/t.tar", 1, 500, 64, nics or (nic(number),))


def held(number, *addresses, segment=NET, **more):
    port = nic(number, segment)
    return PortFilter(port.id, segment.id, port.mac, addresses or (port.address, f"2001:db8::{number}"), **more)


def case(filters, *groups, members=()):
    shells = (Shell(uid(4, 1), "r-1-VM", (nic(1, rate=200),)),)
    driver = Namespace()
    facts = HostFacts(uid(9, 1), "host-1", (NET, FLAT), (guest(10), guest(11, nic(11, FLAT))), shells)
    return driver.render(driver.plan(replace(facts, filters=filters, groups=groups, members=members)))


def plain():
    """One port with addresses, a further one among them, and one of an L2 network."""
    flat = nic(11, FLAT)
    return case((held(10, "10.1.1.10", "10.1.1.99", "2001:db8::10"), PortFilter(flat.id, FLAT.id, flat.mac, None)))


def forged():
    """Whose offering lets it send with any address."""
    return case((held(10, forged=True),))


def groups():
    """Every kind of rule, by CIDR and by group, and one that cannot be."""
    web = SecurityGroup(
        uid(5, 1),
        (
            GroupRule(uid(6, 1), "tcp", 80, 443, ("0.0.0.0/0", "::/0")),
            GroupRule(uid(6, 2), "tcp", 100, 200, ("10.0.0.0/8",)),
            GroupRule(uid(6, 3), "icmp", 8, -1, ("10.0.0.0/8", "2001:db8::/32")),
            GroupRule(uid(6, 4), "all", -1, -1, (), uid(5, 2)),
            GroupRule(uid(6, 5), "udp", 1000, 2000, (), uid(5, 3)),
            GroupRule(uid(6, 6), "47", 0, 0, ("192.0.2.0/24",)),
            GroupRule(uid(6, 7), "tcp", 9, 5, ("192.0.2.0/24",)),
        ),
        (GroupRule(uid(6, 8), "tcp", 443, 443, ("192.0.2.0/24",)), GroupRule(uid(6, 9), "udp", -1, -1, (), uid(5, 2))),
    )
    open_ = SecurityGroup(uid(5, 2), (), ())
    members = (
        GroupMembers(uid(5, 2), ("10.1.1.11", "2001:db8::11")),
        GroupMembers(uid(5, 3), ("10.1.1.12",)),
    )
    ports = (
        held(10, groups=(web.id, open_.id), servers=("10.1.1.1",)),
        held(11, segment=FLAT, groups=(open_.id,)),
    )
    return case(ports, web, open_, members=members)


def private():
    """A private VLAN with every role, a router on its promiscuous side, and the flows of the host's switch."""
    isolated = Segment("isolated", "pvlan://900-i901", "Guest")
    community = Segment("community", "pvlan://900-c902", "Guest")
    gate = Segment("promiscuous-1-900", "pvlan://900-p900", "Guest", secondaries=(901, 902))
    segments = (isolated, community, gate)
    guests = tuple(guest(number, nic(number, on)) for number, on in ((10, isolated), (11, isolated), (12, community)))
    driver = Namespace()
    config = driver.plan(
        HostFacts(uid(9, 1), "host-1", segments, guests, (Shell(uid(4, 1), "r-1-VM", (nic(1, gate),)),))
    )
    rendered, elements = driver.render(config)
    lanes = [one.lane for one in wanted(Bundle(uid(9, 1), "host-1", "host", 1, rendered, elements))]
    return (*rendered, File("flows.txt", "".join(f"{flow}\n" for flow in flows(lanes)), "segments")), elements


def drive():
    """A guest with a config drive that says everything, and one whose drive has a router beside it."""
    items = (("instance-id", uid(3, 10)), ("local-hostname", "vm10"), ("public-keys", "ssh-ed25519 AAAA me"))
    link = DriveLink(0, nic(10).mac, uid(2, 1), 1450, STATIC, "10.1.1.10", 24, "10.1.1.1", dns=("192.0.2.53",))
    other = DriveLink(0, nic(11).mac, uid(2, 1), 1500, DHCP, "10.1.1.11", 24, "10.1.1.1")
    drives = (
        ConfigDrive(uid(3, 10), items, "IyEvYmluL3NoCg==", "Passw0rd", (link,)),
        ConfigDrive(uid(3, 11), items[1:], links=(other,)),
    )
    found = {f"{one.vm}/{path}": content.decode() for one in drives for path, content in files(one).items()}
    return tuple(File(path, content, "drives") for path, content in found.items()), ()


CASES = {"plain": plain, "forged": forged, "groups": groups, "private": private, "drive": drive}
