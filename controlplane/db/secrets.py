"""Secrets at rest: columns whose content is encrypted with a key that lies outside the database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy import Text, TypeDecorator

_keys: list[MultiFernet] = []


def load_key(file: Path) -> None:
    """Use the keys in the file, one a line, the newest first; a fresh key is made where there is no file.

    :raises ValueError: the file holds something that is no key.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(Fernet.generate_key() + b"\n")
    _keys[:] = [MultiFernet([Fernet(line) for line in file.read_bytes().split()])]


def seal(text: str) -> str:
    """Encrypt a text."""
    return _keys[0].encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """Decrypt what :func:`seal` gave."""
    return _keys[0].decrypt(sealed.encode()).decode()


class Secret(TypeDecorator[str]):
    """A text column that is only ever encrypted in the database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """Encrypt."""
        del dialect
        return None if value is None else seal(value)

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        """Decrypt."""
        del dialect
        return None if value is None else unseal(value)


class SecretJson(TypeDecorator[dict[str, Any]]):
    """A JSON object that may hold a secret (a job's result tells a new password): encrypted in the database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Any) -> str | None:
        """Encrypt."""
        del dialect
        return None if value is None else seal(json.dumps(value))

    def process_result_value(self, value: str | None, dialect: Any) -> dict[str, Any] | None:
        """Decrypt."""
        del dialect
        return None if value is None else json.loads(unseal(value))
