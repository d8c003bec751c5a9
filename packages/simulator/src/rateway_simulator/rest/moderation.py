"""REST of moderation: audit log, auto moderation, bans and removals of many, invites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    channel_of,
    guild_of,
    object_of,
    reason_of,
    whole,
    wrong,
)
from rateway_simulator.world.changes import channels as world_channels
from rateway_simulator.world.changes import members as world_members
from rateway_simulator.world.changes import moderation as world_moderation
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.guild import Guild

# Audit Log, Audit Log Events.
_PRUNED, _BANNED, _INVITE_DELETED = 21, 22, 42
_RULE_CREATED, _RULE_UPDATED, _RULE_DELETED = 140, 141, 142
# A bulk ban takes at most so many users.
_MOST_BANNED: Final = 200
# Auto Moderation: trigger types, and how many rules of each a guild may have.
_RULES_OF: Final = {1: 6, 3: 1, 4: 1, 5: 1, 6: 1}
_RULE_FIELDS: Final[tuple[str, ...]] = (
    "name",
    "event_type",
    "trigger_metadata",
    "actions",
    "enabled",
    "exempt_roles",
    "exempt_channels",
)


def _audit(
    rest: Rest, request: web.Request, guild: Guild, action: int, target: str | None, **fields: Any
) -> None:
    bot_id = rest.world.bot_id
    world_moderation.audit(rest.world, guild, action, bot_id, target, [], **fields, **reason_of(request))


# Audit log


async def _audit_log(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    query = request.query
    limit = whole(request, "limit", 50, 100)
    entries = list(reversed(guild.audit_log))
    if "user_id" in query:
        entries = [entry for entry in entries if entry["user_id"] == query["user_id"]]
    if "action_type" in query:
        entries = [entry for entry in entries if str(entry["action_type"]) == query["action_type"]]
    if "before" in query:
        entries = [entry for entry in entries if int(entry["id"]) < int(query["before"])]
    if "after" in query:
        entries = [entry for entry in reversed(entries) if int(entry["id"]) > int(query["after"])]
    entries = entries[:limit]
    named = {str(entry[key]) for entry in entries for key in ("user_id", "target_id") if entry[key]}
    users = [user_of(rest.world, user_id) for user_id in sorted(named)]
    return {
        "application_commands": [],
        "audit_log_entries": entries,
        "auto_moderation_rules": [d for key, d in guild.rules.items() if key in named],
        "guild_scheduled_events": [d for key, d in guild.events.items() if key in named],
        "integrations": [],
        "threads": [d for key, d in guild.threads.items() if key in named],
        "users": [user for user in users if user is not None],
        "webhooks": [d for key, d in guild.webhooks.items() if key in named],
    }


# Auto moderation


def _rule(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild = guild_of(rest, request)
    d = guild.rules.get(request.match_info["rule_id"])
    if d is None:
        raise Refused("not_found")
    return guild, d


async def _rules(rest: Rest, request: web.Request) -> list[Json]:
    return list(guild_of(rest, request).rules.values())


async def _get_rule(rest: Rest, request: web.Request) -> Json:
    return _rule(rest, request)[1]


async def _create_rule(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    kind = body.get("trigger_type")
    if not isinstance(kind, int) or kind not in _RULES_OF:
        raise wrong("trigger_type", "BASE_TYPE_CHOICES", "Value must be one of {1, 3, 4, 5, 6}.")
    for key in ("name", "event_type", "actions"):
        if not body.get(key):
            raise wrong(key, "BASE_TYPE_REQUIRED", "This field is required")
    if sum(rule["trigger_type"] == kind for rule in guild.rules.values()) >= _RULES_OF[kind]:
        raise wrong(
            "trigger_type", "AUTO_MODERATION_MAX_RULES_OF_TYPE_EXCEEDED", "Maximum number of rules reached"
        )
    rule_id = rest.world.snowflake()
    d = payloads.automod_rule(rule_id, guild.id, rest.world.bot_id, str(body["name"]), None)
    # A rule is off unless it is said to be on.
    d |= {"trigger_type": kind, "trigger_metadata": {}, "enabled": False}
    d |= {key: body[key] for key in _RULE_FIELDS if body.get(key) is not None}
    guild.rules[rule_id] = d
    rest.world.emit("AUTO_MODERATION_RULE_CREATE", guild, d)
    _audit(rest, request, guild, _RULE_CREATED, rule_id)
    return d


async def _edit_rule(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, old = _rule(rest, request)
    d = {**old, **{key: body[key] for key in _RULE_FIELDS if key in body}}
    guild.rules[d["id"]] = d
    rest.world.emit("AUTO_MODERATION_RULE_UPDATE", guild, d)
    _audit(rest, request, guild, _RULE_UPDATED, d["id"])
    return d


async def _delete_rule(rest: Rest, request: web.Request) -> None:
    guild, d = _rule(rest, request)
    del guild.rules[d["id"]]
    rest.world.emit("AUTO_MODERATION_RULE_DELETE", guild, d)
    _audit(rest, request, guild, _RULE_DELETED, d["id"])


# Many at once


async def _bulk_ban(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    ids = body.get("user_ids")
    if not isinstance(ids, list) or not 1 <= len(ids) <= _MOST_BANNED:
        raise wrong("user_ids", "BASE_TYPE_BAD_LENGTH", f"Must be between 1 and {_MOST_BANNED} in length.")
    banned: list[str] = []
    failed: list[str] = []
    for user_id in dict.fromkeys(map(str, ids)):
        index = rest.world.people.index_of(user_id) if user_id.isdecimal() else None
        protected = user_id in (rest.world.bot_id, guild.fields["owner_id"]) or user_id in guild.bans
        if index is None or protected:
            failed.append(user_id)
            continue
        world_members.ban(rest.world, guild, index)
        _audit(rest, request, guild, _BANNED, user_id)
        banned.append(user_id)
    if not banned:
        raise Refused("bulk_ban")
    return {"banned_users": banned, "failed_users": failed}


def _prunable(rest: Rest, guild: Guild, roles: list[str]) -> list[int]:
    """Return members who are offline and have no role, or none but those named."""
    found = []
    for index in guild.roster:
        member = guild.roster.member(index, guild.roles)
        if set(member["roles"]) <= set(roles) and guild.roster.presence(index, rest.world.wall) is None:
            user_id = rest.world.people.id_of(index)
            if user_id != guild.fields["owner_id"] and user_id not in guild.voice_states:
                found.append(index)
    return found


def _days(value: object) -> None:
    if not str(value).isdecimal() or not 1 <= int(str(value)) <= 30:
        raise wrong("days", "NUMBER_TYPE_MAX", "int value should be between 1 and 30.")


async def _count_pruned(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    _days(request.query.get("days", "7"))
    roles = [role_id for role_id in request.query.get("include_roles", "").split(",") if role_id]
    return {"pruned": len(_prunable(rest, guild, roles))}


async def _prune(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    _days(body.get("days", 7))
    gone = _prunable(rest, guild, [str(role_id) for role_id in body.get("include_roles") or []])
    for index in gone:
        world_members.remove_member(rest.world, guild, index)
    options = {"delete_member_days": str(body.get("days", 7)), "members_removed": str(len(gone))}
    _audit(rest, request, guild, _PRUNED, None, options=options)
    return {"pruned": len(gone) if body.get("compute_prune_count", True) else None}


# Invites


def _invite_object(guild: Guild, d: Json) -> Json:
    """Return an invite as REST has it: with its guild and channel."""
    channel = guild.channels.get(d["channel_id"], {})
    keys = (
        "id",
        "name",
        "icon",
        "features",
        "splash",
        "banner",
        "description",
        "verification_level",
        "vanity_url_code",
        "nsfw_level",
        "premium_subscription_count",
    )
    return {
        **d,
        "channel": {key: channel.get(key) for key in ("id", "name", "type")},
        "guild": {key: guild.fields[key] for key in keys},
    }


async def _create_invite(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    bot = user_of(rest.world, rest.world.bot_id)
    if guild is None or bot is None or channel["id"] not in guild.channels:
        raise Refused("channel")
    fields = {key: body[key] for key in ("max_age", "max_uses", "temporary") if body.get(key) is not None}
    age, uses = fields.get("max_age", 0), fields.get("max_uses", 0)
    if not isinstance(age, int) or not 0 <= age <= 604_800:
        raise wrong("max_age", "NUMBER_TYPE_MAX", "int value should be less than or equal to 604800.")
    if not isinstance(uses, int) or not 0 <= uses <= 100:
        raise wrong("max_uses", "NUMBER_TYPE_MAX", "int value should be less than or equal to 100.")
    return _invite_object(
        guild, world_channels.create_invite(rest.world, guild, channel["id"], bot, **fields)
    )


async def _invites_of_channel(rest: Rest, request: web.Request) -> list[Json]:
    guild, channel = channel_of(rest, request)
    if guild is None:
        return []
    return [_invite_object(guild, d) for d in guild.invites.values() if d["channel_id"] == channel["id"]]


async def _invites_of_guild(rest: Rest, request: web.Request) -> list[Json]:
    guild = guild_of(rest, request)
    return [_invite_object(guild, d) for d in guild.invites.values()]


def _invite(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    code = request.match_info["code"]
    number = rest.world.places.get(code)
    guild = rest.world.guild(number) if number is not None and rest.world.is_available(number) else None
    if guild is None or code not in guild.invites:
        raise Refused("invite")
    return guild, guild.invites[code]


async def _get_invite(rest: Rest, request: web.Request) -> Json:
    guild, d = _invite(rest, request)
    known = ("code", "type", "inviter", "expires_at", "flags")
    answer = {
        key: value for key, value in _invite_object(guild, d).items() if key in (*known, "channel", "guild")
    }
    if request.query.get("with_counts", "").lower() in ("true", "1"):
        roster = guild.roster
        online = sum(roster.presence(index, rest.world.wall) is not None for index in roster)
        answer |= {"approximate_member_count": len(roster), "approximate_presence_count": online}
    return answer


async def _delete_invite(rest: Rest, request: web.Request) -> Json:
    guild, d = _invite(rest, request)
    answer = _invite_object(guild, d)
    world_channels.delete_invite(rest.world, guild, d["code"])
    _audit(rest, request, guild, _INVITE_DELETED, None)
    return answer


_GUILD: Final = "/guilds/{guild_id}"
_RULE: Final = _GUILD + "/auto-moderation/rules"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("GET", _GUILD + "/audit-logs", _audit_log),
    ("GET", _RULE, _rules),
    ("POST", _RULE, _create_rule),
    ("GET", _RULE + "/{rule_id}", _get_rule),
    ("PATCH", _RULE + "/{rule_id}", _edit_rule),
    ("DELETE", _RULE + "/{rule_id}", _delete_rule),
    ("POST", _GUILD + "/bulk-ban", _bulk_ban),
    ("GET", _GUILD + "/prune", _count_pruned),
    ("POST", _GUILD + "/prune", _prune),
    ("GET", _GUILD + "/invites", _invites_of_guild),
    ("GET", "/channels/{channel_id}/invites", _invites_of_channel),
    ("POST", "/channels/{channel_id}/invites", _create_invite),
    ("GET", "/invites/{code}", _get_invite),
    ("DELETE", "/invites/{code}", _delete_invite),
)
