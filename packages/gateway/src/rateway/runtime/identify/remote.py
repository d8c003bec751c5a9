"""Ask another process for identify permits: the messages, and the port of a runner."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Protocol

import msgspec
from rateway.fleet.identify import RefusalKind
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.identify.permits import Refusal

__all__ = [
    "Acquire", "Finished", "PermitLine", "Permitted", "RefusalWords", "RemotePermits", "Spent", "Withdraw",
]  # fmt: skip


class RefusalWords(msgspec.Struct, frozen=True):
    """A permits.Refusal; ``wait_s`` counts from now, monotonic clocks are not compared over processes."""

    kind: RefusalKind
    wait_s: float | None
    why: str


class Permitted(msgspec.Struct, tag=True, frozen=True):
    """The answer to Acquire and Spent."""

    call: int
    refusal: RefusalWords | None


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

    def __init__(self, line: PermitLine) -> None:
        self._line = line
        self._calls = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Refusal | None]] = {}

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """See permits.IdentifyPermits."""
        call = next(self._calls)
        try:
            return await self._ask(call, Acquire(call, shard_id, lost))
        except asyncio.CancelledError:
            self._line.send(Withdraw(call, shard_id))
            raise

    async def spent(self, shard_id: int) -> Refusal | None:
        """See permits.IdentifyPermits."""
        call = next(self._calls)
        return await self._ask(call, Spent(call, shard_id))

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """See permits.IdentifyPermits."""
        self._line.send(Finished(shard_id, outcome))

    async def _ask(self, call: int, record: Acquire | Spent) -> Refusal | None:
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting[call] = answer
        self._line.send(record)
        try:
            return await answer
        finally:
            del self._waiting[call]

    def answered(self, record: Permitted) -> None:
        """The supervisor's answer."""
        waiting = self._waiting.get(record.call)
        if waiting is None or waiting.done():
            return
        if record.refusal is None:
            waiting.set_result(None)
        else:
            wait = record.refusal.wait_s
            until = None if wait is None else time.monotonic() + wait
            waiting.set_result(Refusal(record.refusal.kind, until, record.refusal.why))
