"""REST of emojis, stickers and sounds: a guild's, the application's, and Discord's own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

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
from rateway_simulator.world.application import Application
from rateway_simulator.world.changes import expressions as world_expressions
from rateway_simulator.world.changes import moderation as world_moderation
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.guild import Guild

Handler: TypeAlias = Callable[[Rest, web.Request], Awaitable[object]]

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


Owner = TypeVar("Owner", Guild, Application)


@dataclass(frozen=True, slots=True)
class _Kind(Generic[Owner]):
    """A kind of expressions: emojis, stickers or sounds, of a guild or of the application."""

    path: str
    name: str
    """Discord's word for one, in an error."""
    parameter: str
    """The id's name in the path."""
    owner: Callable[[Rest, web.Request], Owner]
    """Finds the owner that a path names; raises Refused."""
    items: Callable[[Owner], dict[str, Json]]
    make: Callable[[Owner, str, Json], Json]
    """Makes one from its id and a request's body; raises Refused."""
    fields: Callable[[Owner, Json], Json]
    """The fields that a request's body changes; raises Refused."""
    put: Callable[[Rest, Owner, str, Json | None], None]
    """Stores one under its id, or (None) deletes it, and sends the events of that."""
    audited: tuple[int, int, int] | None = None
    """Actions of the audit log: created, updated, deleted."""

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """Yield method, path and handler."""
        one = f"{self.path}/{{{self.parameter}}}"
        yield "POST", self.path, self._create
        yield "GET", one, self._get
        yield "PATCH", one, self._edit
        yield "DELETE", one, self._delete

    def _found(self, rest: Rest, request: web.Request) -> tuple[Owner, str, Json]:
        owner, item_id = self.owner(rest, request), request.match_info[self.parameter]
        d = self.items(owner).get(item_id)
        if d is None:
            raise Refused(self.name)
        return owner, item_id, d

    async def _get(self, rest: Rest, request: web.Request) -> Json:
        return _with_user(rest, self._found(rest, request)[2])

    async def _create(self, rest: Rest, request: web.Request) -> web.Response:
        body = await object_of(request)
        owner = self.owner(rest, request)
        item_id = rest.world.snowflake()
        d = self.make(owner, item_id, body)
        self.put(rest, owner, item_id, d)
        self._audit(rest, request, owner, 0, item_id)
        return json_answer(_with_user(rest, d), status=201)

    async def _edit(self, rest: Rest, request: web.Request) -> Json:
        body = await object_of(request)
        owner, item_id, old = self._found(rest, request)
        d = {**old, **self.fields(owner, body)}
        self.put(rest, owner, item_id, d)
        self._audit(rest, request, owner, 1, item_id)
        return _with_user(rest, d)

    async def _delete(self, rest: Rest, request: web.Request) -> None:
        owner, item_id, _ = self._found(rest, request)
        self.put(rest, owner, item_id, None)
        self._audit(rest, request, owner, 2, item_id)

    def _audit(self, rest: Rest, request: web.Request, owner: Owner, step: int, item_id: str) -> None:
        if self.audited is not None and isinstance(owner, Guild):
            action, bot_id = self.audited[step], rest.world.bot_id
            world_moderation.audit(rest.world, owner, action, bot_id, item_id, [], **reason_of(request))


def _with_user(rest: Rest, item: Json) -> Json:
    """Return an expression as REST has it: with the user that made it."""
    return {**item, "user": user_of(rest.world, rest.world.bot_id)}


def _with(items: dict[str, Json], item_id: str, d: Json | None) -> dict[str, Json]:
    left = {key: value for key, value in items.items() if d is not None or key != item_id}
    return left if d is None else {**left, item_id: d}


def _required(field: str) -> Refused:
    return wrong(field, "BASE_TYPE_REQUIRED", "This field is required")


# Emojis


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


def _emoji(owner: Guild | Application, emoji_id: str, body: Json) -> Json:
    name, image = _named(body), body.get("image")
    if picture(image) is None:
        raise _required("image")
    roles = _roles(owner, body) if isinstance(owner, Guild) else []
    return payloads.emoji(emoji_id, name, animated=str(image).startswith("data:image/gif"), roles=roles)


def _emoji_fields(guild: Guild, body: Json) -> Json:
    fields: Json = {"name": _named(body)} if "name" in body else {}
    return fields | ({"roles": _roles(guild, body)} if "roles" in body else {})


def _put_emoji(rest: Rest, guild: Guild, emoji_id: str, d: Json | None) -> None:
    world_expressions.set_emojis(rest.world, guild, _with(guild.emojis, emoji_id, d))


# The application's own emojis, of which there are no events


def _application(rest: Rest, request: web.Request) -> Application:
    if request.match_info["application_id"] != rest.world.app.id:
        raise Refused("access")
    return rest.world.app


def _put_own_emoji(rest: Rest, application: Application, emoji_id: str, d: Json | None) -> None:
    application.emojis = _with(application.emojis, emoji_id, d)


async def _list_own(rest: Rest, request: web.Request) -> Json:
    return {"items": [_with_user(rest, d) for d in _application(rest, request).emojis.values()]}


# Stickers


def _sticker_fields(guild: Guild, body: Json) -> Json:
    fields = {key: body[key] for key in ("name", "description", "tags") if body.get(key) is not None}
    for key, least, most in (("name", 2, 30), ("tags", 1, 200)):
        if key in fields and not least <= len(str(fields[key])) <= most:
            raise wrong(key, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")
    return fields


def _sticker(guild: Guild, sticker_id: str, body: Json) -> Json:
    """Make a sticker from a form with `name`, `tags`, `description` and a file."""
    fields = _sticker_fields(guild, body)
    for key in ("name", "tags"):
        if key not in fields:
            raise _required(key)
    if not body.get("attachments"):
        raise _required("file")
    return payloads.sticker(sticker_id, guild.id, fields["name"]) | {"description": None} | fields


def _put_sticker(rest: Rest, guild: Guild, sticker_id: str, d: Json | None) -> None:
    world_expressions.set_stickers(rest.world, guild, _with(guild.stickers, sticker_id, d))


# Sounds


def _sound_fields(guild: Guild, body: Json) -> Json:
    fields: Json = {key: body[key] for key in ("emoji_id", "emoji_name") if key in body}
    if "name" in body:
        if not 2 <= len(str(body["name"])) <= 32:
            raise wrong("name", "BASE_TYPE_BAD_LENGTH", "Must be between 2 and 32 in length.")
        fields["name"] = str(body["name"])
    if body.get("volume") is not None:
        fields["volume"] = float(body["volume"])
    return fields


def _sound(guild: Guild, sound_id: str, body: Json) -> Json:
    fields = _sound_fields(guild, body)
    if "name" not in fields or not str(body.get("sound", "")).startswith("data:audio/"):
        raise _required("name" if "name" not in fields else "sound")
    return payloads.sound(sound_id, guild.id, fields["name"]) | {"emoji_name": None} | fields


def _put_sound(rest: Rest, guild: Guild, sound_id: str, d: Json | None) -> None:
    world_expressions.set_sound(rest.world, guild, sound_id, d)


# Discord's own


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


_OWN_EMOJIS: Final = "/applications/{application_id}/emojis"
_EMOJIS: Final = _Kind(
    "/guilds/{guild_id}/emojis", "emoji", "emoji_id", guild_of, lambda guild: guild.emojis,
    _emoji, _emoji_fields, _put_emoji, (_EMOJI_CREATED, _EMOJI_UPDATED, _EMOJI_DELETED),
)  # fmt: skip
_APPLICATION_EMOJIS: Final = _Kind(
    _OWN_EMOJIS, "emoji", "emoji_id", _application, lambda application: application.emojis,
    _emoji, lambda application, body: {"name": _named(body)}, _put_own_emoji,
)  # fmt: skip
_STICKERS: Final = _Kind(
    "/guilds/{guild_id}/stickers", "sticker", "sticker_id", guild_of, lambda guild: guild.stickers,
    _sticker, _sticker_fields, _put_sticker,
)  # fmt: skip
_SOUNDS: Final = _Kind(
    "/guilds/{guild_id}/soundboard-sounds", "sound", "sound_id", guild_of, lambda guild: guild.sounds,
    _sound, _sound_fields, _put_sound,
)  # fmt: skip

ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    *_EMOJIS.routes(),
    ("GET", _OWN_EMOJIS, _list_own),
    *_APPLICATION_EMOJIS.routes(),
    *_STICKERS.routes(),
    *_SOUNDS.routes(),
    ("GET", "/sticker-packs", _sticker_packs),
    ("GET", "/soundboard-default-sounds", _default_sounds),
)
