"""What cannot be is refused in CloudStack's envelope, with a sentence, and changes nothing."""

from __future__ import annotations

import re

import pytest

from controlplane.demo_zone import NOW
from tests.spine.test_life import changed
from tests.spine.world import ISOLATED, World

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
NOWHERE = "00000000-0000-4000-8000-000000000000"
SPITEFUL = ("two\nlines", "nul\x00", "carriage\rreturn", "bell\x07", 'quote"quote', "semi;colon", "brace}", "tick'tick")
RECORDS = {"events", "async_jobs", "observations", "alerts", "secrets"}
"""Tables that also tell of what was refused, or of what goes on beside."""


@pytest.fixture(scope="module")
def ids(world: World, net, guests):
    """What the parameters below speak of, by name."""
    ip, nat = world.address(net["id"]), world.address(net["id"])
    forward = world.forward(ip, guests[0], 1000, 1000, publicendport=1010, privateendport=1010)
    world.api.enableStaticNat(ipaddressid=nat["id"], virtualmachineid=guests[1]["id"])
    rule = world.balance(ip, guests, 88)
    other = world.network()
    stranger = world.guest(other["id"])
    offering = world.api.listNetworkOfferings(name=ISOLATED)["networkoffering"][0]
    chosen = world.api.listNetworkOfferings(name=world.offering(specifyvlan=True))["networkoffering"][0]
    vlan = world.api.listNetworks(id=net["id"])["network"][0]["vlan"]
    physical = world.api.listPhysicalNetworks()["physicalnetwork"][0]
    yield {
        "zone": world.zone, "net": net["id"], "ip": ip["id"], "nat": nat["id"], "address": ip["ipaddress"],
        "vm": guests[0]["id"], "nic": guests[0]["nic"][0]["id"], "taken": guests[1]["nic"][0]["ipaddress"],
        "forward": forward["id"], "lb": rule["id"], "stranger": stranger["id"], "offering": offering["id"],
        "physical": physical["id"], "vnets": physical["vlan"], "nowhere": NOWHERE, "chosen": chosen["id"], "vlan": vlan,
    }  # fmt: skip
    for address in (ip, nat):
        world.api.disassociateIpAddress(id=address["id"], **NOW)


def refused(world: World, ids: dict[str, str], command: str, words: str, parameters: dict[str, str]) -> None:
    """Call with parameters whose ``<names>`` stand for ids; see that it is refused and nothing has changed."""
    before = state(world)
    said = world.refused(command, **{name: filled(text, ids) for name, text in parameters.items()})
    for word in filled(words, ids).split("|"):
        assert word.lower() in said.lower(), said
    after = state(world)
    assert changed(before[0], after[0]) <= RECORDS
    assert before[1] == after[1], "nothing was asked of any agent"


def state(world: World) -> tuple[dict[str, int], list[tuple[object, ...]]]:
    return world.rows(), world.sql("SELECT uuid, desired_generation FROM targets ORDER BY id")


def filled(text: object, ids: dict[str, str]) -> object:
    return re.sub(r"<(\w+)>", lambda found: ids[found[1]], text) if isinstance(text, str) else text


FORWARD = {"ipaddressid": "<ip>", "virtualmachineid": "<vm>", "protocol": "tcp", "publicport": 1500, "privateport": 80}
NETWORK = {"zoneid": "<zone>", "networkofferingid": "<offering>", "name": "refused"}
FIREWALL = {"ipaddressid": "<ip>", "protocol": "tcp", "startport": 5, "endport": 6}
BALANCE = {"publicipid": "<ip>", "name": "refused", "algorithm": "roundrobin", "publicport": 89, "privateport": 80}
CASES = [
    ("createPortForwardingRule", "port 1005", FORWARD | {"publicport": 1005}),
    ("createPortForwardingRule", "990-1001|port 1000", FORWARD | {"publicport": 990, "publicendport": 1001, "privateendport": 91}),
    ("createPortForwardingRule", "port", FORWARD | {"publicport": 88}),
    ("createPortForwardingRule", "publicport|70000", FORWARD | {"publicport": 70000}),
    ("createPortForwardingRule", "privateendport", FORWARD | {"publicendport": 1502, "privateendport": 99}),
    ("createPortForwardingRule", "cidrlist|10.0.0.0/33", FORWARD | {"cidrlist": "10.0.0.0/33"}),
    ("createPortForwardingRule", "protocol|sctp", FORWARD | {"protocol": "sctp"}),
    ("createPortForwardingRule", "ipaddressid|<nowhere>", FORWARD | {"ipaddressid": "<nowhere>"}),
    ("createPortForwardingRule", "virtualmachineid|<nowhere>", FORWARD | {"virtualmachineid": "<nowhere>"}),
    ("createPortForwardingRule", "<stranger>", FORWARD | {"virtualmachineid": "<stranger>"}),
    ("createPortForwardingRule", "virtualmachineid|<vm>'", FORWARD | {"virtualmachineid": "<vm>' OR '1'='1"}),
    ("createPortForwardingRule", "virtualmachineid", {k: v for k, v in FORWARD.items() if k != "virtualmachineid"}),
    ("createPortForwardingRule", "static", FORWARD | {"ipaddressid": "<nat>"}),
    ("createFirewallRule", "cidrlist|10.0.0.300", FIREWALL | {"cidrlist": "10.0.0.300/24"}),
    ("createFirewallRule", "cidrlist|everywhere", FIREWALL | {"cidrlist": "everywhere"}),
    ("createFirewallRule", "endport|4|5", FIREWALL | {"endport": 4}),
    ("createFirewallRule", "1000|1010", FIREWALL | {"startport": 1000, "endport": 1010}),
    ("createEgressFirewallRule", "cidrlist|192.0.2.0/24", {"networkid": "<net>", "protocol": "tcp", "cidrlist": "192.0.2.0/24"}),
    ("enableStaticNat", "<address>", {"ipaddressid": "<ip>", "virtualmachineid": "<vm>"}),
    ("createLoadBalancerRule", "algorithm|fastest", BALANCE | {"algorithm": "fastest"}),
    ("createLoadBalancerRule", "1003", BALANCE | {"publicport": 1003}),
    ("createNetwork", "gateway|10.1.1", NETWORK | {"gateway": "10.1.1", "netmask": "255.255.255.0"}),
    ("createNetwork", "netmask|255.0.255.0", NETWORK | {"gateway": "10.1.1.1", "netmask": "255.0.255.0"}),
    ("createNetwork", "startip|10.2.0.5", NETWORK | {
        "gateway": "10.1.1.1", "netmask": "255.255.255.0", "startip": "10.2.0.5", "endip": "10.2.0.9"}),
    ("createNetwork", "networkofferingid|<nowhere>", NETWORK | {"networkofferingid": "<nowhere>"}),
    ("createVlanIpRange", "203.0.113", {
        "zoneid": "<zone>", "forvirtualnetwork": "true", "vlan": "untagged", "gateway": "203.0.113.1",
        "netmask": "255.255.255.0", "startip": "203.0.113.100", "endip": "203.0.113.110"}),
    ("updatePhysicalNetwork", "vlan|5001", {"id": "<physical>", "vlan": "7000-7100"}),
    ("createNetwork", "vlan|<vlan>", {"zoneid": "<zone>", "networkofferingid": "<chosen>", "name": "refused", "vlan": "<vlan>"}),
    ("addIpToNic", "ipaddress|10.9.9.9", {"nicid": "<nic>", "ipaddress": "10.9.9.9"}),
    ("addIpToNic", "ipaddress|<taken>", {"nicid": "<nic>", "ipaddress": "<taken>"}),
    ("associateIpAddress", "ipaddress|192.0.2.1", {"networkid": "<net>", "ipaddress": "192.0.2.1"}),
    ("associateIpAddress", "<address>", {"networkid": "<net>", "ipaddress": "<address>"}),
    ("assignToLoadBalancerRule", "<stranger>", {"id": "<lb>", "virtualmachineids": "<stranger>"}),
    ("deletePortForwardingRule", "id|<lb>", {"id": "<lb>"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words", "parameters"), CASES, ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)]
)
def test_what_makes_no_sense_is_refused_with_a_sentence(world: World, ids, command, words, parameters):
    refused(world, ids, command, words, parameters)


STRINGS = {
    "createNetwork.networkdomain": NETWORK | {"networkdomain": "<spite>.example"},
    "deployVirtualMachine.name": {"zoneid": "<zone>", "networkids": "<net>", "name": "<spite>"},
    "createLBStickinessPolicy.param": {
        "lbruleid": "<lb>", "name": "keep", "methodname": "LbCookie", "param[0].name": "cookie-name", "param[0].value": "<spite>"},
    "createLBHealthCheckPolicy.pingpath": {"lbruleid": "<lb>", "pingpath": "/<spite>"},
    "createPortForwardingRule.cidrlist": FORWARD | {"cidrlist": "10.0.0.0/8<spite>"},
    "createFirewallRule.protocol": FIREWALL | {"protocol": "tcp<spite>"},
    "createLoadBalancerRule.cidrlist": BALANCE | {"cidrlist": "10.0.0.0/8<spite>"},
    "addIpToNic.ipaddress": {"nicid": "<nic>", "ipaddress": "10.1.1.200<spite>"},
    "createZone.dns1": {
        "name": "refused", "networktype": "Advanced", "dns1": "203.0.113.1<spite>", "internaldns1": "203.0.113.1"},
}  # fmt: skip


@pytest.mark.parametrize("place", STRINGS)
def test_no_string_brings_a_line_or_a_quote_into_a_daemons_file(world: World, ids, place):
    command, _, parameter = place.partition(".")
    parameters = dict(STRINGS[place])
    if command == "deployVirtualMachine":
        parameters |= {
            "templateid": world.api.listTemplates(templatefilter="all", name="busybox")["template"][0]["id"],
            "serviceofferingid": world.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]["id"],
        }
    for spite in SPITEFUL:
        refused(world, ids | {"spite": spite}, command, parameter, parameters)


def test_names_that_only_people_read_may_hold_anything_and_reach_no_daemon(world: World, net, guests):
    ip = world.address(net["id"])
    name = 'a "name" with; everything } $(reboot) é'
    rule = world.balance(ip, guests, 80, name=name)
    (shown,) = world.api.listLoadBalancerRules(id=rule["id"])["loadbalancerrule"]
    assert shown["name"] == name
    held = "".join(path.read_text() for state in world.states for path in state.glob("targets/*/current/**/*.cfg"))
    assert "reboot" not in held
    world.api.deleteLoadBalancerRule(id=rule["id"], **NOW)
