"""REST of guilds: the guild itself, members, roles, bans, emojis, and leaving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    body_of,
    guild_of,
    member_at,
    object_of,
    whole,
    wrong,
)
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.changes import members as world_members
from rateway_simulator.world.changes import voice as world_voice
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.snapshot import guild_object, member_with_user, own_member

_GUILD_FIELDS: Final = (
    "name",
    "verification_level",
    "default_message_notifications",
    "explicit_content_filter",
    "afk_channel_id",
    "afk_timeout",
    "icon",
    "owner_id",
    "splash",
    "banner",
    "system_channel_id",
    "system_channel_flags",
    "rules_channel_id",
    "public_updates_channel_id",
    "preferred_locale",
    "features",
    "description",
    "premium_progress_bar_enabled",
    "safety_alerts_channel_id",
)
_ROLE_FIELDS: Final = (
    "name",
    "permissions",
    "color",
    "colors",
    "hoist",
    "icon",
    "unicode_emoji",
    "mentionable",
    "position",
)
_MEMBER_FIELDS: Final = ("nick", "roles", "mute", "deaf", "communication_disabled_until", "flags")


def _whole_guild(guild: Guild) -> Json:
    return {
        **guild_object(guild),
        "owner": False,
        "max_presences": None,
        "icon_hash": guild.fields["icon_hash"],
    }


async def _get(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    d = _whole_guild(guild)
    if request.query.get("with_counts") == "true":
        roster = guild.roster
        online = sum(roster.presence(index, rest.world.options.wall) is not None for index in roster)
        d |= {"approximate_member_count": len(roster), "approximate_presence_count": online}
    return d


async def _edit(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    if "name" in body and not 2 <= len(str(body["name"])) <= 100:
        raise wrong("name", "BASE_TYPE_BAD_LENGTH", "Must be between 2 and 100 in length.")
    world_guilds.change_guild(rest.world, guild, **{key: body[key] for key in _GUILD_FIELDS if key in body})
    return _whole_guild(guild)


async def _own_guilds(rest: Rest, request: web.Request) -> list[Json]:
    limit = whole(request, "limit", 200, 200)
    after = int(request.query.get("after", "0"))
    numbers = sorted(n for n in rest.world.guild_ids if n > after and rest.world.is_available(n))[:limit]
    keys = ("id", "name", "icon", "banner", "features")
    return [
        {**{key: rest.world.guild(number).fields[key] for key in keys}, "owner": False, "permissions": "8"}
        for number in numbers
    ]


async def _leave(rest: Rest, request: web.Request) -> None:
    world_guilds.leave(rest.world, guild_of(rest, request).number)


# Members


async def _member(rest: Rest, request: web.Request) -> Json:
    user_id = request.match_info["user_id"].replace("@me", rest.world.bot_id)
    return member_at(rest, guild_of(rest, request), user_id)


async def _members(rest: Rest, request: web.Request) -> list[Json]:
    guild = guild_of(rest, request)
    limit = whole(request, "limit", 1, 1000)
    after = int(request.query.get("after", "0"))
    people = rest.world.people
    numbers = sorted(int(people.id_of(index)) for index in guild.roster)
    everyone = sorted([*numbers, int(rest.world.bot_id)])
    return [member_at(rest, guild, str(number)) for number in everyone if number > after][:limit]


async def _search(rest: Rest, request: web.Request) -> list[Json]:
    guild = guild_of(rest, request)
    limit = whole(request, "limit", 1, 1000)
    query = request.query.get("query", "").casefold()
    found = []
    for index in guild.roster:
        member = member_with_user(rest.world, guild, index)
        names = (member["user"]["username"], member["nick"] or "")
        if any(name.casefold().startswith(query) for name in names):
            found.append(member)
            if len(found) == limit:
                break
    return found


async def _edit_member(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    world = rest.world
    fields = {key: body[key] for key in _MEMBER_FIELDS if key in body}
    if "roles" in fields:
        fields["roles"] = [str(role_id) for role_id in fields["roles"] or []]
        if any(role_id not in guild.roles for role_id in fields["roles"]):
            raise Refused("role")
    user_id = request.match_info["user_id"]
    if user_id in ("@me", world.bot_id):
        world_members.change_own_member(world, guild, **fields)
        return own_member(world, guild)
    member_at(rest, guild, user_id)
    index = world.people.index_of(user_id)
    assert index is not None
    if "channel_id" in body and user_id in guild.voice_states:
        place = body["channel_id"]
        world_voice.set_voice(world, guild, user_id, None if place is None else str(place))
    if fields:
        world_members.change_member(world, guild, index, **fields)
    return member_with_user(world, guild, index)


def _role_of_member(give: bool) -> Callable[[Rest, web.Request], Awaitable[None]]:
    async def answer(rest: Rest, request: web.Request) -> None:
        guild = guild_of(rest, request)
        user_id, role_id = request.match_info["user_id"], request.match_info["role_id"]
        member = member_at(rest, guild, user_id)
        if role_id not in guild.roles:
            raise Refused("role")
        if (role_id in member["roles"]) == give:
            return
        roles = [*member["roles"], role_id] if give else [r for r in member["roles"] if r != role_id]
        index = rest.world.people.index_of(user_id)
        if user_id == rest.world.bot_id:
            world_members.change_own_member(rest.world, guild, roles=roles)
        elif index is not None:
            world_members.change_member(rest.world, guild, index, roles=roles)

    return answer


async def _kick(rest: Rest, request: web.Request) -> None:
    guild = guild_of(rest, request)
    user_id = request.match_info["user_id"]
    member_at(rest, guild, user_id)
    index = rest.world.people.index_of(user_id)
    if index is None or user_id in (rest.world.bot_id, guild.fields["owner_id"]):
        raise Refused("permissions")
    world_members.remove_member(rest.world, guild, index)


# Bans


async def _bans(rest: Rest, request: web.Request) -> list[Json]:
    guild = guild_of(rest, request)
    return [
        {"reason": None, "user": world_members.user_of(rest.world, user_id)} for user_id in sorted(guild.bans)
    ]


async def _get_ban(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    user_id = request.match_info["user_id"]
    if user_id not in guild.bans:
        raise Refused("ban")
    return {"reason": None, "user": world_members.user_of(rest.world, user_id)}


async def _ban(rest: Rest, request: web.Request) -> None:
    guild = guild_of(rest, request)
    user_id = request.match_info["user_id"]
    index = rest.world.people.index_of(user_id) if user_id.isdecimal() else None
    if index is None:
        raise Refused("user")
    if user_id in (rest.world.bot_id, guild.fields["owner_id"]):
        raise Refused("permissions")
    world_members.ban(rest.world, guild, index)


async def _unban(rest: Rest, request: web.Request) -> None:
    guild = guild_of(rest, request)
    if request.match_info["user_id"] not in guild.bans:
        raise Refused("ban")
    world_members.unban(rest.world, guild, request.match_info["user_id"])


# Roles


async def _roles(rest: Rest, request: web.Request) -> list[Json]:
    return list(guild_of(rest, request).roles.values())


def _role_id(guild: Guild, request: web.Request) -> str:
    role_id = request.match_info["role_id"]
    if role_id not in guild.roles:
        raise Refused("role")
    return role_id


async def _role(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    return guild.roles[_role_id(guild, request)]


def _role_fields(body: Json) -> Json:
    fields = {key: body[key] for key in _ROLE_FIELDS if body.get(key) is not None}
    if "permissions" in fields:
        fields["permissions"] = str(fields["permissions"])
    if "color" in fields and "colors" not in fields:
        fields["colors"] = {"primary_color": fields["color"], "secondary_color": None, "tertiary_color": None}
    return fields


async def _create_role(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    fields = _role_fields(body)
    return world_guilds.create_role(rest.world, guild, fields.pop("name", "new role"), **fields)


async def _move_roles(rest: Rest, request: web.Request) -> list[Json]:
    """Change positions; GUILD_ROLE_UPDATE is sent for each role that changes."""
    moves = await body_of(request)
    guild = guild_of(rest, request)
    if not isinstance(moves, list) or not all(isinstance(move, dict) for move in moves):
        raise wrong("_errors", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
    if any(str(move.get("id")) not in guild.roles for move in moves):
        raise Refused("role")
    for move in moves:
        role_id, position = str(move["id"]), move.get("position")
        if position is None or guild.roles[role_id]["position"] == int(position):
            continue
        if role_id == guild.id:
            raise Refused("permissions")
        world_guilds.change_role(rest.world, guild, role_id, position=int(position))
    return list(guild.roles.values())


async def _edit_role(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    return world_guilds.change_role(rest.world, guild, _role_id(guild, request), **_role_fields(body))


async def _delete_role(rest: Rest, request: web.Request) -> None:
    guild = guild_of(rest, request)
    role_id = _role_id(guild, request)
    if role_id == guild.id or guild.roles[role_id]["managed"]:
        raise Refused("permissions")
    world_guilds.delete_role(rest.world, guild, role_id)


async def _emojis(rest: Rest, request: web.Request) -> list[Json]:
    return list(guild_of(rest, request).emojis.values())


async def _stickers(rest: Rest, request: web.Request) -> list[Json]:
    return list(guild_of(rest, request).stickers.values())


async def _sounds(rest: Rest, request: web.Request) -> Json:
    return {"items": list(guild_of(rest, request).sounds.values())}


async def _events(rest: Rest, request: web.Request) -> list[Json]:
    return list(guild_of(rest, request).events.values())


_GUILD: Final = "/guilds/{guild_id}"
_MEMBER: Final = _GUILD + "/members/{user_id}"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("GET", _GUILD, _get),
    ("PATCH", _GUILD, _edit),
    ("GET", "/users/@me/guilds", _own_guilds),
    ("DELETE", "/users/@me/guilds/{guild_id}", _leave),
    ("GET", _GUILD + "/members", _members),
    ("GET", _GUILD + "/members/search", _search),
    ("GET", _MEMBER, _member),
    ("PATCH", _MEMBER, _edit_member),
    ("DELETE", _MEMBER, _kick),
    ("PUT", _MEMBER + "/roles/{role_id}", _role_of_member(True)),
    ("DELETE", _MEMBER + "/roles/{role_id}", _role_of_member(False)),
    ("GET", _GUILD + "/bans", _bans),
    ("GET", _GUILD + "/bans/{user_id}", _get_ban),
    ("PUT", _GUILD + "/bans/{user_id}", _ban),
    ("DELETE", _GUILD + "/bans/{user_id}", _unban),
    ("GET", _GUILD + "/roles", _roles),
    ("POST", _GUILD + "/roles", _create_role),
    ("PATCH", _GUILD + "/roles", _move_roles),
    ("GET", _GUILD + "/roles/{role_id}", _role),
    ("PATCH", _GUILD + "/roles/{role_id}", _edit_role),
    ("DELETE", _GUILD + "/roles/{role_id}", _delete_role),
    ("GET", _GUILD + "/emojis", _emojis),
    ("GET", _GUILD + "/stickers", _stickers),
    ("GET", _GUILD + "/soundboard-sounds", _sounds),
    ("GET", _GUILD + "/scheduled-events", _events),
)
