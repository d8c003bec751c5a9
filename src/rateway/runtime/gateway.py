"""All of a gateway that runs in this process: its clusters, what they share, and how it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from pathlib import Path

import msgspec

from rateway.cache.policy import CachePolicy
from rateway.config import Settings
from rateway.contract import topology
from rateway.delivery.limits import DeliveryLimits
from rateway.fleet.choice import Choice, StoredLayout, keep_stored, take_recommended
from rateway.fleet.identify import IdentifyGovernor
from rateway.runtime.cluster import Cluster, ClusterTools
from rateway.runtime.dialer import Dialer
from rateway.runtime.permits import LocalPermits
from rateway.runtime.responder import Responder
from rateway.session.options import CommandBudget, SessionOptions
from rateway.session.orders import Fatal
from rateway.transports.amqp import uri
from rateway.transports.amqp.inbound import Inbound, Ownership
from rateway.transports.rest import USER_AGENT, DiscordRest, GatewayBot, RestFailure, backoff
from rateway.transports.spool import Spool, SpoolFull
from rateway.transports.state import FatalRecord, StateDir, StateError
from rateway.transports.store import Store, StoreFault

log = logging.getLogger(__name__)

# sysexits.h, EX_CONFIG: a restarter must not try again (systemd's RestartPreventExitStatus).
EX_CONFIG = 78
LAYOUT = "layout.json"
INBOUND_KEYS = (topology.CACHE_KEY, topology.GATEWAY_KEY)
# How long a start waits for the ownership of a cluster before sessions are resumed without a broker.
BROKER_GRACE_S = 5.0


class FatalEnd(Exception):
    """Nothing can work until a person changes something; the message says what."""


class Gateway:
    """One process's gateway. ``run`` returns the exit code."""

    def __init__(self, settings: Settings, state: StateDir) -> None:
        self.settings = settings
        self.state = state
        self.clusters: dict[int, Cluster] = {}
        self.started_at = time.monotonic()
        self.phase = "starting"
        self.choice: Choice | None = None
        self.fatal: FatalRecord | None = None
        self.inbound: dict[int, Inbound] = {}
        self.ownership: dict[int, tuple[Ownership, str]] = {}
        self.permits: LocalPermits | None = None
        self.responders: dict[int, Responder] = {}
        self._stop = asyncio.Event()
        self._end_sessions = False
        token = settings.token.reveal()
        self._bot = state.fingerprint("token", token)
        self._fingerprint = state.fingerprint(
            "settings", token, str(settings.intents), str(settings.shards), settings.api_url, str(settings.extra_shards)
        )
        self._rest = DiscordRest(settings.api_url, settings.token)

    def stop(self, *, end_sessions: bool = False) -> None:
        """Begin the planned stop; ``run`` returns when it is done."""
        self._end_sessions = self._end_sessions or end_sessions
        self._stop.set()

    @property
    def stopping(self) -> asyncio.Event:
        """Set once the stop has begun."""
        return self._stop

    async def run(self) -> int:
        """Hold the bot's sessions until stopped; the exit code (0, or 78 when a person must change something)."""
        remembered = self.state.fatal(self._fingerprint)
        if remembered is not None:
            self._say_fatal(remembered, "the last start with these settings ended so; nothing was sent to Discord")
            return EX_CONFIG
        try:
            choice = self.choice = await self._unless_stopped(self._choose())
            if choice is None:
                return 0
            async with asyncio.TaskGroup() as tasks:
                background = tasks.create_task(self._hold(choice))
                await self._stop.wait()
                self.phase = "stopping"
                await self._wind_down()
                background.cancel()
        except FatalEnd:
            pass
        finally:
            for cluster in self.clusters.values():
                cluster.close()
            await self._rest.close()
        if self.fatal is not None:
            self._remember(self.fatal)
            self._say_fatal(self.fatal, "")
            return EX_CONFIG
        return 0

    # Starting.

    async def _choose(self) -> Choice:
        settings = self.settings
        stored = self._stored_layout()
        kept = keep_stored(
            stored,
            resumable=self._count_resumable(stored) if stored is not None else 0,
            reshard=settings.reshard,
            shards=settings.shards,
            per_cluster=settings.shards_per_cluster,
        )
        if isinstance(kept, Choice):
            choice = kept
        else:
            if kept:
                log.warning("%s", kept, extra={"action": "layout"})
            answer = await self._ask_discord()
            choice = take_recommended(
                shards=settings.shards,
                recommended=answer.shards,
                extra=settings.extra_shards,
                per_cluster=settings.shards_per_cluster,
                gateway_url=answer.url,
            )
        log.info("%s, %d clusters", choice.words, len(choice.layout.clusters), extra={"action": "layout"})
        layout = StoredLayout(choice.layout.shards, choice.layout.per_cluster, choice.gateway_url)
        if layout != stored:
            self.state.write(LAYOUT, msgspec.json.encode(layout))
        return choice

    def _stored_layout(self) -> StoredLayout | None:
        data = self.state.read(LAYOUT)
        try:
            return msgspec.json.decode(data, type=StoredLayout) if data else None
        except msgspec.DecodeError:
            log.warning("the stored layout cannot be read and is not used", extra={"action": "layout"})
            return None

    def _count_resumable(self, stored: StoredLayout) -> int:
        """Sessions of the stored layout that fit this bot and these intents. Says what does not carry over."""
        from rateway.fleet.layout import Layout

        resumable, foreign = 0, 0
        for number in self._mine(Layout(stored.shards, stored.per_cluster)):
            store = self._open_store(number)
            if isinstance(store, StoreFault):
                continue
            for record in store.sessions():
                if record.session_id and record.shard_count == stored.shards:
                    if record.intents == self.settings.intents and record.token_hash == self._bot:
                        resumable += 1
                    else:
                        foreign += 1
            store.close()
        if foreign:
            log.warning(
                "%d stored sessions belong to other intents or another token and cannot be resumed: "
                "%d identifies will be spent",
                foreign,
                foreign,
                extra={"action": "layout"},
            )
        return resumable

    async def _ask_discord(self) -> GatewayBot:
        attempts = 0
        while True:
            answer = await self._rest.gateway_bot()
            if isinstance(answer, GatewayBot):
                return answer
            self._unauthorized(answer)
            attempts += 1
            delay = backoff(answer, attempts, 0.5)
            log.warning(
                "Discord does not say where its gateway is: %s; asking again in %.0f s",
                answer.text,
                delay,
                extra={"action": "rest"},
            )
            await asyncio.sleep(delay)

    def _unauthorized(self, answer: RestFailure) -> None:
        if answer.kind == "unauthorized":
            help_text = "put the bot's current token into DISCORD_TOKEN (developer portal → Bot → Reset Token)"
            self.fatal = FatalRecord(401, "Discord does not know this token", help_text, time.time())
            raise FatalEnd

    def _mine(self, layout: object) -> list[int]:
        from rateway.fleet.layout import Layout

        assert isinstance(layout, Layout)
        chosen = self.settings.clusters
        missing = sorted(set(chosen or ()) - set(layout.clusters))
        if missing:
            log.warning(
                "CLUSTERS names %s, but there are only clusters 1-%d",
                ", ".join(map(str, missing)),
                len(layout.clusters),
            )
        return [number for number in layout.clusters if chosen is None or number in chosen]

    def _cluster_folder(self, number: int) -> Path:
        return self.state.path / "clusters" / str(number)

    def _open_store(self, number: int) -> Store | StoreFault:
        settings = self.settings
        policy = CachePolicy(
            enabled=settings.cache_enabled,
            messages_per_channel=settings.message_cache_size,
            activities=settings.cache_activities,
            members_from_events=settings.cache_members_from_events,
            before=settings.before,
            message_content=bool(settings.intents & 1 << 15),
            **({"kinds": settings.cache_kinds} if settings.cache_kinds is not None else {}),
        )
        folder = (settings.cache_path or self.state.path / "clusters") / str(number) / "store"
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Store.open(folder, cluster=number, policy=policy, wall=time.time())

    # Holding.

    async def _hold(self, choice: Choice) -> None:
        settings = self.settings
        layout = choice.layout
        mine = self._mine(layout)
        shards = [shard for number in mine for shard in layout.shards_of(number)]
        if len(mine) < len(layout.clusters) and settings.identify_buckets is None:
            log.warning(
                "this gateway runs %d of %d clusters: identifies of other gateways are not counted here. Give each "
                "gateway IDENTIFY_BUCKETS of its own",
                len(mine),
                len(layout.clusters),
                extra={"action": "layout"},
            )
        governor = IdentifyGovernor(
            shards=shards, buckets=settings.identify_buckets, crash_loop=settings.crash_loop_identifies
        )
        self.permits = LocalPermits(governor, self.state, self._rest, bot=self._bot, on_gateway_bot=self._learn)
        tools = self._tools(choice, self.permits, shards)
        for number in mine:
            self.clusters[number] = self._make_cluster(number, tools)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.permits.run(), name="permits")
            for number, cluster in self.clusters.items():
                tasks.create_task(cluster.run(), name=f"cluster {number}")
                responder = self.responders[number] = Responder(self, number)
                inbound = self.inbound[number] = Inbound(
                    address=tools.address,
                    name=f"rateway cluster {number}: queries and commands",
                    exchange=topology.exchange(number),
                    queue=topology.incoming(number),
                    keys=INBOUND_KEYS,
                    on_message=responder.message,
                    on_ownership=lambda state, why, number=number: self._owned(number, state, why),
                )
                responder.inbound = inbound
                tasks.create_task(inbound.run(), name=f"inbound {number}")
            self.phase = "running"

    def _tools(self, choice: Choice, permits: LocalPermits, shards: list[int]) -> ClusterTools:
        settings = self.settings
        template = settings.presence
        options = SessionOptions(
            token=settings.token.reveal(),
            intents=settings.intents,
            compression=settings.compression,
            large_threshold=settings.large_threshold,
            presence=None
            if template is None
            else {
                shard: template.of(shard, choice.layout.shards, choice.layout.cluster_of(shard)) for shard in shards
            },
            resume_patience=settings.resume_patience,
            max_message_bytes=settings.max_message_bytes,
            command_queue=settings.command_queue,
            command_budget=CommandBudget(settings.command_queue_total),
        )
        return ClusterTools(
            settings=settings,
            layout=choice.layout,
            gateway_url=choice.gateway_url,
            options=options,
            limits=DeliveryLimits(
                events=settings.unconfirmed_events,
                bytes=settings.unconfirmed_bytes,
                nack_patience=settings.nack_patience,
            ),
            address=uri.parse(settings.amqp.reveal()),
            dialer=Dialer(
                user_agent=USER_AGENT,
                max_message_bytes=settings.max_message_bytes,
                ssl_context=ssl.create_default_context,
            ),
            permits=permits,
            token_hash=self._bot,
            on_fatal=self._on_fatal,
        )

    def _make_cluster(self, number: int, tools: ClusterTools) -> Cluster:
        extra = {"cluster": number, "action": "store"}
        store = self._open_store(number)
        words = "ok"
        if isinstance(store, StoreFault):
            words = store.words
            log.error("the store cannot be used: %s. Events flow on; a restart will not resume", words, extra=extra)
        else:
            for line in store.words:
                log.info("%s", line, extra=extra)
        spool = None
        if self.settings.spool_bytes:
            try:
                spool = Spool.open(self._cluster_folder(number) / "spool", self.settings.spool_bytes)
            except (OSError, SpoolFull) as error:
                log.error("the spool cannot be used: %s", error, extra=extra)
        return Cluster(number, tools, None if isinstance(store, StoreFault) else store, words, spool)

    def _owned(self, number: int, state: Ownership, why: str) -> None:
        """The broker's word on who owns a cluster. Only an owner connects its shards."""
        before = self.ownership.get(number)
        self.ownership[number] = (state, why)
        cluster = self.clusters[number]
        extra = {"cluster": number, "action": "ownership"}
        if state == "owned":
            log.info("%s is ours", topology.incoming(number), extra=extra)
            cluster.start()
        elif state == "elsewhere":
            log.warning("%s; this cluster's shards stay away until it has left", why, extra=extra)
            cluster.yield_shards()
        elif state == "refused":
            log.error("%s", why, extra=extra)
        else:
            log.warning("%s%s", why, "" if before else "; waiting for it", extra=extra)
            # The state folder's lock is ours and sessions are stored: Discord's buffer does not wait for the broker.
            if cluster.resumable and self.settings.spool_bytes:
                cluster.start()

    # Facts.

    def _learn(self, answer: GatewayBot) -> None:
        choice = self.choice
        if choice is not None and self.settings.shards is None:
            recommended = answer.shards + self.settings.extra_shards
            if recommended != choice.layout.shards:
                log.info(
                    "Discord recommends %d shards now, which would make %d; %d stay in force. RESHARD=1 changes it",
                    answer.shards,
                    recommended,
                    choice.layout.shards,
                    extra={"action": "layout"},
                )

    def _on_fatal(self, shard_id: int, order: Fatal) -> None:
        if self.fatal is None:
            self.fatal = FatalRecord(order.code, order.meaning, order.help, time.time())
        self.stop()

    def _remember(self, record: FatalRecord) -> None:
        try:
            self.state.remember_fatal(self._fingerprint, record)
        except StateError as error:
            log.error("%s", error)

    def _say_fatal(self, record: FatalRecord, why: str) -> None:
        log.critical(
            "%d %s: %s%s", record.code, record.meaning, record.help, f" ({why})" if why else "", extra={"action": "fatal"}
        )

    # Stopping.

    async def _wind_down(self) -> None:
        """In the reverse order of the start; what is unconfirmed is waited for, at most STOP_TIMEOUT seconds."""
        timeout = self.settings.stop_timeout
        left = await asyncio.gather(
            *(
                cluster.stop(end_sessions=self._end_sessions, timeout=timeout)
                for cluster in reversed(self.clusters.values())
            )
        )
        if sum(left):
            log.warning(
                "%d events were not confirmed in time; Discord sends them again to the next start",
                sum(left),
                extra={"action": "stop"},
            )
        if self.clusters:
            log.info(
                "stopped; sessions %s",
                "ended" if self._end_sessions else "kept: the next start resumes",
                extra={"action": "stop"},
            )

    async def _unless_stopped(self, coroutine: object) -> Choice | None:
        """The coroutine's result, or None when the stop came first."""
        assert asyncio.iscoroutine(coroutine)
        work = asyncio.ensure_future(coroutine)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not work.done():
            work.cancel()
            return None
        result = work.result()
        assert isinstance(result, Choice)
        return result


__all__ = ["EX_CONFIG", "Gateway"]
