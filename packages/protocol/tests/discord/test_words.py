"""Opcodes, close codes, intents, events and snowflakes are Discord's, number by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord import intents
from rateway_protocol.discord.close_codes import CLOSE_CODES, Verdict, close_code
from rateway_protocol.discord.events import DOCUMENTED, EVENTS
from rateway_protocol.discord.intents import Intents
from rateway_protocol.discord.opcodes import COMMANDS
from rateway_protocol.discord.snowflake import shard_of


def test_the_intents_sum_up_to_discords_figures() -> None:
    assert len(Intents) == 21
    assert intents.ALL == 53608447
    assert intents.PRIVILEGED == 33026
    assert intents.ALL & ~intents.PRIVILEGED == 53575421


@pytest.mark.parametrize(
    ("given_as", "bits"),
    [
        (19553, 19553),
        ("19553", 19553),
        ("GUILDS,GUILD_MESSAGES", 513),
        ("guilds | guild-messages", 513),
        (["GUILDS", 512], 513),
        ("GUILD_BANS", 4),
        ("ALL", intents.ALL),
        ("ALL_NON_PRIVILEGED", 53575421),
        (0, 0),
        ("", 0),
        ([], 0),
    ],
)
def test_intents_are_read_from_numbers_and_names(given_as: int | str | list[str | int], bits: int) -> None:
    assert intents.parse(given_as) == bits


@pytest.mark.parametrize(
    ("given_as", "says"),
    [
        ("GUILD_MESAGES", "did you mean GUILD_MESSAGES?"),
        ("qqq", "'qqq' is not an intent"),
        (1 << 17, "bit 17"),
        (str(1 << 26 | 1), "bit 26"),
        (-1, "negative"),
        (True, "neither a number nor names"),
        ([True], "neither a number nor names"),
        ([None], "None is not the name"),
    ],
)
def test_a_wrong_intent_is_named_with_the_nearest_right_one(given_as: int | str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        intents.parse(given_as)


@given(st.text())
def test_no_text_makes_the_intents_fail_otherwise_than_by_value_error(text: str) -> None:
    try:
        bits = intents.parse(text)
    except ValueError:
        return
    assert bits & ~intents.ALL == 0


@given(st.integers(0, intents.ALL).filter(lambda bits: bits & ~intents.ALL == 0))
def test_names_and_parse_are_each_others_inverse(bits: int) -> None:
    assert intents.parse(intents.names(bits)) == bits
    assert intents.parse(",".join(intents.names(bits))) == bits


def test_every_documented_event_is_known_with_its_intents() -> None:
    assert len(DOCUMENTED) == len(EVENTS) == 79
    assert EVENTS["MESSAGE_CREATE"].intents == Intents.GUILD_MESSAGES | Intents.DIRECT_MESSAGES
    assert EVENTS["INTERACTION_CREATE"].intents == 0
    assert EVENTS["RATE_LIMITED"].guild_id_path == "meta.guild_id"
    assert all(spec.intents & ~intents.ALL == 0 and spec.name == name for name, spec in EVENTS.items())


def test_every_intent_but_message_content_brings_events() -> None:
    brought = 0
    for spec in EVENTS.values():
        brought |= spec.intents
    assert brought == intents.ALL & ~Intents.MESSAGE_CONTENT


@pytest.mark.parametrize("code", [4004, 4010, 4011, 4012, 4013, 4014])
def test_fatal_close_codes_say_what_to_change(code: int) -> None:
    row = close_code(code)
    assert row.verdict is Verdict.FATAL
    assert len(row.help) > 40


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (None, Verdict.RESUME),
        (1000, Verdict.RESUME_ONCE),
        (1001, Verdict.RESUME),
        (1006, Verdict.RESUME),
        (1011, Verdict.RESUME),
        (2999, Verdict.RESUME),
        (4000, Verdict.RESUME),
        (4001, Verdict.RESUME),
        (4002, Verdict.RESUME),
        (4003, Verdict.IDENTIFY),
        (4005, Verdict.RESUME),
        (4006, Verdict.IDENTIFY),
        (4007, Verdict.IDENTIFY),
        (4008, Verdict.RESUME),
        (4009, Verdict.IDENTIFY),
        (4999, Verdict.RESUME_ONCE),
        (4015, Verdict.RESUME_ONCE),
        (70000, Verdict.RESUME),
    ],
)
def test_each_close_code_has_its_verdict(code: int | None, verdict: Verdict) -> None:
    assert close_code(code).verdict is verdict


def test_only_fatal_codes_have_help() -> None:
    assert {code for code, row in CLOSE_CODES.items() if row.help} == {4004, 4010, 4011, 4012, 4013, 4014}


def test_what_workers_may_send_is_five_opcodes() -> None:
    assert sorted(COMMANDS) == [3, 4, 8, 31, 43]


@pytest.mark.parametrize(
    ("guild", "shards", "shard"),
    [
        (860338524707094538, 5, 2),
        (249259087496216576, 400, 269),
        (613425648685547541, 16, 8),
        (81384788765712384, 16, 2),
        ((1 << 64) - 1, 1 << 20, (1 << 20) - 1),
    ],
)
def test_a_guild_belongs_to_its_shard(guild: int, shards: int, shard: int) -> None:
    assert shard_of(guild, shards) == shard
