"""The port to a store: ordered tables of bytes, written by one, read by many; and a form in memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Protocol

__all__ = ["MemoryStorage", "Reading", "Storage", "Table", "quick"]


def quick(enumeration: type[Enum]) -> None:
    """Let reading an enumeration's members cost what an attribute costs: 20 ns.

    Python 3.11 finds each member by a descriptor written in Python, 330 ns, which was a tenth of an event's cost; later
    versions do what is done here.
    """
    for member in enumeration:
        type.__setattr__(enumeration, member.name, member)


class Table(IntEnum):
    """The tables. Keys are big-endian, so that their order is the order of numbers; see ``docs/cache.md``."""

    META = 0
    GUILDS = 1
    NUMBERS = 2
    PAGES = 3
    ROWS = 4
    PENDING = 5
    USERS = 6
    TIPS = 7
    MESSAGES = 8
    APPLIED = 9
    SESSIONS = 10
    PRESENCES = 11
    VOICE_STATES = 12


quick(Table)


class Reading(Protocol):
    """A consistent view, for as long as :attr:`moment` is the same."""

    @property
    def moment(self) -> int:
        """A number that changes when the same view shows the tables as they are later."""

    def get(self, table: int, key: bytes) -> bytes | None: ...

    def scan(self, table: int, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with ``start <= key < stop``, ascending. The table must not be changed meanwhile."""

    def first(self, table: int, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """Return the first entry of a scan."""

    def entries(self, table: int) -> int:
        """How many entries a table has."""

    def homes(self, kind: int, entity_id: int, most: int | None = None) -> Sequence[int]:
        """Return the guild numbers that an entity is indexed under, ascending; no more than ``most``."""


class Storage(Reading, Protocol):
    """A view that can be changed. What was written is seen by its own reads at once, by others after the commit."""

    def put(self, table: int, key: bytes, value: bytes) -> None: ...

    def put_rows(self, table: int, rows: Mapping[bytes, bytes]) -> None: ...

    def delete(self, table: int, key: bytes) -> None:
        """Remove an entry; nothing happens when there is none."""

    def add_homes(self, kind: int, pairs: Sequence[bytes]) -> None:
        """Index entities: 12 bytes each, ``entity_id`` (8) and guild number (4), sorted."""

    def remove_homes(self, kind: int, pairs: Sequence[bytes]) -> None: ...

    def clear(self, tables: Iterable[int]) -> None:
        """Remove all entries of some tables, and the whole index."""


class MemoryStorage:
    """Tables in a dict: for tests, and for what should leave nothing behind."""

    moment = 0

    def __init__(self) -> None:
        self.tables: list[dict[bytes, bytes]] = [{} for _ in Table]
        self._keys: list[list[bytes]] = [[] for _ in Table]
        self.pairs: dict[int, list[bytes]] = {}

    def get(self, table: int, key: bytes) -> bytes | None:
        return self.tables[table].get(key)

    def scan(self, table: int, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows, keys = self.tables[table], self._keys[table]
        found = keys[bisect.bisect_left(keys, start) : bisect.bisect_left(keys, stop)]
        return ((key, rows[key]) for key in found)

    def first(self, table: int, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        return next(self.scan(table, start, stop), None)

    def entries(self, table: int) -> int:
        return len(self.tables[table])

    def put(self, table: int, key: bytes, value: bytes) -> None:
        if key not in self.tables[table]:
            bisect.insort(self._keys[table], key)
        self.tables[table][key] = value

    def put_rows(self, table: int, rows: Mapping[bytes, bytes]) -> None:
        for key, value in rows.items():
            self.put(table, key, value)

    def delete(self, table: int, key: bytes) -> None:
        if self.tables[table].pop(key, None) is not None:
            self._keys[table].remove(key)

    def homes(self, kind: int, entity_id: int, most: int | None = None) -> Sequence[int]:
        prefix = entity_id.to_bytes(8, "big")
        pairs = self.pairs.get(kind, [])
        found = []
        for at in range(bisect.bisect_left(pairs, prefix), len(pairs)):
            if pairs[at][:8] != prefix:
                break
            found.append(int.from_bytes(pairs[at][8:], "big"))
        return found[:most]

    def add_homes(self, kind: int, pairs: Iterable[bytes]) -> None:
        self.pairs[kind] = sorted({*self.pairs.get(kind, ()), *pairs})

    def remove_homes(self, kind: int, pairs: Iterable[bytes]) -> None:
        self.pairs[kind] = sorted({*self.pairs.get(kind, ())} - {*pairs})

    def clear(self, tables: Iterable[int]) -> None:
        for table in tables:
            self.tables[table].clear()
            self._keys[table].clear()
        self.pairs.clear()
