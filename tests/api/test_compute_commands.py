"""What the machine commands refuse, and the smaller commands around machines."""

from __future__ import annotations

import base64
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from sqlalchemy import event

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter, Forbidden, InUse, LimitReached
from controlplane.identity.limits import ResourceLimit
from controlplane.storage.templates import Template
from tests.api.compute_world import ED25519, world


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        yield made


@pytest.fixture
def with_passwords(there):
    with there.cloud.database.write() as session:
        session.query(Template).update({"password_enabled": True})
    return there


REFUSED = (
    ({"name": "1web"}, "begins with a letter"),
    ({"name": "web\n1"}, "begins with a letter"),
    ({"name": "w" * 64}, "63 letters"),
    ({"displayname": "a\nb"}, "one line"),
    ({"ipaddress": "10.9.9.9"}, "must lie in 10.1.1.0/24"),
    ({"ipaddress": "10.1.1"}, "must be an IPv4"),
    ({"macaddress": "01:00:00:00:00:01"}, "unicast MAC"),
    ({"hypervisor": "KVM"}, "is for LXC"),
    ({"rootdisksize": "0"}, "at least"),
    ({"details[0].extraconfig": "x"}, "none that a machine may have"),
    ({"details[0].cpuNumber": "4"}, "fixes cpuNumber"),
    ({"userdata": "not base64!"}, "must be base64"),
    ({"keypair": "none"}, "no SSH key pair"),
    ({"password": "geheim1"}, "does not take passwords"),
    ({"hostid": "2f0a9c8d-7a55-4d3e-9b1f-2f0a9c8d7e61"}, "root admin"),
    ({"securitygroupids": "x"}, "no security group with this id"),
    ({"templateid": "2f0a9c8d-7a55-4d3e-9b1f-2f0a9c8d7e61"}, "not yours"),
)


def test_a_deploy_that_cannot_be_is_refused_with_a_sentence_and_changes_nothing(there):
    for parameters, words in REFUSED:
        raw = {
            "command": "deployVirtualMachine", "zoneid": there.zone, "serviceofferingid": there.offering,
            "templateid": there.template, "networkids": there.network,
        }  # fmt: skip
        with pytest.raises(BadParameter, match=words):
            there.cloud.raw(raw | parameters)
    assert there.rows(VirtualMachine) == []


def test_two_machines_of_a_network_never_have_the_same_name_or_address(there):
    there.deploy(name="web", ipaddress="10.1.1.9")
    with pytest.raises(BadParameter, match="has a machine of this name"):
        there.deploy(name="WEB")
    with pytest.raises(BadParameter, match="is taken"):
        there.deploy(name="web-2", ipaddress="10.1.1.9")


def test_a_limit_ends_exactly_there(there):
    with there.cloud.database.write() as session:
        session.add(ResourceLimit(owner="Account", owner_id=there.cloud.caller.account_id, kind="user_vm", max=1))
    there.deploy(startvm="false")
    with pytest.raises(LimitReached, match="user_vm"):
        there.deploy()


def test_a_host_that_is_full_is_named_with_what_it_lacks(there, cloud):
    made = cloud("createServiceOffering", name="big", displaytext="big", cpunumber="2", cpuspeed="1000", memory="9000")
    failed = there.deploy(serviceofferingid=made["serviceoffering"]["id"])
    assert failed["errorcode"] == 533
    assert "host-1: 4096 of its 4096 MiB are free, and 9000 are needed" in failed["errortext"]
    assert "host-2: " in failed["errortext"]


def test_an_admin_chooses_the_host(there, cloud):
    vm = there.deploy(cloud=cloud, hostid=there.hosts[1], account="alice", domainid=domain(cloud))
    assert vm["hostid"] == there.hosts[1]
    assert vm["hostname"] == "host-2"
    assert "hostid" not in there.cloud("listVirtualMachines")["virtualmachine"][0]


def domain(cloud):
    return cloud("listDomains")["domain"][0]["id"]


def test_a_user_who_names_no_network_gets_the_only_one(there):
    raw = {"zoneid": there.zone, "serviceofferingid": there.offering, "templateid": there.template}
    vm = there.job(there.cloud("deployVirtualMachine", **raw))
    assert vm["nic"][0]["networkid"] == there.network


def test_a_password_is_told_once_and_never_listed(with_passwords):
    there = with_passwords
    pair = there.cloud("createSSHKeyPair", name="mine")["keypair"]
    vm = there.deploy(keypair="mine")
    assert len(vm["password"]) == 12
    assert "password" not in there.cloud("listVirtualMachines")["virtualmachine"][0]
    sealed = there.cloud("getVMPassword", id=vm["id"])["password"]["encryptedpassword"]
    key = serialization.load_pem_private_key(pair["privatekey"].encode(), None)
    assert key.decrypt(base64.b64decode(sealed), padding.PKCS1v15()).decode() == vm["password"]
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    again = there.job(there.cloud("resetPasswordForVirtualMachine", id=vm["id"], password="Other-1-password"))
    assert again["password"] == "Other-1-password"
    with there.cloud.database.engine.connect() as raw:
        for table in ("async_jobs", "virtual_machines"):
            kept = str(raw.exec_driver_sql(f"SELECT * FROM {table}").all())
            assert vm["password"] not in kept
            assert "Other-1-password" not in kept


def test_a_stopped_machine_changes_its_size_keys_and_user_data(there, cloud):
    made = cloud("createServiceOffering", name="two", displaytext="two", cpunumber="2", cpuspeed="700", memory="256")
    bigger = made["serviceoffering"]["id"]
    there.cloud("registerSSHKeyPair", name="k", publickey=ED25519)
    vm = there.deploy()
    with pytest.raises(BadParameter, match="stop it before"):
        there.cloud("changeServiceForVirtualMachine", id=vm["id"], serviceofferingid=bigger)
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    changed = there.cloud("changeServiceForVirtualMachine", id=vm["id"], serviceofferingid=bigger)["virtualmachine"]
    assert (changed["cpunumber"], changed["cpuspeed"], changed["memory"]) == (2, 700, 256)
    assert there.job(there.cloud("scaleVirtualMachine", id=vm["id"], serviceofferingid=there.offering)) is True
    keyed = there.job(there.cloud("resetSSHKeyForVirtualMachine", id=vm["id"], keypair="k"))
    assert keyed["keypairs"] == "k"
    told = there.cloud("resetUserDataForVirtualMachine", id=vm["id"], userdata="aGk=")["virtualmachine"]
    assert told["userdata"] == "aGk="


def test_a_reinstalled_machine_is_made_anew_on_its_host_and_keeps_its_address(there):
    vm = there.deploy()
    (host,) = [agent for agent in there.agents if vm["id"] in agent.holds]
    seen = []
    applied = host.apply
    host.apply = lambda bundle: (
        seen.append(vm["id"] in guests(bundle)) if bundle.kind == "host" else None,
        applied(bundle),
    )[1]
    again = there.job(there.cloud("restoreVirtualMachine", virtualmachineid=vm["id"]))
    assert again["state"] == "Running"
    assert again["nic"][0]["ipaddress"] == vm["nic"][0]["ipaddress"]
    assert False in seen
    assert sum(vm["id"] in agent.holds for agent in there.agents) == 1


def guests(bundle):
    return "".join(file.path for file in bundle.files)


def test_update_renames_and_protects(there):
    vm = there.deploy(name="old")
    changed = there.cloud("updateVirtualMachine", id=vm["id"], name="new", group="g", deleteprotection="true")
    assert changed["virtualmachine"]["name"] == "new"
    assert changed["virtualmachine"]["group"] == "g"
    with pytest.raises(BadParameter, match="protected"):
        there.cloud("destroyVirtualMachine", id=vm["id"])
    with pytest.raises(Forbidden, match="Only admins"):
        there.cloud("destroyVirtualMachine", id=vm["id"], expunge="true")


def test_a_list_costs_the_same_queries_for_any_number_of_machines(there):
    def queries(command, **parameters):
        count, me = 0, threading.get_ident()

        def counted(*_):
            nonlocal count
            count += threading.get_ident() == me  # the agents ask, too

        event.listen(there.cloud.database.engine, "before_cursor_execute", counted)
        try:
            there.cloud(command, **parameters)
        finally:
            event.remove(there.cloud.database.engine, "before_cursor_execute", counted)
        return count

    there.deploy(startvm="false")
    few = queries("listVirtualMachines")
    for _ in range(4):
        there.deploy(startvm="false")
    assert queries("listVirtualMachines") == few


def test_filters_of_the_list(there, cloud):
    vm = there.deploy(name="web-1", group="g")
    there.deploy(name="db-1", startvm="false")

    def names(**parameters):
        return {row["name"] for row in there.cloud("listVirtualMachines", **parameters).get("virtualmachine", [])}

    assert names() == {"web-1", "db-1"}
    assert names(state="Running") == {"web-1"}
    assert names(name="db") == {"db-1"}
    assert names(keyword="WEB") == {"web-1"}
    assert names(networkid=there.network, state="Present") == {"web-1", "db-1"}
    assert names(groupid=vm["groupid"]) == {"web-1"}
    assert names(ids=vm["id"]) == {"web-1"}
    assert names(forvirtualnetwork="false") == set()
    assert names(keypair="x") == set()
    assert names(userdata="true") == set()
    assert there.cloud("listVirtualMachines", retrieveonlyresourcecount="true") == {"count": 2}


def test_key_pairs_user_data_and_groups(there, cloud):
    pair = there.cloud("registerSSHKeyPair", name="k", publickey=ED25519)["keypair"]
    assert len(pair["fingerprint"].split(":")) == 16
    for name, key, words in (
        ("k", ED25519, "of this name"),
        ("l", ED25519, "has this key"),
        ("m", "ssh-rsa x", "public key"),
    ):
        with pytest.raises(BadParameter, match=words):
            there.cloud("registerSSHKeyPair", name=name, publickey=key)
    assert cloud.as_user("bob")("listSSHKeyPairs") == {}
    assert there.cloud("deleteSSHKeyPair", name="k") == {"success": True}
    data = there.cloud("registerUserData", name="u", userdata="aGk=", params="who")["userdata"]
    vm = there.deploy(userdataid=data["id"], startvm="false")
    assert vm["userdataname"] == "u"
    with pytest.raises(InUse):
        there.cloud("deleteUserData", id=data["id"])
    group = there.cloud("createInstanceGroup", name="g")["instancegroup"]
    assert there.cloud("updateInstanceGroup", id=group["id"], name="h")["instancegroup"]["name"] == "h"
    with pytest.raises(BadParameter, match="not yours"):
        cloud.as_user("bob")("deleteInstanceGroup", id=group["id"])
    assert there.cloud("deleteInstanceGroup", id=group["id"]) == {"success": True}


def test_a_machines_root_volume_is_listed_with_it(there, cloud):
    vm = there.deploy(name="web-1", rootdisksize="2")
    (volume,) = there.cloud("listVolumes", virtualmachineid=vm["id"])["volume"]
    assert (volume["type"], volume["state"], volume["size"]) == ("ROOT", "Ready", 2 << 30)
    assert (volume["vmname"], volume["vmstate"], volume["templatename"]) == ("web-1", "Running", "box")
    assert there.cloud("listVolumes", type="DATADISK") == {}
    assert cloud.as_user("bob")("listVolumes") == {}


def test_a_templates_user_data_follows_its_policy(there, cloud):
    mine = cloud("registerUserData", name="t", userdata=base64.b64encode(b"#!/bin/sh\n").decode())["userdata"]["id"]
    with pytest.raises(Forbidden, match="another account"):
        there.cloud("linkUserDataToTemplate", templateid=there.template)
    cloud("linkUserDataToTemplate", templateid=there.template, userdataid=mine, userdatapolicy="DENYOVERRIDE")
    assert there.deploy(startvm="false")["userdata"] == "IyEvYmluL3NoCg=="
    with pytest.raises(BadParameter, match="allows no other"):
        there.deploy(userdata="aGk=")
    cloud("linkUserDataToTemplate", templateid=there.template, userdataid=mine, userdatapolicy="APPEND")
    both = base64.b64decode(there.deploy(startvm="false", userdata="I2Nsb3VkLWNvbmZpZwo=")["userdata"])
    assert both.index(b"x-shellscript") < both.index(b"cloud-config")
    cloud("linkUserDataToTemplate", templateid=there.template)
    assert "userdata" not in there.deploy(startvm="false")
