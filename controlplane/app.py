"""The application: the query API, the agents' door, and what a browser or a load balancer asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

from controlplane.api.http import PATHS, QueryApi
from controlplane.db.session import Database
from controlplane.identity.authentication import Authentication
from controlplane.reconcile.door import Door, routes

Stop = Callable[[], None]
Duty = Callable[[], Stop]
"""Begins something that goes on beside the requests, and returns how it is ended."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Netspine</title></head>
<body><h1>Netspine</h1>
<p>The control plane is running. Its API is at <a href="/client/api?command=listCapabilities">/client/api</a>.</p>
</body></html>
"""


def create_app(database: Database, *, integration_port: int = 0, duties: Sequence[Duty] = ()) -> FastAPI:
    """Return the application.

    :param integration_port: connections that arrive on this port need no authentication; bind it to loopback only.
    :param duties: begun before the first request and ended after the last, in reverse order.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        stops = [await run_in_threadpool(duty) for duty in duties]
        yield
        for stop in reversed(stops):
            await run_in_threadpool(stop)

    app = FastAPI(title="Netspine", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    api = QueryApi(database, Authentication(database), integration_port)
    for path in PATHS:
        app.add_route(path, api.respond, methods=["GET", "POST"], include_in_schema=False)
    app.include_router(routes(Door(database)))

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        with database.read() as session:
            session.execute(text("SELECT 1"))
        return "ok\n"

    @app.get("/client/", response_class=HTMLResponse)
    def client() -> str:
        return PAGE

    @app.get("/")
    def root() -> RedirectResponse:
        return RedirectResponse("/client/")

    return app
