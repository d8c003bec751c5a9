"""A bot with an unmodified discord.py behind the gateway proxy. It notes each message that it sees in its database.

BOT_API=… BOT_GATEWAY=ws://127.0.0.1:7878/ SESSIONS=bot.db DISCORD_TOKEN=… python -m rateway.demo.library_bot
"""

from __future__ import annotations

import os

import discord
import discord.gateway
import discord.http
import yarl
from rateway.demo.kept_sessions import database

# The two lines that discord.py needs (docs/proxy.md).
discord.http.Route.BASE = os.environ["BOT_API"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["BOT_GATEWAY"])

database.execute("CREATE TABLE IF NOT EXISTS seen (message_id TEXT)")


class Bot(discord.AutoShardedClient):
    """Prints ``ready`` and ``shard N resumed``."""

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Identify at once: the proxy does not need the 5 s that discord.py waits between two shards."""

    async def on_ready(self) -> None:
        print(f"ready with {len(self.guilds)} guilds", flush=True)

    async def on_shard_resumed(self, shard_id: int) -> None:
        print(f"shard {shard_id} resumed", flush=True)

    async def on_message(self, message: discord.Message) -> None:
        # One transaction with the session's place, which is saved next: each message is noted exactly once. What it
        # said is not asked: of messages that come together discord.py has applied a later edit by now.
        database.execute("INSERT INTO seen VALUES (?)", (str(message.id),))


if __name__ == "__main__":
    intents = discord.Intents(guilds=True, guild_messages=True, message_content=True)
    Bot(intents=intents, chunk_guilds_at_startup=False).run(os.environ["DISCORD_TOKEN"])
