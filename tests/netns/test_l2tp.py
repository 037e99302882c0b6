"""L2TP over IPsec: a client with real daemons dials in, reaches a guest, and is cut off when its user is removed.

Where this kernel has no ESP or no PPP, these same tests run in a User-Mode Linux, whose kernel has both, but no packet
filter (nf_tables without IPv4): there, no test shows that the filter lets the right packets pass.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.ipsec import VpnUser
from systemvm import netns
from systemvm.services import l2tp, xl2tpd
from systemvm.services.charon import Charon
from systemvm.services.kinds import KINDS
from tests.netns.l2tp_lab import L2tpClient
from tests.netns.router_lab import ping
from tests.netns.test_vpn_clients import ACCESS, ANNA, BOB, authority, server, wanted
from tests.netns.test_vpn_clients import lab as clients_lab
from tests.netns.vpn_lab import ADDRESS, Wire, ports, until

__all__ = ["authority", "clients_lab", "server", "wanted"]
pytestmark = pytest.mark.netns
GUEST, OWN, PSK = "10.1.1.5", "203.0.113.9", 'a "pre-shared" key'
LACKS = l2tp.missing("")
INSIDE = "uml_init.sh" in Path("/proc/cmdline").read_text()
UML = None if INSIDE else shutil.which("linux.uml")
real = pytest.mark.skipif(bool(LACKS), reason=f"{LACKS}; test_it_works_in_user_mode_linux runs it there")


@pytest.fixture
def kinds():
    services = [one for one in KINDS["router"] if not INSIDE or one.name in ("links", "strongswan", "xl2tpd")]
    return {"router": tuple(services)}


@pytest.fixture
def lab(clients_lab):
    return clients_lab


@pytest.fixture
def client(lab, tmp_path):
    folder = tmp_path / "client"
    folder.mkdir()
    client = L2tpClient(lab.client, folder)
    yield client
    client.stop()
    for log in (*folder.rglob("*.log"), *tmp_path.rglob("run/xl2tpd.log")):
        print(log.name, log.read_text(errors="replace")[-2500:])


@pytest.fixture
def spoken(wanted):
    """What is wanted of a router whose clients may come by L2TP too."""

    def make(*users, psk=PSK, **more):
        found = wanted(*users, **more)
        return replace(found, remote_access=replace(found.remote_access, psk=psk, server="10.1.2.1"))

    return make


def states(lab):
    return dict(lab.applier.observe(lab.bundles["a"]).states)


def reaches(lab, address, timeout=2):
    try:
        return ping(lab.client, GUEST, source=address, timeout=timeout)
    except OSError:
        return False


def connections(lab):
    with Charon(lab.applier.place(lab.bundles["a"])).session() as session:
        return {name.decode() for name in session.get_conns()["conns"]}


@pytest.mark.skipif(not LACKS, reason="this kernel has ESP and PPP")
def test_a_host_that_cannot_says_so_and_speaks_ikev2(lab, spoken):
    assert lab.apply(spoken(ANNA)).status == "applied"
    assert states(lab) == {ACCESS: LACKS}
    assert re.search(r"this host's kernel has no .*: L2TP is off, IKEv2 works", LACKS)
    assert connections(lab) == {ACCESS}
    with Charon(lab.applier.place(lab.bundles["a"])).session() as session:
        assert int(session.get_pools()[ACCESS]["size"]) == 7  # the whole range is IKEv2's
    place = lab.applier.place(lab.bundles["a"])
    assert not (place.folder / "run/xl2tpd.pid").exists()
    assert "failed" not in {check for check, reason in lab.applier.observe(lab.bundles["a"]).health if reason}


@real
def test_a_client_reaches_a_guest_and_is_cut_off_with_its_user(lab, client, spoken):
    outcome = lab.apply(spoken(ANNA, BOB))
    assert outcome.status == "applied", outcome
    assert states(lab) == {ACCESS: xl2tpd.RUNNING}
    assert connections(lab) == {ACCESS, f"{ACCESS}-l2tp"}
    assert client.secure(ADDRESS["a"], OWN, PSK)
    wire = Wire(lab)
    client.dial(ADDRESS["a"], "anna", ANNA.password)
    address = client.connected()
    assert address == "10.1.2.6"  # the upper half is L2TP's
    assert reaches(lab, address)
    assert ping(lab.client, "10.1.1.1", source=address, timeout=2)
    assert ping(lab.guest("a"), address, timeout=2)
    seen = [(protocol, payload) for _, _, protocol, payload in wire.packets()]
    wire.close()
    assert any(protocol == 50 for protocol, _ in seen)  # ESP, and never L2TP in clear text
    assert not [payload for protocol, payload in seen if protocol == 17 and 1701 in ports(payload)]
    assert states(lab) == {ACCESS: xl2tpd.RUNNING, f"{ACCESS}/anna": "Connected"}
    pid = xl2tpd._daemon(lab.applier.place(lab.bundles["a"])).pid()
    began = time.monotonic()
    assert lab.apply(spoken(BOB)).status == "applied"
    until(lambda: not reaches(lab, address, 0.2), 5)
    assert time.monotonic() - began < 5
    assert states(lab) == {ACCESS: xl2tpd.RUNNING}
    time.sleep(3)  # it dials again meanwhile, and is refused
    assert not client.address()
    assert pid == xl2tpd._daemon(lab.applier.place(lab.bundles["a"])).pid()


@real
def test_another_users_change_cuts_nobody_off_and_a_new_password_does(lab, client, spoken):
    assert lab.apply(spoken(ANNA, BOB)).status == "applied"
    assert client.secure(ADDRESS["a"], OWN, PSK)
    client.dial(ADDRESS["a"], "anna", ANNA.password)
    address = client.connected()
    assert lab.apply(spoken(ANNA)).status == "applied"
    assert lab.applier.ensure(lab.bundles["a"]) == []
    assert reaches(lab, address)
    lab.apply(spoken(VpnUser("anna", "An0ther@pw")))
    until(lambda: not reaches(lab, address, 0.2), 5)


@real
def test_a_wrong_key_lets_nobody_in(lab, client, spoken):
    assert lab.apply(spoken(ANNA)).status == "applied"
    assert not client.secure(ADDRESS["a"], OWN, "another key")


@real
@pytest.mark.skipif(INSIDE, reason="this kernel has no packet filter")
def test_a_closed_firewall_lets_nobody_in(lab, client, spoken):
    assert lab.apply(spoken(ANNA, opened=False)).status == "applied"
    assert not client.secure(ADDRESS["a"], OWN, PSK)


@pytest.mark.skipif(INSIDE, reason="this kernel has no packet filter")
def test_l2tp_in_clear_text_comes_and_goes_nowhere(lab, spoken):
    assert lab.apply(spoken(ANNA)).status == "applied"
    with netns.entered(lab.router("a")):
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(lab.client):
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside, outside:
        inside.settimeout(0.5)
        outside.settimeout(0.5)
        if not LACKS:
            lab.apply(spoken(ANNA))
            xl2tpd._daemon(lab.applier.place(lab.bundles["a"])).stop()
        inside.bind((ADDRESS["a"], 1701))
        outside.bind((OWN, 1701))
        wire = Wire(lab)
        for port in (1701, 500):  # the port of IKE shows that the way itself is open
            outside.sendto(b"hello", (ADDRESS["a"], port))
        with pytest.raises(TimeoutError):
            inside.recv(100)
        with pytest.raises(OSError, match="not permitted"):
            inside.sendto(b"hello", (OWN, 1701))
        seen = [(source, ports(payload)) for source, _, protocol, payload in wire.packets() if protocol == 17]
        assert {port for source, (_, port) in seen if source == OWN} == {1701, 500}
        assert not [1 for source, (port, _) in seen if source == ADDRESS["a"] and port == 1701]
        wire.close()


@real
def test_the_daemon_comes_back_and_goes_with_the_vpn(lab, spoken):
    assert lab.apply(spoken(ANNA)).status == "applied"
    daemon = xl2tpd._daemon(lab.applier.place(lab.bundles["a"]))
    daemon.signal(signal.SIGKILL)
    until(lambda: daemon.pid() is None)
    assert ("xl2tpd", "repaired: xl2tpd was not there and was started") in lab.applier.ensure(lab.bundles["a"])
    lab.apply(spoken(ANNA, psk=""))
    assert daemon.pid() is None
    assert connections(lab) == {ACCESS}


@pytest.mark.skipif(not LACKS, reason="this kernel has ESP and PPP: the tests ran on it")
@pytest.mark.skipif(UML is None, reason="there is no linux.uml (package user-mode-linux)")
@pytest.mark.timeout(300)
def test_it_works_in_user_mode_linux(tmp_path):
    """Run the tests above in a kernel that has ESP and PPP, on this machine's own files (which it cannot change)."""
    root = Path(__file__).parents[2]
    words = [
        "mem=512M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "con=null", "con0=fd:0,fd:1",
        f"init={root}/tests/netns/uml_init.sh", f"home={root}", f"python={sys.executable}",
        "test=tests/netns/test_l2tp.py", f"umid=t{os.getpid()}", f"uml_dir={tmp_path}",
    ]  # fmt: skip
    process = subprocess.Popen(
        [UML, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, errors="replace",
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=280)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    print(said)
    assert re.search(r"\b4 passed, 4 skipped", said), said[-6000:]
