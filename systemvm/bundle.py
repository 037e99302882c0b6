"""The values that cross the wire between the control plane and whatever applies a configuration.

A *bundle* is the whole desired state of one target: never a change to it. It is a value with a digest, so that two
bundles are the same state exactly when their digests are equal, and a generation, so that an older one can be refused.
This module is the lowest of all: it imports nothing of the project, and everything may import it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class File:
    """One rendered file.

    :param path: relative to the target's own directory, for example ``dnsmasq/dnsmasq.conf``; never leaves it.
    :param content: the text.
    :param service: the agent's service that checks and activates it (a key of ``systemvm.services.SERVICES``).
    :param secret: keys and passwords: written with mode 0600 and left out of every dump and difference.
    """

    path: str
    content: str
    service: str
    secret: bool = False


@dataclass(frozen=True)
class Elements:
    """The elements of one large nftables set or map, kept beside the small skeleton that declares it.

    They are sorted and unique, so the agent can hand the kernel only the difference to the last applied ones.

    :param name: the set's or map's name in the skeleton's table.
    :param items: each element in nft syntax, for example ``203.0.113.5 . tcp . 80 : 10.1.1.2 . 80``.
    """

    name: str
    items: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the items, none of which has a line's end in it."""
        return hashlib.sha256("\n".join(self.items).encode()).hexdigest()

    def to_json(self, base: Elements | None = None) -> dict[str, Any]:
        """Return the wire form.

        :param base: what the receiver has of this set: only the difference to it is written, where that is smaller.
        """
        if base is None:
            return {"name": self.name, "items": self.items}
        if base.digest == self.digest:
            return {"name": self.name, "gone": (), "come": ()}
        before, after = set(base.items), set(self.items)
        gone, come = sorted(before - after), sorted(after - before)
        if 2 * (len(gone) + len(come)) > len(after):
            return self.to_json()
        return {"name": self.name, "gone": gone, "come": come}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: Elements | None = None) -> Elements:
        """Read the wire form; the base must be the one that it was written with."""
        if base is None or "items" in data:
            return cls(data["name"], tuple(data["items"]))
        gone, come = frozenset(data["gone"]), data["come"]
        if not gone and not come:
            return base
        kept = [item for item in base.items if item not in gone] if gone else list(base.items)
        return cls(base.name, tuple(sorted(kept + come)))


@dataclass(frozen=True)
class Bundle:
    """The whole desired state of one target at one generation.

    :param target: the target's UUID.
    :param name: the target's own name, which is also the namespace's or VM's (``r-12-VM``, ``host-1``).
    :param kind: what the target is (``router``, ``host`` …): chooses the services that apply it.
    :param generation: rises by at least one with every change of the desired state.
    :param absent: the target is to be taken down; there are no files then.
    """

    target: str
    name: str
    kind: str
    generation: int
    files: tuple[File, ...] = ()
    elements: tuple[Elements, ...] = ()
    absent: bool = False

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the target's state; the generation does not."""
        state = [
            self.name,
            self.kind,
            self.absent,
            [[f.path, f.content, f.service, f.secret] for f in self.files],
            [[e.name, e.digest] for e in self.elements],
        ]
        return hashlib.sha256(json.dumps(state, separators=(",", ":")).encode()).hexdigest()

    def to_json(self, base: Bundle | None = None) -> dict[str, Any]:
        """Return the wire form, digest included.

        :param base: a bundle that the receiver has said to have: of its large sets only the difference is written.
        """
        fields = {name: getattr(self, name) for name in ("target", "name", "kind", "generation", "absent", "digest")}
        had = base.sets if base else {}
        elements = [each.to_json(had.get(each.name)) for each in self.elements]
        return fields | {"files": [asdict(file) for file in self.files], "elements": elements}

    @property
    def sets(self) -> dict[str, Elements]:
        """The elements by the name of their set."""
        return {each.name: each for each in self.elements}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: Bundle | None = None) -> Bundle:
        """Read the wire form.

        :param base: the bundle that it was written with, if any.
        :raises ValueError: the digest in it is not that of its content.
        """
        had = base.sets if base else {}
        bundle = cls(
            target=data["target"],
            name=data["name"],
            kind=data["kind"],
            generation=data["generation"],
            files=tuple(File(**file) for file in data["files"]),
            elements=tuple(Elements.from_json(each, had.get(each["name"])) for each in data["elements"]),
            absent=data["absent"],
        )
        if bundle.digest != data["digest"]:
            raise ValueError(f"The bundle for {bundle.name} arrived damaged: its digest does not match its content.")
        return bundle


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a part of a bundle could not be brought about.

    :param unit: the file (``haproxy/haproxy.cfg``) or, on a host, the guest's UUID that failed.
    :param reason: a sentence a person can act on, with the checker's own words and line where there are any.
    """

    unit: str
    reason: str


Status = Literal["applied", "unchanged", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of applying a bundle.

    ``applied`` and ``unchanged`` mean that the target stands at the generation. A *host* may be ``applied`` with
    failures: each of its guests is a unit of its own. ``failed`` means that the former state is still in force.
    """

    target: str
    generation: int
    digest: str
    status: Status
    failures: tuple[Failure, ...] = ()
    changed: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Read the wire form."""
        fields = dict(data)
        fields["failures"] = tuple(Failure(**failure) for failure in data.get("failures", ()))
        fields["changed"] = tuple(data.get("changed", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was found on a target when it was read back.

    :param health: check name → empty when healthy, otherwise the reason.
    :param counters: counter name (a rule's, address's or network's UUID) → (packets, bytes) since the target was made.
    :param states: unit → state, for example a guest's UUID → ``running``, or ``LB-RULE/MEMBER-IP`` → ``UP``.
    """

    target: str
    health: tuple[tuple[str, str], ...] = ()
    counters: tuple[tuple[str, int, int], ...] = ()
    states: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Observation:
        """Read the wire form."""
        return cls(
            data["target"],
            tuple((name, reason) for name, reason in data["health"]),
            tuple((name, packets, size) for name, packets, size in data["counters"]),
            tuple((unit, state) for unit, state in data["states"]),
        )
