"""A cluster's store: what survives, what is thrown away, what is said, and what others see."""

from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lmdb
import msgspec
import pytest
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.query_context import Situation
from rateway.cache.reducers import REDUCERS
from rateway.cache.storage import Table
from rateway.native.objects import COMPILED, CacheFastPath, plain
from rateway.transports.store import (
    Answer,
    LongAnswer,
    Queries,
    SessionRecord,
    Store,
    StoreFault,
    StoreReader,
    StoreUnreadable,
    opening,
    read_sessions,
)
from rateway.transports.store.tables import MAX_DATABASES, LmdbStorage, open_tables
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.queries import MembersWanted, Query, SnapshotFor
from rateway_protocol.discord import intents
from tests.cache.scene import BOT, GUILD, channel, guild, member, thread, user
from tests.cache.world_feed import differences, encode, expected, state, stream

WALL = 1_800_000_000.0
ANN = 11 << 40


# What a store takes its cache's fast path from.
FAST_PATH = "rateway.transports.store.writer.CacheFastPath"
# How LMDB writes, in the processes that tests start as well.
WAY = "TEST_STORE_WAY"


def go(way: str) -> None:
    opening.reserves = lambda folder: way == "writable map"  # type: ignore[attr-defined]  # for opening alone


if WAY in os.environ:
    go(os.environ[WAY])


@pytest.fixture(autouse=True, params=["writable map", "written pages"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds whichever way LMDB writes."""
    chosen = str(request.param)
    monkeypatch.setenv(WAY, chosen)
    monkeypatch.setattr(opening, "reserves", lambda folder: chosen == "writable map")
    return chosen


def opened(path: Path, **options: object) -> Store:
    settings: dict[str, object] = {
        "cluster": 1,
        "policy": CachePolicy(kinds=KINDS),
        "wall": WALL,
        "boot_id": "boot 1",
    }
    store = Store.open(path, **{**settings, **options})  # type: ignore[arg-type]  # options of the same types
    assert isinstance(store, Store), store
    return store


def left_open() -> None:
    """Let the stores that no name refers to any more end as in a killed process: not closed in order."""
    gc.collect()


def record(shard_id: int = 0, session_id: str = "one", **fields: object) -> SessionRecord:
    plain = SessionRecord(
        shard_id=shard_id, shard_count=8, session_id=session_id, resume_url="wss://example.invalid", settled=3,
        intents=1, token_hash="hash", wall=WALL,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


def begin(store: Store, shard_id: int = 0, session_id: str = "one", *guilds: bytes) -> None:
    ready = {"user": user(BOT), "guilds": [], "session_id": session_id, "shard": [shard_id, 8]}
    store.apply(shard_id, 1, "READY", encode(ready))
    for number, d in enumerate(guilds, 2):
        store.apply(shard_id, number, "GUILD_CREATE", d)


def name_of(reader: StoreReader) -> str | None:
    with reader.view() as view:
        found = view.guild(GUILD)
        return msgspec.json.decode(found["name"]) if found is not None and "name" in found else None


def test_sessions_and_cache_survive_a_close(tmp_path: Path) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    store.put_session(record(pending_gap=b"{}", pending_left=(("old", 5),)))
    store.put_session(record(7, "seven"))
    assert store.commit() is None
    store.drop_session(7)
    store.close()
    again = opened(tmp_path, boot_id="boot 2")  # closed in order: another boot is no matter
    assert again.words == ()
    assert again.sessions() == [record(applied=2, pending_gap=b"{}", pending_left=(("old", 5),))]
    assert again.applied(0) == 2
    assert name_of(again.reader()) == "guild"
    again.close()


def test_a_killed_process_loses_only_what_was_not_committed(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.transports.test_store import *
store = opened(Path({str(tmp_path)!r}))
begin(store, 0, "one", encode(guild()))
store.put_session(record())
store.commit()
store.apply(0, 3, "GUILD_UPDATE", encode({{"id": str(GUILD), "name": "never committed"}}))
store.put_session(record(settled=99))
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", script], check=False, cwd=os.getcwd())
    assert died.returncode == -9
    store = opened(tmp_path)
    assert store.words == ()
    assert store.sessions() == [record(applied=2)]
    assert name_of(store.reader()) == "guild"
    store.close()


@pytest.mark.parametrize("ended", ["in order", "killed"])
def test_a_store_that_cannot_be_written_still_tells_its_sessions(tmp_path: Path, ended: str) -> None:
    path = tmp_path / "store"
    assert read_sessions(path, cluster=1) == []
    store = opened(path, map_size=1 << 24)
    begin(store, 0, "one", encode(guild()))
    store.put_session(record())
    store.commit()
    if ended == "killed":
        # The files as a killed process leaves them.
        path = Path(shutil.copytree(path, tmp_path / "as left"))
    store.close()
    # Nobody can open this one for writing, root neither.
    (path / "lock.mdb").unlink()
    (path / "lock.mdb").mkdir()
    before = (path / "data.mdb").read_bytes()
    assert isinstance(
        Store.open(path, cluster=1, policy=CachePolicy(), wall=WALL, boot_id="boot 1"), StoreFault
    )
    assert read_sessions(path, cluster=1, boot_id="boot 1") == [record()]
    assert (path / "data.mdb").read_bytes() == before
    (path / "lock.mdb").rmdir()
    again = opened(path)
    assert again.sessions() == [record(applied=2)]
    again.close()


def test_a_store_that_events_passed_by_counts_from_where_its_shards_are_and_says_what_it_lacks(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    begin(store, 1, "two")
    store.commit()
    store.take_over({0: "three", 1: "two"})
    store.put_session(record(0, "three"))
    assert store.commit() is None
    assert (store.applied(0), store.applied(1)) == (0, 1)
    store.apply(0, 2, "GUILD_UPDATE", encode({"id": str(GUILD), "name": "later"}))
    assert store.commit() is None
    assert store.applied(0) == 2 and name_of(store.reader()) == "later"
    with store.reader().view() as view:
        assert view.incomplete_since("channels") and view.incomplete_since("members")
        assert not view.is_complete("channels")
    store.close()


@pytest.mark.parametrize("change", ["boot", "format", "cluster", "torn mark", "torn file", "foreign"])
def test_a_store_that_cannot_be_trusted_is_thrown_away_with_a_word(tmp_path: Path, change: str) -> None:
    path = tmp_path / "store"
    store = opened(path)
    begin(store, 0, "one", encode(guild()))
    store.put_session(record())
    store.commit()
    if change == "foreign":
        store.close()
        (path / "data.mdb").unlink()
        with lmdb.open(str(path), max_dbs=4) as env, env.begin(write=True) as txn:
            txn.put(b"some", b"thing")
    elif change == "torn file":
        store.close()
        size = (path / "data.mdb").stat().st_size
        with (path / "data.mdb").open("r+b") as file:
            file.write(os.urandom(8192))
            file.truncate(size)
    else:
        mark = {"boot": b'"boot 1"', "format": b'"rateway 2', "cluster": b'"cluster": 1', "torn mark": b"{"}[
            change
        ]
        new = {"boot": b'"boot 0"', "format": b'"rateway 0', "cluster": b'"cluster": 2', "torn mark": b"!"}[
            change
        ]
        del store
        left_open()
        with lmdb.open(str(path), max_dbs=MAX_DATABASES) as env:
            rows = open_tables(env, create=False).rows[0]
            with env.begin(write=True) as txn:
                raw = bytes(txn.get(b"mark", db=rows) or b"")
                assert mark in raw
                txn.put(b"mark", raw.replace(mark, new), db=rows)
    assert read_sessions(path, cluster=1, boot_id="boot 1") == []
    again = opened(path)
    assert len(again.words) == 1 and "thrown away" in again.words[0]
    assert again.sessions() == [] and name_of(again.reader()) is None
    again.close()


def test_a_new_session_counts_from_the_beginning_and_an_old_one_goes_on(tmp_path: Path) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    begin(store, 0, "two")
    assert store.applied(0) == 1
    store.put_session(record(session_id="one"))  # READY of the second was never confirmed
    store.close()
    again = opened(tmp_path)
    assert [found.applied for found in again.sessions()] == [0]
    again.close()


@pytest.mark.checklist("H20")
def test_cache_and_sequence_are_one_transaction(tmp_path: Path) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild(member_count=1)))
    store.put_session(record())
    store.commit()
    added = encode({"guild_id": str(GUILD), **member(ANN)})
    store.apply(0, 3, "GUILD_MEMBER_ADD", added)
    store.close()
    again = opened(tmp_path)
    again.sessions()
    for _ in range(3):
        again.apply(0, 3, "GUILD_MEMBER_ADD", added)
    again.commit()
    with again.reader().view() as view:
        row = view.guild_row(GUILD)
        assert row is not None and row.member_count == 2
    again.close()


def test_with_the_cache_off_sessions_are_kept_all_the_same(tmp_path: Path) -> None:
    store = opened(tmp_path, policy=CachePolicy(enabled=False))
    begin(store, 0, "one", encode(guild()))
    assert store.apply(0, 2, "GUILD_CREATE", encode(guild())) is None
    store.put_session(record(applied=2))
    store.close()
    again = opened(tmp_path, policy=CachePolicy(enabled=False))
    assert again.sessions() == [record(applied=2)]
    assert name_of(again.reader()) is None
    again.close()


def test_others_see_all_of_a_commit_or_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    reader = store.reader()
    begin(store, 0, "one", encode(guild()))
    assert name_of(reader) is None
    store.commit()
    assert name_of(reader) == "guild"
    with reader.view() as before:
        store.apply(0, 3, "GUILD_UPDATE", encode({"id": str(GUILD), "name": "renamed"}))
        store.commit()
        found = before.guild(GUILD)
        assert found is not None and bytes(found["name"]) == b'"guild"'
    assert name_of(reader) == "renamed"
    store.close()


def test_another_process_reads_while_this_one_writes_and_follows_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.transports.test_store import *
reader = StoreReader.open(Path({str(path)!r}))
for line in sys.stdin:
    print(name_of(reader), flush=True)
"""
    store = opened(path)
    begin(store, 0, "one", encode(guild()))
    store.commit()
    other = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )

    def ask() -> str:
        assert other.stdin is not None and other.stdout is not None
        print(file=other.stdin, flush=True)
        return other.stdout.readline().strip()

    try:
        assert ask() == "guild"
        store.apply(0, 3, "GUILD_UPDATE", encode({"id": str(GUILD), "name": "renamed"}))
        store.commit()
        assert ask() == "renamed"
        del store
        left_open()
        store = opened(path, boot_id="boot 2")  # thrown away and made anew
        assert len(store.words) == 1
        assert ask() == "None"
        begin(store, 0, "two", encode(guild(name="new")))
        store.commit()
        assert ask() == "new"
    finally:
        other.communicate(timeout=60)
    store.close()


def test_a_full_store_is_a_fault_and_no_exception_and_what_was_lost_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[opening.Opened] = []

    def recorded(*path: Path, **options: Any) -> opening.Opened | StoreFault:
        found = opening.open_for_writing(*path, **options)
        made.extend([found] if isinstance(found, opening.Opened) else [])
        return found

    monkeypatch.setattr("rateway.transports.store.writer.open_for_writing", recorded)
    store = opened(tmp_path, map_size=1 << 18)
    begin(store, 0, "one", encode(guild()))
    assert store.commit() is None
    seq, fault = 2, None
    while fault is None and seq < 2000:
        seq += 1
        noise = os.urandom(300).hex()
        store.apply(0, seq, "CHANNEL_CREATE", encode({"guild_id": str(GUILD), **channel(seq, topic=noise)}))
        fault = store.commit()
    assert isinstance(fault, StoreFault) and fault.full and store.fault == fault
    queries = Queries({1: store.reader()}, store.policy)
    assert name_of(store.reader()) == "guild"
    made[-1].tables.env.set_mapsize(1 << 24)
    assert store.apply(0, seq + 1, "GUILD_UPDATE", encode({"id": str(GUILD), "name": "x"})) is None
    assert store.commit() is None
    assert name_of(store.reader()) == "x"
    answer = queries.answer(Query("GuildChannels", (GUILD,), limit=5))
    assert getattr(answer, "code", None) == "incomplete"
    store.apply(0, seq + 2, "GUILD_CREATE", encode(guild(channels=[channel(5)])))
    store.commit()
    answer = queries.answer(Query("GuildChannels", (GUILD,), limit=5))
    assert getattr(answer, "status", None) == "ok"
    store.close()


def readers_of(path: Path) -> list[str]:
    """The read transactions that LMDB knows of, as its own tool lists them."""
    tool = [sys.executable, "-m", "lmdb", "-e", str(path), "readers"]
    told = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    return [] if "no active readers" in told else told.strip().splitlines()[1:]


def test_a_reader_that_was_killed_does_not_keep_pages_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    store.commit()
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.transports.test_store import *
reader = StoreReader.open(Path({str(tmp_path)!r}))
with reader.view() as view:
    view.guild(GUILD)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=os.getcwd()).returncode == -9
    assert len(readers_of(tmp_path)) == 1
    monkeypatch.setattr("rateway.transports.store.writer.READER_CHECK_COMMITS", 1)
    store.apply(0, 3, "GUILD_UPDATE", encode({"id": str(GUILD), "name": "x"}))
    store.commit()
    assert readers_of(tmp_path) == []
    store.close()


def test_a_full_disk_ends_no_process_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    script = f"""
import errno, resource, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from rateway.transports.store import reserve
from rateway.transports.store.reserve import Reserve
from tests.transports.test_store import *

reserve.AGAIN_S = 0.0

def refused(descriptor, start, size):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

store = opened(Path({str(tmp_path)!r}))
begin(store, 0, "one", encode(guild()))
assert store.commit() is None
# What LMDB writes itself meets the one, disk that is allocated for it the other.
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
allocate, os.posix_fallocate = os.posix_fallocate, refused
seq, fault = 2, None
while fault is None and seq < 3000:
    seq += 1
    noise = channel(seq, topic=os.urandom(4000).hex())
    store.apply(0, seq, "CHANNEL_CREATE", encode({{"guild_id": str(GUILD), **noise}}))
    fault = store.commit()
assert fault is not None, seq
assert name_of(store.reader()) == "guild"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
os.posix_fallocate = allocate
store.apply(0, seq + 1, "GUILD_UPDATE", encode({{"id": str(GUILD), "name": "there is room"}}))
assert store.commit() is None
assert name_of(store.reader()) == "there is room"
store.close()
print(fault.words)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=os.getcwd(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "store" in done.stdout


def begun(queries: Queries, query: Query) -> LongAnswer:
    """An answer that is begun and then overtaken: its turn is over."""
    moment = queries.moment()
    long = moment.answer(query)
    moment.close()
    assert isinstance(long, LongAnswer)
    return long


def whole(long: LongAnswer) -> Answer | Fault:
    while (found := long.step()) is None:
        pass
    long.close()
    return found


@pytest.mark.checklist("K16")
def test_a_long_list_is_read_a_little_at_a_time_and_says_so_when_its_guild_has_gone_meanwhile(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    people = [member(number << 30) for number in range(1, 101)]
    begin(store, 0, "one", encode(guild(members=people, member_count=100)))
    store.commit()
    queries = Queries({1: store.reader()}, store.policy)
    query = Query("GuildMembers", (GUILD,), limit=90)
    long, unwanted = begun(queries, query), begun(queries, query)
    unwanted.close()
    waits = 0
    while (found := long.step()) is None:
        waits += 1
    assert waits == 3
    assert isinstance(found, Answer) and found.status == "ok"
    assert len(msgspec.json.decode(found.body)) == 90
    overtaken = begun(queries, query)
    assert overtaken.step() is None
    store.apply(0, 3, "GUILD_DELETE", encode({"id": str(GUILD)}))
    store.commit()
    left = whole(overtaken)
    assert isinstance(left, Answer) and left.status == "not_found"
    store.close()


@pytest.mark.checklist("K16")
@pytest.mark.parametrize("seed", range(6))
def test_a_long_list_in_a_store_that_moves_on_has_each_that_stayed_once_and_in_order(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    store = opened(tmp_path)
    everybody = [number << 30 for number in range(1, 301)]
    there = set(chance.sample(everybody, 200))
    begin(store, 0, "one", encode(guild(members=[member(each) for each in there], member_count=len(there))))
    store.commit()
    queries = Queries({1: store.reader()}, store.policy)
    stayed, ever, seq = set(there), set(there), 10
    long = begun(queries, Query("GuildMembers", (GUILD,), limit=1000))
    while (found := long.step()) is None:
        # More than one in 32 of these changes folds its page, whose bounds move with it.
        for _ in range(chance.randrange(60)):
            seq += 1
            someone = chance.choice(everybody)
            if someone in there and chance.random() < 0.3:
                there.discard(someone)
                stayed.discard(someone)
                gone = {"guild_id": str(GUILD), "user": user(someone)}
                store.apply(0, seq, "GUILD_MEMBER_REMOVE", encode(gone))
                continue
            event = "GUILD_MEMBER_UPDATE" if someone in there else "GUILD_MEMBER_ADD"
            there.add(someone)
            ever.add(someone)
            store.apply(0, seq, event, encode({"guild_id": str(GUILD), **member(someone), "nick": f"n{seq}"}))
        store.commit()
    assert isinstance(found, Answer) and found.status == "ok"
    ids = [int(each["user"]["id"]) for each in msgspec.json.decode(found.body)]
    assert ids == sorted(set(ids)), "each once, ascending"
    assert stayed <= set(ids) <= ever
    store.close()


@pytest.mark.checklist("K16")
def test_lists_that_are_overtaken_hold_no_page_of_the_store_and_no_reader(tmp_path: Path) -> None:
    store = opened(tmp_path)
    people = [member(number << 30) for number in range(1, 101)]
    begin(store, 0, "one", encode(guild(members=people, member_count=100)))
    store.commit()
    reader = store.reader()
    queries = Queries({1: reader}, store.policy)
    # LMDB has room for 512 readers.
    waiting = [begun(queries, Query("GuildMembers", (GUILD,), limit=90)) for _ in range(600)]
    sizes = []
    for seq in range(10, 1_510):
        store.apply(
            0,
            seq,
            "CHANNEL_UPDATE",
            encode({"guild_id": str(GUILD), **channel(1 << 30, topic=str(seq) * 800)}),
        )
        store.commit()
        sizes.append(reader.used_bytes())
    # Each commit frees about as many pages as it takes; with one old reader none of them could be used again.
    assert sizes[-1] - sizes[100] < 256 * 1024
    assert all(isinstance(whole(long), Answer) for long in waiting)
    assert isinstance(queries.answer(Query("Guild", (GUILD,))), Answer)
    store.close()


def test_a_snapshot_that_is_overtaken_is_of_the_moment_that_it_names(tmp_path: Path) -> None:
    store = opened(tmp_path)
    people = [member(number << 30, nick="n") for number in range(1, 401)]
    begin(store, 0, "one", encode(guild(members=people, member_count=400)))
    store.commit()
    reader = store.reader()
    queries = Queries(
        {1: reader}, store.policy, lambda: Situation(shard_count=1, clusters=(1,), intents=intents.ALL)
    )
    asked = (
        Query("GuildSnapshot", (GUILD,), options=SnapshotFor(intents.ALL, 250)),
        Query("MembersMatching", (GUILD,), options=MembersWanted("")),
    )
    for query in asked:
        moment = queries.moment()
        long, neighbour = moment.answer(query), moment.answer(Query("Guild", (GUILD,)))
        moment.close()
        assert isinstance(long, LongAnswer) and isinstance(neighbour, Answer)
        position, seq, taken = store.applied(0), store.applied(0), b""
        while (found := long.step()) is None:
            for _ in range(3):
                seq += 1
                gone = {"guild_id": str(GUILD), "user": user((400 - seq % 400) << 30)}
                store.apply(0, seq, "GUILD_MEMBER_REMOVE", encode(gone))
            store.commit()
            taken += long.take()
        long.close()
        assert isinstance(found, Answer) and seq > position
        told = msgspec.json.decode(taken + found.body)
        assert told["seq"] == position
        members = told["guild"]["members"] if "guild" in told else told["members"]
        assert len(members) == reader_count(reader) + seq - position
    sizes = []
    for at in range(1, 1_001):
        said = {"guild_id": str(GUILD), **channel(1 << 30, topic=str(at) * 800)}
        store.apply(0, seq + at, "CHANNEL_UPDATE", encode(said))
        store.commit()
        sizes.append(reader.used_bytes())
    # What was held is let go of: with one old reader no page that a commit frees could be used again.
    assert sizes[-1] - sizes[100] < 256 * 1024
    store.close()


def reader_count(reader: StoreReader) -> int:
    with reader.view() as view:
        row = view.guild_row(GUILD)
        assert row is not None
        return row.cached_members


@pytest.mark.checklist("K16")
def test_a_store_that_was_made_anew_meanwhile_is_said_and_not_read_as_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = opened(path)
    people = [member(number << 30) for number in range(1, 101)]
    begin(store, 0, "one", encode(guild(members=people, member_count=100)))
    store.commit()
    store.close()
    other = StoreReader.open(path)
    assert isinstance(other, StoreReader)
    queries = Queries({1: other}, CachePolicy())
    long = begun(queries, Query("GuildMembers", (GUILD,), limit=90))
    opened(tmp_path / "anew").close()
    os.replace(tmp_path / "anew" / "data.mdb", path / "data.mdb")
    fault = whole(long)
    assert isinstance(fault, Fault) and fault.code == "unavailable" and "made anew" in fault.message
    other.close()


def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fault = Store.open(tmp_path / "file" / "store", cluster=1, policy=CachePolicy(), wall=WALL)
    assert isinstance(fault, StoreFault) and "cannot be used" in fault.words
    missing = StoreReader.open(tmp_path / "nowhere")
    assert isinstance(missing, StoreFault)


def test_a_reader_without_its_store_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store"
    opened(path).close()
    reader = StoreReader.open(path)
    assert isinstance(reader, StoreReader)
    for file in path.iterdir():
        file.unlink()
    with pytest.raises(StoreUnreadable, match="is not there"), reader.view():
        pass
    answer = Queries({1: reader}, CachePolicy()).answer(Query("CurrentUser", ()))
    assert getattr(answer, "code", None) == "unavailable"
    reader.close()


def test_the_folder_is_only_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "a" / "store"
    store = opened(path)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "data.mdb").stat().st_mode & 0o777 == 0o600
    store.close()


def test_kinds_switched_off_go_and_kinds_switched_on_are_incomplete_until_the_guild_comes_anew(
    tmp_path: Path,
) -> None:
    presence = {"user": {"id": str(ANN)}, "status": "idle", "activities": []}
    whole = encode(guild(channels=[channel(5)], presences=[presence]))
    few = CachePolicy(kinds=frozenset({"channels", "roles"}))
    many = CachePolicy(kinds=frozenset({"roles", "presences"}))
    store = opened(tmp_path, policy=few)
    begin(store, 0, "one", whole)
    store.close()
    store = opened(tmp_path, policy=many)
    assert ["channels" in store.words[0], "presences" in store.words[1]] == [True, True]
    queries = Queries({1: store.reader()}, many)

    def code(kind: str) -> str | None:
        answer = queries.answer(Query(kind, (GUILD,), limit=5))
        return getattr(answer, "code", None)

    assert (code("GuildChannels"), code("GuildPresences"), code("GuildRoles")) == (
        "cache_off",
        "incomplete",
        None,
    )
    with store.reader().view() as view:
        assert list(view.children(1, Kind.CHANNEL)) == []
    store.apply(0, 3, "GUILD_CREATE", whole)
    store.commit()
    assert code("GuildPresences") is None
    store.close()
    store = opened(tmp_path, policy=many)
    assert store.words == ()
    store.close()


def test_guilds_of_another_layout_are_pruned(tmp_path: Path) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild(8 << 22)), encode(guild(9 << 22)))
    assert store.prune(8, range(1)) == 1
    store.commit()
    with store.reader().view() as view:
        assert [guild_id for guild_id, _ in view.guild_rows()] == [8 << 22]
    store.close()


def test_a_mistake_in_a_reducer_stops_nothing_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("a mistake")

    monkeypatch.setitem(cast(Any, REDUCERS), "GUILD_UPDATE", (broken, frozenset()))
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    store.commit()
    assert store.apply(0, 3, "GUILD_UPDATE", b"{}") is None
    assert store.fault is not None and "a mistake" in store.fault.words
    assert store.apply(0, 4, "CHANNEL_CREATE", encode({"guild_id": str(GUILD), **channel(5)})) is None
    assert store.commit() is None
    with store.reader().view() as view:
        assert view.channel(5) is not None
    store.close()


def test_a_long_stream_through_lmdb_ends_in_the_worlds_state(tmp_path: Path) -> None:
    world, events = stream(21, 2500, guilds=3, members_per_guild=30)
    policy = CachePolicy(kinds=KINDS, messages_per_channel=20)
    store = opened(tmp_path, policy=policy)
    for at in range(0, len(events), 61):
        if at % (61 * 7) == 0:
            store.close()
            store = opened(tmp_path, policy=policy)
        for seq, name, d in events[max(0, at - 20) : at + 61]:
            store.apply(0, seq, name, d)
        assert store.commit() is None
    with store.reader().view() as view:
        assert differences(state(view), expected(world)) == []
    store.close()


@pytest.mark.parametrize(
    "policy",
    [
        CachePolicy(),
        CachePolicy(members_from_events=False),
        CachePolicy(activities=False),
        CachePolicy(messages_per_channel=5),
        CachePolicy(before=frozenset({"MESSAGE_DELETE"})),
        CachePolicy(kinds=KINDS - {"presences", "threads"}),
        CachePolicy(kinds=KINDS - {"members"}),
    ],
)
def test_the_fast_path_of_usual_events_does_what_the_general_path_does(
    tmp_path: Path, policy: CachePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, events = stream(22, 3000, guilds=3, members_per_guild=20)
    states: list[Any] = []
    for form in (CacheFastPath, plain.CacheFastPath):
        monkeypatch.setattr(FAST_PATH, form)
        store = opened(tmp_path / str(len(states)), policy=policy)
        for at, (seq, event, d) in enumerate(events):
            store.apply(0, seq, event, d)
            if at % 40 == 0:
                assert store.commit() is None
                store.apply(0, seq, event, d)
        assert store.commit() is None
        assert store.applied(0) == events[-1][0]
        with store.reader().view() as view:
            states.append(state(view))
        store.close()
    assert differences(*states) == []


def test_most_of_a_bots_traffic_takes_the_fast_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, events = stream(23, 3000, guilds=3, members_per_guild=20)
    general: Counter[str] = Counter()

    def counting(take: Callable[..., Any]) -> CacheFastPath:
        def counted(shard_id: int, seq: int, name: str, d: bytes) -> Any:
            general[name] += 1
            return take(shard_id, seq, name, d)

        return CacheFastPath(counted)

    monkeypatch.setattr(FAST_PATH, counting)
    store = opened(tmp_path, policy=CachePolicy())
    for seq, name, d in events:
        store.apply(0, seq, name, d)
    store.close()
    every = Counter(name for _, name, _ in events)
    if COMPILED:
        assert general["PRESENCE_UPDATE"] < 0.5 * every["PRESENCE_UPDATE"]
        assert general["TYPING_START"] < 0.5 * every["TYPING_START"]
        assert general["MESSAGE_CREATE"] < 0.5 * every["MESSAGE_CREATE"]
        assert general["INVITE_CREATE"] == 0 < every["INVITE_CREATE"]
    else:
        assert general == every


TEXT, FORUM, THREAD = 20, 21, 30


def message(message_id: int, channel_id: int, **more: Any) -> bytes:
    """A message of a member whom the guild's snapshot has, as it has her."""
    told: dict[str, Any] = {"id": str(message_id), "channel_id": str(channel_id), "guild_id": str(GUILD)}
    told["author"] = user(ANN)
    told["member"] = {name: value for name, value in member(ANN).items() if name != "user"}
    return encode({name: value for name, value in {**told, **more}.items() if value is not ...})


# Of a webhook, whose author is no user and has no member.
WEBHOOK = {"webhook_id": "5", "author": {"id": "5", "username": "hook"}, "member": ...}


@pytest.mark.parametrize(
    ("said", "usual"),
    [
        # A channel's first message in this process, and its second, in either order.
        ([message(100, TEXT), message(101, TEXT)], True),
        ([message(101, TEXT), message(100, TEXT)], True),
        # A thread counts them, but not the message that began it.
        ([message(100, THREAD), message(101, THREAD), message(99, THREAD)], True),
        ([message(THREAD, THREAD), message(100, THREAD)], True),
        ([message(100, TEXT, **WEBHOOK), message(101, THREAD, **WEBHOOK)], True),
        ([message(100, TEXT, **{**WEBHOOK, "author": ...})], True),
        # What is said of a webhook's member is looked at.
        ([message(100, TEXT, **{**WEBHOOK, "member": 7})], False),
        ([message(100, TEXT, author=user(ANN, "anna"))], False),
        # A channel that the cache does not know, and one of a guild that it does not know.
        ([message(100, 77)], False),
        ([message(100, 77, guild_id="7", **WEBHOOK)], False),
    ],
)
def test_messages_of_people_who_are_known_and_of_webhooks_take_the_fast_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[bytes], usual: bool
) -> None:
    events = [("MESSAGE_CREATE", d) for d in said]
    general = general_of_both_forms(tmp_path, monkeypatch, events, CachePolicy())
    assert general == ([] if usual and COMPILED else ["MESSAGE_CREATE"] * len(said))


def general_of_both_forms(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    events: list[tuple[str, bytes]],
    policy: CachePolicy,
) -> list[str]:
    """Apply events to a store in each form, and make sure that both end alike; those of the compiled form that took the
    general path.
    """
    found: list[Any] = []
    seen: list[list[str]] = []
    for form in (CacheFastPath, plain.CacheFastPath):
        general: list[str] = []
        seen.append(general)

        def counting(
            take: Callable[..., Any], form: Any = form, general: list[str] = general
        ) -> CacheFastPath:
            def counted(*event: Any) -> Any:
                general.append(event[2])
                return take(*event)

            made: CacheFastPath = form(counted)
            return made

        monkeypatch.setattr(FAST_PATH, counting)
        store = opened(tmp_path / str(len(found)), policy=policy)
        channels = [channel(TEXT), channel(FORUM, 15)]
        people = [member(ANN), *(member(each) for each in range(1000, 1100))]
        here = guild(channels=channels, threads=[thread(THREAD, FORUM)], members=people)
        begin(store, 0, "one", encode(here))
        # The first event of a guild in a process asks where its entities are.
        store.apply(0, 9, "GUILD_MEMBER_UPDATE", update(1000, nick="first"))
        store.commit()
        general.clear()
        for seq, (name, d) in enumerate(events, 10):
            store.apply(0, seq, name, d)
        assert store.commit() is None
        with store.reader().view() as view:
            found.append((state(view), store.unknown_guilds, store.failures))
        assert store.applied(0) == 9 + len(events)
        store.close()
    assert differences(found[0][0], found[1][0]) == []
    assert found[0][1:] == found[1][1:]
    assert len(seen[1]) == len(events)
    return seen[0]


def update(user_id: int = ANN, **more: Any) -> bytes:
    """A member's own event, as the guild's snapshot has the member."""
    told = {"guild_id": str(GUILD), **member(user_id), **more}
    return encode({name: value for name, value in told.items() if value is not ...})


def used(**more: Any) -> bytes:
    """A command that a member used, as the guild's snapshot has the member."""
    told = {"id": "1", "guild_id": str(GUILD), "member": {**member(ANN), "permissions": "8"}, **more}
    return encode(told)


def deleted(channel_id: int, **more: Any) -> bytes:
    return encode({"id": "5", "channel_id": str(channel_id), "guild_id": str(GUILD), **more})


@pytest.mark.parametrize(
    ("name", "said", "usual"),
    [
        # As it is kept; another nick, and back; and what is said of it then.
        ("GUILD_MEMBER_UPDATE", [update()], True),
        ("GUILD_MEMBER_UPDATE", [update(nick="a"), update(nick="a"), update(nick=None)], True),
        ("GUILD_MEMBER_UPDATE", [update(nick="a", news={"of": ["later", None]}), update()], True),
        ("GUILD_MEMBER_UPDATE", [update(roles=...)], True),
        # A user that changed as well, and one that nothing is known of.
        ("GUILD_MEMBER_UPDATE", [update(user=user(ANN, "anna"), nick="a")], False),
        ("GUILD_MEMBER_UPDATE", [update(user=user(7), nick="a")], False),
        # A guild that is not known, and what cannot be read.
        ("GUILD_MEMBER_UPDATE", [update(guild_id="7", nick="a")], False),
        ("GUILD_MEMBER_UPDATE", [update(nick="a").replace(b'"a"', b'"\xff"')], False),
        ("GUILD_MEMBER_UPDATE", [update(user=7), update(user=...), update(guild_id=...)], False),
        # A field that comes twice.
        ("GUILD_MEMBER_UPDATE", [update(nick="a").replace(b'"nick":', b'"nick":"b","nick":')], False),
        ("MESSAGE_DELETE", [message(100, TEXT), deleted(TEXT)], True),
        # A thread counts its messages.
        ("MESSAGE_DELETE", [deleted(THREAD)], False),
        ("MESSAGE_DELETE", [deleted(77), deleted(TEXT, id=None)], False),
        ("INTERACTION_CREATE", [used(), used(member={**member(ANN), "guild_id": str(GUILD)})], True),
        ("INTERACTION_CREATE", [used(member={**member(ANN), "nick": "a"})], False),
        ("INTERACTION_CREATE", [used(member={**member(ANN), "user": user(ANN, "anna")})], False),
        ("INTERACTION_CREATE", [used(guild_id="7"), used(member=None), used(member={})], False),
    ],
)
def test_news_of_members_deleted_messages_and_commands_take_the_fast_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: list[bytes], usual: bool
) -> None:
    events = [(name, d) for d in said]
    general = general_of_both_forms(tmp_path, monkeypatch, events, CachePolicy())
    assert general == ([] if usual and COMPILED else [name] * len(said))


@pytest.mark.parametrize("taken", [True, False])
def test_members_who_change_in_many_pages_are_all_kept_and_now_and_then_a_page_takes_its_rows_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    events = [
        ("GUILD_MEMBER_UPDATE", update(user_id, nick=f"{turn}", roles=[str(turn)]))
        for turn in range(3)
        for user_id in range(1000, 1100)
    ]
    policy = CachePolicy(members_from_events=taken)
    general = general_of_both_forms(tmp_path, monkeypatch, events, policy)
    if COMPILED and taken:
        # One in 32 that go over their page: each has a row from then on, and its page's neighbours none.
        assert 3 <= len(general) <= 10


def test_a_store_that_cannot_be_read_is_a_fault_on_the_fast_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, policy=CachePolicy())
    begin(store, 0, "one", encode(guild(channels=[channel(TEXT)], members=[member(ANN)])))
    store.commit()

    get = LmdbStorage.get

    def broken(storage: LmdbStorage, table: int, key: bytes) -> bytes | None:
        if table == Table.TIPS:
            raise lmdb.DiskError("a disk that is gone")
        return get(storage, table, key)

    with monkeypatch.context() as context:
        context.setattr(LmdbStorage, "get", broken)
        assert store.apply(0, 10, "MESSAGE_CREATE", message(100, TEXT)) is None
    assert store.fault is not None and "a disk that is gone" in store.fault.words
    assert store.commit() is None
    store.close()


def test_a_restart_with_many_members_serves_at_once(tmp_path: Path) -> None:
    store = opened(tmp_path)
    people = [member(number << 30) for number in range(1, 2001)]
    begin(store, 0, "one", *(encode(guild(number << 50, members=people)) for number in range(1, 11)))
    store.close()
    # Of this process alone: what else the machine does is no matter.
    started = time.process_time()
    store = opened(tmp_path)
    answer = Queries({1: store.reader()}, store.policy).answer(Query("Member", (3 << 50, 77 << 30)))
    assert getattr(answer, "status", None) == "ok"
    assert time.process_time() - started < 1.0
    store.close()
