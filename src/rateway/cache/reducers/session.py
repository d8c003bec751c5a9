"""READY and USER_UPDATE: a new session begins, the bot's own user changes.

https://docs.discord.com/developers/events/gateway-events#ready
"""

from __future__ import annotations

import msgspec

from rateway.cache.applied import Applied
from rateway.cache.book import Book
from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.objects import fields, join
from rateway.discord.snowflake import shard_of

__all__ = ["ready", "user_update"]


class _Listed(msgspec.Struct, gc=False):
    id: int


class _Ready(msgspec.Struct):
    user: msgspec.Raw
    guilds: list[_Listed] = []
    shard: tuple[int, int] | None = None


_ready = msgspec.json.Decoder(_Ready, strict=False).decode


def ready(book: Book, d: bytes) -> Applied | None:
    """Every guild of the list is pending until it comes; what Discord no longer lists was left meanwhile."""
    head = _ready(d)
    book.take_current_user(fields(head.user))
    listed = {guild.id for guild in head.guilds}
    count = head.shard[1] if head.shard is not None else None
    left = []
    for guild_id, row in list(book.guild_rows()):
        ours = row.shard_id == book.shard_id if count is None else shard_of(guild_id, count) == book.shard_id
        if ours and guild_id not in listed:
            if row.number or row.state is GuildState.OUTAGE:
                left.append(guild_id)
            book.remove_guild(guild_id, row)
    for guild_id in listed:
        old = book.guild_row(guild_id)
        row = old if old is not None else GuildRow(GuildState.PENDING)
        row.state, row.joining = GuildState.PENDING, False
        row.shard_id, row.shard_count = book.shard_id, count or row.shard_count
        book.save(guild_id, row)
    return Applied(left=tuple(sorted(left))) if left else None


def user_update(book: Book, d: bytes) -> None:
    """The bot's own user, merged; it comes on shard 0 only. What only oneself sees (the address, say) is no part of
    the user that others are shown."""
    new = fields(d)
    book.take_current_user(new)
    known = book.user(book.me) if book.me is not None else None
    if book.me is not None and known is not None:
        public = fields(known[1])
        book.take_user(book.me, join({name: raw for name, raw in new.items() if name in public}))
