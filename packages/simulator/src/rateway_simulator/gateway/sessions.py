"""A session as the simulated Discord keeps it: numbers, the replay buffer, what heartbeats have named.

Pure: time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from rateway_simulator.judge.limits import Window

# Discord's buffer as staff gave it in 2016 (discord-api-docs#24).
FEWEST_EVENTS = 100
MOST_EVENTS = 3500
EVENTS_PER_GUILD = 75
# How precisely the age of buffered events is known.
AGE_STEP_S = 0.1

# An event as it is kept: its name and its `d`, both as bytes.
# Why a session ended whose client closed the connection with 1000 or 1001.
ENDED_BY_CLIENT = "ended by the client"

Event = tuple[bytes, bytes]


def buffer_size(guilds: int) -> int:
    """Return how many events are kept for a session with so many guilds."""
    return max(FEWEST_EVENTS, min(MOST_EVENTS, EVENTS_PER_GUILD * guilds))


def message(name: bytes, seq: int, data: bytes) -> bytes:
    """Return a dispatch as it goes over the wire, uncompressed."""
    return b'{"t":"%b","s":%d,"op":0,"d":%b}' % (name, seq, data)


class Refusal(Enum):
    """The reason that a resume is refused: the sequence is no longer kept, was never sent, or is not a number."""

    FORGOTTEN = "forgotten"
    AHEAD = "ahead"
    NONE = "none"


@dataclass(slots=True, eq=False)
class Session:
    """One session. `named` is the highest sequence that a heartbeat named; None before the first."""

    id: str
    shard: int
    shard_count: int
    intents: int
    large_threshold: int
    # v, encoding and compress of the connection that identified.
    query: tuple[str, str, str]
    # Number of the resume host; -1 is the main one.
    host: int
    capacity: int
    keep_seconds: float
    presences: Window
    # The number of the first event.
    first: int = 1
    seq: int = field(init=False)
    named: int | None = None
    buffer: deque[Event] = field(init=False)
    # Guilds whose GUILD_CREATE is still to come, in order.
    pending: dict[int, None] = field(default_factory=dict)
    detached_at: float | None = None
    # A fault: it lives and gets no events.
    deaf: bool = False
    # (sequence, time) of the first event in each step of time, oldest first.
    _marks: deque[tuple[int, float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.seq = self.first - 1
        self.buffer = deque(maxlen=self.capacity)

    @property
    def forgotten(self) -> int:
        """The highest sequence that can no longer be replayed."""
        return self.seq - len(self.buffer)

    def append(self, event: Event, now: float) -> int:
        """Number an event and keep it; the number."""
        self.seq += 1
        self.buffer.append(event)
        if not self._marks or now - self._marks[-1][1] >= AGE_STEP_S:
            self._marks.append((self.seq, now))
        return self.seq

    def extend(self, events: Iterable[Event], amount: int, now: float) -> int:
        """Number and keep a run of events; the number of the first."""
        first = self.seq + 1
        self.seq += amount
        self.buffer.extend(events)
        if not self._marks or now - self._marks[-1][1] >= AGE_STEP_S:
            self._marks.append((first, now))
        return first

    def name(self, seq: int) -> None:
        """A heartbeat named this sequence: all up to it is forgotten."""
        self.named = seq
        self._forget(seq)

    def _forget(self, seq: int) -> None:
        buffer = self.buffer
        surplus = min(seq, self.seq) - self.forgotten
        if surplus >= len(buffer):
            buffer.clear()
        else:
            for _ in range(surplus):
                buffer.popleft()

    def age(self, now: float) -> None:
        """Forget what is older than the buffer keeps."""
        marks, limit = self._marks, now - self.keep_seconds
        # A mark is the time of the events from its number up to the next mark's.
        while len(marks) > 1 and marks[1][1] <= limit:
            marks.popleft()
            self._forget(marks[0][0] - 1)
        if marks and marks[0][1] <= limit - AGE_STEP_S:
            marks.popleft()
            self._forget(marks[0][0] - 1 if marks else self.seq)

    def expired(self, now: float) -> bool:
        """Return whether the session has been without a connection for too long."""
        return self.detached_at is not None and now - self.detached_at > self.keep_seconds

    def refusal(self, seq: int, now: float) -> Refusal | None:
        """Return why the session cannot be resumed from this sequence; None if it can."""
        if seq < self.first:
            return Refusal.NONE
        if seq > self.seq:
            return Refusal.AHEAD
        self.age(now)
        return Refusal.FORGOTTEN if seq < self.forgotten else None

    def replay(self, seq: int) -> list[bytes]:
        """Return the messages after `seq`, in order, uncompressed."""
        number = self.forgotten
        messages = []
        for name, data in self.buffer:
            number += 1
            if number > seq:
                messages.append(message(name, number, data))
        return messages
