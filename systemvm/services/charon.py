"""charon: the IKE daemon of one target, with its own configuration and control socket in the target's folder.

ESP is the kernel's work where the kernel knows it. Where it does not, the daemon does it itself (kernel-libipsec)
behind a TUN device, and what is to be tunnelled is routed there by us: a tunnel that is down then drops, and never
leaks. What connections it has is told over its socket (vici), never by a file and a restart.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_network

import vici
from pyroute2 import IPRoute
from vici.exception import SessionException

from systemvm import netns
from systemvm.daemon import Daemon
from systemvm.services import Place

DEVICE = "ipsec0"
"""The TUN device of the daemon's own ESP."""
TABLE = PRIORITY = 220
"""Routing table of what goes into tunnels, and the priority of the rules that lead to it: strongSwan's own numbers."""
_PROTOCOL = 220
_START = 10.0
_ANSWER = 30.0
_MOST_LOG = 4 << 20
_PLUGINS = (
    "aes des md5 sha1 sha2 sha3 md4 random nonce x509 revocation constraints pubkey pkcs1 pkcs8 pem openssl curve25519 "
    "gmp hmac kdf mgf1 gcm ctr cmac xcbc chapoly {kernel} socket-default eap-identity eap-mschapv2 attr vici"
)
_CONF = """\
charon-systemd {{
  load = {plugins}
  install_routes = no
  install_virtual_ip = no
  # An attempt is given up after 16 seconds: a peer that comes up later is not kept waiting.
  retransmit_timeout = 2
  retransmit_base = 1.5
  retransmit_tries = 3
  journal {{
    default = -1
  }}
  filelog {{
    stderr {{
      default = 0
      ike = 1
      ike_name = yes
    }}
  }}
  plugins {{
    socket-default {{
      use_ipv6 = no
    }}
    kernel-libipsec {{
      allow_peer_ts = yes
    }}
    vici {{
      socket = unix://charon.vici
    }}
  }}
}}
"""
_ALGORITHMS = {
    "aes": "AES_CBC",
    "3des": "3DES_CBC",
    "gcm": "AES_GCM_16",
    "chacha20poly1305": "CHACHA20_POLY1305",
    "md5": "HMAC_MD5_96",
    "sha1": "HMAC_SHA1_96",
    "sha256": "HMAC_SHA2_256_128",
    "sha384": "HMAC_SHA2_384_192",
    "sha512": "HMAC_SHA2_512_256",
    "prfmd5": "PRF_HMAC_MD5",
    "prfsha1": "PRF_HMAC_SHA1",
    "prfsha256": "PRF_HMAC_SHA2_256",
    "prfsha384": "PRF_HMAC_SHA2_384",
    "prfsha512": "PRF_HMAC_SHA2_512",
    "curve25519": "CURVE_25519",
}


class Charon:
    """The daemon of one target.

    :raises OSError: of every method that asks it something: nobody answers on its socket.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.run = place, place.folder / "run"
        self.daemon = Daemon("charon", place.namespace, self.run)

    def start(self) -> None:
        """Start it anew and wait until it answers.

        :raises RuntimeError: it did not come up; the sentence holds its own words.
        """
        self.daemon.stop()
        self.run.mkdir(parents=True, exist_ok=True)
        kernel = "kernel-netlink" if kernel_has_esp(self.place.namespace) else "kernel-libipsec kernel-netlink"
        conf = self.run / "strongswan.conf"
        conf.write_text(_CONF.format(plugins=_PLUGINS.format(kernel=kernel)), encoding="ascii")
        (self.run / "charon.vici").unlink(missing_ok=True)
        program = shutil.which("charon-systemd") or "/usr/sbin/charon-systemd"
        pid = self.daemon.start(["env", f"STRONGSWAN_CONF={conf}", program], self.run)
        deadline = time.monotonic() + _START
        while not self.answers():
            if self.daemon.pid() != pid or time.monotonic() > deadline:
                reason = self.daemon.said() or "it did not come up"
                self.daemon.stop()
                raise RuntimeError(f"charon did not start: {reason}")
            time.sleep(0.005)

    def answers(self) -> bool:
        """Tell whether it runs and answers."""
        if self.daemon.pid() is None:
            return False
        with suppress(OSError, SessionException), self.session() as session:
            session.version()
            return True
        return False

    @contextmanager
    def session(self) -> Iterator[vici.Session]:
        """Talk to it. The socket's path may be longer than an address can be, so its folder is named by a number."""
        folder = os.open(self.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            line = socket.socket(socket.AF_UNIX)
            with line:
                line.settimeout(_ANSWER)
                line.connect(f"/proc/self/fd/{folder}/charon.vici")
                yield vici.Session(line)
        finally:
            os.close(folder)

    def trim_log(self) -> None:
        """Empty its log when it has grown large: strangers may make it speak as often as they like."""
        with suppress(OSError):
            if self.daemon.log.stat().st_blocks * 512 > _MOST_LOG:
                os.truncate(self.daemon.log, 0)

    def addresses(self) -> frozenset[str]:
        """Return the IPv4 addresses that the target's interfaces have."""
        with netns.netlink(self.place.namespace) as ip:
            return frozenset(entry.get_attr("IFA_LOCAL") for entry in ip.get_addr(family=socket.AF_INET))

    def set_routes(self, sources: Sequence[str], destinations: Sequence[str]) -> list[str]:
        """Lead what comes from ``sources`` and goes to ``destinations`` (CIDRs) into the daemon's own ESP.

        Where the kernel does ESP, its policies take the packets and nothing is to be led. Only these sources look into
        the table, so the daemon's own packets to a peer never go round in it.

        :return: what was changed.
        """
        with netns.netlink(self.place.namespace) as ip:
            devices = ip.link_lookup(ifname=DEVICE)
            done = _addresses(ip, devices[0], sources) if devices else []
            done += _routes(ip, devices[0], destinations) if devices else []
            return done + _rules(ip, sources if devices else ())


def _addresses(ip: IPRoute, device: int, sources: Sequence[str]) -> list[str]:
    """Have an own address in each source: without one the daemon refuses to tunnel for it, though it routes nothing.

    It is the block's very first, which no guest and no gateway can have.
    """
    goal = {str(ip_network(item).network_address) for item in sources}
    there = {entry.get_attr("IFA_LOCAL") for entry in ip.get_addr(index=device, family=socket.AF_INET)}
    for change, items in (("del", there - goal), ("add", goal - there)):
        for item in items:
            ip.addr(change, index=device, address=item, prefixlen=32)
    return [f"tunnel address {item}" for item in sorted(goal ^ there)]


def _routes(ip: IPRoute, device: int, destinations: Sequence[str]) -> list[str]:
    goal = {str(ip_network(item)) for item in destinations}
    found = ip.get_routes(family=socket.AF_INET, table=TABLE, proto=_PROTOCOL)
    there = {f"{entry.get_attr('RTA_DST')}/{entry['dst_len']}" for entry in found}
    for to in there - goal:
        ip.route("del", dst=to, table=TABLE, proto=_PROTOCOL, oif=device)
    for to in goal - there:
        ip.route("replace", dst=to, table=TABLE, proto=_PROTOCOL, oif=device)
    return [f"tunnel route {to}" for to in sorted(goal ^ there)]


def _rules(ip: IPRoute, sources: Sequence[str]) -> list[str]:
    goal = {str(ip_network(item)) for item in sources}
    found = ip.get_rules(family=socket.AF_INET, priority=PRIORITY)
    there = {f"{entry.get_attr('FRA_SRC')}/{entry['src_len']}" for entry in found}
    for change, items in (("del", there - goal), ("add", goal - there)):
        for item in items:
            source, _, length = item.partition("/")
            if source == "None":  # from all: the daemon's own default
                ip.rule(change, priority=PRIORITY, table=TABLE)
            else:
                ip.rule(change, priority=PRIORITY, table=TABLE, src=source, src_len=int(length))
    return [f"tunnel rule {item}" for item in sorted(goal ^ there)]


_esp: dict[str, bool] = {}


def kernel_has_esp(namespace: str, mode: str = "tunnel") -> bool:
    """Tell whether the kernel does ESP: it is asked once to keep an association that nobody uses (ip-xfrm(8)).

    :param mode: ``tunnel`` or ``transport``.
    """
    if mode not in _esp:
        name = ["src", "127.0.0.1", "dst", "127.0.0.2", "proto", "esp", "spi", "0xfffffff1"]
        keys = ["enc", "cbc(aes)", f"0x{'01' * 16}", "auth", "hmac(sha256)", f"0x{'02' * 32}"]
        try:
            netns.run(namespace, ["ip", "xfrm", "state", "add", *name, "mode", mode, *keys])
            netns.run(namespace, ["ip", "xfrm", "state", "delete", *name])
            _esp[mode] = True
        except (OSError, RuntimeError):
            _esp[mode] = False
    return _esp[mode]


def impossible(proposals: Sequence[str], algorithms: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the words of these proposals (``aes128-sha1-modp1536``) that the daemon has no algorithm for.

    :param algorithms: as the daemon lists them (vici, get-algorithms).
    """
    known = set().union(*(set(names) for names in algorithms.values()))
    words = sorted({word for proposal in proposals for word in proposal.split("-")})
    return [word for word in words if _algorithm(word) not in known]


def _algorithm(word: str) -> str:
    group = re.fullmatch(r"(modp|ecp)(\d+)", word)
    if group:
        return f"{group[1].upper()}_{group[2]}"
    cipher = re.fullmatch(r"aes(?:128|192|256)(gcm16)?", word)
    if cipher:
        return _ALGORITHMS["gcm" if cipher[1] else "aes"]
    return _ALGORITHMS.get(word, word)


def text(value: bytes | str) -> str:
    """Return a value of vici, which are bytes, as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
