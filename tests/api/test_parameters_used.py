"""No parameter is accepted and ignored: each is read by the code of its command, or says why it changes nothing."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

import pytest

from controlplane import rooms
from controlplane.api import http  # noqa: F401 - brings the commands that belong to the endpoint
from controlplane.api.command import REGISTRY, Command

rooms.enter()
ROOM = "controlplane."


@cache
def read_in(module: str) -> frozenset[str]:
    """Return the attributes that the module reads, and the texts in it that could be the name of one."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return frozenset(found)


@cache
def around(module: str) -> frozenset[str]:
    """Return the module and those of ours that it imports: where a command hands itself over to."""
    names = {value.__module__ for value in vars(sys.modules[module]).values() if hasattr(value, "__module__")}
    names |= {value.__name__ for value in vars(sys.modules[module]).values() if inspect.ismodule(value)}
    return frozenset({module} | {name for name in names if name and name.startswith(ROOM) and name in sys.modules})


def unread(command: type[Command]) -> list[str]:
    homes = {kind.__module__ for kind in command.__mro__ if kind.__module__.startswith(ROOM)}
    known = {name for home in homes for near in around(home) for name in read_in(near)}
    return [
        name
        for name, parameter in command.parameters().items()
        if name not in known
        and parameter.declared.matches is None
        and not parameter.declared.description.startswith("accepted: ")
        and not name.endswith("networklabel")  # put together from the hypervisors' names
        and len(parameter.declared.choices) != 1  # a single choice says nothing
    ]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_parameter_is_read_or_says_why_it_changes_nothing(name: str):
    assert unread(REGISTRY[name]) == []
