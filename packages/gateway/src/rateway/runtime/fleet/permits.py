"""Identify permits over the line of a fleet: the member's form of the port, and the governor's desk.

A member sends the whole of what it wants and holds, whenever that changes and again while there is any. So a
message that is lost, a governor that dies and one that takes over need no care of their own: the next state says all.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rateway.fleet.identify import is_beside
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.fleet.line import FleetLine
from rateway.runtime.identify.permits import BudgetFacts, IdentifyPermits, Refusal, RestartAnswer
from rateway.runtime.identify.remote import (
    Acquire,
    Finished,
    Permitted,
    RefusalWords,
    Spent,
    Withdraw,
    refusal_of,
)
from rateway.runtime.identify.service import PermitService
from rateway.transports.boot_clock import boottime

__all__ = [
    "ANSWER_WITHIN_S", "AskRestart", "FleetPermits", "GovernorSays", "PermitAnswer", "PermitDesk", "PermitState",
    "WantBudget",
]  # fmt: skip

# Seconds from a question whether an identify may be sent now to its answer. A later one is of no use, and is asked for
# again: the bucket is free so long after the governor has written it down, and the governor may have been replaced.
ANSWER_WITHIN_S = 0.5
# Seconds in which it is asked for again.
SPENT_WITHIN_S = 4.0
# Between two sendings of a state that has not changed: while an identify waits for its word, and otherwise.
SEND_AT_ONCE_S = 1.0
SEND_EVERY_S = 5.0
# Shards of one member that stand in line at the governor; the others are sent as those are answered.
MOST_WAITING = 200
# Ended permits that a state names, the latest: a line may be away for some seconds.
MOST_FINISHED = 100
# States whose time of sending is known: those of the last seconds.
MOST_SENT_AT = 100
# Seconds for an answer that a person waits for, with a question to Discord in it.
ANSWERS_WITHIN_S = 15.0


class Ended(msgspec.Struct, frozen=True):
    """A permit that is done with; *number* counts them, so that none is taken in twice."""

    number: int
    shard: int
    outcome: PermitOutcome


class PermitState(msgspec.Struct, frozen=True):
    """All that a member wants and holds."""

    epoch: int
    """The tenure of the governor that it is meant for."""
    generation: int
    """Of the layout that the shards belong to."""
    session: str
    """One process's life; permits of another one are not this one's."""
    number: int
    """Counts the states of the session."""
    waiting: list[Acquire] = []
    spending: list[Spent] = []
    held: list[int] = []
    ended: list[Ended] = []


class PermitAnswer(msgspec.Struct, frozen=True):
    """To a member: what became of one of its calls."""

    session: str
    number: int
    """Of the state that it answers."""
    permitted: Permitted


class GovernorSays(msgspec.Struct, frozen=True):
    """To all: what is known of the day's identifies."""

    epoch: int
    facts: BudgetFacts


class AskRestart(msgspec.Struct, frozen=True):
    """A question to the governor; its answer is a RestartAnswer."""

    shard: int
    new_session: bool


class WantBudget(msgspec.Struct, frozen=True):
    """To the governor: ask Discord for the budget soon."""


class FleetPermits:
    """Implements GatewayPermits for one member. *governor* returns the fleet's governor and its epoch, as far as
    known; *generation* that of the layout that runs here."""

    def __init__(
        self,
        line: FleetLine,
        governor: Callable[[], tuple[str, int] | None],
        generation: Callable[[], int],
        *,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._line = line
        self._governor = governor
        self._generation = generation
        self._clock = clock
        self._session = secrets.token_hex(6)
        self._calls = itertools.count(1)
        self._numbers = itertools.count(1)
        self._ends = itertools.count(1)
        self._waiting: dict[int, tuple[Acquire, asyncio.Future[Refusal | None]]] = {}
        # Calls of these that stand in line at the governor.
        self._sent: set[int] = set()
        self._spending: dict[int, tuple[Spent, asyncio.Future[Refusal | None]]] = {}
        self._held: set[int] = set()
        self._ended: deque[Ended] = deque(maxlen=MOST_FINISHED)
        self._unsaid_ends = 0
        # When the last states were sent.
        self._sent_at: deque[tuple[int, float]] = deque(maxlen=MOST_SENT_AT)
        self._changed = asyncio.Event()
        self._facts = BudgetFacts()
        line.handle(PermitAnswer, self._answered)
        line.handle(GovernorSays, self._learn)

    async def run(self) -> None:
        """Send the state when it changes and again and again, until cancelled."""
        while True:
            self._changed.clear()
            self._send()
            urgent = self._spending or self._unsaid_ends
            pause = SEND_AT_ONCE_S if urgent else SEND_EVERY_S if self._waiting or self._held else None
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def look(self) -> None:
        """Send the state: there is another governor."""
        self._changed.set()

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """See ``permits.IdentifyPermits``."""
        call = next(self._calls)
        self._held.discard(shard_id)
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting[call] = Acquire(call, shard_id, lost), answer
        self._changed.set()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.result() is None:
                self.finished(shard_id, "unused")  # granted in the moment of the cancellation
            raise
        finally:
            self._waiting.pop(call, None)
            self._sent.discard(call)
            self._changed.set()

    async def spent(self, shard_id: int) -> Refusal | None:
        """See ``permits.IdentifyPermits``."""
        call = next(self._calls)
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._spending[call] = Spent(call, shard_id), answer
        self._changed.set()
        try:
            async with asyncio.timeout(SPENT_WITHIN_S):
                return await answer
        except TimeoutError:
            pass
        finally:
            del self._spending[call]
            self._changed.set()
        why = f"the governor of the fleet did not say within {SPENT_WITHIN_S:.0f} s that it is written down"
        return Refusal("ledger", time.monotonic(), why)

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """See ``permits.IdentifyPermits``."""
        self._held.discard(shard_id)
        self._ended.append(Ended(next(self._ends), shard_id, outcome))
        # Said more than once: the first may be lost.
        self._unsaid_ends = 3
        self._changed.set()

    def facts(self) -> BudgetFacts:
        """See ``permits.GatewayPermits``."""
        if self._governor() is not None:
            return self._facts
        notes = [
            "the fleet has no governor that this member hears of: no shard identifies, sessions are resumed"
        ]
        return msgspec.structs.replace(self._facts, notes=notes)

    def want_budget(self) -> None:
        """See ``permits.GatewayPermits``."""
        governor = self._governor()
        if governor is not None:
            self._line.tell(governor[0], WantBudget())

    async def ask_restart(self, shard_id: int, *, new_session: bool) -> RestartAnswer:
        """See ``permits.GatewayPermits``."""
        governor = self._governor()
        if governor is None:
            why = "the fleet has no governor that this member hears of"
            return RestartAnswer(why if new_session else "", why)
        question = AskRestart(shard_id, new_session)
        answer = await self._line.ask(governor[0], question, RestartAnswer, ANSWERS_WITHIN_S)
        if answer is not None:
            return answer
        why = f"the fleet's governor, {governor[0]}, does not answer"
        return RestartAnswer(why if new_session else "", why)

    def _send(self) -> None:
        governor = self._governor()
        if governor is None:
            return
        name, epoch = governor
        wanted = sorted(
            (each for each, _ in self._waiting.values() if each.call not in self._sent),
            key=lambda each: (is_beside(each.shard), not each.lost, each.shard),
        )
        self._sent.update(each.call for each in wanted[: max(0, MOST_WAITING - len(self._sent))])
        number = next(self._numbers)
        self._sent_at.append((number, self._clock()))
        state = PermitState(
            epoch,
            self._generation(),
            self._session,
            number,
            [each for call, (each, _) in self._waiting.items() if call in self._sent],
            [each for each, _ in self._spending.values()],
            sorted(self._held),
            list(self._ended),
        )
        self._unsaid_ends = max(0, self._unsaid_ends - 1)
        self._line.tell(name, state)

    def _answered(self, sender: str, record: PermitAnswer) -> None:
        governor = self._governor()
        if record.session != self._session or governor is None or governor[0] != sender:
            return
        permitted = record.permitted
        refusal = refusal_of(permitted.refusal, time.monotonic())
        waiting = self._waiting.get(permitted.call)
        if waiting is not None and not waiting[1].done():
            if refusal is None:
                self._held.add(waiting[0].shard)
            waiting[1].set_result(refusal)
        spending = self._spending.get(permitted.call)
        if spending is not None and not spending[1].done():
            if refusal is None and not self._is_fresh(record.number):
                self._changed.set()
            else:
                spending[1].set_result(refusal)

    def _is_fresh(self, number: int) -> bool:
        """Whether the state of that number was sent less than ANSWER_WITHIN_S ago."""
        now = self._clock()
        return any(sent == number and now - at < ANSWER_WITHIN_S for sent, at in self._sent_at)

    def _learn(self, sender: str, record: GovernorSays) -> None:
        governor = self._governor()
        if governor is not None and record.epoch >= governor[1]:
            self._facts = record.facts


@dataclass(frozen=True, slots=True)
class _Call:
    """What a member wants, and the number of the state in which it was taken in."""

    record: Acquire | Spent
    number: int


@dataclass(slots=True)
class _Client:
    """One member's process at the desk."""

    session: str
    service: PermitService
    number: int = 0
    ended: int = 0
    calls: dict[int, _Call] = field(default_factory=dict)
    answers: dict[int, Permitted] = field(default_factory=dict)
    granted: dict[int, bool] = field(default_factory=dict)
    """Shards with a permit; whether it is spent."""


class PermitDesk:
    """The governor's end: grants from *permits* what members want. *spawn* runs tasks that end with the tenure."""

    def __init__(
        self,
        permits: IdentifyPermits,
        tell: Callable[[str, PermitAnswer], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        epoch: int,
        is_open: Callable[[int], bool],
    ) -> None:
        """*is_open* returns whether shards of a layout's generation may be granted permits now."""
        self._permits = permits
        self._tell = tell
        self._spawn = spawn
        self._epoch = epoch
        self._is_open = is_open
        self._clients: dict[str, _Client] = {}

    def take(self, member: str, state: PermitState) -> None:
        """Take in what a member wants and holds."""
        if state.epoch != self._epoch:
            return
        client = self._clients.get(member)
        if client is None or client.session != state.session:
            if client is not None:
                client.service.end(counts=True)
            client = self._clients[member] = self._new_client(member, state.session)
        if state.number <= client.number:
            return
        client.number = state.number
        self._end_permits(client, state)
        wanted: dict[int, Acquire | Spent] = {each.call: each for each in state.waiting}
        wanted |= {each.call: each for each in state.spending}
        for call, record in wanted.items():
            answer = client.answers.get(call)
            if answer is not None and (isinstance(record, Acquire) or answer.refusal is not None):
                # It did not arrive.
                self._tell(member, PermitAnswer(client.session, state.number, answer))
            elif call in client.calls and answer is None:
                continue
            elif isinstance(record, Spent) and record.shard not in client.granted:
                # Granted by the governor before this one, which knows nothing of the bucket.
                again = RefusalWords(
                    "ledger", 0.0, "the fleet's governor has changed: the permit is asked for again"
                )
                self._tell(member, PermitAnswer(client.session, state.number, Permitted(call, again)))
            elif isinstance(record, Spent) or self._is_open(state.generation):
                if isinstance(record, Acquire):
                    self._take_from_others(member, record.shard)
                # An identify whose word did not arrive, or too late, is written down again, with its new time.
                client.answers.pop(call, None)
                client.calls[call] = _Call(record, state.number)
                client.service.take(record)
        for call in [call for call in client.calls if call not in wanted]:
            wanted_no_more = client.calls.pop(call).record
            if client.answers.pop(call, None) is None and isinstance(wanted_no_more, Acquire):
                client.service.take(Withdraw(call, wanted_no_more.shard))

    def _take_from_others(self, member: str, shard: int) -> None:
        """Refuse what members before *member* want for the shard, so that whichever of them owns it asks again. What
        becomes of a permit that one of them has is not counted any more.
        """
        for name, client in self._clients.items():
            if name == member:
                continue
            if client.granted.pop(shard, None) is not None:
                client.service.forget(shard)
            for call, each in client.calls.items():
                if (
                    isinstance(each.record, Acquire)
                    and each.record.shard == shard
                    and call not in client.answers
                ):
                    client.service.take(Withdraw(call, shard))
                    words = RefusalWords("right", 1.0, "another member asks for a permit of the shard")
                    client.answers[call] = Permitted(call, words)
                    self._tell(name, PermitAnswer(client.session, each.number, client.answers[call]))

    def gone(self, member: str, *, counts: bool) -> None:
        """The member has ended. With *counts* a granted permit counts as spent: its IDENTIFY may have been sent."""
        client = self._clients.pop(member, None)
        if client is not None:
            client.service.end(counts=counts)

    def _new_client(self, member: str, session: str) -> _Client:
        def answer(permitted: Permitted) -> None:
            found = client.calls.get(permitted.call)
            if found is None:
                return
            client.answers[permitted.call] = permitted
            if permitted.refusal is None:
                client.granted[found.record.shard] = isinstance(found.record, Spent)
            self._tell(member, PermitAnswer(session, found.number, permitted))

        client = _Client(session, PermitService(self._permits, answer, self._spawn))
        return client

    def _end_permits(self, client: _Client, state: PermitState) -> None:
        for end in state.ended:
            if end.number > client.ended:
                client.ended = end.number
                # Of a former governor's permit nothing is held here.
                if client.granted.pop(end.shard, None) is not None:
                    client.service.take(Finished(end.shard, end.outcome))
        held = set(state.held) | {each.shard for each in state.spending}
        # A grant that is still on its way is not held yet.
        held |= {each.shard for each in state.waiting if each.call in client.answers}
        for shard in [shard for shard in client.granted if shard not in held]:
            spent = client.granted.pop(shard)
            client.service.take(Finished(shard, "closed" if spent else "unused"))
