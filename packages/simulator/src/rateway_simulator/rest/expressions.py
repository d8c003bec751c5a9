"""REST of emojis, stickers and sounds: a guild's, the application's, and Discord's own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    guild_of,
    json_answer,
    object_of,
    picture,
    reason_of,
    wrong,
)
from rateway_simulator.world import expressions as world_expressions
from rateway_simulator.world import moderation as world_moderation
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.members import user_of

# Audit Log, Audit Log Events.
_EMOJI_CREATED, _EMOJI_UPDATED, _EMOJI_DELETED = 60, 61, 62
_NAME: Final = re.compile(r"\w{2,32}")
# Sounds that come with Discord have small numbers for ids.
_DEFAULT_SOUNDS: Final = (
    ("1", "quack", "🦆"),
    ("2", "airhorn", "🔊"),
    ("3", "cricket", "🦗"),
    ("4", "golf clap", "👏"),
)


def _audit(rest: Rest, request: web.Request, guild: Guild, action: int, emoji_id: str) -> None:
    bot_id = rest.world.bot_id
    world_moderation.audit(rest.world, guild, action, bot_id, emoji_id, [], **reason_of(request))


def _with_user(rest: Rest, emoji: Json) -> Json:
    """An emoji as REST has it: with who made it."""
    return {**emoji, "user": user_of(rest.world, rest.world.bot_id)}


def _named(body: Json) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong("name", "STRING_TYPE_REGEX", "String value did not match validation regex.")
    return name


def _roles(guild: Guild, body: Json) -> list[str]:
    roles = [str(role_id) for role_id in body.get("roles") or []]
    if any(role_id not in guild.roles for role_id in roles):
        raise Refused("role")
    return roles


def _emoji(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild = guild_of(rest, request)
    d = guild.emojis.get(request.match_info["emoji_id"])
    if d is None:
        raise Refused("emoji")
    return guild, d


async def _get_emoji(rest: Rest, request: web.Request) -> Json:
    return _with_user(rest, _emoji(rest, request)[1])


async def _create_emoji(rest: Rest, request: web.Request) -> web.Response:
    body = await object_of(request)
    guild = guild_of(rest, request)
    name = _named(body)
    image = body.get("image")
    if picture(image) is None:
        raise wrong("image", "BASE_TYPE_REQUIRED", "This field is required")
    emoji_id = rest.world.snowflake()
    animated = str(image).startswith("data:image/gif")
    d = payloads.emoji(emoji_id, name, animated=animated, roles=_roles(guild, body))
    world_expressions.set_emojis(rest.world, guild, {**guild.emojis, emoji_id: d})
    _audit(rest, request, guild, _EMOJI_CREATED, emoji_id)
    return json_answer(_with_user(rest, d), status=201)


async def _edit_emoji(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, old = _emoji(rest, request)
    fields: Json = {"name": _named(body)} if "name" in body else {}
    if "roles" in body:
        fields["roles"] = _roles(guild, body)
    d = {**old, **fields}
    world_expressions.set_emojis(rest.world, guild, {**guild.emojis, d["id"]: d})
    _audit(rest, request, guild, _EMOJI_UPDATED, d["id"])
    return _with_user(rest, d)


async def _delete_emoji(rest: Rest, request: web.Request) -> None:
    guild, old = _emoji(rest, request)
    left = {key: d for key, d in guild.emojis.items() if key != old["id"]}
    world_expressions.set_emojis(rest.world, guild, left)
    _audit(rest, request, guild, _EMOJI_DELETED, old["id"])


# The application's own emojis, which nobody is told of


def _own_emojis(rest: Rest, request: web.Request) -> dict[str, Json]:
    if request.match_info["application_id"] != rest.world.app.id:
        raise Refused("access")
    return rest.world.app.emojis


def _own_emoji(rest: Rest, request: web.Request) -> Json:
    d = _own_emojis(rest, request).get(request.match_info["emoji_id"])
    if d is None:
        raise Refused("emoji")
    return d


async def _list_own(rest: Rest, request: web.Request) -> Json:
    return {"items": [_with_user(rest, d) for d in _own_emojis(rest, request).values()]}


async def _get_own(rest: Rest, request: web.Request) -> Json:
    return _with_user(rest, _own_emoji(rest, request))


async def _create_own(rest: Rest, request: web.Request) -> web.Response:
    body = await object_of(request)
    emojis = _own_emojis(rest, request)
    name, image = _named(body), body.get("image")
    if picture(image) is None:
        raise wrong("image", "BASE_TYPE_REQUIRED", "This field is required")
    emoji_id = rest.world.snowflake()
    d = emojis[emoji_id] = payloads.emoji(emoji_id, name, animated=str(image).startswith("data:image/gif"))
    return json_answer(_with_user(rest, d), status=201)


async def _edit_own(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    old = _own_emoji(rest, request)
    d = rest.world.app.emojis[old["id"]] = {**old, "name": _named(body)}
    return _with_user(rest, d)


async def _delete_own(rest: Rest, request: web.Request) -> None:
    del rest.world.app.emojis[_own_emoji(rest, request)["id"]]


# Stickers


def _sticker(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild = guild_of(rest, request)
    d = guild.stickers.get(request.match_info["sticker_id"])
    if d is None:
        raise Refused("sticker")
    return guild, d


def _sticker_fields(body: Json) -> Json:
    fields = {key: body[key] for key in ("name", "description", "tags") if body.get(key) is not None}
    for key, least, most in (("name", 2, 30), ("tags", 1, 200)):
        if key in fields and not least <= len(str(fields[key])) <= most:
            raise wrong(key, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")
    return fields


async def _get_sticker(rest: Rest, request: web.Request) -> Json:
    return _with_user(rest, _sticker(rest, request)[1])


async def _create_sticker(rest: Rest, request: web.Request) -> web.Response:
    """A form with `name`, `tags`, `description` and a file."""
    body = await object_of(request)
    guild = guild_of(rest, request)
    fields = _sticker_fields(body)
    for key in ("name", "tags"):
        if key not in fields:
            raise wrong(key, "BASE_TYPE_REQUIRED", "This field is required")
    if not body.get("attachments"):
        raise wrong("file", "BASE_TYPE_REQUIRED", "This field is required")
    sticker_id = rest.world.snowflake()
    d = payloads.sticker(sticker_id, guild.id, fields["name"]) | {"description": None} | fields
    world_expressions.set_stickers(rest.world, guild, {**guild.stickers, sticker_id: d})
    return json_answer(_with_user(rest, d), status=201)


async def _edit_sticker(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, old = _sticker(rest, request)
    d = {**old, **_sticker_fields(body)}
    world_expressions.set_stickers(rest.world, guild, {**guild.stickers, d["id"]: d})
    return _with_user(rest, d)


async def _delete_sticker(rest: Rest, request: web.Request) -> None:
    guild, old = _sticker(rest, request)
    left = {key: d for key, d in guild.stickers.items() if key != old["id"]}
    world_expressions.set_stickers(rest.world, guild, left)


# Sounds


def _sound(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild = guild_of(rest, request)
    d = guild.sounds.get(request.match_info["sound_id"])
    if d is None:
        raise Refused("sound")
    return guild, d


def _sound_fields(body: Json) -> Json:
    fields: Json = {key: body[key] for key in ("emoji_id", "emoji_name") if key in body}
    if "name" in body:
        if not 2 <= len(str(body["name"])) <= 32:
            raise wrong("name", "BASE_TYPE_BAD_LENGTH", "Must be between 2 and 32 in length.")
        fields["name"] = str(body["name"])
    if body.get("volume") is not None:
        fields["volume"] = float(body["volume"])
    return fields


async def _get_sound(rest: Rest, request: web.Request) -> Json:
    return _with_user(rest, _sound(rest, request)[1])


async def _create_sound(rest: Rest, request: web.Request) -> web.Response:
    body = await object_of(request)
    guild = guild_of(rest, request)
    fields = _sound_fields(body)
    if "name" not in fields or not str(body.get("sound", "")).startswith("data:audio/"):
        raise wrong(
            "name" if "name" not in fields else "sound", "BASE_TYPE_REQUIRED", "This field is required"
        )
    sound_id = rest.world.snowflake()
    d = payloads.sound(sound_id, guild.id, fields["name"]) | {"emoji_name": None} | fields
    world_expressions.set_sound(rest.world, guild, sound_id, d)
    return json_answer(_with_user(rest, d), status=201)


async def _edit_sound(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, old = _sound(rest, request)
    d = {**old, **_sound_fields(body)}
    world_expressions.set_sound(rest.world, guild, d["sound_id"], d)
    return _with_user(rest, d)


async def _delete_sound(rest: Rest, request: web.Request) -> None:
    guild, old = _sound(rest, request)
    world_expressions.set_sound(rest.world, guild, old["sound_id"], None)


# What everybody has


def _sticker_pack() -> Json:
    sticker = {
        "id": "749054660769218631",
        "pack_id": "847199849233514549",
        "name": "Wave",
        "description": "Wumpus waves hello",
        "tags": "wumpus, hello, sup, hi, oi, heyo, heya, yo, greetings, greet, welcome, wave, :wave, :hello",
        "asset": "",
        "type": 1,
        "format_type": 3,
        "available": True,
        "sort_value": 12,
    }
    return {
        "id": "847199849233514549",
        "stickers": [sticker],
        "name": "Wumpus Beyond",
        "sku_id": "847199849233514547",
        "cover_sticker_id": sticker["id"],
        "description": "Say hello to Wumpus!",
        "banner_asset_id": "761773777976819732",
    }


async def _sticker_packs(rest: Rest, request: web.Request) -> Json:
    return {"sticker_packs": [_sticker_pack()]}


async def _default_sounds(rest: Rest, request: web.Request) -> list[Json]:
    return [
        {
            "name": name,
            "sound_id": sound_id,
            "volume": 1.0,
            "emoji_id": None,
            "emoji_name": emoji,
            "available": True,
        }
        for sound_id, name, emoji in _DEFAULT_SOUNDS
    ]


_EMOJIS: Final = "/guilds/{guild_id}/emojis"
_OWN_EMOJIS: Final = "/applications/{application_id}/emojis"
_STICKERS: Final = "/guilds/{guild_id}/stickers"
_SOUNDS: Final = "/guilds/{guild_id}/soundboard-sounds"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("POST", _EMOJIS, _create_emoji),
    ("GET", _EMOJIS + "/{emoji_id}", _get_emoji),
    ("PATCH", _EMOJIS + "/{emoji_id}", _edit_emoji),
    ("DELETE", _EMOJIS + "/{emoji_id}", _delete_emoji),
    ("GET", _OWN_EMOJIS, _list_own),
    ("POST", _OWN_EMOJIS, _create_own),
    ("GET", _OWN_EMOJIS + "/{emoji_id}", _get_own),
    ("PATCH", _OWN_EMOJIS + "/{emoji_id}", _edit_own),
    ("DELETE", _OWN_EMOJIS + "/{emoji_id}", _delete_own),
    ("POST", _STICKERS, _create_sticker),
    ("GET", _STICKERS + "/{sticker_id}", _get_sticker),
    ("PATCH", _STICKERS + "/{sticker_id}", _edit_sticker),
    ("DELETE", _STICKERS + "/{sticker_id}", _delete_sticker),
    ("POST", _SOUNDS, _create_sound),
    ("GET", _SOUNDS + "/{sound_id}", _get_sound),
    ("PATCH", _SOUNDS + "/{sound_id}", _edit_sound),
    ("DELETE", _SOUNDS + "/{sound_id}", _delete_sound),
    ("GET", "/sticker-packs", _sticker_packs),
    ("GET", "/soundboard-default-sounds", _default_sounds),
)
