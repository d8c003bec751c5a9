"""Which events a session of some intents receives, and what of them, found out from their bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord.events import EVENTS
from rateway_protocol.discord.intents import ALL, Intents
from rateway_protocol.discord.visibility import receives, visible

OWN, OTHER = 80, 7
ALL_BITS = int(ALL)
NO_CONTENT = ALL_BITS & ~int(Intents.MESSAGE_CONTENT)
IN_GUILD: dict[str, Any] = {"guild_id": "1"}
FILLED: dict[str, Any] = {
    "content": "secret", "embeds": [{"type": "rich"}], "attachments": [{"id": "5"}], "components": [{"type": 1}],
    "poll": {"question": {}},
}  # fmt: skip
EMPTY = {"content": "", "embeds": [], "attachments": [], "components": []}


def bits(*intents: Intents) -> int:
    return sum(int(each) for each in intents)


def message(author: int = OTHER, **more: Any) -> dict[str, Any]:
    return {"id": "1", "author": {"id": str(author), "username": "x"}, "mentions": [], **FILLED, **more}


def seen(name: str, d: Any, intents: int) -> Any:
    """``d`` as it is seen, parsed; None where it is not received."""
    told = visible(name, json.dumps(d, separators=(",", ":")).encode(), intents, OWN)
    return None if told is None else json.loads(told)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_with_all_intents_every_event_passes_as_the_bytes_that_it_came_as(name: str) -> None:
    for d in (b'{"guild_id": "1"}', b"{}", b"null", b"\xff no JSON"):
        assert visible(name, d, ALL_BITS, OWN) is d


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_one_intent_of_an_event_is_enough_and_none_is_not(name: str) -> None:
    wanted = EVENTS[name].intents
    d = {"guild_id": "1", "user": {"id": "7"}, "user_id": "7"}
    if not wanted:
        assert seen(name, d, 0) == d
        return
    assert seen(name, d, ALL_BITS & ~wanted) is None
    received = [each for each in Intents if each & wanted and seen(name, d, int(each)) is not None]
    direct = [
        each for each in Intents if each & wanted and seen(name, {"user_id": "7"}, int(each)) is not None
    ]
    assert received
    assert {*received, *direct} == {
        each for each in Intents if each & wanted
    } or name == "THREAD_MEMBERS_UPDATE"


def test_events_that_nobody_has_documented_are_received() -> None:
    assert visible("SOMETHING_NEW", b"\xff", 0, OWN) == b"\xff"
    assert receives("SOMETHING_NEW", 0)


@pytest.mark.parametrize(
    ("name", "in_guilds", "in_direct"),
    [
        ("MESSAGE_CREATE", Intents.GUILD_MESSAGES, Intents.DIRECT_MESSAGES),
        ("MESSAGE_DELETE", Intents.GUILD_MESSAGES, Intents.DIRECT_MESSAGES),
        ("MESSAGE_REACTION_ADD", Intents.GUILD_MESSAGE_REACTIONS, Intents.DIRECT_MESSAGE_REACTIONS),
        ("TYPING_START", Intents.GUILD_MESSAGE_TYPING, Intents.DIRECT_MESSAGE_TYPING),
        ("MESSAGE_POLL_VOTE_ADD", Intents.GUILD_MESSAGE_POLLS, Intents.DIRECT_MESSAGE_POLLS),
        ("CHANNEL_PINS_UPDATE", Intents.GUILDS, Intents.DIRECT_MESSAGES),
    ],
)
def test_what_names_no_guild_itself_is_direct(name: str, in_guilds: Intents, in_direct: Intents) -> None:
    content = int(Intents.MESSAGE_CONTENT)
    of_guild = [
        {"a": 1, "guild_id": "1"},
        {"guild_id": "1", "a": 1},
        {"guild_id": 1},
        {"message_reference": {"guild_id": "1"}, "guild_id": "1"},
    ]
    direct: list[dict[str, Any]] = [
        {"a": 1},
        {"guild_id": None},
        {"content": '"guild_id":"1"}'},
        {"content": "guild_id"},
        {"message_reference": {"guild_id": "1"}},
        {"a": [{"guild_id": "1"}]},
    ]
    for d in of_guild:
        assert seen(name, d, in_guilds | content) == d
        assert seen(name, d, in_direct | content) is None
    for d in direct:
        assert seen(name, d, in_guilds | content) is None
        assert seen(name, d, in_direct | content) == d


def test_a_members_update_is_received_without_its_intent_when_it_is_the_bots_own() -> None:
    own, other = ({"guild_id": "1", "user": {"id": each}, "nick": "80"} for each in ("80", "7"))
    assert seen("GUILD_MEMBER_UPDATE", own, 0) == own
    assert seen("GUILD_MEMBER_UPDATE", other, bits(Intents.GUILDS)) is None
    assert seen("GUILD_MEMBER_UPDATE", other, bits(Intents.GUILD_MEMBERS)) == other
    assert seen("GUILD_MEMBER_ADD", own, 0) is None


def test_content_is_blanked_without_its_intent_and_nothing_else() -> None:
    d = message(**IN_GUILD, type=0, nonce=12345678901234567890, flags=1.50)
    for name in ("MESSAGE_CREATE", "MESSAGE_UPDATE"):
        expected = {**d, **EMPTY}
        del expected["poll"]
        assert seen(name, d, NO_CONTENT) == expected
    # Values beside it keep their bytes.
    raw = b'{"guild_id":"1","content":"x","nonce":123456789012345678901234567890.10,"author":{"a": 1.0}}'
    told = visible("MESSAGE_CREATE", raw, NO_CONTENT, OWN)
    assert (
        told == b'{"guild_id":"1","content":"","nonce":123456789012345678901234567890.10,"author":{"a": 1.0}}'
    )
    # What is not there does not come.
    assert seen("MESSAGE_UPDATE", {"id": "1", "guild_id": "1"}, NO_CONTENT) == {"id": "1", "guild_id": "1"}


def test_content_is_shown_of_what_the_bot_sent_of_what_mentions_it_and_of_what_is_direct() -> None:
    for d in (
        message(OWN, **IN_GUILD),
        message(application_id="80", webhook_id="5", **IN_GUILD),
        {**message(**IN_GUILD), "mentions": [{"id": "9"}, {"id": "80", "member": {}}]},
        message(),
        message(guild_id=None),
    ):
        raw = json.dumps(d, separators=(",", ":")).encode()
        assert visible("MESSAGE_CREATE", raw, NO_CONTENT, OWN) is raw
    for d in (
        message(**IN_GUILD, mention_roles=["80"], mention_everyone=True),
        {**message(**IN_GUILD), "mentions": [{"id": "800"}, {"id": "9", "member": {"roles": ["80"]}}]},
        {**message(**IN_GUILD), "author": None, "mentions": None},
    ):
        assert seen("MESSAGE_CREATE", d, NO_CONTENT)["content"] == ""


def test_messages_inside_a_message_are_shown_or_not_as_each_of_them_is_itself() -> None:
    inner: dict[str, Any] = {
        "referenced_message": {**message(), "referenced_message": message(OWN)},
        "message_snapshots": [
            {"message": {**FILLED}},
            {"message": {**FILLED, "mentions": [{"id": "80"}]}},
            {},
        ],
    }
    d = message(**IN_GUILD, **inner)
    told = seen("MESSAGE_CREATE", d, NO_CONTENT)
    referenced = told["referenced_message"]
    assert (referenced["content"], "poll" in referenced) == ("", False)
    assert referenced["referenced_message"] == message(OWN)
    assert told["message_snapshots"] == [{"message": EMPTY}, inner["message_snapshots"][1], {}]
    # A message that is shown is shown whole.
    mine = message(OWN, **IN_GUILD, **inner)
    assert seen("MESSAGE_CREATE", mine, NO_CONTENT) == mine
    assert (
        seen("MESSAGE_UPDATE", message(**IN_GUILD, referenced_message=None), NO_CONTENT)["referenced_message"]
        is None
    )


def test_an_executions_content_is_blanked_where_there_is_some() -> None:
    d = {"guild_id": "1", "content": "a", "matched_content": None, "matched_keyword": "b"}
    name = "AUTO_MODERATION_ACTION_EXECUTION"
    assert seen(name, d, bits(Intents.AUTO_MODERATION_EXECUTION)) == {**d, "content": ""}
    assert seen(name, d, bits(Intents.AUTO_MODERATION_EXECUTION, Intents.MESSAGE_CONTENT)) == d
    assert seen(name, d, NO_CONTENT & ~int(Intents.AUTO_MODERATION_EXECUTION)) is None


def test_of_a_threads_people_one_sees_the_bot_alone_without_members() -> None:
    added = [{"user_id": each, "presence": {"status": "idle"}} for each in ("7", "80")]
    d = {"id": "3", "guild_id": "1", "added_members": added, "removed_member_ids": ["9", "80"]}
    members, presences = Intents.GUILD_MEMBERS, Intents.GUILD_PRESENCES
    hidden = [{"user_id": each, "presence": None} for each in ("7", "80")]
    name = "THREAD_MEMBERS_UPDATE"
    assert seen(name, d, bits(members, presences)) == d
    assert seen(name, d, bits(members)) == {**d, "added_members": hidden}
    assert seen(name, d, bits(Intents.GUILDS)) == {
        **d, "added_members": hidden[1:], "removed_member_ids": ["80"],
    }  # fmt: skip
    others = {"guild_id": "1", "added_members": added[:1], "removed_member_ids": ["9"]}
    assert seen(name, others, bits(Intents.GUILDS)) is None
    assert seen(name, others, bits(presences)) is None
    assert seen(name, {"guild_id": "1"}, bits(Intents.GUILDS)) is None


def test_a_guild_comes_with_the_bot_and_who_is_in_voice_without_presences() -> None:
    members = [{"user": {"id": each}} for each in ("7", "80", "9")]
    d = {
        "id": "1", "member_count": 3, "large": False, "members": members, "presences": [{"user": {"id": "7"}}],
        "voice_states": [{"user_id": "9"}],
    }  # fmt: skip
    guilds = bits(Intents.GUILDS)
    assert seen("GUILD_CREATE", d, guilds) == {**d, "members": members[1:], "presences": [], "large": True}
    small = {**d, "member_count": 2, "members": members[1:], "presences": []}
    assert seen("GUILD_CREATE", small, guilds) == small
    assert seen("GUILD_CREATE", d, bits(Intents.GUILDS, Intents.GUILD_PRESENCES)) == d
    outage = {"id": "1", "unavailable": True}
    assert seen("GUILD_CREATE", outage, guilds) == outage


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("80"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "id", "user", "user_id", "author", "mentions", "guild_id", "content", "embeds", "members", "presences",
            "referenced_message", "message_snapshots", "message", "added_members", "removed_member_ids",
            "application_id", "voice_states", "member_count", "large", "matched_content", "poll",
        ]),
        inner, max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(sorted(EVENTS)), Json, st.integers(0, ALL_BITS))
def test_any_d_is_received_or_not_and_never_raises(name: str, d: object, intents: int) -> None:
    told = visible(name, json.dumps(d).encode("utf-8", "surrogatepass"), intents, OWN)
    assert told is None or isinstance(told, bytes)


@pytest.mark.parametrize("name", sorted(EVENTS))
@pytest.mark.parametrize("d", [b"", b"{", b"\xff", b'"80"', b"[" * 100_000, b'{"content":"80"'])
def test_what_cannot_be_read_is_not_shown_where_something_would_be_blanked(name: str, d: bytes) -> None:
    for intents in (0, NO_CONTENT, bits(Intents.GUILDS), ALL_BITS & ~int(Intents.GUILD_PRESENCES)):
        told = visible(name, d, intents, OWN)
        assert told is None or told is d
    if name in ("MESSAGE_CREATE", "MESSAGE_UPDATE", "AUTO_MODERATION_ACTION_EXECUTION"):
        assert visible(name, d, NO_CONTENT, OWN) is None
