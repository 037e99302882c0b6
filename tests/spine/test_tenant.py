"""Two ordinary accounts with their own keys: each does a tenant's whole script, and the other's cloud does not exist."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cs import CloudStack, CloudStackApiException

from controlplane.demo_zone import NOW
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


def account(world: World, name: str) -> World:
    """Return the cloud as a new account of the role User sees it."""
    made = world.api.createAccount(
        accounttype=0,
        username=name,
        password="correct horse",
        email=f"{name}@example.org",
        firstname=name,
        lastname=name,
    )["account"]
    keys = world.api.registerUserKeys(id=made["user"][0]["id"])["userkeys"]
    client = CloudStack(world.api.endpoint, keys["apikey"], keys["secretkey"], timeout=60, poll_interval=0.05)
    return World(replace(world.cloud, client=client), world.zone)


def script(own: World) -> dict[str, str]:
    """Do what a tenant does, and return what was made: parameter → id."""
    net = own.network()
    own.api.createSSHKeyPair(name="mine")  # the other has one of this name, too
    guests = [own.guest(net["id"], keypair="mine") for _ in range(2)]
    ip, nat, web = (own.address(net["id"]) for _ in range(3))
    rule = own.forward(ip, guests[0], 8080, 80, openfirewall=False)
    opened = own.api.createFirewallRule(ipaddressid=ip["id"], protocol="tcp", startport=8080, **NOW)["firewallrule"]
    own.api.enableStaticNat(ipaddressid=nat["id"], virtualmachineid=guests[1]["id"])
    own.api.createFirewallRule(ipaddressid=nat["id"], protocol="tcp", startport=80, **NOW)
    balanced = own.balance(web, guests, 80)
    egress = own.api.createEgressFirewallRule(networkid=net["id"], protocol="tcp", startport=4000, endport=4000, **NOW)
    assert until(lambda: own.curl(f"http://{ip['ipaddress']}:8080/")) == guests[0]["name"]
    assert until(lambda: own.curl(f"http://{nat['ipaddress']}/")) == guests[1]["name"]
    assert {until(lambda: own.curl(f"http://{web['ipaddress']}/")) for _ in range(4)} == {g["name"] for g in guests}
    with answering(own.space("internet"), tcp=(4000,)):
        assert own.ask("198.51.100.1", 4000, where=f"vm/{guests[1]['name']}") == f"4000 {nat['ipaddress']}"
    return {
        "networkid": net["id"], "virtualmachineid": guests[0]["id"], "ipaddressid": ip["id"], "nicid": guests[0]["nic"][0]["id"],
        "forwarding": rule["id"], "firewall": opened["id"], "balancer": balanced["id"],
        "egress": egress["firewallrule"]["id"], "address": ip["ipaddress"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def alice(world: World):
    own = account(world, "alice")
    return own, script(own)


@pytest.fixture(scope="module")
def bob(world: World):
    own = account(world, "bob")
    return own, script(own)


LISTS = (
    "Networks", "VirtualMachines", "PublicIpAddresses", "PortForwardingRules", "FirewallRules", "EgressFirewallRules",
    "LoadBalancerRules", "SSHKeyPairs", "Volumes", "Events", "AsyncJobs", "SslCerts", "Tags", "Accounts", "Users",
)  # fmt: skip


def test_each_account_sees_its_own_only(world: World, alice, bob):
    names = {"alice": alice[0], "bob": bob[0]}
    for name, own in names.items():
        for what in LISTS:
            for options in ({}, {"listall": True}):
                answer = getattr(own.api, f"list{what}")(**options)
                rows = next((value for value in answer.values() if isinstance(value, list)), [])
                assert {row.get("account", row.get("name", name)) for row in rows} <= {name}, what
    for what in ("Networks", "VirtualMachines", "PublicIpAddresses", "PortForwardingRules", "LoadBalancerRules"):
        mine, others = (str(getattr(own.api, f"list{what}")()) for own in names.values())
        assert not [made for made in bob[1].values() if made in mine]
        assert not [made for made in alice[1].values() if made in others]


TOUCHES = [
    ("deleteNetwork", {"id": "networkid"}),
    ("restartNetwork", {"id": "networkid"}),
    ("updateNetwork", {"id": "networkid"}),
    ("associateIpAddress", {"networkid": "networkid"}),
    ("destroyVirtualMachine", {"id": "virtualmachineid"}),
    ("stopVirtualMachine", {"id": "virtualmachineid"}),
    ("resetPasswordForVirtualMachine", {"id": "virtualmachineid"}),
    ("getVMPassword", {"id": "virtualmachineid"}),
    ("getVirtualMachineUserData", {"virtualmachineid": "virtualmachineid"}),
    ("listNics", {"virtualmachineid": "virtualmachineid"}),
    ("addIpToNic", {"nicid": "nicid"}),
    ("addNicToVirtualMachine", {"virtualmachineid": "virtualmachineid", "networkid": "networkid"}),
    ("disassociateIpAddress", {"id": "ipaddressid"}),
    ("enableStaticNat", {"ipaddressid": "ipaddressid", "virtualmachineid": "virtualmachineid"}),
    ("deletePortForwardingRule", {"id": "forwarding"}),
    ("deleteFirewallRule", {"id": "firewall"}),
    ("deleteEgressFirewallRule", {"id": "egress"}),
    ("deleteLoadBalancerRule", {"id": "balancer"}),
    ("assignToLoadBalancerRule", {"id": "balancer", "virtualmachineids": "virtualmachineid"}),
    ("createLBStickinessPolicy", {"lbruleid": "balancer"}),
    ("listLoadBalancerRuleInstances", {"id": "balancer"}),
]


@pytest.mark.parametrize(("command", "parameters"), TOUCHES, ids=[command for command, _ in TOUCHES])
def test_what_is_anothers_is_as_if_it_were_not(world: World, alice, bob, command, parameters):
    more = {"createLBStickinessPolicy": {"methodname": "SourceBased", "name": "x"}}.get(command, {})
    theirs = {name: bob[1][what] for name, what in parameters.items()}
    missing = dict.fromkeys(parameters, "00000000-0000-4000-8000-000000000000")
    before = world.sql("SELECT uuid, desired_generation FROM targets ORDER BY id")
    said = [alice[0].refused(command, **given, **more) for given in (theirs, missing)]
    told = next(iter(theirs.values()))
    assert told in said[0]
    assert said[0].replace(told, "") == said[1].replace(next(iter(missing.values())), "")
    assert world.sql("SELECT uuid, desired_generation FROM targets ORDER BY id") == before


def test_nothing_of_one_account_can_be_tied_to_anothers(alice, bob):
    (own, mine), (_, theirs) = alice, bob
    mixed = {"ipaddressid": theirs["ipaddressid"], "virtualmachineid": mine["virtualmachineid"]}
    rest = {"protocol": "tcp", "publicport": 1, "privateport": 1}
    assert theirs["ipaddressid"] in own.refused("createPortForwardingRule", **mixed, **rest)
    mixed = {"ipaddressid": mine["ipaddressid"], "virtualmachineid": theirs["virtualmachineid"]}
    assert theirs["virtualmachineid"] in own.refused("createPortForwardingRule", **mixed, **rest)
    size = own.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]["id"]
    template = own.api.listTemplates(templatefilter="featured")["template"][0]["id"]
    wanted = {"zoneid": own.zone, "serviceofferingid": size, "templateid": template}
    assert theirs["networkid"] in own.refused("deployVirtualMachine", **wanted, networkids=theirs["networkid"])


def test_what_is_the_admins_is_not_a_users(alice):
    own, mine = alice
    for command in ("listHosts", "listRouters", "createZone", "addHost", "updateConfiguration", "createVlanIpRange"):
        with pytest.raises(CloudStackApiException) as refused:
            getattr(own.api, command)()
        assert refused.value.error["errorcode"] in (401, 432), command
    (net,) = own.api.listNetworks(id=mine["networkid"])["network"]
    assert "vlan" not in net
    (guest,) = own.api.listVirtualMachines(id=mine["virtualmachineid"])["virtualmachine"]
    assert not {"hostname", "hostid", "instancename"} & guest.keys()
