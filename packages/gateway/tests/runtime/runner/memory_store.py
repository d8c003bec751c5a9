"""A store of session records in memory."""

from __future__ import annotations

from rateway.transports.store import SessionRecord, StoreFault


class MemoryStore:
    """A store that commits into a dictionary, or refuses to."""

    def __init__(self) -> None:
        self.committed: dict[int, SessionRecord] = {}
        self.commits = 0
        self.fault: StoreFault | None = None
        self._open: dict[int, SessionRecord | None] = {}

    def put_session(self, record: SessionRecord) -> None:
        self._open[record.shard_id] = record

    def drop_session(self, shard_id: int) -> None:
        self._open[shard_id] = None

    def commit(self) -> StoreFault | None:
        if self.fault is not None:
            return self.fault
        for shard_id, record in self._open.items():
            if record is None:
                self.committed.pop(shard_id, None)
            else:
                self.committed[shard_id] = record
        self._open.clear()
        self.commits += 1
        return None
