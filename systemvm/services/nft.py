"""nft: a target's tables. A changed skeleton replaces them whole, changed elements alone are handed over as such.

Both are one transaction: a packet meets the old or the new table, never a part. The kernel raises a generation with
every transaction of anyone, so what it holds is listed in full only when somebody else had a hand in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from systemvm import netns, settle
from systemvm.bundle import Bundle, Elements, Failure, File, Observation
from systemvm.libnftables import Context, NftError
from systemvm.services import Place, elements
from systemvm.services.nft_reading import Reading, counts_of, imprint_of, listing, read, read_apart
from systemvm.tally import Count, Tally

_PROBE = 500
"""How many elements are checked beside a new skeleton: more are left to the transaction, which is a check of the same
worth and as dear. That keeps 10,000 elements near the price of ``nft -f``."""
_CHEAP = 0.05
_SHARE = 50
"""A listing that took a second is repeated after this many seconds."""


@dataclass
class _Kernel:
    """What is known of one namespace's table.

    :param generation: the ruleset's, after our last transaction; 0 is unknown.
    :param digest: of the skeleton and elements that it holds.
    :param imprint: hash of the listing at that generation; empty while it was not listed.
    :param look: a reading of a large table that is under way beside everything else, or was not looked at yet.
    """

    context: Context
    inode: int
    tally: Tally
    generation: int = 0
    digest: str = ""
    imprint: str = ""
    listed: float = 0.0
    cost: float = 0.0
    look: Future[Reading] | None = None
    totals: Mapping[str, Count] = field(default_factory=dict)


class Nft:
    """The service ``nft``."""

    name = "nft"

    def __init__(self) -> None:
        self._kernels: dict[str, _Kernel] = {}
        self._digests: dict[str, tuple[str, str]] = {}
        self._safe: dict[str, dict[str, Elements]] = {}
        self._looks = ThreadPoolExecutor(1, "look")

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Dry-run a new skeleton inside the namespace, and its elements with it as long as they are few.

        Under the skeleton in force nothing is tried: a dry run takes the kernel 10 ms and more, and the transaction
        that follows is refused as a whole for the same reasons.
        """
        file = _skeleton(bundle)
        if file is None:
            return [Failure("nft", "There are elements but no skeleton.")] if bundle.elements else []
        if wrong := self._wrong(place, file, bundle):
            return [Failure(file.path, f"{file.path}: {wrong}")]
        if _in_force(place, file):
            return []
        probe = elements.replacing(file.content, () if _many(bundle) else bundle.elements)
        try:
            self._kernel(place).context.run(probe, dry=True)
        except NftError as error:
            return [_failure(file, probe, error)]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Hand over the difference in one transaction, then settle the connections whose translation changed."""
        kernel, before, after = self._kernel(place), _skeleton(old), _skeleton(new)
        if after is None:
            self.remove(place)
            self._drop(place, before)
            return []
        if old is None and kernel.digest == self._digest(new) and kernel.generation == kernel.context.generation():
            return []  # what is to be restored was never lost
        if old is None or before is None or before.content != after.content or not self._change(kernel, old, new):
            text = self._replaced(kernel, before, after, new)
            try:
                kernel.context.run(text)
            except NftError as error:
                return [_failure(after, text, error)]
        kernel.digest, kernel.imprint, kernel.generation = self._digest(new), "", kernel.context.generation()
        self._note(place, kernel)
        settle.settle(place.namespace, elements.by_name(old), elements.by_name(new))
        return []

    def _change(self, kernel: _Kernel, old: Bundle, new: Bundle) -> bool:
        """Change the elements alone; False where the table is not what it should be."""
        skeleton = _skeleton(new)
        text = elements.changing(skeleton.content, old, new) if skeleton else ""
        try:
            if text:
                kernel.context.run(text)
        except NftError:
            return False
        return True

    def _replaced(self, kernel: _Kernel, before: File | None, after: File, new: Bundle) -> str:
        tables = elements.tables_of(after.content)
        former = elements.tables_of(before.content) if before else tables
        # A large table takes longer to list than to load: what was counted since it was last listed is let go then.
        if kernel.digest:
            kernel.tally.fold(counts_of(kernel.context, former) if kernel.cost < _CHEAP else None)
        kernel.look = None  # it would count what is gone
        text = elements.replacing(after.content, new.elements)
        return elements.removing(table for table in former if table not in tables) + text

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Load the table again where somebody else changed or removed it."""
        file = _skeleton(bundle)
        if file is None:
            return []
        kernel = self._kernel(place)
        generation = kernel.context.generation()
        held = kernel.digest == self._digest(bundle)
        if held and generation == kernel.generation:
            return []
        tables = elements.tables_of(file.content)
        if held and kernel.imprint:
            listed = listing(kernel.context, tables)
            if listed and imprint_of(listed) == kernel.imprint:
                kernel.generation = generation
                self._note(place, kernel)
                return []
        # Another's table may have raised the generation before ours was first read back: then this changes nothing.
        former = self._imprint(kernel, bundle) if held and not kernel.imprint else ""
        kernel.tally.fold()
        kernel.look = None
        kernel.context.run(elements.replacing(file.content, bundle.elements))
        kernel.digest, kernel.imprint, kernel.generation = self._digest(bundle), "", kernel.context.generation()
        self._note(place, kernel)
        if former and former == self._imprint(kernel, bundle):
            return []
        names = " and ".join(" ".join(table) for table in tables)
        return [f"table {names} was not as it should be and was loaded again"]

    def _imprint(self, kernel: _Kernel, bundle: Bundle) -> str:
        """Return the imprint of what the kernel has; empty where it has nothing, or more than is read in a moment."""
        file = _skeleton(bundle)
        if file is None or _many(bundle):
            return ""
        listed = listing(kernel.context, elements.tables_of(file.content))
        return imprint_of(listed) if listed else ""

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Return the named counters, and those of the elements summed by their comment (the rule's UUID).

        A large table takes seconds to read, and an apply must not wait for it: that is done apart, and what was found
        is told the next time.
        """
        file = _skeleton(bundle)
        if file is None:
            return Observation(bundle.target)
        kernel = self._kernel(place)
        if kernel.look is None and time.monotonic() - kernel.listed >= kernel.cost * _SHARE:
            tables, wanted = elements.tables_of(file.content), not kernel.imprint
            if _many(bundle):
                kernel.look = self._looks.submit(read_apart, place.namespace, tables, imprint=wanted)
            else:
                self._adopt(place, kernel, read(kernel.context, tables, imprint=wanted))
        if kernel.look and kernel.look.done():
            look, kernel.look = kernel.look, None
            self._adopt(place, kernel, look.result())
        counters = tuple((name, *count) for name, count in kernel.totals.items())
        return Observation(bundle.target, health=(("nft", ""),), counters=counters)

    def _adopt(self, place: Place, kernel: _Kernel, found: Reading) -> None:
        kernel.totals = kernel.tally.read(found.counts)
        if found.imprint and not kernel.imprint and found.generation == kernel.generation:
            kernel.imprint = found.imprint
            self._note(place, kernel)
        kernel.listed, kernel.cost = time.monotonic(), found.seconds

    def remove(self, place: Place) -> None:
        """Let go of the namespace; the table goes with it, or with the bundle that no longer has it."""
        self._safe.pop(place.namespace, None)
        if kernel := self._kernels.pop(place.namespace, None):
            kernel.context.close()
        (place.folder / "run" / "nft.json").unlink(missing_ok=True)
        file = place.current / "nftables.nft"
        if file.exists() and (not place.namespace or netns.exists(place.namespace)):
            self._drop(place, File("nftables.nft", file.read_text(encoding="utf-8"), "nft"))

    def _drop(self, place: Place, skeleton: File | None) -> None:
        if skeleton is not None:
            context = Context(place.namespace)
            context.run(elements.removing(elements.tables_of(skeleton.content)))
            context.close()

    def _wrong(self, place: Place, file: File, bundle: Bundle) -> str:
        """Return what is wrong with the text alone, empty where nothing is; what was found safe is not read again."""
        try:
            elements.tables_of(file.content)
        except ValueError as error:
            return str(error)
        known = self._safe.setdefault(place.namespace, {})
        for entry in bundle.elements:
            if not elements.declares(file.content, entry.name):
                return f"it declares no set or map {entry.name}, which has elements."
            safe = known.get(entry.name, Elements(entry.name, ()))
            if safe.digest == entry.digest:
                continue
            if bad := next(elements.unsafe(list(set(entry.items).difference(safe.items))), None):
                return f"set {entry.name}: {bad!r} is not one element."
            known[entry.name] = entry
        return ""

    def _digest(self, bundle: Bundle) -> str:
        """Return the digest of the table alone, remembered by the bundle's own, as it is asked for again and again."""
        known = self._digests.get(bundle.target)
        if known is None or known[0] != bundle.digest:
            file = _skeleton(bundle)
            table = hashlib.sha256(file.content.encode() if file else b"")
            for each in bundle.elements:
                table.update(f"\n{each.name} {each.digest}".encode())
            known = (bundle.digest, table.hexdigest())
            self._digests[bundle.target] = known
        return known[1]

    def _kernel(self, place: Place) -> _Kernel:
        """Return what is known of the namespace, from the note of a former agent where this one knows nothing yet."""
        inode = netns.inode(place.namespace)
        kernel = self._kernels.get(place.namespace)
        if kernel is None or kernel.inode != inode:
            run = place.folder / "run"
            run.mkdir(parents=True, exist_ok=True)
            kernel = _Kernel(Context(place.namespace), inode, Tally(run / "counters-nft.json"))
            with contextlib.suppress(OSError, ValueError):
                note = json.loads((run / "nft.json").read_text(encoding="ascii"))
                if note[0] == inode:
                    _, kernel.generation, kernel.digest, kernel.imprint = note
            self._kernels[place.namespace] = kernel
        return kernel

    def _note(self, place: Place, kernel: _Kernel) -> None:
        run = place.folder / "run"
        note = [kernel.inode, kernel.generation, kernel.digest, kernel.imprint]
        (run / "nft.new").write_text(json.dumps(note), encoding="ascii")
        (run / "nft.new").replace(run / "nft.json")


def _skeleton(bundle: Bundle | None) -> File | None:
    files = bundle.files if bundle else ()
    return next((file for file in files if file.service == "nft" and file.path.endswith(".nft")), None)


def _many(bundle: Bundle) -> bool:
    """Tell whether trying, or reading back, all elements would take long."""
    return sum(len(entry.items) for entry in bundle.elements) > _PROBE


def _in_force(place: Place, file: File) -> bool:
    """Tell whether the kernel took this very skeleton already."""
    path = place.current / file.path
    return path.exists() and path.read_text(encoding="utf-8") == file.content


def _failure(file: File, text: str, error: NftError) -> Failure:
    """Name the skeleton's line, or the set's element, that nft points at."""
    head = text.index(file.content.rstrip())
    line = error.line - text.count("\n", 0, head)
    if 0 < line <= file.content.rstrip().count("\n") + 1:
        where = f"{file.path} line {line}"
    elif error.line and "{" in (command := text.splitlines()[error.line - 1]):
        where = f"{file.path}: an element of {command.partition(' {')[0].rpartition(' ')[2]}"
    else:
        where = file.path
    return Failure(file.path, f"{where}: {error.reason}" + (f" at {error.word!r}" if error.word else ""))
