"""The clusters that one process runs, and what they share. What happens here touches no other process."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from rateway import logs
from rateway.config import Settings
from rateway.config.broker import broker_address
from rateway.delivery.port import Ownership, SinkObserver
from rateway.fleet.choice import Choice
from rateway.fleet.leftovers import SessionPosition
from rateway.fleet.roster import TenureView
from rateway.runtime.answered import Answered
from rateway.runtime.fleet.cache_moves import CacheMoves, place_of
from rateway.runtime.fleet.line import FleetLine
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.fleet.positions import OwnerPositions, owner_of
from rateway.runtime.identify.permits import IdentifyPermits
from rateway.runtime.requests.host_cache import HostCache
from rateway.runtime.requests.other_clusters import OtherClusters
from rateway.runtime.requests.request_handler import RequestHandler
from rateway.runtime.runner.cluster import Cluster, ClusterTools
from rateway.runtime.runner.cluster_tenure import ClusterTenure
from rateway.runtime.runner.dialer import Dialer
from rateway.runtime.runner.memory import MemoryTrimmer, give_back, keep_free_memory, spare_untouched_memory
from rateway.runtime.runner.read_gate import ReadGate
from rateway.runtime.runner.shard import Shard
from rateway.runtime.runner.shard_factory import ShardTools
from rateway.runtime.runner.tenure_view import tenure_view
from rateway.runtime.runner.wakeup_batching import ENOUGH, ENOUGH_WITH_CACHE, WakeupBatching
from rateway.runtime.startup import Identity, leftover_sessions, open_store, store_folder
from rateway.session.actions import Fatal, State
from rateway.session.compression import compression_of
from rateway.session.options import CommandBudget, SessionOptions
from rateway.transports.amqp.events.publisher import EventPublisher
from rateway.transports.amqp.fleet_line import FleetWire
from rateway.transports.amqp.log.log_keeper import LogKeeper
from rateway.transports.amqp.requests.gateway_requests import AmqpGateway
from rateway.transports.amqp.requests.inbound import HOME_WORDS, Inbound
from rateway.transports.event_log_record import EventLogRecords
from rateway.transports.rest import USER_AGENT
from rateway.transports.spool import Spool, SpoolFull
from rateway.transports.state import StateDir
from rateway.transports.store import SessionRecord, StoreFault
from rateway.transports.tenure_notes import TenureNotes
from rateway.transports.tls import client_context
from rateway_protocol.contract import topology
from rateway_protocol.discord.hosts import TokenHosts

log = logging.getLogger(__name__)

# Hello is the first thing that a healthy host says; the wait doubles with each one that does not come.
HELLO_TIMEOUT_S = 5.0
# Of the heartbeat interval, so that a session is not ended in the time that a fleet takes to find out that its owner
# has stopped: with 41.25 s the next beat is due 10 s later at the earliest, and Discord waits for it a while longer.
FLEET_HEARTBEAT_SHARE = 0.75
# Between two looks at how many events there were, and whether memory can be given back.
LOOK_EVERY_S = 1.0
# Time that one look may spend counting cached entities: a look at many large clusters must not hold the loop up.
COUNTING_S = 0.02
# Between two tries of a store that could not be opened: an operator makes room, or mounts the disk for writing again.
OPEN_AGAIN_S = 2.0
# A gateway outside the fleet that is live on a cluster for so long is one, and no remainder of a dead member.
OTHER_LIVE_S = 5.0
# The reason that a gap gives for a session that a person gave up.
BY_OPERATOR = "asked for by an operator"
INBOUND_KEYS = (topology.CACHE_KEY, topology.GATEWAY_KEY)

__all__ = ["Runner"]


class Runner:
    """One process's clusters. ``run`` holds them until cancelled, ``wind_down`` closes them in order."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        identity: Identity,
        choice: Choice,
        clusters: list[int],
        permits: IdentifyPermits,
        on_fatal: Callable[[int, Fatal], None],
        fleet: FleetPart | None = None,
    ) -> None:
        """*fleet*: the fleet that decides which of *clusters* run here; None: they all do."""
        self.settings = settings
        self.fleet = fleet
        self.state = state
        self.choice = choice
        self.permits = permits
        self.clusters: dict[int, Cluster] = {}
        self.responders: dict[int, RequestHandler] = {}
        self.ownership: dict[int, tuple[Ownership, str]] = {}
        self.hosts = TokenHosts(settings.rest.api_url, settings.rest.hosts)
        self.dialer = Dialer(
            user_agent=USER_AGENT,
            max_message_bytes=settings.session.max_message_bytes,
            ssl_context=client_context,
            token_hosts=self.hosts,
        )
        self.read_gate = ReadGate()
        # Clusters that another gateway owned when the broker was last asked.
        self._elsewhere: set[int] = set()
        # Clusters that were given up for another gateway: drained, or because no shard of them may identify here.
        self._left: set[int] = set()
        # In a fleet: since when a gateway outside it was found to be live on a cluster (monotonic seconds).
        self._others_since: dict[int, float] = {}
        self.tenures: dict[int, ClusterTenure] = {}
        """In a fleet: what decides whether a cluster runs here."""
        self._inbound: dict[int, Inbound] = {}
        self._tasks: dict[int, tuple[asyncio.Task[None], ...]] = {}
        self._address = broker_address(settings)
        self._cache_moves: CacheMoves | None = None
        self._fleet_line: FleetLine | None = None
        self._positions: OwnerPositions | None = None
        if fleet is not None:
            self._fleet_line = self._make_fleet_line(fleet, clusters)
            self._positions = OwnerPositions(self._fleet_line, self._own_positions)
            if settings.cache.enabled:
                self._cache_moves = CacheMoves(self._fleet_line, self.clusters)
        tools = self._tools(identity, on_fatal)
        # Before the stores are opened; :meth:`run` ends it.
        spare_untouched_memory()
        for number in clusters:
            cluster = self.clusters[number] = self._make_cluster(number, tools)
            request_handler = self.responders[number] = RequestHandler(self, cluster)
            self._inbound[number] = request_handler.inbound = Inbound(
                address=self._address,
                name=f"rateway cluster {number}: queries and commands",
                exchange=topology.exchange(number),
                queue=topology.incoming(number),
                keys=INBOUND_KEYS,
                on_message=request_handler.message,
                on_refused=request_handler.refuse,
                on_ownership=lambda state, why, number=number: self._owned(number, state, why),  # type: ignore[misc]  # a default binds the loop's number
                on_writable=self._answers_go_on,
                on_other_live=lambda number=number: self._other_live(number),  # type: ignore[misc]  # as above
                on_unrouted=request_handler.unrouted,
                home=state.fingerprint("home")[:16] if fleet is None else fleet.home,
                home_words=HOME_WORDS if fleet is None else "another gateway of the fleet",
                # The election decides between members. A former owner, which has been frozen or cut off, may still
                # have the queue, and must not take it again.
                on_home_taken=None if fleet is None else functools.partial(self._elsewhere.discard, number),
                may_own=(lambda: True) if fleet is None else functools.partial(fleet.has_right, number),
                # Without a fleet the queue itself says who the owner is: nothing takes its place.
                substitute=topology.substitute(number),
                uses_substitute=fleet is not None,
            )
            if fleet is not None:
                self.tenures[number] = self._make_tenure(cluster, fleet)
                assert self._positions is not None
                cluster.ask_owner = functools.partial(self._positions.ask, number)
            cluster.on_exchange = self._inbound[number].bind_again
            cluster.shard_observer.on_live = lambda number=number: self._tell_live(number)  # type: ignore[misc]  # as above
            cluster.shard_observer.on_barred = lambda why, number=number: self._give_up(number, why)  # type: ignore[misc]  # as above
        self.cache = HostCache(settings, state, choice, self.clusters, self.elsewhere)
        self.other_clusters = OtherClusters(
            AmqpGateway(address=self._address, name="rateway: queries for other gateways"),
            self.cache.query_queue,
        )

    def _make_tenure(self, cluster: Cluster, fleet: FleetPart) -> ClusterTenure:
        number = cluster.number
        notes = TenureNotes(self.state, number)
        return ClusterTenure(
            cluster,
            fleet,
            serve=self._inbound[number].run,
            on_waiting=lambda: self._wait_for_tenure(number),
            last=notes.read(),
            on_begun=notes.write,
            settle_timeout=self.settings.process.stop_timeout,
            send_cache=None
            if self._cache_moves is None
            else functools.partial(self._cache_moves.send, number),
            readers=self._inbound[number].readers,
        )

    @property
    def takes_caches(self) -> bool:
        """Whether another member of the fleet can send the cache of a cluster now."""
        return self._cache_moves is not None and self._cache_moves.is_up

    def _make_fleet_line(self, fleet: FleetPart, clusters: list[int]) -> FleetLine:
        """Return the line to the other members' processes that may run these clusters: under the key of this process,
        for answers, and under two for each cluster, that of its cache here and that of its owner, whoever that is.
        """
        member = fleet.membership.member
        own = f"runner-{secrets.token_hex(8)}"
        places = (key for number in clusters for key in (place_of(member, number), owner_of(number)))
        wire = FleetWire(self._address, fleet.membership, [own, *places], "rateway: clusters of the fleet")
        return FleetLine(wire, own)

    def _own_positions(self, number: int) -> list[SessionPosition] | None:
        """Return how far the sessions of a cluster are settled here; None unless it is owned here, by nobody else for
        sure.
        """
        tenure, cluster, fleet = self.tenures.get(number), self.clusters.get(number), self.fleet
        if fleet is None or tenure is None or tenure.owned is None or cluster is None:
            return None
        if cluster.fleet_record is None or not fleet.has_right(number):
            return None
        return cluster.fleet_record.positions()

    def _other_live(self, number: int) -> None:
        """Another gateway, outside the fleet if there is one, owns the cluster and has sessions for it."""
        if self.fleet is not None:
            # A member that died leaves its connection with the broker, whose parts do not go all at once.
            since = self._others_since.setdefault(number, time.monotonic())
            if time.monotonic() - since < OTHER_LIVE_S:
                return
        self.clusters[number].supersede()

    def _wait_for_tenure(self, number: int) -> None:
        """Another gateway of the fleet owns the cluster, or nobody yet."""
        self.ownership[number] = ("elsewhere", "another gateway of the fleet may own it")
        self._inbound[number].tell_idle()

    def _tell_live(self, number: int) -> None:
        self.clusters[number].spawn(self._inbound[number].tell_live())

    def _answers_go_on(self) -> None:
        self.cache.query_queue.go_on()

    def _tools(self, identity: Identity, on_fatal: Callable[[int, Fatal], None]) -> ClusterTools:
        settings, layout = self.settings, self.choice.layout
        template = settings.process.presence
        options = SessionOptions(
            token=settings.session.token.reveal(),
            intents=settings.session.intents,
            compression=compression_of(settings.session.compression, layout.shards),
            large_threshold=settings.session.large_threshold,
            presence=None
            if template is None
            else lambda shard, total: template.of(shard, total, layout.cluster_of(shard)),
            hello_timeout=HELLO_TIMEOUT_S,
            resume_patience=settings.session.resume_patience,
            max_message_bytes=settings.session.max_message_bytes,
            address_fault=self.hosts.fault,
            command_queue=settings.session.command_queue,
            command_budget=CommandBudget(settings.session.command_queue_total),
            resume_from_settled=self.fleet is not None,
            heartbeat_share=1.0 if self.fleet is None else FLEET_HEARTBEAT_SHARE,
        )
        return ClusterTools(
            settings=settings,
            shard_tools=ShardTools(
                layout, self.choice.gateway_url, options, self.dialer, self.permits, self.read_gate
            ),
            make_sink=self._make_sink,
            token_hash=identity.bot,
            former_hashes=frozenset(identity.former),
            wakeup_batching=WakeupBatching(ENOUGH_WITH_CACHE if settings.cache.enabled else ENOUGH),
            on_fatal=on_fatal,
            fleet=self.fleet,
        )

    def _make_sink(self, number: int, spool: Spool | None, observer: SinkObserver) -> EventPublisher:
        settings = self.settings
        return EventPublisher(
            address=self._address,
            exchange=topology.exchange(number),
            cluster=number,
            limits=settings.delivery,
            persistent=settings.broker.persistent,
            spool=spool,
            clock=time,
            observer=observer,
            event_log=self._make_log_keeper(number),
            urgent=settings.broker.urgent,
            # Another machine cannot read it.
            spool_settles=self.fleet is None,
            headroom=self.read_gate.headroom,
        )

    def _make_log_keeper(self, number: int) -> LogKeeper | None:
        """Return the keeper of the cluster's event log; None where there is no log, and none to delete."""
        records = EventLogRecords(self.state, number)
        keeper = LogKeeper(
            exchange=topology.exchange(number),
            cluster=number,
            settings=self.settings.event_log,
            record=records.read(),
            write=records.write,
            clock=time,
        )
        return keeper if self.settings.event_log.is_on or keeper.has_streams else None

    def _make_cluster(self, number: int, tools: ClusterTools) -> Cluster:
        extra = {"cluster": number, "action": "store"}
        is_new_here = not store_folder(self.settings, self.state, number).exists()
        store = open_store(self.settings, self.state, number)
        words = "ok"
        leftover: list[SessionRecord] = []
        if isinstance(store, StoreFault):
            words = store.words
            leftover = leftover_sessions(self.settings, self.state, number)
            log.error(
                "the store cannot be used: %s. Events flow on, %d sessions are resumed from what it holds; it is tried "
                "again every %.0f s, until then a restart may lose what happens from now on",
                words,
                sum(1 for record in leftover if record.session_id),
                OPEN_AGAIN_S,
                extra=extra,
            )
        else:
            for line in store.words:
                log.info("%s", line, extra=extra)
        spool = None
        if self.settings.broker.spool_bytes:
            try:
                folder = self.state.folder_below("clusters", str(number), "spool")
                spool = Spool.open(folder, self.settings.broker.spool_bytes)
                if self.fleet is not None:
                    spool.note_unsettled()
                else:
                    spool.note_settled()
            except (OSError, SpoolFull) as error:
                log.error("the spool cannot be used: %s", error, extra=extra)
        opened = None if isinstance(store, StoreFault) else store
        return Cluster(number, tools, opened, words, spool, leftover, is_new_here=is_new_here)

    async def _open_later(self, number: int) -> None:
        """Try the store of a cluster again until it opens."""
        while number in self.clusters:
            await asyncio.sleep(OPEN_AGAIN_S)
            store = open_store(self.settings, self.state, number)
            if isinstance(store, StoreFault):
                continue
            if number not in self.clusters:
                store.close()
                return
            self.clusters[number].take_store(store)
            self.cache.take(number, store.reader())
            log.info(
                "the store can be used again: sessions are written down, the cache fills up",
                extra={"cluster": number, "action": "store"},
            )
            return

    async def run(self) -> None:
        """Hold the clusters, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_often(), name="events a second, memory")
            tasks.create_task(self.cache.run(), name="stores of other processes")
            tasks.create_task(self.other_clusters.run(), name="queries for other gateways")
            if self._fleet_line is not None:
                tasks.create_task(self._fleet_line.run(), name="clusters of the fleet")
            for number, cluster in self.clusters.items():
                tenure = self.tenures.get(number)
                holding = self._inbound[number].run() if tenure is None else tenure.run()
                self._tasks[number] = (
                    tasks.create_task(cluster.run(), name=f"cluster {number}"),
                    tasks.create_task(holding, name=f"inbound {number}"),
                )
                if cluster.store is None:
                    tasks.create_task(self._open_later(number), name=f"store {number}")

    async def _look_often(self) -> None:
        keep_free_memory()
        trimmer = MemoryTrimmer(trim=self._give_memory_back)
        looked = time.monotonic()
        while True:
            self._count_entities()
            await asyncio.sleep(LOOK_EVERY_S)
            now = time.monotonic()
            freed = 0
            for cluster in self.clusters.values():
                cluster.tallies.pace.note(now, cluster.tallies.received)
                for shard in cluster.shards.values():
                    freed += shard.look(shard.clock())
            trimmer.look(now - looked, freed)
            looked = now

    def _give_memory_back(self) -> None:
        give_back()
        self.read_gate.give_back_unused()

    def _count_entities(self) -> None:
        """Refresh the caches' statistics, those that are longest overdue first, for at most COUNTING_S."""
        deadline = time.monotonic() + COUNTING_S
        found = [each.cache.statistics for each in self.clusters.values() if each.cache is not None]
        for statistics in sorted(found, key=lambda each: each.due_at):
            if time.monotonic() > deadline:
                break
            statistics.refresh()

    def _owned(self, number: int, state: Ownership, why: str) -> None:
        """The broker's word on who owns a cluster. Only an owner connects its shards."""
        before = self.ownership.get(number)
        self.ownership[number] = (state, why)
        self._others_since.pop(number, None)
        cluster = self.clusters.get(number)
        if cluster is None:
            return  # given up meanwhile
        extra = {"cluster": number, "action": "ownership"}
        if state == "owned":
            log.info("%s is ours", topology.incoming(number), extra=extra)
            self._elsewhere.discard(number)
            tenure = self.tenures.get(number)
            is_taken_over = tenure is None or tenure.is_first
            cluster.start(existed=is_taken_over and bool(self._inbound[number].existed))
        elif state == "elsewhere":
            log.warning("%s; this cluster's shards stay away until it has left", why, extra=extra)
            self._elsewhere.add(number)
            if self.fleet is None:
                self._yield(number)
            else:
                # The connection of a member that died goes in parts: its flags may go before its consumer.
                cluster.spawn(self._yield_later(number))
        elif state == "refused":
            log.error("%s", why, extra=extra)
        else:
            log.warning("%s%s", why, "" if before else "; waiting for it", extra=extra)
            # The state folder's lock is ours and sessions are stored: Discord's buffer does not wait for the broker.
            # Not so when another gateway was the owner just now: it goes on without the broker, as we would.
            may_start = cluster.resumable and self.settings.broker.spool_bytes if self.fleet is None else True
            if may_start and number not in self._elsewhere:
                cluster.start()

    def _yield(self, number: int) -> None:
        """Leave a cluster's shards to the gateway that has its inbound queue."""
        self._inbound[number].tell_idle()
        self.clusters[number].yield_shards()

    async def _yield_later(self, number: int) -> None:
        """Leave the shards to a gateway outside the fleet, if it has the queue for so long."""
        since = time.monotonic()
        while time.monotonic() - since < OTHER_LIVE_S:
            await asyncio.sleep(LOOK_EVERY_S)
            if number not in self._elsewhere:
                return
        if number in self.clusters:
            self._yield(number)

    def _give_up(self, number: int, why: str) -> None:
        """Leave a cluster, whose shards may not identify here, to another gateway, until a restart."""
        cluster = self.clusters.get(number)
        if cluster is None or number in self._left:
            return
        self._left.add(number)
        words = f"given up for another gateway: {why}"
        self.ownership[number] = ("refused", words)
        log.error("%s", words, extra={"cluster": number, "action": "ownership"})
        cluster.yield_shards()
        inbound = self._tasks.get(number, ())[1:]
        for task in inbound:
            task.cancel()

    def owns(self, number: int) -> bool:
        """Return whether this process answers a cluster's requests, and no other gateway does."""
        state, _ = self.ownership.get(number, ("away", ""))
        return state == "owned" or self._inbound[number].stands_in

    def elsewhere(self) -> frozenset[int]:
        """Return clusters that another gateway runs, or is to run, as far as this process knows."""
        found = {number for number, (state, _) in self.ownership.items() if state == "elsewhere"}
        return frozenset(found | self._left)

    @property
    def processes(self) -> int:
        """See ``fleet.member.HeldClusters``."""
        return 1

    def tenure_views(self) -> list[TenureView]:
        """Return the clusters of the fleet that are owned here now; none without a fleet."""
        if self.fleet is None:
            return []
        views = (
            tenure_view(self.clusters[number], tenure, self.fleet) for number, tenure in self.tenures.items()
        )
        return [view for view in views if view is not None]

    def move(self, number: int, to: str) -> bool:
        """Begin to hand a cluster over to the member *to* of the fleet; whether it was owned here and did not move."""
        tenure = self.tenures.get(number)
        if tenure is None or tenure.owned is None or tenure.is_moving:
            return False

        async def move() -> None:
            await tenure.move(to)

        self.clusters[number].spawn(move())
        return True

    def progress(self) -> tuple[int, int]:
        """(Live shards, all shards), of the clusters that are to run here now."""
        running = [
            cluster
            for number, cluster in self.clusters.items()
            if number not in self.tenures or self.tenures[number].owned is not None
        ]
        shards = [shard for cluster in running for shard in cluster.shards.values()]
        return sum(1 for shard in shards if shard.conversation.state is State.LIVE), len(shards)

    def use_gateway(self, url: str) -> None:
        """Take another address of Discord's gateway: identifies go there, and resumes whose own host is down."""
        for cluster in self.clusters.values():
            for shard in cluster.shards.values():
                shard.conversation.gateway_url = url

    async def restart_shard(self, shard_id: int, new_session: bool, refusal: str) -> Answered | None:
        """See :meth:`restart`. The same interface as the supervisor's, which asks another process."""
        return self.restart(shard_id, new_session, refusal)

    def restart(self, shard_id: int, new_session: bool, refusal: str) -> Answered | None:
        """Reconnect one shard, which resumes, or give its session up for a new one; None when it does not run here.

        ``refusal``: why it would get no permit to identify now; empty when it would.
        """
        cluster = self.clusters.get(self.choice.layout.cluster_of(shard_id))
        return None if cluster is None else _restart(cluster.shards[shard_id], new_session, refusal)

    def identify_fault(self, lasts: bool) -> None:
        """Take in that identifies of many shards fail alike, which is no shard's own fault, or that they
        succeed again.
        """
        for cluster in self.clusters.values():
            for shard in cluster.shards.values():
                if lasts:
                    shard.excuse()
                else:
                    shard.forgive()

    def renew_shard(self, shard_id: int, why: str) -> bool:
        """Give one shard's session up for a new one, told as a gap; whether it runs here."""
        cluster = self.clusters.get(self.choice.layout.cluster_of(shard_id))
        if cluster is None:
            return False
        cluster.shards[shard_id].renew(why)
        return True

    async def drain(self, number: int) -> int | None:
        """Settle and close a cluster, keeping its sessions, and give up its queue.

        Returns how many of its events the broker has not confirmed, which stay in the spool; None when it does not
        run here.
        """
        cluster = self.clusters.pop(number, None)
        if cluster is None:
            return None
        tenure = self.tenures.pop(number, None)
        if tenure is not None:
            await tenure.leave()
        left = await cluster.stop(end_sessions=False, timeout=self.settings.process.stop_timeout)
        tasks = self._tasks.pop(number, ())
        for task in tasks:
            task.cancel()
        # They put into the spool what is still unconfirmed; its files are closed after that.
        if tasks:
            await asyncio.wait(tasks)
        spool = cluster.publisher.spool
        left = max(left, spool.events if spool is not None else 0)
        extra = {"cluster": number, "action": "drained"}
        if left:
            words = "%d events of the cluster are not confirmed; they stay in the spool of this state folder"
            log.warning(words, left, extra=extra)
        cluster.close()
        self.ownership.pop(number, None)
        self._left.add(number)
        self.responders.pop(number, None)
        log.info("cluster %d is given up for another gateway", number, extra=extra)
        return left

    def reload(self, settings: Settings) -> None:
        """Take over what can change at run time: log level, events, presence."""
        self.settings = settings
        logs.set_level(settings.log.level)
        for cluster in self.clusters.values():
            cluster.reload(settings)

    async def wind_down(self, *, end_sessions: bool, to: Mapping[int, str] = MappingProxyType({})) -> None:
        """Close in the reverse order of the start; wait for confirms, at most STOP_TIMEOUT seconds. *to*: the members
        of the fleet that clusters are handed over to; others go to any."""
        timeout = self.settings.process.stop_timeout
        if self._cache_moves is not None:
            self._cache_moves.is_leaving = True
        await asyncio.gather(
            *(
                tenure.leave(end_sessions=end_sessions, to=to.get(number, ""))
                for number, tenure in self.tenures.items()
            )
        )
        left = await asyncio.gather(
            *(
                cluster.stop(end_sessions=end_sessions, timeout=timeout)
                for cluster in reversed(self.clusters.values())
            )
        )
        if sum(left):
            log.warning(
                "%d events were not confirmed in time; Discord sends them again to the next start",
                sum(left),
                extra={"action": "stop"},
            )
        log.info(
            "stopped; sessions %s",
            "ended" if end_sessions else "kept: the next start resumes",
            extra={"action": "stop"},
        )

    def close(self) -> None:
        """Give the stores and spools back."""
        for cluster in self.clusters.values():
            cluster.close()


def _restart(shard: Shard, new_session: bool, refusal: str) -> Answered:
    conversation, who = shard.conversation, f"shard {shard.shard_id}"
    state, has_session = conversation.state, conversation.session_id is not None
    if state in (State.IDLE, State.STOPPED, State.FATAL):
        return Answered(
            False, f"{who} is {state.value}: {shard.why or 'its cluster is not held by this gateway'}"
        )
    if refusal and (new_session or not has_session):
        keeps = "keeps its session" if has_session else "cannot identify"
        return Answered(False, f"{who} {keeps}: {refusal}")
    if new_session and has_session:
        shard.renew(BY_OPERATOR)
        return Answered(True, f"{who} gives its session up and identifies; RATEWAY_GAP tells the workers")
    if state in (State.WAITING_PERMIT, State.IDENTIFYING):
        return Answered(True, f"{who} has no session and is about to identify")
    shard.reconnect(BY_OPERATOR)
    if state is State.CONNECTING:
        return Answered(True, f"{who} is connecting already")
    return Answered(True, f"{who} reconnects and {'resumes' if has_session else 'identifies'}")
