"""A pass over the past of a log, which brings sessions that come back to its tail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from rateway.delivery.proxy_port import EndReason, LogEntry, LogReader, Offset
from rateway.proxy.log.fanout import Fanout
from rateway.proxy.log.order import LOOK_BACK, Order
from rateway.proxy.log.reading import Reading, Timers
from rateway.proxy.log.stream import Feed

__all__ = ["MOST_SKIPPED", "Joined", "Member", "PastPass", "Tail"]

# A pass over the past waits while one of its bots has so many bytes to take.
PAST_WAITING: Final = 1 << 20
# Seconds between two looks at whether the entry that a bot has can still come: a log serves an offset beyond its end by
# silence, as a slow broker does.
ANCHOR_PATIENCE: Final = 1.0
# So many looks while the tail shows that the entry is in the log, or is still being read; and while it shows nothing.
MOST_LOOKS: Final = 30
MOST_BLIND_LOOKS: Final = 10
# So many looks in a row at which the tail stands before the entry: a broker and a proxy on a loaded machine deliver
# nothing for seconds, and what they had not delivered yet is no reason to end a session. An entry that the broker has
# lost is rare.
MOST_STALLED_LOOKS: Final = 10
# Offsets that are skipped between two entries: one where a segment begins. Where retention overtakes a reader, many
# more are missing.
MOST_SKIPPED: Final = 100

Joined = Callable[[bool], None]
"""Called once the session has reached the tail (true), or cannot be gone on with (false)."""


class Member:
    """A session on its way to the tail."""

    __slots__ = ("feed", "is_anchored", "joined")

    def __init__(self, feed: Feed, joined: Joined) -> None:
        self.feed = feed
        self.joined = joined
        # Whether the entry that its bot has was found.
        self.is_anchored = False


class Tail(Protocol):
    """The tail that a pass leads to."""

    log: str

    @property
    def end(self) -> int:
        """The offset of the newest entry that is known; -1: none."""

    def can_join(self, at: int) -> bool:
        """Whether the entry at this offset is among those that are kept, so that nothing after it is missing."""

    def finish(self, member: Member) -> None:
        """Let a session whose place is among the kept entries go on from there."""

    def forget(self, past: PastPass) -> None:
        """Forget a pass over the past that has ended."""


class PastPass:
    """One pass over the past of a log, up to where the tail's kept entries begin."""

    def __init__(
        self, tail: Tail, reader: LogReader, timers: Timers, fanout: Fanout, members: list[Member]
    ) -> None:
        self.members = members
        self._tail = tail
        self._reading = Reading(tail.log, reader, timers, self)
        self._fanout = fanout
        self._last = -1
        self._acknowledged = -1
        # Looks without an entry, those of them at the end at which the tail stood still, and its newest offset then.
        self._looks = 0
        self._stalled_looks = 0
        self._tail_at = -1

    def begin(self) -> None:
        """Read from the first place that one of its sessions needs."""
        for member in self.members:
            member.is_anchored = False
            self._fanout.remove(member.feed)
        self._fanout.order = Order()
        self._last = self._acknowledged = -1
        first = min(member.feed.at for member in self.members)
        self._reading.begin(Offset(max(0, first - LOOK_BACK)))

    def close(self) -> None:
        """Stop."""
        self._reading.close()
        self._tail.forget(self)

    def leave(self, feed: Feed) -> None:
        """Remove a session that ends."""
        self.members = [member for member in self.members if member.feed is not feed]
        self._fanout.remove(feed)
        if self.members:
            self.acknowledge()
        else:
            self.close()

    def refuse_all(self) -> None:
        """Refuse all of its sessions."""
        members, self.members = self.members, []
        self.close()
        for member in members:
            member.joined(False)

    def acknowledge(self) -> None:
        """Let more come, unless a bot has still much to take."""
        if not self._reading.is_open or self._acknowledged >= self._last:
            return
        if all(member.feed.receiver.waiting <= PAST_WAITING for member in self.members):
            self._acknowledged = self._last
            self._reading.acknowledge(self._last)

    def look_at_tail(self) -> None:
        """Let sessions go on at the tail where it has the place that they have reached."""
        is_here = self._last >= 0 and self._tail.can_join(self._last)
        there = [
            member
            for member in self.members
            if (is_here if member.is_anchored else self._tail.can_join(member.feed.at))
        ]
        if not there:
            return
        self.members = [member for member in self.members if member not in there]
        for member in there:
            if member.is_anchored:
                self._fanout.remove(member.feed)
                member.feed.at = max(member.feed.at, self._last)
        if not self.members:
            self.close()
        for member in there:
            self._tail.finish(member)

    # LogSink.

    def on_begin(self) -> None:
        self._wait_for_anchor()

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        self._reading.note_entries()
        fanout = self._fanout
        for entry in entries:
            offset = entry.offset
            if offset > self._last + MOST_SKIPPED and self._last >= 0:
                self.refuse_all()
                return
            self._last = offset
            fanout.bring(entry)
            if len(fanout.feeds) < len(self.members):
                self._anchor(offset)
        self._wait_for_anchor()
        self.acknowledge()
        self.look_at_tail()

    def on_end(self, reason: EndReason, text: str) -> None:
        self._reading.note_end()
        if reason in ("missing", "refused"):
            self.refuse_all()
        else:
            self._reading.try_again(self.begin)

    def _anchor(self, offset: int) -> None:
        """The entry at an offset was read: sessions that wait for it begin, those whose entry is gone end."""
        for member in tuple(self.members):
            if member.is_anchored or member.feed.at > offset:
                continue
            if member.feed.at == offset:
                member.is_anchored = True
                self._fanout.add(member.feed)
            else:
                self.members.remove(member)
                member.joined(False)

    def _wait_for_anchor(self) -> None:
        self._reading.stop_waiting()
        self._looks = self._stalled_looks = 0
        self._tail_at = self._tail.end
        self._look_later()

    def _look_later(self) -> None:
        if not all(member.is_anchored for member in self.members):
            self._reading.wait(ANCHOR_PATIENCE, self._give_up)

    def _give_up(self) -> None:
        """Nothing comes: refuse the sessions whose entry is not in the log. While the tail is read, or is known to be
        beyond the entry, the broker is only slow."""
        self._looks += 1
        tail_at, self._tail_at = self._tail_at, self._tail.end
        self._stalled_looks = 0 if self._tail_at > tail_at else self._stalled_looks + 1
        most = MOST_BLIND_LOOKS if self._tail_at < 0 else MOST_LOOKS
        for member in tuple(self.members):
            is_stalled = self._stalled_looks >= MOST_STALLED_LOOKS
            is_slow = self._tail_at < 0 or not is_stalled or self._tail_at >= member.feed.at
            if not member.is_anchored and not (is_slow and self._looks < most):
                self.members.remove(member)
                member.joined(False)
        if self.members:
            self._look_later()
        else:
            self.close()
