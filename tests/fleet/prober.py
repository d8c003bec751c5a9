"""A worker's queries during a scene: one for each cluster every 100 ms, and the longest time without an answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import aio_pika
import msgspec
from aio_pika.abc import AbstractIncomingMessage
from rateway_client.line import FAILURES, dialled
from rateway_protocol.contract import topology

__all__ = ["Prober"]

# Between two queries of one cluster, seconds.
EVERY_S = 0.1
# A query's deadline: it waits in the queue as long as no gateway reads it.
DEADLINE_S = 60
# Between two attempts to connect, seconds; and for the broker's greeting.
RETRY_S = 0.2
DIAL_S = 5.0
REPLY_TO = "amq.rabbitmq.reply-to"


class _Told(msgspec.Struct):
    code: str = ""


class _Failure(msgspec.Struct):
    error: _Told


class Prober:
    """Asks for one guild of each cluster, at the cluster's own exchange. Use it with `async with prober.running():`.

    An answer counts that says what the gateway knows: `ok`, and after a death, when the cache is cold, `incomplete`.
    """

    def __init__(self, uris: Iterable[str], guilds: Mapping[int, int]) -> None:
        """*uris*: the broker's nodes, taken in turns; *guilds*: by cluster, the guild that is asked for."""
        self._uris = itertools.cycle(uris)
        self._guilds = guilds
        self._answered = dict.fromkeys(guilds, time.monotonic())
        self._longest = dict.fromkeys(guilds, 0.0)
        self.cold = 0
        """Answers that were `incomplete` since `begin`."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Prober]:
        """Ask while inside."""
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def begin(self) -> None:
        """Measure from now on."""
        now = time.monotonic()
        self._answered = dict.fromkeys(self._guilds, now)
        self._longest = dict.fromkeys(self._guilds, 0.0)
        self.cold = 0

    def hole(self) -> float:
        """Return the longest time, in seconds, that a cluster's queries had no answer, what lasts now included."""
        now = time.monotonic()
        return max(max(self._longest[each], now - at) for each, at in self._answered.items())

    async def _run(self) -> None:
        while True:
            try:
                await self._ask()
            except FAILURES:
                # A node of the broker is away: the next one, at once as far as the queries are concerned.
                await asyncio.sleep(RETRY_S)

    async def _ask(self) -> None:
        connection = await dialled(next(self._uris), timeout=DIAL_S)
        async with connection, connection.channel(publisher_confirms=False) as channel:
            replies = await channel.get_queue(REPLY_TO, ensure=False)
            await replies.consume(self._take, no_ack=True)
            exchanges = {
                cluster: await channel.get_exchange(topology.exchange(cluster), ensure=False)
                for cluster in self._guilds
            }
            while not connection.is_closed:
                for cluster, guild_id in self._guilds.items():
                    body = msgspec.json.encode(
                        {"type": "Guild", "arguments": [str(guild_id)], "fields": ["id"]}
                    )
                    message = aio_pika.Message(
                        body, correlation_id=str(cluster), reply_to=REPLY_TO, expiration=DEADLINE_S
                    )
                    await exchanges[cluster].publish(message, topology.CACHE_KEY)
                await asyncio.sleep(EVERY_S)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        cluster, status = int(message.correlation_id or 0), message.headers.get("status")
        if status == "error":
            if msgspec.json.decode(message.body, type=_Failure).error.code != "incomplete":
                return
            self.cold += 1
        now = time.monotonic()
        self._longest[cluster] = max(self._longest[cluster], now - self._answered[cluster])
        self._answered[cluster] = now
