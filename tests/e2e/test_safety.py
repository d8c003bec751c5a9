"""What others on the machine can do to a gateway that runs, and what they can learn from it."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from rateway.hardening import ENDING

from tests.aio import run
from tests.e2e.harness import Gateway, stage
from tests.e2e.witness import all_live
from tests.rabbitmq import Broker

# Modules of Python's own, of this package and of its libraries that every process of a gateway loads.
SHADOWED = (
    "rateway",
    "json",
    "logging",
    "asyncio",
    "msgspec",
    "uvloop",
    "ctypes",
    "sitecustomize",
    "usercustomize",
)


def processes(gateway: Gateway) -> list[int]:
    """The supervisor and its workers."""
    assert gateway.pid is not None
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
    return [gateway.pid, *map(int, children)]


@pytest.mark.checklist("K55")
@pytest.mark.parametrize("how", ["the command", "python -P -m rateway"])
def test_nothing_in_the_working_directory_is_executed(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    here, marks = tmp_path / "here", tmp_path / "marks"
    here.mkdir()
    marks.mkdir()
    for name in SHADOWED:
        (here / f"{name}.py").write_text(
            f"open({str(marks / name)!r}, 'w').close()\nraise ImportError('planted')\n"
        )
    monkeypatch.chdir(here)

    async def main() -> None:
        async with stage(
            tmp_path, broker, shards=2, per_cluster=1, guilds=2, PROCESSES="2", start=False
        ) as it:
            if how == "the command":
                it.gateway.arguments = [str(Path(sys.executable).with_name("rateway"))]
            await it.gateway.start()
            await it.ready()
            assert len(processes(it.gateway)) == 3

    run(main())
    assert list(marks.iterdir()) == []


@pytest.mark.checklist("K62")
def test_signals_without_a_meaning_end_no_process_and_are_said_once(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, per_cluster=1, guilds=2, PROCESSES="2") as it:
            await it.ready()
            all_of_them = processes(it.gateway)
            assert len(all_of_them) == 3
            for pid in all_of_them:
                for number in ENDING:
                    for _ in range(20):
                        os.kill(pid, number)
            # The supervisor's line and one from each worker, however often it came.
            await it.gateway.logged("SIGUSR1 is ignored")
            await it.events(20)
            await it.all_arrived()
            assert processes(it.gateway) == all_of_them
            status = await it.gateway.until(all_live)
            assert not [note for note in status["notes"] if "down" in note]
            said = Counter(
                line for line in it.gateway.lines() if "is ignored" in line for line in [line[24:]]
            )
            assert len(said) == 3 * len(ENDING) and set(said.values()) == {1}
            # What has a meaning keeps it.
            it.gateway.signal(signal.SIGHUP)
            await it.gateway.logged("settings read again")

    run(main())


@pytest.mark.checklist("K62")
def test_workers_have_no_secret_in_their_environment_and_no_process_leaves_a_core_file(
    tmp_path: Path, broker: Broker
) -> None:
    password = "never show/this:pass@word"

    async def main() -> None:
        vhost = quote(broker.vhost, safe="")
        await broker.api("PUT", "users/marked", {"password": password, "tags": ""})
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        await broker.api("PUT", f"permissions/{vhost}/marked", rights)
        uri = f"amqp://marked:{quote(password, safe='')}@127.0.0.1:{broker.port}/{vhost}"
        async with stage(
            tmp_path, broker, shards=2, per_cluster=1, guilds=2, amqp_uri=uri, PROCESSES="2",
            HTTP_TOKEN="never-show-this-http-token", NOTES=f"what runs here: {uri}",
        ) as it:  # fmt: skip
            await it.ready()
            supervisor, *workers = processes(it.gateway)
            assert len(workers) == 2
            for worker in workers:
                environment = Path(f"/proc/{worker}/environ").read_bytes()
                assert b"PATH=" in environment
                for secret in (it.sim.options.token, password, quote(password, safe=""), "never-show-this"):
                    assert secret.encode() not in environment
                for name in (b"DISCORD_TOKEN", b"AMQP_URI", b"HTTP_TOKEN", b"NOTES"):
                    assert name not in environment
            for pid in (supervisor, *workers):
                (limit,) = [
                    line
                    for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
                    if "core file" in line
                ]
                assert limit.split()[4:6] == ["0", "0"]

    run(main())
