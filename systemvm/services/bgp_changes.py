"""What to tell a running bgpd so that it has another configuration: pure, text in, commands out."""

from __future__ import annotations

import re

Lines = list[tuple[tuple[str, ...], str]]
"""Lines of a configuration, each with the blocks that it stands in."""
_NEIGHBOR = re.compile(r"neighbor (\S+) remote-as ")
_BLOCKS, _ENDS = ("router bgp ", "address-family "), ("exit", "exit-address-family")


def read(text: str) -> Lines:
    """Return the lines of a configuration with their blocks; comments and ends are left out."""
    found: Lines = []
    blocks: tuple[str, ...] = ()
    for line in (raw.strip() for raw in text.splitlines()):
        if line.startswith(_BLOCKS):
            blocks = (*blocks, line)
            found.append((blocks, ""))
        elif line in _ENDS:
            blocks = blocks[:-1]
        elif line and not line.startswith("!"):
            found.append((blocks, line))
    return found


def difference(old: str, new: str) -> list[str] | None:
    """Return the commands, for the configuration mode, that make the new configuration of the old one.

    What goes goes first, the last line before the first; a peer that has another AS goes as a whole and comes again.

    :return: None where only a new daemon has the new configuration: its own AS is another.
    """
    before, after = read(old), read(new)
    blocks = [{part for part, line in lines if not line} for lines in (before, after)]
    if blocks[0] != blocks[1]:
        return None
    told = _peers(before) ^ _peers(after)
    changed = {match[1] for line in told if (match := _NEIGHBOR.match(line))}
    gone = [item for item in before if item not in after or _of(item[1]) in changed]
    come = [item for item in after if item not in before or _of(item[1]) in changed]
    steps: list[str] = []
    for part, line in reversed(gone):
        steps += _within(part, line.removeprefix("no ") if line.startswith("no ") else f"no {line}")
    for part, line in come:
        steps += _within(part, line)
    return steps


def _peers(lines: Lines) -> set[str]:
    return {line for _, line in lines if _NEIGHBOR.match(line)}


def _of(line: str) -> str:
    """Return the peer that a line is about; empty for none."""
    words = line.split()
    return words[1] if words[:1] == ["neighbor"] else ""


def _within(part: tuple[str, ...], line: str) -> list[str]:
    return [*part, line, *("exit" for _ in part)] if line not in ("", "no ") else []
