"""Sequence numbers of sessions: by the offsets of one log, or counted over several.

A session over several logs has no order but the one in which its events were sent: it is remembered here, and only the
proxy that remembers it can resume such a session.
"""

from __future__ import annotations

from array import array
from typing import Final

from rateway.proxy.log.dispatch import dispatch
from rateway.proxy.log.stream import Feed
from rateway.proxy.sessions.session_id import Session

__all__ = ["CountedNumbers", "OffsetNumbers"]

# JDA and Discord.Net keep sequence numbers in 32 bits with a sign; a session ends some way before.
MOST_SEQ: Final = (1 << 31) - (1 << 16)
# Events after the bot's last heartbeat that are remembered; a resume from before them is refused.
MOST_REMEMBERED: Final = 1 << 17
# Bytes of events that wait for their turn while a session is resumed.
MOST_HELD: Final = 32 << 20


class OffsetNumbers:
    """Numbers that any proxy can compute again: from the offset in the session's one log."""

    __slots__ = ("_session", "_shift", "_unsettled")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._unsettled = max(1, session.snapshots)
        self._shift = session.seq_of(0)

    def send(self, feed: Feed, name: str, d: bytes) -> None:
        """Send what the entry at ``feed.at`` makes."""
        seq = self.present(feed)
        if seq > MOST_SEQ:
            feed.receiver.invalidate()
        else:
            feed.receiver.send(dispatch(name, seq, d))

    def tell(self, feed: Feed, name: str, d: bytes) -> None:
        """Send under the number of the place up to which the log was seen."""
        self.send(feed, name, d)

    def acknowledge(self, seq: int) -> None:
        """Do nothing: an offset needs no memory."""

    def places(self, seq: int) -> dict[str, int]:
        """The offset in the one log; that of its begin where the bot has snapshots alone."""
        at = self._session.offset_of(seq)
        return {self._session.log: self._session.base if at is None else at}

    def present(self, feed: Feed) -> int:
        """The number of the place up to which the log was seen; while a RESUME could not tell what the bot has, that
        of a snapshot, because a RESUME from there is refused."""
        return feed.at + self._shift if feed.is_settled else self._unsettled


class CountedNumbers:
    """Numbers counted over several logs, with the place of each event that the bot may still ask for."""

    def __init__(self, snapshots: int) -> None:
        self._feeds: dict[Feed, int] = {}
        self._seq = snapshots + 1
        # The number that the bot is known to have, and the places in the logs that belong to it.
        self._known = self._seq
        self._known_at: list[int] = []
        # Log and offset of each event after it; the first `_begin` are forgotten.
        self._logs = array("H")
        self._offsets = array("q")
        self._begin = 0
        # While events are sent again: the index of the next one, what has come too early, and what is new.
        self._again: int | None = None
        self._wanted: set[tuple[int, int]] = set()
        self._early: dict[tuple[int, int], tuple[str, bytes]] = {}
        self._new: list[tuple[Feed, int, str, bytes]] = []
        self._held_bytes = 0
        # How far each log was seen when the bot left: what comes again up to there is sent only if it was before.
        self._left_at: list[int] = []

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be sent again."""
        return self._again is None

    def begin(self, feeds: list[Feed]) -> None:
        """Take the session's feeds, at the places where their logs begin for it."""
        self._feeds = {feed: index for index, feed in enumerate(feeds)}
        self._known_at = [feed.at for feed in feeds]
        self._left_at = list(self._known_at)

    def send(self, feed: Feed, name: str, d: bytes) -> None:
        """Send what the entry at ``feed.at`` makes, or keep it until what was sent before it has been sent again."""
        place = self._feeds[feed], feed.at
        is_new = feed.at > self._left_at[place[0]]
        if self._again is None:
            if is_new:
                self._send_new(feed, feed.at, name, d)
            return
        if place in self._wanted:
            self._early[place] = name, d
        elif is_new:
            self._new.append((feed, feed.at, name, d))
        else:
            return
        self._held_bytes += len(d)
        if self._held_bytes > MOST_HELD:
            feed.receiver.invalidate()
            return
        self._send_again(feed)

    def tell(self, feed: Feed, name: str, d: bytes) -> None:
        """Send under the number of what was sent before; it is not sent again."""
        feed.receiver.send(dispatch(name, self._seq, d))

    def acknowledge(self, seq: int) -> None:
        """Note that the bot has everything up to ``seq``."""
        if self._again is not None:
            return
        while self._known < min(seq, self._seq):
            self._known_at[self._logs[self._begin]] = self._offsets[self._begin]
            self._begin += 1
            self._known += 1
        if self._begin > 1_000 and self._begin * 2 > len(self._offsets):
            del self._logs[: self._begin]
            del self._offsets[: self._begin]
            self._begin = 0

    def present(self, feed: Feed) -> int:
        """The number of what was sent last."""
        return self._seq

    def places(self, seq: int) -> dict[str, int]:
        """The offset in each log, after ``acknowledge`` of the same number."""
        return {feed.log: self._known_at[index] for feed, index in self._feeds.items()}

    def leave(self) -> None:
        """Note that the bot has left, and may come back."""
        if self._again is None:
            self._left_at = [feed.at for feed in self._feeds]
        # What was kept is read again.
        self._early.clear()
        self._new.clear()

    def resume(self, seq: int) -> bool:
        """Set the feeds to where the bot is; return false where that is not known any more."""
        if not self._known <= seq <= self._seq:
            return False
        self._again = None
        self.acknowledge(seq)
        for feed, index in self._feeds.items():
            feed.at = self._known_at[index]
        self._wanted = set(zip(self._logs[self._begin :], self._offsets[self._begin :], strict=True))
        self._again = self._begin if self._wanted else None
        self._held_bytes = 0
        return True

    def _send_new(self, feed: Feed, at: int, name: str, d: bytes) -> None:
        self._seq += 1
        if self._seq > MOST_SEQ:
            feed.receiver.invalidate()
            return
        self._logs.append(self._feeds[feed])
        self._offsets.append(at)
        if len(self._offsets) - self._begin > MOST_REMEMBERED:
            self.acknowledge(self._known + 1)
        feed.receiver.send(dispatch(name, self._seq, d))

    def _send_again(self, feed: Feed) -> None:
        again = self._again
        assert again is not None
        while again < len(self._offsets):
            found = self._early.pop((self._logs[again], self._offsets[again]), None)
            if found is None:
                self._again = again
                return
            feed.receiver.send(dispatch(found[0], self._known + 1 + again - self._begin, found[1]))
            again += 1
        self._again = None
        self._wanted.clear()
        new, self._new = self._new, []
        for each in new:
            self._send_new(*each)
