"""The end of one cluster's event log, read once for all sessions of this process, and how sessions come to it.

A session comes to the tail at the exact entry that its bot has: from the newest entries, which are kept, or by a pass
over the past that sessions share. Where that entry is not found the session cannot be resumed.

What is here knows no tasks: it is called by the log's reader and by timers.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
from rateway.delivery.proxy_port import Age, EndReason, LogEntry, LogPass, LogReader, LogStart, Newest, Offset
from rateway.proxy.log.dispatch import Kind, kind_of
from rateway.proxy.log.order import LOOK_BACK, Order
from rateway.proxy.log.reading import Reading, Timer, Timers
from rateway.proxy.log.stream import Feed
from rateway_protocol.contract.messages import Gap, GuildLeft

__all__ = ["Answers", "Joined", "LogTail", "Visible"]

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
# A pass over the past waits while one of its bots has so many bytes to take.
PAST_WAITING: Final = 1 << 20
# Seconds between two looks at whether the entry that a bot has can still come: a log serves an offset beyond its end by
# silence, as a slow broker does.
ANCHOR_PATIENCE: Final = 1.0
# So many looks while the tail shows that the entry is in the log, or is still being read; and while it shows nothing.
MOST_LOOKS: Final = 30
MOST_BLIND_LOOKS: Final = 10
# A bot with so many bytes to take is closed; it resumes from the log.
MOST_WAITING: Final = 16 << 20
# Bytes of events between two looks at what bots have not taken.
WATCH_EVERY: Final = 1 << 20
# Offsets that are skipped between two entries: one where a segment begins. Where retention overtakes a reader, many
# more are missing.
MOST_SKIPPED: Final = 100

Visible = Callable[[str, bytes, int, int], bytes | None]
"""Return an event's ``d`` as a bot of these intents gets it, None where it gets none: name, ``d``, intents, bot's
id."""

Joined = Callable[[bool], None]
"""Called once the session has reached the tail (true), or cannot be gone on with (false)."""


class Answers(Protocol):
    """Knows which sessions wait for the answer to a command."""

    def of(self, entry: LogEntry, feeds: Sequence[Feed]) -> Iterable[tuple[Feed, bytes]]:
        """The sessions that an answer goes to, and what of it."""


_decode_gap = msgspec.json.Decoder(Gap).decode
_decode_left = msgspec.json.Decoder(GuildLeft).decode


class _Group:
    """Feeds with equal intents: what they see of an event is found out once."""

    __slots__ = ("feeds", "intents", "own_id")

    def __init__(self, intents: int, own_id: int, feeds: tuple[Feed, ...]) -> None:
        self.intents = intents
        self.own_id = own_id
        self.feeds = feeds


class _Fanout:
    """Bring entries to feeds. Feeds may come and go while it does."""

    __slots__ = ("_answers", "_groups", "_visible", "feeds", "order")

    def __init__(self, visible: Visible, answers: Answers) -> None:
        self.order = Order()
        self.feeds: tuple[Feed, ...] = ()
        self._groups: dict[int, tuple[_Group, ...]] = {}
        self._visible = visible
        self._answers = answers

    def add(self, feed: Feed) -> None:
        self.feeds = (*self.feeds, feed)
        self._rebuild()

    def remove(self, feed: Feed) -> bool:
        if feed not in self.feeds:
            return False
        self.feeds = tuple(each for each in self.feeds if each is not feed)
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        by_shard: dict[int, dict[tuple[int, int], list[Feed]]] = {}
        for feed in self.feeds:
            key = feed.stream.intents, feed.stream.own_id
            for shard_id in feed.shards:
                by_shard.setdefault(shard_id, {}).setdefault(key, []).append(feed)
        self._groups = {
            shard_id: tuple(_Group(*key, tuple(feeds)) for key, feeds in groups.items())
            for shard_id, groups in by_shard.items()
        }

    def bring(self, entry: LogEntry) -> bool:
        """Bring the next entry of the log to its feeds; false when it stands in the log a second time."""
        if not self.order.is_new(entry):
            return False
        kind = kind_of(entry.name)
        if kind is Kind.EVENT:
            for group in self._groups.get(entry.shard_id, ()):
                d = self._visible(entry.name, entry.body, group.intents, group.own_id)
                for feed in group.feeds:
                    # A tail that has joined a feed by the newest entry of the log may still read older ones.
                    if entry.offset > feed.at:
                        feed.on_entry(entry, d, self.order)
        elif kind is not Kind.HIDDEN:
            self._bring_seldom(entry, kind, tuple(feed for feed in self.feeds if entry.offset > feed.at))
        return True

    def bring_to(self, entry: LogEntry, feed: Feed) -> None:
        """Bring an entry that is known to be new to one feed."""
        kind = kind_of(entry.name)
        if kind is Kind.EVENT:
            if entry.shard_id in feed.shards:
                d = self._visible(entry.name, entry.body, feed.stream.intents, feed.stream.own_id)
                feed.on_entry(entry, d, self.order)
        elif kind is not Kind.HIDDEN:
            self._bring_seldom(entry, kind, (feed,))

    def _bring_seldom(self, entry: LogEntry, kind: Kind, feeds: tuple[Feed, ...]) -> None:
        if kind is Kind.ANSWER:
            concerned = [feed for feed in feeds if entry.shard_id in feed.shards]
            for feed, d in self._answers.of(entry, concerned):
                feed.on_answer(entry, d)
            return
        try:
            if kind is Kind.GAP:
                gap = _decode_gap(entry.body)
                for feed in feeds:
                    feed.on_gap(entry, gap, self.order)
            else:
                left = _decode_left(entry.body)
                for feed in feeds:
                    feed.on_guild_left(entry, left.shard, int(left.guild_id))
        except (msgspec.MsgspecError, ValueError):
            # Not the gateway's own: any client may publish to the exchange.
            return


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
        self._make_fanout = functools.partial(_Fanout, visible, answers)
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
        self._waiting: list[_Member] = []
        self._gathering: Timer | None = None
        self._past: list[_PastPass] = []
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
            self.finish(_Member(feed, joined))
        elif not self.is_open or feed.at < 0:
            joined(False)
        else:
            self._waiting.append(_Member(feed, joined))
            self.gather()

    def leave(self, feed: Feed) -> None:
        """The session ends."""
        if self._fanout.remove(feed):
            return
        self._waiting = [member for member in self._waiting if member.feed is not feed]
        for past in tuple(self._past):
            past.leave(feed)

    def on_writable(self) -> None:
        """A bot has taken what it had to take."""
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
            past = _PastPass(self, self._reader, self._timers, self._make_fanout(), late)
            self._past.append(past)
            past.begin()

    def finish(self, member: _Member) -> None:
        """Let a session whose place is among the kept entries go on from there."""
        self._join_now(member.feed)
        if member.feed.is_open:
            member.joined(True)

    def forget(self, past: _PastPass) -> None:
        """A pass over the past has ended."""
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
        """The log cannot be gone on with: all its sessions end. ``text`` says why, for a log line."""
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


class _Member:
    """A session on its way to the tail."""

    __slots__ = ("feed", "is_anchored", "joined")

    def __init__(self, feed: Feed, joined: Joined) -> None:
        self.feed = feed
        self.joined = joined
        # Whether the entry that its bot has was found.
        self.is_anchored = False


class _PastPass:
    """One pass over the past of a log, up to where the tail's kept entries begin."""

    def __init__(
        self, tail: LogTail, reader: LogReader, timers: Timers, fanout: _Fanout, members: list[_Member]
    ) -> None:
        self.members = members
        self._tail = tail
        self._reading = Reading(tail.log, reader, timers, self)
        self._fanout = fanout
        self._last = -1
        self._acknowledged = -1
        # Looks without an entry, and the tail's newest offset at the last one.
        self._looks = 0
        self._tail_at = -1

    def begin(self) -> None:
        """Read from the first place that one of its sessions needs."""
        for member in self.members:
            member.is_anchored = False
            self._fanout.remove(member.feed)
        self._fanout.order = Order()
        self._last = -1
        first = min(member.feed.at for member in self.members)
        self._reading.begin(Offset(max(0, first - LOOK_BACK)))

    def close(self) -> None:
        """Stop."""
        self._reading.close()
        self._tail.forget(self)

    def leave(self, feed: Feed) -> None:
        """A session ends."""
        self.members = [member for member in self.members if member.feed is not feed]
        self._fanout.remove(feed)
        if self.members:
            self.acknowledge()
        else:
            self.close()

    def refuse_all(self) -> None:
        """None of its sessions can go on."""
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
        self._looks = 0
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
        most = MOST_BLIND_LOOKS if self._tail_at < 0 else MOST_LOOKS
        for member in tuple(self.members):
            is_slow = self._tail_at < 0 or self._tail_at > tail_at or self._tail_at >= member.feed.at
            if not member.is_anchored and not (is_slow and self._looks < most):
                self.members.remove(member)
                member.joined(False)
        if self.members:
            self._look_later()
        else:
            self.close()
