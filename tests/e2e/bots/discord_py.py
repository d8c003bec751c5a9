"""A bot with discord.py behind the gateway proxy: an unmodified library, and the two lines that send it there.

It writes a line of JSON for each thing that it sees.
"""

from __future__ import annotations

import json
import os

import discord
import discord.gateway
import discord.http
import yarl

discord.http.Route.BASE = f"http://{os.environ['PROXY']}/api/v10"
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(f"ws://{os.environ['PROXY']}/")


def say(saw: str, **more: object) -> None:
    """Tell the test."""
    print(json.dumps({"saw": saw, **more}), flush=True)


class Bot(discord.AutoShardedClient):
    """Says what it sees of guilds and messages, and answers `ping` by REST."""

    async def on_ready(self) -> None:
        guilds = {
            str(guild.id): {
                "members": len(guild.members),
                "channels": len(guild.channels),
                "me": guild.me is not None,
            }
            for guild in self.guilds
        }
        assert self.user is not None
        say("ready", shards=self.shard_count, guilds=guilds, user=str(self.user.id))

    async def on_shard_ready(self, shard_id: int) -> None:
        say("shard_ready", shard=shard_id)

    async def on_shard_resumed(self, shard_id: int) -> None:
        say("resumed", shard=shard_id)

    async def on_shard_disconnect(self, shard_id: int) -> None:
        say("disconnected", shard=shard_id)

    async def on_message(self, message: discord.Message) -> None:
        say("message", id=str(message.id), content=message.content)
        if message.content == "ping":
            answer = await message.channel.send("pong")
            say("answered", id=str(answer.id))


Bot(intents=discord.Intents.all()).run(os.environ["TOKEN"])
