"""A broker with queues: it routes, delivers, delivers again, and has queues whose node is away or silent."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import dataclass, field

from pamqp import commands as spec
from pamqp import frame
from pamqp.base import Frame
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.inbound_broker import NO_PROPERTIES, frames_of


@dataclass
class _Request:
    key: str
    body: bytes
    properties: bytes
    redelivered: bool = False


@dataclass
class _Consumer:
    writer: asyncio.StreamWriter
    channel: int
    unacknowledged: dict[int, _Request] = field(default_factory=dict)


@dataclass
class _Queue:
    ready: deque[_Request] = field(default_factory=deque)
    bindings: set[str] = field(default_factory=set)
    consumer: _Consumer | None = None
    holder: asyncio.StreamWriter | None = None
    """The connection that an exclusive queue belongs to."""


@dataclass
class QueueBroker(FakeBroker):
    """Serves any number of connections, each in a task of its own."""

    confirm: bool = False
    queues: dict[str, _Queue] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    """Queues whose node is away: nothing is routed to them, and they cannot be unbound, as with RabbitMQ 3.10."""
    silent: set[str] = field(default_factory=set)
    """Queues about which nothing is answered, and which may be bound and unbound, as with RabbitMQ 4."""
    refused: list[str] = field(default_factory=list)
    """The queues of messages that were routed to one whose node is silent."""
    tags: dict[tuple[int, int], int] = field(default_factory=dict)
    """The last delivery tag, by connection and channel."""

    # What a test does

    def publish(self, body: bytes, key: str = "cache", properties: bytes = NO_PROPERTIES) -> int:
        """Publish to the cluster's exchange; return how many queues it was routed to."""
        routed = [
            name for name, queue in self.queues.items() if key in queue.bindings and name not in self.away
        ]
        for name in routed:
            if name in self.silent:
                self.refused.append(name)
            else:
                self.queues[name].ready.append(_Request(key, body, properties))
                self._deliver(name)
        return len(routed)

    def lose(self, name: str, *, silent: bool = False) -> None:
        """The node of a queue dies: its consumer is ended, and it has what was not acknowledged."""
        (self.silent if silent else self.away).add(name)
        queue = self.queues[name]
        consumer = queue.consumer
        self._requeue(queue)
        if consumer is not None:
            consumer.writer.write(frame.marshal(spec.Basic.Cancel(name), consumer.channel))

    def bring_back(self, name: str) -> None:
        """The node of a queue is back."""
        self.away.discard(name)
        self.silent.discard(name)

    def cut(self, name: str) -> None:
        """End the connection that reads a queue."""
        consumer = self.queues[name].consumer
        assert consumer is not None
        consumer.writer.transport.abort()

    def is_read(self, name: str) -> bool:
        return name in self.queues and self.queues[name].consumer is not None

    def unacknowledged(self, name: str) -> int:
        consumer = self.queues[name].consumer
        return 0 if consumer is None else len(consumer.unacknowledged)

    # The server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await super()._serve(_Tagged(self, reader, writer), writer)  # type: ignore[arg-type]  # it reads as one
        finally:
            for name, queue in list(self.queues.items()):
                if queue.consumer is not None and queue.consumer.writer is writer:
                    self._requeue(queue)
                if queue.holder is writer:
                    del self.queues[name]
            self._changed.set()

    def _requeue(self, queue: _Queue) -> None:
        consumer, queue.consumer = queue.consumer, None
        if consumer is None:
            return
        for request in reversed(consumer.unacknowledged.values()):
            request.redelivered = True
            queue.ready.appendleft(request)

    def _deliver(self, name: str) -> None:
        queue = self.queues[name]
        consumer = queue.consumer
        while consumer is not None and queue.ready:
            request = queue.ready.popleft()
            at = (id(consumer.writer), consumer.channel)
            tag = self.tags[at] = self.tags.get(at, 0) + 1
            consumer.unacknowledged[tag] = request
            method = (
                b"\0\x3c\0\x3c\x02me"
                + struct.pack(">QB", tag, request.redelivered)
                + b"\x09rateway-1"
                + bytes((len(request.key),))
                + request.key.encode()
            )
            content = struct.pack(">HHQ", 60, 0, len(request.body)) + request.properties
            consumer.writer.write(frames_of(method, content, request.body, self.frame_max - 8))

    def _answer(self, method: Frame) -> None:
        number, writer = self.answering, self._writer
        assert writer is not None
        match method:
            case spec.Channel.Open():
                self.tags.pop((id(writer), number), None)
                self.method(spec.Channel.OpenOk(), number)
            case spec.Channel.Close():
                self._end_channel(writer, number)
                self.method(spec.Channel.CloseOk(), number)
            case spec.Exchange.Declare():
                self.method(spec.Exchange.DeclareOk(), number)
            case spec.Queue.Declare():
                self._declare(method, writer, number)
            case spec.Queue.Bind():
                if self._there(method.queue, number):
                    self.queues[method.queue].bindings.add(method.routing_key)
                    self.method(spec.Queue.BindOk(), number)
            case spec.Queue.Unbind():
                if self._there(method.queue, number):
                    self.queues[method.queue].bindings.discard(method.routing_key)
                    self.method(spec.Queue.UnbindOk(), number)
            case spec.Queue.Delete():
                if self._there(method.queue, number):
                    assert not (method.if_empty and self.queues[method.queue].ready)
                    del self.queues[method.queue]
                    self.method(spec.Queue.DeleteOk(0), number)
            case spec.Basic.Qos():
                self.method(spec.Basic.QosOk(), number)
            case spec.Basic.Consume():
                self._consume(method, writer, number)
            case spec.Basic.Ack():
                self._settle(writer, number, method.delivery_tag, multiple=bool(method.multiple))
            case _:
                super()._answer(method)

    def _there(self, name: str, number: int) -> bool:
        """Whether a queue can be used; the channel is closed where it cannot."""
        if name in self.away:
            words = (
                f"NOT_FOUND - home node 'a@b' of durable queue '{name}' in vhost '/' is down or inaccessible"
            )
        elif name not in self.queues:
            words = f"NOT_FOUND - no queue '{name}' in vhost '/'"
        else:
            return True
        self._refuse(404, words, number)
        return False

    def _refuse(self, code: int, words: str, number: int) -> None:
        assert self._writer is not None
        self._end_channel(self._writer, number)
        self.method(spec.Channel.Close(code, words, 50, 10), number)

    def _declare(self, method: spec.Queue.Declare, writer: asyncio.StreamWriter, number: int) -> None:
        name = method.queue
        if name in self.silent:
            return
        if not method.passive and name not in self.away:
            self.queues.setdefault(name, _Queue(holder=writer if method.exclusive else None))
        if not self._there(name, number):
            return
        queue = self.queues[name]
        if queue.holder not in (None, writer):
            self._refuse(
                405, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}'", number
            )
            return
        consumers = int(queue.consumer is not None)
        self.method(spec.Queue.DeclareOk(name, len(queue.ready), consumers), number)

    def _consume(self, method: spec.Basic.Consume, writer: asyncio.StreamWriter, number: int) -> None:
        if not self._there(method.queue, number):
            return
        queue = self.queues[method.queue]
        if queue.consumer is not None:
            self._refuse(
                403, f"ACCESS_REFUSED - queue '{method.queue}' in vhost '/' in exclusive use", number
            )
            return
        queue.consumer = _Consumer(writer, number)
        self.method(spec.Basic.ConsumeOk("me"), number)
        self._deliver(method.queue)

    def _consumed(self, writer: asyncio.StreamWriter, number: int) -> _Queue | None:
        for queue in self.queues.values():
            consumer = queue.consumer
            if consumer is not None and (consumer.writer, consumer.channel) == (writer, number):
                return queue
        return None

    def _end_channel(self, writer: asyncio.StreamWriter, number: int) -> None:
        queue = self._consumed(writer, number)
        if queue is not None:
            self._requeue(queue)

    def _settle(self, writer: asyncio.StreamWriter, number: int, tag: int, *, multiple: bool) -> None:
        queue = self._consumed(writer, number)
        if queue is None or queue.consumer is None:
            return
        waiting = queue.consumer.unacknowledged
        for each in [each for each in waiting if each == tag or (multiple and each <= tag)]:
            del waiting[each]


class _Tagged:
    """A connection's reader, which makes that connection the one that is answered once something has come from it."""

    def __init__(
        self, broker: QueueBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._broker, self._reader, self._writer = broker, reader, writer

    async def readexactly(self, count: int) -> bytes:
        found = await self._reader.readexactly(count)
        self._broker._writer = self._writer
        return found
