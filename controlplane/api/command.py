"""The command: one class describes one API command, once.

::

    class DeleteFirewallRule(Command, name="deleteFirewallRule", answer=success(), job=True, event="FIREWALL.CLOSE"):
        '''Delete a firewall rule.'''

        id: FirewallRule = required()

        def run(self, ctx: Context) -> None:
            ctx.session.delete(self.id)
            ctx.touch(self.id.address)

``run`` checks, writes rows and says what it touched; the dispatcher does the rest in the same transaction.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from controlplane.api.caller import ADMINS, Role
from controlplane.api.parameters import Declared, Parameter, describe
from controlplane.api.responses import Response

if TYPE_CHECKING:
    from controlplane.api.context import Context

View = Callable[["Context", Sequence[Any]], Sequence[Response]]
"""Turns rows into responses, all at once, so that the number of queries does not grow with the rows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The form of a command's answer.

    :param kind: ``one`` object under ``key``, ``many`` of them with a count, ``success``, or ``flat`` fields.
    :param view: makes the responses of ``one`` and ``many``.
    :param response: the response class, for discovery.
    """

    kind: Literal["one", "many", "success", "flat"]
    key: str = ""
    view: View | None = None
    response: type[Response] | None = None


def one(key: str, view: View) -> Answer:
    """Answer with one object; ``run`` returns its row."""
    return Answer("one", key, view, _response_of(view))


def many(key: str, view: View) -> Answer:
    """Answer with a list; ``run`` returns rows, or rows and the count of all that match."""
    return Answer("many", key, view, _response_of(view))


def success() -> Answer:
    """Answer that it is done; ``run`` returns nothing, or a text for ``displaytext``."""
    return Answer("success")


def flat(response: type[Response]) -> Answer:
    """Answer with the fields of a response that ``run`` returns, directly in the envelope."""
    return Answer("flat", response=response)


def _response_of(view: View) -> type[Response]:
    (response,) = typing.get_args(typing.get_type_hints(view)["return"])
    assert isinstance(response, type)
    assert issubclass(response, Response)
    return response


class Command:
    """One API command; a subclass is registered by being defined.

    :cvar job: it is asynchronous: the answer is a job.
    :cvar creates: the name of what it makes (``Network``): the answer carries the new object's id beside the job's.
    :cvar instance: the type name that the job and its event carry.
    :cvar roles: the role types that may call it unless a rule of the role says otherwise.
    :cvar event: the type of the event that each call leaves; empty leaves none.
    :cvar other_events: the types that it leaves instead in some cases (:attr:`Context.event`).
    :cvar unsupported: parameters of CloudStack's command that are refused by name.
    :cvar writes: it changes rows; list commands do not and run on a read snapshot.
    :cvar authenticated: it needs to be known who calls; false for what comes before the login.
    :cvar post: it may not be sent by GET, so that its parameters stay out of logs.
    """

    command: ClassVar[str] = ""
    answer: ClassVar[Answer]
    job: ClassVar[bool] = False
    creates: ClassVar[bool] = False
    instance: ClassVar[str] = ""
    roles: ClassVar[frozenset[Role]] = ADMINS
    event: ClassVar[str] = ""
    other_events: ClassVar[tuple[str, ...]] = ()
    unsupported: ClassVar[tuple[str, ...]] = ()
    envelope: ClassVar[str] = ""
    writes: ClassVar[bool] = True
    authenticated: ClassVar[bool] = True
    post: ClassVar[bool] = False

    def __init_subclass__(cls, name: str = "", answer: Answer | None = None, **options: Any) -> None:
        super().__init_subclass__()
        for option, value in options.items():
            if option not in Command.__annotations__:
                raise TypeError(f"{cls.__name__}: {option} is no option of a command.")
            setattr(cls, option, value)
        if name:
            assert answer is not None, f"{name} must say what it answers"
            cls.command, cls.answer = name, answer
            cls.envelope = cls.envelope or f"{name.lower()}response"
            if name in REGISTRY:
                raise TypeError(f"{name} is described twice: by {REGISTRY[name].__name__} and {cls.__name__}.")
            REGISTRY[name] = cls

    @classmethod
    @cache
    def parameters(cls) -> dict[str, Parameter]:
        """Return the command's parameters by name, in the order of their declaration."""
        hints = typing.get_type_hints(cls)
        found: dict[str, Parameter] = {}
        for part in reversed(cls.__mro__):
            for name, value in vars(part).items():
                if isinstance(value, Declared):
                    found[name] = describe(name, hints[name], value)
                elif name in found:
                    del found[name]  # a subclass may take a common parameter away by setting it to None
        return found

    def prepare(self, ctx: Context) -> None:
        """Do what takes long and changes nothing (hash a password, ask another server), before the transaction begins.

        The parameters are there; what it finds out it keeps on the command. Rows are read again before ``run``.
        """

    @classmethod
    def given(cls, **values: Any) -> Self:
        """Return the command with these parameters, the others left out: for code that does what a caller could."""
        command = cls()
        for parameter in cls.parameters().values():
            setattr(command, parameter.name, values.get(parameter.name, parameter.declared.default))
        return command

    def run(self, ctx: Context) -> Any:
        """Check, write rows, and return what the answer needs.

        :raises ApiError: the sentence says what is wrong; nothing is changed then.
        """
        raise NotImplementedError


REGISTRY: dict[str, type[Command]] = {}
"""Every command by its name."""
