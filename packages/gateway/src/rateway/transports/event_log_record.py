"""What the state folder remembers of a cluster's event log: its name, and streams that are still to be deleted."""

from __future__ import annotations

from typing import Final

import msgspec
from rateway.transports.state import StateDir, StateError

__all__ = ["EventLogRecord", "EventLogRecords"]

# Streams that could not be deleted yet; more than these are forgotten, the oldest first.
_MOST_UNWANTED: Final = 16


class EventLogRecord(msgspec.Struct, frozen=True):
    """One cluster's event log. Times are seconds, sizes bytes."""

    log: str | None = None
    """The stream that events go into; None where there is none."""
    age: int = 0
    bytes: int = 0
    """What it was declared with: a stream's arguments cannot be changed."""
    unwanted: tuple[str, ...] = ()
    """Streams that may be at the broker and that no event goes into any more."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream that may be at the broker because of this cluster."""
        return self.unwanted if self.log is None else (self.log, *self.unwanted)


class EventLogRecords:
    """One cluster's record in the state folder, a file of its own. Every process of the host may read it."""

    def __init__(self, state: StateDir, cluster: int) -> None:
        self._state = state
        self._name = f"event-log-{cluster}.json"

    def read(self) -> EventLogRecord:
        """Return the record; an empty one where there is none that can be read."""
        try:
            data = self._state.read(self._name)
            return EventLogRecord() if not data else msgspec.json.decode(data, type=EventLogRecord)
        except (StateError, msgspec.DecodeError):
            return EventLogRecord()

    def write(self, record: EventLogRecord) -> None:
        """Replace the record; it is on the disk when this returns (blocks). Raises :class:`StateError`."""
        kept = msgspec.structs.replace(record, unwanted=record.unwanted[-_MOST_UNWANTED:])
        self._state.write(self._name, msgspec.json.encode(kept))
