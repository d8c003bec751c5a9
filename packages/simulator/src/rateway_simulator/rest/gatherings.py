"""REST of what people gather for: scheduled events, stages, voice, polls, and threads' people and archives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.channel_types import PRIVATE_THREAD, STAGE, THREADS, VOICE
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import (
    Refused,
    Rest,
    channel_of,
    guild_of,
    guild_with,
    object_of,
    picture,
    whole,
    wrong,
)
from rateway_simulator.world.changes import expressions as world_expressions
from rateway_simulator.world.changes import messages as world_messages
from rateway_simulator.world.changes import voice as world_voice
from rateway_simulator.world.changes.members import member_of, user_of
from rateway_simulator.world.guild import Guild, Message

Handler = Callable[[Rest, web.Request], Awaitable[object]]

# Scheduled events: types of their place (stage, voice, elsewhere), and what each needs of the channel's type.
_STAGE_EVENT, _VOICE_EVENT, _ELSEWHERE = 1, 2, 3
_EVENT_FIELDS: Final[tuple[str, ...]] = (
    "name",
    "description",
    "scheduled_start_time",
    "scheduled_end_time",
    "privacy_level",
    "entity_type",
    "entity_metadata",
    "status",
    "recurrence_rule",
)
# From which status an event may go to which (docs: Guild Scheduled Event, Status).
_NEXT: Final = {1: (1, 2, 4), 2: (2, 3)}


def _required(body: Json, *names: str) -> None:
    for name in names:
        if not body.get(name):
            raise wrong(name, "BASE_TYPE_REQUIRED", "This field is required")


# Scheduled events


def _event(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild = guild_of(rest, request)
    d = guild.events.get(request.match_info["event_id"])
    if d is None:
        raise Refused("event")
    return guild, d


def _place_of(guild: Guild, kind: int, channel_id: object) -> Json | None:
    """Return the channel of an event of a kind; None for one elsewhere. Raises Refused."""
    if kind == _ELSEWHERE:
        return None
    channel = guild.channels.get(str(channel_id))
    if channel is None:
        raise Refused("channel")
    if channel["type"] != (STAGE if kind == _STAGE_EVENT else VOICE):
        raise wrong("channel_id", "GUILD_SCHEDULED_EVENT_CHANNEL_TYPE", "Invalid channel type for the event")
    return channel


async def _create_event(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild = guild_of(rest, request)
    _required(body, "name", "scheduled_start_time", "privacy_level", "entity_type")
    kind = body["entity_type"]
    if kind not in (_STAGE_EVENT, _VOICE_EVENT, _ELSEWHERE):
        raise wrong("entity_type", "BASE_TYPE_CHOICES", "Value must be one of {1, 2, 3}.")
    if kind == _ELSEWHERE:
        _required(body, "scheduled_end_time", "entity_metadata")
    channel = _place_of(guild, kind, body.get("channel_id"))
    bot = user_of(rest.world, rest.world.bot_id)
    assert bot is not None
    fields = {key: body[key] for key in _EVENT_FIELDS if key in body and key not in ("name", "status")}
    fields |= {key: body.get(key) for key in ("description", "recurrence_rule")}
    image = picture(body.get("image"))
    return world_expressions.create_event(
        rest.world, guild, bot, str(body["name"]), channel, **fields, image=image
    )


async def _get_event(rest: Rest, request: web.Request) -> Json:
    return _event(rest, request)[1]


async def _edit_event(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, d = _event(rest, request)
    fields = {key: body[key] for key in _EVENT_FIELDS if key in body}
    if fields.get("status", d["status"]) not in _NEXT[d["status"]]:
        raise wrong("status", "GUILD_SCHEDULED_EVENT_INVALID_STATUS", "Invalid status for the event")
    if "channel_id" in body or "entity_type" in body:
        kind = int(fields.get("entity_type") or d["entity_type"])
        channel = _place_of(guild, kind, body.get("channel_id", d["channel_id"]))
        fields["channel_id"] = None if channel is None else channel["id"]
    if "image" in body:
        fields["image"] = picture(body["image"])
    return world_expressions.change_event(rest.world, guild, d["id"], **fields)


async def _delete_event(rest: Rest, request: web.Request) -> None:
    guild, d = _event(rest, request)
    world_expressions.delete_event(rest.world, guild, d["id"])


async def _event_users(rest: Rest, request: web.Request) -> list[Json]:
    guild, d = _event(rest, request)
    limit = whole(request, "limit", 100, 100)
    with_member = request.query.get("with_member", "").lower() in ("true", "1")
    found = []
    for user_id in sorted(guild.subscribers.get(d["id"], ()), key=int):
        if int(user_id) > int(request.query.get("after", "0")):
            entry: Json = {"guild_scheduled_event_id": d["id"], "user": user_of(rest.world, user_id)}
            if with_member:
                entry["member"] = member_of(rest.world, guild, user_id)
            found.append(entry)
    return found[:limit]


# Stages


def _stage(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild, channel = channel_of(rest, request)
    for d in () if guild is None else guild.stages.values():
        if guild is not None and d["channel_id"] == channel["id"]:
            return guild, d
    raise Refused("stage")


async def _open_stage(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    _required(body, "channel_id", "topic")
    guild, channel = guild_with(rest, str(body["channel_id"]))
    if guild is None or channel["type"] != STAGE:
        raise Refused("channel_type")
    if any(d["channel_id"] == channel["id"] for d in guild.stages.values()):
        raise Refused("stage_open")
    return world_voice.open_stage(rest.world, guild, channel["id"], str(body["topic"]))


async def _get_stage(rest: Rest, request: web.Request) -> Json:
    return _stage(rest, request)[1]


async def _edit_stage(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    guild, old = _stage(rest, request)
    fields = {key: body[key] for key in ("topic", "privacy_level") if body.get(key) is not None}
    d = guild.stages[old["id"]] = {**old, **fields}
    rest.world.emit("STAGE_INSTANCE_UPDATE", guild, d)
    return d


async def _close_stage(rest: Rest, request: web.Request) -> None:
    guild, d = _stage(rest, request)
    del guild.stages[d["id"]]
    rest.world.emit("STAGE_INSTANCE_DELETE", guild, d)


# Voice


async def _regions(rest: Rest, request: web.Request) -> list[Json]:
    if "guild_id" in request.match_info:
        guild_of(rest, request)
    names = ("rotterdam", "us-east", "japan", "brazil")
    return [
        {"id": name, "name": name.title(), "optimal": not place, "deprecated": False, "custom": False}
        for place, name in enumerate(names)
    ]


async def _voice_status(rest: Rest, request: web.Request) -> None:
    body = await object_of(request)
    guild, channel = channel_of(rest, request)
    status = body.get("status")
    if guild is None or channel["type"] != VOICE:
        raise Refused("channel_type")
    if status is not None and (not isinstance(status, str) or len(status) > 500):
        raise wrong("status", "BASE_TYPE_MAX_LENGTH", "Must be 500 or fewer in length.")
    world_voice.set_info(rest.world, guild, channel["id"], status=status or None)


def _voice(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild = guild_of(rest, request)
    d = guild.voice_states.get(request.match_info["user_id"].replace("@me", rest.world.bot_id))
    if d is None:
        raise Refused("voice")
    return guild, d


async def _voice_state(rest: Rest, request: web.Request) -> Json:
    guild, d = _voice(rest, request)
    return {**d, "guild_id": guild.id, "member": member_of(rest.world, guild, d["user_id"])}


async def _edit_voice_state(rest: Rest, request: web.Request) -> None:
    """Speak in a stage, ask to, or invite a user to."""
    body = await object_of(request)
    guild, d = _voice(rest, request)
    if guild.channels[d["channel_id"]]["type"] != STAGE:
        raise Refused("channel_type")
    keys = ("suppress", "request_to_speak_timestamp")
    fields: dict[str, Any] = {key: body[key] for key in keys if key in body}
    world_voice.set_voice(rest.world, guild, d["user_id"], d["channel_id"], **fields)


# Polls


def _poll(rest: Rest, request: web.Request) -> tuple[Guild | None, Json, Message]:
    guild, channel = channel_of(rest, request)
    message = world_messages.kept(rest.world, guild, channel["id"]).get(request.match_info["message_id"])
    if message is None:
        raise Refused("message")
    if "poll" not in message.d:
        raise Refused("poll")
    return guild, channel, message


async def _voters(rest: Rest, request: web.Request) -> Json:
    _, _, message = _poll(rest, request)
    limit = whole(request, "limit", 25, 100)
    after = int(request.query.get("after", "0"))
    ids = sorted(message.voters.get(request.match_info["answer_id"], []), key=int)
    users = [user_of(rest.world, user_id) for user_id in ids if int(user_id) > after]
    return {"users": [user for user in users if user is not None][:limit]}


async def _end_poll(rest: Rest, request: web.Request) -> Json:
    """End a poll: update the message, and send the message with the result."""
    guild, channel, message = _poll(rest, request)
    world, old = rest.world, message.d
    if old["author"]["id"] != world.bot_id:
        raise Refused("author")
    poll = old["poll"]
    if not poll["results"]["is_finalized"]:
        results = {**poll["results"], "is_finalized": True}
        world_messages.edit_message(
            world, guild, channel["id"], old["id"], poll={**poll, "expiry": world.now(), "results": results}
        )
        world_messages.create_message(
            world,
            guild,
            channel["id"],
            old["author"],
            "",
            type=shapes.POLL_RESULT,
            embeds=[_poll_result(poll)],
            message_reference={"type": 0, "message_id": old["id"], "channel_id": channel["id"]},
        )
    kept = ("guild_id", "member", "channel_type")
    return {key: value for key, value in message.d.items() if key not in kept}


def _poll_result(poll: Json) -> Json:
    counts = poll["results"]["answer_counts"]
    most = max(counts, key=lambda entry: int(entry["count"]), default=None)
    values = {
        "poll_question_text": poll["question"].get("text", ""),
        "total_votes": str(sum(entry["count"] for entry in counts)),
        "victor_answer_votes": "0" if most is None else str(most["count"]),
    }
    if most is not None:
        values["victor_answer_id"] = str(most["id"])
    fields = [{"name": name, "value": value, "inline": False} for name, value in values.items()]
    return {"type": "poll_result", "fields": fields}


# Threads


def _archived(kind: str) -> Handler:
    """The archived threads of a channel: public ones, private ones, or the private ones that the bot is in."""

    async def answer(rest: Rest, request: web.Request) -> Json:
        guild, channel = channel_of(rest, request)
        if guild is None:
            raise Refused("channel")
        limit = whole(request, "limit", 50, 100)
        before = request.query.get("before")
        found = []
        for d in guild.archived.values():
            private = d["type"] == PRIVATE_THREAD
            if d["parent_id"] != channel["id"] or private != (kind != "public"):
                continue
            if kind == "joined":
                if "member" in d and (before is None or int(d["id"]) < int(before)):
                    found.append(d)
            elif before is None or d["thread_metadata"]["archive_timestamp"] < before:
                found.append(d)
        if kind == "joined":
            found.sort(key=lambda d: -int(d["id"]))
        else:
            found.sort(key=lambda d: str(d["thread_metadata"]["archive_timestamp"]), reverse=True)
        threads = found[:limit]
        return {
            "threads": [{key: value for key, value in d.items() if key != "member"} for d in threads],
            "members": [d["member"] for d in threads if "member" in d],
            "has_more": len(found) > limit,
        }

    return answer


def _thread_member(rest: Rest, request: web.Request, guild: Guild, thread: Json, user_id: str) -> Json:
    own = thread.get("member") if user_id == rest.world.bot_id else None
    d = own or {
        "id": thread["id"],
        "user_id": user_id,
        "join_timestamp": thread["thread_metadata"]["create_timestamp"],
        "flags": 0,
    }
    if request.query.get("with_member", "").lower() in ("true", "1"):
        d = {**d, "member": member_of(rest.world, guild, user_id)}
    return d


def _thread(rest: Rest, request: web.Request) -> tuple[Guild, Json]:
    guild, channel = channel_of(rest, request)
    if guild is None or channel["type"] not in THREADS:
        raise Refused("channel")
    return guild, channel


async def _thread_members(rest: Rest, request: web.Request) -> list[Json]:
    guild, thread = _thread(rest, request)
    after = int(request.query.get("after", "0"))
    ids = sorted((i for i in guild.thread_people.get(thread["id"], []) if int(i) > after), key=int)
    limit = whole(request, "limit", 100, 100)
    return [_thread_member(rest, request, guild, thread, user_id) for user_id in ids[:limit]]


async def _one_thread_member(rest: Rest, request: web.Request) -> Json:
    guild, thread = _thread(rest, request)
    user_id = request.match_info["user_id"].replace("@me", rest.world.bot_id)
    if user_id not in guild.thread_people.get(thread["id"], []):
        raise Refused("member")
    return _thread_member(rest, request, guild, thread, user_id)


_EVENTS: Final = "/guilds/{guild_id}/scheduled-events"
_STAGES: Final = "/stage-instances"
_CHANNEL: Final = "/channels/{channel_id}"
_VOICES: Final = "/guilds/{guild_id}/voice-states/{user_id}"

ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("POST", _EVENTS, _create_event),
    ("GET", _EVENTS + "/{event_id}", _get_event),
    ("PATCH", _EVENTS + "/{event_id}", _edit_event),
    ("DELETE", _EVENTS + "/{event_id}", _delete_event),
    ("GET", _EVENTS + "/{event_id}/users", _event_users),
    ("POST", _STAGES, _open_stage),
    ("GET", _STAGES + "/{channel_id}", _get_stage),
    ("PATCH", _STAGES + "/{channel_id}", _edit_stage),
    ("DELETE", _STAGES + "/{channel_id}", _close_stage),
    ("GET", "/voice/regions", _regions),
    ("GET", "/guilds/{guild_id}/regions", _regions),
    ("PUT", _CHANNEL + "/voice-status", _voice_status),
    ("GET", _VOICES, _voice_state),
    ("PATCH", _VOICES, _edit_voice_state),
    ("GET", _CHANNEL + "/polls/{message_id}/answers/{answer_id}", _voters),
    ("POST", _CHANNEL + "/polls/{message_id}/expire", _end_poll),
    ("GET", _CHANNEL + "/threads/archived/public", _archived("public")),
    ("GET", _CHANNEL + "/threads/archived/private", _archived("private")),
    ("GET", _CHANNEL + "/users/@me/threads/archived/private", _archived("joined")),
    ("GET", _CHANNEL + "/thread-members", _thread_members),
    ("GET", _CHANNEL + "/thread-members/{user_id}", _one_thread_member),
)
