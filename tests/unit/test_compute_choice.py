"""The choice of a host: what is promised of it, whatever the hosts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.compute.choice import (
    ALGORITHMS,
    CONCENTRATED,
    DISPERSING,
    FIRST_FIT,
    LEAST_CONSUMED,
    Candidate,
    Want,
    choose,
    objections,
)

HOST = Candidate(1, "host-1", 1, 1, "LXC", cpus=4, mhz=2000, total_mhz=8000, total_memory=4096)
WANT = Want(cpus=1, mhz=500, memory=128, hypervisor="LXC", algorithm=FIRST_FIT, machine="vm")


@st.composite
def candidates(draw):
    numbers = draw(st.lists(st.integers(1, 30), unique=True, max_size=12))
    return [
        HOST._replace(
            id=number,
            name=f"host-{number}",
            pod_id=draw(st.integers(1, 3)),
            cluster_id=draw(st.integers(1, 4)),
            hypervisor=draw(st.sampled_from(["LXC", "KVM"])),
            closed=draw(st.sampled_from(["", "it is Down"])),
            disabled=draw(st.sampled_from(["", "its pod p is disabled"])),
            tags=frozenset(draw(st.sets(st.sampled_from(["ssd", "gpu"])))),
            used_mhz=draw(st.integers(0, 8000)),
            used_memory=draw(st.integers(0, 4096)),
            own=draw(st.integers(0, 5)),
        )
        for number in numbers
    ]


wants = st.builds(
    Want,
    cpus=st.integers(1, 6),
    mhz=st.integers(100, 2500),
    memory=st.integers(64, 5000),
    hypervisor=st.sampled_from(["", "LXC", "lxc"]),
    tags=st.sampled_from([(), ("ssd",), ("ssd", "gpu")]),
    host_id=st.sampled_from([None, None, 3]),
    pod_id=st.sampled_from([None, None, 1]),
    algorithm=st.sampled_from(ALGORITHMS),
    avoid=st.dictionaries(st.integers(1, 30), st.just("it failed"), max_size=4),
    machine=st.uuids().map(str),
    anywhere=st.booleans(),
)


@given(candidates(), wants)
def test_the_chosen_host_has_room_and_is_open_and_every_other_has_a_reason_or_fits(hosts, want):
    choice = choose(hosts, want)
    if choice.host is not None:
        host = choice.host
        assert objections(host, want) == []
        assert host.used_mhz + want.cpus * want.mhz <= host.total_mhz
        assert host.used_memory + want.memory <= host.total_memory
        assert not host.closed
        assert want.anywhere or not host.disabled
        assert set(want.tags) <= host.tags
        assert host.id not in want.avoid
    fitting = [host for host in hosts if not objections(host, want)]
    assert len(fitting) + len(choice.refused) == len(hosts)
    assert all(reasons for _, reasons in choice.refused)
    assert (choice.host is None) == (not fitting)


@given(candidates(), wants, st.randoms())
def test_the_order_of_the_hosts_never_matters(hosts, want, random):
    shuffled = list(hosts)
    random.shuffle(shuffled)
    assert choose(hosts, want) == choose(shuffled, want)


@given(candidates(), wants)
def test_a_host_is_never_chosen_twice_when_it_is_avoided_after_it_failed(hosts, want):
    seen = []
    while (choice := choose(hosts, want)).host is not None:
        seen.append(choice.host.id)
        want = replace(want, avoid={**want.avoid, choice.host.id: "it failed"})
    assert len(seen) == len(set(seen)) <= len(hosts)


def test_every_reason_is_named():
    host = HOST._replace(closed="it is Down", hypervisor="KVM", used_memory=4000, used_mhz=7900)
    reasons = objections(host, replace(WANT, tags=("ssd",), cpus=5, mhz=3000, avoid={1: "it failed"}))
    assert reasons == [
        "it is Down",
        "it failed",
        "its hypervisor is KVM, not LXC",
        "it lacks the host tag ssd",
        "it has 4 processors, and 5 are needed",
        "its processors have 2000 MHz, and 3000 are needed",
        "100 of its 8000 MHz are free, and 15000 are needed",
        "96 of its 4096 MiB are free, and 128 are needed",
    ]


def chosen(algorithm, *hosts):
    host = choose(hosts, replace(WANT, algorithm=algorithm)).host
    assert host is not None
    return host.id


def test_algorithms_order_the_hosts():
    first = HOST._replace(own=3, own_pod=3, used_mhz=4000)
    second = HOST._replace(id=2, own=1, own_pod=3, used_mhz=1000)
    third = HOST._replace(id=3, pod_id=2, own=0, own_pod=0, used_mhz=6000)
    assert chosen(FIRST_FIT, third, second, first) == 1
    assert chosen(DISPERSING, first, second, third) == 3
    assert chosen(CONCENTRATED, third, second, first) == 1
    assert chosen(LEAST_CONSUMED, first, second, third) == 2


def test_the_preferred_host_comes_first_where_it_will_do():
    hosts = [HOST, HOST._replace(id=2)]
    assert choose(hosts, replace(WANT, prefer=2)).host.id == 2
    assert choose(hosts, replace(WANT, prefer=2, avoid={2: "it failed"})).host.id == 1
