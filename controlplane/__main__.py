"""The command line: ``netspine serve`` and whatever else an operator types."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from controlplane.settings import FIRST_LOGIN, Settings

Run = Callable[[argparse.Namespace, Settings], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the process's exit status."""
    parser = argparse.ArgumentParser(prog="netspine", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the database and the keys are (NETSPINE_DIR)")
    parser.add_argument("--verbose", action="store_true", help="log more")
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in SUBCOMMANDS:
        add(subcommands)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if chosen.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = Settings.from_environment()
    if chosen.folder:
        settings = replace(settings, folder=chosen.folder)
    run: Run = chosen.run
    try:
        return run(chosen, settings)
    except (OSError, LookupError, ValueError) as error:
        print(f"netspine: {error}", file=sys.stderr)
        return 1


def add_serve(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``serve``."""
    parser = subcommands.add_parser("serve", help="answer the API and the agents")
    parser.add_argument("--user", default="nobody", help="whom root becomes once the sockets are open")
    parser.add_argument("--proxy", action="append", default=[], help="address of a reverse proxy that is believed")
    parser.set_defaults(run=serve)


def serve(chosen: argparse.Namespace, settings: Settings) -> int:
    """Serve until told to end."""
    os.umask(0o077)  # what is written from now on is for this process's user only
    # in a process of its own: what migrating takes of memory is given back when that ends
    done = subprocess.run([sys.executable, "-m", "controlplane", "--folder", settings.folder, "prepare"], check=False)
    if done.returncode:
        return done.returncode
    from controlplane import server
    from controlplane.app import open_database

    server.serve(settings, open_database(settings), user=chosen.user, proxies=chosen.proxy)
    return 0


def add_prepare(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``prepare``."""
    parser = subcommands.add_parser("prepare", help="make or migrate the database, as serve does when it starts")
    parser.set_defaults(run=prepare)


def prepare(_chosen: argparse.Namespace, settings: Settings) -> int:
    """Bring the database up to date."""
    from controlplane import app

    os.umask(0o077)
    password = settings.folder / FIRST_LOGIN
    known = password.exists()
    app.prepare(settings)
    if password.exists() and not known:
        print(f"The first admin's password is in {password}.")
    return 0


def add_run(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``run``."""
    parser = subcommands.add_parser("run", help="a whole cloud on this machine, in namespaces of its own")
    parser.add_argument("--zone", choices=("advanced", "basic"), default="advanced", help="the type of its zone")
    parser.add_argument("--no-example", action="store_true", help="make the zone and nothing in it")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, settings: Settings) -> int:
    """Run a whole cloud until Ctrl-C."""
    from controlplane import run as local

    return local.run(settings, example=not chosen.no_example, basic=chosen.zone == "basic")


def add_exec(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``exec``."""
    parser = subcommands.add_parser("exec", help="run a command in a guest, a router, a host or out on the internet")
    parser.add_argument("where", help="internet, vm/NAME, router/NAME or host/NAME")
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command; a shell by default")
    parser.set_defaults(run=run_there)


def run_there(chosen: argparse.Namespace, settings: Settings) -> int:
    """Become the command, inside of the place."""
    from systemvm import enter

    argv = chosen.argv[1:] if chosen.argv[:1] == ["--"] else chosen.argv
    states = sorted(path for path in (settings.folder / "agents").glob("*") if path.is_dir())
    command = enter.command(chosen.where, argv or ["sh"], prefix=settings.prefix, states=states)
    os.execvp(command[0], command)


def add_why(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``why`` and ``plan``."""
    for name, text in (("why", "how far a target has come, and who waits for it"), ("plan", "what its rows mean now")):
        parser = subcommands.add_parser(name, help=text)
        parser.add_argument("target", help="a router's or host's name, such as r-1-VM")
        parser.set_defaults(run=look, question=name)


def look(chosen: argparse.Namespace, settings: Settings) -> int:
    """Answer a question about a target; nothing is touched."""
    from controlplane import on_call
    from controlplane.app import open_database

    own = settings.folder / "control"  # where ``netspine run`` keeps the control plane's part of the folder
    database = open_database(replace(settings, folder=own if own.is_dir() else settings.folder))
    for line in getattr(on_call, chosen.question)(database, chosen.target):
        print(line)
    database.close()
    return 0


Add = Callable[["argparse._SubParsersAction[argparse.ArgumentParser]"], None]  # noqa: SLF001 - it has no public name
SUBCOMMANDS: list[Add] = [add_serve, add_prepare, add_run, add_exec, add_why]
"""Each adds one subcommand: a parser whose ``run`` default is called with the arguments and the settings."""

if __name__ == "__main__":
    sys.exit(main())
