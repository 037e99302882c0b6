"""HTTP: the query API's endpoint, from bytes to bytes.

The event loop only reads the body; everything else of a request runs in one go on a thread.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs, parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.caller import Caller, Role
from controlplane.api.command import REGISTRY
from controlplane.api.dispatch import Dispatcher, named
from controlplane.api.envelope import encode, envelope_of_error, error_body
from controlplane.api.throttle import Throttle
from controlplane.api.visit import SESSION_COOKIE, Visit
from controlplane.db.configuration import define
from controlplane.db.session import Database
from controlplane.errors import ApiError, BadParameter, Unauthenticated, Unsupported

log = logging.getLogger(__name__)
access = logging.getLogger("controlplane.access")
SMALL_BODY = 1 << 16
MOST_BYTES = define(
    "request.content.size",
    1 << 20,
    "Bytes that the body of a request may have",
    category="API",
    within=(SMALL_BODY, 1 << 26),
)
MOST_FIELDS = 10_000
SECURE = define("enable.secure.session.cookie", False, "Let session cookies travel over TLS only", category="Access")
PATHS = ("/client/api", "/client/api/")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
INTERNAL = "The command failed on the server's side; the log of the control plane has the reason."
MOST_OF_A_HEADER = 500
NOBODY = Caller(user_id=0, account_id=0, domain_id=0, domain_path="", role=Role.USER, rules=(("*", False),))
"""Who calls the commands that come before a login."""
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")
FORM = "application/x-www-form-urlencoded"


class TooLarge(ApiError):
    """The body of the request is larger than the setting allows."""

    status, cause = 413, 9999


class NotByGet(ApiError):
    """The command carries secrets and must be sent by POST."""

    status, cause = 405, 9999


class NoCommand(ApiError):
    """A request of a session without a command."""

    status, cause = 400, 9999


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it came in.

    :param integration: it came in on the integration port.
    """

    method: str
    query: bytes
    body: bytes
    visit: Visit
    host: str = ""
    integration: bool = False


class Doorkeeper(Protocol):
    """Knows who calls."""

    def caller(self, visit: Visit, parameters: Mapping[str, str]) -> Caller:
        """Return who sends this request.

        :raises Unauthenticated: it does not say so, or not credibly.
        """
        ...

    def system(self) -> Caller:
        """Return who calls on the integration port."""
        ...


class QueryApi:
    """The endpoint.

    :param doorkeeper: says who calls.
    :param integration_port: connections to this port need no authentication; 0 when there is none.
    """

    def __init__(self, database: Database, doorkeeper: Doorkeeper, integration_port: int = 0) -> None:
        self.database = database
        self.doorkeeper = doorkeeper
        self.dispatcher = Dispatcher(database)
        self.throttle = Throttle(database)
        self.integration_port = integration_port

    async def respond(self, request: Request) -> Response:
        """Answer one request."""
        query: bytes = request.scope["query_string"]
        try:
            body = await self._body(request)
        except TooLarge as error:
            return _refusal("", parse_qs(query).get(b"response", [b""])[0].decode("latin-1"), error, admin=False)
        _, port = request.scope.get("server") or ("", 0)  # of the socket itself: no header can change it
        arrival = Arrival(
            method=request.method,
            query=query,
            body=body,
            visit=Visit(
                address=request.client.host if request.client else "",
                cookies=request.cookies,
                site=request.headers.get("sec-fetch-site", ""),
            ),
            host=request.headers.get("host", ""),
            integration=bool(self.integration_port) and port == self.integration_port,
        )
        return await run_in_threadpool(self.answer, arrival)

    def answer(self, arrival: Arrival) -> Response:
        """Answer one request, on a thread."""
        begun, caller, visit = time.perf_counter(), NOBODY, arrival.visit
        command, form = "", ""
        try:
            parameters = read_parameters(arrival.query, arrival.body)
            command, form = named(parameters, "command"), named(parameters, "response")
            check_characters(parameters)
            caller = self._caller(arrival, command, parameters)
            self.throttle.check(caller)
            reply = self.dispatcher.dispatch(caller, parameters, visit)
            response = _response(200, *encode(reply.envelope, reply.body, form))
        except ApiError as error:
            response = _refusal(command, form, error, admin=caller.is_admin)
        except Exception:
            log.exception("%s failed", command if command in REGISTRY else "A request")
            response = _refusal(command, form, ApiError(INTERNAL), admin=caller.is_admin)
        self._leave_cookies(visit, response)
        access.info(
            "%s %s %s %d %.1f ms user=%d",
            visit.address,
            arrival.method,
            command if command in REGISTRY else "-",  # whatever else stands there may be anything, secrets too
            response.status_code,
            (time.perf_counter() - begun) * 1000,
            caller.user_id,
        )
        return response

    def _caller(self, arrival: Arrival, name: str, parameters: Mapping[str, str]) -> Caller:
        command = REGISTRY.get(name)
        if command is not None and command.post and arrival.method != "POST":
            raise NotByGet(f"{name} must be sent by POST: its parameters are not for logs.")
        if arrival.integration:
            if arrival.host.rpartition(":")[0] not in LOOPBACK or arrival.visit.from_elsewhere:
                raise Unauthenticated("The integration port answers programs on this machine, not web pages.")
            if command is None:
                raise Unsupported(f"The given command '{name}' does not exist.")
            return self.doorkeeper.system()
        if command is not None and not command.authenticated:
            return NOBODY
        caller = self.doorkeeper.caller(arrival.visit, parameters)
        if not name and SESSION_COOKIE in arrival.visit.cookies:
            raise NoCommand("The request names no command: add the parameter command.")
        return caller

    def _leave_cookies(self, visit: Visit, response: Response) -> None:
        if not visit.leaving:
            return
        with self.database.read() as session:
            secure = SECURE.flag(session)
        for name, value in visit.leaving.items():
            age = None if value else 0
            response.set_cookie(name, value, max_age=age, path="/client", secure=secure, httponly=True, samesite="lax")

    async def _body(self, request: Request) -> bytes:
        if request.method != "POST" or not request.headers.get("content-type", FORM).startswith(FORM):
            return b""
        body, most = bytearray(), SMALL_BODY
        async for chunk in request.stream():
            body += chunk
            if len(body) > most == SMALL_BODY:
                most = await run_in_threadpool(self._most_bytes)
            if len(body) > most:
                raise TooLarge(f"The body of the request is larger than {most} bytes, the setting {MOST_BYTES.name}.")
        return bytes(body)

    def _most_bytes(self) -> int:
        with self.database.read() as session:
            return MOST_BYTES.number(session)


def read_parameters(query: bytes, body: bytes) -> dict[str, str]:
    """Return the parameters of query and body, decoded; what comes first wins, and the query comes first.

    Names keep their case, which the signature needs, but two that differ only in it are one parameter; the fields of
    maps are not.

    :raises BadParameter: there are too many.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for part in (query, body):
        try:
            pairs = parse_qsl(part.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            raise BadParameter(f"The request has more than {MOST_FIELDS} parameters: send fewer at a time.") from None
        for name, value in pairs:
            key = name if "[" in name else name.lower()
            if key not in seen:
                seen.add(key)
                found[name] = value
    return found


def check_characters(parameters: Mapping[str, str]) -> None:
    """Check that no value holds a control character other than CR and LF.

    :raises BadParameter: one does.
    """
    for name, value in parameters.items():
        if _CONTROL.search(value):
            raise BadParameter(f"Invalid parameter {name}: it holds a control character, which is never allowed.")


def _refusal(command: str, form: str, error: ApiError, *, admin: bool) -> Response:
    body = error_body(error, admin=admin)
    response = _response(error.status, *encode(envelope_of_error(command, error), body, form))
    text = " ".join(str(body["errortext"]).split())[:MOST_OF_A_HEADER]
    response.headers["X-Description"] = text.encode("ascii", "replace").decode()
    return response


def _response(status: int, body: bytes, media: str) -> Response:
    headers = {"Content-Type": media, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return Response(body, status, headers)
