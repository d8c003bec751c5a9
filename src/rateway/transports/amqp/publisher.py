"""One cluster's events into its exchange, each kept until the broker has confirmed it.

What is published in one wake-up of the loop goes out in one write at its end. What is unconfirmed is in the ledger
(``delivery/ledger.py``), older events before newer ones: first what the spool still has to hand out, then what waits in memory.
Everything that stops the flow (no connection, a blocked one, a refusal, a full socket) only lets events wait there; what has
waited for long, or is too much, goes to the spool; without one, reading pauses.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import pamqp.commands as spec

from rateway.delivery.ledger import STRIDE, Cursor, Run, Unconfirmed
from rateway.delivery.limits import DeliveryLimits
from rateway.delivery.message import Publish
from rateway.delivery.patience import Patience, Repeats
from rateway.transports.amqp import frames, reports
from rateway.transports.amqp.connection import (
    Acks,
    BrokerRefused,
    BrokerUnavailable,
    Channel,
    ChannelClosed,
    Connection,
    ConnectionLost,
    connect,
)
from rateway.transports.amqp.stream import ShardStream
from rateway.transports.amqp.uri import AmqpAddress
from rateway.transports.spool import Spool, SpoolFull

__all__ = ["Clock", "EventPublisher", "PublisherObserver", "ShardStream"]

log = logging.getLogger(__name__)

# RabbitMQ's default; what the broker negotiates takes its place.
_FRAME_MAX: Final = 131_072
# Bytes per write while there is more than one wake-up's worth to send, and per write of the spool.
_CHUNK: Final = 512 * 1024
# Bytes read back from the spool and unconfirmed at most.
_WINDOW_BYTES: Final = 32 * 1024 * 1024
# Seconds between looks at what no event announces: what waits too long, who listens, whether there is room again.
_TICK: Final = 0.25
# Seconds between tries to reach the broker: the first come soon, because a restart takes a second or two.
_RECONNECT_FIRST: Final = 0.1
_RECONNECT_MOST: Final = 5.0
# Refusals need somebody to change something at the broker.
_REFUSED_DELAY: Final = 5.0
# A mandatory publish of something larger would come back in full.
_PROBE_MOST: Final = 64 * 1024
# Upper edges in seconds.
_EDGES: Final = tuple(0.00025 * 2**power for power in range(18))
_TOO_LARGE: Final = re.compile(r"message size (\d+).*?(?:max\w*(?: size)?|limit)\D*(\d+)", re.IGNORECASE)
_PRECONDITION_FAILED: Final = 406
_NOT_FOUND: Final = 404


class Clock(Protocol):
    """The module :mod:`time` is one."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def time(self) -> float:
        """Seconds since 1970."""


class PublisherObserver(Protocol):
    """Who hears what happens to a cluster's events. Called from the event loop; must return soon and never raise."""

    def on_pause(self) -> None:
        """Unconfirmed events have reached the bound and there is no spool (or it is full): stop reading from Discord."""

    def on_resume(self) -> None:
        """There is room again."""

    def on_settled(self) -> None:
        """``settled`` of at least one stream has moved. At most once for each read from the broker."""

    def on_unrouted(self, name: str, routed: bool) -> None:
        """Nobody is bound to this event's name (``routed`` false), or somebody is again."""

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        """The broker does not take an event of this size (bytes); RATEWAY_OVERSIZE goes out in its place."""

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        """An event was refused for longer than ``nack_patience``, or has an impossible name: RATEWAY_REFUSED takes its place."""

    def on_state(self, up: bool, why: str) -> None:
        """The connection is ready to publish, or is not any more, and why in words (fit for a log line; no secrets)."""


class EventPublisher:
    """The publishing connection of one cluster; it reconnects by itself, for ever."""

    def __init__(
        self,
        *,
        address: AmqpAddress,
        exchange: str,
        cluster: int,
        limits: DeliveryLimits,
        persistent: bool,
        spool: Spool | None,
        clock: Clock,
        observer: PublisherObserver,
    ) -> None:
        self.address = address
        self.exchange = exchange
        self.exchange_name = exchange.encode()
        self.cluster = cluster
        self.limits = limits
        self.persistent = persistent
        self.spool = spool
        self.frame_max = _FRAME_MAX
        self.body_max: int | None = None
        # Called before the events of a wake-up are written: what workers may see must be in the store by then.
        self.before_write: Callable[[], None] | None = None
        self.nacked = 0
        self.returned = 0
        self.republished = 0
        self.bytes_out = 0
        self.paused = False
        self.connected = False
        self.unrouted: set[str] = set()
        self.unrouted_events: Counter[str] = Counter()
        self._clock = clock
        self._observer = observer
        self._ledger = Unconfirmed()
        self._patience = Patience(limits.nack_delay, limits.nack_delay_most, limits.nack_patience)
        self._cautious: set[Run] = set()
        self._streams: list[ShardStream] = []
        # Of this wake-up.
        self._open: list[tuple[ShardStream | None, Run]] = []
        self._scheduled = False
        self._second = -1
        self._stamp = bytes(8)
        self._connection: Connection | None = None
        self._flowing = False
        # Names asked about since ``_probes_begin``, and those of them whose publish has come back.
        self._probed: set[str] = set()
        self._asking: Counter[str] = Counter()
        self._returned: set[str] = set()
        self._probes_begin = 0.0
        self._histogram = [0] * (len(_EDGES) + 1)
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Future[None] | None = None
        self._spool_trouble = ""
        self._said_stalled = False

    def __repr__(self) -> str:
        return f"<EventPublisher {self.exchange} {'up' if self.connected else 'down'}, {self.unconfirmed} unconfirmed>"

    # What others read

    @property
    def published(self) -> int:
        """Events given to us since the start, messages of the gateway's own included."""
        return self._ledger.added

    @property
    def confirmed(self) -> int:
        """Events that the broker has confirmed since the start, also such as a former process had left in the spool."""
        return self._ledger.confirmed

    @property
    def unconfirmed(self) -> int:
        """Events that the broker has not confirmed, in memory and in the spool."""
        return self._ledger.events + (self.spool.events if self.spool is not None else 0)

    @property
    def unconfirmed_bytes(self) -> int:
        """Bytes of unconfirmed events in memory, frames included."""
        return self._ledger.bytes + self._ledger.window_bytes

    @property
    def blocked(self) -> bool:
        """Whether the broker has asked us to stop publishing (``connection.blocked``)."""
        return self._connection is not None and self._connection.blocked

    def oldest(self) -> tuple[float, str] | None:
        """Age in seconds and event name of the oldest event that the broker has not answered for."""
        for runs in (self._ledger.sent, self._ledger.waiting):
            for run in runs:
                if run.left and run.origins is None:
                    head = run.pieces[STRIDE * run.front]
                    return self._clock.monotonic() - run.at, frames.key_of(head) if head else run.name
        return None

    def latencies(self) -> list[tuple[float, int]]:
        """Events by time from :meth:`ShardStream.publish` to confirm: (upper edge in seconds, events); the last edge is infinite."""
        return list(zip((*_EDGES, float("inf")), self._histogram, strict=True))

    # Publishing

    def stream(self, shard_id: int, shard_count: int) -> ShardStream:
        """The stream of one shard."""
        stream = ShardStream(self, shard_id, shard_count)
        self._streams.append(stream)
        return stream

    def publish_own(
        self,
        key: str,
        body: bytes,
        message_id: str | None = None,
        headers: Mapping[str, str | int | bool] | None = None,
        on_confirmed: Callable[[], None] | None = None,
    ) -> None:
        """A message of the gateway's own (RATEWAY_*), in order with the events of the cluster.

        ``on_confirmed`` is called once the broker has it, or the spool. :class:`ValueError` when ``key`` or ``message_id`` are over
        255 bytes.
        """
        run = self._begin(None, Cursor(-1))
        assert run.cursor is not None
        run.cursor.runs.append(run)
        run.told = on_confirmed
        run.pieces += frames.pieces(
            self.exchange_name, self._own(key, body, message_id, headers), self.frame_max
        )
        run.marks.append(0)

    def _own(
        self, key: str, body: bytes, message_id: str | None, headers: Mapping[str, str | int | bool] | None
    ) -> Publish:
        name = key.encode()
        second = int(self._clock.time())
        return Publish(
            name, frames.own_properties(name, headers or {}, message_id, second, self.persistent), body
        )

    def opened(self, stream: ShardStream, cursor: Cursor) -> Run:
        """A stream's new run; see :class:`rateway.transports.amqp.stream.Hub`."""
        return self._begin(stream, cursor)

    def _begin(self, stream: ShardStream | None, cursor: Cursor) -> Run:
        if stream is None:
            # In order with all that was published before it: those runs end here.
            for owner, opened in self._open:
                if owner is not None:
                    owner.end(opened)
        run = Run(cursor, self._clock.monotonic())
        self._open.append((stream, run))
        if not self._scheduled:
            self._scheduled = True
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self.flush)
        return run

    def stamp(self) -> bytes:
        """See :class:`rateway.transports.amqp.stream.Hub`."""
        second = int(self._clock.time())
        if second != self._second:
            self._second, self._stamp = second, struct.pack(">Q", second)
        return self._stamp

    def flush(self) -> None:
        """Write what has been published since the last flush. Scheduled by itself at the end of each wake-up."""
        self._scheduled = False
        opened = self._open
        if not opened:
            return
        if self.before_write is not None:
            self.before_write()
        self._open = []
        ledger = self._ledger
        if self._flowing and not ledger.waiting:
            parts = []
            for stream, run in opened:
                if stream is not None:
                    stream.end(run)
                data = b"".join(run.pieces)
                ledger.add_written(run, len(data))
                parts.append(data)
            self._write(parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            for stream, run in opened:
                if stream is not None:
                    stream.end(run)
                ledger.add(run, sum(map(len, run.pieces)))
            self._pump()
        limits = self.limits
        if ledger.events >= limits.events or ledger.bytes >= limits.bytes:
            self._full()

    def _write(self, data: bytes) -> None:
        connection = self._connection
        assert connection is not None
        self.bytes_out += len(data)
        connection.write(data)
        if not connection.writable:
            self._flowing = False

    # Instead of an event

    def oversize(
        self, name: str, message_id: str | None, shard_id: int | None, seq: int | None, body: bytes
    ) -> Publish:
        """See :class:`rateway.transports.amqp.stream.Hub`."""
        self._observer.on_oversize(name, shard_id, seq, len(body), self.body_max)
        log.error(
            "the broker takes no message of %s bytes (its limit: %s): %s of shard %s is left out, RATEWAY_OVERSIZE tells the worker",
            f"{len(body):,}",
            self.body_max,
            name,
            shard_id,
            extra={"cluster": self.cluster, "shard": shard_id, "action": "oversize"},
        )
        report = reports.oversize(name, shard_id, seq, len(body), reports.guild_of(name, body))
        return self._own("RATEWAY_OVERSIZE", report, _report_id("oversize", message_id), None)

    def unroutable(self, name: str, shard_id: int, seq: int | None) -> Publish:
        """See :class:`rateway.transports.amqp.stream.Hub`."""
        return self._refusal(
            name[:100], None, shard_id, seq, "its name is longer than a routing key may be (255 bytes)"
        )

    def _refusal(
        self, name: str, message_id: str | None, shard_id: int | None, seq: int | None, why: str
    ) -> Publish:
        self._observer.on_refused(name, shard_id, seq)
        log.error(
            "%s of shard %s is given up: %s; RATEWAY_REFUSED tells the worker",
            name,
            shard_id,
            why,
            extra={"cluster": self.cluster, "shard": shard_id, "action": "refused"},
        )
        report = reports.refused(name, shard_id, seq, why)
        return self._own("RATEWAY_REFUSED", report, _report_id("refused", message_id), None)

    def _cut_out(self) -> None:
        """Replace what waits and is larger than the broker takes."""
        limit = self.body_max
        if limit is None:
            return
        for run in self._ledger.waiting:
            for index in range(len(run.marks)):
                head, body = run.pieces[STRIDE * index : STRIDE * index + 2]
                if frames.size_of(head) > limit:
                    publish = frames.publish_of(head, body)
                    self._ledger.replace(run, index, self._cut(self._smaller(publish)))

    def _smaller(self, publish: Publish) -> Publish:
        """The message itself, or what goes out in its place where the broker takes none of that size."""
        if self.body_max is None or len(publish.body) <= self.body_max:
            return publish
        shard_id, seq = frames.event_of(publish.properties)
        identity = frames.message_id_of(publish.properties)
        return self.oversize(publish.key.decode("utf-8", "replace"), identity, shard_id, seq, publish.body)

    def _cut(self, publish: Publish) -> tuple[bytes, bytes, bytes]:
        return frames.pieces(self.exchange_name, publish, self.frame_max)

    # Who listens

    def probe(self, name: str, run: Run, size: int) -> bool:
        """See :class:`rateway.transports.amqp.stream.Hub`."""
        if name in self._probed or size > _PROBE_MOST:
            return False
        self._probed.add(name)
        if run.probes is None:
            run.probes = []
        run.probes.append(name)
        self._asking[name] += 1
        return True

    def _on_return(self, code: int, key: str, size: int) -> None:
        self.returned += 1
        # One that was asked before the connection broke says nothing about the answer to the newest question.
        if self._asking[key] > 0:
            self._returned.add(key)

    def _probes_answered(self, names: list[str]) -> None:
        for name in names:
            self._asking[name] -= 1
            if name in self._returned:
                self._returned.discard(name)
                if name not in self.unrouted:
                    self.unrouted.add(name)
                    self._observer.on_unrouted(name, False)
            elif name in self.unrouted:
                self.unrouted.discard(name)
                self._observer.on_unrouted(name, True)

    def _probe_again(self) -> None:
        self._probes_begin = self._clock.monotonic()
        self._probed.clear()
        for stream in self._streams:
            stream.forget()

    # What the broker says

    def _on_acks(self, acks: Acks) -> None:
        ledger = self._ledger
        self._answered(ledger.acknowledge(acks))

    def _answered(self, finished: list[Run]) -> None:
        ledger = self._ledger
        if finished:
            now = self._clock.monotonic()
            histogram = self._histogram
            for run in finished:
                if run.records is None and run.origins is None:
                    histogram[bisect_left(_EDGES, now - run.at)] += len(run.marks)
                if run.probes is not None:
                    self._probes_answered(run.probes)
                if run.told is not None:
                    run.told()
            if self._cautious:
                self._try_more(finished)
        if ledger.dropped:
            assert self.spool is not None
            self.spool.confirm(ledger.dropped)
            ledger.dropped = []
        if ledger.moved:
            ledger.moved = False
            self._observer.on_settled()
        if not self._flowing or ledger.waiting:
            self._pump()
        if self.paused:
            self._room_again()
        if self._draining is not None and not ledger.events and not self._draining.done():
            self._draining.set_result(None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        count = self._ledger.refuse(tag, multiple, frames.remark)
        if not count:
            return
        self.nacked += count
        first = self._patience.window is None
        self._patience.refused(self._clock.monotonic())
        self._flowing = False
        self._cautious.clear()
        if first:
            oldest = next(iter(self._ledger.refused))
            log.warning(
                "the broker refuses events (basic.nack), %s first: a queue is full and rejects? Trying again, what follows waits",
                self._name_of(*oldest),
                extra={"cluster": self.cluster, "action": "refused"},
            )
        if self._patience.retry_at is not None and self._loop is not None:
            self._loop.call_at(
                self._loop.time() + self._patience.retry_at - self._clock.monotonic(), self._pump
            )

    def _name_of(self, run: Run, index: int) -> str:
        head = run.pieces[STRIDE * index]
        return frames.key_of(head) if head else run.name

    def _retry(self) -> None:
        """Write refused events again: the oldest, and more of them once it is taken."""
        patience, ledger = self._patience, self._ledger
        now = self._clock.monotonic()
        if patience.retry_at is not None:
            if now < patience.retry_at:
                return
            patience.retrying()
            if patience.exhausted(now):
                self._give_up()
                return
        if not ledger.refused:
            return
        run = ledger.retry(patience.window or 1, self._fetch)
        if run is not None:
            self.republished += len(run.marks)
            self._cautious.add(run)
            self._write(b"".join(run.pieces))

    def _give_up(self) -> None:
        run, index = next(iter(self._ledger.refused))
        pieces = run.pieces[STRIDE * index : STRIDE * index + 2]
        publish = frames.publish_of(*pieces) if pieces[0] else None
        if publish is None and run.records is not None and self.spool is not None:
            publish = self.spool.fetch(run.records[index])
        if publish is not None:
            shard_id, seq = frames.event_of(publish.properties)
            name, identity = publish.key.decode("utf-8", "replace"), frames.message_id_of(publish.properties)
            report = self._refusal(name, identity, shard_id, seq, "the broker has refused it for too long")
            self._add_first(report)
        self._patience.given_up()
        self._answered(self._ledger.abandon())

    def _add_first(self, publish: Publish) -> None:
        run = Run(Cursor(-1), self._clock.monotonic())
        assert run.cursor is not None
        run.cursor.runs.append(run)
        run.pieces += self._cut(publish)
        run.marks.append(0)
        self._ledger.add(run, sum(map(len, run.pieces)))
        self._ledger.waiting.rotate(1)

    def _fetch(self, number: int) -> tuple[bytes, bytes, bytes] | None:
        publish = self.spool.fetch(number) if self.spool is not None else None
        if publish is None:
            return None
        return self._cut(Publish(publish.key, frames.republished(publish.properties), publish.body))

    def _try_more(self, finished: list[Run]) -> None:
        self._cautious.difference_update(finished)
        if not self._cautious:
            self._patience.accepted()

    def _on_blocked(self, blocked: bool, why: str) -> None:
        if blocked:
            self._flowing = False
            log.warning(
                "the broker asks to stop publishing (%s): events wait",
                why,
                extra={"cluster": self.cluster, "action": "blocked"},
            )
        else:
            log.info("the broker takes events again", extra={"cluster": self.cluster, "action": "unblocked"})
            self._pump()

    # The flow

    def _pump(self) -> None:
        """Write what waits, as far as the broker takes it: the spool first, it is older than what waits in memory."""
        ledger, connection, spool = self._ledger, self._connection, self.spool
        if connection is None or not self.connected or connection.blocked:
            return
        if ledger.refused:
            if not self._cautious:
                self._retry()
            return
        window = self._patience.window
        while connection.writable:
            if window is not None and self._cautious:
                return
            if spool is not None and spool.unread:
                if not self._read_back(spool, window):
                    return
                continue
            if not ledger.waiting:
                self._flowing = window is None
                return
            runs = ledger.take(_CHUNK if window is None else 1)
            if window is not None:
                self._cautious.update(runs)
            self._write(b"".join([b"".join(run.pieces) for run in runs]))

    def _read_back(self, spool: Spool, window: int | None) -> bool:
        """Write some of the spool; false when its window is full or there was nothing."""
        ledger = self._ledger
        room = self.limits.drain_window - ledger.window_events
        if room <= 0 or ledger.window_bytes >= _WINDOW_BYTES:
            return False
        found = spool.read(room if window is None else min(room, window), _CHUNK)
        if not found:
            return not spool.unread
        run = Run(None, self._clock.monotonic())
        run.records = []
        for number, publish in found:
            suspect = number in ledger.suspect
            if suspect:
                ledger.suspect.discard(number)
                publish = Publish(publish.key, frames.republished(publish.properties), publish.body)
            shard_id, _ = frames.event_of(publish.properties)
            run.pieces += self._cut(self._smaller(publish))
            run.marks.append(-1 if shard_id is None else shard_id)
            run.records.append(number)
        data = b"".join(run.pieces)
        ledger.read_back(run, len(data))
        if window is not None:
            self._cautious.add(run)
        self._write(data)
        return True

    def _to_spool(self) -> None:
        """Put everything unconfirmed that only memory has into the spool, oldest first."""
        spool, ledger = self.spool, self._ledger
        if spool is None:
            return
        written = [run for run in ledger.sent if run.left and run.records is None and run.origins is None]
        try:
            # Only what has been written already lies behind the reader; it can be there only while the reader is at the end.
            for runs, pass_over in ((written, True), (list(ledger.waiting), False)):
                self._spool_runs(spool, runs, pass_over)
        except SpoolFull as full:
            if self._spool_trouble != str(full):
                self._spool_trouble = str(full)
                log.error(
                    "%s: events stay in memory", full, extra={"cluster": self.cluster, "action": "spool_full"}
                )
        else:
            self._spool_trouble = ""
        if ledger.moved:
            ledger.moved = False
            self._observer.on_settled()
        if spool.unread:
            self._flowing = False
        if self._draining is not None and not ledger.events and not self._draining.done():
            self._draining.set_result(None)

    def _spool_runs(self, spool: Spool, runs: list[Run], pass_over: bool) -> None:
        ledger = self._ledger
        at = 0
        while at < len(runs):
            batch: list[Run] = []
            messages: list[Publish] = []
            size = 0
            while at < len(runs) and size < _CHUNK:
                run = runs[at]
                size += run.bytes
                messages += [frames.publish_of(head, body) for head, body in ledger.pieces_left(run)]
                batch.append(run)
                at += 1
            first = spool.append(messages)
            if pass_over:
                spool.pass_over()
            for run in batch:
                name = frames.key_of(ledger.pieces_left(run)[0][0])
                left = run.left
                ledger.spooled(run, first, name)
                first += left
                if run.told is not None:
                    told, run.told = run.told, None
                    told()

    def _full(self) -> None:
        """A bound is reached."""
        self._to_spool()
        limits, ledger = self.limits, self._ledger
        if (ledger.events >= limits.events or ledger.bytes >= limits.bytes) and not self.paused:
            self.paused = True
            self._observer.on_pause()
        self._pump()

    def _room_again(self) -> None:
        limits, ledger = self.limits, self._ledger
        share = limits.resume_below
        if self.paused and ledger.events < limits.events * share and ledger.bytes < limits.bytes * share:
            self.paused = False
            self._observer.on_resume()

    def _tick(self) -> None:
        """What no event announces."""
        ledger = self._ledger
        now = self._clock.monotonic()
        if self.spool is not None and ledger.events:
            oldest = self._oldest_in_memory()
            waited = oldest is not None and now - oldest >= self.limits.spool_after
            if waited or (self._draining is not None and not self._flowing):
                self._to_spool()
        if self.connected and now - self._probes_begin >= self.limits.mandatory_every:
            self._probe_again()
        if not self._flowing or ledger.waiting:
            self._pump()
        if self.paused:
            self._room_again()
        self._say_stalled()

    def _oldest_in_memory(self) -> float | None:
        for runs in (self._ledger.sent, self._ledger.waiting):
            for run in runs:
                if run.left and run.records is None and run.origins is None:
                    return run.at
        return None

    def _say_stalled(self) -> None:
        found = self.oldest() if self.connected and not self.blocked and not self._ledger.refused else None
        stalled = found is not None and found[0] >= self.limits.stalled_after
        if stalled and not self._said_stalled:
            assert found is not None
            log.warning(
                "the broker has not confirmed a %s for %.0f s: a queue bound to it does not answer",
                found[1],
                found[0],
                extra={"cluster": self.cluster, "action": "stalled"},
            )
        self._said_stalled = stalled

    # Life

    async def run(self) -> None:
        """Connect, publish, reconnect, until :meth:`stop`. Cancelling ends it as well."""
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                ticking = tasks.create_task(self._tick_often())
                serving = tasks.create_task(self._connect_always())
                await self._stopping.wait()
                ticking.cancel()
                serving.cancel()
        finally:
            self.connected = self._flowing = False
            self.flush()
            self._to_spool()

    def stop(self) -> None:
        """End :meth:`run`. What is unconfirmed then is in the spool if there is one, else it is for Discord to send again."""
        if self._stopping is not None:
            self._stopping.set()

    async def drain(self, timeout: float) -> int:
        """Wait until everything is confirmed, or in the spool, or ``timeout`` seconds are over; how many events are neither."""
        self.flush()
        self._draining = asyncio.get_running_loop().create_future()
        if self.spool is not None and not self._flowing:
            self._to_spool()
        try:
            if self._ledger.events:
                async with asyncio.timeout(timeout):
                    await self._draining
        except TimeoutError:
            self._to_spool()
        finally:
            self._draining = None
        return self._ledger.events

    async def _tick_often(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._tick()

    async def _connect_always(self) -> None:
        said = ""
        delay = 0.0
        while True:
            if delay:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            try:
                connection = await connect(self.address, name=f"rateway: events of {self.exchange}")
            except BrokerUnavailable as error:
                if not said:
                    said = "away"
                    self._down(str(error))
                delay = min(max(delay * 2, _RECONNECT_FIRST), _RECONNECT_MOST)
                continue
            except BrokerRefused as error:
                if said != str(error):
                    said = str(error)
                    self._down(said)
                delay = _REFUSED_DELAY
                continue
            began = self._clock.monotonic()
            try:
                why = await self._serve(connection)
            finally:
                self._connection = None
                self._flowing = self.connected = False
                connection.on_writable = _nothing
                await connection.close()
            self._forget_channel()
            said = "away"
            self._down(why)
            # A connection that breaks as soon as it is up is not dialled in a circle.
            short = self._clock.monotonic() - began < _RECONNECT_MOST
            delay = min(max(delay * 2, _RECONNECT_FIRST), _RECONNECT_MOST) if short else 0.0

    def _down(self, why: str) -> None:
        log.warning(
            "no connection to publish on: %s; trying again until it is back, events wait",
            why,
            extra={"cluster": self.cluster, "action": "broker_lost"},
        )
        self._observer.on_state(False, why)

    async def _serve(self, connection: Connection) -> str:
        """One connection's life; why it ended."""
        self._connection = connection
        self.body_max = None
        self._use_frames_of(connection.frame_max)
        connection.on_blocked = self._on_blocked
        connection.on_writable = self._pump
        repeats = Repeats()
        while True:
            try:
                channel = await self._open_channel(connection)
            except ConnectionLost as lost:
                return str(lost)
            except ChannelClosed as closed:
                delay = self._closed(closed, repeats)
            else:
                log.info(
                    "publishing to %s (%s)",
                    self.exchange,
                    connection.server,
                    extra={"cluster": self.cluster, "action": "broker_up"},
                )
                self.connected = True
                self._observer.on_state(True, "")
                self._probe_again()
                self._pump()
                reason = await asyncio.shield(channel.closed)
                self.connected = self._flowing = False
                if isinstance(reason, ConnectionLost):
                    return str(reason)
                self._forget_channel()
                delay = self._closed(reason, repeats)
            if delay:
                await asyncio.wait([connection.closed], timeout=delay)

    async def _open_channel(self, connection: Connection) -> Channel:
        channel = await connection.channel(frames.CHANNEL)
        await channel.call(
            spec.Exchange.Declare(0, self.exchange, "direct", durable=True), spec.Exchange.DeclareOk
        )
        await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
        channel.on_acks = self._on_acks
        channel.on_nack = self._on_nack
        channel.on_return = self._on_return
        return channel

    def _closed(self, closed: ChannelClosed, repeats: Repeats) -> float:
        """The broker has closed the channel. Seconds to wait before the next one."""
        self._observer.on_state(False, str(closed))
        if closed.code == _PRECONDITION_FAILED and "message size" in closed.text:
            self._learn_limit(closed.text)
        delay = repeats.happened((closed.code, re.sub(r"\d+", "", closed.text)))
        if repeats.count == 1 or repeats.loud:
            log.log(
                logging.ERROR if repeats.loud else logging.WARNING,
                "the broker closed the channel of %s: %s%s",
                self.exchange,
                self._explained(closed),
                f" (for the {repeats.count}. time in a row; trying again)" if repeats.loud else "",
                extra={"cluster": self.cluster, "action": "channel_closed"},
            )
        return delay

    def _explained(self, closed: ChannelClosed) -> str:
        if closed.code == _PRECONDITION_FAILED and "inequivalent" in closed.text:
            return f"{closed}. {self.exchange} must be a durable direct exchange: delete the other one"
        if closed.code == _NOT_FOUND:
            return f"{closed}. It is declared again; workers' bindings went with it, events are lost on them until they bind again"
        return str(closed)

    def _learn_limit(self, text: str) -> None:
        found = _TOO_LARGE.search(text)
        if found is not None:
            self.body_max = int(found[2])
        else:
            runs = [run for run in self._ledger.waiting if run.left]
            sizes = [frames.size_of(head) for run in runs for head in run.pieces[::STRIDE] if head]
            self.body_max = max(sizes, default=1) - 1
        for stream in self._streams:
            stream.forget()
        self._cut_out()

    def _forget_channel(self) -> None:
        # Runs that are still filled must not be sorted into what was written.
        self.flush()
        self._cautious.clear()
        self._patience.reset()
        self.republished += self._ledger.lost(frames.remark)
        self._returned.clear()
        self._asking.clear()
        if self.spool is not None:
            self.spool.rewind()

    def _use_frames_of(self, frame_max: int) -> None:
        """Another broker may take smaller frames: what waits is cut anew."""
        smaller = frame_max < self.frame_max
        self.frame_max = frame_max
        for stream in self._streams:
            stream.forget()
        if smaller:
            for run in self._ledger.waiting:
                for index in range(len(run.marks)):
                    head, body = run.pieces[STRIDE * index : STRIDE * index + 2]
                    if len(body) > frame_max - 8:
                        self._ledger.replace(run, index, self._cut(frames.publish_of(head, body)))


def _report_id(prefix: str, message_id: str | None) -> str | None:
    return None if message_id is None else f"{prefix}:{message_id}"


def _nothing() -> None:
    return None
