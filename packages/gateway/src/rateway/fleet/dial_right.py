"""When the shards of a cluster that this member owns may dial Discord: pure, time is an argument.

An election is no lock: an owner that was cut off or frozen does not know that another member owns its cluster by now.
So what two owners must never do at once is bound to the right (``fleet/port.py``), which ends with the confirm of the
owner's record. With it a shard dials whenever its conversation wants to. Without it a shard still resumes, because the
coordinator may be away for everybody, which must not become an outage of shards: late enough that a successor, which
resumes at once, has been first, and seldom, because a session belongs to whoever resumed it last. It never identifies.

And not where a successor is likely, because a resume then would name an old sequence, which may end the successor's
session. It resumes all shards of the cluster, so that all of their connections end here, and nobody has asked for that.
And it follows a member whose network is gone, which hears nothing of Discord, and is the first to reach it when its
network is back: so it hears Discord for a while, in which the coordinator has time to answer as well.
"""

from __future__ import annotations

from typing import Final

from rateway.fleet.port import RIGHT_S, has_right

__all__ = ["AGAIN_S", "FIRST_S", "SILENT_S", "TAKEN_BACK_AGAIN_S", "TAKEN_BACK_S", "DialRight"]

# After a connection's end. A successor has the record after RIGHT_S, and its shards are back within seconds.
FIRST_S: Final = 10.0
# A cluster that has heard nothing of Discord for so long may have no network. Even without events its shards hear more
# often than that: each one's heartbeat is answered every half a minute.
SILENT_S: Final = 10.0
AGAIN_S: Final = 60.0
# A session that was resumed without the right and whose connection ended so soon, though Discord did not ask it to
# reconnect, has most likely been taken back by a successor, whose shard is disturbed by each further attempt.
TAKEN_BACK_S: Final = 20.0
TAKEN_BACK_AGAIN_S: Final = 600.0


class DialRight:
    """One cluster's shards. Times are seconds of the clock of ``Elections.confirmed_at``."""

    def __init__(self) -> None:
        # When each shard may resume without the right, since it first asked without it.
        self._resume_at: dict[int, float] = {}
        # When shards have resumed without the right, until they ask again.
        self._resumed_at: dict[int, float] = {}
        # When each shard's last dial has begun.
        self._dialled_at: dict[int, float] = {}

    def dial_at(
        self,
        shard_id: int,
        *,
        resuming: bool,
        asked: bool,
        silent_s: float | None,
        confirmed_at: float | None,
        now: float,
    ) -> float | None:
        """Return from when on a shard may dial, at most *now* if it may; None: not before the right is back.

        Args:
            shard_id: The shard, whose connection has ended.
            resuming: Whether it has a session to resume.
            asked: Whether its connection was given up because somebody asked for that.
            silent_s: For how many seconds the cluster's live shards have heard nothing of Discord; None without any.
            confirmed_at: When the newest confirmed record was sent.
            now: The time at which this is asked.
        """
        if has_right(confirmed_at, now):
            self._resume_at.pop(shard_id, None)
            self._resumed_at.pop(shard_id, None)
            return now
        if not resuming:
            return None
        resumed_at = self._resumed_at.pop(shard_id, None)
        if resumed_at is not None and now - resumed_at < TAKEN_BACK_S and not asked:
            self._resume_at[shard_id] = now + TAKEN_BACK_AGAIN_S
        at = self._resume_at.setdefault(shard_id, now + FIRST_S)
        if silent_s is None:
            return at if asked else None
        if silent_s > SILENT_S:
            at = self._resume_at[shard_id] = max(at, now + FIRST_S)
        return at

    def dialled(self, shard_id: int, now: float) -> None:
        """Note that a shard dials now. Without the right its next attempt is a minute later."""
        self._dialled_at[shard_id] = now
        if shard_id in self._resume_at:
            self._resume_at[shard_id] = now + AGAIN_S

    def may_open(self, shard_id: int, *, confirmed_at: float | None, now: float) -> bool:
        """Return whether a shard may use the connection that it has dialled. One that took long to open, without the
        right, has met a network that was away."""
        return has_right(confirmed_at, now) or now - self._dialled_at.get(shard_id, now) < RIGHT_S

    def resumed(self, shard_id: int, now: float) -> None:
        """Note that a shard's session has been resumed."""
        if shard_id in self._resume_at:
            self._resumed_at[shard_id] = now
