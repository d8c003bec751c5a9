"""The form of the commands that a client sends: what Discord takes, and how it is written as documented.

Libraries write ops 3, 4, 8, 31 and 43 in many ways that Discord takes: ids as numbers, ``since`` as a float or missing,
keys of activities that a bot cannot set. :func:`read` is one table for all of them. It returns the documented form
(Discord documentation, "Gateway Events": "Send Events"), with each deviation in words, or the reason for which Discord
refuses the command or leaves it unanswered. What the table does not name passes as given.

Each leniency names the library or the report that it comes from: discord.py 2.7, hikari 2.7, disnake 2.12,
nextcord 2.6, py-cord 2.8, discord.js 14, eris 0.18, oceanic.js 1.15, JDA 5, discordgo 0.29, serenity, twilight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rateway_protocol.discord.intents import Intents
from rateway_protocol.discord.opcodes import Opcode
from rateway_protocol.discord.snowflake import shard_of

__all__ = [
    "ACTIVITY_KEYS_LEFT_OUT",
    "MAX_NONCE_BYTES",
    "Documented",
    "Fault",
    "Refusal",
    "is_snowflake",
    "read",
    "read_identify_presence",
    "whole_guild",
]

# Gateway Events, Request Guild Members: a longer nonce is ignored, and a client that waits for it waits without end.
MAX_NONCE_BYTES = 32
# Gateway Events, Request Guild Members: "Requesting user_ids will continue to be limited to returning 100 members".
MAX_USER_IDS = 100
# Snowflakes are unsigned 64-bit integers (API Reference, Snowflakes).
MAX_ID = (1 << 64) - 1
# Above this a float has lost digits of the id that it was written from (JavaScript's MAX_SAFE_INTEGER).
MAX_EXACT_FLOAT = (1 << 53) - 1
# Times in milliseconds have to be signed 64-bit integers.
MAX_TIME = (1 << 63) - 1

STATUSES = frozenset({"online", "dnd", "idle", "invisible", "offline"})
CHANNEL_INFO_FIELDS = frozenset({"status", "voice_start_time"})
# Activity type "Custom" (Gateway Events, Activity Types), and the name that it has in clients.
CUSTOM, CUSTOM_NAME = 4, "Custom Status"

# "Bot users are only able to set name, state, type, and url" (Gateway Events, Activity Structure). Discord ignores the
# documented rest, which these libraries write all the same: discord.py, disnake, nextcord and py-cord every slot of an
# Activity (`_created_at` included), twilight and discordgo every field of the model.
ACTIVITY_KEYS_LEFT_OUT = frozenset(
    {
        "_created_at",
        "application_id",
        "assets",
        "buttons",
        "created_at",
        "details",
        "details_url",
        "emoji",
        "flags",
        "game",
        "id",
        "instance",
        "party",
        "platform",
        "secrets",
        "session_id",
        "state_url",
        "status_display_type",
        "sync_id",
        "timestamps",
        "twitch_name",
    }
)


class Fault(Enum):
    """The kind of fault that a refused command has."""

    MALFORMED = "malformed"
    NONCE = "nonce"
    INTENTS = "intents"
    SHARD = "shard"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that Discord refuses, or never answers; ``reason`` is for people."""

    fault: Fault
    reason: str


@dataclass(frozen=True, slots=True)
class Documented:
    """A command's ``d`` in the documented form, and in words what had to be changed for that."""

    d: dict[str, Any]
    deviations: tuple[str, ...] = ()


class _Wrong(Exception):
    """A value that Discord refuses. Raised and caught in this module only."""

    def __init__(self, reason: str, fault: Fault = Fault.MALFORMED) -> None:
        super().__init__(reason)
        self.fault = fault


def read(
    op: int, d: object, *, intents: int | None = None, shard: tuple[int, int] | None = None
) -> Documented | Refusal:
    """Return the documented form of a command's ``d``, or why Discord refuses it. Never raises; changes nothing of *d*.

    *intents* are the session's, *shard* its ``(id, count)``: with them, also what Discord would leave unanswered
    without notice is refused. The result of a result is the same again, without deviations.
    """
    reader = _READERS.get(op)
    if reader is None:
        return Refusal(
            Fault.MALFORMED, f"op {op} is not a command that workers may send (3, 4, 8, 31 and 43 are)"
        )
    if not isinstance(d, Mapping):
        return Refusal(Fault.MALFORMED, "d should be an object")
    form = _Form(d)
    try:
        reader(form)
        if op == Opcode.REQUEST_GUILD_MEMBERS and intents is not None:
            _check_intents(form.d, intents)
        if shard is not None:
            _check_shard(op, form.d, shard)
    except _Wrong as wrong:
        return Refusal(wrong.fault, str(wrong))
    return Documented(form.d, tuple(form.deviations))


def read_identify_presence(presence: object) -> Documented | Refusal:
    """Return the same for ``presence`` of an identify, where Discord takes more.

    Null ``activities`` (eris) and an empty ``game`` with the status "" (discordgo) come with the identify of every bot
    that is written with these libraries.
    """
    if not isinstance(presence, Mapping):
        return Refusal(Fault.MALFORMED, "presence should be an object")
    form = _Form(presence)
    try:
        if form.d.get("activities") is None and not isinstance(form.d.get("game"), Mapping):
            form.put("activities", [], "activities is missing")
        _presence(form)
    except _Wrong as wrong:
        return Refusal(wrong.fault, f"presence: {wrong}")
    return Documented(form.d, tuple(f"presence: {deviation}" for deviation in form.deviations))


def is_snowflake(value: object) -> bool:
    """Return whether the value is an id as JSON carries it: a string of decimal digits below 2^64."""
    return (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        and len(value) <= 20
        and int(value) <= MAX_ID
    )


def whole_guild(op: int, d: Mapping[str, Any]) -> bool:
    """Return whether a documented command asks for all members of a guild, which is allowed once per guild and 30 s."""
    return op == Opcode.REQUEST_GUILD_MEMBERS and d.get("query") == "" and d.get("limit") == 0


class _Form:
    """A ``d`` on its way to the documented form."""

    __slots__ = ("d", "deviations")

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.d = dict(given)
        self.deviations: list[str] = []

    def put(self, key: str, value: object, deviation: str) -> None:
        self.d[key] = value
        self.deviations.append(deviation)

    def leave_out(self, key: str, deviation: str) -> None:
        del self.d[key]
        self.deviations.append(deviation)

    def read(self, key: str, reader: Callable[[Any], Any], wrong: str) -> None:
        """Put what *reader* makes of the value; it raises ValueError for one that Discord refuses."""
        value = self.d.get(key)
        try:
            documented = reader(value)
        except ValueError:
            raise _Wrong(wrong) from None
        if type(documented) is not type(value) or documented != value:
            self.put(key, documented, f"{key} is {_shown(value)}")
        elif key not in self.d:
            self.put(key, documented, f"{key} is missing")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# Values.


def _snowflake(value: object) -> str:
    """Return an id. Discord coerces numbers, which discord.py and its forks (int) and JDA's user_ids (long) send."""
    if is_snowflake(value):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_FLOAT:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return str(value)
    raise ValueError


def _snowflake_or_null(value: object) -> str | None:
    return None if value is None else _snowflake(value)


def _one_snowflake(value: object) -> str:
    """Return a guild's id, or the list of one that discordgo sends. (Gateway Events: "1 guild_id per request".)"""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _snowflake(value)


def _snowflakes(value: object) -> list[str]:
    return [_snowflake(each) for each in (value if isinstance(value, list) else [value])]


def _integer(value: object) -> int:
    """Return an integer; libraries of languages with one kind of number write whole floats."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_FLOAT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _flag(value: object) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    raise ValueError


def _loose_flag(value: object) -> bool:
    """A boolean, or the bit of an intent in its place: eris sends ``presences: 256``."""
    return bool(value) if isinstance(value, int) else _flag(value)


def _time(value: object) -> int | None:
    """Return ``since``: milliseconds of Unix time or null.

    Discord takes it as a float (discord.py, nextcord, py-cord) and as serenity's object of a Rust ``SystemTime``.
    """
    if isinstance(value, Mapping):
        seconds, nanoseconds = value.get("secs_since_epoch"), value.get("nanos_since_epoch", 0)
        value = _integer(seconds) * 1000 + _integer(nanoseconds) // 1_000_000
    elif isinstance(value, float):
        # Parts of a millisecond mean nothing; infinities cannot be written in JSON.
        value = int(value) if abs(value) <= MAX_EXACT_FLOAT else value
    elif isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if value is None:
        return None
    number = _integer(value)
    if abs(number) > MAX_TIME:
        raise ValueError
    return number


def _status(value: object) -> str:
    """Return a status; null (discord.py's and py-cord's sockets) and "" (discordgo) stand for none."""
    if value is None or value == "":
        return "online"
    if isinstance(value, str) and value in STATUSES:
        return value
    raise ValueError


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


# Op 3.


def _presence(form: _Form) -> None:
    _take_game(form)
    activities = form.d.get("activities")
    if not isinstance(activities, list):
        # api-docs#2559, discord.js#5799, nyxx#557: an invalid session is the answer.
        raise _Wrong("activities should be an array (empty for none); Discord ends the session otherwise")
    form.d["activities"] = [_activity(activity, form.deviations) for activity in activities]
    form.read("since", _time, "since should be milliseconds of Unix time, or null")
    form.read("status", _status, f"status should be one of {', '.join(sorted(STATUSES))}")
    # A missing afk was answered with a close (eris#219): its absence means false.
    form.read("afk", _flag, "afk should be true or false")


def _take_game(form: _Form) -> None:
    """Turn ``game``, which older versions of the gateway had and hikari still sends, into ``activities``."""
    if "game" not in form.d:
        return
    game = form.d["game"]
    if game is not None and not isinstance(game, Mapping):
        raise _Wrong("game should be an activity or null; activities has taken its place")
    form.leave_out("game", "game stands for activities")
    # discordgo writes an activity without a name for none.
    if form.d.get("activities") is None:
        form.d["activities"] = [game] if game is not None and game.get("name") else []


def _activity(given: object, deviations: list[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise _Wrong("each activity should be an object")
    form = _Form(given)
    for key in sorted(ACTIVITY_KEYS_LEFT_OUT & form.d.keys()):
        form.leave_out(key, f"a bot's activity has name, state, type and url, not {key}")
    form.read("type", _integer, "an activity's type should be a number")
    if form.d["type"] == CUSTOM and not form.d.get("name"):
        # disnake sends "", discord.py no name at all; hikari puts this one.
        form.put("name", CUSTOM_NAME, "a custom status has no name")
    form.read("name", _text, "an activity's name should be a string")
    for key in ("url", "state"):
        # Both are documented as nullable; for url null an invalid session was reported (discord.js#5799).
        if key in form.d and form.d[key] is None:
            form.leave_out(key, f"an activity's {key} is null")
        elif key in form.d:
            form.read(key, _text, f"an activity's {key} should be a string")
    deviations += form.deviations
    return form.d


# Ops 4, 8, 31 and 43.


def _guild(form: _Form) -> None:
    form.read("guild_id", _one_snowflake, "guild_id should be one guild's id, as a string")


def _voice(form: _Form) -> None:
    _guild(form)
    if "channel_id" not in form.d:
        raise _Wrong("channel_id should be there: a channel's id, or null to leave")
    form.read("channel_id", _snowflake_or_null, "channel_id should be a channel's id, or null to leave")
    for key in ("self_mute", "self_deaf"):
        # hikari leaves out what its caller did not set.
        form.read(key, _flag, f"{key} should be true or false")


def _members(form: _Form) -> None:
    _guild(form)
    # Optional fields that are null: discord.js and eris leave them out, Java's and Rust's models may not.
    for key in ("query", "user_ids", "limit", "nonce", "presences"):
        if key in form.d and form.d[key] is None:
            form.leave_out(key, f"{key} is null")
    if "query" in form.d and "user_ids" in form.d:
        _choose(form)
    if "user_ids" in form.d:
        _user_ids(form)
    elif "query" in form.d:
        _query(form)
    else:
        raise _Wrong("exactly one of query and user_ids should be given")
    if "nonce" in form.d:
        _nonce(form)
    if "presences" in form.d:
        form.read("presences", _loose_flag, "presences should be true or false")


def _choose(form: _Form) -> None:
    """Leave out the empty one of query and user_ids; hikari sends ``query: ""`` beside user_ids."""
    if form.d["query"] == "" and form.d["user_ids"] != []:
        form.leave_out("query", 'query is "" beside user_ids')
    elif form.d["user_ids"] == []:
        form.leave_out("user_ids", "user_ids is empty beside query")
    else:
        raise _Wrong("exactly one of query and user_ids should be given")


def _user_ids(form: _Form) -> None:
    if isinstance(form.d["user_ids"], list) and len(form.d["user_ids"]) > MAX_USER_IDS:
        raise _Wrong(f"user_ids has {len(form.d['user_ids'])} ids, Discord takes {MAX_USER_IDS}")
    # One id alone is documented too.
    reader = _snowflakes if isinstance(form.d["user_ids"], list) else _snowflake
    form.read("user_ids", reader, "user_ids should be ids as strings")
    if "limit" in form.d:
        form.read("limit", _integer, "limit should be a number")


def _query(form: _Form) -> None:
    form.read("query", _text, "query should be a string")
    # 0 beside a query (twilight, serenity) and more than 100 are taken: at most 100 members come.
    form.read("limit", _integer, "limit should be there with query: a number, 0 for all members")
    if form.d["limit"] < 0:
        raise _Wrong("limit should not be negative")


def _nonce(form: _Form) -> None:
    if not isinstance(form.d["nonce"], str):
        try:
            form.read("nonce", lambda value: str(_integer(value)), "")
        except _Wrong:
            pass
    nonce = form.d["nonce"]
    if not (isinstance(nonce, str) and len(nonce.encode(errors="replace")) <= MAX_NONCE_BYTES):
        raise _Wrong(
            f"nonce should be a string of at most {MAX_NONCE_BYTES} bytes; Discord drops a longer one",
            Fault.NONCE,
        )


def _soundboard(form: _Form) -> None:
    if form.d.get("guild_ids") in (None, []):
        raise _Wrong("guild_ids should be an array of guild ids as strings")
    form.read("guild_ids", _snowflakes, "guild_ids should be an array of guild ids as strings")


def _channel_info(form: _Form) -> None:
    _guild(form)
    fields = form.d.get("fields")
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise _Wrong("fields should be an array of strings")
    unknown = sorted(set(fields) - CHANNEL_INFO_FIELDS)
    if unknown:
        raise _Wrong(f"fields may hold {' and '.join(sorted(CHANNEL_INFO_FIELDS))}, not {unknown[0][:40]}")


_READERS: dict[int, Callable[[_Form], None]] = {
    Opcode.PRESENCE_UPDATE: _presence,
    Opcode.VOICE_STATE_UPDATE: _voice,
    Opcode.REQUEST_GUILD_MEMBERS: _members,
    Opcode.REQUEST_SOUNDBOARD_SOUNDS: _soundboard,
    Opcode.REQUEST_CHANNEL_INFO: _channel_info,
}


# What Discord does not answer.


def _check_intents(d: Mapping[str, Any], intents: int) -> None:
    if d.get("presences") and not intents & Intents.GUILD_PRESENCES:
        raise _Wrong("presences needs the intent GUILD_PRESENCES", Fault.INTENTS)
    if whole_guild(Opcode.REQUEST_GUILD_MEMBERS, d) and not intents & Intents.GUILD_MEMBERS:
        raise _Wrong("asking for all members of a guild needs the intent GUILD_MEMBERS", Fault.INTENTS)


def _check_shard(op: int, d: Mapping[str, Any], shard: tuple[int, int]) -> None:
    for guild_id in guild_ids(op, d):
        owner = shard_of(guild_id, shard[1])
        if owner != shard[0]:
            raise _Wrong(f"guild {guild_id} belongs to shard {owner}, not to shard {shard[0]}", Fault.SHARD)


def guild_ids(op: int, d: Mapping[str, Any]) -> list[int]:
    """Return the guilds that a documented command is about."""
    given = d.get("guild_ids", []) if op == Opcode.REQUEST_SOUNDBOARD_SOUNDS else [d.get("guild_id")]
    return [int(str(guild_id)) for guild_id in given if is_snowflake(guild_id)]
