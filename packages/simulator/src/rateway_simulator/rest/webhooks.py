"""REST of webhooks: a channel's and a guild's, with and without their token, and what is written through them.

A webhook's id and token may be an interaction's: what follows an interaction's first answer goes through the
application as a webhook (`rest_interactions`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.channel_types import ANNOUNCEMENT, FORUM, MEDIA, TEXT, VOICE
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest import interactions as rest_interactions
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    channel_of,
    guild_of,
    object_of,
    picture,
    reason_of,
    wrong,
)
from rateway_simulator.rest.messages import checked, written
from rateway_simulator.world.changes import messages as world_messages
from rateway_simulator.world.changes import moderation as world_moderation
from rateway_simulator.world.changes import webhooks as world_webhooks
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.changes.threads import create_thread
from rateway_simulator.world.guild import Guild, Message

Handler = Callable[[Rest, web.Request], Awaitable[object]]

# Channels that can have webhooks, and how many (docs: JSON Error Codes, 30007).
_HOOKED: Final = frozenset({TEXT, VOICE, ANNOUNCEMENT, FORUM, MEDIA})
_MOST: Final = 15
# Audit Log, Audit Log Events.
_CREATED, _UPDATED, _DELETED = 50, 51, 52


def _named(body: Json) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 80:
        raise wrong("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 80 in length.")
    if any(taken in name.casefold() for taken in ("clyde", "discord")):
        raise wrong("name", "WEBHOOK_NAME_RESTRICTED", "Webhook name contains restricted words.")
    return name


async def _create(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    if guild is None or channel["type"] not in _HOOKED:
        raise Refused("channel_type")
    if len(_in_channel(guild, channel["id"])) >= _MOST:
        raise Refused("webhooks")
    d = world_webhooks.create_webhook(
        rest.world,
        guild,
        channel["id"],
        _named(body),
        avatar=picture(body.get("avatar")),
        application_id=rest.world.app.id,
        user=user_of(rest.world, rest.world.bot_id),
    )
    _audit(rest, request, guild, _CREATED, d)
    return d


def _audit(rest: Rest, request: web.Request, guild: Guild, action: int, d: Json) -> None:
    changes = [{"key": key, "new_value": d[key]} for key in ("name", "type", "channel_id")]
    world_moderation.audit(
        rest.world,
        guild,
        action,
        rest.world.bot_id,
        d["id"],
        changes if action != _DELETED else [],
        **reason_of(request),
    )


def _in_channel(guild: Guild, channel_id: str) -> list[Json]:
    return [d for d in guild.webhooks.values() if d["channel_id"] == channel_id]


def _seen(rest: Rest, d: Json) -> Json:
    """Return a webhook as the bot sees it: with the token of those that it made alone."""
    hidden = ("token",) if d["application_id"] != rest.world.app.id or d["type"] != 1 else ()
    return {key: value for key, value in d.items() if key not in hidden}


async def _of_channel(rest: Rest, request: web.Request) -> list[Json]:
    guild, channel = channel_of(rest, request)
    return [] if guild is None else [_seen(rest, d) for d in _in_channel(guild, channel["id"])]


async def _of_guild(rest: Rest, request: web.Request) -> list[Json]:
    return [_seen(rest, d) for d in guild_of(rest, request).webhooks.values()]


def _found(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    """Return the webhook of the path; with a token there, it must be the right one."""
    found = world_webhooks.find_webhook(rest.world, request.match_info["webhook_id"])
    if found is None:
        raise Refused("webhook")
    token = request.match_info.get("token")
    if token is not None and token != found[1]["token"]:
        raise Refused("token")
    return found


def _anonymous(request: web.Request, d: Json) -> Json:
    """With the token in the path there is no `user`."""
    hidden = ("user",) if "token" in request.match_info else ()
    return {key: value for key, value in d.items() if key not in hidden}


async def _get(rest: Rest, request: web.Request) -> Json:
    _, d = _found(rest, request)
    return _anonymous(request, d if "token" in request.match_info else _seen(rest, d))


async def _edit(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, d = _found(rest, request)
    fields: Json = {}
    if "name" in body:
        fields["name"] = _named(body)
    if "avatar" in body:
        fields["avatar"] = picture(body["avatar"])
    if body.get("channel_id") is not None and "token" not in request.match_info:
        channel = guild.channels.get(str(body["channel_id"]))
        if channel is None or channel["type"] not in _HOOKED:
            raise Refused("channel")
        fields["channel_id"] = channel["id"]
    d = world_webhooks.change_webhook(rest.world, guild, d["id"], **fields)
    _audit(rest, request, guild, _UPDATED, d)
    return _anonymous(request, d)


async def _delete(rest: Rest, request: web.Request) -> None:
    guild, d = _found(rest, request)
    world_webhooks.delete_webhook(rest.world, guild, d["id"])
    _audit(rest, request, guild, _DELETED, d)


# Writing through a webhook


def _place(rest: Rest, request: web.Request, guild: Guild, webhook: Json, body: Json) -> Json:
    """Return the destination of a webhook's message: its channel, a thread of it, or a new post of a forum."""
    channel = guild.channels[webhook["channel_id"]]
    thread_id = request.query.get("thread_id")
    if thread_id is not None:
        thread = guild.threads.get(thread_id)
        if thread is None or thread["parent_id"] != channel["id"]:
            raise Refused("channel")
        return thread
    if channel["type"] in (FORUM, MEDIA):
        if not body.get("thread_name"):
            raise Refused("forum_webhook")
        name = str(body["thread_name"])[:100]
        return create_thread(rest.world, guild, channel, rest.world.bot_id, name, content=name)
    return channel


async def _execute(rest: Rest, request: web.Request) -> Json | None:
    body = await object_of(request)
    guild, webhook = _found(rest, request)
    channel = _place(rest, request, guild, webhook, body)
    author = shapes.webhook_author(webhook, 0) | {
        "username": str(body.get("username") or webhook["name"])[:80],
        "avatar": webhook["avatar"],
    }
    more: Json = {"webhook_id": webhook["id"]}
    if webhook["application_id"] is not None:
        more["application_id"] = webhook["application_id"]
    d = written(rest, guild, channel, author, body, **more)
    return _object(d) if request.query.get("wait", "").lower() in ("true", "1") else None


def _object(d: Json) -> Json:
    return {key: value for key, value in d.items() if key not in ("guild_id", "member", "channel_type")}


def _message(rest: Rest, request: web.Request) -> tuple[Guild, str, Message]:
    guild, webhook = _found(rest, request)
    place = request.query.get("thread_id") or webhook["channel_id"]
    message = guild.messages.get(place, {}).get(request.match_info["message_id"])
    if message is None or message.author_id != webhook["id"]:
        raise Refused("message")
    return guild, place, message


async def _get_message(rest: Rest, request: web.Request) -> Json:
    return _object(_message(rest, request)[2].d)


async def _edit_message(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, place, message = _message(rest, request)
    fields = checked(body) | {"edited_timestamp": rest.world.now()}
    d = world_messages.edit_message(rest.world, guild, place, message.d["id"], **fields)
    assert d is not None
    return _object(d)


async def _delete_message(rest: Rest, request: web.Request) -> None:
    guild, place, message = _message(rest, request)
    world_messages.delete_messages(rest.world, guild, place, [message.d["id"]])


# Announcements


async def _follow(rest: Rest, request: web.Request) -> Json:
    """Messages that are published in an announcement channel come into another one by a webhook."""
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    target_id = str(body.get("webhook_channel_id", ""))
    target = rest.world.guild_with_channel(target_id) if target_id.isdecimal() else None
    if guild is None or channel["type"] != ANNOUNCEMENT:
        raise Refused("channel_type")
    if target is None or target_id not in target.channels:
        raise Refused("channel")
    d = world_webhooks.create_webhook(
        rest.world,
        target,
        target_id,
        f"{guild.fields['name']} #{channel['name']}"[:80],
        type=world_webhooks.FOLLOWER,
        user=user_of(rest.world, rest.world.bot_id),
        source_guild={key: guild.fields[key] for key in ("id", "name", "icon")},
        source_channel={key: channel[key] for key in ("id", "name")},
    )
    return {"channel_id": channel["id"], "webhook_id": d["id"]}


async def _publish(rest: Rest, request: web.Request) -> Json:
    """Crosspost: set the message's flag. Following channels would get a copy; none follows here."""
    guild, channel = channel_of(rest, request)
    message = world_messages.kept(rest.world, guild, channel["id"]).get(request.match_info["message_id"])
    if guild is None or channel["type"] != ANNOUNCEMENT:
        raise Refused("channel_type")
    if message is None:
        raise Refused("message")
    flags = message.d["flags"]
    if flags & shapes.CROSSPOSTED:
        raise Refused("crossposted")
    d = world_messages.edit_message(
        rest.world, guild, channel["id"], message.d["id"], flags=flags | shapes.CROSSPOSTED
    )
    assert d is not None
    return _object(d)


def _either(own: Handler, of_interaction: Handler) -> Handler:
    """The handler of a webhook of the world, or of the application's as the webhook of an interaction."""

    async def answer(rest: Rest, request: web.Request) -> object:
        interaction = request.match_info["webhook_id"] == rest.world.app.id
        return await (of_interaction if interaction else own)(rest, request)

    return answer


_HOOK: Final = "/webhooks/{webhook_id}"
_WITH_TOKEN: Final = _HOOK + "/{token}"
_MESSAGE: Final = _WITH_TOKEN + "/messages/{message_id}"

ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("POST", "/channels/{channel_id}/webhooks", _create),
    ("GET", "/channels/{channel_id}/webhooks", _of_channel),
    ("GET", "/guilds/{guild_id}/webhooks", _of_guild),
    *(
        (method, path, handler)
        for path in (_HOOK, _WITH_TOKEN)
        for method, handler in (("GET", _get), ("PATCH", _edit), ("DELETE", _delete))
    ),
    ("POST", _WITH_TOKEN, _either(_execute, rest_interactions.follow_up)),
    ("GET", _MESSAGE, _either(_get_message, rest_interactions.get_answer)),
    ("PATCH", _MESSAGE, _either(_edit_message, rest_interactions.edit_answer)),
    ("DELETE", _MESSAGE, _either(_delete_message, rest_interactions.delete_answer)),
    ("POST", "/channels/{channel_id}/followers", _follow),
    ("POST", "/channels/{channel_id}/messages/{message_id}/crosspost", _publish),
)
