"""Documents: ``docs/api/``, one page for each room and ``openapi.json``, made from the registry.

``python -m controlplane.documents [FOLDER]`` writes them; nobody edits them by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from controlplane.api.command import REGISTRY, Command
from controlplane.api.discovery import Field, answer_fields, meaning_of, summary_of
from controlplane.api.openapi import document, group_of

FOLDER = Path("docs/api")
_KINDS = {
    "one": "One object under `{key}`",
    "many": "A list under `{key}`, with `count`",
    "success": "`success`",
    "flat": "These fields, directly",
}


def pages() -> dict[str, str]:
    """Return the documents' texts by file name, of all commands that are registered."""
    groups: dict[str, list[type[Command]]] = {}
    for name in sorted(REGISTRY):
        groups.setdefault(group_of(REGISTRY[name]), []).append(REGISTRY[name])
    found = {f"{group}.md": "\n".join(_page(group, commands)) for group, commands in sorted(groups.items())}
    found["README.md"] = "\n".join(_contents(groups))
    found["openapi.json"] = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    return found


def write(folder: Path) -> None:
    """Write the documents into the folder; pages of rooms that are no more are taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


def _contents(groups: dict[str, list[type[Command]]]) -> Iterator[str]:
    yield "# The API's commands"
    yield ""
    yield "Made from the registry by `python -m controlplane.documents`; do not edit."
    for group, commands in sorted(groups.items()):
        yield ""
        yield f"## {group}"
        yield ""
        for command in commands:
            yield f"* [{command.command}]({group}.md#{command.command.lower()}): {summary_of(command)}"
    yield ""


def _page(group: str, commands: list[type[Command]]) -> Iterator[str]:
    yield f"# Commands: {group}"
    for command in commands:
        yield from ("", f"## {command.command}", "", summary_of(command), "", _facts(command))
        yield from _parameters(command)
        yield from _answer(command)
    yield ""


def _facts(command: type[Command]) -> str:
    who = ", ".join(role.value for role in sorted(command.roles)) if command.authenticated else "anybody, without login"
    how = "A job" if command.job else "Answered at once"
    event = f" Leaves the event `{command.event}`." if command.event else ""
    return f"{how}. For {who}.{event}"


def _parameters(command: type[Command]) -> Iterator[str]:
    parameters = command.parameters().values()
    if parameters:
        yield from ("", "| parameter | type | meaning |", "| --- | --- | --- |")
    for parameter in parameters:
        kind = f"list of {parameter.of}" if parameter.of else parameter.type
        name = f"**{parameter.name}**" if parameter.declared.required else parameter.name
        choices = f" ({', '.join(parameter.declared.choices)})" if parameter.declared.choices else ""
        yield f"| {name} | {kind} | {_cell(meaning_of(parameter))}{choices} |"
    if command.unsupported:
        yield from ("", f"Refused as not supported: {', '.join(sorted(command.unsupported))}.")


def _answer(command: type[Command]) -> Iterator[str]:
    form = _KINDS[command.answer.kind].format(key=command.answer.key)
    yield from ("", f"Answer: {form}, in `{command.envelope}`.", "")
    if command.answer.kind != "success":
        yield from ("| field | type | meaning |", "| --- | --- | --- |")
        yield from _fields(answer_fields(command), "")


def _fields(fields: tuple[Field, ...], path: str) -> Iterator[str]:
    for field in fields:
        yield f"| {path}{field.name} | {field.type} | {_cell(field.description)} |"
        yield from _fields(field.inner, f"{path}{field.name}.")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    import_module("controlplane.rooms").enter()  # by name: the layer above this one
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
