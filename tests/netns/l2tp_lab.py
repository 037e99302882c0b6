"""An L2TP client: an IKE daemon with a pre-shared key (IKEv1, transport mode), xl2tpd and pppd, in a namespace."""

import re
from pathlib import Path

from vici.exception import CommandException

from systemvm import netns
from systemvm.daemon import Daemon
from systemvm.services import HostSettings, Place
from systemvm.services.charon import Charon
from systemvm.services.xl2tpd import _COMMAND
from tests.netns.vpn_lab import until

_CONF = """[global]
port = 1701
[lac home]
lns = {server}
pppoptfile = /etc/ppp/options.xl2tpd
autodial = yes
redial = yes
redial timeout = 1
"""
_OPTIONS = 'name "{user}"\nnoauth\nnoccp\nnodefaultroute\nmtu 1280\nmru 1280\n'


class L2tpClient:
    def __init__(self, namespace, folder):
        self.namespace, self.folder = namespace, folder
        self.charon = Charon(Place("client", namespace, folder, HostSettings("c", "", "", folder)))
        self.daemon = Daemon("xl2tpd", namespace, folder / "run")

    def secure(self, server, own, psk):
        """Have the association; return whether the server agreed."""
        self.charon.start()
        with self.charon.session() as session:
            session.load_shared({"type": "IKE", "data": psk, "owners": [own, server]})
            session.load_conn({"home": {
                "version": "1", "remote_addrs": [server], "local_addrs": [own], "proposals": ["aes256-sha1-modp2048"],
                "local": {"auth": "psk"}, "remote": {"auth": "psk", "id": server},
                "children": {"l2tp": {
                    "mode": "transport", "esp_proposals": ["aes128-sha1"],
                    "local_ts": ["dynamic[udp/1701]"], "remote_ts": ["dynamic[udp/1701]"],
                }},
            }})  # fmt: skip
            try:
                list(session.initiate({"child": "l2tp", "timeout": "8000", "loglevel": "1"}))
            except CommandException:
                return False
        return True

    def dial(self, server, user, password):
        """Begin to dial, again and again."""
        self.daemon.stop()
        folder = Path(self.folder, "ppp")
        folder.mkdir(exist_ok=True, mode=0o700)
        for old in folder.iterdir():
            old.unlink()
        for name, text in {
            "xl2tpd.conf": _CONF.format(server=server), "options.xl2tpd": _OPTIONS.format(user=user),
            "options": "", "chap-secrets": f'"{user}" * "{password}" *\n', "l2tp-secrets": "",
        }.items():  # fmt: skip
            (folder / name).write_text(text)
        self.daemon.start([word.format(folder=folder) for word in _COMMAND], folder)

    def address(self):
        """The address that the server gave; empty without a session."""
        said = netns.run(self.namespace, ["ip", "-4", "-o", "addr", "show"])
        found = re.search(r"ppp\d+ +inet ([0-9.]+) peer", said)
        return found[1] if found else ""

    def connected(self, to="10.1.1.0/24"):
        """Wait for a session and lead ``to`` through it; return the own address."""
        address = until(self.address, 30)
        netns.run(self.namespace, ["ip", "route", "replace", to, "dev", "ppp0", "src", address])
        return address

    def stop(self):
        self.daemon.stop()
        self.charon.daemon.stop()
