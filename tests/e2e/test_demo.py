"""`rateway demo` as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.rabbitmq import Broker


def environment(**variables: str) -> dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR", "PYTHONPATH")
    }
    return kept | variables


def demo(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rateway", "demo", "--rate", "300", "--guilds", "160", *words]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=240, check=False
    )


def row(output: str, name: str) -> str:
    found = re.search(rf"{re.escape(name)}\s*│\s*(\S.*?)\s*│", output)
    assert found is not None, output
    return found.group(1)


def test_the_demo_survives_its_faults_and_ends_with_nothing_lost() -> None:
    done = demo("--seconds", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row(done.stdout, name) for name in ("lost", "violations of Discord's rules")] == ["0", "0"]
    assert row(done.stdout, "sessions (identifies)") == "16 (16)"
    said, answered = row(done.stdout, "!ping said, answered by workers").split(", ")
    assert int(said) > 0 and answered == said, done.stdout
    doubled = row(done.stdout, "doubled (same message_id)")
    assert (f"doubled {doubled}: promised, not a fault" in done.stdout) is (doubled != "0"), done.stdout
    assert "the broker was restarted" in done.stdout
    assert "killing the gateway with -9" in done.stdout
    assert row(done.stdout, "discord.py bot behind the proxy") == f"!ping seen {said}, missed 0, twice 0"
    for fault in ("its proxy killed with -9", "killed with -9, came back"):
        assert row(done.stdout, f"{fault}: resumed") == "16 of 16 shards", done.stdout


def test_a_bot_whose_sessions_are_gone_fails_the_demo() -> None:
    """Without its database the killed bot begins anew: what the summary shows, and the exit code, say so."""
    program = (
        "import asyncio, sys\n"
        "from rateway.demo import scene, script\n"
        "script.BOT_SILENCE = 5.0\n"
        "async def kill(self):\n"
        "    await self.bot.kill()\n"
        "    self.bot_database.unlink()\n"
        "    return await began(self)\n"
        "began, scene.Scene.kill_bot, scene.RESUME_PATIENCE = scene.Scene.kill_bot, kill, 5.0\n"
        "from rateway.cli import main\n"
        "sys.exit(main(['demo', *sys.argv[1:]]))"
    )
    words = ["--seconds", "6", "--faults", "bot", "--shards", "2", "--guilds", "20", "--rate", "50"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert row(done.stdout, "killed with -9, came back: resumed") == "0 of 2 shards"


def test_a_given_broker_is_used_and_its_connections_are_cut(broker: Broker, tmp_path: Path) -> None:
    done = demo(
        "--seconds", "6", "--faults", "broker", "--shards", "4", "--logs", str(tmp_path), AMQP_URI=broker.uri
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* connections to the broker were cut", done.stdout)
    assert row(done.stdout, "lost") == "0"


def test_an_interrupt_ends_the_demo_with_its_audit_and_leaves_no_process(broker: Broker) -> None:
    command = [sys.executable, "-m", "rateway", "demo", "--seconds", "0", "--faults", "none", "--shards", "2"]
    with subprocess.Popen(
        [*command, "--guilds", "10", "--rate", "100"],
        env=environment(AMQP_URI=broker.uri),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "violations 0;" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()
        assert process.wait(200) == 0, said
    assert row(said, "lost") == "0"
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_without_rabbitmq_it_says_what_to_run() -> None:
    program = (
        "import sys; from rateway.demo import broker\n"
        "broker.PROGRAM_FOLDERS = (); broker.shutil.which = lambda name: None\n"
        "from rateway.cli import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 69
    assert "apt-get install rabbitmq-server" in done.stderr and "AMQP_URI=" in done.stderr


def test_a_broker_that_was_given_and_is_not_there_is_told_at_once() -> None:
    done = demo("--seconds", "5", AMQP_URI="amqp://user:sw0rdfish@127.0.0.1:1/")
    assert done.returncode == 69
    assert "127.0.0.1:1" in done.stderr and "cannot be reached" in done.stderr
    assert "sw0rdfish" not in done.stdout + done.stderr
