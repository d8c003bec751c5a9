"""What docs and examples say of the world and its REST is what there is."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from rateway_simulator import patches
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.rest import routes as rest
from rateway_simulator.rest import speaking as rest_speaking
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.mix import DEFAULT_MIX
from rateway_simulator.world.snapshot import KINDS
from tests.rest.api import Facts

from tests.aio import run

ROOT = Path(__file__).parents[4]
TEXT = (ROOT / "docs/simulator_world.md").read_text("utf-8")


def test_the_page_lists_exactly_the_routes_that_are_simulated() -> None:
    listed = {
        (method, path)
        for path, methods in re.findall(r"^\| `(/\S+)` \| ([A-Z, ]+) \|$", TEXT, re.MULTILINE)
        for method in methods.split(", ")
    }
    assert listed == {(method, path) for method, path, _ in rest.routes(Facts())}


def test_the_page_lists_every_way_to_play_the_others() -> None:
    listed = set(re.findall(r"^\| `([A-Z]+) /simulator(/\S+)` \|", TEXT, re.MULTILINE))
    assert listed == {(method, path) for method, path, _ in rest_speaking.ROUTES}


def test_the_page_has_the_default_mix_and_every_kind() -> None:
    weights = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|$", TEXT, re.MULTILINE)
    assert {name: float(weight) for name, weight in weights} == DEFAULT_MIX
    kinds = TEXT.split("### What a perfect cache would hold")[1].split("## REST")[0]
    assert set(KINDS) <= set(re.findall(r"`(\w+)`", kinds))


def test_the_page_has_the_printed_patch() -> None:
    assert patches.discord_py("http://127.0.0.1:1235/api/v10", "ws://127.0.0.1:1234") in TEXT


async def start(script: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    """An example as its reader runs it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        ROOT / "examples" / script,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("script", ["simulated_hikari_bot.py", "simulated_discord_py_bot.py"])
def test_an_example_bot_answers_the_example_users(script: str) -> None:
    async def main() -> None:
        async with Simulator(
            SimulatorOptions(world=WorldOptions(guilds=2, members_per_guild=5))
        ) as simulator:
            environment = {
                "DISCORD_API_URL": simulator.api_url,
                "DISCORD_GATEWAY_URL": simulator.gateway_url,
                "DISCORD_TOKEN": simulator.options.token,
                "SIMULATOR": simulator.control_url,
            }
            bot = await start(script, environment)
            try:
                # The bot has registered its command and is connected.
                while not (
                    simulator.world.app.commands[None] and simulator.ledger.summary()["sessions_alive"]
                ):
                    assert bot.returncode is None, await bot.communicate()
                    await asyncio.sleep(0.05)
                users = await start("simulated_users.py", environment)
                said, complaints = await users.communicate()
            finally:
                bot.terminate()
                await bot.communicate()
            assert (users.returncode, complaints) == (0, b"")
            assert sorted(said.decode().split()) == ["pong", "pong", "slash"]
            assert simulator.ledger.summary()["rules_broken"] == {}

    run(main())
