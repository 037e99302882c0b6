"""L2TP: what is planned for it, what is refused, and how a host says what it lacks."""

from configparser import ConfigParser
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.ipsec import VpnUser
from drivers.network.virtual_router import VirtualRouter
from systemvm.services import l2tp
from systemvm.services.xl2tpd import _users
from tests.golden.router import cases


def rendered(**more):
    found = cases.l2tp()
    facts = replace(found, remote_access=replace(found.remote_access, **more))
    files, elements = VirtualRouter().render(VirtualRouter().plan(facts))
    return {file.path: file for file in files}, {each.name: each.items for each in elements}


def pppd_word(text):
    """Read one quoted word as pppd(8) does."""
    assert text.startswith('"')
    word, position = "", 1
    while text[position] != '"':
        position += text[position] == "\\"
        word += text[position]
        position += 1
    return word


def test_without_a_key_or_room_there_is_no_l2tp():
    for more in ({"psk": ""}, {"last": "10.1.2.2"}):
        files, elements = rendered(**more)
        assert not [path for path in files if path.startswith("xl2tpd/")]
        assert elements["l2tp_dialled"] == ()
        assert '"l2tp": {}' in files["strongswan/connections.json"].content


def test_what_holds_passwords_is_secret():
    files, _ = rendered()
    assert [path for path, file in files.items() if path.startswith("xl2tpd/") and file.secret] == [
        "xl2tpd/chap-secrets"
    ]


@given(st.integers(1, 1000))
def test_ikev2_and_l2tp_hand_out_different_addresses_and_all_of_them(more):
    import json
    from ipaddress import IPv4Address

    first = IPv4Address("10.9.0.2")
    files, _ = rendered(first=str(first), last=str(first + more), server="10.9.0.1")
    (pool,) = json.loads(files["strongswan/connections.json"].content)["l2tp"]["pools"].values()
    conf = ConfigParser(interpolation=None)
    conf.read_string(files["xl2tpd/xl2tpd.conf"].content)
    ranges = [text.split("-") for text in (pool["addrs"], conf["lns default"]["ip range"])]
    (low, middle), (above, last) = [[IPv4Address(end) for end in ends] for ends in ranges]
    assert low == first <= middle
    assert middle + 1 == above <= last == first + more


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60).filter(lambda x: x[:2] != "@/")
)
def test_pppd_reads_every_password_as_it_is(password):
    files, _ = rendered(users=(VpnUser("anna", password),))
    (line,) = _users(files["xl2tpd/chap-secrets"].content).values()
    assert line.startswith('"anna" * "')
    assert pppd_word(line.removeprefix('"anna" * ')) == password
    assert line.endswith('" *')


@pytest.mark.parametrize(("more", "named"), [
    ({"users": (VpnUser("anna", "@/etc/shadow"),)}, "anna"),
    ({"users": (VpnUser("anna", 'a\nb" * "c'),)}, "anna"),
    ({"users": (VpnUser('anna" *', "secret"),)}, "anna"),
    ({"users": (VpnUser("*", "secret"),)}, "VPN user"),
    ({"psk": "line\nend"}, "pre-shared key"),
    ({"server": "10.1.2.4"}, "10.1.2.4"),
    ({"server": ""}, "server's address"),
    ({"dns": ("10.1.1.1\nplugin x",)}, "resolver"),
])  # fmt: skip
def test_what_no_file_may_hold_is_refused(more, named):
    with pytest.raises(ValueError, match=named) as refused:
        rendered(**more)
    assert "shadow" not in str(refused.value)


def test_a_host_says_what_it_lacks():
    assert l2tp.sentence(esp=True, ppp=True, programs=[]) == ""
    assert l2tp.sentence(esp=True, ppp=False, programs=[]) == "this host's kernel has no PPP: L2TP is off, IKEv2 works"
    assert l2tp.sentence(esp=False, ppp=False, programs=["xl2tpd", "pppd"]) == (
        "this host's kernel has no ESP and no PPP, this host has no xl2tpd and no pppd: L2TP is off, IKEv2 works"
    )


def test_a_node_without_a_driver_is_no_ppp(tmp_path):
    assert not l2tp.kernel_has_ppp(tmp_path / "ppp")
    (tmp_path / "file").touch()
    assert l2tp.kernel_has_ppp(tmp_path / "file")
