"""Whatever rules one tenant writes, each is made or refused with a sentence, and the others stay guarded as they were."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from controlplane.errors import ApiError
from controlplane.network.security_groups import SecurityGroup, SecurityGroupRule
from controlplane.reconcile.targets import Target
from drivers import registry
from drivers.vocabulary import HostFacts
from tests.api.group_world import group_world

NUMBERS = st.one_of(st.integers(-3, 70000), st.sampled_from((-1, 0, 1, 255, 256, 65535, 65536, 10**17)))
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(
        ("0.0.0.0", "255.255.255.255", "127.0.0.1", "224.0.0.1", "::", "::1", "fe80::1", "ff02::1", "::ffff:1.2.3.4")
    ),
)
CIDRS = st.one_of(
    st.builds("{}/{}".format, ADDRESSES, st.integers(-1, 130)),
    ADDRESSES,
    st.text(max_size=20),
    st.sampled_from(
        (
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "10.0.0.0/9",
            "10.128.0.0/9",
            "10.0.0.1/8 ",
            "010.0.0.0/8",
            "1.2.3.4/08",
            "{ }",
            "0.0.0.0/0;drop",
        )
    ),
)
PROTOCOLS = st.one_of(
    st.sampled_from(
        (
            "tcp",
            "UDP",
            "icmp",
            "icmpv6",
            "all",
            "6",
            "17",
            "1",
            "58",
            "0",
            "255",
            "256",
            "-1",
            "vrrp",
            "112",
            "",
            " tcp ",
            "esp",
        )
    ),
    st.text(max_size=6),
)
NAMES = st.one_of(st.sampled_from(("alice", "bob", "default", "odd", "theirs")), st.text(max_size=5))
RULES = st.fixed_dictionaries(
    {},
    optional={
        "protocol": PROTOCOLS,
        "startport": NUMBERS,
        "endport": NUMBERS,
        "icmptype": NUMBERS,
        "icmpcode": NUMBERS,
        "cidrlist": st.lists(CIDRS, max_size=5).map(",".join),
        "usersecuritygrouplist[0].account": NAMES,
        "usersecuritygrouplist[0].group": NAMES,
    },
)

BLOCKS = st.one_of(
    st.builds("10.{}.{}.0/{}".format, st.integers(0, 3), st.integers(0, 3), st.integers(8, 32)),
    st.builds("2001:db8:{:x}::/{}".format, st.integers(0, 3), st.integers(16, 128)),
)
PORTS = st.tuples(st.integers(1, 2000), st.integers(0, 64000))
PLAIN = st.one_of(
    st.builds(
        lambda name, ports: {"protocol": name, "startport": ports[0], "endport": min(65535, sum(ports))},
        st.sampled_from(("tcp", "udp")),
        PORTS,
    ),
    st.builds(
        lambda kind, code: {"protocol": "icmp", "icmptype": kind} | ({"icmpcode": code} if kind >= 0 else {}),
        st.integers(-1, 255),
        st.integers(-1, 255),
    ),
    st.integers(0, 255).map(lambda number: {"protocol": str(number)}),
    st.just({}),
)
SOUND = st.builds(
    lambda rule, blocks, named: rule | {"cidrlist": ",".join(blocks)} | named,
    PLAIN,
    st.lists(BLOCKS, min_size=1, max_size=4),
    st.sampled_from(({}, {"usersecuritygrouplist[0].account": "bob", "usersecuritygrouplist[0].group": "theirs"})),
)


def planned(facts: HostFacts):
    """The filter that the host is to have, and what it had to leave out."""
    config = registry.hypervisors()["LXC"].plan(facts)
    return config.filters


def elements_of(facts: HostFacts, mine: set[str]) -> tuple:
    """Everything that guards these NICs, as facts."""
    ports = tuple(port for port in facts.filters if port.nic in mine)
    names = {name for port in ports for name in port.groups or ()}
    groups = tuple(group for group in facts.groups if group.id in names)
    meant = {rule.group for group in groups for rule in (*group.ingress, *group.egress)}
    return ports, groups, tuple(one for one in facts.members if one.group in meant)


def test_odd_rules_are_made_or_refused_and_leave_the_others_as_they_were(cloud):
    with group_world(cloud, hosts=1) as here:
        odd, theirs = here.group("odd"), here.group("theirs", who="bob")
        here.deploy(securitygroupids=odd)
        guest = here.deploy("bob", securitygroupids=theirs)
        here.allow(theirs, cloud=here.bob, protocol="tcp", startport=80, cidrlist="192.0.2.0/24,2001:db8::/32")
        mine = {nic["id"] for nic in guest["nic"]}
        (facts,) = here.facts()
        before = elements_of(facts, mine)
        seen, sentences = {"made": 0, "refused": 0}, []

        @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.one_of(RULES, SOUND), st.sampled_from(("Ingress", "Egress")))
        def write(rule, way):
            raw = {"command": f"authorizeSecurityGroup{way}", "securitygroupid": odd}
            try:
                here.cloud.raw(raw | {key: str(value) for key, value in rule.items()})
                seen["made"] += 1
            except ApiError as refused:
                seen["refused"] += 1
                sentences.append(refused.text)
                return
            (facts,) = here.facts()
            assert elements_of(facts, mine) == before
            own = {odd} | {
                rule.id for group in facts.groups if group.id == odd for rule in (*group.ingress, *group.egress)
            }
            assert {unit for unit, _ in planned(facts).refused} <= own, "only the odd ones' own rules can be left out"

        write()
        assert all(text.startswith(("Invalid parameter ", "Security group odd has")) for text in sentences)
        assert seen["made"] > 10, seen
        assert seen["refused"] > 10, seen
        begun = here.allow(theirs, cloud=here.bob, protocol="tcp", startport=443, cidrlist="0.0.0.0/0")
        assert begun["ingressrule"][0]["startport"] == 443, "and the next change of the other is in force"


def test_a_bad_rule_in_the_database_is_named_and_stops_no_other(cloud):
    with group_world(cloud, hosts=1) as here:
        odd, theirs = here.group("odd"), here.group("theirs", who="bob")
        here.deploy(securitygroupids=odd)
        here.deploy("bob", securitygroupids=theirs)
        here.allow(theirs, cloud=here.bob, protocol="tcp", startport=80, cidrlist="192.0.2.0/24")
        (facts,) = here.facts()
        good = planned(facts).elements
        with cloud.database.write() as session:
            row = session.scalars(select(SecurityGroup).where(SecurityGroup.uuid == odd)).one()
            for peer, protocol in (("nonsense", "tcp"), ("10.0.0.0/8", "no\nsuch"), ("10.0.0.0/99", "all")):
                rule = SecurityGroupRule(group_id=row.id, direction="ingress", protocol=protocol, peer=peer)
                rule.account_id, rule.domain_id, rule.start, rule.end = row.account_id, row.domain_id, 1, 2
                session.add(rule)
        (facts,) = here.facts()
        found = planned(facts)
        assert len(found.refused) == 3, found.refused
        assert found.elements == good, "what cannot be lets nothing pass; all else is as it was"
        here.allow(theirs, cloud=here.bob, protocol="tcp", startport=81, cidrlist="192.0.2.0/24")
        (target,) = here.world.rows(Target, Target.kind == "host")
        assert target.refused == dict(found.refused), "a job about one of these would have failed with its reason"
