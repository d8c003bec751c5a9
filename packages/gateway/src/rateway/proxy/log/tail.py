"""The end of one cluster's event log, read once for all sessions of this process, and how sessions come to it.

A session comes to the tail at the exact entry that its bot has: from the newest entries, which are kept, or by a pass
over the past that sessions share. Where that entry is not found the session cannot be resumed.

What is here knows no tasks: it is called by the log's reader and by timers.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rateway.delivery.proxy_port import Age, EndReason, LogEntry, LogPass, LogReader, LogStart, Newest, Offset
from rateway.proxy.log.fanout import Answers, Fanout, Visible
from rateway.proxy.log.order import Order
from rateway.proxy.log.past import MOST_SKIPPED, Joined, Member, PastPass
from rateway.proxy.log.reading import Reading, Timer, Timers
from rateway.proxy.log.stream import Feed

__all__ = ["LogTail"]

# Seconds of the log that a tail reads before it began: each shard's newest session and number should be among them.
LOOK_BACK_SECONDS: Final = 60
# Bytes of the newest entries that are kept for sessions that are about to join.
MOST_KEPT: Final = 4 << 20
# Of an entry beside its body.
ENTRY_BYTES: Final = 400
# Seconds without an entry after which the newest one is looked for, whatever its age.
QUIET: Final = 0.2
# Seconds within which RESUMEs share a pass over the past.
GATHER: Final = 0.05
# Passes over the past of one log at a time; who comes later shares the next one.
MOST_PASSES: Final = 4
# A bot with so many bytes to take is closed; it resumes from the log.
MOST_WAITING: Final = 16 << 20
# Bytes of events between two looks at what bots have not taken.
WATCH_EVERY: Final = 1 << 20


class LogTail:
    """The end of one log. *on_lost* is called when the log is gone or has a hole, with words for the log."""

    def __init__(
        self, log: str, reader: LogReader, timers: Timers, visible: Visible, answers: Answers,
        on_lost: Callable[[LogTail, str], None],
    ) -> None:  # fmt: skip
        self.log = log
        self.last = -1
        """The offset of the newest entry that was read; -1: none yet."""
        self.last_timestamp = 0
        """When the gateway received it, in seconds since 1970."""
        self.is_open = False
        self.trouble = ""
        """Why nothing is read just now; empty while all is well."""
        self._reader = reader
        self._timers = timers
        self._make_fanout = functools.partial(Fanout, visible, answers)
        self._fanout = self._make_fanout()
        self._on_lost = on_lost
        # The newest entries and their offsets; None stands for what was there twice.
        self._kept: list[LogEntry | None] = []
        self._kept_offsets: list[int] = []
        self._kept_bytes = 0
        self._is_cut = False
        self._watched_bytes = 0
        self._reading = Reading(log, reader, timers, self)
        # The first entry of a pass that goes on has to be the last one of the pass before.
        self._must_begin_with: int | None = None
        self._waiting: list[Member] = []
        self._gathering: Timer | None = None
        self._past: list[PastPass] = []
        self._is_begun = False
        # Of a log that is quiet: the newest entry, which is older than what was read.
        self._newest = -1
        self._quiet: Timer | None = None
        self._probe: _Probe | None = None
        self._when_begun: list[Callable[[], None]] = []
        self._when_read: list[Callable[[], None]] = []

    # For the sessions.

    def open(self) -> None:
        """Begin to read."""
        self.is_open = True
        self._begin()

    def close(self) -> None:
        """Stop reading. Sessions that are here get nothing more."""
        self.is_open = False
        for timer in (self._gathering, self._quiet):
            if timer is not None:
                timer.cancel()
        self._gathering = self._quiet = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        self._reading.close()
        for past in tuple(self._past):
            past.close()

    @property
    def order(self) -> Order:
        """What was read, in order."""
        return self._fanout.order

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """The sessions that get entries as they come."""
        return self._fanout.feeds

    @property
    def replaying(self) -> int:
        """Sessions that wait for their past, or get it."""
        return len(self._waiting) + sum(len(past.members) for past in self._past)

    def join(self, feed: Feed, joined: Joined) -> None:
        """Let a session go on after the entry at ``feed.at``, which has to be in the log (-1: the log was empty)."""
        if self.is_open and self.can_join(feed.at):
            self.finish(Member(feed, joined))
        elif not self.is_open or feed.at < 0:
            joined(False)
        else:
            self._waiting.append(Member(feed, joined))
            self.gather()

    def leave(self, feed: Feed) -> None:
        """Remove a session that ends."""
        if self._fanout.remove(feed):
            return
        self._waiting = [member for member in self._waiting if member.feed is not feed]
        for past in tuple(self._past):
            past.leave(feed)

    def on_writable(self) -> None:
        """Let passes go on: a bot has taken what it had to take."""
        for past in tuple(self._past):
            past.acknowledge()

    @property
    def end(self) -> int:
        """The offset of the newest entry that is known; -1: none."""
        return max(self.last, self._newest)

    # For passes over the past.

    def can_join(self, at: int) -> bool:
        """Whether the entry at this offset is among those that are kept, so that nothing after it is missing."""
        if at == self._newest:
            # What was written since is kept, all of it.
            return not self._is_cut
        index = bisect_right(self._kept_offsets, at) - 1
        return index >= 0 and self._kept_offsets[index] == at

    def _join_now(self, feed: Feed) -> None:
        fanout = self._fanout
        begin = bisect_right(self._kept_offsets, feed.at)
        for entry in self._kept[begin:]:
            if entry is not None and feed.is_open:
                fanout.bring_to(entry, feed)
        if feed.is_open:
            feed.pass_positions(fanout.order)
            fanout.add(feed)

    def when_begun(self, callback: Callable[[], None]) -> None:
        """Call back once everything that is written from then on will be read, or the log is lost; at once where that
        is so."""
        if self._is_begun or not self.is_open:
            callback()
        else:
            self._when_begun.append(callback)

    def when_read(self, callback: Callable[[], None]) -> None:
        """Call back once an entry was read, or the log is lost; at once where that is so."""
        if self.end >= 0 or not self.is_open:
            callback()
        else:
            self._when_read.append(callback)

    def gather(self) -> None:
        """Begin a pass over the past soon, for all that wait for one."""
        if self._waiting and self._gathering is None and len(self._past) < MOST_PASSES:
            self._gathering = self._timers.call_later(GATHER, self._begin_past)

    def _begin_past(self) -> None:
        self._gathering = None
        members, self._waiting = self._waiting, []
        late = [member for member in members if not self.can_join(member.feed.at)]
        for member in members:
            if member not in late:
                self.finish(member)
        if late and self.is_open:
            past = PastPass(self, self._reader, self._timers, self._make_fanout(), late)
            self._past.append(past)
            past.begin()

    def finish(self, member: Member) -> None:
        """Let a session whose place is among the kept entries go on from there."""
        self._join_now(member.feed)
        if member.feed.is_open:
            member.joined(True)

    def forget(self, past: PastPass) -> None:
        """Forget a pass over the past that has ended."""
        if past in self._past:
            self._past.remove(past)
        self.gather()

    # LogSink.

    def on_begin(self) -> None:
        self._is_begun = True
        self.trouble = ""
        if self.end < 0 and self._quiet is None:
            self._quiet = self._timers.call_later(QUIET, self._look_for_newest)
        callbacks, self._when_begun = self._when_begun, []
        _call(callbacks)

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        self._reading.note_entries()
        if self._must_begin_with is not None:
            if entries[0].offset > self._must_begin_with:
                self.lose(f"entries of {self.log} after offset {self._must_begin_with} are gone")
                return
            self._must_begin_with = None
        fanout, last = self._fanout, self.last
        kept, offsets = self._kept, self._kept_offsets
        size = 0
        for entry in entries:
            if entry.offset <= last:
                continue
            if entry.offset > last + MOST_SKIPPED and last >= 0:
                self.lose(f"entries of {self.log} between offsets {last} and {entry.offset} are gone")
                return
            self.last = last = entry.offset
            is_new = fanout.bring(entry)
            offsets.append(last)
            kept.append(entry if is_new else None)
            if is_new:
                size += len(entry.body) + ENTRY_BYTES
        self.last_timestamp = entries[-1].timestamp
        self._reading.acknowledge(entries[-1].offset)
        self._watched_bytes += size
        self._kept_bytes += size
        if self._kept_bytes > MOST_KEPT:
            self._cut()
        if self._watched_bytes > WATCH_EVERY:
            self.watch()
        for past in tuple(self._past):
            past.look_at_tail()
        if self._when_read:
            callbacks, self._when_read = self._when_read, []
            _call(callbacks)

    def on_end(self, reason: EndReason, text: str) -> None:
        self._reading.note_end()
        if not self.is_open:
            return
        self.trouble = text
        if reason == "missing":
            self.lose(text)
            return
        if self.end < 0:
            # Where an empty log goes on is not known: what is written until it is read again could be missed.
            for feed in self._fanout.feeds:
                feed.receiver.invalidate()
        self._reading.try_again(self._begin)

    def _look_for_newest(self) -> None:
        self._quiet = None
        if self.end < 0:
            self._probe = _Probe(self.log, self._reader, self._find_newest)

    def _find_newest(self, offset: int) -> None:
        self._probe = None
        if self.last < 0:
            self._newest = offset
            callbacks, self._when_read = self._when_read, []
            _call(callbacks)
            for past in tuple(self._past):
                past.look_at_tail()

    def watch(self) -> None:
        """Close bots that take their events too slowly."""
        self._watched_bytes = 0
        for feed in self._fanout.feeds:
            if feed.receiver.waiting > MOST_WAITING:
                feed.receiver.close(4000, "Too slow: reconnect and resume.")

    def _begin(self) -> None:
        start: LogStart = Age(LOOK_BACK_SECONDS)
        if self.end >= 0:
            self._must_begin_with = self.end
            start = Offset(self.end)
        self._reading.begin(start)

    def _cut(self) -> None:
        """Forget the older half of what is kept."""
        self._is_cut = True
        kept, size, at = self._kept, self._kept_bytes, 0
        while size > MOST_KEPT // 2 and at < len(kept) - 1:
            entry = kept[at]
            if entry is not None:
                size -= len(entry.body) + ENTRY_BYTES
            at += 1
        self._kept_bytes = size
        del kept[:at]
        del self._kept_offsets[:at]

    def lose(self, text: str) -> None:
        """End all sessions of the log, which cannot be read on. ``text`` says why, for a log line."""
        feeds = self._fanout.feeds
        waiting, self._waiting = self._waiting, []
        past = tuple(self._past)
        self.close()
        for each in past:
            each.refuse_all()
        for member in waiting:
            member.joined(False)
        for feed in feeds:
            feed.receiver.invalidate()
        callbacks = [*self._when_begun, *self._when_read]
        self._when_begun, self._when_read = [], []
        self._on_lost(self, text)
        _call(callbacks)


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()


class _Probe:
    """Find out the newest entry of a log, beside the pass that waits for the next one."""

    def __init__(self, log: str, reader: LogReader, found: Callable[[int], None]) -> None:
        self._found = found
        self._pass: LogPass | None = reader.read(log, Newest(), self)

    def close(self) -> None:
        """Stop."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def on_begin(self) -> None:
        """Nothing to do: an empty log has no newest entry."""

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        self.close()
        self._found(entries[-1].offset)

    def on_end(self, reason: EndReason, text: str) -> None:
        self._pass = None
