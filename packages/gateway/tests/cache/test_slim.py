"""Fields that the settings leave out: nowhere in the cache, nowhere in an answer, and nothing else is missing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.cache.apply import Cache
from rateway.cache.entity_store import EntityStoreReader
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.prune import adopt_policy
from rateway.cache.queries import answer
from rateway.cache.query_context import Found, Missing, Refusal, Situation
from rateway.cache.reader import View
from rateway.cache.reducers import REDUCERS, reducers
from rateway.cache.slim import ALWAYS, PLACES, Choice, FieldChoices
from rateway.cache.storage import MemoryStorage
from rateway_protocol.contract.queries import Query
from tests.cache.scene import BOT, GUILD, Scene, channel, guild, member
from tests.cache.world_feed import EVERYTHING, filled, state, stream

ANN = 11 << 40


def policy(**chosen: str) -> CachePolicy:
    """One that keeps what is said: ``members="nick joined_at"``, ``users="-avatar"``."""
    fields: FieldChoices = tuple((kind, frozenset(names.split())) for kind, names in chosen.items())
    return CachePolicy(kinds=KINDS, messages_per_channel=20, fields=fields)


LESS = policy(
    members="nick joined_at",
    users="-avatar -global_name -public_flags",
    presences="-activities -client_status",
    messages="content timestamp edited_timestamp reactions poll",
    guilds="-description -features",
)


def less(kind: str, entity: dict[str, Any]) -> dict[str, Any]:
    """What must be left of an entity."""
    choice = LESS.choice(kind)
    kept = {name: value for name, value in entity.items() if choice.keeps(name)}
    for name in ("user", "author"):
        if isinstance(kept.get(name), dict) and kind != "users":
            kept[name] = less("users", kept[name])
    return kept


@settings(max_examples=6)
@given(st.integers(0, 10_000))
def test_the_cache_is_the_same_but_for_the_fields_that_are_left_out(seed: int) -> None:
    _, events = stream(seed, 1200, guilds=3, members_per_guild=12)
    whole, slim = state(filled(events, EVERYTHING).writer), state(filled(events, LESS).writer)
    me = whole["current_user"]["@me"]["id"]
    assert slim["current_user"] == whole["current_user"], "the bot's own user is whole"
    for name, kind in (
        ("member", "members"), ("user", "users"), ("presence", "presences"), ("message", "messages"),
        ("guild", "guilds"),
    ):  # fmt: skip
        assert slim[name].keys() == whole[name].keys()
        for key, entity in whole[name].items():
            if (name, key) != ("user", me):
                assert slim[name][key] == less(kind, entity), (name, key)
    for name in ("channel", "thread", "role", "emoji", "voice_state", "scheduled_event"):
        assert slim[name] == whole[name]


def test_what_is_not_chosen_costs_an_event_nothing() -> None:
    plain = reducers(EVERYTHING)
    assert all(plain[name] is REDUCERS[name][0] for name in plain)
    slim = reducers(policy(messages="-embeds"))
    changed = {name for name in slim if slim[name] is not REDUCERS[name][0]}
    assert changed == {"MESSAGE_CREATE", "MESSAGE_UPDATE"}
    assert PLACES.keys() <= REDUCERS.keys()


@pytest.mark.parametrize("kind", sorted(ALWAYS))
def test_what_the_cache_rests_on_is_always_kept(kind: str) -> None:
    for names in ({"x"}, {f"-{name}" for name in ALWAYS[kind]}):
        choice = Choice.of(kind, frozenset(names))
        assert all(choice.keeps(name) for name in ALWAYS[kind])


@pytest.mark.parametrize(
    ("before", "after", "grows"),
    [
        ("", "", False),
        ("", "nick", False),
        ("", "-nick", False),
        ("nick", "", True),
        ("-nick", "", True),
        ("nick", "nick avatar", True),
        ("nick avatar", "nick", False),
        ("-nick", "-nick -avatar", False),
        ("-nick -avatar", "-nick", True),
        ("nick", "-nick", True),
        ("-nick", "nick", True),
        ("-nick", "avatar", False),
    ],
)
def test_a_choice_outgrows_another_when_it_keeps_what_that_did_not(
    before: str, after: str, grows: bool
) -> None:
    old, new = (Choice.of("members", frozenset(names.split())) for names in (before, after))
    assert new.outgrows(old) is grows


class Host:
    """One store under a policy that may have changed since it was written."""

    clusters = (1,)

    def __init__(self, storage: MemoryStorage, now: CachePolicy) -> None:
        self.storage, self.policy = storage, now
        self.cache = Cache(storage, now)
        self.words = adopt_policy(self.cache.writer)
        self.cache.writer.flush()

    def view(self, cluster: int) -> View:
        return View(self.storage, EntityStoreReader(self.storage))

    def ask(self, kind: str, *arguments: int, **options: Any) -> Any:
        found = answer(Query(kind, arguments, **options), self, Situation(), self.policy, 0.0)
        if isinstance(found, Found):
            return msgspec.json.decode(found.body)
        return found.code if isinstance(found, Refusal) else found


def before(then: CachePolicy) -> MemoryStorage:
    """A store that was written under another policy."""
    built = Scene(then)
    adopt_policy(built.cache.writer)
    built.start(
        description="a garden",
        members=[member(BOT, "bot"), member(ANN, nick="nan")],
        channels=[channel(20)],
        presences=[{"user": {"id": str(ANN)}, "status": "idle", "activities": [{"name": "chess"}]}],
    )
    message = {"id": "70", "channel_id": "20", "guild_id": str(GUILD), "author": member(ANN)["user"]}
    built.tell("MESSAGE_CREATE", {**message, "content": "x", "embeds": [{}]})
    return built.storage


def test_fields_left_out_from_now_on_are_in_no_answer_though_the_store_has_them() -> None:
    host = Host(
        before(policy()),
        policy(
            members="-nick",
            users="-avatar",
            presences="-activities",
            messages="-embeds",
            guilds="-description",
        ),
    )
    assert host.words == ()
    assert "description" not in host.ask("Guild", GUILD)
    found = host.ask("Member", GUILD, ANN)
    assert "nick" not in found and "avatar" not in found["user"] and found["joined_at"]
    assert "avatar" not in host.ask("User", ANN)
    assert "avatar" in host.ask("CurrentUser")
    assert "activities" not in host.ask("Presence", GUILD, ANN)
    assert "embeds" not in host.ask("Message", 20, 70)
    (listed,) = (each for each in host.ask("GuildMembers", GUILD, limit=10) if each["user"]["id"] == str(ANN))
    assert listed == found
    whole = host.ask("Guild", GUILD, fields=("members", "presences", "channels"))
    assert all("nick" not in each and "avatar" not in each["user"] for each in whole["members"])
    assert all("activities" not in each for each in whole["presences"])
    assert whole["channels"][0]["name"] == "c"


def test_fields_kept_from_now_on_are_incomplete_until_the_guild_comes_anew() -> None:
    host = Host(before(policy(members="joined_at", guilds="-description", messages="-embeds")), policy())
    assert any("more of them" in words for words in host.words)
    assert host.ask("Guild", GUILD) == host.ask("Member", GUILD, ANN) == "incomplete"
    assert isinstance(host.ask("Message", 20, 70), Missing), "no snapshot brings messages anew"
    assert host.ask("GuildChannel", 20)["id"] == "20"
    snapshot = guild(description="a garden", members=[member(BOT, "bot"), member(ANN, nick="nan")])
    host.cache.apply(0, 99, "GUILD_CREATE", msgspec.json.encode(snapshot))
    host.cache.flush()
    assert host.ask("Member", GUILD, ANN)["nick"] == "nan"
    assert host.ask("Guild", GUILD)["description"] == "a garden"


def test_another_choice_is_another_fingerprint_whatever_its_order() -> None:
    assert policy(members="nick avatar").fingerprint() == policy(members="avatar nick").fingerprint()
    assert policy(members="nick").fingerprint() != policy(members="-nick").fingerprint()
