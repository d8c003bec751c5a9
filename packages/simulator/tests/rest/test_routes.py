"""Webhooks, audit log, invites, expressions, gatherings, pages: what they answer, tell and refuse."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway_simulator.rest import routes as rest
from rateway_simulator.world.people import BOT_ID, TOKEN
from tests.rest.api import Api, Facts, api

from tests.aio import run

UNKNOWN = "123456789012345678"
PICTURE = "data:image/png;base64,iVBORw0KGgo="
AUDIT = "GUILD_AUDIT_LOG_ENTRY_CREATE"

pytestmark = pytest.mark.checklist("K54")


def with_api(test: Callable[[Api], Awaitable[None]]) -> None:
    async def main() -> None:
        async with api() as running:
            await test(running)

    run(main())


def names(it: Api) -> list[str]:
    return [name for name, _ in it.dispatched()]


def test_a_webhook_is_made_listed_moved_written_through_and_deleted() -> None:
    async def test(it: Api) -> None:
        text, voice = it.channel(), it.channel(2)
        made = await it.do("POST", f"channels/{text}/webhooks", {"name": "Hook", "avatar": PICTURE})
        assert made["user"]["id"] == made["application_id"] == BOT_ID and made["token"] and made["avatar"]
        assert names(it) == ["WEBHOOKS_UPDATE", AUDIT]
        for path in (f"channels/{text}/webhooks", f"guilds/{it.guild.id}/webhooks"):
            assert await it.do("GET", path) == [made]
        assert await it.do("GET", f"webhooks/{made['id']}") == made
        path = f"webhooks/{made['id']}/{made['token']}"
        # Its token is all that it needs.
        status, anonymous, _ = await it.ask("GET", path, headers={})
        assert status == 200 and "user" not in anonymous
        assert (await it.ask("GET", f"webhooks/{made['id']}", headers={}))[0] == 401
        moved = await it.do("PATCH", f"webhooks/{made['id']}", {"name": "Moved", "channel_id": voice})
        assert (moved["name"], moved["channel_id"]) == ("Moved", voice)
        told = it.dispatched()
        assert [d["channel_id"] for name, d in told if name == "WEBHOOKS_UPDATE"] == [text, voice]
        assert await it.do("POST", path, {"content": "quiet"}) is None
        said = await it.do("POST", path + "?wait=true", {"content": "first", "username": "Somebody"})
        assert (said["webhook_id"], said["author"]["username"]) == (made["id"], "Somebody")
        assert names(it) == ["MESSAGE_CREATE", "MESSAGE_CREATE"]
        one = f"{path}/messages/{said['id']}"
        changed = await it.do("PATCH", one, {"content": "second"})
        assert changed["content"] == "second" and changed["edited_timestamp"]
        assert (await it.do("GET", one))["content"] == "second"
        await it.do("DELETE", one)
        assert names(it) == ["MESSAGE_UPDATE", "MESSAGE_DELETE"]
        assert await it.fails("GET", one) == (404, 10008)
        assert await it.fails("POST", f"webhooks/{made['id']}/wrong", {"content": "x"}) == (401, 50027)
        await it.do("DELETE", path)
        assert await it.fails("GET", f"webhooks/{made['id']}") == (404, 10015)

    with_api(test)


def test_a_webhook_of_a_forum_opens_a_post() -> None:
    async def test(it: Api) -> None:
        made = await it.do("POST", f"channels/{it.channel(15)}/webhooks", {"name": "Hook"})
        path = f"webhooks/{made['id']}/{made['token']}"
        assert await it.fails("POST", path, {"content": "x"}) == (400, 220001)
        it.dispatched()
        post = await it.do("POST", path + "?wait=1", {"content": "x", "thread_name": "A post"})
        told = it.dispatched()
        assert told[0][0] == "THREAD_CREATE" and told[0][1]["id"] == post["channel_id"]
        again = await it.do("POST", f"{path}?wait=1&thread_id={post['channel_id']}", {"content": "y"})
        assert again["channel_id"] == post["channel_id"]
        assert await it.fails("POST", f"{path}?thread_id=1", {"content": "y"}) == (404, 10003)

    with_api(test)


def test_webhooks_that_discord_would_refuse_are_refused() -> None:
    async def test(it: Api) -> None:
        path = f"channels/{it.channel()}/webhooks"
        for name in ("", "x" * 81, "Discord Hook", "clyde", None):
            assert await it.fails("POST", path, {"name": name}) == (400, 50035)
        assert await it.fails("POST", path, {"name": "x", "avatar": "nonsense"}) == (400, 50035)
        assert await it.fails("POST", f"channels/{it.channel(4)}/webhooks", {"name": "x"}) == (400, 50024)
        for _ in range(15):
            await it.do("POST", path, {"name": "x"})
        assert await it.fails("POST", path, {"name": "x"}) == (400, 30007)

    with_api(test)


def test_announcements_are_published_once_and_followed() -> None:
    async def test(it: Api) -> None:
        news = it.channel(5)
        said = await it.do("POST", f"channels/{news}/messages", {"content": "news"})
        path = f"channels/{news}/messages/{said['id']}/crosspost"
        it.dispatched()
        assert (await it.do("POST", path))["flags"] & 1
        assert names(it) == ["MESSAGE_UPDATE"]
        assert await it.fails("POST", path) == (400, 40033)
        assert await it.fails("POST", f"channels/{news}/messages/1/crosspost") == (404, 10008)
        plain = it.channel()
        assert await it.fails("POST", f"channels/{plain}/messages/1/crosspost") == (400, 50024)
        other = it.world.guild(it.world.guild_ids[1])
        target = next(key for key, d in other.channels.items() if d["type"] == 0)
        followed = await it.do("POST", f"channels/{news}/followers", {"webhook_channel_id": target})
        assert followed["channel_id"] == news
        [hook] = await it.do("GET", f"channels/{target}/webhooks")
        assert (hook["id"], hook["type"], hook["source_channel"]["id"]) == (followed["webhook_id"], 2, news)
        assert "token" not in hook
        assert it.dispatched() == [("WEBHOOKS_UPDATE", {"guild_id": other.id, "channel_id": target})]
        assert await it.fails("POST", f"channels/{news}/followers", {"webhook_channel_id": "1"}) == (
            404,
            10003,
        )

    with_api(test)


def test_the_audit_log_tells_who_did_what_and_why() -> None:
    async def test(it: Api) -> None:
        headers = {"Authorization": f"Bot {TOKEN}", "X-Audit-Log-Reason": "f%C3%BCr%20alle"}
        made = (await it.ask("POST", f"channels/{it.channel()}/webhooks", {"name": "x"}, headers=headers))[1]
        name, told = it.dispatched()[-1]
        assert (name, told["reason"], told["action_type"]) == (AUDIT, "für alle", 50)
        await it.do("POST", f"guilds/{it.guild.id}/emojis", {"name": "fox", "image": PICTURE})
        log = await it.do("GET", f"guilds/{it.guild.id}/audit-logs")
        assert [entry["action_type"] for entry in log["audit_log_entries"]] == [60, 50]
        assert [hook["id"] for hook in log["webhooks"]] == [made["id"]]
        assert [user["id"] for user in log["users"]] == [BOT_ID]
        for query, kinds in (
            ("action_type=50", [50]),
            (f"user_id={UNKNOWN}", []),
            ("limit=1", [60]),
            (f"before={log['audit_log_entries'][0]['id']}", [50]),
            (f"after={log['audit_log_entries'][1]['id']}", [60]),
        ):
            found = await it.do("GET", f"guilds/{it.guild.id}/audit-logs?{query}")
            assert [entry["action_type"] for entry in found["audit_log_entries"]] == kinds
        assert await it.fails("GET", f"guilds/{it.guild.id}/audit-logs?limit=0") == (400, 50035)

    with_api(test)


def test_invites_are_listed_read_by_their_code_and_deleted() -> None:
    async def test(it: Api) -> None:
        channel = it.channel()
        made = await it.do("POST", f"channels/{channel}/invites", {"max_age": 0, "max_uses": 5})
        assert (made["max_uses"], made["expires_at"], made["channel"]["id"]) == (5, None, channel)
        for path in (f"channels/{channel}/invites", f"guilds/{it.guild.id}/invites"):
            assert await it.do("GET", path) == [made]
        read = await it.do("GET", f"invites/{made['code']}?with_counts=true")
        assert read["guild"]["id"] == it.guild.id and read["approximate_member_count"] == 12
        assert "uses" not in read
        it.dispatched()
        assert (await it.do("DELETE", f"invites/{made['code']}"))["code"] == made["code"]
        assert names(it) == ["INVITE_DELETE", AUDIT]
        for method in ("GET", "DELETE"):
            assert await it.fails(method, f"invites/{made['code']}") == (404, 10006)
        assert await it.fails("POST", f"channels/{channel}/invites", {"max_age": 604_801}) == (400, 50035)

    with_api(test)


def test_channels_and_roles_are_moved_and_only_those_that_change_are_told_of() -> None:
    async def test(it: Api) -> None:
        first, second = list(it.guild.channels)[1:3]
        category = it.channel(4)
        moves = [
            {"id": first, "position": it.guild.channels[first]["position"]},
            {"id": second, "position": 40, "parent_id": category, "lock_permissions": True},
        ]
        await it.do("PATCH", f"guilds/{it.guild.id}/channels", moves)
        [(name, told)] = it.dispatched()
        assert (name, told["id"], told["position"], told["parent_id"]) == (
            "CHANNEL_UPDATE",
            second,
            40,
            category,
        )
        assert await it.fails("PATCH", f"guilds/{it.guild.id}/channels", [{"id": "1"}]) == (404, 10003)
        assert await it.fails("PATCH", f"guilds/{it.guild.id}/channels", {"id": first}) == (400, 50035)
        role = list(it.guild.roles)[2]
        roles = await it.do("PATCH", f"guilds/{it.guild.id}/roles", [{"id": role, "position": 9}])
        assert {d["id"]: d["position"] for d in roles}[role] == 9
        [(name, told)] = it.dispatched()
        assert (name, told["role"]["id"]) == ("GUILD_ROLE_UPDATE", role)
        everyone = [{"id": it.guild.id, "position": 3}]
        assert await it.fails("PATCH", f"guilds/{it.guild.id}/roles", everyone) == (403, 50013)
        assert await it.fails("PATCH", f"guilds/{it.guild.id}/roles", [{"id": "1"}]) == (404, 10011)

    with_api(test)


def test_emojis_are_made_renamed_and_deleted() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/emojis"
        made = await it.do("POST", path, {"name": "fox", "image": PICTURE.replace("png", "gif"), "roles": []})
        assert made["animated"] is True and made["user"]["id"] == BOT_ID
        assert await it.do("GET", f"{path}/{made['id']}") == made
        renamed = await it.do("PATCH", f"{path}/{made['id']}", {"name": "red_fox", "roles": [it.guild.id]})
        assert (renamed["name"], renamed["roles"]) == ("red_fox", [it.guild.id])
        await it.do("DELETE", f"{path}/{made['id']}")
        assert names(it) == ["GUILD_EMOJIS_UPDATE", AUDIT] * 3
        assert await it.fails("GET", f"{path}/{made['id']}") == (404, 10014)
        for body in ({"name": "a b", "image": PICTURE}, {"name": "fox"}, {"name": "fox", "image": "x"}):
            assert await it.fails("POST", path, body) == (400, 50035)
        assert await it.fails("POST", path, {"name": "fox", "image": PICTURE, "roles": ["1"]}) == (404, 10011)

    with_api(test)


def test_stickers_sounds_and_own_emojis_are_made_changed_and_deleted() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/stickers"
        made = await it.form(path, {"name": "wave", "tags": "hi", "description": ""}, file="wave.png")
        assert (made["name"], made["user"]["id"]) == ("wave", BOT_ID)
        assert (await it.do("PATCH", f"{path}/{made['id']}", {"name": "waves"}))["name"] == "waves"
        assert (await it.do("GET", f"{path}/{made['id']}"))["name"] == "waves"
        await it.do("DELETE", f"{path}/{made['id']}")
        assert names(it) == ["GUILD_STICKERS_UPDATE"] * 3
        assert await it.fails("GET", f"{path}/{made['id']}") == (404, 10060)
        assert (await it.post_form(path, {"name": "wave", "tags": "hi"}))[0] == 400
        path = f"guilds/{it.guild.id}/soundboard-sounds"
        made = await it.do(
            "POST", path, {"name": "quack", "sound": "data:audio/ogg;base64,T2dn", "volume": 0.5}
        )
        assert (made["volume"], made["guild_id"]) == (0.5, it.guild.id)
        assert (await it.do("PATCH", f"{path}/{made['sound_id']}", {"emoji_name": "🦆"}))[
            "emoji_name"
        ] == "🦆"
        await it.do("DELETE", f"{path}/{made['sound_id']}")
        assert names(it) == [f"GUILD_SOUNDBOARD_SOUND_{what}" for what in ("CREATE", "UPDATE", "DELETE")]
        assert await it.fails("GET", f"{path}/{made['sound_id']}") == (404, 10097)
        assert await it.fails("POST", path, {"name": "quack"}) == (400, 50035)
        path = f"applications/{BOT_ID}/emojis"
        made = await it.do("POST", path, {"name": "fox", "image": PICTURE})
        assert await it.do("GET", path) == {"items": [made]}
        renamed = await it.do("PATCH", f"{path}/{made['id']}", {"name": "wolf"})
        assert await it.do("GET", f"{path}/{made['id']}") == renamed == made | {"name": "wolf"}
        await it.do("DELETE", f"{path}/{made['id']}")
        assert await it.fails("GET", f"{path}/{made['id']}") == (404, 10014)
        assert names(it) == []
        await it.do("PUT", f"guilds/{it.guild.id}/bans/{it.person()}")
        assert (await it.do("GET", f"guilds/{it.guild.id}/bans/{it.person()}"))["user"]["id"] == it.person()
        assert await it.fails("GET", f"guilds/{it.guild.id}/bans/{it.person(2)}") == (404, 10026)

    with_api(test)


def test_a_scheduled_event_goes_from_planned_to_over() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/scheduled-events"
        body = {
            "name": "Movies",
            "privacy_level": 2,
            "scheduled_start_time": "2099-01-01T00:00:00+00:00",
            "entity_type": 2,
            "channel_id": it.channel(2),
        }
        made = await it.do("POST", path, body)
        assert (made["name"], made["status"], made["channel_id"]) == ("Movies", 1, it.channel(2))
        assert made["entity_type"] == 2 and made["creator"]["id"] == BOT_ID and made["description"] is None
        one = f"{path}/{made['id']}"
        assert await it.do("GET", one) == made
        assert made in await it.do("GET", path)
        assert await it.do("GET", one + "/users") == []
        for status in (2, 3):
            assert (await it.do("PATCH", one, {"status": status}))["status"] == status
        events = ["GUILD_SCHEDULED_EVENT_CREATE", *["GUILD_SCHEDULED_EVENT_UPDATE"] * 2]
        assert names(it) == events
        assert await it.fails("GET", one) == (404, 10070)
        outside = body | {"entity_type": 3, "channel_id": None}
        assert await it.fails("POST", path, outside) == (400, 50035)
        outside |= {
            "entity_metadata": {"location": "here"},
            "scheduled_end_time": "2099-01-02T00:00:00+00:00",
        }
        made = await it.do("POST", path, outside)
        assert (made["channel_id"], made["entity_metadata"]) == (None, {"location": "here"})
        assert await it.fails("PATCH", f"{path}/{made['id']}", {"status": 3}) == (400, 50035)
        it.dispatched()
        await it.do("DELETE", f"{path}/{made['id']}")
        assert names(it) == ["GUILD_SCHEDULED_EVENT_DELETE"]
        assert await it.fails("POST", path, body | {"channel_id": it.channel()}) == (400, 50035)
        assert await it.fails("POST", path, {"name": "x"}) == (400, 50035)

    with_api(test)


def test_auto_moderation_rules_are_made_changed_and_deleted() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/auto-moderation/rules"
        body: dict[str, Any] = {
            "name": "No spam",
            "event_type": 1,
            "trigger_type": 3,
            "actions": [{"type": 1, "metadata": {}}],
        }
        made = await it.do("POST", path, body)
        assert (made["enabled"], made["creator_id"], made["trigger_type"]) == (False, BOT_ID, 3)
        assert await it.do("GET", path) == [made] and await it.do("GET", f"{path}/{made['id']}") == made
        assert await it.fails("POST", path, body) == (400, 50035)
        changed = await it.do("PATCH", f"{path}/{made['id']}", {"enabled": True})
        assert changed == made | {"enabled": True}
        await it.do("DELETE", f"{path}/{made['id']}")
        rules = [name for name in names(it) if name != AUDIT]
        assert rules == [f"AUTO_MODERATION_RULE_{what}" for what in ("CREATE", "UPDATE", "DELETE")]
        assert (await it.fails("GET", f"{path}/{made['id']}"))[0] == 404
        assert await it.fails("POST", path, body | {"trigger_type": 2}) == (400, 50035)
        assert await it.fails("POST", path, {"trigger_type": 1}) == (400, 50035)

    with_api(test)


def test_many_are_banned_or_pruned_at_once() -> None:
    async def test(it: Api) -> None:
        path = f"guilds/{it.guild.id}/bulk-ban"
        owner = it.guild.fields["owner_id"]
        answer = await it.do("POST", path, {"user_ids": [it.person(1), it.person(2), owner, "x"]})
        assert answer == {"banned_users": [it.person(1), it.person(2)], "failed_users": [owner, "x"]}
        assert names(it) == ["GUILD_BAN_ADD", "GUILD_MEMBER_REMOVE", AUDIT] * 2
        assert await it.fails("POST", path, {"user_ids": [owner]}) == (400, 500000)
        for ids in ([], [it.person(3)] * 201, "x"):
            assert await it.fails("POST", path, {"user_ids": ids}) == (400, 50035)
        prune = f"guilds/{it.guild.id}/prune"
        roles = list(it.guild.roles)
        count = (await it.do("GET", f"{prune}?days=7&include_roles={','.join(roles)}"))["pruned"]
        before = len(it.guild.roster)
        answer = await it.do("POST", prune, {"days": 7, "include_roles": roles})
        assert answer == {"pruned": count} and len(it.guild.roster) == before - count
        assert names(it) == ["GUILD_MEMBER_REMOVE"] * count + [AUDIT]
        assert await it.do("POST", prune, {"compute_prune_count": False}) == {"pruned": None}
        assert await it.fails("GET", f"{prune}?days=31") == (400, 50035)

    with_api(test)


def test_the_bot_changes_its_user_and_its_application() -> None:
    async def test(it: Api) -> None:
        user = await it.do("PATCH", "users/@me", {"username": "another", "avatar": PICTURE})
        assert user["username"] == "another" and user["avatar"]
        told = it.dispatched()
        assert told[0] == ("USER_UPDATE", user)
        assert {name for name, _ in told[1:]} == {"GUILD_MEMBER_UPDATE"}
        assert await it.fails("PATCH", "users/@me", {"username": "x"}) == (400, 50035)
        changed = await it.do("PATCH", "applications/@me", {"description": "About", "tags": ["fox"]})
        assert (changed["description"], changed["tags"]) == ("About", ["fox"])
        assert (await it.do("GET", "applications/@me"))["description"] == "About"

    with_api(test)


def test_polls_have_voters_and_an_end() -> None:
    async def test(it: Api) -> None:
        answers = [{"poll_media": {"text": text}} for text in ("yes", "no")]
        poll = {"question": {"text": "Well?"}, "answers": answers, "duration": 1}
        said = await it.do("POST", f"channels/{it.channel()}/messages", {"poll": poll})
        where = {"channel_id": it.channel(), "message_id": said["id"], "answer_id": 1}
        await it.do("POST", f"/simulator/users/{it.person()}/votes", where)
        path = f"channels/{it.channel()}/polls/{said['id']}"
        voters = await it.do("GET", f"{path}/answers/1")
        assert [user["id"] for user in voters["users"]] == [it.person()]
        assert await it.do("GET", f"{path}/answers/2") == {"users": []}
        it.dispatched()
        ended = await it.do("POST", f"{path}/expire")
        assert ended["poll"]["results"] == {
            "is_finalized": True,
            "answer_counts": [{"id": 1, "count": 1, "me_voted": False}],
        }
        (_, updated), (name, result) = it.dispatched()
        assert updated["poll"]["results"]["is_finalized"] and (name, result["type"]) == ("MESSAGE_CREATE", 46)
        assert result["embeds"][0]["type"] == "poll_result"
        plain = await it.do("POST", f"channels/{it.channel()}/messages", {"content": "x"})
        assert await it.fails("POST", f"channels/{it.channel()}/polls/{plain['id']}/expire") == (400, 520006)

    with_api(test)


def test_a_stage_is_opened_once_changed_and_closed_and_voice_has_a_status() -> None:
    async def test(it: Api) -> None:
        it.guild.stages.clear()
        stage = it.channel(13)
        made = await it.do("POST", "stage-instances", {"channel_id": stage, "topic": "Ask"})
        assert await it.fails("POST", "stage-instances", {"channel_id": stage, "topic": "x"}) == (400, 150006)
        assert await it.do("GET", f"stage-instances/{stage}") == made
        assert (await it.do("PATCH", f"stage-instances/{stage}", {"topic": "Tell"}))["topic"] == "Tell"
        await it.do("DELETE", f"stage-instances/{stage}")
        assert names(it) == [f"STAGE_INSTANCE_{what}" for what in ("CREATE", "UPDATE", "DELETE")]
        assert await it.fails("GET", f"stage-instances/{stage}") == (404, 10067)
        wrong = {"channel_id": it.channel(), "topic": "x"}
        assert await it.fails("POST", "stage-instances", wrong) == (400, 50024)
        voice = it.channel(2)
        await it.do("PUT", f"channels/{voice}/voice-status", {"status": "playing"})
        [(name, told)] = it.dispatched()
        assert (name, told["status"]) == ("VOICE_CHANNEL_STATUS_UPDATE", "playing")
        states = f"guilds/{it.guild.id}/voice-states"
        assert await it.fails("GET", f"{states}/@me") == (404, 10065)
        person = it.person()
        where = {"guild_id": it.guild.id, "channel_id": stage}
        await it.do("POST", f"/simulator/users/{person}/voice", where)
        assert (await it.do("GET", f"{states}/{person}"))["channel_id"] == stage
        it.dispatched()
        await it.do("PATCH", f"{states}/{person}", {"channel_id": stage, "suppress": True})
        [(name, told)] = it.dispatched()
        assert (name, told["suppress"]) == ("VOICE_STATE_UPDATE", True)

    with_api(test)


def test_threads_have_people_and_archives() -> None:
    async def test(it: Api) -> None:
        text = it.channel()
        made = {}
        for name, kind in (("public", 11), ("private", 12)):
            thread = await it.do("POST", f"channels/{text}/threads", {"name": name, "type": kind})
            made[name] = thread["id"]
        people = f"channels/{made['public']}/thread-members"
        await it.do("PUT", f"{people}/{it.person()}")
        listed = await it.do("GET", people + "?with_member=true")
        assert {d["user_id"] for d in listed} == {BOT_ID, it.person()}
        assert all(d["member"]["user"]["id"] == d["user_id"] for d in listed)
        assert (await it.do("GET", f"{people}/@me"))["user_id"] == BOT_ID
        assert await it.fails("GET", f"{people}/{it.person(5)}") == (404, 10007)
        for thread_id in made.values():
            await it.do("PATCH", f"channels/{thread_id}", {"archived": True})
        for path, name in (
            ("threads/archived/public", "public"),
            ("threads/archived/private", "private"),
            ("users/@me/threads/archived/private", "private"),
        ):
            found = await it.do("GET", f"channels/{text}/{path}")
            assert [d["id"] for d in found["threads"]] == [made[name]] and found["has_more"] is False
            assert [d["id"] for d in found["members"]] == [made[name]]

    with_api(test)


def test_what_can_be_bought_is_given_consumed_and_taken() -> None:
    async def test(it: Api) -> None:
        base = f"applications/{BOT_ID}"
        [sku] = await it.do("GET", f"{base}/skus")
        body = {"sku_id": sku["id"], "owner_id": it.person(), "owner_type": 2}
        made = await it.do("POST", f"{base}/entitlements", body)
        assert made["user_id"] == it.person() and made["ends_at"] is None
        assert await it.do("GET", f"{base}/entitlements?user_id={it.person()}") == [made]
        assert await it.do("GET", f"{base}/entitlements?guild_id={it.guild.id}") == []
        await it.do("POST", f"{base}/entitlements/{made['id']}/consume")
        assert (await it.do("GET", f"{base}/entitlements/{made['id']}"))["consumed"] is True
        await it.do("DELETE", f"{base}/entitlements/{made['id']}")
        assert names(it) == [f"ENTITLEMENT_{what}" for what in ("CREATE", "UPDATE", "DELETE")]
        assert await it.fails("GET", f"{base}/entitlements/{made['id']}") == (404, 10029)
        assert await it.fails("POST", f"{base}/entitlements", body | {"sku_id": "1"}) == (404, 10027)
        permissions = f"{base}/guilds/{it.guild.id}/commands"
        assert await it.do("GET", f"{permissions}/permissions") == []
        assert await it.fails("GET", f"{permissions}/1/permissions") == (404, 10066)
        assert await it.fails("PUT", f"{permissions}/1/permissions", {"permissions": []}) == (403, 20001)
        assert await it.fails("GET", f"applications/{UNKNOWN}/skus") == (403, 50001)

    with_api(test)


def test_a_guild_has_pages_for_visitors_and_newcomers() -> None:
    async def test(it: Api) -> None:
        base = f"guilds/{it.guild.id}"
        preview = await it.do("GET", f"{base}/preview")
        assert preview["approximate_member_count"] == 12 and preview["emojis"]
        settings = await it.do("PATCH", f"{base}/widget", {"enabled": True, "channel_id": it.channel()})
        assert (
            settings == {"enabled": True, "channel_id": it.channel()} == await it.do("GET", f"{base}/widget")
        )
        assert names(it) == ["GUILD_UPDATE"]
        status, widget, _ = await it.ask("GET", f"{base}/widget.json", headers={})
        assert status == 200 and widget["presence_count"] == len(widget["members"])
        await it.do("PATCH", f"{base}/widget", {"enabled": False})
        assert await it.fails("GET", f"{base}/widget.json") == (403, 50004)
        assert await it.fails("GET", f"{base}/welcome-screen") == (404, 10069)
        channels = [{"channel_id": it.channel(), "description": "Here"}]
        welcome = await it.do("PATCH", f"{base}/welcome-screen", {"welcome_channels": channels})
        assert welcome["welcome_channels"][0]["description"] == "Here"
        assert await it.do("GET", f"{base}/welcome-screen") == welcome
        onboarding = await it.do("PUT", f"{base}/onboarding", {"enabled": True, "mode": 1})
        assert (onboarding["enabled"], onboarding["guild_id"]) == (True, it.guild.id)
        assert await it.do("GET", f"{base}/onboarding") == onboarding
        template = await it.do("POST", f"{base}/templates", {"name": "Like us"})
        assert await it.do("GET", f"guilds/templates/{template['code']}") == template
        assert await it.do("GET", f"{base}/templates") == [template]
        renamed = await it.do("PATCH", f"{base}/templates/{template['code']}", {"name": "As we are"})
        assert renamed["name"] == "As we are"
        await it.do("DELETE", f"{base}/templates/{template['code']}")
        assert await it.fails("GET", f"guilds/templates/{template['code']}") == (404, 10057)
        assert await it.do("GET", f"{base}/integrations") == []
        assert await it.fails("DELETE", f"{base}/integrations/1") == (404, 10005)
        for path in ("voice/regions", f"{base}/regions", "soundboard-default-sounds"):
            assert len(await it.do("GET", path)) > 2
        assert (await it.do("GET", "sticker-packs"))["sticker_packs"][0]["stickers"]

    with_api(test)


def test_what_was_made_survives_that_a_guild_is_put_away() -> None:
    from rateway_simulator.world.guild import fold, unfold

    async def test(it: Api) -> None:
        made = await it.do("POST", f"channels/{it.channel()}/webhooks", {"name": "Hook"})
        await it.do("PUT", f"guilds/{it.guild.id}/onboarding", {"enabled": True})
        await it.do("POST", f"channels/{it.channel()}/invites", {})
        guild = it.guild
        webhooks, invites, log, pages = guild.webhooks, guild.invites, guild.audit_log, guild.pages
        data = fold(guild)
        guild.webhooks, guild.invites, guild.audit_log, guild.pages = {}, {}, [], {}
        again = unfold(data, guild)
        assert (again.webhooks, again.invites, again.audit_log, again.pages) == (
            webhooks,
            invites,
            log,
            pages,
        )
        assert await it.do("GET", f"webhooks/{made['id']}") == made

    with_api(test)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "name", "type", "channel_id", "user_ids", "content", "embeds", "components", "attachments", "poll", "options",
    "message_reference", "roles", "image", "position", "id", "entity_type", "topic", "days", "trigger_type", "actions",
    "flags", "permission_overwrites", "welcome_channels", "messages", "max_age", "data", "answers", "applied_tags",
    "message", "allow", "parent_id", "scheduled_start_time", "privacy_level", "event_type", "status", "avatar", "nick",
    "username", "sku_id", "owner_id", "sticker_ids", "message_id", "user_id", "permissions", "color", "nonce", "tts",
]  # fmt: skip
BODIES = JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
ROUTES = [(method, path) for method, path, _ in rest.routes(Facts()) if method not in ("GET", "DELETE")]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ROUTES), st.lists(BODIES, min_size=1, max_size=8), st.booleans())
def test_a_body_of_any_shape_is_answered_as_a_client_s_mistake_at_worst(
    route: tuple[str, str], bodies: list[Any], listed: bool
) -> None:
    async def test(it: Api) -> None:
        said = await it.do("POST", f"channels/{it.channel()}/messages", {"content": "x"})
        hook = await it.do("POST", f"channels/{it.channel()}/webhooks", {"name": "Hook"})
        rule = await it.do(
            "POST",
            f"guilds/{it.guild.id}/auto-moderation/rules",
            {"name": "x", "event_type": 1, "trigger_type": 3, "actions": [{"type": 1}]},
        )
        known = {
            "channel_id": it.channel(), "guild_id": it.guild.id, "message_id": said["id"], "user_id": it.person(),
            "role_id": list(it.guild.roles)[2], "emoji_id": next(iter(it.guild.emojis)), "rule_id": rule["id"],
            "webhook_id": hook["id"], "token": hook["token"], "application_id": BOT_ID, "emoji": "x",
            "event_id": next(iter(it.guild.events)), "overwrite_id": it.guild.id, "code": "x", "command_id": "1",
            "interaction_id": "1", "entitlement_id": "1", "answer_id": "1", "integration_id": "1",
            "sticker_id": next(iter(it.guild.stickers)), "sound_id": next(iter(it.guild.sounds)),
        }  # fmt: skip
        path = re.sub(r"\{(\w+)\}", lambda match: str(known[match[1]]), route[1])
        for body in bodies:
            status, answer, _ = await it.ask(route[0], path.removeprefix("/"), [body] if listed else body)
            assert status < 500, (route, body, answer)

    with_api(test)
