"""A bot with hikari behind the gateway proxy: an unmodified library, and the one argument that sends it there.

It writes a line of JSON for each thing that it sees. With `ask` in DO it asks for the members of its guilds by op 8,
with `say` it writes a message in each.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import hikari

bot = hikari.GatewayBot(
    os.environ["TOKEN"],
    rest_url=f"http://{os.environ['PROXY']}/api/v10",
    intents=hikari.Intents.ALL,
    auto_chunk_members=False,
    banner=None,
)
members: Counter[int] = Counter()


def say(saw: str, **more: object) -> None:
    """Tell the test."""
    print(json.dumps({"saw": saw, **more}), flush=True)


@bot.listen()
async def on_ready(event: hikari.ShardReadyEvent) -> None:
    say("ready", shard=event.shard.id, shards=event.shard.shard_count, guilds=len(event.unavailable_guilds))


@bot.listen()
async def on_guild(event: hikari.GuildAvailableEvent) -> None:
    say("guild", id=str(event.guild_id), members=len(event.members), channels=len(event.channels))
    if "ask" in os.environ["DO"]:
        await event.shard.request_guild_members(event.guild_id)
    if "say" in os.environ["DO"]:
        channel = next(each for each in event.channels.values() if each.type is hikari.ChannelType.GUILD_TEXT)
        message = await bot.rest.create_message(channel.id, "by REST through the proxy")
        say("written", id=str(message.id))


@bot.listen()
async def on_members(event: hikari.MemberChunkEvent) -> None:
    members[event.guild_id] += len(event.members)
    if event.chunk_index + 1 == event.chunk_count:
        say("members", id=str(event.guild_id), count=members[event.guild_id])


@bot.listen()
async def on_message(event: hikari.GuildMessageCreateEvent) -> None:
    say("message", id=str(event.message_id), content=event.content)


@bot.listen()
async def on_resumed(event: hikari.ShardResumedEvent) -> None:
    say("resumed", shard=event.shard.id)


bot.run(check_for_updates=False)
