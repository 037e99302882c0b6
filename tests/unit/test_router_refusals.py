"""What cannot be, or may not stand in a daemon's file, is refused with a sentence that names it."""

from dataclasses import replace

import pytest

from drivers.balancing import Certificate, HealthCheck, Member, Stickiness
from drivers.network.virtual_router import VirtualRouter
from drivers.network.virtual_router.stickiness import METHODS
from drivers.vocabulary import SERVICES, EgressRule, GuestSubnet, IngressRule, Metadata, PortForward, StaticNat
from tests.golden.router.cases import ANY, FIRST, SECOND, appliance, balancer, lease, network, public, uid

BAD = ["", "a\nb", "a\rb", 'a"b', "a'b", "a b", "a=b;c", "a\0b", "é", "a#b", "a\\b", "a{b}", "-a", "x" * 300]


def plan(facts):
    return VirtualRouter().plan(facts)


def of_network(**more):
    return appliance(network(**more))


STRINGS = {
    "hostname": lambda text: of_network(leases=(lease(5)._replace(hostname=text),)),
    "lease mac": lambda text: of_network(leases=(lease(5)._replace(mac=text),)),
    "lease address": lambda text: of_network(leases=(lease(5)._replace(address=text),)),
    "mac": lambda text: replace(of_network(), nics=(appliance().nics[0]._replace(mac=text), appliance().nics[1])),
    "subnet": lambda text: of_network(subnets=(GuestSubnet(text, "10.1.1.1", "10.1.1.4"),)),
    "subnet gateway": lambda text: of_network(subnets=(GuestSubnet("10.1.1.0/24", text, "10.1.1.4"),)),
    "subnet address": lambda text: of_network(subnets=(GuestSubnet("10.1.1.0/24", "10.1.1.1", text),)),
    "resolver": lambda text: replace(of_network(), dns=(text,)),
    "gateway": lambda text: appliance(network(), (public(1, FIRST, gateway=text or "?", source_nat=True),)),
    "public address": lambda text: appliance(network(), (public(1, text, source_nat=True),)),
    "ingress id": lambda text: of_network(ingress=(IngressRule(text, FIRST, "tcp", 1, 2, ANY),)),
    "ingress cidr": lambda text: of_network(ingress=(IngressRule(uid(6, 1), FIRST, "tcp", 1, 2, (text,)),)),
    "ingress protocol": lambda text: of_network(ingress=(IngressRule(uid(6, 1), FIRST, text, 1, 2, ANY),)),
    "egress cidr": lambda text: of_network(egress=(EgressRule(uid(7, 1), "tcp", 1, 2, (), (text,)),)),
    "forward guest": lambda text: of_network(forwards=(PortForward(uid(8, 1), FIRST, "tcp", 1, 1, text, 1, 1),)),
    "forward cidr": lambda text: of_network(
        forwards=(PortForward(uid(8, 1), FIRST, "tcp", 1, 1, "10.1.1.5", 1, 1, (text,)),)
    ),
    "static guest": lambda text: of_network(static_nats=(StaticNat(uid(1, 2), SECOND, text),)),
    "lb id": lambda text: of_network(balancers=(replace(balancer(1, 80), id=text),)),
    "lb member": lambda text: of_network(balancers=(balancer(1, 80, members=(Member(text, "10.1.1.5"),)),)),
    "lb algorithm": lambda text: of_network(balancers=(balancer(1, 80, algorithm=text),)),
    "lb protocol": lambda text: of_network(balancers=(balancer(1, 80, protocol=text),)),
    "lb setting": lambda text: of_network(balancers=(balancer(1, 80, settings=(("timeout.client", text),)),)),
    "lb setting name": lambda text: of_network(balancers=(balancer(1, 80, settings=((text, "1"),)),)),
    "lb maxconn": lambda text: replace(of_network(balancers=(balancer(1, 80),)), settings=(("network.loadbalancer.haproxy.max.conn", text),)),
    "ping path": lambda text: of_network(balancers=(balancer(1, 80, health=HealthCheck(text or "x", 5, 2, 2, 2)),)),
    "dhcp option": lambda text: of_network(leases=(lease(5, options=((42, text + ("\n" if text.isascii() else "")),)),)),
    "metadata path": lambda text: of_network(metadata=(Metadata(uid(3, 5), "10.1.1.5", ((text, "x"),)),)),
    "user data": lambda text: of_network(metadata=(Metadata(uid(3, 5), "10.1.1.5", (), text or "\n"),)),
}  # fmt: skip


HARMLESS = {
    *((name, "-a") for name in ("ingress id", "lb id", "lb member", "metadata path", "user data")),
    *((name, "x" * 300) for name in ("metadata path", "user data")),
}
"""In a comment or a name, or in JSON, these may stand."""


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name in STRINGS for text in BAD if (name, text) not in HARMLESS], ids=ascii
)
def test_strings_that_no_file_may_hold_are_refused(name, text):
    with pytest.raises(ValueError, match=r"\.$") as error:
        plan(STRINGS[name](text))
    assert repr(text)[1:-1][:40] in str(error.value) or name in ("dhcp option", "user data", "ping path", "gateway")


@pytest.mark.parametrize("text", [text for text in BAD if text])
def test_a_domain_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be a domain name"):
        plan(appliance(replace(network(), domain=text)))


@pytest.mark.parametrize(
    ("method", "name"), [(method, parameter.name) for method, (_, many) in METHODS.items() for parameter in many]
)
@pytest.mark.parametrize("text", [text for text in BAD if text and text != "-a"], ids=ascii)
def test_stickiness_parameters_are_checked(method, name, text):
    sticky = Stickiness("s", method, ((name, text),))
    with pytest.raises(ValueError, match=f"parameter {name} "):
        plan(of_network(balancers=(balancer(1, 80, stickiness=sticky),)))


REFUSED = {
    "no source CIDR": of_network(ingress=(IngressRule(uid(6, 1), FIRST, "tcp", 1, 2, ()),)),
    "no public address of this router": of_network(ingress=(IngressRule(uid(6, 1), "203.0.113.99", "tcp", 1, 2, ANY),)),
    "range within 0 to 65535": of_network(ingress=(IngressRule(uid(6, 1), FIRST, "tcp", 5, 2, ANY),)),
    "-1 for any": of_network(ingress=(IngressRule(uid(6, 1), FIRST, "icmp", 256, 0, ANY),)),
    "is not on its network, 10.1.1.0/24": of_network(
        egress=(EgressRule(uid(7, 1), "tcp", 1, 2, ("10.2.0.0/16",), ()),)
    ),
    "which is not on its network": of_network(forwards=(PortForward(uid(8, 1), FIRST, "tcp", 1, 1, "10.2.0.5", 1, 1),)),
    "must have the same length": of_network(forwards=(PortForward(uid(8, 1), FIRST, "tcp", 1, 3, "10.1.1.5", 1, 2),)),
    "it must be tcp or udp": of_network(forwards=(PortForward(uid(8, 1), FIRST, "icmp", 1, 3, "10.1.1.5", 1, 3),)),
    "which guest 10.1.1.5 has already": of_network(
        static_nats=(StaticNat(uid(1, 1), SECOND, "10.1.1.5"), StaticNat(uid(1, 2), SECOND, "10.1.1.6"))
    ),
    "has already": of_network(balancers=(balancer(1, 80), balancer(2, 80))),
    "no connections or cookies": of_network(balancers=(balancer(1, 53, protocol="udp", algorithm="leastconn"),)),
    "cannot be checked": of_network(balancers=(balancer(1, 53, protocol="udp", health=HealthCheck("", 5, 2, 2, 2)),)),
    "must be 1 to 86400 seconds": of_network(balancers=(balancer(1, 80, health=HealthCheck("/", 0, 2, 2, 2)),)),
    "must be one of LbCookie": of_network(balancers=(balancer(1, 80, stickiness=Stickiness("s", "Magic")),)),
    "has no parameter 'size'": of_network(
        balancers=(balancer(1, 80, stickiness=Stickiness("s", "SourceBased", (("size", "1"),))),)
    ),
    "cannot be indirect": of_network(
        balancers=(
            balancer(1, 80, stickiness=Stickiness("s", "LbCookie", (("mode", "rewrite"), ("indirect", "true")))),
        )
    ),
    "must be PEM blocks": of_network(
        balancers=(balancer(1, 80, protocol="ssl", certificate=Certificate("x", "no", "", "s3cret-key")),)
    ),
    "is the DHCP server's own": of_network(leases=(lease(5, options=((53, "1"),)),)),
    "is not in 10.1.1.0/24": of_network(leases=(lease(5)._replace(address="10.1.2.5"),)),
    "has no interface": replace(appliance(), nics=appliance().nics[:1]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(sentence):
    with pytest.raises(ValueError, match=r"\.$") as error:
        plan(REFUSED[sentence])
    assert sentence in str(error.value)
    assert "s3cret" not in str(error.value)


def test_only_cloudstacks_services_are_offered_and_only_what_is_done():
    offered = VirtualRouter.capabilities
    assert set(offered) <= set(SERVICES)
    assert "SecurityGroup" not in offered
    assert {name for name in METHODS if f'"{name}"' in offered["Lb"]["SupportedStickinessMethods"]} == set(METHODS)


def test_secrets_are_marked_and_left_out_of_what_is_printed():
    pem = "-----BEGIN {0}-----\nSECRETSECRET\n-----END {0}-----\n"
    certificate = Certificate("c", pem.format("CERTIFICATE"), "", pem.format("PRIVATE KEY"))
    facts = of_network(
        balancers=(balancer(1, 443, protocol="ssl", certificate=certificate),),
        metadata=(Metadata(uid(3, 5), "10.1.1.5", (), "", "SECRETSECRET"),),
    )
    router = VirtualRouter()
    config = router.plan(facts)
    assert "SECRETSECRET" not in repr(config)
    files, _ = router.render(config)
    assert {file.path for file in files if "SECRETSECRET" in file.content} == {
        file.path for file in files if file.secret
    }
