"""Offerings: the matrix of services and providers, customized sizes, and who may see which."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter
from controlplane.offering import seed
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.services import Matrix
from tests.api.counting import queries
from tests.api.people import Company
from tests.api.zone_steps import make_zone

BASE = {"name": "n", "displaytext": "t", "guestiptype": "Isolated", "traffictype": "Guest"}
ALL = "Dhcp,Dns,UserData,SourceNat,StaticNat,PortForwarding,Firewall,Lb"


def create(cloud, records=None, **parameters):
    raw = {"command": "createNetworkOffering", **BASE, **{key: str(value) for key, value in parameters.items()}}
    for name, rows in (records or {}).items():
        for number, row in enumerate(rows):
            raw |= {f"{name}[{number}].{key}": value for key, value in row.items()}
    return cloud.raw(raw)["networkoffering"]


def test_the_standard_catalogue(cloud):
    offerings = {row["name"]: row for row in cloud("listNetworkOfferings")["networkoffering"]}
    assert set(offerings) == {entry.name for entry in seed.NETWORK_OFFERINGS}
    isolated = offerings["DefaultIsolatedNetworkOfferingWithSourceNatService"]
    assert (isolated["state"], isolated["availability"], isolated["isdefault"]) == ("Enabled", "Required", True)
    assert isolated["egressdefaultpolicy"] is False
    assert {service["name"] for service in isolated["service"]} >= {*ALL.split(","), "Gateway"}
    assert offerings["DefaultSharedNetworkOffering"]["specifyvlan"] is True
    assert offerings["DefaultSharedNetworkOfferingWithSGService"]["state"] == "Enabled"
    assert offerings["DefaultSharedEIPandELBNetworkOffering"]["state"] == "Enabled"
    assert offerings["DefaultSharedNetscalerEIPandELBNetworkOffering"]["state"] == "Disabled"
    assert offerings["DefaultIsolatedNetworkOfferingForVpcNetworks"]["state"] == "Enabled"
    assert "service" in offerings["QuickCloudNoServices"]
    with cloud.database.read() as session:
        for row in session.scalars(select(NetworkOffering).where(NetworkOffering.state == "Enabled")):
            Matrix(row.services, row.capabilities, row.guest_type, row.for_vpc).check()
    with cloud.database.write() as session:
        seed.fill(session)
    assert cloud("listNetworkOfferings")["count"] == len(seed.NETWORK_OFFERINGS)
    names = [row["name"] for row in cloud("listServiceOfferings")["serviceoffering"]]
    assert names == ["Small Instance", "Medium Instance"]
    assert "System Offering For Software Router" in [
        row["name"] for row in cloud("listServiceOfferings", issystem=True)["serviceoffering"]
    ]
    disks = {row["name"]: row for row in cloud("listDiskOfferings")["diskoffering"]}
    assert [disks[name]["disksize"] for name in ("Small", "Medium", "Large")] == [5, 20, 100]
    assert disks["Custom"]["iscustomized"] is True
    states = {row["name"]: row["state"] for row in cloud("listVPCOfferings")["vpcoffering"]}
    assert states["Default VPC offering"] == "Enabled"
    assert states["Default VPC  offering with Netscaler"] == "Disabled"
    assert cloud("listNetworkOfferings", sourcenatsupported=True, state="Enabled")["count"] == 4
    assert cloud("listNetworkOfferings", supportedservices="Dhcp,SecurityGroup")["count"] == 3
    assert cloud("listNetworkOfferings", guestiptype="L2", specifyvlan=True)["count"] == 2


def test_an_offering_gives_services_by_providers_that_have_them(cloud):
    made = create(
        cloud,
        {
            "serviceproviderlist": [{"service": "Lb", "provider": "virtualrouter"}],
            "servicecapabilitylist": [
                {"service": "SourceNat", "capabilitytype": "SupportedSourceNatTypes", "capabilityvalue": "peraccount"}
            ],
        },
        supportedservices=ALL,
        tags="fast",
        networkrate=50,
        egressdefaultpolicy=True,
    )
    assert (made["state"], made["tags"], made["networkrate"], made["egressdefaultpolicy"]) == (
        "Disabled",
        "fast",
        50,
        True,
    )
    services = {row["name"]: row for row in made["service"]}
    assert set(services) == {*ALL.split(","), "Gateway"}
    assert all(row["provider"] == [{"name": "VirtualRouter"}] for row in services.values())
    assert {"name": "SupportedSourceNatTypes", "value": "peraccount", "canchooseservicecapability": True} in services[
        "SourceNat"
    ]["capability"]
    assert [row["name"] for row in cloud("listNetworkOfferings", tags="fast")["networkoffering"]] == ["n"]
    assert cloud("listNetworkOfferings", istagged=True)["count"] == 1
    enabled = cloud("updateNetworkOffering", id=made["id"], state="Enabled", name="m", maxconnections=9)[
        "networkoffering"
    ]
    assert (enabled["state"], enabled["name"], enabled["maxconnections"]) == ("Enabled", "m", 9)
    cloud("deleteNetworkOffering", id=made["id"])
    assert cloud("listNetworkOfferings", name="m") == {}
    default = cloud("listNetworkOfferings", name="QuickCloudNoServices")["networkoffering"][0]
    with pytest.raises(BadParameter, match="is a default offering"):
        cloud("deleteNetworkOffering", id=default["id"])
    eip = "DefaultSharedNetscalerEIPandELBNetworkOffering"
    device = cloud("listNetworkOfferings", name=eip)["networkoffering"][0]
    with pytest.raises(BadParameter, match=r"value=Netscaler: it is not installed, for service StaticNat"):
        cloud("updateNetworkOffering", id=device["id"], state="Enabled")


SHARED = {"guestiptype": "Shared", "specifyipranges": True}


def test_elastic_addresses_need_no_source_nat(cloud):
    chosen = [row for part in (("StaticNat", "ElasticIp", "true"), ("StaticNat", "AssociatePublicIP", "false"),
                               ("Lb", "ElasticLb", "true")) for row in _choice(*part)["servicecapabilitylist"]]  # fmt: skip
    made = create(
        cloud, {"servicecapabilitylist": chosen}, **SHARED, supportedservices="Dhcp,StaticNat,Lb,SecurityGroup"
    )
    services = {row["name"]: row for row in made["service"]}
    assert services["SecurityGroup"]["provider"] == [{"name": "SecurityGroupProvider"}]
    said = {row["name"]: row["value"] for row in services["StaticNat"]["capability"]}
    assert said == {"ElasticIp": "true", "AssociatePublicIP": "false"}
    with cloud.database.read() as session:
        row = session.scalars(select(NetworkOffering).where(NetworkOffering.uuid == made["id"])).one()
        assert (row.elastic_ip, row.elastic_lb, row.associates) == (True, True, False)
        standard = NetworkOffering.unique_name == "DefaultSharedEIPandELBNetworkOffering"
        assert session.scalars(select(NetworkOffering).where(standard)).one().associates


def test_what_no_network_could_be_given_is_refused(cloud):
    provider = {"serviceproviderlist": [{"service": "Dhcp", "provider": "Magic"}]}
    refused = (
        (provider, {"supportedservices": "Dhcp"}, "no such provider is installed"),
        ({}, {"supportedservices": "Dhcp,Magic"}, "the services are Dhcp, Dns"),
        ({}, {"supportedservices": "SecurityGroup"}, "Service SecurityGroup is for Shared networks only"),
        (
            _choice("StaticNat", "ElasticIp", "true"),
            {"supportedservices": "StaticNat"},
            "ElasticIp is for Shared networks",
        ),
        (_choice("Dhcp", "ElasticIp", "true"), SHARED | {"supportedservices": "Dhcp"}, "cannot do ElasticIp=true"),
        ({}, SHARED | {"supportedservices": "StaticNat"}, "cannot give StaticNat without SourceNat"),
        ({}, {"supportedservices": "PortForwarding"}, "cannot give PortForwarding without SourceNat"),
        (
            {"serviceproviderlist": [{"service": "Dns", "provider": "VirtualRouter"}]},
            {"supportedservices": "Dhcp"},
            "Dns is not among the supportedservices",
        ),
        ({"serviceproviderlist": [{"service": "Dns"}]}, {"supportedservices": "Dns"}, "has a service and a provider"),
        ({}, {"supportedservices": "Dhcp", "guestiptype": "L2"}, "an L2 network has UserData only"),
        ({}, {"supportedservices": "Dhcp", "guestiptype": "Shared"}, "Shared networks have ranges"),
        ({}, {"supportedservices": ALL, "specifyipranges": True}, "an Isolated network with SourceNat has none"),
        ({}, {"supportedservices": "Firewall", "forvpc": True}, "does not support service Firewall"),
        ({}, {"supportedservices": "NetworkACL"}, "does not support service NetworkACL"),
        ({}, {"supportedservices": "Dhcp", "networkrate": -1}, "networkrate value=-1"),
        ({}, {"supportedservices": "Dhcp", "traffictype": "Public"}, "must be one of Guest"),
        ({}, {"supportedservices": "Dhcp", "internetprotocol": "ipv5"}, "must be one of IPv4, DualStack, IPv6"),
        ({}, {"supportedservices": "Dhcp", "name": 'a"b'}, "without quotes"),
        (
            _choice("SourceNat", "SupportedSourceNatTypes", "perzone"),
            {"supportedservices": ALL},
            "cannot do SupportedSourceNatTypes=perzone for service SourceNat: it has peraccount",
        ),
        (_choice("Dns", "AllowDnsSuffixModification", "x"), {"supportedservices": ALL}, "cannot be chosen"),
        (_choice("Vpn", "RedundantRouter", "true"), {"supportedservices": ALL}, "Vpn is not among"),
    )
    for records, parameters, text in refused:
        with pytest.raises(BadParameter, match=text):
            create(cloud, records, **parameters)
    assert cloud("listNetworkOfferings", name="n") == {}
    create(cloud, supportedservices="Dhcp")
    with pytest.raises(BadParameter, match="there is a network offering with this name"):
        create(cloud, supportedservices="Dhcp")


def _choice(service, capability, value):
    return {"servicecapabilitylist": [{"service": service, "capabilitytype": capability, "capabilityvalue": value}]}


def test_service_offerings(cloud):
    fixed = cloud(
        "createServiceOffering", name="f", cpunumber=2, cpuspeed=1000, memory=1024, hosttags="ssd", rootdisksize=8
    )["serviceoffering"]
    assert (fixed["iscustomized"], fixed["hosttags"], fixed["rootdisksize"]) == (False, "ssd", 8)
    limited = {"mincpunumber": 2, "maxcpunumber": 4, "minmemory": 512, "maxmemory": 4096, "cpuspeed": 1000}
    bounded = cloud("createServiceOffering", name="b", customized=True, **limited)["serviceoffering"]
    assert bounded["iscustomized"] is True
    assert bounded["serviceofferingdetails"] == {
        name: str(value) for name, value in limited.items() if name != "cpuspeed"
    }
    cloud("createServiceOffering", name="free", customized=True)
    for cpus, names in ((1, {"Small Instance", "Medium Instance", "free"}), (2, {"f", "b", "free"}), (5, {"free"})):
        assert {row["name"] for row in cloud("listServiceOfferings", cpunumber=cpus)["serviceoffering"]} == names
    for parameters, text in (
        ({"cpunumber": 1}, "give cpunumber, cpuspeed and memory"),
        ({"cpunumber": 0, "cpuspeed": 1, "memory": 64}, "cpunumber value=0: it must be from 1"),
        ({"cpunumber": 1, "cpuspeed": 1, "memory": 1}, "memory value=1: it must be from 32"),
        ({"cpunumber": 1, "cpuspeed": 1, "memory": 64, "maxmemory": 9}, "fixed size has no limits"),
        ({"mincpunumber": 1, "maxcpunumber": 2}, "go together"),
        (limited | {"maxcpunumber": 1}, "maxcpunumber value=1: it must be from 2"),
        ({"cpunumber": 1, "cpuspeed": 1, "memory": 64, "systemvmtype": "domainrouter"}, "goes together with issystem"),
        ({"issystem": True}, "has a fixed size"),
        ({"gpucount": 1}, "not supported"),
        ({"hosttags": "a;b"}, "the tag 'a;b'"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("createServiceOffering", **{"name": "x"} | parameters)
    changed = cloud("updateServiceOffering", id=fixed["id"], name="g", storagetags="nvme", state="Inactive")
    assert (changed["serviceoffering"]["name"], changed["serviceoffering"]["storagetags"]) == ("g", "nvme")
    assert cloud("listServiceOfferings", name="g") == {}
    assert cloud("listServiceOfferings", name="g", state="All")["count"] == 1
    cloud("deleteServiceOffering", id=fixed["id"])
    router = cloud("listServiceOfferings", issystem=True, systemvmtype="domainrouter")["serviceoffering"][0]
    with pytest.raises(BadParameter, match="system VMs need the offering"):
        cloud("deleteServiceOffering", id=router["id"])


def test_disk_offerings(cloud):
    made = cloud("createDiskOffering", name="d", disksize=7, tags="ssd", disksizestrictness=True)["diskoffering"]
    assert (made["disksize"], made["tags"], made["disksizestrictness"]) == (7, "ssd", True)
    for parameters, text in (
        ({}, "disksize value=0: it must be from 1"),
        ({"customized": True, "disksize": 1}, "a customized offering has no size"),
        ({"disksize": 1, "miniops": 3}, "not supported"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("createDiskOffering", name="x", **parameters)
    hidden = cloud("updateDiskOffering", id=made["id"], displayoffering=False, displaytext="t")["diskoffering"]
    assert hidden["displayoffering"] is False
    cloud("deleteDiskOffering", id=made["id"])
    assert cloud("listDiskOfferings", name="d", state="All") == {}


def test_offerings_are_seen_on_the_path_from_root(cloud):
    company, zone = Company(cloud), make_zone(cloud)
    sales, east = company.domain("sales"), company.domain("east")
    size = {"cpunumber": 1, "cpuspeed": 500, "memory": 64}
    cloud("createServiceOffering", name="of-sales", domainid=sales, zoneid=zone.id, hosttags="x", **size)
    cloud("createServiceOffering", name="of-east", domainid=east, **size)
    off = cloud("createServiceOffering", name="off", **size)["serviceoffering"]
    cloud("updateServiceOffering", id=off["id"], state="Inactive")
    cloud("createDiskOffering", name="disk-of-sales", disksize=1, domainid=sales)
    create(cloud, supportedservices="Dhcp", domainid=sales, enable=True)
    mine = {person: _own(company(person)) for person in ("sam", "eve", "larry", "sally")}
    assert mine == {
        "sam": {"of-sales"},
        "eve": {"of-sales", "of-east"},
        "larry": set(),
        "sally": {"of-sales", "of-east"},
    }
    assert company("sam")("listDiskOfferings", name="disk-of-sales")["count"] == 1
    assert company("larry")("listDiskOfferings", name="disk-of-sales") == {}
    assert company("eve")("listNetworkOfferings", name="n")["count"] == 1
    assert company("larry")("listNetworkOfferings", name="n") == {}
    (seen,) = company("sam")("listServiceOfferings", name="of-sales")["serviceoffering"]
    assert (seen["domainid"], seen["zoneid"]) == (sales, zone.id)
    assert "hosttags" not in seen
    with pytest.raises(BadParameter, match="only root admins see system offerings"):
        company("sam")("listServiceOfferings", issystem=True)
    with queries(cloud) as before:
        cloud("listServiceOfferings")
    for number in range(5):
        cloud("createServiceOffering", name=f"s{number}", domainid=sales, **size)
    with queries(cloud) as after:
        cloud("listServiceOfferings")
    assert len(after) == len(before)
    with queries(cloud) as seen:
        cloud("listNetworkOfferings")
    assert len(seen) < 6


def _own(cloud):
    names = {row["name"] for row in cloud("listServiceOfferings")["serviceoffering"]}
    assert names >= {"Small Instance", "Medium Instance"}
    assert "off" not in names
    return names - {"Small Instance", "Medium Instance"}
