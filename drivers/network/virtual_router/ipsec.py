"""IPsec: site-to-site tunnels and remote access, in the words of strongSwan's vici.

A site-to-site connection leads from all of the router's networks to the customer's; a remote access connection hands
its users an address of a pool and leads to the same networks. What is meant for a tunnel passes through it or not at
all: the packet filter drops it where it would leave, or arrives, in clear text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, summarize_address_range
from typing import Any

from drivers.ipsec import RemoteAccess, Tunnel, VpnUser
from drivers.ipsec_policies import proposals
from drivers.network.virtual_router import l2tp
from drivers.network.virtual_router.syntax import SECRET, USER, address, identity, matched, network, number
from drivers.network.virtual_router.vpn_config import Ipsec
from drivers.vocabulary import ApplianceFacts

VERSIONS = {"ike": "0", "ikev1": "1", "ikev2": "2"}
LONGEST, SHORTEST = 86_400, 60
"""Seconds that a security association may live."""
_DPD_DELAY = "30s"
_CLIENT_IKE = (
    "aes256gcm16-prfsha384-ecp384", "aes128gcm16-prfsha256-curve25519", "aes256-sha256-modp2048",
    "aes128-sha256-modp2048", "aes256-sha256-ecp256", "aes256-sha384-ecp384", "aes256-sha1-modp2048",
)  # fmt: skip
_CLIENT_ESP = ("aes256gcm16", "aes128gcm16", "aes256-sha256", "aes128-sha256", "aes256-sha1", "aes128-sha1")
"""What clients of today's phones and desktops offer, the strongest first."""


def plan(facts: ApplianceFacts) -> Ipsec | None:
    """Decide what the IKE daemon has; None where there is nothing for it to do.

    :raises ValueError: a tunnel asks for what cannot be; the sentence names it.
    """
    tunnels, access = sorted(facts.tunnels, key=lambda tunnel: tunnel.id), facts.remote_access
    if not tunnels and access is None:
        return None
    known = {item.address for item in facts.addresses}
    _distinct(tunnels)
    connections = {tunnel.id: _tunnel(tunnel, known) for tunnel in tunnels}
    secrets = {tunnel.id: _psk(tunnel) for tunnel in tunnels}
    keys: dict[str, str] = {}
    pools: dict[str, Mapping[str, Any]] = {}
    if access is not None:
        connections[access.id] = _access(access, known)
        secrets |= {f"{access.id}/{user.name}": _user(user) for user in access.users}
        keys, pools = {access.id: access.key}, {access.id: _pool(access)}
    return Ipsec(
        connections=connections,
        secrets=secrets,
        keys=keys,
        pools=pools,
        initiate={tunnel.id: sorted(_children(tunnel)) for tunnel in tunnels if not tunnel.passive},
        resets={tunnel.id: tunnel.resets for tunnel in tunnels},
        sources=_blocks(net for part in _parts(facts) for net in part.networks),
        destinations=_destinations(facts),
        l2tp=l2tp.sections(access, pools[access.id] if access else {}),
    )


def elements(facts: ApplianceFacts) -> dict[str, list[str]]:
    """Return the elements of the packet filter's sets.

    ``ipsec_peers`` says which peer may speak IKE and ESP to which address, whatever the firewall says,
    ``ipsec_dialled`` which address clients dial, if the firewall lets them, ``l2tp_dialled`` where
    they may do so by L2TP, and ``tunneled`` what tunnels lead to.
    """
    return {
        "ipsec_peers": [f"{tunnel.local} . {_peer(tunnel)}" for tunnel in facts.tunnels],
        "ipsec_dialled": [facts.remote_access.local] if facts.remote_access else [],
        "l2tp_dialled": [facts.remote_access.local] if facts.remote_access and l2tp.spoken(facts.remote_access) else [],
        "tunneled": list(_destinations(facts)),
    }


def _parts(facts: ApplianceFacts) -> list[Tunnel | RemoteAccess]:
    return [*facts.tunnels, *([facts.remote_access] if facts.remote_access else [])]


def _destinations(facts: ApplianceFacts) -> tuple[str, ...]:
    access = facts.remote_access
    pool = [str(net) for net in _range(access)] if access else []
    return _blocks([*(net for tunnel in facts.tunnels for net in tunnel.remotes), *pool])


def _range(access: RemoteAccess) -> list[IPv4Network]:
    first, last = (IPv4Address(address(item, "The clients' address")) for item in (access.first, access.last))
    if first > last:
        raise ValueError(
            f"Remote access VPN {access.id} has clients from {first} to {last}: the first is beyond the last."
        )
    return list(summarize_address_range(first, last))


def _blocks(networks: Iterable[str]) -> tuple[str, ...]:
    blocks = collapse_addresses(network(item, "The tunnel's CIDR") for item in networks)
    return tuple(str(block) for block in sorted(blocks))


def _selectors(networks: Iterable[str]) -> list[str]:
    """Return the networks as they were given: the peer names the same ones, so neighbours are not put together."""
    return [str(block) for block in sorted({network(item, "The tunnel's CIDR") for item in networks})]


def _distinct(tunnels: Sequence[Tunnel]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for tunnel in tunnels:
        other = seen.setdefault((tunnel.local, tunnel.peer), tunnel.id)
        if other != tunnel.id:
            raise ValueError(f"VPN connections {other} and {tunnel.id} lead to the same gateway, {tunnel.peer}.")


def _peer(tunnel: Tunnel) -> str:
    return address(tunnel.peer, f"The customer gateway of VPN connection {tunnel.id}")


def _local(item: Tunnel | RemoteAccess, known: Iterable[str], what: str) -> str:
    if item.local not in known:
        raise ValueError(f"{what} is for {item.local!r}, which is no public address of this router.")
    return address(item.local, f"The address of {what}")


def _tunnel(tunnel: Tunnel, known: Iterable[str]) -> dict[str, Any]:
    what = f"VPN connection {identity(tunnel.id, 'The VPN connection id')}"
    if tunnel.version not in VERSIONS:
        raise ValueError(f"{what} has the IKE version {tunnel.version!r}: it must be one of {', '.join(VERSIONS)}.")
    local, peer = _local(tunnel, known, what), _peer(tunnel)
    return {
        "version": VERSIONS[tunnel.version],
        "local_addrs": [local],
        "remote_addrs": [peer],
        "proposals": list(_policy(tunnel.ike_policy, what, ike=True)),
        **_lifetime(tunnel.ike_lifetime, "over_time", what),
        "dpd_delay": _DPD_DELAY if tunnel.dpd else "0s",
        "encap": "yes" if tunnel.encap else "no",
        "unique": "replace",
        "keyingtries": "1",
        "local-1": {"auth": "psk", "id": local},
        "remote-1": {"auth": "psk", "id": peer},
        "children": _children(tunnel),
    }


def _policy(text: str, what: str, *, ike: bool) -> tuple[str, ...]:
    try:
        return proposals(text, ike=ike)
    except ValueError as error:
        raise ValueError(f"{what} has a policy that cannot be: {error}.") from None


def _lifetime(seconds: int, limit: str, what: str) -> dict[str, str]:
    """Return when keys are made anew, and the limit at which the old ones end: rekeying begins a tenth before."""
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"{what} has a lifetime of {seconds} seconds: it must be {SHORTEST} to {LONGEST}.")
    margin = min(seconds // 10, 540)
    return {"rekey_time": f"{seconds - margin}s", limit: f"{margin if limit == 'over_time' else seconds}s"}


def _children(tunnel: Tunnel) -> dict[str, Any]:
    """Return the tunnel's children: IKEv1 knows one pair of networks in each, and ``split`` asks for the same."""
    what = f"VPN connection {tunnel.id}"
    locals_, remotes = _selectors(tunnel.networks), _selectors(tunnel.remotes)
    common = {
        "esp_proposals": list(_policy(tunnel.esp_policy, what, ike=False)),
        **_lifetime(tunnel.esp_lifetime, "life_time", what),
        "mode": "tunnel",
        "dpd_action": "clear",
    }
    if tunnel.version == "ikev1":
        pairs = [([one], [other]) for one in locals_ for other in remotes]
    elif tunnel.split:
        pairs = [(locals_, [other]) for other in remotes]
    else:
        pairs = [(locals_, remotes)]
    return {
        f"net-{position}": {"local_ts": ours, "remote_ts": theirs, **common}
        for position, (ours, theirs) in enumerate(pairs, 1)
    }


def _psk(tunnel: Tunnel) -> dict[str, Any]:
    if not SECRET.fullmatch(tunnel.psk):
        raise ValueError(f"The pre-shared key of VPN connection {tunnel.id} is refused: it must be printable ASCII.")
    return {"type": "IKE", "data": tunnel.psk, "owners": [tunnel.local, tunnel.peer]}


def _access(access: RemoteAccess, known: Iterable[str]) -> dict[str, Any]:
    what = f"Remote access VPN {identity(access.id, 'The remote access VPN id')}"
    local = _local(access, known, what)
    return {
        "version": "2",
        "local_addrs": [local],
        "proposals": list(_CLIENT_IKE),
        "encap": "yes",
        "unique": "never",
        "send_cert": "always",
        "dpd_delay": _DPD_DELAY,
        "pools": [access.id],
        "local-1": {"auth": "pubkey", "id": local, "certs": [access.certificate]},
        "remote-1": {"auth": "eap-mschapv2", "eap_id": "%any"},
        "children": {
            "net-1": {
                "local_ts": _selectors(access.networks),
                "esp_proposals": list(_CLIENT_ESP),
                "mode": "tunnel",
                "dpd_action": "clear",
            }
        },
    }


def _user(user: VpnUser) -> dict[str, Any]:
    name = matched(USER, user.name, "The VPN user", "letters, digits and @._+-")
    if not SECRET.fullmatch(user.password):
        raise ValueError(f"The password of VPN user {name} is refused: it must be printable ASCII.")
    return {"type": "EAP", "data": user.password, "owners": [name]}


def _pool(access: RemoteAccess) -> Mapping[str, Any]:
    _range(access)
    pool: dict[str, Any] = {"addrs": f"{access.first}-{access.last}"}
    if access.dns:
        pool["dns"] = [address(item, "The clients' resolver") for item in access.dns]
    inside = [(int(net.network_address), int(net.broadcast_address)) for net in map(IPv4Network, access.networks)]
    first, last = number(access.first, "The clients' address"), number(access.last, "The clients' address")
    if any(low <= last and first <= high for low, high in inside):
        raise ValueError(f"Remote access VPN {access.id} gives clients addresses that are on the router's networks.")
    return pool
