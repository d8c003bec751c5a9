"""REST of what a guild shows to visitors and newcomers: preview, widget, welcome, templates; its integrations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads.channel_types import SPOKEN
from rateway_simulator.payloads.values import Json, noise
from rateway_simulator.rest.answers import Refused, Rest, guild_of, object_of, wrong
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.guild import Guild

# Members whom a widget shows, at most (docs: Guild, Guild Widget Object).
_SHOWN: Final = 100


def _online(rest: Rest, guild: Guild) -> list[int]:
    wall = rest.world.options.wall
    return [index for index in guild.roster if guild.roster.presence(index, wall) is not None]


async def _preview(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    keys = ("id", "name", "icon", "splash", "discovery_splash", "features", "description")
    return {
        **{key: guild.fields[key] for key in keys},
        "emojis": list(guild.emojis.values()),
        "stickers": list(guild.stickers.values()),
        "approximate_member_count": len(guild.roster),
        "approximate_presence_count": len(_online(rest, guild)),
    }


# The widget


def _settings(guild: Guild) -> Json:
    return {"enabled": guild.fields["widget_enabled"], "channel_id": guild.fields["widget_channel_id"]}


async def _widget_settings(rest: Rest, request: web.Request) -> Json:
    return _settings(guild_of(rest, request))


async def _edit_widget(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    fields: Json = {}
    if "enabled" in body:
        fields["widget_enabled"] = bool(body["enabled"])
    if "channel_id" in body:
        channel_id = body["channel_id"]
        if channel_id is not None and str(channel_id) not in guild.channels:
            raise Refused("channel")
        fields["widget_channel_id"] = None if channel_id is None else str(channel_id)
    if fields:
        world_guilds.change_guild(rest.world, guild, **fields)
    return _settings(guild)


async def _widget(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    if not guild.fields["widget_enabled"]:
        raise Refused("widget")
    wall = rest.world.options.wall
    online = _online(rest, guild)
    members = []
    for place, index in enumerate(online[:_SHOWN]):
        presence = guild.roster.presence(index, wall)
        assert presence is not None
        members.append(
            {
                "id": str(place),
                "username": rest.world.people.user(index)["username"],
                "discriminator": "0000",
                "avatar": None,
                "status": presence["status"],
                "avatar_url": f"https://cdn.example.org/{place}.png",
            }
        )
    spoken = [d for d in guild.channels.values() if d["type"] in SPOKEN]
    return {
        "id": guild.id,
        "name": guild.fields["name"],
        "instant_invite": None,
        "channels": [{key: d[key] for key in ("id", "name", "position")} for d in spoken],
        "members": members,
        "presence_count": len(online),
    }


async def _vanity(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    if "VANITY_URL" not in guild.fields["features"]:
        raise Refused("vanity")
    return {"code": guild.fields["vanity_url_code"], "uses": 0}


# Newcomers


async def _welcome(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    d: Json | None = guild.pages.get("welcome_screen")
    if d is None:
        raise Refused("welcome_screen")
    return {key: d[key] for key in ("description", "welcome_channels")}


async def _edit_welcome(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    d = {
        "description": None,
        "welcome_channels": [],
        "enabled": True,
        **guild.pages.get("welcome_screen", {}),
    }
    for key in ("description", "enabled"):
        if key in body:
            d[key] = body[key]
    channels = body.get("welcome_channels")
    if channels is not None:
        if any(str(entry.get("channel_id")) not in guild.channels for entry in channels):
            raise Refused("channel")
        blank = {"description": "", "emoji_id": None, "emoji_name": None}
        d["welcome_channels"] = [
            {**blank, **entry, "channel_id": str(entry["channel_id"])} for entry in channels
        ]
    guild.pages = {**guild.pages, "welcome_screen": d}
    guild.touched = True
    return {key: d[key] for key in ("description", "welcome_channels")}


def _onboarding_of(guild: Guild) -> Json:
    d: Json = guild.pages.get("onboarding", {})
    return {"guild_id": guild.id, "prompts": [], "default_channel_ids": [], "enabled": False, "mode": 0, **d}


async def _onboarding(rest: Rest, request: web.Request) -> Json:
    return _onboarding_of(guild_of(rest, request))


async def _edit_onboarding(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    keys = ("prompts", "default_channel_ids", "enabled", "mode")
    kept = guild.pages.get("onboarding", {})
    guild.pages = {**guild.pages, "onboarding": {**kept, **{key: body[key] for key in keys if key in body}}}
    guild.touched = True
    return _onboarding_of(guild)


# Integrations


async def _integrations(rest: Rest, request: web.Request) -> list[Json]:
    guild = guild_of(rest, request)
    owner = user_of(rest.world, guild.fields["owner_id"])
    return [
        {**{key: value for key, value in d.items() if key != "guild_id"}, "user": owner}
        for d in guild.integrations.values()
    ]


async def _delete_integration(rest: Rest, request: web.Request) -> None:
    guild = guild_of(rest, request)
    d = guild.integrations.pop(request.match_info["integration_id"], None)
    if d is None:
        raise Refused("integration")
    gone: Json = {"id": d["id"], "guild_id": guild.id}
    if "application" in d:
        gone["application_id"] = d["application"]["id"]
    rest.world.emit("INTEGRATION_DELETE", guild, gone)
    rest.world.emit("GUILD_INTEGRATIONS_UPDATE", guild, {"guild_id": guild.id})


# Templates


def _templates(guild: Guild) -> dict[str, Json]:
    found: dict[str, Json] = guild.pages.get("templates", {})
    return found


def _snapshot(guild: Guild) -> Json:
    """Return a guild as a template has it: ids are small numbers there, and `icon` is a hash."""
    channel_ids = {key: place for place, key in enumerate(guild.channels, 1)}
    keys = (
        "name",
        "description",
        "region",
        "verification_level",
        "default_message_notifications",
        "explicit_content_filter",
        "preferred_locale",
        "afk_timeout",
        "system_channel_flags",
    )
    role_keys = ("name", "permissions", "color", "hoist", "mentionable")
    return {
        **{key: guild.fields[key] for key in keys},
        "icon_hash": guild.fields["icon"],
        "afk_channel_id": channel_ids.get(guild.fields["afk_channel_id"]),
        "system_channel_id": channel_ids.get(guild.fields["system_channel_id"]),
        "roles": [
            {"id": place, **{key: d[key] for key in role_keys}}
            for place, d in enumerate(guild.roles.values())
        ],
        "channels": [
            {
                **d,
                "id": channel_ids[key],
                "parent_id": channel_ids.get(d["parent_id"]),
                "permission_overwrites": [],
            }
            for key, d in guild.channels.items()
        ],
    }


def _store(guild: Guild, code: str, template: Json | None) -> None:
    templates = {key: d for key, d in _templates(guild).items() if key != code}
    if template is not None:
        templates[code] = template
    guild.pages = {**guild.pages, "templates": templates}
    guild.touched = True


async def _guild_templates(rest: Rest, request: web.Request) -> list[Json]:
    return list(_templates(guild_of(rest, request)).values())


async def _create_template(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    name = body.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise wrong("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    world = rest.world
    code = f"{noise(int(world.snowflake())):012x}"[:12]
    d: Json = {
        "code": code,
        "name": name,
        "description": body.get("description"),
        "usage_count": 0,
        "creator_id": world.bot_id,
        "creator": user_of(world, world.bot_id),
        "created_at": world.now(),
        "updated_at": world.now(),
        "source_guild_id": guild.id,
        "serialized_source_guild": _snapshot(guild),
        "is_dirty": None,
    }
    _store(guild, code, d)
    world.places[code] = guild.number
    return d


def _template(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    code = request.match_info["code"]
    if "guild_id" in request.match_info:
        guild: Guild | None = guild_of(rest, request)
    else:
        number = rest.world.places.get(code)
        known = number is not None and rest.world.is_available(number)
        guild = rest.world.guild(number) if known and number is not None else None
    d = None if guild is None else _templates(guild).get(code)
    if guild is None or d is None:
        raise Refused("template")
    return guild, d


async def _get_template(rest: Rest, request: web.Request) -> Json:
    return _template(rest, request)[1]


async def _sync_template(rest: Rest, request: web.Request) -> Json:
    guild, old = _template(rest, request)
    d = {**old, "serialized_source_guild": _snapshot(guild), "updated_at": rest.world.now(), "is_dirty": None}
    _store(guild, d["code"], d)
    return d


async def _edit_template(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, old = _template(rest, request)
    keys: tuple[str, ...] = ("name", "description")
    d = {**old, **{key: body[key] for key in keys if key in body}}
    _store(guild, d["code"], d)
    return d


async def _delete_template(rest: Rest, request: web.Request) -> Json:
    guild, d = _template(rest, request)
    _store(guild, d["code"], None)
    rest.world.places.pop(d["code"], None)
    return d


_GUILD: Final = "/guilds/{guild_id}"
_TEMPLATE: Final = _GUILD + "/templates/{code}"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("GET", _GUILD + "/preview", _preview),
    ("GET", _GUILD + "/widget", _widget_settings),
    ("PATCH", _GUILD + "/widget", _edit_widget),
    ("GET", _GUILD + "/widget.json", _widget),
    ("GET", _GUILD + "/vanity-url", _vanity),
    ("GET", _GUILD + "/welcome-screen", _welcome),
    ("PATCH", _GUILD + "/welcome-screen", _edit_welcome),
    ("GET", _GUILD + "/onboarding", _onboarding),
    ("PUT", _GUILD + "/onboarding", _edit_onboarding),
    ("GET", _GUILD + "/integrations", _integrations),
    ("DELETE", _GUILD + "/integrations/{integration_id}", _delete_integration),
    ("GET", "/guilds/templates/{code}", _get_template),
    ("GET", _GUILD + "/templates", _guild_templates),
    ("POST", _GUILD + "/templates", _create_template),
    ("PUT", _TEMPLATE, _sync_template),
    ("PATCH", _TEMPLATE, _edit_template),
    ("DELETE", _TEMPLATE, _delete_template),
)
