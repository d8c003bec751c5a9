"""REST of messages: list, get, send, edit, delete, reactions, pins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.channel_types import THREADS, WRITABLE
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    body_of,
    channel_of,
    guild_with,
    object_of,
    whole,
    wrong,
)
from rateway_simulator.world.changes import messages as world_messages
from rateway_simulator.world.changes import reactions as world_reactions
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.guild import Guild, Message

# Limits of a message (docs: Message, Create Message).
CONTENT: Final = 2000
EMBEDS: Final = 10
# A message without content needs one of these.
_SAYING: Final = ("embeds", "components", "attachments", "poll", "sticker_items")
# Message, Message Reference Types.
FORWARD: Final = 1
# Bulk deletion takes 2 to 100 ids.
BULK: Final = 100


def checked(body: Json) -> Json:
    """Return the fields of a message's body that are stored, each checked; raises Refused."""
    content = body.get("content")
    if content is not None and not isinstance(content, str):
        raise wrong("content", "STRING_TYPE_CONVERT", "Could not interpret value as string.")
    if content is not None and len(content) > CONTENT:
        raise wrong("content", "BASE_TYPE_MAX_LENGTH", f"Must be {CONTENT} or fewer in length.")
    embeds = body.get("embeds") or ([body["embed"]] if body.get("embed") else [])
    if len(embeds) > EMBEDS:
        raise wrong("embeds", "BASE_TYPE_MAX_LENGTH", f"Must be {EMBEDS} or fewer in length.")
    fields: Json = {}
    if "embeds" in body or "embed" in body:
        fields["embeds"] = [{"type": "rich", **embed} for embed in embeds]
    for key in ("components", "flags", "tts", "nonce"):
        if body.get(key) is not None:
            fields[key] = body[key]
    if content is not None:
        fields["content"] = content
    return fields


def attachments(rest: Rest, channel_id: str, body: Json) -> list[Json]:
    """Return the files of a body as a message's attachments."""
    found = []
    for place, sent in enumerate(body.get("attachments") or []):
        d = shapes.attachment(rest.world.snowflake(), channel_id, place)
        name = str(sent.get("filename", d["filename"]))
        url = d["url"].replace(d["filename"], name)
        kept = {"filename": name, "size": sent.get("size", 0), "url": url, "proxy_url": url}
        found.append(d | kept)
    return found


def written(rest: Rest, guild: Guild | None, channel: Json, author: Json, body: Json, **more: Any) -> Json:
    """Post a message from a REST body; gives the message object."""
    world = rest.world
    fields = checked(body)
    files = attachments(rest, channel["id"], body)
    if files:
        fields["attachments"] = files
    content = fields.pop("content", "")
    if body.get("poll") is not None:
        poll = {key: value for key, value in body["poll"].items() if key != "duration"}
        fields["poll"] = {**shapes.poll(0, world.wall), **poll}
        for number, answer in enumerate(fields["poll"]["answers"], 1):
            answer.setdefault("answer_id", number)
    if body.get("sticker_ids") and guild is not None:
        stickers = [guild.stickers[key] for key in map(str, body["sticker_ids"]) if key in guild.stickers]
        fields["sticker_items"] = [{key: s[key] for key in ("id", "name", "format_type")} for s in stickers]
    reference = body.get("message_reference")
    if reference is not None and not isinstance(reference, dict):
        raise wrong("message_reference", "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
    forwards = reference is not None and reference.get("type") == FORWARD
    if not content and not forwards and not any(fields.get(key) for key in _SAYING):
        raise Refused("empty")
    if reference is not None:
        more |= _reference(rest, guild, channel, reference)
    if "flags" in more:
        fields["flags"] = int(fields.get("flags", 0)) | more.pop("flags")
    return world_messages.create_message(world, guild, channel["id"], author, content, **fields, **more)


def _reference(rest: Rest, guild: Guild | None, channel: Json, reference: Json) -> Json:
    """Return the fields of an answer (`type` 0) or a forward (`type` 1, whose message may be anywhere)."""
    place = str(reference.get("channel_id") or channel["id"])
    source = guild
    if place != channel["id"]:
        source, _ = guild_with(rest, place)
    message = world_messages.kept(rest.world, source, place).get(str(reference.get("message_id")))
    guild_id = None if source is None else source.id
    if message is None:
        if reference.get("fail_if_not_exists", True) or reference.get("type") == FORWARD:
            raise wrong("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
        return {}
    if reference.get("type") == FORWARD:
        return shapes.forward_of(message.d, guild_id)
    return shapes.reply_to(message.d, guild_id)


def _object(d: Json) -> Json:
    """A message as REST has it: without what only the gateway adds."""
    return {key: value for key, value in d.items() if key not in ("guild_id", "member", "channel_type")}


def _message(rest: Rest, request: web.Request, guild: Guild | None, channel: Json) -> Message:
    message = world_messages.kept(rest.world, guild, channel["id"]).get(request.match_info["message_id"])
    if message is None:
        raise Refused("message")
    return message


async def _list(rest: Rest, request: web.Request) -> list[Json]:
    guild, channel = channel_of(rest, request)
    limit = whole(request, "limit", 50, 100)
    messages = sorted(
        world_messages.kept(rest.world, guild, channel["id"]).items(), key=lambda item: -int(item[0])
    )
    query = request.query
    if "before" in query:
        messages = [item for item in messages if int(item[0]) < int(query["before"])]
    if "after" in query:
        messages = [item for item in messages if int(item[0]) > int(query["after"])][-limit:]
    if "around" in query:
        newer = sum(int(item[0]) > int(query["around"]) for item in messages)
        messages = messages[max(0, newer - limit // 2) :]
    return [_object(message.d) for _, message in messages[:limit]]


async def _get(rest: Rest, request: web.Request) -> Json:
    guild, channel = channel_of(rest, request)
    return _object(_message(rest, request, guild, channel).d)


async def _send(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    if guild is not None and channel["type"] not in WRITABLE | THREADS:
        raise Refused("not_text")
    if guild is not None and channel["id"] in guild.archived:
        raise Refused("archived")
    bot = user_of(rest.world, rest.world.bot_id)
    assert bot is not None
    return _object(written(rest, guild, channel, bot, body))


async def _edit(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    message = _message(rest, request, guild, channel)
    if message.author_id != rest.world.bot_id and set(body) - {"flags"}:
        raise Refused("author")
    fields = checked(body)
    if set(fields) - {"flags"}:
        fields["edited_timestamp"] = rest.world.now()
    if "attachments" in body and any("filename" in sent for sent in body["attachments"]):
        fields["attachments"] = attachments(rest, channel["id"], body)
    d = world_messages.edit_message(
        rest.world, guild, channel["id"], request.match_info["message_id"], **fields
    )
    assert d is not None
    return _object(d)


async def _delete(rest: Rest, request: web.Request) -> None:
    guild, channel = channel_of(rest, request)
    _message(rest, request, guild, channel)
    world_messages.delete_messages(rest.world, guild, channel["id"], [request.match_info["message_id"]])


async def _bulk_delete(rest: Rest, request: web.Request) -> None:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    ids = [str(item) for item in body.get("messages") or []]
    if not 2 <= len(ids) <= BULK:
        raise wrong("messages", "BASE_TYPE_BAD_LENGTH", f"Must be between 2 and {BULK} in length.")
    world_messages.delete_messages(rest.world, guild, channel["id"], ids, bulk=True)


def _emoji(guild: Guild | None, text: str) -> Json:
    name, _, emoji_id = text.rpartition(":")
    if not name:
        return {"id": None, "name": text, "animated": False}
    if not emoji_id.isdecimal():
        raise Refused("emoji")
    own = None if guild is None else guild.emojis.get(emoji_id)
    return {"id": emoji_id, "name": name.removeprefix("a:"), "animated": bool(own and own["animated"])}


async def _react(rest: Rest, request: web.Request) -> None:
    guild, channel = channel_of(rest, request)
    _message(rest, request, guild, channel)
    emoji = _emoji(guild, request.match_info["emoji"])
    world_reactions.react(
        rest.world, guild, channel["id"], request.match_info["message_id"], emoji, rest.world.bot_id
    )


async def _unreact(rest: Rest, request: web.Request) -> None:
    guild, channel = channel_of(rest, request)
    _message(rest, request, guild, channel)
    user_id = request.match_info.get("user_id", rest.world.bot_id)
    emoji = _emoji(guild, request.match_info["emoji"])
    world_reactions.unreact(
        rest.world, guild, channel["id"], request.match_info["message_id"], emoji, user_id
    )


async def _reactors(rest: Rest, request: web.Request) -> list[Json]:
    guild, channel = channel_of(rest, request)
    message = _message(rest, request, guild, channel)
    key = shapes.emoji_key(_emoji(guild, request.match_info["emoji"]))
    people = message.reactors.get(key, [])[: whole(request, "limit", 25, 100)]
    return [user for user in (user_of(rest.world, user_id) for user_id in people) if user is not None]


async def _clear(rest: Rest, request: web.Request) -> None:
    guild, channel = channel_of(rest, request)
    _message(rest, request, guild, channel)
    text = request.match_info.get("emoji")
    emoji = None if text is None else _emoji(guild, text)
    world_reactions.clear_reactions(rest.world, guild, channel["id"], request.match_info["message_id"], emoji)


def _pinning(pinned: bool) -> Callable[[Rest, web.Request], Awaitable[None]]:
    async def answer(rest: Rest, request: web.Request) -> None:
        guild, channel = channel_of(rest, request)
        _message(rest, request, guild, channel)
        world_messages.pin(rest.world, guild, channel["id"], request.match_info["message_id"], pinned=pinned)

    return answer


async def _pins(rest: Rest, request: web.Request) -> list[Json]:
    guild, channel = channel_of(rest, request)
    messages = world_messages.kept(rest.world, guild, channel["id"]).values()
    return [d for d in (_object(message.d) for message in messages) if d["pinned"]]


async def _dated_pins(rest: Rest, request: web.Request) -> Json:
    """Return the newer list of pins, with the time of each (the message's own, as that of the pinning is not kept)."""
    pinned = await _pins(rest, request)
    return {"items": [{"pinned_at": d["timestamp"], "message": d} for d in pinned], "has_more": False}


async def _typing(rest: Rest, request: web.Request) -> None:
    await body_of(request)
    guild, channel = channel_of(rest, request)
    world_messages.typing(rest.world, guild, channel["id"], rest.world.bot_id)


_ALL: Final = "/channels/{channel_id}/messages"
_ONE: Final = _ALL + "/{message_id}"
_WITH: Final = _ONE + "/reactions/{emoji}"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("GET", _ALL, _list),
    ("POST", _ALL, _send),
    ("POST", _ALL + "/bulk-delete", _bulk_delete),
    ("GET", _ALL + "/pins", _dated_pins),
    ("PUT", _ALL + "/pins/{message_id}", _pinning(True)),
    ("DELETE", _ALL + "/pins/{message_id}", _pinning(False)),
    ("GET", _ONE, _get),
    ("PATCH", _ONE, _edit),
    ("DELETE", _ONE, _delete),
    ("DELETE", _ONE + "/reactions", _clear),
    ("GET", _WITH, _reactors),
    ("DELETE", _WITH, _clear),
    ("PUT", _WITH + "/@me", _react),
    ("DELETE", _WITH + "/@me", _unreact),
    ("DELETE", _WITH + "/{user_id}", _unreact),
    ("GET", "/channels/{channel_id}/pins", _pins),
    ("PUT", "/channels/{channel_id}/pins/{message_id}", _pinning(True)),
    ("DELETE", "/channels/{channel_id}/pins/{message_id}", _pinning(False)),
    ("POST", "/channels/{channel_id}/typing", _typing),
)
