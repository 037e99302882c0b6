"""The clients that people use, unmodified, against a running cloud: what they make carries packets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import httpx
import pytest
from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

from controlplane.api.signature import canonical, sign
from tests.spine.world import ISOLATED, World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
WHOLE_SECONDS = 60


@pytest.fixture(scope="module")
def libcloud(world: World):
    """Libcloud's driver, with the admin's keys."""
    url, api = httpx.URL(world.api.endpoint), world.api
    made = get_driver(Provider.CLOUDSTACK)
    driver = made(api.key, api.secret, secure=False, host=url.host, port=url.port, path=url.path)
    driver.connection.poll_interval = 0.05
    return driver


def test_libcloud_does_a_tenants_script(world: World, libcloud):
    zone = next(location for location in libcloud.list_locations() if location.name == "zone-1")
    size = next(size for size in libcloud.list_sizes() if size.name == "Small Instance")
    image = next(image for image in libcloud.list_images() if image.name == "busybox")
    offering = next(offering for offering in libcloud.ex_list_network_offerings() if offering.name == ISOLATED)
    net = libcloud.ex_create_network("of libcloud", "of libcloud", offering, zone)
    assert net.id in {found.id for found in libcloud.ex_list_networks()}
    key = libcloud.create_key_pair("of-libcloud")
    node = libcloud.create_node(
        name="node-1", size=size, image=image, location=zone, networks=[net], ex_keyname="of-libcloud", ex_start_vm=True
    )
    assert node.state == NodeState.RUNNING
    address = libcloud.ex_allocate_public_ip(location=zone, network_id=net.id)
    rule = libcloud.ex_create_port_forwarding_rule(node, address, 80, 8080, "TCP", openfirewall=False)
    opened = libcloud.ex_create_firewall_rule(address, "0.0.0.0/0", "TCP", start_port=8080, end_port=8080)
    url = f"http://{address.address}:8080/"
    assert until(lambda: world.curl(url)) == "node-1"
    assert [
        (found.id, found.public_port, found.private_port) for found in libcloud.ex_list_port_forwarding_rules()
    ] == [(rule.id, "8080", "80")] or rule.id in {found.id for found in libcloud.ex_list_port_forwarding_rules()}
    assert opened.id in {found.id for found in libcloud.ex_list_firewall_rules()}
    assert libcloud.ex_delete_firewall_rule(opened)
    assert not world.ask(address.address, 8080, seconds=0.4)
    egress = libcloud.ex_create_egress_firewall_rule(net.id, "0.0.0.0/0", "TCP", start_port=80, end_port=80)
    assert libcloud.ex_delete_egress_firewall_rule(egress)
    assert libcloud.ex_stop(node) == "Stopped"
    assert libcloud.ex_start(node) == "Running"
    assert libcloud.reboot_node(node)
    (nic,) = libcloud.ex_list_nics(node)
    assert nic.network_id == net.id
    assert libcloud.ex_create_tags([node.id], "UserVm", {"colour": "green"})
    (shown,) = [found for found in libcloud.list_nodes() if found.id == node.id]
    assert shown.extra["tags"] == {"colour": "green"}
    assert shown.state == NodeState.RUNNING
    assert libcloud.ex_limits()["max_public_ips"]
    assert libcloud.ex_delete_port_forwarding_rule(node, rule)
    assert libcloud.destroy_node(node, ex_expunge=True)
    assert node.id not in {found.id for found in libcloud.list_nodes()}
    assert libcloud.ex_release_public_ip(address)
    assert libcloud.ex_delete_network(net)
    libcloud.delete_key_pair(key)  # it takes JSON's true for False
    assert key.name not in {found.name for found in libcloud.list_key_pairs()}


def command(world: World, *argv: str) -> dict[str, object]:
    """Run the ``cs`` command, which finds its endpoint and keys in the ini file of the cloud."""
    environment = {"PATH": os.environ["PATH"], "CLOUDSTACK_CONFIG": str(world.cloud.place.ini), "NO_COLOR": "1"}
    program = [str(Path(sys.executable).with_name("cs")), *argv]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=WHOLE_SECONDS, check=False)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_the_cs_command_reads_the_ini_file(world: World):
    (zone,) = command(world, "listZones")["zone"]
    assert zone["id"] == world.zone
    offering = command(world, "listNetworkOfferings", f"name={ISOLATED}")["networkoffering"][0]["id"]
    net = command(world, "createNetwork", f"zoneid={zone['id']}", f"networkofferingid={offering}", "name=of cs")[
        "network"
    ]
    size = command(world, "listServiceOfferings", "name=Small Instance")["serviceoffering"][0]["id"]
    image = command(world, "listTemplates", "templatefilter=featured", "name=busybox")["template"][0]["id"]
    wanted = (f"zoneid={zone['id']}", f"serviceofferingid={size}", f"templateid={image}", f"networkids={net['id']}")
    made = command(world, "deployVirtualMachine", *wanted, "name=of-cs")
    assert made["virtualmachine"]["state"] == "Running"
    assert until(lambda: world.run("vm/of-cs", "hostname").stdout).strip() == "of-cs"
    command(world, "destroyVirtualMachine", f"id={made['virtualmachine']['id']}", "expunge=true")
    assert command(world, "deleteNetwork", f"id={net['id']}")["success"]


def test_xml_is_what_is_answered_unless_json_is_asked_for(world: World):
    def call(name: str, **parameters: str) -> ET.Element:
        sent = {"command": name, "apiKey": world.api.key, **parameters}
        sent |= {"signature": sign(world.api.secret, canonical(sent))}
        answer = httpx.get(world.api.endpoint, params=sent)
        assert answer.headers["content-type"].startswith("text/xml")
        return ET.fromstring(answer.content)

    zones = call("listZones")
    assert (zones.tag, zones.findtext("count"), zones.findtext("zone/id")) == ("listzonesresponse", "1", world.zone)
    refused = call("listZones", id="nonsense")
    assert (refused.tag, refused.findtext("errorcode")) == ("listzonesresponse", "431")
    assert "nonsense" in refused.findtext("errortext")
