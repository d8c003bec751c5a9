"""What libraries put on the wire reaches Discord in the documented form."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hikari
import msgspec
import pytest
from hikari.impl.shard import GatewayShardImpl
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.contract.commands import CommandRequest, parse_command
from rateway_protocol.discord import command_forms
from rateway_protocol.discord.command_forms import Documented, Fault, Refusal

import discord
from discord.gateway import DiscordWebSocket

GUILD = 613425648685547541
ALL_INTENTS = (1 << 26) - 1
# Each field of a documented activity that a bot cannot set, with a value that a library sends for it.
UNSETTABLE: dict[str, Any] = {
    "_created_at": 1_600_000_000.5,
    "application_id": 5,
    "assets": {"large_image": "1", "large_text": "x"},
    "buttons": ["label"],
    "created_at": "0001-01-01T00:00:00Z",
    "details": "d",
    "details_url": "https://x",
    "emoji": {"name": "x", "id": None, "animated": False},
    "flags": 48,
    "game": "g",
    "id": "custom",
    "instance": False,
    "party": {"size": [1, 2]},
    "platform": None,
    "secrets": {},
    "session_id": "s",
    "state_url": "https://x",
    "status_display_type": 1,
    "sync_id": "s",
    "timestamps": {"start": 1},
    "twitch_name": "t",
}

# Generators: one field in every spelling that is taken.


def spelled_id(number: int) -> st.SearchStrategy[Any]:
    spellings: list[Any] = [str(number), number]
    if number < 1 << 53:
        spellings.append(float(number))
    return st.sampled_from(spellings)


ids = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 53) - 1)).flatmap(spelled_id)
guild_id = spelled_id(GUILD) | st.just([GUILD]) | st.just([str(GUILD)])
flags = st.booleans() | st.none()
whole_numbers = st.integers(-3, 1 << 45) | st.integers(-3, 1 << 45).map(float)
times = st.one_of(
    st.none(),
    whole_numbers,
    st.floats(0, 2e12),
    st.integers(0, 1 << 41).map(str),
    st.builds(
        lambda s, n: {"secs_since_epoch": s, "nanos_since_epoch": n},
        st.integers(0, 1 << 33),
        st.integers(0, 999_999_999),
    ),
)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
activities = st.fixed_dictionaries(
    {"type": st.integers(-1, 5) | st.integers(0, 5).map(float), "name": texts.filter(bool)},
    optional={"state": texts | st.none(), "url": texts | st.none()}
    | {key: st.just(value) for key, value in UNSETTABLE.items()},
)
custom = st.fixed_dictionaries(
    {"type": st.just(4), "state": texts}, optional={"name": st.sampled_from(["", None, "x"])}
)
optional_presence: dict[str, st.SearchStrategy[Any]] = {
    "since": times,
    "status": st.sampled_from(["online", "dnd", "idle", "invisible", "offline", "", None]),
    "afk": flags,
    "client_event_source": st.none(),
}
presences = st.fixed_dictionaries(
    {"activities": st.lists(activities | custom, max_size=3)}, optional=optional_presence
) | st.fixed_dictionaries({"game": activities | custom | st.none()}, optional=optional_presence)
voices = st.fixed_dictionaries(
    {"guild_id": guild_id, "channel_id": ids | st.none()},
    optional={"self_mute": flags, "self_deaf": flags, "self_video": st.booleans()},
)
beside: dict[str, st.SearchStrategy[Any]] = {
    "nonce": st.none() | st.text("abc-0", max_size=32) | st.integers(0, 1 << 60),
    "presences": flags | st.sampled_from([0, 256]),
}
members = st.one_of(
    st.fixed_dictionaries(
        {"guild_id": guild_id, "query": texts, "limit": st.integers(0, 500) | st.just(0.0)},
        optional=beside | {"user_ids": st.none() | st.just([])},
    ),
    st.fixed_dictionaries(
        {"guild_id": guild_id, "user_ids": ids | st.lists(ids, min_size=1, max_size=100)},
        optional=beside | {"query": st.sampled_from(["", None]), "limit": st.none() | st.integers(0, 100)},
    ),
)
sounds = st.fixed_dictionaries({"guild_ids": spelled_id(GUILD) | st.lists(spelled_id(GUILD), min_size=1)})
infos = st.fixed_dictionaries(
    {"guild_id": guild_id, "fields": st.lists(st.sampled_from(["status", "voice_start_time"]))}
)
commands = st.one_of(
    *(
        st.tuples(st.just(op), strategy)
        for op, strategy in ((3, presences), (4, voices), (8, members), (31, sounds), (43, infos))
    )
)


# The documentation's own words about each field, independent of the table under test.


def is_id(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and 0 <= int(value) < 1 << 64


def is_integer(value: object) -> bool:
    return type(value) is int


def is_presence(d: dict[str, Any]) -> bool:
    return (
        (d["since"] is None or is_integer(d["since"]))
        and d["status"] in {"online", "dnd", "idle", "invisible", "offline"}
        and type(d["afk"]) is bool
        and "game" not in d
        and all(
            set(activity) <= {"name", "type", "state", "url"}
            and isinstance(activity["name"], str)
            and is_integer(activity["type"])
            and all(isinstance(activity[key], str) for key in ("state", "url") if key in activity)
            for activity in d["activities"]
        )
    )


def is_voice(d: dict[str, Any]) -> bool:
    return (
        is_id(d["guild_id"])
        and (d["channel_id"] is None or is_id(d["channel_id"]))
        and type(d["self_mute"]) is bool
        and type(d["self_deaf"]) is bool
    )


def is_members(d: dict[str, Any]) -> bool:
    asked = d.get("user_ids")
    return (
        is_id(d["guild_id"])
        and ("query" in d) != ("user_ids" in d)
        and ("query" not in d or (isinstance(d["query"], str) and is_integer(d["limit"])))
        and (asked is None or all(map(is_id, asked if isinstance(asked, list) else [asked])))
        and ("nonce" not in d or (isinstance(d["nonce"], str) and len(d["nonce"].encode()) <= 32))
        and ("presences" not in d or type(d["presences"]) is bool)
    )


DOCUMENTED: dict[int, Callable[[dict[str, Any]], bool]] = {
    3: is_presence,
    4: is_voice,
    8: is_members,
    31: lambda d: isinstance(d["guild_ids"], list) and all(map(is_id, d["guild_ids"])),
    43: lambda d: is_id(d["guild_id"]) and set(d["fields"]) <= {"status", "voice_start_time"},
}


@pytest.mark.checklist("K45")
@given(commands)
def test_every_spelling_of_a_library_becomes_the_documented_form(command: tuple[int, dict[str, Any]]) -> None:
    op, d = command
    before = copy.deepcopy(d)
    form = command_forms.read(op, d, intents=ALL_INTENTS)
    assert isinstance(form, Documented), (form, d)
    assert DOCUMENTED[op](form.d), form.d
    assert d == before, "what was given is left alone"
    # What is documented already passes as it is.
    assert command_forms.read(op, form.d, intents=ALL_INTENTS) == Documented(form.d)
    assert bool(form.deviations) or form.d == d


@pytest.mark.checklist("K45")
@given(commands)
def test_every_spelling_passes_from_a_workers_message_to_the_payload(
    command: tuple[int, dict[str, Any]],
) -> None:
    op, d = command
    body = json.dumps({"op": op, "d": d}).encode()
    answer = parse_command(body, {"guild_id": GUILD}, shard_count=16, intents=ALL_INTENTS)
    assert isinstance(answer, CommandRequest), answer
    payload = json.loads(answer.payload)
    assert payload["op"] == op and set(payload) == {"op", "d"}
    assert DOCUMENTED[op](payload["d"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.checklist("K45")
@given(commands, st.data())
def test_a_spoilt_field_is_refused_in_words_or_written_as_documented(
    command: tuple[int, dict[str, Any]], data: st.DataObject
) -> None:
    op, d = command
    key = data.draw(st.sampled_from(sorted(d)))
    form = command_forms.read(op, d | {key: data.draw(JSON)}, intents=ALL_INTENTS)
    if isinstance(form, Refusal):
        assert form.reason
    else:
        assert DOCUMENTED[op](form.d), form.d


@pytest.mark.checklist("K45")
def test_unknown_keys_pass_as_given() -> None:
    d = {
        "guild_id": str(GUILD),
        "channel_id": None,
        "self_mute": False,
        "self_deaf": False,
        "flags": {"x": [1.5]},
    }
    assert command_forms.read(4, d) == Documented(d)


@pytest.mark.checklist("K45")
def test_an_id_that_lost_digits_as_a_float_is_refused() -> None:
    form = command_forms.read(43, {"guild_id": float(GUILD), "fields": []})
    assert isinstance(form, Refusal) and "guild_id" in form.reason


def test_the_kind_of_a_refusal_can_be_told() -> None:
    def kind(d: dict[str, Any], **context: Any) -> Fault | None:
        form = command_forms.read(8, {"guild_id": str(GUILD)} | d, **context)
        return form.fault if isinstance(form, Refusal) else None

    whole = {"query": "", "limit": 0}
    assert kind(whole, intents=ALL_INTENTS, shard=(8, 16)) is None
    assert kind(whole, intents=0) is Fault.INTENTS
    assert kind(whole, shard=(7, 16)) is Fault.SHARD
    assert kind(whole | {"nonce": "x" * 33}) is Fault.NONCE
    assert kind({}) is Fault.MALFORMED


@pytest.mark.checklist("K45", "K46")
@pytest.mark.parametrize(
    ("presence", "documented"),
    [
        # eris 0.18, oceanic.js 1.15, discordgo 0.29, serenity
        (
            {"activities": None, "afk": False, "since": None, "status": "offline"},
            {"activities": [], "afk": False, "since": None, "status": "offline"},
        ),
        (
            {"activities": [], "afk": False, "status": "online"},
            {"activities": [], "afk": False, "since": None, "status": "online"},
        ),
        (
            {
                "since": 0,
                "game": {"name": "", "type": 0, "created_at": "0001-01-01T00:00:00Z", "emoji": {}},
                "status": "",
                "afk": False,
            },
            {"activities": [], "afk": False, "since": 0, "status": "online"},
        ),
        (
            {
                "afk": False,
                "status": "idle",
                "since": {"secs_since_epoch": 1_700_000_000, "nanos_since_epoch": 5_000_000},
                "activities": [],
            },
            {"activities": [], "afk": False, "since": 1_700_000_000_005, "status": "idle"},
        ),
    ],
)
def test_a_presence_in_an_identify_is_taken_as_libraries_write_it(
    presence: dict[str, Any], documented: dict[str, Any]
) -> None:
    form = command_forms.read_identify_presence(presence)
    assert isinstance(form, Documented)
    assert form.d == documented and form.deviations


@given(JSON | st.dictionaries(st.sampled_from([*sorted(optional_presence), "activities", "game"]), JSON))
def test_anything_at_all_as_an_identifys_presence_gets_a_verdict(presence: Any) -> None:
    assert isinstance(command_forms.read_identify_presence(presence), Documented | Refusal)


# The libraries' own code.


def sent_by_discord_py(act: Callable[[Any], Coroutine[Any, Any, None]]) -> tuple[int, dict[str, Any]]:
    """What discord.py writes to its socket."""
    sent: list[str] = []

    async def send(text: str) -> None:
        sent.append(text)

    class Socket(DiscordWebSocket):
        def __init__(self) -> None:
            self.socket = SimpleNamespace(send_str=send)  # type: ignore[assignment]
            self._rate_limiter = SimpleNamespace(block=lambda: asyncio.sleep(0))  # type: ignore[assignment]

    asyncio.run(act(Socket()))
    payload = msgspec.json.decode(sent[0])
    return payload["op"], payload["d"]


@pytest.mark.checklist("K45")
@pytest.mark.parametrize(
    "act",
    [
        lambda socket: socket.change_presence(),
        lambda socket: socket.change_presence(activity=discord.Game("x"), status="idle"),
        lambda socket: socket.change_presence(
            activity=discord.Streaming(name="x", url="https://twitch.tv/x"), status="dnd"
        ),
        lambda socket: socket.change_presence(activity=discord.CustomActivity("x"), status="online"),
        lambda socket: socket.change_presence(
            activity=discord.Activity(
                type=discord.ActivityType.watching,
                name="x",
                state="s",
                assets={"large_text": "t"},
                timestamps={"start": 1},
                buttons=["b"],
            )
        ),
        lambda socket: socket.change_presence(
            activity=discord.Activity(type=discord.ActivityType.custom, state="s")
        ),
        lambda socket: socket.voice_state(GUILD, None),
        lambda socket: socket.voice_state(GUILD, GUILD + 1, self_deaf=True),
        lambda socket: socket.request_chunks(GUILD, "", limit=0, presences=True, nonce="n"),
        lambda socket: socket.request_chunks(GUILD, "a", limit=5),
        lambda socket: socket.request_chunks(GUILD, limit=100, user_ids=[1, 2], nonce="n"),
    ],
)
def test_what_discord_py_sends_is_taken(act: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    op, d = sent_by_discord_py(act)
    form = command_forms.read(op, d, intents=ALL_INTENTS, shard=None if op == 3 else (8, 16))
    assert isinstance(form, Documented), form
    assert DOCUMENTED[op](form.d)


def sent_by_hikari(act: Callable[[Any], Coroutine[Any, Any, None]]) -> tuple[int, dict[str, Any]]:
    """What hikari's shard hands to its socket."""
    sent: list[dict[str, Any]] = []

    class Shard(GatewayShardImpl):
        def __init__(self) -> None:
            self._activity = self._idle_since = None
            self._status, self._is_afk = hikari.Status.ONLINE, False
            self._intents = hikari.Intents.ALL

        def _check_if_connected(self) -> None:
            pass

        async def _send_json(self, payload: Any, *, priority: bool = False) -> None:
            sent.append(payload)

    asyncio.run(act(Shard()))
    payload = msgspec.json.decode(json.dumps(sent[0]))
    return payload["op"], payload["d"]


@pytest.mark.checklist("K45")
@pytest.mark.parametrize(
    "act",
    [
        lambda shard: shard.update_presence(),
        lambda shard: shard.update_presence(activity=hikari.Activity(name="x"), status=hikari.Status.IDLE),
        lambda shard: shard.update_presence(
            activity=hikari.Activity(name="x", type=hikari.ActivityType.CUSTOM),
            idle_since=dt.datetime.fromtimestamp(5, dt.UTC),
        ),
        lambda shard: shard.update_voice_state(GUILD, None),
        lambda shard: shard.update_voice_state(GUILD, 5, self_mute=True, self_deaf=True),
        lambda shard: shard.request_guild_members(GUILD),
        lambda shard: shard.request_guild_members(GUILD, query="a", limit=5, nonce="n"),
        lambda shard: shard.request_guild_members(GUILD, users=[1, 2], include_presences=True),
        lambda shard: shard.request_channel_info(GUILD, fields=["status"]),
    ],
)
def test_what_hikari_sends_is_taken(act: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    op, d = sent_by_hikari(act)
    form = command_forms.read(op, d, intents=ALL_INTENTS, shard=None if op == 3 else (8, 16))
    assert isinstance(form, Documented), form
    assert DOCUMENTED[op](form.d)


@pytest.mark.checklist("K45")
@pytest.mark.parametrize(
    ("op", "d", "documented"),
    [
        # discordgo's RequestGuildMembers; twilight's query without a limit; JDA's and discord.js's user_ids
        (
            8,
            {"guild_id": [str(GUILD)], "query": "", "limit": 0, "presences": False},
            {"guild_id": str(GUILD), "query": "", "limit": 0, "presences": False},
        ),
        (
            8,
            {"guild_id": str(GUILD), "limit": 0, "query": "a"},
            {"guild_id": str(GUILD), "limit": 0, "query": "a"},
        ),
        (
            8,
            {"guild_id": str(GUILD), "presences": False, "user_ids": [GUILD], "nonce": "-5"},
            {"guild_id": str(GUILD), "presences": False, "user_ids": [str(GUILD)], "nonce": "-5"},
        ),
        (
            8,
            {"guild_id": GUILD, "query": "", "limit": 0, "user_ids": [5]},
            {"guild_id": str(GUILD), "limit": 0, "user_ids": ["5"]},
        ),
        (
            3,
            {"activities": [{"type": 0, "name": "x", "url": None}], "since": 0.0, "status": "online"},
            {"activities": [{"type": 0, "name": "x"}], "since": 0, "status": "online", "afk": False},
        ),
        (31, {"guild_ids": [GUILD]}, {"guild_ids": [str(GUILD)]}),
    ],
)
def test_the_documented_form_of_what_other_libraries_send(
    op: int, d: dict[str, Any], documented: dict[str, Any]
) -> None:
    form = command_forms.read(op, d)
    assert isinstance(form, Documented)
    assert form.d == documented


# Captured from disnake, nextcord and py-cord; of the others as their sources write it: discord.js (ClientPresence,
# GuildMemberManager), discordgo (wsapi.go), serenity (gateway/ws.rs), twilight (payload::outgoing), JDA (PresenceImpl,
# MemberChunkManager).
WRITTEN_BY_LIBRARIES = json.loads((Path(__file__).parent / "library_commands.json").read_text())


def test_the_forms_of_eight_libraries_are_at_hand() -> None:
    assert {row["library"] for row in WRITTEN_BY_LIBRARIES} == {
        "disnake", "nextcord", "py-cord", "discord.js", "discordgo", "serenity", "twilight", "JDA",
    }  # fmt: skip


@pytest.mark.checklist("K45")
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row['library']}: {row['what']}") for row in WRITTEN_BY_LIBRARIES]
)
def test_what_a_library_writes_reaches_discord_in_the_documented_form(row: dict[str, Any]) -> None:
    given = row["payload"]
    headers = {"shard_id": (GUILD >> 22) % 16}
    answer = parse_command(json.dumps(given).encode(), headers, shard_count=16, intents=ALL_INTENTS)
    assert isinstance(answer, CommandRequest), answer
    payload = json.loads(answer.payload)
    assert payload["op"] == given["op"] and DOCUMENTED[given["op"]](payload["d"]), payload
    d = payload["d"]
    for mine, theirs in zip(d.get("activities", []), given["d"].get("activities", []), strict=True):
        assert {key: mine[key] for key in ("name", "type")} == {key: theirs[key] for key in ("name", "type")}
        assert mine.get("state") == theirs.get("state") and mine.get("url") == theirs.get("url")
    for key in ("channel_id", "query", "nonce"):
        assert str(d.get(key)) == str(given["d"].get(key)), "what it means is left alone"
