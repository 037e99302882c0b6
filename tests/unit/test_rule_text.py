"""What a rule may say: every text is read the one right way, or refused with what would be right."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import BadParameter
from controlplane.network import rule_text

networks = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(st.lists(networks, max_size=20))
def test_a_list_of_cidrs_is_kept_each_once_in_its_order(items):
    texts = [str(item) for item in items]
    assert rule_text.cidr_list("cidrlist", texts) == list(dict.fromkeys(texts))


@given(networks, st.data())
def test_host_bits_are_cut_off(network, data):
    inside = data.draw(st.integers(int(network.network_address), int(network.broadcast_address)))
    written = f" {IPv4Address(inside)}/{network.prefixlen} "
    assert rule_text.cidr_list("cidrlist", [written]) == [str(network)]


@given(st.text(max_size=40))
def test_nothing_but_digits_dots_and_a_slash_ever_comes_through(text):
    try:
        found = rule_text.cidr_list("cidrlist", [text])
    except BadParameter:
        found = [""]
    assert set(found[0]) <= set("0123456789./")


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/33",
        "010.0.0.0/8",
        "::/0",
        "10.0.0/8",
        "10.0.0.0/8\n",
        "٣.0.0.0/8",
        "",
    ],
)
def test_what_is_no_cidr_is_refused(text):
    if text == "10.0.0.0/8\n":
        assert rule_text.cidr_list("cidrlist", [text]) == ["10.0.0.0/8"]  # white space around an item is nothing
        return
    with pytest.raises(BadParameter, match="must be IPv4 CIDRs separated by commas"):
        rule_text.cidr_list("cidrlist", [text])


def test_a_list_has_an_end():
    with pytest.raises(BadParameter, match="it lists 501 CIDRs"):
        rule_text.cidr_list("cidrlist", [f"10.0.{number >> 8}.{number & 255}/32" for number in range(501)])


@given(networks, networks)
def test_a_source_lies_in_its_network_or_is_refused(item, network):
    text = str(item)
    if item.subnet_of(network) or text == rule_text.EVERYONE:
        assert rule_text.inside("cidrlist", [text], str(network)) == [text]
    else:
        with pytest.raises(BadParameter, match=f"must lie in the network's CIDR, {network}"):
            rule_text.inside("cidrlist", [text], str(network))


@given(st.integers(-70000, 70000), st.none() | st.integers(-70000, 70000))
def test_a_range_of_ports_is_one_or_is_refused(first, last):
    end = first if last is None else last
    if 1 <= first <= end <= 65535:
        assert rule_text.port_range("startport", first, "endport", last) == (first, end)
    else:
        with pytest.raises(BadParameter, match=r"startport|endport"):
            rule_text.port_range("startport", first, "endport", last)


@given(st.none() | st.integers(-3, 300), st.none() | st.integers(-3, 300))
def test_icmp_types_and_codes(kind, code):
    type_or_any, code_or_any = (-1 if value is None else value for value in (kind, code))
    good = -1 <= type_or_any <= 255 and -1 <= code_or_any <= 255 and not (type_or_any == -1 and code_or_any != -1)
    if good:
        assert rule_text.icmp(kind, code) == (type_or_any, code_or_any)
    else:
        with pytest.raises(BadParameter, match=r"icmptype|icmpcode"):
            rule_text.icmp(kind, code)


@pytest.mark.parametrize(
    ("text", "name"), [("TCP", "tcp"), (" udp ", "udp"), ("6", "tcp"), ("17", "udp"), ("1", "icmp")]
)
def test_protocols_have_names_and_numbers(text, name):
    assert rule_text.protocol(text, ("tcp", "udp", "icmp")) == name


def test_other_protocols_are_refused_with_those_there_are():
    with pytest.raises(BadParameter, match="protocol value=gre: it must be one of tcp, udp"):
        rule_text.protocol("gre", ("tcp", "udp"))
