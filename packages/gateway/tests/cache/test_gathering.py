"""One answer out of those of several gateways is the answer of one gateway that runs all clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from rateway.cache import gathering
from rateway.cache.gathering import HERE, NOT_KNOWN, Spread, asked_of, merged, question_of, spread_of
from rateway.cache.query_context import Found, Missing, Situation
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.queries import QUERY_TYPES, Query
from rateway_protocol.discord.snowflake import shard_of
from tests.cache.scene import BOT, Scene, guild, member
from tests.cache.test_queries import ANN, BEN, TEXT, VOICE, Asker, Host, scene

# Two shards, a cluster each.
FIRST, SECOND = 2 << 22, 3 << 22
AWAY = Fault(ErrorCode.UNAVAILABLE, "no answer")


def situation(*clusters: int) -> Situation:
    every = frozenset((1, 2))
    return Situation(
        shard_count=2, shards_per_cluster=1, clusters=clusters, elsewhere=every - frozenset(clusters),
        log_of="rateway-log-{}".format,
    )  # fmt: skip


class Gateways:
    """Two gateways with a cluster each, and one that runs both."""

    def __init__(self) -> None:
        one, two = scene(), Scene()
        one.tell("GUILD_CREATE", guild(FIRST, members=[member(BOT, "bot"), member(ANN, "ann")]))
        two.ready(SECOND)
        there = [member(BOT, "bot"), member(ANN, "ann")]
        channels = [{"id": "900", "type": 0, "name": "there"}]
        two.tell("GUILD_CREATE", guild(SECOND, members=there, channels=channels))
        self.both, self.here, self.there = Asker(one), Asker(one), Asker(two)
        self.both.host = Host({1: one.cache, 2: two.cache})
        # A store of a cluster that another gateway runs is old, and has what is not so any more.
        stale = Scene().start(name="old", id=str(SECOND))
        self.here.host = Host({1: one.cache, 2: stale.cache})
        self.there.host = Host({2: two.cache})
        self.both.situation, self.here.situation = situation(1, 2), situation(1)
        self.there.situation = situation(2)

    @staticmethod
    def answered(asker: Asker, query: Query) -> bytes | Fault:
        outcome = asker.outcome(
            query.type, *query.arguments, fields=query.fields, limit=query.limit, after=query.after,
            cluster=query.cluster,
        )  # fmt: skip
        if isinstance(outcome, Found):
            return outcome.body
        return NOT_KNOWN if isinstance(outcome, Missing) else Fault(ErrorCode(outcome.code), outcome.words)

    def gathered(self, query: Query) -> bytes | Fault:
        """The first gateway's answer, which asks the other one."""
        answers: dict[int, bytes | Fault] = {}
        question, spread = question_of(query), spread_of(query.type)
        others = asked_of(query, self.here.situation, {2})
        if spread is not Spread.ONE or not others:
            answers[HERE] = self.answered(self.here, question)
        known = answers.get(HERE)
        if spread is not Spread.ANY or known == NOT_KNOWN or isinstance(known, Fault):
            for cluster in others:
                asked = msgspec.structs.replace(question, cluster=cluster)
                answers[cluster] = self.answered(self.there, asked)
        return merged(query, answers)


QUERIES = [
    *(Query(kind, (each,)) for kind in ("Guild", "WhereIs") for each in (FIRST, SECOND, 9 << 22)),
    *(Query(kind, (each,), limit=100) for kind in ("GuildMembers", "GuildChannels") for each in (FIRST, SECOND)),
    *(Query("Member", (each, ANN)) for each in (FIRST, SECOND)),
    *(Query("GuildChannel", (each,)) for each in (TEXT, 900, 901)),
    *(Query("User", (each,)) for each in (ANN, BEN, 5)),
    Query("CurrentUser", ()),
    Query("Group", (1,)),
    Query("VoiceState", (ANN, VOICE)),
    Query("Guilds", (), limit=100),
    Query("Guilds", (), limit=1),
    Query("Guilds", (), limit=100, after=FIRST),
    Query("Guilds", (), limit=100, fields=("name",)),
    Query("MutualGuilds", (ANN,), limit=100, fields=("id", "name")),
    Query("Stats", ()),
    Query("Stats", (), fields=("members",)),
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.type} {query.arguments}")
def test_what_is_gathered_is_the_answer_of_one_gateway_that_runs_all(query: Query) -> None:
    gateways = Gateways()
    assert gateways.gathered(query) == gateways.answered(gateways.both, query)


def test_clusters_are_told_by_the_gateways_that_run_them() -> None:
    found = msgspec.json.decode(_body(Gateways().gathered(Query("Clusters", ()))))
    rows = [{name: row[name] for name in ("owner", "guilds", "log")} for row in found["clusters"]]
    assert rows == [
        {"owner": "this", "guilds": 2, "log": "rateway-log-1"},
        {"owner": "another", "guilds": 1, "log": "rateway-log-2"},
    ]


def _body(answer: bytes | Fault) -> bytes:
    assert isinstance(answer, bytes), answer
    return answer


def test_each_type_of_the_contract_is_asked_of_one_cluster_of_all_or_of_none() -> None:
    of_one = {kind for kind in QUERY_TYPES if spread_of(kind) is Spread.ONE}
    assert {"Guild", "Member", "GuildSnapshot", "ShardSnapshot", "MemberPermissions"} <= of_one
    assert not of_one & {"User", "Role", "Guilds", "WhereIs"}
    known = situation(1)
    assert asked_of(Query("ShardSnapshot", (1,)), known, {2}) == (2,)
    assert asked_of(Query("ShardSnapshot", (2,)), known, {2}) == ()
    assert shard_of(SECOND, 2) == 1
    assert asked_of(Query("Guild", (SECOND,)), Situation(), {2}) == ()


def outcome(query: Query, answers: Mapping[int, bytes | Fault]) -> Any:
    found = merged(query, answers)
    return (found.code, found.message) if isinstance(found, Fault) else msgspec.json.decode(found)


def test_a_cluster_that_does_not_answer_is_named() -> None:
    told = "cluster 2, which another gateway runs: no answer"
    assert outcome(Query("Guilds", (), limit=9), {HERE: b"[]", 2: AWAY}) == (ErrorCode.UNAVAILABLE, told)
    assert outcome(Query("Role", (1,)), {HERE: NOT_KNOWN, 2: AWAY}) == (ErrorCode.UNAVAILABLE, told)
    assert outcome(Query("Role", (1,)), {HERE: AWAY, 2: NOT_KNOWN}) == (ErrorCode.UNAVAILABLE, "no answer")
    assert outcome(Query("Role", (1,)), {HERE: AWAY, 2: b'{"id":"1"}'}) == {"id": "1"}
    counts = b'{"guilds":3,"clusters":[{"cluster":1,"guilds":3}]}'
    assert outcome(Query("Stats", ()), {HERE: counts, 2: AWAY}) == {
        "guilds": 3, "clusters": [{"cluster": 1, "guilds": 3}], "missing": [2],
    }  # fmt: skip


@pytest.mark.parametrize("odd", [b"{}", b"null", b"[1]", b'[{"name":"x"}]', b"[", b"\xff"])
@pytest.mark.parametrize("kind", ["Guilds", "Stats", "Clusters"])
def test_an_answer_of_another_form_is_a_fault_and_no_exception(kind: str, odd: bytes) -> None:
    answers = {HERE: Gateways().gathered(Query(kind, (), limit=9 if kind == "Guilds" else None)), 2: odd}
    assert outcome(Query(kind, (), limit=9), answers)[0] is ErrorCode.INTERNAL


def test_a_cluster_that_has_gone_on_to_another_gateway_is_not_answered_from_its_old_store() -> None:
    asker = Gateways().here
    assert asker.refusal("Guild", SECOND, cluster=2) == "elsewhere"
    assert asker.refusal("Guilds", cluster=2) == "elsewhere"
    assert [row["cluster"] for row in asker.ask("Stats")["clusters"]] == [1]
    assert gathering.HERE not in asker.host.clusters
