"""Leave fields out of entities: what the settings exclude is removed from events before anything else reads them.

So that nothing behind it needs to know, and that it costs nothing where all fields are kept: only the events that
carry such an entity are touched, and only when there is something to take out. What an older setting has left in the
store is taken out of answers, until the guild comes anew (:meth:`Slim.answer`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from rateway.native.objects.fields import NULL, Fields, fields, join, raws

__all__ = ["ALWAYS", "Choice", "FieldChoices", "Slim", "slim_of"]

FieldChoices: TypeAlias = tuple[tuple[str, frozenset[str]], ...]
"""Kind → names of fields: these only, or with ``-`` before each, all but these."""

# What the cache itself, the contract's answers and permissions rest on: it cannot be left out.
ALWAYS: Mapping[str, frozenset[str]] = {
    "guilds": frozenset({"id", "name", "owner_id", "unavailable", "member_count", "joined_at", "large"}),
    "members": frozenset({"user", "guild_id", "roles", "communication_disabled_until"}),
    "users": frozenset({"id", "username", "discriminator", "bot"}),
    "presences": frozenset({"user", "guild_id", "status"}),
    "messages": frozenset(
        {"id", "channel_id", "guild_id", "author", "member", "type", "webhook_id", "channel_type", "flags"}
    ),
}

# A guild's lists are entities of their own, with switches of their own.
_LISTS = frozenset(
    {
        "channels", "threads", "roles", "emojis", "stickers", "members", "presences", "voice_states",
        "stage_instances", "guild_scheduled_events", "soundboard_sounds",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """Which fields of one kind are kept."""

    only: frozenset[str] | None
    without: frozenset[str]

    @classmethod
    def of(cls, kind: str, names: frozenset[str]) -> Choice:
        """A choice as it is written in the settings."""
        without = frozenset(name[1:] for name in names if name.startswith("-"))
        only = frozenset(name for name in names if not name.startswith("-"))
        return cls(only | ALWAYS[kind] if only else None, without - ALWAYS[kind])

    def keeps(self, name: str) -> bool:
        return name not in self.without and (self.only is None or name in self.only)

    def outgrows(self, other: Choice) -> bool:
        """Whether this keeps a field that the other does not."""
        named = {*(self.only or ()), *self.without, *(other.only or ()), *other.without}
        # Beside those that are named there is any other, for which no name stands.
        return any(self.keeps(name) and not other.keeps(name) for name in (*named, ""))


EVERYTHING = Choice(None, frozenset())

_Change: TypeAlias = Callable[[Fields], None]


class Slim:
    """The choices of one policy at work."""

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self.choices = choices
        self._changes: dict[str, _Change] = {
            "guilds": lambda found: self._take_out("guilds", found, _LISTS),
            "members": self._member,
            "users": lambda found: self._take_out("users", found),
            "presences": self._presence,
            "messages": lambda found: self._take_out("messages", found),
            "joiners": self._joiner,
        }

    def wanted(self, event: str) -> bool:
        """Whether such an event carries anything to be taken out."""
        return any(self._concerns(kind) for _, kind in PLACES.get(event, ()))

    def event(self, name: str, d: bytes) -> bytes:
        """The event without what is left out. ``msgspec.DecodeError`` when it is no object."""
        found = fields(d)
        for place, kind in PLACES[name]:
            if not self._concerns(kind):
                continue
            change = self._changes[kind]
            if not place:
                change(found)
            elif place.endswith("[]"):
                _change_each(found, place[:-2], change)
            else:
                _change_one(found, place, change)
        return join(found)

    def answer(self, kind: str, found: Fields) -> Fields:
        """An entity as it is answered; changes and returns what was given."""
        self._changes[kind](found)
        return found

    def _concerns(self, kind: str) -> bool:
        return any(each in self.choices for each in _WITHIN.get(kind, (kind,)))

    def _take_out(self, kind: str, found: Fields, besides: frozenset[str] = frozenset()) -> None:
        choice = self.choices.get(kind)
        if choice is not None:
            for name in [name for name in found if not choice.keeps(name) and name not in besides]:
                del found[name]

    def _member(self, found: Fields) -> None:
        self._take_out("members", found)
        self._user_in(found)

    def _presence(self, found: Fields) -> None:
        self._take_out("presences", found)
        self._user_in(found)

    def _user_in(self, found: Fields) -> None:
        if "users" in self.choices:
            _change_one(found, "user", self._changes["users"])

    def _joiner(self, found: Fields) -> None:
        """Who joined a thread: member and presence come along."""
        _change_one(found, "member", self._member)
        _change_one(found, "presence", self._presence)


# Kinds whose objects hold others.
_WITHIN = {
    "members": ("members", "users"),
    "presences": ("presences", "users"),
    "joiners": ("members", "users", "presences"),
}

# Event → where in it such an entity stands ("" itself, "x" in a field, "x[]" in a field's array) and what it is.
PLACES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "GUILD_CREATE": (("", "guilds"), ("members[]", "members"), ("presences[]", "presences")),
    "GUILD_UPDATE": (("", "guilds"),),
    "GUILD_MEMBER_ADD": (("", "members"),),
    "GUILD_MEMBER_UPDATE": (("", "members"),),
    "GUILD_MEMBER_REMOVE": (("user", "users"),),
    "GUILD_MEMBERS_CHUNK": (("members[]", "members"), ("presences[]", "presences")),
    "PRESENCE_UPDATE": (("", "presences"),),
    "TYPING_START": (("member", "members"),),
    "INTERACTION_CREATE": (("member", "members"),),
    "VOICE_STATE_UPDATE": (("member", "members"),),
    "THREAD_MEMBERS_UPDATE": (("added_members[]", "joiners"),),
    "MESSAGE_REACTION_ADD": (("member", "members"),),
    "MESSAGE_CREATE": (("", "messages"), ("author", "users"), ("member", "members")),
    "MESSAGE_UPDATE": (("", "messages"), ("author", "users")),
}


def _change_one(found: Fields, name: str, change: _Change) -> None:
    raw = found.get(name)
    if raw is not None and raw != NULL:
        inner = fields(raw)
        change(inner)
        found[name] = msgspec.Raw(join(inner))


def _change_each(found: Fields, name: str, change: _Change) -> None:
    items = []
    for raw in raws(found.get(name)):
        inner = fields(raw)
        change(inner)
        items.append(join(inner))
    if items:
        found[name] = msgspec.Raw(b"[%b]" % b",".join(items))


@functools.lru_cache(8)
def slim_of(given: FieldChoices) -> Slim | None:
    """What takes fields out; None when all are kept."""
    choices = {kind: Choice.of(kind, names) for kind, names in given if names}
    return Slim(choices) if choices else None
