"""The state folder: one gateway at a time, files whole, nothing secret in it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rateway.transports.state import FatalRecord, StateDir, StateError, boot_id

from tests.aio import run

RECORD = FatalRecord(4014, "disallowed intents", "switch GUILD_MEMBERS on", 1700000000.0)


def test_a_folder_that_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with StateDir.open(folder) as state:
        state.write_ledger(b"x")
        state.remember_fatal(state.fingerprint("a"), RECORD)
        assert state.try_lock()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.checklist("H17")
def test_a_second_gateway_waits_says_so_once_and_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = StateDir.open(tmp_path), StateDir.open(tmp_path)
        assert first.try_lock()
        assert not second.try_lock()
        assert second.holder() == os.getpid()
        said: list[int | None] = []
        heard = asyncio.Event()

        def on_wait(pid: int | None) -> None:
            said.append(pid)
            heard.set()

        waiting = asyncio.create_task(second.lock(on_wait))
        await heard.wait()
        assert said == [os.getpid()]
        assert not waiting.done()
        first.close()
        async with asyncio.timeout(60):
            await waiting
        assert second.locked
        assert said == [os.getpid()]
        second.close()

    run(scenario())


@pytest.mark.checklist("H17")
def test_the_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    code = (
        "import sys, signal; from pathlib import Path; from rateway.transports.state import StateDir\n"
        "state = StateDir.open(Path(sys.argv[1])); assert state.try_lock(); print('locked', flush=True); signal.pause()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with StateDir.open(tmp_path) as state:
            assert not state.try_lock()
            assert state.holder() == holder.pid

            async def take_over() -> None:
                waiting = asyncio.create_task(state.lock(lambda pid: holder.send_signal(signal.SIGKILL)))
                async with asyncio.timeout(60):
                    await waiting

            run(take_over())
            assert state.locked
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_a_wait_that_was_given_up_never_takes_the_lock(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second, third = (StateDir.open(tmp_path) for _ in range(3))
        assert first.try_lock()
        waiting = asyncio.create_task(second.lock(lambda pid: None))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        second.close()
        first.close()
        async with asyncio.timeout(60):
            await third.lock(lambda pid: None)
        assert third.locked
        third.close()

    run(scenario())


def test_nobody_holds_a_free_lock(tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        assert state.holder() is None
        assert state.try_lock()
        assert state.holder() == os.getpid()
    with StateDir.open(tmp_path) as state:
        assert state.holder() is None


def test_the_ledger_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        assert state.read_ledger() is None
        state.write_ledger(b"one")
        # What a crash in the middle of a write leaves behind.
        (tmp_path / ".identifies.json.new").write_bytes(b"tor")
        assert state.read_ledger() == b"one"
        state.write_ledger(b"two")
        assert state.read_ledger() == b"two"
    with StateDir.open(tmp_path) as state:
        assert state.read_ledger() == b"two"


@pytest.mark.checklist("B16")
def test_what_was_fatal_is_remembered_for_the_same_settings_only(tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        settings, other = state.fingerprint("token", "513"), state.fingerprint("token", "512")
        assert state.fatal(settings) is None
        state.remember_fatal(settings, RECORD)
    with StateDir.open(tmp_path) as state:
        assert state.fingerprint("token", "513") == settings
        assert state.fatal(settings) == RECORD
        assert state.fatal(other) is None
        assert state.forget_fatal()
        assert not state.forget_fatal()
        assert state.fatal(settings) is None


@pytest.mark.checklist("K75")
@pytest.mark.parametrize(
    "content", [b"{torn", b'{"\xff":1}', b"[" * 100_000, b'{"a":{"wall":1e999}}', b"5", b"\0" * 100, b'{"a":null}']
)  # fmt: skip
def test_a_broken_memory_is_no_memory(tmp_path: Path, content: bytes) -> None:
    with StateDir.open(tmp_path) as state:
        (tmp_path / "fatal.json").write_bytes(content)
        assert state.fatal(state.fingerprint("x")) is None
        state.remember_fatal(state.fingerprint("x"), RECORD)
        assert state.fatal(state.fingerprint("x")) == RECORD


def test_nothing_in_the_folder_tells_the_token(tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        state.remember_fatal(state.fingerprint("sw0rdfish.marked.token", "1"), RECORD)
        assert state.fingerprint("ab", "c") != state.fingerprint("a", "bc")
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"sw0rdfish" not in everything
    with StateDir.open(tmp_path / "another") as another, StateDir.open(tmp_path) as state:
        assert another.fingerprint("token") != state.fingerprint("token"), "the salt belongs to the folder"


def test_a_request_to_end_sessions_is_used_up_and_never_meant_for_the_next_gateway(tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        assert state.try_lock()
        assert not state.take_end_sessions()
        state.request_end_sessions()
        assert state.take_end_sessions()
        assert not state.take_end_sessions()
        state.request_end_sessions()
    with StateDir.open(tmp_path) as state:
        assert state.try_lock()
        assert not state.take_end_sessions()


def test_a_folder_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below", Path("/proc/rateway")):
        with pytest.raises(StateError, match="STATE_DIR") as caught:
            StateDir.open(path)
        assert str(path) in str(caught.value)


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As root every folder can be written: the system's answer is what is replaced, at its lowest call.
    def refuse(path: object, flags: int, *rest: object, **more: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StateError, match="read-only"):
        StateDir.open(tmp_path)


@pytest.mark.parametrize(("number", "passing"), [(28, True), (122, True), (13, False), (30, False)])
def test_only_a_full_disk_may_pass_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passing: bool
) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StateError) as caught:
        StateDir.open(tmp_path)
    assert caught.value.passing is passing


def test_the_boot_has_a_name() -> None:
    assert boot_id() == boot_id()


def test_the_salt_of_a_fleet_is_taken_and_what_was_written_with_the_former_one_is_told(
    tmp_path: Path,
) -> None:
    with StateDir.open(tmp_path / "a") as state:
        before = state.fingerprint("token")
        state.take_salt(b"f" * 32)
        assert state.salt() == b"f" * 32 and state.former_fingerprints("other") != [before]
        assert state.former_fingerprints("token") == [before]
        state.take_salt(b"f" * 32)
        assert state.former_fingerprints("token") == [before], "nothing has changed"
    with StateDir.open(tmp_path / "b") as other:
        other.take_salt(b"f" * 32)
        with StateDir.open(tmp_path / "a") as state:
            assert other.fingerprint("token") == state.fingerprint("token") != before


def test_a_member_keeps_its_name_and_gets_another_on_another_host(tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        name = state.member("Host_1.example.org")
        assert name.startswith("host-1-") and state.member("Host_1.example.org") == name
        moved = state.member("host-2")
        assert moved.startswith("host-2-") and state.member("host-2") == moved
        state.write("member", b"\xff\xfe")
        assert state.member("host-2").startswith("host-2-")
