"""Voice states: who is in which channel; without ``member``, which is kept as the member that it is.

https://docs.discord.com/developers/events/gateway-events#voice-state-update
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.hot import less
from rateway.cache.objects import NULL, Snowflake
from rateway.cache.shelf import Kind

__all__ = ["voice_state_update"]


class _VoiceState(msgspec.Struct, gc=False):
    user_id: Snowflake
    guild_id: Snowflake | None = None
    channel_id: Snowflake | None = None
    member: msgspec.Raw = NULL


_voice_state = msgspec.json.Decoder(_VoiceState, strict=False).decode


def voice_state_update(book: Book, d: bytes) -> None:
    """``channel_id`` null: left. The member inside has ``mute`` and ``deaf`` of before the change."""
    head = _voice_state(d)
    number = book.number_of(head.guild_id) if head.guild_id is not None else None
    if number is None or head.guild_id is None:
        return
    if "voice_states" in book.kept:
        if head.channel_id is None:
            book.shelf.remove(number, Kind.VOICE_STATE, head.user_id)
        else:
            raw = less(d, (b"member", b"guild_id"))
            book.shelf.put(number, Kind.VOICE_STATE, head.user_id, raw)
    if book.takes_authors and head.member != NULL and not book.echoes.carried(d, stale=True):
        book.hear_whole(head.guild_id, head.user_id, less(bytes(head.member), (b"mute", b"deaf")))
