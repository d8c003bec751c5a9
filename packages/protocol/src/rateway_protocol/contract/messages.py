"""The gateway's own messages on a cluster's exchange (``docs/contract.md``, *Messages of the gateway's own*).

Each kind has a routing key that no event of Discord's has. Ids are strings, as in Discord's own JSON; times are
seconds since 1970.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

__all__ = [
    "LOGGED_KEYS", "OWN_KEYS", "Gap", "GuildLeft", "Oversize", "Refused", "ShardStatus", "Unreadable", "encode",
    "gap_id", "guild_left_id", "is_takeover", "lost_session", "with_new_session",
]  # fmt: skip


class ShardStatus(msgspec.Struct, kw_only=True, frozen=True):
    """A shard's state changed. States are ``idle``, ``connecting``, ``live`` and so on; ``why`` is for people."""

    key: ClassVar[str] = "RATEWAY_SHARD_STATUS"

    shard: int
    state: str
    before: str | None = None
    why: str = ""
    time: float


class Gap(msgspec.Struct, kw_only=True, frozen=True):
    """A session was lost: events after ``settled`` may be missing.

    ``settled`` is the last sequence of the old session that is safely on the exchange, ``received`` the last one that
    came. ``new_session`` is ``null`` until Discord has given one. Comes before the READY of the new session.
    ``old_session`` is ``None`` where another gateway had it, of whose sequences nothing is known (both 0).
    """

    key: ClassVar[str] = "RATEWAY_GAP"

    shard: int
    old_session: str | None
    settled: int
    received: int
    new_session: str | None = None
    reason: str
    since: float


class Oversize(msgspec.Struct, kw_only=True, frozen=True):
    """The broker does not take an event of that size; it is in the cache all the same."""

    key: ClassVar[str] = "RATEWAY_OVERSIZE"

    event: str
    shard: int | None
    seq: int | None
    size: int
    limit: int | None = None
    guild_id: str | None = None


class Refused(msgspec.Struct, kw_only=True, frozen=True):
    """The broker refused an event for longer than ``NACK_PATIENCE``, and it was given up."""

    key: ClassVar[str] = "RATEWAY_REFUSED"

    event: str
    shard: int | None
    seq: int | None
    message_id: str | None = None


class Unreadable(msgspec.Struct, kw_only=True, frozen=True):
    """A dispatch of Discord's that cannot be forwarded was passed over: its name is no routing key, or it cannot be
    read. ``event`` is the beginning of its name, ``null`` where it has none; ``seq`` is ``null`` where it has none.
    """

    key: ClassVar[str] = "RATEWAY_UNREADABLE"

    shard: int
    seq: int | None
    event: str | None = None
    reason: str


class GuildLeft(msgspec.Struct, kw_only=True, frozen=True):
    """A guild of the lost session that the new one no longer has."""

    key: ClassVar[str] = "RATEWAY_GUILD_LEFT"

    shard: int
    guild_id: str


OwnMessage = ShardStatus | Gap | Oversize | Refused | Unreadable | GuildLeft

OWN_KEYS: frozenset[str] = frozenset(
    kind.key for kind in (ShardStatus, Gap, Oversize, Refused, Unreadable, GuildLeft)
)

LOGGED_KEYS: frozenset[str] = OWN_KEYS - {ShardStatus.key}
"""Those that the event log has: what tells that an event is missing in it."""

_gap = msgspec.json.Decoder(Gap)


def encode(message: OwnMessage) -> bytes:
    """Return the body of a message of the gateway's own."""
    return msgspec.json.encode(message)


def gap_id(gap: bytes | Gap) -> str:
    """Return the ``message_id`` of a gap: the same each time that it is published. Takes the body that :func:`encode`
    made.
    """
    known = _gap.decode(gap) if isinstance(gap, bytes) else gap
    if known.old_session is None:
        return f"gap:none:{known.shard}:{known.new_session}"
    return f"gap:{known.old_session}:{known.shard}"


def lost_session(gap: bytes) -> str:
    """Return the session that a gap tells of; empty where another gateway had it."""
    return _gap.decode(gap).old_session or ""


def is_takeover(gap: bytes) -> bool:
    """Return whether a gap reports another gateway's session and has no new session yet."""
    known = _gap.decode(gap)
    return known.old_session is None and known.new_session is None


def with_new_session(gap: bytes, new_session: str) -> bytes:
    """Return the body of a gap, with the session that took the lost one's place, if it names none yet."""
    known = _gap.decode(gap)
    return gap if known.new_session else encode(msgspec.structs.replace(known, new_session=new_session))


def guild_left_id(old_session: str, guild_id: int) -> str:
    """Return the ``message_id`` of a :class:`GuildLeft`."""
    return f"left:{old_session}:{guild_id}"
