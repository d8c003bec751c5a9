"""A bot with an unmodified discord.py behind the gateway proxy. It writes down each ``!ping`` that it sees.

BOT_API=… BOT_GATEWAY=ws://127.0.0.1:7878/ DISCORD_TOKEN=… python -m rateway.demo.library_bot
"""

from __future__ import annotations

import os

import discord
import discord.gateway
import discord.http
import yarl

# The two lines that discord.py needs (docs/proxy.md).
discord.http.Route.BASE = os.environ["BOT_API"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["BOT_GATEWAY"])


class Bot(discord.AutoShardedClient):
    """Prints ``ready``, ``saw ID`` for each ``!ping``, and ``shard N resumed``."""

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Identify at once: the proxy does not need the 5 s that discord.py waits between two shards."""

    async def on_ready(self) -> None:
        print(f"ready with {len(self.guilds)} guilds", flush=True)

    async def on_shard_resumed(self, shard_id: int) -> None:
        print(f"shard {shard_id} resumed", flush=True)

    async def on_message(self, message: discord.Message) -> None:
        if message.content == "!ping":
            print(f"saw {message.id}", flush=True)


if __name__ == "__main__":
    intents = discord.Intents(guilds=True, guild_messages=True, message_content=True)
    Bot(intents=intents, chunk_guilds_at_startup=False).run(os.environ["DISCORD_TOKEN"])
