"""Read an entity as it is before an event changes it, for the events that a policy names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from rateway.cache.kinds import ENTITY_KINDS, Kind
from rateway.cache.reader import join_raws
from rateway.cache.writer import CacheWriter
from rateway.native.objects.fields import Fields, fields, join, raws, snowflake, text

__all__ = ["BEFORE"]

_Finder = Callable[[CacheWriter, Fields], Fields | None]


def _number(writer: CacheWriter, d: Fields) -> int | None:
    guild_id = snowflake(d.get("guild_id"))
    return writer.number_of(guild_id) if guild_id is not None else None


def _child(kind: Kind, name: str = "id") -> _Finder:
    def find(writer: CacheWriter, d: Fields) -> Fields | None:
        number, entity_id = _number(writer, d), snowflake(d.get(name))
        return writer.child(number, kind, entity_id) if number is not None and entity_id is not None else None

    return find


def _of_user(kind: Kind) -> _Finder:
    def find(writer: CacheWriter, d: Fields) -> Fields | None:
        number, user = _number(writer, d), d.get("user")
        user_id = snowflake(fields(user).get("id")) if user is not None else None
        return writer.child(number, kind, user_id) if number is not None and user_id is not None else None

    return find


def _role(writer: CacheWriter, d: Fields) -> Fields | None:
    number = _number(writer, d)
    role_id = snowflake(d["role_id"]) if "role_id" in d else snowflake(fields(d["role"]).get("id"))
    return writer.child(number, Kind.ROLE, role_id) if number is not None and role_id is not None else None


def _message(writer: CacheWriter, d: Fields) -> Fields | None:
    channel_id, message_id = snowflake(d.get("channel_id")), snowflake(d.get("id"))
    return (
        writer.message(channel_id, message_id) if channel_id is not None and message_id is not None else None
    )


def _messages(writer: CacheWriter, d: Fields) -> Fields | None:
    """Of many messages those that were known: ``{"channel_id", "messages": [...]}``."""
    channel_id = snowflake(d.get("channel_id"))
    if channel_id is None:
        return None
    ids = [message_id for raw in raws(d.get("ids")) if (message_id := snowflake(raw)) is not None]
    known = [
        msgspec.Raw(join(found)) for item in ids if (found := writer.message(channel_id, item)) is not None
    ]
    return {"channel_id": text(channel_id), "messages": msgspec.Raw(join_raws(known))} if known else None


def _guild(writer: CacheWriter, d: Fields) -> Fields | None:
    guild_id = snowflake(d.get("id"))
    row = writer.guild_row(guild_id) if guild_id is not None else None
    return (
        writer.guild_fields(guild_id, row)
        if guild_id is not None and row is not None and row.packed
        else None
    )


def _me(writer: CacheWriter, _: Fields) -> Fields | None:
    known = writer.current_user()
    return fields(known[1]) if known is not None else None


BEFORE: Mapping[str, _Finder] = {
    "GUILD_UPDATE": _guild,
    "GUILD_DELETE": _guild,
    "CHANNEL_UPDATE": _child(Kind.CHANNEL),
    "CHANNEL_DELETE": _child(Kind.CHANNEL),
    "THREAD_UPDATE": _child(Kind.THREAD),
    "THREAD_DELETE": _child(Kind.THREAD),
    "GUILD_ROLE_UPDATE": _role,
    "GUILD_ROLE_DELETE": _role,
    "GUILD_MEMBER_UPDATE": _of_user(Kind.MEMBER),
    "GUILD_MEMBER_REMOVE": _of_user(Kind.MEMBER),
    "PRESENCE_UPDATE": _of_user(Kind.PRESENCE),
    "VOICE_STATE_UPDATE": _child(Kind.VOICE_STATE, "user_id"),
    **{
        event: _child(row.kind, row.id_field)
        for row in ENTITY_KINDS
        if row.kind is not None
        for event in row.events
        if not event.endswith("_CREATE")
    },
    "MESSAGE_UPDATE": _message,
    "MESSAGE_DELETE": _message,
    "MESSAGE_DELETE_BULK": _messages,
    "USER_UPDATE": _me,
}
