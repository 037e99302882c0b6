"""One suite over every installed hypervisor driver: whoever holds guests behaves like this."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from drivers.protocol import Hosted, HypervisorDriver
from drivers.registry import hypervisors
from drivers.vocabulary import Guest, HostFacts, Nic, Segment, Shell
from systemvm.bundle import Bundle, Failure, Observation
from tests.netns.hosts import zone

NET = Segment("net-1", "vxlan://5001", "Guest")
NEEDS_ROOT = {"LXC"}
DRIVERS = [pytest.param(name, marks=pytest.mark.netns if name in NEEDS_ROOT else ()) for name in sorted(hypervisors())]


@dataclass
class Subject:
    """A driver and something that it can bring a bundle to."""

    driver: HypervisorDriver
    image: str
    apply: Callable[[Bundle], tuple[list[Failure], list[str]]]
    observe: Callable[[Bundle], Observation]
    breaks: Callable[[Guest], Guest]
    generation: int = 0

    def bundle(self, guests, shells=()):
        self.generation += 1
        facts = HostFacts("host-uuid", "h1", (NET,), tuple(guests), tuple(shells))
        files, elements = self.driver.render(self.driver.plan(facts))
        return Bundle("host-uuid", "h1", self.driver.kind, self.generation, files, elements)

    def guest(self, number, **more):
        nic = Nic(f"nic-{number}", f"02:00:00:00:00:{number:02x}", "net-1", "Guest", f"10.1.1.{number}", 24, "", 0)
        plain = {"running": True, "boot": 1} | more
        return Guest(f"guest-{number}", f"i-2-{number}-VM", f"vm{number}", self.image, 1, 500, 64, (nic,), **plain)

    def states(self, bundle):
        return dict(self.observe(bundle).states)


def simulated(driver):
    assert isinstance(driver, Hosted)
    settings = {"fail_guests": "i-2-66-VM"}

    def apply(bundle):
        outcome = driver.apply("http://sim/", settings, bundle)
        assert (outcome.status, outcome.digest) in {("applied", bundle.digest), ("unchanged", bundle.digest)}
        return list(outcome.failures), list(outcome.changed)

    def broken(guest):
        assert guest.name == "i-2-66-VM"
        return guest

    return Subject(driver, "", apply, lambda bundle: driver.observe("http://sim/", settings, bundle), broken)


def contained(driver, cloud):
    place = cloud.place("h1")

    def apply(bundle):
        """A service tells what it had to do by :meth:`ensure`: after an apply that is nothing more."""
        links = cloud.links("h1")
        pids = cloud.pids("h1")
        failures = [failure for service in cloud.services for failure in service.activate(place, None, bundle)]
        return failures, sorted(links ^ cloud.links("h1")) + sorted(pids ^ cloud.pids("h1"))

    def observe(bundle):
        seen = [service.observe(place, bundle) for service in cloud.services]
        return Observation(bundle.target, states=tuple(state for one in seen for state in one.states))

    def broken(guest):
        return Guest(**{name: getattr(guest, name) for name in guest.__slots__} | {"image": "/there/is/none"})

    return Subject(driver, str(cloud.image), apply, observe, broken)


@pytest.fixture(params=DRIVERS)
def subject(request, tmp_path):
    driver = hypervisors()[request.param]
    if isinstance(driver, Hosted):
        yield simulated(driver)
        return
    with zone(f"th{os.getpid()}-", tmp_path, "h1") as cloud:
        yield contained(driver, cloud)


def test_it_has_a_name_and_a_kind_of_its_own(subject):
    others = [driver for driver in hypervisors().values() if driver is not subject.driver]
    assert subject.driver.name in hypervisors()
    assert subject.driver.kind not in {other.kind for other in others}


def test_a_plan_is_the_same_for_the_same_facts_in_any_order(subject):
    guests = [subject.guest(number) for number in (3, 1, 2)]
    shells = [Shell(f"router-{number}", f"r-{number}-VM", ()) for number in (2, 1)]
    one = subject.bundle(guests, shells)
    assert subject.bundle(guests[::-1], shells[::-1]).digest == one.digest
    assert subject.bundle(guests[:2], shells).digest != one.digest
    assert subject.bundle([*guests[:2], subject.guest(2, boot=2)], shells).digest != one.digest
    assert Bundle.from_json(one.to_json()) == one


def test_what_is_wanted_is_seen_and_a_repeat_changes_nothing(subject):
    shell = Shell("router-1", "r-1-VM", ())
    bundle = subject.bundle([subject.guest(1), subject.guest(2)], [shell])
    assert subject.apply(bundle)[0] == []
    assert subject.states(bundle) == {"guest-1": "running", "guest-2": "running", "router-1": "running"}
    assert subject.apply(bundle) == ([], [])
    assert subject.states(bundle) == {"guest-1": "running", "guest-2": "running", "router-1": "running"}


def test_a_guest_is_stopped_and_started_and_goes(subject):
    for running, state in ((True, "running"), (False, "stopped"), (True, "running")):
        bundle = subject.bundle([subject.guest(1, running=running), subject.guest(2)])
        assert subject.apply(bundle)[0] == []
        assert subject.states(bundle) == {"guest-1": state, "guest-2": "running"}
    bundle = subject.bundle([subject.guest(2)])
    assert subject.apply(bundle)[0] == []
    assert subject.states(bundle) == {"guest-2": "running"}


def test_a_guest_that_fails_is_named_and_the_others_run(subject):
    broken = subject.breaks(subject.guest(66))
    bundle = subject.bundle([subject.guest(1), broken, subject.guest(99)])
    failures, _ = subject.apply(bundle)
    assert [failure.unit for failure in failures] == ["guest-66"]
    assert failures[0].reason.endswith(".")
    states = subject.states(bundle)
    assert (states["guest-1"], states["guest-99"]) == ("running", "running")
    assert states["guest-66"] != "running"


def test_facts_that_cannot_be_are_refused_with_a_sentence(subject):
    lost = subject.guest(1)
    stray = Guest(
        **{name: getattr(lost, name) for name in lost.__slots__} | {"nics": (lost.nics[0]._replace(segment="x"),)}
    )
    with pytest.raises(ValueError, match=r"segment x.*\."):
        subject.bundle([stray])
