"""Answer workers' queries from the stores of all clusters of the host, in Discord's own shapes.

One function per type of query, in a table; ``docs/queries.md`` shows each with an example. Nothing here waits: a
question is answered from the stores as they are at this moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec
from rateway.cache.guild_row import GuildState
from rateway.cache.kinds import ENTITY_KINDS, SNAPSHOTS, Kind
from rateway.cache.permissions import permissions
from rateway.cache.policy import CachePolicy
from rateway.cache.query_context import (
    MISSING,
    Asked,
    Found,
    Listing,
    Outcome,
    QueryContext,
    Refusal,
    Refused,
    Situation,
    Stores,
    array_of,
    of_one_cluster,
)
from rateway.cache.reader import CHANNELS, DIRECT, View
from rateway.cache.snapshots import guild_snapshot, members_matching, shard_snapshot
from rateway.cache.stats import counting
from rateway.native.objects import drop_fields, field, merge
from rateway.native.objects.fields import integer, join, snowflake, text
from rateway_protocol.contract.snapshots import ClusterList, ClusterRow

__all__ = ["ANSWERS", "answer", "begin"]

_Answer: TypeAlias = Callable[[QueryContext], Outcome | Listing]


def _current_user(asking: QueryContext) -> Outcome:
    known = [user for view in asking.views() if (user := view.current_user()) is not None]
    return asking.object(max(known)[1]) if known else asking.absent()


def _guild(asking: QueryContext) -> Outcome | Listing:
    guild_id = asking.asked.arguments[0]
    place = asking.guild(guild_id)
    if place is None:
        return MISSING
    view, row = place
    if row.number:
        asking.check(view, guild_id, row, "guilds")
    found = view.guild_told(guild_id, row)
    wanted = [name for name in asking.asked.fields or () if name in SNAPSHOTS]
    if not wanted:
        return asking.object(found)
    for name in wanted:
        asking.need_of(view, guild_id, row, SNAPSHOTS[name][1].name)
    parts = _with_lists(asking.pick(found), view, guild_id, row.number, dict.fromkeys(wanted))
    return Listing(parts, is_there=_guild_stays(view, row.number))


def _guild_stays(view: View, number: int) -> Callable[[], bool]:
    """Return a check whether a guild still has its number, under which its entities stand."""
    return lambda: view.guild_of(number) is not None


def _with_lists(
    found: bytes, view: View, guild_id: int, number: int, lists: Iterable[str]
) -> Iterator[bytes]:
    """A guild's own fields and then its lists, in parts."""
    before = found[:-1]
    for name in lists:
        yield b'%b%b"%b":' % (before, b"" if before == b"{" else b",", name.encode())
        before = b""
        kind, row = SNAPSHOTS[name]
        items = view.all_inside(number, kind, guild_id, names_guild=row.names_guild)
        yield from array_of(item for _, item in items)
    yield b"}"


def _plain(told: bytes) -> bytes:
    """Return an entity without ``guild_id``, as it stands inside its guild."""
    return drop_fields(told, (b"guild_id",))


def _guild_channel(asking: QueryContext) -> Outcome:
    asking.need("channels")
    channel_id = asking.asked.arguments[0]
    for kind in CHANNELS:
        place = asking.by_id(kind, channel_id)
        if place is not None and place[1] != DIRECT:
            view, number = place
            found = view.told(number, kind, channel_id)
            if found is not None and asking.asked.fields is not None:
                found = merge(found, view.channel_details(number, channel_id))
            return asking.object(found)
    return asking.absent("channels")


def _private_channel(asking: QueryContext) -> Outcome:
    asking.need("channels")
    channel_id = asking.asked.arguments[0]
    for view in asking.views():
        if view.home(Kind.CHANNEL, channel_id) == DIRECT:
            return asking.object(view.told(DIRECT, Kind.CHANNEL, channel_id))
    return MISSING


def _by_id(word: str, kind: Kind) -> _Answer:
    """Return how an entity of a kind is found by its id alone."""

    def find(asking: QueryContext) -> Outcome:
        asking.need(word)
        entity_id = asking.asked.arguments[0]
        place = asking.by_id(kind, entity_id)
        if place is None:
            return asking.absent(word)
        return asking.object(place[0].told(place[1], kind, entity_id))

    return find


def _member(asking: QueryContext) -> Outcome:
    guild_id, user_id = asking.asked.arguments
    return asking.object(asking.child("members", Kind.MEMBER, guild_id, user_id))


def _presence(asking: QueryContext) -> Outcome:
    guild_id, user_id = asking.asked.arguments
    found = asking.child("presences", Kind.PRESENCE, guild_id, user_id)
    return asking.object(_with_user_id(found, user_id)) if found is not None else MISSING


def _with_user_id(told: bytes, user_id: int) -> bytes:
    return merge(told, b'{"user_id":"%d"}' % user_id)


def _message(asking: QueryContext) -> Outcome:
    asking.need("messages")
    channel_id, message_id = asking.asked.arguments
    for view in asking.views():
        told = view.message_told(channel_id, message_id)
        if told is not None:
            return asking.object(told)
    return MISSING


def _user(asking: QueryContext) -> Outcome:
    asking.need("members")
    user_id = asking.asked.arguments[0]
    known = []
    for view in asking.views():
        me = view.current_user()
        if me is not None and b"%d" % user_id in me[1] and _id_of(me[1]) == user_id:
            known.append(me)
        elif (user := view.user(user_id)) is not None:
            known.append(user)
    return asking.object(max(known)[1]) if known else asking.absent("members")


def _id_of(told: bytes, name: bytes = b"id") -> int | None:
    value = field(told, name)
    return None if value is None else snowflake(msgspec.Raw(value))


def _voice_channel_states(asking: QueryContext) -> Outcome | Listing:
    asking.need("voice_states")
    channel_id = asking.asked.arguments[0]
    place = asking.by_id(Kind.CHANNEL, channel_id)
    if place is None:
        asking.need("channels")
        return asking.absent("channels")
    view, number = place
    asking.need_at(view, number, "voice_states")
    parts = array_of(_states_in(asking, view, number, channel_id))
    return Listing(parts, is_there=_guild_stays(view, number))


def _states_in(asking: QueryContext, view: View, number: int, channel_id: int) -> Iterator[bytes]:
    for user_id, state in view.all_told(number, Kind.VOICE_STATE):
        if _id_of(state, b"channel_id") == channel_id:
            member = view.told(number, Kind.MEMBER, user_id)
            if member is not None:
                state = merge(state, b'{"member":%b}' % _plain(member))
            yield asking.pick(state)


def _voice_state(asking: QueryContext) -> Outcome:
    """Answer by user and place: a channel (as the original's guide has it) or a guild (as its code did)."""
    asking.need("voice_states")
    user_id, place_id = asking.asked.arguments
    place = asking.by_id(Kind.CHANNEL, place_id)
    if place is not None:
        view, number = place
        asking.need_at(view, number, "voice_states")
        state = view.told(number, Kind.VOICE_STATE, user_id)
        if state is not None and _id_of(state, b"channel_id") == place_id:
            return asking.object(state)
        # A guild may have the id of its first channel; else it is known that the user is not there.
        if view.guild_row(place_id) is None:
            return MISSING
    return asking.object(asking.child("voice_states", Kind.VOICE_STATE, place_id, user_id))


def _children(word: str, kind: Kind) -> _Answer:
    """Return how a guild's entities of a kind are listed."""

    def find(asking: QueryContext) -> Outcome | Listing:
        asking.need(word)
        place = asking.guild(asking.asked.arguments[0], word)
        if place is None:
            return MISSING
        view, row = place
        items = view.all_told(row.number, kind, asking.after)
        stays = _guild_stays(view, row.number)
        if kind is Kind.PRESENCE:
            return asking.array((_with_user_id(item, user_id) for user_id, item in items), stays)
        return asking.array((item for _, item in items), stays)

    return find


def _guilds(asking: QueryContext) -> Outcome | Listing:
    asking.need_guilds()

    def of(view: View) -> Iterator[tuple[int, bytes]]:
        for guild_id, row in view.guild_rows(asking.after):
            if row.number or row.state is not GuildState.PENDING:
                yield guild_id, view.guild_told(guild_id, row)

    merged = heapq.merge(*(of(view) for view in asking.views()), key=lambda item: item[0])
    return asking.array(item for _, item in merged)


def _mutual_guilds(asking: QueryContext) -> Outcome | Listing:
    asking.need("members")
    asking.need_guilds()
    user_id = asking.asked.arguments[0]
    found = sorted(
        (guild_id, at) for at, view in enumerate(asking.views()) for guild_id in view.mutual_guilds(user_id)
    )
    views = list(asking.views())
    guilds = ((views[at], guild_id) for guild_id, at in found if guild_id > asking.after)
    return asking.array(
        view.guild_told(guild_id, row)
        for view, guild_id in guilds
        if (row := view.guild_row(guild_id)) is not None
    )


def _member_permissions(asking: QueryContext) -> Outcome:
    guild_id, user_id, *rest = asking.asked.arguments
    for word in ("members", "roles", *(("channels",) if rest else ())):
        asking.need(word)
        place = asking.guild(guild_id, word)
    channel_id = rest[0] if rest else None
    granted = (
        permissions(place[0], guild_id, user_id, channel_id, wall=asking.wall) if place is not None else None
    )
    if granted is None:
        return MISSING
    found = {"guild_id": text(guild_id), "user_id": text(user_id), "permissions": text(granted)}
    if channel_id is not None:
        found["channel_id"] = text(channel_id)
    return asking.object(join(found))


def _where_is(asking: QueryContext) -> Outcome:
    guild_id = asking.asked.arguments[0]
    place = asking.situation.place(guild_id)
    if place is None:
        raise Refused("loading", "the gateway does not know its number of shards yet")
    shard_id, cluster = place
    found = {
        "guild_id": text(guild_id),
        "cluster": integer(cluster),
        "shard": integer(shard_id),
        "shard_count": integer(asking.situation.shard_count or 0),
    }
    return asking.object(join(found))


def _stats(asking: QueryContext) -> Listing:
    return Listing(_stats_of_all(asking), at_once=1)


def _stats_of_all(asking: QueryContext) -> Iterator[bytes]:
    total: dict[str, int] = {}
    clusters = []
    for cluster in asking.stores.clusters:
        if cluster in asking.situation.elsewhere:
            continue
        counts = yield from counting(asking.stores.view(cluster))
        clusters.append({"cluster": cluster, **counts})
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    yield asking.pick(msgspec.json.encode({**total, "clusters": clusters}))


def _clusters(asking: QueryContext) -> Outcome:
    """Return every cluster of the bot. ``guilds`` is null where its store cannot be read here, ``owner`` where a
    cluster is not among those that this gateway was given: its owner cannot be known here.
    """
    situation = asking.situation
    count, per_cluster = situation.shard_count, situation.shards_per_cluster
    if count is None:
        raise Refused("loading", "the gateway does not know its number of shards yet")
    readable = set(asking.stores.clusters) - set(situation.unreadable) - set(situation.elsewhere)
    clusters: list[ClusterRow] = []
    for first in range(0, count, per_cluster):
        number = first // per_cluster + 1
        known = number in readable and asking.policy.enabled
        owner = "another" if number in situation.elsewhere else None
        clusters.append(
            ClusterRow(
                cluster=number,
                exchange=situation.exchange_of(number),
                shards=tuple(range(first, min(first + per_cluster, count))),
                guilds=asking.stores.view(number).guild_count() if known else None,
                owner="this" if number in situation.clusters else owner,
                log=situation.log_of(number) if number in situation.clusters else None,
            )
        )
    found = ClusterList(
        shard_count=count,
        clusters=tuple(clusters),
        intents=situation.intents,
        kinds=tuple(sorted(asking.policy.kept())),
        events=situation.events,
        events_except=situation.events_except,
    )
    return Found(asking.pick(msgspec.json.encode(found)))


def _group(asking: QueryContext) -> Outcome:
    """Answer that a group is unknown: groups have no bots in them."""
    return MISSING


# Types of query that follow from the table of kinds.
_ANSWERS_OF_KINDS: dict[str, _Answer] = {}
for _row in ENTITY_KINDS:
    if _row.kind is not None and _row.id_query:
        _ANSWERS_OF_KINDS[_row.id_query] = _by_id(_row.name, _row.kind)
    if _row.kind is not None and _row.list_query:
        _ANSWERS_OF_KINDS[_row.list_query] = _children(_row.name, _row.kind)

# Answered from the layout alone.
_WITHOUT_CACHE = frozenset({"WhereIs", "Clusters", "Group"})

ANSWERS: Mapping[str, _Answer] = {
    "CurrentUser": _current_user,
    "GuildChannel": _guild_channel,
    "Group": _group,
    "Guild": _guild,
    "Member": _member,
    "Message": _message,
    "Presence": _presence,
    "PrivateChannel": _private_channel,
    "User": _user,
    "VoiceChannelStates": _voice_channel_states,
    "VoiceState": _voice_state,
    "Guilds": _guilds,
    **_ANSWERS_OF_KINDS,
    "MutualGuilds": _mutual_guilds,
    "MemberPermissions": _member_permissions,
    "WhereIs": _where_is,
    "Stats": _stats,
    "Clusters": _clusters,
    "ShardSnapshot": shard_snapshot,
    "GuildSnapshot": guild_snapshot,
    "MembersMatching": members_matching,
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
    """Answer one query, or begin to: the stores must stay as they are during each step of a :class:`Listing`."""
    if not policy.enabled and asked.type not in _WITHOUT_CACHE:
        return Refusal("cache_off", "the cache is switched off (CACHE_ENABLED)")
    try:
        if asked.cluster is not None:
            stores, situation = of_one_cluster(asked.cluster, stores, situation)
        return ANSWERS[asked.type](QueryContext(asked, stores, situation, policy, wall))
    except Refused as refused:
        return refused.refusal
