"""XML: the older form of an answer (WIRE protocol, section 8)."""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import escape

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 cannot hold."""


def document(envelope: str, body: dict[str, Any], version: str) -> str:
    """Return the answer as an XML document; the envelope is its root element.

    :param version: of the API, for the root's attribute ``cloud-stack-version``.
    """
    inside = "".join(_element(name, value) for name, value in body.items())
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<{envelope} cloud-stack-version="{version}">{inside}</{envelope}>'


def _element(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):  # a list repeats its element; an empty one leaves nothing
        return "".join(_element(name, item) for item in value)
    return f"<{name}>{_content(value)}</{name}>"


def _content(value: Any) -> str:
    if isinstance(value, dict):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return "".join(_element(key, item) for key, item in value.items())
        return escape("{" + ", ".join(f"{key}={item}" for key, item in value.items()) + "}")
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(_UNPRINTABLE.sub("", str(value)))
