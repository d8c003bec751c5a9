"""Rows that wait for the next transaction, and those that each commit makes anew: positions and newest messages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["POSITION", "TIP", "WaitingRows", "position_rows", "tip_rows"]

# Of a shard's row: the applied sequence, behind it the session.
POSITION = struct.Struct(">Q")
# Of a channel's row: its newest message, then what message events added to a thread's counters since its object came.
TIP = struct.Struct(">Qii")

_pack_shard = struct.Struct(">I").pack
_pack_channel = struct.Struct(">Q").pack
_pack_position = POSITION.pack
_pack_tip = TIP.pack


def position_rows(
    shards: Iterable[int], positions: Mapping[int, int], sessions: Mapping[int, str]
) -> dict[bytes, bytes]:
    """Return the rows of some shards' positions, each with the session that it is of. A negative position is 0."""
    rows = {}
    for shard_id in shards:
        seq = positions[shard_id]
        value = _pack_position(seq if seq > 0 else 0)
        rows[_pack_shard(shard_id)] = value + sessions.get(shard_id, "").encode()
    return rows


def tip_rows(channels: Iterable[int], tips: Mapping[int, tuple[int, int, int]]) -> dict[bytes, bytes]:
    """Return the rows of some channels' newest messages."""
    rows = {}
    for channel_id in channels:
        newest, messages, sent = tips[channel_id]
        rows[_pack_channel(channel_id)] = _pack_tip(newest, messages, sent)
    return rows


class WaitingRows:
    """What the next transaction writes, by table: key → value, None for a row that goes."""

    __slots__ = ("_greatest", "tables")

    def __init__(self, tables: int) -> None:
        self.tables: list[dict[bytes, bytes | None]] = [{} for _ in range(tables)]
        # By table: no key in it is greater; None where that is not known.
        self._greatest: list[bytes | None] = [None] * tables

    def count(self) -> int:
        """Return how many rows wait."""
        count = 0
        for rows in self.tables:
            count += len(rows)
        return count

    def weigh(self) -> int:
        """Return the bytes of all values."""
        weight = 0
        for rows in self.tables:
            for value in rows.values():
                if value is not None:
                    weight += len(value)
        return weight

    def is_any(self) -> bool:
        """Return whether a row waits."""
        return any(self.tables)

    def take(self, table: int) -> dict[bytes, bytes | None]:
        """Return the rows of a table, which wait no longer: the caller writes them."""
        rows = self.tables[table]
        self.tables[table] = {}
        # They may have keys beyond the greatest.
        self._greatest[table] = None
        return rows

    def write(
        self,
        put: Callable[..., bool],
        delete: Callable[..., object],
        handles: list[Any],
        greatest_in: Callable[[int], bytes],
    ) -> None:
        """Write all rows, table by table, ascending by key: each in a call of its own, so this is for few.

        Args:
            put: LMDB's: key, value, whether a key may have several values, whether one is overwritten, whether the key
                is beyond all others, the table's handle. Beyond the last key LMDB fills its pages to the brim; anywhere
                else a full page is halved.
            delete: LMDB's: key, value (any), the table's handle.
            handles: those of the tables.
            greatest_in: tells the greatest key of a table, empty where there is none.
        """
        for table in range(len(self.tables)):
            rows = self.tables[table]
            if not rows:
                continue
            handle = handles[table]
            greatest = self._greatest[table]
            if greatest is None:
                greatest = greatest_in(table)
            for key in sorted(rows) if len(rows) > 1 else list(rows):
                value = rows[key]
                if value is None:
                    delete(key, b"", handle)
                elif key > greatest:
                    # False where the key is there already: then it is not beyond all others.
                    if not put(key, value, True, True, True, handle):
                        put(key, value, True, True, False, handle)
                    greatest = key
                else:
                    put(key, value, True, True, False, handle)
            self._greatest[table] = greatest
            self.tables[table] = {}

    def clear(self) -> None:
        """Forget all rows: the transaction that they were for is given up, with what was written of it."""
        for table in range(len(self.tables)):
            self.tables[table].clear()
            self._greatest[table] = None

    def clear_table(self, table: int) -> None:
        """Forget the rows of a table that is emptied."""
        self.tables[table].clear()
        self._greatest[table] = None
