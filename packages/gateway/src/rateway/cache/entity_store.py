"""A guild's entities in storage: compressed pages, rows over them for what changed since, and ids in an index.

Why: a million members as single rows of LMDB cost 160 bytes each however tightly they are packed:
node, key and a third of the page stay empty. Compressed together they cost 85, but a page must not be rewritten for
each change. So a GUILD_CREATE writes pages (one put for sixteen objects), a later change writes a row that hides the
page's object, an empty row says that it is gone, and now and then the page of a new row takes its rows in. The rows
of what changes often lie close together, so that a transaction dirties few pages.

The index (entity id → guild number) has keys in random order, the one thing that LMDB is slow at: 2.5 µs an entry in
small batches, 1 µs in batches of thousands. A GUILD_CREATE therefore leaves its ids in ``PENDING``, sorted, which
every lookup reads as well, and they move into the index many guilds at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence

from rateway.cache import pages
from rateway.cache.kinds import INDEXED, OWN_TABLES, PAGED, Kind
from rateway.cache.storage import Reading, Storage, Table
from rateway.native.objects import NUMBERS, append_to_each, find

__all__ = ["EntityStore", "EntityStoreReader"]


# One new row in so many takes the rows of its page in: most of what changes in a session may be rows at worst, some
# 600 bytes each, and a page's rewriting (50 µs) is shared by that many changes.
FOLD_EVERY = 32

# Ids that may wait for the index: a lookup reads them all (some 0.2 µs a guild), moving them takes about 20 ms.
PENDING_IDS = 16_384

# Ids that move at a commit once guilds have stopped coming: about 2 ms.
TIDY_IDS = 1_024

# The guild's number comes first: all pages of a guild that is new are appended, which LMDB packs without gaps.
_KEY = struct.Struct(">IBQ")
_PAIR = struct.Struct(">QI")
# What the compiled form writes by itself, it writes under the same keys.
_SHARED = {
    "KEY_SIZE": _KEY.size,
    "ROWS": Table.ROWS,
    "PRESENCES": Table.PRESENCES,
    "VOICE_STATES": Table.VOICE_STATES,
    "PRESENCE": Kind.PRESENCE,
    "VOICE_STATE": Kind.VOICE_STATE,
    "THREAD": Kind.THREAD,
    "MEMBER": Kind.MEMBER,
    "FOLD_EVERY": FOLD_EVERY,
}
if any(_SHARED[name] != number for name, number in NUMBERS.items()):
    raise AssertionError(f"native/objects/compiled.pyx was compiled with other numbers: {NUMBERS}")
# After a place: beyond every id.
_BEYOND = b"\xff" * 9
_PLACE = struct.Struct(">IB")
_PENDING = struct.Struct(">BI")

# Plain numbers: reading an enumeration's member takes 0.1 µs.
_PAGES, _ROWS = int(Table.PAGES), int(Table.ROWS)


def _bounds(kind: int, number: int) -> tuple[bytes, bytes]:
    return _KEY.pack(number, kind, 0), _PLACE.pack(number, kind) + _BEYOND


class EntityStoreReader:
    """Read a guild's entities, as queries do."""

    def __init__(self, storage: Reading) -> None:
        self._reading = storage
        self._last: tuple[bytes, bytes] = (b"", b"")
        self._text = b""
        # Whether nothing waits for the index, and what does, by kind, as far as it was looked at in this moment.
        self._indexed: bool | None = None
        self._unindexed: dict[int, list[tuple[bytes, bytes]]] = {}

    def get(self, number: int, kind: int, entity_id: int) -> bytes | None:
        """Return one object's JSON."""
        return self.fetch(number, kind, entity_id)[0]

    def fetch(self, number: int, kind: int, entity_id: int) -> tuple[bytes | None, bool]:
        """Return one object's JSON, and whether it stands in a page alone (no row hides it)."""
        key = _KEY.pack(number, kind, entity_id)
        if kind not in PAGED:
            return self._reading.get(OWN_TABLES.get(kind, _ROWS), key), False
        row = self._reading.get(_ROWS, key)
        if row is not None:
            return row or None, False
        page = self._page(key)
        return (None, False) if page is None else (find(page[1], entity_id), True)

    def _page(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Return the page that holds an object, if any does: its key and its text."""
        found = self._reading.first(_PAGES, key, key[:5] + _BEYOND)
        if found is None:
            return None
        # The page read last is likely to be asked for again: a member, then its user.
        if found != self._last:
            self._last, self._text = found, pages.unpack(found[1])
        return found[0], self._text

    def walk(self, number: int, kind: int, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """A guild's objects of a kind with ids above ``after``, ascending."""
        reading = self._reading
        moment = -1
        while moment != reading.moment:
            moment = reading.moment
            for item in self._walk(number, kind, after):
                yield item
                if moment != reading.moment:
                    # What was read ahead, rows and a page, is of another moment than what comes next.
                    after = item[0]
                    break

    def go_on(self) -> None:
        """The view that is read shows another moment: forget what was remembered of this one."""
        self._indexed = None
        self._unindexed = {}

    def _walk(self, number: int, kind: int, after: int) -> Iterator[tuple[int, bytes]]:
        start, stop = _bounds(kind, number)
        if after >= 0:
            start = _KEY.pack(number, kind, min(after + 1, 0xFFFF_FFFF_FFFF_FFFF))
        scanned = self._rows(OWN_TABLES.get(kind, Table.ROWS), start, stop)
        rows = ((int.from_bytes(key[5:], "big"), row) for key, row in scanned)
        row = next(rows, None)
        if kind in PAGED:
            for _, page in self._reading.scan(Table.PAGES, start, stop):
                for item in pages.split(pages.unpack(page)):
                    if item[0] <= after:
                        continue
                    while row is not None and row[0] < item[0]:
                        if row[1]:
                            yield row
                        row = next(rows, None)
                    if row is None or row[0] != item[0]:
                        yield item
        while row is not None:
            if row[1]:
                yield row
            row = next(rows, None)

    def _rows(self, table: int, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        return self._reading.scan(table, start, stop)

    def homes(self, kind: int, entity_id: int, most: int | None = None) -> list[int]:
        """Return the numbers of the guilds that hold an entity of an indexed kind; ``most``: so many are enough."""
        found = list(self._reading.homes(kind, entity_id, most))
        if self._indexed is None:
            self._indexed = self._reading.first(Table.PENDING, b"\0", b"\xff") is None
        if self._indexed:  # as it is most of the time
            return found
        pending = self._unindexed.get(kind)
        if pending is None:
            scan = self._reading.scan(Table.PENDING, bytes((kind,)), bytes((kind + 1,)))
            pending = self._unindexed[kind] = list(scan)
        if not pending or len(found) == most:
            return found
        wanted = entity_id.to_bytes(8, "big")
        for key, ids in pending:
            at = ids.find(wanted)
            while at >= 0 and at % 8:
                at = ids.find(wanted, at + 1)
            if at >= 0:
                number = int.from_bytes(key[1:], "big")
                if number not in found:
                    found.append(number)
        return found


class EntityStore(EntityStoreReader):
    """Writing. ``counts`` holds how many objects of each kind there are."""

    def __init__(self, storage: Storage, counts: dict[int, int]) -> None:
        super().__init__(storage)
        self._storage = storage
        self.counts = counts
        self.new_rows = 0
        """Rows that were put over a page. Each 32nd takes the rows of its page in."""
        self._loaded = False
        # Ids that wait for the index, and the guild of each; those of guilds that have come since the last look are
        # put there when they are read: while a bot starts, most move on before that.
        self._waiting: dict[int, dict[int, int]] = {kind: {} for kind in INDEXED}
        self._unsorted: dict[int, list[tuple[int, Sequence[int]]]] = {kind: [] for kind in INDEXED}
        self._pending = 0
        for key, ids in storage.scan(Table.PENDING, b"", b"\xff"):
            waiting = struct.unpack(f">{len(ids) // 8}Q", ids)
            self._unsorted[key[0]].append((int.from_bytes(key[1:], "big"), waiting))
            self._pending += len(waiting)

    def _rows(self, table: int, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        # Two scans at a time are for readers: the second one's start may write what waits.
        return list(self._storage.scan(table, start, stop))

    def homes(self, kind: int, entity_id: int, most: int | None = None) -> list[int]:
        if self._unsorted[kind]:
            # First, because it puts some ids into the index.
            self._sort_waiting(kind)
        found = list(self._storage.homes(kind, entity_id, most))
        waiting = self._waiting[kind].get(entity_id)
        if waiting is not None and waiting not in found:
            found.append(waiting)
        return found

    def put(self, number: int, kind: int, entity_id: int, raw: bytes) -> bool:
        """Insert or replace one object. Return whether it is new; always False for a kind with a table of its own."""
        table = OWN_TABLES.get(kind)
        if table is not None:
            self._storage.put(table, _KEY.pack(number, kind, entity_id), raw)
            return False
        key = _KEY.pack(number, kind, entity_id)
        row = self._storage.get(_ROWS, key)
        if row is not None:
            self._storage.put(_ROWS, key, raw)
            if row:
                return False
            self._added(number, kind, entity_id)
            return True
        page = self._page(key) if kind in PAGED else None
        known = page is not None and find(page[1], entity_id) is not None
        self._storage.put(_ROWS, key, raw)
        if not known:
            self._added(number, kind, entity_id)
        if kind in PAGED:
            self._changed(number, kind, entity_id)
        return not known

    def insert(self, number: int, kind: int, entity_id: int, raw: bytes) -> None:
        """Put an object of which :meth:`fetch` has just said that it is not there."""
        self._storage.put(_ROWS, _KEY.pack(number, kind, entity_id), raw)
        self._added(number, kind, entity_id)
        if kind in PAGED:
            self._changed(number, kind, entity_id)

    def replace(
        self, number: int, kind: int, entity_id: int, raw: bytes, *, paged: bool | None = None
    ) -> None:
        """Replace an object that is known to be there. ``paged`` is the second result of :meth:`fetch`, where known."""
        key = _KEY.pack(number, kind, entity_id)
        if paged is None:
            paged = kind in PAGED and self._storage.get(Table.ROWS, key) is None
        self._storage.put(OWN_TABLES.get(kind, Table.ROWS), key, raw)
        if paged:
            self._changed(number, kind, entity_id)

    def remove(self, number: int, kind: int, entity_id: int) -> bytes | None:
        """Remove one object and return it; always None for a kind with a table of its own."""
        key = _KEY.pack(number, kind, entity_id)
        table = OWN_TABLES.get(kind)
        if table is not None:
            self._storage.delete(table, key)
            return None
        was = self._storage.get(Table.ROWS, key)
        if was == b"":
            return None
        paged = None
        if kind in PAGED and (page := self._page(key)) is not None:
            paged = find(page[1], entity_id)
        if was is None and paged is None:
            return None
        if paged is None:
            self._storage.delete(Table.ROWS, key)
        else:
            self._storage.put(Table.ROWS, key, b"")
            self._changed(number, kind, entity_id)
        self.counts[kind] -= 1
        if kind in INDEXED:
            self._index_guild(kind, number)
            self._storage.remove_homes(kind, [_PAIR.pack(entity_id, number)])
        return was or paged

    def load(self, number: int, kind: int, ids: list[int], raws: list[bytes], *, fresh: bool = False) -> None:
        """Replace all of a guild's objects of a kind; ``fresh``: there are none yet. Of an id twice the last counts."""
        items = set(ids)
        if len(items) != len(ids) or ids != sorted(ids):
            unique = dict(zip(ids, raws, strict=True))
            ids = sorted(unique)
            raws = [unique[entity_id] for entity_id in ids]
        old = set() if fresh else self.wipe(number, kind, keep=items)
        if not ids:
            return
        if kind in PAGED:
            self._write_pages(kind, number, pages.pack(ids, raws))
        else:
            put, pack, table = self._storage.put, _KEY.pack, OWN_TABLES.get(kind, Table.ROWS)
            for entity_id, raw in zip(ids, raws, strict=True):
                put(table, pack(number, kind, entity_id), raw)
        if kind not in OWN_TABLES:
            self.counts[kind] = self.counts.get(kind, 0) + len(ids)
        if kind in INDEXED:
            self._wait_for_index(
                kind, number, ids if not old else [entity_id for entity_id in ids if entity_id not in old]
            )

    def wipe(self, number: int, kind: int, keep: Collection[int] = ()) -> set[int]:
        """Remove all of a guild's objects of a kind; the ids that there were. ``keep``: ids whose index entry stays."""
        start, stop = _bounds(kind, number)
        table = OWN_TABLES.get(kind, Table.ROWS)
        rows = list(self._storage.scan(table, start, stop))
        packed = list(self._storage.scan(Table.PAGES, start, stop)) if kind in PAGED else []
        if not rows and not packed:
            return set()
        ids = {entity_id for entity_id, _ in self.walk(number, kind)}
        for key, _ in rows:
            self._storage.delete(table, key)
        for key, _ in packed:
            self._storage.delete(Table.PAGES, key)
        if kind not in OWN_TABLES:
            self.counts[kind] -= len(ids)
        if kind in INDEXED:
            gone = sorted(ids.difference(keep))
            if gone:
                self._index_guild(kind, number)
                self._storage.remove_homes(kind, [_PAIR.pack(entity_id, number) for entity_id in gone])
        return ids

    def remove_many(self, number: int, kind: int, ids: Collection[int]) -> None:
        """Remove many objects of a guild at once."""
        gone = set(ids)
        kept = [(entity_id, raw) for entity_id, raw in self.walk(number, kind) if entity_id not in gone]
        self.wipe(number, kind, keep={entity_id for entity_id, _ in kept})
        if kept:
            self._write_pages(
                kind, number, pages.pack([item[0] for item in kept], [item[1] for item in kept])
            )
            self.counts[kind] += len(kept)

    def index_pending(self, most: int = PENDING_IDS * 2) -> None:
        """Move ids that wait into the index, guild by guild, until ``most`` are moved."""
        if not self._pending:
            return
        by_kind: dict[int, list[bytes]] = {}
        moved, everything = 0, most >= self._pending
        for key, ids in self._storage.scan(Table.PENDING, b"", b"\xff"):
            kind, tail = key[0], key[1:]
            by_kind.setdefault(kind, []).extend(append_to_each(ids, tail))
            moved += len(ids) // 8
            if not everything:
                self._wait_no_longer(kind, int.from_bytes(tail, "big"), ids)
            self._storage.delete(Table.PENDING, key)
            if moved >= most:
                break
        for kind, pairs in by_kind.items():
            pairs.sort()
            self._storage.add_homes(kind, pairs)
        self._pending -= moved
        if everything:
            for kind in INDEXED:
                self._waiting[kind].clear()
                self._unsorted[kind].clear()

    def _index_guild(self, kind: int, number: int) -> None:
        """Move the ids of one kind of a guild into the index, because some of them are to leave it."""
        if not self._pending:
            return
        key = _PENDING.pack(kind, number)
        ids = self._storage.get(Table.PENDING, key)
        if ids is None:
            return
        self._wait_no_longer(kind, number, ids)
        self._storage.delete(Table.PENDING, key)
        self._storage.add_homes(kind, sorted(append_to_each(ids, key[1:])))
        self._pending -= len(ids) // 8

    def _wait_no_longer(self, kind: int, number: int, ids: bytes) -> None:
        """Ids of a guild, packed as in the table, are on their way into the index."""
        if self._unsorted[kind]:
            self._sort_waiting(kind)
        waiting = self._waiting[kind]
        for entity_id in struct.unpack(f">{len(ids) // 8}Q", ids):
            if waiting.get(entity_id) == number:
                del waiting[entity_id]

    @property
    def untidy(self) -> bool:
        """Whether ids wait for the index."""
        return self._pending > 0

    def tidy(self) -> None:
        """Ahead of a commit: when no guild has come since the last one, some of the ids that wait move on."""
        if self._pending and not self._loaded:
            self.index_pending(TIDY_IDS)
        self._loaded = False

    def _added(self, number: int, kind: int, entity_id: int) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind in INDEXED:
            self._storage.add_homes(kind, [_PAIR.pack(entity_id, number)])

    def _changed(self, number: int, kind: int, entity_id: int) -> None:
        self.new_rows += 1
        if self.new_rows % FOLD_EVERY == 0:
            self._fold(number, kind, entity_id)

    def _wait_for_index(self, kind: int, number: int, ids: list[int]) -> None:
        if not ids:
            return
        self._unsorted[kind].append((number, ids))
        key = _PENDING.pack(kind, number)
        before = self._storage.get(Table.PENDING, key) or b""
        self._storage.put(Table.PENDING, key, before + struct.pack(f">{len(ids)}Q", *ids))
        self._pending += len(ids)
        self._loaded = True
        if self._pending >= PENDING_IDS:
            self.index_pending()

    def _sort_waiting(self, kind: int) -> None:
        waiting, unsorted = self._waiting[kind], self._unsorted[kind]
        for number, ids in unsorted:
            # An id that waits already, for another guild, goes into the index at once: one guild each can wait.
            twice = waiting.keys() & ids
            if twice:
                self._storage.add_homes(kind, [_PAIR.pack(entity_id, number) for entity_id in sorted(twice)])
            waiting.update(
                dict.fromkeys((each for each in ids if each not in twice) if twice else ids, number)
            )
        unsorted.clear()

    def _write_pages(self, kind: int, number: int, packed: Iterable[tuple[int, bytes]]) -> None:
        for last, page in packed:
            self._storage.put(Table.PAGES, _KEY.pack(number, kind, last), page)

    def _fold(self, number: int, kind: int, entity_id: int) -> None:
        """Take the rows around an id into the page that holds it, or into new pages after the last."""
        start, stop = _bounds(kind, number)
        page = self._page(_KEY.pack(number, kind, entity_id))
        items = dict(pages.split(page[1])) if page is not None else {}
        if page is not None:
            low = _KEY.pack(number, kind, min(min(items), entity_id))
            high = page[0] + b"\0"
        else:
            low, high = self._after_last_page(start, stop), stop
        for key, row in list(self._storage.scan(Table.ROWS, low, high)):
            self._storage.delete(Table.ROWS, key)
            at = int.from_bytes(key[5:], "big")
            if row:
                items[at] = row
            else:
                items.pop(at, None)
        if page is not None:
            self._storage.delete(Table.PAGES, page[0])
        ids = sorted(items)
        self._write_pages(kind, number, pages.pack(ids, [items[each] for each in ids]))

    def _after_last_page(self, start: bytes, stop: bytes) -> bytes:
        last = start
        for key, _ in self._storage.scan(Table.PAGES, start, stop):
            last = key + b"\0"
        return last
