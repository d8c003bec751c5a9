"""REST of channels and threads, of direct channels, and of a guild's list of channels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import CATEGORY, PRIVATE_THREAD, THREADED, THREADS
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    body_of,
    channel_of,
    guild_of,
    json_answer,
    object_of,
    wrong,
)
from rateway_simulator.rest.messages import checked
from rateway_simulator.world.changes import channels as world_channels
from rateway_simulator.world.changes import messages as world_messages
from rateway_simulator.world.changes import threads as world_threads
from rateway_simulator.world.guild import Guild

_FIELDS: Final = (
    "name",
    "type",
    "position",
    "topic",
    "nsfw",
    "rate_limit_per_user",
    "bitrate",
    "user_limit",
    "permission_overwrites",
    "parent_id",
    "rtc_region",
    "video_quality_mode",
    "default_auto_archive_duration",
    "flags",
    "available_tags",
    "default_reaction_emoji",
    "default_thread_rate_limit_per_user",
    "default_sort_order",
    "default_forum_layout",
)
_THREAD_FIELDS: Final = ("name", "rate_limit_per_user", "flags", "applied_tags")


def _object(guild: Guild | None, channel: Json) -> Json:
    return channel if guild is None else {**channel, "guild_id": guild.id}


def _named(body: Json) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise wrong("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    return name


def _fields(body: Json) -> Json:
    fields: Json = {key: body[key] for key in _FIELDS if key in body}
    if "name" in fields:
        _named(fields)
    if isinstance(fields.get("permission_overwrites"), list):
        fields["permission_overwrites"] = [
            payloads.overwrite(
                str(o["id"]), int(o["type"]), int(o.get("allow") or 0), int(o.get("deny") or 0)
            )
            for o in fields["permission_overwrites"]
        ]
    return fields


async def _get(rest: Rest, request: web.Request) -> Json:
    return _object(*channel_of(rest, request))


async def _edit(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    if guild is None:
        raise Refused("permissions")
    if channel["type"] not in THREADS:
        return _object(
            guild, world_channels.change_channel(rest.world, guild, channel["id"], **_fields(body))
        )
    fields: Json = {key: body[key] for key in _THREAD_FIELDS if key in body}
    metadata = dict(channel["thread_metadata"])
    for key in ("archived", "locked", "auto_archive_duration", "invitable"):
        if key in body:
            metadata[key] = body[key]
    if metadata != channel["thread_metadata"]:
        metadata["archive_timestamp"] = rest.world.now()
        fields["thread_metadata"] = metadata
    changed = world_threads.change_thread(rest.world, guild, channel["id"], **fields)
    assert changed is not None
    return changed


async def _delete(rest: Rest, request: web.Request) -> Json:
    guild, channel = channel_of(rest, request)
    if guild is None:
        return channel
    if channel["type"] in THREADS:
        world_threads.delete_thread(rest.world, guild, channel["id"])
    else:
        world_channels.delete_channel(rest.world, guild, channel["id"])
    return _object(guild, channel)


async def _list(rest: Rest, request: web.Request) -> list[Json]:
    guild = guild_of(rest, request)
    return [_object(guild, channel) for channel in guild.channels.values()]


async def _create(rest: Rest, request: web.Request) -> web.Response:
    body = await object_of(request)
    guild = guild_of(rest, request)
    name = _named(body)
    parent_id = body.get("parent_id")
    if parent_id is not None and guild.channels.get(str(parent_id), {}).get("type") != CATEGORY:
        raise wrong("parent_id", "CHANNEL_PARENT_INVALID", "Category does not exist")
    fields = {key: value for key, value in _fields(body).items() if key not in ("name", "type", "parent_id")}
    kind = int(body.get("type") or 0)
    parent = None if parent_id is None else str(parent_id)
    channel = world_channels.create_channel(rest.world, guild, kind, name, parent, **fields)
    return json_answer(_object(guild, channel), status=201)


async def _overwrite(rest: Rest, request: web.Request) -> None:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    if guild is None or channel["type"] in THREADS:
        raise Refused("permissions")
    target = request.match_info["overwrite_id"]
    others = [o for o in channel["permission_overwrites"] if o["id"] != target]
    if request.method == "PUT":
        allow, deny = int(body.get("allow") or 0), int(body.get("deny") or 0)
        others.append(payloads.overwrite(target, int(body.get("type", 0)), allow, deny))
    world_channels.change_channel(rest.world, guild, channel["id"], permission_overwrites=others)


async def _start_thread(rest: Rest, request: web.Request) -> web.Response:
    """A thread from a message, without one, or a forum's post."""
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    if guild is None or channel["type"] not in THREADED:
        raise Refused("not_text")
    message_id = request.match_info.get("message_id")
    if message_id is not None and message_id not in guild.messages.get(channel["id"], {}):
        raise Refused("message")
    content = checked(body.get("message") or {}).get("content", "")
    private = (
        message_id is None and body.get("type", PRIVATE_THREAD) == PRIVATE_THREAD and "message" not in body
    )
    thread = world_threads.create_thread(
        rest.world,
        guild,
        channel,
        rest.world.bot_id,
        _named(body),
        kind=PRIVATE_THREAD if private else None,
        content=content,
        message_id=message_id,
        applied_tags=body.get("applied_tags") or [],
    )
    return json_answer(thread, status=201)


def _joining(join: bool) -> Callable[[Rest, web.Request], Awaitable[None]]:
    async def answer(rest: Rest, request: web.Request) -> None:
        guild, channel = channel_of(rest, request)
        if guild is None or channel["type"] not in THREADS:
            raise Refused("channel")
        user_id = request.match_info["user_id"].replace("@me", rest.world.bot_id)
        change = world_threads.join_thread if join else world_threads.leave_thread
        change(rest.world, guild, channel["id"], user_id)

    return answer


async def _active_threads(rest: Rest, request: web.Request) -> Json:
    guild = guild_of(rest, request)
    threads = list(guild.threads.values())
    return {"threads": threads, "members": [d["member"] for d in threads if "member" in d]}


async def _move(rest: Rest, request: web.Request) -> None:
    """Change positions and parents; CHANNEL_UPDATE is sent for each channel that changes."""
    moves = await body_of(request)
    guild = guild_of(rest, request)
    if not isinstance(moves, list) or not all(isinstance(move, dict) for move in moves):
        raise wrong("_errors", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
    if any(str(move.get("id")) not in guild.channels for move in moves):
        raise Refused("channel")
    for move in moves:
        old = guild.channels[str(move["id"])]
        fields: Json = {}
        if move.get("position") is not None:
            fields["position"] = int(move["position"])
        if "parent_id" in move:
            parent_id = None if move["parent_id"] is None else str(move["parent_id"])
            if parent_id is not None and guild.channels.get(parent_id, {}).get("type") != CATEGORY:
                raise wrong("parent_id", "CHANNEL_PARENT_INVALID", "Category does not exist")
            fields["parent_id"] = parent_id
            if move.get("lock_permissions") and parent_id is not None:
                fields["permission_overwrites"] = guild.channels[parent_id]["permission_overwrites"]
        if any(old[key] != value for key, value in fields.items()):
            world_channels.change_channel(rest.world, guild, old["id"], **fields)


async def _open_direct(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    recipient = str(body.get("recipient_id", ""))
    channel = world_messages.open_direct(rest.world, recipient) if recipient.isdecimal() else None
    if channel is None:
        raise Refused("recipient")
    return channel


_ONE: Final = "/channels/{channel_id}"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("GET", _ONE, _get),
    ("PATCH", _ONE, _edit),
    ("DELETE", _ONE, _delete),
    ("PUT", _ONE + "/permissions/{overwrite_id}", _overwrite),
    ("DELETE", _ONE + "/permissions/{overwrite_id}", _overwrite),
    ("POST", _ONE + "/threads", _start_thread),
    ("POST", _ONE + "/messages/{message_id}/threads", _start_thread),
    ("PUT", _ONE + "/thread-members/{user_id}", _joining(True)),
    ("DELETE", _ONE + "/thread-members/{user_id}", _joining(False)),
    ("GET", "/guilds/{guild_id}/channels", _list),
    ("POST", "/guilds/{guild_id}/channels", _create),
    ("PATCH", "/guilds/{guild_id}/channels", _move),
    ("GET", "/guilds/{guild_id}/threads/active", _active_threads),
    ("POST", "/users/@me/channels", _open_direct),
)
