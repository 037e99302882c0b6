"""libnftables in process: one context per network namespace, bound to it for good when it is made.

The module is Debian's python3-nftables (part of nftables itself; the one on PyPI lacks the dry run). It is loaded from
its file alone, so that nothing else of the system's Python comes in. See libnftables(3).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from systemvm import netns

_FILE = "/usr/lib/python3/dist-packages/nftables/nftables.py"
_NETLINK_NETFILTER = 12
_GETGEN = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_HEADER = struct.Struct("=IHHII")
_PLACE = re.compile(r":(\d+):(\d+)-\d+: (?:Error: )?(.*)")


@cache
def _module() -> Any:
    spec = importlib.util.spec_from_file_location("nftables", _FILE)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{_FILE} is missing: install python3-nftables.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise RuntimeError(f"{_FILE} is missing: install python3-nftables.") from error
    return module


class NftError(RuntimeError):
    """The transaction was refused, and nothing of it is in force.

    :param reason: nft's words, in one line.
    :param line: the line of the text, from 1, that it points at; 0 where it points at none.
    :param word: what stands at the place that it points at.
    """

    def __init__(self, reason: str, line: int, word: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.word = word


class Context:
    """libnftables bound to one namespace. For one thread at a time."""

    def __init__(self, namespace: str) -> None:
        """Bind to the namespace.

        :raises OSError: it is not there.
        """
        with netns.entered(namespace):
            self._nft = _module().Nftables()
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(5)

    def close(self) -> None:
        """Let go of the namespace."""
        self._socket.close()
        del self._nft

    def run(self, text: str, *, dry: bool = False) -> str:
        """Run commands as one transaction and return what they print.

        :param dry: check only.
        :raises NftError: it was refused.
        """
        nft, context = self._nft, self._nft._Nftables__ctx  # noqa: SLF001 - 1.0.6 has no method for a dry run
        nft.nft_ctx_set_dry_run(context, dry)
        failed, output, _ = nft.cmd(text)
        if failed:
            # From a buffer it quotes the wrong line; from a file it tells line and column of the same text.
            with _memory_file(text) as path:
                failed = nft.nft_run_cmd_from_filename(context, path.encode())
                output, error = nft.nft_ctx_get_output_buffer(context), nft.nft_ctx_get_error_buffer(context)
            if failed:
                raise _explained(text, error.decode(errors="replace"))
        return str(output)

    def listing(self, what: str) -> list[dict[str, Any]]:
        """Return what ``list`` says in JSON, see libnftables-json(5)."""
        self._nft.set_json_output(True)
        try:
            listed: list[dict[str, Any]] = json.loads(self.run(f"list {what}"))["nftables"]
        finally:
            self._nft.set_json_output(False)
        return listed

    def generation(self) -> int:
        """Return the ruleset's generation: the kernel raises it with every transaction of anyone."""
        self._socket.send(_HEADER.pack(20, _GETGEN, 1, 0, 0) + struct.pack("!BBH", 0, 0, 0))
        answer = self._socket.recv(4096)
        size, kind, at = _HEADER.unpack_from(answer)[0], _HEADER.unpack_from(answer)[1], 20
        while kind == _GETGEN - 1 and at < size:
            length, attribute = struct.unpack_from("=HH", answer, at)
            if attribute == 1:  # NFTA_GEN_ID
                return int(struct.unpack_from("!I", answer, at + 4)[0])
            at += (length + 3) & ~3
        raise RuntimeError("The kernel did not tell the generation of its ruleset.")


@contextmanager
def _memory_file(text: str) -> Iterator[str]:
    descriptor = os.memfd_create("nft", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _explained(text: str, error: str) -> NftError:
    """Read ``FILE:LINE:COLUMN-COLUMN: Error: REASON`` and find the word that is meant."""
    said = error.partition("\n")[0]
    place = _PLACE.search(said)
    if place is None:
        return NftError(said.removeprefix("Error: ") or "nft gave no reason", 0, "")
    line, column = int(place[1]), int(place[2])
    rest = text.splitlines()[line - 1][column - 1 :][:200]
    return NftError(place[3], line, rest.partition(", ")[0].rstrip(" };"))
