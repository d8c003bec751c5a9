"""A store's cache as bytes that another gateway's store takes in, row by row: the same tables, byte for byte.

It is read in one read transaction, so that it is of one moment: the position of each shard in it says which events are
in it. It has no session records, which the fleet's record tells, and nothing that belongs to the file itself.

The bytes are pieces, each a zstd frame of whole rows: ``table`` (1 byte), length of the key (2), of the value (4), key,
value. The index stands behind the tables: its key is a kind, its value as many pairs of 12 bytes as fit.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import lmdb
import msgspec
import zstandard
from rateway.cache import position
from rateway.cache.prune import LOADING
from rateway.cache.storage import Table
from rateway.transports.store.opening import FORMAT
from rateway.transports.store.tables import Tables

if TYPE_CHECKING:
    from rateway.transports.store.writer import Store

__all__ = [
    "PAIR_BYTES",
    "PIECE_BYTES",
    "Position",
    "SnapshotEnd",
    "SnapshotHead",
    "SnapshotLoader",
    "StoreSnapshot",
    "why_not",
]

# Of a piece before it is compressed: reading or writing one takes three milliseconds at most.
PIECE_BYTES: Final = 64 << 10
# A row is larger than that at most by its value: a guild's own fields, a page of objects.
_MOST_PIECE: Final = 64 << 20
# LMDB's bound for a key.
_MOST_KEY: Final = 511
_ROW: Final = struct.Struct(">BHI")
PAIR_BYTES: Final = 12
_INDEX: Final = len(Table)
# What belongs to the gateway or to the file.
_LEFT_OUT: Final = frozenset((Table.SESSIONS,))
_META_LEFT_OUT: Final = frozenset((b"mark", LOADING))


class Position(msgspec.Struct, frozen=True):
    """A shard's session, and the sequence number up to which its events are in the snapshot."""

    shard_id: int
    session: str
    applied: int


class SnapshotHead(msgspec.Struct, frozen=True):
    """The beginning: whether a store can take it in follows from it."""

    format: str
    cluster: int
    positions: list[Position]
    bytes: int
    """About as much as the rows have, before they are compressed."""


class SnapshotEnd(msgspec.Struct, frozen=True):
    """The end, by which a snapshot is known to be whole."""

    rows: int
    digest: bytes


class StoreSnapshot:
    """A store's cache at one moment. Until :meth:`close` its read transaction keeps pages from being used again."""

    def __init__(self, tables: Tables, cluster: int) -> None:
        self._tables = tables
        self._txn = tables.env.begin()
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows = 0
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self.head = SnapshotHead(FORMAT, cluster, list(self._positions()), self._size())

    def _positions(self) -> Iterator[Position]:
        for key, value in self._txn.cursor(self._tables.rows[Table.APPLIED]):
            session, applied = position.unpack(bytes(value))
            yield Position(position.unpack_key(bytes(key)), session, applied)

    def _size(self) -> int:
        stats = [self._txn.stat(db) for db in (*self._tables.rows, self._tables.pairs)]
        return sum((stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"] for stat in stats)

    def pieces(self) -> Iterator[bytes]:
        """Read it, a piece at a time. Raises ``lmdb.Error``."""
        rows: list[bytes] = []
        size = 0
        for table, key, value in self._all_rows():
            row = _ROW.pack(table, len(key), len(value)) + key + value
            rows.append(row)
            size += len(row)
            self._rows += 1
            if size >= PIECE_BYTES:
                yield self._piece(rows)
                rows, size = [], 0
        if rows:
            yield self._piece(rows)

    def _piece(self, rows: list[bytes]) -> bytes:
        raw = b"".join(rows)
        self._digest.update(raw)
        return self._compress(raw)

    def _all_rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        for table in Table:
            if table in _LEFT_OUT:
                continue
            for key, value in self._txn.cursor(self._tables.rows[table]):
                if table is not Table.META or bytes(key) not in _META_LEFT_OUT:
                    yield int(table), bytes(key), bytes(value)
        most = PIECE_BYTES // PAIR_BYTES
        kind, pairs = b"", list[bytes]()
        for key, pair in self._txn.cursor(self._tables.pairs):
            if pairs and (bytes(key) != kind or len(pairs) >= most):
                yield _INDEX, kind, b"".join(pairs)
                pairs = []
            kind = bytes(key)
            pairs.append(bytes(pair))
        if pairs:
            yield _INDEX, kind, b"".join(pairs)

    def end(self) -> SnapshotEnd:
        """Return the end, once all pieces were read."""
        return SnapshotEnd(self._rows, self._digest.digest())

    def close(self) -> None:
        """Let the store use its pages again."""
        self._txn.abort()


class SnapshotLoader:
    """Takes a snapshot into a store in place of what it had, as its pieces come. Until :meth:`end` has succeeded the
    store's cache is of no use; where it does not, begin it cold.
    """

    def __init__(self, store: Store, head: SnapshotHead) -> None:
        self.head = head
        self._store = store
        self._digest = hashlib.blake2b(digest_size=16)
        self._rows = 0
        self._decompress = zstandard.ZstdDecompressor().decompress

    def take(self, piece: bytes) -> str:
        """Write a piece's rows; return why it cannot be done, empty when it was."""
        try:
            raw = self._decompress(piece, max_output_size=_MOST_PIECE)
            rows = list(_rows_of(raw))
        except (zstandard.ZstdError, ValueError) as error:
            return f"a piece of the snapshot cannot be read: {error}"
        self._digest.update(raw)
        self._rows += len(rows)
        try:
            self._store.put_rows(rows)
        except (lmdb.Error, OSError) as error:
            return f"the snapshot cannot be written: {error}"
        return ""

    def end(self, end: SnapshotEnd) -> str:
        """Go on with what was loaded; return why that cannot be, empty when it can."""
        if (end.rows, end.digest) != (self._rows, self._digest.digest()):
            return f"the snapshot is not whole: {self._rows} of {end.rows} rows have come"
        fault = self._store.rows_replaced()
        return "" if fault is None else fault.words


def _rows_of(raw: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the rows of a piece. Raises ValueError for what is none."""
    at, size = 0, len(raw)
    while at < size:
        if size - at < _ROW.size:
            raise ValueError("a row is cut off")
        table, key_size, value_size = _ROW.unpack_from(raw, at)
        at += _ROW.size
        key, value = raw[at : at + key_size], raw[at + key_size : at + key_size + value_size]
        at += key_size + value_size
        if at > size or not 0 < key_size <= _MOST_KEY:
            raise ValueError("a row's length is wrong")
        if table > _INDEX or table in _LEFT_OUT or (table == Table.META and key in _META_LEFT_OUT):
            raise ValueError(f"a row is of table {table}, which is not part of a snapshot")
        if table == _INDEX and (key_size != 1 or not value or value_size % PAIR_BYTES):
            raise ValueError("a row of the index is none")
        yield table, key, value


def why_not(head: SnapshotHead, cluster: int) -> str:
    """Return why a store of that cluster cannot take a snapshot in; empty when it can."""
    if head.format != FORMAT:
        return f"its format is {head.format!r}, this version writes {FORMAT!r}"
    return "" if head.cluster == cluster else f"it is of cluster {head.cluster}"
