"""A store whose file was copied in part: recognised before it is mapped, thrown away with words."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.cache.policy import KINDS, CachePolicy
from rateway.transports.store import Queries, Store, StoreFault, StoreReader, read_sessions
from rateway.transports.store.cut import is_cut
from tests.cache.scene import BOT, GUILD, guild, member, user
from tests.cache.world_feed import encode

WALL = 1_800_000_000.0
PAGE = 4096
READ_ALL = """
import sys, lmdb
env = lmdb.open(sys.argv[1], map_size=1 << 30, max_dbs=4, readonly=True)
with env.begin() as txn:
    for name, several in ((b"rows", False), (b"homes", True)):
        for key, value in txn.cursor(env.open_db(name, txn, dupsort=several, create=False)):
            assert len(bytes(value))
"""


def opened(path: Path) -> Store | StoreFault:
    return Store.open(path, cluster=1, policy=CachePolicy(kinds=KINDS), wall=WALL, boot_id="boot")


def filled(path: Path, guilds: int = 40) -> None:
    store = opened(path)
    assert isinstance(store, Store)
    ready = {"user": user(BOT), "guilds": [], "session_id": "one", "shard": [0, 1]}
    store.apply(0, 1, "READY", encode(ready))
    for number in range(guilds):
        members = [member(((number << 10) + each) << 22, f"user {each}") for each in range(60)]
        store.apply(0, number + 2, "GUILD_CREATE", encode(guild(GUILD + number, members=members)))
        store.commit()
    store.close()


def cut(path: Path, pages: int) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.truncate(pages * PAGE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store"
    filled(path)
    return path


@pytest.mark.checklist("K57")
def test_a_whole_store_is_not_cut(whole: Path) -> None:
    assert not is_cut(whole / "data.mdb")


@pytest.mark.checklist("K57")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_store_cut_to_whole_pages_is_thrown_away_with_words(
    whole: Path, tmp_path: Path, share: float
) -> None:
    path = tmp_path / "store"
    shutil.copytree(whole, path)
    cut(path, max(2, int((path / "data.mdb").stat().st_size // PAGE * share)))
    assert is_cut(path / "data.mdb")
    # Nobody maps it: neither who reads the sessions of a store that cannot be written, nor another process's reader.
    assert read_sessions(path, cluster=1, boot_id="boot") == []
    reader = StoreReader.open(path)
    assert isinstance(reader, StoreFault) and "copied in part" in reader.words
    store = opened(path)
    assert isinstance(store, Store)
    (words,) = store.words
    assert "thrown away" in words and "ends before its pages do" in words
    assert store.sessions() == [] and store.applied(0) == 0
    Queries({1: store.reader()}, CachePolicy(kinds=KINDS)).moment().close()
    store.close()
    again = opened(path)
    assert isinstance(again, Store) and again.words == ()
    again.close()


@pytest.mark.checklist("K57")
@pytest.mark.parametrize("content", [b"", b"x", b"\0" * PAGE, b"\xff" * 3 * PAGE])
def test_what_is_no_store_is_left_to_lmdb(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.mdb"
    file.write_bytes(content)
    assert not is_cut(file)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 16), st.floats(0, 1))
def test_a_file_of_any_length_is_called_cut_when_reading_it_would_end_the_process(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float
) -> None:
    """Overflow pages, branches, sorted duplicates, free pages: whatever LMDB writes."""
    path, chance = tmp_path_factory.mktemp("any"), random.Random(seed)
    env = lmdb.open(str(path), map_size=1 << 30, max_dbs=4)
    rows, homes = env.open_db(b"rows"), env.open_db(b"homes", dupsort=True)
    for _ in range(chance.randrange(1, 8)):
        with env.begin(write=True) as txn:
            for number in range(200):
                txn.put(chance.randbytes(8), chance.randbytes(chance.choice((10, 900, 5_000))), db=rows)
                txn.put(b"%d" % (number % 3), chance.randbytes(12), db=homes)
            keys = list(txn.cursor(rows).iternext(values=False))
            for key in chance.sample(keys, len(keys) // 3):
                txn.delete(key, db=rows)
    env.close()
    file = path / "data.mdb"
    pages = file.stat().st_size // PAGE
    assert not is_cut(file)
    cut(path, max(2, int(pages * share)))
    read = subprocess.run([sys.executable, "-c", READ_ALL, str(path)], capture_output=True)
    assert read.returncode in (0, -7), read.stderr
    assert is_cut(file) or read.returncode == 0
