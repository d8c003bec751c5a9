"""Schedule heartbeats, and judge by their acknowledgements whether the connection lives.

Discord documentation, "Gateway": "Sending Heartbeats". The first beat comes after ``interval × random [0, 1)``, then
one every interval, or sooner. A connection is dead when a beat is due and the one before was not acknowledged, with two
allowances: frames that came in meanwhile are a sign of life and buy one extra interval (an acknowledgement queues
behind the guilds of a large shard), and a silence of our own making, when reading was paused, is not counted.
"""

from __future__ import annotations

from enum import Enum

from rateway.session.options import Chance

__all__ = ["DEFAULT_INTERVAL", "Health", "Heartbeat"]

# What production has sent for years; used when Hello names none that makes sense.
DEFAULT_INTERVAL = 41.25
# A timer that is this part of an interval late was not on time because the machine slept.
LATE = 0.5
# A timer that is this late (s) fired before what waits in the socket was read: nothing is judged for a moment.
STALLED = 0.25
SECOND_LOOK = 0.05


class Health(Enum):
    """The verdict on a connection when a heartbeat is due. The values of the last three are reasons in words."""

    WAIT = "not due"
    BEAT = "due"
    SILENT = "a heartbeat was not acknowledged and nothing came in"
    # Frames came in, but no acknowledgement.
    OVERDUE = "no heartbeat was acknowledged for two intervals"
    # The timer was late by more than half an interval, and nothing came in meanwhile.
    LATE = "the machine slept for longer than Discord waits"


class Heartbeat:
    """The heart of one connection. Times are monotonic seconds."""

    __slots__ = (
        "_asked_at",
        "_excused",
        "_extra",
        "_stalled_at",
        "_unanswered",
        "due",
        "interval",
        "latency",
        "pause",
    )

    def __init__(self, interval: float, now: float, chance: Chance, share: float = 1.0) -> None:
        """*interval*: as Hello said, in seconds; *share*: the part of it after which the next beat is sent, up to 1."""
        self.interval = interval
        self.pause = interval * share
        """Seconds between two beats."""
        # A spread over the whole pause keeps thousands of shards from beating together.
        self.due = now + self.pause * chance.random()
        self.latency: float | None = None
        self._asked_at: float | None = None
        self._unanswered: float | None = None
        self._stalled_at: float | None = None
        self._extra = False
        self._excused = False

    def judge(self, now: float, heard: float, paused: bool) -> Health:
        """Return the verdict at *now*; *heard* is when the last frame came, *paused* whether reading is paused."""
        if now < self.due:
            return Health.WAIT
        if paused:
            self._excused = True
            return Health.BEAT
        if now > self.due + STALLED and self._stalled_at is None:
            self._stalled_at = self.due
            self.due = now + SECOND_LOOK
            return Health.WAIT
        due = self.due if self._stalled_at is None else self._stalled_at
        if now > due + self.interval * LATE and heard < due:
            return Health.LATE
        if self._unanswered is None:
            return Health.BEAT
        if self._excused:
            self._excused = False
            return Health.BEAT
        if heard <= self._unanswered:
            return Health.SILENT
        if self._extra:
            return Health.OVERDUE
        self._extra = True
        return Health.BEAT

    def beaten(self, now: float) -> None:
        """The regular beat was sent."""
        self._stalled_at = None
        self.due = now + self.pause
        self._asked_at = now
        if self._unanswered is None:
            self._unanswered = now

    def asked(self, now: float) -> None:
        """A beat on request was sent; the regular one's timer and its acknowledgement are as before."""
        self._asked_at = now

    def acknowledged(self, now: float) -> None:
        """Op 11: answers everything sent so far."""
        if self._asked_at is not None:
            self.latency = max(0.0, now - self._asked_at)
            self._asked_at = None
        self._unanswered = None
        self._extra = False
        self._excused = False

    def excuse(self) -> None:
        """Reading was paused: the next beat is not judged by what did not come."""
        self._excused = True
