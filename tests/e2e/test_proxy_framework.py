"""A whole bot of discord.py's framework behind the gateway proxy, unchanged but for two lines."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rateway.demo.steering import Steering

from tests.aio import run
from tests.e2e.harness import stage
from tests.e2e.proxied import bot, proxied
from tests.e2e.speaking import Guild
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
                members = {each["user"]["id"]: each for each in (await guild.kinds("member")).values()}
                other = members[guild.other_id]
                name = other["nick"] or other["user"]["global_name"] or other["user"]["username"]

                # Converters: a member by its mention from the cache, a number, a range; and what they refuse.
                await guild.say(f"!hello <@{guild.other_id}> good morning")
                await guild.answer(f"good morning, {name}, of {len(other['roles']) + 1} roles")
                await guild.say("!temp 68F")
                await guild.answer("20.0 C")
                await guild.say("!celsius warm")
                await guild.answer("BadArgument")
                await guild.say("!pages 11")
                await guild.answer("RangeError")
                humans = sum(not each["user"].get("bot") for each in members.values())
                await guild.say("!count")
                await guild.message(lambda each: each["content"].startswith(f"{humans} members, "))

                # A view: a button is an interaction, answered by REST through the proxy.
                await guild.say("!ask")
                asked = await guild.answer("sure?")
                await guild.do("components", {"message_id": asked["id"], "custom_id": "yes"})
                user = members[guild.user_id]["user"]["username"]
                await guild.message(
                    lambda each: each["id"] == asked["id"] and each["content"] == f"confirmed by {user}"
                )

                # A paginator that waits for its user, who says it again while nothing happens.
                await guild.say("!pages 2")
                shown = await guild.answer("page 1")
                while (await guild.message(lambda each: each["id"] == shown["id"]))["content"] != "page 2":
                    await guild.say("next")
                    await asyncio.sleep(1.0)

                # A slash command.
                await guild.command("add", {"a": 20, "b": 22}, "42")
            assert s.count("identify") == 2

    run(it(), timeout=150)
