"""What does the next event change? The door to the cache: once per event and session, whatever comes again.

A shard's *applied* sequence is kept in the same transaction as the changes. What comes again at or below it changes
nothing, so that counters stay right over replays; it only says once more what only the cache knows.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from rateway.cache.applied import Applied
from rateway.cache.before import BEFORE
from rateway.cache.book import Book
from rateway.cache.objects import fields, join, snowflake
from rateway.cache.policy import CachePolicy
from rateway.cache.reducers import REDUCERS, Reducer, reducers
from rateway.cache.storage import Storage, Table

__all__ = ["Cache", "Usual"]

_POSITION = struct.Struct(">Q")
_SHARD = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Usual:
    """What the short cut of usual events needs of a cache (``cache.plain.Door``)."""

    book: Book
    positions: dict[int, int]
    dirty: set[int]
    reducers: Mapping[str, Reducer]
    presences: bool
    """Whether presences are kept as they come."""
    voices: bool
    """Whether voice states are kept."""
    members: bool
    """Whether a voice state says something of the member in it."""
    tells: bool
    """Whether a message tells only its channel's newest one, and, if ``hears``, something of its author and member."""
    hears: bool
    """Whether messages, typing and (``reactions``) reactions say something of the member in them."""
    reactions: bool


class _Session(msgspec.Struct, gc=False):
    session_id: str


_session = msgspec.json.Decoder(_Session).decode


class Cache:
    """One cluster's cache, written by one."""

    def __init__(self, storage: Storage, policy: CachePolicy) -> None:
        self.policy = policy
        self.storage = storage
        self.book = Book(storage, policy)
        self.failures: dict[str, int] = {}
        """Event name → how often its payload could not be understood. The events themselves go on."""
        self._reducers = reducers(policy)
        self._before = (
            frozenset(name for name in policy.before if name in BEFORE) if policy.enabled else frozenset()
        )
        self._positions: dict[int, int] = {}
        self._sessions: dict[int, str] = {}
        self._dirty: set[int] = set()
        for key, value in storage.scan(Table.APPLIED, b"", b"\xff" * 9):
            shard_id = _SHARD.unpack(key)[0]
            self._positions[shard_id] = _POSITION.unpack_from(value)[0]
            self._sessions[shard_id] = value[8:].decode()

    def usual(self) -> Usual:
        """For the short cut of usual events."""
        plain = "messages" not in self.book.kept
        hears = self.book.takes_authors and plain
        direct = {name for name, reducer in self._reducers.items() if reducer is REDUCERS[name][0]}
        direct -= self._before
        return Usual(
            book=self.book,
            positions=self._positions,
            dirty=self._dirty,
            reducers=self._reducers,
            presences="PRESENCE_UPDATE" in direct
            and self.policy.activities
            and "presences" in self.book.kept,
            voices="VOICE_STATE_UPDATE" in direct and "voice_states" in self.book.kept,
            members=self.book.takes_authors,
            tells=plain and "MESSAGE_CREATE" in direct,
            hears=hears and {"MESSAGE_CREATE", "TYPING_START"} <= direct,
            reactions=hears and "MESSAGE_REACTION_ADD" in direct,
        )

    def applied(self, shard_id: int) -> int:
        """The highest sequence whose effect is in the cache."""
        return self._positions.get(shard_id, 0)

    def session_of(self, shard_id: int) -> str | None:
        """The session that :meth:`applied` counts in."""
        return self._sessions.get(shard_id)

    def position_in(self, shard_id: int, session_id: str) -> int:
        """The applied sequence of a stored session that is about to be resumed.

        If the cache knows another session of that shard (its own record was never written), this one counts from 0.
        """
        if self._sessions.get(shard_id) != session_id:
            self._sessions[shard_id] = session_id
            self._positions[shard_id] = 0
        return self._positions.get(shard_id, 0)

    def apply(self, shard_id: int, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """Take one event in. Raises what the storage raises, and nothing for an odd payload."""
        if name == "READY":
            self._begin(shard_id, d)
        positions = self._positions
        if seq <= positions.get(shard_id, 0):
            return self._again(seq, name, d) if name in ("GUILD_CREATE", "GUILD_DELETE") else None
        positions[shard_id] = seq
        reducer = self._reducers.get(name)
        if reducer is None:
            return None
        self._dirty.add(shard_id)
        book = self.book
        book.shard_id, book.seq = shard_id, seq
        raw = d if type(d) is bytes else bytes(d)
        if 10 in raw:  # a line break, as a number: looking for bytes in bytes raises and catches within
            raw = msgspec.json.format(raw, indent=-1)
        try:
            if name in self._before:
                before = BEFORE[name](book, fields(raw))
                result = reducer(book, raw)
                if before is not None:
                    return replace(result or Applied(), before=join(before))
                return result
            return reducer(book, raw)
        except (msgspec.DecodeError, KeyError, ValueError, TypeError, OverflowError):
            self.failures[name] = self.failures.get(name, 0) + 1
            return None

    def _begin(self, shard_id: int, d: bytes | memoryview) -> None:
        try:
            session_id = _session(d).session_id
        except msgspec.DecodeError:
            return
        if self._sessions.get(shard_id) != session_id:
            self._sessions[shard_id] = session_id
            self._positions[shard_id] = 0
            self._dirty.add(shard_id)

    def _again(self, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """The cause of an event that was applied before."""
        if not self.policy.enabled:
            return None
        found = fields(d)
        guild_id = snowflake(found.get("id"))
        if found.get("unavailable") == msgspec.Raw(b"true"):
            return Applied(cause="outage")
        if name == "GUILD_DELETE":
            return Applied(cause="left")
        row = self.book.guild_row(guild_id) if guild_id is not None else None
        if row is None or row.cause not in ("start", "join", "available"):
            return None
        return Applied(cause=row.cause) if row.cause_seq == seq else Applied(cause="available")  # type: ignore[arg-type]

    def flush(self) -> None:
        """Before a commit: write down what is kept in memory in between, and tidy up a little."""
        self.book.shelf.tidy()
        for shard_id in self._dirty:
            value = _POSITION.pack(self._positions[shard_id]) + self._sessions.get(shard_id, "").encode()
            self.storage.put(Table.APPLIED, _SHARD.pack(shard_id), value)
        if self._dirty:
            self.book.flush()
        self._dirty.clear()

    @property
    def dirty(self) -> bool:
        """Whether an event changed something, or could have, since the last :meth:`flush`, or something is untidy."""
        return bool(self._dirty) or self.book.shelf.untidy
