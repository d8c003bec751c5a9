"""Dispatches as bots get them: made by joining bytes, without reading ``d``."""

from __future__ import annotations

import functools
from enum import Enum
from typing import Any, Final

import msgspec
from rateway_protocol.contract.topology import OWN_PREFIX
from rateway_protocol.discord.events import EVENTS

__all__ = ["Kind", "dispatch", "guild_of", "kind_of"]

# Names of events that are remembered; Discord has some hundred.
MOST_NAMES: Final = 1_000


class Kind(Enum):
    """The way of an entry to the sessions."""

    EVENT = "event"
    """It goes to the bots whose intents have it."""
    ANSWER = "answer"
    """It answers a command, and goes to the bots that asked."""
    GAP = "gap"
    """RATEWAY_GAP: a session of a shard was lost."""
    GUILD_LEFT = "guild_left"
    """RATEWAY_GUILD_LEFT: after a gap, a guild is gone."""
    HIDDEN = "hidden"
    """It is the gateway's own affair."""


_KINDS: Final = {
    "READY": Kind.HIDDEN,
    "RESUMED": Kind.HIDDEN,
    "GUILD_MEMBERS_CHUNK": Kind.ANSWER,
    "SOUNDBOARD_SOUNDS": Kind.ANSWER,
    "CHANNEL_INFO": Kind.ANSWER,
    "RATE_LIMITED": Kind.ANSWER,
    "RATEWAY_GAP": Kind.GAP,
    "RATEWAY_GUILD_LEFT": Kind.GUILD_LEFT,
}


@functools.lru_cache(MOST_NAMES)
def kind_of(name: str) -> Kind:
    """Return the way of entries of this name."""
    kind = _KINDS.get(name)
    if kind is not None:
        return kind
    # `MESSAGE_DELETE.before` is the gateway's own as well (the setting BEFORE).
    return Kind.HIDDEN if name.startswith(OWN_PREFIX) or "." in name else Kind.EVENT


@functools.lru_cache(MOST_NAMES)
def _head(name: str) -> bytes:
    return b'{"t":%b,"s":' % msgspec.json.encode(name)


def dispatch(name: str, seq: int, d: bytes) -> bytes:
    """Return a dispatch (op 0), with its keys as Discord has them: ``{"t":…,"s":…,"op":0,"d":…}``."""
    return b'%b%d,"op":0,"d":%b}' % (_head(name), seq, d)


class _GuildId(msgspec.Struct):
    guild_id: Any = None


class _Id(msgspec.Struct):
    id: Any = None


_decode_guild_id = msgspec.json.Decoder(_GuildId).decode
_decode_id = msgspec.json.Decoder(_Id).decode


def guild_of(name: str, d: bytes) -> int | None:
    """Return the guild that an event concerns; None for one without a guild, or whose ``d`` cannot be read."""
    spec = EVENTS.get(name)
    try:
        if spec is not None and spec.guild_id_path == "id":
            found = _decode_id(d).id
        else:
            found = _decode_guild_id(d).guild_id
        return int(found) if isinstance(found, str | int) else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
