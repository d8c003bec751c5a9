"""`rateway simulate` as a process: addresses, summary, exit codes; and its arguments."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
from rateway_simulator import command
from rateway_simulator.faults import FaultError, parse_word
from rateway_simulator.options import FLAT_OUT, SimulatorOptions
from tests.simulator.client import connect
from tests.simulator.running import until

from tests.aio import run

MAIN = "import sys; from rateway.cli import main; sys.exit(main())"


def _parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(words)


async def _started(ready: Path, *words: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        MAIN,
        "simulate",
        "--ready-file",
        str(ready),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await until(lambda: ready.exists() or process.returncode is not None)
    assert ready.exists(), (await process.communicate())[1].decode()
    return process


@pytest.mark.parametrize(("beat", "code"), [(1, 0), (99, 1)])
def test_the_exit_code_says_whether_a_rule_was_broken(tmp_path: Path, beat: int, code: int) -> None:
    async def scenario() -> None:
        ready = tmp_path / "ready.json"
        process = await _started(ready, "--json", "--guilds", "2", "--members", "3")
        addresses = json.loads(ready.read_text())
        async with await connect(addresses["gateway_url"]) as client:
            await client.ready(token=addresses["token"])
            await client.beat(beat)
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        assert process.returncode == code, err.decode()
        first, last = [json.loads(line) for line in out.splitlines()]
        assert first == {"ready": addresses}
        assert last["summary"]["sessions"] == 1
        assert [violation["rule"] for violation in last["violations"]] == ["heartbeat-ahead"] * code

    run(scenario())


def test_a_person_reads_what_to_connect_with_and_which_rules_were_broken(tmp_path: Path) -> None:
    async def scenario() -> None:
        ready = tmp_path / "ready.json"
        process = await _started(ready, "--guilds", "2", "--rate", "20", "--fault", "cut:at=60")
        addresses = json.loads(ready.read_text())
        async with await connect(addresses["gateway_url"]) as client:
            client.send(5, None)
            await client.closed
        process.send_signal(signal.SIGINT)
        out, err = (stream.decode() for stream in await process.communicate())
        assert process.returncode == 1
        assert f"DISCORD_API_URL={addresses['api_url']}" in out and "Route.BASE" in out
        assert f'rest_url="{addresses["api_url"]}"' in out
        assert "1 × unknown-opcode: A bot sends only ops" in out
        assert "unknown-opcode: op 5" in err or "unknown-opcode" in out

    run(scenario())


def test_it_ends_by_itself_after_its_seconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        process = await _started(tmp_path / "ready.json", "--seconds", "0.05", "--guilds", "1")
        out, _ = await process.communicate()
        assert process.returncode == 0 and b"no client connected" in out

    run(scenario())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--fault", "explode"], "no fault of kind"),
        (["--rate", "fast"], "neither a number"),
        (["--mix", "PRESENCE_UPDATE"], "EVENT=WEIGHT"),
        (["--mix", "GIFT_CREATE=3"], "GIFT_CREATE"),
        (["--shards", "0"], "--shards 0: it must be at least 1"),
        (["--resume-hosts", "-1"], "--resume-hosts -1: it must be at least 0"),
        (["--guilds", "-5"], "--guilds"),
        (["--api-port", "70000"], "at most 65535"),
        (["--scenario", "/nowhere/at/all.toml"], "No such file"),
        (["--privileged", "GUILD_MEMBRES"], "GUILD_MEMBERS"),
    ],
)
def test_wrong_arguments_are_told_and_nothing_starts(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(_parsed(*words)) == 2
    assert says in capsys.readouterr().err


def test_without_arguments_the_defaults_are_the_simulators_own() -> None:
    assert command.settings_of(_parsed()) == SimulatorOptions()


def test_arguments_become_options(tmp_path: Path) -> None:
    scenario = tmp_path / "bad-day.toml"
    scenario.write_text('[[fault]]\nkind = "op7"\nat = 2\n')
    words = (
        "--shards 16 --concurrency 4 --guilds 50 --rate max --recorded --events 9 --privileged GUILD_MEMBERS"
    )
    words += " --mix presence_update=0 --fault cut:every=5 --scenario " + str(scenario)
    options = command.settings_of(_parsed(*words.split()))
    assert (options.shards, options.max_concurrency, options.world.guilds) == (16, 4, 50)
    assert (options.rate, options.recorded, options.source_events) == (FLAT_OUT, True, 9)
    assert options.privileged_intents == 2 and options.world.mix == {"PRESENCE_UPDATE": 0.0}
    assert options.scenario == (parse_word("cut:every=5"), parse_word("op7:at=2"))
    with pytest.raises(FaultError):
        command.settings_of(_parsed("--fault", "cut:code=1"))
