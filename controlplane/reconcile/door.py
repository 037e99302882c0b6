"""The agents' door: where agents, which dial out, ask for bundles and say what came of them.

Long polls are held by the event loop; a commit that touches one of the agent's targets ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from sqlalchemy import Table, bindparam, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controlplane.db.base import now
from controlplane.db.session import Database
from controlplane.reconcile.bundles import Bundles, waiting
from controlplane.reconcile.observations import store
from controlplane.reconcile.targets import Agent, Target, settle, touch
from controlplane.work.signals import signals
from systemvm.bundle import Bundle, Observation, Outcome

MOST_BUNDLES = 32
LONGEST_WAIT = 55.0
LULL, LONGEST_BURST = 0.005, 0.1
"""Seconds between two looks whether a burst of changes is over, and after which it is not waited for any longer."""

_agents, _targets = (cast("Table", table.__table__).c for table in (Agent, Target))
_AGENT = select(_agents.id).where(_agents.token == bindparam("token"))
_TARGET = select(Target).where(Target.uuid == bindparam("uuid"), Target.agent_id == bindparam("agent"))
_KNOWN = select(_targets.uuid).where(_targets.agent_id == bindparam("agent"))
_NO_BASES: Mapping[str, str] = MappingProxyType({})
Hello = Callable[[Session, Agent], None]
_greeters: list[Hello] = []


def on_hello(listener: Hello) -> Hello:
    """Have the listener called, as a decorator, in the transaction of each hello, once the inventory is stored."""
    _greeters.append(listener)
    return listener


Voter = Callable[[Session, int, dict[str, Any]], dict[str, bool]]
_voters: list[Voter] = []


def on_vote(voter: Voter) -> Voter:
    """Register, as a decorator, who decides which redundant router the control plane backs."""
    _voters.append(voter)
    return voter


def digest_of(token: str) -> str:
    """Return the form in which a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """Return a fresh agent token of 256 bits."""
    return secrets.token_urlsafe(32)


class Door:
    """What the door's routes do, free of HTTP."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.bundles = Bundles(database)

    def agent_of(self, token: str) -> int | None:
        """Return the number of the agent with this token."""
        with self.database.read() as session:
            return session.scalar(_AGENT, {"token": digest_of(token)})

    def hello(self, agent_id: int, body: dict[str, Any]) -> dict[str, Any]:
        """Take an agent's ledger for the truth about what is applied; what differs is asked for again."""
        ledger: dict[str, Any] = body.get("ledger", {})
        with self.database.write() as session:
            agent = session.get_one(Agent, agent_id)
            agent.inventory, agent.seen = body.get("inventory", {}), now()
            for target in session.scalars(select(Target).where(Target.agent_id == agent_id)):
                _believe(session, target, ledger.get(target.uuid))
            for greet in _greeters:
                greet(session, agent)
            host = select(Target.uuid).where(Target.agent_id == agent_id, Target.name == agent.name)
            return {"target": session.scalar(host)}

    def pull(
        self, agent_id: int, holding: Mapping[str, int], bases: Mapping[str, str] = _NO_BASES
    ) -> dict[str, Any] | None:
        """Return the bundles that the agent should have and does not hold; None when there are none.

        :param holding: target UUID → generation that the agent is applying just now.
        :param bases: target UUID → digest of a bundle that the agent has: where it is still known here, the difference
            to it is sent, otherwise the whole.
        """
        with self.database.read() as session:
            wanted = [row for row in waiting(session, agent_id) if holding.get(row[1], 0) < row[3]]
            known = list(session.scalars(_KNOWN, {"agent": agent_id}))
        wanted.sort(key=lambda row: (row[2] == "router", row[0]))  # hosts first: they make the shells
        bundles = [self.bundles.of(row[0]) for row in wanted[:MOST_BUNDLES]]
        ready = [bundle for bundle in bundles if isinstance(bundle, Bundle)]
        if not ready:
            return None
        had = self.bundles.known(bases[bundle.target] for bundle in ready if bundle.target in bases)
        return {"bundles": [bundle.to_json(had.get(bundle.target)) for bundle in ready], "known": known}

    def outcomes(self, agent_id: int, found: list[Outcome]) -> None:
        """Store outcomes and end the jobs that waited for them, each target in one transaction."""
        for outcome in found:
            with self.database.write() as session:
                target = session.scalar(_TARGET, {"uuid": outcome.target, "agent": agent_id})
                if target is not None:
                    settle(session, target, outcome)

    def observations(self, agent_id: int, found: list[Observation]) -> None:
        """Store what was read back."""
        with self.database.write() as session:
            session.get_one(Agent, agent_id).seen = now()
            for observation in found:
                target = session.scalar(_TARGET, {"uuid": observation.target, "agent": agent_id})
                if target is not None:
                    store(session, target, observation)


def _vote(door: Door, agent_id: int, body: dict[str, Any]) -> dict[str, Any]:
    """Give votes to redundant routers; they are given when they are stored."""
    votes: dict[str, bool] = {}
    with door.database.write() as session:
        for voter in _voters:
            votes |= voter(session, agent_id, body)
    return {"votes": votes}


def _believe(session: Session, target: Target, entry: Any) -> None:
    generation, digest = entry or (0, "")
    if generation > target.desired_generation:  # the database was restored from an older copy
        target.desired_generation = generation
        touch(session, [target])
    target.applied_generation, target.digest = generation, digest
    target.failed_generation = 0


def routes(door: Door) -> list[Route]:
    """Return the door's routes; each asks for the agent's token before it reads anything else."""

    async def hello(request: Request) -> Response:
        agent_id = await _known(door, request)
        return JSONResponse(await run_in_threadpool(door.hello, agent_id, await _body(request)))

    async def bundle(request: Request) -> Response:
        agent_id, asked = await _known(door, request), request.query_params
        with _readable():
            wait, bases = float(asked.get("wait", "25")), _pairs(asked.get("bases", ""))
            holding = {target: int(number) for target, number in _pairs(asked.get("holding", "")).items()}
        found = await _poll(door, partial(door.pull, agent_id, holding, bases), agent_id, wait)
        return Response(await run_in_threadpool(_json, found), media_type="application/json")

    async def outcome(request: Request) -> Response:
        agent_id, body = await _known(door, request), await _body(request)
        with _readable():
            outcomes = [Outcome.from_json(item) for item in body["outcomes"]]
        await run_in_threadpool(door.outcomes, agent_id, outcomes)
        return JSONResponse({})

    async def observation(request: Request) -> Response:
        agent_id, body = await _known(door, request), await _body(request)
        with _readable():
            observations = [Observation.from_json(item) for item in body["observations"]]
        await run_in_threadpool(door.observations, agent_id, observations)
        return JSONResponse({})

    async def leases(request: Request) -> Response:
        agent_id, body = await _known(door, request), await _body(request)
        with _readable():
            return JSONResponse(await run_in_threadpool(_vote, door, agent_id, body))

    prefix, post = "/agent/v1", ["POST"]
    return [
        Route(f"{prefix}/hello", hello, methods=post),
        Route(f"{prefix}/bundle", bundle),
        Route(f"{prefix}/outcome", outcome, methods=post),
        Route(f"{prefix}/observation", observation, methods=post),
        Route(f"{prefix}/leases", leases, methods=post),
    ]


async def _known(door: Door, request: Request) -> int:
    """Return the number of the agent whose token came along."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    number = await run_in_threadpool(door.agent_of, token) if scheme == "Bearer" and token else None
    if number is None:
        raise HTTPException(401, "No agent has this token: add the host first, with the token as its password.")
    return number


async def _body(request: Request) -> dict[str, Any]:
    with _readable():
        body = await request.json()
        if not isinstance(body, dict):
            raise TypeError("a JSON object is wanted")
    return body


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Answer what is not of the door's form with 400."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HTTPException(400, f"This is not what an agent of this release sends: {error!r}.") from error


def _json(found: dict[str, Any]) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()


def _pairs(text: str) -> dict[str, str]:
    return {target: value for target, _, value in (pair.partition(":") for pair in text.split(",") if pair)}


async def _poll(door: Door, pull: Callable[[], dict[str, Any] | None], agent_id: int, wait: float) -> dict[str, Any]:
    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    end = loop.time() + min(wait, LONGEST_WAIT)
    with signals.subscribed([f"agent/{agent_id}"], partial(loop.call_soon_threadsafe, woken.set)):
        while True:
            await _lull(door.database, loop.time() + LONGEST_BURST)
            woken.clear()
            answer = await run_in_threadpool(pull)
            if answer is not None:
                return answer
            left = end - loop.time()
            if left <= 0 or signals.closing:
                return await run_in_threadpool(_nothing, door, agent_id)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), left)


async def _lull(database: Database, latest: float) -> None:
    """Let a burst of changes become one bundle: while writers queue, the next of them would only ask for another."""
    loop = asyncio.get_running_loop()
    while database.crowded and loop.time() < latest:  # noqa: ASYNC110 - nobody tells when a queue has emptied
        await asyncio.sleep(LULL)


def _nothing(door: Door, agent_id: int) -> dict[str, Any]:
    with door.database.read() as session:
        return {"bundles": [], "known": list(session.scalars(_KNOWN, {"agent": agent_id}))}
