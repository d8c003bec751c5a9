"""What `rateway check` makes of what Discord, the broker and the state folder say."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import msgspec
import pytest
from rateway.commands import check_page
from rateway.commands.plan import BrokerSaid, Finding, Known, NodeSaid, Plan, make_plan
from rateway.config import load
from rateway.fleet.choice import StoredLayout
from rateway.fleet.identify import Ledger, Moment
from rateway.native.objects.applied import SessionRecord
from rateway.runtime.startup import StoredSessions
from rateway.transports.rest import Application, GatewayBot, RestFailure
from rateway_protocol.discord.events import EVENTS
from rateway_protocol.discord.intents import ALL, PRIVILEGED
from rich.console import Console

ENVIRON = {"DISCORD_TOKEN": "a.b.c", "INTENTS": "GUILDS,GUILD_MEMBERS", "AMQP_URI": "amqp://localhost/"}
ANSWER = GatewayBot("wss://gateway.discord.gg", 11, 1000, 990, 3_600_000, 1)
KNOWN = Known(
    gateway=ANSWER,
    application=Application(42, "bot", 2),
    broker=BrokerSaid("amqp://guest@localhost:5672/", True, "RabbitMQ 3.10.8"),
    moment=Moment(1000.0, 1000.0, "boot"),
    form="compiled",
    machine=8_000_000_000,
)


def plan(known: Known = KNOWN, **environ: str) -> Plan:
    return make_plan(load(None, ENVIRON | environ), known)


def shown(plan: Plan) -> str:
    out = StringIO()
    check_page.show(plan, Console(file=out, width=200, highlight=False))
    return out.getvalue()


def test_a_good_configuration_shows_shards_clusters_identifies_time_and_intents() -> None:
    good = plan()
    assert good.ok and not good.problems and not good.warnings
    assert (good.shards, good.shards_here, good.recommended) == (19, 19, 11)
    assert [(row.cluster, row.first_shard, row.last_shard, row.exchange) for row in good.clusters] == [
        (1, 0, 7, "rateway-1"), (2, 8, 15, "rateway-2"), (3, 16, 18, "rateway-3"),
    ]  # fmt: skip
    assert good.identifies is not None and good.start is not None
    assert (good.identifies.needed, good.identifies.left, good.identifies.reserve) == (19, 990, 50)
    assert good.start.seconds == pytest.approx(19 * 5.25)
    assert [(row.name, row.privileged, row.switched_on) for row in good.intents] == [
        ("GUILDS", False, None), ("GUILD_MEMBERS", True, True),
    ]  # fmt: skip
    page = shown(good)
    for words in (
        "19: 11 recommended by Discord + 8 extra",
        "rateway-incoming-3",
        "bind a queue to rateway-1, rateway-2, rateway-3; the query Clusters lists them",
        "990 of 1000",
        "a start would work",
    ):
        assert words in page


@pytest.mark.parametrize(("concurrency", "rounds"), [(1, 19), (2, 10), (16, 2), (64, 1)])
def test_the_start_takes_as_many_rounds_as_the_fullest_bucket_has_shards(
    concurrency: int, rounds: int
) -> None:
    start = plan(replace(KNOWN, gateway=replace(ANSWER, max_concurrency=concurrency))).start
    assert start is not None
    assert start.seconds == pytest.approx(rounds * 5.25)


def test_a_certificate_that_is_not_trusted_gets_its_own_advice() -> None:
    failure = RestFailure(
        "unavailable", "no connection: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"
    )
    (problem,) = plan(replace(KNOWN, gateway=failure)).problems
    assert "SSL_CERT_FILE" in problem.do


def test_memory_counts_the_processes_that_would_run_and_their_supervisor() -> None:
    def least(known: Known = KNOWN, **environ: str) -> int:
        memory = plan(known, **environ).memory
        assert memory is not None
        return memory.least

    alone = least()
    process = least(PROCESSES="3") - alone
    assert process > 0
    assert least(replace(KNOWN, cores=2)) == alone + process * 2 // 3
    # Never more processes than clusters.
    assert least(replace(KNOWN, cores=64)) == alone + process


def test_a_privileged_intent_that_is_not_switched_on_is_a_problem() -> None:
    wrong = plan(replace(KNOWN, application=Application(42, "bot", 0)))
    assert not wrong.ok
    assert "GUILD_MEMBERS" in wrong.problems[0].what and "4014" in wrong.problems[0].what
    assert "would not work" in shown(wrong)


def test_flags_that_are_not_known_are_a_warning_alone() -> None:
    unsure = plan(replace(KNOWN, application=RestFailure("unavailable", "502")))
    assert unsure.ok
    assert unsure.intents[1].switched_on is None
    assert "not known" in unsure.warnings[0].what


@pytest.mark.parametrize("kind", ["unauthorized", "rate_limited", "unavailable", "invalid"])
def test_a_discord_that_does_not_answer_is_a_problem_with_advice(kind: Any) -> None:
    wrong = plan(replace(KNOWN, gateway=RestFailure(kind, "no"), application=RestFailure(kind, "no")))
    assert [problem.where for problem in wrong.problems] == ["Discord"]
    assert wrong.problems[0].do
    assert wrong.shards is None


def test_a_broker_that_does_not_answer_or_has_other_flags_is_a_problem() -> None:
    away = plan(replace(KNOWN, broker=BrokerSaid("amqp://guest@localhost/", False, problem="refused")))
    other = plan(
        replace(KNOWN, broker=replace_struct(KNOWN.broker, findings=[Finding("broker", "queue", "delete")]))
    )
    assert [problem.where for problem in (*away.problems, *other.problems)] == ["broker", "broker"]


def replace_struct(struct: BrokerSaid, **changes: Any) -> BrokerSaid:
    return msgspec.structs.replace(struct, **changes)


def test_clusters_that_there_are_not_are_a_problem_and_a_subset_is_a_warning() -> None:
    assert "no cluster 9" in plan(SHARDS="19", CLUSTERS="1,9").problems[0].what
    some = plan(SHARDS="19", CLUSTERS="1,3")
    assert some.ok
    assert some.shards_here == 11
    assert "IDENTIFY_BUCKETS" in some.warnings[0].do
    assert [row.here for row in some.clusters] == [True, False, True]


@pytest.mark.checklist("K40")
def test_nodes_of_one_cluster_are_a_reason_for_quorum_queues_and_of_two_a_problem() -> None:
    nodes = [NodeSaid(f"amqp://guest@{host}:5672/", True, "RabbitMQ 4.0.5", "bots") for host in "ab"]
    known = replace(
        KNOWN, broker=BrokerSaid("amqp://guest@a:5672,b:5672/", True, "RabbitMQ 4.0.5", nodes=nodes)
    )
    one = plan(known)
    assert one.ok and any(
        "the RabbitMQ cluster bots" in note and "quorum queues" in note for note in one.notes
    )
    nodes[1] = NodeSaid("amqp://guest@b:5672/", True, "RabbitMQ 4.0.5", "others")
    two = plan(known)
    assert "different RabbitMQ clusters: bots, others" in two.problems[0].what
    assert not any("quorum" in note for note in plan().notes)


def test_shards_outside_the_buckets_of_this_gateway_are_a_problem() -> None:
    known = replace(KNOWN, gateway=replace(ANSWER, max_concurrency=16))
    assert plan(known, SHARDS="19", CLUSTERS="1", IDENTIFY_BUCKETS="0-7").ok
    wrong = plan(known, SHARDS="19", CLUSTERS="2", IDENTIFY_BUCKETS="0-7")
    assert wrong.problems[0].where == "IDENTIFY_BUCKETS"
    assert "8, 9" in wrong.problems[0].what


@pytest.mark.checklist("D10")
def test_too_few_identifies_left_are_a_problem_unless_sessions_are_stored() -> None:
    known = replace(KNOWN, gateway=replace(ANSWER, remaining=18))
    assert plan(known).problems[0].where == "identifies"
    stored = plan(with_sessions(known, 19), SHARDS="19")
    assert stored.ok and stored.warnings[0].where == "identifies"
    assert stored.identifies is not None and (stored.identifies.needed, stored.identifies.spends) == (19, 0)


def test_our_own_count_of_the_day_goes_into_what_is_left() -> None:
    ledger = Ledger(KNOWN.moment, [(shard, 100.0) for shard in range(19)] * 50, {}, {})
    tired = plan(replace(KNOWN, ledger=ledger))
    assert tired.identifies is not None
    assert tired.identifies.left == 50
    assert not tired.ok, "the reserve is for lost sessions"


def with_sessions(
    known: Known, shards: int, *, intents: int = 3, bot: str = "bot", settled: int = 5
) -> Known:
    """A state folder with a session for each of so many shards, eight a cluster."""
    settings = load(None, ENVIRON)

    def read(number: int) -> list[SessionRecord]:
        return [
            SessionRecord(
                shard_id=shard, shard_count=shards, session_id=f"s{shard}", resume_url="wss://x", settled=settled,
                intents=intents, token_hash=bot, wall=1.0,
            )
            for shard in range(8 * (number - 1), min(8 * number, shards))
        ]  # fmt: skip

    stored = StoredLayout(shards, 8, "wss://x")
    return replace(known, stored=stored, sessions=StoredSessions(settings, "bot", read))


def test_the_stored_number_of_shards_holds_and_is_told() -> None:
    kept = plan(with_sessions(KNOWN, 16))
    assert (kept.shards, kept.resumed) == (16, 16)
    assert any("RESHARD" in note for note in kept.notes)
    # Discord's number is what it was: nobody may think that it has changed when EXTRA_SHARDS has.
    extra = plan(with_sessions(KNOWN, 19), EXTRA_SHARDS="3")
    assert any(
        "With the 11 that Discord recommends and EXTRA_SHARDS=3 it would be 14" in note
        for note in extra.notes
    )
    assert plan(with_sessions(KNOWN, 16), RESHARD="1").shards == 19
    assert plan(with_sessions(KNOWN, 16), SHARDS="20").shards == 20


@pytest.mark.checklist("K64")
@pytest.mark.parametrize("other", [{"intents": 1}, {"bot": "another"}, {"settled": 0}])
def test_sessions_that_do_not_fit_are_not_said_to_be_resumed(other: dict[str, Any]) -> None:
    found = plan(with_sessions(KNOWN, 16, **other))
    assert (found.shards, found.resumed) == (19, 0)
    assert found.identifies is not None and found.identifies.spends == 19
    assert not any("resume" in note and "16 of" in note for note in found.notes)
    assert any("16 stored sessions" in warning.what for warning in found.warnings)


@pytest.mark.checklist("K67")
@pytest.mark.parametrize("name", sorted(name for name, spec in EVENTS.items() if spec.intents))
def test_an_event_that_no_intent_brings_is_warned_about(name: str) -> None:
    wanted = EVENTS[name].intents
    bits = wanted & -wanted
    allowed = replace(KNOWN, application=Application(42, "bot", wanted))
    assert not [
        each for each in plan(allowed, EVENTS=name, INTENTS=str(bits)).warnings if each.where == "EVENTS"
    ]
    (warning,) = [
        each
        for each in plan(allowed, EVENTS=name, INTENTS=str(ALL & ~wanted)).warnings
        if each.where == "EVENTS"
    ]
    assert name in warning.what and warning.do


def test_events_that_always_come_need_no_intent() -> None:
    always = ",".join(name for name, spec in EVENTS.items() if not spec.intents)
    assert not [each for each in plan(EVENTS=always).warnings if each.where == "EVENTS"]


def test_far_fewer_shards_than_recommended_are_warned_about() -> None:
    assert "4011" in plan(SHARDS="4").warnings[0].what
    assert not plan(SHARDS="5").warnings


def test_zlib_is_advised_where_zstd_would_take_the_machine() -> None:
    small = plan(replace(KNOWN, machine=100_000_000), SHARDS="64").memory
    assert small is not None
    assert "zlib-stream" in small.advice
    assert small.most > 64 * 2_000_000 > small.with_zlib
    large = plan().memory
    assert large is not None and not large.advice
    for zlib in (plan(COMPRESSION="zlib-stream").memory, plan(SHARDS="101").memory):
        assert zlib is not None and zlib.least == zlib.most == zlib.with_zlib


def test_a_cache_without_guilds_is_warned_about() -> None:
    assert "GUILDS" in plan(INTENTS="GUILD_MESSAGES").warnings[0].what
    assert not plan(INTENTS="GUILD_MESSAGES", CACHE_ENABLED="false").warnings


def test_many_clusters_are_shown_in_short() -> None:
    page = shown(plan(SHARDS="1600"))
    assert "rateway-1 " in page and "rateway-200 " in page
    assert "194 more" in page
    assert "bind a queue to rateway-1 to rateway-200" in page
    assert page.count("rateway-incoming-") == 6


def test_names_of_strangers_cannot_forge_the_page() -> None:
    page = shown(plan(replace(KNOWN, application=Application(42, "[red]x[/]\x1b[2J\nok", 2))))
    assert "[red]x[/]\\e[2J\\nok" in page


def test_the_proxy_is_shown_and_judged_by_the_settings_of_its_gateway() -> None:
    assert plan().proxy is None
    known = replace(KNOWN, application=Application(42, "bot", PRIVILEGED))
    good = plan(known, PROXY_ADDRESS="127.0.0.1:7878", INTENTS="ALL")
    assert good.ok
    assert "bots connect to ws://127.0.0.1:7878 and show the bot's token; nobody does TLS" in shown(good)
    token = {"PROXY_ADDRESS": "0.0.0.0:7878", "PROXY_TOKEN": "long-enough-for-workers", "INTENTS": "ALL"}
    assert "or PROXY_TOKEN; another server in front" in shown(plan(known, **token, PROXY_BEHIND_TLS="true"))
    assert "wss://0.0.0.0:7878" in shown(plan(known, **token, PROXY_CERT="/etc/cert.pem"))
    less = plan(
        known,
        **token,
        PROXY_BEHIND_TLS="true",
        CACHE_KINDS="channels,roles,members",
        EVENTS_EXCEPT="TYPING_START",
    )
    assert less.ok
    said = " ".join(each.what for each in less.warnings if each.where == "PROXY_ADDRESS")
    assert "CACHE_KINDS" in said and "TYPING_START" in said
    without = plan(known, **token, PROXY_BEHIND_TLS="true", CACHE_ENABLED="false")
    assert not without.ok and "CACHE_ENABLED" in without.problems[0].what


def test_the_plan_is_json() -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(plan()))
    assert decoded["ok"] is True
    assert decoded["identifies"]["needed"] == 19
