"""One tenant's odd rules: each is refused with a sentence or takes effect, and nobody else waits for any of them."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import Any

import pytest
from cs import CloudStackApiException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.demo_zone import NOW
from tests.spine.test_tenant import account
from tests.spine.world import SERVICES, World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(400)]
SOON = 1.0
"""Seconds in which a change of another tenant is in the packets."""
REFUSED = (431, 432, 536, 537)
TIER = "DefaultIsolatedNetworkOfferingForVpcNetworks"

PORT = st.one_of(st.sampled_from((1, 22, 80, 443, 65535)), st.integers(1, 65_535))
KIND = st.one_of(st.none(), st.integers(-1, 255))
BLOCK4 = st.builds("{}.{}.{}.0/24".format, st.sampled_from((10, 172, 192)), st.integers(0, 255), st.integers(0, 255))
NETS4 = st.sampled_from(("0.0.0.0/0", "10.0.0.0/8", "10.1.1.0/24", "10.1.1.0/25", "10.1.1.128/25", "198.51.100.0/24"))
NETS6 = st.sampled_from(("::/0", "2001:db8::/32", "2001:db8:c::1/128", "fe80::/10", "::ffff:0:0/96", "ff02::1/128"))
INSIDE = st.sampled_from(("10.1.1.0/24", "10.1.1.0/26", "10.1.1.7/32", "0.0.0.0/0"))
BAD_CIDR = st.sampled_from(("everywhere", "10.0.0.0/8 }", "1.2.3.4\n", "::/129", "10.1.1.1/33", "10.0.0.300/8", "-"))
BAD_PORT = st.sampled_from((-2, -1, 0, 65_536, 70_000))
BAD_PROTOCOL = st.sampled_from(("sctp", "256", "tcp;", "-1", "tcp\n", "é", "' OR 1"))
ALL_PROTOCOLS = st.one_of(st.sampled_from(("tcp", "udp", "icmp", "all")), st.integers(0, 255).map(str))
"""What network ACLs take; the others take names."""
COMMANDS = (
    "createFirewallRule", "createEgressFirewallRule", "createPortForwardingRule", "createNetworkACL",
    "createIpv6FirewallRule", "addWireguardPeer", "createLoadBalancerRule",
)  # fmt: skip


RARE = range(40, 47)  # in the middle: hypothesis is fond of both ends


def spoilt(draw: Any, good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> Any:
    """Draw what makes sense, and once in a while what does not."""
    return draw(bad if draw(st.integers(0, 99)) in RARE else good)


def cidrs(draw: Any, blocks: st.SearchStrategy[str]) -> str | None:
    """Draw a list of CIDRs, or none."""
    found = [spoilt(draw, blocks, BAD_CIDR) for _ in range(draw(st.integers(0, 3)))]
    return ",".join(dict.fromkeys(found)) or None


def service(draw: Any, protocol: str) -> dict[str, Any]:
    """Draw the ports of a protocol, or its type and code; none where it has neither."""
    if protocol == "icmp":
        return {"icmptype": spoilt(draw, KIND, st.just(300)), "icmpcode": draw(KIND)}
    if protocol not in ("tcp", "udp"):
        return {"startport": 1} if draw(st.integers(0, 99)) in RARE else {}
    first = spoilt(draw, PORT, BAD_PORT)
    return {"startport": first, "endport": draw(st.one_of(st.none(), st.integers(-1, 3000).map(lambda n: first + n)))}


@st.composite
def calls(draw: Any) -> tuple[str, dict[str, Any]]:
    """A command with what its rule says: most of it makes sense, some of it cannot."""
    command = draw(st.sampled_from(COMMANDS))
    named = {"createNetworkACL": ALL_PROTOCOLS, "createPortForwardingRule": st.sampled_from(("tcp", "udp"))}
    named["createLoadBalancerRule"] = st.sampled_from(("tcp", "udp", "tcp-proxy"))
    protocol = spoilt(draw, named.get(command, st.sampled_from(("tcp", "udp", "icmp", "all"))), BAD_PROTOCOL)
    blocks = {"createIpv6FirewallRule": NETS6, "createNetworkACL": st.one_of(NETS4, NETS6, BLOCK4)}
    said: dict[str, Any] = {"protocol": protocol, **service(draw, protocol)}
    sources = cidrs(draw, blocks.get(command, st.one_of(NETS4, BLOCK4)))
    if command in ("createPortForwardingRule", "createLoadBalancerRule"):
        first, more = spoilt(draw, PORT, BAD_PORT), draw(st.integers(0, 20))
        said = {"protocol": protocol, "publicport": first, "privateport": spoilt(draw, PORT, BAD_PORT)}
        if command == "createPortForwardingRule":
            said |= {"publicendport": first + more, "privateendport": said["privateport"] + more}
        else:
            said |= {"algorithm": "source", "name": "odd"}
    if command == "addWireguardPeer":
        said = {"acl": [{"cidr": draw(INSIDE)} | {key: value for key, value in said.items() if value is not None}]}
        return command, said | {"remotecidrlist": draw(st.one_of(st.none(), BLOCK4, BLOCK4, NETS4))}
    if command == "createEgressFirewallRule":
        return command, said | {"cidrlist": cidrs(draw, INSIDE), "destcidrlist": sources}
    if command == "createIpv6FirewallRule":
        said |= {"destcidrlist": cidrs(draw, NETS6), "traffictype": draw(st.sampled_from(("ingress", "egress")))}
    if command == "createNetworkACL":
        said |= {
            "traffictype": draw(st.sampled_from(("ingress", "egress"))),
            "action": draw(st.sampled_from(("allow", "deny"))),
        }
        said["number"] = draw(st.one_of(st.none(), st.integers(-1, 500)))
    return command, said | {"cidrlist": sources}


class Tenant:
    """An account with a network, a VPC's tier and a WireGuard VPN, and its rules."""

    def __init__(self, world: World) -> None:
        self.world, own = world, account(world, "odd")
        self.api, self.names = own.api, itertools.count()
        net = own.network(world.offering((*SERVICES, "Vpn"), internetprotocol="DualStack"))
        guest = own.guest(net["id"])
        ip = own.address(net["id"])
        offering = own.api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
        said = {"name": "odd", "zoneid": own.zone, "vpcofferingid": offering, "cidr": "10.81.0.0/16"}
        self.vpc = own.api.createVPC(**said, **NOW)["vpc"]["id"]
        acl = own.api.createNetworkACLList(vpcid=self.vpc, name="odd", **NOW)["networkacllist"]["id"]
        inside = {"gateway": "10.81.1.1", "netmask": "255.255.255.0", "vpcid": self.vpc, "aclid": acl}
        tier = own.network(TIER, **inside)
        own.guest(tier["id"])
        vpn = own.api.createWireguardVpn(networkid=net["id"], **NOW)["wireguardvpn"]["id"]
        self.fixed = {
            "createFirewallRule": {"ipaddressid": ip["id"]},
            "createEgressFirewallRule": {"networkid": net["id"]},
            "createPortForwardingRule": {"ipaddressid": ip["id"], "virtualmachineid": guest["id"]},
            "createNetworkACL": {"aclid": acl},
            "createIpv6FirewallRule": {"networkid": net["id"]},
            "addWireguardPeer": {"wireguardvpnid": vpn},
            "createLoadBalancerRule": {"publicipid": ip["id"]},
        }

    def ask(self, command: str, said: dict[str, Any]) -> str:
        """Begin a call; return its job, empty where it is refused with a sentence."""
        said = {key: value for key, value in said.items() if value is not None}
        more = {"name": f"peer-{next(self.names)}"} if command == "addWireguardPeer" else {}
        error: dict[str, Any] = {}
        try:
            return str(getattr(self.api, command)(**self.fixed[command], **said, **more)["jobid"])
        except CloudStackApiException as refused:
            error = refused.error
        assert error["errorcode"] in REFUSED, (command, said, error)
        assert len(error["errortext"]) > 20, error
        return ""

    def ended(self, job: str) -> int:
        return int(self.api.queryAsyncJobResult(jobid=job)["jobstatus"])


@pytest.fixture(scope="module")
def odd(world: World) -> Tenant:
    return Tenant(world)


@pytest.fixture(scope="module")
def other(world: World):
    """Another tenant: its cloud, its guest and its address."""
    own = account(world, "plain")
    net = own.network()
    return own, own.guest(net["id"]), own.address(net["id"])


def test_generated_rules_of_one_tenant_stop_no_change_of_another(odd: Tenant, other):
    own, guest, ip = other
    ports, waits = itertools.count(2000), []
    done, refused = Counter(), Counter()

    @settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(calls(), min_size=12, max_size=16))
    def throw(asked: list[tuple[str, dict[str, Any]]]) -> None:
        jobs = [odd.ask(command, said) for command, said in asked]
        began, port = time.monotonic(), next(ports)
        own.forward(ip, guest, port, 80)
        assert own.curl(f"http://{ip['ipaddress']}:{port}/") == guest["name"]
        waits.append(time.monotonic() - began)
        for (command, said), job in zip(asked, jobs, strict=True):
            (done if job else refused)[command] += 1
            if job:
                status = until(lambda job=job: odd.ended(job))
                assert status == 1, (command, said, odd.api.queryAsyncJobResult(jobid=job)["jobresult"])

    throw()
    print(f"done {done}, refused {refused}; the other's change took {max(waits):.3f} s at the most")
    assert set(done) == set(refused) == set(COMMANDS)
    assert min(done.total(), refused.total()) > 30
    assert max(waits) <= SOON
    alerts = odd.world.api.listAlerts().get("alert", [])
    assert not [row for row in alerts if "left out" in row["description"]], "all went to the kernel"
