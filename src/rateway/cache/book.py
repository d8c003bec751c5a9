"""Who writes the cache down? What every reducer uses: guild rows, children, people, with their indexes and counts."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import msgspec

from rateway.cache.guild_row import GuildRow
from rateway.cache.objects import Fields, fields, join, snowflake
from rateway.cache.policy import CachePolicy
from rateway.cache.shelf import MESSAGES, Kind, Shelf
from rateway.cache.storage import Storage, Table
from rateway.cache.view import CHANNELS, DIRECT, TIP, View, key8

__all__ = ["Book"]

# Entries of each memory-only shortcut (known channels, users seen last); beyond it the shortcut starts anew. About
# 8 MB a cluster at worst.
SHORTCUTS = 16_384

# Different bytes that say the same about a user or member (events order fields differently, or carry fewer).
SPELLINGS = 3

_STAMP = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")
_NUMBERED = struct.Struct(">QQ")


class Book(View):
    """One cluster's cache for writing."""

    shelf: Shelf

    def __init__(self, storage: Storage, policy: CachePolicy) -> None:
        self.storage = storage
        self.policy = policy
        self.kept = policy.kept()
        self.takes_authors = policy.members_from_events and "members" in self.kept
        counts = storage.get(Table.META, b"counts")
        self.counts: dict[int, int] = msgspec.msgpack.decode(counts, type=dict[int, int]) if counts else {}
        super().__init__(storage, Shelf(storage, self.counts))
        self.shelf = Shelf(storage, self.counts)
        self.shard_id = 0
        self.seq = 0
        self.wall_ms = 0
        self._stamp = _read_int(storage.get(Table.META, b"stamp"))
        self._next_number = _read_int(storage.get(Table.META, b"number")) or 1
        me = self.current_user()
        self.me = snowflake(fields(me[1]).get("id")) if me is not None else None
        self._numbers: dict[int, int] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._channels: dict[int, tuple[int, int] | None] = {}
        self._tips: dict[int, tuple[int, int, int]] = {}
        self._fresh_tips: set[int] = set()
        self._spellings: dict[tuple[int, int], tuple[int, ...]] = {}
        self.rings: dict[int, list[int]] = {}

    def stamp(self) -> int:
        """The store's clock: milliseconds of wall time, but always going up."""
        self._stamp = max(self._stamp + 1, self.wall_ms)
        self.storage.put(Table.META, b"stamp", _STAMP.pack(self._stamp))
        return self._stamp

    # guilds

    def number_of(self, guild_id: int) -> int | None:
        number = self._numbers.get(guild_id)
        if number is None:
            row = self.guild_row(guild_id)
            if row is None or not row.number:
                return None
            number = self._numbers[guild_id] = row.number
        return number

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
        """A guild and everything that is keyed by it."""
        if row.number:
            self.drop_members(row.number, keep=frozenset())
            for kind in CHANNELS:
                for channel_id, _ in list(self.shelf.walk(row.number, kind)):
                    self.forget_channel(channel_id)
            for kind in Kind:
                self.shelf.wipe(row.number, kind)
            self.storage.delete(Table.META, b"removed-roles:" + _NUMBER.pack(row.number))
            self.storage.delete(Table.NUMBERS, _NUMBER.pack(row.number))
        self.storage.delete(Table.GUILDS, key8(guild_id))
        self._numbers.pop(guild_id, None)
        self._places.pop(row.number, None)

    def first_leave(self, guild_id: int) -> bool:
        """Whether a guild that never came is reported gone for the first time.

        Discord lists some dead guilds in every READY and takes each back by a bare GUILD_DELETE: one ``left`` is
        enough. The newest hundred are remembered.
        """
        told = self.storage.get(Table.META, b"dead-guilds") or b""
        key = key8(guild_id)
        if any(told[at : at + 8] == key for at in range(0, len(told), 8)):
            return False
        self.storage.put(Table.META, b"dead-guilds", (told + key)[-800:])
        return True

    def count_members(self, guild_id: int, change: int, *, cached: int = 0) -> None:
        """Change a guild's ``member_count`` (if it has one, never below 0) and how many members are cached."""
        row = self.guild_row(guild_id)
        if row is None:
            return
        if row.member_count is not None:
            row.member_count = max(0, row.member_count + change)
        row.cached_members = max(0, row.cached_members + cached)
        self.save(guild_id, row)

    # channels

    def place_of(self, channel_id: int) -> tuple[int, int] | None:
        """A channel's guild number and kind; remembered."""
        try:
            return self._channels[channel_id]
        except KeyError:
            pass
        place = None
        for kind in CHANNELS:
            number = self.home(kind, channel_id)
            if number is not None:
                place = (number, int(kind))
        if len(self._channels) >= SHORTCUTS:
            self._channels.clear()
        self._channels[channel_id] = place
        return place

    def moved(self, channel_id: int) -> None:
        """What was remembered about a channel's place no longer holds."""
        self._channels.pop(channel_id, None)

    def forget_channels(self) -> None:
        self._channels.clear()

    def forget_channel(self, channel_id: int) -> None:
        """What stands beside a channel: its newest message, its messages."""
        self.storage.delete(Table.TIPS, key8(channel_id))
        self._tips.pop(channel_id, None)
        self._fresh_tips.discard(channel_id)
        self.moved(channel_id)
        if "messages" in self.kept:
            prefix = key8(channel_id)
            for key, _ in list(self.storage.scan(Table.MESSAGES, prefix, prefix + b"\xff" * 9)):
                self.storage.delete(Table.MESSAGES, key)
                self.counts[MESSAGES] -= 1
            self.rings.pop(channel_id, None)

    def tip(self, channel_id: int, message_id: int, messages: int = 0, sent: int = 0) -> None:
        """Note a channel's newest message and what was added to a thread's counters; written with the next flush."""
        old = self._tips.get(channel_id) or self.tip_of(channel_id)
        if old is not None:
            message_id, messages, sent = max(old[0], message_id), old[1] + messages, old[2] + sent
        self._tips[channel_id] = (message_id, messages, sent)
        self._fresh_tips.add(channel_id)

    def tip_of(self, channel_id: int) -> tuple[int, int, int] | None:
        return self._tips.get(channel_id) or super().tip_of(channel_id)

    def settle_counters(self, channel_id: int) -> None:
        """A thread's own object came: what was added to its counters before is in them."""
        old = self.tip_of(channel_id)
        if old is not None and old[1:] != (0, 0):
            self._tips[channel_id] = (old[0], 0, 0)
            self._fresh_tips.add(channel_id)

    # people

    def same(self, place: int, user_id: int, raw: bytes | memoryview | msgspec.Raw) -> bool:
        """Whether these bytes say what is known already; exact, because a change forgets all spellings.

        ``place`` is the guild's id for a member, 0 for the user itself.
        """
        known = self._spellings.get((place, user_id))
        return known is not None and hash(bytes(raw)) in known

    def learned(self, place: int, user_id: int, raw: bytes | memoryview | msgspec.Raw, changed: bool) -> None:
        """These bytes say what is known now."""
        key, spelling = (place, user_id), hash(bytes(raw))
        if len(self._spellings) >= SHORTCUTS:
            self._spellings.clear()
        known = () if changed else self._spellings.get(key, ())
        self._spellings[key] = (spelling, *known[: SPELLINGS - 1])

    def repeats(self, number: int, user_id: int, member: bytes, user: bytes | None) -> bool:
        """Whether a member (its ``user`` inside, or beside it) says byte for byte what is kept. False proves nothing.

        Most of what is said for the first time since the start is said in the words of the guild's snapshot: finding
        these words in the kept object costs a tenth of decoding and comparing both.
        """
        known = self.shelf.get(number, Kind.MEMBER, user_id)
        if known is None or member[1:-1] not in known or user_id == self.me:
            return False
        if user is None:
            at = member.find(b'"user":{')
            end = member.find(b"}", at)
            # The user's own bytes, if no object is inside it; else the slow way decides.
            user = member[at + 7 : end + 1] if at >= 0 and b"{" not in member[at + 8 : end] else None
        if user is None:
            return False
        inside = user in known
        if not inside and b'"user":{' in known:
            return False
        now = self.user(user_id, msgspec.Raw(user) if inside else None, number)
        return now is not None and now[1] == user

    def unlearn(self, place: int, user_id: int) -> None:
        """What is known changed in another way."""
        self._spellings.pop((place, user_id), None)

    def unlearn_all(self) -> None:
        self._spellings.clear()

    def forget_spellings(self, guild_id: int, ids: Iterable[int]) -> None:
        """A snapshot brought these members and users anew."""
        pop = self._spellings.pop
        for user_id in ids if self._spellings else ():
            pop((guild_id, user_id), None)
            pop((0, user_id), None)

    def take_user(
        self,
        user_id: int,
        raw: msgspec.Raw | bytes,
        embedded: msgspec.Raw | None = None,
        number: int | None = None,
    ) -> None:
        """A user as some event carries it, complete or not. Only users that share a guild are kept.

        ``embedded`` is the user inside the member of the guild ``number``, for a caller who has just read it.
        """
        if self.same(0, user_id, raw):
            return
        known = self.user(user_id, embedded, number)
        if known is not None and known[1] == bytes(raw) and user_id != self.me:
            self.learned(0, user_id, raw, changed=False)
            return
        new = fields(raw)
        if known is None:
            if "username" not in new:
                return
            self.storage.put(Table.USERS, key8(user_id), _STAMP.pack(self.stamp()) + join(new))
            self.learned(0, user_id, raw, changed=True)
        else:
            old = fields(known[1])
            merged = {**old, **new}
            changed = merged != old
            if changed:
                self.storage.put(Table.USERS, key8(user_id), _STAMP.pack(self.stamp()) + join(merged))
                for guild_id in self.mutual_guilds(user_id):  # members' spellings hold the user, too
                    self.unlearn(guild_id, user_id)
            self.learned(0, user_id, raw, changed)
        if user_id == self.me:
            self.take_current_user(new)

    def take_current_user(self, new: Fields) -> None:
        """Merge into the bot's own user."""
        known = self.current_user()
        old = fields(known[1]) if known is not None else {}
        merged = {**old, **new}
        if merged != old:
            self.storage.put(Table.META, b"me", _STAMP.pack(self.stamp()) + join(merged))
            self.me = snowflake(merged.get("id"))

    def take_member(self, guild_id: int, number: int, user_id: int, new: Fields) -> None:
        """Merge a member, complete or not, and its user, if that comes along."""
        user = new.pop("user", None)
        new.pop("guild_id", None)
        embedded = self._merge_member(guild_id, number, user_id, new)
        if user is not None:
            self.take_user(user_id, user, embedded, number)

    def _merge_member(self, guild_id: int, number: int, user_id: int, new: Fields) -> msgspec.Raw | None:
        """The user inside the member as it is kept, if one is."""
        known, paged = self.shelf.fetch(number, Kind.MEMBER, user_id)
        if known is None:
            self.shelf.put(number, Kind.MEMBER, user_id, join(new))
            self.count_members(guild_id, 0, cached=+1)
            self.unlearn(guild_id, user_id)
            return None
        old = fields(known)
        merged = {**old, **new}
        if merged != old:
            self.shelf.replace(number, Kind.MEMBER, user_id, join(merged), paged=paged)
            self.unlearn(guild_id, user_id)
        return old.get("user")

    def remove_member(self, guild_id: int, number: int, user_id: int) -> bool:
        """A member and what goes with it; whether it was known. Its user stays while another guild shares it."""
        user = self._only_here(number, user_id)
        was = self.shelf.remove(number, Kind.MEMBER, user_id)
        self.shelf.remove(number, Kind.PRESENCE, user_id)
        self.shelf.remove(number, Kind.VOICE_STATE, user_id)
        self.unlearn(guild_id, user_id)
        self._left(user_id, user)
        if was is None:
            return False
        self.count_members(guild_id, 0, cached=-1)
        return True

    def drop_members(self, number: int, keep: frozenset[int] | set[int]) -> None:
        """All members of a guild whose ids are not in ``keep`` lose this guild: users that no other shares go."""
        leaving = [user_id for user_id, _ in self.shelf.walk(number, Kind.MEMBER) if user_id not in keep]
        if not leaving:
            return
        users = {
            user_id: user for user_id in leaving if (user := self._only_here(number, user_id)) is not None
        }
        self.shelf.remove_many(number, Kind.MEMBER, leaving)
        for user_id in leaving:
            self._left(user_id, users.get(user_id))
        self.unlearn_all()

    def _only_here(self, number: int, user_id: int) -> bytes | None:
        """What is known of a user, if other guilds share it but this guild's snapshot is where it is known from."""
        if len(self.shelf.homes(Kind.MEMBER, user_id)) < 2:
            return None
        value = self.storage.get(Table.USERS, key8(user_id))
        for _, home in self.snapshots_of(
            user_id, newer_than=0 if value is None else _STAMP.unpack_from(value)[0]
        ):
            member = self.shelf.get(home, Kind.MEMBER, user_id)
            user = fields(member).get("user") if member is not None else None
            if user is not None:
                return bytes(user) if home == number else None
        return None

    def _left(self, user_id: int, user: bytes | None) -> None:
        """A user lost a guild. ``user``: what must be written down because that guild's snapshot had it."""
        if user is not None:
            self.storage.put(Table.USERS, key8(user_id), _STAMP.pack(self.stamp()) + user)
        elif not self.shelf.homes(Kind.MEMBER, user_id):
            self.storage.delete(Table.USERS, key8(user_id))
            self.unlearn(0, user_id)

    def flush(self) -> None:
        """Write down what is kept in memory between commits."""
        tips, put = self._tips, self.storage.put
        for channel_id in self._fresh_tips:
            put(Table.TIPS, key8(channel_id), TIP.pack(*tips[channel_id]))
        self._fresh_tips.clear()
        if len(tips) >= SHORTCUTS:
            tips.clear()
        self.storage.put(Table.META, b"counts", msgspec.msgpack.encode(self.counts))


def _read_int(value: bytes | None) -> int:
    return int.from_bytes(value, "big") if value else 0


__all__ += ["DIRECT"]
