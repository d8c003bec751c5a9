"""The worker's queue of events: each event once, acknowledged after it was processed.

An event is *held* from its delivery until it is settled. When the connection breaks meanwhile, the broker delivers it
again: a copy of one that is held waits for that one's fate, a copy of one that was processed is acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import MessageProcessError
from rateway_client.event import Event, Verdict, event_of
from rateway_client.line import FAILURES, Broken, watched
from rateway_client.seen import Remembering
from rateway_protocol.contract import topology

__all__ = ["Inbox", "QueueKind"]

log = logging.getLogger(__name__)

QueueKind = Literal["classic", "quorum"]
# Names, and mistakes, of which each has a log line; more would only fill the log.
_MOST_SAID: Final = 20
# What an acknowledgement on a channel that has gone raises.
_GONE: Final = (*FAILURES, MessageProcessError)


class _Held:
    """An event in the worker's hands, and further deliveries of the same that wait for what becomes of it."""

    __slots__ = ("_inbox", "copies", "event", "message", "settled")

    def __init__(self, inbox: Inbox, message: AbstractIncomingMessage) -> None:
        self._inbox = inbox
        self.message = message
        self.copies: list[AbstractIncomingMessage] = []
        self.settled = False
        self.event = event_of(message, self)

    async def settle(self, verdict: Verdict) -> None:
        if not self.settled:
            self.settled = True
            await self._inbox.settled(self, verdict)


class Inbox:
    """One queue of events. ``queue`` None: one of its own that ends with the connection.

    Give :meth:`opened` and :meth:`lost` to a :class:`rateway_client.line.Line`; call :meth:`next` for events.
    """

    def __init__(
        self,
        clusters: Iterable[int],
        queue: str | None,
        *,
        kind: QueueKind,
        prefetch: int,
        arguments: Mapping[str, Any],
        seen: Remembering,
    ) -> None:
        #: The clusters whose events are wanted.
        self.clusters = set(clusters)
        #: How many shards the bot has, as far as known; :attr:`resharded` is set when an event says another number.
        self.shard_count: int | None = None
        self.resharded = asyncio.Event()
        self._name = queue
        self._prefetch = prefetch
        self._arguments = {**({"x-queue-type": kind} if kind == "quorum" else {}), **arguments}
        self._seen = seen
        self.names: set[str] = set()
        self._reading = False
        self._stopped = False
        self._lock = asyncio.Lock()
        self._channel: AbstractChannel | None = None
        self._queue: AbstractQueue | None = None
        self._tag: str | None = None
        self._ready: deque[_Held] = deque()
        self._held: dict[str, _Held] = {}
        self._arrived = asyncio.Event()
        self._unwanted: set[str] = set()
        #: Events that could not be looked at.
        self.unreadable = 0

    # The connection.

    async def opened(self, connection: AbstractConnection, broken: Broken) -> None:
        """Begin on a new connection: declare the queue, bind the names, consume if :meth:`next` is waited for."""
        async with self._lock:
            channel = await watched(connection, broken, confirms=False)
            await channel.set_qos(prefetch_count=self._prefetch)
            await _declare(channel, self.clusters)
            shared = self._name is not None
            self._queue = await channel.declare_queue(
                self._name, durable=shared, exclusive=not shared, arguments=self._arguments
            )
            self._channel = channel
            await self._bind(self.clusters, self.names)
            if self._reading:
                self._tag = await self._queue.consume(self._delivered)

    def lost(self) -> None:
        """Drop all events: the connection has ended, and those not taken yet and those held will be delivered again."""
        self._channel = self._queue = self._tag = None
        while self._ready:
            self._forget(self._ready.popleft())
        for held in self._held.values():
            held.copies.clear()

    async def _bind(self, clusters: Iterable[int], names: Iterable[str]) -> None:
        assert self._queue is not None
        for cluster in sorted(clusters):
            for name in sorted(names):
                await self._queue.bind(topology.exchange(cluster), routing_key=name)

    async def serve(self, clusters: Iterable[int]) -> None:
        """Deliver events of these clusters as well from now on."""
        async with self._lock:
            new = set(clusters) - self.clusters
            self.clusters |= new
            if not new or self._queue is None or self._channel is None:
                return
            try:
                await _declare(self._channel, new)
                await self._bind(new, self.names)
            except FAILURES:
                # The connection has just gone: the next one declares and binds all.
                return

    async def read(self, names: Iterable[str]) -> None:
        """Deliver events of *names* as well from now on."""
        async with self._lock:
            new = set(names) - self.names
            self.names |= new
            self._reading = True
            if self._queue is None:
                return
            try:
                await self._bind(self.clusters, new)
                if self._tag is None:
                    self._tag = await self._queue.consume(self._delivered)
            except FAILURES:
                # The connection has just gone: the next one binds and consumes all.
                return

    def stop(self) -> None:
        """End every :meth:`next`, now and later."""
        self._stopped = True
        self._arrived.set()

    async def leave(self) -> None:
        """Stop consuming, and give back the events that were not taken. Those that were can still be settled."""
        async with self._lock:
            self._reading = False
            queue, tag, self._tag = self._queue, self._tag, None
            if queue is not None and tag is not None:
                try:
                    await queue.cancel(tag)
                except FAILURES:
                    return
        while self._ready:
            await self._ready.popleft().settle("give_back")

    # Events.

    async def next(self) -> Event | None:
        """Return the next event; None after :meth:`stop`."""
        while not self._stopped:
            if self._ready:
                return self._ready.popleft().event
            self._arrived.clear()
            await self._arrived.wait()
        return None

    async def _delivered(self, message: AbstractIncomingMessage) -> None:
        try:
            await self._take(message)
        # What it cannot even look at is dropped: without an answer the broker would keep it for this worker, for ever.
        except Exception as error:
            self.unreadable += 1
            if self.unreadable <= _MOST_SAID:
                log.warning(
                    "an event cannot be read and is dropped: %s",
                    type(error).__name__,
                    exc_info=error,
                    extra={"action": "unreadable"},
                )
            await _tell(message, "done")

    async def _take(self, message: AbstractIncomingMessage) -> None:
        # Nothing is awaited before the event has its place: deliveries stay in order.
        message_id = message.message_id
        held = self._held.get(message_id) if message_id is not None else None
        if held is not None:
            held.copies.append(message)
        elif message_id is not None and message_id in self._seen:
            await _tell(message, "done")
        else:
            held = _Held(self, message)
            if held.event.shard_count != self.shard_count and held.event.shard_count is not None:
                self.shard_count = held.event.shard_count
                self.resharded.set()
            if held.event.name not in self.names and (message.routing_key or "") not in self.names:
                await self._not_wanted(held)
                return
            if message_id is not None:
                self._held[message_id] = held
            self._ready.append(held)
            self._arrived.set()

    async def _not_wanted(self, held: _Held) -> None:
        name = held.message.routing_key or ""
        if name not in self._unwanted and len(self._unwanted) < _MOST_SAID:
            self._unwanted.add(name)
            log.warning(
                "the queue %s is still bound to %s, which this worker does not want: such events are dropped; "
                "unbind it, or use another queue",
                self._name,
                name[:100],
                extra={"action": "not_wanted"},
            )
        await _tell(held.message, "done")

    async def settled(self, held: _Held, verdict: Verdict) -> None:
        """Settle an event: note its outcome, then tell the broker, so that it cannot be delivered in between."""
        if verdict == "done" and held.event.message_id is not None:
            self._seen.note(held.event.message_id, time.monotonic())
        self._forget(held)
        for message in (held.message, *held.copies):
            await _tell(message, verdict)

    def _forget(self, held: _Held) -> None:
        message_id = held.event.message_id
        if message_id is not None and self._held.get(message_id) is held:
            del self._held[message_id]


async def _declare(channel: AbstractChannel, clusters: Iterable[int]) -> None:
    for cluster in sorted(clusters):
        await channel.declare_exchange(
            topology.exchange(cluster), topology.EXCHANGE_TYPE, durable=True, auto_delete=False
        )


async def _tell(message: AbstractIncomingMessage, verdict: Verdict) -> None:
    try:
        if verdict == "done":
            await message.ack()
        else:
            await message.reject(requeue=verdict == "give_back")
    except _GONE:
        # The channel it came on has gone; the broker delivers it again, and then it is known or processed.
        log.debug("an event could not be settled: its connection has ended", extra={"action": "broker_lost"})
