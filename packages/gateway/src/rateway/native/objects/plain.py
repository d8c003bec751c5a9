"""JSON object surgery in plain Python: the reference for ``compiled.pyx``, and what runs where that was not
compiled.

JSON objects stay Discord's own bytes: what is compared, merged and left out is a top-level field, word for word.
Merging follows Discord's rule for partial objects: a field that is there overwrites, null included; one that is absent
leaves the old value.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec
from rateway.native.objects.applied import Applied
from rateway.native.objects.decoders import Id, carrying, id_of, message
from rateway.native.objects.fields import MOST_ID, NULL, Snowflake, Unreadable, fields, join, raws, same_value

__all__ = [
    "CacheFastPath",
    "SeenFingerprints",
    "append_to_each",
    "drop_fields",
    "field",
    "find",
    "is_offline",
    "is_part_of",
    "is_text",
    "list_by_id",
    "merge",
    "page",
    "read_presence",
    "split_field",
    "split_lists",
]


def is_part_of(part: bytes, whole: bytes) -> bool:
    """Return whether *whole* has every field of *part*, with the same bytes as its value, in any order.

    Raises ``msgspec.DecodeError`` when one of them is no object; so do all functions here.
    """
    return fields(part).items() <= fields(whole).items()


def merge(old: bytes, new: bytes) -> bytes:
    """Return *old* with the fields of *new* in place of its own; *old* itself when that changes nothing."""
    kept = fields(old)
    merged = {**kept, **fields(new)}
    return old if merged == kept else join(merged)


def drop_fields(raw: bytes, names: tuple[bytes, ...]) -> bytes:
    """Return an object without the fields *names*; *raw* itself when it has none of them."""
    found = fields(raw)
    kept = {name: value for name, value in found.items() if name.encode() not in names}
    return raw if len(kept) == len(found) else join(kept)


def field(raw: bytes, name: bytes) -> bytes | None:
    """Return the bytes of a field's value; None when it is absent."""
    value = fields(raw).get(name.decode())
    return None if value is None else bytes(value)


def split_field(raw: bytes, name: bytes) -> tuple[bytes, bytes | None]:
    """Return an object without a field, and the field's value: :func:`drop_fields` and :func:`field` in one."""
    found = fields(raw)
    value = found.pop(name.decode(), None)
    return (raw, None) if value is None else (join(found), bytes(value))


def split_lists(
    raw: bytes, lists: dict[bytes, tuple[bytes, ...]], names: tuple[bytes, ...]
) -> tuple[bytes, dict[bytes, EntityList], dict[bytes, bytes]]:
    """Split an object into its own fields and its lists of entities.

    Args:
        raw: the object.
        lists: field → path of the id in its elements. A list that is null, or has an empty path, is left out.
        names: further fields to take out.

    Returns:
        The object without all these fields, :func:`list_by_id` of each list, and the values of *names* that it has.
    """
    found = fields(raw)
    apart = {name: found.pop(name.decode(), NULL) for name in lists}
    values = {name: bytes(found.pop(name.decode())) for name in names if name.decode() in found}
    listings = {
        name: list_by_id(bytes(value), lists[name])
        for name, value in apart.items()
        if value != NULL and lists[name]
    }
    return join(found), listings, values


EntityList: TypeAlias = tuple[list[int], list[bytes]]


class _SoundId(msgspec.Struct, gc=False):
    sound_id: Snowflake


class _UserId(msgspec.Struct, gc=False):
    user_id: Snowflake


class _OfUser(msgspec.Struct, gc=False):
    user: Id


_ids = msgspec.json.Decoder(list[Id], strict=False).decode
_sound_ids = msgspec.json.Decoder(list[_SoundId], strict=False).decode
_user_ids = msgspec.json.Decoder(list[_UserId], strict=False).decode
_of_users = msgspec.json.Decoder(list[_OfUser], strict=False).decode
_READERS: dict[tuple[bytes, ...], Callable[[bytes], list[int]]] = {
    (b"id",): lambda raw: [item.id for item in _ids(raw)],
    (b"sound_id",): lambda raw: [item.sound_id for item in _sound_ids(raw)],
    (b"user_id",): lambda raw: [item.user_id for item in _user_ids(raw)],
    (b"user", b"id"): lambda raw: [item.user.id for item in _of_users(raw)],
}


def list_by_id(raw: bytes, path: tuple[bytes, ...]) -> EntityList:
    """Return an array's ids, ascending, and its objects in the same order; none for null.

    The id stands in the field that *path* names, or in a field of it. Of two objects with one id the later comes last.
    """
    items = [] if raw == b"null" else raws(raw)
    if not items:
        return [], []
    ids = _READERS[path](raw)
    if max(ids) > MOST_ID:
        raise Unreadable("an element of an array has an id that is none")
    ordered = sorted(zip(ids, map(bytes, items), strict=True), key=itemgetter(0))
    return [item[0] for item in ordered], [item[1] for item in ordered]


def page(ids: list[int], items: list[bytes], start: int, end: int) -> bytes:
    """Return the text of a page (``cache.pages``) with the objects *start* to *end*, which are ascending by id."""
    return b"\n%b" % b"".join([b"%d%b\n" % (ids[at], items[at]) for at in range(start, end)])


def append_to_each(ids: bytes, tail: bytes) -> list[bytes]:
    """Return the ids, of eight bytes each, with *tail* appended to each."""
    return [ids[at : at + 8] + tail for at in range(0, len(ids) // 8 * 8, 8)]


def find(text: bytes, entity_id: int) -> bytes | None:
    """Return one object from the text of a page (``cache.pages``); None when it is not there."""
    prefix = b"\n%d{" % entity_id
    at = text.find(prefix)
    if at < 0:
        return None
    return text[at + len(prefix) - 1 : text.index(b"\n", at + 1)]


class _Presence(msgspec.Struct, gc=False):
    guild_id: Snowflake
    user: msgspec.Raw
    status: msgspec.Raw = NULL


_OFFLINE = msgspec.Raw(b'"offline"')
_presence = msgspec.json.Decoder(_Presence, strict=False).decode


def read_presence(d: bytes) -> tuple[int, int, bool, bool]:
    """Return a PRESENCE_UPDATE's guild id, user id, whether it is offline, whether its user has more than an id."""
    head = _presence(d)
    user = bytes(head.user)
    return head.guild_id, id_of(user), same_value(head.status, _OFFLINE), len(fields(user)) > 1


def is_offline(raw: bytes) -> bool:
    """Return whether a presence's ``status`` is ``offline``, written with escapes or without."""
    return same_value(fields(raw).get("status", NULL), _OFFLINE)


def is_text(raw: bytes) -> bool:
    """Return whether all bytes are UTF-8, as JSON has to be; decoding its objects does not check that."""
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


# Tables, kinds and sizes that this form has of its own: none. The compiled one has some, which `cache.entity_store`
# compares with its own.
NUMBERS: dict[str, int] = {}

# Fingerprints that the words about one member, or one user, have room for, shared with few others: two cache lines.
WAYS = 16

# The table grows fourfold from 512 KiB up to 8 MiB as it fills: a million marks, of which a user has two and one more
# for each guild. A page of memory that no mark is in is none.
LEAST_PRINTS = 1 << 16
MOST_PRINTS = 1 << 20

# Of a mark's 64 bits those that it shares with all marks about the same member or user, which are forgotten by them.
# With eight, one change in sixteen forgot the words about another person as well. The other 52 tell words apart.
TAG_BITS = 12

# Places that no guild has: words about a user, and words that are all that is kept of a user.
OF_USER, WHOLE_USER = 0, 1


class SeenFingerprints:
    """One cluster's memory of words about users and members: does an event only repeat what is kept?

    Messages, typing, reactions and voice states carry their member and user again and again, mostly in the words of
    the guild's snapshot or of the last time. A table of 64-bit fingerprints recognises such words ahead of any
    decoding, for some 200,000 people in 8 MB. It forgets now and then (then the words are compared with what is kept
    once more), and is never wrong: whatever changes a user forgets all words about it, so with a member. The hash is
    keyed for each process: no sender outside can make two texts share a fingerprint.

    A member's words are those of its own fields; a ``user`` among them does not count.
    """

    __slots__ = ("_former", "_prints", "_taken", "any")

    _former: array[int] | None
    _prints: array[int]
    _taken: int
    any: bool
    """Whether any words are known at all."""

    def __init__(self) -> None:
        self.forget_all()

    @property
    def places(self) -> int:
        """How many fingerprints the table has room for."""
        return len(self._prints)

    # words of an event: false or None proves nothing

    def message(self, d: bytes) -> tuple[int, int] | None:
        """Return a MESSAGE_CREATE's channel and id, if all that it says of its author and member is kept already."""
        head = message(d)
        if head.guild_id is None or head.author == NULL or head.member == NULL or head.webhook_id != NULL:
            return None
        if max(head.id, head.channel_id) > MOST_ID:
            return None
        user, member = bytes(head.author), bytes(head.member)
        user_id = id_of(user)
        if self.knows_user(user_id, user) and self.knows_member(head.guild_id, user_id, member):
            return head.channel_id, head.id
        return None

    def carried(self, d: bytes, stale: bool = False) -> bool:
        """Whether the whole ``member`` in an event of ``user_id`` (TYPING_START, reactions) says only what is kept.

        ``stale``: its ``mute`` and ``deaf`` do not count (VOICE_STATE_UPDATE has those of before the change).
        """
        head = carrying(d)
        if head.guild_id is None or head.user_id is None or head.member == NULL:
            return False
        member, user = split_field(bytes(head.member), b"user")
        if stale:
            member = drop_fields(member, (b"mute", b"deaf"))
        return (
            user is not None
            and user != b"null"
            and self.knows_user(head.user_id, user)
            and self.knows_member(head.guild_id, head.user_id, member)
        )

    # words of one member or user

    def knows_member(self, guild_id: int, user_id: int, member: bytes) -> bool:
        """Whether these words about a member say what is kept. False proves nothing."""
        return self._known(_home(guild_id, user_id), drop_fields(member, (b"user",)))

    def knows_user(self, user_id: int, user: bytes) -> bool:
        """Whether these words about a user say what is kept. False proves nothing."""
        return self._known(_home(OF_USER, user_id), user)

    def learn_member(self, guild_id: int, user_id: int, member: bytes) -> None:
        """These words about a member say what is kept now."""
        self._learn(_home(guild_id, user_id), drop_fields(member, (b"user",)))
        self._has_room()

    def learn_user(self, user_id: int, user: bytes) -> None:
        """These words about a user say what is kept now."""
        self._learn(_home(OF_USER, user_id), user)
        self._has_room()

    def learn_members(self, guild_id: int, ids: list[int], raws: list[Any], fresh: bool) -> None:
        """A guild's snapshot says all of this of its members and their users, and it is what is kept now.

        What was known of them before is forgotten, but where it is certain to hold still: a guild is ``fresh``, and
        exactly these words were kept of the user. Once a table of the full size is full, nothing is learned here: most
        members never speak.
        """
        for user_id, raw in zip(ids, raws, strict=True):
            learns = self._has_room()
            if not learns and not self.any:
                continue
            if not fresh:
                self.forget_member(guild_id, user_id)
            member, user = split_field(bytes(raw), b"user")
            if user is None or not self._known(_home(WHOLE_USER, user_id), user):
                self.forget_user(user_id)
                if learns and user is not None:
                    self._learn(_home(OF_USER, user_id), user)
                    self._learn(_home(WHOLE_USER, user_id), user)
            if learns and user is not None:
                self._learn(_home(guild_id, user_id), member)

    # marks

    def _known(self, home: int, words: bytes) -> bool:
        mark = _mark(home, words)
        for prints in (self._prints, self._former):
            if prints is None:
                break
            at = home & len(prints) - WAYS
            if mark in prints[at : at + WAYS]:
                if prints is self._former:
                    self._learn(home, words)
                return True
        return False

    def _learn(self, home: int, words: bytes) -> None:
        mark, prints = _mark(home, words), self._prints
        self.any = True
        at = home & len(prints) - WAYS
        ways = prints[at : at + WAYS]
        if mark not in ways:
            # In a free place, else in that of any other.
            free = 0 in ways
            prints[at + (ways.index(0) if free else mark & WAYS - 1)] = mark
            self._taken += free

    def _has_room(self) -> bool:
        """Whether less than half of the places are taken, after a larger table is made where that may be."""
        if self._taken <= len(self._prints) // 2:
            return True
        if len(self._prints) >= MOST_PRINTS:
            return False
        # Empty; what the smaller one knows moves when it is heard again.
        self._former, self._prints = self._prints, array("Q", bytes(8 * 4 * len(self._prints)))
        self._taken = 0
        return True

    def forget_member(self, guild_id: int, user_id: int) -> None:
        """Something about this member changed."""
        self._forget(_home(guild_id, user_id))

    def forget_user(self, user_id: int) -> None:
        """Something about this user changed."""
        self._forget(_home(OF_USER, user_id))
        self._forget(_home(WHOLE_USER, user_id))

    def _forget(self, home: int) -> None:
        for prints in (self._prints, self._former):
            if prints is not None:
                start = home & len(prints) - WAYS
                for at in range(start, start + WAYS):
                    if prints[at] >> 64 - TAG_BITS == _tag(home):
                        prints[at] = 0
                        self._taken -= prints is self._prints

    def forget_all(self) -> None:
        """Whatever was known may be wrong now."""
        self.any = False
        self._prints = array("Q", bytes(8 * LEAST_PRINTS))
        self._former = None
        self._taken = 0


def _home(place: int, user_id: int) -> int:
    """What a member's marks, or a user's, have in common: the low bits choose their ways, the top their tag."""
    return hash((place, user_id)) & (1 << 64) - 1


def _tag(home: int) -> int:
    """Never 0: an empty place has no tag."""
    return home >> 64 - TAG_BITS | 1


def _mark(home: int, words: bytes) -> int:
    """What stands for words in the table."""
    return hash((home, words)) & (1 << 64 - TAG_BITS) - 1 | _tag(home) << 64 - TAG_BITS


class CacheFastPath:
    """The cache's part of the fast path. In plain Python every event takes the general path.

    The compiled form applies most of a bot's traffic by itself: presences without news of their user, messages, typing,
    voice states, reactions and commands of users and members that are known as they are, what changes of a member whose
    user is, and deleted messages that nothing counts. Its results are those of the general path.
    """

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[int, int, str, Any], Applied | None]) -> None:
        """*take* is the general path: it is called with the arguments of :meth:`apply`."""
        self._take = take

    def connect(self, parts: Any, waiting: list[dict[bytes, bytes | None]]) -> None:
        """Apply events to a cache from now on.

        Args:
            parts: its ``Cache.fast_path_parts``.
            waiting: for each table the puts (None: deletes) that the next transaction writes.
        """

    def apply(self, shard_id: int, seq: int, name: str, d: Any) -> Applied | None:
        """Apply one event; never raises. Events at or below the shard's applied sequence change nothing.

        READY begins a new session (its ``session_id`` is in ``d``) and resets the shard's applied sequence. ``d`` is
        bytes, or anything with their content.
        """
        return self._take(shard_id, seq, name, d)
