"""Leave out of an event what the cache cannot read, so that one odd element costs itself alone.

Reducers read events strictly, because that is fast, and read all that they need before they write. One that raises has
changed nothing: its event is repaired here, by the table of what the cache reads of each event, and reduced once more.
What is not in the table is kept as Discord wrote it, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec
from rateway.cache.kinds import ENTITY_KINDS, SNAPSHOTS, EntityKind, Kind
from rateway.cache.pages import compact
from rateway.native.objects.fields import MOST_COUNT, NULL, UNREADABLE, Fields, fields, join, raws, snowflake

__all__ = ["EVENTS", "repaired"]

# Containers in containers that are kept. Discord nests less than twenty deep (components in messages in messages);
# decoding ends at Python's own limit, some hundreds.
DEEPEST = 64

Say: TypeAlias = Callable[[str], None]
"""Takes why something is left out: words from a small set."""


class Check(Protocol):
    """Return a value as it can be read, or None where it cannot, after saying why."""

    def __call__(self, raw: msgspec.Raw, place: str, say: Say) -> msgspec.Raw | None: ...


def _id(raw: msgspec.Raw, place: str, say: Say) -> msgspec.Raw | None:
    if snowflake(raw) is None:
        say(f"{place} is no id")
        return None
    return raw


def _count(raw: msgspec.Raw, place: str, say: Say) -> msgspec.Raw | None:
    count = snowflake(raw)
    if count is None or count > MOST_COUNT:
        say(f"{place} is no count")
        return None
    return raw


@dataclass(frozen=True, slots=True)
class Shape:
    """An object."""

    needs: Mapping[str, Check] = field(default_factory=dict)
    """Fields without which the object is nothing."""
    may: Mapping[str, Check] = field(default_factory=dict)
    """Fields that are left out where they cannot be read. Absent and null are sound."""
    firm: Mapping[str, Check] = field(default_factory=dict)
    """Fields whose absence says something else: where one cannot be read, neither can the object."""

    def __call__(self, raw: msgspec.Raw, place: str, say: Say) -> msgspec.Raw | None:
        try:
            found = fields(raw)
        except UNREADABLE:
            say(f"{place or 'd'} is no object")
            return None
        changes: dict[str, msgspec.Raw | None] = {}
        prefix = f"{place}." if place else ""
        for name, check in self.needs.items():
            value = found.get(name)
            if value is None:
                say(f"{prefix}{name} is missing")
                return None
            if (kept := check(value, prefix + name, say)) is None:
                return None
            changes[name] = kept
        for rows, is_firm in ((self.firm, True), (self.may, False)):
            for name, check in rows.items():
                value = found.get(name)
                if value is None or value == NULL:
                    continue
                changes[name] = check(value, prefix + name, say)
                if changes[name] is None and is_firm:
                    return None
        return _changed(raw, found, changes)


def _changed(raw: msgspec.Raw, found: Fields, changes: Mapping[str, msgspec.Raw | None]) -> msgspec.Raw:
    if all(found[name] is value for name, value in changes.items()):
        return raw
    kept = {name: changes.get(name, value) for name, value in found.items()}
    return msgspec.Raw(join({name: value for name, value in kept.items() if value is not None}))


@dataclass(frozen=True, slots=True)
class Each:
    """An array; its elements that cannot be read are left out."""

    check: Check

    def __call__(self, raw: msgspec.Raw, place: str, say: Say) -> msgspec.Raw | None:
        try:
            items = raws(raw)
        except UNREADABLE:
            say(f"{place} is no array")
            return None
        found = [self.check(item, f"{place}[]", say) for item in items]
        if all(one is other for one, other in zip(items, found, strict=True)):
            return raw
        return msgspec.Raw(b"[%b]" % b",".join([bytes(item) for item in found if item is not None]))


_OBJECT = Shape()
_WITH_ID = Shape({"id": _id})
_OF_USER = Shape({"user": _WITH_ID})
_ENTITIES = Each(_WITH_ID)
_SOUNDS = Each(Shape({"sound_id": _id}))
_THREAD: Mapping[str, Check] = {"thread_metadata": _OBJECT, "parent_id": _id, "member": _OBJECT}
_THREADS = Each(Shape({"id": _id}, may=_THREAD))


def _entities(row: EntityKind) -> Check:
    """Return the shape of a list of entities: each needs its id."""
    if row.kind is Kind.THREAD:
        return _THREADS
    check: Check = _id
    for name in reversed(row.id_path):
        check = Shape({name: check})
    return Each(check)


_LISTS: Mapping[str, Check] = {name: _entities(row) for name, (_, row) in SNAPSHOTS.items()}
_EXPRESSIONS: Mapping[str, Check] = {
    name: _LISTS[name] for name, (_, row) in SNAPSHOTS.items() if row.in_guild_update
}

_OF_GUILD = Shape({"guild_id": _id, "id": _id})
_CHANNEL = Shape({"id": _id}, firm={"guild_id": _id})
_THREAD_EVENT = Shape({"id": _id}, firm={"guild_id": _id}, may=_THREAD)
_CHANNEL_DETAIL = Shape({"guild_id": _id, "id": _id})
_ROLE = Shape({"guild_id": _id, "role": _WITH_ID})
_SOUNDS_OF = Shape({"guild_id": _id}, may={"soundboard_sounds": _SOUNDS})
_MEMBER = Shape({"guild_id": _id, "user": _WITH_ID})
_INTERESTED = Shape({"guild_id": _id, "guild_scheduled_event_id": _id, "user_id": _id})
_CARRYING = Shape(firm={"guild_id": _id, "user_id": _id, "channel_id": _id}, may={"member": _OF_USER})
_MESSAGE = Shape(
    {"id": _id, "channel_id": _id}, firm={"guild_id": _id}, may={"author": _WITH_ID, "member": _OBJECT}
)
_REACTION = Shape(
    {"channel_id": _id, "message_id": _id},
    firm={"guild_id": _id, "user_id": _id},
    may={"member": _OF_USER},
)
_VOTE = Shape({"channel_id": _id, "message_id": _id, "answer_id": _id}, firm={"user_id": _id})

# What the cache reads of each event that it applies.
EVENTS: Mapping[str, Shape] = {
    # READY's lists are read leniently by its reducer: what is missing there says that guilds are gone.
    "READY": Shape(may={"user": _WITH_ID}),
    "USER_UPDATE": _WITH_ID,
    "GUILD_CREATE": Shape({"id": _id}, may={**_LISTS, "member_count": _count}),
    "GUILD_UPDATE": Shape({"id": _id}, may=_EXPRESSIONS),
    "GUILD_DELETE": _WITH_ID,
    "CHANNEL_CREATE": _CHANNEL,
    "CHANNEL_UPDATE": _CHANNEL,
    "CHANNEL_DELETE": _CHANNEL,
    "CHANNEL_PINS_UPDATE": Shape({"channel_id": _id}),
    "CHANNEL_INFO": Shape({"guild_id": _id}, may={"channels": _ENTITIES}),
    "VOICE_CHANNEL_STATUS_UPDATE": _CHANNEL_DETAIL,
    "VOICE_CHANNEL_START_TIME_UPDATE": _CHANNEL_DETAIL,
    "THREAD_CREATE": _THREAD_EVENT,
    "THREAD_UPDATE": _THREAD_EVENT,
    "THREAD_DELETE": _THREAD_EVENT,
    # Without channel_ids it speaks of the whole guild.
    "THREAD_LIST_SYNC": Shape(
        {"guild_id": _id}, firm={"channel_ids": Each(_id)}, may={"threads": _THREADS, "members": _ENTITIES}
    ),
    "THREAD_MEMBER_UPDATE": _OF_GUILD,
    "THREAD_MEMBERS_UPDATE": Shape(
        {"guild_id": _id, "id": _id},
        may={
            "member_count": _count,
            "added_members": Each(
                Shape(firm={"id": _id, "user_id": _id}, may={"member": _OF_USER, "presence": _OF_USER})
            ),
            "removed_member_ids": Each(_id),
        },
    ),
    "GUILD_ROLE_CREATE": _ROLE,
    "GUILD_ROLE_UPDATE": _ROLE,
    "GUILD_ROLE_DELETE": Shape({"guild_id": _id, "role_id": _id}),
    "GUILD_EMOJIS_UPDATE": Shape({"guild_id": _id}, may={"emojis": _ENTITIES}),
    "GUILD_STICKERS_UPDATE": Shape({"guild_id": _id}, may={"stickers": _ENTITIES}),
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE": _SOUNDS_OF,
    "SOUNDBOARD_SOUNDS": _SOUNDS_OF,
    "GUILD_MEMBER_ADD": _MEMBER,
    "GUILD_MEMBER_UPDATE": _MEMBER,
    "GUILD_MEMBER_REMOVE": _MEMBER,
    "GUILD_MEMBERS_CHUNK": Shape(
        {"guild_id": _id}, may={"members": Each(_OF_USER), "presences": Each(_OF_USER)}
    ),
    "TYPING_START": _CARRYING,
    "INTERACTION_CREATE": Shape(firm={"guild_id": _id}, may={"member": _OF_USER}),
    "PRESENCE_UPDATE": _MEMBER,
    "VOICE_STATE_UPDATE": Shape(
        {"user_id": _id}, firm={"guild_id": _id, "channel_id": _id}, may={"member": _OF_USER}
    ),
    "GUILD_SCHEDULED_EVENT_USER_ADD": _INTERESTED,
    "GUILD_SCHEDULED_EVENT_USER_REMOVE": _INTERESTED,
    **{event: Shape({"guild_id": _id, row.id_field: _id}) for row in ENTITY_KINDS for event in row.events},
    "MESSAGE_CREATE": _MESSAGE,
    "MESSAGE_UPDATE": _MESSAGE,
    "MESSAGE_DELETE": _MESSAGE,
    "MESSAGE_DELETE_BULK": Shape({"channel_id": _id}, may={"ids": Each(_id)}),
    "MESSAGE_REACTION_ADD": _REACTION,
    "MESSAGE_REACTION_REMOVE": _REACTION,
    "MESSAGE_REACTION_REMOVE_ALL": Shape({"channel_id": _id, "message_id": _id}),
    "MESSAGE_REACTION_REMOVE_EMOJI": _REACTION,
    "MESSAGE_POLL_VOTE_ADD": _VOTE,
    "MESSAGE_POLL_VOTE_REMOVE": _VOTE,
}


def repaired(name: str, d: bytes, say: Say) -> bytes | None:
    """Return the event without what cannot be read of it, and why for each; None when nothing can be taken of it."""
    shape = EVENTS.get(name, _OBJECT)
    found = shape(msgspec.Raw(_readable(d, say)), "", say)
    return None if found is None else bytes(found)


# A pair of surrogates, half a pair (the group), or any other escape.
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# Where half a pair may be: what a look finds without a step of Python's for each escape. (A backslash that is escaped
# itself is found in vain.)
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _readable(d: bytes, say: Say) -> bytes:
    """Return the same JSON as something that can be decoded: valid UTF-8, no half of a surrogate pair, not too deep."""
    try:
        d.decode()
    except UnicodeDecodeError:
        say("a string is no UTF-8")
        d = d.decode("utf-8", "replace").encode()
    if _HALF.search(d):
        whole = _ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], d)
        if whole != d:
            say("a string has half a surrogate pair")
            d = whole
    try:
        fields(d)
    except RecursionError:
        d = _shallow(d, say)
    except UNREADABLE:
        return d
    return compact(d)


def _shallow(d: bytes, say: Say) -> bytes:
    """With null in place of what is nested too deep."""
    depth, start, last = 0, 0, 0
    parts: list[bytes] = []
    for found in _TOKENS.finditer(d):
        token = d[found.start()]
        if token in b"[{":
            depth += 1
            if depth == DEEPEST + 1:
                start = found.start()
        elif token in b"]}":
            depth -= 1
            if depth == DEEPEST:
                parts += (d[last:start], b"null")
                last = found.end()
    if not parts:
        return d
    say("a value is nested too deep")
    return b"".join((*parts, d[last:]))
