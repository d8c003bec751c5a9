"""A whole bot of discord.js behind the gateway proxy, with one line of its own for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rateway.demo.steering import Steering

from tests.aio import run
from tests.e2e.harness import stage
from tests.e2e.proxied import proxied
from tests.e2e.speaking import Guild, use_framework
from tests.rabbitmq import Broker
from tests.world.journey import POLL_S, bot
from tests.world.libraries import Library
from tests.world.test_libraries import BUILD_S
from tests.world.toolchains import BOTS, NODE, ToolMissing, prepare

FRAMEWORK = Library("discord.js framework", NODE, "discord.js")
GUILDS = 4


def test_one_line_of_the_bot_speaks_of_the_proxy() -> None:
    lines = (BOTS / FRAMEWORK.folder / "bot.mjs").read_text().splitlines()
    assert len(lines) > 100
    (line,) = [line for line in lines if "BOT_API" in line]
    assert line.strip().startswith("rest: { api: ")


@pytest.mark.world
@pytest.mark.timeout(BUILD_S)
def test_a_bot_with_commands_converters_buttons_collectors_and_its_cache_runs_with_one_line_more(
    tmp_path: Path, broker: Broker
) -> None:
    try:
        folder = prepare(FRAMEWORK.folder, NODE)
    except ToolMissing as missing:
        pytest.skip(f"discord.js needs {missing}")

    async def it() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=GUILDS, members=6, EVENT_LOG="stream") as s:
            await s.ready()
            async with proxied(tmp_path, s) as proxy, Steering(s.sim.control_url) as simulator:
                guild = Guild(simulator, (await simulator.guilds())[0])
                addresses = {
                    "api_url": f"http://{proxy.address}/api/v10",
                    "gateway_url": f"ws://{proxy.address}",
                    "token": s.sim.options.token,
                    "ca_file": None,
                }
                async with bot(FRAMEWORK, folder, tmp_path, addresses, guild.id) as seen:
                    while not seen.saw("ready"):
                        assert seen.process.returncode is None, seen.log.read_text()
                        await asyncio.sleep(POLL_S)
                    (ready,) = seen.saw("ready")
                    assert (ready["guilds"], ready["shards"]) == (GUILDS, 2)
                    await use_framework(guild, out_of_range="RangeExceeded")
            assert s.count("identify") == 2

    run(it())
