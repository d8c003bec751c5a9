"""What a client sends to the gateway: how each payload is written, and what Discord would refuse.

Discord documentation, "Gateway Events": "Send Events". Payloads are JSON text in UTF-8 and never compressed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import msgspec

from rateway.discord.intents import Intents
from rateway.discord.opcodes import Opcode
from rateway.discord.snowflake import shard_of

__all__ = [
    "MAX_NONCE_BYTES",
    "MAX_PAYLOAD_BYTES",
    "bare_token",
    "encode",
    "guild_ids",
    "heartbeat",
    "identify",
    "presence",
    "resume",
    "validate",
    "whole_guild",
]

# "Clients may send at most 4096 bytes"; more is closed with 4002.
MAX_PAYLOAD_BYTES = 4096
# A longer nonce is dropped without a word, and whoever waits for it waits for ever.
MAX_NONCE_BYTES = 32
# user_ids and limit of a request for guild members.
MAX_MEMBERS_ASKED = 100

STATUSES = frozenset({"online", "dnd", "idle", "invisible", "offline"})
# "Bot users are only able to set name, state, type, and url."
ACTIVITY_FIELDS = frozenset({"name", "state", "type", "url"})
CHANNEL_INFO_FIELDS = frozenset({"status", "voice_start_time"})

encode = msgspec.json.encode
"""JSON as compact UTF-8 bytes."""


def bare_token(token: str) -> str:
    """The token without the ``Bot `` that only HTTP wants: a resume with it is refused with 4006."""
    token = token.strip()
    return token[4:].strip() if token[:4].lower() == "bot " else token


def identify(
    *,
    token: str,
    intents: int,
    shard_id: int,
    shard_count: int,
    large_threshold: int = 50,
    presence: Mapping[str, Any] | msgspec.Raw | None = None,
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """An identify (op 2). ``shard`` is always sent, also as ``[0, 1]``: READY then echoes it.

    ``compress`` is left out: the connection's own compression makes it void.
    """
    d: dict[str, Any] = {
        "token": bare_token(token),
        "intents": intents,
        "properties": dict(properties or {"os": "linux", "browser": "rateway", "device": "rateway"}),
        "large_threshold": large_threshold,
        "shard": (shard_id, shard_count),
    }
    if presence is not None:
        d["presence"] = presence
    return encode({"op": Opcode.IDENTIFY.value, "d": d})


def resume(*, token: str, session_id: str, seq: int) -> bytes:
    """A resume (op 6); *seq* is the last sequence received in the session."""
    d = {"token": bare_token(token), "session_id": session_id, "seq": seq}
    return encode({"op": Opcode.RESUME.value, "d": d})


def heartbeat(seq: int | None) -> bytes:
    """A heartbeat (op 1)."""
    return b'{"op":1,"d":null}' if seq is None else b'{"op":1,"d":%d}' % seq


def presence(
    *,
    status: str = "online",
    activities: list[dict[str, Any]] | None = None,
    since: int | None = None,
    afk: bool = False,
) -> bytes:
    """A presence update (op 3); *since* is milliseconds of Unix time, for ``idle``."""
    d = {"since": since, "activities": activities or [], "status": status, "afk": afk}
    return encode({"op": Opcode.PRESENCE_UPDATE.value, "d": d})


def validate(
    op: int, d: object, *, intents: int | None = None, shard: tuple[int, int] | None = None
) -> str | None:
    """What is wrong with the ``d`` of a command, in words; None when Discord will take it.

    *intents* are the session's, *shard* its ``(id, count)``: with them, also what Discord would leave
    unanswered without a word is refused. Violations of op 3 cost the whole session (an invalid session
    answers them), of the others a close with 4001 or 4002.
    """
    check = _CHECKS.get(op)
    if check is None:
        return f"op {op} is not a command that workers may send (3, 4, 8, 31 and 43 are)"
    if not isinstance(d, Mapping):
        return "d should be an object"
    wrong = check(d, intents)
    if wrong is None and shard is not None:
        for guild_id in guild_ids(op, d):
            owner = shard_of(guild_id, shard[1])
            if owner != shard[0]:
                return f"guild {guild_id} belongs to shard {owner}, not to shard {shard[0]}"
    return wrong


def guild_ids(op: int, d: Mapping[str, Any]) -> list[int]:
    """The guilds that a valid command is about."""
    given = d.get("guild_ids", []) if op == Opcode.REQUEST_SOUNDBOARD_SOUNDS else [d.get("guild_id")]
    return [int(guild_id) for guild_id in given if _is_snowflake(guild_id)]


def whole_guild(op: int, d: Mapping[str, Any]) -> bool:
    """Whether a command asks for all members of a guild: that is allowed once per guild and 30 s."""
    return op == Opcode.REQUEST_GUILD_MEMBERS and d.get("query") == "" and d.get("limit") == 0


def _is_snowflake(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value) is not None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _guild(d: Mapping[str, Any]) -> str | None:
    return None if _is_snowflake(d.get("guild_id")) else "guild_id should be one guild's id, as a string"


def _presence(d: Mapping[str, Any], intents: int | None) -> str | None:
    if not isinstance(d.get("activities"), list):
        return "activities should be an array (empty for none); Discord ends the session otherwise"
    if "since" not in d or not (d["since"] is None or _is_int(d["since"])):
        return "since should be there: milliseconds of Unix time, or null"
    if not isinstance(d.get("status"), str) or d["status"] not in STATUSES:
        return f"status should be one of {', '.join(sorted(STATUSES))}"
    if not isinstance(d.get("afk"), bool):
        return "afk should be true or false"
    for activity in d["activities"]:
        wrong = _activity(activity)
        if wrong is not None:
            return wrong
    return None


def _activity(activity: object) -> str | None:
    if not isinstance(activity, Mapping):
        return "each activity should be an object"
    unknown = sorted(set(activity) - ACTIVITY_FIELDS)
    if unknown:
        return f"a bot's activity has name, state, type and url, not {unknown[0]}"
    if not isinstance(activity.get("name"), str):
        return "an activity's name should be a string"
    if not _is_int(activity.get("type")):
        return "an activity's type should be a number"
    if "url" in activity and not isinstance(activity["url"], str):
        return "an activity's url should be a string or left out, not null"
    if not isinstance(activity.get("state", ""), str | None):
        return "an activity's state should be a string"
    return None


def _voice(d: Mapping[str, Any], intents: int | None) -> str | None:
    if wrong := _guild(d):
        return wrong
    if "channel_id" not in d or not (d["channel_id"] is None or _is_snowflake(d["channel_id"])):
        return "channel_id should be there: a channel's id as a string, or null to leave"
    for key in ("self_mute", "self_deaf"):
        if not isinstance(d.get(key), bool):
            return f"{key} should be true or false"
    return None


def _members(d: Mapping[str, Any], intents: int | None) -> str | None:
    wrong = _guild(d) or _members_asked(d)
    if wrong is not None:
        return wrong
    nonce = d.get("nonce")
    if nonce is not None and not (isinstance(nonce, str) and len(nonce.encode()) <= MAX_NONCE_BYTES):
        return f"nonce should be a string of at most {MAX_NONCE_BYTES} bytes; Discord drops a longer one"
    if not isinstance(d.get("presences", False), bool):
        return "presences should be true or false"
    if intents is not None:
        if d.get("presences") and not intents & Intents.GUILD_PRESENCES:
            return "presences needs the intent GUILD_PRESENCES"
        if whole_guild(Opcode.REQUEST_GUILD_MEMBERS, d) and not intents & Intents.GUILD_MEMBERS:
            return "asking for all members of a guild needs the intent GUILD_MEMBERS"
    return None


def _members_asked(d: Mapping[str, Any]) -> str | None:
    if ("query" in d) == ("user_ids" in d):
        return "exactly one of query and user_ids should be given"
    if "user_ids" in d:
        asked = d["user_ids"] if isinstance(d["user_ids"], list) else [d["user_ids"]]
        if len(asked) > MAX_MEMBERS_ASKED:
            return f"user_ids has {len(asked)} ids, Discord takes {MAX_MEMBERS_ASKED}"
        if not all(map(_is_snowflake, asked)):
            return "user_ids should be ids as strings"
        return None
    if not isinstance(d["query"], str):
        return "query should be a string"
    limit = d.get("limit")
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= MAX_MEMBERS_ASKED:
        return f"limit should be there with query: 0 to {MAX_MEMBERS_ASKED}"
    if limit == 0 and d["query"]:
        return "limit 0 (all members) goes with an empty query only"
    return None


def _soundboard(d: Mapping[str, Any], intents: int | None) -> str | None:
    given = d.get("guild_ids")
    if not isinstance(given, list) or not given or not all(map(_is_snowflake, given)):
        return "guild_ids should be an array of guild ids as strings"
    return None


def _channel_info(d: Mapping[str, Any], intents: int | None) -> str | None:
    if wrong := _guild(d):
        return wrong
    fields = d.get("fields")
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        return "fields should be an array of strings"
    unknown = sorted(set(fields) - CHANNEL_INFO_FIELDS)
    if unknown:
        return f"fields may hold {' and '.join(sorted(CHANNEL_INFO_FIELDS))}, not {unknown[0]}"
    return None


_CHECKS: dict[int, Callable[[Mapping[str, Any], int | None], str | None]] = {
    Opcode.PRESENCE_UPDATE: _presence,
    Opcode.VOICE_STATE_UPDATE: _voice,
    Opcode.REQUEST_GUILD_MEMBERS: _members,
    Opcode.REQUEST_SOUNDBOARD_SOUNDS: _soundboard,
    Opcode.REQUEST_CHANNEL_INFO: _channel_info,
}
