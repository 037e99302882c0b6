"""Hosts that are not there: what they answer follows from seed, settings and bundle alone."""

import time

import pytest

from drivers.hypervisor.simulator import Simulator
from drivers.protocol import Hosted
from drivers.vocabulary import Guest, HostFacts, Nic, Segment
from systemvm.bundle import Bundle

NET = Segment("net", "stt://7", "Guest")


def guest(number, **more):
    nic = Nic(f"n{number}", "02:00:00:00:00:01", "net", "Guest", "10.1.1.2", 24, "", 0)
    return Guest(f"g{number}", f"i-2-{number}-VM", "vm", "", 1, 500, 64, (nic,), **more)


def bundle(*guests, target="h"):
    driver = Simulator()
    files, elements = driver.render(driver.plan(HostFacts(target, target, (NET,), guests, ())))
    return Bundle(target, target, driver.kind, 1, files, elements)


def failed(settings, what, address="http://sim/"):
    return {failure.unit for failure in Simulator().apply(address, settings, what).failures}


def test_it_is_a_hosted_driver():
    assert isinstance(Simulator(), Hosted)


def test_faults_are_drawn_by_the_seed_and_drawn_again_elsewhere():
    many = bundle(*(guest(number) for number in range(400)))
    some = failed({"fault_rate": "0.25", "seed": "1"}, many)
    assert 60 < len(some) < 140
    assert failed({"fault_rate": "0.25", "seed": "1"}, many) == some
    assert failed({"fault_rate": "0.25", "seed": "2"}, many) != some
    elsewhere = bundle(*(guest(number) for number in range(400)), target="h2")
    assert failed({"fault_rate": "0.25", "seed": "1"}, elsewhere) != some
    again = bundle(*(guest(number, boot=1) for number in range(400)))
    assert failed({"fault_rate": "0.25", "seed": "1"}, again) != some
    assert failed({}, many) == set()
    assert len(failed({"fault_rate": "1"}, many)) == 400


def test_named_guests_fail_and_are_seen_stopped():
    what = bundle(guest(1), guest(2), guest(3), guest(4, running=False))
    settings = {"fail_guests": "g1, i-2-3-VM"}
    assert failed(settings, what) == {"g1", "g3"}
    assert failed({"fail_guests": "*"}, what) == {"g1", "g2", "g3"}
    states = dict(Simulator().observe("", settings, what).states)
    assert states == {"g1": "stopped", "g2": "running", "g3": "stopped", "g4": "stopped"}


def test_settings_come_from_the_address_and_the_details_win():
    what = bundle(guest(1))
    assert failed({}, what, "http://sim-7/path?fail_guests=g1&seed=3") == {"g1"}
    assert failed({"fail_guests": ""}, what, "http://sim-7/?fail_guests=g1") == set()


def test_latency_is_waited_and_reported():
    what = bundle(guest(1))
    began = time.monotonic()
    outcome = Simulator().apply("http://sim/?latency_ms=40", {}, what)
    assert 0.02 <= outcome.seconds <= time.monotonic() - began < 10
    assert Simulator().apply("http://sim/?latency_ms=40", {}, what).seconds == outcome.seconds


@pytest.mark.parametrize(
    "settings", [{"latency_ms": "soon"}, {"fault_rate": "2"}, {"latency_ms": "-1"}, {"fault_rate": "nan"}]
)
def test_settings_that_are_no_numbers_are_refused(settings):
    with pytest.raises(ValueError, match="a simulated host needs a number"):
        Simulator().apply("http://sim/", settings, bundle())


def test_a_nic_on_an_unknown_segment_is_refused():
    with pytest.raises(ValueError, match="not among the facts"):
        Simulator().plan(HostFacts("h", "h", (), (guest(1),), ()))


def test_thousands_of_hosts_are_cheap():
    began = time.process_time()
    for number in range(1000):
        what = bundle(*(guest(n) for n in range(4)), target=f"h{number}")
        Simulator().apply("http://sim/", {}, what)
        Simulator().observe("http://sim/", {}, what)
    assert time.process_time() - began < 2
