"""What commands answer with: plain dataclasses whose fields are CloudStack's response fields."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


def api_date(value: datetime) -> str:
    """Write a time as the wire has it, for example ``2030-01-01T00:00:00+0000``."""
    return value.strftime("%Y-%m-%dT%H:%M:%S%z")


@dataclass(kw_only=True)
class Response:
    """One object of an answer; a field that is None is left out of it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that have a value, ready for JSON."""
        shown = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None:
                shown[name] = _plain(value)
        return shown


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, datetime):
        return api_date(value)
    if isinstance(value, Response):
        return value.to_json()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} has no form on the wire")
