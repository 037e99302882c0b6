"""haproxy's configuration as values, and what its runtime API can make of a difference."""

from dataclasses import replace

import pytest

from drivers.balancing import Certificate, HealthCheck, Member, Stickiness
from drivers.network.virtual_router import VirtualRouter
from systemvm.services import balancers
from tests.golden.router.cases import PEM, appliance, balancer, network, uid

CONF = "haproxy/haproxy.cfg"
A, B, C = (Member(uid(3, number), f"10.1.1.{number}") for number in (5, 6, 7))
NAME = uid(10, 1)


def files(*rules):
    router = VirtualRouter()
    found = router.render(router.plan(appliance(network(balancers=rules))))[0]
    return {file.path: file.content for file in found if file.service == "haproxy"}


def due(old, new, there=None):
    return balancers.difference(files(*old), files(*new), CONF, there or {})


def rule(*members, **more):
    return replace(balancer(1, 80, members=members), **more)


def server(member):
    return f"{NAME}/{member.id}-{member.address}"


def test_the_rendered_file_is_read_whole():
    text = files(rule(A, B._replace(weight=7)), balancer(6, 8083, algorithm="source"))[CONF]
    sections = balancers.read(text)
    assert list(sections) == ["global", "defaults", f"listen {NAME}", f"listen {uid(10, 6)}"]
    first = sections[f"listen {NAME}"]
    assert first.balance == "roundrobin"
    assert first.common == ("check", "inter", "2s", "rise", "2", "fall", "3")
    assert first.servers == {
        f"{A.id}-{A.address}": balancers.Server("10.1.1.5:8001", 1, ()),
        f"{B.id}-{B.address}": balancers.Server("10.1.1.6:8001", 7, ()),
    }


def test_nothing_is_to_be_done_where_nothing_differs():
    assert due([rule(A, B)], [rule(B, A)]) == balancers.Difference((), ())


def test_a_weight_is_set():
    steps = due([rule(A, B)], [rule(A, B._replace(weight=0))]).steps
    assert [step.command for step in steps] == [f"set server {server(B)} weight 0"]


def test_a_server_is_taken_up_with_all_that_its_neighbours_have():
    common = {"health": HealthCheck("/ping", 5, 2, 2, 4), "settings": (("server.maxconn", "10"),)}
    steps = due([rule(A, **common)], [rule(A, B._replace(weight=3), **common)]).steps
    assert [step.command for step in steps] == [
        f"add server {server(B)} 10.1.1.6:8001 check inter 5s rise 2 fall 4 maxconn 10 weight 3",
        f"enable health {server(B)}",
        f"enable server {server(B)}",
    ]


def test_one_that_leaves_gets_nothing_new_and_may_come_back():
    gone = due([rule(A, B)], [rule(A)])
    assert gone == balancers.Difference((balancers.Step(f"set server {server(B)} state maint"),), (server(B),))
    there = {server(A): "10.1.1.5:8001", server(B): "10.1.1.6:8001"}
    back = due([rule(A)], [rule(A, B._replace(weight=2))], there)
    assert [step.command for step in back.steps] == [
        f"set server {server(B)} weight 2", f"set server {server(B)} state ready"]  # fmt: skip
    assert due([rule(A)], [rule(A, B)], there | {server(B): "10.1.1.6:9"}) is None


def test_a_certificate_is_put_in_the_others_place():
    def tls(text):
        pem = PEM.format("CERTIFICATE").replace("MIIB", text)
        return rule(A, protocol="ssl", certificate=Certificate("c", pem, "", PEM.format("PRIVATE KEY")))

    path = f"haproxy/certs/{NAME}.pem"
    steps = due([tls("AAAA")], [tls("BBBB")]).steps
    assert steps[0].command.startswith(f"set ssl cert {path} <<\n-----BEGIN CERTIFICATE-----\nBBBB\n")
    assert "\n\n" not in steps[0].command.strip()
    assert steps[1] == balancers.Step(f"commit ssl cert {path}", "Success")


COOKIE = {"stickiness": Stickiness("a", "LbCookie", (("cookie-name", "KEEP"),))}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([rule(A)], [rule(A, algorithm="leastconn")]),
        ([rule(A)], [rule(A, port=81)]),
        ([rule(A)], [rule(A), balancer(2, 81)]),
        ([rule(A), balancer(2, 81)], [rule(A)]),
        ([rule(A)], [rule(A, private_port=9)]),
        ([rule(A)], [rule(A, health=HealthCheck("/", 5, 2, 2, 4))]),
        ([rule(A)], [rule(A, settings=(("maxconn", "7"),))]),
        ([rule(A)], [rule(A, **COOKIE)]),
        ([rule(A, **COOKIE)], [rule(A, B, **COOKIE)]),
        ([rule(A, B, algorithm="source")], [rule(A, B._replace(weight=2), algorithm="source")]),
        ([rule(A, algorithm="source")], [rule(A, B, algorithm="source")]),
    ],
)
def test_the_rest_asks_for_a_reload(old, new):
    assert due(old, new) is None


def test_a_sticky_rule_loses_a_server_without_a_reload():
    assert due([rule(A, B, **COOKIE)], [rule(A, **COOKIE)]).leaving == (server(B),)
