"""The context of one query: which stores hold what it asks for, and why there is no answer.

The types of query themselves are in ``queries.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol, TypeAlias

import msgspec
from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.kinds import Kind
from rateway.cache.policy import CachePolicy
from rateway.cache.reader import View
from rateway.native.objects.fields import fields, join
from rateway_protocol.contract.queries import MembersWanted, SnapshotFor
from rateway_protocol.discord.snowflake import shard_of

__all__ = [
    "MAX_ANSWER",
    "MISSING",
    "Asked",
    "Found",
    "Listing",
    "Missing",
    "Outcome",
    "QueryContext",
    "Refusal",
    "Refused",
    "Situation",
    "Stores",
    "array_of",
    "of_one_cluster",
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
    @property
    def options(self) -> SnapshotFor | MembersWanted | None: ...
    @property
    def cluster(self) -> int | None: ...


# These three are made for every query: as structs in a tenth of the time.


class Found(msgspec.Struct, frozen=True, gc=False):
    """An answer's JSON."""

    body: bytes


class Missing(msgspec.Struct, frozen=True, gc=False):
    """Known not to be there."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
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
    """A long answer that is read in steps (:meth:`step`), so that events and other queries go on between them.

    ``parts`` are the pieces of its JSON one after the other; an empty one stands for work without a result.
    Between two steps the stores may move on; ``is_there`` returns whether the entities that are read still exist then.
    ``of_one_moment``: the stores stay as they are until the last step.
    """

    def __init__(
        self,
        parts: Iterator[bytes],
        *,
        at_once: int = STEP,
        is_there: Callable[[], bool] = lambda: True,
        of_one_moment: bool = False,
    ) -> None:
        self.is_there = is_there
        self.of_one_moment = of_one_moment
        self._parts = parts
        self._at_once = at_once
        self._taken: list[bytes] = []
        #: Bytes read so far and not taken yet.
        self.size = 0

    def step(self) -> Found | Refusal | None:
        """Read some more; the answer when there are none left."""
        taken = list(islice(self._parts, self._at_once))
        self._taken += taken
        self.size += sum(map(len, taken))
        if self.size > MAX_ANSWER:
            words = (
                f"the answer has more than {MAX_ANSWER >> 20} MiB; ask for it in pages, or for fewer fields"
            )
            return Refusal("too_large", words)
        return Found(self.take()) if len(taken) < self._at_once else None

    def take(self) -> bytes:
        """Return what was read so far, and begin the rest of the answer."""
        taken, self._taken, self.size = b"".join(self._taken), [], 0
        return taken


def array_of(items: Iterable[bytes]) -> Iterator[bytes]:
    """An array's JSON in parts."""
    comma = b"["
    for item in items:
        yield comma + item
        comma = b","
    yield b"[]" if comma == b"[" else b"]"


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts that are not in the stores: the layout of shards, and which of them are still starting."""

    shard_count: int | None = None
    """None before the gateway knows: nothing is then said to be elsewhere."""
    shards_per_cluster: int = 8
    clusters: Collection[int] = ()
    """Clusters of this host."""
    elsewhere: Collection[int] = frozenset()
    """Clusters of this host that another gateway runs now: what their stores say is old."""
    is_loading: Callable[[int], bool] = field(default=lambda shard_id: False)
    exchange_of: Callable[[int], str] = field(default=lambda cluster: f"rateway-{cluster}")
    """The exchange of a cluster, as the contract names it."""
    log_of: Callable[[int], str | None] = field(default=lambda cluster: None)
    """The event log of a cluster of this host, if there is one."""
    intents: int = 0
    """What the gateway identifies with."""
    events: tuple[str, ...] | None = None
    """The names that are published; None for all but ``events_except``."""
    events_except: tuple[str, ...] = ()
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Clusters of this host whose store is of no use now, and why: what it says may be old, or it says nothing."""

    def place(self, guild_id: int) -> tuple[int, int] | None:
        """Return a guild's shard and cluster."""
        if self.shard_count is None:
            return None
        shard_id = shard_of(guild_id, self.shard_count)
        return shard_id, shard_id // self.shards_per_cluster + 1


class Stores(Protocol):
    """The clusters' stores at one moment."""

    @property
    def clusters(self) -> Sequence[int]: ...

    def view(self, cluster: int) -> View: ...


class _OneStore:
    """The store of one cluster, of several."""

    def __init__(self, stores: Stores, cluster: int) -> None:
        self._stores = stores
        self.clusters: Sequence[int] = (cluster,) if cluster in stores.clusters else ()

    def view(self, cluster: int) -> View:
        return self._stores.view(cluster)


def of_one_cluster(cluster: int, stores: Stores, situation: Situation) -> tuple[Stores, Situation]:
    """Return the stores and the situation as far as one cluster goes. Raises :class:`Refused` when another gateway runs
    it: this one's store of it is old.
    """
    if cluster in situation.elsewhere or cluster not in situation.clusters:
        raise Refused("elsewhere", f"this gateway does not run cluster {cluster}")
    unreadable = {number: why for number, why in situation.unreadable.items() if number == cluster}
    return _OneStore(stores, cluster), replace(situation, clusters=(cluster,), unreadable=unreadable)


class Refused(Exception):
    """Ends an answer early; goes no further than :func:`rateway.cache.queries.begin`."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.refusal = Refusal(code, words)


# There is nothing to tell them apart by.
MISSING = Missing()


class QueryContext:
    """One query that is being answered."""

    __slots__ = ("asked", "policy", "situation", "stores", "wall")

    def __init__(
        self, asked: Asked, stores: Stores, situation: Situation, policy: CachePolicy, wall: float
    ) -> None:
        self.asked = asked
        self.stores = stores
        self.situation = situation
        self.policy = policy
        self.wall = wall

    # Where things are.

    def need(self, kind: str) -> None:
        """Raise :class:`Refused` unless that kind of entity is kept."""
        if not self.policy.keeps(kind):
            raise Refused("cache_off", f"the cache keeps no {kind.replace('_', ' ')} (see its settings)")

    def need_of(self, view: View, guild_id: int, row: GuildRow, kind: str) -> None:
        """Raise :class:`Refused` unless that kind is kept and has come with that guild."""
        self.need(kind)
        self.check(view, guild_id, row, kind)

    def need_at(self, view: View, number: int, kind: str) -> None:
        """Do what :meth:`need_of` does for a guild by its number."""
        guild = view.guild_of(number)
        row = view.guild_row(guild[0]) if guild is not None else None
        if guild is not None and row is not None:
            self.need_of(view, guild[0], row, kind)

    def views(self) -> Iterator[View]:
        """Yield each readable store; at the end raise :class:`Refused` if another store cannot be read."""
        yield from self.readable_views()
        for cluster, words in self.situation.unreadable.items():
            if cluster not in self.situation.elsewhere:
                raise Refused("unavailable", words)

    def readable_views(self) -> Iterator[View]:
        """Yield each readable store, for what is the same in all."""
        unreadable, elsewhere = self.situation.unreadable, self.situation.elsewhere
        for cluster in self.stores.clusters:
            if cluster not in unreadable and cluster not in elsewhere:
                yield self.stores.view(cluster)

    def shard(self, shard_id: int) -> View:
        """Return the store of a shard."""
        situation = self.situation
        count = situation.shard_count
        if count is None:
            raise Refused("loading", "the gateway does not know its number of shards yet")
        if shard_id >= count:
            raise Refused("no_such_shard", f"there is no shard {shard_id}: 0 to {count - 1}")
        cluster = shard_id // situation.shards_per_cluster + 1
        if cluster in situation.elsewhere or cluster not in situation.clusters:
            raise Refused("elsewhere", f"another gateway runs shard {shard_id}")
        if cluster in situation.unreadable:
            raise Refused("unavailable", situation.unreadable[cluster])
        if cluster not in self.stores.clusters:
            raise Refused("loading", f"shard {shard_id} is still starting")
        return self.stores.view(cluster)

    def guild(self, guild_id: int, kind: str | None = None) -> tuple[View, GuildRow] | None:
        """Return the store of a guild; None when the bot is not in it. ``kind``: what of it is asked for."""
        place = self.situation.place(guild_id)
        if place is not None and place[1] in self.situation.elsewhere:
            raise Refused("elsewhere", f"guild {guild_id} is on shard {place[0]}, which another gateway runs")
        if place is not None and place[1] in self.situation.unreadable:
            raise Refused("unavailable", self.situation.unreadable[place[1]])
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
            raise Refused("elsewhere", f"guild {guild_id} is on shard {place[0]}, which another gateway runs")
        if place is not None and self.situation.is_loading(place[0]):
            raise Refused("loading", f"shard {place[0]} of guild {guild_id} is still starting")
        # A write that was lost may have been the one that brought this guild.
        self.absent("guilds", loading=False, shard_id=None if place is None else place[0])
        return None

    def check(self, view: View, guild_id: int, row: GuildRow, kind: str | None) -> None:
        if not row.number and (kind is not None or row.state is GuildState.PENDING):
            outage = " (it is in an outage)" if row.state is GuildState.OUTAGE else ""
            raise Refused("loading", f"guild {guild_id} has not come from Discord yet{outage}")
        if kind is not None and row.stamp < view.incomplete_since(kind):
            words = f"{kind.replace('_', ' ')} of guild {guild_id} are incomplete until Discord sends it anew"
            raise Refused("incomplete", words)

    def absent(
        self, kind: str | None = None, *, loading: bool = True, shard_id: int | None = None
    ) -> Outcome:
        """Return that an entity is in no store; *shard_id*: the shard whose events would have brought it, if known.

        Raises :class:`Refused` while shards are starting or its kind is incomplete: it may exist then.
        """
        count = self.situation.shard_count
        per_cluster = self.situation.shards_per_cluster
        for cluster in self.situation.clusters if loading else ():
            shards = range((cluster - 1) * per_cluster, min(cluster * per_cluster, count or 0))
            if any(self.situation.is_loading(shard_id) for shard_id in shards):
                raise Refused("loading", f"shards of cluster {cluster} are still starting")
        if kind is not None and not all(view.is_complete(kind) for view in self.views()):
            words = f"{kind.replace('_', ' ')} of some guilds are incomplete until Discord sends these anew"
            raise Refused("incomplete", words)
        if kind is not None:
            self.need_guilds(shard_id)
        return MISSING

    def need_guilds(self, shard_id: int | None = None) -> None:
        """Raise :class:`Refused` where the guilds of a shard are not known; without *shard_id*: of any."""
        for view in self.readable_views():
            for cold in view.cold_shards():
                if shard_id in (None, cold):
                    words = (
                        f"the guilds of shard {cold} are not known here until a new session brings them: another "
                        "gateway had the shard before, and its cache could not be taken over"
                    )
                    raise Refused("incomplete", words)

    def by_id(self, kind: Kind, entity_id: int) -> tuple[View, int] | None:
        """Return the store and guild number of an entity that is asked for without its guild."""
        for view in self.views():
            number = view.home(kind, entity_id)
            if number is not None:
                return view, number
        return None

    # What is said.

    def object(self, told: bytes | None) -> Outcome:
        """Return one entity with the fields that were asked for."""
        return MISSING if told is None else Found(self.pick(told))

    def pick(self, told: bytes) -> bytes:
        """Return an entity with the fields that were asked for."""
        names = self.asked.fields
        if names is None:
            return told
        found = fields(told)
        return join({name: found[name] for name in names if name in found})

    def array(self, items: Iterable[bytes], is_there: Callable[[], bool] = lambda: True) -> Listing:
        """Return a list of as many entities as were asked for."""
        parts = array_of(map(self.pick, islice(items, self.asked.limit or LIMIT)))
        return Listing(parts, is_there=is_there)

    @property
    def after(self) -> int:
        return -1 if self.asked.after is None else self.asked.after

    def child(self, word: str, kind: Kind, guild_id: int, entity_id: int) -> bytes | None:
        """Return an entity that is asked for with its guild."""
        self.need(word)
        place = self.guild(guild_id, word)
        return None if place is None else place[0].told(place[1].number, kind, entity_id, guild_id)
