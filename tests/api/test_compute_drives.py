"""Config drives: which guests have one, what it says, and when a password is on it."""

from __future__ import annotations

import base64
import json

import pytest
from sqlalchemy import select

from controlplane.compute.drive_facts import drive_facts
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network
from controlplane.network.routers import Router
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.storage.templates import Template
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.compute_world import ED25519, world
from tests.api.vpc_world import vpc_world

TOLD = base64.b64encode(b"#!/bin/sh\n").decode()
OTHER = base64.b64encode(b"#!/bin/ash\n").decode()


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        with cloud.database.write() as session:
            offering = session.scalars(select(NetworkOffering).where(NetworkOffering.name == "iso")).one()
            offering.services = offering.services | {"UserData": ["ConfigDrive"]}
            session.scalars(select(Template)).first().password_enabled = True
        yield made


def drives(there):
    """What each host would write down now, by the guest's UUID."""
    with there.cloud.database.read() as session:
        hosts = session.scalars(select(Host).order_by(Host.id)).all()
        return {drive.vm: drive for host in hosts for drive in drive_facts(session, host)}


def generations(there):
    with there.cloud.database.read() as session:
        return [host.target.desired_generation for host in session.scalars(select(Host).order_by(Host.id))]


def test_a_guest_finds_on_its_drive_what_a_router_would_have_told_it(there):
    there.cloud("registerSSHKeyPair", name="k", publickey=ED25519)
    vm = there.deploy(name="web-1", userdata=TOLD, keypair="k")
    drive = drives(there)[vm["id"]]
    items = dict(drive.items)
    assert (items["local-hostname"], items["instance-id"]) == ("web-1", vm["id"])
    assert items["local-ipv4"] == vm["nic"][0]["ipaddress"]
    assert items["public-keys"].startswith("ssh-ed25519")
    assert (drive.user_data, drive.password) == (TOLD, vm["password"])
    (link,) = drive.links
    assert (link.mac, link.method) == (vm["nic"][0]["macaddress"], "dhcp")
    assert (link.gateway, link.dns) == ("10.1.1.1", ())  # resolvers are the router's to say


def test_where_the_drive_gives_addresses_it_says_them_with_the_resolvers(there):
    with there.cloud.database.write() as session:
        offering = session.scalars(select(NetworkOffering).where(NetworkOffering.name == "iso")).one()
        offering.services = {name: ["ConfigDrive"] for name in ("Dhcp", "Dns", "UserData")}
    vm = there.deploy()
    (link,) = drives(there)[vm["id"]].links
    assert (link.method, link.address, link.prefix) == ("static", vm["nic"][0]["ipaddress"], 24)
    assert link.dns == ("192.0.2.53",)
    assert there.rows(Router) == []


def test_new_user_data_keys_and_names_reach_the_drive_of_a_running_guest(there):
    vm = there.deploy(userdata=TOLD)
    before = generations(there)
    there.cloud("updateVirtualMachine", id=vm["id"], userdata=OTHER, name="other")
    assert drives(there)[vm["id"]].user_data == OTHER
    assert dict(drives(there)[vm["id"]].items)["local-hostname"] == "other"
    after = generations(there)
    assert sum(after) > sum(before)
    there.cloud("updateVirtualMachine", id=vm["id"], displayname="only a label")
    assert generations(there) == after


def test_a_password_is_on_the_drive_for_the_start_after_it_was_made(there):
    vm = there.deploy()
    assert drives(there)[vm["id"]].password == vm["password"]
    there.job(there.cloud("rebootVirtualMachine", id=vm["id"]))
    assert drives(there)[vm["id"]].password == ""
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    fresh = there.job(there.cloud("resetPasswordForVirtualMachine", id=vm["id"]))["password"]
    assert drives(there)[vm["id"]].password == fresh  # the host has it before the guest starts
    there.job(there.cloud("startVirtualMachine", id=vm["id"]))
    assert drives(there)[vm["id"]].password == fresh
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    assert drives(there)[vm["id"]].password == ""
    assert [row.password for row in there.rows(VirtualMachine)] == [None]


def test_a_restored_machine_finds_its_new_password_when_it_is_back(there):
    vm = there.deploy()
    restored = there.job(there.cloud("restoreVirtualMachine", virtualmachineid=vm["id"]))
    assert restored["password"] != vm["password"]
    assert drives(there)[vm["id"]].password == restored["password"]


def test_a_drive_goes_with_its_machine_and_a_guest_of_a_router_has_none(there):
    vm = there.deploy(userdata=TOLD)
    assert vm["id"] in drives(there)
    there.job(there.cloud("destroyVirtualMachine", id=vm["id"]))
    assert drives(there) == {}
    with there.cloud.database.write() as session:
        offering = session.scalars(select(NetworkOffering).where(NetworkOffering.name == "iso")).one()
        offering.services = offering.services | {"UserData": ["VirtualRouter"]}
    assert there.deploy(userdata=TOLD)["id"] not in drives(there)


def test_the_network_of_the_default_nic_says_who_tells_the_guest(there):
    with there.cloud.database.write() as session:
        first = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        plain = NetworkOffering(
            name="vr", unique_name="vr", display_text="vr", guest_type="Isolated", state="Enabled",
            services={name: ["VirtualRouter"] for name in ("Dhcp", "UserData")},
        )  # fmt: skip
        session.add(plain)
        session.flush()
        copied = {name: getattr(first, name) for name in ("account_id", "domain_id", "zone_id", "physical_network_id")}
        second = Network(
            name="back", offering_id=plain.id, guest_type="Isolated", cidr="10.2.2.0/24", gateway="10.2.2.1", **copied
        )
        session.add(second)
        session.flush()
        other = second.uuid
    vm = there.deploy(networkids=f"{there.network},{other}")
    assert [link.method for link in drives(there)[vm["id"]].links] == ["dhcp", "dhcp"]
    assert [link.gateway for link in drives(there)[vm["id"]].links] == ["10.1.1.1", ""]
    there.job(there.cloud("updateDefaultNicForVirtualMachine", virtualmachineid=vm["id"], nicid=vm["nic"][1]["id"]))
    assert drives(there) == {}


def test_what_is_on_a_drive_is_a_secret_of_the_hosts_bundle(there):
    from controlplane.reconcile.bundles import make

    vm = there.deploy(userdata=TOLD)
    with there.cloud.database.read() as session:
        bundles = [make(session, host.target)[0] for host in session.scalars(select(Host))]
    written = [file for bundle in bundles for file in bundle.files if file.service == "drives"]
    (file,) = written
    assert file.secret
    assert vm["password"] not in json.dumps([f.content for b in bundles for f in b.files if f.service != "drives"])


def test_static_nat_is_told_on_the_drive(there):
    vm = there.deploy()
    zone = {"zoneid": there.zone, "networkid": there.network}
    ip = there.job(there.cloud("associateIpAddress", **zone))
    there.cloud("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=vm["id"])
    before = generations(there)
    assert dict(drives(there)[vm["id"]].items)["public-ipv4"] == ip["ipaddress"]
    there.job(there.cloud("disableStaticNat", ipaddressid=ip["id"]))
    assert sum(generations(there)) > sum(before)
    assert dict(drives(there)[vm["id"]].items)["public-ipv4"] != ip["ipaddress"]


def test_guests_of_a_vpc_s_tier_can_have_drives_beside_the_vpc_s_router(cloud):
    services = ("Dhcp", "Dns", "NetworkACL", "SourceNat", "UserData")
    given = {
        f"serviceproviderlist[{number}].{key}": value
        for number, service in enumerate(services)
        for key, value in (
            ("service", service),
            ("provider", "ConfigDrive" if service == "UserData" else "VpcVirtualRouter"),
        )
    } | {"supportedservices": ",".join(services)}
    with vpc_world(cloud) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            session.add(NetworkServiceProvider(physical_network_id=physical.id, name="ConfigDrive", state="Enabled"))
        job = cloud("createVPCOffering", name="driven", displaytext="driven", **given)
        whole = made.there.job(job)
        made.there.job(cloud("updateVPCOffering", id=whole["id"], state="Enabled"))
        named = {"name": "driven tier", "displaytext": "t", "guestiptype": "Isolated", "traffictype": "Guest"}
        tier = cloud("createNetworkOffering", **named, forvpc=True, enable=True, **given)["networkoffering"]
        vpc = made.vpc(vpcofferingid=whole["id"])
        network = made.tier(vpc["id"], networkofferingid=tier["id"])
        vm = made.there.deploy(networkids=network["id"], userdata=TOLD, name="one")
        drive = drives(made.there)[vm["id"]]
        assert drive.user_data == TOLD
        assert [link.method for link in drive.links] == ["dhcp"]
