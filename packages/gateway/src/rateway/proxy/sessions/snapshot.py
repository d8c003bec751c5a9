"""Make payloads of the gateway's answers: READY, GUILD_CREATEs, chunks of members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from rateway_protocol.contract.snapshots import GuildOfShard, MemberList

__all__ = ["guild_unavailable", "member_chunks", "ready", "without_own_voice"]

# Gateway Events, "Guild Members Chunk": "at most 1000 members".
MOST_MEMBERS: Final = 1_000


def ready(
    *,
    version: int,
    user: msgspec.Raw,
    application: msgspec.Raw | None,
    guilds: Sequence[GuildOfShard],
    session_id: str,
    url: str,
    shard: tuple[int, int],
) -> bytes:
    """``d`` of READY. What Discord's own has beside the documented fields is what libraries read (JDA
    ``private_channels``, ``verified`` and ``mfa_enabled`` of the user)."""
    own: dict[str, Any] = msgspec.json.decode(user)
    if application is None:
        # An application made since 2016 has its bot's id.
        application = msgspec.Raw(msgspec.json.encode({"id": own.get("id"), "flags": 0}))
    return msgspec.json.encode(
        {
            "v": version,
            "user_settings": {},
            "user": {"verified": True, "mfa_enabled": False, "bot": True, **own},
            "session_type": "normal",
            "session_id": session_id,
            "resume_gateway_url": url,
            "relationships": [],
            "private_channels": [],
            "presences": [],
            "guilds": [{"id": guild.id, "unavailable": True} for guild in guilds],
            "guild_join_requests": [],
            "geo_ordered_rtc_regions": [],
            "shard": shard,
            "application": application,
        }
    )


def guild_unavailable(guild_id: str) -> bytes:
    """Return ``d`` of a GUILD_DELETE for an outage."""
    return msgspec.json.encode({"id": guild_id, "unavailable": True})


class _VoiceState(msgspec.Struct):
    user_id: str | int | None = None


class _Voice(msgspec.Struct):
    voice_states: list[_VoiceState] | None = None


_decode_voice = msgspec.json.Decoder(_Voice).decode
_decode_guild = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def without_own_voice(guild: bytes, own_id: int) -> bytes | None:
    """``d`` of a GUILD_CREATE without the bot's own voice state; None where it has none.

    A session that begins is in no voice channel at Discord. The gateway's may be: its session has not ended.
    """
    try:
        states = _decode_voice(guild).voice_states
        if not states or all(str(state.user_id) != str(own_id) for state in states):
            return None
        fields = _decode_guild(guild)
        others = [
            each
            for each, state in zip(_decode_list(fields["voice_states"]), states, strict=True)
            if str(state.user_id) != str(own_id)
        ]
        fields["voice_states"] = msgspec.Raw(msgspec.json.encode(others))
        return msgspec.json.encode(fields)
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None


class _User(msgspec.Struct):
    id: str | int


class _OfUser(msgspec.Struct):
    user: _User


_decode_of_user = msgspec.json.Decoder(_OfUser).decode


def member_chunks(guild_id: str, found: MemberList, nonce: str | None) -> Iterator[bytes]:
    """Return ``d`` of each GUILD_MEMBERS_CHUNK that answers a request; one at least."""
    count = max(1, -(-len(found.members) // MOST_MEMBERS))
    presences = _by_user(found.presences or ()) if count > 1 else {}
    for index in range(count):
        members = found.members[index * MOST_MEMBERS : (index + 1) * MOST_MEMBERS]
        chunk: dict[str, Any] = {
            "guild_id": guild_id, "members": members, "chunk_index": index, "chunk_count": count,
        }  # fmt: skip
        if found.not_found and index == 0:
            chunk["not_found"] = found.not_found
        if found.presences is not None:
            chunk["presences"] = (
                found.presences
                if count == 1
                else [presences[user] for user in map(_user_of, members) if user in presences]
            )
        if nonce is not None:
            chunk["nonce"] = nonce
        yield msgspec.json.encode(chunk)


def _user_of(entity: msgspec.Raw) -> str:
    try:
        return str(_decode_of_user(entity).user.id)
    except (msgspec.MsgspecError, RecursionError):
        return ""


def _by_user(entities: Sequence[msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {_user_of(each): each for each in entities}
