"""A gateway in one process: chooses the layout, grants its own identifies, holds all clusters, ends in order."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from rateway import logs
from rateway.config import Settings
from rateway.fleet.choice import Choice
from rateway.fleet.identify import IdentifyGovernor
from rateway.runtime.caretaker import Renewal
from rateway.runtime.crew import Crew, cores
from rateway.runtime.permits import LocalPermits
from rateway.runtime.start import FatalEnd, Identity, choose, clusters_of, forget_layout, remember_layout
from rateway.session.orders import Fatal
from rateway.transports.rest import DiscordRest, GatewayBot
from rateway.transports.state import FatalRecord, StateDir, StateError

if TYPE_CHECKING:
    from rateway.runtime.worker import Worker

log = logging.getLogger(__name__)

# sysexits.h, EX_CONFIG: a restarter must not try again (systemd's RestartPreventExitStatus).
EX_CONFIG = 78
# Invalid shard, sharding required: another number of shards may work.
RESHARDING = frozenset({4010, 4011})

Result = TypeVar("Result")

__all__ = ["EX_CONFIG", "Gateway"]


class Gateway:
    """``run`` returns the exit code."""

    def __init__(self, settings: Settings, state: StateDir) -> None:
        self.settings = settings
        self.state = state
        self.started_at = time.monotonic()
        self.phase = "starting"
        self.choice: Choice | None = None
        self.held: Worker | Crew | None = None
        self.permits: LocalPermits | None = None
        self._identity = Identity.of(settings, state)
        self._rest = DiscordRest(settings.api_url, settings.token, hosts=settings.gateway_hosts)
        self._fatal: FatalRecord | None = None
        self._stop = asyncio.Event()
        self._end_sessions = False
        self._resharded = False

    def stop(self, *, end_sessions: bool = False) -> None:
        """Begin the planned stop; ``run`` returns when it is done."""
        self._end_sessions = self._end_sessions or end_sessions
        self._stop.set()

    async def run(self) -> int:
        """Hold the bot's sessions until stopped; the exit code (0, or 78 when a person must change something)."""
        remembered = self.state.fatal(self._identity.settings)
        if remembered is not None:
            _say(
                remembered,
                "the last start with these settings ended so, nothing was sent to Discord; rateway check asks again",
            )
            return EX_CONFIG
        try:
            while await self._once():
                pass
        except FatalEnd as end:
            self._fatal = end.record
        if self._fatal is None:
            return 0
        self._remember(self._fatal)
        _say(self._fatal, "")
        return EX_CONFIG

    async def _once(self) -> bool:
        """One life of the clusters; whether another one, with another layout, is to follow."""
        choice = self.choice = await self._unless_stopped(
            choose(self.settings, self.state, self._rest, self._identity)
        )
        if choice is None:
            return False
        mine = clusters_of(self.settings, choice.layout)
        self._warn_of_others(choice, mine)
        shards = [shard for number in mine for shard in choice.layout.shards_of(number)]
        governor = IdentifyGovernor(
            shards=shards,
            buckets=self.settings.identify_buckets,
            crash_loop=self.settings.crash_loop_identifies,
        )
        permits = self.permits = LocalPermits(
            governor, self.state, self._rest, bot=self._identity.account, on_gateway_bot=self._learn
        )
        worker = self.held = self._hands(choice, mine, permits)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(permits.run()), tasks.create_task(worker.run())]
                self.phase = "running"
                await self._stop.wait()
                self.phase = "stopping"
                await worker.wind_down(end_sessions=self._end_sessions)
                for task in running:
                    task.cancel()
        finally:
            worker.close()
        return self._reshards()

    def _hands(self, choice: Choice, mine: list[int], permits: LocalPermits) -> Worker | Crew:
        """This process itself, or a process for each core."""
        settings, identity = self.settings, self._identity
        processes = min(settings.processes or cores(), len(mine))
        if processes <= 1:
            # A supervisor moves no event: it loads nothing of what does (docs/performance.md, "Processes").
            from rateway.runtime.worker import Worker

            return Worker(settings, self.state, identity, choice, mine, permits, self._on_fatal)
        log.info("%d worker processes run %d clusters", processes, len(mine), extra={"action": "processes"})
        lock_file = self.state.lock_file
        return Crew(settings, identity, choice, mine, processes, permits, lock_file, self._on_fatal)

    def progress(self) -> tuple[int, int]:
        """(Live shards, all shards) of this gateway."""
        return self.held.progress() if self.held is not None else (0, 0)

    def restart_shard(self, shard_id: int) -> bool:
        """Reconnect one shard; a crash loop that stopped it is forgiven. Whether it runs here."""
        if self.held is None or self.choice is None or shard_id >= self.choice.layout.shards:
            return False
        if self.permits is not None:
            self.permits.restart(shard_id)
        return self.held.restart_shard(shard_id)

    def renewal(self) -> Renewal | None:
        """How sessions are renewed for their age or to fill the cache, if they are."""
        settings = self.settings
        if settings.session_max_age is None and not settings.cache_renew:
            return None
        return Renewal(
            settings.session_max_age, self._may_renew, self._renew_shard, fills_cache=settings.cache_renew
        )

    def _may_renew(self) -> bool:
        """Room in the day's budget beyond the reserve that lost sessions may need."""
        if self.permits is None:
            return False
        governor = self.permits.governor
        if governor.total is None:
            # All sessions were resumed, so nobody has asked yet. The next look knows it.
            self.permits.want_budget()
            return False
        return governor.available(self.permits.now()) > governor.reserve

    def _renew_shard(self, shard_id: int, why: str) -> bool:
        return self.held is not None and self.held.renew_shard(shard_id, why)

    async def drain(self, cluster: int) -> int | None:
        """Give a cluster up for another gateway: how many of its events stay here unconfirmed.

        None when it does not run here.
        """
        return None if self.held is None else await self.held.drain(cluster)

    def words_for_clusters(self) -> str:
        """What runs here, for a person who asked for something else."""
        if self.choice is None:
            return "nothing runs yet"
        layout = self.choice.layout
        return f"the bot has {layout.shards} shards in {len(layout.clusters)} clusters"

    def reload(self, settings: Settings) -> None:
        """Take over what can change at run time, and say what cannot."""
        fixed = [
            row
            for row in changed(self.settings, settings)
            if row not in ("log_level", "presence", "events", "events_except")
        ]
        if (
            settings.amqp_file is not None
            and settings.amqp_file == self.settings.amqp_file
            and "amqp" in fixed
        ):
            # The next attempt to connect reads it by itself.
            fixed.remove("amqp")
        if fixed:
            log.warning("%s: changed only by a restart", ", ".join(fixed), extra={"action": "reload"})
        kept = {name: getattr(self.settings, name) for name in fixed}
        self.settings = dataclasses.replace(settings, **kept)
        logs.set_level(self.settings.log_level)
        if self.held is not None:
            self.held.reload(self.settings)
        log.info("settings read again", extra={"action": "reload"})

    def _reshards(self) -> bool:
        """4010 and 4011 ask for another number of shards: Discord's recommendation, unless a person chose one."""
        if self._fatal is None or self._fatal.code not in RESHARDING or self.settings.shards is not None:
            return False
        if self._resharded:
            return False  # Discord refuses what it has just recommended: a person has to look
        self._resharded = True
        log.warning(
            "%s: asking Discord for its recommendation", self._fatal.meaning, extra={"action": "layout"}
        )
        self._fatal = None
        self._stop.clear()
        forget_layout(self.state)
        return True

    def _warn_of_others(self, choice: Choice, mine: list[int]) -> None:
        if len(mine) < len(choice.layout.clusters) and self.settings.identify_buckets is None:
            log.warning(
                "this gateway runs %d of %d clusters: identifies of other gateways are not counted here. Give each "
                "gateway IDENTIFY_BUCKETS of its own",
                len(mine),
                len(choice.layout.clusters),
                extra={"action": "layout"},
            )

    # Facts.

    def _learn(self, answer: GatewayBot) -> None:
        choice = self.choice
        if choice is None:
            return
        if answer.url != choice.gateway_url and self.held is not None:
            self.choice = msgspec.structs.replace(choice, gateway_url=answer.url)
            remember_layout(self.state, self.choice)
            self.held.use_gateway(answer.url)
        if self.settings.shards is not None:
            return
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
        if self._fatal is None:
            self._fatal = FatalRecord(order.code, order.meaning, order.help, time.time())
        self.stop()

    def _remember(self, record: FatalRecord) -> None:
        try:
            self.state.remember_fatal(self._identity.settings, record)
        except StateError as error:
            log.error("%s", error)

    async def _unless_stopped(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """The coroutine's result, or None when the stop came first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            return None
        return task.result()


def _say(record: FatalRecord, why: str) -> None:
    log.critical(
        "%d %s: %s%s",
        record.code,
        record.meaning,
        record.help,
        f" ({why})" if why else "",
        extra={"action": "fatal"},
    )


def changed(old: Settings, new: Settings) -> list[str]:
    """Names of the settings that differ."""
    return [
        field.name
        for field in dataclasses.fields(Settings)
        if field.compare and getattr(old, field.name) != getattr(new, field.name)
    ]
