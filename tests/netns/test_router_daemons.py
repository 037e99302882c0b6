"""The rendered daemons at work: leases, names, and load balancing, asked for by real clients."""

import os
import signal
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import dns.message
import dns.query
import dns.reversename
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivers.balancing import Certificate, HealthCheck, Stickiness
from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import IngressRule
from systemvm import netns
from tests.golden.router.cases import ANY, FIRST, appliance, balancer, lease, network, uid
from tests.netns.router_lab import Lab, ask, fetch, until

pytestmark = pytest.mark.netns
OPEN = (IngressRule(uid(6, 1), FIRST, "tcp", 1, 65535, ANY),)


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    lab.remove()


def rendered(**more):
    router = VirtualRouter()
    return router.render(router.plan(appliance(network(**more))))


def dnsmasq(lab):
    folder = lab.folder / "current/dnsmasq"
    files = [
        f"--conf-file={folder}/dnsmasq.conf",
        f"--dhcp-hostsfile={folder}/dhcp-hosts",
        f"--addn-hosts={folder}/hosts",
        f"--dhcp-leasefile={lab.folder}/leases",
    ]
    process = lab.start(["dnsmasq", "--keep-in-foreground", "--pid-file=", *files])
    until(lambda: asked(lab, "data-server"))
    return process


def asked(lab, name, guest=""):
    """Return what the router answers for a name, or in reverse for an address; None when it does not answer."""
    message = dns.message.make_query(
        dns.reversename.from_address(name) if name[0].isdigit() else name, "PTR" if name[0].isdigit() else "A"
    )
    try:
        with netns.entered(guest or lab.g5):
            answer = dns.query.tcp(message, "10.1.1.1", timeout=1)
    except OSError:
        return None
    return [str(item) for record in answer.answer for item in record]


def leased(lab, guest):
    """Ask for a lease as a guest does and return what it is told; empty when nobody answers."""
    script = lab.folder / "lease.sh"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && env\nexit 0\n')
    script.chmod(0o755)
    words = ["busybox", "udhcpc", "-f", "-n", "-q", "-t2", "-T1", "-i", "eth0", "-Omtu", "-Ontpsrv", "-s", str(script)]
    with netns.entered(guest):
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_a_guest_is_told_its_address_and_all_that_goes_with_it(lab):
    lab.apply(rendered(mtu=1450, leases=(lease(5), lease(6, default=False, options=((42, "192.0.2.123"),)))))
    dnsmasq(lab)
    told = leased(lab, lab.g5)
    assert {key: told[key] for key in ("ip", "router", "dns", "domain", "mtu", "hostname", "subnet")} == {
        "ip": "10.1.1.5", "router": "10.1.1.1", "dns": "10.1.1.1", "domain": "cs1.example", "mtu": "1450",
        "hostname": "vm5", "subnet": "255.255.255.0",
    }  # fmt: skip
    other = leased(lab, lab.g6)
    assert (other["ip"], other["ntpsrv"]) == ("10.1.1.6", "192.0.2.123")
    assert "router" not in other


def test_names_and_leases_come_without_a_restart(lab):
    lab.apply(rendered(leases=(lease(5),)))
    process = dnsmasq(lab)
    assert leased(lab, lab.g5)["ip"] == "10.1.1.5"
    assert not leased(lab, lab.g6)
    assert asked(lab, "vm5.cs1.example") == ["10.1.1.5"]
    assert asked(lab, "10.1.1.5") == ["vm5.cs1.example."]
    assert asked(lab, "nobody.cs1.example") == []
    lab.write(rendered(leases=(lease(5), lease(6))))
    process.send_signal(signal.SIGHUP)
    assert until(lambda: asked(lab, "vm6")) == ["10.1.1.6"]
    assert leased(lab, lab.g6)["ip"] == "10.1.1.6"
    # Twice, with leases out: dnsmasq 2.90 falls here where a lease carries a tag.
    process.send_signal(signal.SIGHUP)
    assert until(lambda: asked(lab, "vm5")) == ["10.1.1.5"]
    assert process.poll() is None


def haproxy(lab, *rules, egress_allow=False, ingress=OPEN):
    lab.apply(rendered(balancers=rules, ingress=ingress, egress_allow=egress_allow))
    process = lab.start(["haproxy", "-W", "-f", "haproxy/haproxy.cfg"])
    until((lab.folder / "run/haproxy.sock").exists)
    until(lambda: netns.run(lab.router, ["ss", "-Hltn", "src", FIRST]))
    return process


def test_a_listener_shares_among_its_guests_and_counts_their_bytes(lab):
    for guest in (lab.g5, lab.g6):
        lab.serve(guest, 8001)
        lab.serve(guest, 8002)
    haproxy(
        lab,
        balancer(1, 8080, members=tuple(member._replace(weight=1) for member in balancer(1, 1).members)),
        balancer(2, 8081, sources=("198.51.100.0/24",)),
    )
    answers = [ask(lab.outside, FIRST, 8080) for _ in range(30)]
    assert sorted((answer[0], answer[2]) for answer in answers) == [("10.1.1.1", "g5")] * 15 + [("10.1.1.1", "g6")] * 15
    assert ask(lab.g5, FIRST, 8080), "hairpin"
    assert ask(lab.outside, FIRST, 8081) is None
    assert ask(lab.outside, FIRST, 8081, "198.51.100.7")
    network_id, address_id = uid(2, 1).replace("-", ""), uid(1, 1).replace("-", "")
    for way in ("in", "out"):
        assert lab.counter(f"{way}_{network_id}") == lab.counter(f"{way}_{address_id}") > 30 * 40


def test_a_listener_is_closed_until_ingress_opens_it(lab):
    lab.serve(lab.g5, 8001)
    haproxy(lab, balancer(1, 8080), ingress=(IngressRule(uid(6, 1), FIRST, "tcp", 1, 8079, ANY),))
    assert ask(lab.outside, FIRST, 8080) is None
    assert ask(lab.router, FIRST, 8080)


def test_cookies_and_sources_stick(lab):
    for guest in (lab.g5, lab.g6):
        for port in range(8001, 8005):
            lab.serve(guest, port, http=port != 8003)
    haproxy(
        lab,
        balancer(1, 8081, stickiness=Stickiness("a", "LbCookie", (("cookie-name", "KEEP"),))),
        balancer(2, 8082, stickiness=Stickiness("b", "AppCookie", (("cookie-name", "SESSION"),))),
        balancer(3, 8083, stickiness=Stickiness("c", "SourceBased")),
        balancer(4, 8084, stickiness=Stickiness("d", "AppCookie", (("cookie-name", "SESS"), ("prefix", "true")))),
    )
    first, cookie = fetch(lab.outside, FIRST, 8081)
    assert cookie.startswith("KEEP=")
    assert {fetch(lab.outside, FIRST, 8081, cookie=cookie)[0][2] for _ in range(8)} == {first[2]}
    assert len({fetch(lab.outside, FIRST, 8081)[0][2] for _ in range(8)}) == 2
    for port in (8082, 8084):
        first, cookie = fetch(lab.outside, FIRST, port, "/login")
        assert cookie.startswith("SESSION=")
        assert {fetch(lab.outside, FIRST, port, cookie=cookie)[0][2] for _ in range(8)} == {first[2]}
        assert len({fetch(lab.outside, FIRST, port)[0][2] for _ in range(8)}) == 2
    first, cookie = fetch(lab.outside, FIRST, 8082, "/login")
    path = "/x;" + cookie
    assert {fetch(lab.outside, FIRST, 8082, path)[0][2] for _ in range(8)} == {first[2]}
    assert len({ask(lab.outside, FIRST, 8083)[2] for _ in range(8)}) == 1


def test_what_sticks_survives_a_reload(lab):
    for guest in (lab.g5, lab.g6):
        lab.serve(guest, 8001, http=True)
    process = haproxy(lab, balancer(1, 8081, stickiness=Stickiness("b", "AppCookie", (("cookie-name", "SESSION"),))))
    clients = [fetch(lab.outside, FIRST, 8081, "/login") for _ in range(3)]
    assert {answer[2] for answer, _ in clients} == {"g5", "g6"}
    # haproxy looks for a predecessor for five seconds after its first start, and hands nothing on before it gave up.
    until(lambda: int(runtime(lab, "show peers").split("flags=")[1].split()[0], 16) & 3 == 3, 10)
    workers = _children(process.pid)
    os.kill(process.pid, signal.SIGUSR2)
    until(lambda: _children(process.pid) - workers and not _children(process.pid) & workers, 15)
    for answer, cookie in clients:
        assert {fetch(lab.outside, FIRST, 8081, cookie=cookie)[0][2] for _ in range(6)} == {answer[2]}


def runtime(lab, command):
    """Ask haproxy's runtime API."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(lab.folder / "run/haproxy.sock"))
        client.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def _children(pid):
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_a_dead_guest_leaves(lab):
    lab.serve(lab.g5, 8001, http=True)
    haproxy(lab, balancer(1, 80, health=HealthCheck("/alive", 1, 1, 1, 1)))
    until(lambda: {answer and answer[0][2] for answer in (fetch(lab.outside, FIRST, 80) for _ in range(6))} == {"g5"})
    answer, _ = fetch(lab.outside, FIRST, 80)
    assert "x-forwarded-for: 203.0.113.1" in answer[3].lower()


def certificate():
    """Return a certificate for ``lb.example`` signed by a new authority, and the context that trusts it."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "lb.example")]
    made = []
    for index, constraint in enumerate((x509.BasicConstraints(True, None), x509.BasicConstraints(False, None))):
        builder = x509.CertificateBuilder().subject_name(names[index]).issuer_name(names[0]).serial_number(index + 1)
        builder = builder.public_key(keys[index].public_key()).add_extension(constraint, critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("lb.example")]), critical=False)
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.create_default_context(cadata=made[0])
    return Certificate(uid(11, 1), made[1], made[0], key.decode()), context


def test_tls_ends_at_the_listener_with_the_uploaded_chain(lab):
    for guest in (lab.g5, lab.g6):
        lab.serve(guest, 8001, http=True)
    uploaded, context = certificate()
    haproxy(lab, balancer(1, 443, protocol="ssl", certificate=uploaded))
    answer, _ = fetch(lab.outside, FIRST, 443, context=context)
    assert "x-forwarded-proto: https" in answer[3].lower()


def test_the_source_is_told_by_the_proxy_protocol(lab):
    lab.serve(lab.g5, 8001, http=True)
    haproxy(lab, balancer(1, 8080, protocol="tcp-proxy", members=balancer(1, 1).members[:1]))
    answer, _ = fetch(lab.outside, FIRST, 8080)
    assert answer[3].startswith("PROXY TCP4 203.0.113.1 203.0.113.5 ")
