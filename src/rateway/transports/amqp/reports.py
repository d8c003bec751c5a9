"""What the gateway says in place of an event that the broker does not take (``docs/contract.md``, *The gateway's own messages*)."""

from __future__ import annotations

import msgspec

__all__ = ["guild_of", "oversize", "refused"]


class _Guild(msgspec.Struct):
    guild_id: str | None = None
    id: str | None = None


_decode_guild = msgspec.json.Decoder(_Guild).decode


def guild_of(name: str, body: bytes) -> str | None:
    """The guild that an event is about, from its ``d``; ``None`` where it says none."""
    try:
        found = _decode_guild(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found.guild_id or (found.id if name.startswith("GUILD_") else None)


def oversize(name: str, shard_id: int | None, seq: int | None, size: int, guild_id: str | None) -> bytes:
    """The body of RATEWAY_OVERSIZE; ``size`` in bytes."""
    return msgspec.json.encode(
        {"event": name, "shard": shard_id, "seq": seq, "size": size, "guild_id": guild_id}
    )


def refused(name: str, shard_id: int | None, seq: int | None, reason: str) -> bytes:
    """The body of RATEWAY_REFUSED."""
    return msgspec.json.encode({"event": name, "shard": shard_id, "seq": seq, "reason": reason})
