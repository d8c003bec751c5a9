"""The disk behind a writable map: never is a page written that is not there, and a disk that refuses is a fault."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.storage import Table
from rateway.transports.store import Store, StoreReader, opening
from rateway.transports.store import reserve as reserve_module
from rateway.transports.store.opening import Opened
from rateway.transports.store.reserve import Reserve, kind_of_file_system
from rateway.transports.store.tables import LmdbStorage
from tests.cache.scene import GUILD, channel, guild, member
from tests.cache.world_feed import differences, encode, expected, state, stream
from tests.transports.test_store import begin, name_of, opened

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 0:25 / /mnt/a\\040b ro,nosuid - tmpfs none ro,size=4k
29 27 0:31 /sub /data rw shared:1 - btrfs /dev/vdb rw
torn
"""


@pytest.fixture(autouse=True)
def writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "reserves", lambda folder: True)
    monkeypatch.setattr(reserve_module, "AGAIN_S", 0.0)


def reserve_of(store: Store) -> Reserve:
    assert store.reserve is not None
    return store.reserve


def test_the_kind_of_a_file_system_is_read_from_the_kernels_list() -> None:
    kinds = [
        kind_of_file_system(os.makedev(*device), MOUNTS) for device in ((254, 0), (0, 25), (0, 31), (9, 9))
    ]
    assert kinds == ["ext4", "tmpfs", "btrfs", None]


def strict(folder: Path) -> None:
    """Let the file end where the reserve does: the kernel ends a process that writes behind it."""

    def allocated(descriptor: int, start: int, size: int) -> None:
        allocate(descriptor, start, size)
        os.ftruncate(descriptor, start + size)

    def follow(self: Reserve, *arguments: object) -> None:
        before(self, *arguments)  # type: ignore[arg-type]  # as they were
        os.truncate(folder / "data.mdb", self.allocated * self.page)

    allocate, before = os.posix_fallocate, Reserve.follow
    os.posix_fallocate = allocated
    Reserve.follow = follow  # type: ignore[method-assign,assignment]
    opening.reserves = lambda folder: True  # type: ignore[attr-defined]  # for opening alone


def a_stream(path: Path, *, reading: bool) -> None:
    """Large guilds that come, come again and go, chunks, and everything else; the cache ends as the world is."""
    world, events = stream(31, 6000, guilds=4, members_per_guild=60)
    policy = CachePolicy(kinds=KINDS, messages_per_channel=20)
    store = opened(path, policy=policy)
    draw = random.Random(5)
    at = 0
    views: list[tuple[object, lmdb.Transaction]] = []
    while at < len(events):
        count = draw.choice((1, 3, 4, 10, 60, 700))
        for seq, name, d in events[at : at + count]:
            store.apply(0, seq, name, d)
        assert store.commit() is None
        at += count
        if reading and not views:
            # Whoever reads this moment keeps every page of it: nothing is used again, all is taken from the end.
            views.append(store.reader().begin())
    assert differences(state(store.reader().begin()[0]), expected(world)) == []
    for round_number in range(4):
        for size in (20, 3000, 300, 3000):
            people = [member(draw.getrandbits(50) + 1, nick="n" * draw.randrange(30)) for _ in range(size)]
            for number in range(1, 4):
                it = guild(number << 50, members=people, large=True, channels=[channel(number * 9 + 1)])
                store.apply(1, 10**9 + at, "GUILD_CREATE", encode(it))
                at += 1
            assert store.commit() is None
            for one in people[:: 1 + size // 200]:
                said = {"guild_id": str(1 << 50), **one, "nick": "other"}
                store.apply(1, 10**9 + at, "GUILD_MEMBER_UPDATE", encode(said))
                at += 1
            assert store.commit() is None
        for number in (1, 2, 3)[round_number % 2 :]:
            store.apply(1, 10**9 + at, "GUILD_DELETE", encode({"id": str(number << 50)}))
            at += 1
        assert store.commit() is None
    for _, txn in views:
        txn.abort()
    store.close()


def storage_in(path: Path) -> tuple[LmdbStorage, Opened]:
    """The tables of a new store, without a cache above them."""
    found = opening.open_for_writing(path, cluster=1, boot_id="boot 1", map_size=opening.MAP_SIZE)
    assert isinstance(found, Opened)
    return LmdbStorage(found.tables, found.reserve), found


def raw_rows(path: Path, *, reading: bool) -> None:
    """Rows in the worst of orders and sizes, straight into the tables."""
    storage, found = storage_in(path)
    reserve = found.reserve
    assert reserve is not None
    draw = random.Random(6)
    keys: list[bytes] = []
    moment = StoreReader.of(path, found.tables).begin()[1] if reading else None
    for turn in range(150):
        for _ in range(draw.choice((1, 5, 40, 64, 65, 900))):
            table = draw.choice((Table.ROWS, Table.USERS, Table.PRESENCES))
            size = draw.choice((0, 30, 300, 1000, 1999, 2030, 4060, 9000))
            key = draw.choice((os.urandom(8), turn.to_bytes(4, "big") + os.urandom(4)))
            storage.put(table, key, bytes(size))
            keys.append(key)
        if draw.random() < 0.5:
            storage.add_homes(turn % 3, sorted(os.urandom(12) for _ in range(draw.choice((1, 64, 5000)))))
        if draw.random() < 0.3:
            for key in draw.sample(keys, len(keys) // 3):
                storage.delete(draw.choice((Table.ROWS, Table.USERS, Table.PRESENCES)), key)
            keys = draw.sample(keys, len(keys) // 2)
        storage.commit()
        if turn % 20 == 19:
            reserve.trim()
            os.truncate(path / "data.mdb", reserve.allocated * 4096)
    if moment is not None:
        moment.abort()


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("load", [a_stream, raw_rows])
def test_no_page_is_written_behind_what_is_reserved(
    tmp_path: Path, load: Callable[..., None], reading: bool
) -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.transports.test_reserve import *
strict(Path({str(tmp_path)!r}))
{load.__name__}(Path({str(tmp_path)!r}), reading={reading})
print("whole")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=os.getcwd(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_writing_behind_what_is_reserved_would_have_been_noticed(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.transports.test_reserve import *
strict(Path({str(tmp_path)!r}))
Reserve.take = lambda self, leaves, rows: None
a_stream(Path({str(tmp_path)!r}), reading=True)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=os.getcwd())
    assert done.returncode == -7  # SIGBUS


def test_a_disk_that_refuses_is_a_fault_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 6 << 20
    allocate = os.posix_fallocate

    def bounded(descriptor: int, start: int, size: int) -> None:
        if start + size > limit:
            allocate(descriptor, start, limit - start)  # a file system may give what it has
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        allocate(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", bounded)
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    assert store.commit() is None
    before = (tmp_path / "data.mdb").stat().st_blocks
    seq, fault = 2, None
    while fault is None and seq < 5000:
        seq += 1
        noise = os.urandom(3000).hex()
        store.apply(0, seq, "CHANNEL_CREATE", encode({"guild_id": str(GUILD), **channel(seq, topic=noise)}))
        fault = store.commit()
    assert fault is not None and fault.full and fault == store.fault
    assert name_of(store.reader()) == "guild"
    assert reserve_of(store).allocated * reserve_of(store).page <= limit
    # What was given in part is given back.
    assert (tmp_path / "data.mdb").stat().st_blocks * 512 <= max(before * 512, limit)
    limit = 64 << 20
    store.apply(0, seq + 1, "GUILD_UPDATE", encode({"id": str(GUILD), "name": "room"}))
    assert store.commit() is None
    assert name_of(store.reader()) == "room"
    store.close()


def test_a_disk_that_has_refused_is_left_alone_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    assert store.commit() is None
    monkeypatch.setattr(reserve_module, "AGAIN_S", 3600.0)
    asked = []

    def refused(descriptor: int, start: int, size: int) -> None:
        asked.append(start + size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refused)
    for seq in range(3, 9):
        noise = channel(seq, topic=os.urandom(5_000_000).hex())
        store.apply(0, seq, "CHANNEL_CREATE", encode({"guild_id": str(GUILD), **noise}))
        fault = store.commit()
        assert fault is not None and fault.full
    assert len(asked) == 1
    store.close()


def test_a_disk_that_refuses_at_the_start_is_written_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    begin(store, 0, "one", encode(guild()))
    store.close()

    def refused(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refused)
    store = opened(tmp_path)
    assert store.reserve is None and store.words == ()
    assert name_of(store.reader()) == "guild"
    store.close()


def test_where_no_file_may_be_as_large_as_the_map_it_is_written_the_other_way(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, hard))
    try:
        store = opened(tmp_path)
        assert store.reserve is None
        begin(store, 0, "one", encode(guild()))
        assert store.commit() is None
        store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_store_is_opened_the_other_way_and_back_and_ends_with_its_last_page_when_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data.mdb"
    names = []
    for turn, way in enumerate((True, False, True, False)):
        monkeypatch.setattr(opening, "reserves", lambda folder, way=way: way)
        store = opened(tmp_path)
        assert (store.reserve is not None) is way and store.words == ()
        if turn:
            names.append(name_of(store.reader()))
        begin(store, 0, str(turn), encode(guild(name=f"turn {turn}")))
        assert store.commit() is None
        if way:
            assert file.stat().st_size == opening.MAP_SIZE
        store.close()
        assert file.stat().st_size < 1 << 20
    assert names == ["turn 0", "turn 1", "turn 2"]


def test_what_one_large_transaction_needed_is_given_back(tmp_path: Path) -> None:
    storage, found = storage_in(tmp_path)
    reserve = found.reserve
    assert reserve is not None
    for number in range(60):
        storage.put(Table.ROWS, number.to_bytes(4, "big"), os.urandom(1_000_000))
    # What waits is written before it is read.
    assert len(list(storage.scan(Table.ROWS, b"", b"\xff"))) == 60
    large = reserve.allocated
    storage.abort()
    assert large * reserve.page > 60_000_000
    reserve.trim()
    assert reserve.allocated * reserve.page < 20_000_000
    assert (tmp_path / "data.mdb").stat().st_blocks * 512 < 20_000_000
    assert (tmp_path / "data.mdb").stat().st_size == opening.MAP_SIZE
