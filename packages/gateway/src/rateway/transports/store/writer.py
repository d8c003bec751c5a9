"""Write a cluster's store: one object in one process, which holds at most one open transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import lmdb
import msgspec
from rateway.cache.apply import Cache
from rateway.cache.policy import CachePolicy
from rateway.cache.prune import (
    LOADING,
    OF_ENTITIES,
    adopt_policy,
    forget_unfinished,
    mark_incomplete,
    prune,
)
from rateway.cache.second_view import SecondView
from rateway.cache.storage import Table
from rateway.cache.unread import Unread
from rateway.native.objects import CacheFastPath
from rateway.native.objects.applied import Applied, SessionRecord
from rateway.transports.store.opening import (
    MAP_SIZE,
    Opened,
    StoreFault,
    close_in_order,
    fault_of,
    open_for_writing,
)
from rateway.transports.store.reader import StoreReader
from rateway.transports.store.snapshot import PAIR_BYTES, SnapshotHead, SnapshotLoader, StoreSnapshot
from rateway.transports.store.tables import LmdbStorage

__all__ = ["Store"]

# A reader's process that was killed leaves its slot behind, and LMDB keeps every page that it could still see: after
# so many commits (a minute, say) the slots of the dead are freed.
READER_CHECK_COMMITS = 4_096

# A fault that stays, or comes and goes, is said so often.
SAY_AGAIN_S = 60.0


class Store:
    """The writer's side of one cluster's store."""

    def __init__(self, path: Path, opened: Opened, policy: CachePolicy, cluster: int) -> None:
        self.path = path
        self.cluster = cluster
        self.policy = policy
        self.words: tuple[str, ...] = opened.words
        """Lines for the log about the opening: what was thrown away and why, kinds incomplete and why."""
        self.fault: StoreFault | None = None
        """The present fault; None when the last commit succeeded."""
        self.reserve = opened.reserve
        """The disk that is reserved ahead of writing; None where LMDB writes its pages itself."""
        self._tables = opened.tables
        self._storage = LmdbStorage(opened.tables, opened.reserve)
        self._cache = Cache(self._storage, policy)
        self._fast_path = CacheFastPath(self._apply)
        self._fast_path.connect(self._cache.fast_path_parts(), self._storage.waiting)
        self.apply = self._fast_path.apply
        """Apply one event to the cache: (shard, sequence, name, ``d``) → what the cache adds to it."""
        self._views: dict[int, SecondView] = {}
        self._broken = False
        self._begun = False
        self._commits = 0
        self._unsaid: list[str] = []
        self._said = ""
        self._said_at = -math.inf

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        cluster: int,
        policy: CachePolicy,
        wall: float,
        boot_id: str | None = None,
        map_size: int = MAP_SIZE,
    ) -> Store | StoreFault:
        """Open or make the store in the folder ``path`` (made when missing, 0700).

        ``wall`` is now in Unix seconds. ``boot_id`` is for tests; by default the kernel's. ``map_size`` in bytes is
        the bound of the store's size; the file grows only as needed.
        """
        opened = open_for_writing(path, cluster=cluster, boot_id=boot_id, map_size=map_size)
        if isinstance(opened, StoreFault):
            return opened
        try:
            store = cls(path, opened, policy, cluster)
            if store._storage.get(Table.META, LOADING) is not None:
                store._storage.delete(Table.META, LOADING)
                store._cache.begin_cold({each.shard_id: each.name for each in store.sessions()})
                store.words += ("a cache was being taken over when the gateway ended: it begins empty",)
            unfinished = forget_unfinished(store._cache.writer)
            if unfinished:
                shards = ", ".join(map(str, unfinished))
                store.words += (
                    f"the cache of shards {shards} was being filled when the gateway ended: it begins empty",
                )
            store._cache.writer.wall_ms = int(wall * 1000)
            store.words += adopt_policy(store._cache.writer)
            store._fast_path.connect(store._cache.fast_path_parts(), store._storage.waiting)
            store._cache.flush()
            store._storage.commit()
        except (lmdb.Error, OSError) as error:
            opened.tables.env.close()
            if opened.reserve is not None:
                opened.reserve.close()
            return fault_of(error, path)
        return store

    # sessions

    def sessions(self) -> list[SessionRecord]:
        """Return the stored sessions, by shard, each with the applied sequence of the cache as it is now."""
        found = []
        for _, value in self._storage.scan(Table.SESSIONS, b"", b"\xff" * 9):
            record = msgspec.msgpack.decode(value, type=SessionRecord)
            if self.policy.enabled:
                applied = self._cache.position_in(record.shard_id, record.name)
                record = msgspec.structs.replace(record, applied=applied)
            found.append(record)
        return found

    def put_session(self, record: SessionRecord) -> None:
        """Write a session down with the next commit. A commit that fails has not written it: put it again."""
        self._storage.put(Table.SESSIONS, record.shard_id.to_bytes(4, "big"), msgspec.msgpack.encode(record))

    def drop_session(self, shard_id: int) -> None:
        """Forget a shard's session with the next commit (it ended in order, or cannot be resumed)."""
        self._storage.delete(Table.SESSIONS, shard_id.to_bytes(4, "big"))

    def take_over(self, sessions: Mapping[int, str]) -> None:
        """Take these as the shards' sessions, after events have passed while this store could not be opened.

        What it holds is incomplete from the next commit on, until each guild comes again.
        """
        for shard_id, session_id in sessions.items():
            self._cache.position_in(shard_id, session_id)
        self._broken = True

    def begin_cold(self, sessions: Mapping[int, str]) -> StoreFault | None:
        """Forget every entity, because another gateway has had the shards since, which go on with these *sessions*.
        Until a shard's next READY, queries for what it may have are answered `incomplete`. Committed at once.
        """
        self._cache.writer.wall_ms = int(time.time() * 1000)
        self._abandon_views("the cache begins empty")
        try:
            self._cache.begin_cold(sessions)
            self._fast_path.connect(self._cache.fast_path_parts(), self._storage.waiting)
        except (lmdb.Error, OSError) as error:
            self._fail(fault_of(error, self.path))
            return self.fault
        return self.commit()

    # snapshots

    def snapshot(self) -> StoreSnapshot:
        """Return the cache as it is now; to be closed. Raises ``lmdb.Error`` and OSError."""
        self._abandon_views("the cache goes to another gateway")
        self._cache.keep_positions()
        fault = self.commit()
        if fault is not None:
            raise OSError(fault.words)
        return StoreSnapshot(self._tables, self.cluster)

    def load(self, head: SnapshotHead) -> SnapshotLoader:
        """Make room for a snapshot of this store's cluster, which takes the place of the whole cache. Raises
        ``lmdb.Error`` and OSError.
        """
        self._abandon_views("another gateway's cache takes its place")
        self._cache.replaced()
        self._storage.abort()
        self._broken = False
        self._storage.clear(OF_ENTITIES)
        for key, _ in list(self._storage.scan(Table.META, b"", b"\xff" * 9)):
            if key != b"mark":
                self._storage.delete(Table.META, key)
        self._storage.put(Table.META, LOADING, b"")
        self._storage.commit()
        return SnapshotLoader(self, head)

    def put_rows(self, rows: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Write rows of a snapshot: of a table, or pairs of the index behind the last table. Raises ``lmdb.Error`` and
        OSError.
        """
        for table, key, value in rows:
            if table < len(Table):
                self._storage.put(table, key, value)
            else:
                pairs = [value[at : at + PAIR_BYTES] for at in range(0, len(value), PAIR_BYTES)]
                self._storage.add_homes(key[0], pairs)
        self._storage.commit()

    def rows_replaced(self) -> StoreFault | None:
        """Go on with the rows that were put, under this store's own settings. Should the process end before
        :meth:`finish_loading`, the cache begins empty.
        """
        self._cache.replaced()
        self._fast_path.connect(self._cache.fast_path_parts(), self._storage.waiting)
        self._unsaid += adopt_policy(self._cache.writer)
        self._broken = False
        return self.commit()

    def finish_loading(self) -> None:
        """Take it that the cache is all there: what the snapshot did not have yet has come."""
        self._storage.delete(Table.META, LOADING)
        self.commit()

    # events

    def _apply(self, shard_id: int, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """Apply an event that the fast path leaves to the general path."""
        if not self._begun:
            self._begun = True
            self._cache.writer.wall_ms = int(time.time() * 1000)
        try:
            return self._cache.apply(shard_id, seq, name, d)
        except (lmdb.Error, OSError) as error:
            self._fail(fault_of(error, self.path))
        # A mistake of ours in one reducer must not stop the stream of events. (What Discord may write is none: that
        # ends in the cache.) What the reducer has written by then is unknown: it is counted, said, and the guilds are
        # marked as incomplete.
        except Exception as error:  # noqa: BLE001
            self._cache.refuse(shard_id, name, d, error)
            self._fail(
                StoreFault(f"{name} could not be taken into the cache: {type(error).__name__}: {error}")
            )
        return None

    # a second session beside the first

    @property
    def cold_shards(self) -> frozenset[int]:
        """Shards of which not even the guilds are known."""
        return frozenset(self._cache.writer.cold)

    def begin_beside(self, shard_id: int) -> SecondView:
        """Fill the cold cache of a shard from a second session from now on. Until the view is over every event of the
        cluster's shards goes through :meth:`apply_with_views` instead of :attr:`apply`.
        """
        view = self._views[shard_id] = SecondView(self._cache, shard_id)
        return view

    def end_beside(self, view: SecondView, why: str = "") -> None:
        """Go on without a second session; what followed it is forgotten if it is not over."""
        if self._views.get(view.shard_id) is view:
            del self._views[view.shard_id]
            self._guard(lambda: view.abandon(why))

    def take_beside(self, view: SecondView, name: str, d: bytes | memoryview, now: float) -> None:
        """Take in an event of a second session."""
        self._date()
        self._guard(lambda: view.second(name, d, now))

    def look_beside(self, view: SecondView, now: float, *, is_steady: bool) -> None:
        """Look whether guilds can follow the first session again: see ``SecondView.look``."""
        self._date()
        self._guard(lambda: view.look(now, is_steady=is_steady))

    def apply_with_views(self, shard_id: int, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """Apply one event, or not where its effect comes from a second session. See :attr:`apply`."""
        view = self._views.get(shard_id)
        if view is not None and not view.is_over:
            self._date()
            if self._guard(lambda: view.first(seq, name, d, time.monotonic())) is False:
                return None
        return self.apply(shard_id, seq, name, d)

    def _date(self) -> None:
        if not self._begun:
            self._begun = True
            self._cache.writer.wall_ms = int(time.time() * 1000)

    def _guard(self, work: Callable[[], bool | None]) -> bool | None:
        """Do something for a second session. What goes wrong costs that session, at worst what is not committed."""
        try:
            return work()
        except (lmdb.Error, OSError) as error:
            self._fail(fault_of(error, self.path))
        except Exception as error:  # noqa: BLE001 - as in :meth:`_apply`
            words = f"a second session could not be taken in: {type(error).__name__}: {error}"
            self._fail(StoreFault(words))
        return None

    def _abandon_views(self, why: str) -> None:
        views, self._views = list(self._views.values()), {}
        for view in views:
            self._guard(lambda view=view: view.abandon(why))  # type: ignore[misc]  # a default binds the loop's view

    def begin_session(self, shard_id: int, session_id: str) -> None:
        """A new session of a shard begins; its READY is the next event. ``session_id`` is the gateway's name of it."""
        self._cache.begin(shard_id, session_id)

    def applied(self, shard_id: int) -> int:
        """Return the highest sequence whose effect is in the cache (0: none)."""
        return self._cache.applied(shard_id)

    @property
    def dirty(self) -> bool:
        """Whether a commit has anything to write."""
        return self._cache.dirty or self._storage.open

    @property
    def failures(self) -> dict[str, int]:
        """Event name → how often not all of it was understood (the event itself goes on to the exchange)."""
        return self._cache.failures

    @property
    def unread(self) -> Unread:
        """The account of what could not be taken into the cache."""
        return self._cache.unread

    @property
    def unknown_guilds(self) -> dict[int, int]:
        """Per shard: how many events were about guilds that the cache does not know."""
        return self._cache.writer.unknown_guilds

    def take_lines(self) -> list[str]:
        """Return lines that are not logged yet, and forget them: faults of the store, unreadable parts of events."""
        lines, self._unsaid = self._unsaid, []
        return lines + self._cache.unread.take_lines()

    @property
    def has_lines(self) -> bool:
        """Whether :meth:`take_lines` has any; asked at each end of a wake-up."""
        return bool(self._unsaid or self._cache.unread.lines)

    def commit(self) -> StoreFault | None:
        """End the open transaction: all of it is visible to every reader, or none. Cheap when nothing is open."""
        self._begun = False
        if not self.dirty:
            return self.fault
        try:
            if self._broken:
                mark_incomplete(self._cache.writer)
            self._cache.flush()
            self._storage.commit()
        except (lmdb.Error, OSError) as error:
            self._fail(fault_of(error, self.path))
            return self.fault
        self._broken = False
        self.fault = None
        self._commits += 1
        if self._commits % READER_CHECK_COMMITS == 0:
            self._tables.env.reader_check()
            if self.reserve is not None:
                self.reserve.trim()
        return None

    def _fail(self, fault: StoreFault) -> None:
        """Drop what was not committed. What it would have changed is missing from now on, and said to be."""
        self.fault = fault
        self._say(fault.words)
        self._broken = True
        views, self._views = list(self._views.values()), {}
        for view in views:
            view.break_off(fault.words)
        self._storage.abort()
        try:
            unknown = self._cache.writer.unknown_guilds
            self._cache = Cache(self._storage, self.policy, self._cache.unread)
            self._cache.writer.unknown_guilds = unknown
            if views:
                # What was committed of guilds that followed a second session is of no use without it.
                forget_unfinished(self._cache.writer)
            self._fast_path.connect(self._cache.fast_path_parts(), self._storage.waiting)
            if not views:
                self._storage.abort()
        except (lmdb.Error, OSError) as error:
            self.fault = fault_of(error, self.path)
            self._say(self.fault.words)

    def _say(self, words: str) -> None:
        """Keep a fault for the log before a commit that succeeds clears it; the same one again once a minute."""
        now = time.monotonic()
        if words != self._said or now >= self._said_at + SAY_AGAIN_S:
            self._said, self._said_at = words, now
            self._unsaid.append(
                f"{words}; what was not written is marked as incomplete until the guilds come anew"
            )

    def prune(self, shard_count: int, shards: Collection[int]) -> int:
        """Drop guilds that another layout put here: those of none of these shards. How many there were."""
        return prune(self._cache.writer, shard_count, shards)

    # others

    def reader(self) -> StoreReader:
        """This store for queries, from any thread of this process."""
        return StoreReader.of(self.path, self._tables)

    def close(self) -> None:
        """Commit, mark as closed in order, and close; without the mark when the last commit failed."""
        fault = self.commit()
        self._storage.abort()
        reserve = self.reserve
        try:
            if fault is None:
                close_in_order(self._tables, reserve)
                return
        except (lmdb.Error, OSError) as error:
            self.fault = fault_of(error, self.path)
        self._tables.env.close()
        if reserve is not None:
            reserve.close()
