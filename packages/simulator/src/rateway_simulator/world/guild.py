"""One guild of the world: its own fields, its children by id, and its roster of members.

What is stored is what GUILD_CREATE nests: channels without `guild_id`, members without `user`. Nested lists
and objects are replaced, never edited in place, so that a payload may share them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from rateway_simulator.payloads.values import Json, iso, noise
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.people import People, presence

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode
_STATUSES = ("online", "online", "idle", "dnd")


class Message:
    """A message, packed, and who stands behind its counts."""

    __slots__ = ("author_id", "packed", "reactions", "reactors", "voters")

    def __init__(self, d: Json) -> None:
        self.author_id: str = d["author"]["id"]
        self.packed = _encode(d)
        self.reactions: list[Json] = []
        # Emoji key → ids of the users whose reaction it is; an answer's id → ids of its voters.
        self.reactors: dict[str, list[str]] = {}
        self.voters: dict[str, list[str]] = {}

    @property
    def d(self) -> Json:
        """The message as it is now."""
        d: Json = _decode(self.packed)
        if self.reactions:
            d["reactions"] = self.reactions
        return d

    def replace(self, d: Json) -> None:
        """Another version of the message; its reactions are kept apart."""
        self.packed = _encode({key: value for key, value in d.items() if key != "reactions"})


class Roster:
    """The members of a guild: a run of people by index, without those that left, and those that joined later."""

    __slots__ = (
        "bot",
        "changed",
        "count",
        "first",
        "given",
        "joined",
        "people",
        "presences",
        "removed",
        "salt",
        "share",
    )

    def __init__(self, people: People, salt: int, first: int, count: int, bot: Json, share: float) -> None:
        self.people = people
        self.salt = salt
        self.first = first
        self.count = count
        # The bot's own member, without `user`; its user is kept by the world.
        self.bot = bot
        self.share = int(share * 1024)
        # Roles that the seed hands out, in their first order; deleted ones are skipped when members are read.
        self.given: tuple[str, ...] = ()
        self.removed: set[int] = set()
        # Joined after the beginning, in order; people of the first run who came back are here as well.
        self.joined: dict[int, Json] = {}
        self.changed: dict[int, Json] = {}
        # What replaced the presence that the seed gave; None: offline.
        self.presences: dict[int, Json | None] = {}

    def __len__(self) -> int:
        return self.count - len(self.removed) + len(self.joined) + 1

    def __contains__(self, index: int) -> bool:
        return index in self.joined or (
            self.first <= index < self.first + self.count and index not in self.removed
        )

    def __iter__(self) -> Iterator[int]:
        """Everyone but the bot, by index."""
        if self.removed:
            yield from (i for i in range(self.first, self.first + self.count) if i not in self.removed)
        else:
            yield from range(self.first, self.first + self.count)
        yield from tuple(self.joined)

    def pick(self, chance: Chance) -> int | None:
        """Return one of the members, not the bot; None when there is none."""
        total = self.count + len(self.joined)
        if not total:
            return None
        place = int(chance.random() * total)
        for _ in range(total):
            if place >= self.count:
                return list(self.joined)[place - self.count]
            if self.first + place not in self.removed:
                return self.first + place
            place = (place + 1) % total
        return None

    def member(self, index: int, roles: dict[str, Json]) -> Json:
        """Return a member without `user`; `roles` are the guild's, dangling ones are left out."""
        member = self.joined.get(index) or self.changed.get(index)
        if member is not None:
            return member
        bits = noise(self.people.seed, self.salt, index)
        return {
            "nick": f"{'The ' if bits & 64 else ''}{self.people.user(index)['username']}!"
            if bits & 7 == 0
            else None,
            "avatar": f"{bits:032x}" if bits & 0x1F00 == 0 else None,
            "banner": f"{bits:032x}" if bits & 0x3F00000 == 0 else None,
            "roles": self._roles(bits >> 12, roles),
            "joined_at": iso(1_520_000_000 + bits % 200_000_000),
            "premium_since": iso(1_725_000_000 + bits % 30_000_000) if bits & 0x1F000000 == 0 else None,
            "deaf": False,
            "mute": False,
            "flags": 2 if bits & 0x60000 else 0,
            "pending": bits & 0x7F80000 == 0,
            "communication_disabled_until": None,
            "avatar_decoration_data": None,
            "collectibles": None,
        }

    def _roles(self, bits: int, roles: dict[str, Json]) -> list[str]:
        return [
            role_id
            for place, role_id in enumerate(self.given)
            if bits >> place * 2 & 3 == 0 and role_id in roles
        ]

    def drop_role(self, role_id: str) -> None:
        """Remove a deleted role from all members (Discord sends GUILD_ROLE_DELETE alone)."""
        for members in (self.changed, self.joined):
            for index, member in members.items():
                if role_id in member["roles"]:
                    members[index] = {**member, "roles": [r for r in member["roles"] if r != role_id]}
        self.bot = {**self.bot, "roles": [r for r in self.bot["roles"] if r != role_id]}

    def keep(self, index: int, member: Json) -> None:
        """Store a changed member (without `user`)."""
        if index in self.joined:
            self.joined[index] = member
        else:
            self.changed[index] = member

    def add(self, index: int, member: Json) -> None:
        """Add a member."""
        self.joined[index] = member

    def remove(self, index: int) -> None:
        """A member is gone, with all that was known of them here."""
        if self.joined.pop(index, None) is None:
            self.removed.add(index)
        self.changed.pop(index, None)
        self.presences.pop(index, None)

    def presence(self, index: int, wall: float) -> Json | None:
        """Return the member's presence without `guild_id`, None for offline; `wall` as the world's beginning."""
        try:
            return self.presences[index]
        except KeyError:
            pass
        if index in self.joined:
            return None
        bits = noise(self.people.seed, self.salt, index, 3)
        if bits & 1023 >= self.share:
            return None
        return presence({"id": self.people.id_of(index)}, _STATUSES[bits >> 10 & 3], bits >> 12, wall)


class Guild:
    """A guild unfolded: everything that it holds, by id."""

    __slots__ = (
        "archived",
        "audit_log",
        "bans",
        "channels",
        "emojis",
        "events",
        "fields",
        "id",
        "index",
        "info",
        "integrations",
        "invites",
        "messages",
        "number",
        "pages",
        "participants",
        "roles",
        "roster",
        "rules",
        "sounds",
        "stages",
        "stickers",
        "subscribers",
        "thread_people",
        "threads",
        "touched",
        "voice_states",
        "webhooks",
    )

    def __init__(self, index: int, number: int, fields: Json, roster: Roster) -> None:
        self.index = index
        self.number = number
        self.id = str(number)
        # The guild's own fields: the guild object without its lists, with `joined_at` and `large`.
        self.fields = fields
        self.roster = roster
        # Whether anything differs from what the seed gave; such a guild cannot be forgotten.
        self.touched = False
        self.roles: dict[str, Json] = {}
        self.channels: dict[str, Json] = {}
        self.threads: dict[str, Json] = {}
        self.archived: dict[str, Json] = {}
        # Thread id → ids of its members, the bot among them or not.
        self.thread_people: dict[str, list[str]] = {}
        self.emojis: dict[str, Json] = {}
        self.stickers: dict[str, Json] = {}
        self.sounds: dict[str, Json] = {}
        self.voice_states: dict[str, Json] = {}
        self.stages: dict[str, Json] = {}
        self.events: dict[str, Json] = {}
        # Scheduled event id → ids of the users interested in it.
        self.subscribers: dict[str, list[str]] = {}
        self.integrations: dict[str, Json] = {}
        self.rules: dict[str, Json] = {}
        # Webhook id → webhook with its `channel_id`; code → invite as INVITE_CREATE tells it.
        self.webhooks: dict[str, Json] = {}
        self.invites: dict[str, Json] = {}
        # The newest entries of the audit log, oldest first.
        self.audit_log: list[Json] = []
        # What only REST shows, without events: `welcome_screen`, `onboarding`, `templates`.
        self.pages: dict[str, Json] = {}
        self.bans: set[str] = set()
        # Voice channel id → `status` and `voice_start_time`, which no snapshot contains.
        self.info: dict[str, Json] = {}
        self.messages: dict[str, dict[str, Message]] = {}
        # Channel id → users connected to it, derived from the voice states.
        self.participants: dict[str, set[str]] = {}

    def place(self, channel_id: str) -> Json | None:
        """Return a channel or active thread."""
        return self.channels.get(channel_id) or self.threads.get(channel_id)


_PLAIN: Final = (
    "archived",
    "audit_log",
    "channels",
    "emojis",
    "events",
    "fields",
    "info",
    "integrations",
    "invites",
    "pages",
    "roles",
    "rules",
    "sounds",
    "stages",
    "stickers",
    "subscribers",
    "thread_people",
    "threads",
    "voice_states",
    "webhooks",
)


def fold(guild: Guild) -> bytes:
    """Return a guild as compressed bytes, for a world that has more of them than fit unfolded."""
    roster = guild.roster
    messages = {
        channel_id: {key: (m.packed, m.reactions, m.reactors, m.voters) for key, m in kept.items()}
        for channel_id, kept in guild.messages.items()
    }
    people = (roster.bot, list(roster.removed), roster.joined, roster.changed, roster.presences)
    everything = ([getattr(guild, name) for name in _PLAIN], list(guild.bans), messages, people)
    return zlib.compress(_encode(everything), 1)


def unfold(data: bytes, guild: Guild) -> Guild:
    """Restore the guild that was folded, from the one that the seed gives for its index."""
    plain, bans, messages, people = _decode(zlib.decompress(data))
    for name, value in zip(_PLAIN, plain, strict=True):
        setattr(guild, name, value)
    guild.bans = set(bans)
    guild.messages = {}
    for channel_id, kept in messages.items():
        guild.messages[channel_id] = {key: _message(*parts) for key, parts in kept.items()}
    roster = guild.roster
    roster.bot, removed, roster.joined, roster.changed, roster.presences = people
    roster.removed = set(removed)
    guild.participants = {}
    for state in guild.voice_states.values():
        guild.participants.setdefault(state["channel_id"], set()).add(state["user_id"])
    guild.touched = True
    return guild


def _message(packed: bytes, reactions: list[Json], reactors: Json, voters: Json) -> Message:
    message = Message(_decode(packed))
    message.packed, message.reactions, message.reactors, message.voters = packed, reactions, reactors, voters
    return message
