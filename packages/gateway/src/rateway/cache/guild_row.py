"""The row of one guild: its state, where its children are stored, and its own fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from rateway.cache.pages import shrink, unshrink

__all__ = ["GuildRow", "GuildState", "counted", "recounted", "standing", "state_of"]


class GuildState(IntEnum):
    """The states of `GUILD_CREATE and GUILD_DELETE <https://docs.discord.com/developers/events/gateway-events#guilds>`_.

    A guild that is not in the table is absent: the bot is not in it.
    """

    PENDING = 1
    """READY named it; its GUILD_CREATE has not come yet."""
    AVAILABLE = 2
    OUTAGE = 3


_CAUSES = (None, "start", "join", "available", "left", "outage")
_HEAD = struct.Struct(">BBIIIQQqIB")
_MEMBER_COUNT, _CACHED_MEMBERS = 7, 8
_HEAD_SIZE = _HEAD.size
_UNCOUNTED = -1
_STATES = {state.value: state for state in GuildState}


@dataclass(slots=True)
class GuildRow:
    """One row of the table of guilds."""

    state: GuildState
    number: int = 0
    """The key of its children; 0 before the first full GUILD_CREATE."""
    shard_id: int = 0
    shard_count: int = 0
    stamp: int = 0
    """The time at which the last full GUILD_CREATE was applied (the store's clock, milliseconds; 0 never)."""
    cause_seq: int = 0
    member_count: int | None = None
    cached_members: int = 0
    """The number of its members in the cache."""
    cause: str | None = None
    """Of the GUILD_CREATE with the number ``cause_seq``, so that its repetition says the same."""
    joining: bool = False
    """The bot joined it during an outage: the full GUILD_CREATE will be a join."""
    packed: bytes = b""
    """Its own fields, without lists and ``member_count``, compressed; empty before the first full GUILD_CREATE."""

    @property
    def body(self) -> bytes:
        """Its own fields as JSON."""
        return unshrink(self.packed) if self.packed else b""

    @body.setter
    def body(self, raw: bytes) -> None:
        self.packed = shrink(raw)

    def pack(self) -> bytes:
        count = _UNCOUNTED if self.member_count is None else self.member_count
        head = _HEAD.pack(
            self.state, _CAUSES.index(self.cause), self.number, self.shard_id, self.shard_count, self.stamp,
            self.cause_seq, count, self.cached_members, self.joining,
        )  # fmt: skip
        return head + self.packed

    @classmethod
    def unpack(cls, value: bytes) -> GuildRow:
        state, cause, number, shard_id, shard_count, stamp, cause_seq, count, cached, joining = (
            _HEAD.unpack_from(value)
        )
        # By place: every query for something of a guild reads its row.
        return cls(
            _STATES[state],
            number,
            shard_id,
            shard_count,
            stamp,
            cause_seq,
            None if count == _UNCOUNTED else count,
            cached,
            _CAUSES[cause],
            bool(joining),
            value[_HEAD_SIZE:],
        )


def counted(value: bytes) -> tuple[int | None, int]:
    """Return a packed row's ``member_count`` and number of cached members, without unpacking the rest."""
    head = _HEAD.unpack_from(value)
    count = head[_MEMBER_COUNT]
    return None if count == _UNCOUNTED else count, head[_CACHED_MEMBERS]


def recounted(value: bytes, change: int, cached: int) -> bytes:
    """Return a packed row with another ``member_count`` (if it has one, never below 0) and number of cached members."""
    head = list(_HEAD.unpack_from(value))
    if head[_MEMBER_COUNT] != _UNCOUNTED:
        head[_MEMBER_COUNT] = max(0, head[_MEMBER_COUNT] + change)
    head[_CACHED_MEMBERS] = max(0, head[_CACHED_MEMBERS] + cached)
    return _HEAD.pack(*head) + value[_HEAD.size :]


def standing(value: bytes) -> tuple[GuildState, int, int]:
    """Return the state of a packed row, its shard and its stamp, without unpacking the rest."""
    state, _, _, shard_id, _, stamp, *_ = _HEAD.unpack_from(value)
    return _STATES[state], shard_id, stamp


def state_of(value: bytes) -> GuildState:
    """Return the state of a packed row, without unpacking the rest."""
    return GuildState(value[0])
