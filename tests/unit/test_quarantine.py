"""What cannot be planned is left out and named; all else is planned as if it had never been."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.network.virtual_router import VirtualRouter, acl
from drivers.quarantine import plan_around
from drivers.vocabulary import EgressRule, IngressRule, PortForward, StaticNat
from drivers.vpc import AclItem
from tests.golden.router.cases import (
    FIRST,
    SECOND,
    appliance,
    balancer,
    lease,
    network,
    private_gateway,
    uid,
    wireguard,
)

ROUTER = VirtualRouter()


def written(facts):
    return ROUTER.render(ROUTER.plan(facts))


def forward(number, **more):
    rule = PortForward(uid(6, number), FIRST, "tcp", 1000 + number, 1000 + number, "10.1.1.5", 80, 80)
    return rule._replace(**more)


def opened(number, **more):
    return IngressRule(uid(7, number), FIRST, "tcp", 2000 + number, 2000 + number, ("0.0.0.0/0",))._replace(**more)


SPOILT = st.sampled_from(
    [{"guest": "192.0.2.1"}, {"protocol": "sctp"}, {"public_start": 70000}, {"guest": "10.1.1.5\n"}, {"address": "no"}]
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 60), SPOILT, max_size=6))
def test_exactly_the_bad_ones_are_left_out(spoilt):
    rules = [forward(number, **spoilt.get(number, {})) for number in range(61)]
    facts = appliance(network(forwards=tuple(rules), ingress=tuple(opened(number) for number in range(61))))
    good = tuple(rule for number, rule in enumerate(rules) if number not in spoilt)

    made, refused = plan_around(written, facts)

    assert set(refused) == {uid(6, number) for number in spoilt}
    assert made == written(replace(facts, networks=(replace(facts.networks[0], forwards=good),)))
    assert plan_around(written, facts, refused) == (made, refused)
    assert all(f"port forwarding rule {item} is left out: " in reason for item, reason in refused.items())


def test_a_bad_thing_of_every_kind_is_found():
    net = network(
        leases=(lease(5), lease(6)._replace(hostname="a\nb")),
        ingress=(opened(1, sources=("1.2.3.4/99",)), opened(2)),
        forwards=(forward(1), forward(2, private_end=81)),
        static_nats=(StaticNat(uid(8, 1), SECOND, "10.9.9.9"),),
        balancers=(balancer(1, 80), balancer(2, 81, algorithm="magic")),
        egress=(EgressRule(uid(9, 1), "tcp", 1, 99999, (), ()),),
        egress_allow=False,
    )
    made, refused = plan_around(written, appliance(net))
    bad = {uid(3, 6), uid(7, 1), uid(6, 2), uid(8, 1), uid(10, 2), uid(9, 1)}
    assert set(refused) == bad
    assert made != written(appliance())
    assert "'a\\nb'" in refused[uid(3, 6)]


def test_a_bad_vpn_stops_no_rule():
    good = wireguard()
    bad = replace(good.wireguards[0], id=uid(99, 1), port=70000)
    made, refused = plan_around(written, replace(good, wireguards=(bad, *good.wireguards)))
    assert set(refused) == {bad.id}
    assert made == written(good)


def test_a_bad_peer_stops_neither_its_vpn_nor_another_peer():
    good = wireguard()
    (vpn,) = good.wireguards
    spoilt = {"address": "nowhere", "public_key": "no key\n", "remotes": ("10.0.0.0/33",)}
    bad = [
        replace(vpn.peers[0], id=uid(98, number), **{key: value}) for number, (key, value) in enumerate(spoilt.items())
    ]
    whole = replace(good, wireguards=(replace(vpn, peers=(bad[0], *vpn.peers, *bad[1:])),))
    made, refused = plan_around(written, whole)
    assert set(refused) == {peer.id for peer in bad}
    assert made == written(good)
    assert plan_around(written, whole, refused) == (made, refused)
    assert all(f"WireGuard peer {item} is left out: " in reason for item, reason in refused.items())


def test_of_two_that_exclude_each_other_one_stays_and_it_is_always_the_same():
    one, two = (StaticNat(uid(8, number), SECOND, f"10.1.1.{4 + number}") for number in (1, 2))
    facts = appliance(network(static_nats=(two, one)))
    made, refused = plan_around(written, facts)
    assert set(refused) == {two.id}
    assert plan_around(written, facts, refused) == (made, refused)
    made, refused = plan_around(written, facts, {one.id})
    assert set(refused) == {one.id}


def test_a_rule_that_denies_is_never_left_out():
    net = network(egress=(EgressRule(uid(9, 1), "tcp", 1, 99999, (), ()),), egress_allow=True)
    with pytest.raises(ValueError, match=f"Egress rule {uid(9, 1)} has the ports 1 to 99999"):
        plan_around(written, appliance(net))


def test_what_is_wrong_with_the_whole_is_said_as_it_is():
    facts = replace(appliance(network(forwards=(forward(1, protocol="sctp"),))), dns=("nowhere",))
    with pytest.raises(ValueError, match="nowhere"):
        plan_around(written, replace(facts, networks=(network(),)))
    with pytest.raises(ValueError, match=r"sctp|nowhere"):
        plan_around(written, facts)


def ruled(number, *, allow=True, ingress=True, **more):
    return AclItem(uid(12, number), number, allow, ingress, "tcp", 1000 + number, 1000 + number, ())._replace(**more)


def with_acl(*items, gateway=False):
    """The VPC of the golden case with this list on its first tier, and on its private gateway where that is said."""
    facts = private_gateway()
    first, *others = facts.networks
    sides = tuple(replace(side, acl=items if gateway else side.acl) for side in facts.vpc.gateways)
    return replace(facts, networks=(replace(first, acl=items), *others), vpc=replace(facts.vpc, gateways=sides))


def closing(number, *, ingress=True):
    return AclItem("", number, allow=False, ingress=ingress, protocol="all")


def passed(items, way, protocol, port):
    """Return what the rules, read one by one as CloudStack says, do with a packet to everyone."""
    mine = sorted((item for item in items if item.ingress is way), key=lambda item: item.number)
    for item in mine:
        if item.protocol == "all" or (item.protocol == protocol and item.start <= port <= item.end):
            return item.allow
    return not mine and not way


BAD_ACL = st.sampled_from([{"protocol": "magic"}, {"end": 70000}, {"cidrs": ("10.0.0.0/33",)}])


def test_an_acl_rule_that_allows_is_left_out_and_the_others_hold():
    bad = ruled(2, protocol="magic")
    made, refused = plan_around(written, with_acl(ruled(1), bad, ruled(3, allow=False), ruled(4)))
    assert made == written(with_acl(ruled(1), ruled(3, allow=False), ruled(4), closing(9)))
    assert refused.keys() == {bad.id}
    assert f"The network ACL rule {bad.id} (number 2) is left out: " in refused[bad.id]


def test_in_place_of_an_acl_rule_that_denies_all_behind_it_is_denied():
    bad = ruled(2, allow=False, cidrs=("10.0.0.0/33",))
    rules = (ruled(1), bad, ruled(3), ruled(5, ingress=False))
    made, refused = plan_around(written, with_acl(*rules, gateway=True))
    assert made == written(with_acl(ruled(1), closing(2), ruled(5, ingress=False), gateway=True))
    assert f"The network ACL rule {bad.id} (number 2), which denies, cannot be: " in refused[bad.id]
    assert "ingress rules behind it name is denied" in refused[bad.id]


def test_the_only_egress_rule_that_allows_does_not_open_the_list_when_it_is_left_out():
    made, refused = plan_around(written, with_acl(ruled(1), ruled(2, ingress=False, protocol="magic"), gateway=True))
    assert made == written(with_acl(ruled(1), closing(9, ingress=False), gateway=True))
    assert len(refused) == 1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 6), st.integers(0, 6)), max_size=8),
    st.dictionaries(st.integers(0, 7), BAD_ACL, max_size=3),
)
def test_whatever_is_bad_in_an_acl_nothing_more_is_open_than_was_asked_for(rules, spoilt):
    wanted = [
        AclItem(uid(12, number), number, allow, way, "tcp", min(ports), max(ports))
        for number, (allow, way, *ports) in enumerate(rules)
    ]

    def closed(facts):
        acl.elements(facts.networks[0])
        return facts.networks[0].acl

    done, refused = plan_around(closed, with_acl(*(item._replace(**spoilt.get(item.number, {})) for item in wanted)))
    assert set(refused) == {uid(12, number) for number in spoilt if number < len(wanted)}
    for way in (True, False):
        for port in range(8):
            assert passed(wanted, way, "tcp", port) or not passed(done, way, "tcp", port)
