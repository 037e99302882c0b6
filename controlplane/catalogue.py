"""The standard catalogue: what a fresh database carries, and what an old one is given where it is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from sqlalchemy.orm import Session

from controlplane import rooms
from controlplane.identity import seed


def fill(session: Session, admin_password: str) -> None:
    """Put the catalogue in; repeatable.

    :param admin_password: of the first admin; ignored when there is one.
    """
    seed.fill(session, admin_password)
    session.flush()
    for package in rooms.PACKAGES:
        name = f"controlplane.{package}.seed"
        if package != "identity" and find_spec(name):
            import_module(name).fill(session)
            session.flush()
