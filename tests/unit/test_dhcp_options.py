"""What is accepted as a DHCP option, the DHCP server takes; what it would refuse is refused with a sentence."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.compute.dhcp_options import option_numbers
from controlplane.errors import BadParameter

PIECES = (
    "garbage",
    "10.1.1.9",
    "1",
    "-1",
    "300",
    "1.5",
    "a:b",
    "0a:01",
    "x y",
    "10.0.0.0/8",
    "",
    ".",
    "+",
    "=",
    "@",
    "0x1f",
    "::",
)


def takes(number: str, value: str) -> bool:
    """Tell whether dnsmasq would start with the option, written as the router's template writes it."""
    text = f"dhcp-option=tag:g1,{number},{value}\n"
    argv = ["dnsmasq", "--test", "--conf-file=/dev/stdin"]
    return subprocess.run(argv, input=text, text=True, capture_output=True, check=False).returncode == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 254), st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map(",".join))
def test_what_is_accepted_the_server_takes(number, value):
    with contextlib.suppress(BadParameter):
        assert option_numbers({f"dhcp:{number}": value}) == {str(number): value}
        assert takes(str(number), value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dhcp:3", "garbage"), ("dhcp:6", "1,2"), ("dhcp:51", "9"), ("dhcp:26", "1,2"), ("dhcp:66", 'a"b'), ("dhcp:66", "a\nb"),
        ("dhcp:66", ""), ("dhcp:66", " a"), ("dhcp:0", "1"), ("dhcp:255", "1"), ("dhcp:", "1"), ("66", "1"), ("dhcp:٣", "1"),
    ],
)  # fmt: skip
def test_what_no_server_takes_is_refused(name, value):
    with pytest.raises(BadParameter) as refused:
        option_numbers({name: value})
    assert name in str(refused.value)


def test_addresses_names_and_numbers_are_accepted():
    given = {
        "dhcp:3": "10.1.1.9",
        "dhcp:6": "10.1.1.2,10.1.1.3",
        "dhcp:26": "1400",
        "dhcp:66": "boot.example",
        "dhcp:119": "a.example",
    }
    assert option_numbers(given) == {name.removeprefix("dhcp:"): value for name, value in given.items()}
