"""Open LMDB; recognise a store that is old, torn or foreign, and name every fault.

A store is written without syncing, so a crash of the *process* leaves it whole (the kernel has the pages) and a crash
of the *machine* may leave anything. It therefore carries the id of the kernel's boot and whether it was closed in
order: opened under another boot and not closed in order, it is thrown away and comes back from Discord.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import lmdb
from rateway.cache.pages import DICTIONARY_HASH
from rateway.cache.storage import Table
from rateway.transports.folder import refuse_links
from rateway.transports.store.cut import is_cut
from rateway.transports.store.reserve import Reserve, reserves
from rateway.transports.store.tables import MAX_DATABASES, Tables, branches_of, open_tables

__all__ = [
    "MAP_SIZE",
    "Opened",
    "StoreFault",
    "fault_of",
    "open_as_it_is",
    "open_for_reading",
    "open_for_writing",
]

# The bound of a store's size. It is address space, not disk: the file grows as needed.
MAP_SIZE = 64 << 30

# Read transactions at a time, over all processes of the host.
MAX_READERS = 512

# Changes with anything that makes old bytes unreadable: keys, rows, pages, the dictionary that pages need.
FORMAT = f"rateway 2 {DICTIONARY_HASH}"

CUT = "its file ends before its pages do (copied in part)"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FILES = ("data.mdb", "lock.mdb")


@dataclass(frozen=True, slots=True)
class StoreFault:
    """The reason that the store cannot be used, as text. Events continue; queries are answered with this text."""

    words: str
    full: bool = False
    """The disk or the map has no room left."""


def fault_of(error: Exception, path: Path) -> StoreFault:
    """Describe an error of LMDB's or the system's."""
    full = isinstance(error, lmdb.MapFullError | lmdb.DbsFullError)
    full = (
        full or "No space left" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    )
    if full:
        return StoreFault(
            f"no room left for the store {path}: {error}; free disk space, it goes on by itself", True
        )
    if isinstance(error, lmdb.LockError | lmdb.ReadersFullError):
        return StoreFault(f"the store {path} is locked: {error}")
    return StoreFault(f"the store {path} cannot be used: {error}")


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that may be used, and what is worth saying about it."""

    tables: Tables
    words: tuple[str, ...]
    reserve: Reserve | None
    """The disk behind a writable map; None where LMDB writes without one."""


def boot_id_of_this_machine() -> str:
    """Return the kernel's id of this boot; empty where there is none (every start then counts as the same boot)."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def open_for_writing(path: Path, *, cluster: int, boot_id: str | None, map_size: int) -> Opened | StoreFault:
    """Open or make a store. One that cannot be trusted is thrown away first; ``Opened.words`` has the reason."""
    mark = _mark(cluster, boot_id)
    why: str | None = None
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for _ in range(2):
            existed = (path / _FILES[0]).exists()
            tables: Tables | None = None
            distrust: str | None
            try:
                if existed and is_cut(path / _FILES[0]):
                    distrust = CUT
                else:
                    tables = _open(path, map_size)
                    distrust = _distrust(tables, mark) if existed else None
            except (
                lmdb.CorruptedError,
                lmdb.InvalidError,
                lmdb.VersionMismatchError,
                lmdb.PageNotFoundError,
            ) as error:
                distrust, tables = f"it is torn ({error})", None
            if distrust is None and tables is not None:
                _write_mark(tables, mark)
                lost = f"the store {path} was thrown away: {why}; sessions and cache begin anew"
                tables, reserve = _made_writable(path, tables, map_size)
                return Opened(tables, () if why is None else (lost,), reserve)
            why = distrust
            if tables is not None:
                tables.env.close()
            for name in _FILES:
                (path / name).unlink(missing_ok=True)
    except (lmdb.Error, OSError) as error:
        return fault_of(error, path)
    return StoreFault(f"the store {path} cannot be made: {why}")


def _mark(cluster: int, boot_id: str | None) -> dict[str, object]:
    boot_id = boot_id_of_this_machine() if boot_id is None else boot_id
    return {"format": FORMAT, "cluster": cluster, "boot": boot_id, "clean": False}


def open_as_it_is(path: Path, *, cluster: int, boot_id: str | None, map_size: int) -> Tables | StoreFault:
    """Open a store that cannot be written, for reading; no other process may use it meanwhile."""
    try:
        refuse_links(path, _FILES[0])
        if is_cut(path / _FILES[0]):
            return StoreFault(f"the store {path} cannot be used: {CUT}")
        env = lmdb.open(
            str(path), map_size=map_size, max_dbs=MAX_DATABASES, readonly=True, create=False, lock=False
        )
    except (lmdb.Error, OSError) as error:
        return fault_of(error, path)
    try:
        tables = open_tables(env, create=False)
        distrust = _distrust(tables, _mark(cluster, boot_id))
    except lmdb.Error as error:
        distrust = f"it is torn ({error})"
    if distrust is not None:
        env.close()
        return StoreFault(f"the store {path} cannot be used: {distrust}")
    return tables


def _made_writable(path: Path, tables: Tables, map_size: int) -> tuple[Tables, Reserve | None]:
    """Return the same store with its map writable, where its disk can be reserved; as it is where that is not so."""
    if not reserves(path):
        return tables, None
    pages, page = tables.env.info()["last_pgno"] + 1, tables.env.stat()["psize"]
    tables.env.close()
    try:
        reserve = Reserve(path / _FILES[0], pages, page, map_size)
    except OSError:
        return _open(path, map_size), None
    try:
        tables = _open(path, map_size, writable=True)
    # Nothing was written: no file may be as large as the map, say.
    except (lmdb.Error, OSError):
        reserve.close()
        return _open(path, map_size), None
    reserve.follow(tables.env, lambda: branches_of(tables))
    return tables, reserve


def _open(path: Path, map_size: int, *, writable: bool = False) -> Tables:
    refuse_links(path, *_FILES)
    env = lmdb.open(
        str(path),
        map_size=map_size,
        max_dbs=MAX_DATABASES,
        max_readers=MAX_READERS,
        mode=0o600,
        # No sync: see above.
        sync=False,
        metasync=False,
        # Only over reserved disk: a full one would end the process (SIGBUS).
        writemap=writable,
        meminit=False,
        readahead=False,
    )
    try:
        env.reader_check()
        return open_tables(env, create=True)
    except BaseException:
        env.close()
        raise


def _distrust(tables: Tables, mark: dict[str, object]) -> str | None:
    """Why what is in the store must not be used; None when it may."""
    with tables.env.begin() as txn:
        raw = txn.get(b"mark", db=tables.rows[Table.META])
    if raw is None:
        return "it is none of ours, or was never finished"
    try:
        found = json.loads(bytes(raw))
    except ValueError:
        return "its mark is torn"
    if found.get("format") != mark["format"]:
        return f"its format is {found.get('format')!r}, this version writes {mark['format']!r}"
    if found.get("cluster") != mark["cluster"]:
        return f"it belongs to cluster {found.get('cluster')}"
    if not found.get("clean") and found.get("boot") != mark["boot"]:
        return "the machine went down while it was written"
    return None


def _write_mark(tables: Tables, mark: dict[str, object]) -> None:
    with tables.env.begin(write=True) as txn:
        txn.put(b"mark", json.dumps(mark).encode(), db=tables.rows[Table.META])
    # From here on the disk knows that the store is in use; an old "closed in order" must not outlive a crash.
    tables.env.sync(True)


def close_in_order(tables: Tables, reserve: Reserve | None) -> None:
    """Everything to the disk, then the word that it is."""
    tables.env.sync(True)
    with tables.env.begin(write=True) as txn:
        if reserve is not None:
            reserve.begin()
            reserve.take(2, 1)
        raw = txn.get(b"mark", db=tables.rows[Table.META])
        mark = json.loads(bytes(raw)) if raw else {}
        mark["clean"] = True
        txn.put(b"mark", json.dumps(mark).encode(), db=tables.rows[Table.META])
    tables.env.sync(True)
    if reserve is not None:
        reserve.look()
    tables.env.close()
    if reserve is not None:
        reserve.end()


def open_for_reading(path: Path, map_size: int = MAP_SIZE) -> Tables | StoreFault:
    """A store that another process writes."""
    try:
        refuse_links(path, *_FILES)
        if is_cut(path / _FILES[0]):
            return StoreFault(f"the store {path} cannot be used: {CUT}")
        env = lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=MAX_DATABASES,
            max_readers=MAX_READERS,
            readonly=True,
            create=False,
        )
    except (lmdb.Error, OSError) as error:
        return fault_of(error, path)
    try:
        return open_tables(env, create=False)
    except lmdb.Error as error:
        env.close()
        return fault_of(error, path)
