"""One cluster's events into its exchange, each kept until the broker has confirmed it.

What is published in one wake-up of the loop goes out in one write at its end. What is unconfirmed is in the
ledger (``native/ledger/``), older events before newer ones: first what the spool still has to hand out,
then what waits in memory. Everything that stops the flow (no connection, a blocked one, a refusal, a full
socket) only lets events wait there; what has waited for long, or is too much, goes to the spool; without one,
reading pauses. What all clusters of a process hold is counted against its headroom (``runtime/runner/read_gate.py``).
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rateway.delivery.limits import HELD_UP_S, DeliveryLimits
from rateway.delivery.message import Publish
from rateway.delivery.patience import Patience
from rateway.delivery.port import Clock, SinkObserver
from rateway.histogram import Histogram
from rateway.native.ledger import STRIDE, Batch, Cursor, Headroom, Run, Unconfirmed, times_of
from rateway.transports.amqp.events.drain_window import DrainWindow
from rateway.transports.amqp.events.line import keep_line
from rateway.transports.amqp.events.listeners import Listeners
from rateway.transports.amqp.events.overflow import Overflow
from rateway.transports.amqp.events.stream import ShardStream
from rateway.transports.amqp.events.substitutes import Substitutes
from rateway.transports.amqp.events.urgent_line import UrgentLine
from rateway.transports.amqp.log.log_keeper import LogKeeper
from rateway.transports.amqp.wire import frames
from rateway.transports.amqp.wire.channel import Acks, Channel
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Properties
from rateway.transports.amqp.wire.uri import AddressSource
from rateway.transports.spool import Spool

__all__ = ["EventPublisher", "ShardStream"]

log = logging.getLogger(__name__)

# RabbitMQ's default; what the broker negotiates takes its place.
_FRAME_MAX: Final = 131_072
# Bytes per write while there is more than one wake-up's worth to send.
_CHUNK: Final = 512 * 1024
# From so many bytes on the parts of a write are not joined: to copy them costs more than the system call with several.
_APART: Final = 64 * 1024
# Bytes put into the spool at once while the loop has other things to do: a tenth of a second's work.
_SPOOL_MOST: Final = 16 * 1024 * 1024
# A broker that takes longer for a confirm is the reason that connections wait, and not this process's work, seconds.
_SLOW_S: Final = 0.5
# Seconds between looks at what no event announces: what waits too long, who listens, whether there is room again.
_TICK: Final = 0.25
# Events looked at for a name that has not been asked about since the channel is new.
_ASK_MOST: Final = 2_000
# Servers that go on refusing on a channel what they would take on another.
_STICKS_TO_REFUSALS: Final = "RabbitMQ 3."
# Upper edges in seconds.
_EDGES_S: Final = tuple(0.00025 * 2**power for power in range(18))
_TOO_LARGE: Final = re.compile(r"message size (\d+).*?(?:max\w*(?: size)?|limit)\D*(\d+)", re.IGNORECASE)


class EventPublisher:
    """Publish the events of one cluster over a connection of its own, which is dialled again whenever it is lost."""

    def __init__(
        self,
        *,
        address: AddressSource,
        exchange: str,
        cluster: int,
        limits: DeliveryLimits,
        persistent: bool,
        spool: Spool | None,
        clock: Clock,
        observer: SinkObserver,
        event_log: LogKeeper | None = None,
        urgent: frozenset[str] = frozenset(),
        spool_settles: bool = True,
        headroom: Headroom | None = None,
    ) -> None:
        """*spool_settles*: whether an event in the spool counts as settled (``native/ledger/``). *headroom*: the
        process's, against which unconfirmed events in memory are counted; None: nothing but *limits* bounds them.
        """
        self.event_log = event_log
        if event_log is not None and spool is not None and spool.events:
            event_log.wanted = True
        self.address_source = address
        self._nodes = 1
        self.exchange = exchange
        self.exchange_name = exchange.encode()
        self.cluster = cluster
        self.limits = limits
        self.persistent = persistent
        self.spool = spool
        self.frame_max = _FRAME_MAX
        self.batch = Batch(self._begin, headroom)
        """What was published in this wake-up."""
        # Called with their number before the events of a wake-up are written: what workers may see must be in the store
        # by then.
        self.before_write: Callable[[int], None] | None = None
        self.refusals = 0
        self.republished = 0
        self.bytes_out = 0
        self.paused = False
        self.connected = False
        self.is_held = False
        """Whether events wait, though the broker may take them."""
        # What :meth:`publish_again` was given last, until it is confirmed.
        self._again: Run | None = None
        self._clock = clock
        self._observer = observer
        self._ledger = Unconfirmed(spool_settles=spool_settles)
        self._urgent = (
            UrgentLine(
                names=urgent,
                exchange=exchange,
                clock=clock,
                event_log=event_log,
                is_sent=self._ledger.is_sent,
                on_taken=self._overtaken,
            )
            if urgent
            else None
        )
        self._patience = Patience(limits.refused_delay, limits.refused_delay_most, limits.refused_patience)
        self._cautious: set[Run] = set()
        # Tries of what was refused, since something was taken; and whether our channel is being replaced for it.
        self._tries = 0
        self._renewing = False
        self._channel: Channel | None = None
        self._drain_window = DrainWindow(limits)
        # Whether more of the spool is read in the event loop's next turn.
        self._pumping_soon = False
        self._streams: list[ShardStream] = []
        self._second = -1
        self._connection: Connection | None = None
        self._flowing = False
        self._asked_at = self._asked_accused_at = 0.0
        self._listeners = Listeners(clock, limits.accusation_lasts, self.batch.asking)
        self._substitutes = Substitutes(
            cluster=cluster, own=self._own, on_oversize=observer.on_oversize, on_refused=observer.on_refused
        )
        self._confirm_times = Histogram(_EDGES_S)
        self._write_times = Histogram(_EDGES_S)
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Future[None] | None = None
        self._overflow = None if spool is None else Overflow(self._ledger, spool, cluster, self._cut_fitting)
        self._said_stalled = False
        self._headroom = headroom
        # Bytes that are counted against it, beside the batch's.
        self._counted = 0
        # Neither the broker nor the spool takes anything: only the limits count, until something is confirmed.
        self._is_stuck = False
        # When the broker last confirmed something, or a channel was opened (monotonic seconds).
        self._moved_at = 0.0

    def __repr__(self) -> str:
        return f"<EventPublisher {self.exchange} {'up' if self.connected else 'down'}, {self.unconfirmed} unconfirmed>"

    # What others read

    @property
    def published(self) -> int:
        """Events that were given to this publisher since the start, messages of the gateway's own included."""
        return self._ledger.added

    @property
    def confirmed(self) -> int:
        """Events that the broker has confirmed since the start, also such as a former process had left in the
        spool.
        """
        return self._ledger.confirmed

    @property
    def is_writing(self) -> bool:
        """Whether something was published in this wake-up, and is about to be written."""
        return bool(self.batch.runs)

    @property
    def woken_at(self) -> float:
        """When this wake-up's first event was published, or the last one's (monotonic seconds)."""
        return self.batch.at

    @property
    def unconfirmed(self) -> int:
        """Events that the broker has not confirmed, in memory and in the spool."""
        return self._ledger.events + (self.spool.events if self.spool is not None else 0)

    @property
    def unconfirmed_bytes(self) -> int:
        """Bytes of unconfirmed events in memory, frames included."""
        return self._ledger.bytes + self._ledger.window_bytes

    @property
    def ahead(self) -> int:
        """Events that were published ahead of those that waited, since the start."""
        return 0 if self._urgent is None else self._urgent.count

    @property
    def blocked(self) -> bool:
        """Whether the broker has asked for a stop of publishing (``connection.blocked``)."""
        return self._connection is not None and self._connection.blocked

    @property
    def address(self) -> str:
        """``host:port`` of the connected node; empty while there is none."""
        return self._connection.address.hosts if self._connection is not None else ""

    @property
    def server(self) -> str:
        """Product and version of that node."""
        return self._connection.server if self._connection is not None else ""

    @property
    def nodes(self) -> int:
        """Hosts that the broker's address names."""
        return self._nodes

    @property
    def held_up(self) -> float:
        """For how many seconds the broker has confirmed nothing at all, though it could and something is written.

        RabbitMQ stops reading from a connection whose events go to a queue that does not take them; a few hundred
        unanswered ones are enough. Events for all other queues wait behind that.
        """
        if not self.connected or self.blocked or self._ledger.refused:
            return 0.0
        oldest = next((run.at for run in self._ledger.sent if run.left), None)
        return 0.0 if oldest is None else self._clock.monotonic() - max(oldest, self._moved_at)

    @property
    def unrouted(self) -> set[str]:
        """Event names that no queue took when last asked about, not longer ago than an accusation lasts."""
        return self._listeners.unrouted

    @property
    def routed(self) -> set[str]:
        """Event names that a queue took at the last question of each."""
        return self._listeners.routed

    @property
    def unrouted_events(self) -> Counter[str]:
        """Publishes that came back, by name. Each stands for all of its name since the last question."""
        return self._listeners.returns

    @property
    def returned(self) -> int:
        """Publishes that came back since the start."""
        return self._listeners.returns.total()

    @property
    def flying(self) -> int:
        """Events that are written, and that the broker has not answered for."""
        return self._ledger.flying

    def oldest(self) -> tuple[float, str] | None:
        """Age in seconds and event name of the oldest event that the broker has not answered for."""
        for runs in (self._ledger.sent, self._ledger.waiting):
            for run in runs:
                if run.left and run.origins is None:
                    head = run.pieces[STRIDE * run.front]
                    return self._clock.monotonic() - run.at, frames.key_of(head) if head else run.name
        return None

    def latencies(self) -> list[tuple[float, int]]:
        """Events by time from :meth:`ShardStream.publish` to confirm:

        (upper edge in seconds, events); the last edge is infinite.
        """
        return self._confirm_times.counts()

    def writings(self) -> list[tuple[float, int]]:
        """As :meth:`latencies`, to the write of an event that found the broker ready for it."""
        return self._write_times.counts()

    # Publishing

    def stream(self, shard_id: int, shard_count: int) -> ShardStream:
        """Return the stream of one shard."""
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

        ``on_confirmed`` is called once the broker has it, or the spool. :class:`ValueError` when ``key`` or
        ``message_id`` are over 255 bytes.
        """
        # Before anything is begun for it: it may be refused.
        pieces = frames.pieces(self.exchange_name, self._own(key, body, message_id, headers), self.frame_max)
        # In order with all that was published before it: those runs end here.
        self.batch.end()
        run = self.batch.open(Cursor(-1))
        run.told = on_confirmed
        run.pieces += pieces
        run.marks.append(0)

    def _own(
        self, key: str, body: bytes, message_id: str | None, headers: Mapping[str, str | int | bool] | None
    ) -> Publish:
        name = key.encode()
        second = int(self._clock.time())
        return Publish(
            name, frames.own_properties(name, headers or {}, message_id, second, self.persistent), body
        )

    def _begin(self) -> None:
        """The first event of a wake-up: the clocks are read for all of its events, and its end is planned."""
        self.batch.at = self._clock.monotonic()
        second = int(self._clock.time())
        if second != self._second:
            self._second, self.batch.stamp = second, struct.pack(">Q", second)
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what has been published since the last flush. Scheduled by itself at the end of each wake-up."""
        batch, ledger = self.batch, self._ledger
        if not batch.runs:
            return
        events = batch.events()
        if self.before_write is not None:
            self.before_write(events)
        read = batch.bytes
        runs = batch.take()
        if self._flowing and not ledger.waiting:
            self._write(ledger.add_written(runs))
            self._write_times.add(self._clock.monotonic() - batch.at, events)
        else:
            for run in runs:
                ledger.add(run, sum(map(len, run.pieces)))
            self._pump()
        if self._urgent is not None and self._urgent.is_due:
            self._urgent.hurry()
        self._count_held(read)
        limits = self.limits
        if ledger.events >= limits.events or ledger.bytes >= limits.bytes or self._must_make_room():
            self._full()

    def _count_held(self, read: int = 0) -> None:
        """Count what is unconfirmed against the process's headroom, in place of *read* bytes of the batch."""
        if self._headroom is not None:
            held = 0 if self._is_stuck else self._ledger.bytes
            freed, self._counted = read + self._counted - held, held
            self._headroom.give(freed)

    def _must_make_room(self) -> bool:
        """Whether connections wait to be read for what this cluster holds, and the broker will not change that soon."""
        headroom = self._headroom
        if headroom is None or not headroom.is_waited_for or not self._counted:
            return False
        if not self.connected or self.blocked or (self._overflow is not None and self._overflow.unread):
            # What waits behind the spool waits until that is written.
            return True
        oldest = self._oldest_in_memory()
        patience = _SLOW_S if headroom.is_overdue else self.limits.spool_after
        return oldest is not None and self._clock.monotonic() - oldest >= patience

    def _write(self, parts: list[bytes]) -> None:
        connection = self._connection
        assert connection is not None
        if self.event_log is not None and self.event_log.unbound:
            # On the channel of the events, so in front of them.
            connection.write(self.event_log.bindings())
        size = sum(map(len, parts))
        self.bytes_out += size
        if size >= _APART:
            connection.write_parts(parts)
        else:
            connection.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if not connection.writable:
            self._flowing = False

    def _write_run(self, run: Run) -> None:
        self._write([b"".join(run.pieces)])

    # What a stream needs (see :class:`rateway.transports.amqp.events.stream.Hub`)

    @property
    def body_max(self) -> int | None:
        """The largest body that the broker takes, in bytes, once it has refused one."""
        return self._substitutes.body_max

    def probe(self, name: str, run: Run, size: int) -> bool:
        """Return whether a publish of ``name`` is to be mandatory. Called for the first event of a name at least."""
        if self.event_log is not None:
            self.event_log.note(name.encode())
        return self._listeners.ask(name, run, size)

    def is_urgent(self, name: str) -> bool:
        """Return whether events of that name are published ahead of what waits."""
        return self._urgent is not None and name in self._urgent.names

    def hurry(self, run: Run, publish: Publish) -> None:
        """Publish an urgent event, whose run holds nothing else, ahead of what waits."""
        if self._urgent is not None:
            self._urgent.note(run, publish)

    def oversize(
        self, name: str, message_id: str | None, shard_id: int | None, seq: int | None, body: bytes
    ) -> Publish:
        """Return what is published in place of an event that the broker does not take."""
        return self._substitutes.oversize(name, message_id, shard_id, seq, body)

    def unreadable(
        self, name: str, message_id: str | None, shard_id: int, seq: int | None, why: str
    ) -> Publish:
        """Return what is published in place of a dispatch that cannot be forwarded."""
        return self._substitutes.unreadable(name, message_id, shard_id, seq, why)

    # In a fleet

    def hold(self, held: bool) -> None:
        """Let events wait from now on, or let them go again."""
        if held is self.is_held:
            return
        self.is_held = held
        if self._urgent is not None:
            self._urgent.is_held = held
        if held:
            self._flowing = False
        else:
            self._pump()

    def leave_behind(self) -> list[Publish]:
        """Forget what is unconfirmed, so that it is not published, and all that waits for its confirm. Everything is in
        the spool then but for what that does not take, which is returned, oldest first. What :meth:`publish_again` was
        given is forgotten.
        """
        self.flush()
        if self._again is not None:
            self._ledger.forget_run(self._again)
            self._again = None
        self._to_spool()
        left = [frames.publish_of(head, body) for head, body in self._ledger.take_all()]
        self._cautious.clear()
        if self._overflow is not None:
            self._overflow.forget()
        self._count_held()
        if self.paused:
            self._room_again()
        return left

    def publish_again(self, publishes: Sequence[Publish], on_confirmed: Callable[[], None]) -> None:
        """Publish messages that an earlier process or tenure has kept, marked as late; one call at a time.

        ``on_confirmed`` is called once the broker has them all.
        """

        def told() -> None:
            self._again = None
            on_confirmed()

        run = Run(Cursor(-1), self._clock.monotonic())
        assert run.cursor is not None
        run.cursor.runs.append(run)
        for publish in publishes:
            late = Publish(publish.key, frames.republished(publish.properties), publish.body)
            run.pieces += self._cut_fitting(late)
            run.marks.append(0)
        run.told = told
        self._again = run
        self._ledger.add(run, sum(map(len, run.pieces)))
        self._pump()

    # What the broker says

    def _on_acks(self, acks: Acks) -> None:
        ledger = self._ledger
        self._answered(ledger.acknowledge(acks))

    def _answered(self, finished: list[Run]) -> None:
        ledger = self._ledger
        if finished:
            self._is_stuck = False
            now = self._moved_at = self._clock.monotonic()
            for at, events in times_of(finished):
                self._confirm_times.add(now - at, events)
            if self._cautious:
                self._try_more(finished)
        while ledger.awaited:
            awaited, ledger.awaited = ledger.awaited, []
            for run in awaited:
                if run.probes is not None:
                    self._listeners.confirmed(run.probes)
                if run.told is not None:
                    run.told()
        if ledger.dropped:
            assert self._overflow is not None
            self._overflow.confirmed(ledger.dropped)
            ledger.dropped = []
        if ledger.moved:
            ledger.moved = False
            self._observer.on_settled()
        if not self._flowing or ledger.waiting:
            self._pump()
        if self.paused:
            self._room_again()
        self._count_held()
        if self._draining is not None and not ledger.events and not self._draining.done():
            self._draining.set_result(None)

    def _overtaken(self, run: Run) -> None:
        """An urgent event was confirmed ahead of its place."""
        # It was not asked whether a queue is bound, and nothing is known of the connection that the others wait for.
        run.probes = None
        moved_at = self._moved_at
        self._answered(self._ledger.overtake(run))
        self._moved_at = moved_at

    def _on_nack(self, tag: int, multiple: bool) -> None:
        count = self._ledger.refuse(tag, multiple, frames.remark)
        if not count:
            return
        self.refusals += count
        first = self._patience.window is None
        self._patience.refused(self._clock.monotonic())
        self._flowing = False
        self._cautious.clear()
        if first:
            oldest = next(iter(self._ledger.refused))
            log.warning(
                "the broker refuses events (basic.nack), %s first: is a queue full that rejects? What follows waits",
                self._name_of(*oldest),
                extra={"cluster": self.cluster, "action": "nacked"},
            )
        if self._patience.retry_at is not None and self._loop is not None:
            self._loop.call_at(
                self._loop.time() + self._patience.retry_at - self._clock.monotonic(), self._pump
            )

    def _name_of(self, run: Run, index: int) -> str:
        head = run.pieces[STRIDE * index] if run.left else None
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
            self._tries += 1
            if self._tries > 1 and self._renew_channel():
                return
        if not ledger.refused:
            return
        run = ledger.retry(patience.window or 1, self._fetch)
        if run is not None:
            self.republished += len(run.marks)
            self._cautious.add(run)
            self._write_run(run)

    def _renew_channel(self) -> bool:
        """Try what is refused on a new channel, if nothing else is unanswered on this one.

        RabbitMQ 3.10 refuses every event of a channel whose first one met a quorum queue without a leader, also when
        the queue has long had a new one. A fail-over to another node meets just that moment. 4.0 does not.
        """
        channel, ledger = self._channel, self._ledger
        if channel is None or not self.server.startswith(_STICKS_TO_REFUSALS):
            return False
        if sum(run.left for run in ledger.sent) > len(ledger.refused):
            return False
        self._renewing = True
        self._stop_flow()
        channel.close()
        return True

    def _give_up(self) -> None:
        run, index = next(iter(self._ledger.refused))
        # Without a head it is answered for: its urgent copy was taken meanwhile.
        pieces = run.pieces[STRIDE * index : STRIDE * index + 2] if run.left else [None]
        publish = None
        if pieces[0]:
            publish = frames.publish_of(*pieces)
        elif pieces[0] is not None and run.records is not None and self._overflow is not None:
            publish = self._overflow.fetch(run.records[index])
        if publish is not None:
            self._add_first(self._substitutes.given_up(publish))
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
        publish = self._overflow.fetch(number) if self._overflow is not None else None
        return None if publish is None else self._cut(publish)

    def _try_more(self, finished: list[Run]) -> None:
        self._cautious.difference_update(finished)
        if not self._cautious:
            self._patience.accepted()
            self._tries = 0

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
        ledger, connection, overflow = self._ledger, self._connection, self._overflow
        if connection is None or not self.connected or connection.blocked or self.is_held:
            return
        if ledger.refused:
            if not self._cautious:
                self._retry()
            return
        window = self._patience.window
        while connection.writable:
            if window is not None and self._cautious:
                return
            if overflow is not None and overflow.unread:
                if not self._read_back(overflow, window) and overflow.unread:
                    return
                if overflow.unread:
                    # Milliseconds' work. What came meanwhile is not to wait for all of what the broker takes.
                    self._pump_soon()
                    return
                continue
            if self._urgent is not None and ledger.window_events:
                # What is written now arrives behind all of that; an urgent event that waits here still overtakes it.
                return
            if not ledger.waiting:
                self._flowing = window is None
                return
            runs = ledger.take(_CHUNK if window is None else 1)
            if window is not None:
                self._cautious.update(runs)
            self._write([b"".join(run.pieces) for run in runs])

    def _pump_soon(self) -> None:
        """Go on in the event loop's next turn."""
        if self._loop is not None and not self._pumping_soon:
            self._pumping_soon = True
            self._loop.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._pumping_soon = False
        self._pump()

    def _read_back(self, overflow: Overflow, window: int | None) -> bool:
        """Write some of the spool; false when its window is full."""
        most = self._drain_window.size
        found = overflow.read_back(most if window is None else min(most, window), self._clock.monotonic())
        if found is None:
            return False
        run, size = found
        self._ledger.read_back(run, size)
        if window is not None:
            self._cautious.add(run)
        self._write_run(run)
        return True

    def _to_spool(self, most: int | None = None) -> None:
        """Put what is unconfirmed and only memory has into the spool, if there is one: about ``most`` bytes, or all."""
        overflow, ledger = self._overflow, self._ledger
        if overflow is None:
            return
        overflow.fill(most)
        self._count_held()
        if overflow.unread:
            self._flowing = False
        if ledger.moved:
            ledger.moved = False
            self._observer.on_settled()
        if self._draining is not None and not ledger.events and not self._draining.done():
            self._draining.set_result(None)

    def _full(self) -> None:
        """A bound is reached."""
        self._to_spool(_SPOOL_MOST)
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
                self._to_spool(_SPOOL_MOST)
        if self._must_make_room():
            held = ledger.bytes
            self._to_spool(_SPOOL_MOST)
            self._is_stuck = ledger.bytes >= held
            self._count_held()
        if self.connected and now - self._asked_at >= self.limits.mandatory_every:
            self._ask_again()
        elif self.connected and now - self._asked_accused_at >= self.limits.accused_every:
            self._ask_about_accused(now)
        self._listeners.acquit()
        if self._urgent is not None:
            self._urgent.hurry()
        is_draining = self.connected and self._overflow is not None and self._overflow.unread > 0
        self._drain_window.look(now, is_draining=is_draining)
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
                "the broker has not confirmed a %s for %.0f s: a queue bound to it does not answer%s. Look for a queue "
                "without its majority, or whose node is silent: rabbitmqctl list_queues name type state",
                found[1],
                found[0],
                ", and all events of this cluster wait behind it" if self.held_up >= HELD_UP_S else "",
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
                serving = tasks.create_task(
                    keep_line(self, self.address_source, self.exchange, self.cluster, self.event_log)
                )
                hurrying = None
                if self._urgent is not None:
                    hurrying = tasks.create_task(
                        keep_line(
                            self._urgent, self.address_source, self.exchange, self.cluster, self._urgent,
                            what="urgent events",
                        )
                    )  # fmt: skip
                await self._stopping.wait()
                for task in (ticking, serving, hurrying):
                    if task is not None:
                        task.cancel()
        finally:
            self.connected = self._flowing = False
            self.flush()
            self._to_spool()
            # What is left here is nobody's to confirm.
            self._is_stuck = True
            self._count_held()

    def spool_now(self) -> None:
        """Put what is unconfirmed and only in memory into the spool at once, as far as it takes it."""
        self.flush()
        self._to_spool()

    def stop(self) -> None:
        """End :meth:`run`.

        What is unconfirmed then is in the spool if there is one, else it is for Discord to send again.
        """
        if self._stopping is not None:
            self._stopping.set()

    async def drain(self, timeout: float) -> int:
        """Wait until everything is confirmed, or in the spool, or ``timeout`` seconds are over;

        How many events are neither.
        """
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

    def _ask_again(self) -> None:
        """Let the next publish of each name ask whether a queue is bound."""
        self._asked_at = self._asked_accused_at = self._clock.monotonic()
        self._listeners.next_round(name for stream in self._streams for name in stream.names)

    def _ask_about_accused(self, now: float) -> None:
        """Let the next publish of each name that came back ask whether a queue is bound by now."""
        self._asked_accused_at = now
        self._listeners.ask_accused()

    async def _tick_often(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._tick()

    # What the line says (see :class:`rateway.transports.amqp.events.line.LineOwner`)

    def line_connected(self, connection: Connection) -> None:
        """See :class:`~rateway.transports.amqp.events.line.LineOwner`."""
        self._connection = connection
        self._nodes = connection.nodes
        self._substitutes.body_max = None
        connection.on_blocked = self._on_blocked
        connection.on_writable = self._pump
        self._use_frames_of(connection.frame_max)

    def line_ready(self, channel: Channel) -> None:
        """See :class:`~rateway.transports.amqp.events.line.LineOwner`."""
        channel.on_acks = self._on_acks
        channel.on_nack = self._on_nack
        channel.on_return = self._on_return
        channel.on_end = self._stop_flow
        self._channel = channel
        if self.event_log is not None and self.event_log.is_due:
            # It was asked for while this channel was opened.
            self.line_outdated()
            return
        self.connected = True
        self._moved_at = self._clock.monotonic()
        self._ask_again()
        self._ask_with_waiting()
        self._pump()

    def _ask_with_waiting(self) -> None:
        """What is written again asks too: an exchange that was deleted has lost its bindings."""
        looked = 0
        for run in self._ledger.waiting:
            for at in range(0, len(run.pieces), STRIDE):
                head = run.pieces[at]
                if self._listeners.ask(frames.key_of(head), run, frames.size_of(head)):
                    run.pieces[at] = frames.mandatory(head)
            looked += len(run.marks)
            if looked >= _ASK_MOST:
                return

    def begin_log(self) -> None:
        """Begin the event log, if one is to be kept: events of this cluster are published from here on."""
        if self.event_log is not None:
            self.event_log.wanted = True
            if self.event_log.is_due:
                self.line_outdated()

    def line_outdated(self) -> None:
        """Close the channel so that another one is opened; nothing is published until then."""
        self._stop_flow()
        if self._channel is not None:
            self._channel.close()

    def _on_return(self, code: int, name: str, size: int, told: Properties) -> None:
        """A publish found no queue. Not even the log: the exchange was deleted and declared again."""
        self._listeners.returned(code, name, size)
        if self.event_log is not None and self.event_log.is_bound(name) and self.connected:
            log.error(
                "%s did not reach the event log: its bindings are gone, and are made again",
                name,
                extra={"cluster": self.cluster, "action": "event_log"},
            )
            self.line_outdated()

    def _stop_flow(self) -> None:
        self.connected = self._flowing = False
        if self.event_log is not None:
            self.event_log.doubt()

    def line_lost(self) -> None:
        """Write what was written and not answered once more on the next channel."""
        self._stop_flow()
        # Runs that are still filled must not be sorted into what was written.
        self.flush()
        self._cautious.clear()
        self._channel = None
        if self._renewing:
            self._patience.renewed()
        else:
            self._patience.reset()
        self._renewing = False
        self.republished += self._ledger.lost(frames.remark)
        self._listeners.forget()
        if self.spool is not None:
            self.spool.rewind()

    def line_disconnected(self) -> None:
        """Forget the connection: nothing can be written."""
        if self._connection is not None:
            self._connection.on_writable = _nothing
        self._connection = None
        self._stop_flow()

    def line_message_too_large(self, text: str) -> None:
        """Read the limit from the broker's text, and replace what is larger among what waits."""
        found = _TOO_LARGE.search(text)
        if found is not None:
            limit = int(found[2])
        else:
            heads = [head for run in self._ledger.waiting for head in run.pieces[::STRIDE]]
            limit = max(map(frames.size_of, heads), default=1) - 1
        self._substitutes.body_max = limit
        for stream in self._streams:
            stream.forget()
        self._recut(limit)

    def line_state(self, up: bool, why: str) -> None:
        """Report a change: whether events are published, and why not, for the log and the status."""
        self._observer.on_state(up, why)

    def _use_frames_of(self, frame_max: int) -> None:
        """Write frames of at most so many bytes: where a broker takes smaller ones, what waits is cut again."""
        smaller = frame_max < self.frame_max
        self.frame_max = frame_max
        for stream in self._streams:
            stream.forget()
        if smaller:
            self._recut(frame_max - 8)

    def _recut(self, above: int) -> None:
        """Cut what waits and has a body of more than so many bytes once more, or replace it."""
        for run in self._ledger.waiting:
            for index in range(len(run.marks)):
                head, body = run.pieces[STRIDE * index : STRIDE * index + 2]
                if frames.size_of(head) > above:
                    self._ledger.replace(run, index, self._cut_fitting(frames.publish_of(head, body)))

    def _cut_fitting(self, publish: Publish) -> tuple[bytes, bytes, bytes]:
        if self.event_log is not None:
            # What the spool has of a former process may be of a name that this one has not seen.
            self.event_log.note(publish.key)
        return self._cut(self._substitutes.fitting(publish))

    def _cut(self, publish: Publish) -> tuple[bytes, bytes, bytes]:
        return frames.pieces(self.exchange_name, publish, self.frame_max)


def _nothing() -> None:
    return None
