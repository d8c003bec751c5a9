"""Which session receives a dispatch, and how much of it, by the session's intents.

Discord's documentation, "Gateway": *List of Intents*, its *Caveats*, and *Message Content Intent*; "Gateway Events":
*Guild Create* and *Auto Moderation Action Execution*. :func:`receives` decides by what is known of an event;
:func:`visible` finds that out from the bytes of ``d``, and blanks what a session may not see.

Nearly every event of nearly every session passes as the bytes that it came as: what has to be looked at is found out
once for each set of intents. Where something is blanked, the values beside it keep their bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from rateway_protocol.discord.events import EVENTS
from rateway_protocol.discord.intents import Intents

__all__ = ["CONTENT", "CONTENT_OMITTED", "EXECUTION_CONTENT", "MESSAGES", "receives", "visible"]

_DIRECT: Final = int(
    Intents.DIRECT_MESSAGES
    | Intents.DIRECT_MESSAGE_REACTIONS
    | Intents.DIRECT_MESSAGE_TYPING
    | Intents.DIRECT_MESSAGE_POLLS
)
_IN_GUILDS: Final = {name: spec.intents & ~_DIRECT for name, spec in EVENTS.items()}
_IN_DIRECT: Final = {name: spec.intents & _DIRECT for name, spec in EVENTS.items()}
# Sent for the bot itself whatever the intents are.
_OWN: Final = frozenset({"GUILD_MEMBER_UPDATE"})
# Sent for the bot itself with any of its intents, and for others with this one alone.
_ABOUT_OTHERS: Final = MappingProxyType({"THREAD_MEMBERS_UPDATE": int(Intents.GUILD_MEMBERS)})

MESSAGES: Final = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE"})
"""Events whose ``d`` is a message."""
CONTENT: Final[Mapping[str, object]] = MappingProxyType(
    {"content": "", "embeds": [], "attachments": [], "components": []}
)
"""What MESSAGE_CONTENT reveals of a message, each with the empty value that stands there without it."""
CONTENT_OMITTED: Final = frozenset({"poll"})
"""What is left out of a message without MESSAGE_CONTENT."""
EXECUTION_CONTENT: Final = ("content", "matched_content")
"""What MESSAGE_CONTENT reveals of an AUTO_MODERATION_ACTION_EXECUTION; empty texts without it."""


def receives(name: str, intents: int, *, is_direct: bool = False, is_own: bool = False) -> bool:
    """Whether a session with these intents receives an event of that name.

    ``is_direct``: a direct or ephemeral message, or something of it; ``is_own``: it concerns the bot itself.
    """
    if is_own and name in _OWN:
        return True
    spec = EVENTS.get(name)
    if spec is None or not spec.intents:
        return True
    if not is_own and name in _ABOUT_OTHERS:
        return bool(intents & _ABOUT_OTHERS[name])
    return bool(intents & (_IN_DIRECT[name] if is_direct else _IN_GUILDS[name]))


def visible(name: str, d: bytes, intents: int, own_id: int) -> bytes | None:
    """Return ``d`` as a session with these intents receives it, None where it receives none.

    ``own_id`` is the bot's user. Never raises: what should be blanked and cannot be read is not received.
    """
    rule = _rules(intents).get(name)
    if rule is None:
        return d
    try:
        return rule(d, own_id)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


# How an event is seen: its ``d`` and the bot's id → what is seen of it. Raises MsgspecError, UnicodeError or
# RecursionError for what cannot be read.
_Rule = Callable[[bytes, int], bytes | None]
_Object = dict[str, msgspec.Raw]

_NOTHING: Final = msgspec.Raw(b"null")
_EMPTY_TEXT, _EMPTY_LIST, _TRUE, _FALSE = (msgspec.Raw(each) for each in (b'""', b"[]", b"true", b"false"))
_GUILD_ID: Final = b'"guild_id":"'
_EMPTIES: Final = tuple((name, msgspec.Raw(msgspec.json.encode(empty))) for name, empty in CONTENT.items())
_encode = msgspec.json.Encoder().encode


class _Place(msgspec.Struct, frozen=True, gc=False):
    guild_id: msgspec.Raw = _NOTHING


class _Sender(msgspec.Struct, frozen=True, gc=False):
    """What decides of a message whether its content is shown."""

    author: msgspec.Raw = _NOTHING
    application_id: msgspec.Raw = _NOTHING
    mentions: msgspec.Raw = _NOTHING


class _Id(msgspec.Struct, frozen=True, gc=False):
    id: msgspec.Raw = _NOTHING


class _WithUser(msgspec.Struct, frozen=True, gc=False):
    user: msgspec.Raw = _NOTHING


class _WithUserId(msgspec.Struct, frozen=True, gc=False):
    user_id: msgspec.Raw = _NOTHING


_decode_place = msgspec.json.Decoder(_Place).decode
_decode_sender = msgspec.json.Decoder(_Sender).decode
_decode_id = msgspec.json.Decoder(_Id).decode
_decode_with_user = msgspec.json.Decoder(_WithUser).decode
_decode_with_user_id = msgspec.json.Decoder(_WithUserId).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(_Object).decode


@functools.lru_cache(1_024)
def _rules(intents: int) -> Mapping[str, _Rule]:
    """Return the rules of the events that a session with these intents does not receive as they are."""
    rules: dict[str, _Rule] = {}
    for name in EVENTS:
        in_guilds = receives(name, intents)
        in_direct = receives(name, intents, is_direct=True) if _IN_DIRECT[name] else in_guilds
        if name in MESSAGES and in_guilds and not intents & Intents.MESSAGE_CONTENT:
            rules[name] = _message if in_direct else _message_of_guild
        elif in_guilds and not in_direct:
            rules[name] = _if_of_guild
        elif in_direct and not in_guilds:
            rules[name] = _if_direct
        elif not in_guilds:
            rules[name] = _never
    if not intents & Intents.GUILD_MEMBERS:
        rules["GUILD_MEMBER_UPDATE"] = _if_of_own_member
    if not intents & Intents.MESSAGE_CONTENT and receives("AUTO_MODERATION_ACTION_EXECUTION", intents):
        rules["AUTO_MODERATION_ACTION_EXECUTION"] = _execution_without_content
    if not intents & Intents.GUILD_PRESENCES and receives("GUILD_CREATE", intents):
        rules["GUILD_CREATE"] = _guild_of_few
    if receives("THREAD_MEMBERS_UPDATE", intents, is_own=True):
        is_whole = receives("THREAD_MEMBERS_UPDATE", intents)
        if not is_whole or not intents & Intents.GUILD_PRESENCES:
            rules["THREAD_MEMBERS_UPDATE"] = functools.partial(
                _thread_members, is_whole, bool(intents & Intents.GUILD_PRESENCES)
            )
    return MappingProxyType(rules)


def _never(d: bytes, own_id: int) -> None:
    return None


def _is_of_guild(d: bytes) -> bool:
    """Whether ``d`` itself names a guild. Direct messages may name one further inside: of a message that they reply to
    or pass on."""
    at = d.rfind(_GUILD_ID)
    # Discord writes it last in most events. One closing brace behind the number is the outermost object's.
    if at >= 0 and d.endswith(b'"}') and d[at + len(_GUILD_ID) : -2].isdigit():
        return True
    return b'"guild_id"' in d and _decode_place(d).guild_id != _NOTHING


def _if_of_guild(d: bytes, own_id: int) -> bytes | None:
    return d if _is_of_guild(d) else None


def _if_direct(d: bytes, own_id: int) -> bytes | None:
    return None if _is_of_guild(d) else d


def _if_of_own_member(d: bytes, own_id: int) -> bytes | None:
    # Most are about others.
    return d if b"%d" % own_id in d and _user_of(d) == own_id else None


def _message(d: bytes, own_id: int) -> bytes:
    if _is_of_guild(d):
        return _shown(d, own_id)
    # Direct ones are few: what cannot be read is not shown as one.
    _decode_place(d)
    return d


def _message_of_guild(d: bytes, own_id: int) -> bytes | None:
    return _shown(d, own_id) if _is_of_guild(d) else None


def _shown(d: bytes, own_id: int) -> bytes:
    """Return a message with its content where it is the app's own or mentions it, else without."""
    # In most messages the app's id does not occur at all.
    if b"%d" % own_id in d:
        known = _decode_sender(d)
        if _number(known.application_id) == own_id or _id_of(known.author) == own_id:
            return d
        if any(_id_of(each) == own_id for each in _items(known.mentions)):
            return d
    return _without_content(d, own_id)


def _without_content(d: bytes, own_id: int) -> bytes:
    """Return a message without its content; messages inside it are shown or not as each of them is itself."""
    message = _decode_object(d)
    for name in CONTENT_OMITTED:
        message.pop(name, None)
    for name, empty in _EMPTIES:
        if name in message:
            message[name] = empty
    inner = message.get("referenced_message")
    if inner is not None and inner != _NOTHING:
        message["referenced_message"] = msgspec.Raw(_shown(bytes(inner), own_id))
    if "message_snapshots" in message:
        snapshots = [
            {**each, "message": msgspec.Raw(_shown(bytes(each["message"]), own_id))}
            if "message" in each
            else each
            for each in map(_decode_object, _items(message["message_snapshots"]))
        ]
        message["message_snapshots"] = msgspec.Raw(_encode(snapshots))
    return _encode(message)


def _execution_without_content(d: bytes, own_id: int) -> bytes:
    execution = _decode_object(d)
    for name in EXECUTION_CONTENT:
        if execution.get(name, _NOTHING) != _NOTHING:
            execution[name] = _EMPTY_TEXT
    return _encode(execution)


def _guild_of_few(d: bytes, own_id: int) -> bytes:
    """Without GUILD_PRESENCES a guild comes with the bot and who is in voice, and without presences."""
    guild = _decode_object(d)
    if "members" not in guild:
        return d
    listed = {
        own_id,
        *(_number(_decode_with_user_id(each).user_id) for each in _items(guild.get("voice_states"))),
    }
    members = [each for each in _items(guild["members"]) if _user_of(each) in listed]
    guild["members"] = msgspec.Raw(_encode(members))
    if "presences" in guild:
        guild["presences"] = _EMPTY_LIST
    if "large" in guild:
        is_whole = _number(guild.get("member_count")) == len(members)
        guild["large"] = _FALSE if is_whole else _TRUE
    return _encode(guild)


def _thread_members(is_whole: bool, has_presences: bool, d: bytes, own_id: int) -> bytes | None:
    """Who was added to a thread and removed from it: all, or the bot alone; presences with their intent."""
    update = _decode_object(d)
    added = [_decode_object(each) for each in _items(update.get("added_members"))]
    removed = _items(update.get("removed_member_ids"))
    if not is_whole:
        added = [each for each in added if _number(each.get("user_id")) == own_id]
        removed = [each for each in removed if _number(each) == own_id]
        if not added and not removed:
            return None
    if not has_presences:
        for each in added:
            if "presence" in each:
                each["presence"] = _NOTHING
    for name, items in (("added_members", added), ("removed_member_ids", removed)):
        if name in update:
            update[name] = msgspec.Raw(_encode(items))
    return _encode(update)


def _items(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    """Return the items of a list; none where there is no list."""
    return [] if raw is None or raw == _NOTHING else _decode_list(raw)


def _user_of(member: bytes | msgspec.Raw) -> int:
    return _id_of(_decode_with_user(member).user)


def _id_of(raw: msgspec.Raw) -> int:
    """Return the id of an object; 0 of anything else."""
    return _number(_decode_id(raw).id) if bytes(raw).startswith(b"{") else 0


def _number(raw: msgspec.Raw | None) -> int:
    """Return an id, written as text or as a number; 0 for anything else."""
    digits = b"" if raw is None else bytes(raw).strip(b'"')
    return int(digits) if digits.isdigit() and len(digits) <= 20 else 0
