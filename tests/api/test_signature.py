"""Signatures: the canonical string, and every spelling that a client is known to use."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from cs.client import CloudStack
from hypothesis import given
from hypothesis import strategies as st
from libcloud.common.cloudstack import CloudStackConnection

from controlplane.api.signature import canonical, has_expired, is_signed, sign

SECRET = "SKexample/2+y"
LIST_ZONES = {"command": "listZones", "response": "json", "apiKey": "AKexample-1_x"}
DEPLOY = {
    "command": "deployVirtualMachine",
    "response": "json",
    "apiKey": "AKexample-1_x",
    "zoneid": "0b6f2c1e-7a55-4d3e-9b1f-2f0a9c8d7e61",
    "name": "web 01*é",
    "details[0].cpuNumber": "2",
    "signatureVersion": "3",
    "expires": "2030-01-01T00:00:00+0000",
}
VECTORS = [
    (LIST_ZONES, "apikey=akexample-1_x&command=listzones&response=json", "pjSvEIC3E66BH5P79scdO354aK0="),
    (
        DEPLOY,
        (
            "apikey=akexample-1_x&command=deployvirtualmachine&details[0].cpunumber=2"
            "&expires=2030-01-01t00%3a00%3a00%2b0000&name=web%2001*%c3%a9&response=json&signatureversion=3"
            "&zoneid=0b6f2c1e-7a55-4d3e-9b1f-2f0a9c8d7e61"
        ),
        "u0M8wxSBiPCUf/g5BjsTUP9LJ/0=",
    ),
]
AWKWARD = DEPLOY | {"displayText": "~tilde *star [brackets] +plus", "Name": "b", "zone": "a"}

values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
names = st.from_regex(r"[A-Za-z]{1,8}(\[[0-9]\]\.[A-Za-z]{1,5})?", fullmatch=True)
requests = st.dictionaries(names, values, max_size=8).filter(
    lambda found: len({name.lower() for name in found} | {"signature"}) == len(found) + 1
)


@pytest.mark.parametrize(("parameters", "text", "signature"), VECTORS)
def test_the_vectors(parameters, text, signature):
    assert canonical(parameters) == text
    assert sign(SECRET, text) == signature
    assert is_signed(SECRET, parameters | {"signature": signature})
    assert is_signed(SECRET, parameters | {"SIGNATURE": signature})


def _signed(parameters, encode, order):
    text = "&".join(f"{name}={encode(value)}" for name, value in sorted(parameters.items(), key=order)).lower()
    digest = hmac.new(SECRET.encode(), text.encode(), hashlib.sha1).digest()
    return parameters | {"signature": base64.b64encode(digest).decode()}


@pytest.mark.parametrize(
    "order", [lambda pair: pair[0], lambda pair: pair[0].lower()], ids=["raw names", "lower names"]
)
@pytest.mark.parametrize(
    "encode",
    [
        lambda value: quote(value, safe="*"),
        lambda value: quote(value, safe="*").replace("~", "%7E"),
        lambda value: quote(value, safe=""),
        lambda value: quote(value, safe="[]*"),
    ],
    ids=["Go and Python", "Java", "py-acs-sdk", "libcloud"],
)
def test_every_spelling_is_known(encode, order):
    assert is_signed(SECRET, _signed(AWKWARD, encode, order))


@given(requests)
def test_the_cs_client_is_understood(parameters):
    client = CloudStack(endpoint="http://localhost", key="k", secret=SECRET)
    sent = dict(parameters)
    client._sign(sent)
    assert is_signed(SECRET, sent)


@given(requests)
def test_libcloud_is_understood(parameters):
    connection = object.__new__(CloudStackConnection)
    connection.key = SECRET
    signature = connection._make_signature(parameters).decode()
    assert is_signed(SECRET, parameters | {"signature": signature})


@given(requests, st.data())
def test_a_changed_value_breaks_it(parameters, data):
    signed = parameters | {"signature": sign(SECRET, canonical(parameters))}
    assert is_signed(SECRET, signed)
    assert not is_signed("another", signed)
    assert not is_signed(SECRET, signed | {"extra": "1"})
    if parameters:
        name = data.draw(st.sampled_from(sorted(parameters)))
        assert not is_signed(SECRET, signed | {name: parameters[name] + "x"})


@pytest.mark.parametrize("signature", ["", "x", "pjSvEIC3E66BH5P79scdO354aK0", "é" * 10])
def test_nonsense_is_no_signature(signature):
    assert not is_signed(SECRET, LIST_ZONES | {"signature": signature})


NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("parameters", "expired"),
    [
        ({}, False),
        ({"expires": "2001-01-01T00:00:00Z"}, False),
        ({"signatureVersion": "2", "expires": "2001-01-01T00:00:00Z"}, False),
        ({"signatureVersion": "3"}, True),
        ({"signatureversion": "3", "expires": ""}, True),
        ({"signatureversion": "3", "expires": "tomorrow"}, True),
        ({"signatureVersion": "3", "expires": "2031-01-01"}, True),
        ({"signatureVersion": "3", "expires": "2031-01-01T00:00:00"}, True),
        ({"signatureVersion": "3", "expires": "2029-12-31T23:59:59+0000"}, True),
        ({"signatureVersion": "3", "expires": "2030-01-01T00:00:01+0000"}, False),
        ({"SignatureVersion": "3", "Expires": "2030-01-01T00:00:01Z"}, False),
        ({"signatureVersion": "3", "expires": "2030-01-01T00:00:01+00:00"}, False),
        ({"signatureVersion": "3", "expires": "2030-01-01T00:30:00+0100"}, True),
        ({"signatureVersion": "3", "expires": "2030-01-01T00:00:01.500Z"}, False),
        ({"signatureVersion": "3", "expires": "2031-01-01T00:00:00'Z'+0000"}, False),
        ({"signatureVersion": "3", "expires": "2031-99-01T00:00:00Z"}, True),
    ],
)
def test_expiry(parameters, expired):
    assert has_expired(parameters, NOW) is expired
