"""A worker's query (``docs/contract.md``, *Queries*).

One query is ``{"type": "Guild", "arguments": [123], "return_routing_key": "abc"}``; ``{"queries": [{…}, {…}]}`` asks
for many at once and is answered with an array in the same order. Ids may be integers or decimal strings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from rateway_protocol.contract.commands import identifier
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.topology import CACHE_KEY, GATEWAY_KEY, MAX_KEY_BYTES, OWN_PREFIX
from rateway_protocol.discord import intents
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.events import DOCUMENTED

__all__ = [
    "CLUSTER_HEADER", "MAX_USER_IDS", "QUERY_TYPES", "MembersWanted", "Query", "QueryRequest", "QueryType",
    "SnapshotFor", "key_fault", "parse_query", "question",
]  # fmt: skip

# A query that one gateway asks another carries this header, an integer: it is answered from that cluster alone, and
# never asked of a third.
CLUSTER_HEADER = "rateway_cluster"
# A worker that asks for more at once gains nothing and makes others wait.
MAX_QUERIES = 1_000
MAX_BODY = 1 << 20
MAX_FIELDS = 100
DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
# https://docs.discord.com/developers/events/gateway-events#request-guild-members: as many ids, and as many members for
# the beginning of a name.
MAX_USER_IDS = 100
# https://docs.discord.com/developers/events/gateway-events#identify
LARGE_THRESHOLDS = range(50, 251)
DEFAULT_LARGE_THRESHOLD = 50
# The longest type's name is half as long: what is longer is no slip.
LONGEST_SLIP = 40
# Of all pairs of letters that two names have, the part that both have: less is another word.
ALIKE = 0.5
# A query for one entity waits for milliseconds; who has not got its answer by now has asked again.
MAX_DEADLINE_S = 60.0
# ``type`` and ``arguments``: with these and nothing else there is nothing else to be checked.
_ESSENTIAL = 2


@dataclass(frozen=True, slots=True)
class QueryType:
    """One type of query: its arguments in order, how many of them must be there, whether it lists with paging."""

    name: str
    arguments: tuple[str, ...]
    required: int
    lists: bool
    help: str


def _type(
    name: str, arguments: str, text: str, *, required: int | None = None, lists: bool = False
) -> QueryType:
    names = tuple(arguments.split())
    return QueryType(name, names, len(names) if required is None else required, lists, text)


QUERY_TYPES: Mapping[str, QueryType] = MappingProxyType(
    {
        row.name: row
        for row in (
            # The original's.
            _type("CurrentUser", "", "the bot's own user"),
            _type("GuildChannel", "channel", "a channel or thread of a guild"),
            _type("Emoji", "emoji", "an emoji of a guild"),
            _type("Group", "group", "a group of users: always unknown for bots"),
            _type("Guild", "guild", "a guild's own fields, without its lists"),
            _type("Member", "guild user", "a member with its user"),
            _type("Message", "channel message", "a message, when messages are kept"),
            _type("Presence", "guild user", "a user's presence in a guild"),
            _type("PrivateChannel", "channel", "a direct channel"),
            _type("Role", "role", "a role"),
            _type("User", "user", "a user"),
            _type("VoiceChannelStates", "channel", "who is in a voice channel, with their members"),
            _type("VoiceState", "user place", "a user's voice state; place is the channel or the guild"),
            # Lists, with limit and after.
            _type("Guilds", "", "all guilds", lists=True),
            _type("GuildChannels", "guild", "a guild's channels", lists=True),
            _type("GuildThreads", "guild", "a guild's active threads", lists=True),
            _type("GuildRoles", "guild", "a guild's roles", lists=True),
            _type("GuildEmojis", "guild", "a guild's emojis", lists=True),
            _type("GuildStickers", "guild", "a guild's stickers", lists=True),
            _type("GuildMembers", "guild", "a guild's members", lists=True),
            _type("GuildVoiceStates", "guild", "a guild's voice states", lists=True),
            _type("GuildPresences", "guild", "a guild's presences", lists=True),
            _type("GuildScheduledEvents", "guild", "a guild's scheduled events", lists=True),
            _type("GuildStageInstances", "guild", "a guild's stage instances", lists=True),
            _type("GuildSoundboardSounds", "guild", "a guild's soundboard sounds", lists=True),
            _type("MutualGuilds", "user", "the guilds in which a user is known", lists=True),
            # What is worked out.
            _type("MemberPermissions", "guild user channel", "a member's permissions", required=2),
            _type("WhereIs", "guild", "the cluster and shard of a guild"),
            _type("Stats", "", "what the cache holds"),
            _type(
                "Clusters",
                "",
                "the bot's clusters: exchange, shards, guilds, owner; what the gateway was given",
            ),
            # With the position in the shard's events at which they were read.
            _type("ShardSnapshot", "shard", "what READY of a shard would say now"),
            _type("GuildSnapshot", "guild", "a guild as GUILD_CREATE would send it now"),
            _type("MembersMatching", "guild", "members as Request Guild Members (op 8) finds them"),
        )
    }
)


class SnapshotFor(msgspec.Struct, frozen=True):
    """The bot that a ``GuildSnapshot`` is for: what its IDENTIFY says."""

    intents: int = intents.ALL
    large_threshold: int = DEFAULT_LARGE_THRESHOLD


class MembersWanted(msgspec.Struct, frozen=True):
    """The members that ``MembersMatching`` asks for: those of ``user_ids``, or those whose name begins with
    ``query``.
    """

    query: str | None = None
    """None exactly when ``user_ids`` are asked for. An empty one begins every name."""
    limit: int = 0
    """Members at most; 0 with an empty ``query``: all."""
    user_ids: tuple[int, ...] = ()
    presences: bool = False


class Query(msgspec.Struct, frozen=True):
    """One thing that is asked for. ``limit`` is ``None`` for what is not a list; ``fields`` ``None`` means all.

    ``options`` are what the type takes beyond that; None for nearly all. ``cluster``: the only one to answer from.
    """

    type: str
    arguments: tuple[int, ...]
    fields: tuple[str, ...] | None = None
    limit: int | None = None
    after: int | None = None
    options: SnapshotFor | MembersWanted | None = None
    cluster: int | None = None


class QueryRequest(msgspec.Struct, frozen=True):
    """The queries of one message; one that cannot be served is its :class:`Fault`.

    ``batch``: the answer is an array. ``return_routing_key`` is where an old worker waits, on the same exchange.
    ``parts``: the answer may come in several messages.
    """

    queries: tuple[Query | Fault, ...]
    batch: bool
    return_routing_key: str | None
    parts: bool = False


_decode = msgspec.json.Decoder().decode


def key_fault(key: object) -> Fault | None:
    """Return why a ``return_routing_key`` may not be used, or ``None``."""
    if not isinstance(key, str) or not key:
        return Fault(ErrorCode.BAD_KEY, "return_routing_key is no text, or an empty one")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return Fault(ErrorCode.BAD_KEY, "return_routing_key is no valid text")
    if size > MAX_KEY_BYTES:
        return Fault(ErrorCode.BAD_KEY, f"return_routing_key has {size} bytes; AMQP takes {MAX_KEY_BYTES}")
    if key in (CACHE_KEY, GATEWAY_KEY):
        return Fault(
            ErrorCode.BAD_KEY, f"return_routing_key {key!r} would send the answer to the gateway itself"
        )
    if key.startswith(OWN_PREFIX) or key in DOCUMENTED or key.removesuffix(".before") in DOCUMENTED:
        return Fault(
            ErrorCode.BAD_KEY,
            f"return_routing_key {key!r} is an event's name: the queues bound to it would take the answer for an event",
        )
    return None


def parse_query(body: bytes, *, has_reply_to: bool) -> QueryRequest | Fault:
    """Return the queries of a message, or what is wrong with all of it. Never raises.

    *has_reply_to*: the answer goes to AMQP's ``reply_to``, and ``return_routing_key`` is not looked at.
    """
    if len(body) > MAX_BODY:
        return Fault(ErrorCode.TOO_LARGE, f"{len(body)} bytes; a query has at most {MAX_BODY}")
    try:
        said = _decode(body)
    except FAILURES as error:
        return Fault(ErrorCode.BAD_JSON, f"the body is not JSON: {error}")
    if not isinstance(said, dict):
        return Fault(
            ErrorCode.BAD_JSON, 'the body is no object such as {"type": "Guild", "arguments": [123]}'
        )
    key = None
    if not has_reply_to:
        key = said.get("return_routing_key")
        if key is None:
            return Fault(
                ErrorCode.NO_TARGET, "neither reply_to nor return_routing_key says where the answer goes"
            )
        fault = key_fault(key)
        if fault is not None:
            return fault
    parts = said.get("parts", False)
    if not isinstance(parts, bool) or (parts and not has_reply_to):
        words = (
            "parts is neither true nor false" if has_reply_to else "an answer in parts goes to reply_to alone"
        )
        return QueryRequest((Fault(ErrorCode.INVALID, words),), False, key)
    if "queries" not in said:
        return QueryRequest((_query(said),), False, key, parts)
    listed = said["queries"]
    if not isinstance(listed, list):
        queries: tuple[Query | Fault, ...] = (Fault(ErrorCode.INVALID, "queries is no array"),)
        return QueryRequest(queries, False, key)
    if len(listed) > MAX_QUERIES:
        queries = (Fault(ErrorCode.TOO_LARGE, f"{len(listed)} queries at once; {MAX_QUERIES} are the most"),)
        return QueryRequest(queries, False, key)
    queries = tuple([_query(item, hint=False) for item in listed])
    return QueryRequest(queries, True, key, parts)


def question(query: Query) -> dict[str, object]:
    """Return a query as :func:`parse_query` reads it, but for its ``cluster``, which a header says."""
    said: dict[str, object] = {"type": query.type, "arguments": [str(each) for each in query.arguments]}
    if query.fields is not None:
        said["fields"] = query.fields
    if query.limit is not None:
        said["limit"] = query.limit
    if query.after is not None:
        said["after"] = str(query.after)
    match query.options:
        case SnapshotFor(intents=bits, large_threshold=threshold):
            said |= {"intents": bits, "large_threshold": threshold}
        case MembersWanted(query=None, user_ids=user_ids, presences=presences):
            said |= {"user_ids": [str(each) for each in user_ids], "presences": presences}
        case MembersWanted(query=begins, limit=limit, presences=presences):
            said |= {"query": begins, "limit": limit, "presences": presences}
    return said


def _query(said: object, *, hint: bool = True) -> Query | Fault:
    if not isinstance(said, dict):
        return Fault(ErrorCode.INVALID, "a query is an object with type and arguments")
    name = said.get("type")
    kind = QUERY_TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        return _unknown_type(name, hint)
    arguments = _arguments(kind, said.get("arguments"))
    if isinstance(arguments, Fault):
        return arguments
    options = _OPTIONS.get(kind.name)
    if len(said) == _ESSENTIAL and "arguments" in said and not kind.lists and options is None:
        return Query(kind.name, arguments)
    fields = _fields(said.get("fields"))
    if isinstance(fields, Fault):
        return fields
    if options is not None:
        if fields is not None:
            return Fault(ErrorCode.INVALID, f"{kind.name} is answered whole: it takes no fields")
        wanted = options(said)
        return wanted if isinstance(wanted, Fault) else Query(kind.name, arguments, options=wanted)
    paging = _paging(kind, said)
    if isinstance(paging, Fault):
        return paging
    limit, after = paging
    return Query(kind.name, arguments, fields, limit, after)


def _unknown_type(name: object, hint: bool) -> Fault:
    """*hint*: whether to look for what was meant. Not in a batch: a thousand slips would cost what one does each."""
    if not isinstance(name, str):
        return Fault(ErrorCode.INVALID, "type is missing: the name of what is asked for, such as Guild")
    words = f"there is no type {name[:100]!r}"
    if hint and len(name) <= LONGEST_SLIP:
        close = _nearest_type(name)
        words += f"; did you mean {close}?" if close else f"; there are {', '.join(QUERY_TYPES)}"
    return Fault(ErrorCode.UNKNOWN_TYPE, words)


def _pairs(name: str) -> frozenset[str]:
    """Return the pairs of neighbouring letters of a name, its ends included."""
    text = f"^{name.lower()}$"
    return frozenset(map("".join, itertools.pairwise(text)))


_PAIRS = {name: _pairs(name) for name in QUERY_TYPES}


def _nearest_type(name: str) -> str | None:
    """Return the type that looks most like *name*, by the letters that they share (a fiftieth of what an alignment
    costs).
    """
    pairs = _pairs(name)

    def likeness(other: str) -> float:
        return 2 * len(pairs & _PAIRS[other]) / (len(pairs) + len(_PAIRS[other]))

    nearest = max(_PAIRS, key=likeness)
    return nearest if likeness(nearest) >= ALIKE else None


def _arguments(kind: QueryType, given: object) -> tuple[int, ...] | Fault:
    if given is None:
        given = []
    if not isinstance(given, list):
        return Fault(ErrorCode.INVALID, "arguments is no array")
    if not kind.required <= len(given) <= len(kind.arguments):
        wanted = ", ".join(kind.arguments) or "none"
        return Fault(
            ErrorCode.INVALID, f"{kind.name} takes these arguments: {wanted}; {len(given)} were given"
        )
    numbers = tuple(map(identifier, given))
    if None in numbers:
        name = kind.arguments[numbers.index(None)]
        return Fault(ErrorCode.INVALID, f"the argument {name} is no id (an integer or a decimal string)")
    return numbers  # type: ignore[return-value]  # no None among them


def _fields(given: object) -> tuple[str, ...] | Fault | None:
    if given is None:
        return None
    if (
        not isinstance(given, list)
        or not all(isinstance(name, str) for name in given)
        or len(given) > MAX_FIELDS
    ):
        return Fault(ErrorCode.INVALID, f"fields is no array of at most {MAX_FIELDS} names")
    return tuple(given)


def _paging(kind: QueryType, said: Mapping[str, Any]) -> tuple[int | None, int | None] | Fault:
    limit, after = said.get("limit"), said.get("after")
    if not kind.lists:
        if limit is not None or after is not None:
            return Fault(ErrorCode.INVALID, f"{kind.name} is no list: it has no limit and no after")
        return None, None
    if limit is None:
        limit = DEFAULT_LIMIT
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        return Fault(ErrorCode.INVALID, f"limit is no number from 1 to {MAX_LIMIT}")
    if after is not None and (after := identifier(after)) is None:
        return Fault(ErrorCode.INVALID, "after is no id (an integer or a decimal string)")
    return limit, after


def _snapshot_for(said: Mapping[str, Any]) -> SnapshotFor | Fault:
    bits, threshold = said.get("intents", intents.ALL), said.get("large_threshold", DEFAULT_LARGE_THRESHOLD)
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits < 1 << 63:
        return Fault(ErrorCode.INVALID, "intents is no number of intents' bits")
    if isinstance(threshold, bool) or not isinstance(threshold, int) or threshold not in LARGE_THRESHOLDS:
        words = f"large_threshold is no number from {LARGE_THRESHOLDS[0]} to {LARGE_THRESHOLDS[-1]}"
        return Fault(ErrorCode.INVALID, words)
    return SnapshotFor(bits, threshold)


def _members_wanted(said: Mapping[str, Any]) -> MembersWanted | Fault:
    query, given, limit = said.get("query"), said.get("user_ids"), said.get("limit", 0)
    presences = said.get("presences", False)
    if not isinstance(presences, bool):
        return Fault(ErrorCode.INVALID, "presences is neither true nor false")
    if (query is None) is (given is None):
        return Fault(ErrorCode.INVALID, "MembersMatching takes one of query and user_ids")
    if given is not None:
        if not isinstance(given, list) or len(given) > MAX_USER_IDS:
            return Fault(ErrorCode.INVALID, f"user_ids is no array of at most {MAX_USER_IDS} ids")
        ids = tuple([number for each in given if (number := identifier(each)) is not None])
        if len(ids) < len(given):
            return Fault(ErrorCode.INVALID, "user_ids holds something that is no id")
        return MembersWanted(user_ids=tuple(dict.fromkeys(ids)), presences=presences)
    if not isinstance(query, str):
        return Fault(ErrorCode.INVALID, "query is no text")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        return Fault(ErrorCode.INVALID, "limit is no number from 0 on")
    return MembersWanted(query, limit, presences=presences)


# Types that take more than arguments, and how that is read.
_OPTIONS: Mapping[str, Callable[[Mapping[str, Any]], SnapshotFor | MembersWanted | Fault]] = {
    "GuildSnapshot": _snapshot_for,
    "MembersMatching": _members_wanted,
}
