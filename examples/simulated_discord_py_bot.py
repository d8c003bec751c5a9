"""A bot in discord.py that runs in a simulated Discord: answers `!ping` and `/ping`.

    rateway simulate --port 1234 --api-port 1235
    DISCORD_API_URL=http://127.0.0.1:1235/api/v10 DISCORD_GATEWAY_URL=ws://127.0.0.1:1234 \\
        DISCORD_TOKEN=… python examples/simulated_discord_py_bot.py

The token is printed by `rateway simulate`. Without the two addresses and with a real token it is a real bot.
"""

import os

import discord
import discord.app_commands
import discord.gateway
import discord.http
import yarl

if "DISCORD_API_URL" in os.environ:
    # The lines that `rateway simulate` prints.
    discord.http.Route.BASE = os.environ["DISCORD_API_URL"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_GATEWAY_URL"] + "/")


class Bot(discord.Client):
    def __init__(self) -> None:
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__(intents=intents)
        self.tree = discord.app_commands.CommandTree(self)

    async def setup_hook(self) -> None:
        @self.tree.command(description="Pong?")
        async def ping(interaction: discord.Interaction) -> None:
            await interaction.response.send_message("slash pong")

        await self.tree.sync()

    async def on_message(self, message: discord.Message) -> None:
        if message.content == "!ping":
            await message.reply("pong")


if __name__ == "__main__":
    Bot().run(os.environ["DISCORD_TOKEN"])
