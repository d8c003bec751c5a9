"""The commands of one cluster that wait for their outcome, unacknowledged: bounded in number and in time.

The broker gives a consumer only so many messages without an acknowledgement (``inbound.PREFETCH``). Commands that wait
for a shard must leave room for queries behind them on the same queue, and none may wait for as long as the broker's
own patience (RabbitMQ's consumer_timeout), whatever becomes of its shard.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from rateway.delivery.port import Link, Message
from rateway.session.shares import Kind, Shares, kind_of
from rateway_protocol.contract.errors import ErrorCode, Fault

__all__ = ["MOST_HELD", "Held", "HeldCommands"]

# Of one cluster; beside them the broker delivers 3,000 queries. A command that waits has at most 4,096 bytes.
MOST_HELD = 2_000
# A session tells of a command's end at its deadline; so long after it, it will not any more.
GRACE_S = 2.0


@dataclass(slots=True, eq=False)
class Held:
    """One command: the message to be answered, and when it is overdue (monotonic seconds)."""

    message: Message = field(repr=False)
    shard_id: int
    overdue_at: float
    kind: Kind
    is_over: bool = False


class HeldCommands:
    """Times are monotonic seconds."""

    def __init__(self, most: int = MOST_HELD) -> None:
        # Each kind of command has a share that the others leave free.
        self._shares = Shares(most)
        # By the link that they came on: a cluster has two while its inbound queue and the substitute are both read.
        self._counts: dict[Link | None, dict[Kind, int]] = {}
        self._due: list[tuple[float, int, Held]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        """The number of commands held that came on the present links."""
        return sum(self._used().values())

    def _used(self) -> dict[Kind, int]:
        return {kind: sum(counts[kind] for counts in self._counts.values()) for kind in Kind}

    def hold(self, message: Message, shard_id: int, op: int, deadline: float) -> Held | Fault:
        """Take a command in, or refuse it because too many wait."""
        if message.origin not in self._counts:
            # The messages of a link that has ended are delivered again: they take no room any more.
            self._counts = {
                link: counts for link, counts in self._counts.items() if link is not None and link.is_open
            }
            self._counts[message.origin] = dict.fromkeys(Kind, 0)
        kind, used = kind_of(op), self._used()
        if not self._shares.has_room(kind, used):
            words = f"{len(self)} commands wait for the shards of this cluster"
            return Fault(ErrorCode.QUEUE_FULL, f"{words}, {used[kind]} of them {kind.value}")
        self._counts[message.origin][kind] += 1
        held = Held(message.envelope(), shard_id, deadline + GRACE_S, kind)
        heapq.heappush(self._due, (held.overdue_at, next(self._order), held))
        return held

    def release(self, held: Held) -> bool:
        """Note that a command has its outcome; False when it had one before."""
        if held.is_over:
            return False
        held.is_over = True
        if (counts := self._counts.get(held.message.origin)) is not None:
            counts[held.kind] -= 1
        self._drop_released()
        # Most commands have their outcome long before their deadline.
        if len(self._due) > 2 * len(self) + 64:
            self._due = [entry for entry in self._due if not entry[2].is_over]
            heapq.heapify(self._due)
        return True

    @property
    def next_due(self) -> float | None:
        """The time at which the next command is overdue (monotonic seconds)."""
        return self._due[0][0] if self._due else None

    def _drop_released(self) -> None:
        while self._due and self._due[0][2].is_over:
            heapq.heappop(self._due)

    def overdue(self, now: float) -> list[Held]:
        """Release and return what has had no outcome in its time."""
        found = []
        while (due := self.next_due) is not None and due <= now:
            held = self._due[0][2]
            self.release(held)
            found.append(held)
        return found
