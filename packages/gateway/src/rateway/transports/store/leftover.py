"""Read the sessions of a store that cannot be written now (a disk that is full or read-only)."""

from __future__ import annotations

from pathlib import Path

import lmdb
import msgspec
from rateway.cache.storage import Table
from rateway.native.objects.applied import SessionRecord
from rateway.transports.store.opening import MAP_SIZE, StoreFault, open_as_it_is, open_for_reading
from rateway.transports.store.tables import Tables

__all__ = ["read_sessions", "read_sessions_beside"]


def read_sessions(path: Path, *, cluster: int, boot_id: str | None = None) -> list[SessionRecord]:
    """Return the sessions in the store at ``path`` without writing; none when it is missing or not to be trusted.

    It takes no lock: the caller has to own the state folder.
    """
    tables = open_as_it_is(path, cluster=cluster, boot_id=boot_id, map_size=MAP_SIZE)
    if isinstance(tables, StoreFault):
        return []
    return _sessions_in(tables)


def read_sessions_beside(path: Path) -> list[SessionRecord]:
    """Return the sessions in a store that another process writes; none of them when it cannot be read just now."""
    tables = open_for_reading(path)
    return [] if isinstance(tables, StoreFault) else _sessions_in(tables)


def _sessions_in(tables: Tables) -> list[SessionRecord]:
    try:
        with tables.env.begin(db=tables.rows[Table.SESSIONS]) as txn:
            return [msgspec.msgpack.decode(value, type=SessionRecord) for _, value in txn.cursor()]
    except (lmdb.Error, msgspec.DecodeError):
        return []
    finally:
        tables.env.close()
