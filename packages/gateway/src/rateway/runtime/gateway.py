"""A gateway in one process: chooses the layout, grants its own identifies, holds all clusters, ends in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from rateway import exit_codes, logs
from rateway.config import Settings
from rateway.config.reload import reloaded
from rateway.fleet.choice import Choice
from rateway.fleet.identify import IdentifyGovernor
from rateway.fleet.layout import Layout
from rateway.runtime.answered import Answered
from rateway.runtime.identify.permits import FolderLedger, GatewayPermits, LocalPermits
from rateway.runtime.layout_search import MOST_LAYOUTS, RESHARDING, LayoutSearch
from rateway.runtime.maintenance import Renewal
from rateway.runtime.startup import (
    FatalEnd,
    Identity,
    choose,
    clusters_of,
    dead_token,
    refuse_layout,
    remember_layout,
)
from rateway.runtime.supervisor.supervisor import Supervisor, cores
from rateway.session.actions import Fatal
from rateway.transports.rest import DiscordRest, GatewayBot, RestFailure
from rateway.transports.state import FatalRecord, StateDir, StateError
from rateway_protocol.contract import topology

if TYPE_CHECKING:
    from rateway.runtime.fleet.member import FleetMember
    from rateway.runtime.runner.runner import Runner

log = logging.getLogger(__name__)

Result = TypeVar("Result")

__all__ = ["Gateway"]


class Gateway:
    """``run`` returns the exit code."""

    def __init__(self, settings: Settings, state: StateDir) -> None:
        self.settings = settings
        self.state = state
        self.started_at = time.monotonic()
        self.phase = "starting"
        self.choice: Choice | None = None
        self.held: Runner | Supervisor | None = None
        self.given_up: set[int] = set()
        """Clusters that an operator has drained."""
        self.permits: GatewayPermits | None = None
        self.fleet: FleetMember | None = None
        """None where this gateway is alone."""
        self._identity = Identity.of(settings, state)
        self._rest = DiscordRest(settings.rest.api_url, settings.session.token, hosts=settings.rest.hosts)
        self._fatal: FatalRecord | None = None
        self._stop = asyncio.Event()
        # Whether a person, or what is fatal, ends the gateway: another layout does not change that.
        self._is_stopped = False
        self._end_sessions = False
        # What Discord refused the layout with, and how many were refused in a row without a READY.
        self._refused_layout: Fatal | None = None
        self._layout_refused = asyncio.Event()
        self._layouts_refused = 0
        self._search = LayoutSearch(settings)
        self._replaces = False

    def stop(self, *, end_sessions: bool = False) -> None:
        """Begin the planned stop; ``run`` returns when it is done."""
        self._end_sessions = self._end_sessions or end_sessions
        self._is_stopped = True
        self._stop.set()

    async def run(self) -> int:
        """Hold the bot's sessions until stopped; the exit code (0, or 78 when a person must change something)."""
        remembered = self.state.fatal(self._identity.settings)
        if remembered is not None:
            _say(
                remembered,
                "the last start with these settings ended so, nothing was sent to Discord; rateway check asks again",
            )
            return exit_codes.CONFIGURATION
        try:
            if self.settings.fleet.name is None:
                while await self._once():
                    pass
            else:
                await self._in_fleet()
        except FatalEnd as end:
            self._fatal = end.record
        if self._fatal is None:
            return 0
        self._remember(self._fatal)
        _say(self._fatal, "")
        return exit_codes.CONFIGURATION

    async def _in_fleet(self) -> None:
        """Take part in the fleet, over all lives of the clusters."""
        # What a gateway that is alone does not load.
        from rateway.runtime.fleet.opening import open_member

        if self.settings.identify.buckets is not None:
            log.warning(
                "IDENTIFY_BUCKETS is not used in a fleet, whose governor counts the identifies of all members",
                extra={"action": "layout"},
            )
        fleet = self.fleet = open_member(self.settings, self.state, self._rest, self)
        async with asyncio.TaskGroup() as tasks:
            taking_part = tasks.create_task(fleet.run())
            while await self._once():
                pass
            await fleet.leave()
            taking_part.cancel()

    async def _once(self) -> bool:
        """One life of the clusters; whether another one, with another layout, is to follow."""
        fleet = self.fleet
        choosing = (
            choose(self.settings, self.state, self._rest, self._identity) if fleet is None else fleet.choose()
        )
        choice = self.choice = await self._unless_stopped(choosing)
        if choice is None:
            return False
        mine = clusters_of(self.settings, choice.layout)
        self._refused_layout, self._search.note, self._replaces = None, "", False
        self._layout_refused.clear()
        work: list[Coroutine[Any, Any, None]] = []
        if fleet is None:
            self._warn_of_others(choice, mine)
            local = self._local_permits(choice, mine)
            self.permits = local
            work += [local.run(), self._replace_layout(choice, local)]
        else:
            self._identity = fleet.identity()
            self.permits = fleet.permits
        held = self.held = self._make_held(choice, mine, self.permits)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(each) for each in (held.run(), *work)]
                self.phase = "running"
                await self._stop.wait()
                self.phase = "stopping"
                to = fleet.begin_leaving() if fleet is not None and not self._replaces else {}
                await held.wind_down(end_sessions=self._end_sessions, to=to)
                for task in running:
                    task.cancel()
        finally:
            held.close()
        if self._replaces and fleet is None:
            self._layouts_refused = 1 if self.permits.facts().readies else self._layouts_refused + 1
            refuse_layout(self.state, choice)
        if not self._replaces or self._is_stopped:
            return False
        if fleet is not None:
            self.held = None
            fleet.ended()
        self._stop.clear()
        return True

    def _local_permits(self, choice: Choice, mine: list[int]) -> LocalPermits:
        """Return the permits of a gateway that is alone."""
        governor = IdentifyGovernor(
            shards=[shard for number in mine for shard in choice.layout.shards_of(number)],
            buckets=self.settings.identify.buckets,
            crash_loop=self.settings.identify.crash_loop,
            new_layout=self._layouts_refused > 0,
        )
        return LocalPermits(
            governor,
            FolderLedger(self.state),
            self._rest,
            bot=self._identity.account,
            on_gateway_bot=self._learn,
            any_live=lambda: self.progress()[0] > 0,
            on_dead_token=self._token_is_dead,
            on_fault=self.identify_fault,
        )

    def _make_held(self, choice: Choice, mine: list[int], permits: GatewayPermits) -> Runner | Supervisor:
        """This process itself, or a process for each core."""
        settings, identity = self.settings, self._identity
        part = None if self.fleet is None else self.fleet.part
        processes = min(settings.process.processes or cores(), len(mine))
        if processes <= 1:
            # A supervisor moves no event: it loads nothing of what does (docs/decisions/memory.md).
            from rateway.runtime.runner.runner import Runner

            return Runner(settings, self.state, identity, choice, mine, permits, self._on_fatal, part)
        log.info("%d runners run %d clusters", processes, len(mine), extra={"action": "processes"})
        lock_file = self.state.lock_file
        membership = None if part is None else part.membership
        return Supervisor(
            settings, identity, choice, mine, processes, permits, lock_file, self._on_fatal, membership
        )

    def progress(self) -> tuple[int, int]:
        """(Live shards, all shards) of this gateway."""
        return self.held.progress() if self.held is not None else (0, 0)

    async def restart_shard(self, shard_id: int, *, new_session: bool) -> Answered:
        """Reconnect one shard, or give its session up for a new one; a crash loop that stopped it is forgiven."""
        held, permits = self.held, self.permits
        if held is None or permits is None or self.choice is None or shard_id >= self.choice.layout.shards:
            return Answered(False, f"shard {shard_id} does not run here: {self.words_for_clusters()}")
        answer = await permits.ask_restart(shard_id, new_session=new_session)
        if answer.unknown:
            why = f"it is not known how many identifies are left: {answer.unknown}"
            return Answered(False, f"shard {shard_id} keeps its session: {why}")
        found = await held.restart_shard(shard_id, new_session, answer.refusal)
        return found or Answered(False, f"shard {shard_id} does not run here: {self.words_for_clusters()}")

    def notes(self) -> list[str]:
        """Notes for the operator about the gateway as a whole, most important first."""
        found = [self._search.note] if self._search.note else []
        if self.fleet is not None:
            found += self.fleet.notes()
        return found + (self.permits.facts().notes if self.permits is not None else [])

    def renewal(self) -> Renewal | None:
        """Return which sessions are renewed for their age or to fill the cache; None where none are."""
        settings = self.settings
        if settings.session.max_age is None and not settings.cache.renew:
            return None
        return Renewal(
            settings.session.max_age, self._may_renew, self._renew_shard, fills_cache=settings.cache.renew
        )

    def _may_renew(self) -> bool:
        """Room in the day's budget beyond the reserve that lost sessions may need."""
        if self.permits is None:
            return False
        facts = self.permits.facts()
        if facts.total is None:
            # All sessions were resumed, so REST was not asked yet. The next look knows it.
            self.permits.want_budget()
            return False
        return facts.available > facts.reserve

    def _renew_shard(self, shard_id: int, why: str) -> bool:
        return self.held is not None and self.held.renew_shard(shard_id, why)

    async def drain(self, cluster: int) -> int | None:
        """Give a cluster up for another gateway: how many of its events stay here unconfirmed.

        None when it does not run here.
        """
        left = None if self.held is None else await self.held.drain(cluster)
        if left is not None:
            self.given_up.add(cluster)
        return left

    @property
    def exchanges(self) -> list[str]:
        """The exchanges of the bot's clusters; none before their number is known."""
        return (
            [] if self.choice is None else [topology.exchange(each) for each in self.choice.layout.clusters]
        )

    def words_for_clusters(self) -> str:
        """Return which clusters run here, for an operator who named another one."""
        if self.choice is None:
            return "nothing runs yet"
        layout = self.choice.layout
        return f"the bot has {layout.shards} shards in {len(layout.clusters)} clusters"

    def reload(self, settings: Settings) -> None:
        """Take over what can change at run time, and say what cannot."""
        self.settings, fixed = reloaded(self.settings, settings)
        if fixed:
            log.warning("%s: changed only by a restart", ", ".join(fixed), extra={"action": "reload"})
        logs.set_level(self.settings.log.level)
        if self.held is not None:
            self.held.reload(self.settings)
        log.info("settings read again", extra={"action": "reload"})

    async def _replace_layout(self, choice: Choice, permits: LocalPermits) -> None:
        """Once Discord refuses the layout: look for one that it takes, and stop for it."""
        await self._layout_refused.wait()
        refused = self._refused_layout
        assert refused is not None
        await self._search.run(
            refused, choice, permits, self._identifies_for, live=lambda: self.progress()[0]
        )
        self._replaces = True
        self._stop.set()

    def _identifies_for(self, layout: Layout) -> int:
        return sum(len(layout.shards_of(each)) for each in clusters_of(self.settings, layout))

    def _warn_of_others(self, choice: Choice, mine: list[int]) -> None:
        if len(mine) < len(choice.layout.clusters) and self.settings.identify.buckets is None:
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
        self._search.learn(answer)
        if choice is None:
            return
        self.use_gateway(answer.url)
        if self.settings.layout.shards is not None:
            return
        recommended = answer.shards + self.settings.layout.extra
        if recommended != choice.layout.shards:
            log.info(
                "%d shards are in force. With the %d that Discord recommends and EXTRA_SHARDS=%d it would be %d: "
                "RESHARD=1 changes it, and ends every session",
                choice.layout.shards,
                answer.shards,
                self.settings.layout.extra,
                recommended,
                extra={"action": "layout"},
            )

    def _on_fatal(self, shard_id: int, order: Fatal) -> None:
        if order.code in RESHARDING and self.settings.layout.shards is None:
            readies = self.permits.facts().readies if self.permits is not None else 0
            fleet = self.fleet
            refused = self._layouts_refused
            if fleet is not None and fleet.charter is not None:
                refused = fleet.charter.refused_in_a_row
            if readies or refused < MOST_LAYOUTS:
                if fleet is not None:
                    fleet.refuse_layout(order)
                elif self._refused_layout is None:
                    self._refused_layout = order
                    self._layout_refused.set()
                return
            help_text = (
                f"Discord has refused {MOST_LAYOUTS + 1} numbers of shards in a row, multiples of its own among them: "
                "set SHARDS (`shards.total`) to what it demands, for a very large bot a multiple of the number that "
                "Discord has set, and start with RESHARD=1"
            )
            order = Fatal(order.code, order.meaning, help_text)
        self.end(FatalRecord(order.code, order.meaning, order.help, time.time()))

    def _token_is_dead(self, failure: RestFailure) -> None:
        self.end(dead_token(failure))

    def end(self, record: FatalRecord) -> None:
        """Stop for what a person must change."""
        if self._fatal is None:
            self._fatal = record
        self.stop()

    # What the fleet asks (``fleet.member.MemberGateway``).

    @property
    def clusters(self) -> Runner | Supervisor | None:
        """Return the clusters that run here."""
        return self.held

    def change_layout(self) -> None:
        """End this life of the clusters; the next one takes the fleet's new layout."""
        self._replaces = True
        self._stop.set()

    def use_gateway(self, url: str) -> None:
        """Discord's gateway has another address."""
        if self.choice is not None and self.held is not None and self.choice.gateway_url != url:
            self.choice = msgspec.structs.replace(self.choice, gateway_url=url)
            remember_layout(self.state, self.choice)
            self.held.use_gateway(url)

    def identify_fault(self, lasts: bool) -> None:
        """Identifies of many shards fail alike, or succeed again."""
        if self.held is not None:
            self.held.identify_fault(lasts)

    def _remember(self, record: FatalRecord) -> None:
        try:
            self.state.remember_fatal(self._identity.settings, record)
        except StateError as error:
            log.error("%s", error, extra={"action": "state_folder"})

    async def _unless_stopped(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """Return the coroutine's result, or None when the stop came first."""
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
