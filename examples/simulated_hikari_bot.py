"""A bot in hikari that runs in a simulated Discord: answers `!ping` and `/ping`.

    rateway simulate --api-port 1235
    DISCORD_API_URL=http://127.0.0.1:1235/api/v10 DISCORD_TOKEN=… python examples/simulated_hikari_bot.py

The token is printed by `rateway simulate`. Without DISCORD_API_URL and with a real token it is a real bot.
"""

import os

import hikari

bot = hikari.GatewayBot(
    os.environ["DISCORD_TOKEN"],
    rest_url=os.environ.get("DISCORD_API_URL"),
    intents=hikari.Intents.ALL_UNPRIVILEGED | hikari.Intents.MESSAGE_CONTENT,
    banner=None,
)


@bot.listen()
async def on_started(_: hikari.StartedEvent) -> None:
    application = await bot.rest.fetch_application()
    commands = [bot.rest.slash_command_builder("ping", "Pong?")]
    await bot.rest.set_application_commands(application.id, commands)


@bot.listen()
async def on_message(event: hikari.GuildMessageCreateEvent) -> None:
    if event.content == "!ping":
        await event.message.respond("pong", reply=True)


@bot.listen()
async def on_command(event: hikari.CommandInteractionCreateEvent) -> None:
    await event.interaction.create_initial_response(hikari.ResponseType.MESSAGE_CREATE, "slash pong")


if __name__ == "__main__":
    bot.run(check_for_updates=False)
