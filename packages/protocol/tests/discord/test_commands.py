"""What is sent is what Discord takes; the rest is refused here, in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord import command_forms, commands
from rateway_protocol.discord.intents import Intents

GUILD = str(5 << 22)


def refusal_of(op: int, d: object, **session: Any) -> str | None:
    """Why a command is refused; None when it is not."""
    form = command_forms.read(op, d, **session)
    return form.reason if isinstance(form, command_forms.Refusal) else None


PRESENCE: dict[str, Any] = {"since": None, "activities": [], "status": "online", "afk": False}
VOICE = {"guild_id": GUILD, "channel_id": "9", "self_mute": False, "self_deaf": True}
MEMBERS = {"guild_id": GUILD, "query": "", "limit": 0}
USERS = {"guild_id": GUILD, "user_ids": ["1", "2"]}

GOOD: list[tuple[int, dict[str, Any]]] = [
    (3, PRESENCE),
    (
        3,
        {
            **PRESENCE,
            "since": 91879201,
            "activities": [{"name": "x", "type": 0, "url": "https://x", "state": "s"}],
        },
    ),
    (3, {**PRESENCE, "activities": [{"name": "x", "type": 4, "state": None}]}),
    (4, VOICE),
    (4, {**VOICE, "channel_id": None}),
    (8, MEMBERS),
    (8, {**MEMBERS, "nonce": "n" * 32, "presences": False}),
    (8, USERS),
    (8, {**USERS, "user_ids": "1"}),
    (31, {"guild_ids": [GUILD]}),
    (43, {"guild_id": GUILD, "fields": ["status", "voice_start_time"]}),
]

BAD: list[tuple[int, Any, str]] = [
    (2, {}, "op 2 is not a command"),
    (3, None, "d should be an object"),
    (3, {**PRESENCE, "activities": None}, "activities should be an array"),
    (3, {key: PRESENCE[key] for key in ("since", "status", "afk")}, "activities should be an array"),
    (3, {**PRESENCE, "since": "now"}, "since should be"),
    (3, {**PRESENCE, "since": 1 << 70}, "since should be"),
    (3, {**PRESENCE, "status": "busy"}, "status should be one of"),
    (3, {**PRESENCE, "status": []}, "status should be one of"),
    (3, {**PRESENCE, "afk": 1}, "afk should be"),
    (3, {**PRESENCE, "activities": ["x"]}, "each activity should be an object"),
    (3, {**PRESENCE, "activities": [{"name": "x"}]}, "type should be a number"),
    (3, {**PRESENCE, "activities": [{"type": 0}]}, "name should be a string"),
    (3, {**PRESENCE, "activities": [{"name": "x", "type": 0, "state": 5}]}, "state should be a string"),
    (4, {key: VOICE[key] for key in ("guild_id", "self_mute", "self_deaf")}, "channel_id should be there"),
    (4, {**VOICE, "guild_id": None}, "guild_id should be one guild's id, as a string"),
    (4, {**VOICE, "channel_id": -9}, "channel_id should be"),
    (4, {**VOICE, "channel_id": 1e30}, "channel_id should be"),
    (4, {**VOICE, "self_mute": "yes"}, "self_mute should be"),
    (8, {"guild_id": GUILD}, "exactly one of"),
    (8, {**USERS, "query": "a", "limit": 1}, "exactly one of"),
    (8, {"guild_id": GUILD, "query": ""}, "limit should be there"),
    (8, {**MEMBERS, "limit": True}, "limit should be there"),
    (8, {**MEMBERS, "limit": -1}, "limit should not be negative"),
    (8, {**MEMBERS, "query": None}, "exactly one of"),
    (8, {**MEMBERS, "query": 5}, "query should be a string"),
    (8, {**USERS, "user_ids": ["1"] * 101}, "has 101 ids"),
    (8, {**USERS, "user_ids": ["x"]}, "ids as strings"),
    (8, {**MEMBERS, "presences": "yes"}, "presences should be"),
    (8, {**MEMBERS, "guild_id": [GUILD, GUILD]}, "guild_id should be"),
    (8, {**MEMBERS, "guild_id": "9" * 5000}, "guild_id should be"),
    (31, {}, "guild_ids should be"),
    (31, {"guild_ids": []}, "guild_ids should be"),
    (31, {"guild_ids": ["x"]}, "guild_ids should be"),
    (43, {"guild_id": GUILD}, "fields should be"),
    (43, {"guild_id": GUILD, "fields": ["topic"]}, "not topic"),
    (43, {"fields": []}, "guild_id should be"),
]


@pytest.mark.parametrize(("op", "d"), GOOD)
def test_what_discord_takes_is_not_refused(op: int, d: dict[str, Any]) -> None:
    assert refusal_of(op, d, intents=int(Intents.GUILD_MEMBERS), shard=(5, 16)) is None


@pytest.mark.checklist("A14", "D13")
@pytest.mark.parametrize(("op", "d", "says"), [*BAD, (8, {**MEMBERS, "nonce": "n" * 33}, "at most 32 bytes")])
def test_what_discord_would_punish_is_refused_in_words(op: int, d: Any, says: str) -> None:
    assert says in str(refusal_of(op, d))


@pytest.mark.checklist("D13")
def test_a_nonce_is_measured_in_bytes() -> None:
    assert refusal_of(8, {**MEMBERS, "nonce": "é" * 16}) is None
    assert "32 bytes" in str(refusal_of(8, {**MEMBERS, "nonce": "é" * 17}))


@pytest.mark.checklist("D15")
@pytest.mark.parametrize(
    ("op", "d"),
    [
        (4, VOICE),
        (8, MEMBERS),
        (8, USERS),
        (31, {"guild_ids": [GUILD]}),
        (43, {"guild_id": GUILD, "fields": []}),
    ],
)
def test_a_guild_of_another_shard_is_refused_because_discord_would_not_answer(
    op: int, d: dict[str, Any]
) -> None:
    assert "belongs to shard 5, not to shard 4" in str(refusal_of(op, d, shard=(4, 16)))
    assert refusal_of(op, d, shard=(5, 16)) is None


def test_what_needs_an_intent_is_refused_without_it() -> None:
    assert "GUILD_MEMBERS" in str(refusal_of(8, MEMBERS, intents=1))
    assert "GUILD_PRESENCES" in str(refusal_of(8, {**USERS, "presences": True}, intents=2))
    assert refusal_of(8, USERS, intents=1) is None


KEYS = [
    "guild_id",
    "guild_ids",
    "activities",
    "since",
    "status",
    "afk",
    "query",
    "limit",
    "user_ids",
    "nonce",
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)


@given(st.integers(-5, 60), anything)
def test_no_payload_makes_the_check_raise(op: int, d: Any) -> None:
    wrong = refusal_of(op, d, intents=0, shard=(0, 4))
    assert wrong is None or wrong


@pytest.mark.checklist("B20", "C12")
def test_identify_says_who_and_what_without_the_prefix_and_without_payload_compression() -> None:
    data = commands.identify(
        token=" Bot abc ", intents=513, shard_id=2, shard_count=4, large_threshold=250, presence=PRESENCE
    )
    payload = json.loads(data)
    assert payload["op"] == 2
    d = payload["d"]
    assert (d["token"], d["intents"], d["shard"], d["large_threshold"]) == ("abc", 513, [2, 4], 250)
    assert d["presence"] == PRESENCE
    assert set(d["properties"]) == {"os", "browser", "device"}
    assert "compress" not in d


@pytest.mark.checklist("B20")
def test_resume_and_heartbeat_are_written_as_documented() -> None:
    assert json.loads(commands.resume(token="bot abc", session_id="s", seq=7)) == {
        "op": 6,
        "d": {"token": "abc", "session_id": "s", "seq": 7},
    }
    assert commands.heartbeat(None) == b'{"op":1,"d":null}'
    assert commands.heartbeat(251) == b'{"op":1,"d":251}'


def test_a_presence_is_complete_and_passes_the_check() -> None:
    payload = json.loads(commands.presence(status="idle", since=5, activities=[{"name": "x", "type": 0}]))
    assert payload["op"] == 3
    assert refusal_of(3, payload["d"]) is None
