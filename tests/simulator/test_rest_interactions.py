"""Commands, interactions and their answers; and playing the users over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rateway.simulator.people import BOT_ID
from rateway.simulator.world_dispatch import WorldOptions
from tests.aio import run

from .api import Api, api

COMMANDS = f"applications/{BOT_ID}/commands"


def with_api(test: Callable[[Api], Awaitable[None]]) -> None:
    async def main() -> None:
        async with api() as running:
            await test(running)

    run(main())


async def asked(it: Api, **body: Any) -> dict[str, Any]:
    """A slash command in the first text channel; gives the interaction."""
    where = {"channel_id": it.channel(), "name": "ping"}
    d: dict[str, Any] = await it.do("POST", f"/simulator/users/{it.person()}/commands", where | body)
    assert it.dispatched() == [("INTERACTION_CREATE", d)]
    return d


def callback(d: dict[str, Any]) -> str:
    return f"interactions/{d['id']}/{d['token']}/callback"


def webhook(d: dict[str, Any]) -> str:
    return f"webhooks/{BOT_ID}/{d['token']}"


# Commands


def test_commands_are_registered_replaced_changed_and_deleted() -> None:
    async def test(it: Api) -> None:
        made = await it.do("POST", COMMANDS, {"name": "ping", "description": "Pong?"})
        assert made["type"] == 1 and made["application_id"] == BOT_ID and made["options"] == []
        status, again, _ = await it.ask("POST", COMMANDS, {"name": "ping", "description": "Pong!"})
        assert (status, again["id"], again["version"] > made["version"]) == (200, made["id"], True)
        changed = await it.do("PATCH", f"{COMMANDS}/{made['id']}", {"description": "Pong."})
        assert await it.do("GET", COMMANDS) == [changed]
        menu = {"name": "Show Avatar", "type": 2}
        replaced = await it.do("PUT", COMMANDS, [{"name": "ping", "description": "p"}, menu])
        assert [d["name"] for d in replaced] == ["ping", "Show Avatar"] and replaced[0]["id"] == made["id"]
        await it.do("DELETE", f"{COMMANDS}/{made['id']}")
        assert await it.fails("GET", f"{COMMANDS}/{made['id']}") == (404, 10063)
        in_guild = f"applications/{BOT_ID}/guilds/{it.guild.id}/commands"
        local = await it.do("POST", in_guild, {"name": "local", "description": "here"})
        assert local["guild_id"] == it.guild.id and await it.do("GET", in_guild) == [local]

    with_api(test)


def test_a_command_that_discord_would_refuse_is_refused() -> None:
    async def test(it: Api) -> None:
        for body in (
            {"name": "Ping", "description": "x"},
            {"name": "ping"},
            {"name": "a b", "description": "x"},
        ):
            assert await it.fails("POST", COMMANDS, body) == (400, 50035)
        assert await it.fails("PUT", COMMANDS, {"name": "ping"}) == (400, 50035)

    with_api(test)


# Interactions


def test_a_command_names_who_where_and_what_is_resolved() -> None:
    async def test(it: Api) -> None:
        command = await it.do("POST", COMMANDS, {"name": "who", "description": "Who?"})
        other = it.person(2)
        option = {"name": "user", "type": 6, "value": other}
        d = await asked(it, name="who", options=[option])
        assert d["data"]["id"] == command["id"] and d["data"]["options"] == [option]
        assert d["data"]["resolved"]["users"][other]["id"] == other
        assert not {"user", "deaf", "mute"} & set(d["data"]["resolved"]["members"][other])
        assert d["member"]["user"]["id"] == it.person() and d["guild_id"] == it.guild.id and d["type"] == 2
        assert d["channel"]["id"] == it.channel()

    with_api(test)


def test_the_first_answer_is_a_message_and_there_is_one_first_answer() -> None:
    async def test(it: Api) -> None:
        d = await asked(it)
        answer = {"type": 4, "data": {"content": "pong"}}
        assert await it.do("POST", callback(d), answer) is None
        ((name, message),) = it.dispatched()
        assert name == "MESSAGE_CREATE" and message["content"] == "pong" and message["type"] == 20
        assert message["interaction_metadata"]["user"]["id"] == it.person()
        assert message["interaction"]["name"] == "ping"
        assert await it.fails("POST", callback(d), answer) == (400, 40060)
        original = await it.do("GET", f"{webhook(d)}/messages/@original")
        assert original["id"] == message["id"]
        edited = await it.do("PATCH", f"{webhook(d)}/messages/@original", {"content": "pong!"})
        assert edited["content"] == "pong!" and it.dispatched()[0][0] == "MESSAGE_UPDATE"
        followed = await it.do("POST", webhook(d), {"content": "and more"})
        assert followed["referenced_message"]["id"] == message["id"]
        await it.do("DELETE", f"{webhook(d)}/messages/{followed['id']}")
        assert it.dispatched()[-1][0] == "MESSAGE_DELETE"

    with_api(test)


def test_a_deferred_answer_loads_until_the_first_follow_up() -> None:
    async def test(it: Api) -> None:
        d = await asked(it)
        response = await it.do("POST", callback(d) + "?with_response=true", {"type": 5})
        assert response["interaction"]["response_message_loading"] is True
        loading = response["resource"]["message"]
        assert loading["flags"] == 1 << 7 and loading["content"] == ""
        done = await it.do("POST", webhook(d), {"content": "done"})
        assert (done["id"], done["content"], done["flags"]) == (loading["id"], "done", 0)
        assert [name for name, _ in it.dispatched()] == ["MESSAGE_CREATE", "MESSAGE_UPDATE"]

    with_api(test)


def test_an_ephemeral_answer_is_a_direct_message_without_guild_and_in_no_channel() -> None:
    async def test(it: Api) -> None:
        d = await asked(it)
        await it.do("POST", callback(d), {"type": 4, "data": {"content": "only you", "flags": 64}})
        ((name, message),) = it.dispatched()
        assert name == "MESSAGE_CREATE" and "guild_id" not in message and "member" not in message
        assert await it.do("GET", f"channels/{it.channel()}/messages") == []
        await it.do("DELETE", f"{webhook(d)}/messages/@original")
        assert it.dispatched() == [("MESSAGE_DELETE", {"id": message["id"], "channel_id": it.channel()})]

    with_api(test)


def test_an_answer_that_comes_too_late_is_refused() -> None:
    async def test(it: Api) -> None:
        first, second = await asked(it), await asked(it)
        it.world.app.asked[first["token"]].wall -= 4
        assert await it.fails("POST", callback(first), {"type": 5}) == (404, 10062)
        await it.do("POST", callback(second), {"type": 5})
        it.world.app.asked[second["token"]].wall -= 1000
        assert await it.fails("POST", webhook(second), {"content": "x"}) == (401, 50027)

    with_api(test)


def test_a_pressed_button_updates_its_message() -> None:
    async def test(it: Api) -> None:
        row = {"type": 1, "components": [{"type": 2, "style": 1, "label": "Go", "custom_id": "go"}]}
        message = await it.do(
            "POST", f"channels/{it.channel()}/messages", {"content": "?", "components": [row]}
        )
        it.dispatched()
        body = {"channel_id": it.channel(), "message_id": message["id"], "custom_id": "go"}
        d = await it.do("POST", f"/simulator/users/{it.person()}/components", body)
        assert d["type"] == 3 and d["data"]["custom_id"] == "go" and d["message"]["id"] == message["id"]
        await it.do("POST", callback(d), {"type": 7, "data": {"content": "gone", "components": []}})
        name, updated = it.dispatched()[-1]
        assert (name, updated["id"], updated["content"]) == ("MESSAGE_UPDATE", message["id"], "gone")

    with_api(test)


# Playing the others


def test_a_user_writes_directly_when_no_channel_is_named() -> None:
    async def test(it: Api) -> None:
        await it.do("POST", f"/simulator/users/{it.person()}/messages", {"content": "psst"})
        ((name, d),) = it.dispatched()
        assert name == "MESSAGE_CREATE" and "guild_id" not in d and d["author"]["id"] == it.person()
        d = await it.do("POST", f"/simulator/users/{it.person()}/commands", {"name": "ping"})
        assert d["user"]["id"] == it.person() and "member" not in d and d["context"] == 1

    with_api(test)


def test_users_come_speak_rename_themselves_and_go() -> None:
    async def test(it: Api) -> None:
        user = await it.do("POST", "/simulator/users")
        as_user = f"/simulator/users/{user['id']}"
        write = {"channel_id": it.channel(), "content": "hi"}
        assert await it.fails("POST", f"{as_user}/messages", write) == (404, 10007)
        await it.do("POST", f"{as_user}/join", {"guild_id": it.guild.id})
        await it.do("POST", f"{as_user}/messages", write)
        await it.do("PATCH", as_user, {"global_name": "Somebody"})
        voice = {"guild_id": it.guild.id, "channel_id": it.channel(2)}
        await it.do("POST", f"{as_user}/voice", voice)
        await it.do("POST", f"{as_user}/leave", {"guild_id": it.guild.id})
        names = [name for name, _ in it.dispatched()]
        assert names == [
            "GUILD_MEMBER_ADD",
            "MESSAGE_CREATE",
            "GUILD_MEMBER_UPDATE",
            "VOICE_STATE_UPDATE",
            "VOICE_STATE_UPDATE",
            "GUILD_MEMBER_REMOVE",
        ]

    with_api(test)


def test_the_members_to_speak_as_are_people() -> None:
    async def main() -> None:
        # Every 97th user is a bot: guilds that have one from its first member to its last.
        async with api(WorldOptions(guilds=100, members_per_guild=12)) as it:
            people = it.world.people
            for listed in await it.do("GET", "/simulator/guilds"):
                indices = [people.index_of(user_id) for user_id in listed["members"]]
                assert len(indices) == 5
                assert not [index for index in indices if index is None or people.user(index)["bot"]]

    run(main())


def test_the_bot_is_moved_in_and_out_of_guilds_and_the_world_can_be_read() -> None:
    async def test(it: Api) -> None:
        new = (await it.do("POST", "/simulator/guilds", {}))["id"]
        listed = await it.do("GET", "/simulator/guilds")
        assert new in {guild["id"] for guild in listed} and all(guild["channel_id"] for guild in listed)
        for change in ("outage", "recover", "leave"):
            await it.do("POST", f"/simulator/guilds/{new}/{change}")
        told = [(name, d.get("unavailable")) for name, d in it.dispatched()]
        assert told == [
            ("GUILD_CREATE", None),
            ("GUILD_DELETE", True),
            ("GUILD_CREATE", False),
            ("GUILD_DELETE", None),
        ]
        world = await it.do("GET", f"/simulator/world?kinds=role,member&guilds={it.guild.id}")
        assert set(world) == {"role", "member"} and set(world["role"]) == set(it.guild.roles)
        assert await it.fails("GET", "/simulator/world?kinds=rolls") == (400, 50035)

    with_api(test)
