"""Members and users: by their own events, in chunks, and carried inside other events.

https://docs.discord.com/developers/events/gateway-events#guild-member-add
"""

from __future__ import annotations

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.reducers.presences import take_presence
from rateway.cache.writer import CacheWriter
from rateway.native.objects import drop_fields, field, merge, split_field
from rateway.native.objects.decoders import carrying, id_of
from rateway.native.objects.fields import NULL, Snowflake, fields, needed_id, raws

__all__ = [
    "interaction_create", "member_add", "member_remove", "member_update", "members_chunk", "take_carried",
    "typing_start",
]  # fmt: skip


class _Whole(msgspec.Struct, gc=False):
    guild_id: Snowflake
    user: msgspec.Raw


_whole = msgspec.json.Decoder(_Whole, strict=False).decode

# Of a member: its user is kept as such, its guild is where it stands; permissions are those of the event's channel
# (https://docs.discord.com/developers/resources/guild#guild-member-object).
_NOT_KEPT = (b"user", b"guild_id")
_NOT_KEPT_OF_CARRIED = (b"user", b"guild_id", b"permissions")


def member_add(writer: CacheWriter, d: bytes) -> None:
    """Add a member. Only one that was not cached is counted, as Discord repeats the event for members that are there.

    The new member replaces a cached one: after a removal that was missed, its former roles are not its own.
    """
    head = _whole(d)
    number = writer.number_of(head.guild_id)
    if number is None:
        return
    if "members" in writer.kept:
        user = bytes(head.user)
        user_id = id_of(user)
        new = drop_fields(d, _NOT_KEPT)
        known, paged = writer.entity_store.fetch(number, Kind.MEMBER, user_id)
        arrived = known is None
        if known is None:
            writer.entity_store.insert(number, Kind.MEMBER, user_id, new)
        else:
            if (embedded := field(known, b"user")) is not None:
                new = merge(new, b'{"user":%b}' % embedded)
            writer.entity_store.replace(number, Kind.MEMBER, user_id, new, paged=paged)
        writer.fingerprints.forget_member(head.guild_id, user_id)
        if writer.takes_authors:
            writer.fingerprints.learn_member(head.guild_id, user_id, new)
        writer.take_user(user_id, user)
    else:
        arrived = True
    if arrived:
        writer.count_members(head.guild_id, +1, cached=int("members" in writer.kept))


def member_update(writer: CacheWriter, d: bytes) -> None:
    """Merged; an unknown member is inserted as far as it goes. The user inside may be what changed."""
    head = _whole(d)
    number = writer.number_of(head.guild_id)
    if number is None:
        return
    user = bytes(head.user)
    user_id = id_of(user)
    if "members" in writer.kept:
        writer.take_member(head.guild_id, number, user_id, drop_fields(d, _NOT_KEPT), user)
    elif user_id == writer.me:
        writer.take_current_user(fields(user))


def member_remove(writer: CacheWriter, d: bytes) -> None:
    """Presence, voice state and (its last guild) the user go with it. An unknown member is counted only when the
    member cache is partial, where its absence proves nothing."""
    head = _whole(d)
    number = writer.number_of(head.guild_id)
    if number is None:
        return
    if "members" not in writer.kept:
        writer.count_members(head.guild_id, -1)
        return
    count, cached = writer.members_counted(head.guild_id)
    partial = count is None or cached < count
    user = bytes(head.user)
    known = writer.remove_member(head.guild_id, number, id_of(user), user)
    if known or partial:
        writer.count_members(head.guild_id, -1, cached=-int(known))


def members_chunk(writer: CacheWriter, d: bytes) -> None:
    """The answer to op 8: members and presences, only ever added."""
    found = fields(d)
    guild_id = needed_id(found, "guild_id")
    members = [_read_whole(bytes(raw)) for raw in raws(found.get("members"))]
    presences = [fields(raw) for raw in raws(found.get("presences"))]
    for presence in presences:
        id_of(presence["user"])
    number = writer.number_of(guild_id)
    if number is None:
        return
    if "members" in writer.kept:
        for user_id, rest, user in members:
            writer.take_member(guild_id, number, user_id, rest, user)
    for presence in presences:
        take_presence(writer, number, presence)


def _read_whole(member: bytes) -> tuple[int, bytes, bytes]:
    """Return a member's user's id, the member without its user, and the user."""
    rest, user = split_field(member, b"user")
    if user is None:
        raise KeyError("user")
    return id_of(user), rest, user


def take_carried(writer: CacheWriter, guild_id: int, member: bytes) -> None:
    """A whole member inside another event."""
    if "members" not in writer.kept or not writer.policy.members_from_events:
        return
    user = field(member, b"user")
    if user is not None and field(member, b"roles") is not None:
        writer.take_carried_member(guild_id, id_of(user), drop_fields(member, _NOT_KEPT_OF_CARRIED), user)


def typing_start(writer: CacheWriter, d: bytes) -> None:
    """Take the member, which is complete here. An event that repeats the last one is not decoded."""
    if writer.fingerprints.carried(d):
        return
    head = carrying(d)
    if head.member == NULL or head.guild_id is None or head.user_id is None:
        return
    writer.take_carried_whole_member(head.guild_id, head.user_id, bytes(head.member))


def interaction_create(writer: CacheWriter, d: bytes) -> None:
    """Take the member that used a command; nothing else of the event is kept."""
    head = carrying(d)
    if head.member == NULL or head.guild_id is None:
        return
    if writer.number_of(head.guild_id) is not None:
        take_carried(writer, head.guild_id, bytes(head.member))
