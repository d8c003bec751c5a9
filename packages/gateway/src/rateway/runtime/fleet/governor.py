"""The governor of a fleet: one member that grants the identifies of all, keeps the layout, and plans moves.

Each member is a candidate; the election decides. What the next governor must know is the record of the election's
subject: the charter and the ledger of identifies. A governor that dies costs :data:`TAKE_OVER_S` seconds in which no
shard identifies; resumes do not need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
from rateway.config import Settings
from rateway.fleet.balance import Balance
from rateway.fleet.charter import Charter, GovernorRecord
from rateway.fleet.choice import Choice
from rateway.fleet.identify import SPACING, IdentifyGovernor
from rateway.fleet.layout import MOST_SHARDS
from rateway.fleet.port import GOVERNOR, Elections, Owned, WriteResult
from rateway.fleet.roster import Roster
from rateway.runtime.fleet.line import FleetLine
from rateway.runtime.fleet.permits import (
    ANSWER_WITHIN_S,
    AskRestart,
    GovernorSays,
    PermitDesk,
    PermitState,
    WantBudget,
)
from rateway.runtime.fleet.records import (
    CharterSays,
    DeadTokenSays,
    Done,
    FaultSays,
    LayoutRefused,
    MoveOrder,
    MoveWish,
    ReshardWish,
)
from rateway.runtime.identify.permits import Clock, LocalPermits, Rest, RestartAnswer
from rateway.runtime.layout_search import LayoutSearch
from rateway.runtime.startup import FatalEnd
from rateway.session.actions import Fatal
from rateway.transports.boot_clock import boottime
from rateway.transports.rest import GatewayBot, RestFailure
from rateway.transports.state import FatalRecord, StateError

__all__ = ["TAKE_OVER_S", "FleetGovernor", "RecordLedger"]

log = logging.getLogger(__name__)

# A new governor grants nothing for so long: an identify that the one before had written down may be sent until its word
# is too old, and then holds its bucket. Clocks of two machines are not compared.
TAKE_OVER_S = ANSWER_WITHIN_S + SPACING
# Between two words of the governor to all: a member that has just started waits for the first.
SAY_EVERY_S = 1.0
# Between two looks at what is to be moved, and between two orders of the same move.
LOOK_EVERY_S = 0.5
ORDER_AGAIN_S = 3.0
# Between two writes of a record that the broker did not confirm.
WRITE_AGAIN_S = 1.0


class RecordLedger:
    """Implements IdentifyLedger with the governor's record at the broker."""

    place = "the broker"

    def __init__(self, ledger: bytes, write: Callable[[bytes], Awaitable[WriteResult]]) -> None:
        self._ledger = ledger
        self._write = write

    def read_ledger(self) -> bytes | None:
        """See ``permits.IdentifyLedger``."""
        return self._ledger or None

    async def write_ledger(self, ledger: bytes) -> None:
        """See ``permits.IdentifyLedger``."""
        self._ledger = ledger
        result = await self._write(ledger)
        if result == "away":
            raise StateError(
                "the broker does not confirm the fleet's record; it is tried again", passing=True
            )
        if result == "stale":
            raise StateError("another member is the fleet's governor by now", passing=True)


class FleetGovernor:
    """One member's candidature, and its tenures as the governor.

    Args:
        settings: The layout is looked for by these.
        elections: Decide who governs.
        line: To the members.
        roster: The members.
        rest: Discord's budget is asked for there.
        found: Chooses the layout of a fleet that has none, as a gateway that is alone does; raises FatalEnd.
        former: The charter that this member knows, and the ledger of its state folder: a fleet without a record begins
            with them.
        is_ours: Returns whether a charter is this bot's. A member of another bot does not govern.
        take_charter: Called with each charter before it is granted from; it returns the account's fingerprint.
        on_fatal: Called with what ends the gateway.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        elections: Elections,
        line: FleetLine,
        roster: Roster,
        rest: Rest,
        found: Callable[[], Coroutine[Any, Any, Charter]],
        former: Callable[[], GovernorRecord],
        is_ours: Callable[[Charter], bool],
        take_charter: Callable[[Charter, int], str],
        on_fatal: Callable[[FatalRecord], None],
        clock: Callable[[], float] = boottime,
        permit_clock: Clock | None = None,
    ) -> None:
        self.epoch = 0
        """Of the tenure; 0: this member does not govern."""
        self.balance: Balance | None = None
        self._settings = settings
        self._elections = elections
        self._line = line
        self._roster = roster
        self._rest = rest
        self._found = found
        self._former = former
        self._is_ours = is_ours
        self._take_charter = take_charter
        self._on_fatal = on_fatal
        self._clock = clock
        self._permit_clock = permit_clock
        self._record = GovernorRecord()
        self._open_at = 0.0
        self._permits: LocalPermits | None = None
        self._desk: PermitDesk | None = None
        self._search: LayoutSearch | None = None
        # The layout is refused by Discord; a person wants another.
        self._refused: asyncio.Future[Fatal] | None = None
        self._wanted: asyncio.Future[Choice] = asyncio.get_running_loop().create_future()
        self._is_leaving = False
        self._campaign: asyncio.Future[Owned] | None = None
        self._has_left = asyncio.Event()
        line.handle(PermitState, self._take_state)
        line.handle(AskRestart, self._answer_restart)
        line.handle(WantBudget, self._want_budget)
        line.handle(LayoutRefused, self._layout_refused)
        line.handle(MoveWish, self._move_wish)
        line.handle(ReshardWish, self._reshard)

    async def run(self) -> None:
        """Be a candidate, and govern when elected, until :meth:`leave` or cancelled."""
        try:
            while not self._is_leaving:
                await self._one_candidature()
        finally:
            self._has_left.set()

    async def _one_candidature(self) -> None:
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_lost(why: str) -> None:
            if not lost.done():
                lost.set_result(why)

        campaign = self._campaign = asyncio.ensure_future(self._elections.campaign(GOVERNOR, on_lost))
        try:
            await asyncio.wait([campaign])
        except asyncio.CancelledError:
            # Elected in the same moment, it gives the office back by itself.
            campaign.cancel()
            await asyncio.wait([campaign])
            raise
        if campaign.cancelled():
            return
        owned = campaign.result()
        if self._is_leaving:
            body = b"" if owned.record is None else owned.record.body
            await self._elections.release(GOVERNOR, owned.epoch, body)
            return
        self.epoch = owned.epoch
        try:
            async with asyncio.TaskGroup() as tasks:
                governing = tasks.create_task(self._govern(owned))
                either: list[asyncio.Future[Any]] = [lost, governing]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                governing.cancel()
            if lost.done():
                log.warning(
                    "this member does not govern the fleet any more: %s",
                    lost.result(),
                    extra={"action": "governor"},
                )
        finally:
            self.epoch = 0
            self._permits = self._desk = self.balance = self._search = None

    async def leave(self) -> None:
        """Give the office up, for any other member, and stand for it no more."""
        if not await self._give_up() and self._campaign is not None:
            self._campaign.cancel()
            await self._has_left.wait()

    async def _give_up(self) -> bool:
        """Release the office, if it is held; whether it was."""
        self._is_leaving = True
        epoch, self.epoch = self.epoch, 0
        if epoch:
            await self._elections.release(GOVERNOR, epoch, self._body())
        return epoch > 0

    def gone(self, member: str, *, counts: bool) -> None:
        """A member has ended; *counts*: its permits count as spent."""
        if self._desk is not None:
            self._desk.gone(member, counts=counts)

    def notes(self) -> list[str]:
        """Return the operator's notes about the layout."""
        return [self._search.note] if self._search is not None and self._search.note else []

    # A tenure.

    async def _govern(self, owned: Owned) -> None:
        how = "the first" if owned.record is None else f"after {owned.record.owner}"
        log.info("this member is the governor of the fleet (tenure %d, %s)", owned.epoch, how,
                 extra={"action": "governor"})  # fmt: skip
        self._open_at = self._clock() + (0.0 if owned.record is None else TAKE_OVER_S)
        try:
            self._record = _decoded(owned.record.body if owned.record is not None else b"")
            if self._record.charter is None:
                self._record = self._former()
            charter = self._record.charter
            if charter is not None and not self._is_ours(charter):
                await self._give_up()
                return
            charter = charter or await self._found()
            is_new = False
            while True:
                self._record = msgspec.structs.replace(self._record, charter=charter)
                await self._write_until_confirmed()
                charter = await self._one_generation(charter, is_new=is_new)
                is_new = True
        except FatalEnd as end:
            await self._give_up()
            self._on_fatal(end.record)

    async def _one_generation(self, charter: Charter, *, is_new: bool) -> Charter:
        """Govern with one layout, until Discord refuses it or a person wants another; return the next charter.

        *is_new*: the identifies of the ledger belong to the layout before it.
        """
        account = self._take_charter(charter, self.epoch)
        search = self._search = LayoutSearch(self._settings)
        permits = self._permits = self._make_permits(charter, account, search, is_new=is_new)
        self.balance = Balance(charter.layout, charter.generation)
        self._refused = asyncio.get_running_loop().create_future()
        self._wanted = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            self._desk = PermitDesk(
                permits, self._line.tell, tasks.create_task, epoch=self.epoch, is_open=self._is_open
            )
            beside = [
                tasks.create_task(permits.run()),
                tasks.create_task(self._say_often(permits)),
                tasks.create_task(self._move_often(self.balance)),
            ]
            replaced = tasks.create_task(self._replace_refused(self._refused, search, permits))
            wanted = self._wanted
            await asyncio.wait({replaced, wanted}, return_when=asyncio.FIRST_COMPLETED)
            choice = wanted.result() if wanted.done() else replaced.result()
            in_a_row = 0
            if not wanted.done():
                in_a_row = 1 if permits.readies else charter.refused_in_a_row + 1
            replaced.cancel()
            for task in beside:
                task.cancel()
            # What members wait for belongs to shards of the old layout.
            for seen in self._roster.members():
                self._desk.gone(seen.name, counts=True)
        assert self._record.charter is not None
        return self._record.charter.following(choice, refused_in_a_row=in_a_row)

    async def _replace_refused(
        self, refusal: asyncio.Future[Fatal], search: LayoutSearch, permits: LocalPermits
    ) -> Choice:
        refused = await refusal
        return await search.run(
            refused, self._choice(), permits, lambda layout: layout.shards, self._live_shards
        )

    def _make_permits(
        self, charter: Charter, account: str, search: LayoutSearch, *, is_new: bool
    ) -> LocalPermits:
        governor = IdentifyGovernor(
            shards=range(charter.shards),
            crash_loop=self._settings.identify.crash_loop,
            new_layout=is_new,
            lag=ANSWER_WITHIN_S,
        )

        def learn(answer: GatewayBot) -> None:
            search.learn(answer)
            self._use_gateway(answer.url)

        return LocalPermits(
            governor,
            RecordLedger(self._record.ledger, self._write_ledger),
            self._rest,
            bot=account,
            clock=self._permit_clock,
            on_gateway_bot=learn,
            any_live=lambda: self._live_shards() > 0,
            on_dead_token=self._say_dead_token,
            on_fault=lambda lasts: self._line.say(FaultSays(lasts)),
        )

    def _is_open(self, generation: int) -> bool:
        """Whether shards of that layout may identify: no member runs another one, and a former governor's last permits
        are of no use any more."""
        charter = self._record.charter
        return (
            charter is not None
            and charter.generation == generation
            and self._clock() >= self._open_at
            and all(each.said.generation in (0, generation) for each in self._roster.members())
        )

    async def _say_often(self, permits: LocalPermits) -> None:
        while True:
            charter = self._record.charter
            if charter is not None:
                self._line.say(CharterSays(self.epoch, charter))
            self._line.say(GovernorSays(self.epoch, permits.facts()))
            await asyncio.sleep(SAY_EVERY_S)

    async def _move_often(self, balance: Balance) -> None:
        ordered_at = 0.0
        while True:
            now = self._clock()
            begun = balance.decide(self._roster.members(), now)
            if begun is not None:
                log.info("cluster %d goes from %s to %s", begun.cluster, begun.sender, begun.receiver,
                         extra={"cluster": begun.cluster, "action": "move"})  # fmt: skip
            move = balance.moving
            if move is not None and (begun is not None or now - ordered_at > ORDER_AGAIN_S):
                if self._roster.owner(move.cluster) == move.sender:
                    self._line.tell(move.sender, MoveOrder(move.cluster, move.receiver))
                ordered_at = now
            await asyncio.sleep(LOOK_EVERY_S)

    def _live_shards(self) -> int:
        return sum(view.live for each in self._roster.members() for view in each.said.clusters)

    def _choice(self) -> Choice:
        assert self._record.charter is not None
        return self._record.charter.choice()

    # The record.

    def _body(self) -> bytes:
        return msgspec.msgpack.encode(self._record)

    async def _write_until_confirmed(self) -> None:
        while True:
            if await self._elections.write(GOVERNOR, self.epoch, self._body()) == "confirmed":
                return
            await asyncio.sleep(WRITE_AGAIN_S)

    async def _write_ledger(self, ledger: bytes) -> WriteResult:
        self._record = msgspec.structs.replace(self._record, ledger=ledger)
        return await self._elections.write(GOVERNOR, self.epoch, self._body())

    def _use_gateway(self, url: str) -> None:
        charter = self._record.charter
        if charter is not None and charter.gateway_url != url:
            # It is written with the next identify, and said at once.
            charter = msgspec.structs.replace(charter, gateway_url=url)
            self._record = msgspec.structs.replace(self._record, charter=charter)
            self._line.say(CharterSays(self.epoch, charter))

    # What members say.

    def _take_state(self, sender: str, state: PermitState) -> None:
        if self._desk is not None:
            self._desk.take(sender, state)

    async def _answer_restart(self, sender: str, question: AskRestart) -> RestartAnswer | None:
        permits = self._permits
        if permits is None:
            return None
        return await permits.ask_restart(question.shard, new_session=question.new_session)

    def _want_budget(self, sender: str, record: WantBudget) -> None:
        if self._permits is not None:
            self._permits.want_budget()

    def _layout_refused(self, sender: str, record: LayoutRefused) -> None:
        charter, refused = self._record.charter, self._refused
        if self._desk is None or charter is None or record.generation != charter.generation:
            return
        if refused is not None and not refused.done():
            refused.set_result(Fatal(record.code, record.meaning, record.help))

    def _move_wish(self, sender: str, wish: MoveWish) -> Done | None:
        balance = self.balance
        if balance is None:
            return None
        if wish.cluster not in balance.layout.clusters:
            return Done(False, f"there is no cluster {wish.cluster}")
        seen = self._roster.get(wish.to)
        if seen is None:
            names = ", ".join(each.name for each in self._roster.members())
            return Done(False, f"there is no member {wish.to[:100]}; the fleet has {names}")
        if seen.said.allowed is not None and wish.cluster not in seen.said.allowed:
            return Done(False, f"{wish.to} may not run cluster {wish.cluster} (CLUSTERS)")
        balance.ask(wish.cluster, wish.to)
        is_there = self._roster.owner(wish.cluster) == wish.to
        if is_there and (balance.moving is None or balance.moving.cluster != wish.cluster):
            return Done(True, f"cluster {wish.cluster} is at {wish.to} already, and stays there")
        return Done(True, f"cluster {wish.cluster} goes to {wish.to} as soon as no shard is away")

    async def _reshard(self, sender: str, wish: ReshardWish) -> Done | None:
        permits, search, charter, wanted = self._permits, self._search, self._record.charter, self._wanted
        if permits is None or search is None or charter is None:
            return None
        if not (
            1 <= (wish.shards or 1) <= MOST_SHARDS
            and 0 <= wish.extra <= MOST_SHARDS
            and wish.per_cluster >= 1
        ):
            return Done(False, "these are no numbers of shards")
        choice = await search.ask(
            permits,
            shards=wish.shards,
            extra=wish.extra,
            per_cluster=wish.per_cluster,
            refused=charter.refused,
        )
        if isinstance(choice, str):
            return Done(False, choice)
        if choice.layout == charter.layout:
            return Done(
                True, f"the fleet runs {charter.shards} shards, {charter.per_cluster} in a cluster, already"
            )
        if wanted.done():
            return Done(False, "another layout is being taken just now")
        log.warning("asked for by an operator: %s", choice.words, extra={"action": "layout"})
        wanted.set_result(choice)
        return Done(True, f"{choice.words}. All sessions end, and each shard identifies")

    def _say_dead_token(self, failure: RestFailure) -> None:
        self._line.say(DeadTokenSays(failure.status or 401, failure.text))


def _decoded(body: bytes) -> GovernorRecord:
    if not body:
        return GovernorRecord()
    try:
        record = msgspec.msgpack.decode(body, type=GovernorRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        log.error("the fleet's record cannot be read: it begins anew", extra={"action": "governor"})
        return GovernorRecord()
    if record.charter is not None and not record.charter.is_sound:
        return msgspec.structs.replace(record, charter=None)
    return record
