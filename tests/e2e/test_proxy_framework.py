"""A whole bot of discord.py's framework behind the gateway proxy, unchanged but for two lines."""

from __future__ import annotations

from pathlib import Path

from rateway.demo.steering import Steering

from tests.aio import run
from tests.e2e.harness import stage
from tests.e2e.proxied import bot, proxied
from tests.e2e.speaking import Guild, use_framework
from tests.rabbitmq import Broker


def test_a_bot_with_cogs_converters_views_a_paginator_and_its_cache_runs_with_two_lines_more(
    tmp_path: Path, broker: Broker
) -> None:
    async def it() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=4, members=6, EVENT_LOG="stream") as s:
            await s.ready()
            async with (
                proxied(tmp_path, s) as proxy,
                bot("discord_py_framework", tmp_path, proxy.address, s.sim.options.token) as seen,
                Steering(s.sim.control_url) as simulator,
            ):
                await seen.until_saw("ready")
                guild = Guild(simulator, (await simulator.guilds())[0])
                await use_framework(guild, out_of_range="RangeError")
            assert s.count("identify") == 2

    run(it())
