"""Ask another process for identify permits: the messages, and the port of a runner."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
from rateway.fleet.identify import RefusalKind
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.identify.permits import Refusal

__all__ = [
    "Acquire", "Finished", "PermitLine", "Permitted", "RefusalWords", "RemotePermits", "Spent", "Withdraw",
]  # fmt: skip


# Seconds from the mark of an identify to its op 2, out of what the governor's spacing has to spare
# (``fleet.identify.SPACING``). A later answer, to a process that stood still, is of no use, and is asked for again.
FRESH_S = 0.2
# Questions for one identify.
MOST_MARKS = 10


class RefusalWords(msgspec.Struct, frozen=True):
    """A permits.Refusal; ``wait_s`` counts from now, monotonic clocks are not compared over machines."""

    kind: RefusalKind
    wait_s: float | None
    why: str


def words_of(refusal: Refusal | None, now: float) -> RefusalWords | None:
    """Return a refusal as it goes to another process or machine; *now* in monotonic seconds."""
    if refusal is None:
        return None
    wait = None if refusal.until is None else max(0.0, refusal.until - now)
    return RefusalWords(refusal.kind, wait, refusal.why)


def refusal_of(words: RefusalWords | None, now: float) -> Refusal | None:
    """Return what came from another process or machine as a refusal of this one; *now* in monotonic seconds."""
    if words is None:
        return None
    until = None if words.wait_s is None else now + words.wait_s
    return Refusal(words.kind, until, words.why)


class Permitted(msgspec.Struct, tag=True, frozen=True):
    """The answer to Acquire and Spent."""

    call: int
    refusal: RefusalWords | None
    marked_at: float = 0.0
    """To Spent: the time at which the identify counts as sent, on the monotonic clock that the processes of a machine
    share."""


class Acquire(msgspec.Struct, tag=True, frozen=True):
    call: int
    shard: int
    lost: bool


class Withdraw(msgspec.Struct, tag=True, frozen=True):
    call: int
    shard: int


class Spent(msgspec.Struct, tag=True, frozen=True):
    call: int
    shard: int


class Finished(msgspec.Struct, tag=True, frozen=True):
    shard: int
    outcome: PermitOutcome


class PermitLine(Protocol):
    """The part of ``supervisor.ipc.Line`` that permits need."""

    def send(self, record: Acquire | Withdraw | Spent | Finished) -> None: ...


class RemotePermits:
    """``permits.IdentifyPermits`` over a line to the supervisor, which has the governor."""

    def __init__(self, line: PermitLine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._calls = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Permitted]] = {}

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """See permits.IdentifyPermits."""
        call = next(self._calls)
        try:
            answer = await self._ask(call, Acquire(call, shard_id, lost))
            return refusal_of(answer.refusal, self._clock())
        except asyncio.CancelledError:
            self._line.send(Withdraw(call, shard_id))
            raise

    async def spent(self, shard_id: int) -> Refusal | None:
        """See permits.IdentifyPermits."""
        for _ in range(MOST_MARKS):
            call = next(self._calls)
            answer = await self._ask(call, Spent(call, shard_id))
            if answer.refusal is not None or self._clock() - answer.marked_at <= FRESH_S:
                return refusal_of(answer.refusal, self._clock())
        why = f"this process stood still {MOST_MARKS} times between the mark of an identify and its sending"
        return Refusal("ledger", self._clock(), why)

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """See permits.IdentifyPermits."""
        self._line.send(Finished(shard_id, outcome))

    async def _ask(self, call: int, record: Acquire | Spent) -> Permitted:
        answer: asyncio.Future[Permitted] = asyncio.get_running_loop().create_future()
        self._waiting[call] = answer
        self._line.send(record)
        try:
            return await answer
        finally:
            del self._waiting[call]

    def answered(self, record: Permitted) -> None:
        """The supervisor's answer."""
        waiting = self._waiting.get(record.call)
        if waiting is not None and not waiting.done():
            waiting.set_result(record)
