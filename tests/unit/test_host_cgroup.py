"""A guest's limits in the words of both cgroup versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systemvm.cgroup import Limits


def test_limits_are_written_for_both_versions():
    limits = Limits(memory=512, cpus=2, mhz=1000)
    assert limits.files("memory", 1) == {"memory.limit_in_bytes": "536870912"}
    assert limits.files("memory", 2) == {"memory.max": "536870912"}
    assert limits.files("cpu", 1) == {"cpu.shares": "2000", "cpu.cfs_quota_us": "200000"}
    assert limits.files("cpu", 2) == {"cpu.weight": "77", "cpu.max": "200000 100000"}
    assert limits.files("pids", 1) == limits.files("pids", 2) == {"pids.max": "4096"}


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_weights_stay_in_the_kernels_ranges(cpus, mhz):
    limits = Limits(64, cpus, mhz)
    assert 2 <= int(limits.files("cpu", 1)["cpu.shares"]) <= 262_144
    assert 1 <= int(limits.files("cpu", 2)["cpu.weight"]) <= 10_000


def test_an_unknown_controller_is_an_error():
    with pytest.raises(KeyError):
        Limits(1, 1, 1).files("io", 2)
