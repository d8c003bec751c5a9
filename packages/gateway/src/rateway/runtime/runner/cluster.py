"""One cluster: its shards, its exchange, its store. The unit that is owned, moved and restarted as a whole.

What a shard dispatches goes through :meth:`Cluster.dispatch`: into the store's open transaction, then to the
publisher. Both are closed once per wake-up of the loop, the store first: an event in a worker's hands is already
visible to queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from rateway.config import Settings
from rateway.config.presence import PresenceTemplate
from rateway.delivery.port import EventSink, EventStream, SinkObserver
from rateway.fleet.layout import Layout
from rateway.native.fast_path import EventPipeline
from rateway.runtime.identify.permits import IdentifyPermits
from rateway.runtime.monitoring.loop_lag import Pace
from rateway.runtime.runner.cache_statistics import CacheStatistics
from rateway.runtime.runner.dialer import Dialer
from rateway.runtime.runner.event_tallies import EventTallies
from rateway.runtime.runner.gap_reports import GapReports
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.shard import Shard
from rateway.runtime.runner.unrouted_names import UnroutedNames
from rateway.runtime.runner.wakeup_batching import WakeupBatching
from rateway.session.actions import (
    Command,
    CommandDone,
    Fatal,
    SessionLost,
    SessionStarted,
    State,
    StateChanged,
    StoredSession,
)
from rateway.session.conversation import Conversation
from rateway.session.options import Compression, SessionOptions
from rateway.transports.spool import Spool
from rateway.transports.store import Applied, SessionRecord, Store
from rateway_protocol.contract import messages, topology
from rateway_protocol.discord.envelope import Envelope
from rateway_protocol.discord.opcodes import Opcode

log = logging.getLogger(__name__)

COMPRESSIONS: dict[str, Compression] = {each: each for each in get_args(Compression)}
# A session's settled sequence is on disk at most this long after it changed.
WRITE_EVERY_S = 0.5


class _Payload(msgspec.Struct):
    """A command's payload."""

    d: msgspec.Raw


_payload = msgspec.json.Decoder(_Payload)


@dataclass(frozen=True, slots=True)
class ClusterTools:
    """What all clusters of a process share."""

    settings: Settings
    layout: Layout
    gateway_url: str
    options: SessionOptions
    make_sink: Callable[[int, Spool | None, SinkObserver], EventSink]
    """Makes what takes a cluster's events, given its number, its spool, and whom to tell."""
    dialer: Dialer
    permits: IdentifyPermits
    token_hash: str
    wakeup_batching: WakeupBatching
    on_fatal: Callable[[int, Fatal], None]


class Cluster:
    """Implements shard.ShardOwner and port.SinkObserver."""

    def __init__(
        self,
        number: int,
        tools: ClusterTools,
        store: Store | None,
        store_words: str,
        spool: Spool | None,
        leftover: Sequence[SessionRecord] = (),
        *,
        is_new_here: bool = False,
    ) -> None:
        """``leftover`` are the sessions of a store that cannot be opened for writing just now; ``is_new_here``: this
        state folder has had no store of the cluster before.
        """
        self._is_new_here = is_new_here
        self.number = number
        self.tools = tools
        self.store = store
        self.store_words = store_words
        self.shards: dict[int, Shard] = {}
        self.streams: dict[int, EventStream] = {}
        self.event_pipeline = EventPipeline()
        self.pace = Pace()
        self.tallies = EventTallies(self.event_pipeline)
        self.cache_statistics: CacheStatistics | None = None
        self.on_command_done: Callable[[CommandDone], None] = lambda order: None
        # The worker's: bind the inbound queue to an exchange that may be a new one; a first shard is live; no shard may
        # ever identify here, and why.
        self.on_exchange: Callable[[], Coroutine[Any, Any, None]]
        self.on_live: Callable[[], Coroutine[Any, Any, None]]
        self.on_barred: Callable[[str], None] = lambda why: None
        self._told_live = False
        self._superseded = False
        self._barred: set[int] = set()
        self._cache: Store | None = None
        if store is not None and tools.settings.cache.enabled:
            self._keep_in(store)
        self._session_records = SessionRecords(
            store,
            shard_count=tools.layout.shards,
            intents=tools.settings.session.intents,
            token_hash=tools.token_hash,
            presence_setting=_digest(tools.settings.process.presence),
        )
        self._wakeup_batching = tools.wakeup_batching
        self._leftover = leftover
        self.event_pipeline.publishes = _filter(tools.settings)
        self._settled_moved = asyncio.Event()
        self._write_soon = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._started = False
        self._presence = tools.settings.process.presence
        self._unrouted_names = UnroutedNames()
        self.broker_why = "not connected yet"
        self.publisher = tools.make_sink(number, spool, self)
        self.publisher.before_write = self._end_of_wake_up
        self.gap_reports = GapReports(self._session_records, self.publisher, self._settled_moved.set)
        self._wakeup_batching.watch(lambda: self.publisher.is_writing)
        self._make_shards()

    def _make_shards(self) -> None:
        found = self.store.sessions() if self.store is not None else self._leftover
        records = {record.shard_id: record for record in found}
        for shard_id in self.tools.layout.shards_of(self.number):
            self._make_shard(shard_id, records.pop(shard_id, None))
        for record in records.values():
            if record.session_id:
                self._give_up(record)
        self.gap_reports.set_former(records)

    def _make_shard(self, shard_id: int, record: SessionRecord | None) -> None:
        tools = self.tools
        stream = self.streams.get(shard_id)
        if stream is None:
            stream = self.streams[shard_id] = self.publisher.stream(shard_id, tools.layout.shards)
        if record is not None:
            record = self._session_records.with_presence_that_counts(record)
        session = None
        if record is not None and self._session_records.fits(record):
            session = self._restored(record)
            stream.restore(record.name, record.settled)
            self._session_records.restore(record)
        elif record is not None and record.session_id:
            self._give_up(record)
        elif record is not None:
            self._session_records.restore(record)
        conversation = Conversation(
            shard_id=shard_id,
            shard_count=tools.layout.shards,
            options=tools.options,
            gateway_url=tools.gateway_url,
            session=session,
            chance=random.Random(),
            presence=_presence_in(record),
        )
        self.shards[shard_id] = Shard(
            conversation=conversation,
            shard_id=shard_id,
            stream=stream,
            owner=self,
            dialer=tools.dialer,
            permits=tools.permits,
            clock=asyncio.get_running_loop().time,
            spawn=self._spawn,
        )

    @staticmethod
    def _restored(record: SessionRecord) -> StoredSession:
        begun_with = COMPRESSIONS.get(record.compression)
        return StoredSession(
            record.session_id, record.resume_url, record.settled, begun_with, record.failed_at
        )

    def _give_up(self, record: SessionRecord) -> None:
        """Report a stored session that cannot be resumed with the present settings."""
        if record.token_hash != self.tools.token_hash:
            reason = "the token is another one, or the state folder has lost its salt"
        elif record.intents != self.tools.settings.session.intents:
            reason = "the intents were changed"
        else:
            reason = f"the number of shards changed from {record.shard_count} to {self.tools.layout.shards}"
        self.gap_reports.give_up(record, reason)

    def unknown_guild_events(self, shard_id: int) -> int:
        """Events of a shard that were about guilds which the cache does not know, since this process opened it."""
        known = {} if self._cache is None else self._cache.unknown_guilds
        return known.get(shard_id, 0)

    def is_live(self, shard_id: int) -> bool:
        """Whether a shard's session is live."""
        return self.shards[shard_id].conversation.state is State.LIVE

    @property
    def resumable(self) -> int:
        """Shards that hold a session to resume."""
        return sum(1 for shard in self.shards.values() if shard.conversation.session_id is not None)

    def take_store(self, store: Store) -> None:
        """The store can be opened by now: from here on sessions are written down again, and events kept for queries."""
        self.store, self.store_words = store, "ok"
        if self.tools.settings.cache.enabled:
            self._keep_in(store)
        sessions = {
            number: self._session_records.session(number)
            for number, shard in self.shards.items()
            if shard.conversation.session_id is not None
        }
        store.take_over(sessions)
        self._session_records.take_store(store)
        self._settled_moved.set()

    def _keep_in(self, store: Store) -> None:
        self._cache = store
        self.cache_statistics = CacheStatistics(store)
        self.event_pipeline.apply = store.apply

    # Life.

    async def run(self) -> None:
        """Publish, write sessions down, hold the shards' tasks, until cancelled; shards start with :meth:`start`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.publisher.run(), name=f"publisher {self.number}")
            tasks.create_task(self._write_sessions(), name=f"sessions {self.number}")

    def start(self, *, existed: bool = False) -> None:
        """Connect all shards: those with a session first, they need no permit.

        *existed*: some gateway has run this cluster before. If it was none with this state folder, each new session
        follows a gap.
        """
        if self._started:
            return
        self._started = True
        self._superseded = False
        self.publisher.begin_log()
        if existed and self._is_new_here:
            self.gap_reports.take_over(
                self.shards,
                "another gateway, or one with another state folder, ran this cluster before",
                time.time(),
            )
        self._is_new_here = False
        self.gap_reports.publish_former()
        for shard in sorted(
            self.shards.values(), key=lambda s: (s.conversation.session_id is None, s.shard_id)
        ):
            if self.publisher.paused:
                shard.pause()
            if shard.conversation.session_id is not None:
                self.gap_reports.publish_pending(shard.shard_id)
            shard.start()

    def supersede(self) -> None:
        """Another gateway owns this cluster and has sessions: forget ours, whose events are its by now."""
        if self._superseded or self._started:
            return
        self._superseded = True
        log.warning(
            "another gateway has sessions for this cluster: the %d stored here are forgotten, so that nothing comes a "
            "second time when it leaves; RATEWAY_GAP tells the worker then",
            self.resumable,
            extra={"cluster": self.number, "action": "superseded"},
        )
        self.gap_reports.take_over(self.shards, "another gateway ran this cluster meanwhile", time.time())
        self._leftover = ()
        self._make_shards()

    def barred(self, shard: Shard, why: str) -> None:
        """A shard may never identify here. A cluster of which that is true of every shard, and of which no session is
        left, is for another gateway.
        """
        self._barred.add(shard.shard_id)
        if self._barred.issuperset(self.shards) and not self.resumable:
            asyncio.get_running_loop().call_soon(self.on_barred, why)

    def yield_shards(self) -> None:
        """Another gateway owns this cluster: leave its shards to it; our sessions stay written down."""
        if not self._started:
            return
        self._started = False
        self._told_live = False
        self._barred.clear()
        for shard in self.shards.values():
            shard.stop(end_session=False)
        self._write_now()
        self._make_shards()

    async def stop(self, *, end_sessions: bool, timeout: float) -> int:
        """Close the shards so that they can resume (or end for good), wait for confirms, write all down.

        Returns how many events were neither confirmed nor spooled within ``timeout`` seconds; Discord sends them
        again to whoever resumes.
        """
        for shard in reversed(self.shards.values()):
            shard.stop(end_session=end_sessions)
        self.publisher.flush()
        left = await self.publisher.drain(timeout)
        if end_sessions:
            self._session_records.forget_all()
        else:
            self._write_now()
        self.publisher.stop()
        return left

    def reload(self, settings: Settings) -> None:
        """Other events are published from now on; another presence is sent on every shard."""
        before, self.event_pipeline.publishes = self._presence, _filter(settings)
        self._presence = settings.process.presence
        changed = settings.process.presence is not None and settings.process.presence != before
        self._session_records.presence_setting_changed(_digest(settings.process.presence), sent=changed)
        self._settled_moved.set()
        if settings.process.presence is not None and changed:
            deadline = asyncio.get_running_loop().time() + settings.requests.command_deadline
            for shard_id, shard in self.shards.items():
                wanted = settings.process.presence.of(shard_id, self.tools.layout.shards, self.number)
                payload = msgspec.json.encode({"op": int(Opcode.PRESENCE_UPDATE), "d": wanted})
                shard.command(Command(int(Opcode.PRESENCE_UPDATE), payload, None, deadline))

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
        if self.publisher.spool is not None:
            self.publisher.spool.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        return self._tasks.create_task(coroutine)

    # Events: the hot path.

    def dispatch(self, shard: Shard, envelope: Envelope, replayed: bool, repeat: int) -> None:
        """One event of Discord's, as it came, on its way to the exchange. A usual one takes the shard's lane."""
        name = envelope.t or ""
        seq = envelope.s
        event_pipeline = self.event_pipeline
        try:
            event_pipeline.events[name] += 1
        except KeyError:
            why = self.tallies.count_new_name(name, envelope)
            if why:
                shard.stream.pass_over(name, seq, why)
                return
        if replayed:
            self.tallies.replayed += 1
        if repeat:
            self.tallies.repeated += 1
        applied = None
        if event_pipeline.apply is not None and seq is not None:
            applied = event_pipeline.apply(shard.shard_id, seq, name, envelope.d)
        if applied is not None:
            self.tell(shard, name, envelope.d, seq, applied, replayed, repeat)
        elif event_pipeline.publishes is None or event_pipeline.publishes(name):
            shard.stream.publish(name, envelope.d, seq, replayed, repeat)
        else:
            self.skip(shard, seq)

    def skip(self, shard: Shard, seq: int | None) -> None:
        """Filtered on purpose: it is settled once all before it are."""
        self.tallies.filtered += 1
        if seq is not None:
            shard.stream.skip(seq)

    def tell(
        self,
        shard: Shard,
        name: str,
        body: bytes | msgspec.Raw,
        seq: int | None,
        applied: Applied,
        replayed: bool = False,
        repeat: int = 0,
    ) -> None:
        """An event of which the cache knows more: guilds that vanished, why a guild came or went, what was before."""
        if applied.left:
            self.gap_reports.leave_guilds(shard.shard_id, applied.left)
        publishes = self.event_pipeline.publishes
        if publishes is not None and not publishes(name):
            self.skip(shard, seq)
            return
        if applied.before is not None:
            known = shard.stream.message_id(seq)
            message_id = None if known is None else f"{known}:before"
            self.publisher.publish_own(name + topology.BEFORE, applied.before, message_id)
        shard.stream.publish(name, body, seq, replayed, repeat, applied.cause)

    def _end_of_wake_up(self) -> None:
        cache = self._cache
        if cache is not None:
            cache.commit()
            if cache.has_lines:
                self._say_faults(cache)
        self._wakeup_batching.worked(self.publisher.woken_at)

    def _say_faults(self, cache: Store) -> None:
        for line in cache.take_lines():
            log.warning("%s", line, extra={"cluster": self.number, "action": "cache"})

    # Sessions.

    def session_started(self, shard: Shard, order: SessionStarted) -> None:
        shard_id = shard.shard_id
        shard.unknown_before = self.unknown_guild_events(shard_id)
        session = self._session_records.started(
            shard_id, order.session_id, order.resume_url, 1, order.compression or ""
        )
        self.streams[shard_id].begin(session)
        if self._cache is not None:
            self._cache.begin_session(shard_id, session)
        self.gap_reports.begin_session(shard_id, session)
        # After this message has been handled, and so READY with it.
        asyncio.get_running_loop().call_soon(self._keep_ready)

    def _keep_ready(self) -> None:
        """Without a broker READY is confirmed by the spool, at once: until then a crash would cost an identify."""
        if not self.publisher.connected:
            self.publisher.spool_now()

    def session_lost(self, shard: Shard, order: SessionLost) -> None:
        # Discord will not send again what only memory has of that session.
        self.publisher.spool_now()
        self.gap_reports.lose(shard.shard_id, order, self.streams[shard.shard_id].settled, time.time())
        log.warning(
            "session lost (%s): events after sequence %d may be missing; RATEWAY_GAP tells the worker",
            order.reason,
            order.received_seq,
            extra={"cluster": self.number, "shard": shard.shard_id, "action": "session_lost"},
        )

    def session_resumed(self, shard: Shard) -> None:
        log.debug("resumed", extra={"cluster": self.number, "shard": shard.shard_id, "action": "resumed"})

    def state_changed(self, shard: Shard, order: StateChanged) -> None:
        # Before anything is dialled again: what failed once is not to fail for ever, whatever becomes of this process.
        self._session_records.failed(shard.shard_id, shard.conversation.failed_at)
        if order.new is State.LIVE and not self._told_live:
            self._told_live = True
            self._spawn(self.on_live())
        told = order.old is State.LIVE or order.new in (State.LIVE, State.BACKING_OFF, State.STOPPED)
        level = logging.INFO if told else logging.DEBUG
        log.log(
            level,
            "%s → %s%s",
            order.old.value,
            order.new.value,
            f" ({order.why})" if order.why not in ("", order.new.value) else "",
            extra={"cluster": self.number, "shard": shard.shard_id, "action": "state"},
        )
        body = messages.ShardStatus(
            shard=shard.shard_id,
            state=order.new.value,
            before=order.old.value,
            why=order.why,
            time=time.time(),
        )
        self.publisher.publish_own(body.key, messages.encode(body))

    async def _write_sessions(self) -> None:
        while True:
            await self._settled_moved.wait()
            self._settled_moved.clear()
            self._write_soon.clear()
            self._write_now()
            if self._cache is not None and self._cache.dirty:
                # Guilds have stopped coming, and perhaps all events with them: what waits for the index, which every
                # lookup goes through until then, moves on by itself.
                self._cache.commit()
                self._say_faults(self._cache)
                self._settled_moved.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY_S):
                    await self._write_soon.wait()

    def _write_now(self) -> None:
        settled = [(shard_id, stream.settled) for shard_id, stream in self.streams.items()]
        for shard_id, seq in self._session_records.write(settled, time.time()):
            self.shards[shard_id].settle(seq)

    # Commands.

    def command(self, shard_id: int, command: Command) -> None:
        self.shards[shard_id].command(command)

    def command_done(self, shard: Shard, order: CommandDone) -> None:
        command = order.command
        if order.outcome == "sent" and command.op == Opcode.PRESENCE_UPDATE and command.handle is not None:
            # As it was checked: what a worker's message becomes is a payload in the documented form.
            self._session_records.presence_set(shard.shard_id, bytes(_payload.decode(command.payload).d))
            self._settled_moved.set()
        if command.handle is not None:
            self.on_command_done(order)

    def fatal(self, shard: Shard, order: Fatal) -> None:
        self.tools.on_fatal(shard.shard_id, order)

    # port.SinkObserver.

    def on_pause(self) -> None:
        log.warning(
            "the broker does not keep up and the spool is full or off: reading from Discord pauses",
            extra={"cluster": self.number, "action": "pause"},
        )
        for shard in self.shards.values():
            shard.pause()

    def on_resume(self) -> None:
        log.info("reading from Discord goes on", extra={"cluster": self.number, "action": "resume_reading"})
        for shard in self.shards.values():
            shard.resume_reading()

    def on_settled(self) -> None:
        self._settled_moved.set()
        if self._session_records.has_unwritten:
            # Perhaps it was a new session's READY that was confirmed just now.
            self._write_soon.set()

    def on_unrouted(self, name: str, routed: bool) -> None:
        loop = asyncio.get_running_loop()
        due = self._unrouted_names.note(name, routed, loop.time())
        if due is not None:
            loop.call_at(due, self._log_unrouted)

    def _log_unrouted(self) -> None:
        line = self._unrouted_names.line(asyncio.get_running_loop().time())
        if line:
            log.warning("%s", line, extra={"cluster": self.number, "action": "unrouted"})

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        self.tallies.oversize += 1

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        self.tallies.refused += 1

    def on_state(self, up: bool, why: str) -> None:
        self.broker_why = why
        if up and self._tasks is not None:
            # The exchange has just been declared, perhaps anew.
            self._spawn(self.on_exchange())


def _filter(settings: Settings) -> Callable[[str], bool] | None:
    """Which names are published; None for all of them, so that the usual case costs an event nothing."""
    return (
        settings.published.publishes
        if settings.published.only is not None or settings.published.never
        else None
    )


def _digest(presence: PresenceTemplate | None) -> str:
    """A digest by which a changed setting ``PRESENCE`` is recognised; empty without one."""
    return "" if presence is None else hashlib.sha256(presence.text.encode()).hexdigest()[:16]


def _presence_in(record: SessionRecord | None) -> Mapping[str, Any] | None:
    """The presence that a worker had set, as it was written down."""
    if record is None or record.presence is None:
        return None
    try:
        return msgspec.json.decode(record.presence, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
