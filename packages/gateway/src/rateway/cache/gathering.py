"""Which clusters a query is asked of, and one answer out of theirs, where other gateways run some of the clusters.

An answer is JSON, ``null`` for what is not known, or a :class:`Fault`. ``HERE`` stands for the clusters of this
gateway, which answer together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Final, TypeAlias

import msgspec
from rateway.cache.query_context import LIMIT, Situation
from rateway.native.objects import drop_fields, field
from rateway.native.objects.fields import fields, join, snowflake
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.queries import QUERY_TYPES, Query
from rateway_protocol.contract.snapshots import ClusterList
from rateway_protocol.discord.envelope import FAILURES

__all__ = ["HERE", "NOT_KNOWN", "Answers", "Spread", "asked_of", "merged", "question_of", "spread_of"]

HERE: Final = 0
NOT_KNOWN: Final = b"null"

Answers: TypeAlias = Mapping[int, bytes | Fault]
"""Answers to one query by cluster, :data:`HERE` among them where it was asked."""


class Spread(Enum):
    """How the answer to a type of query lies over the clusters."""

    LAYOUT = "layout"
    """It follows from the layout."""
    ONE = "one"
    """One cluster has it: that of the first argument."""
    ANY = "any"
    """Any cluster may have it: this gateway's are asked first, the others where those do not know it."""
    LIST = "list"
    """A list of what all have, by id."""
    SUM = "sum"
    """Counts of all."""
    ROWS = "rows"
    """A row for each cluster, which its own gateway knows best."""


_SPREAD: Final[Mapping[str, Spread]] = {
    "WhereIs": Spread.LAYOUT,
    "Group": Spread.LAYOUT,
    "Guilds": Spread.LIST,
    "MutualGuilds": Spread.LIST,
    "Stats": Spread.SUM,
    "Clusters": Spread.ROWS,
}


def spread_of(kind: str) -> Spread:
    """Return how a type's answer lies over the clusters."""
    known = _SPREAD.get(kind)
    if known is not None:
        return known
    return Spread.ONE if QUERY_TYPES[kind].arguments[:1] in (("guild",), ("shard",)) else Spread.ANY


def asked_of(query: Query, situation: Situation, others: Collection[int]) -> Collection[int]:
    """Return which of the clusters *others* the query is asked of; those of :attr:`Spread.ANY` after ``HERE``."""
    spread = spread_of(query.type)
    if spread is Spread.LAYOUT:
        return ()
    if spread is not Spread.ONE:
        return others
    if QUERY_TYPES[query.type].arguments[0] == "shard":
        count = situation.shard_count
        shard_id = query.arguments[0]
        cluster = shard_id // situation.shards_per_cluster + 1 if count and shard_id < count else None
    else:
        place = situation.place(query.arguments[0])
        cluster = None if place is None else place[1]
    return (cluster,) if cluster is not None and cluster in others else ()


def question_of(query: Query) -> Query:
    """Return the query as each cluster is asked it, so that the answers can be put together."""
    if query.fields is None:
        return query
    match spread_of(query.type):
        case Spread.LIST if "id" not in query.fields:
            return msgspec.structs.replace(query, fields=(*query.fields, "id"))
        case Spread.SUM | Spread.ROWS:
            return msgspec.structs.replace(query, fields=None)
    return query


def merged(query: Query, answers: Answers) -> bytes | Fault:
    """Return the one answer."""
    match spread_of(query.type):
        case Spread.LIST:
            return _list(query, answers)
        case Spread.SUM:
            return _sum(query, answers)
        case Spread.ROWS:
            return _rows(query, answers)
    return _first(answers)


def _first(answers: Answers) -> bytes | Fault:
    """What is known anywhere; not known only where all say so."""
    faults = []
    for cluster, answer in answers.items():
        if isinstance(answer, Fault):
            faults.append(_of_cluster(cluster, answer))
        elif answer != NOT_KNOWN:
            return answer
    return faults[0] if faults else NOT_KNOWN


def _of_cluster(cluster: int, fault: Fault) -> Fault:
    """Return a fault with the cluster that it is of; this gateway's say that themselves."""
    if cluster == HERE:
        return fault
    return Fault(fault.code, f"cluster {cluster}, which another gateway runs: {fault.message}")


def _list(query: Query, answers: Answers) -> bytes | Fault:
    found: dict[int, bytes] = {}
    for cluster, answer in answers.items():
        if isinstance(answer, Fault):
            return _of_cluster(cluster, answer)
        try:
            rows = msgspec.json.decode(answer, type=list[msgspec.Raw])
        except FAILURES:
            return _not_understood(cluster)
        for row in map(bytes, rows):
            entity_id = _id_of(row)
            if entity_id is None:
                return _not_understood(cluster)
            found.setdefault(entity_id, row)
    kept = [found[entity_id] for entity_id in sorted(found)][: query.limit or LIMIT]
    if query.fields is not None and "id" not in query.fields:
        kept = [drop_fields(row, (b"id",)) for row in kept]
    return b"[" + b",".join(kept) + b"]"


def _id_of(row: bytes) -> int | None:
    value = field(row, b"id") if row.startswith(b"{") else None
    return None if value is None else snowflake(msgspec.Raw(value))


def _sum(query: Query, answers: Answers) -> bytes | Fault:
    """Return the counts of all clusters that answer; ``missing`` names the others."""
    total: dict[str, int] = {}
    clusters: list[dict[str, int]] = []
    missing = []
    for cluster, answer in answers.items():
        if isinstance(answer, Fault):
            if cluster == HERE:
                return answer
            missing.append(cluster)
            continue
        try:
            rows = msgspec.json.decode(answer, type=_Counts).clusters
        except FAILURES:
            return _not_understood(cluster)
        for row in rows:
            if cluster not in (HERE, row.get("cluster")):
                continue
            clusters.append(row)
            for name, count in row.items():
                if name != "cluster":
                    total[name] = total.get(name, 0) + count
    clusters.sort(key=lambda row: row["cluster"])
    told: dict[str, object] = {**total, "clusters": clusters}
    if missing:
        told["missing"] = sorted(missing)
    return _picked(msgspec.json.encode(told), query.fields)


class _Counts(msgspec.Struct):
    clusters: list[dict[str, int]]


def _rows(query: Query, answers: Answers) -> bytes | Fault:
    """Return the layout with what the other gateways say of their own clusters."""
    here = answers[HERE]
    if isinstance(here, Fault):
        return here
    try:
        known = msgspec.json.decode(here, type=ClusterList)
        rows = {row.cluster: row for row in known.clusters}
        for cluster, answer in answers.items():
            if cluster == HERE or isinstance(answer, Fault):
                continue
            told = msgspec.json.decode(answer, type=ClusterList)
            for row in told.clusters:
                if row.cluster == cluster and row.owner == "this" and told.shard_count == known.shard_count:
                    rows[cluster] = msgspec.structs.replace(row, owner="another")
    except FAILURES:
        return Fault(ErrorCode.INTERNAL, "a gateway's answer is no list of clusters")
    found = msgspec.structs.replace(known, clusters=tuple(rows[number] for number in sorted(rows)))
    return _picked(msgspec.json.encode(found), query.fields)


def _picked(told: bytes, names: Iterable[str] | None) -> bytes:
    if names is None:
        return told
    found = fields(told)
    return join({name: found[name] for name in names if name in found})


def _not_understood(cluster: int) -> Fault:
    words = "its answer is not of the form that docs/contract.md describes"
    return _of_cluster(cluster, Fault(ErrorCode.INTERNAL, words))
