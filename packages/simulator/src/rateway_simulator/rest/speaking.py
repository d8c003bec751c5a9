"""Playing the others: over HTTP one speaks as a user, moves the bot in and out of guilds, and reads the world.

These routes are the simulator's own and need no token: below `/simulator`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from aiohttp import web
from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.channel_types import TEXT
from rateway_simulator.payloads.values import Json
from rateway_simulator.rest.answers import Refused, Rest, guild_with, member_at, object_of, wrong
from rateway_simulator.rest.messages import written
from rateway_simulator.world import snapshot
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.changes import interactions as world_interactions
from rateway_simulator.world.changes import members as world_members
from rateway_simulator.world.changes import messages as world_messages
from rateway_simulator.world.changes import reactions as world_reactions
from rateway_simulator.world.changes import voice as world_voice
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.snapshot import KINDS
from rateway_simulator.world.world import World


def _user(rest: Rest, request: web.Request) -> tuple[str, Json]:
    """Return the user of the path."""
    user_id = request.match_info["user_id"]
    user = world_members.user_of(rest.world, user_id) if user_id.isdecimal() else None
    if user is None:
        raise Refused("user")
    return user_id, user


def _field(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str | int):
        raise wrong(name, "BASE_TYPE_REQUIRED", "This field is required")
    return str(value)


def _place(rest: Rest, body: Json, user_id: str) -> tuple[Guild | None, Json]:
    """Return the channel of the body; without one, the direct channel with the bot."""
    if "channel_id" not in body:
        channel = world_messages.open_direct(rest.world, user_id)
        if channel is None:
            raise Refused("recipient")
        return None, channel
    guild, channel = guild_with(rest, _field(body, "channel_id"))
    if guild is not None:
        member_at(rest, guild, user_id)
    return guild, channel


def _guild(rest: Rest, body: Json) -> Guild:
    text = _field(body, "guild_id")
    if not text.isdecimal() or not rest.world.is_available(int(text)):
        raise Refused("guild")
    return rest.world.guild(int(text))


# As a user


async def _message(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    user_id, user = _user(rest, request)
    guild, channel = _place(rest, body, user_id)
    return written(rest, guild, channel, user, body)


async def _command(rest: Rest, request: web.Request) -> Json:
    """Use a slash command: `{name, channel_id?, options?: {name: value}, type?}`; Discord's list of options
    works too.
    """
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild, channel = _place(rest, body, user_id)
    name, kind = _field(body, "name"), int(body.get("type", 1))
    known = rest.world.app.find(name, None if guild is None else guild.id)
    try:
        options = world_interactions.typed_options(known, body.get("options") or [])
    except (TypeError, ValueError, KeyError, AttributeError):
        raise wrong("options", "BASE_TYPE_CHOICES", "an option's value does not fit its type") from None
    data = world_interactions.command_data(rest.world, guild, name, options, kind)
    return world_interactions.ask(rest.world, guild, channel["id"], user_id, 2, data).d


async def _press(rest: Rest, request: web.Request) -> Json:
    """Use a component: `{channel_id, message_id, custom_id, values?}`."""
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild, channel = _place(rest, body, user_id)
    message = world_messages.kept(rest.world, guild, channel["id"]).get(_field(body, "message_id"))
    if message is None:
        raise Refused("message")
    data: Json = {
        "custom_id": _field(body, "custom_id"),
        "component_type": 3 if "values" in body else 2,
        "id": 1,
    }
    if "values" in body:
        data["values"] = body["values"]
    asked = world_interactions.ask(
        rest.world, guild, channel["id"], user_id, 3, data, message=shapes.bare(message.d)
    )
    return asked.d


async def _react(rest: Rest, request: web.Request) -> None:
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild, channel = _place(rest, body, user_id)
    emoji = {"id": body.get("emoji_id"), "name": body.get("emoji_name", "👍"), "animated": False}
    if not world_reactions.react(
        rest.world, guild, channel["id"], _field(body, "message_id"), emoji, user_id
    ):
        raise Refused("message")


def _voting(cast: bool) -> Callable[[Rest, web.Request], Awaitable[None]]:
    async def answer(rest: Rest, request: web.Request) -> None:
        """`{channel_id, message_id, answer_id}`: a vote in a poll, or no longer."""
        body = await object_of(request)
        user_id, _ = _user(rest, request)
        guild, channel = _place(rest, body, user_id)
        answer_id = int(_field(body, "answer_id"))
        change = world_reactions.vote if cast else world_reactions.unvote
        if not change(rest.world, guild, channel["id"], _field(body, "message_id"), answer_id, user_id):
            raise Refused("message")

    return answer


async def _typing(rest: Rest, request: web.Request) -> None:
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild, channel = _place(rest, body, user_id)
    world_messages.typing(rest.world, guild, channel["id"], user_id)


async def _voice(rest: Rest, request: web.Request) -> None:
    """`{guild_id, channel_id}`; `channel_id` null leaves voice."""
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild = _guild(rest, body)
    member_at(rest, guild, user_id)
    channel_id = body.get("channel_id")
    if channel_id is not None and str(channel_id) not in guild.channels:
        raise Refused("channel")
    world_voice.set_voice(rest.world, guild, user_id, None if channel_id is None else str(channel_id))


async def _join(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild = _guild(rest, body)
    index = rest.world.people.index_of(user_id)
    assert index is not None
    if user_id != rest.world.bot_id and index not in guild.roster:
        world_members.add_member(rest.world, guild, index)
    return member_at(rest, guild, user_id)


async def _leave(rest: Rest, request: web.Request) -> None:
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    guild = _guild(rest, body)
    member_at(rest, guild, user_id)
    index = rest.world.people.index_of(user_id)
    if index is None or index not in guild.roster:
        raise Refused("member")
    world_members.remove_member(rest.world, guild, index)


async def _rename(rest: Rest, request: web.Request) -> Json:
    """`{username?, global_name?, avatar?}`: change a user; every guild that shares it gets an event."""
    body = await object_of(request)
    user_id, _ = _user(rest, request)
    index = rest.world.people.index_of(user_id)
    assert index is not None
    fields = {key: body[key] for key in ("username", "global_name", "avatar", "banner") if key in body}
    if user_id == rest.world.bot_id:
        world_members.update_own_user(rest.world, **fields)
    else:
        world_members.change_user(rest.world, index, **fields)
    return rest.world.people.user(index)


async def _newcomer(rest: Rest, request: web.Request) -> Json:
    """Return a user whom no guild has seen."""
    return rest.world.people.user(rest.world.newcomer())


# The bot's guilds


async def _guilds(rest: Rest, request: web.Request) -> list[Json]:
    """Return each guild with a text channel and some members that are not bots, as a place to begin: workers ignore
    bots.
    """
    world, people = rest.world, rest.world.people
    found = []
    for number in world.guild_ids[: int(request.query.get("limit", "100"))]:
        d: Json = {"id": str(number), "available": world.is_available(number)}
        if d["available"]:
            guild = world.guild(number)
            text = next((key for key, c in guild.channels.items() if c["type"] == TEXT), None)
            members = islice((index for index in guild.roster if not people.is_bot(index)), 5)
            d |= {"name": guild.fields["name"], "member_count": len(guild.roster)}
            d |= {"channel_id": text, "members": [people.id_of(index) for index in members]}
        found.append(d)
    return found


async def _bot_joins(rest: Rest, request: web.Request) -> Json:
    body = await object_of(request)
    wanted = None if body.get("guild_id") is None else _field(body, "guild_id")
    if wanted is not None and not wanted.isdecimal():
        raise Refused("guild")
    try:
        return {"id": str(world_guilds.join(rest.world, None if wanted is None else int(wanted)))}
    except ValueError:
        raise Refused("guild") from None


def _changing(change: Callable[[World, int], None]) -> Callable[[Rest, web.Request], Awaitable[None]]:
    async def answer(rest: Rest, request: web.Request) -> None:
        text = request.match_info["guild_id"]
        if not text.isdecimal() or not rest.world.has_guild(int(text)):
            raise Refused("guild")
        change(rest.world, int(text))

    return answer


# The world


async def _world(rest: Rest, request: web.Request) -> dict[str, dict[str, Json]]:
    """Kind → key → entity (see `world.snapshot.state`); `kinds` and `guilds` of the query, with commas, limit it."""
    kinds = [kind for kind in request.query.get("kinds", "").split(",") if kind]
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise wrong("kinds", "BASE_TYPE_CHOICES", f"{unknown[0]} is none of {', '.join(KINDS)}")
    guilds = [int(text) for text in request.query.get("guilds", "").split(",") if text.isdecimal()]
    return snapshot.state(rest.world, kinds or None, guilds or None)


async def _presence(rest: Rest, request: web.Request) -> Json:
    """Return the bot's presence as it set it last."""
    return rest.world.app.presence


async def _unsimulated(rest: Rest, request: web.Request) -> list[Json]:
    """Return the requests that were answered 501: method, path, count."""
    return [
        {"method": method, "path": path, "count": count}
        for (method, path), count in sorted(rest.unsimulated.items(), key=lambda item: -item[1])
    ]


_USER: Final = "/users/{user_id}"

ROUTES: Final[tuple[tuple[str, str, Callable[[Rest, web.Request], Awaitable[object]]], ...]] = (
    ("POST", "/users", _newcomer),
    ("PATCH", _USER, _rename),
    ("POST", _USER + "/messages", _message),
    ("POST", _USER + "/commands", _command),
    ("POST", _USER + "/components", _press),
    ("POST", _USER + "/reactions", _react),
    ("POST", _USER + "/votes", _voting(True)),
    ("DELETE", _USER + "/votes", _voting(False)),
    ("POST", _USER + "/typing", _typing),
    ("POST", _USER + "/voice", _voice),
    ("POST", _USER + "/join", _join),
    ("POST", _USER + "/leave", _leave),
    ("GET", "/guilds", _guilds),
    ("POST", "/guilds", _bot_joins),
    ("POST", "/guilds/{guild_id}/leave", _changing(world_guilds.leave)),
    ("POST", "/guilds/{guild_id}/outage", _changing(world_guilds.outage)),
    ("POST", "/guilds/{guild_id}/recover", _changing(world_guilds.recover)),
    ("GET", "/world", _world),
    ("GET", "/presence", _presence),
    ("GET", "/unsimulated", _unsimulated),
)
