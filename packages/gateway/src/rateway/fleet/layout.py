"""The layout: which shard belongs to which cluster.

Clusters are numbered from 1. With ``T`` shards and ``P`` shards per cluster, cluster *i* runs the shards
``(i-1)*P … min(i*P, T)-1`` and there are ``ceil(T/P)`` clusters (``docs/contract.md``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MOST_SHARDS", "Layout", "LayoutError", "LayoutSettings", "parse_clusters", "spread"]

# Of Discord's recommendation and of each setting. Discord recommends a shard for each thousand guilds: this is ten
# times what the largest bots have. Each shard has its objects before anything connects, so a wrong number would fill
# the memory.
MOST_SHARDS = 65_536

_RANGE = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?\Z", re.ASCII)


class LayoutError(ValueError):
    """A text that does not name clusters, or names some that do not exist. The message is for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSettings:
    """The settings of the number of shards and of their clusters."""

    shards: int | None
    """A total in place of the recommended number and ``extra``."""
    extra: int
    per_cluster: int
    clusters: frozenset[int] | None
    """Clusters that this gateway runs; None: all."""
    reshard: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """``shards`` shards, cut into clusters of ``per_cluster`` (the last one may be smaller).

    Raises :class:`ValueError` when one of the two is below 1.
    """

    shards: int
    per_cluster: int

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ValueError(f"a layout needs at least 1 shard, not {self.shards}")
        if self.per_cluster < 1:
            raise ValueError(f"a cluster needs at least 1 shard, not {self.per_cluster}")

    @property
    def clusters(self) -> range:
        """The numbers of all clusters, from 1."""
        return range(1, -(-self.shards // self.per_cluster) + 1)

    def cluster_of(self, shard_id: int) -> int:
        """Return the cluster that runs *shard_id*. Raises :class:`ValueError` for a shard outside the layout."""
        if not 0 <= shard_id < self.shards:
            raise ValueError(f"there is no shard {shard_id}: shards go from 0 to {self.shards - 1}")
        return shard_id // self.per_cluster + 1

    def shards_of(self, cluster: int) -> range:
        """Return the shards of *cluster*, ascending. Raises :class:`ValueError` for a cluster outside the layout."""
        if cluster not in self.clusters:
            raise ValueError(f"there is no cluster {cluster}: clusters go from 1 to {len(self.clusters)}")
        return range((cluster - 1) * self.per_cluster, min(cluster * self.per_cluster, self.shards))


def spread(clusters: Sequence[int], processes: int) -> list[list[int]]:
    """Spread clusters over processes: evenly, neighbours together, never more processes than clusters."""
    count = max(1, min(processes, len(clusters)))
    size, more = divmod(len(clusters), count)
    shares, at = [], 0
    for number in range(count):
        end = at + size + (1 if number < more else 0)
        shares.append(list(clusters[at:end]))
        at = end
    return shares


def parse_clusters(text: str, total: int | None = None) -> frozenset[int]:
    """Return the clusters that a text such as ``1-4,7`` names; an empty text names all of *total*.

    *total* is the number of clusters that there are, or ``None`` while it is not known yet; then only the form is
    checked and an empty text gives an empty set. Raises :class:`LayoutError` with what is wrong, in words.
    """
    if not text.strip():
        return frozenset(range(1, total + 1)) if total else frozenset()
    chosen: set[int] = set()
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if match is None:
            raise LayoutError(f"{part.strip()!r} is neither a cluster's number nor a range such as 1-4")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if first < 1:
            raise LayoutError("clusters are numbered from 1")
        if last < first:
            raise LayoutError(f"the range {part.strip()} runs backwards")
        if total is not None and last > total:
            raise LayoutError(f"there is no cluster {last}: this bot has {total} (1-{total})")
        if last - first > 100_000:
            raise LayoutError(f"the range {part.strip()} is longer than any bot has clusters")
        chosen.update(range(first, last + 1))
    return frozenset(chosen)
