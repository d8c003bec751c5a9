"""Serve identify permits to a runner: the other end of :class:`~rateway.runtime.identify.remote.RemotePermits`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from rateway.permit_outcome import PermitOutcome
from rateway.runtime.identify.permits import IdentifyPermits
from rateway.runtime.identify.remote import Acquire, Finished, Permitted, Spent, Withdraw, words_of

__all__ = ["PermitRecord", "PermitService"]

PermitRecord: TypeAlias = Acquire | Withdraw | Spent | Finished


class PermitService:
    """The permits of one runner, from the start of its process to its end."""

    def __init__(
        self,
        permits: IdentifyPermits,
        send: Callable[[Permitted], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*send* answers the runner; *spawn* runs a task that outlives the runner's process."""
        self._clock = clock
        self._permits = permits
        self._send = send
        self._spawn = spawn
        self._is_over = False
        self._asked: dict[int, asyncio.Task[None]] = {}
        # Shards whose permit was granted and not finished, and those of them whose permit is written down as spent.
        self._held: set[int] = set()
        self._spent: set[int] = set()

    def take(self, record: PermitRecord) -> None:
        """Carry out what the runner says."""
        match record:
            case Acquire():
                self._asked[record.call] = self._spawn(self._acquire(record))
            case Withdraw():
                task = self._asked.pop(record.call, None)
                if task is not None:
                    task.cancel()
                if record.shard in self._held:
                    self._finish(record.shard, "unused")
            case Spent():
                self._spawn(self._spend(record))
            case Finished():
                self._finish(record.shard, record.outcome)

    def end(self, *, counts: bool) -> None:
        """Settle the permits of a runner that has ended. With *counts* a granted permit counts as spent: its IDENTIFY
        may have been sent.
        """
        self._is_over = True
        for task in self._asked.values():
            task.cancel()
        for shard_id in self._held:
            if shard_id in self._spent:
                self._permits.finished(shard_id, "closed")
            elif counts:
                self._spawn(self._count(shard_id))

    def forget(self, shard_id: int) -> None:
        """Another runner asks for the shard: the permit of this one is of no use any more."""
        self._held.discard(shard_id)
        self._spent.discard(shard_id)

    async def _acquire(self, record: Acquire) -> None:
        refusal = await self._permits.acquire(record.shard, lost=record.lost)
        self._asked.pop(record.call, None)
        if refusal is None:
            if self._is_over:
                # The grant did not reach the runner: nothing was sent with it.
                self._permits.finished(record.shard, "unused")
                return
            self._held.add(record.shard)
        self._send(Permitted(record.call, words_of(refusal, self._clock())))

    async def _spend(self, record: Spent) -> None:
        refusal = await self._permits.spent(record.shard)
        marked_at = self._clock()
        if refusal is None:
            self._spent.add(record.shard)
        self._send(Permitted(record.call, words_of(refusal, marked_at), marked_at))

    def _finish(self, shard_id: int, outcome: PermitOutcome) -> None:
        self._held.discard(shard_id)
        self._spent.discard(shard_id)
        self._permits.finished(shard_id, outcome)

    async def _count(self, shard_id: int) -> None:
        await self._permits.spent(shard_id)
        self._permits.finished(shard_id, "closed")
