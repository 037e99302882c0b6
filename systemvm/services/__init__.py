"""Services: what the agent can do with the files of a bundle, one module a service.

A service checks staged files, activates what changed without a gap, heals what was lost, reads back and takes down.
What must stay true: ``check`` changes nothing; ``activate`` and ``ensure`` may be repeated; no service runs a command
that a bundle names; a daemon that a service starts outlives the agent and is known again by its pid file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from systemvm.bundle import Bundle, Failure, Observation


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What the agent was told about the machine that it works on.

    :param host: the host's name, as in addHost.
    :param namespace: the network namespace that plays the host; empty means the machine's own.
    :param prefix: put before the name of each namespace that is made, so that several agents fit on one machine.
    :param state: the agent's own folder; it survives a restart.
    :param uplinks: traffic type (``Public``, ``Guest`` …) → the host's device that carries it.
    :param tunnel: the host's VXLAN address.
    :param server: the control plane's URL, and ``token`` the file with this host's token.
    """

    host: str
    namespace: str
    prefix: str
    state: Path
    uplinks: dict[str, str] = field(default_factory=dict)
    tunnel: str = ""
    server: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one target lives on this machine.

    :param name: the target's name.
    :param namespace: its network namespace.
    :param folder: its own folder; ``folder / "current"`` holds the files in force, by the paths in the bundle.
    """

    name: str
    namespace: str
    folder: Path
    host: HostSettings

    @property
    def current(self) -> Path:
        """The folder of the files in force."""
        return self.folder / "current"


class Service(Protocol):
    """One of the things that a bundle's files can be for."""

    name: str

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Check the staged files without touching anything in force; each failure names its file."""
        ...

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Bring the files in force (``place.current``, already swapped) to life.

        :param old: what was in force, None on a fresh target: only the difference is to be touched.
        """
        ...

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Repair what is not as the bundle in force says; return what was repaired, empty when all was well."""
        ...

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Read the kernel or the daemon back."""
        ...

    def remove(self, place: Place) -> None:
        """Take down everything that this service made for the target; repeatable."""
        ...
