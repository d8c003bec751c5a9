"""What workers' commands become, and that no limit of Discord's is ever exceeded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.session import actions
from rateway.session.actions import State
from rateway.session.options import CommandBudget
from rateway.session.send_limit import SlidingLog
from tests.session.driver import (
    INTERVAL,
    INTERVAL_MS,
    Driver,
    Least,
    members,
    options,
    presence,
    stored,
    voice,
)


def sent_at(driver: Driver) -> list[tuple[float, int]]:
    """Records (time, op) of everything sent from now on."""
    log: list[tuple[float, int]] = []

    def note(order: actions.Order) -> None:
        if isinstance(order, actions.Send | actions.Identify):
            log.append((driver.now, json.loads(order.data)["op"]))

    driver.on_order = note
    return log


def most_within(times: list[float], seconds: float) -> int:
    times = sorted(times)
    return max((sum(1 for t in times if start <= t < start + seconds) for start in times), default=0)


def everything() -> dict[str, Any]:
    return {"settings": options(intents=53608447), "chance": Least()}


def test_a_command_is_sent_and_then_done() -> None:
    driver = Driver().live()
    driver.command(4, voice(), "h")
    assert driver.sent(4) == [{"op": 4, "d": voice()}]
    assert driver.outcomes() == [("h", "sent")]
    kinds = [type(order) for order in driver.taken]
    assert kinds[-2:] == [actions.Send, actions.CommandDone]


@pytest.mark.checklist("D1", "D2")
def test_two_hundred_commands_at_once_stay_within_the_limit_and_heartbeats_go_first() -> None:
    driver = Driver(**everything())
    log = sent_at(driver)
    driver.live()
    for n in range(200):
        driver.command(4, voice(), n, lasts=1000)
    # What is left of 115 when the other kinds have their share.
    assert len(driver.sent(4)) == 94
    for _ in range(3):
        driver.say({"op": 1})
    assert len(driver.sent(1)) == 3
    driver.advance(200.0)
    assert len(driver.sent(4)) == 200
    assert driver.outcomes() == [(n, "sent") for n in range(200)]
    assert most_within([at for at, _ in log], 60.0) <= 120


@pytest.mark.checklist("D2")
def test_heartbeats_on_request_stop_at_the_limit_and_the_regular_one_follows() -> None:
    driver = Driver(acks=False, **everything())
    log = sent_at(driver)
    driver.live()
    for _ in range(500):
        driver.say({"op": 1})
    assert most_within([at for at, _ in log], 60.0) == 120
    driver.say({"op": 11})
    driver.advance(INTERVAL * 2)
    assert log[-1][1] == 1
    assert log[-1][0] > log[0][0] + 60
    assert most_within([at for at, _ in log], 60.0) <= 120


@pytest.mark.checklist("D3")
def test_a_hundred_presences_in_a_second_become_few_and_the_last_one_wins() -> None:
    driver = Driver(**everything())
    log = sent_at(driver)
    driver.live()
    for n in range(100):
        driver.command(3, presence(str(n)), n, lasts=1000)
        driver.advance(0.01)
    driver.advance(100.0)
    assert most_within([at for at, op in log if op == 3], 20.0) <= 5
    assert driver.sent(3)[-1]["d"]["activities"][0]["name"] == "99"
    outcomes = dict(driver.outcomes())
    assert outcomes[99] == "sent"
    assert sorted(set(outcomes.values())) == ["sent", "superseded"]
    assert len(outcomes) == 100


@pytest.mark.checklist("D4")
def test_of_presences_that_came_while_disconnected_only_the_newest_is_sent() -> None:
    driver = Driver(**everything()).live()
    driver.fact("closed", None, driver.now)
    for n in range(20):
        driver.command(3, presence(str(n)), n)
    driver.reconnected()
    assert driver.sent(3) == []
    driver.resumed()
    assert [payload["d"]["activities"][0]["name"] for payload in driver.sent(3)] == ["19"]


@pytest.mark.checklist("D15")
def test_commands_wait_for_ready_and_over_a_resume() -> None:
    driver = Driver(**everything()).start()
    driver.command(4, voice(), "before ready")
    driver.reconnected()
    assert driver.sent(4) == []
    driver.ready()
    assert driver.outcomes() == [("before ready", "sent")]
    driver.fact("closed", None, driver.now)
    driver.command(8, members(), "over a resume")
    driver.reconnected()
    driver.dispatch()
    assert driver.sent(8) == []
    driver.resumed()
    assert driver.outcomes()[-1] == ("over a resume", "sent")


def test_a_command_that_cannot_be_sent_before_its_deadline_expires_at_it() -> None:
    driver = Driver(permits=False, **everything()).start()
    driver.command(4, voice(), "short", lasts=5)
    driver.command(3, presence(), "middle", lasts=6)
    driver.command(8, members(), "long", lasts=100)
    driver.command(4, voice(), "over", lasts=0)
    assert driver.outcomes() == [("over", "expired")]
    driver.advance(4.9)
    assert len(driver.outcomes()) == 1
    driver.advance(0.2)
    assert driver.outcomes()[-1] == ("short", "expired")
    driver.advance(10)
    assert driver.outcomes()[-1] == ("middle", "expired")
    assert driver.conversation.waiting_commands == 1


def test_a_full_queue_refuses_and_a_presence_replaces_all_the_same() -> None:
    driver = Driver(permits=False, settings=options(command_queue=3), chance=Least()).start()
    driver.command(3, presence("a"), "a")
    for n in range(3):
        driver.command(4, voice(), n)
    driver.command(3, presence("b"), "b")
    assert driver.outcomes() == [(2, "queue_full"), ("a", "superseded")]
    assert driver.conversation.waiting_commands == 3


def test_all_shards_share_one_bound_and_give_back_what_they_took() -> None:
    budget = CommandBudget(4)
    shards = [Driver(settings=options(command_budget=budget), chance=Least(), shard=(n, 2)) for n in range(2)]
    for n, driver in enumerate(shards):
        driver.start()
        for handle in range(3):
            driver.command(4, voice(n << 22), handle, lasts=30)
    assert shards[0].outcomes() == []
    assert shards[1].outcomes() == [(1, "queue_full"), (2, "queue_full")]
    assert budget.waiting == 4
    shards[0].reconnected()
    shards[0].ready()
    assert budget.waiting == 1
    shards[1].advance(31)
    assert budget.waiting == 0
    shards[1].command(4, voice(1 << 22))
    shards[1].fact("stop", shards[1].now, end_session=False)
    assert budget.waiting == 0


def test_a_stopped_shard_leaves_its_commands_to_whoever_sent_them() -> None:
    driver = Driver(permits=False).start()
    driver.command(4, voice(), "waits")
    driver.fact("stop", driver.now, end_session=False)
    driver.command(4, voice(), "late")
    driver.advance(1000)
    assert driver.outcomes() == []


def test_kinds_take_turns_and_voice_updates_keep_their_order() -> None:
    driver = Driver(**everything()).start()
    driver.command(8, members(), "members")
    driver.command(3, presence(), "presence")
    for n in range(5):
        driver.command(4, voice(n % 2 << 30, str(n + 1)), n)
    driver.reconnected()
    driver.ready()
    assert [handle for handle, _ in driver.outcomes()] == [0, "presence", "members", 1, 2, 3, 4]
    assert [int(d["d"]["channel_id"]) for d in driver.sent(4)] == [1, 2, 3, 4, 5]


def test_all_members_of_a_guild_are_asked_for_once_in_thirty_seconds_and_others_pass() -> None:
    driver = Driver(**everything())
    log = sent_at(driver)
    driver.live()
    for n in range(3):
        driver.command(8, members(), n, lasts=1000)
    driver.command(8, members(2 << 30), "another guild")
    driver.command(8, {"guild_id": str(1 << 30), "user_ids": ["1"]}, "some members")
    driver.command(31, {"guild_ids": [str(1 << 30)]}, "sounds")
    assert [handle for handle, _ in driver.outcomes()] == [0, "another guild", "some members", "sounds"]
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    driver.resumed()
    assert len(driver.outcomes()) == 4
    driver.advance(100.0)
    assert [handle for handle, _ in driver.outcomes()][4:] == [1, 2]
    whole = [at for at, op in log if op == 8][-2:]
    assert whole[1] - whole[0] > 30.0


@pytest.mark.checklist("D12")
def test_a_rate_limited_guild_is_left_alone_for_the_seconds_that_discord_names() -> None:
    driver = Driver(**everything()).live()
    driver.command(8, members(nonce="n1"), "first")
    limited = {"opcode": 8, "retry_after": 70.5, "meta": {"guild_id": str(1 << 30), "nonce": "n1"}}
    driver.dispatch("RATE_LIMITED", limited)
    # Whoever asked hears of it: the event is forwarded like any other.
    assert driver.names()[-1] == "RATE_LIMITED"
    driver.command(8, members(nonce="n2"), "again", lasts=1000)
    driver.command(8, members(2 << 30), "another guild")
    driver.advance(70.0)
    assert [handle for handle, _ in driver.outcomes()] == ["first", "another guild"]
    driver.advance(1.0)
    assert driver.outcomes()[-1] == ("again", "sent")


@pytest.mark.checklist("K32")
@given(st.floats(min_value=0.05, max_value=300.0))
@settings(deadline=None, max_examples=40)
def test_the_seconds_of_rate_limited_count_whatever_our_own_window_says(named: float) -> None:
    driver = Driver(**everything()).live()
    driver.command(8, members(nonce="n1"), "first")
    limited = {"opcode": 8, "retry_after": named, "meta": {"guild_id": str(1 << 30), "nonce": "n1"}}
    driver.dispatch("RATE_LIMITED", limited)
    driver.command(8, members(nonce="n2"), "again", lasts=1000)
    driver.advance(named * 0.99)
    assert [handle for handle, _ in driver.outcomes()] == ["first"]
    driver.advance(named * 0.01 + 0.001)
    assert driver.outcomes()[-1] == ("again", "sent")


@pytest.mark.checklist("K32")
def test_rate_limited_with_4_25_seconds_means_4_25_seconds() -> None:
    driver = Driver(**everything()).live()
    driver.command(8, members(nonce="n1"), "first")
    driver.dispatch("RATE_LIMITED", {"opcode": 8, "retry_after": 4.25, "meta": {"guild_id": str(1 << 30)}})
    driver.command(8, members(nonce="n2"), "again", lasts=1000)
    driver.advance(4.2)
    assert [handle for handle, _ in driver.outcomes()] == ["first"]
    driver.advance(0.06)
    assert driver.outcomes()[-1] == ("again", "sent")


def test_rate_limited_counts_on_the_connection_after_the_one_that_asked() -> None:
    driver = Driver(**everything()).live()
    driver.command(8, members(nonce="n1"), "first")
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    driver.resumed()
    driver.dispatch("RATE_LIMITED", {"opcode": 8, "retry_after": 50.0, "meta": {"guild_id": str(1 << 30)}})
    driver.command(8, members(nonce="n2"), "again", lasts=1000)
    driver.advance(49.0)
    assert [handle for handle, _ in driver.outcomes()] == ["first"]
    driver.advance(1.1)
    assert driver.outcomes()[-1] == ("again", "sent")


@pytest.mark.checklist("D12")
@pytest.mark.parametrize(
    "d",
    [
        {},
        {"opcode": 8},
        {"opcode": 8, "retry_after": "x", "meta": {}},
        {"opcode": 8, "retry_after": 5, "meta": {}},
    ],
)
def test_an_odd_rate_limited_is_only_forwarded(d: dict[str, Any]) -> None:
    driver = Driver(**everything()).live()
    driver.command(8, members(), "first")
    driver.dispatch("RATE_LIMITED", d)
    driver.dispatch()
    assert driver.names() == ["READY", "RATE_LIMITED", "MESSAGE_CREATE"]


@pytest.mark.checklist("D14")
def test_chunks_are_forwarded_in_any_order_and_after_a_resume_too() -> None:
    # Counting them is the worker's: the gateway drops, joins and reorders none.
    driver = Driver(**everything()).live()
    driver.command(8, members(nonce="n"), "asked")
    for index in (2, 0):
        driver.dispatch("GUILD_MEMBERS_CHUNK", {"chunk_index": index, "chunk_count": 3, "nonce": "n"})
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    driver.dispatch("GUILD_MEMBERS_CHUNK", {"chunk_index": 1, "chunk_count": 3, "nonce": "n"})
    driver.resumed()
    chunks = [
        json.loads(bytes(e.d))["chunk_index"] for e, _, _ in driver.delivered if e.t == "GUILD_MEMBERS_CHUNK"
    ]
    assert chunks == [2, 0, 1]


def test_after_a_close_for_sending_too_quickly_nothing_is_sent_for_a_minute_but_heartbeats() -> None:
    driver = Driver(**everything()).live()
    for n in range(150):
        driver.command(4, voice(), n, lasts=1000)
    assert len(driver.sent(4)) == 94
    driver.fact("closed", 4008, driver.now)
    driver.reconnected()
    driver.resumed()
    driver.advance(60.0)
    assert len(driver.sent(4)) == 94
    driver.advance(2.0)
    assert len(driver.sent(4)) == 150
    assert len(driver.sent(1)) >= 2


def test_a_new_connection_starts_with_an_empty_window_but_for_its_own_handshake() -> None:
    driver = Driver(**everything()).live()
    for n in range(94):
        driver.command(4, voice(), n)
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    driver.resumed()
    for n in range(94):
        driver.command(4, voice(), n)
    assert len(driver.sent(4)) == 188
    assert len(driver.sent(6)) == 1


def test_a_short_interval_keeps_its_own_room_free() -> None:
    driver = Driver(**everything())
    log = sent_at(driver)
    driver.start()
    driver.open()
    driver.hello(1000)
    driver.ready()
    for n in range(300):
        driver.command(4, voice(), n, lasts=1000)
    driver.advance(400.0)
    assert len(driver.sent(4)) == 300
    assert len(driver.sent(1)) >= 399
    assert most_within([at for at, _ in log], 60.0) <= 120


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
    st.integers(1, 9),
    st.floats(0.5, 100),
    st.integers(0, 8),
)
def test_a_sliding_log_is_free_when_it_says_so(
    times: list[float], limit: int, window: float, reserve: int
) -> None:
    log, recorded = SlidingLog(limit, window), list[float]()
    reserve = min(reserve, limit - 1)
    for now in sorted(times):
        if log.left(now) > reserve:
            log.record(now)
            recorded.append(now)
        at = log.free_at(now, reserve)
        assert at >= now
        later = SlidingLog(limit, window)
        for then in recorded:
            later.record(then)
        assert later.left(at) > reserve


kinds = st.sampled_from(
    ["voice", "presence", "members", "some", "ask", "ack", "dispatch", "cut", "resume", "4008", "wait"]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(kinds, st.integers(1, 130), st.floats(0, 40)), min_size=1, max_size=25))
@pytest.mark.checklist("D1", "D3")
def test_no_pattern_of_commands_exceeds_any_window(pattern: list[tuple[str, int, float]]) -> None:
    """120 in 60 s on each connection, 5 presences in 20 s and one whole guild in 30 s on all of them."""
    driver = Driver(**everything())
    log = sent_at(driver)
    driver.live()
    connections: list[list[float]] = []
    for kind, times, wait in pattern:
        for n in range(times):
            if kind == "voice":
                driver.command(4, voice(n % 3 << 30))
            elif kind == "presence":
                driver.command(3, presence(str(n)))
            elif kind == "members":
                driver.command(8, members(n % 3 << 30))
            elif kind == "some":
                driver.command(8, {"guild_id": str(1 << 30), "user_ids": [str(n)]})
            elif kind == "ask":
                driver.say({"op": 1})
            elif kind == "ack":
                driver.say({"op": 11})
            elif kind == "dispatch":
                driver.dispatch()
        if kind in ("cut", "4008", "resume"):
            driver.fact("closed", 4008 if kind == "4008" else None, driver.now)
            connections.append([at for at, _ in log][sum(map(len, connections)) :])
            driver.reconnected()
            driver.resumed()
        driver.advance(wait)
        if driver.state() is not State.LIVE:
            driver.reconnected()
            driver.resumed()
    connections.append([at for at, _ in log][sum(map(len, connections)) :])
    assert all(most_within(times, 60.0) <= 120 for times in connections)
    assert most_within([at for at, op in log if op == 3], 20.0) <= 5
    guilds: dict[str, list[float]] = {}
    for (at, op), payload in zip(log, driver.sent(), strict=True):
        if op == 8 and "query" in payload["d"]:
            guilds.setdefault(payload["d"]["guild_id"], []).append(at)
    assert all(most_within(times, 30.0) <= 1 for times in guilds.values())
    assert len(driver.outcomes()) + driver.conversation.waiting_commands == sum(
        times for kind, times, _ in pattern if kind in ("voice", "presence", "members", "some")
    )


@pytest.mark.checklist("K22")
def test_450_voice_updates_of_one_worker_hold_up_nobody_elses_presence_and_requests() -> None:
    driver = Driver(settings=options(intents=53608447, command_queue=500), chance=Least()).live()
    for n in range(450):
        driver.command(4, voice(n % 3 << 30, str(n + 1)), n, lasts=1000)
    for n in range(3):
        driver.advance(10.0)
        driver.command(8, members(nonce=str(n)) | {"query": "a", "limit": 1}, f"members {n}", lasts=60)
        driver.command(3, presence(str(n)), f"presence {n}", lasts=60)
        driver.command(31, {"guild_ids": [str(1 << 30)]}, f"sounds {n}", lasts=60)
        done = dict(driver.outcomes())
        assert [done.get(f"{kind} {n}") for kind in ("members", "presence", "sounds")] == ["sent"] * 3
    driver.advance(400.0)
    assert [int(payload["d"]["channel_id"]) for payload in driver.sent(4)] == list(range(1, 451))


@pytest.mark.checklist("K22")
def test_a_full_queue_of_one_kind_has_room_for_the_others() -> None:
    budget = CommandBudget(150)
    given = options(intents=53608447, command_queue=100, command_budget=budget)
    shards = [Driver(permits=False, settings=given, chance=Least(), shard=(n, 2)).start() for n in range(2)]
    for shard, driver in enumerate(shards):
        for n in range(200):
            driver.command(4, voice(shard << 22), n)
    waiting = [driver.conversation.waiting_commands for driver in shards]
    assert waiting[0] < 100 and sum(waiting) < 150
    for shard, driver in enumerate(shards):
        driver.command(8, members(shard << 22), "members")
        driver.command(3, presence(), "presence")
        driver.command(31, {"guild_ids": [str(shard << 22)]}, "sounds")
        assert {handle for handle, _ in driver.outcomes()}.isdisjoint({"members", "presence", "sounds"})
        assert driver.outcomes()[-1][1] == "queue_full"
    for driver in shards:
        driver.fact("stop", driver.now, end_session=False)
    assert budget.waiting == 0


of_kinds: dict[str, Callable[[int], tuple[int, dict[str, Any]]]] = {
    "voice": lambda n: (4, voice(n % 5 << 30, str(n + 1))),
    "members": lambda n: (8, {"guild_id": str(n % 5 << 30), "user_ids": [str(n)]}),
    "others": lambda n: (31, {"guild_ids": [str(n % 5 << 30)]}),
    "presence": lambda n: (3, presence(str(n))),
}


@pytest.mark.checklist("K22")
@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["voice", "members", "others"]),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 400)), min_size=1, max_size=8),
    st.sampled_from([1000, 10_000, INTERVAL_MS]),
)
def test_however_one_kind_floods_the_share_of_the_others_goes_out_at_once(
    flood: str, bursts: list[tuple[float, int]], interval_ms: int
) -> None:
    driver = Driver(settings=options(intents=53608447, command_queue=1000), chance=Least())
    log = sent_at(driver)
    driver.start()
    driver.open()
    driver.hello(interval_ms)
    driver.ready()
    sent = 0
    last = dict.fromkeys(of_kinds, -1000.0)
    for wait, burst in bursts:
        for _ in range(burst):
            op, d = of_kinds[flood](sent)
            driver.command(op, d, sent, lasts=1000)
            sent += 1
        for kind, make in of_kinds.items():
            # One a minute: the least share of any kind, however short the interval of heartbeats.
            if kind != flood and driver.now - last[kind] > 61.0:
                last[kind] = driver.now
                op, d = make(sent)
                driver.command(op, d, f"{kind} {driver.now}", lasts=1.0)
                assert driver.outcomes()[-1] == (f"{kind} {driver.now}", "sent")
        driver.advance(wait)
    assert most_within([at for at, _ in log], 60.0) <= 120
    order = [payload["d"]["channel_id"] for payload in driver.sent(4) if flood == "voice"]
    assert order == sorted(order, key=int)


def test_a_resume_while_commands_wait_sends_them_after_resumed_only() -> None:
    driver = Driver(stored(), **everything()).start()
    driver.command(4, voice(), "waits")
    driver.reconnected()
    driver.dispatch()
    assert driver.sent(4) == []
    driver.resumed()
    assert [payload["op"] for payload in driver.sent()] == [6, 4]
