"""Envelopes: an answer or an error as JSON or XML, byte for byte as CloudStack's clients expect it.

The body is one object with exactly one key, compact, on one line (WIRE protocol, sections 4 and 6).
"""

from __future__ import annotations

import json
from typing import Any

from controlplane.api import xml
from controlplane.api.command import REGISTRY
from controlplane.errors import ApiError

VERSION = "4.20.1.0"
"""The CloudStack release whose API this is."""
JSON_TYPE = "application/json; charset=UTF-8"
XML_TYPE = "text/xml; charset=UTF-8"
UNKNOWN = "errorresponse"
UNSUPPORTED = 432
KEPT_FROM_USERS = {
    530: "The cloud could not do this. Its operators can see the reason: ask them if it happens again.",
    533: "The cloud has no room for this just now. Try again later, or ask its operators.",
    534: "A part of the cloud that this needs does not answer just now. Try again later, or ask its operators.",
}
"""What callers who are no root admins read in place of errors that tell how the cloud is built."""


def encode(envelope: str, body: dict[str, Any], form: str) -> tuple[bytes, str]:
    """Return the answer's bytes and their media type.

    :param form: the ``response`` parameter: ``json`` in any case; anything else is XML.
    """
    if form.lower() == "json":
        text = json.dumps({envelope: body}, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "replace"), JSON_TYPE
    return xml.document(envelope, body, VERSION).encode("utf-8", "replace"), XML_TYPE


def envelope_of_error(command: str, error: ApiError) -> str:
    """Return the envelope of an error: the command's own, where there is such a command and the feature exists."""
    known = REGISTRY.get(command)
    return known.envelope if known is not None and error.status != UNSUPPORTED else UNKNOWN


def error_body(error: ApiError, *, admin: bool) -> dict[str, Any]:
    """Return what is in an error's envelope.

    :param admin: the caller is a root admin and may read how the cloud is built.
    """
    body: dict[str, Any] = {"uuidList": [], "errorcode": error.status}
    if error.cause:
        body["cserrorcode"] = error.cause
    return body | {"errortext": text_for(error.status, error.text, admin=admin)}


def text_for(status: int, text: str, *, admin: bool) -> str:
    """Return the text of an error as this caller may read it."""
    return text if admin else KEPT_FROM_USERS.get(status, text)
