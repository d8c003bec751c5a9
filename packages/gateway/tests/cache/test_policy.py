"""A store under another policy than the one that it was written under."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rateway.cache.apply import Cache
from rateway.cache.entity_store import EntityStoreReader
from rateway.cache.policy import KINDS, CachePolicy, written_policy
from rateway.cache.prune import adopt_policy
from rateway.cache.queries import answer
from rateway.cache.query_context import Found, Missing, Refusal, Situation
from rateway.cache.reader import View
from rateway.cache.storage import MemoryStorage, Table
from rateway_protocol.contract.queries import Query
from tests.cache.scene import BOT, GUILD, Scene, channel, guild, member

ANN = 11 << 40
POLICY = CachePolicy(kinds=KINDS, messages_per_channel=20)


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


def written(**chosen: list[str]) -> MemoryStorage:
    """A store that a version with a choice of fields has written, under these choices."""
    built = Scene(POLICY)
    adopt_policy(built.cache.writer)
    built.start(
        members=[member(BOT, "bot"), member(ANN)],
        channels=[channel(20)],
        presences=[{"user": {"id": str(ANN)}, "status": "idle", "activities": [{"name": "chess"}]}],
    )
    message = {"id": "70", "channel_id": "20", "guild_id": str(GUILD), "author": member(ANN)["user"]}
    built.tell("MESSAGE_CREATE", {**message, "content": "x"})
    # As that version wrote it: all fields of the record, and a fingerprint that depends on the choices.
    record = {
        "fingerprint": "0123456789abcdef" if chosen else POLICY.fingerprint(),
        "kinds": sorted(POLICY.kept()),
        "activities": True,
        "fields": chosen,
        "since": {},
    }
    built.storage.put(Table.META, b"policy", msgspec.msgpack.encode(record))
    return built.storage


def test_the_fingerprint_of_the_default_settings_is_that_of_former_versions() -> None:
    assert CachePolicy().fingerprint() == "fe89f23105bfc587"
    assert CachePolicy(messages_per_channel=20, activities=False).fingerprint() == "e1b086db4ccb7999"


def test_every_choice_of_what_is_kept_has_a_fingerprint_of_its_own() -> None:
    policies = [
        CachePolicy(),
        CachePolicy(enabled=False),
        CachePolicy(kinds=KINDS),
        CachePolicy(messages_per_channel=1),
        CachePolicy(activities=False),
        CachePolicy(message_content=False),
    ]
    assert len({policy.fingerprint() for policy in policies}) == len(policies)
    assert CachePolicy(members_from_events=False).fingerprint() == CachePolicy().fingerprint()
    assert CachePolicy(before=frozenset({"GUILD_UPDATE"})).fingerprint() == CachePolicy().fingerprint()


def test_a_store_written_without_a_choice_of_fields_is_complete() -> None:
    host = Host(written(), POLICY)
    assert host.words == ()
    assert host.ask("Member", GUILD, ANN)["user"]["username"] == "ann"
    assert host.ask("Message", 20, 70)["content"] == "x"


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        ("guilds", ("Guild", GUILD)),
        ("members", ("Member", GUILD, ANN)),
        ("users", ("Member", GUILD, ANN)),
        ("presences", ("Presence", GUILD, ANN)),
    ],
)
def test_a_kind_kept_with_chosen_fields_is_incomplete_until_its_guild_comes_again(
    kind: str, question: tuple[Any, ...]
) -> None:
    host = Host(written(**{kind: ["-avatar"]}), POLICY)
    assert any("incomplete" in words for words in host.words)
    assert host.ask(*question) == "incomplete"
    assert host.ask("GuildChannel", 20)["id"] == "20"
    presence = {"user": {"id": str(ANN)}, "status": "idle", "activities": []}
    snapshot = guild(members=[member(BOT, "bot"), member(ANN)], presences=[presence])
    host.cache.apply(0, 99, "GUILD_CREATE", msgspec.json.encode(snapshot))
    host.cache.flush()
    assert host.ask(*question)["guild_id" if question[0] != "Guild" else "id"] == str(GUILD)
    again = Host(host.storage, POLICY)
    assert again.words == ()
    record = written_policy(again.storage)
    assert record is not None and record.fingerprint == POLICY.fingerprint() and not record.fields


def test_messages_kept_with_chosen_fields_are_dropped() -> None:
    host = Host(written(messages=["content"]), POLICY)
    assert isinstance(host.ask("Message", 20, 70), Missing), "no snapshot brings messages again"
