"""discord.py and hikari, strict readers, read what the simulated routes answer."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import io

import discord
import discord.gateway
import discord.http
import hikari
import pytest
from rateway_simulator import patches
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.guild import Guild

from tests.aio import run

OPTIONS = SimulatorOptions(world=WorldOptions(guilds=2, members_per_guild=12), rest_per_second=1000)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
TOMORROW = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)

pytestmark = pytest.mark.checklist("K54")


def place(guild: Guild, kind: int) -> int:
    """The first channel of a kind."""
    return next(int(key) for key, d in guild.channels.items() if d["type"] == kind)


async def with_discord_py(simulator: Simulator, client: discord.Client) -> None:
    world = simulator.world.guild(simulator.world.guild_ids[0])
    world.stages.clear()
    guild = client.get_guild(world.number)
    assert guild is not None
    text = client.get_channel(place(world, 0))
    news = client.get_channel(place(world, 5))
    stage = client.get_channel(place(world, 13))
    assert isinstance(text, discord.TextChannel) and isinstance(news, discord.TextChannel)
    assert isinstance(stage, discord.StageChannel)

    hook = await text.create_webhook(name="Hook", avatar=PNG, reason="a test")
    said = await hook.send("through a webhook", wait=True, username="Somebody")
    assert (await said.edit(content="changed")).content == "changed"
    await said.delete()
    assert (
        [each.id for each in await text.webhooks()]
        == [each.id for each in await guild.webhooks()]
        == [hook.id]
    )
    await (await hook.edit(name="Another")).delete()
    entries = [entry async for entry in guild.audit_logs(limit=10)]
    assert [entry.action for entry in entries] == [
        discord.AuditLogAction.webhook_delete,
        discord.AuditLogAction.webhook_update,
        discord.AuditLogAction.webhook_create,
    ]
    assert entries[-1].reason == "a test" and entries[-1].user == client.user

    invite = await text.create_invite(max_age=3600)
    assert [each.code for each in await guild.invites()] == [each.code for each in await text.invites()]
    assert (await client.fetch_invite(invite.code)).code == invite.code
    await invite.delete()

    emoji = await guild.create_custom_emoji(name="fox", image=PNG)
    assert (await guild.fetch_emoji(emoji.id)).name == "fox"
    await emoji.delete()

    event = await guild.create_scheduled_event(
        name="Movies",
        start_time=TOMORROW,
        end_time=TOMORROW + dt.timedelta(hours=1),
        entity_type=discord.EntityType.external,
        location="here",
        privacy_level=discord.PrivacyLevel.guild_only,
    )
    assert (await guild.fetch_scheduled_event(event.id)).location == "here"
    assert [user async for user in event.users()] == []
    await (await event.start()).end()

    rule = await guild.create_automod_rule(
        name="No spam",
        event_type=discord.AutoModRuleEventType.message_send,
        trigger=discord.AutoModTrigger(keyword_filter=["spam"]),
        actions=[discord.AutoModRuleAction(custom_message="No")],
        enabled=True,
    )
    assert [each.id for each in await guild.fetch_automod_rules()] == [rule.id]
    await (await rule.edit(name="No spam at all")).delete()

    post = await news.send("news")
    await post.publish()
    assert (await news.follow(destination=text)).channel_id == text.id

    thread = await text.create_thread(name="private", type=discord.ChannelType.private_thread)
    assert [member.id for member in await thread.fetch_members()] == [client.application_id]
    await thread.edit(archived=True)
    assert [each.id async for each in text.archived_threads(private=True)] == [thread.id]
    assert [each async for each in text.archived_threads()] == []

    instance = await stage.create_instance(topic="Ask")
    assert (await stage.fetch_instance()).topic == "Ask"
    await instance.edit(topic="Tell")
    await instance.delete()

    own = await client.create_application_emoji(name="fox", image=PNG)
    assert [each.id for each in await client.fetch_application_emojis()] == [own.id]
    await (await own.edit(name="wolf")).delete()
    sticker = await guild.create_sticker(
        name="wave", description="", emoji="👋", file=discord.File(io.BytesIO(PNG), "wave.png")
    )
    assert (await guild.fetch_sticker(sticker.id)).name == "wave"
    await sticker.delete()
    sound = await guild.create_soundboard_sound(name="quack", sound=b"ID3\x03", volume=0.5)
    assert (await guild.fetch_soundboard_sound(sound.id)).volume == 0.5
    await sound.delete()

    poll = discord.Poll("Well?", duration=dt.timedelta(hours=1))
    poll.add_answer(text="yes").add_answer(text="no")
    asked = await text.send(poll=poll)
    ended = await asked.end_poll()
    assert ended.poll is not None and ended.poll.is_finalised()

    assert (
        await guild.bulk_ban([discord.Object(int(world.roster.people.id_of(world.roster.first + 1)))])
    ).banned
    assert await guild.estimate_pruned_members(days=7) is not None
    assert await guild.prune_members(days=7) is not None
    await guild.edit_welcome_screen(
        enabled=True, welcome_channels=[discord.WelcomeChannel(channel=text, description="Here")]
    )
    assert (await guild.welcome_screen()).welcome_channels[0].description == "Here"
    await guild.edit_widget(enabled=True)
    assert (await guild.widget()).id == guild.id
    template = await guild.create_template(name="Like us")
    assert [each.code for each in await guild.templates()] == [template.code]
    assert (await client.fetch_template(template.code)).name == "Like us"
    assert await guild.integrations() == []
    assert (await client.fetch_guild_preview(guild.id)).approximate_member_count
    assert await client.fetch_premium_sticker_packs()
    assert await client.fetch_soundboard_default_sounds()
    [sku] = await client.fetch_skus()
    member = discord.Object(int(world.roster.people.id_of(world.roster.first)))
    await client.create_entitlement(sku, member, discord.EntitlementOwnerType.user)
    [entitlement] = [each async for each in client.entitlements(user=member)]
    await entitlement.consume()
    await entitlement.delete()
    assert client.user is not None
    await client.user.edit(username="another")
    roles = [role for role in guild.roles if not role.is_default() and not role.managed]
    await guild.edit_role_positions({roles[0]: 5})
    await text.edit(position=3)


def test_discord_py_reads_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the patch changes is put back afterwards.
    monkeypatch.setattr(discord.http.Route, "BASE", discord.http.Route.BASE)
    gateway = discord.gateway.DiscordWebSocket
    monkeypatch.setattr(gateway, "DEFAULT_GATEWAY", gateway.DEFAULT_GATEWAY)

    async def main() -> None:
        async with Simulator(OPTIONS) as simulator:
            exec(patches.discord_py(simulator.api_url, simulator.gateway_url))
            client = discord.Client(intents=discord.Intents.all())
            running = asyncio.create_task(client.start(simulator.options.token))
            try:
                ready = asyncio.create_task(client.wait_until_ready())
                await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
                await with_discord_py(simulator, client)
            finally:
                await client.close()
                await running
            assert simulator.ledger.summary()["rules_broken"] == {}

    run(main())


async def with_hikari(simulator: Simulator, rest: hikari.api.RESTClient) -> None:
    world = simulator.world.guild(simulator.world.guild_ids[0])
    world.stages.clear()
    guild, text, news, stage = world.number, place(world, 0), place(world, 5), place(world, 13)

    hook = await rest.create_webhook(text, "Hook", avatar=hikari.Bytes(PNG, "x.png"), reason="a test")
    said = await hook.execute("through a webhook", username="Somebody")
    assert (await hook.edit_message(said, "changed")).content == "changed"
    await hook.delete_message(said)
    assert [each.id for each in await rest.fetch_guild_webhooks(guild)] == [hook.id]
    assert [each.id for each in await rest.fetch_channel_webhooks(text)] == [hook.id]
    await rest.edit_webhook(hook, name="Another")
    await rest.delete_webhook(hook)
    logs = [log async for log in rest.fetch_audit_log(guild)]
    kinds = [entry.action_type for log in logs for entry in log.entries.values()]
    assert hikari.AuditLogEventType.WEBHOOK_CREATE in kinds

    invite = await rest.create_invite(text, max_age=3600)
    assert [each.code for each in await rest.fetch_guild_invites(guild)] == [invite.code]
    assert [each.code for each in await rest.fetch_channel_invites(text)] == [invite.code]
    assert (await rest.fetch_invite(invite)).code == invite.code
    await rest.delete_invite(invite)

    emoji = await rest.create_emoji(guild, "fox", hikari.Bytes(PNG, "x.png"))
    assert (await rest.fetch_emoji(guild, emoji)).name == "fox"
    await rest.delete_emoji(guild, emoji)

    event = await rest.create_external_event(
        guild, "Movies", "here", TOMORROW, TOMORROW + dt.timedelta(hours=1)
    )
    assert (await rest.fetch_scheduled_event(guild, event)).name == "Movies"
    assert await rest.fetch_scheduled_event_users(guild, event) == []
    await rest.edit_scheduled_event(guild, event, status=hikari.ScheduledEventStatus.ACTIVE)
    await rest.delete_scheduled_event(guild, event)

    rule = await rest.create_auto_mod_rule(
        guild,
        name="No spam",
        event_type=hikari.AutoModEventType.MESSAGE_SEND,
        trigger=hikari.impl.AutoModSpamTriggerBuilder(),
        actions=[hikari.impl.AutoModBlockMessageActionBuilder()],
    )
    assert [each.id for each in await rest.fetch_auto_mod_rules(guild)] == [rule.id]
    await rest.delete_auto_mod_rule(guild, rule)

    post = await rest.create_message(news, "news")
    await rest.crosspost_message(news, post)
    assert (await rest.follow_channel(news, text)).channel_id == news

    thread = await rest.create_thread(text, hikari.ChannelType.GUILD_PRIVATE_THREAD, "private")
    assert [member.user_id for member in await rest.fetch_thread_members(thread)] == [
        int(simulator.world.bot_id)
    ]
    await rest.edit_channel(thread, archived=True)
    assert [each.id async for each in rest.fetch_private_archived_threads(text)] == [thread.id]
    assert [each async for each in rest.fetch_public_archived_threads(text)] == []
    assert [each.id async for each in rest.fetch_joined_private_archived_threads(text)] == [thread.id]

    instance = await rest.create_stage_instance(
        stage, topic="Ask", privacy_level=hikari.StageInstancePrivacyLevel.GUILD_ONLY
    )
    assert (await rest.fetch_stage_instance(stage)).topic == instance.topic
    await rest.edit_stage_instance(stage, topic="Tell")
    await rest.delete_stage_instance(stage)

    assert await rest.estimate_guild_prune_count(guild) is not None
    assert await rest.begin_guild_prune(guild) is not None
    channel = hikari.WelcomeChannel(channel_id=hikari.Snowflake(text), description="Here")
    assert (await rest.edit_welcome_screen(guild, channels=[channel])).channels[0].description == "Here"
    assert (await rest.fetch_welcome_screen(guild)).channels
    assert (await rest.fetch_widget(guild)).is_enabled is not None
    template = await rest.create_template(guild, "Like us")
    assert (await rest.fetch_template(template)).name == "Like us"
    assert [each.code for each in await rest.fetch_guild_templates(guild)] == [template.code]
    assert await rest.fetch_integrations(guild) == []
    assert (await rest.fetch_guild_preview(guild)).approximate_member_count
    assert await rest.fetch_available_sticker_packs()
    assert await rest.fetch_voice_regions() and await rest.fetch_guild_voice_regions(guild)
    application = await rest.fetch_application()
    [sku] = await rest.fetch_skus(application)
    person = int(world.roster.people.id_of(world.roster.first))
    entitlement = await rest.create_test_entitlement(
        application, sku=sku, owner_id=person, owner_type=hikari.monetization.EntitlementOwnerType.USER
    )
    assert [each.id for each in await rest.fetch_entitlements(application)] == [entitlement.id]
    await rest.delete_test_entitlement(application, entitlement)
    assert (await rest.edit_my_user(username="another")).username == "another"
    await rest.reposition_roles(guild, {5: int(list(world.roles)[2])})
    await rest.reposition_channels(guild, {3: text})


def test_hikari_reads_the_answers() -> None:
    async def main() -> None:
        async with Simulator(OPTIONS) as simulator:
            app = hikari.RESTApp(url=simulator.api_url)
            await app.start()
            try:
                async with app.acquire(simulator.options.token, hikari.TokenType.BOT) as rest:
                    await with_hikari(simulator, rest)
            finally:
                await app.close()
            assert simulator.ledger.summary()["rules_broken"] == {}

    run(main())
