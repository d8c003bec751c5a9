"""Move unconfirmed events into the spool and out of it.

Oldest first in both directions: the spool always holds what is older than anything that waits in memory
alone. What was written before it was spooled is answered for by the broker all the same; the reader passes
over it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from rateway.delivery.message import Publish
from rateway.native.ledger import Run, Unconfirmed
from rateway.transports.amqp.wire import frames
from rateway.transports.spool import Spool, SpoolFull

__all__ = ["Overflow"]

log = logging.getLogger(__name__)

# Bytes per write of the disk, and per read.
_CHUNK: Final = 512 * 1024
# Bytes read back and unconfirmed at most.
_WINDOW_BYTES: Final = 32 * 1024 * 1024


class Overflow:
    """The traffic between a ledger and a spool.

    ``cut(message)`` makes frames, or those of what goes out in its place.
    """

    def __init__(
        self,
        ledger: Unconfirmed,
        spool: Spool,
        cluster: int,
        cut: Callable[[Publish], tuple[bytes, bytes, bytes]],
    ) -> None:
        self.spool = spool
        self._ledger = ledger
        self._cluster = cluster
        self._cut = cut
        self._trouble = ""
        self._lost = 0
        self._said_unreadable = False
        # Where the spool does not settle: what is called once the broker has that number.
        self._told: dict[int, Callable[[], None]] = {}

    @property
    def unread(self) -> int:
        """Events in the spool that are not written yet."""
        return self.spool.unread

    def fill(self, most: int | None = None) -> None:
        """Put what is unconfirmed and only memory has into the spool, oldest first, as far as it takes it.

        About ``most`` bytes of it, so that the loop is not held up; by default everything.
        """
        ledger = self._ledger
        written = [run for run in ledger.sent if run.left and run.records is None and run.origins is None]
        try:
            # Only what has been written already may lie behind the reader, and there is such only while the
            # reader is at the end: events are written from memory only once the spool has been written.
            most = self._put(written, True, most)
            if most is None or most > 0:
                self._put(list(ledger.waiting), False, most)
        except SpoolFull as full:
            if self._trouble != str(full):
                self._trouble = str(full)
                log.error(
                    "%s: events stay in memory",
                    full,
                    extra={"cluster": self._cluster, "action": "spool_full"},
                )
        else:
            self._trouble = ""

    def _put(self, runs: list[Run], pass_over: bool, most: int | None) -> int | None:
        ledger = self._ledger
        at = 0
        while at < len(runs) and (most is None or most > 0):
            batch: list[Run] = []
            messages: list[Publish] = []
            size = 0
            while at < len(runs) and size < _CHUNK:
                run = runs[at]
                size += run.bytes
                messages += [frames.publish_of(head, body) for head, body in ledger.pieces_left(run)]
                batch.append(run)
                at += 1
            first = self.spool.append(messages)
            if pass_over:
                self.spool.pass_over()
            for run in batch:
                name = frames.key_of(ledger.pieces_left(run)[0][0])
                left = run.left
                ledger.spooled(run, first, name)
                first += left
                if run.told is not None:
                    told, run.told = run.told, None
                    if ledger.spool_settles:
                        told()
                    else:
                        self._told[first - 1] = told
            if most is not None:
                most -= size
        return most

    def confirmed(self, numbers: Sequence[int]) -> None:
        """Confirm these spooled events."""
        self.spool.confirm(numbers)
        if not self._ledger.spool_settles:
            self._ledger.unspooled(self.spool.front)
            for number in self._told.keys() & set(numbers) if self._told else ():
                self._told.pop(number)()

    def forget(self) -> None:
        """Forget what is to be called: the spool was emptied otherwise."""
        self._told.clear()

    def read_back(self, room: int, now: float) -> tuple[Run, int] | None:
        """At most ``room`` events to be written next and their bytes, or ``None`` when enough of them is
        unanswered, or the spool cannot be read just now.
        """
        ledger = self._ledger
        room -= ledger.window_events
        if room <= 0 or ledger.window_bytes >= _WINDOW_BYTES:
            return None
        run = Run(None, now)
        run.records = []
        found = self.spool.read(room, _CHUNK)
        if self.spool.lost > self._lost:
            self._say_lost()
        if found:
            self._said_unreadable = False
        elif self.spool.unread:
            self._say_unreadable()
        for number, publish in found:
            if number in ledger.suspect:
                ledger.suspect.discard(number)
                publish = Publish(publish.key, frames.republished(publish.properties), publish.body)
            shard_id, _ = frames.event_of(publish.properties)
            run.pieces += self._cut(publish)
            run.marks.append(-1 if shard_id is None else shard_id)
            run.records.append(number)
        return (run, sum(map(len, run.pieces))) if run.records else None

    def _say_lost(self) -> None:
        lost, self._lost = self.spool.lost - self._lost, self.spool.lost
        log.error(
            "%d events in the spool cannot be read back and are lost: a file in %s is damaged. Look at the disk",
            lost,
            self.spool.folder,
            extra={"cluster": self._cluster, "action": "spool_damaged"},
        )

    def _say_unreadable(self) -> None:
        if not self._said_unreadable:
            self._said_unreadable = True
            log.error(
                "the spool cannot be read for now, and its events wait: %s. Is the limit of open files too low "
                "(ulimit -n)?",
                self.spool.trouble,
                extra={"cluster": self._cluster, "action": "spool_unreadable"},
            )

    def fetch(self, number: int) -> Publish | None:
        """Return one spooled event, marked as one that the broker refused; None when it is gone."""
        publish = self.spool.fetch(number)
        if publish is None:
            return None
        return Publish(publish.key, frames.republished(publish.properties), publish.body)
