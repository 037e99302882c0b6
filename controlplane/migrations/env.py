"""Alembic's entry: runs on the connection that it is given, over all tables of all rooms."""

from __future__ import annotations

from typing import Any

from alembic import context

from controlplane import rooms
from controlplane.db.base import Base


def _render(kind: str, item: Any, autogen: Any) -> Any:
    """Write our own column types with their import."""
    if kind == "type" and type(item).__module__.startswith("controlplane."):
        autogen.imports.add(f"from {type(item).__module__} import {type(item).__name__}")
        return f"{type(item).__name__}()"
    return False


rooms.enter()
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=_render,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
