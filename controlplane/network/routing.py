"""Routed networks: where their addresses come from, and the routes that lead to them.

The operator's upstream router has, for each network, a route to its CIDR by its router's public address: by hand
(``ip4routes`` in listNetworks says which), or because the router announces it by BGP.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.db.configuration import define
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.network import as_numbers, bgp_peers, ipv4_subnets, ipv6
from controlplane.network.as_numbers import AsNumber
from controlplane.network.bgp_peers import BgpPeer, PeerChoice
from controlplane.network.networks import Network, Whole
from controlplane.network.public_ips import PublicIp
from controlplane.network.vpcs import Vpc
from controlplane.offering.routing_modes import DYNAMIC

SMALLEST = define("routed.ipv4.network.max.cidr.size", 29, "Longest prefix of a routed network", category="Network",
                  scopes=("Account",), within=(8, 29))  # fmt: skip
LARGEST = define("routed.ipv4.network.min.cidr.size", 23, "Shortest prefix of a routed network", category="Network",
                 scopes=("Account",), within=(8, 29))  # fmt: skip
SMALLEST_VPC = define("routed.ipv4.vpc.max.cidr.size", 28, "Longest prefix of a routed VPC", category="Network",
                      scopes=("Account",), within=(8, 29))  # fmt: skip
LARGEST_VPC = define("routed.ipv4.vpc.min.cidr.size", 22, "Shortest prefix of a routed VPC", category="Network",
                     scopes=("Account",), within=(8, 29))  # fmt: skip


def refuse_foreign(whole: Whole, cidrsize: int | None, asnumber: int | None, peers: Sequence[BgpPeer] | None) -> None:
    """Refuse parameters of createNetwork and createVPC that the offering, or the VPC, leaves no room for.

    :raises BadParameter: the sentence names the first.
    """
    offering = whole.offering
    shared = isinstance(whole, Network) and whole.vpc is not None
    given = {"cidrsize": cidrsize, "asnumber": asnumber, "bgppeerids": peers or None}
    for name, value in given.items():
        if value is None:
            continue
        text = f"Invalid parameter {name}" + (f" value={value}" if name != "bgppeerids" else "")
        if shared:
            raise BadParameter(f"{text}: a tier has it from its VPC; leave it out.")
        if not offering.routed or (name != "cidrsize" and offering.routing_mode != DYNAMIC):
            mode = "networkmode=ROUTED" if name == "cidrsize" else "routingmode=Dynamic"
            raise BadParameter(f"{text}: offering {offering.name} does not have {mode}.")
    if shared or offering.routing_mode != DYNAMIC:
        return
    if offering.specify_as_number != (asnumber is not None):
        wanted = "wants one named" if offering.specify_as_number else "chooses it itself; leave it out"
        raise BadParameter(f"Invalid parameter asnumber: offering {offering.name} {wanted}.")


def give_subnet(session: Session, whole: Whole, owner: Account, cidr: str | None, size: int | None) -> IPv4Network:
    """Give a network or VPC its addresses: the named ones, or a free part of the zone's subnets of this size.

    :param size: prefix length, where no CIDR is named.
    :raises BadParameter: neither is given, both are, or the size is not allowed.
    """
    parameter = "cidr" if isinstance(whole, Vpc) else "gateway"
    if cidr is not None and size is not None:
        raise BadParameter(f"Invalid parameter cidrsize value={size}: give it, or {parameter}, but not both.")
    if cidr is not None:
        ipv4_subnets.claim(session, whole, owner, IPv4Network(cidr), parameter)
        return IPv4Network(cidr)
    if size is None:
        raise BadParameter(
            f"Invalid parameter cidrsize: offering {whole.offering.name} is ROUTED: give it, or {parameter}."
        )
    settings = (LARGEST_VPC, SMALLEST_VPC) if isinstance(whole, Vpc) else (LARGEST, SMALLEST)
    first, last = (setting.number(session, account=owner.id) for setting in settings)
    if not first <= size <= last:
        raise BadParameter(
            f"Invalid parameter cidrsize value={size}: it must be {first} to {last} ({settings[0].name}, "
            f"{settings[1].name})."
        )
    return ipv4_subnets.take(session, whole, owner, size)


def give_voice(session: Session, whole: Whole, asnumber: int | None, peers: Sequence[BgpPeer] | None) -> None:
    """Give a network or VPC with dynamic routing its AS number, and the peers that were named for it."""
    if whole.offering.routing_mode == DYNAMIC:
        as_numbers.take(session, whole, asnumber)
        bgp_peers.choose(session, whole, peers or ())


def give_back(session: Session, whole: Whole) -> None:
    """Free the prefixes, the AS number and the peers of what is gone, with its last router; repeatable."""
    if isinstance(whole, Vpc):
        ipv6.give_back_outside(session, whole)
    else:
        ipv6.give_back(session, whole)
    ipv4_subnets.give_back(session, whole)
    as_numbers.free(session, whole)
    session.execute(delete(PeerChoice).where(bgp_peers.chosen_for(whole)))


def shown(session: Session, rows: Sequence[Whole]) -> dict[str, dict[str, Any]]:
    """Return, by UUID, the response fields about how networks or VPCs are routed; none where they are not."""
    routed = [row for row in rows if row.offering.routed]
    if not routed:
        return {}
    wholes = {row.uuid: (row.vpc or row) if isinstance(row, Network) else row for row in routed}
    alone = [whole.id for whole in wholes.values() if isinstance(whole, Network)]
    vpcs = [whole.id for whole in wholes.values() if isinstance(whole, Vpc)]
    ways: dict[tuple[int | None, int | None], str] = {}
    numbers: dict[tuple[int | None, int | None], tuple[int, str]] = {}
    own = PublicIp.source_nat & (PublicIp.network_id.in_(alone) | PublicIp.vpc_id.in_(vpcs))
    for network, vpc, address in session.execute(
        select(PublicIp.network_id, PublicIp.vpc_id, PublicIp.address).where(own)
    ):
        ways[(None, vpc) if vpc else (network, None)] = address
    having = AsNumber.network_id.in_(alone) | AsNumber.vpc_id.in_(vpcs)
    columns = AsNumber.network_id, AsNumber.vpc_id, AsNumber.number, AsNumber.uuid
    for network, vpc, number, uuid in session.execute(select(*columns).where(having)):
        numbers[network, vpc] = number, uuid
    heard = {whole.uuid: whole for whole in wholes.values() if whole.offering.routing_mode == DYNAMIC}
    peers = bgp_peers.all_peers_of(session, list(heard.values())) if heard else {}
    found: dict[str, dict[str, Any]] = {}
    for row in routed:
        whole = wholes[row.uuid]
        key = (None, whole.id) if isinstance(whole, Vpc) else (whole.id, None)
        way, voice = ways.get(key), numbers.get(key)
        found[row.uuid] = {
            "ip4routing": whole.offering.routing_mode,
            "ip4routes": [{"subnet": row.cidr, "gateway": way}] if way and row.cidr else [],
            "asnumber": voice[0] if voice else None,
            "asnumberid": voice[1] if voice else None,
            "bgppeers": [
                {"id": peer.uuid, "asnumber": peer.number, "ipaddress": peer.address, "ip6address": peer.address6}
                for peer in peers.get(whole.uuid, ())
            ],
        }
    return found
