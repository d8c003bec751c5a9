"""What is the answer to a worker's question? Over the stores of all clusters of the host, in Discord's own shapes.

One function per type of query, in a table; ``docs/queries.md`` shows each with an example. Nothing here waits: a
question is answered from the stores as they are at this moment.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeAlias

import msgspec

from rateway.cache.guild_row import GuildRow, GuildState, state_of
from rateway.cache.objects import Fields, integer, join, snowflake, text
from rateway.cache.permissions import permissions
from rateway.cache.policy import CachePolicy
from rateway.cache.shelf import MESSAGES, Kind
from rateway.cache.slim import ALWAYS
from rateway.cache.storage import Table
from rateway.cache.view import CHANNELS, DIRECT, View
from rateway.discord.snowflake import shard_of

__all__ = [
    "ANSWERS",
    "Asked",
    "Found",
    "Listing",
    "Missing",
    "Outcome",
    "Refusal",
    "Situation",
    "Stores",
    "answer",
    "begin",
    "incomplete_shards",
    "stats_of",
]

# Without a limit a list has as many entries as the contract's default.
LIMIT = 100


class Asked(Protocol):
    """One query, checked: ids in the type's order, ``limit`` and ``after`` for lists."""

    @property
    def type(self) -> str: ...
    @property
    def arguments(self) -> tuple[int, ...]: ...
    @property
    def fields(self) -> tuple[str, ...] | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def after(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """An answer's JSON."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """Known not to be there."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No answer can be given: ``code`` is a word of the contract (``loading``, ``elsewhere``, ``incomplete``, …)."""

    code: str
    words: str


Outcome: TypeAlias = Found | Missing | Refusal

# Parts of a long answer between two looks at the clock: about half a millisecond.
STEP = 20

# The most bytes of one answer: half of what a broker takes in one message (16 MiB, RabbitMQ 4.0), so that there is
# room for others in the same batch. A message that is too large would cost the cluster its channel.
MAX_ANSWER = 8 << 20


class Listing:
    """A long answer that is still to be read: :meth:`step` until it is done, so that nobody waits for it.

    ``parts`` are the pieces of its JSON one after the other; an empty one says that there was work without a result.
    """

    def __init__(self, parts: Iterator[bytes], *, at_once: int = STEP) -> None:
        self._parts = parts
        self._at_once = at_once
        self._taken: list[bytes] = []
        self._size = 0

    def step(self) -> Found | Refusal | None:
        """Read some more; the answer when there are none left."""
        taken = list(islice(self._parts, self._at_once))
        self._taken += taken
        self._size += sum(map(len, taken))
        if self._size > MAX_ANSWER:
            words = (
                f"the answer has more than {MAX_ANSWER >> 20} MiB; ask for it in pages, or for fewer fields"
            )
            return Refusal("too_large", words)
        return Found(b"".join(self._taken)) if len(taken) < self._at_once else None


def _array(items: Iterable[bytes]) -> Iterator[bytes]:
    """An array's JSON in parts."""
    comma = b"["
    for item in items:
        yield comma + item
        comma = b","
    yield b"[]" if comma == b"[" else b"]"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the stores cannot know: the layout of shards, and which of them are still starting."""

    shard_count: int | None = None
    """None before the gateway knows: nothing is then said to be elsewhere."""
    shards_per_cluster: int = 8
    clusters: Collection[int] = ()
    """Clusters of this host."""
    is_loading: Callable[[int], bool] = field(default=lambda shard_id: False)
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Clusters of this host whose store is of no use now, and why: what it says may be old, or it says nothing."""

    def place(self, guild_id: int) -> tuple[int, int] | None:
        """A guild's shard and cluster."""
        if self.shard_count is None:
            return None
        shard_id = shard_of(guild_id, self.shard_count)
        return shard_id, shard_id // self.shards_per_cluster + 1


class Stores(Protocol):
    """The clusters' stores at one moment."""

    @property
    def clusters(self) -> Sequence[int]: ...

    def view(self, cluster: int) -> View: ...


class _Refused(Exception):
    """Ends an answer early; never leaves this module."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.refusal = Refusal(code, words)


class _Asking:
    """One question being answered."""

    def __init__(
        self, asked: Asked, stores: Stores, situation: Situation, policy: CachePolicy, wall: float
    ) -> None:
        self.asked = asked
        self.stores = stores
        self.situation = situation
        self.policy = policy
        self.wall = wall
        slim = policy.slim
        self._slim = slim if slim is not None and asked.type in _SLIMMED else None

    # Where things are.

    def need(self, kind: str) -> None:
        """That kind of entity must be kept."""
        if not self.policy.keeps(kind):
            raise _Refused("cache_off", f"the cache keeps no {kind.replace('_', ' ')} (see its settings)")

    def need_of(self, view: View, guild_id: int, row: GuildRow, kind: str) -> None:
        """That kind of entity must be kept, and have come with that guild."""
        self.need(kind)
        self.check(view, guild_id, row, kind)

    def need_at(self, view: View, number: int, kind: str) -> None:
        """The same for a guild by its number."""
        guild = view.guild_of(number)
        row = view.guild_row(guild[0]) if guild is not None else None
        if guild is not None and row is not None:
            self.need_of(view, guild[0], row, kind)

    def views(self) -> Iterator[View]:
        """Every store; whoever comes to the end has not found it in those that can be read."""
        unreadable = self.situation.unreadable
        for cluster in self.stores.clusters:
            if cluster not in unreadable:
                yield self.stores.view(cluster)
        for words in unreadable.values():
            raise _Refused("unavailable", words)

    def guild(self, guild_id: int, kind: str | None = None) -> tuple[View, GuildRow] | None:
        """The store of a guild; None when the bot is not in it. ``kind``: what of it is asked for."""
        place = self.situation.place(guild_id)
        if place is not None and place[1] in self.situation.unreadable:
            raise _Refused("unavailable", self.situation.unreadable[place[1]])
        if place is not None and place[1] in self.stores.clusters:
            views: Iterable[View] = (self.stores.view(place[1]),)
        else:
            views = self.views()
        for view in views:
            row = view.guild_row(guild_id)
            if row is not None:
                self.check(view, guild_id, row, kind)
                return view, row
        if place is not None and place[1] not in self.situation.clusters:
            raise _Refused(
                "elsewhere", f"guild {guild_id} is on shard {place[0]}, which another gateway runs"
            )
        if place is not None and self.situation.is_loading(place[0]):
            raise _Refused("loading", f"shard {place[0]} of guild {guild_id} is still starting")
        # A write that was lost may have been the one that brought this guild.
        self.absent("guilds", loading=False)
        return None

    def check(self, view: View, guild_id: int, row: GuildRow, kind: str | None) -> None:
        if not row.number and (kind is not None or row.state is GuildState.PENDING):
            outage = " (it is in an outage)" if row.state is GuildState.OUTAGE else ""
            raise _Refused("loading", f"guild {guild_id} has not come from Discord yet{outage}")
        if kind is not None and row.stamp < view.incomplete_since(kind):
            words = f"{kind.replace('_', ' ')} of guild {guild_id} are incomplete until Discord sends it anew"
            raise _Refused("incomplete", words)

    def absent(self, kind: str | None = None, *, loading: bool = True) -> Missing:
        """What is in no store, and names no guild: while shards are starting, or guilds came without what it is of,
        that says nothing.
        """
        count = self.situation.shard_count
        per_cluster = self.situation.shards_per_cluster
        for cluster in self.situation.clusters if loading else ():
            shards = range((cluster - 1) * per_cluster, min(cluster * per_cluster, count or 0))
            if any(self.situation.is_loading(shard_id) for shard_id in shards):
                raise _Refused("loading", f"shards of cluster {cluster} are still starting")
        if kind is not None and not all(view.is_complete(kind) for view in self.views()):
            words = f"{kind.replace('_', ' ')} of some guilds are incomplete until Discord sends these anew"
            raise _Refused("incomplete", words)
        return Missing()

    def by_id(self, kind: Kind, entity_id: int) -> tuple[View, int] | None:
        """The store and guild number of an entity that is asked for without its guild."""
        for view in self.views():
            number = view.home(kind, entity_id)
            if number is not None:
                return view, number
        return None

    # What is said.

    def object(self, found: Fields | None) -> Outcome:
        """One entity, with the fields that were asked for."""
        return Missing() if found is None else Found(join(self.pick(found)))

    def pick(self, found: Fields) -> Fields:
        if self._slim is not None:
            # What an earlier setting kept is not kept current any more.
            self._slim.answer(_SLIMMED[self.asked.type], found)
        names = self.asked.fields
        return found if names is None else {name: found[name] for name in names if name in found}

    def array(self, items: Iterable[Fields]) -> Listing:
        """A list, as many as were asked for."""
        return Listing(_array(join(self.pick(item)) for item in islice(items, self.asked.limit or LIMIT)))

    @property
    def after(self) -> int:
        return -1 if self.asked.after is None else self.asked.after

    def child(self, word: str, kind: Kind, guild_id: int, entity_id: int) -> Fields | None:
        """An entity that is asked for with its guild."""
        self.need(word)
        place = self.guild(guild_id, word)
        return None if place is None else place[0].child(place[1].number, kind, entity_id)

    def slimmed(self, kind: str, found: Fields) -> Fields:
        """An entity inside the answer, as far as it is kept."""
        slim = self.policy.slim
        return found if slim is None or kind not in ALWAYS else slim.answer(kind, found)


# Types whose entities may be kept in part, and what they are.
_SLIMMED = {
    "Guild": "guilds",
    "Guilds": "guilds",
    "MutualGuilds": "guilds",
    "Member": "members",
    "GuildMembers": "members",
    "User": "users",
    "Presence": "presences",
    "GuildPresences": "presences",
    "Message": "messages",
}

_Answer: TypeAlias = Callable[[_Asking], Outcome | Listing]


def _current_user(asking: _Asking) -> Outcome:
    known = [user for view in asking.views() if (user := view.current_user()) is not None]
    return asking.object(_fields(max(known)[1])) if known else asking.absent()


def _guild(asking: _Asking) -> Outcome | Listing:
    guild_id = asking.asked.arguments[0]
    place = asking.guild(guild_id)
    if place is None:
        return Missing()
    view, row = place
    if row.number:
        asking.check(view, guild_id, row, "guilds")
    found = view.guild_fields(guild_id, row)
    wanted = [name for name in asking.asked.fields or () if name in _LISTS_OF_GUILD]
    if not wanted:
        return asking.object(found)
    for name in wanted:
        asking.need_of(view, guild_id, row, _LISTS_OF_GUILD[name][0])
    return Listing(_with_lists(asking, asking.pick(found), view, row.number, dict.fromkeys(wanted)))


def _with_lists(
    asking: _Asking, found: Fields, view: View, number: int, lists: Iterable[str]
) -> Iterator[bytes]:
    """A guild's own fields and then its lists, in parts."""
    before = join(found)[:-1]
    for name in lists:
        yield b'%b%b"%b":' % (before, b"" if before == b"{" else b",", name.encode())
        before = b""
        word, kind = _LISTS_OF_GUILD[name]
        items = view.children(number, kind)
        yield from _array(join(asking.slimmed(word, _plain(item))) for _, item in items)
    yield b"}"


def _plain(found: Fields) -> Fields:
    """An entity inside its guild, where ``guild_id`` would say nothing."""
    found.pop("guild_id", None)
    return found


_LISTS_OF_GUILD: Mapping[str, tuple[str, Kind]] = {
    "channels": ("channels", Kind.CHANNEL),
    "threads": ("threads", Kind.THREAD),
    "roles": ("roles", Kind.ROLE),
    "emojis": ("emojis", Kind.EMOJI),
    "stickers": ("stickers", Kind.STICKER),
    "members": ("members", Kind.MEMBER),
    "presences": ("presences", Kind.PRESENCE),
    "voice_states": ("voice_states", Kind.VOICE_STATE),
    "stage_instances": ("stage_instances", Kind.STAGE),
    "guild_scheduled_events": ("scheduled_events", Kind.SCHEDULED_EVENT),
    "soundboard_sounds": ("soundboard_sounds", Kind.SOUND),
}


def _guild_channel(asking: _Asking) -> Outcome:
    asking.need("channels")
    channel_id = asking.asked.arguments[0]
    for kind in CHANNELS:
        place = asking.by_id(kind, channel_id)
        if place is not None and place[1] != DIRECT:
            view, number = place
            found = view.child(number, kind, channel_id)
            if found is not None and asking.asked.fields is not None:
                found |= view.channel_details(number, channel_id)
            return asking.object(found)
    return asking.absent("channels")


def _private_channel(asking: _Asking) -> Outcome:
    asking.need("channels")
    channel_id = asking.asked.arguments[0]
    for view in asking.views():
        if view.home(Kind.CHANNEL, channel_id) == DIRECT:
            return asking.object(view.child(DIRECT, Kind.CHANNEL, channel_id))
    return Missing()


def _by_id(word: str, kind: Kind) -> _Answer:
    def find(asking: _Asking) -> Outcome:
        asking.need(word)
        entity_id = asking.asked.arguments[0]
        place = asking.by_id(kind, entity_id)
        if place is None:
            return asking.absent(word)
        return asking.object(place[0].child(place[1], kind, entity_id))

    return find


def _member(asking: _Asking) -> Outcome:
    guild_id, user_id = asking.asked.arguments
    return asking.object(asking.child("members", Kind.MEMBER, guild_id, user_id))


def _presence(asking: _Asking) -> Outcome:
    guild_id, user_id = asking.asked.arguments
    found = asking.child("presences", Kind.PRESENCE, guild_id, user_id)
    return asking.object(_with_user_id(found, user_id)) if found is not None else Missing()


def _with_user_id(found: Fields, user_id: int) -> Fields:
    found["user_id"] = text(user_id)
    return found


def _message(asking: _Asking) -> Outcome:
    asking.need("messages")
    channel_id, message_id = asking.asked.arguments
    for view in asking.views():
        found = view.message(channel_id, message_id)
        if found is not None:
            return asking.object(found)
    return Missing()


def _user(asking: _Asking) -> Outcome:
    asking.need("members")
    user_id = asking.asked.arguments[0]
    known = []
    for view in asking.views():
        me = view.current_user()
        if me is not None and snowflake(_fields(me[1]).get("id")) == user_id:
            known.append(me)
        elif (user := view.user(user_id)) is not None:
            known.append(user)
    return asking.object(_fields(max(known)[1])) if known else asking.absent("members")


def _voice_channel_states(asking: _Asking) -> Outcome | Listing:
    asking.need("voice_states")
    channel_id = asking.asked.arguments[0]
    place = asking.by_id(Kind.CHANNEL, channel_id)
    if place is None:
        asking.need("channels")
        return asking.absent("channels")
    view, number = place
    asking.need_at(view, number, "voice_states")
    return Listing(_array(_states_in(asking, view, number, channel_id)))


def _states_in(asking: _Asking, view: View, number: int, channel_id: int) -> Iterator[bytes]:
    for user_id, state in view.children(number, Kind.VOICE_STATE):
        if snowflake(state.get("channel_id")) == channel_id:
            member = view.child(number, Kind.MEMBER, user_id)
            if member is not None:
                state["member"] = msgspec.Raw(join(asking.slimmed("members", _plain(member))))
            yield join(asking.pick(state))


def _voice_state(asking: _Asking) -> Outcome:
    """By user and place: the channel, as the guide says, or the guild, as the original's code took it."""
    asking.need("voice_states")
    user_id, place_id = asking.asked.arguments
    place = asking.by_id(Kind.CHANNEL, place_id)
    if place is not None:
        view, number = place
        asking.need_at(view, number, "voice_states")
        state = view.child(number, Kind.VOICE_STATE, user_id)
        if state is not None and snowflake(state.get("channel_id")) == place_id:
            return asking.object(state)
        # A guild may have the id of its first channel; else it is known that the user is not there.
        if view.guild_row(place_id) is None:
            return Missing()
    return asking.object(asking.child("voice_states", Kind.VOICE_STATE, place_id, user_id))


def _children(word: str, kind: Kind) -> _Answer:
    def find(asking: _Asking) -> Outcome | Listing:
        asking.need(word)
        place = asking.guild(asking.asked.arguments[0], word)
        if place is None:
            return Missing()
        view, row = place
        items = view.children(row.number, kind, asking.after)
        if kind in (Kind.PRESENCE,):
            return asking.array(_with_user_id(item, user_id) for user_id, item in items)
        return asking.array(item for _, item in items)

    return find


def _guilds(asking: _Asking) -> Outcome | Listing:
    def of(view: View) -> Iterator[tuple[int, Fields]]:
        for guild_id, row in view.guild_rows(asking.after):
            if row.number or row.state is not GuildState.PENDING:
                yield guild_id, view.guild_fields(guild_id, row)

    merged = heapq.merge(*(of(view) for view in asking.views()), key=lambda item: item[0])
    return asking.array(item for _, item in merged)


def _mutual_guilds(asking: _Asking) -> Outcome | Listing:
    asking.need("members")
    user_id = asking.asked.arguments[0]
    found = sorted(
        (guild_id, at) for at, view in enumerate(asking.views()) for guild_id in view.mutual_guilds(user_id)
    )
    views = list(asking.views())
    guilds = ((views[at], guild_id) for guild_id, at in found if guild_id > asking.after)
    return asking.array(item for view, guild_id in guilds if (item := view.guild(guild_id)) is not None)


def _member_permissions(asking: _Asking) -> Outcome:
    guild_id, user_id, *rest = asking.asked.arguments
    for word in ("members", "roles", *(("channels",) if rest else ())):
        asking.need(word)
        place = asking.guild(guild_id, word)
    channel_id = rest[0] if rest else None
    granted = (
        permissions(place[0], guild_id, user_id, channel_id, wall=asking.wall) if place is not None else None
    )
    if granted is None:
        return Missing()
    found = {"guild_id": text(guild_id), "user_id": text(user_id), "permissions": text(granted)}
    if channel_id is not None:
        found["channel_id"] = text(channel_id)
    return asking.object(found)


def _where_is(asking: _Asking) -> Outcome:
    guild_id = asking.asked.arguments[0]
    place = asking.situation.place(guild_id)
    if place is None:
        raise _Refused("loading", "the gateway does not know its number of shards yet")
    shard_id, cluster = place
    count = asking.situation.shard_count or 0
    return asking.object(
        {
            "guild_id": text(guild_id),
            "cluster": integer(cluster),
            "shard": integer(shard_id),
            "shard_count": integer(count),
        }
    )


_WORDS = {
    Kind.CHANNEL: "channels",
    Kind.THREAD: "threads",
    Kind.THREAD_MEMBER: "thread_members",
    Kind.ROLE: "roles",
    Kind.EMOJI: "emojis",
    Kind.STICKER: "stickers",
    Kind.MEMBER: "members",
    Kind.VOICE_STATE: "voice_states",
    Kind.STAGE: "stage_instances",
    Kind.SCHEDULED_EVENT: "scheduled_events",
    Kind.SOUND: "soundboard_sounds",
    Kind.INTEGRATION: "integrations",
}


# Guilds whose state is counted between two looks at the clock.
COUNTED = 500


def _counting(view: View) -> Generator[None, None, dict[str, int]]:
    """How many entities of each kind a store holds, a little at a time: guilds are looked at one by one."""
    raw = view.reading.get(Table.META, b"counts")
    counts = msgspec.msgpack.decode(raw, type=dict[int, int]) if raw else {}
    found = {word: counts.get(kind, 0) for kind, word in _WORDS.items()}
    found["presences"] = view.reading.entries(Table.PRESENCES)
    found["messages"] = counts.get(MESSAGES, 0)
    states: Counter[GuildState] = Counter()
    rows = view.reading.scan(Table.GUILDS, b"", b"\xff" * 9)
    while some := [state_of(value) for _, value in islice(rows, COUNTED)]:
        states.update(some)
        yield
    found["guilds"] = states.total()
    found["unavailable_guilds"] = states[GuildState.OUTAGE]
    found["pending_guilds"] = states[GuildState.PENDING]
    return found


def stats_of(view: View) -> dict[str, int]:
    """How many entities of each kind a store holds."""
    counting = _counting(view)
    while True:
        try:
            next(counting)
        except StopIteration as done:
            found: dict[str, int] = done.value
            return found


def incomplete_shards(view: View, policy: CachePolicy) -> dict[int, int]:
    """Shards with guilds that came before a kind was kept that is kept now: the newest stamp from which one is.

    A guild in an outage is none of them: a new session would not bring it.
    """
    kinds = [
        kind
        for kind in (*policy.kept(), "guilds")
        if kind not in _WITHOUT_SNAPSHOT and not view.is_complete(kind)
    ]
    if not kinds:
        return {}
    since = max(view.incomplete_since(kind) for kind in kinds)
    return {
        row.shard_id: since
        for _, row in view.guild_rows()
        if row.stamp < since and row.state is not GuildState.OUTAGE
    }


# No GUILD_CREATE brings them, however new.
_WITHOUT_SNAPSHOT = frozenset({"messages", "integrations"})


def _stats(asking: _Asking) -> Listing:
    return Listing(_stats_of_all(asking), at_once=1)


def _stats_of_all(asking: _Asking) -> Iterator[bytes]:
    total: dict[str, int] = {}
    clusters = []
    for cluster in asking.stores.clusters:
        counting = _counting(asking.stores.view(cluster))
        counts = yield from _silently(counting)
        clusters.append({"cluster": cluster, **counts})
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    yield join(asking.pick(_fields(msgspec.json.encode({**total, "clusters": clusters}))))


def _silently(work: Generator[None, None, dict[str, int]]) -> Generator[bytes, None, dict[str, int]]:
    """Work without a result yet, as parts of a listing."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: dict[str, int] = done.value
            return found
        yield b""


def _group(asking: _Asking) -> Outcome:
    """Groups of users have no bots in them."""
    return Missing()


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

ANSWERS: Mapping[str, _Answer] = {
    "CurrentUser": _current_user,
    "GuildChannel": _guild_channel,
    "Emoji": _by_id("emojis", Kind.EMOJI),
    "Group": _group,
    "Guild": _guild,
    "Member": _member,
    "Message": _message,
    "Presence": _presence,
    "PrivateChannel": _private_channel,
    "Role": _by_id("roles", Kind.ROLE),
    "User": _user,
    "VoiceChannelStates": _voice_channel_states,
    "VoiceState": _voice_state,
    "Guilds": _guilds,
    "GuildChannels": _children("channels", Kind.CHANNEL),
    "GuildThreads": _children("threads", Kind.THREAD),
    "GuildRoles": _children("roles", Kind.ROLE),
    "GuildEmojis": _children("emojis", Kind.EMOJI),
    "GuildStickers": _children("stickers", Kind.STICKER),
    "GuildMembers": _children("members", Kind.MEMBER),
    "GuildVoiceStates": _children("voice_states", Kind.VOICE_STATE),
    "GuildPresences": _children("presences", Kind.PRESENCE),
    "GuildScheduledEvents": _children("scheduled_events", Kind.SCHEDULED_EVENT),
    "GuildStageInstances": _children("stage_instances", Kind.STAGE),
    "GuildSoundboardSounds": _children("soundboard_sounds", Kind.SOUND),
    "MutualGuilds": _mutual_guilds,
    "MemberPermissions": _member_permissions,
    "WhereIs": _where_is,
    "Stats": _stats,
}


def answer(asked: Asked, stores: Stores, situation: Situation, policy: CachePolicy, wall: float) -> Outcome:
    """Answer one query. ``wall`` is Unix seconds, for time-outs. Raises what the stores raise."""
    outcome = begin(asked, stores, situation, policy, wall)
    while isinstance(outcome, Listing):
        outcome = outcome.step() or outcome
    return outcome


def begin(
    asked: Asked, stores: Stores, situation: Situation, policy: CachePolicy, wall: float
) -> Outcome | Listing:
    """Answer one query, or begin to: the stores must stay as they are until a :class:`Listing` is done."""
    if not policy.enabled and asked.type not in ("WhereIs", "Group"):
        return Refusal("cache_off", "the cache is switched off (CACHE_ENABLED)")
    try:
        return ANSWERS[asked.type](_Asking(asked, stores, situation, policy, wall))
    except _Refused as refused:
        return refused.refusal
