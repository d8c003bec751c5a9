"""Detect that a store's file ends before its pages do, without mapping it.

A file that was copied in part still begins with sound meta pages. LMDB believes them, and the first page behind the
end that is touched ends the process (SIGBUS). A file may rightly be shorter than LMDB's last page: pages that one
transaction took and gave back are never written. So where it is shorter its trees are walked, by ordinary reads, until
a page that is in use lies behind the end. The layout is that of LMDB 0.9 (``mdb.c``), in the machine's byte order.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

__all__ = ["is_cut"]

# struct MDB_page: number, padding, flags, and of pages with nodes the bounds of their free room.
_PAGE = struct.Struct("=QHHHH")
_OVERFLOW = struct.Struct("=QHHI")
# struct MDB_meta: magic, version, address, size of the map; then two of struct MDB_db, last page, transaction.
_META = struct.Struct("=IIQQ")
_DB = struct.Struct("=IHHQQQQQ")
_TAIL = struct.Struct("=QQ")
# struct MDB_node: size of the data (of branches the child's number), flags, size of the key.
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, OVERFLOW, META, FIXED = 0x01, 0x02, 0x04, 0x08, 0x20
BIG, SUBTREE = 0x01, 0x02
NO_PAGE = (1 << 64) - 1
# Page sizes that LMDB makes.
SIZES = frozenset(1 << bits for bits in range(8, 17))


class _Cut(Exception):
    """A page in use lies behind the end."""


def is_cut(file: Path) -> bool:
    """Return whether a page in use lies behind the end of the file. False for what is no store: LMDB refuses it.

    Raises OSError.
    """
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        found = _newest_meta(opened)
        if found is None:
            return False
        page_size, roots, last = found
        if size >= (last + 1) * page_size:
            return False
        walk = _Walk(opened, page_size, size // page_size)
        try:
            for root in roots:
                walk.tree(root)
        except _Cut:
            return True
        except (struct.error, IndexError, RecursionError):
            # Torn in another way; LMDB finds that by itself.
            return False
        return False


def _newest_meta(opened: BinaryIO) -> tuple[int, list[int], int] | None:
    """Return the size of a page, the roots of the two main trees, and the number of the last page."""
    first = _meta_at(opened, 0)
    if first is None or first[1][0] not in SIZES:
        return None
    metas = [meta for meta in (first, _meta_at(opened, first[1][0])) if meta is not None]
    _, numbers = max(metas, key=lambda meta: meta[0])
    return numbers[0], [root for root in numbers[1:3] if root != NO_PAGE], numbers[3]


def _meta_at(opened: BinaryIO, offset: int) -> tuple[int, tuple[int, int, int, int]] | None:
    opened.seek(offset)
    raw = opened.read(_PAGE.size + _META.size + 2 * _DB.size + _TAIL.size)
    try:
        if not _PAGE.unpack_from(raw)[2] & META:
            return None
        at = _PAGE.size
        magic, version, _, _ = _META.unpack_from(raw, at)
        free, main = (_DB.unpack_from(raw, at + _META.size + number * _DB.size) for number in range(2))
        last, transaction = _TAIL.unpack_from(raw, at + _META.size + 2 * _DB.size)
    except struct.error:
        return None
    return (transaction, (free[0], free[7], main[7], last)) if (magic, version) == (MAGIC, VERSION) else None


class _Walk:
    def __init__(self, opened: BinaryIO, page_size: int, pages: int) -> None:
        self._opened = opened
        self._page_size = page_size
        self._pages = pages
        self._seen: set[int] = set()

    def tree(self, number: int) -> None:
        """Visit a page and all below it. Raises ``_Cut``."""
        waiting = [number]
        while waiting:
            number = waiting.pop()
            if number in self._seen:
                continue
            self._seen.add(number)
            page = self._read(number)
            _, _, flags, lower, _ = _PAGE.unpack_from(page)
            if flags & FIXED or not flags & (BRANCH | LEAF):
                continue
            for (place,) in struct.iter_unpack("=H", page[_PAGE.size : lower]):
                waiting += self._below(page, place, flags)

    def _below(self, page: bytes, place: int, flags: int) -> list[int]:
        low, high, more, key = _NODE.unpack_from(page, place)
        if flags & BRANCH:
            return [low | high << 16 | more << 32]
        at = place + _NODE.size + key
        if more & BIG:
            number = _NUMBER.unpack_from(page, at)[0]
            count = _OVERFLOW.unpack_from(self._read(number))[3]
            self._read(number + max(count, 1) - 1)
        elif more & SUBTREE:
            root = _DB.unpack_from(page, at)[7]
            return [] if root == NO_PAGE else [root]
        return []

    def _read(self, number: int) -> bytes:
        if number >= self._pages:
            raise _Cut
        self._opened.seek(number * self._page_size)
        return self._opened.read(self._page_size)
