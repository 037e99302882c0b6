"""Load balancers as clients see them."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.demo_zone import NOW
from systemvm import netns
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
EDITS = 20
COOKIE = "#!/bin/sh\nprintf 'Set-Cookie: KEEP=%s-%s\\r\\n\\r\\n' $(hostname) $$\nhostname\n"


def seen(world: World, url: str, times: int, *options: str) -> Counter[str]:
    """Count who answers."""
    return Counter(world.curl(url, *options) for _ in range(times))


def test_round_robin_takes_turns_and_a_guest_that_is_removed_gets_nothing(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 80)
    url = f"http://{ip['ipaddress']}/"
    until(lambda: world.curl(url))
    assert seen(world, url, 20) == {guest["name"]: 10 for guest in guests}
    world.api.removeFromLoadBalancerRule(id=rule["id"], virtualmachineids=guests[0]["id"], **NOW)
    assert seen(world, url, 6) == {guests[1]["name"]: 6}
    world.api.deleteLoadBalancerRule(id=rule["id"], **NOW)
    assert not world.ask(ip["ipaddress"], 80, seconds=0.4)


def test_the_source_chooses_the_guest_and_the_algorithm_can_be_changed(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 80, algorithm="source")
    url = f"http://{ip['ipaddress']}/"
    sources = [f"198.51.100.{number}" for number in range(1, 9)]
    until(lambda: world.curl(url))
    chosen = [seen(world, url, 3, "--interface", source) for source in sources]
    assert all(len(answers) == 1 for answers in chosen)
    assert set().union(*chosen) == {guest["name"] for guest in guests}
    world.api.updateLoadBalancerRule(id=rule["id"], algorithm="leastconn", **NOW)
    for guest in guests:
        _program(world, guest, "slow", "#!/bin/sh\nsleep 1\nprintf '\\r\\n'\nhostname\n")
    with ThreadPoolExecutor(1) as thread:
        busy = thread.submit(world.curl, f"{url}cgi-bin/slow")
        until(lambda: any("slow" in world.run(f"vm/{guest['name']}", "ps").stdout for guest in guests))
        least = seen(world, url, 6)
        assert not busy.done()
        assert set(least) == {guest["name"] for guest in guests} - {busy.result()}


@pytest.mark.parametrize("method", ["LbCookie", "AppCookie"])
def test_a_cookie_sticks(world: World, net, guests, method, tmp_path):
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 80)
    params = [{"name": "cookie-name", "value": "KEEP"}]
    made = world.api.createLBStickinessPolicy(lbruleid=rule["id"], methodname=method, name="keep", param=params, **NOW)
    (policy,) = made["stickinesspolicies"]["stickinesspolicy"]
    url, jar = f"http://{ip['ipaddress']}/", str(tmp_path / "jar")
    if method == "AppCookie":
        for guest in guests:
            _program(world, guest, "login", COOKIE)
        url += "cgi-bin/login"
    until(lambda: world.curl(url))
    first = world.curl(url, "-c", jar)
    assert seen(world, url, 8, "-b", jar) == {first: 8}
    assert len(seen(world, url, 8)) == 2, "without the cookie they take turns"
    world.api.deleteLBStickinessPolicy(id=policy["id"], **NOW)
    assert len(seen(world, url, 8, "-b", jar)) == 2


def _program(world: World, guest, name: str, text: str) -> None:
    """Have the guest's web server run a text as /cgi-bin/NAME."""
    make = f"mkdir -p /www/cgi-bin && printf '%s' \"$0\" >/www/cgi-bin/{name} && chmod 755 /www/cgi-bin/{name}"
    assert world.run(f"vm/{guest['name']}", "sh", "-c", make, text).returncode == 0


def test_a_source_sticks(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 80)
    world.api.createLBStickinessPolicy(lbruleid=rule["id"], methodname="SourceBased", name="keep", **NOW)
    url = f"http://{ip['ipaddress']}/"
    until(lambda: world.curl(url))
    for source in ("198.51.100.1", "198.51.100.2", "198.51.100.3"):
        assert len(seen(world, url, 5, "--interface", source)) == 1


def test_a_guest_that_fails_its_check_is_shown_and_left_alone_until_it_is_well(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 80)
    checks = {"pingpath": "/", "intervaltime": 2, "responsetimeout": 1, "healthythreshold": 1, "unhealthythreshold": 1}
    world.api.createLBHealthCheckPolicy(lbruleid=rule["id"], **checks, **NOW)
    url, (well, ill) = f"http://{ip['ipaddress']}/", guests
    until(lambda: set(_states(world, rule).values()) == {"UP"}, 15)
    world.run(f"vm/{ill['name']}", "killall", "httpd")
    until(lambda: _states(world, rule) == {well["name"]: "UP", ill["name"]: "DOWN"}, 15)
    assert seen(world, url, 6) == {well["name"]: 6}
    world.run(f"vm/{ill['name']}", "httpd", "-p", "80", "-h", "/www")
    until(lambda: set(_states(world, rule).values()) == {"UP"}, 15)
    until(lambda: len(seen(world, url, 4)) == 2)


def _states(world: World, rule) -> dict[str, str]:
    found = world.api.listLoadBalancerRuleInstances(id=rule["id"], lbvmips=True)["lbrulevmidip"]
    return {
        item["loadbalancerruleinstance"]["name"]: item["loadbalancerruleinstance"].get("servicestate") for item in found
    }


def chain() -> tuple[str, str, str, str]:
    """Return PEM texts: a certificate for ``lb.example``, its issuer, the root above that, and the key."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = ["root.example", "issuer.example", "lb.example"]
    subjects = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in names]
    made, now = [], datetime.now(UTC)
    for level, name in enumerate(names):
        above = max(level - 1, 0)
        builder = x509.CertificateBuilder().subject_name(subjects[level]).issuer_name(subjects[above])
        builder = builder.serial_number(level + 1).public_key(keys[level].public_key())
        builder = builder.add_extension(x509.BasicConstraints(level < 2, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made.append(builder.sign(keys[above], hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return made[2], made[1], made[0], keys[2].private_bytes(serialization.Encoding.PEM, *form).decode()


def test_tls_ends_at_the_balancer_with_the_uploaded_chain(world: World, net, guests, tmp_path):
    certificate, issuer, root, key = chain()
    texts = {"certificate": certificate, "certchain": f"{issuer}{root}", "privatekey": key}
    uploaded = world.api.uploadSslCert(name="lb", **texts)["sslcert"]
    assert key not in str(world.api.listSslCerts(certid=uploaded["id"]))
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 443, sslprotocol="ssl", protocol="ssl", publicport=443)
    world.api.assignCertToLoadBalancer(lbruleid=rule["id"], certid=uploaded["id"], **NOW)
    (tmp_path / "root.pem").write_text(root)
    to = ("--resolve", f"lb.example:443:{ip['ipaddress']}", "--cacert", str(tmp_path / "root.pem"))
    assert until(lambda: world.curl("https://lb.example/", *to)) in {guest["name"] for guest in guests}
    assert world.curl(f"https://{ip['ipaddress']}/") == "", "nobody else signs for it"
    said = world.beside("internet", "openssl", "s_client", "-connect", f"{ip['ipaddress']}:443", "-showcerts").stdout
    assert "issuer.example" in said
    assert "used by" in world.refused("deleteSslCert", id=uploaded["id"])
    world.api.removeCertFromLoadBalancer(lbruleid=rule["id"], **NOW)
    world.api.deleteSslCert(id=uploaded["id"])


def test_edits_lose_no_request(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.balance(ip, guests, 80)
    url = f"http://{ip['ipaddress']}/"
    until(lambda: world.curl(url))
    answers: Counter[str] = Counter()
    done = threading.Event()

    def load() -> None:
        with netns.entered(world.space("internet")):
            while not done.is_set():
                try:
                    with httpx.Client(timeout=5) as client:
                        answers[client.get(url).text.strip()] += 1
                except httpx.HTTPError as error:
                    answers[f"failed: {error!r}"] += 1

    clients = [threading.Thread(target=load) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for number in range(EDITS // 2):
            algorithm = ("leastconn", "source", "roundrobin")[number % 3]
            world.api.updateLoadBalancerRule(id=rule["id"], algorithm=algorithm, **NOW)
            member = {"id": rule["id"], "virtualmachineids": guests[0]["id"]}
            command = world.api.assignToLoadBalancerRule if number % 2 else world.api.removeFromLoadBalancerRule
            command(**member, **NOW)
    finally:
        done.set()
        for client in clients:
            client.join()
    assert set(answers) == {guest["name"] for guest in guests}, answers
    assert answers.total() > EDITS
