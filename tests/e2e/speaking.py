"""A guild of the simulated world, in which a test speaks to a bot as one of its members, and waits for its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from rateway.demo.steering import Steering

from tests.e2e.harness import LOOK, Json

__all__ = ["Guild", "use_framework"]

# A bot answers within a second or two; a machine with other work takes longer.
ANSWER_S = 60.0
# A user tries again.
AGAIN_S = 5.0


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

    async def command(self, name: str, options: Json, answer: str) -> None:
        """Use a slash command until its answer stands in the channel: one that comes after three seconds is refused."""
        for _ in range(round(ANSWER_S / AGAIN_S)):
            await self.do("commands", {"name": name, "options": options})
            with contextlib.suppress(AssertionError):
                await self.message(lambda each: each["content"] == answer, AGAIN_S)
                return
        raise AssertionError(f"/{name} was not answered with {answer!r}")

    async def message(self, fact: Callable[[Json], bool], patience: float = ANSWER_S) -> Json:
        """Return the newest such message as soon as there is one."""
        messages: list[Json] = []
        try:
            async with asyncio.timeout(patience):
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


async def use_framework(guild: Guild, *, out_of_range: str) -> None:
    """Say what the framework bots of tests/e2e and tests/world answer, and see each answer. *out_of_range*: the word of
    the bot's framework for a number that is too large."""
    members = {each["user"]["id"]: each for each in (await guild.kinds("member")).values()}
    other, user = members[guild.other_id], members[guild.user_id]["user"]["username"]
    name = other["nick"] or other["user"]["global_name"] or other["user"]["username"]

    # Converters: a member by its mention from the cache, a number, a range; and what they refuse.
    await guild.say(f"!hello <@{guild.other_id}> good morning")
    await guild.answer(f"good morning, {name}, of {len(other['roles']) + 1} roles")
    await guild.say("!temp 68F")
    await guild.answer("20.0 C")
    await guild.say("!celsius warm")
    await guild.answer("BadArgument")
    await guild.say("!pages 11")
    await guild.answer(out_of_range)
    humans = sum(not each["user"].get("bot") for each in members.values())
    await guild.say("!count")
    await guild.message(lambda each: each["content"].startswith(f"{humans} members, "))

    # A button is an interaction, answered by REST through the proxy.
    await guild.say("!ask")
    asked = await guild.answer("sure?")
    await guild.do("components", {"message_id": asked["id"], "custom_id": "yes"})
    await guild.message(lambda each: each["id"] == asked["id"] and each["content"] == f"confirmed by {user}")

    # A paginator that waits for its user, who says it again while nothing happens.
    await guild.say("!pages 2")
    shown = await guild.answer("page 1")
    while (await guild.message(lambda each: each["id"] == shown["id"]))["content"] != "page 2":
        await guild.say("next")
        await asyncio.sleep(1.0)

    # A slash command.
    await guild.command("add", {"a": 20, "b": 22}, "42")
