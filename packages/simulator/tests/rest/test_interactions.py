"""Commands, interactions and their answers; and playing the users over HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.people import BOT_ID
from tests.rest.api import Api, api

from tests.aio import run

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


@pytest.mark.checklist("K48")
def test_options_in_shorthand_have_the_registered_types() -> None:
    async def test(it: Api) -> None:
        person, channel, role = it.person(2), it.channel(), it.guild.id
        leaves = [
            {"name": "text", "type": 3, "description": "d", "required": False, "choices": None},
            {"name": "whole", "type": 4, "description": "d"},
            {"name": "yes", "type": 5, "description": "d"},
            {"name": "user", "type": 6, "description": "d"},
            {"name": "channel", "type": 7, "description": "d"},
            {"name": "role", "type": 8, "description": "d"},
            {"name": "any", "type": 9, "description": "d"},
            {"name": "number", "type": 10, "description": "d"},
        ]
        made = await it.do("POST", COMMANDS, {"name": "ping", "description": "p", "options": leaves})
        assert "choices" not in made["options"][0]
        given = {
            "text": 5, "whole": "7", "yes": True, "user": int(person), "channel": int(channel), "role": role,
            "any": person, "number": 2, "unknown": 1.5,
        }  # fmt: skip
        data = (await asked(it, options=given))["data"]
        assert [(option["name"], option["type"], option["value"]) for option in data["options"]] == [
            ("text", 3, "5"), ("whole", 4, 7), ("yes", 5, True), ("user", 6, person), ("channel", 7, channel),
            ("role", 8, role), ("any", 9, person), ("number", 10, 2.0), ("unknown", 10, 1.5),
        ]  # fmt: skip
        assert isinstance(data["options"][7]["value"], float)
        assert set(data["resolved"]["users"]) == {person} and set(data["resolved"]["channels"]) == {channel}
        assert set(data["resolved"]["roles"]) == {role}
        where = {"channel_id": channel, "name": "ping", "options": {"whole": "seven"}}
        assert await it.fails("POST", f"/simulator/users/{it.person()}/commands", where) == (400, 50035)

    with_api(test)


@pytest.mark.checklist("K48")
def test_options_of_subcommands_in_shorthand_have_the_registered_types() -> None:
    async def test(it: Api) -> None:
        sub = {
            "name": "add",
            "type": 1,
            "description": "d",
            "options": [{"name": "who", "type": 6, "description": "d"}],
        }
        group = {"name": "team", "type": 2, "description": "d", "options": [sub]}
        await it.do("POST", COMMANDS, {"name": "ping", "description": "p", "options": [group]})
        data = (await asked(it, options={"team": {"add": {"who": it.person()}}}))["data"]
        assert data["options"] == [
            {
                "name": "team",
                "type": 2,
                "options": [
                    {"name": "add", "type": 1, "options": [{"name": "who", "type": 6, "value": it.person()}]}
                ],
            }
        ]
        assert set(data["resolved"]["users"]) == {it.person()}

    with_api(test)


@pytest.mark.checklist("K48")
@given(
    st.dictionaries(
        st.sampled_from(
            ["integration_types", "contexts", "options", "nsfw", "dm_permission", "default_permission", "type",
             "default_member_permissions", "name_localizations", "description_localizations"]
        ),
        st.none(),
    )
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_null_in_a_command_stands_for_discords_default(nulls: dict[str, None]) -> None:
    async def test(it: Api) -> None:
        body = {"name": "ping", "description": "p"}
        expected = await it.do("POST", COMMANDS, body)
        expected.pop("version")
        assert expected["integration_types"] == [0] and expected["contexts"] is None
        for method, sent in (("POST", body | nulls), ("PUT", [body | nulls])):
            got = await it.do(method, COMMANDS, sent)
            got = got[0] if method == "PUT" else got
            got.pop("version")
            assert got == expected
        changed = await it.do("PATCH", f"{COMMANDS}/{expected['id']}", {"contexts": [0], "nsfw": True})
        assert (changed["contexts"], changed["nsfw"]) == ([0], True)
        changed = await it.do("PATCH", f"{COMMANDS}/{expected['id']}", {"contexts": None, "nsfw": None})
        assert (changed["contexts"], changed["nsfw"]) == (None, False)

    with_api(test)


@pytest.mark.checklist("K48")
def test_a_callback_has_no_rate_limit_headers() -> None:
    async def test(it: Api) -> None:
        for _ in range(60):
            d = await asked(it)
            status, _, headers = await it.ask("POST", callback(d), {"type": 4, "data": {"content": "x"}})
            it.dispatched()
            assert status == 204
            assert not [name for name in headers if name.lower().startswith("x-ratelimit")]

    with_api(test)


@pytest.mark.checklist("K53")
@pytest.mark.parametrize("kind", ["json", "urlencoded", "urlencoded payload_json", "multipart payload_json"])
def test_a_body_may_come_in_each_of_discords_forms(kind: str) -> None:
    async def test(it: Api) -> None:
        body = {"type": 4, "data": {"content": "héllo & more=1"}}
        if kind == "urlencoded":
            # Fields of a form are strings: what a message needs.
            answer = await it.form(f"channels/{it.channel()}/messages", {"content": "héllo & more=1"})
            assert answer["content"] == "héllo & more=1"
            return
        d = await asked(it)
        if kind == "json":
            await it.do("POST", callback(d), body)
        elif kind == "urlencoded payload_json":
            await it.form(callback(d), {"payload_json": json.dumps(body)})
        else:
            await it.form(callback(d), {"payload_json": json.dumps(body)}, file="picture.png")
        [(name, told)] = it.dispatched()
        assert (name, told["content"]) == ("MESSAGE_CREATE", "héllo & more=1")
        names = [attachment["filename"] for attachment in told["attachments"]]
        assert names == (["picture.png"] if kind.startswith("multipart") else [])

    with_api(test)


@pytest.mark.checklist("K53")
@pytest.mark.parametrize("payload", ["{", "[", "\x00", "[" * 100_000, "5", "null"])
def test_a_form_with_a_broken_payload_is_refused_in_words(payload: str) -> None:
    async def test(it: Api) -> None:
        d = await asked(it)
        for file in (None, "picture.png"):
            status, answer = await it.post_form(callback(d), {"payload_json": payload}, file=file)
            assert status == 400 and answer["code"] in (50109, 50035)

    with_api(test)
