"""What of an event, or of an object in it, is looked at first? The decoders that several reducers share.

They skip the rest and raise ``msgspec.DecodeError`` where what must be there is not. Ids come as strings or numbers.
"""

from __future__ import annotations

import msgspec

from rateway.cache.objects import NULL

__all__ = ["Carrying", "Id", "Message", "carrying", "id_of", "message"]


class Id(msgspec.Struct, gc=False):
    """Whatever has an id."""

    id: int


class Carrying(msgspec.Struct, gc=False):
    """An event that carries a member beside its own news. ``user_id`` is missing where the member's user says it."""

    guild_id: int | None = None
    user_id: int | None = None
    member: msgspec.Raw = NULL


class Message(msgspec.Struct, gc=False):
    """A message; ``author`` is no user when there is a ``webhook_id``."""

    id: int
    channel_id: int
    guild_id: int | None = None
    author: msgspec.Raw = NULL
    member: msgspec.Raw = NULL
    webhook_id: msgspec.Raw = NULL
    channel_type: int | None = None
    flags: int | None = None


_id = msgspec.json.Decoder(Id, strict=False).decode
carrying = msgspec.json.Decoder(Carrying, strict=False).decode
message = msgspec.json.Decoder(Message, strict=False).decode


def id_of(raw: bytes | msgspec.Raw) -> int:
    """An object's id."""
    return _id(raw).id
