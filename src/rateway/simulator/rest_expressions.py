"""REST of emojis and stickers, of a guild and of Discord, and of the sounds that everybody has."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from rateway.simulator import payloads, world_expressions, world_moderation
from rateway.simulator.rest_answers import (
    Refused,
    Rest,
    guild_of,
    json_answer,
    object_of,
    picture,
    reason_of,
    wrong,
)
from rateway.simulator.world_dispatch import Json
from rateway.simulator.world_guild import Guild
from rateway.simulator.world_members import user_of

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

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("POST", _EMOJIS, _create_emoji),
    ("GET", _EMOJIS + "/{emoji_id}", _get_emoji),
    ("PATCH", _EMOJIS + "/{emoji_id}", _edit_emoji),
    ("DELETE", _EMOJIS + "/{emoji_id}", _delete_emoji),
    ("GET", "/sticker-packs", _sticker_packs),
    ("GET", "/soundboard-default-sounds", _default_sounds),
)
