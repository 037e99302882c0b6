"""Deferred imports: a package that another one names for a case that may never come is loaded when that comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands for a package for those that imported it; whatever is looked at in it is the package's own."""

    def __init__(self, name: str, submodules: tuple[str, ...] = ()) -> None:
        super().__init__(name)
        for each in submodules:
            setattr(self, each, _Deferred(f"{name}.{each}"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks of every module; a stand-in is no package
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


@contextmanager
def deferred(name: str, *submodules: str) -> Iterator[None]:
    """Have what is imported in the block get a stand-in of a package, which loads it when it is first looked into.

    Everybody else gets the package itself; one that is loaded already is not stood for.

    :param submodules: those that are imported by name (``from package import submodule``).
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _Deferred(name, submodules)
    try:
        yield
    finally:
        del sys.modules[name]
