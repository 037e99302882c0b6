"""L2TP over IPsec: whether this host can do it, and what the IKE daemon has besides where it can.

It needs ESP in transport mode and PPP, which only a kernel has: the IKE daemon's own ESP knows tunnels only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from systemvm.services.charon import kernel_has_esp

PPP = Path("/dev/ppp")
PROGRAMS = "xl2tpd", "pppd"


def missing(namespace: str) -> str:
    """Return what this host lacks for L2TP, as a sentence; empty when it lacks nothing."""
    programs = [name for name in PROGRAMS if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    return sentence(esp=kernel_has_esp(namespace, "transport"), ppp=kernel_has_ppp(PPP), programs=programs)


def sentence(*, esp: bool, ppp: bool, programs: list[str]) -> str:
    """Say what is missing.

    :param programs: those that are not there.
    """
    lacks = [name for name, there in (("ESP", esp), ("PPP", ppp)) if not there]
    found = [f"this host's kernel has no {' and no '.join(lacks)}"] if lacks else []
    found += [f"this host has no {' and no '.join(programs)}"] if programs else []
    return f"{', '.join(found)}: L2TP is off, IKEv2 works" if found else ""


def kernel_has_ppp(device: Path) -> bool:
    """Tell whether the kernel does PPP: its device can be opened (the node alone says nothing)."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def added(wanted: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
    """Return what the IKE daemon is to have on this host: with the sections for L2TP where it can be done."""
    more = wanted["l2tp"]
    if not more or missing(namespace):
        return wanted
    return {**wanted, **{name: {**wanted[name], **section} for name, section in more.items()}}
