"""``netspine-agent``: the agent of one host, and of every appliance that lives on it."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from systemvm.agent import Agent
from systemvm.apply import Applier
from systemvm.door import Door
from systemvm.ledger import Ledger
from systemvm.services import HostSettings
from systemvm.services.kinds import KINDS, PARTIAL


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT, or clean up with ``--clean``; return the exit status."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    if os.geteuid():
        print("netspine-agent changes namespaces and firewalls: run it as root.", file=sys.stderr)
        return 1
    state = options.state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    settings = HostSettings(
        host=options.host,
        namespace=options.namespace,
        prefix=options.prefix,
        state=state,
        uplinks=dict(options.uplink),
        tunnel=options.tunnel,
        server=options.server,
        token=str(options.token_file.absolute()) if options.token_file else "",
    )
    applier = Applier(settings, Ledger(state / "ledger"), KINDS, PARTIAL)
    if options.clean:
        return _clean(applier)
    if not options.server or not options.token_file:
        print("Tell the control plane's URL (--server) and the file with this host's token.", file=sys.stderr)
        return 1
    door = Door(options.server, options.token_file.read_text(encoding="utf-8").strip())
    agent = Agent(door, applier, inventory(settings), options.host, options.observe_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()
    return 0


def _clean(applier: Applier) -> int:
    """Take every target down, hosts last, as their namespaces hold the others."""
    failed = 0
    ledger = applier.ledger
    for held in sorted([*ledger, *ledger.doubtful], key=lambda bundle: bundle.kind == "host"):
        for failure in applier.remove(held):
            print(f"{held.name}: {failure.reason}", file=sys.stderr)
            failed = 1
    return failed


def inventory(settings: HostSettings) -> dict[str, object]:
    """Return what the control plane is told of this machine: processors, their MHz, memory and disk in bytes."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    speeds = [float(line.partition(":")[2]) for line in cpuinfo.splitlines() if line.startswith("cpu MHz")]
    try:
        own = version("netspine")
    except PackageNotFoundError:
        own = "unknown"
    disk = shutil.disk_usage(settings.state)
    return {
        "arch": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "disk": disk.total,
        "disk_used": disk.used,
        "mhz": int(max(speeds, default=0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "tunnel": settings.tunnel,
        "version": own,
        "hypervisor": "LXC",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="netspine-agent", description="Netspine's agent of one host.")
    parser.add_argument("--server", default="", help="the control plane's URL, e.g. http://10.0.0.1:8080")
    parser.add_argument("--host", required=True, help="this host's name, as addHost names it")
    parser.add_argument("--token-file", type=Path, help="file with this host's token")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/netspine/agent"), help="the agent's own folder")
    parser.add_argument(
        "--namespace", default="", help="network namespace that plays the host (default: the machine's)"
    )
    parser.add_argument("--prefix", default="", help="put before the name of each namespace that is made")
    parser.add_argument(
        "--uplink", type=_pair, action="append", default=[], metavar="TRAFFIC=DEVICE", help="repeatable: Public=eth1"
    )
    parser.add_argument("--tunnel", default="", help="this host's VXLAN address")
    parser.add_argument("--observe-seconds", type=float, default=5.0, help="seconds between two observations")
    parser.add_argument("--foreground", action="store_true", help="it always is; accepted for service units")
    parser.add_argument("--verbose", action="store_true", help="log what is tried, too")
    parser.add_argument("--clean", action="store_true", help="take down every target of the ledger, and end")
    return parser


def _pair(text: str) -> tuple[str, str]:
    traffic, equals, device = text.partition("=")
    if not (traffic and equals and device):
        raise argparse.ArgumentTypeError(f"{text!r} is not TRAFFIC=DEVICE, for example Public=eth1")
    return traffic, device


if __name__ == "__main__":
    sys.exit(main())
