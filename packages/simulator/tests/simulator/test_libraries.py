"""Other people's libraries against the simulator: strict readers of its payloads, and a check of its judge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import discord
import discord.app_commands
import discord.gateway
import discord.http
import hikari
import pytest
from rateway_simulator import patches
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world import snapshot
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.mix import DEFAULT_MIX

from tests.aio import run

# Every event about as often as every other; the bot stays in its guilds.
FLAT = dict.fromkeys(DEFAULT_MIX, 1.0) | {"MESSAGE_CREATE": 15.0, "GUILD_DELETE": 0.0}
EVENTS = 6000
OPTIONS = SimulatorOptions(world=WorldOptions(guilds=12, mix=FLAT), identify_window=0.1)


async def play(simulator: Simulator) -> None:
    """A user writes to the bot and uses its command."""
    async with aiohttp.ClientSession(simulator.control_url + "/", raise_for_status=True) as users:
        (guild, *_) = await (await users.get("guilds")).json()
        where = {"channel_id": guild["channel_id"]}
        member = guild["members"][0]
        await users.post(f"users/{member}/messages", json={**where, "content": "!ping"})
        await users.post(
            f"users/{member}/commands", json={**where, "name": "ping", "options": {"text": "hello"}}
        )


async def flood(simulator: Simulator) -> None:
    """Every kind of event passes."""
    before = simulator.ledger.summary()["events"]
    simulator.set_rate(2000)
    while simulator.ledger.summary()["events"] < before + EVENTS:  # noqa: ASYNC110 - the ledger has no events
        await asyncio.sleep(0.05)
    simulator.set_rate(0)


def answers(simulator: Simulator) -> set[str]:
    """What the bot wrote into guilds."""
    messages = snapshot.state(simulator.world, ["message"])["message"].values()
    bot_id = simulator.world.bot_id
    return {message["content"] for message in messages if message["author"]["id"] == bot_id}


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what a library does in its own time; the test's time-out bounds it."""
    while not condition():  # noqa: ASYNC110 - another library's doing
        await asyncio.sleep(0.01)


async def same(seen: Callable[[], object], wanted: object) -> None:
    """Assert that a library comes to see *wanted*: it is some events behind the world for a moment."""
    try:
        async with asyncio.timeout(60):
            await eventually(lambda: seen() == wanted)
    except TimeoutError:
        assert seen() == wanted


async def with_hikari(simulator: Simulator) -> list[dict[str, Any]]:
    """hikari as its users have it, with `rest_url`; what it could not read."""
    unread: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unread.append(context))
    bot = hikari.GatewayBot(
        simulator.options.token,
        rest_url=simulator.api_url,
        intents=hikari.Intents.ALL,
        banner=None,
        logs=None,
    )

    async def on_message(event: hikari.GuildMessageCreateEvent) -> None:
        if event.content == "!ping":
            answer = await event.message.respond("pong from hikari", reply=True)
            assert answer.referenced_message is not None

    async def on_interaction(event: hikari.CommandInteractionCreateEvent) -> None:
        options = event.interaction.options
        if options and options[0].value == "hello":
            await event.interaction.create_initial_response(hikari.ResponseType.MESSAGE_CREATE, "slash hello")

    bot.subscribe(hikari.GuildMessageCreateEvent, on_message)
    bot.subscribe(hikari.CommandInteractionCreateEvent, on_interaction)
    await bot.start(check_for_updates=False)
    try:
        application = await bot.rest.fetch_application()
        command = bot.rest.slash_command_builder("ping", "Pong?")
        await bot.rest.set_application_commands(application.id, [command])
        await eventually(lambda: len(bot.cache.get_guilds_view()) == 12)
        await play(simulator)
        await eventually(lambda: {"pong from hikari", "slash hello"} <= answers(simulator))
        await flood(simulator)
        world = snapshot.state(simulator.world, ["role", "channel"])
        cache = bot.cache
        await same(
            lambda: {str(key): (role.name, int(role.color)) for key, role in cache.get_roles_view().items()},
            {key: (d["name"], d["color"]) for key, d in world["role"].items()},
        )
        await same(
            lambda: {str(key): channel.name for key, channel in cache.get_guild_channels_view().items()},
            # hikari knows no directories.
            {key: d["name"] for key, d in world["channel"].items() if d["type"] != 14},
        )
    finally:
        await bot.close()
    return unread


def test_hikari_reads_every_event_answers_and_breaks_no_rule() -> None:
    async def main() -> None:
        async with Simulator(OPTIONS) as simulator:
            assert await with_hikari(simulator) == []
            assert simulator.ledger.summary()["rules_broken"] == {}

    run(main())


class Bot(discord.Client):
    """A bot as discord.py's users write it."""

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.all())
        self.tree = discord.app_commands.CommandTree(self)
        self.failures: list[BaseException] = []

    async def setup_hook(self) -> None:
        @self.tree.command(description="Pong?")
        async def ping(interaction: discord.Interaction, text: str) -> None:
            if text == "hello":
                await interaction.response.defer(thinking=True)
                await interaction.followup.send(f"slash {text}")

        await self.tree.sync()

    async def on_message(self, message: discord.Message) -> None:
        if message.content == "!ping":
            await message.add_reaction("👍")
            answer = await message.reply("pong")
            await answer.edit(content="pong from discord.py")


async def with_discord_py(simulator: Simulator) -> None:
    """discord.py, after exactly the patch that the simulator prints."""
    exec(patches.discord_py(simulator.api_url, simulator.gateway_url))
    bot = Bot()
    running = asyncio.create_task(bot.start(simulator.options.token))
    try:
        ready = asyncio.create_task(bot.wait_until_ready())
        await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
        assert ready.done() and len(bot.guilds) == 12
        await play(simulator)
        await eventually(lambda: {"pong from discord.py", "slash hello"} <= answers(simulator))
        await flood(simulator)
        world = snapshot.state(simulator.world, ["role", "channel", "thread", "member", "emoji"])
        await same(
            lambda: {str(role.id) for guild in bot.guilds for role in guild.roles},
            set(world["role"]),
        )
        await same(
            lambda: {str(channel.id): channel.name for guild in bot.guilds for channel in guild.channels},
            # discord.py knows no directories.
            {key: d["name"] for key, d in world["channel"].items() if d["type"] != 14},
        )
        await same(
            lambda: {f"{guild.id}:{m.id}": (m.nick, m.name) for guild in bot.guilds for m in guild.members},
            {key: (d["nick"], d["user"]["username"]) for key, d in world["member"].items()},
        )
        await same(
            lambda: {str(emoji.id): emoji.name for emoji in bot.emojis},
            {key: d["name"] for key, d in world["emoji"].items()},
        )
        await same(
            lambda: {str(thread.id): thread.name for guild in bot.guilds for thread in guild.threads},
            {key: d["name"] for key, d in world["thread"].items()},
        )
    finally:
        await bot.close()
        await running


def test_discord_py_with_the_printed_patch_reads_every_event_answers_and_breaks_no_rule(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the patch changes is put back afterwards.
    monkeypatch.setattr(discord.http.Route, "BASE", discord.http.Route.BASE)
    gateway = discord.gateway.DiscordWebSocket
    monkeypatch.setattr(gateway, "DEFAULT_GATEWAY", gateway.DEFAULT_GATEWAY)

    async def main() -> None:
        async with Simulator(OPTIONS) as simulator:
            await with_discord_py(simulator)
            assert simulator.ledger.summary()["rules_broken"] == {}

    with caplog.at_level(logging.WARNING, "discord"):
        run(main())
    faults = [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING]
    assert faults == []
