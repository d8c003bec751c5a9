"""The simulated REST: Discord's answers and errors, and the events that writes make happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from rateway_simulator.rest.limits import Limits
from rateway_simulator.world.people import BOT_ID, TOKEN
from tests.rest.api import Api, api

from tests.aio import run

UNKNOWN = "123456789012345678"


def with_api(test: Callable[[Api], Awaitable[None]]) -> None:
    async def main() -> None:
        async with api() as running:
            await test(running)

    run(main())


def test_a_wrong_token_is_answered_as_discord_does() -> None:
    async def test(it: Api) -> None:
        for headers in ({}, {"Authorization": "Bot wrong"}, {"Authorization": TOKEN}):
            status, body, _ = await it.ask("GET", "users/@me", headers=headers)
            assert (status, body) == (401, {"message": "401: Unauthorized", "code": 0})
        status, body, _ = await it.ask("GET", "gateway", headers={})
        assert (status, body) == (200, {"url": "ws://127.0.0.1:1"})
        assert (await it.ask("GET", "gateway/bot", headers={}))[0] == 401

    with_api(test)


def test_the_bot_learns_of_itself_and_of_the_gateway() -> None:
    async def test(it: Api) -> None:
        bot = await it.do("GET", "gateway/bot")
        assert (bot["url"], bot["shards"], bot["session_start_limit"]["max_concurrency"]) == (
            "ws://127.0.0.1:1",
            3,
            16,
        )
        assert (await it.do("GET", "users/@me"))["id"] == BOT_ID
        assert (await it.do("GET", "/api/v9/users/@me"))["id"] == BOT_ID
        assert (await it.do("GET", "/api/users/@me"))["id"] == BOT_ID
        for path in ("applications/@me", "oauth2/applications/@me"):
            application = await it.do("GET", path)
            assert (application["id"], application["bot"]["id"]) == (BOT_ID, BOT_ID)

    with_api(test)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"channels/{UNKNOWN}", 404, 10003),
        ("GET", "channels/nonsense", 404, 10003),
        ("GET", f"guilds/{UNKNOWN}", 404, 10004),
        ("GET", f"users/{UNKNOWN}", 404, 10013),
        ("GET", "channels/{text}/messages/1", 404, 10008),
        ("GET", "guilds/{guild}/members/1", 404, 10007),
        ("PATCH", "guilds/{guild}/roles/1", 404, 10011),
        ("DELETE", "guilds/{guild}/bans/1", 404, 10026),
        ("POST", "channels/{text}/messages", 400, 50006),
        ("POST", "channels/{category}/messages", 400, 50008),
        ("DELETE", "guilds/{guild}/roles/{guild}", 403, 50013),
        ("GET", "guilds/{guild}/members?limit=2000", 400, 50035),
        ("POST", "interactions/1/token/callback", 404, 10062),
        ("GET", f"applications/{UNKNOWN}/commands", 403, 50001),
        ("POST", "users/@me/channels", 403, 50007),
        ("GET", "guilds/{guild}/new-member-welcome", 501, 0),
    ],
)
def test_errors_are_worded_and_numbered_as_discord_does(
    method: str, path: str, status: int, code: int
) -> None:
    async def test(it: Api) -> None:
        where = path.format(text=it.channel(0), category=it.channel(4), guild=it.guild.id)
        assert await it.fails(method, where, None if method == "GET" else {}) == (status, code)
        assert it.dispatched() == []

    with_api(test)


def test_what_is_wrong_with_a_body_is_named() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}/messages"
        status, body, _ = await it.ask("POST", path, {"content": "x" * 2001})
        assert (status, body["code"], body["message"]) == (400, 50035, "Invalid Form Body")
        assert body["errors"]["content"]["_errors"][0]["code"] == "BASE_TYPE_MAX_LENGTH"
        assert await it.fails("POST", path, ["not an object"]) == (400, 50035)

    with_api(test)


def test_what_is_not_simulated_is_listed() -> None:
    async def test(it: Api) -> None:
        for _ in range(2):
            await it.fails("GET", "guilds/1/new-member-welcome")
        await it.fails("POST", "lobbies", {})
        listed = await it.do("GET", "/simulator/unsimulated")
        assert listed == [
            {"method": "GET", "path": "/api/v10/guilds/1/new-member-welcome", "count": 2},
            {"method": "POST", "path": "/api/v10/lobbies", "count": 1},
        ]

    with_api(test)


# Messages


def test_a_message_is_sent_edited_found_and_deleted() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}/messages"
        sent = await it.do("POST", path, {"content": f"hello <@{it.person()}>", "embeds": [{"title": "t"}]})
        ((name, d),) = it.dispatched()
        assert name == "MESSAGE_CREATE" and d["id"] == sent["id"] and d["guild_id"] == it.guild.id
        assert (
            d["author"]["id"] == BOT_ID
            and d["mentions"][0]["id"] == it.person()
            and "user" not in d["member"]
        )
        assert "guild_id" not in sent and "member" not in sent
        edited = await it.do("PATCH", f"{path}/{sent['id']}", {"content": "bye"})
        assert [name for name, _ in it.dispatched()] == ["MESSAGE_UPDATE"]
        assert edited["content"] == "bye" and edited["edited_timestamp"] is not None and edited["embeds"]
        assert await it.do("GET", f"{path}/{sent['id']}") == edited
        assert [m["id"] for m in await it.do("GET", f"{path}?limit=1")] == [sent["id"]]
        await it.do("DELETE", f"{path}/{sent['id']}")
        where = {"id": sent["id"], "channel_id": it.channel(), "guild_id": it.guild.id}
        assert it.dispatched() == [("MESSAGE_DELETE", where)]
        assert await it.fails("GET", f"{path}/{sent['id']}") == (404, 10008)

    with_api(test)


def test_lists_of_messages_go_newest_first_around_before_and_after() -> None:
    async def test(it: Api) -> None:
        member, path = it.person(), f"channels/{it.channel()}/messages"
        ids = []
        for number in range(8):
            body = {"channel_id": it.channel(), "content": f"message {number}"}
            ids.append((await it.do("POST", f"/simulator/users/{member}/messages", body))["id"])
        newest = ids[::-1]

        async def listed(query: str) -> list[str]:
            return [message["id"] for message in await it.do("GET", f"{path}?{query}")]

        assert await listed("limit=100") == newest
        assert await listed(f"before={ids[4]}&limit=2") == [ids[3], ids[2]]
        assert await listed(f"after={ids[4]}&limit=2") == [ids[6], ids[5]]
        assert await listed(f"around={ids[4]}&limit=3") == [ids[5], ids[4], ids[3]]
        await it.do("POST", f"{path}/bulk-delete", {"messages": ids[:3]})
        assert await listed("limit=100") == newest[:5]
        assert it.dispatched()[-1][1]["ids"] == ids[:3]
        assert await it.fails("POST", f"{path}/bulk-delete", {"messages": ids[3:4]}) == (400, 50035)

    with_api(test)


def test_a_reply_refers_to_its_message_and_another_users_message_cannot_be_edited() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}/messages"
        asked = await it.do(
            "POST", f"/simulator/users/{it.person()}/messages", {"channel_id": it.channel(), "content": "?"}
        )
        reply = await it.do("POST", path, {"content": "!", "message_reference": {"message_id": asked["id"]}})
        assert (reply["type"], reply["referenced_message"]["id"]) == (19, asked["id"])
        assert await it.fails("PATCH", f"{path}/{asked['id']}", {"content": "x"}) == (403, 50005)
        lost = {"content": "!", "message_reference": {"message_id": "1"}}
        assert await it.fails("POST", path, lost) == (400, 50035)
        lost["message_reference"] = {"message_id": "1", "fail_if_not_exists": False}
        assert (await it.do("POST", path, lost))["type"] == 0

    with_api(test)


def test_reactions_are_counted_listed_and_cleared() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}/messages"
        message = await it.do("POST", path, {"content": "vote"})
        own = next(iter(it.guild.emojis.values()))
        reactions_path = f"{path}/{message['id']}/reactions"
        thumb, custom = f"{reactions_path}/👍", f"{reactions_path}/{own['name']}:{own['id']}"
        it.dispatched()
        await it.do("PUT", f"{thumb}/@me")
        body = {"channel_id": it.channel(), "message_id": message["id"], "emoji_name": "👍"}
        await it.do("POST", f"/simulator/users/{it.person()}/reactions", body)
        body |= {"emoji_name": own["name"], "emoji_id": own["id"]}
        await it.do("POST", f"/simulator/users/{it.person()}/reactions", body)
        assert [name for name, _ in it.dispatched()] == ["MESSAGE_REACTION_ADD"] * 3
        assert {user["id"] for user in await it.do("GET", thumb)} == {BOT_ID, it.person()}
        reactions = (await it.do("GET", f"{path}/{message['id']}"))["reactions"]
        counted = [(r["emoji"]["name"], r["count"], r["me"]) for r in reactions]
        assert counted == [("👍", 2, True), (own["name"], 1, False)]
        await it.do("DELETE", f"{thumb}/{it.person()}")
        await it.do("DELETE", custom)
        await it.do("DELETE", reactions_path)
        names = [name for name, _ in it.dispatched()]
        assert names == [f"MESSAGE_REACTION_REMOVE{end}" for end in ("", "_EMOJI", "_ALL")]
        assert "reactions" not in await it.do("GET", f"{path}/{message['id']}")

    with_api(test)


def test_pins_typing_and_direct_channels() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}"
        message = await it.do("POST", f"{path}/messages", {"content": "keep"})
        it.dispatched()
        await it.do("PUT", f"{path}/pins/{message['id']}")
        assert [name for name, _ in it.dispatched()] == ["MESSAGE_UPDATE", "CHANNEL_PINS_UPDATE"]
        assert [m["id"] for m in await it.do("GET", f"{path}/pins")] == [message["id"]]
        dated = await it.do("GET", f"{path}/messages/pins")
        assert [item["message"]["id"] for item in dated["items"]] == [message["id"]] and not dated["has_more"]
        await it.do("POST", f"{path}/typing")
        assert it.dispatched()[0][0] == "TYPING_START"
        channel = await it.do("POST", "users/@me/channels", {"recipient_id": it.person()})
        assert channel["type"] == 1 and channel["recipients"][0]["id"] == it.person()
        assert (await it.do("POST", "users/@me/channels", {"recipient_id": it.person()}))["id"] == channel[
            "id"
        ]
        await it.do("POST", f"channels/{channel['id']}/messages", {"content": "psst"})
        ((name, d),) = it.dispatched()
        assert name == "MESSAGE_CREATE" and "guild_id" not in d and d["channel_type"] == 1

    with_api(test)


# Channels, members, roles


def test_channels_are_made_changed_and_deleted_with_their_events() -> None:
    async def test(it: Api) -> None:
        body = {"name": "new", "type": 0, "parent_id": it.channel(4), "topic": "t"}
        made = await it.do("POST", f"guilds/{it.guild.id}/channels", body)
        assert it.dispatched() == [("CHANNEL_CREATE", made)] and made["guild_id"] == it.guild.id
        changed = await it.do("PATCH", f"channels/{made['id']}", {"name": "newer", "nsfw": True})
        assert it.dispatched() == [("CHANNEL_UPDATE", changed)] and changed["topic"] == "t"
        assert await it.do("GET", f"channels/{made['id']}") == changed
        assert changed in await it.do("GET", f"guilds/{it.guild.id}/channels")
        await it.do("PUT", f"channels/{made['id']}/permissions/{it.guild.id}", {"type": 0, "deny": "1024"})
        assert it.dispatched()[0][1]["permission_overwrites"] == [
            {"id": it.guild.id, "type": 0, "allow": "0", "deny": "1024"}
        ]
        await it.do("DELETE", f"channels/{made['id']}")
        assert [name for name, _ in it.dispatched()] == ["CHANNEL_DELETE"]
        assert await it.fails("POST", f"guilds/{it.guild.id}/channels", {"name": ""}) == (400, 50035)

    with_api(test)


def test_a_thread_is_started_from_a_message_joined_archived_and_deleted() -> None:
    async def test(it: Api) -> None:
        message = await it.do("POST", f"channels/{it.channel()}/messages", {"content": "start"})
        path = f"channels/{it.channel()}/messages/{message['id']}/threads"
        it.dispatched()
        thread = await it.do("POST", path, {"name": "a thread"})
        assert thread["id"] == message["id"] and it.dispatched()[0][1]["newly_created"] is True
        await it.do("PUT", f"channels/{thread['id']}/thread-members/{it.person()}")
        assert it.dispatched()[0][1]["member_count"] == 2
        active = await it.do("GET", f"guilds/{it.guild.id}/threads/active")
        assert thread["id"] in {d["id"] for d in active["threads"]}
        await it.do("PATCH", f"channels/{thread['id']}", {"archived": True})
        assert it.dispatched()[0][1]["thread_metadata"]["archived"] is True
        assert await it.fails("POST", f"channels/{thread['id']}/messages", {"content": "x"}) == (400, 50083)
        await it.do("DELETE", f"channels/{thread['id']}")
        deleted = {key: thread[key] for key in ("id", "guild_id", "parent_id", "type")}
        assert it.dispatched() == [("THREAD_DELETE", deleted)]

    with_api(test)


def test_members_are_listed_changed_kicked_and_banned() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/members"
        members = await it.do("GET", f"{path}?limit=1000")
        ids = [int(member["user"]["id"]) for member in members]
        assert ids == sorted(ids) and len(ids) == 12
        after = await it.do("GET", f"{path}?limit=3&after={ids[4]}")
        assert [int(member["user"]["id"]) for member in after] == ids[5:8]
        person = it.person(2)
        changed = await it.do("PATCH", f"{path}/{person}", {"nick": "renamed"})
        assert changed["nick"] == "renamed" == (await it.do("GET", f"{path}/{person}"))["nick"]
        assert it.dispatched()[0][0] == "GUILD_MEMBER_UPDATE"
        role_id = it.guild.roster.given[0]
        await it.do("PUT", f"{path}/{person}/roles/{role_id}")
        assert role_id in (await it.do("GET", f"{path}/{person}"))["roles"]
        await it.do("DELETE", f"{path}/{person}/roles/{role_id}")
        assert role_id not in it.dispatched()[-1][1]["roles"]
        await it.do("DELETE", f"{path}/{person}")
        ((name, d),) = it.dispatched()
        assert (name, d["user"]["id"]) == ("GUILD_MEMBER_REMOVE", person)
        assert await it.fails("GET", f"{path}/{person}") == (404, 10007)
        await it.do("PUT", f"guilds/{it.guild.id}/bans/{it.person(3)}")
        assert [name for name, _ in it.dispatched()] == ["GUILD_BAN_ADD", "GUILD_MEMBER_REMOVE"]
        assert [ban["user"]["id"] for ban in await it.do("GET", f"guilds/{it.guild.id}/bans")] == [
            it.person(3)
        ]
        await it.do("DELETE", f"guilds/{it.guild.id}/bans/{it.person(3)}")
        assert it.dispatched()[0][0] == "GUILD_BAN_REMOVE"
        owner = it.guild.fields["owner_id"]
        assert await it.fails("DELETE", f"{path}/{owner}") == (403, 50013)

    with_api(test)


def test_roles_are_made_changed_and_deleted_and_leave_their_members() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/roles"
        role = await it.do("POST", path, {"name": "made", "color": 255, "permissions": "8"})
        assert it.dispatched() == [("GUILD_ROLE_CREATE", {"guild_id": it.guild.id, "role": role})]
        assert (role["color"], role["colors"]["primary_color"], role["permissions"]) == (255, 255, "8")
        await it.do("PUT", f"guilds/{it.guild.id}/members/{it.person()}/roles/{role['id']}")
        changed = await it.do("PATCH", f"{path}/{role['id']}", {"hoist": True})
        assert it.dispatched()[-1] == ("GUILD_ROLE_UPDATE", {"guild_id": it.guild.id, "role": changed})
        assert changed in await it.do("GET", path)
        await it.do("DELETE", f"{path}/{role['id']}")
        assert it.dispatched() == [("GUILD_ROLE_DELETE", {"guild_id": it.guild.id, "role_id": role["id"]})]
        member = await it.do("GET", f"guilds/{it.guild.id}/members/{it.person()}")
        assert role["id"] not in member["roles"]

    with_api(test)


def test_the_guild_is_read_changed_and_left() -> None:
    async def test(it: Api) -> None:
        guild = await it.do("GET", f"guilds/{it.guild.id}?with_counts=true")
        assert guild["approximate_member_count"] == 12 and len(guild["roles"]) == len(it.guild.roles)
        assert "channels" not in guild and "members" not in guild
        await it.do("PATCH", f"guilds/{it.guild.id}", {"name": "Another"})
        ((name, d),) = it.dispatched()
        assert (name, d["name"]) == ("GUILD_UPDATE", "Another") and "joined_at" not in d
        mine = await it.do("GET", "users/@me/guilds")
        assert [int(entry["id"]) for entry in mine] == list(it.world.guild_ids)
        left = it.guild.id
        await it.do("DELETE", f"users/@me/guilds/{left}")
        assert it.dispatched() == [("GUILD_DELETE", {"id": left})]
        assert await it.fails("GET", f"guilds/{left}") == (404, 10004)

    with_api(test)


# Limits


def test_each_route_has_a_bucket_with_discords_headers() -> None:
    limits = Limits()
    route = "/channels/{channel_id}/messages"
    verdicts = [limits.ask("POST", route, "1", 100.0 + n / 10) for n in range(6)]
    assert [v.headers["X-RateLimit-Remaining"] for v in verdicts] == ["4", "3", "2", "1", "0", "0"]
    assert [v.retry_after for v in verdicts[:5]] == [None] * 5
    assert verdicts[5].retry_after == pytest.approx(4.5)
    assert verdicts[5].headers["X-RateLimit-Scope"] == "user"
    assert verdicts[0].headers["X-RateLimit-Reset"] == "105.000"
    assert limits.ask("POST", route, "2", 100.5).retry_after is None
    assert limits.ask("POST", route, "1", 105.0).headers["X-RateLimit-Remaining"] == "4"


def test_one_message_too_many_is_told_to_wait() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}/messages"
        answers = [await it.ask("POST", path, {"content": "x"}) for _ in range(6)]
        assert [status for status, _, _ in answers] == [200] * 5 + [429]
        _, body, headers = answers[5]
        assert 0 < body["retry_after"] <= 5 and body["global"] is False
        assert float(headers["Retry-After"]) == pytest.approx(body["retry_after"], abs=0.002)
        assert headers["X-RateLimit-Bucket"] == answers[0][2]["X-RateLimit-Bucket"]

    with_api(test)


@pytest.mark.checklist("K54")
def test_json_has_no_charset_as_at_discord() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/channels"
        for method, body, status in (("GET", None, 200), ("POST", {"name": "x"}, 201), ("POST", {}, 400)):
            answer = await it.ask(method, path, body)
            # discord.py takes everything else for text.
            assert (answer[0], answer[2]["Content-Type"]) == (status, "application/json")

    with_api(test)


@pytest.mark.checklist("K53")
def test_a_message_is_forwarded_without_content_and_from_anywhere() -> None:
    async def test(it: Api) -> None:
        other = it.world.guild(it.world.guild_ids[1])
        there = next(key for key, d in other.channels.items() if d["type"] == 0)
        for source, guild_id in ((it.channel(), it.guild.id), (there, other.id)):
            original = await it.do("POST", f"channels/{source}/messages", {"content": "first"})
            reference = {"type": 1, "message_id": original["id"], "channel_id": source}
            sent = await it.do(
                "POST", f"channels/{it.channel()}/messages", {"message_reference": reference, "flags": 4096}
            )
            assert sent["content"] == "" and sent["type"] == 0
            assert sent["message_reference"] == reference | {"guild_id": guild_id}
            assert sent["message_snapshots"][0]["message"]["content"] == "first"
            assert sent["flags"] == 1 << 14 | 4096
            name, told = it.dispatched()[-1]
            assert (name, told["id"]) == ("MESSAGE_CREATE", sent["id"])
        path = f"channels/{there}/messages"
        unknown = {"type": 1, "message_id": "1", "channel_id": there, "fail_if_not_exists": False}
        assert await it.fails("POST", path, {"message_reference": unknown}) == (400, 50035)
        assert await it.fails("POST", path, {"message_reference": {"type": 1, "channel_id": "1"}}) == (
            404,
            10003,
        )
        assert await it.fails("POST", path, {"message_reference": 5}) == (400, 50035)
        # An answer says something.
        answer = {"type": 0, "message_id": original["id"], "channel_id": there}
        assert await it.fails("POST", path, {"message_reference": answer}) == (400, 50006)

    with_api(test)
