"""The port by which shards obtain identify permits, and its form within one process.

Identify is the scarce resource (*Gateway: Session Start Limit*): one at a time in each bucket, 5 s apart, a number
a day, and overrunning that number resets the bot's token. The port has three calls; a form over processes or
machines keeps them, and passes the same tests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec
from rateway.backoff import Backoff
from rateway.fleet.identify import (
    RESTORED_ALLOWANCE,
    Budget,
    CommonFault,
    Granted,
    IdentifyGovernor,
    Ledger,
    Moment,
    Refusal,
    is_beside,
)
from rateway.permit_outcome import PermitOutcome
from rateway.transports.rest import GatewayBot, RestFailure, backoff
from rateway.transports.state import StateError, boot_id
from rateway_protocol.discord.envelope import FAILURES

__all__ = [
    "BudgetFacts",
    "Clock",
    "FolderLedger",
    "GatewayPermits",
    "IdentifyLedger",
    "IdentifyPermits",
    "LedgerFolder",
    "LocalPermits",
    "Refusal",
    "Rest",
    "RestartAnswer",
    "SystemClock",
    "read_ledgers",
]

# Writes of the ledger that took too long are repeated with a later time; a disk that stays so slow is no ledger.
WRITE_ATTEMPTS = 3
# How long a shard waits after a ledger that could not be written.
LEDGER_PAUSE = 30.0
# After a 401 while sessions live with the same token, or before it is believed: doubled each time, up to an hour.
PAUSE_AFTER_401 = Backoff(300.0, 3600.0)
# A token that is refused so often in a row, with no session that lives with it, is dead.
REFUSALS_OF_A_DEAD_TOKEN = 2
# Bots whose ledgers are kept; a folder sees one, or a few in a developer's hands.
MAX_LEDGERS = 8

log = logging.getLogger("rateway.permits")


class IdentifyPermits(Protocol):
    """Permits to send op 2.

    ``acquire`` → ``spent`` → write op 2 (without an await in between) → ``finished``. A permit that is not used is
    given back with ``finished(shard_id, "unused")``; an ``acquire`` that is cancelled leaves nothing behind.
    """

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """Wait until *shard_id* may identify. *lost*: it replaces a session that was lost, and goes first. A second
        session asks under the number that ``fleet.identify.beside`` gives it, in all three calls.

        ``None`` is the permit. A :class:`Refusal` comes at once or while waiting, when the wait is not for the
        bucket but for the day's budget, a crash loop or a person.
        """

    async def spent(self, shard_id: int) -> Refusal | None:
        """Write down that op 2 goes out now; on disk when it returns ``None``. After a refusal nothing may be sent."""

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """The identify was answered or failed (or the permit was never used): the bucket may go on."""


class Rest(Protocol):
    """The source of the budget and of the recommended layout (``DiscordRest``)."""

    async def gateway_bot(self) -> GatewayBot | RestFailure:
        """Ask once."""


class LedgerFolder(Protocol):
    """A folder with the ledger of identifies (``StateDir``)."""

    def read_ledger(self) -> bytes | None:
        """As last written."""

    def write_ledger(self, ledger: bytes) -> None:
        """On the disk when it returns (blocks); raises :class:`StateError`."""


class IdentifyLedger(Protocol):
    """The place where identifies are written down."""

    @property
    def place(self) -> str:
        """What it is, for people."""

    def read_ledger(self) -> bytes | None:
        """As last written."""

    async def write_ledger(self, ledger: bytes) -> None:
        """Safe from a restart, and known to the next process, when it returns; raises :class:`StateError`."""


class FolderLedger:
    """Implements IdentifyLedger with a state folder, whose disk may take its time."""

    place = "the state folder's disk"

    def __init__(self, folder: LedgerFolder) -> None:
        self._folder = folder

    def read_ledger(self) -> bytes | None:
        """See :class:`IdentifyLedger`."""
        return self._folder.read_ledger()

    async def write_ledger(self, ledger: bytes) -> None:
        """See :class:`IdentifyLedger`."""
        await asyncio.to_thread(self._folder.write_ledger, ledger)


class BudgetFacts(msgspec.Struct, frozen=True):
    """What a gateway knows of its bot's identifies. Times are seconds from now."""

    total: int | None = None
    """None before Discord has said it."""
    available: int = 0
    reserve: int = 0
    reset_in: float | None = None
    max_concurrency: int | None = None
    waiting: int = 0
    """Shards that wait for a permit."""
    fault_shards: int = 0
    """Shards whose identifies fail alike."""
    identifies: int = 0
    """Written down since the start of what grants them."""
    readies: int = 0
    failures: dict[str, int] = {}
    rest_failures: dict[str, int] = {}
    notes: list[str] = []
    renewals: int = 0
    """Of the identifies those of second sessions, which only fill a cold cache."""


class RestartAnswer(msgspec.Struct, frozen=True):
    """Whether a shard that an operator restarts could get a new session. Both are empty when it could."""

    unknown: str
    """Why it is not known how many identifies are left."""
    refusal: str
    """Why it would get no permit now."""


class GatewayPermits(IdentifyPermits, Protocol):
    """The permits of a whole gateway, with what it shows of them and asks of them."""

    async def run(self) -> None:
        """Keep them going, until cancelled."""

    def facts(self) -> BudgetFacts:
        """Return what is known now."""

    def want_budget(self) -> None:
        """Ask Discord for the budget soon, though no shard waits for a permit."""

    async def ask_restart(self, shard_id: int, *, new_session: bool) -> RestartAnswer:
        """An operator restarts the shard: forget its crash loop. *new_session*: the budget is asked for first."""


class Clock(Protocol):
    """Both clocks of the machine."""

    def moment(self) -> Moment:
        """Now."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot = boot_id()

    def moment(self) -> Moment:
        """Now."""
        return Moment(time.monotonic(), time.time(), self._boot)


def read_ledgers(ledger: LedgerFolder | IdentifyLedger, bot: str) -> tuple[Ledger | None, dict[str, Ledger]]:
    """Return what *bot* (``Identity.account``) has spent, as written down, and the ledgers of other bots.

    Raises msgspec.DecodeError when it cannot be read.
    """
    data = ledger.read_ledger()
    if data is None:
        return None, {}
    ledgers = msgspec.json.decode(data, type=dict[str, Ledger])
    return ledgers.pop(bot, None), ledgers


class LocalPermits:
    """The port within one process: one governor, one ledger on disk, one reader of Discord's budget.

    *bot* names the bot in the ledger (a hash, never the token). *on_gateway_bot* receives each answer of Discord's.
    *any_live* returns whether a session is live, which proves the token; *on_dead_token* is called when it is dead.
    *on_fault* is called with True when identifies of many shards fail alike, and with False when they succeed again.
    Use :meth:`run` in a task group: it asks for the budget and wakes shards when their time has come.
    """

    def __init__(
        self,
        governor: IdentifyGovernor,
        ledger: IdentifyLedger,
        rest: Rest,
        *,
        bot: str = "",
        clock: Clock | None = None,
        on_gateway_bot: Callable[[GatewayBot], None] | None = None,
        any_live: Callable[[], bool] = lambda: False,
        on_dead_token: Callable[[RestFailure], None] = lambda failure: None,
        on_fault: Callable[[bool], None] = lambda lasts: None,
    ) -> None:
        self._governor = governor
        self._ledger = ledger
        self._rest = rest
        self._bot = bot
        self._clock: Clock = clock or SystemClock()
        self._on_gateway_bot = on_gateway_bot
        self._any_live = any_live
        self._on_dead_token = on_dead_token
        self._on_fault = on_fault
        # Refusals of the token in a row, the last of them, and when Discord is asked again.
        self._refusals = 0
        self._refused: RestFailure | None = None
        self._ask_at = 0.0
        self._held_back = ""
        self._fault: CommonFault | None = None
        self._waiters: dict[int, asyncio.Future[Refusal | None]] = {}
        self._changed = asyncio.Event()
        self._deciding = False
        self._dead: RestFailure | None = None
        self._writing = asyncio.Lock()
        self._others: dict[str, Ledger] = {}
        self._marks = 0
        self._written = 0
        self.identifies = 0
        """Written down since the start: each went out, or may have."""
        self.renewals = 0
        """Those of second sessions, which only fill a cold cache."""
        self.readies = 0
        """Those that were answered with READY."""
        self.failures: Counter[str] = Counter()
        """The others, by how they ended: ``invalid`` (op 9), ``closed``, ``timeout``."""
        self.rest_failures: Counter[str] = Counter()
        """Questions to GET /gateway/bot without a usable answer: by HTTP status, ``none`` without one."""
        self._restore()

    @property
    def governor(self) -> IdentifyGovernor:
        """For status: what is left, what is kept, who waits."""
        return self._governor

    def now(self) -> float:
        """Return monotonic seconds, on the governor's clock."""
        return self._clock.moment().monotonic

    def learn(self, answer: GatewayBot, asked_at: float | None = None) -> None:
        """Take in an answer of ``/gateway/bot`` that another part asked for; *asked_at* is monotonic seconds."""
        budget = Budget(answer.total, answer.remaining, answer.reset_after_ms, answer.max_concurrency)
        self._governor.budget(budget, self.now(), asked_at=asked_at)
        self._changed.set()

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """See :class:`IdentifyPermits`."""
        if self._dead is not None:
            return Refusal("unauthorized", None, self._dead.text)
        if self._refused is not None and self._governor.total is None and self.now() < self._ask_at:
            return self._after_401(self._refused)
        previous = self._waiters.pop(shard_id, None)
        if previous is not None:
            previous.cancel()
        waiter: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiters[shard_id] = waiter
        self._governor.request(shard_id, lost, self.now())
        self._decide_soon()
        try:
            return await waiter
        except asyncio.CancelledError:
            if self._waiters.get(shard_id) is waiter:
                del self._waiters[shard_id]
                self._governor.withdraw(shard_id)
            elif waiter.done() and not waiter.cancelled() and waiter.result() is None:
                self.finished(shard_id, "unused")  # granted in the moment of the cancellation
            raise

    async def spent(self, shard_id: int) -> Refusal | None:
        """See :class:`IdentifyPermits`."""
        is_new, on_disk = False, -math.inf
        for attempt in range(WRITE_ATTEMPTS + 1):
            now = self.now()
            if not self._governor.may_send(shard_id, now):
                why = "its connection has ended, or its bucket was not kept any longer, before its identify was sent"
                return Refusal("ledger", now, why)
            is_new |= self._governor.spent(shard_id, now)
            # On disk it is a little earlier than it is; a restart adds as much.
            if now - on_disk <= RESTORED_ALLOWANCE:
                # Its bucket is free in a while, whether or not anything comes of it.
                self._changed.set()
                self.identifies += is_new
                self.renewals += is_new and is_beside(shard_id)
                self._tell_alerts()
                return None
            if attempt == WRITE_ATTEMPTS:
                break
            self._marks += 1
            try:
                await self._write(self._marks)
            except StateError as error:
                why = f"an identify must be written down before it is sent: {error}"
                return Refusal("ledger", self.now() + LEDGER_PAUSE, why)
            on_disk = now
        why = f"{self._ledger.place} takes more than a second to write an identify down"
        return Refusal("ledger", self.now() + LEDGER_PAUSE, why)

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """See :class:`IdentifyPermits`."""
        if is_beside(shard_id):
            pass  # a layout is proved, and an identify fails, by the shards themselves
        elif outcome == "ready":
            self.readies += 1
        elif outcome != "unused":
            self.failures[outcome] += 1
        self._governor.finished(shard_id, outcome, self.now())
        self._decide_soon()

    def want_budget(self) -> None:
        """Ask Discord for the budget soon, though no shard waits for a permit."""
        self._governor.want_budget()
        self._changed.set()

    def restart(self, shard_id: int) -> None:
        """Forget a crash loop of the shard: an operator asks for it."""
        self._governor.restart(shard_id)

    async def ask_restart(self, shard_id: int, *, new_session: bool) -> RestartAnswer:
        """See :class:`GatewayPermits`."""
        self.restart(shard_id)
        failure = await self.learn_budget() if new_session else None
        return RestartAnswer("" if failure is None else failure.text, self.why_not(shard_id))

    def facts(self) -> BudgetFacts:
        """See :class:`GatewayPermits`."""
        governor, now = self._governor, self.now()
        fault = governor.fault
        return BudgetFacts(
            governor.total,
            governor.available(now),
            governor.reserve,
            governor.reset_in(now),
            governor.max_concurrency,
            governor.waiting,
            0 if fault is None else fault.shards,
            self.identifies,
            self.readies,
            dict(self.failures),
            dict(self.rest_failures),
            self.notes(),
            self.renewals,
        )

    def hold_back(self, why: str) -> None:
        """Grant nothing until this is called with an empty text; *why* is for people."""
        self._held_back = why
        self._decide_soon()

    async def learn_budget(self) -> RestFailure | None:
        """Ask Discord for the budget now. None when it is known, else why it is not."""
        if self._dead is not None:
            return self._dead
        if self._refused is not None and self.now() < self._ask_at:
            return self._refused
        failure = await self._ask()
        self._changed.set()
        return failure

    def why_not(self, shard_id: int) -> str:
        """Return why *shard_id* would get no permit now, as text for the operator; empty when it would, as far as is
        known.
        """
        governor, now = self._governor, self.now()
        if self._dead is not None:
            return self._dead.text
        if self._held_back:
            return self._held_back
        if governor.total is None and self._refused is not None:
            return self._after_401(self._refused).why
        return governor.why_not(shard_id, now)

    def notes(self) -> list[str]:
        """Return the operator's notes about identifies."""
        found = []
        if self._held_back:
            found.append(self._held_back)
        fault = self._governor.fault
        if fault is not None:
            found.append(_fault_words(fault, self.now()))
        if self._dead is not None:
            found.append(f"no shard can identify: {self._dead.text}")
        elif self._refused is not None:
            found.append(self._after_401(self._refused).why)
        return found

    def _after_401(self, failure: RestFailure) -> Refusal:
        wait = max(0.0, self._ask_at - self.now())
        proof = "; sessions live with the same token" if self._any_live() else ""
        why = f"{failure.text}{proof}: Discord is asked again in {wait:.0f} s"
        if self._governor.total is None:
            why += ", until then the day's identifies are not known and no shard identifies"
        return Refusal("unauthorized", self._ask_at, why)

    async def run(self) -> None:
        """Ask Discord for the budget when it is needed, and wake shards in time. Ends only when it is cancelled."""
        failures = 0
        while True:
            self._changed.clear()
            self._decide()
            now = self.now()
            wake_at = None if self._held_back else self._governor.wake_at(now)
            if self._dead is None and self._governor.needs_budget(now):
                if now >= self._ask_at:
                    failure = await self._ask()
                    failures = 0 if failure is None else failures + 1
                    if failure is not None and failure.kind != "unauthorized":
                        self._ask_at = self.now() + self._report(failure, failures)
                    continue
                wake_at = self._ask_at if wake_at is None else min(wake_at, self._ask_at)
            try:
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - now)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _ask(self) -> RestFailure | None:
        asked_at = self.now()
        answer = await self._rest.gateway_bot()
        if isinstance(answer, RestFailure):
            self.rest_failures[str(answer.status or "none")] += 1
            if answer.kind == "unauthorized":
                self._refuse_token(answer)
            return answer
        if self._refused is not None:
            log.info("Discord knows the token again", extra={"action": "budget"})
        self._refusals, self._refused, self._ask_at = 0, None, 0.0
        self.learn(answer, asked_at)
        if self._on_gateway_bot is not None:
            self._on_gateway_bot(answer)
        return None

    def _refuse_token(self, failure: RestFailure) -> None:
        """Discord refused the token. A live session proves that it is good, and one refusal alone is no proof."""
        live = self._any_live()
        self._refusals += 1
        if self._refusals >= REFUSALS_OF_A_DEAD_TOKEN and not live:
            self._dead, self._refused = failure, None
            log.error("%s, %d times in a row; no session lives with it", failure.text, self._refusals,
                      extra={"action": "budget"})  # fmt: skip
            self._refuse_waiting(Refusal("unauthorized", None, failure.text))
            self._on_dead_token(failure)
            return
        pause = PAUSE_AFTER_401.delay(self._refusals - 1)
        self._refused, self._ask_at = failure, self.now() + pause
        refusal = self._after_401(failure)
        log.error("%s", refusal.why, extra={"action": "budget"})
        if self._governor.total is None:
            self._refuse_waiting(refusal)

    def _refuse_waiting(self, refusal: Refusal) -> None:
        for shard_id in list(self._waiters):
            self._governor.withdraw(shard_id)
            self._answer(shard_id, refusal)

    def _report(self, failure: RestFailure, failures: int) -> float:
        """Say it once and then now and then; the seconds until the next question."""
        wait = backoff(failure, failures, random.random())
        level = logging.WARNING if failures == 1 or failures % 10 == 0 else logging.DEBUG
        log.log(
            level,
            "Discord does not say how many identifies are left: %s; asking again in %.0f s, %d shards wait",
            failure.text, wait, self._governor.waiting,
            extra={"action": "budget"},
        )  # fmt: skip
        return wait

    def _decide_soon(self) -> None:
        """Once for all that happens in this turn of the loop: a thousand shards may ask in one."""
        self._changed.set()
        if not self._deciding:
            self._deciding = True
            asyncio.get_running_loop().call_soon(self._decide)

    def _decide(self) -> None:
        self._deciding = False
        if self._held_back:
            return
        decisions = self._governor.decide(self.now())
        self._tell_fault()
        for decision in decisions:
            if isinstance(decision, Granted):
                self._answer(decision.shard_id, None)
            else:
                shard_id, refusal = decision
                self._answer(shard_id, refusal)
        self._tell_alerts()

    def _answer(self, shard_id: int, refusal: Refusal | None) -> None:
        waiter = self._waiters.pop(shard_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(refusal)
        elif refusal is None:
            self._governor.finished(shard_id, "unused", self.now())

    def _tell_fault(self) -> None:
        before, self._fault = self._fault, self._governor.fault
        if self._fault is not None and before is None:
            log.error("%s", _fault_words(self._fault, self.now()), extra={"action": "identify_fault"})
            self._on_fault(True)
        elif before is not None and self._fault is None:
            lasted = self.now() - before.since
            log.warning(
                "identifies succeed again after %.0f s: nothing is held against any shard, all may try at once", lasted,
                extra={"action": "identify_fault"},
            )  # fmt: skip
            self._on_fault(False)

    def _tell_alerts(self) -> None:
        for alert in self._governor.alerts:
            log.warning(
                "%d %% of the day's identifies are used (%d of %d, reset in %.1f h): which shards lose their sessions?",
                alert.percent, alert.used, alert.total, alert.reset_after / 3600,
                extra={"action": "budget"},
            )  # fmt: skip
        self._governor.alerts.clear()

    # The ledger

    def _restore(self) -> None:
        try:
            mine, self._others = read_ledgers(self._ledger, self._bot)
        except FAILURES:
            log.warning(
                "the ledger of identifies cannot be read; what was spent before is taken from Discord alone",
                extra={"action": "budget"},
            )
            return
        if mine is not None:
            self._governor.restore(mine, self._clock.moment())

    async def _write(self, mark: int) -> None:
        """Have everything up to *mark* on disk. Shards of other buckets that identify now share one write."""
        async with self._writing:
            if self._written >= mark:
                return
            marks = self._marks
            mine = self._governor.snapshot(self._clock.moment())
            newest = sorted(self._others.items(), key=lambda item: item[1].written.wall)[1 - MAX_LEDGERS :]
            data = msgspec.json.encode({**dict(newest), self._bot: mine})
            writing = asyncio.ensure_future(self._ledger.write_ledger(data))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # A thread goes on; the next write waits for it, so that two never meet in one file.
                await asyncio.wait([writing])
                raise
            self._written = marks


def _fault_words(fault: CommonFault, now: float) -> str:
    words = {
        "invalid": "answered with op 9",
        "closed": "ended by a close",
        "timeout": "without READY",
        "lost": "with a READY whose session did not last a minute",
    }
    how = ", ".join(f"{count} {words.get(each, each)}" for each, count in sorted(fault.outcomes.items()))
    return (
        f"the identifies of {fault.shards} shards fail alike for {max(0.0, now - fault.since):.0f} s ({how}): that is "
        "Discord's fault or the network's, and no shard is stopped for it; they try one at a time, with growing "
        "pauses up to 10 minutes, and a READY lets all of them go on. See https://discordstatus.com; a restart does "
        "not help and costs identifies"
    )
