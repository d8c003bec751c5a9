"""Decoders of the few fields of an event or object that several reducers read first.

They skip the rest and raise ``msgspec.DecodeError`` where what must be there is not. Ids come as strings or numbers.
"""

from __future__ import annotations

import msgspec
from rateway.native.objects.fields import MOST_ID, NULL, Snowflake, Unreadable

__all__ = ["Carrying", "Id", "Message", "carrying", "id_of", "message"]


class Id(msgspec.Struct, gc=False):
    """Whatever has an id."""

    id: Snowflake


class Carrying(msgspec.Struct, gc=False):
    """An event that carries a member beside its own news. ``user_id`` is missing where the member's user says it."""

    guild_id: Snowflake | None = None
    user_id: Snowflake | None = None
    member: msgspec.Raw = NULL


class Message(msgspec.Struct, gc=False):
    """A message; ``author`` is no user when there is a ``webhook_id``."""

    id: Snowflake
    channel_id: Snowflake
    guild_id: Snowflake | None = None
    author: msgspec.Raw = NULL
    member: msgspec.Raw = NULL
    webhook_id: msgspec.Raw = NULL
    channel_type: msgspec.Raw = NULL
    flags: msgspec.Raw = NULL


_id = msgspec.json.Decoder(Id, strict=False).decode
carrying = msgspec.json.Decoder(Carrying, strict=False).decode
message = msgspec.json.Decoder(Message, strict=False).decode


def id_of(raw: bytes | msgspec.Raw) -> int:
    """Return an object's id."""
    found = _id(raw).id
    if found > MOST_ID:
        raise Unreadable("id is no id")
    return found
