"""What does the cache say about one entity? Reading: rows, pages and side tables put together to Discord's own objects.

An answer is a dict of field name → raw JSON, complete: with ``guild_id``, with what is tracked beside the object
(``last_message_id``, counters, the bot's own thread membership).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping

import msgspec

from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.objects import FALSE, Fields, fields, integer, join, raws, snowflake, text
from rateway.cache.policy import written_since
from rateway.cache.shelf import Kind, ShelfReader
from rateway.cache.storage import Reading, Table

__all__ = ["CHANNELS", "DIRECT", "THREAD_TYPES", "TIP", "View", "key8"]

# Direct channels belong to no guild; they stand under a number that no guild has.
DIRECT = 0

CHANNELS = (Kind.CHANNEL, Kind.THREAD)
# https://docs.discord.com/developers/resources/channel#channel-object-channel-types
THREAD_TYPES = frozenset({10, 11, 12})

# A bot may share ten thousand guilds with ours, and looking for the newest of so many snapshots of it would take
# milliseconds. What changed while we listened is known from events; these are for what changed before.
MOST_SNAPSHOTS = 32

# Newest message, then what message events added to a thread's counters since its object came.
TIP = struct.Struct(">Qii")
_STAMPED = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")
_NUMBERED = struct.Struct(">QQ")
_TRUE = msgspec.Raw(b"true")


def key8(entity_id: int) -> bytes:
    """An id as a key."""
    return entity_id.to_bytes(8, "big")


class View:
    """One store as it is at one moment.

    ``doubts`` outlives the moment: kind → the stamp that its incompleteness was looked at for, and a guild found to be
    incomplete then (:meth:`is_complete`).
    """

    def __init__(
        self,
        reading: Reading,
        shelf: ShelfReader | None = None,
        doubts: dict[str, tuple[int, int | None]] | None = None,
    ) -> None:
        self.reading = reading
        self.shelf = ShelfReader(reading) if shelf is None else shelf
        self._doubts = {} if doubts is None else doubts
        self._since: Mapping[str, int] | None = None

    # completeness

    def incomplete_since(self, kind: str) -> int:
        """The stamp before which guilds came without that kind, or with less of it; 0 when none did."""
        if self._since is None:
            self._since = written_since(self.reading)
        return self._since.get(kind, 0)

    def is_complete(self, kind: str) -> bool:
        """Whether every guild came since that kind is kept. Guilds only become complete, hence the memory."""
        since = self.incomplete_since(kind)
        if not since:
            return True
        known = self._doubts.get(kind)
        if known is not None and known[0] == since:
            if known[1] is None:
                return True
            row = self.guild_row(known[1])
            if row is not None and row.stamp < since:
                return False
        doubted = next((guild_id for guild_id, row in self.guild_rows() if row.stamp < since), None)
        self._doubts[kind] = (since, doubted)
        return doubted is None

    # guilds

    def guild_row(self, guild_id: int) -> GuildRow | None:
        value = self.reading.get(Table.GUILDS, key8(guild_id))
        return None if value is None else GuildRow.unpack(value)

    def guild_rows(self, after: int = -1) -> Iterator[tuple[int, GuildRow]]:
        for key, value in self.reading.scan(Table.GUILDS, key8(after + 1), b"\xff" * 9):
            yield int.from_bytes(key, "big"), GuildRow.unpack(value)

    def number_of(self, guild_id: int) -> int | None:
        """What a guild's children are keyed by; None when it is not known or has none yet."""
        row = self.guild_row(guild_id)
        return row.number or None if row is not None else None

    def guild_of(self, number: int) -> tuple[int, int] | None:
        """A number's guild id and the stamp of its last full GUILD_CREATE."""
        value = self.reading.get(Table.NUMBERS, _NUMBER.pack(number))
        return None if value is None else _NUMBERED.unpack(value)

    def guild(self, guild_id: int) -> Fields | None:
        """A guild's own fields; only ``id`` and ``unavailable`` when no full GUILD_CREATE has come."""
        row = self.guild_row(guild_id)
        return None if row is None else self.guild_fields(guild_id, row)

    def guild_fields(self, guild_id: int, row: GuildRow) -> Fields:
        found = fields(row.body) if row.packed else {"id": text(guild_id)}
        if row.member_count is not None:
            found["member_count"] = integer(row.member_count)
        # After a new session a guild's rows are readable, if old, until its GUILD_CREATE replaces them.
        readable = row.state is GuildState.AVAILABLE or (row.state is GuildState.PENDING and row.packed)
        found["unavailable"] = FALSE if readable else _TRUE
        return found

    # children of every kind

    def child(self, number: int, kind: int, entity_id: int) -> Fields | None:
        """An entity of a guild, with ``guild_id``."""
        raw = self.shelf.get(number, kind, entity_id)
        return None if raw is None else self.finish(number, kind, entity_id, raw)

    def children(self, number: int, kind: int, after: int = -1) -> Iterator[tuple[int, Fields]]:
        """A guild's entities of a kind, ascending by id."""
        guild = self._guild_id(number)
        removed = self.removed_roles(number) if kind == Kind.MEMBER else frozenset()
        for entity_id, raw in self.shelf.walk(number, kind, after):
            yield entity_id, self._finish(number, kind, entity_id, raw, guild, removed)

    def _guild_id(self, number: int) -> msgspec.Raw | None:
        guild = self.guild_of(number) if number != DIRECT else None
        return None if guild is None else text(guild[0])

    def finish(self, number: int, kind: int, entity_id: int, raw: bytes) -> Fields:
        """A stored object as it is answered."""
        removed = self.removed_roles(number) if kind == Kind.MEMBER else frozenset()
        return self._finish(number, kind, entity_id, raw, self._guild_id(number), removed)

    def _finish(
        self,
        number: int,
        kind: int,
        entity_id: int,
        raw: bytes,
        guild: msgspec.Raw | None,
        removed: Collection[int],
    ) -> Fields:
        found = fields(raw)
        if guild is not None:
            found["guild_id"] = guild
        if kind in CHANNELS:
            self._finish_channel(number, kind, entity_id, found)
        elif kind == Kind.MEMBER:
            self._finish_member(number, entity_id, found, removed)
        elif kind == Kind.PRESENCE:
            # A presence carries as much of its user as changed; the user has an entity of its own.
            found["user"] = msgspec.Raw(b'{"id":"%d"}' % entity_id)
        return found

    def _finish_channel(self, number: int, kind: int, channel_id: int, found: Fields) -> None:
        tip = self.tip_of(channel_id)
        if tip is not None:
            newest, messages, sent = tip
            if newest > (snowflake(found.get("last_message_id")) or 0):
                found["last_message_id"] = text(newest)
            if kind == Kind.THREAD:
                for name, change in (("message_count", messages), ("total_message_sent", sent)):
                    if change and name in found:
                        found[name] = integer(max(0, (snowflake(found[name]) or 0) + change))
        if kind == Kind.THREAD:
            own = self.shelf.get(number, Kind.THREAD_MEMBER, channel_id)
            if own is not None:
                found["member"] = msgspec.Raw(own)

    def _finish_member(self, number: int, user_id: int, found: Fields, removed: Collection[int]) -> None:
        user = self.user(user_id, found.get("user"), number)
        if user is not None:
            found["user"] = msgspec.Raw(user[1])
        if removed and "roles" in found:
            kept = [role for role in raws(found["roles"]) if snowflake(role) not in removed]
            found["roles"] = msgspec.Raw(join_raws(kept))

    def removed_roles(self, number: int) -> frozenset[int]:
        """Roles deleted since, whose ids members may still carry."""
        ids = self.reading.get(Table.META, b"removed-roles:" + _NUMBER.pack(number))
        return frozenset(struct.unpack(f">{len(ids) // 8}Q", ids)) if ids else frozenset()

    def home(self, kind: int, entity_id: int) -> int | None:
        """The number of the guild that holds an entity of an indexed kind."""
        homes = self.shelf.homes(kind, entity_id)
        return homes[-1] if homes else None

    def channel(self, channel_id: int) -> tuple[int, Fields] | None:
        """A channel or thread and its guild's number (:data:`DIRECT` for a direct one)."""
        for kind in CHANNELS:
            number = self.home(kind, channel_id)
            if number is not None:
                found = self.child(number, kind, channel_id)
                if found is not None:
                    return number, found
        return None

    def tip_of(self, channel_id: int) -> tuple[int, int, int] | None:
        """A channel's newest message, and what messages added to a thread's two counters since its object came."""
        tip = self.reading.get(Table.TIPS, key8(channel_id))
        return None if tip is None else TIP.unpack(tip)

    def channel_details(self, number: int, channel_id: int) -> Fields:
        """A voice channel's ``status`` and ``voice_start_time``, as far as told; no fields of the channel object."""
        side = self.shelf.get(number, Kind.SIDE, channel_id)
        return {} if side is None else fields(side)

    # people

    def user(
        self, user_id: int, embedded: bytes | msgspec.Raw | None = None, number: int | None = None
    ) -> tuple[int, bytes] | None:
        """A user and the stamp of what is known about it: the newest of its own row and its guilds' snapshots.

        ``embedded`` is the user inside the member of the guild ``number``, for a caller who has just read it.
        """
        value = self.reading.get(Table.USERS, key8(user_id))
        own = (0, b"") if value is None else (_STAMPED.unpack_from(value)[0], value[8:])
        for stamp, home in self.snapshots_of(user_id, own[0], MOST_SNAPSHOTS, number):
            if home == number:
                raw = embedded
            else:
                member = self.shelf.get(home, Kind.MEMBER, user_id)
                raw = fields(member).get("user") if member is not None else None
            if raw is not None:
                return stamp, bytes(raw)
        return own if own[1] else None

    def snapshots_of(
        self, user_id: int, newer_than: int = 0, most: int | None = None, here: int | None = None
    ) -> list[tuple[int, int]]:
        """The guilds whose last full GUILD_CREATE may hold a user: its stamp and the guild's number, newest first.

        With ``most`` no more than so many are looked at, ``here`` always among them.
        """
        found = []
        homes = self.shelf.homes(Kind.MEMBER, user_id, most)
        if len(homes) == most and here is not None and here not in homes:
            homes.append(here)
        for home in homes:
            guild = self.guild_of(home)
            if guild is not None and guild[1] > newer_than:
                found.append((guild[1], home))
        found.sort(reverse=True)
        return found

    def current_user(self) -> tuple[int, bytes] | None:
        """The bot's own user and the stamp of what is known about it."""
        value = self.reading.get(Table.META, b"me")
        return None if value is None else (_STAMPED.unpack_from(value)[0], value[8:])

    def mutual_guilds(self, user_id: int) -> list[int]:
        """The guilds in which a user is a cached member."""
        found = (self.guild_of(number) for number in self.shelf.homes(Kind.MEMBER, user_id))
        return [guild[0] for guild in found if guild is not None]

    # messages

    def message(self, channel_id: int, message_id: int) -> Fields | None:
        raw = self.reading.get(Table.MESSAGES, key8(channel_id) + key8(message_id))
        return None if raw is None else fields(raw)


def join_raws(items: list[msgspec.Raw]) -> bytes:
    """Items to an array's JSON."""
    return b"[%b]" % b",".join(items)


def encode(found: Fields) -> bytes:
    """An answer's JSON."""
    return join(found)
