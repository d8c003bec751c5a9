"""This gateway as a member of its fleet: what it says of itself, what it learns of the others, and what it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec
from rateway import __version__
from rateway.config import Settings
from rateway.fleet.balance import BalanceMember, balance_member, hand_over
from rateway.fleet.charter import Charter, GovernorRecord
from rateway.fleet.choice import Choice
from rateway.fleet.membership import Membership
from rateway.fleet.port import Elections
from rateway.fleet.roster import ANNOUNCE_EVERY_S, Announcement, Roster, SeenMember, TenureView
from rateway.runtime.fleet.governor import FleetGovernor
from rateway.runtime.fleet.line import FleetLine
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.fleet.permits import FleetPermits
from rateway.runtime.fleet.records import (
    CanReachDiscord,
    CharterSays,
    DeadTokenSays,
    Done,
    DrainOrder,
    Farewell,
    FaultSays,
    LayoutRefused,
    MoveOrder,
    MoveWish,
    ReshardWish,
)
from rateway.runtime.identify.permits import Clock, Rest
from rateway.runtime.monitoring.fleet_status import fleet_status
from rateway.runtime.monitoring.status import FleetStatus
from rateway.runtime.startup import Identity, account_with, choose, dead_token, remember_layout
from rateway.session.actions import Fatal
from rateway.transports.boot_clock import boottime
from rateway.transports.rest import RestFailure
from rateway.transports.state import FatalRecord, StateDir

__all__ = ["FleetMember", "HeldClusters", "MemberGateway", "RunningElections"]

log = logging.getLogger(__name__)

# Between two looks whether what is announced has changed.
LOOK_EVERY_S = 0.25
# Seconds in which no shard of any cluster here is live before it is asked whether Discord can be reached.
DEAF_AFTER_S = 30.0
PROBE_EVERY_S = 15.0
# For answers of other members; one of them asks Discord first.
ANSWERS_WITHIN_S = 5.0
RESHARD_WITHIN_S = 15.0


class RunningElections(Elections, Protocol):
    """Elections with what keeps them in motion."""

    async def run(self) -> None: ...


class HeldClusters(Protocol):
    """The clusters of this gateway: a ``Runner``, or a ``Supervisor`` of several."""

    @property
    def processes(self) -> int:
        """Over how many processes the clusters that may run here are spread."""

    def tenure_views(self) -> list[TenureView]:
        """Return the clusters that are owned now."""

    def move(self, cluster: int, to: str) -> bool:
        """Begin to hand a cluster over to that member; whether it is owned here."""


class MemberGateway(Protocol):
    """What the fleet asks of the gateway that is its member."""

    @property
    def clusters(self) -> HeldClusters | None:
        """None before any run, and between two layouts."""

    def change_layout(self) -> None:
        """End this life of the clusters; the next one asks for the layout again."""

    def use_gateway(self, url: str) -> None:
        """Discord's gateway has another address."""

    def identify_fault(self, lasts: bool) -> None:
        """Identifies of many shards fail alike, or succeed again."""

    def end(self, record: FatalRecord) -> None:
        """Nothing can work until a person changes something."""


class FleetMember:
    """From the start of the gateway to its end, over all lives of its clusters."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        rest: Rest,
        gateway: MemberGateway,
        membership: Membership,
        line: FleetLine,
        elections: RunningElections,
        *,
        clock: Callable[[], float] = boottime,
        permit_clock: Clock | None = None,
    ) -> None:
        self.membership = membership
        self.part = FleetPart(membership, elections)
        self.line = line
        self.roster = Roster()
        self.charter: Charter | None = None
        self.is_leaving = False
        """Whether it hands its clusters over and takes none."""
        self.is_deaf = False
        """Whether it cannot reach Discord."""
        self.is_foreign = False
        """Whether the fleet of that name belongs to another bot."""
        self._settings = settings
        self._state = state
        self.rest = rest
        self._gateway = gateway
        self._elections = elections
        self._clock = clock
        self._began_at = clock()
        # Of the layout that runs here; 0: none.
        self._generation = 0
        # The governor's tenure that the charter is from.
        self._epoch = 0
        self._has_charter = asyncio.Event()
        # That Discord refuses the layout: said until there is another one.
        self._refused: LayoutRefused | None = None
        self._live_at = clock()
        self.permits = FleetPermits(line, self.roster.governor, lambda: self._generation, clock=clock)
        self.governor = FleetGovernor(
            settings=settings,
            elections=elections,
            line=line,
            roster=self.roster,
            rest=rest,
            found=self._found,
            former=self._former,
            is_ours=self._is_ours,
            take_charter=self._take_own_charter,
            on_fatal=gateway.end,
            clock=clock,
            permit_clock=permit_clock,
        )
        line.handle(Announcement, self._hear)
        line.handle(Farewell, self._hear_farewell)
        line.handle(CharterSays, self._hear_charter)
        line.handle(FaultSays, lambda sender, record: gateway.identify_fault(record.lasts))
        line.handle(DeadTokenSays, self._hear_dead_token)
        line.handle(MoveOrder, self._move)
        line.handle(DrainOrder, self._drain)
        line.handle(CanReachDiscord, self._answer_reach)

    @property
    def name(self) -> str:
        return self.membership.member

    async def run(self) -> None:
        """Take part, until cancelled."""
        log.info("member %s of the fleet %s", self.name, self.membership.fleet, extra={"action": "fleet"})
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self._elections.run(),
                self.line.run(),
                self.governor.run(),
                self.permits.run(),
                self._announce_often(),
                self._watch_discord(),
            ):
                tasks.create_task(work)

    def status(self) -> FleetStatus:
        """Return what this member knows of the fleet."""
        clusters = [] if self.charter is None else self.charter.layout.clusters
        return fleet_status(
            self.membership,
            self.roster,
            clusters,
            now=self._clock(),
            generation=self._generation,
            connected=self.line.is_up,
            unreadable=self.line.unreadable,
        )

    # The lives of the clusters.

    async def choose(self) -> Choice:
        """Return the fleet's layout, once it is known."""
        if self.charter is None:
            log.info("waiting for the fleet's layout", extra={"action": "layout"})
        await self._has_charter.wait()
        charter = self.charter
        assert charter is not None
        self._generation = charter.generation
        choice = charter.choice()
        remember_layout(self._state, choice)
        self._say_differences(charter)
        self._announce()
        return choice

    def ended(self) -> None:
        """This life of the clusters has ended: no shard of its layout runs here any more."""
        self._generation = 0
        self._announce()

    def begin_leaving(self) -> dict[int, str]:
        """Say that this member ends; return which member is to take which cluster, where that is known."""
        self.is_leaving = True
        self._announce()
        charter, me = self.charter, self.roster.get(self.name)
        if charter is None or me is None:
            return {}
        return self._successors(charter, me, self.roster.members())

    async def leave(self) -> None:
        """Give up what is left, and say farewell."""
        await self.governor.leave()
        self.line.say(Farewell())

    def refuse_layout(self, order: Fatal) -> None:
        """Discord refuses the layout: the governor looks for another one."""
        self._refused = LayoutRefused(self._generation, order.code, order.meaning, order.help)
        self._say_refusal()

    def _say_refusal(self) -> None:
        if self._refused is not None and self._refused.generation != self._generation:
            self._refused = None
        governor = self.roster.governor()
        if self._refused is not None and governor is not None:
            self.line.tell(governor[0], self._refused)

    # What a person asks.

    async def ask_move(self, cluster: int, to: str) -> Done:
        """A person wants the cluster at that member."""
        return await self._ask_governor(MoveWish(cluster, to), ANSWERS_WITHIN_S)

    async def ask_reshard(self) -> Done:
        """A person wants the layout of this gateway's settings."""
        layout = self._settings.layout
        wish = ReshardWish(layout.shards, layout.extra, layout.per_cluster)
        return await self._ask_governor(wish, RESHARD_WITHIN_S)

    async def _ask_governor(self, wish: MoveWish | ReshardWish, seconds: float) -> Done:
        governor = self.roster.governor()
        if governor is None:
            return Done(
                False, "the fleet has no governor that this member hears of; try again in some seconds"
            )
        answer = await self.line.ask(governor[0], wish, Done, seconds)
        return answer or Done(False, f"the fleet's governor, {governor[0]}, does not answer")

    async def ask_drain(self, member: str, *, leaving: bool) -> Done:
        """A person wants that member without clusters, or back."""
        if self.roster.get(member) is None:
            names = ", ".join(each.name for each in self.roster.members())
            return Done(False, f"there is no member {member}; the fleet has {names}")
        answer = await self.line.ask(member, DrainOrder(leaving), Done, ANSWERS_WITHIN_S)
        return answer or Done(False, f"{member} does not answer")

    # What it says.

    async def _announce_often(self) -> None:
        said_at = -ANNOUNCE_EVERY_S
        last: tuple[object, ...] = ()
        while True:
            now = self._clock()
            said = self._announcement()
            if now - said_at >= ANNOUNCE_EVERY_S or said.shape != last:
                self.line.say(said)
                said_at, last = now, said.shape
                self._say_refusal()
            for member in self.roster.forget_gone(now):
                if member == self.name:
                    continue
                log.warning("member %s is silent: it is counted no more", member, extra={"action": "fleet"})
                self.governor.gone(member, counts=True)
            await asyncio.sleep(LOOK_EVERY_S)

    def _announce(self) -> None:
        self.line.say(self._announcement())

    def _announcement(self) -> Announcement:
        clusters = self._gateway.clusters
        allowed = self._settings.layout.clusters
        return Announcement(
            __version__,
            self._clock() - self._began_at,
            self._generation,
            [] if clusters is None else clusters.tenure_views(),
            None if allowed is None else sorted(allowed),
            1 if clusters is None else clusters.processes,
            self.is_leaving,
            self.is_deaf,
            self.governor.epoch,
        )

    # What it hears.

    def _hear(self, sender: str, said: Announcement) -> None:
        before = self.roster.governor()
        is_new = self.roster.get(sender) is None
        self.roster.hear(sender, said, self._clock())
        if is_new and sender != self.name:
            log.info("member %s (%s) is there", sender, said.version, extra={"action": "fleet"})
        governor = self.roster.governor()
        if governor != before:
            self.permits.look()

    def _hear_farewell(self, sender: str, record: Farewell) -> None:
        self.roster.leave(sender)
        self.governor.gone(sender, counts=False)
        if sender != self.name:
            log.info("member %s has left", sender, extra={"action": "fleet"})
        self.permits.look()

    def _hear_charter(self, sender: str, record: CharterSays) -> None:
        if record.epoch >= self._epoch and record.charter.is_sound and self._is_ours(record.charter):
            self._take_charter(record.charter, record.epoch)

    def _hear_dead_token(self, sender: str, record: DeadTokenSays) -> None:
        self._gateway.end(dead_token(RestFailure("unauthorized", record.text, None, record.status)))

    def _is_ours(self, charter: Charter) -> bool:
        """Whether it is a charter of this bot's fleet."""
        if charter.account == account_with(self._settings, charter.salt):
            return True
        if not self.is_foreign:
            self.is_foreign = True
            log.error("%s", self.foreign_words, extra={"action": "fleet"})
        return False

    @property
    def foreign_words(self) -> str:
        return (
            f"the fleet {self.membership.fleet} belongs to another bot, or another DISCORD_API_URL: this gateway runs "
            "nothing. Give each bot a FLEET of its own"
        )

    def notes(self) -> list[str]:
        """Return the operator's notes."""
        return [self.foreign_words] if self.is_foreign else self.governor.notes()

    def _take_charter(self, charter: Charter, epoch: int) -> None:
        before = self.charter
        if before is None or before.salt != charter.salt:
            # Where that cannot be written down the charter is not taken: it comes again.
            self._state.take_salt(charter.salt)
        self.charter, self._epoch = charter, epoch
        self._has_charter.set()
        if before is not None and before.gateway_url != charter.gateway_url:
            self._gateway.use_gateway(charter.gateway_url)
        if self._generation and self._generation != charter.generation:
            log.warning(
                "the fleet has another layout: %d shards (generation %d)",
                charter.shards,
                charter.generation,
                extra={"action": "layout"},
            )
            self._gateway.change_layout()

    def _take_own_charter(self, charter: Charter, epoch: int) -> str:
        self._take_charter(charter, epoch)
        return self.identity().account

    def identity(self) -> Identity:
        """Return the bot's fingerprints with the fleet's salt."""
        return Identity.of(self._settings, self._state)

    async def _found(self) -> Charter:
        """Choose the layout of a fleet that has none, as a gateway that is alone does."""
        choice = await choose(self._settings, self._state, self.rest, self.identity())
        layout = choice.layout
        salt = self._state.salt()
        account = account_with(self._settings, salt)
        return Charter(
            1, salt, account, layout.shards, layout.per_cluster, choice.gateway_url, choice.refused
        )

    def _former(self) -> GovernorRecord:
        return GovernorRecord(self.charter, self._state.read_ledger() or b"")

    def _say_differences(self, charter: Charter) -> None:
        layout = self._settings.layout
        if layout.shards not in (None, charter.shards) or layout.per_cluster != charter.per_cluster:
            log.warning(
                "the fleet runs %d shards, %d in a cluster. `rateway fleet reshard` takes what SHARDS and "
                "SHARDS_PER_CLUSTER say here, and ends every session",
                charter.shards,
                charter.per_cluster,
                extra={"action": "layout"},
            )

    # Moves.

    def _move(self, sender: str, order: MoveOrder) -> None:
        clusters = self._gateway.clusters
        if clusters is not None:
            clusters.move(order.cluster, order.to)

    def _drain(self, sender: str, order: DrainOrder) -> Done:
        self.is_leaving = order.leaving
        self._announce()
        if order.leaving:
            return Done(True, f"{self.name} hands its clusters over, one after the other, and takes none")
        return Done(True, f"{self.name} takes part again")

    def _successors(self, charter: Charter, me: SeenMember, members: Sequence[SeenMember]) -> dict[int, str]:
        sizes = {number: len(charter.layout.shards_of(number)) for number in charter.layout.clusters}
        clusters = self._gateway.clusters
        mine = (
            frozenset() if clusters is None else frozenset(each.cluster for each in clusters.tenure_views())
        )
        others = [
            balance_member(each, (view.cluster for view in each.said.clusters), charter.layout)
            for each in members
            if each.name != me.name and each.said.generation == charter.generation
        ]
        return hand_over(BalanceMember(me.name, mine), others, sizes)

    # Discord out of reach.

    async def _watch_discord(self) -> None:
        """Hand all clusters over when Discord cannot be reached from here, and can from another member."""
        while True:
            clusters = self._gateway.clusters
            views = [] if clusters is None else clusters.tenure_views()
            now = self._clock()
            if any(view.live for view in views) or not (views or self.is_deaf):
                self._live_at = now
                self.is_deaf = False
            if now - self._live_at >= DEAF_AFTER_S:
                self.is_deaf = not await self._reaches_discord()
                if not self.is_deaf:
                    # Its shards wait for something else.
                    self._live_at = self._clock()
                elif views:
                    await self._flee()
            await asyncio.sleep(PROBE_EVERY_S if self.is_deaf else ANNOUNCE_EVERY_S)

    async def _reaches_discord(self) -> bool:
        answer = await self.rest.gateway_bot()
        return not isinstance(answer, RestFailure) or answer.status is not None

    async def _flee(self) -> None:
        charter, me, clusters = self.charter, self.roster.get(self.name), self._gateway.clusters
        if charter is None or me is None or clusters is None:
            return
        able = []
        for seen in self.roster.members():
            if seen.name != self.name and not seen.said.deaf and not seen.said.leaving:
                answer = await self.line.ask(seen.name, CanReachDiscord(), Done, ANSWERS_WITHIN_S)
                if answer is not None and answer.done:
                    able.append(seen)
        for cluster, to in self._successors(charter, me, able).items():
            log.warning(
                "Discord cannot be reached from here: the cluster goes to %s",
                to,
                extra={"cluster": cluster, "action": "move"},
            )
            clusters.move(cluster, to)

    def _answer_reach(
        self, sender: str, record: CanReachDiscord
    ) -> Coroutine[Any, Any, msgspec.Struct | None]:
        async def answer() -> msgspec.Struct:
            return Done(await self._reaches_discord(), "")

        return answer()
