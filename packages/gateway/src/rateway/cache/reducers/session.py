"""READY and USER_UPDATE: a new session begins, the bot's own user changes.

https://docs.discord.com/developers/events/gateway-events#ready
"""

from __future__ import annotations

import msgspec
from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.writer import CacheWriter
from rateway.native.objects.applied import Applied
from rateway.native.objects.decoders import Id
from rateway.native.objects.fields import (
    MOST_ID,
    NULL,
    UNREADABLE,
    fields,
    fields_inside,
    join,
    needed_id,
    raws_inside,
    snowflake,
)
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["listed_beside", "ready", "user_update"]


# Shards of a bot at most: more than any bot has, and what a row of the store has room for.
MOST_SHARDS = 1 << 20


class _Ready(msgspec.Struct):
    user: msgspec.Raw = NULL
    guilds: msgspec.Raw = NULL
    shard: msgspec.Raw = NULL
    application: msgspec.Raw = NULL


_ready = msgspec.json.Decoder(_Ready, strict=False).decode
_ids = msgspec.json.Decoder(list[Id], strict=False).decode


def ready(writer: CacheWriter, d: bytes) -> Applied | None:
    """Every guild of the list is pending until it comes; what Discord no longer lists was left meanwhile."""
    head = _ready(d)
    writer.warm(writer.shard_id)
    user = fields(head.user) if head.user != NULL else {}
    if user:
        needed_id(user, "id")
        writer.take_current_user(user)
    _keep_application(head.application, writer)
    listed, whole = _guilds_in(head.guilds, writer)
    count = _shard_count(head.shard, writer)
    # Whether all guilds of this shard are known, so that one that is not was joined since.
    told = count is not None and writer.layout_of(writer.shard_id) == count and writer.is_complete("guilds")
    left = []
    for guild_id, row in list(writer.guild_rows()):
        ours = (
            row.shard_id == writer.shard_id if count is None else shard_of(guild_id, count) == writer.shard_id
        )
        if whole and ours and guild_id not in listed:
            if row.number or row.state is GuildState.OUTAGE:
                left.append(guild_id)
            writer.remove_guild(guild_id, row)
    for guild_id in sorted(listed):
        old = writer.guild_row(guild_id)
        row = old if old is not None else GuildRow(GuildState.PENDING)
        # One that was joined in the time between two sessions, and has not come since, is still a new one.
        row.joining = told if old is None else row.joining and not row.number
        row.state = GuildState.PENDING
        row.shard_id, row.shard_count = writer.shard_id, count or row.shard_count
        writer.save(guild_id, row)
    if count is not None and whole:
        writer.keep_layout(writer.shard_id, count)
    return Applied(left=tuple(sorted(left))) if left else None


def listed_beside(writer: CacheWriter, d: bytes) -> tuple[set[int], int | None] | None:
    """Take in the READY of a second session beside the shard's own, which changes no guild: only what no other event
    tells. Return the guilds that it lists and the number of shards; None where these cannot be read in full.
    """
    head = _ready(d)
    user = fields(head.user) if head.user != NULL else {}
    if user and writer.me is None:
        needed_id(user, "id")
        writer.take_current_user(user)
    _keep_application(head.application, writer)
    listed, whole = _guilds_in(head.guilds, writer)
    count = _shard_count(head.shard, writer)
    writer.take_left_out()
    return (listed, count) if whole else None


def _keep_application(raw: msgspec.Raw, writer: CacheWriter) -> None:
    """Keep READY's ``application``, which Discord sends with nothing else; an absent one leaves the former."""
    if raw == NULL:
        return
    if snowflake(fields_inside(raw).get("id")) is None:
        writer.leave_out("application is no object with an id")
        return
    writer.keep_application(bytes(raw))


def _guilds_in(raw: msgspec.Raw, writer: CacheWriter) -> tuple[set[int], bool]:
    """Return the ids of READY's guilds, and whether these are all: of a list that cannot be read in full nothing
    follows about guilds that are not in it.
    """
    try:
        listed = {guild.id for guild in _ids(raw)}
    except UNREADABLE:
        listed = {MOST_ID + 1}
    if max(listed, default=0) <= MOST_ID:
        return listed, True
    writer.leave_out("guilds is no array of objects with an id")
    items = [fields_inside(item) for item in raws_inside(raw)]
    return {guild_id for item in items if (guild_id := snowflake(item.get("id"))) is not None}, False


def _shard_count(raw: msgspec.Raw, writer: CacheWriter) -> int | None:
    """Return the number of shards in READY."""
    if raw == NULL:
        return None
    numbers = [snowflake(item) for item in raws_inside(raw)]
    if len(numbers) == 2 and numbers[0] is not None and numbers[1] and numbers[0] < numbers[1] <= MOST_SHARDS:
        return numbers[1]
    writer.leave_out("shard is no pair of numbers")
    return None


def user_update(writer: CacheWriter, d: bytes) -> None:
    """The bot's own user, merged; it comes on shard 0 only. What only oneself sees (the address, say) is no part of
    the user that others are shown."""
    new = fields(d)
    needed_id(new, "id")
    writer.take_current_user(new)
    known = writer.user(writer.me) if writer.me is not None else None
    if writer.me is not None and known is not None:
        public = fields(known[1])
        writer.take_user(writer.me, join({name: raw for name, raw in new.items() if name in public}))
