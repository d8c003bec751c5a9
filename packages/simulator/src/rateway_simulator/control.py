"""The simulator's own HTTP: what it sent, who broke which rule, and faults on demand. Not a part of Discord."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import msgspec
from aiohttp import web
from rateway_protocol.discord.envelope import FAILURES
from rateway_simulator import faults
from rateway_simulator.faults import Fault, FaultError
from rateway_simulator.judge.ledger import Ledger
from rateway_simulator.judge.rules import RULES
from rateway_simulator.options import FLAT_OUT

# Lines of `/simulator/sent` between two looks at the event loop.
LINES_AT_ONCE = 2000


class Controlled(Protocol):
    """The parts of the simulator that are controlled over HTTP."""

    ledger: Ledger

    async def inject(self, fault: Fault) -> int:
        """Make a fault happen."""
        ...

    def set_rate(
        self, rate: float, *, per_shard: bool = False, recorded: bool = False, events: int | None = None
    ) -> None:
        """Change the source."""
        ...

    def status(self) -> dict[str, Any]:
        """Return the state of the simulation in short."""
        ...


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, content_type="application/json"
    )


def _problem(text: str) -> web.Response:
    return _json({"error": text}, 400)


class Control:
    """Routes below `/simulator`."""

    def __init__(self, controlled: Controlled) -> None:
        self._it = controlled

    def add_routes(self, app: web.Application) -> None:
        """Register them."""
        routes: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "ledger": self._ledger,
            "violations": self._violations,
            "warnings": self._warnings,
            "sessions": self._sessions,
            "sent": self._sent,
            "injected": self._injected,
            "journal": self._journal,
            "rules": self._rules,
            "faults": self._kinds,
        }
        for name, handler in routes.items():
            app.router.add_get(f"/simulator/{name}", handler)
        app.router.add_post("/simulator/faults", self._inject)
        app.router.add_post("/simulator/rate", self._rate)

    async def _ledger(self, request: web.Request) -> web.Response:
        return _json(self._it.ledger.summary() | self._it.status())

    async def _violations(self, request: web.Request) -> web.Response:
        return _json([asdict(violation) for violation in self._it.ledger.violations])

    async def _warnings(self, request: web.Request) -> web.Response:
        return _json([asdict(warning) for warning in self._it.ledger.warnings])

    async def _sessions(self, request: web.Request) -> web.Response:
        return _json([asdict(record) for record in self._it.ledger.sessions.values()])

    async def _injected(self, request: web.Request) -> web.Response:
        return _json([asdict(injected) for injected in self._it.ledger.injected])

    async def _journal(self, request: web.Request) -> web.Response:
        return _json([asdict(entry) for entry in self._it.ledger.journal])

    async def _rules(self, request: web.Request) -> web.Response:
        return _json([asdict(rule) for rule in RULES.values()])

    async def _kinds(self, request: web.Request) -> web.Response:
        return _json(
            {
                name: {"does": kind.does, "uses": sorted(kind.uses), "on_connections": kind.on_connections}
                for name, kind in faults.KINDS.items()
            }
        )

    async def _sent(self, request: web.Request) -> web.StreamResponse:
        try:
            since = int(request.query.get("since", "0"))
        except ValueError:
            return _problem("since is the index of an event, as in the lines of this answer")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        encoder, batch = msgspec.json.Encoder(), bytearray()
        # What is sent while this is read belongs to the next request.
        end = self._it.ledger.events
        for at, sent in enumerate(self._it.ledger.log(since, request.query.get("session")), 1):
            if sent.index >= end:
                break
            batch += encoder.encode(sent) + b"\n"
            if at % LINES_AT_ONCE == 0:
                await response.write(bytes(batch))
                batch.clear()
                await asyncio.sleep(0)
        await response.write(bytes(batch))
        await response.write_eof()
        return response

    async def _inject(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read())
            tables = body if isinstance(body, list) else [body]
            if not all(isinstance(table, dict) for table in tables):
                raise FaultError('a fault is an object like {"kind": "cut", "shards": "0"}')
            wanted = [faults.parse(table) for table in tables]
            if any(entry.at or entry.every for entry in wanted):
                raise FaultError("at and every are for scenarios: a fault over HTTP happens at once")
            hit = [await self._it.inject(entry.fault) for entry in wanted]
        except (*FAILURES, FaultError) as error:
            return _problem(str(error))
        return _json({"connections": sum(hit)})

    async def _rate(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read(), type=RateRequest)
            rate = parse_rate(body.rate)
        except (*FAILURES, ValueError) as error:
            return _problem(str(error))
        self._it.set_rate(rate, per_shard=body.per_shard, recorded=body.recorded, events=body.events)
        return _json({})


class RateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /simulator/rate`; `rate` is events a second or `max`."""

    rate: float | str
    per_shard: bool = False
    recorded: bool = False
    events: int | None = None


def parse_rate(word: float | str) -> float:
    """Read events a second from a number or `max`. Raises ValueError."""
    if word == "max":
        return FLAT_OUT
    try:
        rate = float(word)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < FLAT_OUT:
        raise ValueError(f"rate {word!r} is neither a number of events a second nor max")
    return rate
