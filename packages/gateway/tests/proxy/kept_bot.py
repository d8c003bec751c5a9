"""A bot that keeps its sessions, and notes each message in the database that they are kept in."""

from __future__ import annotations

import os

import discord
import discord.gateway
import yarl
from rateway.demo.kept_sessions import database

discord.http.Route.BASE = os.environ["BOT_API"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["BOT_GATEWAY"])

database.execute("CREATE TABLE IF NOT EXISTS seen (message_id TEXT)")


class Notes(discord.Client):
    """Prints ``ready with N guilds`` and ``resumed``."""

    async def on_ready(self) -> None:
        print(f"ready with {len(self.guilds)} guilds", flush=True)

    async def on_resumed(self) -> None:
        print("resumed", flush=True)

    async def on_message(self, message: discord.Message) -> None:
        assert message.guild is not None, "the cache is not filled"
        database.execute("INSERT INTO seen VALUES (?)", (str(message.id),))


class Sharded(Notes, discord.AutoShardedClient):
    """It reconnects in a way of its own."""


client = {"one": Notes, "sharded": Sharded}[os.environ["CLIENT"]]
intents = discord.Intents(guilds=True, guild_messages=True, message_content=True)
client(intents=intents, chunk_guilds_at_startup=False).run(os.environ["DISCORD_TOKEN"])
