"""What is wrong with a payload that a client sent: one function for each op, its answer in words or None.

Pure. The rules are those of Discord's documentation, "Gateway Events", under each event's structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATUSES = frozenset({"online", "dnd", "idle", "invisible", "offline"})
CHANNEL_INFO_FIELDS = frozenset({"status", "voice_start_time"})
MOST_USER_IDS = 100
MOST_QUERIED = 100
NONCE_BYTES = 32
GUILD_MEMBERS = 1 << 1
GUILD_PRESENCES = 1 << 8


def is_snowflake(value: Any) -> bool:
    """Whether the value is a snowflake as JSON carries it: a string of digits."""
    return isinstance(value, str) and value.isascii() and value.isdigit() and int(value) < 1 << 64


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def identify_fault(d: Any) -> str | None:
    """Op 2, but for token, intents' meaning and shard, which have close codes of their own."""
    if not isinstance(d, dict):
        return "d is not an object"
    if not isinstance(d.get("token"), str):
        return "token is not a string"
    if not isinstance(d.get("intents"), int) or isinstance(d["intents"], bool):
        return "intents is not an integer"
    properties = d.get("properties")
    if not isinstance(properties, dict):
        return "properties is not an object"
    for name in ("os", "browser", "device"):
        if not isinstance(properties.get(name, properties.get(f"${name}")), str):
            return f"properties.{name} is missing"
    threshold = d.get("large_threshold", 50)
    if not isinstance(threshold, int) or not 50 <= threshold <= 250:
        return f"large_threshold {threshold!r} is not in 50 to 250"
    presence = d.get("presence")
    return None if presence is None else presence_fault(presence)


def shard_fault(shard: Any) -> str | None:
    """`shard` of op 2; None is allowed and means [0, 1]."""
    if shard is None:
        return None
    if (
        not isinstance(shard, list)
        or len(shard) != 2
        or not all(isinstance(part, int) and not isinstance(part, bool) for part in shard)
        or not 0 <= shard[0] < shard[1]
    ):
        return f"shard {shard!r} is not [shard_id, num_shards]"
    return None


def presence_fault(d: Any) -> str | None:
    """Op 3."""
    if not isinstance(d, dict):
        return "d is not an object"
    # Without it, the one `game` of older gateway versions is taken, null too: hikari sends it.
    if ("activities" in d or "game" not in d) and not isinstance(d.get("activities"), list):
        return "activities is not a list"
    if "since" not in d or not (d["since"] is None or _is_number(d["since"])):
        return "since is neither a number nor null"
    if not isinstance(d.get("status"), str) or d["status"] not in STATUSES:
        return f"status {d.get('status')!r} is none of {', '.join(sorted(STATUSES))}"
    if not isinstance(d.get("afk"), bool):
        return "afk is not a boolean"
    for activity in d.get("activities", ()):
        if not isinstance(activity, dict) or not isinstance(activity.get("name"), str):
            return "an activity has no name"
        if not isinstance(activity.get("type"), int):
            return "an activity has no type"
        if "url" in activity and not isinstance(activity["url"], str):
            return "an activity's url is there but not a string"
    return None


def voice_fault(d: Any) -> str | None:
    """Op 4."""
    if not isinstance(d, dict):
        return "d is not an object"
    if not is_snowflake(d.get("guild_id")):
        return "guild_id is not a snowflake"
    if "channel_id" not in d or not (d["channel_id"] is None or is_snowflake(d["channel_id"])):
        return "channel_id is neither a snowflake nor null"
    for name in ("self_mute", "self_deaf"):
        if not isinstance(d.get(name), bool):
            return f"{name} is not a boolean"
    return None


def is_whole_guild(d: Mapping[str, Any]) -> bool:
    """Whether op 8 asks for all members of the guild."""
    return d.get("query") == "" and d.get("limit") == 0


def members_fault(d: Any) -> str | None:
    """Op 8, but for its nonce and intents."""
    if not isinstance(d, dict):
        return "d is not an object"
    if not is_snowflake(d.get("guild_id")):
        return "guild_id is not one snowflake"
    has_query, ids = d.get("query") is not None, d.get("user_ids")
    if has_query == (ids is not None):
        return "there must be exactly one of query and user_ids"
    if has_query:
        limit = d.get("limit")
        if not isinstance(d["query"], str) or not isinstance(limit, int) or limit < 0:
            return "query is not a string, or limit is missing"
        if (d["query"] and not 1 <= limit <= MOST_QUERIED) or limit > MOST_QUERIED:
            return f"limit {limit} is not in 1 to {MOST_QUERIED}"
        return None
    listed = ids if isinstance(ids, list) else [ids]
    if not all(is_snowflake(user_id) for user_id in listed):
        return "user_ids has what is not a snowflake"
    return f"{len(listed)} user_ids are more than {MOST_USER_IDS}" if len(listed) > MOST_USER_IDS else None


def members_intents_fault(d: Mapping[str, Any], intents: int) -> str | None:
    """What op 8 asks for and the session's intents do not allow."""
    if is_whole_guild(d) and not intents & GUILD_MEMBERS:
        return "all members are asked for without GUILD_MEMBERS"
    if d.get("presences") is True and not intents & GUILD_PRESENCES:
        return "presences are asked for without GUILD_PRESENCES"
    return None


def nonce_fault(d: Mapping[str, Any]) -> str | None:
    """The nonce of op 8."""
    nonce = d.get("nonce")
    if nonce is None or (isinstance(nonce, str) and len(nonce.encode()) <= NONCE_BYTES):
        return None
    return f"nonce {nonce!r} is not a string of at most {NONCE_BYTES} bytes"


def sounds_fault(d: Any) -> str | None:
    """Op 31."""
    if not isinstance(d, dict) or not isinstance(d.get("guild_ids"), list):
        return "guild_ids is not a list"
    return (
        None
        if all(is_snowflake(guild_id) for guild_id in d["guild_ids"])
        else "guild_ids has what is not a snowflake"
    )


def channel_info_fault(d: Any) -> str | None:
    """Op 43."""
    if not isinstance(d, dict) or not is_snowflake(d.get("guild_id")):
        return "guild_id is not a snowflake"
    names = d.get("fields")
    if not isinstance(names, list) or not set(names) <= CHANNEL_INFO_FIELDS:
        return f"fields is not a list out of {', '.join(sorted(CHANNEL_INFO_FIELDS))}"
    return None
