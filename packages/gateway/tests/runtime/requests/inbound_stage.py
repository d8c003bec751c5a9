"""The real reader of an inbound queue with a broker that sends any bytes, and stand-ins for Discord and the stores."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
from rateway.fleet.layout import Layout
from rateway.runtime.requests.query_queue import QueryQueue
from rateway.runtime.requests.request_handler import RequestHandler
from rateway.session.actions import Command, CommandDone
from rateway.transports.amqp.requests.inbound import Inbound
from rateway.transports.amqp.settings import RequestSettings
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.store.queries import Answer
from rateway_protocol.contract.errors import Status
from rateway_protocol.contract.queries import Query
from tests.transports.amqp.fake_broker import Received
from tests.transports.amqp.inbound_broker import InboundBroker, fields, properties

VOICE = b'{"op":4,"d":{"guild_id":"0","channel_id":null,"self_mute":false,"self_deaf":false}}'
PRESENCE = b'{"op":3,"d":{"since":null,"activities":[],"status":"idle","afk":false}}'


class NeverDone:
    """An answer that goes on for ever."""

    size = 0
    holds = False

    def take(self) -> bytes:
        return b""

    def step(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is held."""


class Cache:
    """Answers everything at once, but what is on the list at no time."""

    def __init__(self) -> None:
        self.endless: set[str] = set()

    def __call__(self) -> Cache:
        return self

    def answer(self, query: Query) -> Answer | NeverDone:
        return NeverDone() if query.type in self.endless else Answer(Status.OK, b'"known"')

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Shards:
    """A cluster whose shards send at once, or keep what they are given."""

    number: int = 1
    sends: bool = True
    fault: Exception | None = None
    waiting: list[Command] = field(default_factory=list)
    on_done: Callable[[CommandDone], None] = lambda order: None

    def command(self, shard_id: int, command: Command) -> None:
        if self.fault is not None:
            raise self.fault
        if self.sends:
            self.on_done(CommandDone(command, "sent", ""))
        else:
            self.waiting.append(command)

    def watch_commands(self, on_done: Callable[[CommandDone], None]) -> None:
        self.on_done = on_done


@dataclass
class Stage:
    broker: InboundBroker
    request_handler: RequestHandler
    inbound: Inbound
    shards: Shards
    cache: Cache
    said: list[tuple[str, str]]
    changed: asyncio.Event
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def until(self, state: str) -> str:
        """Wait until ownership is so; why."""
        while not self.said or self.said[-1][0] != state:
            self.changed.clear()
            await self.changed.wait()
        return self.said[-1][1]

    async def is_served(self) -> None:
        """A query that comes now is answered."""
        name = f"neighbour-{next(self.numbers)}"
        asked = properties(correlation_id=name.encode(), reply_to=b"answers")
        self.broker.deliver(asked, b'{"type":"Guild","arguments":[1]}')
        (answer,) = await self.answered(name)
        assert (answer.key, answer.headers["status"], answer.body) == ("answers", "ok", b'"known"')

    async def answered(self, correlation_id: str) -> list[Received]:
        await self.broker.until(lambda: bool(self.broker.answers_to(correlation_id)))
        return self.broker.answers_to(correlation_id)

    async def all_settled(self) -> None:
        """Everything that was delivered is acknowledged: nothing would come again."""
        await self.broker.until(lambda: self.broker.all_settled)

    async def refused(self, correlation_id: str) -> str:
        """Wait for the answer that refuses a message, which may have been forwarded before; its code."""

        def answers() -> list[Received]:
            return [each for each in self.broker.answers_to(correlation_id) if each.key != "gateway"]

        await self.broker.until(lambda: bool(answers()))
        (answer,) = answers()
        assert answer.headers["status"] == "error"
        code: str = msgspec.json.decode(answer.body)["error"]["code"]
        return code

    def command(self, correlation_id: str, *, expiration: bytes | None = None, body: bytes = VOICE) -> None:
        """A worker's command for shard 0."""
        told = properties(
            headers=fields({"shard_id": 0}), correlation_id=correlation_id.encode(), reply_to=b"answers",
            expiration=expiration,
        )  # fmt: skip
        self.broker.deliver(told, body, b"gateway")

    def query(self, correlation_id: str, body: bytes, *, expiration: bytes | None = None) -> None:
        told = properties(correlation_id=correlation_id.encode(), reply_to=b"answers", expiration=expiration)
        self.broker.deliver(told, body)


@asynccontextmanager
async def inbound_stage(*, frame_max: int = 131_072, **settings: float) -> AsyncIterator[Stage]:
    """An owner of `rateway-incoming-1` at a broker of the test's. *settings* are the gateway's."""
    broker = InboundBroker(frame_max=frame_max)
    async with broker, reader_on(broker.uri, **settings) as reader:
        yield Stage(broker, *reader)


Reader = tuple[RequestHandler, Inbound, Shards, Cache, list[tuple[str, str]], asyncio.Event]


@asynccontextmanager
async def reader_on(uri: str, **settings: float) -> AsyncIterator[Reader]:
    """An owner of `rateway-incoming-1`, once it is one: shards 0 to 7 are here, 8 to 15 elsewhere."""
    cache, shards, said, changed = Cache(), Shards(), list[tuple[str, str]](), asyncio.Event()
    wanted: dict[str, Any] = {
        "command_deadline": 60.0, "command_deadline_max": 600.0, "query_deadline": 60.0, "query_queue": 10_000,
    }  # fmt: skip
    query_queue = QueryQueue(cache, limit=10_000)
    runner: Any = SimpleNamespace(
        choice=SimpleNamespace(layout=Layout(16, 8)),
        settings=SimpleNamespace(
            session=SimpleNamespace(intents=1), requests=RequestSettings(**(wanted | settings))
        ),
        clusters={1: shards},
        cache=SimpleNamespace(query_queue=query_queue, others=frozenset()),
    )
    request_handler = RequestHandler(runner, shards)

    def say(state: str, why: str) -> None:
        said.append((state, why))
        changed.set()

    inbound = request_handler.inbound = Inbound(
        address=parse(uri), name="test", exchange="rateway-1", queue="rateway-incoming-1", keys=("cache", "gateway"),
        on_message=request_handler.message, on_refused=request_handler.refuse, on_ownership=say,
        on_writable=query_queue.go_on, on_unrouted=request_handler.unrouted,
    )  # fmt: skip
    task = asyncio.create_task(inbound.run())
    try:
        while not said or said[-1][0] != "owned":
            changed.clear()
            await changed.wait()
        yield request_handler, inbound, shards, cache, said, changed
    finally:
        task.cancel()
        await asyncio.wait([task])
