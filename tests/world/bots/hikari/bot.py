"""A bot with hikari: see tests/world/README.md."""

import json
import os

import hikari

bot = hikari.GatewayBot(
    os.environ["BOT_TOKEN"],
    rest_url=os.environ["BOT_API"],
    intents=hikari.Intents.ALL,
    # Members come by the request below alone: a second one within 30 s would break a rule of Discord.
    auto_chunk_members=False,
    banner=None,
)
members: set[int] = set()
asked = False


def say(saw: str, **more: object) -> None:
    print(json.dumps({"saw": saw, **more}), flush=True)


@bot.listen()
async def on_starting(event: hikari.StartingEvent) -> None:
    application = await bot.rest.fetch_application()
    command = bot.rest.slash_command_builder("ping", "Pong?").add_option(
        hikari.CommandOption(
            type=hikari.OptionType.STRING, name="text", description="What to say", is_required=True
        )
    )
    await bot.rest.set_application_commands(application.id, [command])


@bot.listen()
async def on_ready(event: hikari.ShardReadyEvent) -> None:
    global asked
    say("ready")
    guild_id = int(os.environ["BOT_GUILD"])
    # The shard of a guild: Discord documentation, "Gateway": "Sharding".
    if not asked and event.shard.id == (guild_id >> 22) % event.shard.shard_count:
        asked = True
        await event.shard.request_guild_members(hikari.Snowflake(guild_id), nonce="members")


@bot.listen()
async def on_resumed(event: hikari.ShardResumedEvent) -> None:
    say("resumed")


@bot.listen()
async def on_message(event: hikari.GuildMessageCreateEvent) -> None:
    if event.content and event.content.startswith("note "):
        say("note", text=event.content)


@bot.listen()
async def on_members(event: hikari.MemberChunkEvent) -> None:
    members.update(event.members)
    if event.chunk_index + 1 == event.chunk_count:
        say("members", count=len(members))


@bot.listen()
async def on_command(event: hikari.CommandInteractionCreateEvent) -> None:
    text = event.interaction.options[0].value
    await event.interaction.create_initial_response(hikari.ResponseType.MESSAGE_CREATE, f"pong {text}")
    say("answered", text=text)


bot.run(
    check_for_updates=False,
    shard_count=int(os.environ["BOT_SHARDS"]),
    status=hikari.Status.IDLE,
    activity=hikari.Activity(name="the journey"),
)
