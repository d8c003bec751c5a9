"""The history: two looks at a gateway tell what happened between them, in words and in numbers."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from rateway import logs
from rateway.runtime.monitoring.health import verdict
from rateway.runtime.monitoring.history import KEEP_S, MOST_HAPPENINGS, STEP_S, History, close_words
from tests.http.fleet import Fleet, served
from tests.http.several import MINE, OTHER, a_fleet

from tests.aio import run


def between(fleet: Fleet, **changes: Any) -> list[str]:
    """Words for what changes: attribute of the fleet → new value."""
    history = History()
    history.take(run(fleet.status()), 0.0, 1000.0)
    history.take(run(fleet.status()), 1.0, 1001.0)
    for name, value in changes.items():
        setattr(fleet, name, value)
    _, found = history.take(run(fleet.status()), 2.0, 1002.0)
    return [f"{each.level}: {each.shards or ''}{numbers(each.clusters)} {each.text}" for each in found]


def numbers(clusters: list[int]) -> str:
    return ",".join(map(str, clusters))


def test_nothing_happens_in_a_healthy_gateway() -> None:
    assert between(Fleet()) == []


def test_a_shard_that_lost_its_connection_says_why() -> None:
    lost = {"state": "backing_off", "closes": {"4009": 1}, "last_close": "4009 Session timed out"}
    assert between(Fleet(), shards={3: lost}) == [
        f"notice: [3] connection lost ({close_words('4009 Session timed out')})"
    ]


def test_a_reconnect_between_two_looks_shows_in_its_counters() -> None:
    back = {"closes": {"none": 1}, "last_close": "TCP", "resumes_tried": 1, "resumes_succeeded": 1}
    assert between(Fleet(), shards={3: back}) == [
        "notice: [3] reconnected and resumed (the connection broke)"
    ]


def test_the_same_for_many_shards_is_one_line() -> None:
    lost = {"state": "connecting", "closes": {"none": 1}, "last_close": "TCP"}
    (line,) = between(Fleet(1000), shards=dict.fromkeys(range(1000), lost))
    assert line.startswith("notice: [0, 1, 2,") and line.endswith("connection lost (the connection broke)")


def test_shards_that_come_back_are_told() -> None:
    fleet = Fleet()
    fleet.shards[3] = {"state": "resuming", "resumes_tried": 1}
    assert between(fleet, shards={3: {"resumes_tried": 1, "resumes_succeeded": 1}}) == [
        "good: [3] resumed",
        "good:  all 16 shards are live",
    ]
    fleet.shards[3] = {"state": "identifying"}
    assert between(fleet, shards={})[0] == "good: [3] live with a new session"


def test_the_broker_and_the_spool_are_told_by_cluster() -> None:
    fleet = Fleet()
    assert between(fleet, publishers={2: {"connected": False, "why": "refused", "spool_events": 9}}) == [
        "trouble: 2 the broker is away: refused",
        "notice: 2 events go to the spool",
    ]
    assert between(fleet, publishers={}) == ["good: 2 the broker is back", "good: 2 the spool is empty again"]
    assert between(fleet, publishers={1: {"blocked": True, "paused": True}}) == [
        "trouble: 1 the broker blocks publishers",
        "trouble: 1 reading from Discord is paused",
    ]


def test_lost_sessions_fatal_ends_and_stores_are_told() -> None:
    fleet = Fleet()
    assert between(fleet, clusters={1: {"gaps": 2, "store": "disk full"}}) == [
        "trouble: 1 the store: disk full",
        "trouble: 1 sessions lost: 2. Events may be missing, RATEWAY_GAP tells the workers",
    ]
    fatal = {"state": "fatal", "why": "4014 disallowed intents"}
    assert between(Fleet(), shards={0: fatal}) == [
        "trouble: [0] refused by Discord for good: 4014 disallowed intents"
    ]


def test_the_same_for_many_clusters_is_one_line() -> None:
    fleet = Fleet(200)
    stuck = {"held_up_s": 17.0, "lag_s": 17.0}
    (line,) = between(fleet, publishers=dict.fromkeys(range(1, 26), stuck))
    assert line == f"trouble: {numbers(list(range(1, 26)))} the broker confirms nothing any more"
    assert between(fleet, publishers={}) == [f"good: {numbers(list(range(1, 26)))} the broker confirms again"]
    lost = {number: {"gaps": number} for number in range(1, 5)}
    (line,) = between(Fleet(32), clusters=lost)
    assert line.startswith("trouble: 1,2,3,4 sessions lost: 10.")


def test_names_that_nobody_wants_are_told_nowhere_and_a_lacking_queue_once_for_all_clusters() -> None:
    wanted = {"routed": ["MESSAGE_CREATE"]}
    fleet = Fleet(200)
    fleet.publishers = dict.fromkeys(range(1, 26), wanted)
    unwanted = {**wanted, "unrouted": ["TYPING_START", "PRESENCE_UPDATE"]}
    assert between(fleet, publishers=dict.fromkeys(range(1, 26), unwanted)) == []
    lacking = {"routed": [], "unrouted": ["MESSAGE_CREATE"]}
    found = between(fleet, publishers={1: wanted, **dict.fromkeys(range(2, 26), lacking)})
    assert len(found) == 1 and "no queue is bound for anything of clusters 2-25" in found[0]
    assert between(fleet, publishers=dict.fromkeys(range(1, 26), wanted)) == [
        "good:  each cluster has the queues that others have"
    ]


def test_what_repeats_pushes_out_nothing_else() -> None:
    history, fleet = History(), Fleet(8)
    history.take(run(fleet.status()), 0.0, 0.0)
    fleet.shards = {3: {"state": "backing_off", "closes": {"4000": 1}, "last_close": "4000 Unknown error"}}
    history.take(run(fleet.status()), 1.0, 1.0)
    for second in range(2, 1000):
        fleet.publishers = {1: {"lag_s": 7.0 if second % 2 else 0.0}}
        history.take(run(fleet.status()), float(second), float(second))
    assert len(history.happenings) == MOST_HAPPENINGS
    assert history.happenings[0].shards == [3], "older than all that followed, and still there"
    assert [each.number for each in history.happenings] == sorted(each.number for each in history.happenings)


def test_a_broker_that_confirms_nothing_any_more_has_no_time_to_confirm() -> None:
    history, fleet = History(), Fleet(8)
    for step in range(4):
        buckets = {"0.001": 100 * step, "+Inf": 100 * step}
        fleet.publishers[1] = {"latency_buckets": buckets, "unconfirmed": 3}
        sample, _ = history.take(run(fleet.status()), step * STEP_S, step * STEP_S)
    assert sample is not None and sample.confirm_p99_ms == 1.0
    sample, _ = history.take(run(fleet.status()), 4 * STEP_S, 4 * STEP_S)
    assert sample is not None and sample.confirm_p99_ms is None
    fleet.publishers[1]["unconfirmed"] = 0  # nothing to confirm: the last minute's figure stands
    sample, _ = history.take(run(fleet.status()), 5 * STEP_S, 5 * STEP_S)
    assert sample is not None and sample.confirm_p99_ms == 1.0


def test_processes_that_leave_and_come_are_told() -> None:
    fleet = Fleet(32)
    fleet.processes = 2
    assert between(fleet, processes=1)[0].startswith("trouble:")
    fleet.processes = 2
    assert between(fleet, process={"pid": 77}) == [
        "notice:  supervisor was replaced: pid 4000 → 77",
        "notice:  runner 1 was replaced: pid 4001 → 77",
        "notice:  runner 2 was replaced: pid 4002 → 77",
    ]


def test_fifteen_minutes_of_samples_are_kept_and_rates_survive_a_new_process() -> None:
    history, fleet = History(), Fleet(8)
    fleet.clusters[1] = {"received": 1_000_000}
    history.take(run(fleet.status()), 0.0, 0.0)
    fleet.clusters[1] = {"received": 1_000_500}
    sample, _ = history.take(run(fleet.status()), STEP_S, STEP_S)
    assert sample is not None and sample.received == 100.0
    fleet.clusters[1] = {"received": 50}  # its process was replaced and counts anew
    sample, _ = history.take(run(fleet.status()), 2 * STEP_S, 2 * STEP_S)
    assert sample is not None and sample.received == 10.0
    for step in range(3, 400):
        history.take(run(fleet.status()), step * STEP_S, step * STEP_S)
    assert len(history.samples) == KEEP_S / STEP_S
    assert history.samples[-1].at - history.samples[0].at <= KEEP_S


def test_the_worst_lag_within_a_step_is_not_missed() -> None:
    history, fleet = History(), Fleet(8)
    for second in range(6):
        fleet.publishers[1] = {"lag_s": 7.5 if second == 2 else 0.0}
        sample, _ = history.take(run(fleet.status()), second, second)
    assert sample is not None and sample.lag_s == 7.5


def test_confirms_are_judged_by_the_last_minute_alone() -> None:
    history, fleet = History(), Fleet(8)
    slow = {"0.001": 0, "4": 1000, "+Inf": 1000}
    fleet.publishers[1] = {"latency_buckets": slow}
    history.take(run(fleet.status()), 0.0, 0.0)
    seen = []
    for step in range(1, 15):
        fast = 100 * step
        fleet.publishers[1] = {"latency_buckets": {"0.001": fast, "4": 1000 + fast, "+Inf": 1000 + fast}}
        sample, _ = history.take(run(fleet.status()), step * STEP_S, step * STEP_S)
        assert sample is not None
        seen.append(sample.confirm_p99_ms)
    assert seen[0] == 4000.0
    assert seen[-1] == 1.0


def test_a_start_is_no_trouble() -> None:
    fleet = Fleet(16)
    fleet.began = time.monotonic() - 3
    new = {"session": None, "identifies": 0, "away_s": 2.0}
    fleet.shards = {shard: {"state": "connecting", **new} for shard in range(8, 16)}
    fleet.publishers[2] = {"connected": False, "why": "not connected yet"}
    found = verdict(run(fleet.status()), 180.0, {})
    assert found.level == "starting"
    assert found.reasons[-1].text == "8 shards (8-15): connecting"
    fleet.began -= 60
    assert verdict(run(fleet.status()), 180.0, {}).level == "trouble"


def test_close_codes_are_told_in_words() -> None:
    assert close_words(None) == ""
    assert close_words("TCP reset by peer") == "the connection broke: reset by peer"
    assert close_words("4900 asked for by an operator") == "closed by the gateway: asked for by an operator"
    assert close_words("4004").startswith("4004: ")


def test_who_follows_gets_all_of_it_and_then_what_changes() -> None:
    async def scene() -> None:
        import aiohttp

        fleet = Fleet(1000)
        async with (
            served(fleet) as (port, _),
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/events") as answer,
        ):
            events = _events(answer.content)
            whole = await anext(events)
            assert whole["whole"] and len(whole["shards"]) == 1000 and len(whole["clusters"]) == 125
            await anext(events)
            fleet.shards[5] = {
                "state": "resuming",
                "away_s": 1.0,
                "why": "\x1b[31m<b>\u202ehidden-secret",
            }
            logs.hide("hidden-secret")
            # Other rows come as well where two looks are seconds apart: the fleet's ages stand still.
            changed: list[Any] = []
            while not changed:
                change = await anext(events)
                changed = [row for row in change["shards"] if row["state"] == "resuming"]
            assert [row["shard"] for row in changed] == [5]
            assert changed[0]["why"] == "\\e[31m<b>\\u202e***"
            assert "whole" not in change
            assert change["verdict"]["level"] == "notice"

    run(scene())


async def _events(stream: Any) -> Any:
    buffer = b""
    async for chunk in stream.iter_any():
        buffer += chunk
        while b"\n\n" in buffer:
            event, buffer = buffer.split(b"\n\n", 1)
            if event.startswith(b"data: "):
                yield msgspec.json.decode(event[6:])


def test_members_that_come_and_go_and_clusters_that_move_are_told() -> None:
    fleet = Fleet()
    fleet.more = {"fleet": a_fleet()}
    assert between(fleet, more={"fleet": a_fleet(second=False, taken=True)}) == [
        f"notice:  {OTHER} has left the fleet",
        f"info:  cluster 2 is {MINE}'s, from {OTHER}: taken over (epoch 8)",
    ]
    fleet.more = {"fleet": a_fleet(second=False)}
    assert between(fleet, more={"fleet": a_fleet()}) == [
        f"info:  {OTHER} has joined the fleet",
        f"info:  cluster 2 is {OTHER}'s: its first owner (epoch 7)",
    ]
    assert between(fleet, more={"fleet": a_fleet(second=False, governor=False)}) == [
        f"notice:  {OTHER} has left the fleet",
        "info:  the fleet's governor is nobody",
        "trouble:  cluster 2 has no owner",
    ]
