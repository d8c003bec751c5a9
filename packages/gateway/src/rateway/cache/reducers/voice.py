"""Voice states: which user is in which voice channel. The ``member`` inside is kept as a member, not in the state.

https://docs.discord.com/developers/events/gateway-events#voice-state-update
"""

from __future__ import annotations

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.writer import CacheWriter
from rateway.native.objects import drop_fields
from rateway.native.objects.fields import NULL, Snowflake

__all__ = ["voice_state_update"]


class _VoiceState(msgspec.Struct, gc=False):
    user_id: Snowflake
    guild_id: Snowflake | None = None
    channel_id: Snowflake | None = None
    member: msgspec.Raw = NULL


_voice_state = msgspec.json.Decoder(_VoiceState, strict=False).decode


def voice_state_update(writer: CacheWriter, d: bytes) -> None:
    """``channel_id`` null: left. The member inside has ``mute`` and ``deaf`` of before the change."""
    head = _voice_state(d)
    number = writer.number_of(head.guild_id) if head.guild_id is not None else None
    if number is None or head.guild_id is None:
        return
    # First what may turn out to be unreadable.
    if writer.takes_authors and head.member != NULL and not writer.fingerprints.carried(d, stale=True):
        writer.take_carried_whole_member(
            head.guild_id, head.user_id, drop_fields(bytes(head.member), (b"mute", b"deaf"))
        )
    if "voice_states" in writer.kept:
        if head.channel_id is None:
            writer.entity_store.remove(number, Kind.VOICE_STATE, head.user_id)
        else:
            raw = drop_fields(d, (b"member", b"guild_id"))
            writer.entity_store.put(number, Kind.VOICE_STATE, head.user_id, raw)
