"""The entity store against a plain dict: pages, rows over them, folding, the index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rateway.cache import kinds, pages
from rateway.cache.entity_store import EntityStore, EntityStoreReader
from rateway.cache.kinds import Kind
from rateway.cache.storage import MemoryStorage, Storage, Table
from rateway.native.objects import find
from rateway.transports.store.tables import LmdbStorage, open_tables

IDS = st.integers(1, 60).map(lambda number: number << 50)
RAW = st.binary(max_size=12).map(lambda data: b'{"v":"%b"}' % data.hex().encode())
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, RAW),
        st.tuples(st.just("replace"), IDS, RAW),
        st.tuples(st.just("remove"), IDS, st.just(b"")),
        st.tuples(st.just("load"), st.lists(st.tuples(IDS, RAW), max_size=40), st.just(b"")),
        st.tuples(st.just("remove_many"), st.lists(IDS, max_size=20), st.just(b"")),
        st.tuples(st.just("index"), st.just(0), st.just(b"")),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lmdb.Environment]:
    folder: Path = tmp_path_factory.mktemp("lmdb")
    env = lmdb.open(str(folder), map_size=1 << 28, max_dbs=16, sync=False)
    yield env
    env.close()


def walk_through(storage: Storage, kind: Kind, steps: list[tuple[str, object, bytes]]) -> None:
    counts: dict[int, int] = {}
    tested, model = EntityStore(storage, counts), dict[int, bytes]()
    for name, what, raw in steps:
        if name == "put" and isinstance(what, int):
            new = tested.put(7, kind, what, raw)
            assert kind in kinds.OWN_TABLES or new is (what not in model)
            model[what] = raw
        elif name == "replace" and isinstance(what, int) and what in model:
            tested.replace(7, kind, what, raw)
            model[what] = raw
        elif name == "remove" and isinstance(what, int):
            was, known = tested.remove(7, kind, what), model.pop(what, None)
            assert kind in kinds.OWN_TABLES or was == known
        elif name == "load" and isinstance(what, list):
            tested.load(7, kind, [item[0] for item in what], [item[1] for item in what])
            model = dict(what)
        elif name == "remove_many" and isinstance(what, list) and kind is Kind.MEMBER:
            tested.remove_many(7, kind, what)
            model = {key: value for key, value in model.items() if key not in what}
        elif name == "index":
            tested.index_pending()
        assert dict(tested.walk(7, kind)) == model
    assert list(tested.walk(7, kind)) == sorted(model.items())
    table = kinds.OWN_TABLES.get(kind)
    assert (counts.get(kind, 0) if table is None else storage.entries(table)) == len(model)
    for entity_id in (number << 50 for number in range(1, 61)):
        assert tested.get(7, kind, entity_id) == model.get(entity_id)
        if kind in kinds.INDEXED:
            assert tested.homes(kind, entity_id) == ([7] if entity_id in model else [])
    after = 30 << 50
    assert list(tested.walk(7, kind, after)) == sorted(item for item in model.items() if item[0] > after)


@settings(max_examples=150)
@given(STEPS, st.sampled_from([Kind.MEMBER, Kind.CHANNEL, Kind.PRESENCE, Kind.VOICE_STATE]))
def test_a_store_in_memory_holds_what_a_dict_would(
    steps: list[tuple[str, object, bytes]], kind: Kind
) -> None:
    storage = MemoryStorage()
    walk_through(storage, kind, steps)
    EntityStore(storage, {kind: 0}).wipe(7, kind)
    assert not any(
        storage.tables[table]
        for table in (Table.ROWS, Table.PRESENCES, Table.VOICE_STATES, Table.PAGES, Table.PENDING)
    )
    assert not any(storage.pairs.values())


@settings(max_examples=60)
@given(steps=STEPS, kind=st.sampled_from([Kind.MEMBER, Kind.CHANNEL, Kind.PRESENCE, Kind.VOICE_STATE]))
def test_an_entity_store_in_lmdb_holds_what_a_dict_would(
    environment: lmdb.Environment, steps: list[tuple[str, object, bytes]], kind: Kind
) -> None:
    storage = LmdbStorage(open_tables(environment, create=True))
    try:
        walk_through(storage, kind, steps)
    finally:
        storage.abort()


GUILDS = st.integers(1, 4)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("load"), GUILDS, st.lists(IDS, max_size=12, unique=True)),
        st.tuples(st.just("put"), GUILDS, st.lists(IDS, min_size=1, max_size=1)),
        st.tuples(st.just("remove"), GUILDS, st.lists(IDS, min_size=1, max_size=1)),
        st.tuples(st.just("wipe"), GUILDS, st.just([])),
        st.tuples(st.just("index"), st.integers(1, 9), st.just([])),
        st.tuples(st.just("look"), GUILDS, st.lists(IDS, min_size=1, max_size=3)),
        st.tuples(st.just("open again"), GUILDS, st.just([])),
    ),
    max_size=25,
)


def move_in(storage: Storage, moves: list[tuple[str, int, list[int]]]) -> None:
    counts: dict[int, int] = {}
    tested, model = EntityStore(storage, counts), {number: set[int]() for number in range(1, 5)}

    def homes(entity_id: int) -> list[int]:
        return [number for number, ids in model.items() if entity_id in ids]

    for name, number, ids in moves:
        if name == "load":
            tested.load(number, Kind.MEMBER, ids, [b'{"v":1}'] * len(ids))
            model[number] = set(ids)
        elif name == "put":
            tested.put(number, Kind.MEMBER, ids[0], b'{"v":2}')
            model[number].add(ids[0])
        elif name == "remove":
            tested.remove(number, Kind.MEMBER, ids[0])
            model[number].discard(ids[0])
        elif name == "wipe":
            tested.wipe(number, Kind.MEMBER)
            model[number].clear()
        elif name == "index":
            tested.index_pending(number)
        elif name == "look":
            for entity_id in ids:
                assert sorted(tested.homes(Kind.MEMBER, entity_id)) == homes(entity_id)
        else:
            tested = EntityStore(storage, counts)
    # A reader, who finds what waits by itself, says the same as the writer.
    for store_now in (EntityStoreReader(storage), tested):
        for entity_id in (number << 50 for number in range(1, 61)):
            assert sorted(store_now.homes(Kind.MEMBER, entity_id)) == homes(entity_id)
    tested.index_pending()
    assert not tested.untidy
    assert all(
        sorted(storage.homes(Kind.MEMBER, number << 50)) == homes(number << 50) for number in range(1, 61)
    )


@settings(max_examples=150)
@given(MOVES)
@example([("load", 1, [1 << 50]), ("load", 2, [1 << 50])])
def test_an_entity_is_found_in_every_guild_that_has_it_however_far_the_index_is(
    moves: list[tuple[str, int, list[int]]],
) -> None:
    move_in(MemoryStorage(), moves)


@settings(max_examples=50)
@given(moves=MOVES)
def test_an_entity_is_found_in_lmdb_as_well(
    environment: lmdb.Environment, moves: list[tuple[str, int, list[int]]]
) -> None:
    storage = LmdbStorage(open_tables(environment, create=True))
    try:
        move_in(storage, moves)
    finally:
        storage.abort()


def test_what_was_committed_is_there_and_what_was_aborted_is_not(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path), map_size=1 << 24, max_dbs=16, sync=False)
    storage = LmdbStorage(open_tables(env, create=True))
    storage.put(Table.META, b"a", b"1")
    storage.commit()
    storage.put(Table.META, b"a", b"2")
    storage.delete(Table.META, b"b")
    assert storage.get(Table.META, b"a") == b"2"
    storage.abort()
    assert storage.get(Table.META, b"a") == b"1"
    storage.abort()
    env.close()


@given(st.lists(st.tuples(st.integers(0, 2**63), RAW), max_size=40, unique_by=lambda item: item[0]))
def test_pages_give_back_every_byte(items: list[tuple[int, bytes]]) -> None:
    ordered = sorted(items)
    packed = pages.pack([item[0] for item in ordered], [item[1] for item in ordered])
    texts = [pages.unpack(page) for _, page in packed]
    assert [item for text in texts for item in pages.split(text)] == ordered
    assert [last for last, _ in packed] == [pages.split(text)[-1][0] for text in texts]
    for entity_id, raw in ordered:
        assert raw in [find(text, entity_id) for text in texts]
    assert all(find(text, (1 << 64) - 1) is None for text in texts)


def test_objects_that_hardly_compress_get_smaller_pages() -> None:
    import random

    noise = random.Random(3)
    items = [(number, b'{"v":"%b"}' % noise.randbytes(600).hex().encode()) for number in range(20)]
    packed = pages.pack([item[0] for item in items], [item[1] for item in items])
    assert all(len(page) <= pages.PAGE_BYTES for _, page in packed)
    assert len(packed) > 20 / pages.PAGE_ITEMS


@given(st.binary(max_size=600))
def test_a_shrunken_object_comes_back_whole(data: bytes) -> None:
    raw = b'{"v":"%b"}' % data.hex().encode()
    assert pages.unshrink(pages.shrink(raw)) == raw


def test_who_leaves_a_guild_moves_that_guilds_ids_alone_into_the_index() -> None:
    storage = MemoryStorage()
    tested = EntityStore(storage, {})
    for number in (1, 2, 3):
        tested.load(number, Kind.MEMBER, [10, 20 + number], [b"{}", b"{}"])
    tested.remove(2, Kind.MEMBER, 10)
    waiting = [int.from_bytes(key[1:], "big") for key, _ in storage.scan(Table.PENDING, b"", b"\xff")]
    assert waiting == [1, 3]
    assert storage.homes(Kind.MEMBER, 22) == [2] and storage.homes(Kind.MEMBER, 21) == []
    for store_now in (tested, EntityStoreReader(storage), EntityStore(storage, {})):
        assert sorted(store_now.homes(Kind.MEMBER, 10)) == [1, 3]
        assert store_now.homes(Kind.MEMBER, 22) == [2]
    tested.wipe(1, Kind.MEMBER)
    tested.index_pending()
    assert not tested.untidy and tested.homes(Kind.MEMBER, 10) == [3]
