"""The cache's tables in LMDB: the one file that knows the library's calls; changes wait in dicts until needed.

Puts and deletes are collected per table and written sorted, in one call, when the transaction ends or a scan needs
them: the same row changed a hundred times between two commits is written once, and neighbours are written together.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import lmdb
from rateway.cache.storage import Table
from rateway.native.rows import WaitingRows
from rateway.transports.store.reserve import Reserve

__all__ = ["LmdbReading", "LmdbStorage", "branches_of", "open_tables", "sizes_of"]

_Result = TypeVar("_Result")

# One for each table, one for the index.
TABLES = len(Table)
MAX_DATABASES = TABLES + 1


class Tables:
    """The handles of an environment's tables."""

    __slots__ = ("env", "pairs", "rows")

    def __init__(self, env: lmdb.Environment, *, create: bool) -> None:
        self.env = env
        self.rows = [env.open_db(table.name.lower().encode(), create=create) for table in Table]
        self.pairs = env.open_db(b"homes", create=create, dupsort=True, dupfixed=True)


def open_tables(env: lmdb.Environment, *, create: bool) -> Tables:
    """Return the tables of an environment; ``lmdb.Error`` when they are not there."""
    return Tables(env, create=create)


def sizes_of(tables: Tables) -> list[tuple[str, int, int]]:
    """Each table's name, bytes in use (pages, whether full or not) and number of entries."""
    found = []
    names = [*(table.name.lower() for table in Table), "homes"]
    with tables.env.begin() as txn:
        for name, db in zip(names, [*tables.rows, tables.pairs], strict=True):
            stat = txn.stat(db)
            pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            found.append((name, pages * stat["psize"], stat["entries"]))
    return found


def branches_of(tables: Tables) -> int:
    """Return the branch pages of all tables, as the last commit left them."""
    with tables.env.begin() as txn:
        return sum(txn.stat(db)["branch_pages"] for db in (*tables.rows, tables.pairs))


# Rows at a time from which on it pays to ask how many leaves a table has.
MANY_ROWS = 64

# The index beside the tables, for the cursors.
_PAIRS = TABLES
_KINDS = [bytes((kind,)) for kind in range(256)]
_number = struct.Struct(">I").unpack_from


def _homes(cursor: lmdb.Cursor, kind: int, entity_id: int, most: int | None) -> Sequence[int]:
    prefix = entity_id.to_bytes(8, "big")
    found: list[int] = []
    there = cursor.set_range_dup(_KINDS[kind], prefix)
    # Values of a transaction without buffers are bytes.
    while there and (pair := cursor.value()).startswith(prefix):  # type: ignore[union-attr]  # as said
        found.append(_number(pair, 8)[0])
        if len(found) == most:
            break
        there = cursor.next_dup()
    return found


def _scan(cursor: lmdb.Cursor, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
    found = cursor.set_range(start) if start else cursor.first()
    while found:
        key = bytes(cursor.key())
        if key >= stop:
            return
        yield key, bytes(cursor.value())
        found = cursor.next()


def _first(cursor: lmdb.Cursor, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
    if not cursor.set_range(start):
        return None
    # Keys and values of a transaction without buffers are bytes of their own already.
    found: tuple[bytes, bytes] = cursor.item()  # type: ignore[assignment]
    return found if found[0] < stop else None


class LmdbReading:
    """A read transaction as the cache's :class:`~rateway.cache.storage.Reading`; :meth:`go_on` takes another one."""

    __slots__ = ("_cursors", "_get", "_pairs", "_rows", "_scans", "_tables", "_txn", "moment")

    def __init__(self, tables: Tables, txn: lmdb.Transaction) -> None:
        self._tables = tables
        self._rows = tables.rows
        # For looks that are over when they return; a scan has a cursor of its own.
        self._cursors: dict[int, lmdb.Cursor] = {}
        self._pairs: lmdb.Cursor | None = None
        self.moment = -1
        # The cursor of each scan, alone in a list, which is empty once its transaction has ended.
        self._scans: list[list[lmdb.Cursor]] = []
        self.go_on(txn)

    def is_of(self, tables: Tables) -> bool:
        """Whether this store is the one that is read."""
        return self._tables is tables

    def go_on(self, txn: lmdb.Transaction) -> None:
        """Read in this transaction from now on; a scan that is under way goes on behind the key that it gave last."""
        self.moment += 1
        self._txn = txn
        self._get = txn.get

    def rest(self) -> None:
        """The transaction ends: let go of it, or it would keep its place among LMDB's readers."""
        for place in self._scans:
            place.clear()
        self._scans.clear()
        self._cursors.clear()
        self._pairs = None
        if hasattr(self, "_txn"):
            del self._txn, self._get

    def get(self, table: int, key: bytes) -> bytes | None:
        found: bytes | None = self._get(key, None, self._rows[table])  # type: ignore[assignment]  # no buffers
        return found

    def scan(self, table: int, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        # The transaction must not live on in a scan that waits, hence no name for its cursor.
        place = [self._txn.cursor(self._rows[table])]
        self._scans.append(place)
        found = place[0].set_range(start) if start else place[0].first()
        while found:
            key = bytes(place[0].key())
            if key >= stop:
                return
            yield key, bytes(place[0].value())
            if place:
                found = place[0].next()
            else:
                place.append(self._txn.cursor(self._rows[table]))
                self._scans.append(place)
                found = place[0].set_range(key + b"\0")

    def first(self, table: int, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        cursor = self._cursors.get(table)
        if cursor is None:
            cursor = self._cursors[table] = self._txn.cursor(self._rows[table])
        return _first(cursor, start, stop)

    def entries(self, table: int) -> int:
        return int(self._txn.stat(self._rows[table])["entries"])

    def homes(self, kind: int, entity_id: int, most: int | None = None) -> Sequence[int]:
        cursor = self._pairs
        if cursor is None:
            cursor = self._pairs = self._txn.cursor(self._tables.pairs)
        return _homes(cursor, kind, entity_id, most)


class LmdbStorage:
    """The writer's view: at most one write transaction, begun when first needed, and what waits to be written."""

    moment: Final = 0

    __slots__ = ("_cursors", "_large", "_reserve", "_rows", "_tables", "_txn", "waiting")

    def __init__(self, tables: Tables, reserve: Reserve | None = None) -> None:
        self._tables = tables
        # The disk that a writable map needs ahead of each write; without it LMDB asks for disk itself.
        self._reserve = reserve
        # No value that is smaller has pages of its own.
        self._large = 0 if reserve is None else reserve.page // 2 - 48
        self._txn: lmdb.Transaction | None = None
        # One cursor for each table, then one for the index: they live as long as the transaction.
        self._cursors: dict[int, lmdb.Cursor] = {}
        self._rows = WaitingRows(TABLES)
        self.waiting = self._rows.tables

    @property
    def open(self) -> bool:
        """Whether anything would be lost without a commit."""
        return self._txn is not None or self._rows.is_any()

    def _begin(self) -> lmdb.Transaction:
        if self._txn is None:
            self._txn = self._tables.env.begin(write=True)
            if self._reserve is not None:
                self._reserve.begin()
        return self._txn

    def _cursor(self, table: int) -> lmdb.Cursor:
        """Return a cursor, valid until the next call."""
        cursor = self._cursors.get(table)
        if cursor is None:
            db = self._tables.rows[table] if table < TABLES else self._tables.pairs
            cursor = self._cursors[table] = self._begin().cursor(db)
        return cursor

    def get(self, table: int, key: bytes) -> bytes | None:
        waiting = self.waiting[table]
        if key in waiting:
            return waiting[key]
        txn = self._txn or self._begin()
        found: bytes | None = txn.get(key, None, self._tables.rows[table])  # type: ignore[assignment]  # no buffers
        return found

    def put(self, table: int, key: bytes, value: bytes) -> None:
        self.waiting[table][key] = value

    def put_rows(self, table: int, rows: Mapping[bytes, bytes]) -> None:
        self.waiting[table].update(rows)

    def delete(self, table: int, key: bytes) -> None:
        self.waiting[table][key] = None

    def scan(self, table: int, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self.waiting[table]:
            self._write(table)
        return _scan(self._begin().cursor(self._tables.rows[table]), start, stop)

    def first(self, table: int, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        if self.waiting[table]:
            self._write(table)
        return _first(self._cursors.get(table) or self._cursor(table), start, stop)

    def entries(self, table: int) -> int:
        if self.waiting[table]:
            self._write(table)
        return int(self._begin().stat(self._tables.rows[table])["entries"])

    def homes(self, kind: int, entity_id: int, most: int | None = None) -> Sequence[int]:
        return _homes(self._cursors.get(_PAIRS) or self._cursor(_PAIRS), kind, entity_id, most)

    def add_homes(self, kind: int, pairs: Sequence[bytes]) -> None:
        key, cursor = bytes((kind,)), self._cursor(_PAIRS)
        if self._reserve is not None:
            count = len(pairs)
            if count > MANY_ROWS:
                # Half a leaf has room for more than a hundred, and is filled before it is split.
                touched = min(count, self._leaves(self._tables.pairs))
                self._reserve.take(touched + min(count, touched + count // 100) + 2, count)
            else:
                self._reserve.take(2 * count, count)
        cursor.putmulti(zip(itertools.repeat(key), pairs), dupdata=False)

    def remove_homes(self, kind: int, pairs: Sequence[bytes]) -> None:
        key, txn, db = bytes((kind,)), self._begin(), self._tables.pairs
        if self._reserve is not None:
            self._reserve.take(self._changed(db, 2 * len(pairs)), len(pairs))
        for pair in pairs:
            txn.delete(key, pair, db=db)

    def clear(self, tables: Iterable[int]) -> None:
        txn = self._begin()
        for table in (*tables, _PAIRS):
            if self._reserve is not None:
                self._reserve.take(2, 1)
            if table < TABLES:
                self._rows.clear_table(table)
            txn.drop(self._tables.rows[table] if table < TABLES else self._tables.pairs, delete=False)
        self._cursors.clear()

    def commit(self) -> None:
        """Write what waits and end the transaction. ``lmdb.Error``: none of it was written."""
        count = self._rows.count()
        if 0 < count <= MANY_ROWS:
            self._write_few(count)
        elif count:
            for table in range(TABLES):
                if self.waiting[table]:
                    self._write(table)
        if self._txn is not None:
            txn, self._txn = self._txn, None
            self._cursors.clear()
            txn.commit()

    def abort(self) -> None:
        """Forget everything since the last commit."""
        self._rows.clear()
        if self._txn is not None:
            txn, self._txn = self._txn, None
            self._cursors.clear()
            txn.abort()

    def _write_few(self, count: int) -> None:
        """Write all that waits, which is little: most commits."""
        txn = self._begin()
        if self._reserve is not None:
            self._reserve.take(2 * count + self._rows.weigh() // self._large, count)
        self._rows.write(txn.put, txn.delete, self._tables.rows, self._greatest_in)

    def _greatest_in(self, table: int) -> bytes:
        cursor = self._cursor(table)
        return bytes(cursor.key()) if cursor.last() else b""

    def _write(self, table: int) -> None:
        waiting = self._rows.take(table)
        txn, db, reserve = self._begin(), self._tables.rows[table], self._reserve
        if None in waiting.values():
            puts, gone = [], []
            for key, value in sorted(waiting.items()):
                if value is None:
                    gone.append(key)
                else:
                    puts.append((key, value))
            if reserve is not None:
                reserve.take(self._changed(db, 2 * len(gone)), len(gone))
            for key in gone:
                txn.delete(key, db=db)
        else:
            puts = sorted(waiting.items())  # type: ignore[arg-type]  # no None among the values
        if len(puts) == 1:
            key, value = puts[0]
            if reserve is not None:
                reserve.take(2 + len(value) // self._large, 1)
            txn.put(key, value, db=db)
        elif puts:
            cursor = self._cursor(table)
            # Beyond the last key LMDB fills its pages to the brim; anywhere else a full page is halved.
            beyond = not cursor.last() or bytes(cursor.key()) < puts[0][0]
            if reserve is not None:
                count, weight = len(puts), sum([len(value) for _, value in puts])
                if beyond:
                    # Two neighbours are more than one page; of each row at most 40 bytes are its key and head.
                    leaves = 2 + 2 * (weight + 40 * count) // (reserve.page - 16)
                else:
                    leaves = count + self._changed(db, count)
                reserve.take(leaves + weight // self._large, count)
            cursor.putmulti(puts, append=beyond)

    def _changed(self, db: lmdb._Database, pages: int) -> int:
        """How many of a table's leaves so many changes change at most."""
        return pages if pages <= MANY_ROWS else min(pages, self._leaves(db))

    def _leaves(self, db: lmdb._Database) -> int:
        return int(self._begin().stat(db)["leaf_pages"])
