"""Delivery in memory: the second form of the port, so that the port is one. Nobody needs a broker for it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from rateway.delivery.message import Publish
from rateway.delivery.port import Clock, Headers, Message, SinkObserver, Spooled
from rateway.native.fast_path import PublishState
from rateway.native.ledger import Batch, Cursor, Run, Unconfirmed
from rateway_protocol.contract import messages
from rateway_protocol.contract.topology import event_key_fault


@dataclass(frozen=True, slots=True)
class Taken:
    """One message as a reader of the cluster's events sees it."""

    key: str
    body: bytes
    message_id: str | None
    headers: Mapping[str, object]


class MemoryStream:
    """One shard's events."""

    def __init__(self, sink: MemorySink, shard_id: int, shard_count: int) -> None:
        # Without templates: the fast path leaves each event to ``publish``.
        self.publish_state = PublishState(Cursor(shard_id), Batch(sink.refuse_run))
        self._sink = sink
        self._own: dict[str, object] = {"shard_id": shard_id, "shard_count": shard_count}
        self._shard_id = shard_id
        self._session: str | None = None
        self._cursor = Cursor(shard_id)

    @property
    def settled(self) -> int:
        return self._cursor.settled

    @property
    def received(self) -> int:
        return self._cursor.runs[-1].marks[-1] if self._cursor.runs else self._cursor.settled

    @property
    def position(self) -> Cursor:
        return self._cursor

    def begin(self, session_id: str) -> None:
        self.restore(session_id, 0)

    def restore(self, session_id: str, settled: int) -> None:
        self._session = session_id
        self._cursor = Cursor(self._shard_id, settled)

    def publish(
        self,
        name: str,
        body: bytes | msgspec.Raw,
        seq: int | None,
        replayed: bool,
        repeat: int = 0,
        cause: str | None = None,
    ) -> None:
        fault = event_key_fault(name)
        if fault:
            self.pass_over(name, seq, fault)
            return
        headers = dict(self._own)
        if replayed:
            headers["replayed"] = True
        if cause is not None:
            headers["cause"] = cause
        if seq is not None and self._session is not None:
            headers["seq"] = seq
        message_id = self.message_id(seq)
        if message_id is not None and repeat:
            message_id = f"{message_id}:r{repeat}"
        self._put(Taken(name, bytes(body), message_id, headers), seq)

    def message_id(self, seq: int | None) -> str | None:
        return None if self._session is None or seq is None else f"{self._session}:{self._shard_id}:{seq}"

    def skip(self, seq: int) -> None:
        self._cursor.skip(seq)

    def pass_over(self, name: str, seq: int | None, why: str) -> None:
        message_id = self.message_id(seq)
        known = None if message_id is None else seq
        report = messages.Unreadable(shard=self._shard_id, seq=known, event=name or None, reason=why)
        identity = None if message_id is None else f"unreadable:{message_id}"
        self._put(Taken(report.key, messages.encode(report), identity, {}), seq)

    def _put(self, taken: Taken, seq: int | None) -> None:
        mark = self.received if seq is None else max(seq, self.received)
        self._cursor.runs.append(self._sink.put(taken, self._cursor, mark))


class MemorySink:
    """A cluster's events, taken by nobody while it is down, and confirmed as soon as they are taken."""

    def __init__(self, *, clock: Clock, most: int, observer: SinkObserver) -> None:
        self.before_write: Callable[[int], None] | None = None
        self.woken_at = 0.0
        self.exchange = "memory-1"
        self.paused = False
        self.connected = False
        self.is_held = False
        self.refusals = self.republished = self.bytes_out = 0
        self.taken: list[Taken] = []
        self._clock = clock
        self._most = most
        self._observer = observer
        self._ledger = Unconfirmed()
        self._open: list[Run] = []
        self._scheduled = False
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    spool: Spooled | None = None
    blocked = False
    address, server, nodes, held_up = "memory", "memory", 1, 0.0

    @property
    def routed(self) -> set[str]:
        return {each.key for each in self.taken}

    @property
    def unrouted(self) -> set[str]:
        return set()

    @property
    def unrouted_events(self) -> Counter[str]:
        return Counter()

    @property
    def published(self) -> int:
        return self._ledger.added

    @property
    def confirmed(self) -> int:
        return self._ledger.confirmed

    @property
    def unconfirmed(self) -> int:
        return self._ledger.events

    @property
    def unconfirmed_bytes(self) -> int:
        return self._ledger.bytes

    @property
    def is_writing(self) -> bool:
        return self._scheduled

    def oldest(self) -> tuple[float, str] | None:
        for run in self._ledger.waiting:
            return self._clock.monotonic() - run.at, run.pieces[0].key
        return None

    def latencies(self) -> list[tuple[float, int]]:
        return [(float("inf"), self.confirmed)]

    def writings(self) -> list[tuple[float, int]]:
        return [(float("inf"), self.confirmed)]

    def stream(self, shard_id: int, shard_count: int) -> MemoryStream:
        return MemoryStream(self, shard_id, shard_count)

    def refuse_run(self) -> None:
        raise AssertionError("no template was prepared")

    def put(self, taken: Taken, cursor: Cursor, mark: int, told: Callable[[], None] | None = None) -> Run:
        """One message of this wake-up; its run, which the caller's cursor holds."""
        if not self._scheduled:
            self._scheduled = True
            self.woken_at = self._clock.monotonic()
            asyncio.get_running_loop().call_soon(self.flush)
        run = Run(cursor, self.woken_at)
        run.pieces += [taken, taken.body, b""]
        run.marks.append(mark)
        run.told = told
        self._open.append(run)
        return run

    event_log = None
    ahead = flying = 0

    def hold(self, held: bool) -> None:
        self.is_held = held
        self._move()

    def leave_behind(self) -> list[Publish]:
        self.flush()
        left = [Publish(run.pieces[0].key.encode(), b"", run.pieces[1]) for run in self._ledger.waiting]
        self._ledger.take_all()
        self._move()
        return left

    def publish_again(self, publishes: Sequence[Publish], on_confirmed: Callable[[], None]) -> None:
        for publish in publishes:
            told = on_confirmed if publish is publishes[-1] else None
            late = Taken(publish.key.decode(), publish.body, None, {"republished": True})
            cursor = Cursor(-1)
            cursor.runs.append(self.put(late, cursor, 0, told))

    def begin_log(self) -> None:
        """There is none to begin."""

    def publish_own(
        self,
        key: str,
        body: bytes,
        message_id: str | None = None,
        headers: Mapping[str, str | int | bool] | None = None,
        on_confirmed: Callable[[], None] | None = None,
    ) -> None:
        cursor = Cursor(-1)
        cursor.runs.append(self.put(Taken(key, body, message_id, headers or {}), cursor, 0, on_confirmed))

    def flush(self) -> None:
        self._scheduled = False
        if not self._open:
            return
        if self.before_write is not None:
            self.before_write(len(self._open))
        opened, self._open = self._open, []
        for run in opened:
            self._ledger.add(run, len(run.pieces[1]))
        self._move()

    def set_up(self, up: bool) -> None:
        """Whether events are taken from now on."""
        self.connected = up
        self._observer.on_state(up, "" if up else "switched off")
        self._move()

    def _move(self) -> None:
        ledger = self._ledger
        if self.connected and not self.is_held:
            taken = ledger.take(1 << 60)
            self.taken += [run.pieces[0] for run in taken]
            self.bytes_out += sum(run.bytes for run in taken)
            for run in ledger.acknowledge([(0, 1)] if taken else []):
                if run.told is not None:
                    run.told()
            if ledger.moved:
                ledger.moved = False
                self._observer.on_settled()
        full = ledger.events >= self._most
        if full is not self.paused:
            self.paused = full
            (self._observer.on_pause if full else self._observer.on_resume)()
        self._changed.set()

    def spool_now(self) -> None:
        self.flush()

    async def run(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()

    async def drain(self, timeout: float) -> int:
        self.flush()
        try:
            async with asyncio.timeout(timeout):
                while self._ledger.events:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._ledger.events


@dataclass(eq=False)
class MemoryLink:
    is_open: bool = True


@dataclass
class MemoryRequests:
    """A cluster's requests: what is not acknowledged when the connection ends is delivered anew on the next."""

    on_message: Callable[[Message], None]
    consumer_timeout: float | None = None
    writable: bool = True
    answers: list[tuple[str, str | None, bytes, dict[str, object]]] = field(default_factory=list)
    """Where to, the correlation id, the body, the headers."""
    _waiting: dict[int, Message] = field(default_factory=dict)
    _connection: MemoryLink = field(default_factory=MemoryLink)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def deliver(
        self, body: bytes, *, key: str = "cache", reply_to: bytes = b"answers", correlation_id: bytes = b"1"
    ) -> None:
        self._deliver(
            Message(
                next(self._numbers), key, body, b"", reply_to, correlation_id, None, False, self._connection
            )
        )

    def _deliver(self, message: Message) -> None:
        self._waiting[message.receipt] = message
        self.on_message(message)

    def lose(self) -> None:
        """The connection ends, and another one begins."""
        self._connection.is_open = False
        self._connection = MemoryLink()
        waiting, self._waiting = self._waiting, {}
        for message in waiting.values():
            self._deliver(
                msgspec.structs.replace(
                    message, receipt=next(self._numbers), redelivered=True, origin=self._connection
                )
            )

    @property
    def unacknowledged(self) -> int:
        return len(self._waiting)

    def acknowledge(self, message: Message) -> None:
        if message.origin is self._connection:
            self._waiting.pop(message.receipt, None)

    def answer(self, message: Message, body: bytes, headers: Headers) -> None:
        assert message.reply_to is not None
        self.publish(message, "", message.reply_to.decode(), body, headers)

    def publish(self, message: Message, exchange: str, key: str, body: bytes, headers: Headers) -> None:
        if message.origin is self._connection:
            known = None if message.correlation_id is None else message.correlation_id.decode()
            self.answers.append((key, known, body, dict(headers)))

    def forward(self, message: Message, exchange: str, headers: bytes) -> bool:
        if message.origin is self._connection:
            self.answers.append((message.key, None, message.body, {"exchange": exchange}))
            self.acknowledge(message)
        return True
