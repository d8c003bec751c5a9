"""What of the gateway's settings a proxy refuses to serve bots with, and what it only says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rateway.cache.policy import DEFAULT_KINDS, KINDS
from rateway.proxy.needs import GROWS_OLD, MISSED, NEEDED_EVENTS, NEEDED_KINDS, judge
from rateway_protocol.contract.snapshots import ClusterList
from rateway_protocol.discord import intents
from rateway_protocol.discord.events import DOCUMENTED
from rateway_protocol.discord.intents import Intents

ALL = tuple(sorted(DEFAULT_KINDS))


def given(**changes: Any) -> ClusterList:
    return msgspec.structs.replace(ClusterList(1, (), intents.ALL, ALL), **changes)


def test_a_gateway_as_it_is_set_up_lacks_nothing() -> None:
    found = judge(given())
    assert found.refusals == found.notes == ()


def test_no_cache_ends_the_start() -> None:
    (refusal,) = judge(given(kinds=())).refusals
    assert "CACHE_ENABLED" in refusal


@pytest.mark.parametrize("kind", sorted(NEEDED_KINDS))
def test_a_kind_that_no_bot_can_do_without_ends_the_start(kind: str) -> None:
    found = judge(given(kinds=tuple(each for each in ALL if each != kind)))
    assert len(found.refusals) == 1 and kind in found.refusals[0] and "CACHE_KINDS" in found.refusals[0]


@pytest.mark.parametrize("kind", sorted(MISSED))
def test_what_bots_will_miss_of_guilds_is_said(kind: str) -> None:
    found = judge(given(kinds=tuple(each for each in ALL if each != kind)))
    assert found.refusals == () and len(found.notes) == 1 and kind in found.notes[0]


@pytest.mark.parametrize("name", sorted(NEEDED_EVENTS))
def test_an_event_that_keeps_a_bots_state_right_has_to_be_published(name: str) -> None:
    (refusal,) = judge(given(events_except=(name,))).refusals
    assert name in refusal


def test_other_events_that_are_not_published_are_named() -> None:
    found = judge(given(events_except=("TYPING_START", "INVENTED")))
    assert found.refusals == () and "INVENTED, TYPING_START" in found.notes[0]
    found = judge(given(events=("MESSAGE_CREATE", *NEEDED_EVENTS)))
    assert found.refusals == () and "others" in found.notes[0] and "MESSAGE_CREATE" not in found.notes[0]


def test_events_that_the_gateway_does_not_receive_are_not_missed() -> None:
    given_few = intents.ALL & ~(Intents.GUILD_PRESENCES | Intents.GUILD_MESSAGE_TYPING)
    assert judge(given(intents=given_few, events_except=("PRESENCE_UPDATE",))).notes == ()
    (note,) = judge(given(intents=given_few, events_except=("MESSAGE_CREATE", "PRESENCE_UPDATE"))).notes
    assert "MESSAGE_CREATE" in note and "PRESENCE_UPDATE" not in note


@pytest.mark.parametrize("intent", [Intents.GUILD_VOICE_STATES, *GROWS_OLD])
def test_what_grows_old_without_an_intent_is_said(intent: Intents) -> None:
    found = judge(given(intents=intents.ALL & ~intent))
    assert found.refusals == () and len(found.notes) == 1 and str(intent.name) in found.notes[0]


def test_a_gateway_without_guilds_ends_the_start() -> None:
    (refusal,) = judge(given(intents=int(Intents.GUILD_MESSAGES))).refusals
    assert "GUILDS" in refusal and "INTENTS" in refusal


def test_what_it_names_exists() -> None:
    assert set(MISSED) | NEEDED_KINDS <= KINDS
    assert set(DOCUMENTED) >= NEEDED_EVENTS
