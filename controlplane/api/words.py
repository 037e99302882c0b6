"""Words: what parameters and response fields mean, by their names, for listApis, OpenAPI and the API's documents.

A name means the same nearly everywhere, so each is described once, in ``words.toml``; a declaration's own description
goes before. Names that are put together (``networkname``) need no entry: their parts have one.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

_ENDINGS = {
    "id": "Id of the {}",
    "uuid": "Id of the {}",
    "ids": "Ids of the {}s, separated by commas",
    "name": "Name of the {}",
    "names": "Names of the {}s, separated by commas",
    "displayname": "Display name of the {}",
    "displaytext": "Description of the {}",
    "state": "State of the {}",
    "type": "Type of the {}",
    "limit": "How much of {} the owner may have in all; Unlimited or -1 without a limit",
    "available": "How much of {} the owner may still take; Unlimited or -1 without a limit",
    "total": "How much of {} the owner has",
}


def describe_parameter(name: str) -> str:
    """Return what a parameter of this name means; empty when no word is known."""
    return _found(name, "parameters")


def describe_field(name: str) -> str:
    """Return what a response field of this name means; empty when no word is known."""
    return _found(name, "fields")


def _found(name: str, first: str) -> str:
    key, words = name.lower(), _vocabulary()
    return words[first].get(key) or words["words"].get(key) or _composed(key)


@cache
def _composed(name: str) -> str:
    nouns: dict[str, str] = _vocabulary()["nouns"]
    for ending, sentence in _ENDINGS.items():
        noun = nouns.get(name.removesuffix(ending))
        if name.endswith(ending) and noun:
            return sentence.format(noun)
    return ""


@cache
def _vocabulary() -> dict[str, Any]:
    return tomllib.loads(files("controlplane.api").joinpath("words.toml").read_text(encoding="utf-8"))
