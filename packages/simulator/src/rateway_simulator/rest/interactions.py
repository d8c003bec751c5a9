"""REST of interactions: the first answer, and what follows it through the interaction's webhook.

The rules that count here: one first answer, within 3 seconds; what follows, within 15 minutes (docs: Receiving
and Responding to Interactions).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import Refused, Rest, guild_with, object_of, wrong
from rateway_simulator.rest.messages import attachments, checked
from rateway_simulator.world.application import Asked
from rateway_simulator.world.changes import messages as world_messages
from rateway_simulator.world.changes.members import user_of
from rateway_simulator.world.guild import Guild

PATIENCE: Final = 3.0
LIFETIME: Final = 900.0
_PONG, _MESSAGE, _DEFERRED, _DEFERRED_UPDATE, _UPDATE, _CHOICES, _MODAL = 1, 4, 5, 6, 7, 8, 9


def _asked(rest: Rest, token: str) -> Asked:
    asked = rest.world.app.asked.get(token)
    if asked is None:
        raise Refused("interaction")
    return asked


def _guild(rest: Rest, asked: Asked) -> Guild | None:
    if asked.guild_id is None:
        return None
    if not rest.world.is_available(asked.guild_id):
        raise Refused("guild")
    return rest.world.guild(asked.guild_id)


def _write(rest: Rest, asked: Asked, body: Json, **more: Any) -> Json:
    """Post an answer; an ephemeral one is sent as a direct message without a guild, and is in no channel."""
    world = rest.world
    fields = checked(body)
    content = fields.pop("content", "")
    files = attachments(rest, asked.channel_id, body)
    if files:
        fields["attachments"] = files
    flags = int(fields.pop("flags", 0)) | int(more.pop("flags", 0))
    bot = user_of(world, world.bot_id)
    assert bot is not None
    fields |= {"application_id": world.app.id, "webhook_id": world.app.id, "flags": flags, **more}
    if flags & shapes.EPHEMERAL:
        d = shapes.message(world.snowflake(), asked.channel_id, bot, content, world.now(), **fields)
        world.emit("MESSAGE_CREATE", None, d, direct=True, revealed=True)
    else:
        d = world_messages.create_message(
            world, _guild(rest, asked), asked.channel_id, bot, content, **fields
        )
    asked.messages[d["id"]] = d
    return d


def _change(rest: Rest, asked: Asked, message_id: str, fields: Json) -> Json:
    """Edit an answer; raises Refused when it is none."""
    old = asked.messages.get(message_id)
    if old is None:
        raise Refused("message")
    world = rest.world
    if old["flags"] & shapes.EPHEMERAL:
        d = {**old, **fields}
        world.emit("MESSAGE_UPDATE", None, d, direct=True, revealed=True)
    else:
        changed = world_messages.edit_message(
            world, _guild(rest, asked), asked.channel_id, message_id, **fields
        )
        if changed is None:
            raise Refused("message")
        d = changed
    asked.messages[message_id] = d
    return d


def _object(d: Json) -> Json:
    return {key: value for key, value in d.items() if key not in ("guild_id", "member", "channel_type")}


# The first answer


async def _callback(rest: Rest, request: web.Request) -> Json | None:
    body = await object_of(request)
    asked = _asked(rest, request.match_info["token"])
    if request.match_info["interaction_id"] != asked.d["id"] or rest.world.wall - asked.wall > PATIENCE:
        raise Refused("interaction")
    if asked.answer:
        raise Refused("acknowledged")
    kind = body.get("type")
    data = body.get("data") or {}
    message = _first_answer(rest, asked, kind, data)
    if request.query.get("with_response", "").lower() not in ("true", "1"):
        return None
    source = asked.d
    interaction: Json = {"id": source["id"], "type": source["type"]}
    resource: Json = {"type": kind}
    if message is not None:
        flags = message["flags"]
        interaction |= {
            "response_message_id": message["id"],
            "response_message_loading": bool(flags & shapes.LOADING),
            "response_message_ephemeral": bool(flags & shapes.EPHEMERAL),
            "channel_id": asked.channel_id,
        }
        resource["message"] = _object(message)
    return {"interaction": interaction, "resource": resource}


def _first_answer(rest: Rest, asked: Asked, kind: object, data: Json) -> Json | None:
    marks = shapes.interaction_marks(asked.d)
    more: Json = {**marks, "type": shapes.COMMAND if asked.d["type"] == 2 else shapes.DEFAULT}
    message: Json | None = None
    if kind == _MESSAGE:
        if not any(data.get(key) for key in ("content", "embeds", "components", "attachments", "poll")):
            raise Refused("empty")
        asked.answer = "message"
        message = _write(rest, asked, data, **more)
    elif kind == _DEFERRED:
        asked.answer = "deferred"
        flags = shapes.LOADING | int(data.get("flags") or 0) & shapes.EPHEMERAL
        message = _write(rest, asked, {}, flags=flags, **more)
    elif kind in (_DEFERRED_UPDATE, _UPDATE):
        asked.answer = "update"
        source = asked.d.get("message")
        if source is not None:
            asked.messages[source["id"]] = source
            message = source
            if kind == _UPDATE:
                message = _change(rest, asked, source["id"], checked(data))
    elif kind in (_PONG, _CHOICES, _MODAL):
        asked.answer = "other"
    else:
        raise wrong("type", "BASE_TYPE_CHOICES", "Value must be one of {1, 4, 5, 6, 7, 8, 9, 12}.")
    if message is not None:
        asked.original = message["id"]
    asked.ephemeral = bool(message and message["flags"] & shapes.EPHEMERAL)
    return message


# What follows


def _following(rest: Rest, request: web.Request) -> Asked:
    if request.match_info["webhook_id"] != rest.world.app.id:
        raise Refused("webhook")
    asked = rest.world.app.asked.get(request.match_info["token"])
    if asked is None or rest.world.wall - asked.wall > LIFETIME:
        raise Refused("token")
    if not asked.answer:
        raise Refused("webhook")
    return asked


def _id_of(request: web.Request, asked: Asked) -> str:
    message_id = request.match_info["message_id"]
    if message_id == "@original":
        if asked.original is None:
            raise Refused("message")
        return asked.original
    return message_id


async def follow_up(rest: Rest, request: web.Request) -> Json:
    """Return a message after the first answer."""
    body = await object_of(request)
    asked = _following(rest, request)
    if asked.answer == "deferred" and asked.original is not None:
        # The first follow-up of a deferred answer becomes that answer.
        return _object(_settle(rest, asked, asked.original, body))
    more: Json = {**shapes.interaction_marks(asked.d), "type": shapes.DEFAULT}
    more.pop("interaction", None)
    if asked.original is not None and asked.original in asked.messages:
        more |= shapes.reply_to(asked.messages[asked.original], asked.d.get("guild_id"))
    return _object(_write(rest, asked, body, **more))


def _settle(rest: Rest, asked: Asked, message_id: str, body: Json) -> Json:
    """Change an answer by a body; one that was deferred is not loading any more."""
    fields = checked(body)
    files = attachments(rest, asked.channel_id, body)
    if files:
        fields["attachments"] = files
    old = asked.messages.get(message_id)
    if old is not None and old["flags"] & shapes.LOADING:
        fields["flags"] = old["flags"] & ~shapes.LOADING | int(fields.get("flags", 0))
        asked.answer = "message"
    else:
        fields["edited_timestamp"] = rest.world.now()
    return _change(rest, asked, message_id, fields)


async def get_answer(rest: Rest, request: web.Request) -> Json:
    """Return one of the messages that answer an interaction."""
    asked = _following(rest, request)
    message_id = _id_of(request, asked)
    if message_id not in asked.messages:
        raise Refused("message")
    return _object(asked.messages[message_id])


async def edit_answer(rest: Rest, request: web.Request) -> Json:
    """Change one of them."""
    body = await object_of(request)
    asked = _following(rest, request)
    return _object(_settle(rest, asked, _id_of(request, asked), body))


async def delete_answer(rest: Rest, request: web.Request) -> None:
    """Delete one of them."""
    asked = _following(rest, request)
    message_id = _id_of(request, asked)
    d = asked.messages.pop(message_id, None)
    if d is None:
        raise Refused("message")
    if d["flags"] & shapes.EPHEMERAL:
        rest.world.emit(
            "MESSAGE_DELETE", None, {"id": message_id, "channel_id": asked.channel_id}, direct=True
        )
    else:
        guild, _ = guild_with(rest, asked.channel_id)
        world_messages.delete_messages(rest.world, guild, asked.channel_id, [message_id])


ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("POST", "/interactions/{interaction_id}/{token}/callback", _callback),
)
