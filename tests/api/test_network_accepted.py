"""What the API accepts, the provider can plan: no rule of a tenant ever keeps the next change from a router."""

from __future__ import annotations

import random

import pytest

from controlplane.errors import ApiError
from controlplane.reconcile.bundles import make
from controlplane.reconcile.targets import Target
from tests.api.ground import lay

SEEDS = range(4)
CIDRS = (
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.1.0/24",
    "10.1.1.64/26",
    "10.1.1.10/32",
    "192.0.2.1/24",
    "x",
    "1.2.3.4",
    "::/0",
)
PORTS = (-1, 0, 1, 22, 79, 80, 81, 443, 1000, 65535, 65536)
TEXTS = ("a", "a b", "a\nb", 'a"b', "a'b", "a\\", "ä", "", "#", "{}", "x" * 65, "insert", "SRV", "3h", "true")


def draw(chance, choices, odds=0.7):
    return chance.choice(choices) if chance.random() < odds else None


def rules(chance, ip, network, vms):
    """One command of a random kind with random parameters, most of which make sense."""
    protocol = chance.choice(("tcp", "udp", "tcp", "icmp", "all", "gre"))
    sources = ",".join(chance.sample(CIDRS, chance.randint(0, 3))) or None
    first, last = chance.choice(PORTS), draw(chance, PORTS, 0.5)
    ports = {"startport": first, "endport": last} if protocol in ("tcp", "udp") else {}
    ports |= {"icmptype": draw(chance, PORTS), "icmpcode": draw(chance, PORTS, 0.3)} if protocol == "icmp" else {}
    kind = chance.randint(0, 4)
    if kind == 0:
        return "createFirewallRule", {"ipaddressid": ip, "protocol": protocol, "cidrlist": sources, **ports}
    if kind == 1:
        more = {"destcidrlist": draw(chance, CIDRS, 0.4), "cidrlist": draw(chance, CIDRS, 0.6)}
        return "createEgressFirewallRule", {"networkid": network, "protocol": protocol, **more, **ports}
    if kind == 2:
        start = chance.choice(PORTS)
        length = (last or first) - first
        return "createPortForwardingRule", {
            "ipaddressid": ip, "protocol": protocol, "publicport": first, "publicendport": last, "privateport": start,
            "privateendport": start + length, "virtualmachineid": chance.choice(vms), "cidrlist": sources,
        }  # fmt: skip
    return "createLoadBalancerRule", {
        "publicipid": ip, "name": chance.choice(TEXTS) or "n", "algorithm": chance.choice(("roundrobin", "source", "x")),
        "publicport": first, "privateport": chance.choice(PORTS), "cidrlist": sources,
        "protocol": chance.choice(("tcp", "udp", "ssl", "tcp-proxy", "http")), "openfirewall": False,
    }  # fmt: skip


def policies(chance, rule, vms):
    """What may be hung on a load balancer rule."""
    method = chance.choice(("LbCookie", "AppCookie", "SourceBased"))
    names = ("cookie-name", "mode", "nocache", "domain", "length", "holdtime", "tablesize", "expire")
    params = {f"param[{number}].name": chance.choice(names) for number in range(chance.randint(0, 2))}
    params |= {name.replace("name", "value"): chance.choice(TEXTS) for name in list(params)}
    yield {"command": "assignToLoadBalancerRule", "id": rule, "virtualmachineids": chance.choice(vms)}
    yield {"command": "createLBStickinessPolicy", "lbruleid": rule, "name": "s", "methodname": method, **params}
    path = chance.choice(("", "/", "/ok?a=1", "ok", "/a b", '/"', "/" + "x" * 300, "/ä", "/a\nb"))
    times = {"intervaltime": chance.choice((0, 5, 90000)), "responsetimeout": chance.choice((1, 2, 5))}
    yield {"command": "createLBHealthCheckPolicy", "lbruleid": rule, "pingpath": path, **times}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_accepted_can_be_planned(cloud, seed):
    chance, ground = random.Random(seed), lay(cloud)
    alice, network = ground.account("alice"), ground.network("alice")
    target = ground.router(network)
    ips = [ground.address(alice, network) for _ in range(2)]
    vms = [ground.machine(network, f"vm{number}", f"10.1.1.{number}") for number in range(10, 13)]
    alice("enableStaticNat", ipaddressid=ground.address(alice, network), virtualmachineid=vms[0])
    outcomes = {"accepted": 0, "refused": 0}

    def attempt(parameters):
        refused = None
        try:
            answer = alice.raw({name: str(value) for name, value in parameters.items() if value is not None})
        except ApiError as error:
            refused = error
        if refused is not None:
            assert refused.status in (431, 432, 537), refused.text
            assert refused.status == 432 or "parameter" in refused.text, refused.text
            assert len(refused.text) > 20
            outcomes["refused"] += 1
            return None
        outcomes["accepted"] += 1
        return answer["jobid"], answer.get("id")

    for _ in range(120):
        command, parameters = rules(chance, chance.choice(ips), network, vms)
        made = attempt({"command": command, **parameters})
        if made and command == "createLoadBalancerRule":
            for more in policies(chance, made[1], vms):
                attempt(more)
    assert min(outcomes.values()) > 20, outcomes
    with cloud.database.read() as session:
        row = session.get_one(Target, target)
        bundle, refused = make(session, row)
        assert refused == {}
    assert any(part.items for part in bundle.elements)
