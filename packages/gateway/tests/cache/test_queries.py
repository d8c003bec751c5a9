"""Every type of query: shapes to the letter, paging, fields, and why there is no answer."""

# ruff: noqa: E501  (one case is one line: a table is read down its columns)

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from rateway.cache.apply import Cache
from rateway.cache.entity_store import EntityStoreReader
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.prune import adopt_policy
from rateway.cache.queries import ANSWERS, answer
from rateway.cache.query_context import Found, Missing, Outcome, Refusal, Situation
from rateway.cache.reader import MOST_SNAPSHOTS, View
from rateway.cache.stats import incomplete_shards
from rateway_protocol.contract.queries import QUERY_TYPES, Query
from rateway_protocol.discord.snowflake import shard_of
from tests.cache.scene import BOT, GUILD, Scene, channel, guild, member, role, thread, user
from tests.cache.world_feed import encode, opening, stream

ANN, BEN = 11 << 40, 12 << 40
TEXT, VOICE, THREAD = 20, 21, 30
OTHER = (1 << 60) + (1 << 22)
NOW = 1_800_000_000.0


@dataclass
class Host:
    """Stores of a host, as ``answer`` wants them."""

    caches: dict[int, Cache]

    @property
    def clusters(self) -> list[int]:
        return list(self.caches)

    def view(self, cluster: int) -> View:
        return View(self.caches[cluster].storage, EntityStoreReader(self.caches[cluster].storage))


def scene() -> Scene:
    voice = {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", "mute": False}
    presence = {
        "user": {"id": str(ANN), "avatar": None},
        "status": "idle",
        "activities": [],
        "client_status": {"web": "idle"},
    }
    built = Scene().start(
        member_count=3,
        owner_id=str(BEN),
        channels=[channel(TEXT, topic=None), channel(VOICE, 2)],
        threads=[thread(THREAD, TEXT, member={"flags": 1})],
        roles=[role(GUILD, 1 << 10), role(40, 2)],
        members=[member(BOT, "bot"), member(ANN, "ann", roles=["40"], nick="nan"), member(BEN, "ben")],
        emojis=[{"id": "50", "name": None, "animated": True}],
        stickers=[{"id": "51", "name": "s"}],
        presences=[presence],
        voice_states=[voice],
        stage_instances=[{"id": "60", "channel_id": str(VOICE)}],
        guild_scheduled_events=[{"id": "61", "name": "e", "status": 1}],
        soundboard_sounds=[{"sound_id": "62", "name": "n"}],
    )
    built.tell("VOICE_CHANNEL_STATUS_UPDATE", {"id": str(VOICE), "status": "hi", "guild_id": str(GUILD)})
    built.tell(
        "MESSAGE_CREATE",
        {"id": "70", "channel_id": str(TEXT), "guild_id": str(GUILD), "author": user(ANN), "content": "x"},
    )
    direct = {"id": "71", "channel_id": "500", "author": user(BEN, "ben"), "content": "hi", "channel_type": 1}
    built.tell("MESSAGE_CREATE", direct)
    return built


class Asker:
    def __init__(self, built: Scene | None = None, situation: Situation | None = None) -> None:
        self.scene = built or scene()
        self.host = Host({1: self.scene.cache})
        self.situation = situation or Situation()
        self.policy = self.scene.cache.policy

    def outcome(self, kind: str, *arguments: int, **options: Any) -> Outcome:
        if QUERY_TYPES[kind].lists:
            options.setdefault("limit", 100)
        return answer(Query(kind, arguments, **options), self.host, self.situation, self.policy, NOW)

    def ask(self, kind: str, *arguments: int, **options: Any) -> Any:
        outcome = self.outcome(kind, *arguments, **options)
        assert isinstance(outcome, Found), outcome
        return msgspec.json.decode(outcome.body)

    def refusal(self, kind: str, *arguments: int, **options: Any) -> str | None:
        outcome = self.outcome(kind, *arguments, **options)
        return outcome.code if isinstance(outcome, Refusal) else None


def test_every_type_of_the_contract_has_an_answer() -> None:
    assert ANSWERS.keys() == QUERY_TYPES.keys()


IN_GUILD = {"guild_id": str(GUILD)}


@pytest.mark.parametrize(
    ("kind", "arguments", "wanted"),
    [
        ("CurrentUser", (), user(BOT, "bot")),
        ("User", (ANN,), user(ANN, "ann")),
        ("User", (BOT,), user(BOT, "bot")),
        ("Role", (40,), {**role(40, 2), **IN_GUILD}),
        ("Emoji", (50,), {"id": "50", "name": None, "animated": True, **IN_GUILD}),
        ("GuildChannel", (TEXT,), {**channel(TEXT, topic=None), **IN_GUILD, "last_message_id": "70"}),
        ("GuildChannel", (THREAD,), {**thread(THREAD, TEXT), **IN_GUILD, "member": {"flags": 1, "id": "30", "user_id": str(BOT)}}),
        ("PrivateChannel", (500,), {"id": "500", "type": 1, "recipients": [user(BEN, "ben")], "last_message_id": "71"}),
        ("Member", (GUILD, ANN), {**member(ANN, "ann", roles=["40"], nick="nan"), **IN_GUILD}),
        ("Presence", (GUILD, ANN), {"user_id": str(ANN), "user": {"id": str(ANN)}, "status": "idle", "activities": [],
                                    "client_status": {"web": "idle"}, **IN_GUILD}),
        ("Message", (TEXT, 70), {"id": "70", "channel_id": str(TEXT), "author": user(ANN), "content": "x", **IN_GUILD}),
        ("VoiceState", (ANN, VOICE), {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", "mute": False, **IN_GUILD}),
        ("VoiceState", (ANN, GUILD), {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", "mute": False, **IN_GUILD}),
        ("MemberPermissions", (GUILD, ANN), {**IN_GUILD, "user_id": str(ANN), "permissions": str((1 << 10) | 2)}),
        ("MemberPermissions", (GUILD, ANN, TEXT), {**IN_GUILD, "user_id": str(ANN), "channel_id": "20", "permissions": str((1 << 10) | 2)}),
    ],
)  # fmt: skip
def test_an_entity_has_discords_shape(kind: str, arguments: tuple[int, ...], wanted: dict[str, Any]) -> None:
    assert Asker().ask(kind, *arguments) == wanted


def test_a_guild_has_its_own_fields_and_no_lists() -> None:
    found = Asker().ask("Guild", GUILD)
    assert found == {
        "id": str(GUILD), "name": "guild", "owner_id": str(BEN), "joined_at": "2020-01-01T00:00:00+00:00",
        "large": False, "unavailable": False, "member_count": 3,
    }  # fmt: skip


@pytest.mark.checklist("E15")
def test_a_guild_with_all_its_lists_is_a_guild_create_again() -> None:
    world, events = stream(13, 0, guilds=1, members_per_guild=12)
    (guild_id,) = world.guild_ids
    built = Scene(CachePolicy(kinds=KINDS))
    for seq, name, d in events:
        built.cache.apply(0, seq, name, d)
    built.cache.flush()
    sent = msgspec.json.decode(opening(world)[1][1])
    found = Asker(built).ask("Guild", guild_id, fields=tuple(sent))
    for name in sent:
        if isinstance(sent[name], list) and name != "features":
            assert comparable(found[name]) == comparable(sent[name]), name
        else:
            assert found[name] == sent[name], name


def comparable(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A list of entities in one order, less what only one side needs to say."""

    def key(item: dict[str, Any]) -> str:
        found = item.get("id") or item.get("user_id") or item.get("sound_id") or item["user"]["id"]
        return str(found)

    return sorted(({name: item[name] for name in item if name != "guild_id"} for item in items), key=key)


def test_voice_channel_states_come_with_their_members_and_an_unknown_channel_is_missing() -> None:
    asker = Asker()
    (state,) = asker.ask("VoiceChannelStates", VOICE)
    assert state["member"] == member(ANN, "ann", roles=["40"], nick="nan") and state["guild_id"] == str(GUILD)
    assert asker.ask("VoiceChannelStates", TEXT) == []
    assert isinstance(asker.outcome("VoiceChannelStates", 999), Missing)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("Group", (1,)), ("GuildChannel", (999,)), ("GuildChannel", (500,)), ("PrivateChannel", (TEXT,)), ("Emoji", (1,)),
        ("Role", (1,)), ("User", (1,)), ("Guild", (1,)), ("Member", (GUILD, 1)), ("Member", (1, ANN)), ("Presence", (GUILD, BEN)),
        ("Message", (TEXT, 1)), ("VoiceState", (BEN, VOICE)), ("VoiceState", (ANN, TEXT)), ("VoiceState", (BEN, GUILD)),
        ("GuildMembers", (1,)), ("MemberPermissions", (GUILD, 1)), ("MemberPermissions", (GUILD, ANN, 999)),
    ],
)  # fmt: skip
def test_what_is_not_there_is_missing(kind: str, arguments: tuple[int, ...]) -> None:
    assert isinstance(Asker().outcome(kind, *arguments), Missing)


@pytest.mark.parametrize(
    ("kind", "key", "ids"),
    [
        ("GuildChannels", "id", [TEXT, VOICE]), ("GuildThreads", "id", [THREAD]), ("GuildRoles", "id", [40, GUILD]),
        ("GuildEmojis", "id", [50]), ("GuildStickers", "id", [51]), ("GuildVoiceStates", "user_id", [ANN]),
        ("GuildPresences", "user_id", [ANN]), ("GuildScheduledEvents", "id", [61]), ("GuildStageInstances", "id", [60]),
        ("GuildSoundboardSounds", "sound_id", [62]),
    ],
)  # fmt: skip
def test_lists_hold_what_the_guild_has(kind: str, key: str, ids: list[int]) -> None:
    found = Asker().ask(kind, GUILD)
    assert [int(item[key]) for item in found] == ids
    assert all(item["guild_id"] == str(GUILD) for item in found)


def test_lists_are_paged_and_ascend() -> None:
    people = [member(number << 30) for number in range(1, 260)]
    asker = Asker(Scene().start(members=people, member_count=259))
    seen: list[int] = []
    after: int | None = None
    while page := asker.ask("GuildMembers", GUILD, limit=50, after=after):
        assert len(page) <= 50
        seen += [int(item["user"]["id"]) for item in page]
        after = seen[-1]
    assert seen == [number << 30 for number in range(1, 260)]


def test_fields_choose_and_what_is_not_there_is_left_out() -> None:
    asker = Asker()
    assert asker.ask("Guild", GUILD, fields=("name", "nothing")) == {"name": "guild"}
    assert asker.ask("GuildRoles", GUILD, fields=("id",)) == [{"id": "40"}, {"id": str(GUILD)}]
    assert asker.ask("Member", GUILD, ANN, fields=("nick",)) == {"nick": "nan"}
    assert asker.ask("GuildChannel", VOICE, fields=("id", "status")) == {"id": "21", "status": "hi"}
    assert "status" not in asker.ask("GuildChannel", VOICE)
    found = asker.ask("Guild", GUILD, fields=("id", "roles", "members"))
    assert [item["id"] for item in found["roles"]] == ["40", str(GUILD)] and len(found["members"]) == 3


def two_clusters() -> Asker:
    """Guild 1 in cluster 1, another in cluster 2; Ann is in both, under a newer name in the second."""
    first, second = scene(), Scene()
    second.cache.writer.wall_ms = 10**13
    second.ready(OTHER)
    second.tell("GUILD_CREATE", guild(OTHER, members=[member(BOT, "bot"), member(ANN, "ann the second")]))
    asker = Asker(first)
    asker.host = Host({1: first.cache, 2: second.cache})
    return asker


def test_any_cluster_answers_for_all() -> None:
    asker = two_clusters()
    assert asker.ask("Guild", OTHER)["id"] == str(OTHER)
    assert [item["id"] for item in asker.ask("Guilds")] == [str(GUILD), str(OTHER)]
    assert [item["id"] for item in asker.ask("Guilds", limit=1)] == [str(GUILD)]
    assert [item["id"] for item in asker.ask("Guilds", after=GUILD)] == [str(OTHER)]
    assert asker.ask("MutualGuilds", ANN, fields=("id",)) == [{"id": str(GUILD)}, {"id": str(OTHER)}]
    assert asker.ask("MutualGuilds", ANN, fields=("id",), after=GUILD) == [{"id": str(OTHER)}]
    assert asker.ask("MutualGuilds", BEN, fields=("id",)) == [{"id": str(GUILD)}]
    assert asker.ask("User", ANN)["username"] == "ann the second"


def test_where_a_guild_is_follows_from_the_layout() -> None:
    shard = shard_of(OTHER, 16)
    asker = Asker(situation=Situation(shard_count=16, shards_per_cluster=4, clusters={1, 2, 3, 4}))
    assert asker.ask("WhereIs", OTHER) == {
        "guild_id": str(OTHER), "cluster": shard // 4 + 1, "shard": shard, "shard_count": 16
    }  # fmt: skip
    assert Asker().refusal("WhereIs", OTHER) == "loading"


def test_clusters_name_every_exchange_with_its_shards_guilds_and_owner() -> None:
    asker = Asker(
        situation=Situation(
            shard_count=10,
            shards_per_cluster=4,
            clusters={1},
            elsewhere={2},
            log_of="rateway-log-{}-a".format,
        )
    )
    found = asker.ask("Clusters")
    assert {name: found[name] for name in ("shard_count", "clusters")} == {
        "shard_count": 10,
        "clusters": [
            {
                "cluster": 1,
                "exchange": "rateway-1",
                "shards": [0, 1, 2, 3],
                "guilds": 1,
                "owner": "this",
                "log": "rateway-log-1-a",
            },
            {
                "cluster": 2,
                "exchange": "rateway-2",
                "shards": [4, 5, 6, 7],
                "guilds": None,
                "owner": "another",
                "log": None,
            },
            {
                "cluster": 3,
                "exchange": "rateway-3",
                "shards": [8, 9],
                "guilds": None,
                "owner": None,
                "log": None,
            },
        ],
    }
    assert asker.ask("Clusters", fields=("shard_count",)) == {"shard_count": 10}
    assert Asker().refusal("Clusters") == "loading"


def test_clusters_are_told_with_the_cache_off_and_with_a_store_that_cannot_be_read() -> None:
    layout = Situation(shard_count=8, shards_per_cluster=8, clusters={1}, unreadable={1: "torn"})
    assert Asker(situation=layout).ask("Clusters")["clusters"][0]["guilds"] is None
    asker = Asker(situation=replace(layout, unreadable={}))
    asker.host, asker.policy = Host({}), replace(asker.policy, enabled=False)
    assert asker.ask("Clusters")["clusters"] == [
        {
            "cluster": 1,
            "exchange": "rateway-1",
            "shards": [*range(8)],
            "guilds": None,
            "owner": "this",
            "log": None,
        }
    ]


def test_stats_count_entities_by_kind_and_cluster() -> None:
    found = two_clusters().ask("Stats")
    assert (found["guilds"], found["members"], found["channels"], found["roles"]) == (2, 5, 3, 3)
    assert [row["cluster"] for row in found["clusters"]] == [1, 2]
    assert found["unavailable_guilds"] == found["pending_guilds"] == 0


def test_a_guild_that_is_still_loading_or_elsewhere_is_never_missing() -> None:
    count = 16
    ours = Situation(shard_count=count, shards_per_cluster=8, clusters={1}, is_loading=lambda shard_id: True)
    here, there = (
        next(n << 22 for n in range(1, 99) if (shard_of(n << 22, count) < 8) is ours_)
        for ours_ in (True, False)
    )
    asker = Asker(situation=ours)
    assert asker.refusal("Guild", here) == "loading"
    assert asker.refusal("Member", here, ANN) == "loading"
    assert asker.refusal("GuildMembers", there) == "elsewhere"
    assert asker.refusal("Role", 4711) == "loading"
    asker.situation = replace(ours, is_loading=lambda shard_id: False)
    assert isinstance(asker.outcome("Guild", here), Missing)
    assert isinstance(asker.outcome("Role", 4711), Missing)
    assert asker.refusal("Guild", there) == "elsewhere"


def test_a_guild_that_ready_named_and_that_has_not_come_is_loading() -> None:
    built = Scene()
    built.ready(GUILD)
    asker = Asker(built)
    assert asker.refusal("Guild", GUILD) == "loading"
    assert asker.ask("Guilds") == []


def test_a_guild_that_has_been_in_an_outage_since_the_start_is_known_but_empty_of_answers() -> None:
    built = Scene()
    built.ready(GUILD)
    built.tell("GUILD_CREATE", {"id": str(GUILD), "unavailable": True})
    direct = {"id": "71", "channel_id": "500", "author": user(BEN, "ben"), "content": "hi", "channel_type": 1}
    built.tell("MESSAGE_CREATE", direct)
    asker = Asker(built)
    assert asker.ask("Guild", GUILD) == {"id": str(GUILD), "unavailable": True}
    for kind, arguments in (("GuildChannels", ()), ("GuildMembers", ()), ("Member", (ANN,))):
        assert asker.refusal(kind, GUILD, *arguments) == "loading", (
            "not the direct channels, which have no guild"
        )


def test_a_store_that_is_of_no_use_is_unavailable_and_what_others_hold_is_answered() -> None:
    asker = two_clusters()
    healthy = [guild_["id"] for guild_ in asker.ask("Guilds")]
    assert len(healthy) == 2
    asker.situation = replace(asker.situation, unreadable={2: "no room left"})
    outcome = asker.outcome("Guilds")
    assert outcome == Refusal("unavailable", "no room left")
    assert asker.refusal("Role", 4711) == "unavailable"
    assert asker.refusal("Guild", OTHER) == "unavailable"
    assert asker.ask("Guild", GUILD)["id"] == str(GUILD)
    assert asker.ask("GuildChannel", TEXT)["id"] == str(TEXT)


def incomplete(*kinds: str) -> Asker:
    """A host whose one guild came before some kinds were kept."""
    old = CachePolicy(kinds=KINDS - set(kinds), messages_per_channel=5)
    built = Scene(old)
    adopt_policy(built.cache.writer)
    built.start(channels=[channel(TEXT), channel(VOICE, 2)], members=[member(BOT, "bot")])
    built.cache = Cache(built.storage, CachePolicy(kinds=KINDS, messages_per_channel=5))
    adopt_policy(built.cache.writer)
    built.cache.writer.flush()
    built.view = built.cache.writer
    return Asker(built)


def test_what_came_without_a_kind_is_incomplete_whether_asked_with_its_guild_or_without() -> None:
    asker = incomplete("roles", "emojis", "voice_states")
    for kind, arguments in (
        ("GuildRoles", (GUILD,)),
        ("Role", (4711,)),
        ("Emoji", (4711,)),
        ("VoiceState", (ANN, GUILD)),
        ("VoiceState", (ANN, VOICE)),
        ("VoiceChannelStates", (VOICE,)),
        ("MemberPermissions", (GUILD, BOT)),
    ):
        assert asker.refusal(kind, *arguments) == "incomplete", kind
    assert asker.refusal("Guild", GUILD, fields=("id", "roles")) == "incomplete"
    assert asker.ask("Guild", GUILD, fields=("id",)) == {"id": str(GUILD)}
    assert asker.ask("Member", GUILD, BOT)["user"]["username"] == "bot"
    assert isinstance(asker.outcome("GuildChannel", 4711), Missing)
    assert incomplete_shards(asker.host.view(1), asker.policy)[0] > 0
    asker.scene.tell("GUILD_CREATE", guild(roles=[role(GUILD)], members=[member(BOT, "bot")]))
    assert incomplete_shards(asker.host.view(1), asker.policy) == {}
    assert isinstance(asker.outcome("Role", 4711), Missing)
    assert asker.ask("GuildRoles", GUILD)[0]["id"] == str(GUILD)


def test_an_answer_over_the_bound_is_refused_with_what_to_do() -> None:
    topic = "x" * 100_000
    asker = Asker(Scene().start(channels=[channel(number, topic=topic) for number in range(20, 110)]))
    refused = asker.outcome("Guild", GUILD, fields=("id", "channels"))
    assert isinstance(refused, Refusal) and refused.code == "too_large" and "pages" in refused.words
    assert len(asker.ask("GuildChannels", GUILD, limit=50)) == 50


def test_a_user_who_is_not_in_a_known_channel_is_not_there_whoever_else_has_that_id() -> None:
    count = 16
    # As a guild's id the channel's would be of a shard that another gateway runs.
    place = next(n << 22 for n in range(1, 99) if shard_of(n << 22, count) >= 8)
    built = Scene().start(channels=[channel(place, 2)])
    asker = Asker(built, Situation(shard_count=count, shards_per_cluster=8, clusters={1}))
    assert isinstance(asker.outcome("VoiceState", ANN, place), Missing)


def test_a_guild_in_an_outage_is_answered_as_it_was() -> None:
    asker = Asker()
    asker.scene.tell("GUILD_DELETE", {"id": str(GUILD), "unavailable": True})
    assert asker.ask("Guild", GUILD)["unavailable"] is True
    assert asker.ask("Member", GUILD, ANN)["nick"] == "nan"
    assert asker.ask("Stats")["unavailable_guilds"] == 1


def test_the_cache_or_a_kind_switched_off_says_so() -> None:
    asker = Asker()
    asker.policy = CachePolicy(enabled=False)
    assert asker.refusal("Guild", GUILD) == "cache_off"
    asker.policy = CachePolicy(kinds=frozenset({"channels"}))
    kinds = (
        "Role",
        "Emoji",
        "User",
        "Presence",
        "Member",
        "VoiceState",
        "GuildRoles",
        "MemberPermissions",
        "Message",
    )
    arguments = {"Role": (1,), "Emoji": (1,), "User": (1,), "GuildRoles": (GUILD,)}
    assert {kind: asker.refusal(kind, *arguments.get(kind, (GUILD, ANN))) for kind in kinds} == dict.fromkeys(
        kinds, "cache_off"
    )
    assert asker.ask("GuildChannel", TEXT)["id"] == str(TEXT)


def test_a_deleted_role_and_an_index_that_waits_are_seen_by_readers() -> None:
    asker = Asker()
    asker.scene.tell("GUILD_ROLE_DELETE", {"role_id": "40", **IN_GUILD})
    assert asker.ask("Member", GUILD, ANN)["roles"] == []
    assert isinstance(asker.outcome("Role", 40), Missing)
    waiting = Asker(Scene().start(members=[member(BOT), member(ANN)]))
    assert waiting.scene.cache.writer.counts[Kind.MEMBER] == 2
    assert waiting.ask("User", ANN)["id"] == str(ANN)


def test_encoding_in_stores_keeps_ids_of_any_size() -> None:
    built = Scene()
    built.ready()
    top = (1 << 64) - 1
    built.cache.apply(0, 2, "GUILD_CREATE", encode(guild(top, members=[member(top)], roles=[role(top)])))
    asker = Asker(built)
    assert asker.ask("Member", top, top)["user"]["id"] == str(top)
    assert asker.ask("Role", top)["id"] == str(top)
    assert asker.ask("GuildMembers", top, after=top) == []


def test_a_user_in_very_many_guilds_is_found_without_looking_at_all_of_them() -> None:
    built = Scene()
    built.ready()
    people = [member(BOT, "bot"), member(ANN)]
    for number in range(1, MOST_SNAPSHOTS + 20):
        built.cache.writer.wall_ms = number * 1000
        built.tell("GUILD_CREATE", guild(GUILD + (number << 22), members=people))
    last = GUILD + ((MOST_SNAPSHOTS + 19) << 22)
    built.tell("GUILD_CREATE", guild(last, members=[member(BOT, "bot"), member(ANN, "newer")]))
    asker, looked = Asker(built), 0
    view = asker.host.view(1)
    guild_of = view.guild_of

    def counted(number: int) -> tuple[int, int] | None:
        nonlocal looked
        looked += 1
        return guild_of(number)

    view.guild_of = counted  # type: ignore[method-assign]  # counts looks
    found = view.user(ANN)
    assert found is not None and looked == MOST_SNAPSHOTS
    # What the guild itself says of its member is never passed over.
    assert asker.ask("Member", last, ANN)["user"]["username"] == "newer"
    assert len(asker.ask("MutualGuilds", ANN)) == MOST_SNAPSHOTS + 19
