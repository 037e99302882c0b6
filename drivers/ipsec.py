"""The nouns of IPsec that the control plane and its drivers share: facts, as frozen plain values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tunnel:
    """createVpnConnection: a site-to-site tunnel.

    :param local: the VPN gateway's own public address, ``networks`` what is behind it (CIDRs).
    :param peer: the customer gateway's address, ``remotes`` what is behind that one (CIDRs).
    :param version: ``ike`` (both are spoken, IKEv2 first), ``ikev1`` or ``ikev2``.
    :param ike_policy: ``aes128-sha1;modp1536``, several separated by commas; ``esp_policy`` alike, its group is PFS.
    :param ike_lifetime: seconds, and ``esp_lifetime``.
    :param encap: ESP goes in UDP even where no NAT is found.
    :param passive: the peer begins.
    :param split: a child of its own for each remote network (IKEv2; IKEv1 always does so).
    :param resets: a higher number means that the tunnel is to begin anew.
    """

    id: str
    local: str
    networks: tuple[str, ...]
    peer: str
    remotes: tuple[str, ...]
    psk: str = field(repr=False)
    version: str
    ike_policy: str
    esp_policy: str
    ike_lifetime: int = 86_400
    esp_lifetime: int = 3_600
    dpd: bool = False
    encap: bool = False
    passive: bool = False
    split: bool = False
    resets: int = 0


@dataclass(frozen=True, slots=True)
class VpnUser:
    """addVpnUser."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """createRemoteAccessVpn: clients reach the networks by IKEv2, as users with a password (EAP-MSCHAPv2), or by L2TP.

    :param local: the public address that they dial, ``networks`` what they may reach (CIDRs).
    :param first: first address that a client may get, ``last`` the last one.
    :param dns: the resolvers that clients are told.
    :param certificate: PEM, of the server, for this address; ``key`` its private key.
    :param psk: the pre-shared key of L2TP over IPsec; empty where that is not to be spoken.
    :param server: the address that L2TP clients see at the other end, outside of the clients' own.
    """

    id: str
    local: str
    networks: tuple[str, ...]
    first: str
    last: str
    certificate: str
    key: str = field(repr=False)
    dns: tuple[str, ...] = ()
    users: tuple[VpnUser, ...] = ()
    psk: str = field(default="", repr=False)
    server: str = ""
