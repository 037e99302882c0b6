"""The virtual router, one case for each thing that makes its files differ."""

from dataclasses import replace
from functools import partial

from drivers.balancing import Certificate, HealthCheck, LoadBalancer, Member, Stickiness
from drivers.elastic import Elastic
from drivers.ipsec import RemoteAccess, Tunnel, VpnUser
from drivers.network.virtual_router import VirtualRouter
from drivers.redundancy import Redundancy
from drivers.routing import Bgp, BgpPeer, RoutedRule
from drivers.vocabulary import (
    ApplianceFacts,
    EgressRule,
    GuestSubnet,
    IngressRule,
    Ipv6Rule,
    Lease,
    Metadata,
    Network,
    Nic,
    PortForward,
    PublicAddress,
    StaticNat,
)
from drivers.vpc import AclItem, PrivateGateway, StaticRoute, Vpc
from drivers.wireguard import Passage, Wireguard, WireguardPeer

SERVICES = frozenset({"Dhcp", "Dns", "Firewall", "Lb", "PortForwarding", "SourceNat", "StaticNat", "UserData"})
OUTER, INNER = "02:00:00:00:00:01", "02:00:00:00:01:01"
FIRST, SECOND, THIRD = "203.0.113.5", "203.0.113.6", "203.0.113.7"
ANY = ("0.0.0.0/0",)


def uid(kind, number):
    return f"{kind:08x}-0000-4000-8000-{number:012x}"


def public(number, address, nic=OUTER, gateway="203.0.113.1", **more):
    return PublicAddress(uid(1, number), address, 24, gateway, nic, more.pop("source_nat", False), uid(2, 1), **more)


def lease(number, **more):
    return Lease(uid(3, number), f"02:00:00:00:02:{number:02x}", f"10.1.1.{number}", f"vm{number}", **more)


def network(**more):
    values = {"services": SERVICES, "leases": (lease(5), lease(6)), **more}
    return Network(uid(2, 1), "10.1.1.0/24", "10.1.1.1", INNER, "cs1.example", **values)


def appliance(net=None, addresses=None, **more):
    return ApplianceFacts(
        target=uid(9, 1),
        name="r-1-VM",
        nics=(
            Nic(uid(4, 0), OUTER, uid(5, 0), "Public", FIRST, 24, "203.0.113.1", 0),
            Nic(uid(4, 1), INNER, uid(2, 1), "Guest", "10.1.1.1", 24, "", 1, uid(2, 1)),
        ),
        addresses=addresses or (public(1, FIRST, source_nat=True), public(2, SECOND)),
        networks=(net or network(),),
        dns=("192.0.2.53",),
        **more,
    )


def plain():
    return appliance()


def rules():
    return appliance(
        network(
            egress_allow=False,
            rate=200,
            ingress=(
                IngressRule(uid(6, 1), FIRST, "tcp", 22, 22, ANY),
                IngressRule(uid(6, 2), FIRST, "tcp", 20, 100, ("198.51.100.0/24", "192.0.2.7/32")),
                IngressRule(uid(6, 3), FIRST, "tcp", 80, 80, ANY),
                IngressRule(uid(6, 4), SECOND, "all", -1, -1, ANY),
                IngressRule(uid(6, 5), FIRST, "icmp", 8, 0, ANY),
                IngressRule(uid(6, 6), FIRST, "icmp", 3, -1, ("198.51.100.0/24",)),
                IngressRule(uid(6, 7), SECOND, "icmp", -1, -1, ("198.51.100.0/24",)),
                IngressRule(uid(6, 8), FIRST, "udp", 1000, 2000, ANY),
            ),
            egress=(
                EgressRule(uid(7, 1), "tcp", 80, 80, (), ()),
                EgressRule(uid(7, 2), "tcp", 1, 1024, ("10.1.1.5/32",), ("198.51.100.0/24",)),
                EgressRule(uid(7, 3), "icmp", -1, -1, (), ()),
                EgressRule(uid(7, 4), "all", -1, -1, ("10.1.1.6/32",), ()),
            ),
            forwards=(
                PortForward(uid(8, 1), FIRST, "tcp", 22, 22, "10.1.1.5", 22, 22),
                PortForward(uid(8, 2), FIRST, "udp", 1000, 2000, "10.1.1.5", 1000, 2000),
                PortForward(uid(8, 3), FIRST, "tcp", 8000, 8002, "10.1.1.6", 9000, 9002),
                PortForward(uid(8, 4), FIRST, "tcp", 80, 80, "10.1.1.6", 80, 80, ("198.51.100.0/24",)),
                PortForward(uid(8, 5), FIRST, "tcp", 81, 81, "10.1.1.6", 8081, 8081, ("198.51.100.0/24",)),
            ),
            static_nats=(StaticNat(uid(1, 2), SECOND, "10.1.1.6"),),
        )
    )


def services():
    return appliance(
        network(
            mtu=1450,
            leases=(lease(5, options=((42, "192.0.2.123"), (66, "boot.example"))), lease(6, default=False)),
            metadata=(
                Metadata(
                    uid(3, 5),
                    "10.1.1.5",
                    (("instance-id", uid(3, 5)), ("public-keys", "ssh-ed25519 AAAA x")),
                    "SGk=",
                    "s3",
                ),
                Metadata(uid(3, 6), "10.1.1.6", (("instance-id", uid(3, 6)),)),
            ),
        )
    )


PEM = "-----BEGIN {0}-----\nMIIB\n-----END {0}-----\n"


def balancer(number, port, **more):
    values = {
        "algorithm": "roundrobin",
        "protocol": "tcp",
        "members": (Member(uid(3, 5), "10.1.1.5"), Member(uid(3, 6), "10.1.1.6", 2)),
        **more,
    }
    return LoadBalancer(uid(10, number), f"lb{number}", FIRST, port, 8000 + number, **values)


def balancers(certificate=None):
    return appliance(
        network(
            balancers=(
                balancer(1, 80, health=HealthCheck("/ping?x=1", 5, 2, 2, 4)),
                balancer(2, 443, protocol="ssl", certificate=certificate),
                balancer(3, 25, protocol="tcp-proxy", algorithm="leastconn", sources=("198.51.100.0/24", "192.0.2.0/24")),
                balancer(4, 8081, stickiness=Stickiness("a", "LbCookie", (("cookie-name", "KEEP"), ("indirect", "true"), ("nocache", "true")))),
                balancer(5, 8082, stickiness=Stickiness("b", "AppCookie", (("cookie-name", "JSESSIONID"), ("request-learn", "true")))),
                balancer(6, 8083, algorithm="source", stickiness=Stickiness("c", "SourceBased", (("tablesize", "10k"), ("expire", "5m")))),
                balancer(7, 8084, settings=(("maxconn", "100"), ("timeout.client", "5m"), ("option.tcpka", "true"), ("server.maxconn", "10"))),
                balancer(8, 53, protocol="udp"),
                balancer(9, 54, protocol="udp", algorithm="source"),
                balancer(10, 8085, members=()),
                balancer(11, 8086, stickiness=Stickiness("d", "AppCookie", (("cookie-name", "ASP"), ("prefix", "true"), ("mode", "query-string")))),
            ),
        )
    )  # fmt: skip


def two_ranges():
    """Two public interfaces with gateways of their own, and a static NAT on the second."""
    other = "02:00:00:00:00:02"
    facts = appliance(
        network(static_nats=(StaticNat(uid(1, 3), "192.0.2.9", "10.1.1.5"),)),
        (public(1, FIRST, source_nat=True), public(3, "192.0.2.9", other, "192.0.2.1")),
    )
    return replace(
        facts, nics=(*facts.nics, Nic(uid(4, 2), other, uid(5, 1), "Public", "192.0.2.9", 24, "192.0.2.1", 2))
    )


SHARED = frozenset({"Dhcp", "Dns", "Lb", "StaticNat", "UserData"})


def shared(net, *addresses):
    """A router with an address of its own on a network whose gateway is the operator's."""
    facts = appliance(net, addresses or (public(2, SECOND),))
    outer, inner = facts.nics
    return replace(facts, nics=(outer._replace(address=""), inner._replace(address="10.1.1.2")))


def elastic():
    """The gateway of a shared network's guests, one of them with a public address."""
    nat = (StaticNat(uid(1, 2), SECOND, "10.1.1.6"),)
    pods = Elastic("10.1.1.1", ("10.1.1.0/24", "10.1.2.0/24", "192.0.2.0/25"))
    return shared(network(services=SHARED - {"Lb"}, static_nats=nat, egress_allow=False, elastic=pods))


def elastic_balancer():
    """What balances on a shared network for one account, members in another pod among them."""
    rule = LoadBalancer(uid(8, 1), "web", SECOND, 80, 8080, "roundrobin", "tcp",
                        (Member(uid(3, 5), "10.1.1.5"), Member(uid(3, 7), "10.1.2.7")))  # fmt: skip
    pods = Elastic("10.1.1.1", ("10.1.1.0/24", "10.1.2.0/24"), way_out=False)
    return shared(network(services=frozenset({"Lb"}), leases=(), balancers=(rule,), egress_allow=False, elastic=pods))


def two_networks():
    """Two networks behind one router, the second without a firewall of ours and with names only."""
    mac = "02:00:00:00:01:02"
    other = Network(
        uid(2, 2), "10.1.2.0/24", "10.1.2.1", mac, "cs2.example", frozenset({"Dns", "SourceNat"}), egress_allow=True
    )
    facts = appliance(addresses=(public(1, FIRST, source_nat=True), public(2, SECOND)._replace(network=uid(2, 2))))
    nics = (*facts.nics, Nic(uid(4, 2), mac, uid(2, 2), "Guest", "10.1.2.1", 24, "", 2, uid(2, 2)))
    return replace(facts, nics=nics, networks=(*facts.networks, other))


def redundant():
    """One of two routers that hold their addresses in turn."""
    link = "02:00:00:00:01:03"
    members = ((uid(7, 1), 0), (uid(7, 2), 3))
    pair = Redundancy(
        uid(2, 1), uid(7, 1), uid(7, 2), members, 0, sole=False, nic=link, address="169.254.240.1",
        peer_address="169.254.240.2",
    )  # fmt: skip
    facts = appliance()
    nics = (*facts.nics, Nic(uid(4, 3), link, "link", "Control", "169.254.240.1", 30, "", 3))
    return replace(facts, nics=nics, redundancy=pair)


TIER = SERVICES - {"Firewall"} | {"NetworkACL"}


def tier(number, mac, **more):
    cidr = f"10.1.{number}.0/24"
    return Network(uid(2, number), cidr, f"10.1.{number}.1", mac, "cs1.example", TIER, **more)


def vpc():
    """A web tier that everyone may open port 80 of, and a db tier that only the web tier may reach."""
    web, db = "02:00:00:00:01:01", "02:00:00:00:01:02"
    web_acl = (
        AclItem(uid(12, 1), 1, True, True, "tcp", 80, 80, ANY),
        AclItem(uid(12, 2), 2, False, True, "all", -1, -1, ("198.51.100.0/24",)),
        AclItem(uid(12, 3), 3, True, True, "tcp", 1, 1024, ANY),
        AclItem(uid(12, 4), 4, True, True, "icmp", 8, -1, ANY),
        AclItem(uid(12, 5), 5, True, True, "47", -1, -1, ("192.0.2.0/24",)),
        AclItem(uid(12, 6), 6, True, False, "all", -1, -1, ANY),
    )
    db_acl = (AclItem(uid(13, 1), 10, True, True, "tcp", 5432, 5432, ("10.1.1.0/24",)),)
    facts = appliance(addresses=(public(1, FIRST, source_nat=True), public(2, SECOND)))
    forward = PortForward(uid(8, 1), FIRST, "tcp", 80, 80, "10.1.1.5", 80, 80)
    rule = replace(balancer(1, 443, members=(Member(uid(3, 7), "10.1.2.7"),)), address=FIRST)
    inside = replace(rule, id=uid(10, 2), address="10.1.2.9", port=5432, sources=("10.1.0.0/16",), internal=True)
    return replace(
        facts,
        nics=(*facts.nics, Nic(uid(4, 2), db, uid(2, 2), "Guest", "10.1.2.1", 24, "", 2, uid(2, 2))),
        addresses=tuple(address._replace(network="") for address in facts.addresses),
        networks=(tier(1, web, acl=web_acl, forwards=(forward,)), tier(2, db, acl=db_acl, balancers=(rule, inside))),
        vpc=Vpc(uid(14, 1), "shop", "10.1.0.0/16", "cs1.example"),
    )


def private_gateway():
    """The same VPC with an interface on a network of the operator's, and a route that leads through it."""
    mac = "02:00:00:00:03:01"
    facts = vpc()
    items = (
        AclItem(uid(15, 1), 1, True, True, "tcp", 5432, 5432, ("172.16.0.0/12",)),
        AclItem(uid(15, 2), 2, True, True, "icmp", -1, -1, ANY),
    )
    gateway = PrivateGateway(uid(16, 1), mac, "172.16.1.2", source_nat=True, acl=items)
    routes = (
        StaticRoute(uid(17, 1), "172.20.0.0/16", "172.16.1.1"),
        StaticRoute(uid(17, 2), "192.168.9.0/24", "10.9.9.9"),
    )
    nic = Nic(uid(4, 3), mac, "private", "Guest", "172.16.1.2", 24, "", 3)
    made = replace(facts.vpc, gateways=(gateway,), routes=routes)
    return replace(facts, nics=(*facts.nics, nic), vpc=made)


def vpc_dual_stack():
    """The same VPC with IPv6 in both tiers: a rule concerns the families of its CIDRs, and both where it has none."""
    facts = vpc()
    web, db = facts.networks
    more = (
        AclItem(uid(12, 7), 7, True, True, "tcp", 80, 80, ("2001:db8:c::/48",)),
        AclItem(uid(12, 8), 8, True, True, "icmp", 128, 0, ("::/0",)),
        AclItem(uid(12, 9), 9, True, False, "all", -1, -1),
    )
    networks = (
        replace(web, acl=(*web.acl, *more), cidr6="2001:db8:1::/64", gateway6="2001:db8:1::1"),
        replace(db, acl=(*db.acl, more[0]._replace(cidrs=("2001:db8:1::/64",))), cidr6="2001:db8:2::/64", gateway6="2001:db8:2::1"),
    )  # fmt: skip
    outer, *others = facts.nics
    six = outer._replace(address6="2001:db8::5", prefix6=64, gateway6="2001:db8::1")
    return replace(facts, nics=(six, *others), networks=networks)


KEYS = [f"{letter * 42}A=" for letter in "ABCDEFG"]


def wireguard():
    """A VPN with a device that may reach a little, one that may reach all, and another site; two uplinks."""
    peers = (
        WireguardPeer(uid(13, 1), KEYS[1], "10.250.0.2", keepalive=25, preshared_key=KEYS[2], passages=(
            Passage("10.1.1.5/32", "tcp", 80, 443), Passage("10.1.1.0/24", "icmp", 8, 0))),
        WireguardPeer(uid(13, 2), KEYS[3], "10.250.0.3", passages=(Passage("10.1.1.0/24"),)),
        WireguardPeer(uid(13, 3), KEYS[4], "10.250.0.4", ("10.9.0.0/16",), "198.51.100.7:51821",
                      passages=(Passage("10.1.1.6/32", "udp", 53, 53), Passage("10.250.0.3/32"))),
    )  # fmt: skip
    vpn = Wireguard(uid(12, 1), "192.0.2.9", 51820, "10.250.0.1", "10.250.0.0/24", 1420, KEYS[0], peers)
    return replace(two_ranges(), networks=(network(),), wireguards=(vpn,))


def wireguard_vpc():
    """The same in front of two tiers: a peer reaches what its own list and the tier's allow."""
    vpn = Wireguard(uid(12, 9), SECOND, 51820, "10.250.0.1", "10.250.0.0/24", 1420, KEYS[0],
                    (WireguardPeer(uid(13, 1), KEYS[1], "10.250.0.2", passages=(Passage("10.1.0.0/16"),)),))  # fmt: skip
    return replace(vpc(), wireguards=(vpn,))


def with_v6(net, **more):
    """The network with a prefix of its own, and the router with an address on the outside."""
    block = {"cidr6": "2001:db8:1::/64", "gateway6": "2001:db8:1::1"}
    leases = tuple(one._replace(address6=f"2001:db8:1::ff:fe00:2{one.mac[-2:]}") for one in net.leases)
    facts = appliance(replace(net, leases=leases, **block, **more), dns6=("2001:db8:53::53",))
    outer, inner = facts.nics
    return replace(facts, nics=(outer._replace(address6="2001:db8::5", prefix6=64, gateway6="2001:db8::1"), inner))


def dual_stack():
    return with_v6(
        network(
            mtu=1450,
            metadata=(Metadata(uid(3, 5), "10.1.1.5", (("instance-id", uid(3, 5)),), sources6=("2001:db8:1::5", "fe80::5")),),
        ),
        egress_allow=False,
        ingress6=(
            Ipv6Rule(uid(12, 1), "tcp", 22, 22, (), ()),
            Ipv6Rule(uid(12, 2), "tcp", 80, 90, ("2001:db8:c::/48",), ("2001:db8:1::5/128",)),
            Ipv6Rule(uid(12, 3), "icmp", 128, 0, ("2001:db8:c::/48",), ()),
            Ipv6Rule(uid(12, 4), "all", -1, -1, ("2001:db8:d::7/128",), ()),
        ),
        egress6=(
            Ipv6Rule(uid(13, 1), "udp", 53, 53, (), ("2001:db8:c::/48",)),
            Ipv6Rule(uid(13, 2), "icmp", -1, -1, ("2001:db8:1::5/128",), ()),
        ),
    )  # fmt: skip


def ipv6_only():
    """A network without IPv4: neither addresses nor translation."""
    facts = with_v6(network(services=frozenset({"Dhcp", "Dns", "Firewall", "UserData"})))
    net = replace(
        facts.networks[0],
        cidr="",
        gateway="",
        leases=tuple(one._replace(address="") for one in facts.networks[0].leases),
        metadata=(Metadata(uid(3, 5), "", (("instance-id", uid(3, 5)),), sources6=("2001:db8:1::5", "fe80::5")),),
    )
    outer, inner = facts.nics
    nics = (outer._replace(address="", prefix=0, gateway=""), inner._replace(address="", prefix=0))
    return replace(facts, nics=nics, addresses=(), networks=(net,), dns=())


ROUTED = frozenset({"Dhcp", "Dns", "Firewall", "Gateway", "UserData"})


def routed(**more):
    """Guests that are reached by their own addresses, as the routing firewall says."""
    ingress = (
        RoutedRule(uid(15, 1), "tcp", 22, 22, ("198.51.100.7/32",), ()),
        RoutedRule(uid(15, 2), "tcp", 80, 90, (), ("10.1.1.5/32",)),
        RoutedRule(uid(15, 3), "icmp", 8, -1, (), ()),
        RoutedRule(uid(15, 4), "all", -1, -1, ("192.0.2.0/24",), ("10.1.1.4/30",)),
    )
    egress = (EgressRule(uid(15, 5), "tcp", 81, 81, (), ("198.51.100.7/32",)),)
    given = {"services": ROUTED, "routed": True, "ingress4": ingress, "egress": egress, "egress_allow": True} | more
    return appliance(network(**given), addresses=(public(1, FIRST, source_nat=True),))


def routed_bgp(*peers, number=65001, **more):
    """The same, announced to two peers; with IPv6, too."""
    asked = peers or (
        BgpPeer("203.0.113.1", "2001:db8::1", 65000, "s3cret"),
        BgpPeer("198.51.100.9", "", 65000, hops=2),
    )
    facts = with_v6(routed(**more).networks[0])
    return replace(facts, addresses=routed().addresses, bgp=Bgp(number, asked))


def vpc_routed():
    """A VPC of two routed tiers: their ACL lists say who may come in."""
    facts = vpc()
    networks = tuple(
        replace(net, services=ROUTED - {"Firewall"} | {"NetworkACL"}, routed=True, forwards=(), balancers=())
        for net in facts.networks
    )
    return replace(facts, networks=networks, addresses=facts.addresses[:1])


def tunnels():
    """Two customer gateways, one of them with several networks and IKEv1, and users who dial in."""
    common = {"local": FIRST, "networks": ("10.1.1.0/24",)}
    return appliance(
        tunnels=(
            Tunnel(uid(20, 1), peer="198.51.100.9", remotes=("10.9.0.0/24", "10.9.1.0/24", "172.16.0.0/12"), psk="s3 cret",
                   version="ikev1", ike_policy="aes128-sha1;modp1536,3des-md5;modp1024", esp_policy="aes128-sha1",
                   ike_lifetime=28_800, passive=True, **common),
            Tunnel(uid(20, 2), peer="198.51.100.10", remotes=("10.8.0.0/16",), psk="other", version="ike",
                   ike_policy="aes256gcm16-sha384;ecp384", esp_policy="aes256gcm16-sha384;ecp384", dpd=True, encap=True,
                   resets=2, **common),
        ),
        remote_access=RemoteAccess(
            uid(21, 1), SECOND, ("10.1.1.0/24",), "10.1.2.2", "10.1.2.9", PEM.format("CERTIFICATE"),
            PEM.format("PRIVATE KEY"), ("10.1.1.1",), (VpnUser("anna", "pa ss"), VpnUser("bob@example", "word")),
        ),
    )  # fmt: skip


def l2tp():
    found = tunnels()
    access = replace(found.remote_access, psk='a "pre-shared" key', server="10.1.2.1", users=(
        VpnUser("anna", 'pa\\s"s'), VpnUser("bob@example", "word"),
    ))  # fmt: skip
    return replace(found, tunnels=(), remote_access=access)


def uncounted():
    listed = "198.51.100.0/25,198.51.100.128/25, 192.0.2.7/32,10.0.0.9/8"
    return appliance(settings=(("network.usage.excluded.cidrs", listed),))


def subnets():
    """A network whose gateways are the operator's: two subnets, and IPv6; the router serves and forwards nothing."""
    six = "2001:db8:8::"
    known = Metadata(uid(3, 7), "10.1.2.7", (("local-hostname", "vm7"),), sources6=(f"{six}7",))
    net = network(
        services=frozenset({"Dhcp", "Dns", "UserData"}),
        leases=(lease(5, address6=f"{six}5"), lease(7)._replace(address="10.1.2.7", address6=f"{six}7")),
        metadata=(known,),
        cidr6=f"{six}/64",
        gateway6=f"{six}2",
        subnets=(
            GuestSubnet("10.1.1.0/24", "10.1.1.1", "10.1.1.4"),
            GuestSubnet("10.1.2.0/24", "10.1.2.1", "10.1.2.4"),
            GuestSubnet(f"{six}/64", "fe80::1", f"{six}2", slaac=False),
        ),
    )
    nic = Nic(uid(4, 1), INNER, uid(2, 1), "Guest", "10.1.1.4", 24, "", 0, uid(2, 1))
    return replace(appliance(net), nics=(nic,), addresses=(), dns6=("2001:db8:53::1",))


def rendered(facts):
    router = VirtualRouter()
    return router.render(router.plan(facts()))


CERTIFICATE = Certificate(uid(11, 1), PEM.format("CERTIFICATE"), PEM.format("CERTIFICATE"), PEM.format("PRIVATE KEY"))

FACTS = {
    "plain": plain,
    "rules": rules,
    "services": services,
    "balancers": partial(balancers, CERTIFICATE),
    "two_ranges": two_ranges,
    "elastic": elastic,
    "elastic_balancer": elastic_balancer,
    "two_networks": two_networks,
    "redundant": redundant,
    "vpc": vpc,
    "private_gateway": private_gateway,
    "vpc_dual_stack": vpc_dual_stack,
    "routed": routed,
    "routed_bgp": routed_bgp,
    "vpc_routed": vpc_routed,
    "tunnels": tunnels,
    "l2tp": l2tp,
    "wireguard": wireguard,
    "wireguard_vpc": wireguard_vpc,
    "dual_stack": dual_stack,
    "ipv6_only": ipv6_only,
    "uncounted": uncounted,
    "subnets": subnets,
}

CASES = {name: partial(rendered, facts) for name, facts in FACTS.items()}
