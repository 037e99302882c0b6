"""WireGuard in words: keys, what a peer may reach, and the configuration that its owner is handed. It reads no row."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, collapse_addresses

import segno
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from controlplane.errors import BadParameter
from controlplane.network import rule_text

PROTOCOLS = ("tcp", "udp", "icmp", "all")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@+-]{0,62}[A-Za-z0-9])?", re.ASCII)
IMAGES = {"svg": "image/svg+xml", "png": "image/png"}
MOST_PASSAGES = 200
_KEY_SIZE = 32
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", re.ASCII)
_ENDPOINT = re.compile(r"([0-9.]+):([0-9]{1,5})", re.ASCII)
_RESERVED = tuple(
    IPv4Network(block) for block in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
_FIELDS = {"cidr", "protocol", "startport", "endport", "icmptype", "icmpcode"}


def new_pair() -> tuple[str, str]:
    """Make a private key and return it with its public one, in base64 as wg(8) has them."""
    private = X25519PrivateKey.generate()
    return _text(private.private_bytes_raw()), _text(private.public_key().public_bytes_raw())


def new_shared() -> str:
    """Make a preshared key."""
    return _text(os.urandom(_KEY_SIZE))


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def key(value: str) -> str:
    """Return a key as the API takes it.

    :raises ValueError: it is none; the key itself is not told.
    """
    if not _KEY.fullmatch(value.strip()):
        raise ValueError("it must be 32 bytes in base64, as wg pubkey and wg genpsk print them")
    return value.strip()


def name(value: str) -> str:
    """Return the name of a peer.

    :raises ValueError: it has a letter that may not stand in a configuration.
    """
    if not NAME.fullmatch(value):
        raise ValueError(
            "it must be 1 to 64 letters, digits, spaces and . _ @ + -, with a letter or digit at both ends"
        )
    return value


def endpoint(value: str) -> str:
    """Return where a peer is called at; no text is nowhere.

    :raises ValueError: it is not an IPv4 address with a port.
    """
    if not value:
        return value
    found = _ENDPOINT.fullmatch(value)
    try:
        if found and 0 < int(found[2]) <= rule_text.LAST_PORT:
            return f"{IPv4Address(found[1])}:{int(found[2])}"
    except AddressValueError:
        pass
    raise ValueError("it must be an IPv4 address and a port such as 198.51.100.7:51820; leave it out where it calls")


def block(parameter: str, value: str) -> IPv4Network:
    """Return a CIDR that may be routed into a tunnel.

    :raises BadParameter: it is none, or lies in a range that is nobody's to route.
    """
    (text,) = rule_text.cidr_list(parameter, [value])
    found = IPv4Network(text)
    reserved = next((str(other) for other in _RESERVED if found.overlaps(other)), "")
    if reserved:
        raise BadParameter(f"Invalid parameter {parameter} value={value}: it overlaps {reserved}, which is reserved.")
    return found


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of a peer's list, as ``acl[n].…`` gives it; see :class:`drivers.wireguard.Passage`."""

    cidr: str
    protocol: str = "all"
    start: int = rule_text.ANY
    end: int = rule_text.ANY


def passages(
    cidrs: Sequence[str] | None, records: Sequence[dict[str, str]] | None, within: Sequence[IPv4Network]
) -> list[Allowed]:
    """Return what a peer may reach: all of these CIDRs, and what the records name of theirs.

    :param within: what can be reached at all; the first is what 0.0.0.0/0, or no list at all, stands for.
    :raises BadParameter: a line cannot be.
    """
    found = [Allowed(_reachable("cidrlist", cidr, within)) for cidr in rule_text.cidr_list("cidrlist", cidrs or [])]
    found += [_record(f"acl[{index}]", record, within) for index, record in enumerate(records or [])]
    if len(found) > MOST_PASSAGES:
        raise BadParameter(f"Invalid parameter acl: it has {len(found)} lines, and a peer takes {MOST_PASSAGES}.")
    return list(dict.fromkeys(found)) or [Allowed(str(within[0]))]


def _reachable(parameter: str, cidr: str, within: Sequence[IPv4Network]) -> str:
    if cidr == rule_text.EVERYONE:
        return str(within[0])
    if not any(IPv4Network(cidr).subnet_of(part) for part in within):
        reach = ", ".join(map(str, within))
        raise BadParameter(f"Invalid parameter {parameter} value={cidr}: it must lie in what the VPN reaches, {reach}.")
    return cidr


def _record(where: str, record: dict[str, str], within: Sequence[IPv4Network]) -> Allowed:
    if strange := sorted(set(record) - _FIELDS):
        known = ", ".join(sorted(_FIELDS))
        raise BadParameter(f"Invalid parameter {where}.{strange[0]}: a line of a peer's list has {known}.")
    (cidr,) = rule_text.cidr_list(f"{where}.cidr", [record.get("cidr", rule_text.EVERYONE)])
    protocol = rule_text.protocol(record.get("protocol", "all"), PROTOCOLS)
    ports, kinds = (_numbers(where, record, names) for names in (("startport", "endport"), ("icmptype", "icmpcode")))
    start, end = rule_text.ANY, rule_text.ANY
    if protocol == "icmp":
        start, end = rule_text.icmp(*kinds)
    elif protocol != "all" and ports[0] is not None:
        start, end = rule_text.port_range(f"{where}.startport", ports[0], f"{where}.endport", ports[1])
    unused = {"icmp": ("startport", "endport"), "all": tuple(_FIELDS - {"cidr", "protocol"})}
    for idle in unused.get(protocol, ("icmptype", "icmpcode")):
        if idle in record:
            raise BadParameter(f"Invalid parameter {where}.{idle} value={record[idle]}: protocol {protocol} has none.")
    if ports[0] is None and ports[1] is not None:
        raise BadParameter(f"Invalid parameter {where}.endport value={ports[1]}: it needs a startport.")
    return Allowed(_reachable(f"{where}.cidr", cidr, within), protocol, start, end)


def _numbers(where: str, record: dict[str, str], names: Sequence[str]) -> list[int | None]:
    found: list[int | None] = []
    for each in names:
        text = record.get(each)
        if text is not None and not re.fullmatch(r"-?[0-9]{1,5}", text, re.ASCII):
            raise BadParameter(f"Invalid parameter {where}.{each} value={text}: it must be a whole number.")
        found.append(None if text is None else int(text))
    return found


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a peer's owner needs, for wg-quick(8) and for the apps that read its QR code.

    :param private_key: empty where it is not here any more; ``preshared_key`` alike, or where there is none.
    :param listen: the UDP port that the peer is called at; 0 where it calls.
    :param reaches: CIDRs that go through the tunnel.
    """

    name: str
    address: str
    mtu: int
    public_key: str
    server: str
    reaches: tuple[str, ...]
    keepalive: int = 0
    listen: int = 0
    private_key: str = field(default="", repr=False)
    preshared_key: str = field(default="", repr=False)
    shares: bool = False

    def text(self) -> str:
        """Write it as wg-quick(8) reads it."""
        own = f"PrivateKey = {self.private_key}" if self.private_key else "# PrivateKey = (yours; it is not kept here)"
        interface = ["[Interface]", f"# {self.name}", own, f"Address = {self.address}/32", f"MTU = {self.mtu}"]
        if self.listen:
            interface.append(f"ListenPort = {self.listen}")
        peer = ["[Peer]", f"PublicKey = {self.public_key}"]
        if self.preshared_key:
            peer.append(f"PresharedKey = {self.preshared_key}")
        elif self.shares:
            peer.append("# PresharedKey = (it was handed out before, or given by you)")
        peer += [f"AllowedIPs = {', '.join(self.reaches)}", f"Endpoint = {self.server}"]
        if self.keepalive:
            peer.append(f"PersistentKeepalive = {self.keepalive}")
        return "\n".join([*interface, "", *peer]) + "\n"


def collapsed(cidrs: Iterable[str]) -> tuple[str, ...]:
    """Return CIDRs without those that lie in others, sorted."""
    return tuple(str(one) for one in collapse_addresses(IPv4Network(cidr) for cidr in cidrs))


def qr_code(text: str, kind: str) -> str:
    """Draw a text as a QR code (ISO/IEC 18004) and return the image in base64.

    :param kind: one of :data:`IMAGES`.
    """
    out = io.BytesIO()
    segno.make(text, error="l", micro=False).save(out, kind=kind, scale=4)
    return base64.b64encode(out.getvalue()).decode()
