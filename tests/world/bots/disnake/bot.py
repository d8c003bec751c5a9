"""A bot with disnake: see tests/world/README.md."""

import json
import os

import disnake
import disnake.http
from disnake.ext import commands

disnake.http.Route.BASE = os.environ["BOT_API"]

intents = disnake.Intents.all()
bot = commands.InteractionBot(intents=intents, chunk_guilds_at_startup=False)
asked = False


def say(saw: str, **more: object) -> None:
    print(json.dumps({"saw": saw, **more}), flush=True)


@bot.slash_command(description="Pong?")
async def ping(interaction: disnake.ApplicationCommandInteraction, text: str) -> None:
    await interaction.response.send_message(f"pong {text}")
    say("answered", text=text)


@bot.event
async def on_ready() -> None:
    global asked
    say("ready")
    if not asked:
        asked = True
        guild = bot.get_guild(int(os.environ["BOT_GUILD"]))
        say("members", count=len(await guild.chunk()))


@bot.event
async def on_resumed() -> None:
    say("resumed")


bot.run(os.environ["BOT_TOKEN"])
