"""Read event logs from RabbitMQ: the streams that clusters' exchanges write to (``docs/contract.md``, *Event log*).

One connection for all passes, a channel for each. A stream is read without being consumed: every reader has all of it
(https://www.rabbitmq.com/docs/streams#consuming). Acknowledgements only say how much more may be sent.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import pamqp.commands as spec
from rateway.delivery.proxy_port import Age, EndReason, LogEntry, LogPass, LogSink, LogStart, Newest, Offset
from rateway.native.log_entries import EntryParser
from rateway.transports.amqp.requests.inbound_queue import ask, is_away
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.kept_connection import KeptConnection
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["PREFETCH", "AmqpLogReader"]

log = logging.getLogger(__name__)

# Entries that are sent beyond what is acknowledged. RabbitMQ sends a stream in chunks and asks for at least 100.
PREFETCH: Final = 2_000
# Acknowledgements are sent to the broker once they are a part of that, or after so many seconds: an entry that was
# delivered and is not acknowledged for half an hour costs the channel (RabbitMQ's consumer_timeout).
_ACK_AT: Final = PREFETCH // 4
_ACK_AFTER_S: Final = 5.0
# What the broker is asked about a stream is answered at once, unless the node of that stream has stopped answering:
# RabbitMQ 4.0 then says nothing, where 3.10 says that it is down.
ANSWER_S: Final = 10.0
# The first channel; number 1 is the one whose deliveries the connection reads itself.
_FIRST_CHANNEL: Final = 2
# What AMQP allows where a broker names no bound.
_MOST_CHANNELS: Final = 65_535
_ACCESS_REFUSED, _NOT_FOUND = 403, 404


def _offset_of(entry: LogEntry) -> int:
    return entry.offset


class _Pass:
    """One pass; made by :meth:`AmqpLogReader.read`."""

    def __init__(self, name: str, start: LogStart, sink: LogSink, drop: Callable[[_Pass], None]) -> None:
        self.name = name
        self.is_open = True
        self.was_cancelled = False
        """Whether the broker has ended the reading, without a word why."""
        self._start = start
        self._sink = sink
        self._drop = drop
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._parser = EntryParser(LogEntry)
        self._has_begun = False
        self._flushing: asyncio.Handle | None = None
        # What the sink was given and has not acknowledged: entries, and the delivery tag of their last.
        self._given: deque[tuple[Sequence[LogEntry], int]] = deque()
        # The highest delivery tag that was acknowledged, by the sink and to the broker.
        self._dealt = self._told = 0
        self._telling: asyncio.TimerHandle | None = None

    # The sink's side.

    def acknowledge(self, offset: int) -> None:
        given = self._given
        while given:
            entries, tag = given[0]
            if entries[-1].offset > offset:
                dealt = bisect.bisect_right(entries, offset, key=_offset_of)
                self._dealt = max(self._dealt, tag - len(entries) + dealt)
                break
            self._dealt = tag
            given.popleft()
        if self._dealt - self._told >= _ACK_AT:
            self._tell()
        elif self._dealt > self._told and self._telling is None:
            self._telling = self._loop.call_later(_ACK_AFTER_S, self._tell)

    def close(self) -> None:
        if self.is_open:
            self._finish()
            self._drop(self)

    # The reader's side.

    def end(self, reason: EndReason, text: str) -> None:
        """End by itself, and say why. What has arrived before is delivered first."""
        if self.is_open:
            self._flush()
        # What the sink made of that may have been to close.
        if self.is_open:
            self._finish()
            self._sink.on_end(reason, text)

    async def consume(self, channel: Channel) -> None:
        """Begin on this channel; returns when the pass stands at its start. ChannelClosed, ConnectionLost."""
        await channel.call(spec.Basic.Qos(0, PREFETCH, False), spec.Basic.QosOk)
        if not self.is_open:
            channel.close()
            return
        self._channel = channel
        channel.give_to(self)
        channel.on_cancel = self._on_cancel
        consume = spec.Basic.Consume(0, self.name, arguments={"x-stream-offset": _argument(self._start)})
        await channel.call(consume, spec.Basic.ConsumeOk)
        if self.is_open:
            self._begin()

    def take_run(self, data: bytes, at: int, room: int) -> int:
        assert self._channel is not None
        end = self._parser.parse(data, at, self._channel.number, room)
        if not self.is_open:
            # What was on its way when the pass was closed is dropped.
            self._parser.entries.clear()
        elif self._flushing is None and self._parser.entries:
            self._flushing = self._loop.call_soon(self._flush)
        return end

    def take_parts(self, method: bytes, header: bytes, body: bytes) -> None:
        if self.is_open and self._parser.parse_parts(method, header, body) and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _on_cancel(self, tag: str) -> None:
        self.was_cancelled = True
        if self._channel is not None:
            self._channel.close()

    def _begin(self) -> None:
        # The first entries may come in the same read as the broker's word that they will.
        if not self._has_begun:
            self._has_begun = True
            self._sink.on_begin()

    def _flush(self) -> None:
        """Give the sink what has arrived."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        entries = self._parser.entries
        if not entries or not self.is_open:
            return
        self._parser.entries = []
        if entries[0].offset < 0:
            self._finish()
            self._drop(self)
            self._sink.on_end("missing", f"{self.name} is a queue, and no stream")
            return
        self._given.append((entries, self._parser.tag))
        self._begin()
        if self.is_open:
            self._sink.on_entries(entries)

    def _tell(self) -> None:
        """Acknowledge to the broker."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        channel = self._channel
        if self._dealt > self._told and channel is not None and not channel.closed.done():
            self._told = self._dealt
            channel.send(spec.Basic.Ack(self._told, True))

    def _finish(self) -> None:
        self.is_open = False
        for timer in (self._flushing, self._telling):
            if timer is not None:
                timer.cancel()
        self._given.clear()
        self._parser.entries.clear()
        if self._channel is not None:
            self._channel.close()


class AmqpLogReader:
    """A :class:`~rateway.delivery.proxy_port.LogReader` over a connection of its own, which :meth:`run` keeps."""

    def __init__(
        self, *, address: AddressSource, name: str = "rateway: event logs", answer_seconds: float = ANSWER_S
    ) -> None:
        """``name`` is what the broker's management shows; a log that the broker says nothing about for
        ``answer_seconds`` is down."""
        self._answer_seconds = answer_seconds
        self._kept = KeptConnection(
            address,
            name,
            lost="event logs cannot be read: %s; trying again until they can",
            back="event logs can be read again (%s)",
        )
        self._connection: Connection | None = None
        self._group: asyncio.TaskGroup | None = None
        # Numbers of the connection's channels, of passes that ended and are not closed yet, too.
        self._numbers: set[int] = set()
        self._passes: set[_Pass] = set()

    def read(self, log: str, start: LogStart, sink: LogSink) -> LogPass:
        begun = _Pass(log, start, sink, self._passes.discard)
        self._passes.add(begun)
        connection = self._connection
        # A connection that has just ended serves no pass; a sink that gets its end may begin the next pass at once.
        if connection is not None and self._group is not None and not connection.closed.done():
            self._group.create_task(self._hold(connection, begun))
        return begun

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        await self._kept.run(self._serve, self._end_all)

    async def _serve(self, connection: Connection) -> str:
        """One connection's life; why it ended."""
        self._kept.say_back(connection)
        self._numbers.clear()
        try:
            async with asyncio.TaskGroup() as group:
                self._connection, self._group = connection, group
                for each in list(self._passes):
                    group.create_task(self._hold(connection, each))
                return await asyncio.shield(connection.closed)
        except BaseException:
            self._end_all("disconnected", "the reader has ended")
            raise
        finally:
            self._connection = self._group = None

    async def _hold(self, connection: Connection, one: _Pass) -> None:
        """One pass over one connection, from its channel's opening to its end."""
        if not one.is_open:
            return
        number = self._free_number(connection)
        if number is None:
            self._end(one, "refused", f"the broker allows no more than {connection.channel_max} channels")
            return
        self._numbers.add(number)
        channel: Channel | None = None
        reason: ChannelClosed | ConnectionLost
        try:
            async with asyncio.timeout(self._answer_seconds):
                channel = await connection.channel(number)
                channel.closed.add_done_callback(lambda closed: self._numbers.discard(number))
                await one.consume(channel)
            reason = await asyncio.shield(channel.closed)
            if one.was_cancelled and isinstance(reason, ChannelClosed):
                reason = await self._look(connection, one.name)
        except TimeoutError:
            if channel is not None:
                channel.close()
            self._end(
                one, "down", f"the broker does not answer about {one.name}: its node may be down or silent"
            )
            return
        except (ChannelClosed, ConnectionLost) as ended:
            reason = ended
        if one.is_open:
            self._end(one, *_why(reason))

    async def _look(self, connection: Connection, name: str) -> ChannelClosed:
        """Ask why the broker has ended the reading: it tells whether there is such a queue, and whether it is up."""
        number = self._free_number(connection)
        closed = None
        if number is not None:
            self._numbers.add(number)
            passive = spec.Queue.Declare(0, name, passive=True, durable=True)
            closed = await ask(
                connection, number, passive, spec.Queue.DeclareOk, timeout=self._answer_seconds
            )
            self._numbers.discard(number)
        return closed or ChannelClosed(0, "the broker has ended the reading")

    def _free_number(self, connection: Connection) -> int | None:
        most = connection.channel_max or _MOST_CHANNELS
        free = (number for number in itertools.count(_FIRST_CHANNEL) if number not in self._numbers)
        number = next(free)
        return number if number <= most else None

    def _end(self, one: _Pass, reason: EndReason, text: str) -> None:
        self._passes.discard(one)
        one.end(reason, text)

    def _end_all(self, reason: EndReason, text: str) -> None:
        for each in list(self._passes):
            self._end(each, reason, text)


def _argument(start: LogStart) -> int | str:
    match start:
        case Offset(offset):
            return offset
        case Age(seconds):
            return f"{seconds}s"
        case Newest():
            return "last"
        case _:
            return "next"


def _why(reason: ChannelClosed | ConnectionLost) -> tuple[EndReason, str]:
    if isinstance(reason, ConnectionLost):
        return "disconnected", str(reason)
    if is_away(reason):
        return "down", str(reason)
    # A queue of another kind has no offsets.
    if reason.code == _NOT_FOUND or "x-stream-offset" in reason.text:
        return "missing", str(reason)
    return ("refused" if reason.code == _ACCESS_REFUSED else "disconnected"), str(reason)
