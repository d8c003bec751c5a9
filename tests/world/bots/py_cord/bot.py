"""A bot with py-cord: see tests/world/README.md."""

import json
import os

import discord
import discord.http

discord.http.Route.API_BASE_URL = os.environ["BOT_API"]

intents = discord.Intents.all()
bot = discord.AutoShardedBot(
    intents=intents,
    chunk_guilds_at_startup=False,
    shard_count=int(os.environ["BOT_SHARDS"]),
    status=discord.Status.idle,
    activity=discord.Game("the journey"),
)
asked = False


def say(saw: str, **more: object) -> None:
    print(json.dumps({"saw": saw, **more}), flush=True)


@bot.slash_command(description="Pong?")
async def ping(context: discord.ApplicationContext, text: str) -> None:
    await context.respond(f"pong {text}")
    say("answered", text=text)


@bot.event
async def on_shard_ready(shard_id: int) -> None:
    say("ready")


@bot.event
async def on_ready() -> None:
    global asked
    if not asked:
        asked = True
        guild = bot.get_guild(int(os.environ["BOT_GUILD"]))
        await guild.chunk()
        say("members", count=len(guild.members))


@bot.event
async def on_shard_resumed(shard_id: int) -> None:
    say("resumed")


@bot.event
async def on_message(message: discord.Message) -> None:
    if message.content.startswith("note "):
        say("note", text=message.content)


bot.run(os.environ["BOT_TOKEN"])
