"""Open vSwitch: the virtual switch of a host, one bridge an uplink, in user space where the kernel has no datapath.

One ovsdb-server and one ovs-vswitchd serve the host's namespace, with sockets, logs and database in the host's own
folder; they are there while a segment needs them. The database holds nothing that the bundle does not say, so a
damaged one is made anew. Each change is one transaction of ovs-vsctl(8) and one bundle of ovs-ofctl(8), and each pass
reads back first: what stands as it should is not touched. See ovs-vswitchd.conf.db(5).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from systemvm import netns
from systemvm.daemon import Daemon
from systemvm.openflow import UPLINK, Lane, flows
from systemvm.services import Place

_SCHEMA: Final = Path("/usr/share/openvswitch/vswitch.ovsschema")
_PROTOCOL: Final = "OpenFlow14"
_WAIT: Final = 10.0
_LONGEST_NAME: Final = 15
_TABLES: Final = (("Bridge", "name,ports,fail_mode,datapath_type"), ("Port", "_uuid,name"))
_INTERFACE: Final = ("Interface", "name,ofport_request,ofport,external_ids,error")


@dataclass(frozen=True, slots=True)
class Socket:
    """One device in a bridge: another making of the device has another ``index``, and must be put in anew."""

    port: int
    index: int


Bridges = Mapping[str, Mapping[str, Socket]]
"""Bridge → device → how it is in it."""


def bridge_name(uplink: str) -> str:
    """Return the name of the bridge on an uplink."""
    return f"ovs-{uplink}" if len(uplink) + 4 <= _LONGEST_NAME else f"ov{uplink[-13:]}"


class Vswitch:
    """The virtual switch of the host at a place."""

    def __init__(self, place: Place) -> None:
        self._folder = place.folder / "ovs"
        self._namespace = place.host.namespace
        self._database = Daemon("ovsdb-server", self._namespace, self._folder)
        self._switch = Daemon("ovs-vswitchd", self._namespace, self._folder)

    @property
    def wanted(self) -> bool:
        """Whether a segment of the last pass needs it."""
        return self._folder.exists()

    def trouble(self) -> str:
        """Return why it does not carry, empty when its daemons run."""
        gone = [daemon.name for daemon in (self._database, self._switch) if daemon.pid() is None]
        return f"{' and '.join(gone)} of Open vSwitch does not run" if gone else ""

    def ensure(self, lanes: Mapping[str, Sequence[Lane]], indices: Mapping[str, int]) -> list[str]:
        """Bring it to what is wanted; return what was done.

        :param lanes: uplink → the segments on it; nothing at all ends the daemons.
        :param indices: device → the kernel's index of it.
        :raises RuntimeError: it is not installed, does not start, or refuses; the sentence says which.
        """
        if not lanes:
            return self.remove()
        done = self._ensure_daemons()
        wanted = {
            bridge_name(uplink): {uplink: Socket(UPLINK, indices[uplink])}
            | {lane.port: Socket(lane.vlan, indices[lane.port]) for lane in on}
            for uplink, on in lanes.items()
        }
        present = self._bridges()
        if present != wanted:
            self._change(present, wanted)
            done += [f"set the ports of {name}" for name in wanted if present.get(name) != wanted[name]]
            done += [f"removed the switch {name}" for name in present if name not in wanted]
            self._refuse_broken()
        for uplink, on in lanes.items():
            done += self._ensure_flows(bridge_name(uplink), flows(on))
        return done

    def flows(self, uplink: str) -> tuple[str, ...]:
        """Return the flows of the bridge on an uplink as the switch holds them, sorted."""
        return self._flows(bridge_name(uplink))

    def remove(self) -> list[str]:
        """End it, with all that is its own; repeatable."""
        if not self._folder.exists():
            return []
        if self.trouble() == "":
            # its bridges' own devices go with the bridges
            self._change(self._bridges(), {})
        self._switch.stop()
        self._database.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        return ["ended Open vSwitch"]

    def _ensure_daemons(self) -> list[str]:
        if not self.trouble():
            return []
        if shutil.which("ovs-vswitchd") is None or not _SCHEMA.exists():
            raise RuntimeError("Open vSwitch is not installed (package openvswitch-switch)")
        if self._database.pid() is None:
            self._switch.stop()  # it would wait for the former one's socket
            self._database.stop()  # one of a namespace that was made anew still holds the file
            self._start_database()
        if self._switch.pid() is None:
            self._switch.stop()
            self._start(self._switch, self._remote)
            # A change is answered when the switch has made it, and all that the database held before.
            self._vsctl("set", "Open_vSwitch", ".", f"external_ids:started={self._switch.pid()}")
        return ["started Open vSwitch"]

    def _start_database(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / "conf.db"
        argv = (str(file), f"--remote=p{self._remote}")
        if file.exists():
            try:
                return self._start(self._database, *argv)
            except RuntimeError:
                file.unlink()
        netns.run("", ["ovsdb-tool", "create", str(file), str(_SCHEMA)])
        self._start(self._database, *argv)
        # Frames of up to 64 KiB with checksums to be filled in travel whole, as the kernel's own bridges pass them on.
        self._vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        return None

    def _start(self, daemon: Daemon, *argv: str) -> None:
        """Start a daemon in the foreground, and wait until it answers."""
        control = self._folder / f"{daemon.name}.ctl"
        control.unlink(missing_ok=True)
        more = (f"--unixctl={control}", "--verbose=console:warn", "--verbose=syslog:off")
        line = ["env", f"OVS_RUNDIR={self._folder}", daemon.name, *argv, *more]
        pid, deadline = daemon.start(line, self._folder), time.monotonic() + _WAIT
        while not control.exists():
            if daemon.pid() != pid or time.monotonic() > deadline:
                reason = daemon.said(3) or "it did not come up"
                daemon.stop()
                raise RuntimeError(f"{daemon.name} did not start: {reason}")
            time.sleep(0.005)

    @property
    def _remote(self) -> str:
        return f"unix:{self._folder / 'db.sock'}"

    def _vsctl(self, *argv: str) -> str:
        line = ["ovs-vsctl", f"--db={self._remote}", f"--timeout={_WAIT:.0f}", "--format=json", *argv]
        return netns.run("", line)

    def _change(self, present: Bridges, wanted: Bridges) -> None:
        """Lead from what is there to what is wanted: one transaction, and one before it where a device must go.

        A device that goes and comes within one transaction would keep the sockets of its former making.
        """
        for commands in (_removals(present, wanted), _additions(present, wanted)):
            if commands:
                self._vsctl(*(word for command in commands for word in ("--", *command)))

    def _ofctl(self, bridge: str, verb: str, *more: str, text_in: str | None = None) -> str:
        line = ["ovs-ofctl", "-O", _PROTOCOL, "--bundle", "--no-stats", verb, f"unix:{self._folder / bridge}.mgmt"]
        return netns.run("", [*line, *more], text_in=text_in)

    def _read(self, tables: Iterable[tuple[str, str]]) -> list[list[list[Any]]]:
        commands = [word for table, columns in tables for word in ("--", f"--columns={columns}", "list", table)]
        return [json.loads(line)["data"] for line in self._vsctl(*commands).splitlines()]

    def _bridges(self) -> Bridges:
        """Read back which devices are in which bridge; a bridge that is not of our making has none."""
        bridges, ports, interfaces = self._read((*_TABLES, _INTERFACE))
        names = {uuid[1]: name for uuid, name in ports}
        sockets = {
            name: Socket(ofport, int(dict(ids[1]).get("ifindex", 0)))
            for name, wanted, ofport, ids, _ in interfaces
            if wanted == ofport
        }
        found: dict[str, Mapping[str, Socket]] = {}
        for name, held, fail_mode, datapath in bridges:
            inside = [names[uuid] for _, uuid in (held[1] if held[0] == "set" else [held])]
            right = fail_mode == "secure" and datapath == "netdev"
            devices = (device for device in inside if device != name) if right else ()
            found[name] = {device: sockets.get(device, Socket(0, 0)) for device in devices}
        return found

    def _refuse_broken(self) -> None:
        (interfaces,) = self._read((_INTERFACE,))
        for name, wanted, ofport, _, error in interfaces:
            if isinstance(wanted, int) and wanted != ofport:
                reason = error if isinstance(error, str) else f"it is port {ofport} instead of {wanted}"
                raise RuntimeError(f"Open vSwitch does not take {name}: {reason}")

    def _flows(self, bridge: str) -> tuple[str, ...]:
        lines = self._ofctl(bridge, "dump-flows").splitlines()
        return tuple(sorted(line.strip() for line in lines if "actions=" in line))

    def _ensure_flows(self, bridge: str, wanted: tuple[str, ...]) -> list[str]:
        if self._flows(bridge) == wanted:
            return []
        self._ofctl(bridge, "replace-flows", "-", text_in="".join(f"{flow}\n" for flow in wanted))
        return [f"set the flows of {bridge}"]


def _removals(present: Bridges, wanted: Bridges) -> list[list[str]]:
    commands = [["del-br", name] for name in present if name not in wanted]
    for name, devices in wanted.items():
        before = present.get(name, {})
        commands += [["del-port", name, device] for device in before if before[device] != devices.get(device)]
    return commands


def _additions(present: Bridges, wanted: Bridges) -> list[list[str]]:
    commands: list[list[str]] = []
    for name, devices in wanted.items():
        before = present.get(name, {})
        if before == devices:
            continue
        commands.append(["--may-exist", "add-br", name])
        commands.append(["set", "Bridge", name, "datapath_type=netdev", "fail_mode=secure"])
        for device, socket in devices.items():
            if before.get(device) != socket:
                commands.append(["--may-exist", "add-port", name, device])
                settings = (f"ofport_request={socket.port}", f"external_ids:ifindex={socket.index}")
                commands.append(["set", "Interface", device, *settings])
    return commands
