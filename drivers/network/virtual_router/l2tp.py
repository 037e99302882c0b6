"""L2TP over IPsec: an IKEv1 connection with a pre-shared key in transport mode, and a PPP session for each client.

Only some hosts can do it (the kernel must have ESP and PPP), and a plan does not know its host. So what the IKE daemon
needs for it is a part of its own, which the agent adds where it can. The clients' range is divided there: IKEv2 and
xl2tpd hand addresses out without knowing of each other, so IKEv2 has the lower half, and all of it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from drivers.ipsec import RemoteAccess, VpnUser
from drivers.network.virtual_router.syntax import SECRET, USER, address, identity, matched
from drivers.network.virtual_router.vpn_config import L2tp
from drivers.vocabulary import ApplianceFacts

_IKE = (
    "aes256-sha256-modp2048", "aes128-sha256-modp2048", "aes256-sha1-modp2048", "aes128-sha1-modp2048",
    "aes256-sha1-ecp384", "aes128-sha1-ecp256", "aes256-sha1-modp1024", "aes128-sha1-modp1024", "3des-sha1-modp1024",
)  # fmt: skip
_ESP = ("aes256-sha256", "aes128-sha256", "aes256-sha1", "aes128-sha1", "3des-sha1")
"""What the L2TP clients of Windows, macOS, iOS and older phones offer, the strongest first."""


def spoken(access: RemoteAccess | None) -> bool:
    """Tell whether a remote access VPN is to speak L2TP: it has a key, and room for a client of each kind."""
    return access is not None and bool(access.psk) and access.first != access.last


def plan(facts: ApplianceFacts) -> L2tp | None:
    """Decide what xl2tpd has; None where L2TP is not to be spoken.

    :raises ValueError: a user or an address cannot be; the sentence names it.
    """
    access = facts.remote_access
    if access is None or not spoken(access):
        return None
    what = f"Remote access VPN {identity(access.id, 'The remote access VPN id')}"
    first, last = IPv4Address(address(access.first, "The clients' address")), IPv4Address(access.last)
    server = IPv4Address(address(access.server, f"The server's address of {what}"))
    if first <= server <= last:
        raise ValueError(f"{what} has the server's address {server} among its clients' from {first} to {last}.")
    return L2tp(
        id=access.id,
        local=address(access.local, f"The address of {what}"),
        server=str(server),
        first=str(_middle(access)),
        last=access.last,
        dns=tuple(address(item, "The clients' resolver") for item in access.dns[:2]),
        users=tuple(sorted(_user(user) for user in access.users)),
    )


def sections(access: RemoteAccess | None, pool: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the IKE daemon is to have besides, in vici's words, where the host can do L2TP.

    :param pool: IKEv2's, whole.
    :raises ValueError: the key cannot be.
    """
    if access is None or not spoken(access):
        return {}
    if not SECRET.fullmatch(access.psk):
        raise ValueError(f"The pre-shared key of remote access VPN {access.id} is refused: it must be printable ASCII.")
    name = f"{access.id}-l2tp"
    return {
        "connections": {name: _connection(access.local)},
        "secrets": {name: {"type": "IKE", "data": access.psk, "owners": [access.local, "%any"]}},
        "pools": {access.id: {**pool, "addrs": f"{access.first}-{_middle(access) - 1}"}},
    }


def _middle(access: RemoteAccess) -> IPv4Address:
    """Return the first address of L2TP's half."""
    first, last = int(IPv4Address(access.first)), int(IPv4Address(access.last))
    return IPv4Address(first + (last - first + 2) // 2)


def _connection(local: str) -> dict[str, Any]:
    return {
        "version": "1",
        "local_addrs": [local],
        "proposals": list(_IKE),
        "unique": "never",  # clients behind one NAT may have one identity
        "dpd_delay": "30s",
        "local-1": {"auth": "psk", "id": local},
        "remote-1": {"auth": "psk"},
        "children": {
            "l2tp": {
                "local_ts": ["dynamic[udp/1701]"],
                "remote_ts": ["dynamic[udp]"],
                "esp_proposals": list(_ESP),
                "mode": "transport",
                "dpd_action": "clear",
            }
        },
    }


def _user(user: VpnUser) -> tuple[str, str]:
    name = matched(USER, user.name, "The VPN user", "letters, digits and @._+-")
    if not SECRET.fullmatch(user.password) or user.password.startswith("@/"):  # pppd would read that from a file
        raise ValueError(f"The password of VPN user {name} is refused: it must be printable ASCII, without @/ first.")
    return name, user.password.replace("\\", "\\\\").replace('"', '\\"')
