"""A whole bot of discord.py's framework behind the gateway proxy, unchanged but for two lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from rateway.demo.steering import Steering

from tests.aio import run
from tests.e2e.harness import LOOK, Json, stage
from tests.e2e.proxied import bot, proxied
from tests.rabbitmq import Broker

# A bot answers within a second or two; a machine with other work takes longer.
ANSWER_S = 60.0


class Guild:
    """A guild of the simulated world, in which one of its members speaks to the bot."""

    def __init__(self, simulator: Steering, told: Json) -> None:
        self.simulator = simulator
        self.id, self.channel_id = told["id"], told["channel_id"]
        self.user_id = told["members"][0]
        self.other_id = told["members"][1]

    async def say(self, content: str) -> None:
        await self.simulator.speak(self.user_id, self.channel_id, content)

    async def do(self, what: str, body: Json) -> None:
        """Something that a user does, in the channel."""
        await self.simulator.post(f"users/{self.user_id}/{what}", {"channel_id": self.channel_id} | body)

    async def kinds(self, kind: str) -> dict[str, Json]:
        found = await self.simulator.get(f"world?kinds={kind}&guilds={self.id}")
        entities: dict[str, Json] = found[kind]
        return entities

    async def message(self, fact: Callable[[Json], bool]) -> Json:
        """Return the newest such message as soon as there is one."""
        messages: list[Json] = []
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    messages = list((await self.kinds("message")).values())
                    found = [each for each in messages if fact(each)]
                    if found:
                        return max(found, key=lambda each: int(each["id"]))
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise AssertionError(f"no such message among {[each['content'] for each in messages]}") from None

    async def answer(self, content: str) -> Json:
        """Wait for a message of this content."""
        return await self.message(lambda each: each["content"] == content)


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
                await guild.do("commands", {"name": "add", "options": {"a": 20, "b": 22}})
                await guild.answer("42")
            assert s.count("identify") == 2

    run(it(), timeout=150)
