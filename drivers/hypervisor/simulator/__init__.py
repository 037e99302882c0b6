"""Hosts that are not there: the same states as real ones, for zones, clusters and hosts by the thousand.

What must stay true: nothing is remembered. What a simulated host answers follows from its bundle, its settings and its
seed alone, so any control-plane process may ask it, and a test that fails once fails again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from drivers.hypervisor.simulator.device import SERVICE, Device
from drivers.protocol import Rendered
from drivers.vocabulary import Guest, HostFacts, Shell
from systemvm.bundle import Bundle, File, Observation, Outcome


@dataclass(frozen=True, slots=True, order=True)
class SimulatedUnit:
    """A guest or a shell: its id (a shell's is its target's), name, wanted state, and which of its starts this is."""

    id: str
    name: str
    running: bool
    boot: int


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """All that a simulated host holds, each tuple in the order of its ids; any kind of segment will do."""

    segments: tuple[str, ...]
    shells: tuple[SimulatedUnit, ...]
    guests: tuple[SimulatedUnit, ...]


class Simulator:
    """The driver of hosts of hypervisor type Simulator. Its settings are those of :class:`Device`."""

    name = "Simulator"
    kind = "simulated-host"

    def plan(self, facts: HostFacts) -> SimulatedHost:
        """Decide what the host pretends to hold.

        :raises ValueError: a NIC is on a segment that is not among the facts.
        """
        carried = {segment.id for segment in facts.segments}
        machines: list[Guest | Shell] = [*facts.guests, *facts.shells]
        for machine in machines:
            for nic in machine.nics:
                if nic.segment not in carried:
                    raise ValueError(
                        f"NIC {nic.mac} of {machine.name} is on segment {nic.segment}, which is not among the facts."
                    )
        shells = sorted(SimulatedUnit(shell.target, shell.name, shell.running, shell.boot) for shell in facts.shells)
        guests = sorted(SimulatedUnit(guest.id, guest.name, guest.running, guest.boot) for guest in facts.guests)
        return SimulatedHost(tuple(sorted(carried)), tuple(shells), tuple(guests))

    def render(self, config: SimulatedHost) -> Rendered:
        """Write the config down as one file: there is nobody who would apply the difference."""
        return (File("host.json", json.dumps(asdict(config), sort_keys=True), SERVICE),), ()

    def apply(self, address: str, settings: Mapping[str, str], bundle: Bundle) -> Outcome:
        """Pretend to do it, as slowly and as badly as the settings say."""
        return Device.of(address, settings).apply(bundle)

    def observe(self, address: str, settings: Mapping[str, str], bundle: Bundle) -> Observation:
        """Say what a host would be like that had done it."""
        return Device.of(address, settings).observe(bundle)
