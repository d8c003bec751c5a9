"""A bot with discord.py: see tests/world/README.md."""

import json
import os

import discord
import discord.gateway
import discord.http
import yarl
from discord import app_commands

discord.http.Route.BASE = os.environ["BOT_API"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["BOT_GATEWAY"] + "/")


def say(saw: str, **more: object) -> None:
    print(json.dumps({"saw": saw, **more}), flush=True)


class Bot(discord.AutoShardedClient):
    def __init__(self) -> None:
        intents = discord.Intents.all()
        shards = int(os.environ["BOT_SHARDS"])
        super().__init__(
            intents=intents,
            chunk_guilds_at_startup=False,
            shard_count=shards,
            status=discord.Status.idle,
            activity=discord.Game("the journey"),
        )
        self.tree = app_commands.CommandTree(self)
        self.asked = False

    async def setup_hook(self) -> None:
        @self.tree.command(description="Pong?")
        async def ping(interaction: discord.Interaction, text: str) -> None:
            await interaction.response.send_message(f"pong {text}")
            say("answered", text=text)

        await self.tree.sync()

    async def on_shard_ready(self, shard_id: int) -> None:
        say("ready")

    async def on_ready(self) -> None:
        if not self.asked:
            self.asked = True
            guild = self.get_guild(int(os.environ["BOT_GUILD"]))
            say("members", count=len(await guild.chunk()))

    async def on_shard_resumed(self, shard_id: int) -> None:
        say("resumed")

    async def on_message(self, message: discord.Message) -> None:
        if message.content.startswith("note "):
            say("note", text=message.content)


Bot().run(os.environ["BOT_TOKEN"])
