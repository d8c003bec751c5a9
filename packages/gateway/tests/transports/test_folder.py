"""Whose folder may be used, and what somebody else has planted in it: refused with words, followed never."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway import cli
from rateway.cache.policy import CachePolicy
from rateway.delivery.message import Publish
from rateway.transports import folder
from rateway.transports.folder import FolderRefused, make_below
from rateway.transports.spool import Spool, SpoolFull
from rateway.transports.state import FatalRecord, StateDir, StateError, refuse_foreign
from rateway.transports.store import Store, StoreFault

from tests.aio import run

RECORD = FatalRecord(4014, "disallowed intents", "switch GUILD_MEMBERS on", 1700000000.0)
PRECIOUS = b"written by somebody else"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def status(mode: int, uid: int, gid: int) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 2, uid, gid, 0, 0, 0, 0))


@pytest.mark.checklist("K56")
@given(
    mode=st.integers(0, 0o7777),
    owner=st.integers(0, 3),
    group=st.integers(0, 3),
    user=st.integers(0, 3),
    groups=st.sets(st.integers(0, 3)),
)
def test_a_folder_is_used_when_nobody_else_may_write_and_it_is_ours_or_was_given_to_a_group_of_ours(
    mode: int, owner: int, group: int, user: int, groups: set[int]
) -> None:
    found = folder.refusal(status(mode, owner, group), user=user, groups=groups)
    others_may_write = bool(mode & 0o002)
    given_to_our_group = group in groups and mode & 0o030 == 0o030
    assert (found is None) == (not others_may_write and (owner == user or given_to_our_group))
    if found is not None:
        assert all(found)


@pytest.mark.checklist("K56")
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_state_folder_that_all_may_write_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StateError, match=r"every user may write into it.*chmod o-w"):
        StateDir.open(tmp_path)
    with pytest.raises(StateError, match="CACHE_PATH"):
        refuse_foreign(tmp_path, "CACHE_PATH")
    # What the gateway makes for itself inside of it may be used.
    with StateDir.open(tmp_path / "state"):
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


@as_root
@pytest.mark.checklist("K56")
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(StateError, match="it belongs to uid 12345, and this process runs as root"):
        StateDir.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@as_root
@pytest.mark.checklist("K56")
@pytest.mark.parametrize(
    ("mode", "usable"), [(0o2775, True), (0o2770, True), (0o2777, False), (0o2755, False)]
)
def test_the_root_of_a_volume_is_used_when_it_was_given_to_a_group_of_ours(mode: int, usable: bool) -> None:
    # Not below pytest's folders: other users may not enter those, and each start of pytest sees to it.
    volume = Path(tempfile.mkdtemp(prefix="volume-"))
    os.chown(volume, 0, 5678)
    volume.chmod(mode)

    def start() -> None:
        with StateDir.open(volume) as state:
            state.write_ledger(b"x")
            state.folder_below("clusters", "1", "store")

    try:
        assert as_somebody(10001, 10001, [5678], start) is usable
        assert (volume / "identifies.json").exists() is usable
    finally:
        shutil.rmtree(volume)


def as_somebody(uid: int, gid: int, groups: list[int], act: Callable[[], None]) -> bool:
    """Whether *act* succeeds in a child process of that user."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@as_root
@pytest.mark.checklist("K56")
def test_a_link_to_the_state_folder_has_to_be_roots_or_ours(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    link = tmp_path / "state"
    link.symlink_to(tmp_path / "there")
    with StateDir.open(link):
        assert (tmp_path / "there" / "lock").exists()
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(StateError, match="symbolic link of uid 12345"):
        StateDir.open(link)


@pytest.mark.checklist("K56")
def test_a_folder_that_was_there_keeps_its_mode_and_all_that_is_made_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0)
    try:
        with StateDir.open(tmp_path) as state:
            state.write_ledger(b"x")
            state.remember_fatal(state.fingerprint("a"), RECORD)
            spool = Spool.open(state.folder_below("clusters", "1", "spool"), 1 << 20)
            spool.append([Publish(b"k", b"", b"x")])
            spool.confirm([1])
            spool.append([Publish(b"k", b"", b"x")])
            spool.close()
            store = Store.open(
                state.folder_below("clusters", "1", "store"), cluster=1, policy=CachePolicy(), wall=1.0
            )
            assert isinstance(store, Store)
            store.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    below = list(tmp_path.rglob("*"))
    assert {path.name for path in below} >= {
        "lock",
        "salt",
        "identifies.json",
        "clusters",
        "data.mdb",
        "confirmed",
    }
    for path in below:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def use(path: Path) -> None:
    """Everything that the state folder is written and read for."""
    with StateDir.open(path) as state:
        assert state.try_lock()
        state.holder()
        state.write_ledger(b"ledger")
        state.read_ledger()
        state.remember_fatal(state.fingerprint("settings"), RECORD)
        state.write("layout.json", b"{}")
        state.request_end_sessions()
        state.take_end_sessions()


NAMES = ["lock", "salt", "identifies.json", "fatal.json", "layout.json", "end-sessions"]
PLANTED = [*NAMES, *(f".{name}.new" for name in NAMES[1:])]


@pytest.mark.checklist("K56")
@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_was_planted_in_the_place_of_a_file_is_replaced_or_refused_and_its_target_never_touched(
    tmp_path: Path, name: str, kind: str
) -> None:
    target, state = tmp_path / "target", tmp_path / "state"
    state.mkdir(mode=0o700)
    target.write_bytes(PRECIOUS)
    planted = state / name
    if kind == "pipe":
        os.mkfifo(planted)
    elif kind == "folder":
        planted.mkdir()
    else:
        planted.symlink_to(target if kind == "link" else tmp_path / "nowhere")
    refused = ""
    try:
        use(state)
    except StateError as error:
        refused = str(error)
    if refused:
        assert name in refused or kind == "folder"
    else:
        assert not planted.is_symlink()
        assert planted.is_file() or not planted.exists()
    assert target.read_bytes() == PRECIOUS
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.checklist("K56")
@pytest.mark.parametrize("name", ["lock", ".identifies.json.new"])
def test_the_links_that_once_overwrote_their_target_do_so_no_more(tmp_path: Path, name: str) -> None:
    target, state = tmp_path / "target", tmp_path / "state"
    state.mkdir(mode=0o700)
    target.write_bytes(PRECIOUS)
    (state / name).symlink_to(target)
    if name == "lock":
        with pytest.raises(StateError, match="lock is a link or no regular file"):
            use(state)
    else:
        use(state)
        assert (state / "identifies.json").read_bytes() == b"ledger"
    assert target.read_bytes() == PRECIOUS


@pytest.mark.checklist("K56")
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_link_in_the_place_of_a_folder_below_is_refused(tmp_path: Path, depth: int) -> None:
    names = ("clusters", "1", "store")
    elsewhere, state = tmp_path / "elsewhere", tmp_path / "state"
    state.joinpath(*names[: depth - 1]).mkdir(parents=True, mode=0o700)
    elsewhere.mkdir()
    state.joinpath(*names[:depth]).symlink_to(elsewhere)
    with pytest.raises(FolderRefused, match="a link or a file stands in the place of a folder"):
        make_below(state, *names)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.checklist("K56")
@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_a_link_in_the_place_of_a_stores_file_is_refused_with_words(tmp_path: Path, name: str) -> None:
    target, store = tmp_path / "target", tmp_path / "store"
    store.mkdir()
    target.write_bytes(PRECIOUS)
    (store / name).symlink_to(target)
    opened = Store.open(store, cluster=1, policy=CachePolicy(), wall=1.0)
    assert isinstance(opened, StoreFault) and name in opened.words
    assert target.read_bytes() == PRECIOUS


@pytest.mark.checklist("K56")
@pytest.mark.parametrize("name", ["00000000000000000001.spool", "00000000000000000002.spool", "confirmed"])
def test_a_link_in_the_place_of_a_spools_file_is_not_followed(tmp_path: Path, name: str) -> None:
    target, at = tmp_path / "target", tmp_path / "spool"
    at.mkdir()
    target.write_bytes(PRECIOUS)
    (at / name).symlink_to(target)
    spool = Spool.open(at, 1 << 20)
    assert spool.events == 0
    for number in range(1, 4):
        # Refused or written into a file of its own: the target is what counts.
        with contextlib.suppress(SpoolFull):
            spool.append([Publish(b"k", b"", b"x")])
        spool.confirm([number])
    spool.close()
    assert target.read_bytes() == PRECIOUS


@pytest.mark.checklist("K56")
def test_a_wait_for_the_lock_follows_no_link(tmp_path: Path) -> None:
    target, state = tmp_path / "target", tmp_path / "state"
    target.write_bytes(PRECIOUS)
    with StateDir.open(state) as first, StateDir.open(state) as second:
        assert first.try_lock()
        (state / "lock").unlink()
        (state / "lock").symlink_to(target)

        async def wait() -> None:
            await second.lock(lambda pid: None)

        with pytest.raises(StateError, match="lock is a link"):
            run(wait())
    assert target.read_bytes() == PRECIOUS


@pytest.mark.checklist("K65")
def test_a_folder_that_is_tried_is_gone_afterwards_and_one_that_was_there_stays(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    with StateDir.tried(deep) as state:
        state.fingerprint("x")
        assert (deep / "salt").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir(mode=0o700)
    with StateDir.tried(tmp_path / "there") as state:
        state.fingerprint("x")
    assert (tmp_path / "there" / "salt").exists()


@pytest.mark.checklist("K65")
def test_a_gateway_that_begins_in_a_folder_that_is_tried_keeps_it(tmp_path: Path) -> None:
    with StateDir.tried(tmp_path / "state"):
        gateway = StateDir.open(tmp_path / "state")
        assert gateway.try_lock()
    with gateway:
        gateway.write_ledger(b"x")
    assert (tmp_path / "state" / "identifies.json").read_bytes() == b"x"


@as_root
@pytest.mark.checklist("K56")
def test_stop_ends_no_process_that_somebody_elses_folder_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's owner holds the lock, and writes another process's number into it."""
    tmp_path.chmod(0o755)
    with StateDir.open(tmp_path) as state:
        assert state.try_lock()
        os.chown(tmp_path / "lock", 12345, 12345)
        assert cli.main(["stop", "--state-dir", str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert f"pid {os.getpid()}" in said and "no gateway of this folder's user" in said
