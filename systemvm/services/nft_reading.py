"""Read back what the kernel holds of a table: the counts of its rules, and an imprint of all that a bundle decides."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from systemvm import netns
from systemvm.libnftables import Context, NftError
from systemvm.services.elements import Table
from systemvm.tally import Count


@dataclass(frozen=True, slots=True)
class Reading:
    """What a table was found to hold.

    :param counts: by the counter's name, or the elements' comment (the rule's UUID).
    :param imprint: empty where it was not asked for, or where the ruleset changed meanwhile.
    :param generation: the ruleset's, of the imprint.
    :param seconds: how long it took to read.
    """

    counts: Mapping[str, Count]
    imprint: str
    generation: int
    seconds: float


def read(context: Context, tables: Sequence[Table], *, imprint: bool) -> Reading:
    """Read tables back; an imprint takes as long again as the listing."""
    return _reading(context, lambda: listing(context, tables), imprint=imprint)


def read_apart(namespace: str, tables: Sequence[Table], *, imprint: bool) -> Reading:
    """Read large tables back while others go on with theirs: a process of its own lists them."""

    def look() -> list[dict[str, Any]]:
        texts = (netns.run(namespace, ["nft", "--json", "list", "table", *table]) for table in tables)
        return [entry for text in texts for entry in json.loads(text)["nftables"]]

    context = Context(namespace)
    try:
        return _reading(context, look, imprint=imprint)
    finally:
        context.close()


def _reading(context: Context, look: Callable[[], list[dict[str, Any]]], *, imprint: bool) -> Reading:
    began, before = time.monotonic(), context.generation()
    listed = look()
    steady = imprint and bool(listed) and context.generation() == before
    return Reading(_counts(listed), imprint_of(listed) if steady else "", before, time.monotonic() - began)


def counts_of(context: Context, tables: Sequence[Table]) -> Mapping[str, Count]:
    """Return the counts alone."""
    return _counts(listing(context, tables))


def listing(context: Context, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """List tables, those that are there."""
    found = []
    for table in tables:
        with suppress(NftError):
            found += context.listing(f"table {' '.join(table)}")
    return found


def _counts(listed: Sequence[Mapping[str, Any]]) -> dict[str, Count]:
    counts: dict[str, Count] = {}
    for entry in listed:
        if counter := entry.get("counter"):
            counts[counter["name"]] = (counter["packets"], counter["bytes"])
        for item in (entry.get("set") or entry.get("map") or {}).get("elem", ()):
            element = item[0] if isinstance(item, list) else item
            inner = element.get("elem", {}) if isinstance(element, dict) else {}
            if "comment" in inner and isinstance(inner.get("counter"), dict):
                had = counts.get(inner["comment"], (0, 0))
                counts[inner["comment"]] = (had[0] + inner["counter"]["packets"], had[1] + inner["counter"]["bytes"])
    return counts


def imprint_of(listed: Sequence[Mapping[str, Any]]) -> str:
    """Return a hash of all that a bundle decides: no handles, no counts, no elements that packets added."""
    kept = []
    for entry in listed:
        kind, body = next(iter(entry.items()))
        body = {name: value for name, value in body.items() if name not in ("handle", "packets", "bytes", "used")}
        if kind in ("set", "map"):
            dynamic = {"dynamic", "timeout"} & set(body.get("flags", ()))
            body["elem"] = sorted(_bare(item) for item in body.get("elem", ())) if not dynamic else []
        kept.append(json.dumps([kind, body], sort_keys=True))
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def _bare(item: Any) -> str:
    def plain(value: Any) -> Any:
        return (
            {key: None if key == "counter" else plain(part) for key, part in value.items()}
            if isinstance(value, dict)
            else value
        )

    return json.dumps([plain(part) for part in item] if isinstance(item, list) else plain(item), sort_keys=True)
