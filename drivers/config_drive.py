"""What a guest reads about itself on a drive instead of from its router: the facts, and the files made of them. Pure.

The drive has CloudStack's own files and those that OpenStack documents for its config drive, under the label
``config-2`` by which guests find it: cloud-init and cloudbase-init read the latter.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

LABEL: Final = "config-2"
"""The name of the file system on the drive (OpenStack, "Store metadata on a configuration drive")."""
STATIC, DHCP = "static", "dhcp"


class DriveLink(NamedTuple):
    """One of the guest's NICs, as the drive describes it.

    :param device: position, from 0; ``mtu`` in bytes.
    :param network: the UUID of its network.
    :param method: ``static`` where the drive itself gives the addresses, ``dhcp`` where a router does, empty where
        nobody does.
    :param gateway: empty where the guest's default route does not go through this NIC, as ``gateway6``.
    :param dns: the resolvers that the drive names for it, of both families.
    """

    device: int
    mac: str
    network: str
    mtu: int = 1500
    method: str = ""
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigDrive:
    """A guest's drive.

    :param vm: the virtual machine's UUID.
    :param items: CloudStack's metadata by name, as its router would answer under ``/latest/meta-data/``.
    :param user_data: base64, as it was given; empty means none.
    :param password: a new one that the guest is to take; empty means none.
    """

    vm: str
    items: tuple[tuple[str, str], ...]
    user_data: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    links: tuple[DriveLink, ...] = ()


def files(drive: ConfigDrive) -> dict[str, bytes]:
    """Return the files of a drive by their paths."""
    items = {name: value for name, value in drive.items if value}
    found = {f"cloudstack/metadata/{name}.txt": value.encode() for name, value in items.items()}
    if drive.password:
        found["cloudstack/password/vm_password.txt"] = drive.password.encode()
    if drive.user_data:
        content = _decoded(drive.user_data)
        found |= {"cloudstack/userdata/user_data.txt": content, "openstack/latest/user_data": content}
    latest = {"meta_data": _meta_data(items), "network_data": _network_data(drive), "vendor_data": _vendor_data(drive)}
    return found | {f"openstack/latest/{name}.json": _json(value) for name, value in latest.items()}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _meta_data(items: dict[str, str]) -> dict[str, Any]:
    """Return OpenStack's ``meta_data.json``, as far as CloudStack has what is in it."""
    keys = [key for key in items.get("public-keys", "").splitlines() if key]
    return {
        "uuid": items.get("instance-id", ""),
        "name": items.get("local-hostname", ""),
        "hostname": items.get("local-hostname", ""),
        "availability_zone": items.get("availability-zone", ""),
        "launch_index": 0,
        "public_keys": {f"key-{number}": key for number, key in enumerate(keys, 1)},
    }


def _vendor_data(drive: ConfigDrive) -> dict[str, str]:
    """Return the order that has cloud-init set the password: a JSON string is one of YAML, too."""
    if not drive.password:
        return {}
    password = json.dumps(drive.password)
    return {"cloud-init": f"#cloud-config\npassword: {password}\nchpasswd: {{expire: false}}\n"}


def _network_data(drive: ConfigDrive) -> dict[str, list[dict[str, Any]]]:
    """Return OpenStack's ``network_data.json``: links, the networks on them, and resolvers."""
    links = sorted(drive.links)
    resolvers = dict.fromkeys(address for link in links for address in link.dns)
    return {
        "links": [
            {
                "id": _link(link),
                "vif_id": _link(link),
                "type": "phy",
                "mtu": link.mtu,
                "ethernet_mac_address": link.mac,
            }
            for link in links
        ],
        "networks": [network for link in links for network in _networks(link)],
        "services": [{"type": "dns", "address": address} for address in resolvers],
    }


def _link(link: DriveLink) -> str:
    return f"eth{link.device}"


def _networks(link: DriveLink) -> list[dict[str, Any]]:
    if link.method == DHCP:
        kinds = [kind for kind, there in (("ipv4_dhcp", link.address), ("ipv6_dhcp", link.address6)) if there]
        return [_network(link, kind) for kind in kinds]
    if link.method != STATIC:
        return []
    found = []
    if link.address:
        mask = str(ipaddress.IPv4Network(f"0.0.0.0/{link.prefix}").netmask)
        here = {"ip_address": link.address, "netmask": mask, "routes": _routes("0.0.0.0", link.gateway)}  # noqa: S104
        found.append(_network(link, "ipv4") | here)
    if link.address6:
        mask = str(ipaddress.IPv6Network(f"::/{link.prefix6}").netmask)
        here = {"ip_address": link.address6, "netmask": mask, "routes": _routes("::", link.gateway6)}
        found.append(_network(link, "ipv6") | here)
    return found


def _network(link: DriveLink, kind: str) -> dict[str, Any]:
    return {"id": f"{_link(link)}-{kind}", "link": _link(link), "type": kind, "network_id": link.network}


def _routes(everything: str, gateway: str) -> list[dict[str, str]]:
    return [{"network": everything, "netmask": everything, "gateway": gateway}] if gateway else []
