"""The gate of a redundant router: a frame passes an interface, in or out, only before a deadline that the kernel keeps.

The deadline is an absolute time of a clock that nobody can set. Whoever renews it may be stopped, killed or paused
between any two of its instructions: the gate shuts by itself, and a deadline that is written too late is in the past.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from systemvm import bpf

FILE = "gate"
_CLSACT, _INGRESS, _EGRESS = "clsact", 0xFFFFFFF2, 0xFFFFFFF3
_EVERYTHING = 0x0003  # ETH_P_ALL


def ensure(ip: IPRoute, run: Path, indexes: Iterable[int]) -> list[int]:
    """Have a gate on each of these interfaces, all with one deadline; return those where it was missing.

    A gate is shut when it is made.

    :param run: the folder where the number of the deadline's map is kept.
    """
    held = number(run)
    missing = [index for index in sorted(indexes) if not held or not _attached(ip, index, held)]
    if missing:
        deadline = bpf.open_map(held) if held else bpf.new_map()
        try:
            held = bpf.id_of(deadline)
            for index in missing:
                _attach(ip, index, deadline, f"gate{held}")
            (run / "gate.new").write_text(str(held), encoding="ascii")
            (run / "gate.new").replace(run / FILE)
        finally:
            os.close(deadline)
    return missing


def ensure_no(ip: IPRoute, run: Path, indexes: Iterable[int]) -> list[int]:
    """Take the gate off these interfaces; return where there was one."""
    held = number(run)
    had = [index for index in sorted(indexes) if held and _attached(ip, index, held)]
    for index in had:
        ip.tc("del", _CLSACT, index)
    return had


def number(run: Path) -> int:
    """Return the number of the map that holds the deadline; 0 while there is no gate."""
    try:
        held = int((run / FILE).read_text(encoding="ascii"))
        os.close(bpf.open_map(held))
    except (OSError, ValueError):
        return 0
    return held


def is_open(run: Path) -> bool:
    """Tell whether frames pass at this moment: a target without a gate lets them pass always."""
    held = number(run)
    if not held:
        return True
    deadline = bpf.open_map(held)
    try:
        return bpf.clock() < bpf.get(deadline)
    finally:
        os.close(deadline)


def _attached(ip: IPRoute, index: int, held: int) -> bool:
    """Tell whether the gate of this map is on both ways of the interface."""
    return all(f"gate{held}" in _names(ip, index, parent) for parent in (_INGRESS, _EGRESS))


def _names(ip: IPRoute, index: int, parent: int) -> set[object]:
    options = [entry.get_attr("TCA_OPTIONS") for entry in ip.get_filters(index=index, parent=parent)]
    return {option.get_attr("TCA_BPF_NAME") for option in options if option is not None}


def _attach(ip: IPRoute, index: int, deadline: int, name: str) -> None:
    with contextlib.suppress(NetlinkError):  # none was there
        ip.tc("del", _CLSACT, index)
    program = bpf.load(deadline)
    try:
        ip.tc("add", _CLSACT, index)
        fixed = {"fd": program, "name": name, "prio": 1, "protocol": _EVERYTHING, "direct_action": True}
        for parent in (_EGRESS, _INGRESS):
            ip.tc("add-filter", "bpf", index, 1, parent=parent, **fixed)
    finally:
        os.close(program)
