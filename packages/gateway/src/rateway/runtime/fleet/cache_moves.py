"""The cache of a cluster that is moved: from its owner's store to that of the member that is to own it.

The owner reads its store at one moment and sends it piece by piece, each after the answer to the one before: that
bounds what is under way, and lets events go on in between. Meanwhile heartbeats name nothing beyond that moment, so
that the next owner can resume from there. Whatever goes wrong, the cluster is moved without its cache.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import lmdb
import msgspec
from rateway.runtime.fleet.line import FleetLine
from rateway.transports.store import SnapshotEnd, SnapshotHead, SnapshotLoader, Store, StoreSnapshot
from rateway.transports.store.snapshot import Position, why_not

__all__ = ["MOVES_WITHIN_S", "CacheMoves", "LoadedCache", "MovingCluster", "place_of"]

log = logging.getLogger(__name__)

# Seconds for all of it at most: Discord keeps what a heartbeat does not name, but not for ever.
MOVES_WITHIN_S: Final = 30.0
# Seconds until the other member says whether it takes it: one that has just joined may be starting its processes. What
# is sent before its queue is there is lost, and sent again.
OFFER_S: Final = 5.0
OFFER_AGAIN_S: Final = 0.5
# The same where this process ends: the other member has run its processes for long, or has ended just now as well.
LEAVING_OFFER_S: Final = 1.5
# Until each piece is taken.
PIECE_S: Final = 5.0
# Of a message; the line's own bound is 1 MiB, and bytes are a third longer there.
SLICE_BYTES: Final = 256 << 10
# Of one piece, put together: a row is larger than that at no time.
MOST_PIECE: Final = 64 << 20


class CacheOffer(msgspec.Struct, frozen=True):
    """A question to the member that is to own a cluster: take this cache. Its answer is a CacheAnswer."""

    cluster: int
    cache: str
    head: SnapshotHead


class CacheSlice(msgspec.Struct, frozen=True):
    """A question: take this part of a piece. Its answer is a CacheAnswer."""

    cluster: int
    cache: str
    number: int
    is_last: bool
    """Whether the piece is whole with it."""
    data: bytes


class CacheWhole(msgspec.Struct, frozen=True):
    """A question: that was all, go on with it. Its answer is a CacheAnswer."""

    cluster: int
    cache: str
    end: SnapshotEnd


class CacheAnswer(msgspec.Struct, frozen=True):
    """Why it is not taken; empty when it is."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class LoadedCache:
    """A cache that was taken over from the owner before: its name in the fleet record, and what is in it."""

    name: str
    positions: tuple[Position, ...]


class MovingCluster(Protocol):
    """What a move needs of a cluster (``runner.cluster.Cluster``)."""

    @property
    def store(self) -> Store | None: ...
    @property
    def keeps_cache(self) -> bool: ...
    @property
    def is_in_use(self) -> bool: ...

    loaded_cache: LoadedCache | None

    def hold_heartbeats(self, positions: Mapping[int, int] | None) -> None:
        """Let heartbeats of each shard name no more than its position; None: as they would."""


def place_of(member: str, cluster: int) -> str:
    """Return the routing key of the process of *member* that has the store of *cluster*."""
    return f"{member}/cache-{cluster}"


@dataclass(slots=True)
class _Loading:
    cache: str
    loader: SnapshotLoader
    number: int = 0
    size: int = 0
    slices: list[bytes] = field(default_factory=list)


class CacheMoves:
    """One process's part: sends the caches of clusters that leave it, and takes those that come."""

    def __init__(self, line: FleetLine, clusters: Mapping[int, MovingCluster]) -> None:
        self.is_leaving = False
        """Whether this process ends: it takes no cache any more."""
        self._line = line
        self._clusters = clusters
        self._loading: dict[int, _Loading] = {}
        line.handle(CacheOffer, self._take_offer)
        line.handle(CacheSlice, self._take_slice)
        line.handle(CacheWhole, self._take_whole)

    @property
    def is_up(self) -> bool:
        """Whether caches can be sent and taken."""
        return self._line.is_up

    async def send(self, number: int, member: str, seconds: float = MOVES_WITHIN_S) -> str:
        """Send a cluster's cache to *member* within so many seconds; return the name under which that has it, empty
        when it has not.
        """
        cluster = self._clusters[number]
        if cluster.store is None or not cluster.keeps_cache:
            return ""
        cache = secrets.token_hex(8)
        why = ""
        try:
            async with asyncio.timeout(seconds):
                why = await self._send(cluster, cluster.store, number, member, cache)
        except TimeoutError:
            why = f"it took longer than {seconds:.0f} s"
        except (lmdb.Error, OSError) as error:
            why = str(error)
        if why:
            cluster.hold_heartbeats(None)
            log.warning(
                "the cluster is moved without its cache: %s",
                why,
                extra={"cluster": number, "action": "cache_move"},
            )
            return ""
        log.info("%s has the cluster's cache", member, extra={"cluster": number, "action": "cache_move"})
        return cache

    async def _send(self, cluster: MovingCluster, store: Store, number: int, member: str, cache: str) -> str:
        if not self._line.is_up:
            return "the other members cannot be reached"
        snapshot = store.snapshot()
        try:
            positions = {each.shard_id: each.applied for each in snapshot.head.positions}
            cluster.hold_heartbeats(positions)
            place = place_of(member, number)
            why = await self._offer(place, CacheOffer(number, cache, snapshot.head))
            return why or await self._send_pieces(place, number, cache, snapshot)
        finally:
            snapshot.close()

    async def _offer(self, place: str, offer: CacheOffer) -> str:
        until = asyncio.get_running_loop().time() + (LEAVING_OFFER_S if self.is_leaving else OFFER_S)
        while True:
            answer = await self._line.ask(place, offer, CacheAnswer, OFFER_AGAIN_S)
            if answer is not None:
                return answer.why
            if asyncio.get_running_loop().time() >= until:
                return f"{place} does not answer"

    async def _send_pieces(self, place: str, number: int, cache: str, snapshot: StoreSnapshot) -> str:
        count = 0
        for piece in snapshot.pieces():
            for at in range(0, len(piece), SLICE_BYTES):
                is_last = at + SLICE_BYTES >= len(piece)
                part = CacheSlice(number, cache, count, is_last, piece[at : at + SLICE_BYTES])
                if why := await self._ask(place, part, PIECE_S):
                    return why
                count += 1
        return await self._ask(place, CacheWhole(number, cache, snapshot.end()), PIECE_S)

    async def _ask(self, place: str, record: msgspec.Struct, seconds: float) -> str:
        answer = await self._line.ask(place, record, CacheAnswer, seconds)
        return f"{place} does not answer" if answer is None else answer.why

    # The other end.

    def _take_offer(self, sender: str, offer: CacheOffer) -> CacheAnswer:
        cluster = self._clusters.get(offer.cluster)
        loading = self._loading.get(offer.cluster)
        if loading is not None and loading.cache == offer.cache:
            # It is offered again, because the answer took long.
            return CacheAnswer()
        self._loading.pop(offer.cluster, None)
        if self.is_leaving:
            return CacheAnswer("it leaves as well")
        if cluster is None or cluster.store is None or not cluster.keeps_cache:
            return CacheAnswer("it keeps no cache")
        if cluster.is_in_use:
            return CacheAnswer("it runs the cluster itself")
        why = why_not(offer.head, offer.cluster)
        if why:
            return CacheAnswer(why)
        cluster.loaded_cache = None
        try:
            loader = cluster.store.load(offer.head)
        except (lmdb.Error, OSError) as error:
            return CacheAnswer(str(error))
        self._loading[offer.cluster] = _Loading(offer.cache, loader)
        return CacheAnswer()

    def _take_slice(self, sender: str, part: CacheSlice) -> CacheAnswer:
        loading = self._loading.get(part.cluster)
        why = self._why_not_now(loading, part.cluster, part.cache)
        if loading is None or why:
            return CacheAnswer(why)
        loading.slices.append(part.data)
        loading.size += len(part.data)
        if part.number != loading.number or loading.size > MOST_PIECE:
            why = f"part {part.number} of the cache came in place of {loading.number}, or is too large"
        elif part.is_last:
            why = loading.loader.take(b"".join(loading.slices))
            loading.slices.clear()
            loading.size = 0
        loading.number += 1
        if why:
            del self._loading[part.cluster]
        return CacheAnswer(why)

    def _take_whole(self, sender: str, record: CacheWhole) -> CacheAnswer:
        loading = self._loading.get(record.cluster)
        why = self._why_not_now(loading, record.cluster, record.cache)
        if loading is None or why:
            return CacheAnswer(why)
        del self._loading[record.cluster]
        why = loading.loader.end(record.end)
        if not why:
            positions = tuple(loading.loader.head.positions)
            self._clusters[record.cluster].loaded_cache = LoadedCache(record.cache, positions)
        return CacheAnswer(why)

    def _why_not_now(self, loading: _Loading | None, number: int, cache: str) -> str:
        if loading is None or loading.cache != cache:
            return "another cache is taken, or none"
        if self._clusters[number].is_in_use:
            del self._loading[number]
            return "it runs the cluster itself by now"
        return ""
