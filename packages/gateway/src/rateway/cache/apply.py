"""Apply events to the cache exactly once per session: replayed events at or below the applied sequence change nothing.

A shard's *applied* sequence is kept in the same transaction as the changes, so that counters stay right over replays.
For a replayed GUILD_CREATE or GUILD_DELETE the cause is returned again.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from rateway.cache import position
from rateway.cache.before import BEFORE
from rateway.cache.policy import CachePolicy
from rateway.cache.prune import clear, unfinished_key
from rateway.cache.reducers import Reducer, reducers
from rateway.cache.repair import repaired
from rateway.cache.storage import Storage, Table
from rateway.cache.unread import Unread
from rateway.cache.writer import CacheWriter
from rateway.native.objects import is_text
from rateway.native.objects.applied import INCARNATION, Applied
from rateway.native.objects.fields import UNREADABLE, Unreadable, fields, fields_inside, join, snowflake
from rateway.native.rows import position_rows

__all__ = ["Cache", "FastPathParts"]

# What reading a payload may raise, whatever is in it. (A mistake of the gateway's own raises other things.)
PAYLOAD_FAULTS = (
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    msgspec.MsgspecError,
)


@dataclass(frozen=True, slots=True)
class FastPathParts:
    """The parts of a cache that its fast path (``native.objects.CacheFastPath``) works on."""

    writer: CacheWriter
    positions: dict[int, int]
    """Shard → applied sequence."""
    dirty: set[int]
    """Shards with events since the last flush."""
    reducers: Mapping[str, Reducer]
    presences: bool
    """Whether presences are kept as they come."""
    voices: bool
    """Whether voice states are kept."""
    voice_members: bool
    """Whether the member inside a voice state is taken."""
    messages: bool
    """Whether a message changes nothing but its channel's newest message and, if ``authors``, author and member."""
    deletes: bool
    """Whether a deleted message changes nothing but its thread's counters."""
    members: bool
    """Whether members are kept, and their own events change nothing else but their users."""
    authors: bool
    """Whether users and members inside messages, typing, (``reactions``) reactions and (``interactions``) used commands
    are taken.
    """
    reactions: bool
    interactions: bool


class _Session(msgspec.Struct, gc=False):
    session_id: str


_session = msgspec.json.Decoder(_Session).decode


class Cache:
    """One cluster's cache, written by one."""

    def __init__(self, storage: Storage, policy: CachePolicy, unread: Unread | None = None) -> None:
        """``unread`` is the account to go on with, of a cache that this one takes the place of."""
        self.policy = policy
        self.storage = storage
        self.writer = CacheWriter(storage, policy)
        self.unread = Unread() if unread is None else unread
        self._reducers = reducers(policy)
        self._before = (
            frozenset(name for name in policy.before if name in BEFORE) if policy.enabled else frozenset()
        )
        self._positions: dict[int, int] = {}
        self._sessions: dict[int, str] = {}
        self._dirty: set[int] = set()
        self._read_positions()

    def _read_positions(self) -> None:
        for key, value in self.storage.scan(Table.APPLIED, b"", b"\xff" * 9):
            shard_id = position.unpack_key(key)
            self._sessions[shard_id], self._positions[shard_id] = position.unpack(value)

    @property
    def failures(self) -> dict[str, int]:
        """Event name → how many events of it could not be read in full. The events themselves go on."""
        return self.unread.events

    def fast_path_parts(self) -> FastPathParts:
        """Return what the fast path needs of this cache, and which events it may apply under this policy."""
        messages_not_kept = "messages" not in self.writer.kept
        authors = self.writer.takes_authors and messages_not_kept
        direct = self._reducers.keys() - self._before
        return FastPathParts(
            writer=self.writer,
            positions=self._positions,
            dirty=self._dirty,
            reducers=self._reducers,
            presences="PRESENCE_UPDATE" in direct
            and self.policy.activities
            and "presences" in self.writer.kept,
            voices="VOICE_STATE_UPDATE" in direct and "voice_states" in self.writer.kept,
            voice_members=self.writer.takes_authors,
            messages=messages_not_kept and "MESSAGE_CREATE" in direct,
            deletes=messages_not_kept and "MESSAGE_DELETE" in direct,
            members="GUILD_MEMBER_UPDATE" in direct and "members" in self.writer.kept,
            authors=authors and {"MESSAGE_CREATE", "TYPING_START"} <= direct,
            reactions=authors and "MESSAGE_REACTION_ADD" in direct,
            interactions=self.writer.takes_authors and "INTERACTION_CREATE" in direct,
        )

    def applied(self, shard_id: int) -> int:
        """Return the highest sequence whose effect is in the cache."""
        return max(0, self._positions.get(shard_id, 0))

    def position_in(self, shard_id: int, session_id: str) -> int:
        """Return the applied sequence of a stored session that is about to be resumed.

        If the cache knows another session of that shard (its own record was never written), this one counts from 0.
        """
        if self._sessions.get(shard_id) != session_id:
            self._sessions[shard_id] = session_id
            self._positions[shard_id] = 0
            self._dirty.add(shard_id)
        return self.applied(shard_id)

    def begin(self, shard_id: int, session_id: str) -> None:
        """A new session begins, whose READY is the next event: nothing of it has been applied.

        ``session_id`` is the gateway's own name of it: Discord's id, and more where Discord gives one id to several
        sessions.
        """
        self._sessions[shard_id] = session_id
        # A server may number READY 0.
        self._positions[shard_id] = -1
        self._dirty.add(shard_id)

    def begin_cold(self, sessions: Mapping[int, str]) -> None:
        """Remove every entity: another gateway has had events of these shards since. Each shard goes on with its
        session, and its guilds are not known until its next READY.

        The fast path's parts are others after this.
        """
        clear(self.writer, sessions)
        self.replaced()
        for shard_id, session_id in sessions.items():
            self.position_in(shard_id, session_id)

    def replaced(self) -> None:
        """Take in that every row is another one than before. The fast path's parts are others after this."""
        unknown_guilds = self.writer.unknown_guilds
        self.writer = CacheWriter(self.storage, self.policy)
        self.writer.unknown_guilds = unknown_guilds
        self._positions.clear()
        self._sessions.clear()
        self._dirty.clear()
        self._read_positions()

    def apply(self, shard_id: int, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """Take one event in. Raises what the storage raises, and nothing for an odd payload.

        What cannot be read is left out of it, counted and kept to be said (:attr:`unread`).
        """
        if name == "READY":
            self._begin(shard_id, d)
        return self._apply(shard_id, seq, name, d)

    def _apply(self, shard_id: int, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        positions = self._positions
        if seq <= positions.get(shard_id, 0):
            return self._again(seq, name, d) if name in ("GUILD_CREATE", "GUILD_DELETE") else None
        positions[shard_id] = seq
        reducer = self._reducers.get(name)
        if reducer is None:
            return None
        self._dirty.add(shard_id)
        writer = self.writer
        writer.shard_id, writer.seq = shard_id, seq
        raw = d if type(d) is bytes else bytes(d)
        try:
            if 10 in raw:  # a line break, as a number: looking for bytes in bytes raises and catches within
                raw = msgspec.json.format(raw, indent=-1)
            if not is_text(raw):
                raise Unreadable("a string is no UTF-8")
            result = self._reduce(reducer, name, raw)
        except PAYLOAD_FAULTS as error:
            return self._repair(reducer, name, raw, error)
        if writer.left_out:
            self._record(name, raw, writer.take_left_out(), applied=True)
        return result

    # Beside the events of the shard's session: ``second_view``.

    def takes(self, name: str) -> bool:
        """Return whether events of that name may change something."""
        return name in self._reducers

    def apply_beside(self, shard_id: int, name: str, raw: bytes) -> None:
        """Take an event in that is none of the shard's session, and moves no position."""
        positions = self._positions
        before, positions[shard_id] = positions.get(shard_id, 0), -1
        try:
            self._apply(shard_id, 0, name, raw)
        finally:
            positions[shard_id] = before
        # Its number was none of the session's.
        self.writer.seq = before

    def skip(self, shard_id: int, seq: int) -> None:
        """Move the position over an event of the session whose effect is in the cache already."""
        self._positions[shard_id] = seq
        self._dirty.add(shard_id)

    def touch(self, shard_id: int) -> None:
        """Have the next :meth:`flush` write what was changed without an event."""
        self._positions.setdefault(shard_id, 0)
        self._dirty.add(shard_id)

    def mark_unfinished(self, shard_id: int) -> None:
        """Note in the store that guilds of a shard follow a second session."""
        self.storage.put(Table.META, unfinished_key(shard_id), b"")
        self.touch(shard_id)

    def unmark_unfinished(self, shard_id: int) -> None:
        """Take that back."""
        self.storage.delete(Table.META, unfinished_key(shard_id))
        self.touch(shard_id)

    def _reduce(self, reducer: Reducer, name: str, raw: bytes) -> Applied | None:
        if name not in self._before:
            return reducer(self.writer, raw)
        before = BEFORE[name](self.writer, fields(raw))
        result = reducer(self.writer, raw)
        return result if before is None else replace(result or Applied(), before=join(before))

    def _repair(self, reducer: Reducer, name: str, raw: bytes, fault: Exception) -> Applied | None:
        """Take in what can be read of an event that could not be read as it stands. A reducer that raised has written
        nothing.
        """
        reasons = self.writer.take_left_out()
        try:
            sound = repaired(name, raw, reasons.append)
            result = self._reduce(reducer, name, sound) if sound is not None and reasons else None
            applied = sound is not None and bool(reasons)
        except PAYLOAD_FAULTS as error:
            fault, result, applied = error, None, False
        reasons += self.writer.take_left_out()
        if not reasons:
            reasons.append(str(fault) if isinstance(fault, Unreadable) else type(fault).__name__)
        self._record(name, raw, reasons, applied=applied)
        return result

    def refuse(self, shard_id: int, name: str, d: bytes | memoryview, error: Exception) -> None:
        """Record an event that a mistake of the gateway's own kept out of the cache."""
        self.writer.shard_id = shard_id
        self._record(name, bytes(d), [f"a mistake of the gateway's ({type(error).__name__})"], applied=False)

    def _record(self, name: str, raw: bytes, reasons: list[str], *, applied: bool) -> None:
        found = fields_inside(raw)
        guild_id = snowflake(
            found.get("id" if name.startswith("GUILD_") and "guild_id" not in found else "guild_id")
        )
        guild = "" if guild_id is None else str(guild_id)
        self.unread.record(name, reasons, self.writer.shard_id, guild, applied=applied)

    def _begin(self, shard_id: int, d: bytes | memoryview) -> None:
        """Begin the session of a READY, unless :meth:`begin` has announced it."""
        try:
            session_id = _session(d).session_id
        except UNREADABLE:
            return
        known = self._sessions.get(shard_id)
        if known is None or known.partition(INCARNATION)[0] != session_id:
            self.begin(shard_id, session_id)

    def _again(self, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """Return the cause of an event that was applied before."""
        if not self.policy.enabled:
            return None
        found = fields_inside(d)
        guild_id = snowflake(found.get("id"))
        if guild_id is None:
            return None
        if found.get("unavailable") == msgspec.Raw(b"true"):
            return Applied(cause="outage")
        if name == "GUILD_DELETE":
            return Applied(cause="left")
        row = self.writer.guild_row(guild_id)
        if row is None or row.cause not in ("start", "join", "available"):
            return None
        return Applied(cause=row.cause) if row.cause_seq == seq else Applied(cause="available")  # type: ignore[arg-type]

    def keep_positions(self) -> None:
        """Have every position written with the next :meth:`flush`: an event that changes nothing has it not."""
        self._dirty.update(self._positions)

    def flush(self) -> None:
        """Before a commit: write down what is kept in memory in between, and tidy up a little."""
        self.writer.entity_store.tidy()
        if self._dirty:
            rows = position_rows(self._dirty, self._positions, self._sessions)
            self.storage.put_rows(Table.APPLIED, rows)
            self.writer.flush()
            self._dirty.clear()

    @property
    def dirty(self) -> bool:
        """Whether an event may have changed something since the last :meth:`flush`, or ids wait for the index."""
        return bool(self._dirty) or self.writer.entity_store.untidy
