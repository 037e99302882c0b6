"""Set elements as text: what to add and delete to come from one list to another. All of it is pure.

An element is ``KEY [counter] [comment "…"] [: VALUE]`` as in nft(8). To delete it, nft wants the key alone: it
compares a comment or a counter with nothing, and accepts a value without need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from systemvm.bundle import Bundle, Elements

_END_OF_KEY = re.compile(r" (?:counter|comment|timeout|expires|limit|quota|:)(?= |$)")
_SAFE = re.compile(r'(?:[\w.:/@*+ -]++|"[^"\\{};\n]*+")++')
_ALL_SAFE = re.compile(r'(?:[\w.:/@*+ -]++|"[^"\\{};\n]*+"|\n)++')
_QUOTED = re.compile(r'"[^"]*"')
_TABLE = re.compile(r"^[ \t]*table[ \t]+(?:(ip|ip6|inet|arp|bridge|netdev)[ \t]+)?([\w./-]+)", re.MULTILINE)
_DECLARED = re.compile(
    r"^[ \t]*(?:table[ \t]+(?:(?P<family>ip|ip6|inet|arp|bridge|netdev)[ \t]+)?(?P<table>[\w./-]+)"
    r"|(?:set|map)[ \t]+(?P<set>\w+)[ \t\n]*\{)",
    re.MULTILINE,
)
_FORBIDDEN = re.compile(r"^[ \t]*(?:include|flush|delete|add|define|reset|destroy)\b.*", re.MULTILINE)


Table = tuple[str, str]
"""Family and name."""


def tables_of(skeleton: str) -> tuple[Table, ...]:
    """Return the tables that a skeleton declares, sorted.

    :raises ValueError: it declares none, or does more than to declare: there is one writer to a table.
    """
    tables = {(family or "ip", name) for family, name in _TABLE.findall(skeleton)}
    if not tables:
        raise ValueError("It must declare at least one table.")
    own = {f"delete table {family} {name}" for family, name in tables}  # repeatable with nft -f, and harmless here
    for outside in _FORBIDDEN.finditer(skeleton):
        if " ".join(outside[0].split()) in own:
            continue
        line = skeleton.count("\n", 0, outside.start()) + 1
        raise ValueError(f"line {line}: {outside[0].strip()!r} is refused: a skeleton only declares its tables.")
    return tuple(sorted(tables))


def removing(tables: Iterable[Table]) -> str:
    """Return the commands that remove tables, whether they are there or not."""
    return "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family, name in tables)


def _owners(skeleton: str) -> dict[str, Table]:
    """Return the table of each set and map; their names are unique in a skeleton."""
    owners: dict[str, Table] = {}
    table = ("", "")
    for found in _DECLARED.finditer(skeleton):
        if found["table"]:
            table = (found["family"] or "ip", found["table"])
        else:
            owners[found["set"]] = table
    return owners


def declares(skeleton: str, name: str) -> bool:
    """Tell whether the skeleton has a set or map of this name."""
    return re.search(rf"^[ \t]*(?:set|map)[ \t]+{re.escape(name)}[ \t\n]*\{{", skeleton, re.MULTILINE) is not None


def unsafe(items: Sequence[str]) -> Iterator[str]:
    """Yield the items that are more than one element: braces, commas, semicolons or new lines outside of quotes."""
    if not items:
        return iter(())
    text = "\n".join(items)
    if text.count("\n") == len(items) - 1 and all(items) and _ALL_SAFE.fullmatch(text):
        return iter(())  # one match for all is ten times cheaper than one for each
    return (item for item in items if not _SAFE.fullmatch(item) or not item.strip())


def key_of(item: str) -> str:
    """Return the part of an element by which it is deleted."""
    end = _END_OF_KEY.search(item)
    return item[: end.start()] if end else item


def value_of(item: str) -> str:
    """Return what a map's element maps to, empty for a set's."""
    return _QUOTED.sub("", item[len(key_of(item)) :]).partition(" : ")[2]


def difference(old: Iterable[str], new: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the keys to delete and the elements to add, both sorted; a changed element is in both."""
    before, after = set(old), set(new)
    return [key_of(item) for item in sorted(before - after)], sorted(after - before)


def by_name(bundle: Bundle | None) -> Mapping[str, tuple[str, ...]]:
    """Return the elements of a bundle by their set's name."""
    return {elements.name: elements.items for elements in bundle.elements} if bundle else {}


def replacing(skeleton: str, elements: Iterable[Elements]) -> str:
    """Return the transaction that makes the tables anew, with everything in them, whatever was there."""
    owners = _owners(skeleton)
    parts = [f"{removing(tables_of(skeleton))}{skeleton.rstrip()}\n"]
    parts += [_add(owners[entry.name], entry.name, entry.items) for entry in elements if entry.items]
    return "".join(parts)


def changing(skeleton: str, old: Bundle, new: Bundle) -> str:
    """Return the transaction that changes the elements alone; empty where none differs."""
    owners = _owners(skeleton)
    before, after = by_name(old), by_name(new)
    gone, fresh = [], []
    for which in sorted(before.keys() | after.keys()):
        keys, items = difference(before.get(which, ()), after.get(which, ()))
        if keys:
            gone.append(f"delete element {' '.join(owners[which])} {which} {{ {', '.join(keys)} }}\n")
        if items:
            fresh.append(_add(owners[which], which, items))
    return "".join(gone + fresh)


def _add(table: Table, which: str, items: Iterable[str]) -> str:
    return f"add element {' '.join(table)} {which} {{ {', '.join(items)} }}\n"
