"""The application: the query API, the agents' door, and what a browser or a load balancer asks for."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import select, text
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route

from controlplane import catalogue, migrations, rooms
from controlplane.api.http import PATHS, QueryApi
from controlplane.db.secrets import load_key
from controlplane.db.session import Database
from controlplane.identity.accounts import Account
from controlplane.identity.authentication import Authentication
from controlplane.reconcile.door import Door
from controlplane.reconcile.door import routes as door_routes
from controlplane.settings import FIRST_LOGIN, Settings

Stop = Callable[[], None]
Duty = Callable[[], Stop]
"""Begins something that goes on beside the requests, and returns how it is ended."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Netspine</title></head>
<body><h1>Netspine</h1>
<p>The control plane is running. Its API is at <a href="/client/api?command=listCapabilities">/client/api</a>.</p>
</body></html>
"""


def prepare(settings: Settings, admin_password: str = "") -> Database:
    """Open the database, with its tables and the standard catalogue; repeatable.

    :param admin_password: of the first admin, ignored when there is one. Where none is given, one is made and left in
        the folder's file ``admin-password``.
    """
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = open_database(settings)
    migrations.upgrade(database.engine)
    with database.write() as session:
        if not admin_password and session.scalar(select(Account.id).limit(1)) is None:
            admin_password = secrets.token_urlsafe(12)
            descriptor = os.open(settings.folder / FIRST_LOGIN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(f"{admin_password}\n")
        catalogue.fill(session, admin_password)
    database.close()  # its connections are opened anew by whoever the process becomes
    return database


def open_database(settings: Settings) -> Database:
    """Open a database that has been prepared, with the key to its secrets."""
    rooms.enter()
    load_key(settings.folder / "key")
    return Database(settings.database_url)


def create_app(database: Database, *, integration_port: int = 0, duties: Sequence[Duty] = ()) -> Starlette:
    """Return the application.

    :param integration_port: connections that arrive on this port need no authentication; bind it to loopback only.
    :param duties: begun before the first request and ended after the last, in reverse order.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        stops = [await run_in_threadpool(duty) for duty in duties]
        yield
        for stop in reversed(stops):
            await run_in_threadpool(stop)

    def healthz(_request: Request) -> PlainTextResponse:
        with database.read() as session:
            session.execute(text("SELECT 1"))
        return PlainTextResponse("ok\n")

    def client(_request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    def root(_request: Request) -> RedirectResponse:
        return RedirectResponse("/client/")

    api = QueryApi(database, Authentication(database), integration_port)
    routes = [Route(path, api.respond, methods=["GET", "POST"]) for path in PATHS]
    routes += door_routes(Door(database))
    routes += [Route("/healthz", healthz), Route("/client/", client), Route("/", root)]
    return Starlette(routes=routes, lifespan=lifespan)
