"""A cache that begins empty, because another gateway had its shards: nothing old is said, nothing said not to be."""

from __future__ import annotations

import pytest
from rateway.cache.query_context import Found
from rateway.cache.reader import View
from rateway.cache.stats import incomplete_shards
from rateway_protocol.contract.queries import QUERY_TYPES
from tests.cache.scene import BOT, GUILD, guild, member, user
from tests.cache.test_queries import ANN, TEXT, VOICE, Asker

ARGUMENTS = {
    "guild": GUILD, "user": ANN, "channel": TEXT, "place": VOICE, "role": 40, "emoji": 50, "shard": 0, "message": 70,
}  # fmt: skip
# Of these nothing follows from what is kept, or no snapshot of Discord's would bring them.
NOT_OF_GUILDS = {"Clusters", "CurrentUser", "Group", "Message", "PrivateChannel", "Stats", "WhereIs"}


def cold() -> Asker:
    asker = Asker()
    asker.scene.cache.begin_cold({0: "another"})
    asker.scene.cache.flush()
    return asker


def refused(asker: Asker, kind: str) -> str | None:
    return asker.refusal(kind, *(ARGUMENTS[name] for name in QUERY_TYPES[kind].arguments))


@pytest.mark.parametrize(
    "kind", sorted(QUERY_TYPES.keys() - NOT_OF_GUILDS - {"ShardSnapshot", "GuildSnapshot", "MembersMatching"})
)
def test_what_guilds_have_is_incomplete_until_they_come(kind: str) -> None:
    assert refused(cold(), kind) == "incomplete"


def test_nothing_that_was_there_is_left() -> None:
    asker = cold()
    storage = asker.scene.cache.storage
    fresh = Asker().scene.cache
    assert isinstance(Asker().outcome("PrivateChannel", 500), Found)
    assert not isinstance(asker.outcome("PrivateChannel", 500), Found)
    assert asker.ask("Stats")["guilds"] == asker.ask("Stats")["members"] == 0
    view = View(storage)
    assert view.position(0) == ("another", 0)
    # As of some seconds ago it must not cost the shard a session that a second one has filled the cache beside.
    assert view.cold_shards().keys() == {0} and not incomplete_shards(view, fresh.policy)


def test_a_guild_that_comes_by_itself_is_known_and_the_others_are_not_missing() -> None:
    asker = cold()
    cause = asker.scene.tell("GUILD_CREATE", guild(GUILD, members=[member(BOT, "bot"), member(ANN, "ann")]))
    # The bot may have been in it, or be in it since now.
    assert cause is not None and cause.cause is None
    assert asker.ask("Member", GUILD, ANN)["user"]["id"] == str(ANN)
    assert asker.refusal("Guild", GUILD + 1) == "incomplete"
    assert asker.refusal("User", BOT + 7) == "incomplete"
    assert asker.refusal("Guilds") == "incomplete"


def test_events_about_guilds_that_have_not_come_are_no_fault_of_a_cold_cache() -> None:
    asker = cold()
    message = {
        "id": "70",
        "channel_id": str(TEXT),
        "guild_id": str(GUILD),
        "author": user(ANN),
        "content": "x",
    }
    asker.scene.tell("GUILD_MEMBER_ADD", {"guild_id": str(GUILD), **member(ANN, "ann")})
    asker.scene.tell("MESSAGE_CREATE", message)
    assert asker.scene.cache.writer.unknown_guilds.get(0, 0) == 0


def test_the_next_ready_ends_it() -> None:
    asker = cold()
    asker.scene.ready(GUILD)
    assert asker.refusal("GuildMembers", GUILD) == "loading"
    assert asker.refusal("GuildMembers", GUILD + (1 << 22)) is None
    cause = asker.scene.tell("GUILD_CREATE", guild(GUILD, members=[member(BOT, "bot")]))
    assert cause is not None and cause.cause == "start"
    assert [each["id"] for each in asker.ask("Guilds")] == [str(GUILD)]
    assert not incomplete_shards(View(asker.scene.cache.storage), asker.policy)
