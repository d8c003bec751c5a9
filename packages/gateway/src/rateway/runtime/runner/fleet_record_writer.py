"""Keep a cluster's fleet record up to date while this process owns the cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from rateway.delivery.port import SettledPosition
from rateway.fleet.cluster_record import ClusterRecord, EndedSession, encode, with_ended
from rateway.fleet.leftovers import SessionPosition
from rateway.fleet.port import MOST_BODY, Elections
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.shard import Shard
from rateway.transports.store import SessionRecord

__all__ = ["FleetRecordWriter"]

# Between the beginnings of two writes, and between two tries while the broker is away.
_AGAIN_S = 0.5

log = logging.getLogger(__name__)


class FleetRecordWriter:
    """Writes the sessions of one cluster to the coordinator, and tells each shard what is confirmed: heartbeats, and
    resumes within this process, name that sequence.

    It follows the writes of the session records (``session_writer.py``), two in a second at most, and never has two of
    its own under way.
    """

    def __init__(
        self,
        elections: Elections,
        subject: str,
        session_records: SessionRecords,
        shards: Mapping[int, Shard],
    ) -> None:
        self._ended: tuple[EndedSession, ...] = ()
        # Of the latest sessions that were lost here, by name: they may have unconfirmed events.
        self._settling: dict[str, SettledPosition] = {}
        self._elections = elections
        self._subject = subject
        self._session_records = session_records
        self._shards = shards
        self._changed = asyncio.Event()
        self._is_too_large = False

    def note_change(self) -> None:
        """Have the record written as soon as the write before it has ended."""
        self._changed.set()

    def begin(self, ended: tuple[EndedSession, ...]) -> None:
        """A tenure begins with these lost sessions."""
        self._ended = ended
        self._settling.clear()

    def note_lost(self, shard_id: int, name: str, position: SettledPosition) -> None:
        """Note that a session was lost that is settled up to a position, which may still move."""
        if name:
            self._settling[name] = position
            self._ended = with_ended(self._ended, EndedSession(shard_id, name, position.settled))

    def positions(self) -> list[SessionPosition]:
        """Return how far each session of the cluster is settled here, the latest lost ones included."""
        found = [
            SessionPosition(each.shard_id, each.name, each.through, each.name in self._settling)
            for each in self._catch_up()
        ]
        for shard_id, shard in self._shards.items():
            name = self._session_records.session(shard_id)
            if name:
                found.append(SessionPosition(shard_id, name, shard.stream.settled, is_open=True))
        return found

    def last_body(self, cache: str) -> bytes:
        """Return the record as it is now, for a successor that was sent that *cache*; empty: none."""
        return encode(ClusterRecord(tuple(self._snapshot()), self._catch_up(), cache))

    async def run(self, epoch: int) -> None:
        """Write after each change, until cancelled or until the tenure of that *epoch* is over."""
        self.note_change()
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = asyncio.get_running_loop().time()
            snapshot = self._snapshot()
            body = self._encode(snapshot)
            if len(body) > MOST_BODY:
                self._say_too_large(len(body))
                continue
            result = await self._elections.write(self._subject, epoch, body)
            if result == "stale":
                return
            pause = _AGAIN_S
            if result == "confirmed":
                self._confirmed(snapshot)
                pause += began - asyncio.get_running_loop().time()
            else:
                self._changed.set()
            await asyncio.sleep(pause)

    def _catch_up(self) -> tuple[EndedSession, ...]:
        """Bring the latest lost sessions to where each is settled by now, and return them."""
        self._ended = tuple(
            each
            if (position := self._settling.get(each.name)) is None
            else EndedSession(each.shard_id, each.name, max(each.through, position.settled))
            for each in self._ended
        )
        names = {each.name for each in self._ended}
        self._settling = {
            name: position
            for name, position in self._settling.items()
            if name in names and not position.is_complete
        }
        return self._ended

    def _snapshot(self) -> list[SessionRecord]:
        settled = [(shard_id, shard.stream.settled) for shard_id, shard in self._shards.items()]
        return self._session_records.snapshot(settled, time.time())

    def _encode(self, snapshot: list[SessionRecord]) -> bytes:
        return encode(ClusterRecord(tuple(snapshot), self._catch_up()))

    def _confirmed(self, snapshot: list[SessionRecord]) -> None:
        for record in snapshot:
            shard = self._shards.get(record.shard_id)
            # Another session has begun meanwhile, whose numbers are others.
            if shard is not None and record.name == self._session_records.session(record.shard_id):
                shard.settle(record.settled)

    def _say_too_large(self, size: int) -> None:
        if not self._is_too_large:
            self._is_too_large = True
            log.error(
                "the fleet record of this cluster would have %d bytes, of %d: it is not written any more, and a "
                "successor would find old sessions. Give the cluster fewer shards (SHARDS_PER_CLUSTER)",
                size,
                MOST_BODY,
                extra={"cluster": int(self._subject.rpartition("-")[2]), "action": "tenure"},
            )
