"""A cache that goes from one store to another one, or begins empty there."""

from __future__ import annotations

from pathlib import Path

import lmdb
import msgspec
import pytest
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.query_context import Situation
from rateway.cache.storage import Table
from rateway.transports.store import Answer, Queries, SnapshotHead, Store, opening
from rateway.transports.store.snapshot import SnapshotEnd, why_not
from rateway.transports.store.tables import MAX_DATABASES, open_tables
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.queries import Query
from tests.cache.scene import GUILD, guild
from tests.cache.world_feed import differences, encode, expected, state, stream
from tests.transports.test_store import begin, opened, record


@pytest.fixture(autouse=True, params=["writable map", "written pages"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds whichever way LMDB writes."""
    chosen = str(request.param)
    monkeypatch.setattr(opening, "reserves", lambda folder: chosen == "writable map")
    return chosen


Rows = dict[str, list[tuple[bytes, bytes]]]


def rows_in(path: Path) -> Rows:
    """All rows of the tables of a closed store, and of its index; not the file's own mark."""
    with lmdb.open(str(path), readonly=True, lock=False, max_dbs=MAX_DATABASES) as env:
        tables = open_tables(env, create=False)
        found: Rows = {}
        with env.begin() as txn:
            for table in Table:
                cursor = txn.cursor(tables.rows[table])
                found[table.name] = [(bytes(key), bytes(value)) for key, value in cursor]
            found["HOMES"] = [(bytes(key), bytes(value)) for key, value in txn.cursor(tables.pairs)]
        found["META"] = [row for row in found["META"] if row[0] != b"mark"]
    return found


WORLD, EVENTS = stream(31, 3_000, guilds=4, members_per_guild=30)
LATER = 2_500


def take(store: Store, events: list[tuple[int, str, bytes]]) -> None:
    for number, (seq, name, d) in enumerate(events, 1):
        store.apply(0, seq, name, d)
        if number % 100 == 0:
            store.commit()
    assert store.commit() is None


def a_world(store: Store) -> None:
    take(store, EVENTS[:LATER])
    store.put_session(record())
    assert store.commit() is None


def moved(source: Store, target: Store, *, lose: int | None = None) -> str:
    """Load the cache of one store into another; leave out one of its pieces if told so. Why it failed."""
    snapshot = source.snapshot()
    try:
        loader = target.load(snapshot.head)
        for number, piece in enumerate(snapshot.pieces()):
            if number != lose and (why := loader.take(piece)):
                return why
        why = loader.end(snapshot.end())
        if not why:
            target.finish_loading()
        return why
    finally:
        snapshot.close()


def test_a_store_that_has_loaded_a_snapshot_has_the_same_rows(tmp_path: Path) -> None:
    source, target = opened(tmp_path / "a"), opened(tmp_path / "b")
    a_world(source)
    begin(target, 0, "old", encode(guild(GUILD + (1 << 22), name="old")))
    assert target.commit() is None
    assert moved(source, target) == ""
    (position,) = _head(source).positions
    assert (position.shard_id, position.applied) == (0, source.applied(0)) == (0, target.applied(0))
    for store in (source, target):
        store.close()
    found, wanted = rows_in(tmp_path / "b"), rows_in(tmp_path / "a")
    # Sessions are told by the fleet's record.
    assert (len(wanted.pop("SESSIONS")), found.pop("SESSIONS")) == (1, [])
    assert found == wanted


def test_a_store_that_has_loaded_a_snapshot_goes_on_with_the_events_that_come_next(tmp_path: Path) -> None:
    policy = CachePolicy(kinds=KINDS, messages_per_channel=20)
    source, target = (opened(tmp_path / name, policy=policy) for name in "ab")
    a_world(source)
    assert moved(source, target) == ""
    # Some of them again, as a resume brings them.
    take(target, EVENTS[LATER - 300 :])
    with target.reader().view() as view:
        assert differences(state(view), expected(WORLD)) == []


def _head(store: Store) -> SnapshotHead:
    snapshot = store.snapshot()
    snapshot.close()
    return snapshot.head


def test_a_snapshot_is_of_one_moment_however_long_it_takes(tmp_path: Path) -> None:
    source, target = opened(tmp_path / "a"), opened(tmp_path / "b")
    a_world(source)
    snapshot = source.snapshot()
    loader = target.load(snapshot.head)
    at = source.applied(0)
    for piece in snapshot.pieces():
        at += 1
        source.apply(0, at, "GUILD_CREATE", encode(guild(GUILD + (at << 22))))
        assert source.commit() is None
        assert loader.take(piece) == ""
    assert loader.end(snapshot.end()) == ""
    snapshot.close()
    assert target.applied(0) == snapshot.head.positions[0].applied < source.applied(0)


def test_a_snapshot_that_is_not_whole_or_no_snapshot_is_refused(tmp_path: Path) -> None:
    source, target = opened(tmp_path / "a"), opened(tmp_path / "b")
    a_world(source)
    assert "not whole" in moved(source, target, lose=0)
    head = _head(source)
    for odd in (b"", b"odd", b"\x28\xb5\x2f\xfd\x00"):
        assert "cannot be read" in target.load(head).take(odd)
    assert "not whole" in target.load(head).end(SnapshotEnd(1, b""))
    assert why_not(head, 1) == ""
    assert "of cluster 1" in why_not(head, 2)
    assert "format" in why_not(msgspec.structs.replace(head, format="rateway 0"), 1)
    # It begins empty after that, and is a store as any other.
    assert target.begin_cold({0: "two"}) is None
    begin(target, 0, "two", encode(guild()))
    assert target.commit() is None


def test_a_snapshot_of_a_gateway_that_keeps_more_is_taken_as_far_as_this_one_keeps_it(tmp_path: Path) -> None:
    source = opened(tmp_path / "a")
    target = opened(tmp_path / "b", policy=CachePolicy(kinds=KINDS - {"roles"}))
    begin(source, 0, "one", encode(guild(roles=[{"id": "40", "permissions": "0"}])))
    assert source.commit() is None
    assert moved(source, target) == ""
    assert any("keeps no roles" in line for line in target.take_lines())
    target.close()
    again = opened(tmp_path / "b", policy=CachePolicy(kinds=KINDS))
    assert any("roles" in line and "incomplete" in line for line in again.words)


def test_a_store_that_begins_cold_keeps_nothing_and_says_so_over_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    a_world(store)
    assert store.begin_cold({0: "two", 3: "three"}) is None
    store.close()
    rows = rows_in(tmp_path)
    assert {name for name, each in rows.items() if each} == {"META", "SESSIONS", "APPLIED"}
    again = opened(tmp_path)
    queries = Queries({1: again.reader()}, again.policy, lambda: Situation(8, 8, (1,)))
    found = queries.answer(Query("Guild", (GUILD,)))
    assert isinstance(found, Fault) and found.code is ErrorCode.INCOMPLETE
    begin(again, 0, "two")
    assert again.commit() is None
    found = queries.answer(Query("Guild", (8 << 22,)))
    assert isinstance(found, Answer) and not found.body
    found = queries.answer(Query("Guild", (3 << 22,)))
    assert isinstance(found, Fault) and found.code is ErrorCode.INCOMPLETE


def test_a_snapshot_names_the_events_that_changed_nothing_too(tmp_path: Path) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    store.apply(0, 9, "INTERACTION_CREATE", b"{}")
    assert [each.applied for each in _head(store).positions] == [9]
