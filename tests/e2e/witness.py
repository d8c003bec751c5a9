"""A worker that watches and asks: every message of a cluster's exchange in the order of its arrival, and calls.

Beside it, what tests need to know of the outside: a broker that can be taken away for the gateway alone, and what
a gateway has written down.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import lmdb
import msgspec
from aio_pika.abc import AbstractIncomingMessage
from rateway.demo.relay import Relay
from rateway.native.objects.applied import SessionRecord
from rateway_protocol.contract.messages import OWN_KEYS
from rateway_protocol.discord.events import DOCUMENTED

from tests.rabbitmq import Broker

Json = dict[str, Any]


class Witness:
    """Made with :func:`witness`. ``heard`` is what came, in order, of all clusters given."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self.heard: list[AbstractIncomingMessage] = []
        # When each id came first, Unix seconds.
        self.at: dict[str, float] = {}
        self.came = asyncio.Event()
        self._channel = channel
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}
        self._replies: aio_pika.abc.AbstractQueue

    async def listen(self, clusters: tuple[int, ...], names: frozenset[str]) -> None:
        self._replies = await self._channel.declare_queue(exclusive=True)
        await self._replies.consume(self._answered, no_ack=True)
        for number in clusters:
            exchange = await self._channel.declare_exchange(f"rateway-{number}", "direct", durable=True)
            queue = await self._channel.declare_queue(exclusive=True)
            for name in names:
                await queue.bind(exchange, name)
            await queue.consume(self._hear, no_ack=True)

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        self.at.setdefault(str(message.message_id), time.time())
        self.heard.append(message)
        self.came.set()

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        waiting = self._answers.pop(message.correlation_id or "", None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def named(self, name: str) -> list[AbstractIncomingMessage]:
        return [message for message in self.heard if message.routing_key == name]

    def ids(self, name: str = "") -> list[str]:
        return [str(message.message_id) for message in self.heard if name in ("", message.routing_key)]

    async def until(self, fact: Callable[[Witness], bool]) -> None:
        """Wait until *fact* holds."""
        while not fact(self):
            self.came.clear()
            await self.came.wait()

    async def send(
        self, cluster: int, key: str, body: object, headers: Mapping[str, int | str] | None = None
    ) -> asyncio.Future[AbstractIncomingMessage]:
        """Put a query (`cache`) or a command (`gateway`) to a cluster; its answer is to come."""
        identity = f"question {next(self._numbers)}"
        answer = self._answers[identity] = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(
            msgspec.json.encode(body),
            headers=dict(headers or {}),
            correlation_id=identity,
            reply_to=self._replies.name,
        )
        exchange = await self._channel.get_exchange(f"rateway-{cluster}", ensure=False)
        await exchange.publish(message, key)
        return answer

    async def ask(
        self, cluster: int, key: str, body: object, headers: Mapping[str, int | str] | None = None
    ) -> tuple[str, Any]:
        """The answer's (status, body)."""
        return answer_of(await (await self.send(cluster, key, body, headers)))


def answer_of(message: AbstractIncomingMessage) -> tuple[str, Any]:
    body = msgspec.json.decode(message.body) if message.body else None
    return str(message.headers["status"]), body


@asynccontextmanager
async def witness(
    broker: Broker, *clusters: int, names: frozenset[str] = DOCUMENTED | OWN_KEYS
) -> AsyncIterator[Witness]:
    """Listen to the clusters (default: the first) on a connection of its own, straight to the broker."""
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel(publisher_confirms=False)
        found = Witness(channel)
        await found.listen(clusters or (1,), names)
        yield found


@asynccontextmanager
async def relayed(broker: Broker) -> AsyncIterator[tuple[Relay, str]]:
    """A way to the broker that can be cut without anybody else's noticing: the relay, and the URI through it."""
    async with Relay("127.0.0.1", broker.port) as relay:
        yield relay, broker.uri.replace(f":{broker.port}/", f":{relay.port}/")


def all_settled(status: Json) -> bool:
    """Whether everything that came is confirmed or in the spool, and written down as such within a moment."""
    return all(shard["settled"] == shard["received"] > 0 for shard in status["shards"])


def all_live(status: Json) -> bool:
    return bool(status["shards"]) and all(shard["state"] == "live" for shard in status["shards"])


def sessions_of(status: Json) -> dict[int, str]:
    return {shard["shard"]: shard["session"] for shard in status["shards"]}


def written_down(state_dir: Path, cluster: int = 1) -> dict[str, SessionRecord]:
    """The sessions that a gateway which is gone has left in its store, by their id."""
    folder = state_dir / "clusters" / str(cluster) / "store"
    with lmdb.open(str(folder), readonly=True, lock=False, max_dbs=64) as env:
        table = env.open_db(b"sessions", create=False)
        with env.begin(db=table) as transaction:
            records = [msgspec.msgpack.decode(value, type=SessionRecord) for _, value in transaction.cursor()]
    return {record.session_id: record for record in records}
