"""Site-to-site VPN: customer gateways, VPN gateways and connections; what is refused, and whose state is shown."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from controlplane.db.base import now
from controlplane.errors import BadParameter, InUse, LimitReached, RuleConflict
from controlplane.events.events import Event
from controlplane.network.claims import PortClaim
from controlplane.network.routers import Router
from controlplane.network.vpcs import Vpc
from controlplane.network.vpn_connections import CHANGED, VpnConnection, doubt_old_states
from controlplane.network.vpn_customers import VpnCustomerGateway
from controlplane.network.vpn_gateways import VpnGateway
from controlplane.reconcile.observations import store
from controlplane.reconcile.targets import Found, Target, load_facts
from systemvm.bundle import Observation
from tests.api.counting import queries
from tests.api.people import Company
from tests.api.vpc_world import vpc_world

PSK = "a very secret key"
OFFICE = {
    "name": "office",
    "gateway": "198.51.100.7",
    "cidrlist": "10.9.0.0/24,10.9.1.0/24",
    "ipsecpsk": PSK,
    "ikepolicy": "aes128-sha1;modp1536",
    "esppolicy": "aes256-sha256",
}


@pytest.fixture
def here(cloud):
    with vpc_world(cloud) as made:
        yield made


@pytest.fixture
def office(here):
    """Make a customer gateway; what is given goes before the office's."""

    def make(cloud=None, **more):
        return here.done((cloud or here.cloud)("createVpnCustomerGateway", **(OFFICE | more)))

    return make


@pytest.fixture
def gateway(here):
    return here.done(here.cloud("createVpnGateway", vpcid=here.vpc()["id"]))


@pytest.fixture
def connection(here, office, gateway):
    return connect(here, office()["id"], gateway["id"])


def connect(here, customer, gateway, **more):
    answer = here.cloud("createVpnConnection", s2scustomergatewayid=customer, s2svpngatewayid=gateway, **more)
    return here.done(answer)


def facts(here):
    with here.cloud.database.read() as session:
        return load_facts(session, session.scalars(select(Target).join(Router).where(Router.vpc_id.is_not(None))).one())


def report(here, **states):
    """The router's agent says what it found; names are ids."""
    with here.cloud.database.write() as session:
        target = session.scalars(select(Target).join(Router).where(Router.vpc_id.is_not(None))).one()
        store(session, target, Observation(target.uuid, states=tuple(states.items())))


def test_a_customer_gateway_has_cloudstacks_defaults(here, office):
    made = office()
    assert (made["ikelifetime"], made["esplifetime"], made["ikeversion"]) == (86400, 3600, "ike")
    assert (made["dpd"], made["forceencap"], made["splitconnections"]) == (False, False, False)
    assert (made["cidrlist"], made["ipsecpsk"], made["gateway"]) == (OFFICE["cidrlist"], PSK, "198.51.100.7")
    assert here.cloud("listVpnCustomerGateways", keyword="off")["vpncustomergateway"] == [made]
    nameless = {name: value for name, value in OFFICE.items() if name != "name"} | {"gateway": "198.51.100.8"}
    assert here.done(here.cloud("createVpnCustomerGateway", **nameless))["name"] == "VPN-198.51.100.8"
    with here.cloud.database.read() as session:
        assert PSK not in str(session.execute(text("SELECT * FROM vpn_customer_gateways")).all())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"ikepolicy": "des-md5;modp1024"}, "encryption 'des'"),
        ({"ikepolicy": "aes128-sha1"}, "DH group"),
        ({"esppolicy": "aes128-rot13"}, "hash 'rot13'"),
        ({"esppolicy": "aes128-sha1;modp1"}, "modp1"),
        ({"gateway": "office.example"}, "IPv4 address"),
        ({"gateway": "224.0.0.1"}, "gateway can have"),
        ({"cidrlist": "10.9.0.0/24,10.9.0.128/25"}, "overlaps"),
        ({"cidrlist": "10.9.0.0"}, "CIDRs separated by commas"),
        ({"cidrlist": ","}, "1 to 10 CIDRs"),
        ({"cidrlist": ",".join(f"10.{n}.0.0/24" for n in range(20, 31))}, "1 to 10 CIDRs"),
        ({"ikelifetime": 90000}, "60 to 86400"),
        ({"esplifetime": 1}, "60 to 86400"),
        ({"ikeversion": "ikev3"}, "ikev1"),
        ({"ikeversion": "ikev1", "splitconnections": "true"}, "splits always"),
        ({"name": "two\nlines"}, "name"),
    ],
)
def test_what_the_daemon_cannot_do_is_refused_with_the_reason(here, office, more, words):
    with pytest.raises(BadParameter, match=words):
        office(**more)


def test_a_key_that_will_not_do_is_refused_without_being_shown(office):
    with pytest.raises(BadParameter, match="printable") as refused:
        office(ipsecpsk="line\nbreak")
    assert "break" not in str(refused.value)


def test_duplicates_are_refused_by_name(here, office):
    first = office()
    with pytest.raises(BadParameter, match=f"{first['id']} has this name"):
        office(gateway="198.51.100.8")
    with pytest.raises(BadParameter, match="office has it already"):
        office(name="other")
    company = Company(here.admin)
    assert office(company("sam"))["name"] == "office"


def test_a_connection_is_told_to_the_router_and_pending_until_it_reports(here, connection):
    assert (connection["state"], connection["passive"], connection["cidrlist"]) == (
        "Pending",
        False,
        OFFICE["cidrlist"],
    )
    (tunnel,) = facts(here).tunnels
    assert (tunnel.id, tunnel.peer, tunnel.psk) == (connection["id"], "198.51.100.7", PSK)
    assert (tunnel.networks, tunnel.remotes) == (("10.1.0.0/16",), ("10.9.0.0/24", "10.9.1.0/24"))
    assert tunnel.local == connection["publicip"]
    assert PSK not in repr(tunnel)


def test_the_state_is_the_daemons_and_each_change_is_an_event(here, connection):
    number = connection["id"]

    def shown():
        return here.cloud("listVpnConnections", id=number)["vpnconnection"][0]["state"]

    for said in ("Connecting", "Error: received AUTHENTICATION_FAILED notify error", "Connected", "Connected"):
        report(here, **{number: said})
        assert shown() == said.partition(":")[0]
    report(here, other="running")
    assert shown() == "Connected"
    with here.cloud.database.read() as session:
        told = session.scalars(select(Event).where(Event.type == CHANGED).order_by(Event.id)).all()
    assert [event.level for event in told] == ["INFO", "ERROR", "INFO"]
    assert "AUTHENTICATION_FAILED" in told[1].description
    assert told[0].resource_uuid == number


def test_of_two_routers_the_better_state_counts(here, connection):
    with here.cloud.database.write() as session:
        vpc = session.scalars(select(Vpc)).one()
        other = Target(kind="router", name="r-99-VM")
        session.add(other)
        session.flush()
        session.add(Router(name="r-99-VM", vpc_id=vpc.id, zone_id=vpc.zone_id, target_id=other.id,
                           account_id=vpc.account_id, domain_id=vpc.domain_id))  # fmt: skip
        session.add(Found(target_id=other.id, states={connection["id"]: "Connected"}, health={}))
    with here.cloud.database.write() as session:
        first = session.scalars(select(Target).join(Router).where(Router.name != "r-99-VM")).one()
        store(session, first, Observation(first.uuid, states=((connection["id"], "Disconnected"),)))
    with here.cloud.database.read() as session:
        assert session.scalars(select(VpnConnection.state)).one() == "Connected"


def test_a_state_that_no_router_repeats_is_not_believed(here, connection):
    def shown():
        with here.cloud.database.write() as session:
            doubt_old_states(session)
        return here.cloud("listVpnConnections")["vpnconnection"][0]["state"]

    report(here, **{connection["id"]: "Connected"})
    assert shown() == "Connected"
    with here.cloud.database.write() as session:
        session.execute(update(Found).values(at=now() - timedelta(minutes=3)))
    assert shown() == "Disconnected"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"cidrlist": "10.1.9.0/24"}, "overlaps 10.1.0.0/16 of VPC shop"),
        ({"cidrlist": "0.0.0.0/0"}, "overlaps 10.1.0.0/16"),
        ({"cidrlist": "10.9.1.128/25", "gateway": "198.51.100.8"}, "overlaps where VPN connection"),
        ({"cidrlist": "10.20.0.0/24"}, "leads already"),
    ],
)
def test_a_tunnel_that_leads_where_something_is_already_is_refused(here, office, gateway, connection, more, words):
    other = office(name="other", **more)
    with pytest.raises(BadParameter, match=words):
        connect(here, other["id"], gateway["id"])
    assert len(here.cloud("listVpnConnections")["vpnconnection"]) == 1


def test_a_gateway_cannot_lead_to_itself(here, office, gateway):
    mirror = office(gateway=gateway["publicip"])
    with pytest.raises(BadParameter, match="itself"):
        connect(here, mirror["id"], gateway["id"])


def test_a_customer_gateway_is_changed_and_checked_against_its_connections(here, connection):
    number = connection["s2scustomergatewayid"]
    changed = OFFICE | {"id": number, "ipsecpsk": "other key", "dpd": "true", "ikeversion": "ikev2"}
    made = here.done(here.cloud("updateVpnCustomerGateway", **changed))
    assert (made["dpd"], made["ikeversion"], made["name"]) == (True, "ikev2", "office")
    (tunnel,) = facts(here).tunnels
    assert (tunnel.psk, tunnel.version, tunnel.dpd) == ("other key", "ikev2", True)
    with pytest.raises(BadParameter, match="overlaps"):
        here.cloud("updateVpnCustomerGateway", **(changed | {"cidrlist": "10.1.5.0/24"}))
    assert facts(here).tunnels == (tunnel,)
    with pytest.raises(InUse, match=connection["id"]):
        here.cloud("deleteVpnCustomerGateway", id=number)


def test_a_reset_begins_anew(here, connection):
    here.done(here.cloud("resetVpnConnection", id=connection["id"]))
    assert facts(here).tunnels[0].resets == 1
    company = Company(here.admin)
    company("sam")
    sales = company.domain("sales")
    with pytest.raises(BadParameter, match="another account"):
        here.admin("resetVpnConnection", id=connection["id"], account="sam", domainid=sales)


def test_everything_goes_in_its_order(here, gateway, connection):
    with pytest.raises(InUse, match=connection["id"]):
        here.cloud("deleteVpnGateway", id=gateway["id"])
    here.done(here.cloud("deleteVpnConnection", id=connection["id"]))
    assert facts(here).tunnels == ()
    here.done(here.cloud("deleteVpnGateway", id=gateway["id"]))
    here.done(here.cloud("deleteVpnCustomerGateway", id=connection["s2scustomergatewayid"]))
    with here.cloud.database.read() as session:
        for table in (VpnConnection, VpnGateway, VpnCustomerGateway, PortClaim):
            assert not session.scalars(select(table)).all()


def test_a_vpc_that_goes_takes_its_gateway_and_connections_along(here, gateway, connection):
    here.done(here.cloud("deleteVPC", id=gateway["vpcid"]))
    with here.cloud.database.read() as session:
        assert not session.scalars(select(VpnConnection)).all()
        assert not session.scalars(select(VpnGateway)).all()
        assert session.scalars(select(VpnCustomerGateway)).all()


def test_one_gateway_for_a_vpc_and_its_ports_are_taken(here, gateway):
    with pytest.raises(BadParameter, match=gateway["id"]):
        here.cloud("createVpnGateway", vpcid=gateway["vpcid"])
    (address,) = here.cloud("listPublicIpAddresses", vpcid=gateway["vpcid"])["publicipaddress"]
    assert address["ipaddress"] == gateway["publicip"]
    access = here.done(here.cloud("createRemoteAccessVpn", publicipid=address["id"], iprange="10.2.0.1-10.2.0.9"))
    found = facts(here)
    assert (found.remote_access.id, found.remote_access.networks) == (access["id"], ("10.1.0.0/16",))
    here.done(here.cloud("deleteVpnGateway", id=gateway["id"]))
    with here.cloud.database.read() as session:
        assert len(session.scalars(select(PortClaim)).all()) == 3  # IKE, its NAT traversal, L2TP
    again = here.done(here.cloud("createVpnGateway", vpcid=gateway["vpcid"]))
    here.done(here.cloud("deleteRemoteAccessVpn", publicipid=address["id"]))
    with here.cloud.database.read() as session:
        assert {claim.port for claim in session.scalars(select(PortClaim))} == {500, 4500}
    here.done(here.cloud("deleteVpnGateway", id=again["id"]))
    with here.cloud.database.read() as session:
        assert not session.scalars(select(PortClaim)).all()


def test_a_gateway_on_another_address_of_the_vpc(here):
    vpc = here.vpc()["id"]
    other = here.done(here.cloud("associateIpAddress", vpcid=vpc))
    made = here.done(here.cloud("createVpnGateway", vpcid=vpc, ipaddressid=other["id"]))
    assert made["publicip"] == other["ipaddress"]
    web = here.tier(vpc)
    machine = here.there.deploy(name="front", networkids=web["id"])
    forward = {"protocol": "udp", "publicport": 4500, "privateport": 1, "networkid": web["id"]}
    with pytest.raises(RuleConflict, match="VPN"):
        here.cloud("createPortForwardingRule", ipaddressid=other["id"], virtualmachineid=machine["id"], **forward)
    two = here.vpc("two", cidr="10.2.0.0/16")["id"]
    with pytest.raises(BadParameter, match="ipaddressid"):
        here.cloud("createVpnGateway", vpcid=two, ipaddressid=other["id"])


def test_so_many_connections_and_no_more(here, office, gateway, connection):
    here.admin("updateConfiguration", name="site2site.vpn.vpngateway.connection.limit", value="1")
    other = office(name="other", gateway="198.51.100.8", cidrlist="10.20.0.0/24")
    with pytest.raises(LimitReached, match=r"connection\.limit"):
        connect(here, other["id"], gateway["id"])


def test_a_stranger_sees_and_touches_nothing(here, gateway, connection):
    sam = Company(here.admin)("sam")
    for command in ("listVpnConnections", "listVpnGateways", "listVpnCustomerGateways"):
        assert sam(command, listall="true") == {}
    customer = connection["s2scustomergatewayid"]
    for command, more in (
        ("deleteVpnConnection", {"id": connection["id"]}),
        ("resetVpnConnection", {"id": connection["id"]}),
        ("updateVpnConnection", {"id": connection["id"]}),
        ("deleteVpnGateway", {"id": gateway["id"]}),
        ("updateVpnGateway", {"id": gateway["id"]}),
        ("createVpnGateway", {"vpcid": gateway["vpcid"]}),
        ("deleteVpnCustomerGateway", {"id": customer}),
        ("updateVpnCustomerGateway", OFFICE | {"id": customer}),
        ("createVpnConnection", {"s2scustomergatewayid": customer, "s2svpngatewayid": gateway["id"]}),
    ):
        with pytest.raises(BadParameter, match="not yours"):
            sam(command, **more)
    theirs = here.done(sam("createVpnCustomerGateway", **OFFICE))
    with pytest.raises(BadParameter, match="different accounts"):
        here.admin("createVpnConnection", s2scustomergatewayid=theirs["id"], s2svpngatewayid=gateway["id"])


def test_lists_cost_the_same_for_any_number_of_rows(here, office, gateway, connection):
    names = "listVpnConnections", "listVpnGateways", "listVpnCustomerGateways"
    few = [cost(here, name) for name in names]
    for number in range(3):
        other = office(name=f"o{number}", gateway=f"198.51.100.2{number}", cidrlist=f"10.2{number}.0.0/24")
        connect(here, other["id"], gateway["id"], passive="true")
    assert [cost(here, name) for name in names] == few


def cost(here, name):
    """How many queries a list sends: the least of some tries, as the agents of the world ask at the same time."""
    return min(once(here, name) for _ in range(5))


def once(here, name):
    with queries(here.cloud) as sent:
        here.cloud(name)
    return len(sent)
