"""Signatures: proof that a request comes from whoever holds the secret key.

``signature`` is the base64 of HMAC-SHA1(secret key, canonical string), the only digest in use (CloudStack API, "signing
requests"). The canonical string is made from the parameters as they came in, decoded: sorted by name, joined as
``name=value`` with percent-encoded values, in lower case. Clients differ in what they encode and how they sort, so a
request is compared with every spelling that one of them is known to use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import product
from urllib.parse import quote

from controlplane.api.parameters import read_date

_SPELLINGS = ((("~", "%7e"),), (("*", "%2a"),), (("%5b", "["), ("%5d", "]")))
"""What some clients write differently: ``~`` (Java), ``*`` (py-acs-sdk), brackets inside of values (libcloud)."""
_ZONED = re.compile(r".*\d\d:\d\d:\d\d(\.\d+)?'?('?Z'?|[+-]\d\d:?\d\d)+")


def canonical(parameters: Mapping[str, str]) -> str:
    """Return the string that is signed, in its ordinary spelling; ``signature`` itself is left out.

    :param parameters: names and values as received, URL-decoded, names in their own case.
    """
    return _join(_pairs(parameters, by_lower_name=False), ())


def sign(secret_key: str, text: str) -> str:
    """Return the signature of a canonical string."""
    return base64.b64encode(hmac.new(secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()


def is_signed(secret_key: str, parameters: Mapping[str, str]) -> bool:
    """Tell whether the request's ``signature`` was made with this secret key; the comparison takes constant time."""
    given = signature_in(parameters).encode()
    return any(hmac.compare_digest(sign(secret_key, text).encode(), given) for text in _spelled(parameters))


def signature_in(parameters: Mapping[str, str]) -> str:
    """Return the signature that came with the request; empty when there is none."""
    return next((value for name, value in parameters.items() if name.lower() == "signature"), "")


def has_expired(parameters: Mapping[str, str], now: datetime) -> bool:
    """Tell whether the request is too old: version 3 of the signature makes ``expires`` mandatory."""
    plain = {name.lower(): value for name, value in parameters.items()}
    if plain.get("signatureversion") != "3":
        return False
    expires = plain.get("expires", "")
    if not _ZONED.fullmatch(expires):
        return True
    try:
        return read_date(expires) < now
    except ValueError:
        return True


def _spelled(parameters: Mapping[str, str]) -> Iterator[str]:
    seen = set()
    for by_lower_name in (False, True):
        pairs = _pairs(parameters, by_lower_name=by_lower_name)
        for chosen in product(*(((), spelling) for spelling in _SPELLINGS)):
            text = _join(pairs, tuple(change for changes in chosen for change in changes))
            if text not in seen:
                seen.add(text)
                yield text


def _pairs(parameters: Mapping[str, str], *, by_lower_name: bool) -> list[tuple[str, str]]:
    signed = ((name, value) for name, value in parameters.items() if name.lower() != "signature")
    return sorted(
        ((name, quote(value, safe="*").lower()) for name, value in signed),
        key=lambda pair: pair[0].lower() if by_lower_name else pair[0],
    )


def _join(pairs: list[tuple[str, str]], changes: tuple[tuple[str, str], ...]) -> str:
    parts = []
    for name, encoded in pairs:
        value = encoded
        for usual, other in changes:
            value = value.replace(usual, other)
        parts.append(f"{name.lower()}={value}")
    return "&".join(parts)
