"""Rows on their way into a transaction, compiled and plain: what is written is what waited, and packed as tightly."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import lmdb
import pytest
from rateway.cache.storage import Table
from rateway.native import rows
from rateway.native.rows import plain
from rateway.transports.store.tables import MANY_ROWS, MAX_DATABASES, LmdbStorage, open_tables

FORMS = [pytest.param(form, id=form.__name__.rpartition(".")[2]) for form in (plain, rows)]
form = pytest.mark.parametrize("form", FORMS)


class Lmdb:
    """LMDB's put and delete over tables that are dicts."""

    def __init__(self, tables: int) -> None:
        self.tables: list[dict[bytes, bytes]] = [{} for _ in range(tables)]
        self.handles: list[object] = list(range(tables))
        self.appended: list[bytes] = []
        self.looks = 0

    def put(
        self, key: bytes, value: bytes, dupdata: bool, overwrite: bool, append: bool, handle: int
    ) -> bool:
        assert dupdata and overwrite
        table = self.tables[handle]
        if append:
            if key in table:
                return False
            assert key > max(table, default=b""), "LMDB would take this key for one that is there"
            self.appended.append(key)
        table[key] = value
        return True

    def delete(self, key: bytes, value: bytes, handle: int) -> bool:
        assert not value
        return self.tables[handle].pop(key, None) is not None

    def greatest_in(self, table: int) -> bytes:
        self.looks += 1
        return max(self.tables[table], default=b"")


def write(waiting: rows.WaitingRows, to: Lmdb) -> None:
    waiting.write(to.put, to.delete, to.handles, to.greatest_in)


@form
def test_a_position_is_its_sequence_and_its_session_and_never_negative(form: ModuleType) -> None:
    found = form.position_rows({3, 258}, {3: -1, 258: 1 << 40, 4: 7}, {258: "säss"})
    assert found == {
        b"\0\0\0\3": bytes(8),
        b"\0\0\1\2": (1 << 40).to_bytes(8, "big") + "säss".encode(),
    }


@form
def test_the_newest_message_of_a_channel_stands_under_its_id(form: ModuleType) -> None:
    found = form.tip_rows({5}, {5: (1 << 60, -2, 3), 6: (1, 0, 0)})
    assert found == {(5).to_bytes(8, "big"): form.TIP.pack(1 << 60, -2, 3)}


@form
def test_what_is_written_is_what_waited_last(form: ModuleType) -> None:
    chance = random.Random(5)
    waiting, lmdb_, expected = form.WaitingRows(3), Lmdb(3), Lmdb(3)
    for _ in range(300):
        for _ in range(chance.randrange(6)):
            table, key = chance.randrange(3), bytes([chance.randrange(40)])
            if chance.random() < 0.3:
                waiting.tables[table][key] = None
                expected.tables[table].pop(key, None)
            else:
                waiting.tables[table][key] = expected.tables[table][key] = chance.randbytes(4)
        assert waiting.is_any() == any(waiting.tables)
        assert waiting.count() == sum(len(each) for each in waiting.tables)
        assert waiting.weigh() == sum(
            len(value) for each in waiting.tables for value in each.values() if value is not None
        )
        write(waiting, lmdb_)
        assert not waiting.is_any() and not waiting.count() and not waiting.weigh()
        assert lmdb_.tables == expected.tables


@form
def test_rows_beyond_the_last_are_appended_and_where_a_table_ends_is_asked_once(form: ModuleType) -> None:
    waiting, lmdb_ = form.WaitingRows(1), Lmdb(1)
    lmdb_.tables[0][b"m"] = b""
    for keys in ([b"z", b"b", b"x"], [b"y", b"zz"], [b"a"]):
        waiting.tables[0].update(dict.fromkeys(keys, b"1"))
        write(waiting, lmdb_)
    assert lmdb_.appended == [b"x", b"z", b"zz"]
    assert lmdb_.looks == 1


@form
@pytest.mark.parametrize("how", ["clear", "clear_table", "take"])
def test_where_a_table_ends_is_asked_again_after_what_was_not_written_here(
    form: ModuleType, how: str
) -> None:
    waiting, lmdb_ = form.WaitingRows(1), Lmdb(1)
    waiting.tables[0][b"z"] = b"1"
    write(waiting, lmdb_)
    waiting.tables[0][b"c"] = b"1"
    if how == "take":
        assert waiting.take(0) == {b"c": b"1"}
    elif how == "clear":
        waiting.clear()
    else:
        waiting.clear_table(0)
    assert not waiting.is_any()
    lmdb_.tables[0].clear()
    waiting.tables[0][b"d"] = b"1"
    write(waiting, lmdb_)
    assert lmdb_.appended == [b"z", b"d"]


@form
def test_a_key_that_is_there_against_expectation_is_overwritten(form: ModuleType) -> None:
    waiting, lmdb_ = form.WaitingRows(1), Lmdb(1)
    waiting.tables[0][b"a"] = b"1"
    write(waiting, lmdb_)
    lmdb_.tables[0][b"b"] = b"from elsewhere"
    waiting.tables[0][b"b"] = b"2"
    write(waiting, lmdb_)
    assert lmdb_.tables[0] == {b"a": b"1", b"b": b"2"}


def test_lmdb_has_what_was_committed_whether_few_rows_or_many_and_nothing_of_what_was_aborted(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    env = lmdb.open(str(tmp_path), max_dbs=MAX_DATABASES, map_size=1 << 24, sync=False)
    tables = open_tables(env, create=True)
    storage = LmdbStorage(tables)
    expected: dict[bytes, bytes] = {}
    for _ in range(150):
        aborted = chance.random() < 0.2
        before = dict(expected)
        for _ in range(chance.choice((1, 3, MANY_ROWS + 20))):
            key = chance.randrange(1, 500).to_bytes(2, "big")
            if chance.random() < 0.2:
                storage.delete(Table.ROWS, key)
                expected.pop(key, None)
            else:
                expected[key] = chance.randbytes(9)
                storage.put_rows(Table.ROWS, {key: expected[key]})
            if chance.random() < 0.05:
                assert dict(storage.scan(Table.ROWS, b"", b"\xff" * 3)) == expected
        if aborted:
            storage.abort()
            expected = before
        else:
            storage.commit()
        with env.begin(db=tables.rows[Table.ROWS]) as txn:
            assert dict(txn.cursor()) == expected
    env.close()
