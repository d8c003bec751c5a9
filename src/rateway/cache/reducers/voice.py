"""Voice states: who is in which channel; without ``member``, which is kept as the member that it is.

https://docs.discord.com/developers/events/gateway-events#voice-state-update
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.objects import NULL, Fields, fields, join
from rateway.cache.reducers.members import take_carried
from rateway.cache.shelf import Kind

__all__ = ["voice_state_update"]


class _VoiceState(msgspec.Struct, gc=False):
    user_id: int
    guild_id: int | None = None
    channel_id: int | None = None
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
            found = fields(d)
            found.pop("member", None)
            found.pop("guild_id", None)
            book.shelf.put(number, Kind.VOICE_STATE, head.user_id, join(found))
    if head.member != NULL and book.takes_authors:
        said = bytes(head.member)
        # A mark of their own: in another event the same words would be news.
        words = hash((head.guild_id, head.user_id, said, "voice"))
        if book.echoes.known(head.user_id, words):
            return
        if not book.hears_what_is_kept(head.guild_id, number, head.user_id, said):
            take_carried(book, head.guild_id, number, _less_old(fields(said)))
        book.echoes.learn(head.user_id, (words,))


def _less_old(member: Fields) -> Fields:
    member.pop("mute", None)
    member.pop("deaf", None)
    return member
