"""Find entries that stand in a log twice, and the newer one of a shard's sessions.

The gateway writes an event again when it does not know that the broker has it: after its own death up to some hundred
entries back. An entry is known by its session, shard, sequence number and ``:rN``. A reader that begins in the middle
of a log looks back (:data:`LOOK_BACK`) before it uses what it reads.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from rateway.delivery.proxy_port import LogEntry

__all__ = ["LOOK_BACK", "Order"]

# Entries between an event and its double; 357 is the most that was measured after a kill -9 of the gateway.
LOOK_BACK: Final = 1_000
# Sequence numbers below the highest that did not come (filtered by EVENTS, or still to be republished).
MOST_HOLES: Final = 4_096
# Other contents under one sequence number that are remembered.
MOST_REPEATS: Final = 256
# Former sessions of a shard that are distinguished.
MOST_SESSIONS: Final = 8


class _Session:
    """The sequence numbers of one session of a shard that were read."""

    __slots__ = ("highest", "holes", "holes_in_order", "lowest", "repeats", "repeats_in_order")

    def __init__(self, seq: int) -> None:
        self.lowest = seq
        self.highest = seq
        self.holes: set[int] = set()
        self.holes_in_order: deque[int] = deque()
        self.repeats: set[tuple[int, int]] = set()
        self.repeats_in_order: deque[tuple[int, int]] = deque()

    def skip(self, begin: int, end: int) -> None:
        """Note that ``begin`` to ``end`` (not included) did not come yet."""
        for seq in range(max(begin, end - MOST_HOLES), end):
            self.holes.add(seq)
            self.holes_in_order.append(seq)
        while len(self.holes_in_order) > MOST_HOLES:
            self.holes.discard(self.holes_in_order.popleft())

    def repeat(self, key: tuple[int, int]) -> bool:
        """Return whether this other content of a sequence number is new, and note it."""
        if key in self.repeats:
            return False
        self.repeats.add(key)
        self.repeats_in_order.append(key)
        while len(self.repeats_in_order) > MOST_REPEATS:
            self.repeats.discard(self.repeats_in_order.popleft())
        return True


class Order:
    """The order of one log's entries, as far as it was read."""

    __slots__ = ("_current", "_sessions")

    def __init__(self) -> None:
        # Shard → its newest session's name and record: the usual entry's.
        self._current: dict[int, tuple[str, _Session]] = {}
        # Shard → its sessions in the order in which they began.
        self._sessions: dict[int, dict[str, _Session]] = {}

    def is_new(self, entry: LogEntry) -> bool:
        """Note an entry; false when it stands in the log a second time."""
        seq = entry.seq
        if not seq:
            return True
        current = self._current.get(entry.shard_id)
        if current is None or current[0] != entry.session:
            session = self._of(entry)
            if session is None:
                return True
        else:
            session = current[1]
        if entry.repeat and (seq >= session.lowest or entry.is_out_of_order):
            return session.repeat((seq, entry.repeat))
        if seq == session.highest + 1:
            session.highest = seq
            return True
        if seq > session.highest:
            session.skip(session.highest + 1, seq)
            session.highest = seq
            return True
        if seq in session.holes:
            session.holes.discard(seq)
            return True
        # Below the first that was read: what is marked as out of order has its only place here.
        return seq < session.lowest and entry.is_out_of_order

    def highest(self, shard_id: int, session: str) -> int:
        """Return the highest sequence number that was read of a session; 0: none."""
        known = self._sessions.get(shard_id, {}).get(session)
        return known.highest if known is not None else 0

    def is_newer(self, shard_id: int, session: str, than: str) -> bool:
        """Return whether a session began after another one. A session that was never read is the newest: the gateway's
        cache, which knows it, is ahead of the log."""
        if session == than:
            return False
        known = list(self._sessions.get(shard_id, ()))
        return than in known and (session not in known or known.index(session) > known.index(than))

    def is_known(self, shard_id: int, session: str) -> bool:
        """Return whether an entry of the session was read."""
        return session in self._sessions.get(shard_id, ())

    def _of(self, entry: LogEntry) -> _Session | None:
        """Return the record of an entry's session; None for the first entry of a session, which is noted."""
        sessions = self._sessions.setdefault(entry.shard_id, {})
        known = sessions.get(entry.session)
        if known is not None:
            return known
        # What is below the first number that is read of a session lies before the begin of the reading.
        begun = sessions[entry.session] = _Session(entry.seq)
        if entry.repeat:
            begun.repeat((entry.seq, entry.repeat))
        while len(sessions) > MOST_SESSIONS:
            del sessions[next(iter(sessions))]
        self._current[entry.shard_id] = (entry.session, begun)
        return None
