"""Write the cache: what every reducer uses, guild rows, children and people with their indexes and counts."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import msgspec
from rateway.cache.entity_store import EntityStore
from rateway.cache.guild_row import GuildRow, counted, recounted
from rateway.cache.kinds import MESSAGES, Kind
from rateway.cache.policy import CachePolicy
from rateway.cache.reader import CHANNELS, COLD, DIRECT, View, key8
from rateway.cache.storage import Storage, Table
from rateway.native.objects import SeenFingerprints, field, is_part_of, merge, split_field
from rateway.native.objects.decoders import id_of
from rateway.native.objects.fields import Fields, fields, join, snowflake
from rateway.native.rows import tip_rows

__all__ = ["CacheWriter"]

# Entries of each memory-only shortcut (channels' places and newest messages), twice: when one is full it becomes the
# elder, and what the elder still knows is found there. About 12 MB a cluster at worst.
SHORTCUTS = 32_768


# Plain numbers: reading an enumeration's member takes 0.1 µs.
_GUILDS, _USERS, _TIPS, _MEMBER = int(Table.GUILDS), int(Table.USERS), int(Table.TIPS), int(Kind.MEMBER)

_STAMP = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")
_NUMBERED = struct.Struct(">QQ")


class CacheWriter(View):
    """One cluster's cache for writing."""

    entity_store: EntityStore

    def __init__(self, storage: Storage, policy: CachePolicy) -> None:
        self.storage = storage
        self.policy = policy
        self.kept = policy.kept()
        self.takes_authors = policy.members_from_events and "members" in self.kept
        counts = storage.get(Table.META, b"counts")
        self._written_counts = counts
        self.counts: dict[int, int] = msgspec.msgpack.decode(counts, type=dict[int, int]) if counts else {}
        super().__init__(storage, EntityStore(storage, self.counts))
        self.entity_store = EntityStore(storage, self.counts)
        self.shard_id = 0
        self.seq = 0
        self.wall_ms = 0
        self.left_out: list[str] = []
        self.unknown_guilds: dict[int, int] = {}
        """Per shard: how many events were about guilds that have not come."""
        # Per shard: the sequence of the last of them.
        self._met_unknown: dict[int, int] = {}
        # Shards of which not even the guilds are known: most of their events are about unknown ones.
        self.cold = set(self.cold_shards())
        self._stamp = _read_int(storage.get(Table.META, b"stamp"))
        self._next_number = _read_int(storage.get(Table.META, b"number")) or 1
        me = self.current_user()
        self.me = snowflake(fields(me[1]).get("id")) if me is not None else None
        self.numbers: dict[int, int] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self.channels: dict[int, tuple[int, int] | None] = {}
        self._channels_before: dict[int, tuple[int, int] | None] = {}
        self.tips: dict[int, tuple[int, int, int]] = {}
        self._tips_before: dict[int, tuple[int, int, int]] = {}
        self.fresh_tips: set[int] = set()
        self.fingerprints = SeenFingerprints()
        self.rings: dict[int, list[int]] = {}

    def stamp(self) -> int:
        """Return the store's clock: milliseconds of wall time, but always going up."""
        self._stamp = max(self._stamp + 1, self.wall_ms)
        self.storage.put(Table.META, b"stamp", _STAMP.pack(self._stamp))
        return self._stamp

    def leave_out(self, reason: str) -> None:
        """Note why a part of the event that is being taken in is left out."""
        self.left_out.append(reason)

    def take_left_out(self) -> list[str]:
        """Return why parts of the event were left out, and forget it."""
        reasons, self.left_out = self.left_out, []
        return reasons

    def layout_of(self, shard_id: int) -> int | None:
        """Return the number of shards when this one's guilds were listed last; None when they never were."""
        return _read_int(self.storage.get(Table.META, b"layout:" + _NUMBER.pack(shard_id))) or None

    def keep_layout(self, shard_id: int, shard_count: int) -> None:
        """All guilds of this shard are in the table, as READY of a bot with so many shards lists them."""
        self.storage.put(Table.META, b"layout:" + _NUMBER.pack(shard_id), _NUMBER.pack(shard_count))

    def keep_application(self, raw: bytes) -> None:
        """Store READY's part about the bot's application, as JSON."""
        if raw != self.application():
            self.storage.put(Table.META, b"application", raw)

    def chill(self, shard_id: int, stamp: int) -> None:
        """Note that the guilds of a shard are not known, until its next READY."""
        self.cold.add(shard_id)
        self.storage.put(Table.META, COLD + _NUMBER.pack(shard_id), _STAMP.pack(stamp))

    def warm(self, shard_id: int) -> None:
        """Note that the guilds of a shard are known: its READY lists them."""
        if shard_id in self.cold:
            self.cold.discard(shard_id)
            self.storage.delete(Table.META, COLD + _NUMBER.pack(shard_id))

    # guilds

    def number_of(self, guild_id: int) -> int | None:
        number = self.numbers.get(guild_id)
        if number is None:
            row = self.guild_row(guild_id)
            if row is None or not row.number:
                self._meet_unknown()
                return None
            number = self.numbers[guild_id] = row.number
        return number

    def _meet_unknown(self) -> None:
        """Count the event that is being taken in, once, as one of a guild that has not come."""
        if self.shard_id not in self.cold and self.seq != self._met_unknown.get(self.shard_id):
            self._met_unknown[self.shard_id] = self.seq
            self.unknown_guilds[self.shard_id] = self.unknown_guilds.get(self.shard_id, 0) + 1

    def guild_of(self, number: int) -> tuple[int, int] | None:
        known = self._places.get(number)
        if known is None:
            known = super().guild_of(number)
            if known is not None:
                self._places[number] = known
        return known

    def save(self, guild_id: int, row: GuildRow) -> None:
        self.storage.put(Table.GUILDS, key8(guild_id), row.pack())
        if row.number and self._places.get(row.number) != (guild_id, row.stamp):
            self._places[row.number] = (guild_id, row.stamp)
            self.storage.put(Table.NUMBERS, _NUMBER.pack(row.number), _NUMBERED.pack(guild_id, row.stamp))

    def new_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        self.storage.put(Table.META, b"number", _STAMP.pack(self._next_number))
        return number

    def remove_guild(self, guild_id: int, row: GuildRow) -> None:
        """Remove a guild and everything that is keyed by it."""
        if row.number:
            self.drop_members(row.number, keep=frozenset())
            for kind in CHANNELS:
                for channel_id, _ in list(self.entity_store.walk(row.number, kind)):
                    self.forget_channel(channel_id)
            for kind in Kind:
                self.entity_store.wipe(row.number, kind)
            self.storage.delete(Table.META, b"removed-roles:" + _NUMBER.pack(row.number))
            self.storage.delete(Table.NUMBERS, _NUMBER.pack(row.number))
        self.storage.delete(Table.GUILDS, key8(guild_id))
        self.numbers.pop(guild_id, None)
        self._places.pop(row.number, None)

    def first_leave(self, guild_id: int) -> bool:
        """Return whether a guild that never came is reported deleted for the first time.

        Discord lists some deleted guilds in every READY and withdraws each by a bare GUILD_DELETE: one ``left`` is
        enough. The newest hundred are remembered.
        """
        told = self.storage.get(Table.META, b"dead-guilds") or b""
        key = key8(guild_id)
        if any(told[at : at + 8] == key for at in range(0, len(told), 8)):
            return False
        self.storage.put(Table.META, b"dead-guilds", (told + key)[-800:])
        return True

    def members_counted(self, guild_id: int) -> tuple[int | None, int]:
        """Return a guild's ``member_count``, None when it has none, and how many of its members are cached."""
        value = self.storage.get(_GUILDS, key8(guild_id))
        return (None, 0) if value is None else counted(value)

    def count_members(self, guild_id: int, change: int, *, cached: int = 0) -> None:
        """Change a guild's ``member_count`` (if it has one, never below 0) and how many members are cached."""
        key = key8(guild_id)
        value = self.storage.get(_GUILDS, key)
        if value is not None:
            self.storage.put(_GUILDS, key, recounted(value, change, cached))

    # channels

    def place_of(self, channel_id: int) -> tuple[int, int] | None:
        """Return a channel's guild number and kind; remembered."""
        try:
            return self.channels[channel_id]
        except KeyError:
            pass
        if channel_id in self._channels_before:
            place = self._channels_before[channel_id]
        else:
            place = None
            for kind in CHANNELS:
                number = self.home(kind, channel_id)
                if number is not None:
                    place = (number, int(kind))
        self._remember_place(channel_id, place)
        return place

    def place(self, channel_ids: Iterable[int], number: int, kind: int) -> None:
        """Note which guild these channels belong to: a snapshot has just brought them, so that their first messages
        need no look into the index.
        """
        place = (number, int(kind))
        for channel_id in channel_ids:
            self._remember_place(channel_id, place)

    def _remember_place(self, channel_id: int, place: tuple[int, int] | None) -> None:
        if len(self.channels) >= SHORTCUTS:
            self.channels, self._channels_before = {}, self.channels
        self.channels[channel_id] = place

    def moved(self, channel_id: int) -> None:
        """Forget which guild a channel belongs to."""
        self.channels.pop(channel_id, None)
        self._channels_before.pop(channel_id, None)

    def forget_channel(self, channel_id: int) -> None:
        """Forget what is stored beside a channel: its newest message, its messages."""
        self.storage.delete(Table.TIPS, key8(channel_id))
        self.tips.pop(channel_id, None)
        self._tips_before.pop(channel_id, None)
        self.fresh_tips.discard(channel_id)
        self.moved(channel_id)
        if "messages" in self.kept:
            prefix = key8(channel_id)
            for key, _ in list(self.storage.scan(Table.MESSAGES, prefix, prefix + b"\xff" * 9)):
                self.storage.delete(Table.MESSAGES, key)
                self.counts[MESSAGES] -= 1
            self.rings.pop(channel_id, None)

    def tip(self, channel_id: int, message_id: int, messages: int = 0, sent: int = 0) -> None:
        """Note a channel's newest message and what was added to a thread's counters; written with the next flush."""
        old = self.tips.get(channel_id) or self.tip_of(channel_id)
        if old is not None:
            message_id = message_id if message_id > old[0] else old[0]
            messages, sent = old[1] + messages, old[2] + sent
        self.tips[channel_id] = (message_id, messages, sent)
        self.fresh_tips.add(channel_id)

    def tip_of(self, channel_id: int) -> tuple[int, int, int] | None:
        return self.tips.get(channel_id) or self._tips_before.get(channel_id) or super().tip_of(channel_id)

    def settle_counters(self, channel_id: int) -> None:
        """A thread's own object came: what was added to its counters before is in them."""
        old = self.tip_of(channel_id)
        if old is not None and old[1:] != (0, 0):
            self.tips[channel_id] = (old[0], 0, 0)
            self.fresh_tips.add(channel_id)

    # people

    def take_carried_whole_member(self, guild_id: int, user_id: int, member: bytes) -> None:
        """Update a member and its user from an event that carries them in one object (typing, a reaction)."""
        rest, user = split_field(member, b"user")
        if user is not None and user != b"null":
            id_of(user)  # nothing is written of a user without an id
            self.take_carried_member(guild_id, user_id, rest, user)

    def take_carried_member(self, guild_id: int, user_id: int, member: bytes, user: bytes) -> None:
        """Update a member and its user from an event that carries them beside its own content (a message, say).

        ``member`` has no ``user``. A member that is known as it is costs one look into the table of fingerprints.
        """
        fingerprints = self.fingerprints
        number = self.numbers.get(guild_id) or self.number_of(guild_id)
        kept = None
        if not fingerprints.knows_member(guild_id, user_id, member):
            if number is not None:
                kept = self.entity_store.fetch(number, _MEMBER, user_id)[0]
            if number is None or kept is None or not is_part_of(member, kept):
                if number is None or field(member, b"roles") is None:
                    if self.entity_store.homes(_MEMBER, user_id, 1):
                        self.take_user(user_id, user)
                    return
                self.take_member(guild_id, number, user_id, member, user)
                fingerprints.learn_member(guild_id, user_id, member)
                return
        if not fingerprints.knows_user(user_id, user):
            known = self.user(user_id) if kept is None else self.user(user_id, field(kept, b"user"), number)
            if self._take_user(user_id, user, known):
                fingerprints.learn_user(user_id, user)
        fingerprints.learn_member(guild_id, user_id, member)

    def take_user(
        self, user_id: int, said: bytes, embedded: bytes | None = None, number: int | None = None
    ) -> None:
        """Merge a user, complete or not, that an event carries. Only users that share a guild with the bot are kept.

        ``embedded`` is the user inside the member of the guild ``number``, where the caller has just read it.
        """
        if not self.fingerprints.knows_user(user_id, said) and self._take_user(
            user_id, said, self.user(user_id, embedded, number)
        ):
            self.fingerprints.learn_user(user_id, said)

    def _take_user(self, user_id: int, said: bytes, known: tuple[int, bytes] | None) -> bool:
        """Merge a user; return whether what is stored now has all of these fields."""
        if known is not None:
            kept = merge(known[1], said)
            if kept is not known[1]:
                self._put_user(user_id, kept)
        elif field(said, b"username") is None:
            return False
        else:
            self._put_user(user_id, said)
        if user_id == self.me:
            self.take_current_user(fields(said))
        return True

    def _put_user(self, user_id: int, raw: bytes) -> None:
        self.storage.put(_USERS, key8(user_id), _STAMP.pack(self.stamp()) + raw)
        self.fingerprints.forget_user(user_id)

    def take_current_user(self, new: Fields) -> None:
        """Merge into the bot's own user."""
        known = self.current_user()
        old = fields(known[1]) if known is not None else {}
        merged = {**old, **new}
        if merged != old:
            self.storage.put(Table.META, b"me", _STAMP.pack(self.stamp()) + join(merged))
            self.me = snowflake(merged.get("id"))

    def take_member(self, guild_id: int, number: int, user_id: int, new: bytes, user: bytes | None) -> None:
        """Merge a member, complete or not, and its user, if that comes along. ``new`` has neither ``user`` nor
        ``guild_id``.
        """
        known, paged = self.entity_store.fetch(number, _MEMBER, user_id)
        if known is None:
            kept, embedded, changed = new, None, True
            self.entity_store.insert(number, _MEMBER, user_id, new)
            self.count_members(guild_id, 0, cached=+1)
        else:
            kept, embedded = merge(known, new), field(known, b"user")
            changed = kept is not known
            if changed:
                self.entity_store.replace(number, _MEMBER, user_id, kept, paged=paged)
        if changed:
            self.fingerprints.forget_member(guild_id, user_id)
            if self.takes_authors:
                # Who has just changed is likely to be heard soon.
                self.fingerprints.learn_member(guild_id, user_id, kept)
        if user is not None:
            self.take_user(user_id, user, embedded, number)

    def remove_member(self, guild_id: int, number: int, user_id: int, last_words: bytes) -> bool:
        """Remove a member, its presence and voice state; return whether it was cached. The caller counts it.

        Its user stays while another guild shares it, merged with the user of the event (``last_words``).
        """
        entity_store = self.entity_store
        homes = entity_store.homes(_MEMBER, user_id)
        shared = len(homes) > (number in homes)
        user = None
        if shared:
            self.take_user(user_id, last_words)
            user = self._only_here(number, user_id, homes)
        was = entity_store.remove(number, _MEMBER, user_id)
        entity_store.remove(number, Kind.PRESENCE, user_id)
        entity_store.remove(number, Kind.VOICE_STATE, user_id)
        self.fingerprints.forget_member(guild_id, user_id)
        if user is not None:
            self._put_user(user_id, user)
        elif not shared:
            self.storage.delete(_USERS, key8(user_id))
            self.fingerprints.forget_user(user_id)
        return was is not None

    def drop_members(self, number: int, keep: frozenset[int] | set[int]) -> None:
        """All members of a guild whose ids are not in ``keep`` lose this guild: users that no other shares go."""
        leaving = [
            user_id for user_id, _ in self.entity_store.walk(number, Kind.MEMBER) if user_id not in keep
        ]
        if not leaving:
            return
        users = {
            user_id: user
            for user_id in leaving
            if (user := self._only_here(number, user_id, self.entity_store.homes(_MEMBER, user_id)))
            is not None
        }
        self.entity_store.remove_many(number, Kind.MEMBER, leaving)
        guild = self.guild_of(number)
        for user_id in leaving:
            self._left(user_id, users.get(user_id))
            if guild is not None:
                self.fingerprints.forget_member(guild[0], user_id)

    def _only_here(self, number: int, user_id: int, homes: list[int]) -> bytes | None:
        """What is known of a user, if other guilds share it but this guild's snapshot is where it is known from."""
        if len(homes) < 2:
            return None
        value = self.storage.get(_USERS, key8(user_id))
        newest = 0 if value is None else _STAMP.unpack_from(value)[0]
        for _, home in self._newest(homes, newest, None, None):
            member = self.entity_store.get(home, _MEMBER, user_id)
            user = field(member, b"user") if member is not None else None
            if user is not None:
                return user if home == number else None
        return None

    def _left(self, user_id: int, user: bytes | None) -> None:
        """A user lost a guild. ``user``: what must be written down because that guild's snapshot had it."""
        if user is not None:
            self._put_user(user_id, user)
        elif not self.entity_store.homes(_MEMBER, user_id, 1):
            self.storage.delete(Table.USERS, key8(user_id))
            self.fingerprints.forget_user(user_id)

    def flush(self) -> None:
        """Write down what is kept in memory between commits."""
        tips = self.tips
        if self.fresh_tips:
            self.storage.put_rows(_TIPS, tip_rows(self.fresh_tips, tips))
            self.fresh_tips.clear()
        if len(tips) >= SHORTCUTS:
            self.tips, self._tips_before = {}, tips
        counts = msgspec.msgpack.encode(self.counts)
        if counts != self._written_counts:  # most commits count nothing, and need not touch one more page
            self.storage.put(Table.META, b"counts", counts)
            self._written_counts = counts


def _read_int(value: bytes | None) -> int:
    return int.from_bytes(value, "big") if value else 0


__all__ += ["DIRECT"]
