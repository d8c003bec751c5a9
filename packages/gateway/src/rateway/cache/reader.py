"""Read entities: rows, pages and side tables put together to Discord's own objects.

What is returned is complete: with ``guild_id``, with what is tracked beside the object (``last_message_id``, counters,
the bot's own thread membership). It is JSON, mostly the stored bytes and one field more, or a dict of its raw fields.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping

import msgspec
from rateway.cache import position
from rateway.cache.entity_store import EntityStoreReader
from rateway.cache.guild_row import GuildRow, GuildState, standing
from rateway.cache.kinds import Kind
from rateway.cache.policy import written_since
from rateway.cache.storage import Reading, Table
from rateway.native.objects import drop_fields, field, merge
from rateway.native.objects.fields import Fields, fields, raws_inside, snowflake
from rateway.native.rows import TIP

__all__ = ["CHANNELS", "COLD", "DIRECT", "THREAD_TYPES", "View", "key8"]

# Direct channels belong to no guild; they stand under a number that no guild has.
DIRECT = 0

CHANNELS = (Kind.CHANNEL, Kind.THREAD)
# https://docs.discord.com/developers/resources/channel#channel-object-channel-types
THREAD_TYPES = frozenset({10, 11, 12})

# A bot may share ten thousand guilds with ours, and looking for the newest of so many snapshots of it would take
# milliseconds. What changed while we listened is known from events; these are for what changed before.
MOST_SNAPSHOTS = 32

# Of a key in ``Table.META``: a shard whose guilds are not known.
COLD = b"cold:"
_STAMPED = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")
_NUMBERED = struct.Struct(">QQ")
# Plain numbers: reading an enumeration's member takes 0.1 µs.
_USERS, _NUMBERS = int(Table.USERS), int(Table.NUMBERS)
_MEMBER = int(Kind.MEMBER)
_NOTHING = (0, b"")
_NO_ROLES: Collection[int] = frozenset()
_EMPTY = b"{}"


def key8(entity_id: int) -> bytes:
    """Return an id as a key."""
    return entity_id.to_bytes(8, "big")


class View:
    """One store as it is at one moment.

    ``doubts`` outlives the moment: kind → the stamp that its incompleteness was looked at for, and a guild found to be
    incomplete then (:meth:`is_complete`).
    """

    def __init__(
        self,
        reading: Reading,
        entity_store: EntityStoreReader | None = None,
        doubts: dict[str, tuple[int, int | None]] | None = None,
    ) -> None:
        self.reading = reading
        self.entity_store = EntityStoreReader(reading) if entity_store is None else entity_store
        self._doubts = {} if doubts is None else doubts
        self._since: Mapping[str, int] | None = None

    def go_on(self) -> None:
        """The store is read as it is at another moment from now on."""
        self._since = None
        self.entity_store.go_on()

    # shards

    def position(self, shard_id: int) -> tuple[str, int] | None:
        """Return the session whose events of a shard are in the store, as the contract's ``message_id`` names it, and
        the sequence number up to which they are; None when the shard has never had one.
        """
        value = self.reading.get(Table.APPLIED, position.shard_key(shard_id))
        found = None if value is None else position.unpack(value)
        return found if found is not None and found[0] else None

    def application(self) -> bytes | None:
        """READY's ``application``; None when no READY has come since it is kept."""
        return self.reading.get(Table.META, b"application")

    def guilds_standing(self) -> Iterator[tuple[int, GuildState, int, int]]:
        """Every guild's id, state, shard and the stamp of its last full GUILD_CREATE, ascending by id."""
        for key, value in self.reading.scan(Table.GUILDS, b"", b"\xff" * 9):
            yield int.from_bytes(key, "big"), *standing(value)

    def cold_shards(self) -> Mapping[int, int]:
        """Return the shards of which not even the guilds are known (``prune.clear``), each with the stamp of then."""
        rows = self.reading.scan(Table.META, COLD, COLD + b"\xff" * 5)
        return {_NUMBER.unpack_from(key, len(COLD))[0]: _STAMPED.unpack(value)[0] for key, value in rows}

    # completeness

    def incomplete_since(self, kind: str) -> int:
        """Return the stamp before which guilds came without that kind, or with less of it; 0 when none did."""
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

    def guild_count(self) -> int:
        """Return how many guilds the store holds, those in an outage included."""
        return self.reading.entries(Table.GUILDS)

    def number_of(self, guild_id: int) -> int | None:
        """Return the key of a guild's children; None when it is not known or has none yet."""
        row = self.guild_row(guild_id)
        return row.number or None if row is not None else None

    def guild_of(self, number: int) -> tuple[int, int] | None:
        """Return a number's guild id and the stamp of its last full GUILD_CREATE."""
        value = self.reading.get(_NUMBERS, _NUMBER.pack(number))
        return None if value is None else _NUMBERED.unpack(value)

    def guild(self, guild_id: int) -> Fields | None:
        """Return a guild's own fields; only ``id`` and ``unavailable`` when no full GUILD_CREATE has come."""
        row = self.guild_row(guild_id)
        return None if row is None else self.guild_fields(guild_id, row)

    def guild_fields(self, guild_id: int, row: GuildRow) -> Fields:
        return fields(self.guild_told(guild_id, row))

    def guild_told(self, guild_id: int, row: GuildRow) -> bytes:
        """:meth:`guild` as JSON. A row's body has neither ``member_count`` nor ``unavailable``."""
        body = row.body if row.packed else b'{"id":"%d"}' % guild_id
        # After a new session a guild's rows are readable, if old, until its GUILD_CREATE replaces them.
        readable = row.state is GuildState.AVAILABLE or (row.state is GuildState.PENDING and row.packed)
        outage = b"false" if readable else b"true"
        if row.member_count is None:
            return b'%b,"unavailable":%b}' % (body[:-1], outage)
        return b'%b,"member_count":%d,"unavailable":%b}' % (body[:-1], row.member_count, outage)

    # children of every kind

    def child(self, number: int, kind: int, entity_id: int) -> Fields | None:
        """Return an entity of a guild, with ``guild_id``."""
        told = self.told(number, kind, entity_id)
        return None if told is None else fields(told)

    def children(self, number: int, kind: int, after: int = -1) -> Iterator[tuple[int, Fields]]:
        """A guild's entities of a kind, ascending by id."""
        for entity_id, told in self.all_told(number, kind, after):
            yield entity_id, fields(told)

    def told(self, number: int, kind: int, entity_id: int, guild_id: int | None = None) -> bytes | None:
        """Return an entity of a guild as JSON, with ``guild_id``, which a caller may know already."""
        raw = self.entity_store.get(number, kind, entity_id)
        if raw is None:
            return None
        if guild_id is None and number != DIRECT:
            guild = self.guild_of(number)
            guild_id = guild[0] if guild is not None else None
        removed = self.removed_roles(number) if kind == _MEMBER else _NO_ROLES
        return self._told(number, kind, entity_id, raw, guild_id, removed)

    def all_told(self, number: int, kind: int, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """A guild's entities of a kind as JSON, ascending by id."""
        guild = self.guild_of(number) if number != DIRECT else None
        guild_id = guild[0] if guild is not None else None
        removed = self.removed_roles(number) if kind == _MEMBER else _NO_ROLES
        for entity_id, raw in self.entity_store.walk(number, kind, after):
            yield entity_id, self._told(number, kind, entity_id, raw, guild_id, removed)

    def all_inside(
        self, number: int, kind: int, guild_id: int, *, names_guild: bool
    ) -> Iterator[tuple[int, bytes]]:
        """A guild's entities of a kind as they stand inside a GUILD_CREATE: with ``guild_id`` if ``names_guild``."""
        removed = self.removed_roles(number) if kind == _MEMBER else _NO_ROLES
        named = guild_id if names_guild else None
        for entity_id, raw in self.entity_store.walk(number, kind):
            told = self._told(number, kind, entity_id, raw, named, removed)
            yield entity_id, told if names_guild else _without_guild(told)

    def member_inside(self, number: int, user_id: int) -> bytes | None:
        """Return a member with its user as it stands inside a GUILD_CREATE."""
        raw = self.entity_store.get(number, _MEMBER, user_id)
        if raw is None:
            return None
        return _without_guild(self._told(number, _MEMBER, user_id, raw, None, self.removed_roles(number)))

    def presence_inside(self, number: int, user_id: int) -> bytes | None:
        """Return a presence as it stands inside a GUILD_CREATE."""
        raw = self.entity_store.get(number, Kind.PRESENCE, user_id)
        if raw is None:
            return None
        return _without_guild(self._told(number, Kind.PRESENCE, user_id, raw, None, _NO_ROLES))

    def _told(
        self,
        number: int,
        kind: int,
        entity_id: int,
        raw: bytes,
        guild_id: int | None,
        removed: Collection[int],
    ) -> bytes:
        """Return a stored object as it is answered: mostly its own bytes and one field more."""
        if kind == _MEMBER:
            raw = self._member(number, entity_id, raw, removed)
        elif kind in CHANNELS:
            raw = self._channel(number, kind, entity_id, raw)
        elif kind == Kind.PRESENCE:
            # A presence carries as much of its user as changed; the user has an entity of its own.
            raw = merge(raw, b'{"user":{"id":"%d"}}' % entity_id)
        if guild_id is None:
            return raw
        if b'"guild_id":' in raw or len(raw) <= len(_EMPTY):
            return merge(raw, b'{"guild_id":"%d"}' % guild_id)
        return b'%b,"guild_id":"%d"}' % (raw[:-1], guild_id)

    def _channel(self, number: int, kind: int, channel_id: int, raw: bytes) -> bytes:
        tip = self.tip_of(channel_id)
        if tip is not None:
            newest, messages, sent = tip
            if newest > _number_in(raw, b"last_message_id"):
                raw = merge(raw, b'{"last_message_id":"%d"}' % newest)
            if kind == Kind.THREAD:
                for name, change in ((b"message_count", messages), (b"total_message_sent", sent)):
                    if change and field(raw, name) is not None:
                        raw = merge(raw, b'{"%b":%d}' % (name, max(0, _number_in(raw, name) + change)))
        if kind == Kind.THREAD:
            own = self.entity_store.get(number, Kind.THREAD_MEMBER, channel_id)
            if own is not None:
                raw = merge(raw, b'{"member":%b}' % own)
        return raw

    def _member(self, number: int, user_id: int, raw: bytes, removed: Collection[int]) -> bytes:
        value = self.reading.get(_USERS, key8(user_id))
        homes = self.entity_store.homes(_MEMBER, user_id, MOST_SNAPSHOTS)
        # Of most users nothing is known but what stands in the member of the one guild that they share with the bot.
        if value is not None or homes != [number]:
            own = _NOTHING if value is None else (_STAMPED.unpack_from(value)[0], value[8:])
            newest = self._newest(homes, own[0], number)
            if not newest or newest[0][1] != number or b'"user":{' not in raw:
                embedded = field(raw, b"user")
                user = self._user(user_id, own, newest, embedded, number)
                if user is not None and user[1] != embedded:
                    raw = merge(raw, b'{"user":%b}' % user[1])
        if removed and (roles := field(raw, b"roles")) is not None:
            items = raws_inside(roles)
            kept = [role for role in items if snowflake(role) not in removed]
            if len(kept) < len(items):
                raw = merge(raw, b'{"roles":%b}' % join_raws(kept))
        return raw

    def removed_roles(self, number: int) -> frozenset[int]:
        """Roles deleted since, whose ids members may still carry."""
        ids = self.reading.get(Table.META, b"removed-roles:" + _NUMBER.pack(number))
        return frozenset(struct.unpack(f">{len(ids) // 8}Q", ids)) if ids else frozenset()

    def home(self, kind: int, entity_id: int) -> int | None:
        """Return the number of the guild that holds an entity of an indexed kind."""
        homes = self.entity_store.homes(kind, entity_id)
        return homes[-1] if homes else None

    def channel(self, channel_id: int) -> tuple[int, Fields] | None:
        """Return a channel or thread and its guild's number (:data:`DIRECT` for a direct one)."""
        for kind in CHANNELS:
            number = self.home(kind, channel_id)
            if number is not None:
                found = self.child(number, kind, channel_id)
                if found is not None:
                    return number, found
        return None

    def tip_of(self, channel_id: int) -> tuple[int, int, int] | None:
        """Return a channel's newest message, and what messages added to a thread's two counters since its
        object came.
        """
        tip = self.reading.get(Table.TIPS, key8(channel_id))
        return None if tip is None else TIP.unpack(tip)

    def channel_details(self, number: int, channel_id: int) -> bytes:
        """Return a voice channel's ``status`` and ``voice_start_time``, as far as known; no fields of the channel
        object.
        """
        return self.entity_store.get(number, Kind.SIDE, channel_id) or _EMPTY

    # people

    def user(
        self, user_id: int, embedded: bytes | msgspec.Raw | None = None, number: int | None = None
    ) -> tuple[int, bytes] | None:
        """Return a user and the stamp of what is known about it: the newest of its own row and its guilds' snapshots.

        ``embedded`` is the user inside the member of the guild ``number``, where the caller has just read it.
        """
        value = self.reading.get(_USERS, key8(user_id))
        own = _NOTHING if value is None else (_STAMPED.unpack_from(value)[0], value[8:])
        newest = self.snapshots_of(user_id, own[0], MOST_SNAPSHOTS, number)
        return self._user(user_id, own, newest, embedded, number)

    def _user(
        self,
        user_id: int,
        own: tuple[int, bytes],
        newest: list[tuple[int, int]],
        embedded: bytes | msgspec.Raw | None,
        number: int | None,
    ) -> tuple[int, bytes] | None:
        """Return the first of the snapshots that has the user, else its ``own`` row."""
        for stamp, home in newest:
            raw = embedded
            if home != number:
                member = self.entity_store.get(home, _MEMBER, user_id)
                raw = field(member, b"user") if member is not None else None
            if raw is not None:
                return stamp, bytes(raw)
        return own if own[1] else None

    def snapshots_of(
        self, user_id: int, newer_than: int = 0, most: int | None = None, here: int | None = None
    ) -> list[tuple[int, int]]:
        """Return the guilds whose last full GUILD_CREATE may hold a user: its stamp and the guild's number, newest
        first.

        With ``most`` no more than so many are looked at, ``here`` always among them.
        """
        return self._newest(self.entity_store.homes(_MEMBER, user_id, most), newer_than, here, most)

    def _newest(
        self, homes: list[int], newer_than: int, here: int | None, most: int | None = MOST_SNAPSHOTS
    ) -> list[tuple[int, int]]:
        """:meth:`snapshots_of` a user of these guilds."""
        found = []
        if len(homes) == most and here is not None and here not in homes:
            homes.append(here)
        for home in homes:
            guild = self.guild_of(home)
            if guild is not None and guild[1] > newer_than:
                found.append((guild[1], home))
        if len(found) > 1:
            found.sort(reverse=True)
        return found

    def current_user(self) -> tuple[int, bytes] | None:
        """Return the bot's own user and the stamp of what is known about it."""
        value = self.reading.get(Table.META, b"me")
        return None if value is None else (_STAMPED.unpack_from(value)[0], value[8:])

    def mutual_guilds(self, user_id: int) -> list[int]:
        """Return the guilds in which a user is a cached member."""
        found = (self.guild_of(number) for number in self.entity_store.homes(Kind.MEMBER, user_id))
        return [guild[0] for guild in found if guild is not None]

    # messages

    def message(self, channel_id: int, message_id: int) -> Fields | None:
        told = self.message_told(channel_id, message_id)
        return None if told is None else fields(told)

    def message_told(self, channel_id: int, message_id: int) -> bytes | None:
        """Return a message as JSON."""
        return self.reading.get(Table.MESSAGES, key8(channel_id) + key8(message_id))


def _without_guild(told: bytes) -> bytes:
    """Return an entity without a ``guild_id`` of its own."""
    return drop_fields(told, (b"guild_id",)) if b'"guild_id"' in told else told


def join_raws(items: list[msgspec.Raw]) -> bytes:
    """Items to an array's JSON."""
    return b"[%b]" % b",".join(items)


def _number_in(raw: bytes, name: bytes) -> int:
    """Return an id or a count in an object; 0 when there is none."""
    value = field(raw, name)
    return 0 if value is None else snowflake(msgspec.Raw(value)) or 0
