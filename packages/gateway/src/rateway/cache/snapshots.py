"""Answer what a proxy asks: a shard, a guild and members as READY, GUILD_CREATE and GUILD_MEMBERS_CHUNK would tell now.

Each answer names the shard's position: events of that session up to its sequence number are in the answer, later ones
are not. So the whole of it is read at one moment of the store (:attr:`Listing.of_one_moment`).

Sources: https://docs.discord.com/developers/events/gateway-events#ready, #guild-create, #request-guild-members.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.kinds import SNAPSHOTS, Kind
from rateway.cache.permissions import MANAGE_THREADS, VIEW_CHANNEL, permissions
from rateway.cache.query_context import Listing, Outcome, QueryContext, Refused, array_of
from rateway.cache.reader import View
from rateway.native.objects import drop_fields, field, merge
from rateway.native.objects.fields import NULL, UNREADABLE, fields_inside, snowflake
from rateway_protocol.contract.queries import MembersWanted, SnapshotFor
from rateway_protocol.discord.intents import Intents
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["OF_ONE_MOMENT", "guild_snapshot", "members_matching", "shard_snapshot"]

OF_ONE_MOMENT = frozenset({"ShardSnapshot", "GuildSnapshot", "MembersMatching"})
"""The types of query that are answered here."""

# Above it, and without GUILD_PRESENCES, GUILD_CREATE has only the bot and who is in voice.
MOST_MEMBERS_LISTED: Final = 75_000
# As many members at most for the beginning of a name.
MOST_MATCHES: Final = 100
# Parts of an answer between two looks at the clock: about half a millisecond.
AT_ONCE: Final = 64
# Of a member: who has none of these is not listed in a large guild unless online or in voice.
_NOTHING = (None, b"null", b"[]", b'""')
_PRIVATE_THREAD = msgspec.Raw(b"12")
# Without these a guild is no state that a bot can work with: while they are incomplete it is unavailable. Other kinds
# come as far as they are known.
_NEEDED_WHOLE: Final = ("guilds", "channels", "roles")

_string = msgspec.json.encode


def shard_snapshot(asking: QueryContext) -> Outcome | Listing:
    """Answer ``ShardSnapshot``: position, user, application, and every guild of the shard."""
    (shard_id,) = asking.asked.arguments
    view = asking.shard(shard_id)
    asking.need_guilds(shard_id)
    session, seq = _position(view, shard_id)
    views = list(asking.readable_views())
    known = [found for each in views if (found := each.current_user()) is not None]
    if not known:
        raise Refused("loading", f"shard {shard_id} has had no READY yet")
    applications = [told for each in (view, *views) if (told := each.application()) is not None]
    count = asking.situation.shard_count or 1
    head = b'{"shard":%d,"shard_count":%d,"session":%b,"seq":%d,"user":%b,"application":%b,"guilds":' % (
        shard_id,
        count,
        _string(session),
        seq,
        max(known)[1],
        applications[0] if applications else b"null",
    )
    return Listing(_guilds_of_shard(view, shard_id, count, head), at_once=AT_ONCE, of_one_moment=True)


def _guilds_of_shard(view: View, shard_id: int, count: int, head: bytes) -> Iterator[bytes]:
    since = _whole_since(view)
    yield head
    yield from array_of(
        b'{"id":"%d","unavailable":%b}'
        % (guild_id, b"false" if _can_be_told(state, home, stamp, shard_id, since) else b"true")
        for guild_id, state, home, stamp in view.guilds_standing()
        if shard_of(guild_id, count) == shard_id
    )
    yield b"}"


def _whole_since(view: View) -> int:
    """Return the stamp before which guilds came without something that a bot cannot do without."""
    return max(view.incomplete_since(kind) for kind in _NEEDED_WHOLE)


def _can_be_told(state: GuildState, home: int, stamp: int, shard_id: int, since: int) -> bool:
    """Whether a guild has come on this shard, in the session of its position, and whole."""
    return state is GuildState.AVAILABLE and home == shard_id and stamp >= since


def _position(view: View, shard_id: int) -> tuple[str, int]:
    found = view.position(shard_id)
    if found is None:
        raise Refused("loading", f"shard {shard_id} has had no session yet")
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """A guild that is available, with its shard's position."""

    view: View
    guild_id: int
    row: GuildRow
    shard_id: int
    session: str
    seq: int

    @property
    def head(self) -> bytes:
        """The beginning of an answer, up to its next field."""
        return b'{"shard":%d,"session":%b,"seq":%d,' % (self.shard_id, _string(self.session), self.seq)

    @property
    def me(self) -> int | None:
        """The bot's id."""
        known = self.view.current_user()
        return None if known is None else snowflake(fields_inside(known[1]).get("id"))

    @property
    def member_count(self) -> int:
        """How many members it has, as far as known."""
        return self.row.cached_members if self.row.member_count is None else self.row.member_count

    def member(self, user_id: int) -> bytes | None:
        """Return a member as libraries read it; None for one that is not known, or not well enough."""
        told = self.view.member_inside(self.row.number, user_id)
        return None if told is None else _whole_member(told)

    def members(self) -> Iterator[tuple[int, bytes | None]]:
        """All members that are known, by id, each as :meth:`member`."""
        inside = self.view.all_inside(self.row.number, Kind.MEMBER, self.guild_id, names_guild=False)
        for user_id, told in inside:
            yield user_id, _whole_member(told)


_ABSENT: Final = msgspec.Raw()


class _Needed(msgspec.Struct, gc=False):
    """What libraries need of a member (twilight refuses a GUILD_CREATE without) and a user to go with it."""

    user: msgspec.Raw = NULL
    roles: msgspec.Raw = _ABSENT
    joined_at: msgspec.Raw = _ABSENT
    deaf: msgspec.Raw = _ABSENT
    mute: msgspec.Raw = _ABSENT
    flags: msgspec.Raw = _ABSENT


_needed = msgspec.json.Decoder(_Needed).decode
# What stands for it in a member that is known from events alone, which leave out what they do not change.
_MEMBER_DEFAULTS: Final = b'{"roles":[],"joined_at":null,"deaf":false,"mute":false,"flags":0}'


def _whole_member(told: bytes) -> bytes | None:
    """Return a member with all that libraries need; None for one without a user."""
    found = _needed(told)
    if found.user == NULL:
        return None
    lacks = (
        found.roles is _ABSENT
        or found.joined_at is _ABSENT
        or found.deaf is _ABSENT
        or found.mute is _ABSENT
        or found.flags is _ABSENT
    )
    if lacks:
        return merge(_MEMBER_DEFAULTS, told)
    return told


def _available(asking: QueryContext, guild_id: int) -> _Place | None:
    """Return a guild whose GUILD_CREATE has come in the session of its shard's position; None when the bot is not in
    it.
    """
    place = asking.guild(guild_id)
    if place is None:
        return None
    view, row = place
    now = asking.situation.place(guild_id)
    shard_id = row.shard_id if now is None else now[0]
    if not _can_be_told(row.state, row.shard_id, row.stamp, shard_id, _whole_since(view)):
        if row.state is GuildState.AVAILABLE and row.shard_id == shard_id:
            words = (
                f"channels or roles of guild {guild_id} are incomplete until Discord sends it anew, in a new session "
                f"of shard {shard_id}: set CACHE_RENEW=true or use `rateway restart-shard {shard_id} --new-session`"
            )
            raise Refused("incomplete", words)
        outage = " (it is in an outage)" if row.state is GuildState.OUTAGE else ""
        raise Refused("loading", f"guild {guild_id} has not come from Discord yet{outage}")
    return _Place(view, guild_id, row, shard_id, *_position(view, shard_id))


def guild_snapshot(asking: QueryContext) -> Outcome | Listing:
    """Answer ``GuildSnapshot``: ``d`` of a GUILD_CREATE for a bot of these intents and this ``large_threshold``."""
    wanted = asking.asked.options
    assert isinstance(wanted, SnapshotFor)
    place = _available(asking, asking.asked.arguments[0])
    if place is None:
        return asking.object(None)
    return Listing(_guild(asking, place, wanted), at_once=AT_ONCE, of_one_moment=True)


def _guild(asking: QueryContext, place: _Place, wanted: SnapshotFor) -> Iterator[bytes]:
    view, number, policy = place.view, place.row.number, asking.policy
    own = drop_fields(view.guild_told(place.guild_id, place.row), (b"large", *_LIST_NAMES))
    yield b'%b"guild":%b' % (place.head, own[:-1])
    # Without the intent no event says who has left since the GUILD_CREATE: the list stays empty.
    voice = bool(asking.situation.intents & Intents.GUILD_VOICE_STATES)
    members = _MemberList(place, wanted, presences=policy.keeps("presences"), voice=voice)
    for name, (kind, row) in SNAPSHOTS.items():
        yield b',"%b":' % name.encode()
        if not policy.keeps(row.name) or (kind is Kind.VOICE_STATE and not voice):
            yield b"[]"
        elif kind is Kind.MEMBER:
            yield from members.parts()
        elif kind is Kind.PRESENCE:
            told = _presences(place, wanted)
            yield from array_of(item for user_id, item in told if user_id in members.listed)
        elif kind is Kind.THREAD:
            yield from array_of(_threads(place))
        else:
            inside = view.all_inside(number, kind, place.guild_id, names_guild=row.names_guild)
            # Who is in voice is a member in this list: hikari looks each of them up there.
            yield from array_of(
                item
                for entity_id, item in inside
                if kind is not Kind.VOICE_STATE or entity_id in members.listed
            )
    yield b',"large":%b}}' % (b"true" if members.is_partial else b"false")


_LIST_NAMES = tuple(name.encode() for name in SNAPSHOTS)


class _MemberList:
    """The members in a GUILD_CREATE: all of a small guild; of a large one those that are online, in voice, or have a
    role or nickname; without GUILD_PRESENCES, and of very large guilds, the bot and who is in voice.
    """

    def __init__(self, place: _Place, wanted: SnapshotFor, *, presences: bool, voice: bool) -> None:
        self.listed: set[int] = set()
        """The ids of those whose parts were read."""
        self._place = place
        self._presences = presences
        self._few = not wanted.intents & Intents.GUILD_PRESENCES or place.member_count > MOST_MEMBERS_LISTED
        self._all = not self._few and place.member_count <= wanted.large_threshold
        walk = place.view.entity_store.walk(place.row.number, Kind.VOICE_STATE) if voice else ()
        self._first = {user_id for user_id, _ in walk}
        if (me := place.me) is not None:
            self._first.add(me)

    @property
    def is_partial(self) -> bool:
        """Whether the guild has members that were not listed; known once all parts were read."""
        count = self._place.row.member_count
        return count is None or len(self.listed) < count

    def parts(self) -> Iterator[bytes]:
        """The array's JSON; empty parts stand for members that are left out."""
        comma = b"["
        for user_id, told in self._told():
            if told:
                self.listed.add(user_id)
                yield comma + told
                comma = b","
            else:
                yield b""
        yield b"[]" if comma == b"[" else b"]"

    def _told(self) -> Iterator[tuple[int, bytes | None]]:
        place = self._place
        if self._few:
            for user_id in sorted(self._first):
                yield user_id, place.member(user_id)
            return
        online: set[int] = set()
        if not self._all and self._presences:
            walk = place.view.entity_store.walk(place.row.number, Kind.PRESENCE)
            online = {user_id for user_id, _ in walk}
        for user_id, told in place.members():
            if self._all or user_id in self._first or user_id in online or (told and _stands_out(told)):
                yield user_id, told
            else:
                yield user_id, None


def _stands_out(member: bytes) -> bool:
    return field(member, b"roles") not in _NOTHING or field(member, b"nick") not in _NOTHING


def _presences(place: _Place, wanted: SnapshotFor) -> Iterator[tuple[int, bytes]]:
    if wanted.intents & Intents.GUILD_PRESENCES:
        inside = place.view.all_inside(place.row.number, Kind.PRESENCE, place.guild_id, names_guild=False)
        for user_id, told in inside:
            yield user_id, _with_activities(told)


def _with_activities(presence: bytes) -> bytes:
    """A presence has the list, also where the cache does not keep what is in it."""
    return presence if b'"activities"' in presence else merge(presence, b'{"activities":[]}')


def _threads(place: _Place) -> Iterator[bytes]:
    """The threads that the bot may see now: what a changed role or overwrite hides from it, no event says."""
    view, me = place.view, place.me
    granted: dict[int, int | None] = {}
    inside = view.all_inside(place.row.number, Kind.THREAD, place.guild_id, names_guild=True)
    for _, told in inside:
        found = fields_inside(told)
        parent_id = snowflake(found.get("parent_id"))
        if me is None or parent_id is None:
            yield told
            continue
        if parent_id not in granted:
            granted[parent_id] = permissions(view, place.guild_id, me, parent_id)
        may = granted[parent_id]
        joined = found.get("type") != _PRIVATE_THREAD or "member" in found
        # What is not known (a role, the parent) hides nothing.
        if may is None or (may & VIEW_CHANNEL and (joined or may & MANAGE_THREADS)):
            yield told


class _User(msgspec.Struct, gc=False):
    username: str | None = None
    global_name: str | None = None


class _Names(msgspec.Struct, gc=False):
    """By what a member is found."""

    user: _User
    nick: str | None = None

    def begin_with(self, query: str) -> bool:
        """Whether one of them does."""
        for name in (self.user.username, self.user.global_name, self.nick):
            if name is not None and name.casefold().startswith(query):
                return True
        return False


_names = msgspec.json.Decoder(_Names).decode


def members_matching(asking: QueryContext) -> Outcome | Listing:
    """Answer ``MembersMatching``, as far as nothing that Discord would list can be missing."""
    wanted = asking.asked.options
    assert isinstance(wanted, MembersWanted)
    asking.need("members")
    if wanted.presences:
        asking.need("presences")
    place = _available(asking, asking.asked.arguments[0])
    if place is None:
        return asking.object(None)
    asking.check(place.view, place.guild_id, place.row, "members")
    needed = Intents.GUILD_MEMBERS | (Intents.GUILD_PRESENCES if wanted.presences else 0)
    if asking.situation.intents & needed != needed:
        words = f"the gateway was not given {_missing(needed & ~asking.situation.intents)}: its members may be old"
        raise Refused("incomplete", words)
    if wanted.presences:
        asking.check(place.view, place.guild_id, place.row, "presences")
    whole = place.row.member_count is not None and place.row.cached_members >= place.row.member_count
    if not whole and (
        wanted.query is not None or any(place.member(user_id) is None for user_id in wanted.user_ids)
    ):
        words = f"{place.row.cached_members} of {place.row.member_count} members of guild {place.guild_id} are known"
        raise Refused("incomplete", words)
    return Listing(_members(place, wanted), at_once=AT_ONCE, of_one_moment=True)


def _missing(bits: int) -> str:
    return " and ".join(intent.name or "" for intent in Intents if bits & intent)


def _members(place: _Place, wanted: MembersWanted) -> Iterator[bytes]:
    view, number = place.view, place.row.number
    yield place.head + b'"members":'
    ids: list[int] = []
    missing: list[int] = []
    comma = b"["
    for user_id, told in _found(place, wanted):
        if told is None:
            missing.append(user_id)
        elif told:
            ids.append(user_id)
            yield comma + told
            comma = b","
        else:
            yield b""
    yield b"[]" if comma == b"[" else b"]"
    yield b',"not_found":[%b],"presences":' % b",".join(b'"%d"' % user_id for user_id in missing)
    if not wanted.presences:
        yield b"null}"
        return
    if wanted.query == "" and not wanted.limit:
        inside = view.all_inside(number, Kind.PRESENCE, place.guild_id, names_guild=False)
        yield from array_of(_with_activities(told) for _, told in inside)
    else:
        yield from array_of(_presences_of(view, number, ids))
    yield b"}"


def _found(place: _Place, wanted: MembersWanted) -> Iterator[tuple[int, bytes | None]]:
    """Members that are wanted; empty for one that is looked at and is not, None for an id that is no member's."""
    if wanted.query is None:
        for user_id in wanted.user_ids:
            yield user_id, place.member(user_id)
        return
    query = wanted.query.casefold()
    everybody = not query and not wanted.limit
    left = min(wanted.limit or MOST_MATCHES, MOST_MATCHES)
    for user_id, told in place.members():
        if told is None or not (everybody or _begins(told, query)):
            yield user_id, b""
            continue
        yield user_id, told
        left -= not everybody
        if not left:
            return


def _begins(member: bytes, query: str) -> bool:
    try:
        return not query or _names(member).begin_with(query)
    except UNREADABLE:
        return False


def _presences_of(view: View, number: int, ids: list[int]) -> Iterator[bytes]:
    for user_id in ids:
        told = view.presence_inside(number, user_id)
        if told is not None:
            yield _with_activities(told)
