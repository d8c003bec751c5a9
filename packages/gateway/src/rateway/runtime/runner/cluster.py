"""One cluster: its shards, its exchange, its store. The unit that is owned, moved and restarted as a whole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from rateway.config import Settings
from rateway.config.presence import digest_of
from rateway.delivery.port import EventSink, SinkObserver
from rateway.fleet.cluster_record import Adoption
from rateway.fleet.leftovers import SessionPosition
from rateway.fleet.port import cluster_subject
from rateway.native.fast_path import EventPipeline
from rateway.runtime.fleet.cache_moves import LoadedCache
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.runner.cluster_cache import ClusterCache
from rateway.runtime.runner.dial_gate import DialGate, FencedPermits
from rateway.runtime.runner.event_forwarder import EventForwarder
from rateway.runtime.runner.event_tallies import EventTallies
from rateway.runtime.runner.fleet_record_writer import FleetRecordWriter
from rateway.runtime.runner.gap_reports import GapReports
from rateway.runtime.runner.leftovers import Ask, Leftovers, leftover_folders
from rateway.runtime.runner.publish_fence import PublishFence
from rateway.runtime.runner.second_session import SecondSessions
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.session_writer import SessionWriter
from rateway.runtime.runner.shard import Shard
from rateway.runtime.runner.shard_factory import ShardFactory, ShardTools
from rateway.runtime.runner.shard_observer import ClusterShardObserver
from rateway.runtime.runner.sink_observer import ClusterSinkObserver
from rateway.runtime.runner.wakeup_batching import WakeupBatching
from rateway.session.actions import Command, CommandDone, Fatal, State
from rateway.transports.spool import Spool
from rateway.transports.store import SessionRecord, Store
from rateway_protocol.discord import commands
from rateway_protocol.discord.opcodes import Opcode

log = logging.getLogger(__name__)

__all__ = ["Cluster", "ClusterTools"]

# Between two looks at whether the spool is empty.
SPOOL_LOOK_S = 0.02
# For the broker's confirms when a tenure has ended.
ANSWERS_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class ClusterTools:
    """The parts and settings that all clusters of a process share."""

    settings: Settings
    shard_tools: ShardTools
    make_sink: Callable[[int, Spool | None, SinkObserver], EventSink]
    """Makes the sink of a cluster's events, given its number, its spool and the sink's observer."""
    token_hash: str
    wakeup_batching: WakeupBatching
    on_fatal: Callable[[int, Fatal], None]
    former_hashes: frozenset[str] = frozenset()
    """What the token's hash was before this state folder joined a fleet."""
    fleet: FleetPart | None = None
    """The fleet that the clusters belong to; None without one."""


class Cluster:
    """Constructs a cluster's parts, connects them, and starts and stops its shards.

    :attr:`events` is the way of its events, :attr:`shard_observer` what becomes of its sessions, :attr:`sink_observer`
    what the broker reports.
    """

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
        """Make the cluster and its shards; nothing is connected yet.

        Args:
            number: The cluster's number, from 0.
            tools: What the process's clusters share.
            store: The cluster's store; None while it cannot be opened.
            store_words: What the status says of the store.
            spool: The cluster's spool; None without one.
            leftover: The sessions of a store that cannot be opened for writing just now.
            is_new_here: Whether this state folder has had no store of the cluster before.
        """
        self.number = number
        self.store = store
        self.store_words = store_words
        self.shards: dict[int, Shard] = {}
        self.cache: ClusterCache | None = None
        self.on_exchange: Callable[[], Coroutine[Any, Any, None]]
        """The runner's: binds the inbound queue to the exchange, which may be a new one."""
        self._settings = tools.settings
        self._layout = layout = tools.shard_tools.layout
        self._is_new_here = is_new_here
        self._leftover = leftover
        self._is_started = False
        self._is_superseded = False
        self.loaded_cache: LoadedCache | None = None
        """In a fleet: the cache that another owner has sent, for the tenure that follows its own."""
        # Whether a tenure's sessions were taken, and are not given up yet.
        self._is_adopted = False
        # Shards whose resumes bring what that cache does not have yet.
        self._behind: set[int] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._wakeup_batching = tools.wakeup_batching
        self._session_records = SessionRecords(
            store,
            shard_count=layout.shards,
            intents=tools.settings.session.intents,
            token_hash=tools.token_hash,
            presence_setting=digest_of(tools.settings.process.presence),
        )
        self._session_writer = SessionWriter(self._session_records, self.shards)
        pipeline = EventPipeline()
        self.tallies = EventTallies(pipeline)
        self.sink_observer = ClusterSinkObserver(
            number, self.shards, self.tallies, self._session_writer, self._bind_inbound_queue
        )
        self.publisher = tools.make_sink(number, spool, self.sink_observer)
        self.publisher.before_write = self._end_of_wake_up
        self._wakeup_batching.watch(lambda: self.publisher.is_writing)
        self.gap_reports = GapReports(self._session_records, self.publisher, self._session_writer.note_change)
        self.events = EventForwarder(pipeline, self.tallies, self.publisher, self.gap_reports.leave_guilds)
        self.events.set_filter(tools.settings.published)
        self.shard_observer = ClusterShardObserver(
            number,
            self.shards,
            self.publisher,
            self._session_records,
            self._session_writer,
            self.gap_reports,
            tools.on_fatal,
        )
        self.ask_owner: Ask = _nobody
        """The runner's: returns how far the present owner of the cluster has come."""
        self.leftovers: Leftovers | None = None
        """The events that were kept from a tenure or process before; None where there can be none."""
        self._fence: PublishFence | None = None
        if tools.fleet is not None or (spool is not None and leftover_folders(spool.folder)):
            ask: Ask | None = None if tools.fleet is None else lambda: self.ask_owner()
            self.leftovers = Leftovers(number, self.publisher, spool, ask, time.monotonic)
        self.fleet_record: FleetRecordWriter | None = None
        """Keeps the record by which another gateway goes on with the sessions; None without a fleet."""
        gate, shard_tools = None, tools.shard_tools
        self._fleet = tools.fleet
        self._token_hash, self._former_hashes = tools.token_hash, tools.former_hashes
        if tools.fleet is not None:
            gate, self.fleet_record = self._join(tools.fleet)
            shard_tools = replace(shard_tools, permits=FencedPermits(shard_tools.permits, gate))
        self._shard_factory = ShardFactory(
            shard_tools,
            self.publisher,
            self.events,
            self._session_records,
            self.gap_reports,
            self.shard_observer,
            self.spawn,
            gate,
        )
        self.second_sessions: SecondSessions | None = None
        """Renews the cold cache of its shards; None without CACHE_RENEW."""
        if tools.settings.cache.enabled and tools.settings.cache.renew:
            self.second_sessions = SecondSessions(
                number, self.shards, shard_tools, shard_tools.permits, self.spawn, self._use_views
            )
        if store is not None:
            self._use_cache_of(store)
        # In a fleet the sessions are those of the tenure that begins.
        self._make_shards(self.stored_sessions() if tools.fleet is None else ())

    def _join(self, fleet: FleetPart) -> tuple[DialGate, FleetRecordWriter]:
        """Have the shards follow the fleet's record."""
        elections, subject = fleet.elections, cluster_subject(self.number)
        gate = DialGate(self.number, lambda: elections.confirmed_at(subject), fleet.clock, self._silent_s)
        record = FleetRecordWriter(elections, subject, self._session_records, self.shards)
        self._fence = PublishFence(self.number, self.publisher, lambda: gate.has_right, time.monotonic)
        self.publisher.before_write = self._end_of_fenced_wake_up
        self._session_writer.on_written = record.note_change
        self.shard_observer.on_session_lost = record.note_lost
        self.shard_observer.on_caught_up = self._catch_up
        self.shard_observer.on_resumed = gate.resumed
        return gate, record

    def stored_sessions(self) -> Sequence[SessionRecord]:
        """Return the sessions in the store."""
        return self.store.sessions() if self.store is not None else self._leftover

    def _make_shards(self, stored: Iterable[SessionRecord], behind: Mapping[int, int] | None = None) -> None:
        self.shards.update(self._shard_factory.make(self._layout.shards_of(self.number), stored, behind))

    def _use_cache_of(self, store: Store) -> None:
        if self._settings.cache.enabled:
            self.cache = ClusterCache(self.number, store)
            self._session_writer.cache = self.shard_observer.cache = self.cache
            self.events.pipeline.apply = store.apply

    def _use_views(self, used: bool) -> None:
        """Have events pass a second session's view on their way into the cache; only while there is one."""
        if self.store is not None:
            self.events.pipeline.apply = self.store.apply_with_views if used else self.store.apply

    def is_live(self, shard_id: int) -> bool:
        """Return whether a shard's session is live."""
        return self.shards[shard_id].conversation.state is State.LIVE

    def _silent_s(self) -> float | None:
        """Seconds since a live shard has heard of Discord; None without a live shard."""
        heard = [shard.conversation.heard_at for each, shard in self.shards.items() if self.is_live(each)]
        return asyncio.get_running_loop().time() - max(heard) if heard else None

    @property
    def resumable(self) -> int:
        """Shards that hold a session to resume."""
        return sum(1 for shard in self.shards.values() if shard.conversation.session_id is not None)

    def unknown_guild_events(self, shard_id: int) -> int:
        """Return how many events of a shard were about unknown guilds, since this process opened the store."""
        return 0 if self.cache is None else self.cache.unknown_guild_events(shard_id)

    def take_store(self, store: Store) -> None:
        """Write sessions to *store*, which could not be opened so far, and apply events to its cache."""
        self.store, self.store_words = store, "ok"
        self._use_cache_of(store)
        sessions = {
            shard_id: self._session_records.session(shard_id)
            for shard_id, shard in self.shards.items()
            if shard.conversation.session_id is not None
        }
        store.take_over(sessions)
        self._session_records.take_store(store)
        self._session_writer.note_change()

    async def run(self) -> None:
        """Publish, write sessions down, hold the shards' tasks, until cancelled; shards start with :meth:`start`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.publisher.run(), name=f"publisher {self.number}")
            tasks.create_task(self._session_writer.run(), name=f"sessions {self.number}")
            if self._fence is not None:
                tasks.create_task(self._fence.run(), name=f"fence {self.number}")
            if self.leftovers is not None:
                tasks.create_task(self.leftovers.run(), name=f"leftovers {self.number}")

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *coroutine* as a task of this cluster, which must be running."""
        assert self._tasks is not None
        return self._tasks.create_task(coroutine)

    def start(self, *, existed: bool = False) -> None:
        """Connect all shards: those with a session first, which need no permit.

        Args:
            existed: Whether a gateway has run this cluster before. If it had another state folder, each new session
                follows a gap.
        """
        if self._is_started:
            return
        self._is_started = True
        self._is_superseded = False
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
        if self.second_sessions is not None and self.cache is not None:
            self.second_sessions.start(self.cache)

    def _stop_second_sessions(self) -> None:
        if self.second_sessions is not None:
            self.second_sessions.stop()

    def supersede(self) -> None:
        """Forget the stored sessions: another gateway owns this cluster and has sessions, and has had their events."""
        if self._is_superseded or self._is_started:
            return
        self._is_superseded = True
        log.warning(
            "another gateway has sessions for this cluster: the %d stored here are forgotten, so that nothing comes a "
            "second time when it leaves; RATEWAY_GAP tells the worker then",
            self.resumable,
            extra={"cluster": self.number, "action": "superseded"},
        )
        self.gap_reports.take_over(self.shards, "another gateway ran this cluster meanwhile", time.time())
        self._leftover = ()
        self._make_shards(self.stored_sessions())

    def yield_shards(self) -> None:
        """Leave the shards to another gateway, which owns this cluster. The sessions stay written down."""
        if not self._is_started:
            return
        self._is_started = False
        self._stop_second_sessions()
        self.shard_observer.begin_again()
        # In a fleet the next owner's shards are live by now: that of these came before.
        self.shard_observer.is_silent = self._fleet is not None
        for shard in self.shards.values():
            shard.stop(end_session=False)
        self.shard_observer.is_silent = False
        self._session_writer.write()
        self._make_shards(self.stored_sessions())

    # In a fleet.

    def adopt(self, found: Adoption) -> None:
        """Take the sessions of a tenure that begins; :meth:`start` resumes them."""
        assert self.fleet_record is not None
        assert self._fence is not None
        self.fleet_record.begin(found.ended)
        self._fence.begin()
        if found.source == "fleet":
            self._is_new_here = False
        self._is_adopted = True
        loaded, self.loaded_cache = self.loaded_cache, None
        behind: dict[int, int] = {}
        if self.store is not None and self.cache is not None and (self._behind or not found.follows_own):
            self._behind.clear()
            if loaded is None or not _is_cache_of(loaded, found):
                self._begin_cold(self.store, found.sessions)
            else:
                behind = {each.shard_id: each.applied for each in loaded.positions}
                self._behind.update(each.shard_id for each in found.sessions if each.session_id)
                log.info(
                    "the cache has come with the cluster",
                    extra={"cluster": self.number, "action": "cache_move"},
                )
        self._replace_sessions([self._known(record) for record in found.sessions], behind)

    def _catch_up(self, shard_id: int) -> None:
        """Note that a shard has been sent what its cache, which came from another member, did not have yet."""
        if shard_id in self._behind:
            self._behind.discard(shard_id)
            if not self._behind and self.store is not None:
                self.store.finish_loading()

    @property
    def keeps_cache(self) -> bool:
        """Whether the store has a cache that can be written."""
        return self.store is not None and self.cache is not None and self.store.fault is None

    @property
    def is_in_use(self) -> bool:
        """Whether the cache is that of sessions which run here, or are about to."""
        return self._is_started or self._is_adopted

    def hold_heartbeats(self, positions: Mapping[int, int] | None) -> None:
        """Let heartbeats of each shard name no more than its position; None: as they would."""
        for shard_id, shard in self.shards.items():
            shard.hold_settled(None if positions is None else positions.get(shard_id, 0))

    def _begin_cold(self, store: Store, sessions: Iterable[SessionRecord]) -> None:
        """Forget the cache, which misses what other owners have received."""
        fault = store.begin_cold({each.shard_id: each.name for each in sessions if each.session_id})
        log.info(
            "the cache begins empty: another gateway had the cluster before. Queries for its guilds are answered "
            "`incomplete` until new sessions bring them (CACHE_RENEW)%s",
            f"; the store cannot be written now: {fault.words}" if fault is not None else "",
            extra={"cluster": self.number, "action": "cold_cache"},
        )

    def _known(self, record: SessionRecord) -> SessionRecord:
        """Return a record that this folder made before it joined a fleet as one of this bot's."""
        if record.token_hash not in self._former_hashes:
            return record
        return msgspec.structs.replace(record, token_hash=self._token_hash)

    def _replace_sessions(
        self, records: Sequence[SessionRecord], behind: Mapping[int, int] | None = None
    ) -> None:
        if self.store is not None:
            for former in self.store.sessions():
                self.store.drop_session(former.shard_id)
        self._leftover = records
        self._session_records.replace_all(records)
        self._make_shards(
            self.store.sessions() if self.store is not None and not self.store.fault else records, behind
        )

    def abandon(self) -> None:
        """Leave the shards to another gateway, which owns the cluster by now and has the fleet's record."""
        self.yield_shards()
        self.forget_sessions()

    def forget_sessions(self) -> None:
        """Forget the sessions, which another gateway of the fleet goes on with."""
        self._is_adopted = False
        self._replace_sessions(())

    async def end_tenure(self) -> None:
        """Keep what is not published: whether the next owner has it will be asked. What is on its way to the broker may
        still be confirmed, which is waited for a moment.
        """
        assert self.leftovers is not None
        assert self._fence is not None
        until = time.monotonic() + ANSWERS_WITHIN_S
        while self.publisher.connected and self.publisher.flying and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(SPOOL_LOOK_S)
        self.leftovers.set_aside()
        self._fence.end()

    async def hand_over(self, *, timeout: float, end_sessions: bool) -> int:
        """Close the shards, so that another gateway resumes their sessions, and wait for the confirms of their events.
        *end_sessions*: the sessions are ended instead of kept.

        Returns:
            How many events were not confirmed within *timeout* seconds. Discord sends them again to a gateway that
            resumes.
        """
        until = time.monotonic() + timeout
        self._stop_second_sessions()
        # While the shards are live: it may take long.
        await self._empty_spool(until)
        if self._is_started:
            self._is_started = False
            self.shard_observer.begin_again()
            for shard in self.shards.values():
                shard.stop(end_session=end_sessions)
        self.publisher.flush()
        await self.publisher.drain(timeout)
        await self._empty_spool(until)
        if end_sessions:
            self._session_records.forget_all()
        self._session_writer.write()
        return self.publisher.unconfirmed

    async def _empty_spool(self, until: float) -> None:
        """Wait for the confirms of what an outage has left in the spool: the next owner cannot read it, and Discord may
        have forgotten it.
        """
        publisher = self.publisher
        while publisher.spool is not None and publisher.spool.events and publisher.connected:
            if time.monotonic() >= until:
                return
            await asyncio.sleep(SPOOL_LOOK_S)

    async def stop(self, *, end_sessions: bool, timeout: float) -> int:
        """Close the shards, wait for confirms, write the sessions down. *end_sessions*: the sessions are ended instead
        of kept.

        Returns:
            How many events were neither confirmed nor spooled within *timeout* seconds. Discord sends them again to a
            gateway that resumes.
        """
        self._stop_second_sessions()
        for shard in reversed(self.shards.values()) if self._fleet is None or self._is_started else ():
            shard.stop(end_session=end_sessions)
        self.publisher.flush()
        left = await self.publisher.drain(timeout)
        if end_sessions:
            self._session_records.forget_all()
        else:
            self._session_writer.write()
        self.publisher.stop()
        return left

    def reload(self, settings: Settings) -> None:
        """Publish the events that *settings* name from now on; send a presence that has changed on every shard."""
        self.events.set_filter(settings.published)
        presence = settings.process.presence
        is_sent = self._session_records.presence_setting_changed(digest_of(presence))
        self._session_writer.note_change()
        if presence is not None and is_sent:
            deadline = asyncio.get_running_loop().time() + settings.requests.command_deadline
            for shard_id, shard in self.shards.items():
                d, op = presence.of(shard_id, self._layout.shards, self.number), int(Opcode.PRESENCE_UPDATE)
                shard.command(Command(op, d, commands.encode({"op": op, "d": d}), deadline))

    def command(self, shard_id: int, command: Command) -> None:
        """Queue a worker's command on a shard."""
        self.shards[shard_id].command(command)

    def watch_commands(self, on_done: Callable[[CommandDone], None]) -> None:
        """Have *on_done* called with the end of each worker's command, from now on."""
        self.shard_observer.on_command_done = on_done

    def close(self) -> None:
        """Close the store and the spool."""
        if self.store is not None:
            self.store.close()
        if self.leftovers is not None:
            self.leftovers.close()
        if self.publisher.spool is not None:
            self.publisher.spool.close()

    def _end_of_fenced_wake_up(self, events: int) -> None:
        assert self._fence is not None
        self._fence.look()
        self._end_of_wake_up(events)

    def _end_of_wake_up(self, events: int) -> None:
        if self.cache is not None:
            self.cache.commit()
        self._wakeup_batching.worked(self.publisher.woken_at, events)

    def _bind_inbound_queue(self) -> None:
        if self._tasks is not None:
            self.spawn(self.on_exchange())


async def _nobody() -> Sequence[SessionPosition] | None:
    return None


def _is_cache_of(loaded: LoadedCache, found: Adoption) -> bool:
    """Whether a cache was sent for this tenure, and is of the sessions that it begins with."""
    sessions = {each.shard_id: each.session for each in loaded.positions}
    return loaded.name == found.cache and all(
        record.name == sessions.get(record.shard_id) for record in found.sessions if record.session_id
    )
