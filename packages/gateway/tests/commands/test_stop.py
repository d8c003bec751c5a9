"""`rateway stop` and the other commands that speak to a gateway that runs, against real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rateway import cli
from rateway.transports import control_socket
from rateway.transports.state import StateDir

from tests.aio import run

# A gateway in small: it holds the lock, and says at SIGTERM whether sessions should end.
GATEWAY = """
import signal, sys
from pathlib import Path
from rateway.transports.state import StateDir
state = StateDir.open(Path(sys.argv[1]))
assert state.try_lock()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
if "deaf" in sys.argv:
    sys.stdin.read()
else:
    signal.sigwait([signal.SIGTERM])
    print("ending" if state.take_end_sessions() else "keeping", flush=True)
"""


@contextmanager
def a_gateway(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(folder), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


@pytest.mark.parametrize(("option", "said"), [([], "keeping"), (["--end-sessions"], "ending")])
@pytest.mark.checklist("B1", "B2")
def test_stop_keeps_the_sessions_unless_it_is_told_otherwise(
    tmp_path: Path, option: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_gateway(tmp_path) as gateway:
        assert cli.main(["stop", "--state-dir", str(tmp_path), *option]) == 0
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == f"{said}\n"
    assert "has left" in capsys.readouterr().out


def test_stop_without_a_gateway_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stop", "--state-dir", str(tmp_path / "none")]) == 0
    assert cli.main(["stop", "--state-dir", str(tmp_path), "--end-sessions"]) == 0
    assert capsys.readouterr().out.count("no gateway runs") == 2
    with StateDir.open(tmp_path) as state:
        assert not state.take_end_sessions(), (
            "a request without a gateway would end the sessions of the next one"
        )


def test_a_gateway_that_does_not_leave_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with a_gateway(tmp_path, "deaf"):
        assert cli.main(["stop", "--state-dir", str(tmp_path), "--timeout", "0.2"]) == 1
    assert "has not left after 0.2 s" in capsys.readouterr().err


def test_the_state_folder_comes_from_the_configuration_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "one"))
    assert cli.main(["stop"]) == 0
    monkeypatch.delenv("STATE_DIR")
    file = tmp_path / "rateway.toml"
    file.write_text(
        f'token = "a"\nintents = 1\namqp = "amqp://localhost/"\nstate_dir = "{tmp_path / "two"}"\n'
    )
    assert cli.main(["stop", "-c", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'one'}" in said and f"{tmp_path / 'two'}" in said
    file.write_text("token = 3\n")
    assert cli.main(["stop", "-c", str(file)]) == 78


def asking(folder: Path, answer: dict[str, str], command: str) -> tuple[int, list[list[str]]]:
    """`rateway COMMAND 3` against a control socket that gives *answer*."""
    asked: list[list[str]] = []

    async def handler(words: list[str]) -> object:
        asked.append(words)
        return answer

    async def scenario() -> int:
        async with control_socket.serve(folder, handler):
            return await asyncio.to_thread(cli.main, [command, "3", "--state-dir", str(folder)])

    return run(scenario()), asked


@pytest.mark.parametrize("command", ["restart-shard", "drain"])
def test_a_running_gateway_is_asked_over_the_control_socket(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asking(tmp_path, {"ok": "it reconnects"}, command) == (0, [[command, "3"]])
    assert asking(tmp_path, {"error": "it does not run here"}, command)[0] == 1
    assert cli.main([command, "3", "--state-dir", str(tmp_path)]) == 69
    said = capsys.readouterr()
    assert "reconnects" in said.out
    assert "does not run here" in said.err and "no gateway answers" in said.err
