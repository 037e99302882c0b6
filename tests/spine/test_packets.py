"""From the API to the packet: each rule that a tenant makes is seen by real connections."""

from __future__ import annotations

import pytest

from controlplane.demo_zone import NOW
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
SHORT = 0.4


def test_port_forwarding_leads_to_the_guest_and_its_removal_ends_it(world: World, net, guests):
    ip, guest = world.address(net["id"]), guests[0]
    assert not world.ask(ip["ipaddress"], 8080, seconds=SHORT)
    rule = world.forward(ip, guest, 8080, 80)
    assert world.curl(f"http://{ip['ipaddress']}:8080/") == guest["name"]
    assert not world.ask(ip["ipaddress"], 8081, seconds=SHORT)
    world.api.deletePortForwardingRule(id=rule["id"], **NOW)
    assert not world.ask(ip["ipaddress"], 8080, seconds=SHORT)


def test_a_range_is_forwarded_with_its_offset_and_shows_the_clients_address(world: World, net, guests):
    ip = world.address(net["id"])
    world.forward(ip, guests[0], 2000, 3000, publicendport=2009, privateendport=3009)
    with answering(world.space(f"vm/{guests[0]['name']}"), tcp=(3000, 3005, 3009, 3010)):
        for public in (2000, 2005, 2009):
            answer = world.ask(ip["ipaddress"], public, source="198.51.100.7")
            assert answer == f"{public + 1000} 198.51.100.7"
        assert not world.ask(ip["ipaddress"], 2010, seconds=SHORT)


def test_udp_is_forwarded_apart_from_tcp(world: World, net, guests):
    ip = world.address(net["id"])
    world.forward(ip, guests[0], 5353, 5354, protocol="udp")
    with answering(world.space(f"vm/{guests[0]['name']}"), tcp=(5354,), udp=(5354,)):
        assert world.ask(ip["ipaddress"], 5353, udp=True, source="198.51.100.2") == "5354 198.51.100.2"
        assert not world.ask(ip["ipaddress"], 5353, seconds=SHORT)


def test_a_forward_is_for_its_sources_and_can_be_changed_in_place(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.forward(ip, guests[0], 81, 80, cidrlist="198.51.100.4/32")
    url = f"http://{ip['ipaddress']}:81/"
    assert world.curl(url, "--interface", "198.51.100.4") == guests[0]["name"]
    assert not world.ask(ip["ipaddress"], 81, source="198.51.100.5", seconds=SHORT)
    world.api.updatePortForwardingRule(id=rule["id"], virtualmachineid=guests[1]["id"], **NOW)
    assert world.curl(url, "--interface", "198.51.100.4") == guests[1]["name"]


def test_the_firewall_opens_by_source_and_closes_again(world: World, net, guests):
    ip = world.address(net["id"])
    world.forward(ip, guests[0], 80, 80, openfirewall=False)
    assert not world.ask(ip["ipaddress"], 80, source="198.51.100.2", seconds=SHORT)
    made = {"ipaddressid": ip["id"], "protocol": "tcp", "startport": 70, "endport": 80}
    rule = world.api.createFirewallRule(**made, cidrlist="198.51.100.0/30", **NOW)["firewallrule"]
    url = f"http://{ip['ipaddress']}/"
    assert world.curl(url, "--interface", "198.51.100.2") == guests[0]["name"]
    assert not world.ask(ip["ipaddress"], 80, source="198.51.100.5", seconds=SHORT)
    world.api.deleteFirewallRule(id=rule["id"], **NOW)
    assert not world.ask(ip["ipaddress"], 80, source="198.51.100.2", seconds=SHORT)


def test_icmp_passes_where_a_rule_says_so(world: World, net, guests):
    ip = world.address(net["id"])
    assert not world.pings("internet", ip["ipaddress"])
    made = {"ipaddressid": ip["id"], "protocol": "icmp", "icmptype": 8, "icmpcode": 0}
    rule = world.api.createFirewallRule(**made, cidrlist="198.51.100.3/32", **NOW)["firewallrule"]
    assert world.pings("internet", ip["ipaddress"], "-I", "198.51.100.3")
    assert not world.pings("internet", ip["ipaddress"], "-I", "198.51.100.4")
    world.api.deleteFirewallRule(id=rule["id"], **NOW)
    assert not world.pings("internet", ip["ipaddress"], "-I", "198.51.100.3")


@pytest.fixture
def way_out(world: World, net):
    rule = world.api.createEgressFirewallRule(networkid=net["id"], protocol="all", **NOW)["firewallrule"]
    yield rule
    world.api.deleteEgressFirewallRule(id=rule["id"], **NOW)


def test_static_nat_goes_both_ways_and_moves_to_another_guest(world: World, net, guests, way_out):
    ip = world.address(net["id"])
    source_nat = world.router(net["id"])["publicip"]
    world.api.createFirewallRule(ipaddressid=ip["id"], protocol="tcp", startport=80, **NOW)
    with answering(world.space("internet"), tcp=(4000,)):
        for here, there in (guests, guests[::-1]):
            world.api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=here["id"])
            assert until(lambda: world.curl(f"http://{ip['ipaddress']}/")) == here["name"]
            for guest, address in ((here, ip["ipaddress"]), (there, source_nat)):
                assert world.ask("198.51.100.1", 4000, where=f"vm/{guest['name']}") == f"4000 {address}"
            world.api.disableStaticNat(ipaddressid=ip["id"], **NOW)
            assert not world.ask(ip["ipaddress"], 80, seconds=SHORT)
            assert world.ask("198.51.100.1", 4000, where=f"vm/{here['name']}") == f"4000 {source_nat}"


def test_a_guest_reaches_its_own_network_by_the_public_address(world: World, net, guests):
    ip, nat = world.address(net["id"]), world.address(net["id"])
    world.forward(ip, guests[0], 8080, 80)
    world.api.enableStaticNat(ipaddressid=nat["id"], virtualmachineid=guests[1]["id"])
    world.api.createFirewallRule(ipaddressid=nat["id"], protocol="tcp", startport=80, **NOW)
    for guest in guests:
        where = f"vm/{guest['name']}"
        assert world.run(where, "wget", "-qO-", f"http://{ip['ipaddress']}:8080/").stdout.strip() == guests[0]["name"]
        assert world.run(where, "wget", "-qO-", f"http://{nat['ipaddress']}/").stdout.strip() == guests[1]["name"]
    world.api.disassociateIpAddress(id=nat["id"], **NOW)


def test_nothing_leaves_by_default_but_what_an_egress_rule_names(world: World, net, guests):
    where = f"vm/{guests[0]['name']}"
    address = guests[0]["nic"][0]["ipaddress"]
    with answering(world.space("internet"), tcp=(4001, 4002), udp=(4001,)):
        assert not world.ask("198.51.100.1", 4001, where=where, seconds=SHORT)
        made = {"networkid": net["id"], "protocol": "tcp", "startport": 4001, "endport": 4001}
        sources = {"cidrlist": f"{address}/32", "destcidrlist": "198.51.100.1/32"}
        rule = world.api.createEgressFirewallRule(**made, **sources, **NOW)["firewallrule"]
        assert world.ask("198.51.100.1", 4001, where=where)
        assert not world.ask("198.51.100.1", 4002, where=where, seconds=SHORT)
        assert not world.ask("198.51.100.2", 4001, where=where, seconds=SHORT)
        assert not world.ask("198.51.100.1", 4001, where=where, udp=True, seconds=SHORT)
        assert not world.ask("198.51.100.1", 4001, where=f"vm/{guests[1]['name']}", seconds=SHORT)
        world.api.deleteEgressFirewallRule(id=rule["id"], **NOW)
        assert not world.ask("198.51.100.1", 4001, where=where, seconds=SHORT)


def test_all_leaves_where_the_offering_says_so_but_what_an_egress_rule_names(world: World):
    net = world.network(world.offering(egressdefaultpolicy=True))
    where = f"vm/{world.guest(net['id'])['name']}"
    with answering(world.space("internet"), tcp=(4001, 4002)):
        assert until(lambda: world.ask("198.51.100.1", 4001, where=where))
        made = {"networkid": net["id"], "protocol": "tcp", "startport": 4001, "endport": 4001}
        world.api.createEgressFirewallRule(**made, **NOW)
        assert not world.ask("198.51.100.1", 4001, where=where, seconds=SHORT)
        assert world.ask("198.51.100.1", 4002, where=where)


def test_what_no_rule_opens_is_closed_and_private_addresses_are_not_reached(world: World, net, guests):
    publics = world.api.listPublicIpAddresses(associatednetworkid=net["id"], issourcenat=True)["publicipaddress"]
    for port in (22, 53, 67, 80, 8080, 3922):
        assert not world.ask(publics[0]["ipaddress"], port, seconds=0.2)
    address = guests[0]["nic"][0]["ipaddress"]
    route = (f"{address}/32", "via", publics[0]["ipaddress"])
    assert world.beside("internet", "ip", "route", "add", *route).returncode == 0
    try:
        assert not world.ask(address, 80, seconds=SHORT)
    finally:
        world.beside("internet", "ip", "route", "del", *route)
