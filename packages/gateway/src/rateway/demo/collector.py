"""A queue that is bound to every name of a cluster's exchange, and what came through it.

The queue is durable and survives restarts of the broker; the collector connects again for as long as it runs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from rateway.demo.audit import Receipts
from rateway_client.line import FAILURES, dialled
from rateway_protocol.contract import topology
from rateway_protocol.contract.messages import OWN_KEYS
from rateway_protocol.discord.events import DOCUMENTED

#: Unacknowledged messages on their way.
PREFETCH = 1000
#: Between two attempts to connect, seconds.
RETRY = 0.2
# Seconds for the broker's greeting: one that boots takes connections and lets them wait.
DIAL = 10.0


class Collector:
    """Collects from the clusters given into one `Receipts`. Use it with `async with collector.running():`."""

    def __init__(
        self,
        uri: str,
        clusters: Iterable[int],
        *,
        names: Iterable[str] = (),
        nodes: Iterable[str] = (),
        kind: str = "",
    ) -> None:
        """*nodes* are addresses to take in turns where the broker has several; *kind* is the queue's type."""
        self.uri = uri
        self._uris = itertools.cycle((uri, *nodes))
        self._arguments = {"x-queue-type": kind} if kind else {}
        self.clusters = tuple(clusters)
        self.names = sorted(DOCUMENTED | OWN_KEYS | set(names))
        self.receipts = Receipts()
        #: Set whenever something arrives; the caller that waits clears it.
        self.arrival = asyncio.Event()
        self.connected = asyncio.Event()
        self.connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Collector]:
        """Collect while inside; entered once all queues are bound. The queues are deleted at the end."""
        task = asyncio.create_task(self._run())
        try:
            ready = asyncio.create_task(self.connected.wait())
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if task.done():
                task.result()
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._delete_queues()

    def queue_name(self, cluster: int) -> str:
        return f"rateway-audit-{cluster}"

    async def _run(self) -> None:
        while True:
            try:
                await self._collect()
            except FAILURES:
                # The broker is away; what it holds for us is durable.
                self.connected.clear()
                self.uri = next(self._uris)
            await asyncio.sleep(RETRY)

    async def _collect(self) -> None:
        connection = await dialled(self.uri, timeout=DIAL)
        async with connection:
            self.connections += 1
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def end(*_facts: object) -> None:
                if not ended.done():
                    ended.set_result(None)

            connection.close_callbacks.add(end)
            for cluster in self.clusters:
                channel = await connection.channel(publisher_confirms=False)
                channel.close_callbacks.add(end)
                await self._consume(channel, cluster)
            self.connected.set()
            await ended
            self.connected.clear()

    async def _consume(self, channel: AbstractChannel, cluster: int) -> None:
        await channel.set_qos(prefetch_count=PREFETCH)
        exchange = await channel.declare_exchange(
            topology.exchange(cluster), topology.EXCHANGE_TYPE, durable=True, auto_delete=False
        )
        queue = await channel.declare_queue(
            self.queue_name(cluster),
            durable=True,
            arguments=self._arguments,  # type: ignore[arg-type]  # aio-pika's table type is closed over its own values
        )
        for name in self.names:
            await queue.bind(exchange, name)
        await queue.consume(self._on_message)

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        self.receipts.add(
            message.routing_key or "",
            message.message_id,
            message.body,
            republished=bool(message.headers.get("republished")),
            redelivered=bool(message.redelivered),
            ahead=bool(message.headers.get("ahead")),
            replayed=bool(message.headers.get("replayed")),
        )
        await message.ack()
        self.arrival.set()

    async def _delete_queues(self) -> None:
        try:
            async with await dialled(self.uri, timeout=DIAL) as connection, connection.channel() as channel:
                for cluster in self.clusters:
                    await channel.queue_delete(self.queue_name(cluster))
        except FAILURES:
            # The broker is gone and the queues with it, or they stay for the next run, which reads them empty.
            return
