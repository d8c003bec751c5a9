"""Presences are checked when they are read, and filled in for each shard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rateway.config.presence import PresenceError, parse_presence
from rateway_protocol.discord import command_forms


def test_a_short_form_becomes_what_discord_takes() -> None:
    template = parse_presence(
        {"status": "idle", "activity": {"type": "watching", "name": "shard {shard} of {shards}"}}
    )
    presence = template.of(3, 16, 1)
    assert presence == {
        "since": None,
        "activities": [{"name": "shard 3 of 16", "type": 3}],
        "status": "idle",
        "afk": False,
    }
    assert isinstance(command_forms.read(3, presence), command_forms.Documented)


def test_a_text_as_activity_is_a_custom_status() -> None:
    presence = parse_presence('{"activity": "cluster {cluster} \\" and } { braces"}').of(0, 1, 7)
    assert presence["activities"] == [
        {"name": "Custom Status", "type": 4, "state": 'cluster 7 " and } { braces'}
    ]
    assert isinstance(command_forms.read(3, presence), command_forms.Documented)


def test_a_presence_that_does_not_fit_into_an_identify_is_refused() -> None:
    fits = [{"name": "x" * 100, "type": 0}] * 25
    assert len(parse_presence({"activities": fits}).of(0, 1, 0)["activities"]) == 25  # type: ignore[arg-type]  # raw JSON
    with pytest.raises(PresenceError, match=r"3940 bytes as JSON; an identify has room for 3500"):
        parse_presence({"activities": fits + fits[:6]})


def test_the_whole_form_of_discord_is_taken() -> None:
    whole = {
        "since": 5,
        "activities": [{"name": "x", "type": 1, "url": "https://twitch.tv/x"}],
        "status": "dnd",
        "afk": True,
    }
    assert parse_presence(json.dumps(whole)).of(0, 1, 1) == whole


@pytest.mark.checklist("A14")
@pytest.mark.parametrize(
    "wrong",
    [
        "[]", "x", "3", {"status": "away"}, {"activities": None}, {"activities": {}}, {"activities": ["x", 3]},
        {"activity": {"type": 9, "name": "x"}}, {"activity": {"type": "eating", "name": "x"}},
        {"activity": {"type": 0}},
        {"activity": {"name": ""}}, {"activity": {"name": "x" * 129}}, {"activity": {"name": "x", "emoji": {}}},
        {"activity": "x", "activities": []}, {"since": "now"}, {"since": True}, {"afk": 1}, {"game": "x"},
    ],
)  # fmt: skip
def test_what_discord_would_not_take_is_refused_in_words(wrong: Any) -> None:
    with pytest.raises(PresenceError, match=r"\w+ \w+"):
        parse_presence(wrong)


def test_all_mistakes_of_a_presence_are_told_at_once() -> None:
    wrong = {
        "status": "onlin",
        "mood": 1,
        "afk": 0,
        "activities": [{"type": "watch", "name": 3, "emoji": {}}, 5],
    }
    with pytest.raises(PresenceError) as caught:
        parse_presence(wrong)
    said = [word for word in ("mood", "onlin", "afk", "emoji", "watch", "name should", "or a table")
            if any(word in each for each in caught.value.args)]  # fmt: skip
    assert len(said) == len(caught.value.args) == 7


@pytest.mark.checklist("K73")
@pytest.mark.parametrize(
    "given",
    [
        "[" * 100_000 + "]" * 100_000, '{"activity": "\\ud800"}', '{"activity": {"name": "a\\udfff", "type": 0}}',
        '{"since": 9223372036854775808}', '{"since": -1}', '{"since": 1e999}', '{"since": %s}' % ("9" * 5_000),
        '{"status": []}', '{"status": {}}', '{"activities": [[]]}', '{"activities": [{"type": {}}]}',
        '{"activity": {"name": ["x"]}}',
    ],
)  # fmt: skip
def test_a_presence_that_cannot_be_sent_is_told(given: str) -> None:
    with pytest.raises(PresenceError):
        parse_presence(given)
