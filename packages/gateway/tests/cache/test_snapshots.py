"""What a proxy asks: a shard as READY, a guild as GUILD_CREATE, members as GUILD_MEMBERS_CHUNK would tell now."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.cache.apply import Cache
from rateway.cache.entity_store import EntityStoreReader
from rateway.cache.policy import DEFAULT_KINDS, KINDS, CachePolicy
from rateway.cache.prune import adopt_policy
from rateway.cache.queries import answer
from rateway.cache.query_context import Found, Missing, Outcome, Refusal, Situation
from rateway.cache.reader import View
from rateway.cache.storage import MemoryStorage
from rateway_protocol.contract.queries import MembersWanted, Query, SnapshotFor
from rateway_protocol.contract.snapshots import ClusterList, GuildSnapshot, MemberList, ShardSnapshot
from rateway_protocol.discord import intents
from rateway_protocol.discord.intents import Intents
from rateway_simulator.world import requests, snapshot
from rateway_simulator.world.world import World
from tests.cache.scene import BOT, GUILD, Json, Scene, channel, guild, member, role, thread, user
from tests.cache.world_feed import EVERYTHING, differences, feed, filled, state, stream

ANN, BEN, CID = 11 << 40, 12 << 40, 13 << 40
TEXT, VOICE, HIDDEN = 20, 21, 22
VIEW_CHANNEL, MANAGE_THREADS = 1 << 10, 1 << 34
WITHOUT_PRESENCES = intents.ALL & ~Intents.GUILD_PRESENCES


class Asker:
    """Asks one cluster's cache, whose bot has one shard."""

    def __init__(self, cache: Cache, given: int = intents.ALL, count: int = 1) -> None:
        self.cache = cache
        self.situation = Situation(shard_count=count, clusters=(1,), intents=given)
        self.clusters = [1]

    def view(self, cluster: int) -> View:
        return View(self.cache.storage, EntityStoreReader(self.cache.storage))

    def outcome(self, query: Query) -> Outcome:
        return answer(query, self, self.situation, self.cache.policy, 1_800_000_000.0)

    def body(self, query: Query) -> bytes:
        found = self.outcome(query)
        assert isinstance(found, Found), found
        return found.body

    def refusal(self, query: Query) -> str:
        found = self.outcome(query)
        assert isinstance(found, Refusal), found
        return found.code

    def shard(self, shard_id: int = 0) -> ShardSnapshot:
        return msgspec.json.decode(self.body(Query("ShardSnapshot", (shard_id,))), type=ShardSnapshot)

    def snapshot(
        self, guild_id: int = GUILD, wanted: int = intents.ALL, large_threshold: int = 250
    ) -> GuildSnapshot:
        query = Query("GuildSnapshot", (guild_id,), options=SnapshotFor(wanted, large_threshold))
        return msgspec.json.decode(self.body(query), type=GuildSnapshot)

    def guild(self, guild_id: int = GUILD, wanted: int = intents.ALL, large_threshold: int = 250) -> Json:
        found: Json = msgspec.json.decode(self.snapshot(guild_id, wanted, large_threshold).guild)
        return found

    def members(self, guild_id: int = GUILD, **wanted: Any) -> MemberList:
        return msgspec.json.decode(self.body(_matching(guild_id, **wanted)), type=MemberList)


def _matching(guild_id: int = GUILD, **wanted: Any) -> Query:
    return Query("MembersMatching", (guild_id,), options=MembersWanted(**wanted))


def names(found: list[Json]) -> list[str]:
    return sorted(each["user"]["username"] for each in found)


def usernames(found: MemberList) -> list[str]:
    return names([msgspec.json.decode(each) for each in found.members])


def presence(user_id: int) -> Json:
    return {"user": {"id": str(user_id)}, "status": "idle", "activities": [], "client_status": {}}


def three(**fields: Any) -> Scene:
    """A guild of the bot, ann (online, with a nickname) and ben."""
    return Scene().start(
        **{
            "member_count": 3,
            "members": [member(BOT, "bot"), member(ANN, "ann", nick="Nan"), member(BEN, "ben")],
            "presences": [presence(ANN)],
            **fields,
        }
    )


# A shard.


def test_a_shard_is_told_as_its_ready_would_be_with_the_position_of_its_events() -> None:
    scene = Scene()
    other = GUILD + (1 << 22)
    listed = [{"id": str(each), "unavailable": True} for each in (GUILD, other)]
    application = {"id": "5", "flags": 565248}
    scene.tell("READY", {"user": user(BOT, "bot"), "guilds": listed, "session_id": "one", "shard": [0, 1],
                         "application": application})  # fmt: skip
    scene.tell("GUILD_CREATE", guild())
    found = Asker(scene.cache).shard()
    assert (found.shard, found.shard_count, found.session, found.seq) == (0, 1, "one", 2)
    assert msgspec.json.decode(found.user) == user(BOT, "bot")
    assert found.application is not None and msgspec.json.decode(found.application) == application
    assert [(each.id, each.unavailable) for each in found.guilds] == [(str(GUILD), False), (str(other), True)]


def test_the_application_outlives_sessions_processes_and_a_ready_without_it() -> None:
    scene = Scene()
    ready = {"user": user(BOT, "bot"), "guilds": [], "session_id": "one", "shard": [0, 1]}
    scene.tell("READY", {**ready, "application": {"id": "5", "flags": 1}})
    again = Scene(storage=scene.storage)
    again.tell("READY", {**ready, "session_id": "two"})
    found = Asker(again.cache).shard()
    assert found.session == "two"
    assert found.application is not None and msgspec.json.decode(found.application) == {"id": "5", "flags": 1}


def test_a_store_of_before_the_application_was_kept_has_none() -> None:
    scene = Scene()
    scene.ready(GUILD)
    assert Asker(scene.cache).shard().application is None


def test_a_shard_lists_its_own_guilds_alone() -> None:
    scene = Scene()
    mine, others = 2 << 22, 3 << 22
    listed = [{"id": str(each)} for each in (mine, others)]
    scene.tell("READY", {"user": user(BOT, "bot"), "guilds": listed, "session_id": "one", "shard": [0, 2]})
    assert [each.id for each in Asker(scene.cache, count=2).shard().guilds] == [str(mine)]


def test_a_guild_in_an_outage_is_listed_as_unavailable() -> None:
    scene = three()
    scene.tell("GUILD_DELETE", {"id": str(GUILD), "unavailable": True})
    asker = Asker(scene.cache)
    assert [each.unavailable for each in asker.shard().guilds] == [True]
    assert asker.refusal(Query("GuildSnapshot", (GUILD,), options=SnapshotFor())) == "loading"


def test_another_clusters_store_that_cannot_be_read_costs_a_shard_nothing() -> None:
    asker = Asker(three().cache, count=2)
    asker.situation = Situation(
        shard_count=2, shards_per_cluster=1, clusters=(1, 2), intents=intents.ALL, unreadable={2: "torn"}
    )
    assert asker.shard().session == "one"
    assert asker.refusal(Query("ShardSnapshot", (1,))) == "unavailable"


def test_a_guild_of_another_layout_is_unavailable_until_it_comes() -> None:
    scene = three()
    asker = Asker(scene.cache, count=2)
    asker.situation = Situation(shard_count=2, shards_per_cluster=2, clusters=(1,), intents=intents.ALL)
    elsewhere = GUILD + (1 << 22)
    listed = [{"id": str(elsewhere)}]
    scene.tell("READY", {"user": user(BOT, "bot"), "guilds": listed, "session_id": "two", "shard": [0, 1]})
    scene.tell("GUILD_CREATE", guild(elsewhere))
    scene.cache.begin(1, "three")
    scene.cache.flush()
    (found,) = asker.shard(1).guilds
    assert found.unavailable
    assert asker.refusal(Query("GuildSnapshot", (elsewhere,), options=SnapshotFor())) == "loading"


def test_a_shard_that_never_had_a_session_is_loading_and_one_that_does_not_exist_is_said() -> None:
    asker = Asker(Scene().cache)
    assert asker.refusal(Query("ShardSnapshot", (0,))) == "loading"
    assert asker.refusal(Query("ShardSnapshot", (1,))) == "no_such_shard"


def test_the_position_is_of_the_session_that_is_resumed() -> None:
    scene = three()
    scene.cache.position_in(0, "another")
    scene.cache.flush()
    found = Asker(scene.cache).shard()
    assert (found.session, found.seq) == ("another", 0)


# A guild.


def test_a_guild_is_told_as_its_guild_create_was() -> None:
    told = guild(
        member_count=2,
        members=[member(BOT, "bot"), member(ANN, "ann")],
        channels=[channel(TEXT)],
        threads=[thread(30, TEXT, guild_id=str(GUILD), member={"id": "30", "user_id": str(BOT), "flags": 1})],
        presences=[presence(ANN)],
        voice_states=[{"user_id": str(ANN), "channel_id": "21", "session_id": "x"}],
        emojis=[{"id": "50", "name": "e"}],
        stickers=[{"id": "51", "name": "s", "guild_id": str(GUILD)}],
        stage_instances=[{"id": "60", "channel_id": "21", "guild_id": str(GUILD)}],
        guild_scheduled_events=[{"id": "61", "name": "e", "status": 1, "guild_id": str(GUILD)}],
        soundboard_sounds=[{"sound_id": "62", "name": "n", "guild_id": str(GUILD)}],
        roles=[role(GUILD, VIEW_CHANNEL)],
    )
    scene = Scene()
    scene.ready(GUILD)
    scene.tell("GUILD_CREATE", told)
    found = Asker(scene.cache).snapshot()
    assert (found.shard, found.session, found.seq) == (0, "one", 2)
    assert msgspec.json.decode(found.guild) == told


def test_what_an_event_changed_is_in_the_snapshot_together_with_its_number() -> None:
    scene = three()
    asker = Asker(scene.cache)
    before = asker.snapshot()
    scene.tell("GUILD_MEMBER_ADD", {**member(CID, "cid"), "guild_id": str(GUILD)})
    after = asker.snapshot()
    assert after.seq == before.seq + 1
    told = msgspec.json.decode(after.guild)
    assert names(told["members"]) == ["ann", "ben", "bot", "cid"]
    assert told["member_count"] == 4 and told["large"] is False


def test_without_presences_a_guild_has_the_bot_and_who_is_in_voice() -> None:
    scene = three(voice_states=[{"user_id": str(BEN), "channel_id": "21", "session_id": "x"}])
    told = Asker(scene.cache).guild(wanted=WITHOUT_PRESENCES)
    assert names(told["members"]) == ["ben", "bot"]
    assert told["presences"] == []
    assert told["large"] is True


def test_a_guild_above_the_threshold_has_those_online_in_voice_or_with_a_role_or_nickname() -> None:
    people = [member(BOT, "bot"), *(member((100 + at) << 30, f"m{at}") for at in range(60))]
    people[1]["nick"] = "n"
    people[2]["roles"] = ["40"]
    people[3]["nick"] = ""
    scene = Scene().start(
        member_count=61,
        members=people,
        roles=[role(GUILD), role(40)],
        presences=[presence(103 << 30)],
        voice_states=[{"user_id": str(104 << 30), "channel_id": "21", "session_id": "x"}],
    )
    asker = Asker(scene.cache)
    told = asker.guild(large_threshold=50)
    assert names(told["members"]) == ["bot", "m0", "m1", "m3", "m4"]
    assert [each["user"]["id"] for each in told["presences"]] == [str(103 << 30)]
    assert told["large"] is True
    told = asker.guild(large_threshold=61)
    assert len(told["members"]) == 61 and told["large"] is False


def test_a_list_of_members_that_is_not_known_whole_is_large_whatever_its_size() -> None:
    assert Asker(three(member_count=4).cache).guild()["large"] is True
    assert Asker(three(member_count=None).cache).guild()["large"] is True


def test_a_guild_that_is_unknown_is_not_there() -> None:
    asker = Asker(three().cache)
    assert isinstance(asker.outcome(Query("GuildSnapshot", (GUILD + 1,), options=SnapshotFor())), Missing)


def test_a_guild_of_a_session_that_was_lost_is_not_told_until_it_comes_in_the_new_one() -> None:
    scene = three()
    scene.ready(GUILD, session="two")
    asker = Asker(scene.cache)
    assert asker.refusal(Query("GuildSnapshot", (GUILD,), options=SnapshotFor())) == "loading"
    scene.tell("GUILD_CREATE", guild())
    assert asker.snapshot().session == "two"


def test_threads_that_the_bot_may_not_see_any_more_are_left_out() -> None:
    deny = [{"id": str(GUILD), "type": 0, "allow": "0", "deny": str(VIEW_CHANNEL)}]
    scene = three(
        owner_id=str(ANN),
        roles=[role(GUILD, VIEW_CHANNEL)],
        channels=[channel(TEXT), channel(HIDDEN)],
        threads=[
            thread(30, TEXT),
            thread(31, HIDDEN),
            thread(32, TEXT, type=12),
            thread(33, TEXT, type=12, member={"flags": 0}),
        ],
    )
    asker = Asker(scene.cache)

    def told() -> list[str]:
        return [each["id"] for each in asker.guild()["threads"]]

    assert told() == ["30", "31", "33"]
    scene.tell("CHANNEL_UPDATE", {**channel(HIDDEN, permission_overwrites=deny), "guild_id": str(GUILD)})
    assert told() == ["30", "33"]
    moderator = role(GUILD, VIEW_CHANNEL | MANAGE_THREADS)
    scene.tell("GUILD_ROLE_UPDATE", {"guild_id": str(GUILD), "role": moderator})
    assert told() == ["30", "32", "33"]


@pytest.mark.parametrize("kind", ["channels", "roles", "stickers", "members"])
def test_a_guild_that_came_before_a_kind_was_kept_is_told_if_a_bot_can_work_with_it(kind: str) -> None:
    storage = MemoryStorage()
    _, events = stream(3, 20, guilds=1, members_per_guild=5)
    narrow = filled(events, CachePolicy(kinds=DEFAULT_KINDS - {kind}), storage)
    adopt_policy(narrow.writer)
    wide = Cache(storage, CachePolicy())
    adopt_policy(wide.writer)
    asker = Asker(wide)
    ((guild_id, _),) = wide.writer.guild_rows()
    (listed,) = asker.shard().guilds
    asked = Query("GuildSnapshot", (guild_id,), options=SnapshotFor())
    if kind in ("channels", "roles"):
        assert listed.unavailable and asker.refusal(asked) == "incomplete"
        feed(
            wide, [(1, "READY", events[0][2].replace(b'"one"', b'"two"')), (2, "GUILD_CREATE", events[1][2])]
        )
        assert not asker.shard().guilds[0].unavailable
    assert asker.guild(guild_id)["large"] is (kind == "members")


@pytest.mark.parametrize("kind", sorted(DEFAULT_KINDS))
def test_a_kind_that_is_not_kept_is_an_empty_list(kind: str) -> None:
    policy = CachePolicy(kinds=DEFAULT_KINDS - {kind})
    _, events = stream(3, 50, guilds=1, members_per_guild=5)
    cache = filled(events, policy)
    whole = filled(events, CachePolicy())
    for guild_id, _ in whole.writer.guild_rows():
        told, wanted = Asker(cache).guild(guild_id), Asker(whole).guild(guild_id)
        assert told.keys() == wanted.keys()
        emptied = {name for name in told if told[name] == [] != wanted[name]}
        # Nobody is in voice or online who is not among the members.
        assert len(emptied) <= (3 if kind == "members" else 1)


def test_presences_without_their_activities_have_an_empty_list_of_them() -> None:
    policy = CachePolicy(activities=False)
    scene = Scene(policy).start(
        member_count=1, presences=[{**presence(BOT), "activities": [{"name": "x", "type": 0}]}]
    )
    assert [each["activities"] for each in Asker(scene.cache).guild()["presences"]] == [[]]


def test_a_member_that_is_known_from_events_alone_has_what_libraries_need() -> None:
    scene = three(member_count=5)
    changed = {"guild_id": str(GUILD), "user": user(CID, "cid"), "roles": ["40"], "nick": None}
    scene.tell("GUILD_MEMBER_UPDATE", changed)
    (found,) = (each for each in Asker(scene.cache).guild()["members"] if each["user"]["username"] == "cid")
    assert (
        found.items()
        >= {"deaf": False, "mute": False, "flags": 0, "joined_at": None, "roles": ["40"]}.items()
    )


def test_who_is_in_voice_or_online_and_no_known_member_is_left_out() -> None:
    stranger = {"user_id": str(CID), "channel_id": "21", "session_id": "x"}
    scene = three(voice_states=[stranger, {**stranger, "user_id": str(BEN)}], presences=[presence(CID)])
    told = Asker(scene.cache).guild()
    assert [each["user_id"] for each in told["voice_states"]] == [str(BEN)]
    assert told["presences"] == []


def test_who_was_in_voice_once_is_not_told_by_a_gateway_that_does_not_hear_of_voice() -> None:
    scene = three(voice_states=[{"user_id": str(BEN), "channel_id": "21", "session_id": "x"}])
    told = Asker(scene.cache, intents.ALL & ~Intents.GUILD_VOICE_STATES).guild(wanted=WITHOUT_PRESENCES)
    assert told["voice_states"] == [] and names(told["members"]) == ["bot"]


def test_a_guild_create_names_each_field_once() -> None:
    scene = three()
    scene.tell(
        "GUILD_UPDATE",
        {"id": str(GUILD), "name": "new", "large": True, "member_count": 9, "unavailable": False},
    )
    body = Asker(scene.cache).snapshot().guild
    pairs = json.loads(bytes(body), object_pairs_hook=lambda pairs: pairs)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))


# Members.


def test_members_are_found_by_the_beginning_of_any_of_their_names_in_any_case() -> None:
    asker = Asker(three().cache)
    assert usernames(asker.members(query="A", limit=5)) == ["ann"]
    assert usernames(asker.members(query="nA", limit=5)) == ["ann"]
    assert usernames(asker.members(query="b")) == ["ben", "bot"]
    assert usernames(asker.members(query="b", limit=1)) in (["ben"], ["bot"])
    assert usernames(asker.members(query="nn")) == []


def test_an_empty_query_without_a_limit_gives_every_member() -> None:
    found = Asker(three().cache).members(query="", presences=True)
    assert usernames(found) == ["ann", "ben", "bot"]
    assert found.presences is not None and [msgspec.json.decode(each) for each in found.presences] == [
        presence(ANN)
    ]
    assert Asker(three().cache).members(query="").presences is None


def test_ids_that_are_no_members_are_named() -> None:
    found = Asker(three().cache).members(user_ids=(BEN, CID))
    assert usernames(found) == ["ben"]
    assert found.not_found == (str(CID),)
    assert (found.session, found.seq) == ("one", 2)


def test_presences_are_those_of_the_members_that_were_found() -> None:
    asker = Asker(three().cache)
    assert asker.members(query="b", presences=True).presences == ()
    assert len(asker.members(user_ids=(ANN, BEN), presences=True).presences or ()) == 1


@pytest.mark.parametrize("given", [intents.ALL & ~Intents.GUILD_MEMBERS, WITHOUT_PRESENCES])
def test_what_the_gateway_was_not_given_may_be_old(given: int) -> None:
    asker = Asker(three().cache, given)
    assert asker.refusal(_matching(query="", presences=True)) == "incomplete"
    if given & Intents.GUILD_MEMBERS:
        assert usernames(asker.members(query="ann")) == ["ann"]
    else:
        assert asker.refusal(_matching(user_ids=(ANN,))) == "incomplete"


def test_members_that_may_be_missing_are_not_searched_but_known_ones_are_given() -> None:
    asker = Asker(three(member_count=5).cache)
    assert asker.refusal(_matching(query="a")) == "incomplete"
    assert asker.refusal(_matching(user_ids=(ANN, CID))) == "incomplete"
    assert usernames(asker.members(user_ids=(ANN, BEN))) == ["ann", "ben"]


def test_members_are_refused_where_they_are_not_kept() -> None:
    _, events = stream(3, 20, guilds=1, members_per_guild=5)
    asker = Asker(filled(events, CachePolicy(kinds=KINDS - {"members"})))
    (guild_id,) = (each for each, _ in asker.cache.writer.guild_rows())
    assert asker.refusal(_matching(guild_id, query="")) == "cache_off"


# Clusters.


def test_clusters_say_what_the_gateway_was_given() -> None:
    asker = Asker(three().cache, 33281)
    asker.situation = Situation(
        shard_count=1,
        clusters=(1,),
        intents=33281,
        events=("MESSAGE_CREATE",),
        events_except=("TYPING_START",),
    )
    found = msgspec.json.decode(asker.body(Query("Clusters", ())), type=ClusterList)
    assert (found.intents, found.events, found.events_except) == (
        33281,
        ("MESSAGE_CREATE",),
        ("TYPING_START",),
    )
    assert set(found.kinds) == set(asker.cache.policy.kept())


def test_clusters_are_told_without_a_cache_and_then_keep_no_kinds() -> None:
    asker = Asker(filled([], CachePolicy(enabled=False)))
    found = msgspec.json.decode(asker.body(Query("Clusters", ())), type=ClusterList)
    assert found.kinds == ()
    assert found.clusters[0].guilds is None


# Against the simulated world.

LISTS = {
    "channels": "id", "threads": "id", "roles": "id", "emojis": "id", "stickers": "id", "stage_instances": "id",
    "guild_scheduled_events": "id", "soundboard_sounds": "sound_id", "voice_states": "user_id",
}  # fmt: skip


def comparable(d: Json) -> Json:
    """A GUILD_CREATE with its lists by id: their order means nothing, and who is in voice may be listed twice."""
    found = dict(d)
    for name, key in LISTS.items():
        found[name] = {each[key]: {k: v for k, v in each.items() if k != "guild_id"} for each in d[name]}
    for name in ("members", "presences"):
        found[name] = {each["user"]["id"]: each for each in d[name]}
    # In the snapshot it says whether the list of members is complete (docs/queries.md).
    del found["large"]
    return found


def sent(world: World, guild_id: int, wanted: int, threshold: int) -> Json:
    d: Json = msgspec.json.decode(
        msgspec.json.encode(snapshot.guild_create(world, guild_id, intents=wanted, large_threshold=threshold))
    )
    return comparable(d)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    wanted=st.sampled_from([intents.ALL, WITHOUT_PRESENCES, int(Intents.GUILDS)]),
    threshold=st.sampled_from([50, 250]),
)
def test_after_any_events_a_snapshot_is_what_discord_would_send_now(
    seed: int, wanted: int, threshold: int
) -> None:
    world, events = stream(seed, 900, guilds=3, members_per_guild=60)
    asker = Asker(filled(events, EVERYTHING))
    listed = {int(each.id): each.unavailable for each in asker.shard().guilds}
    assert listed == {guild_id: not world.is_available(guild_id) for guild_id in world.guild_ids}
    for guild_id, unavailable in listed.items():
        if unavailable:
            assert asker.refusal(Query("GuildSnapshot", (guild_id,), options=SnapshotFor())) == "loading"
            continue
        found = asker.snapshot(guild_id, wanted, threshold)
        assert found.seq == events[-1][0]
        told = msgspec.json.decode(found.guild)
        assert told["large"] is (len(told["members"]) < told["member_count"])
        assert comparable(told) == sent(world, guild_id, wanted, threshold)


# What no GUILD_CREATE has: a bot that connected later does not know them, at Discord either.
NOT_IN_SNAPSHOTS = ("message", "integration", "channel_info")


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_a_snapshot_and_the_events_beyond_its_position_are_the_same_as_all_events(
    seed: int, data: st.DataObject
) -> None:
    """Each guild is read at a moment of its own, as a proxy does while events go on."""
    _, events = stream(seed, 500, guilds=3, members_per_guild=40)
    gateway = Asker(Cache(MemoryStorage(), EVERYTHING))
    first = next(at for at, event in enumerate(events) if event[1] not in ("READY", "GUILD_CREATE"))
    moments = sorted(data.draw(st.lists(st.integers(first, len(events)), min_size=4, max_size=4)))
    feed(gateway.cache, events[: moments[0]])
    ready = gateway.shard()
    bot = Cache(MemoryStorage(), EVERYTHING)
    listed = [{"id": each.id, "unavailable": True} for each in ready.guilds]
    d = {"user": ready.user, "guilds": listed, "session_id": "two", "shard": [0, 1]}
    bot.apply(0, 1, "READY", msgspec.json.encode(d))
    positions: dict[int, int] = {}
    for at, each in enumerate(ready.guilds):
        if at + 1 < len(moments):
            feed(gateway.cache, events[moments[at] : moments[at + 1]])
        query = Query("GuildSnapshot", (int(each.id),), options=SnapshotFor(intents.ALL, 250))
        found = gateway.outcome(query)
        if isinstance(found, Found):
            told = msgspec.json.decode(found.body, type=GuildSnapshot)
            positions[int(each.id)] = told.seq
            bot.apply(0, 2 + at, "GUILD_CREATE", bytes(told.guild))
    feed(gateway.cache, events)
    for seq, name, raw in events:
        content = msgspec.json.decode(raw)
        guild_id = content.get("id") if name in WHOLE_GUILD else content.get("guild_id")
        if seq > (ready.seq if guild_id is None else positions.get(int(guild_id), ready.seq)):
            bot.apply(0, seq + 10, name, raw)
    bot.flush()
    wanted, got = state(gateway.cache.writer), state(bot.writer)
    for kind in NOT_IN_SNAPSHOTS:
        del wanted[kind], got[kind]
    # Direct channels come with messages; a bot that connected later has not seen the former ones.
    for view in (wanted, got):
        view["channel"] = {key: each for key, each in view["channel"].items() if "guild_id" in each}
    assert differences(got, wanted) == []


WHOLE_GUILD = frozenset({"GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"})


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_members_are_those_that_discord_would_find(seed: int, data: st.DataObject) -> None:
    world, events = stream(seed, 400, guilds=2, members_per_guild=30)
    asker = Asker(filled(events, EVERYTHING))
    for guild_id in world.guild_ids:
        if not world.is_available(guild_id):
            continue
        known = [each["user"]["id"] for each in sent(world, guild_id, intents.ALL, 250)["members"].values()]
        ids = data.draw(st.lists(st.sampled_from([*known, "1", "77"]), unique=True, max_size=9))
        query = data.draw(st.sampled_from(["", "a", "B", "user", "ö"]))
        for asked, wanted in (
            ({"query": query, "limit": 0}, {"query": query}),
            ({"user_ids": ids}, {"user_ids": tuple(map(int, ids))}),
        ):
            request = {"guild_id": str(guild_id), "presences": True, **asked}
            chunks = [each.d for each in requests.members_chunk(world, request)]
            found = asker.members(guild_id, presences=True, **wanted)
            theirs = [each for chunk in chunks for each in chunk["members"]]
            presences = [each for chunk in chunks for each in chunk["presences"]]
            missing = [each for chunk in chunks for each in chunk.get("not_found", [])]
            if len(theirs) < 100:
                assert by_user(found.members) == by_user(theirs)
                assert by_user(found.presences or ()) == by_user(presences)
            assert list(found.not_found) == missing


def by_user(items: Any) -> Json:
    found = [
        msgspec.json.decode(each if isinstance(each, msgspec.Raw) else msgspec.json.encode(each))
        for each in items
    ]
    return {each["user"]["id"]: each for each in found}
