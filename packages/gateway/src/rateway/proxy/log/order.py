"""Find entries that stand in a log twice, and the newer one of a shard's sessions.

The gateway writes an event again when it does not know that the broker has it: after its own death up to some hundred
entries back. An entry is known by its session, shard, sequence number and ``:rN``. A reader that begins in the middle
of a log looks back (:data:`LOOK_BACK`) before it uses what it reads.

An entry that is marked as out of order says nothing about the others: what it overtook (``URGENT``) still comes.
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
# Entries beside the order that are remembered: four times what may be published ahead without an answer.
MOST_BESIDE: Final = 4_096
# Former sessions of a shard that are distinguished.
MOST_SESSIONS: Final = 8


class _Session:
    """The sequence numbers of one session of a shard that were read."""

    __slots__ = ("beside", "beside_in_order", "highest", "holes", "holes_in_order", "lowest")

    def __init__(self) -> None:
        # The first and the highest number that was read in order; 0 before the first.
        self.lowest = 0
        self.highest = 0
        self.holes: set[int] = set()
        self.holes_in_order: deque[int] = deque()
        # Number and ``:rN`` of what was read beside the order: other contents of a number, and what is out of order.
        self.beside: set[tuple[int, int]] = set()
        self.beside_in_order: deque[tuple[int, int]] = deque()

    def skip(self, begin: int, end: int) -> None:
        """Note that ``begin`` to ``end`` (not included) did not come yet, but for what was read beside the order."""
        for seq in range(max(begin, end - MOST_HOLES), end):
            if (seq, 0) not in self.beside:
                self.holes.add(seq)
                self.holes_in_order.append(seq)
        while len(self.holes_in_order) > MOST_HOLES:
            self.holes.discard(self.holes_in_order.popleft())

    def note_beside(self, seq: int, repeat: int) -> bool:
        """Note an entry beside the order; return whether it is new."""
        key = seq, repeat
        if key in self.beside:
            return False
        self.beside.add(key)
        self.beside_in_order.append(key)
        while len(self.beside_in_order) > MOST_BESIDE:
            self.beside.discard(self.beside_in_order.popleft())
        return True


class Order:
    """The order of one log's entries, as far as it was read."""

    __slots__ = ("_current", "_sessions")

    def __init__(self) -> None:
        # Shard → its newest session's name and record: the usual entry's.
        self._current: dict[int, tuple[str, _Session]] = {}
        # Shard → its sessions in the order in which they began; one that has not begun was read beside the order alone.
        self._sessions: dict[int, dict[str, _Session]] = {}

    def is_new(self, entry: LogEntry) -> bool:
        """Note an entry; false when it stands in the log a second time."""
        seq = entry.seq
        if not seq:
            return True
        current = self._current.get(entry.shard_id)
        if current is None or current[0] != entry.session:
            session = self._of(entry)
        else:
            session = current[1]
        if not session.highest and not entry.is_out_of_order:
            self._begin(entry, session)
            return session.note_beside(seq, entry.repeat)
        if entry.repeat and (seq >= session.lowest or entry.is_out_of_order):
            return session.note_beside(seq, entry.repeat)
        if entry.is_out_of_order and not session.lowest <= seq <= session.highest:
            return session.note_beside(seq, 0)
        if seq > session.highest:
            if seq > session.highest + 1:
                session.skip(session.highest + 1, seq)
            session.highest = seq
            # Where it was published ahead, this is its place, published again after a death of the gateway.
            return (seq, 0) not in session.beside
        if seq in session.holes:
            session.holes.discard(seq)
            return True
        return False

    def highest(self, shard_id: int, session: str) -> int:
        """Return the highest sequence number that was read in order of a session; 0: none."""
        known = self._sessions.get(shard_id, {}).get(session)
        return known.highest if known is not None else 0

    def is_newer(self, shard_id: int, session: str, than: str) -> bool:
        """Return whether a session began after another one. A session that was never read is the newest: the gateway's
        cache, which knows it, is ahead of the log."""
        if session == than:
            return False
        sessions = self._sessions.get(shard_id, {})
        known = [name for name, each in sessions.items() if each.highest]
        return than in known and (session not in known or known.index(session) > known.index(than))

    def is_known(self, shard_id: int, session: str) -> bool:
        """Return whether an entry of the session was read in order."""
        return self.highest(shard_id, session) > 0

    def _of(self, entry: LogEntry) -> _Session:
        """Return the record of an entry's session."""
        sessions = self._sessions.setdefault(entry.shard_id, {})
        known = sessions.get(entry.session)
        if known is None:
            known = sessions[entry.session] = _Session()
            while len(sessions) > MOST_SESSIONS:
                del sessions[next(iter(sessions))]
        return known

    def _begin(self, entry: LogEntry, session: _Session) -> None:
        """Note the first entry of a session in order. What is below lies before the begin of the reading."""
        session.lowest = session.highest = entry.seq
        sessions = self._sessions[entry.shard_id]
        del sessions[entry.session]
        sessions[entry.session] = session
        self._current[entry.shard_id] = entry.session, session
