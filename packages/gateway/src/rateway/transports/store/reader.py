"""Read a store for queries: short read transactions, from any thread or process, beside its writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
from rateway.cache.reader import View
from rateway.transports.store.opening import StoreFault, fault_of, open_for_reading
from rateway.transports.store.tables import LmdbReading, Tables, sizes_of

__all__ = ["StoreReader"]


class StoreReader:
    """A store for reading. In the writer's own process take ``Store.reader()``: LMDB allows one opening per process."""

    def __init__(self, path: Path, tables: Tables | None, *, own: bool) -> None:
        self.path = path
        self._tables = tables
        self._own = own
        self._inode = _inode(path)
        # Kinds whose completeness was looked at: View.is_complete.
        self._doubts: dict[str, tuple[int, int | None]] = {}

    @classmethod
    def of(cls, path: Path, tables: Tables) -> StoreReader:
        """Return a reader on tables that this process has open already."""
        return cls(path, tables, own=False)

    @classmethod
    def open(cls, path: Path) -> StoreReader | StoreFault:
        """Open a store that another process of this host writes, and follow one that is made again."""
        tables = open_for_reading(path)
        return tables if isinstance(tables, StoreFault) else cls(path, tables, own=True)

    def begin(self) -> tuple[View, lmdb.Transaction]:
        """Return one moment of the store: it stays as it is until the transaction is aborted. Raises
        StoreUnreadable.
        """
        if self._own:
            self._follow()
        if self._tables is None:
            raise StoreUnreadable(StoreFault(f"the store {self.path} is not there"))
        try:
            txn = self._tables.env.begin()
        except lmdb.Error as error:
            raise StoreUnreadable(fault_of(error, self.path)) from None
        return View(LmdbReading(self._tables, txn), doubts=self._doubts), txn

    def go_on(self, view: View) -> lmdb.Transaction:
        """Let a view that :meth:`begin` gave, and whose transaction has ended, read the store as it is now.

        Raises StoreUnreadable, also when the store was made again: nothing that was read then is in it.
        """
        reading = view.reading
        assert isinstance(reading, LmdbReading)
        if self._own:
            self._follow()
        if self._tables is None or not reading.is_of(self._tables):
            raise StoreUnreadable(StoreFault(f"the store {self.path} was made anew; ask again"))
        try:
            txn = self._tables.env.begin()
        except lmdb.Error as error:
            raise StoreUnreadable(fault_of(error, self.path)) from None
        reading.go_on(txn)
        view.go_on()
        return txn

    @contextmanager
    def view(self) -> Iterator[View]:
        """One moment of the store. Raises :class:`StoreUnreadable` alone."""
        view, txn = self.begin()
        try:
            yield view
        except lmdb.Error as error:
            raise StoreUnreadable(fault_of(error, self.path)) from None
        finally:
            txn.abort()

    def used_bytes(self) -> int:
        """The store up to its last page."""
        if self._tables is None:
            return 0
        env = self._tables.env
        return (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])

    def disk_bytes(self) -> int:
        """Return the store's bytes on disk, with the reserve behind its last page."""
        try:
            return os.stat(self.path / "data.mdb").st_blocks * 512
        except OSError:
            return 0

    def tables(self) -> list[tuple[str, int, int]]:
        """Each table's name, bytes in use and number of entries."""
        return [] if self._tables is None else sizes_of(self._tables)

    def close(self) -> None:
        if self._own and self._tables is not None:
            self._tables.env.close()
            self._tables = None

    def _follow(self) -> None:
        """Open the file that is there now, if it is another one than the open one."""
        inode = _inode(self.path)
        if inode == self._inode and self._tables is not None:
            return
        self.close()
        self._inode = inode
        self._doubts = {}
        tables = open_for_reading(self.path)
        self._tables = None if isinstance(tables, StoreFault) else tables


class StoreUnreadable(Exception):
    """A store cannot be read now; ``fault`` is the reason."""

    def __init__(self, fault: StoreFault) -> None:
        super().__init__(fault.words)
        self.fault = fault


def _inode(path: Path) -> int:
    try:
        return os.stat(path / "data.mdb").st_ino
    except OSError:
        return 0
