"""Fill the cold cache of one shard from a second session's events, while the first session's go on.

Two sessions of a shard get the same events of a guild in the same order, each at its own time and under numbers of
its own. Only the first one's are published, and only its numbers are positions. A guild that is not known yet comes
with the second session's GUILD_CREATE, and *follows* that session from there: its events are applied, the first one's
are not. An event that came by one session and has not come by the other is remembered by its content, so that it is
known at any time which of the two is ahead, and by what. Where both stand at the same place the guild follows the
first session again: no event is applied twice, and none is left out. What the first session says of a guild as a
whole (it was joined, left, came again) counts at once.

A guild whose place cannot be found is forgotten, and the shard stays cold: nothing wrong is ever said. So it is with
all guilds that follow when the second session is given up; and a process that ends meanwhile leaves a mark
(:func:`forget_unfinished`).

Pure: time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec
from rateway.cache.apply import Cache
from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.reducers.session import listed_beside
from rateway.native.objects.fields import UNREADABLE, fields_inside, snowflake

__all__ = ["APART_S", "GUILDS_WITHIN_S", "PLACES_WITHIN_S", "SecondView"]

# What one session has had and the other has not after so long, that one will not get: it was in the snapshot already,
# or is only one session's.
APART_S: Final = 5.0
# Guilds of READY's list that have not come so long after the last one are in an outage: the first session brings them.
GUILDS_WITHIN_S: Final = 30.0
# So long after the last guild came, the places of all of them have to be found.
PLACES_WITHIN_S: Final = 60.0
# Events of one guild that are remembered. (A busy guild has a hundred a second.)
MOST_REMEMBERED: Final = 10_000
# These come to the session that asked for them, or to one of several: they are no sign of where a session stands.
_OF_ONE_SESSION: Final = frozenset({"GUILD_MEMBERS_CHUNK", "INTERACTION_CREATE"})
_WHOLE: Final = frozenset({"GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"})


@dataclass(slots=True)
class _Seen:
    """An event of the first session that the second has not had."""

    key: int
    at: float
    seq: int
    name: str
    raw: bytes | None
    """Its content; None where it came before the guild did."""


@dataclass(slots=True)
class _Followed:
    """A guild that follows the second session. At most one of the two is not empty."""

    behind: deque[_Seen]
    """What only the first session has had: the second is behind."""
    moved_at: float
    """When the last event of the guild came, by any session."""
    ahead: deque[tuple[int, float]] = field(default_factory=deque)
    """What only the second session has had, each with its time."""
    is_placed: bool = False
    """Whether an event came by both sessions since the snapshot: what is ``behind`` is not in it."""


class SecondView:
    """One shard's guilds as a second session tells them."""

    def __init__(self, cache: Cache, shard_id: int) -> None:
        self.shard_id = shard_id
        self.listed: set[int] | None = None
        """Guilds of the second session's READY that have not come; None before READY."""
        self.came = 0
        """Guilds that have come."""
        self.is_over = False
        """Whether nothing follows the second session, and nothing more is expected from it."""
        self.fault = ""
        """Why not all guilds are known although it is over; empty when they are."""
        self._cache = cache
        self._shard_count: int | None = None
        self._following: dict[int, _Followed] = {}
        # Of guilds that have not come: what the first session had of them, newest last.
        self._before: dict[int, deque[_Seen]] = {}
        # Guilds of which the first session has said all since this began.
        self._own: set[int] = set()
        self._last_at = 0.0
        self._steady_since: float | None = None
        cache.mark_unfinished(shard_id)

    @property
    def following(self) -> int:
        """How many guilds follow the second session now."""
        return len(self._following)

    def first(self, seq: int, name: str, d: bytes | memoryview, now: float) -> bool:
        """Take in an event of the first session; return whether it is to be applied now."""
        if self.is_over or seq <= self._cache.applied(self.shard_id):
            return True
        if name == "READY":
            self.abandon("the first session was replaced")
            return True
        guild_id = _guild_of(name, d)
        if guild_id is None or name in _OF_ONE_SESSION:
            return True
        followed = self._following.get(guild_id)
        if name == "GUILD_CREATE" or (name == "GUILD_DELETE" and not _is_outage(d)):
            self._own.add(guild_id)
            self._before.pop(guild_id, None)
            if followed is not None:
                del self._following[guild_id]
            return True
        if not self._cache.takes(name):
            return True
        raw = bytes(d)
        seen = _Seen(hash((name, raw)), now, seq, name, raw)
        if followed is None:
            if guild_id not in self._own and (self.listed is None or guild_id in self.listed):
                seen.raw = None
                self._before.setdefault(guild_id, deque(maxlen=MOST_REMEMBERED)).append(seen)
            return True
        followed.moved_at = now
        if not followed.ahead:
            followed.behind.append(seen)
        elif any(key == seen.key for key, _ in followed.ahead):
            while followed.ahead.popleft()[0] != seen.key:
                pass
            self._meet(guild_id, followed)
        # Else it is older than what the guild's snapshot tells.
        self._cache.skip(self.shard_id, seq)
        return False

    def second(self, name: str, d: bytes | memoryview, now: float) -> None:
        """Take in an event of the second session. Raises what the storage raises."""
        if self.is_over:
            return
        if name == "READY":
            self._begin(bytes(d), now)
            return
        guild_id = _guild_of(name, d)
        if guild_id is None or self.listed is None or name in _OF_ONE_SESSION:
            return
        if guild_id in self.listed and name in _WHOLE:
            self._come(guild_id, name, d, now)
            return
        followed = self._following.get(guild_id)
        if followed is None or not self._cache.takes(name):
            return
        raw = bytes(d)
        key = hash((name, raw))
        self._cache.apply_beside(self.shard_id, name, raw)
        followed.moved_at = now
        if name == "GUILD_DELETE" and not _is_outage(raw):
            del self._following[guild_id]
            self._own.add(guild_id)
        elif any(seen.key == key for seen in followed.behind):
            while followed.behind.popleft().key != key:
                pass
            self._meet(guild_id, followed)
        else:
            # It comes after all that the first session has had of the guild.
            followed.behind.clear()
            followed.ahead.append((key, now))

    def look(self, now: float, *, is_steady: bool) -> None:
        """Let guilds that stand still in both sessions follow the first one again, and end when all of them do. To be
        called about once a second.

        Args:
            now: Monotonic seconds.
            is_steady: Whether both sessions are live and are read.
        """
        if self.is_over:
            return
        if not is_steady:
            self._steady_since = None
            return
        if self._steady_since is None:
            self._steady_since = now
        settled = now - APART_S
        if self.listed is None or self._steady_since > settled or self._last_at > settled:
            return
        for guild_id, followed in list(self._following.items()):
            while followed.behind and followed.behind[0].at <= settled:
                followed.behind.popleft()
            while followed.ahead and followed.ahead[0][1] <= settled:
                followed.ahead.popleft()
            if not followed.behind and not followed.ahead and followed.moved_at <= settled:
                del self._following[guild_id]
        if self.listed and now - self._last_at < GUILDS_WITHIN_S:
            return
        if self._following and now - self._last_at >= PLACES_WITHIN_S:
            self._place_all()
        if not self._following:
            self._end()

    def abandon(self, why: str) -> None:
        """Give the second session up: what follows it is forgotten. The shard stays cold."""
        if self.is_over:
            return
        for guild_id in list(self._following):
            self._forget(guild_id)
        self._finish(why)

    def break_off(self, why: str) -> None:
        """The store has lost what was not committed: nothing is written any more, see ``prune.forget_unfinished``."""
        self.is_over, self.fault = True, why
        self._following.clear()
        self._before.clear()

    def _begin(self, d: bytes, now: float) -> None:
        found = None
        if self.listed is None:
            try:
                found = listed_beside(self._cache.writer, d)
            except (*UNREADABLE, ValueError, TypeError, LookupError):
                found = None
        if found is None:
            # A second READY: the session was replaced, and what follows it has lost its place.
            self.abandon(
                "its second session cannot be read" if self.listed is None else "its second session ended"
            )
            return
        self.listed, self._shard_count = found
        self._cache.touch(self.shard_id)
        self._last_at = now

    def _come(self, guild_id: int, name: str, d: bytes | memoryview, now: float) -> None:
        """Take in the first that the second session says of a guild as a whole."""
        assert self.listed is not None
        if name == "GUILD_UPDATE":
            return
        self.listed.discard(guild_id)
        self.came += 1
        self._last_at = now
        before = self._before.pop(guild_id, None)
        row = self._cache.writer.guild_row(guild_id)
        if guild_id in self._own or (row is not None and row.number):
            return
        if name == "GUILD_DELETE" and not _is_outage(d):
            return
        self._cache.apply_beside(self.shard_id, name, bytes(d))
        row = self._cache.writer.guild_row(guild_id)
        if row is not None and row.number:
            behind = deque(maxlen=MOST_REMEMBERED) if before is None else before
            self._following[guild_id] = _Followed(behind, now)

    def _meet(self, guild_id: int, followed: _Followed) -> None:
        """An event came by both sessions: where nothing else is outstanding they stand at the same place."""
        followed.is_placed = True
        if not followed.behind and not followed.ahead:
            del self._following[guild_id]

    def _place_all(self) -> None:
        """Have every guild follow the first session now: one that is too busy to stand still, from what that one alone
        has had; one whose place is not known is forgotten.
        """
        for guild_id, followed in list(self._following.items()):
            if followed.ahead or not followed.is_placed or any(each.raw is None for each in followed.behind):
                self._forget(guild_id)
                self.fault = "the two sessions differ"
                continue
            for seen in followed.behind:
                assert seen.raw is not None
                self._cache.apply_beside(self.shard_id, seen.name, seen.raw)
            del self._following[guild_id]

    def _forget(self, guild_id: int) -> None:
        self._following.pop(guild_id, None)
        row = self._cache.writer.guild_row(guild_id)
        if row is not None:
            self._cache.writer.remove_guild(guild_id, row)
            self._cache.touch(self.shard_id)

    def _end(self) -> None:
        """All that can come has come: name the guilds that are in an outage; the shard's guilds are known."""
        assert self.listed is not None
        writer = self._cache.writer
        if not self.fault:
            for guild_id in self.listed - self._own:
                if writer.guild_row(guild_id) is None:
                    row = GuildRow(
                        GuildState.OUTAGE, shard_id=self.shard_id, shard_count=self._shard_count or 0
                    )
                    writer.save(guild_id, row)
            if self._shard_count is not None:
                writer.keep_layout(self.shard_id, self._shard_count)
            writer.warm(self.shard_id)
        self._finish(self.fault)

    def _finish(self, fault: str) -> None:
        self.is_over, self.fault = True, fault
        self._following.clear()
        self._before.clear()
        self._cache.unmark_unfinished(self.shard_id)


def _guild_of(name: str, d: bytes | memoryview) -> int | None:
    found = fields_inside(d)
    return snowflake(found.get("id" if name in _WHOLE else "guild_id"))


def _is_outage(d: bytes | memoryview) -> bool:
    return fields_inside(d).get("unavailable") == msgspec.Raw(b"true")
