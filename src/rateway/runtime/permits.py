"""May this shard identify now? The port that shards ask, and its form for one process.

Identify is the scarce resource (*Gateway: Session Start Limit*): one at a time in each bucket, 5 s apart, a number a day,
and overrunning that number resets the bot's token. The port has three calls; a form over processes or machines keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["IdentifyPermits", "PermitOutcome", "Refusal"]

PermitOutcome = Literal["ready", "invalid", "closed", "timeout", "unused"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """No permit for now. ``until`` is when to ask again (monotonic seconds), ``None``: not without a person's help."""

    kind: Literal["budget", "crash_loop", "bucket", "unauthorized", "ledger"]
    until: float | None
    why: str


class IdentifyPermits(Protocol):
    """Permits to send op 2.

    ``acquire`` → ``spent`` → write op 2 → ``finished``. A permit that is not used is given back with
    ``finished(shard_id, "unused")``; an ``acquire`` that is cancelled leaves nothing behind.
    """

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        """Wait until *shard_id* may identify. *lost*: it replaces a session that was lost, and goes first.

        ``None`` is the permit. A :class:`Refusal` comes at once or while waiting, when the wait is not for the bucket
        but for the day's budget, a crash loop or a person.
        """

    async def spent(self, shard_id: int) -> Refusal | None:
        """Write down that op 2 goes out now; on disk when it returns ``None``. After a refusal nothing may be sent."""

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        """The identify was answered or failed (or the permit was never used): the bucket may go on."""
