"""A bot as people write them with discord.py: cogs, converters, views, a paginator that waits for its user, the cache
of members, a slash command. Two of its lines send it to the gateway proxy.
"""

from __future__ import annotations

import json
import os
from typing import Any

import discord
import discord.gateway
import discord.http
import yarl
from discord import app_commands
from discord.ext import commands

discord.http.Route.BASE = f"http://{os.environ['PROXY']}/api/v10"
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(f"ws://{os.environ['PROXY']}/")


class Temperature(commands.Converter[float]):
    """`20C` or `68F`, in degrees Celsius."""

    async def convert(self, ctx: commands.Context[Any], argument: str) -> float:
        """Read one. Raises BadArgument."""
        value, unit = argument[:-1], argument[-1:].upper()
        try:
            degrees = float(value)
        except ValueError:
            raise commands.BadArgument(f"{argument} is no temperature") from None
        if unit == "C":
            return degrees
        if unit == "F":
            return (degrees - 32) * 5 / 9
        raise commands.BadArgument(f"{argument} has no unit")


class Confirm(discord.ui.View):
    """Two buttons; the answer is written into the message."""

    @discord.ui.button(label="Yes", style=discord.ButtonStyle.green, custom_id="yes")
    async def yes(self, interaction: discord.Interaction, button: discord.ui.Button[Confirm]) -> None:
        """Pressed."""
        await interaction.response.edit_message(content=f"confirmed by {interaction.user.name}", view=None)
        self.stop()

    @discord.ui.button(label="No", style=discord.ButtonStyle.red, custom_id="no")
    async def no(self, interaction: discord.Interaction, button: discord.ui.Button[Confirm]) -> None:
        """Pressed."""
        await interaction.response.edit_message(content="cancelled", view=None)
        self.stop()


class Tools(commands.Cog):
    """Converters, and what they refuse."""

    @commands.command()
    async def hello(
        self, ctx: commands.Context[Any], member: discord.Member, *, words: str = "hello"
    ) -> None:
        """Greet a member."""
        await ctx.send(f"{words}, {member.display_name}, of {len(member.roles)} roles")

    @commands.command(aliases=["temp"])
    async def celsius(self, ctx: commands.Context[Any], temperature: Temperature) -> None:
        """Convert."""
        await ctx.send(f"{temperature:.1f} C")

    @commands.command()
    async def count(self, ctx: commands.Context[Any]) -> None:
        """Count by the cache alone."""
        assert ctx.guild is not None
        humans = sum(not member.bot for member in ctx.guild.members)
        await ctx.send(f"{humans} members, {len(ctx.guild.text_channels)} text channels")

    @commands.command()
    async def ask(self, ctx: commands.Context[Any]) -> None:
        """Ask by buttons."""
        await ctx.send("sure?", view=Confirm())


class Pages(commands.Cog):
    """A paginator: the next page each time that its user says so."""

    def __init__(self, bot: commands.AutoShardedBot) -> None:
        self.bot = bot

    @commands.command()
    async def pages(self, ctx: commands.Context[Any], pages: commands.Range[int, 1, 10]) -> None:
        """Show pages."""
        message = await ctx.send("page 1")

        def is_next(said: discord.Message) -> bool:
            return said.channel == ctx.channel and said.author == ctx.author and said.content == "next"

        for page in range(2, pages + 1):
            try:
                await self.bot.wait_for("message", check=is_next, timeout=60)
            except TimeoutError:
                await message.edit(content="no more")
                return
            await message.edit(content=f"page {page}")


class Bot(commands.AutoShardedBot):
    """Loads its cogs and registers its slash command before it connects."""

    async def setup_hook(self) -> None:
        await self.add_cog(Tools())
        await self.add_cog(Pages(self))

        @self.tree.command(description="Add two numbers")
        @app_commands.describe(a="the first", b="the second")
        async def add(interaction: discord.Interaction, a: int, b: int) -> None:
            await interaction.response.send_message(f"{a + b}")

        await self.tree.sync()

    async def on_command_error(self, ctx: commands.Context[Any], error: Exception) -> None:
        """Say what was wrong."""
        await ctx.send(type(error).__name__)

    async def on_ready(self) -> None:
        print(json.dumps({"saw": "ready", "guilds": len(self.guilds)}), flush=True)


Bot(command_prefix="!", intents=discord.Intents.all()).run(os.environ["TOKEN"])
