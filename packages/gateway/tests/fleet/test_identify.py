"""Who may identify, and when: buckets, the day's budget, crash loops, restarts."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.fleet.identify import Alert, Budget, Granted, IdentifyGovernor, Ledger, Moment, Refusal, beside

DAY_MS = 86_400_000


def a_budget(total: int = 1000, remaining: int | None = None, reset_ms: int = DAY_MS, mc: int = 1) -> Budget:
    return Budget(total, total if remaining is None else remaining, reset_ms, mc)


def a_governor(shards: int = 3, *, budget: Budget | None = None, crash_loop: int = 10) -> IdentifyGovernor:
    governor = IdentifyGovernor(shards=range(shards), crash_loop=crash_loop)
    governor.budget(budget or a_budget(), 0.0)
    return governor


def granted(governor: IdentifyGovernor, now: float) -> list[int]:
    return [item.shard_id for item in governor.decide(now) if isinstance(item, Granted)]


def refused(governor: IdentifyGovernor, now: float) -> dict[int, Refusal]:
    return dict(item for item in governor.decide(now) if not isinstance(item, Granted))


def identify(governor: IdentifyGovernor, shard_id: int, now: float, *, lost: bool = False) -> bool:
    """One identify with READY at once; whether it was granted."""
    governor.request(shard_id, lost, now)
    if granted(governor, now) != [shard_id]:
        governor.withdraw(shard_id)
        return False
    governor.spent(shard_id, now)
    governor.finished(shard_id, "ready", now)
    return True


@pytest.mark.checklist("D5")
def test_three_shards_in_one_bucket_start_5_25_seconds_apart() -> None:
    governor = a_governor()
    for shard_id in (2, 0, 1):
        governor.request(shard_id, False, 0.0)
    for turn, shard_id in enumerate((0, 1, 2)):
        now = turn * 5.25
        if turn:
            assert granted(governor, now - 0.01) == []
            assert governor.wake_at(now - 0.01) == pytest.approx(now)
        assert granted(governor, now) == [shard_id]
        governor.spent(shard_id, now)
        governor.finished(shard_id, "ready", now + 0.5)


@pytest.mark.checklist("D5", "K26")
def test_a_ready_that_is_still_out_holds_its_bucket_until_it_comes() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    governor.request(1, False, 0.0)
    assert granted(governor, 0.0) == [0]
    governor.spent(0, 0.0)
    assert granted(governor, 9.0) == []
    governor.finished(0, "ready", 9.0)
    assert granted(governor, 9.0) == [1]


@pytest.mark.checklist("K26")
@given(
    st.integers(min_value=2, max_value=40),
    st.sampled_from([1, 2, 16]),
    st.sets(st.integers(min_value=0, max_value=39), max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_shards_whose_ready_never_comes_hold_their_buckets_for_15_seconds_each(
    shards: int, concurrency: int, mute: set[int]
) -> None:
    governor = a_governor(shards, budget=a_budget(mc=concurrency))
    for shard_id in range(shards):
        governor.request(shard_id, False, 0.0)
    now = 0.0
    at: dict[int, float] = {}
    while governor.waiting:
        for shard_id in granted(governor, now):
            at[shard_id] = now
            governor.spent(shard_id, now)
            if shard_id not in mute:
                governor.finished(shard_id, "ready", now + 0.3)
        woken = governor.wake_at(now)
        assert woken is not None or not governor.waiting
        now = now if woken is None else woken
    for bucket in range(concurrency):
        mine = sorted((when, shard) for shard, when in at.items() if shard % concurrency == bucket)
        waits = [15.0 if shard in mute else 5.25 for _, shard in mine]
        for (earlier, _), (later, _), wait in zip(mine, mine[1:], waits, strict=False):
            assert later - earlier == pytest.approx(wait)


@pytest.mark.checklist("K26")
def test_one_shard_without_ready_delays_the_next_of_the_only_bucket_by_15_seconds_not_600() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    governor.request(1, False, 0.0)
    assert granted(governor, 0.0) == [0]
    governor.spent(0, 0.0)
    assert granted(governor, 14.9) == []
    assert governor.wake_at(14.9) == pytest.approx(15.0)
    assert granted(governor, 15.0) == [1]


# A fault that many shards meet


def meet(
    governor: IdentifyGovernor,
    shards: int,
    outcome: str,
    until: float,
    *,
    begin: float = 0.0,
    lives: float = 0.0,
) -> list[float]:
    """Shards that identify, fail and ask again 10 s later, until then. When identifies were sent."""
    ask_at = dict.fromkeys(range(shards), begin)
    made: list[float] = []
    now = begin
    while now < until:
        for shard_id in [shard for shard, at in ask_at.items() if at <= now]:
            governor.request(shard_id, True, now)
            del ask_at[shard_id]
        if governor.needs_budget(now):
            governor.budget(
                a_budget(10_000, remaining=10_000 - len(made), mc=governor.max_concurrency or 1), now
            )
        for decision in governor.decide(now):
            assert isinstance(decision, Granted), decision
            made.append(now)
            governor.spent(decision.shard_id, now)
            governor.finished(decision.shard_id, outcome, now)  # type: ignore[arg-type]
            ask_at[decision.shard_id] = now + 10.0 + lives
        woken = governor.wake_at(now)
        now = min([*ask_at.values(), *([] if woken is None else [max(woken, now + 0.01)])])
    return made


@pytest.mark.checklist("K24")
@given(
    st.integers(min_value=1, max_value=24),
    st.sampled_from(["invalid", "closed", "timeout"]),
    st.floats(min_value=600.0, max_value=20_000.0),
)
@settings(max_examples=15, deadline=None)
def test_many_shards_that_fail_alike_are_never_stopped_and_one_ready_forgives_all(
    shards: int, outcome: str, lasts: float
) -> None:
    governor = a_governor(shards, budget=a_budget(10_000, mc=shards))
    made = meet(governor, shards, outcome, lasts)
    fault = governor.fault
    assert fault is not None
    assert fault.shards == shards
    assert fault.outcomes == {outcome: shards}
    # Whoever failed tries in turns: after what was needed to tell, a tenth of the fault's age apart at most.
    pause = max(16.0, 0.1 * lasts + 11.0)
    assert max(later - earlier for earlier, later in pairwise([*made, lasts])) <= pause
    assert len(made) <= 10 * shards + 60 + lasts / 600
    # Discord is well: the next try gets READY, and all others follow at once.
    now, ready = lasts, 0
    for shard_id in range(shards):
        governor.request(shard_id, True, now)
    while governor.waiting:
        for shard_id in granted(governor, now):
            governor.spent(shard_id, now)
            governor.finished(shard_id, "ready", now)
            ready += 1
        if governor.needs_budget(now):
            governor.budget(a_budget(10_000, mc=shards), now)
        now = max(now, governor.wake_at(now) or now)
    assert governor.fault is None
    assert ready == shards
    assert now <= lasts + pause


@pytest.mark.checklist("K24")
def test_op_9_to_every_identify_for_20_minutes_stops_no_shard_for_hours() -> None:
    governor = a_governor(8, budget=a_budget(mc=1))
    made = meet(governor, 8, "invalid", 1200.0)
    assert len(made) < 120
    assert governor.snapshot(boot(1200.0, 1200.0)).stopped == {}
    assert governor.fault is not None
    for shard_id in range(8):
        governor.request(shard_id, True, 1330.0)
    assert len(granted(governor, 1330.0)) == 1


@pytest.mark.checklist("K24")
def test_readys_that_do_not_last_are_tried_slowly_until_one_lasts() -> None:
    governor = a_governor(4, budget=a_budget(10_000, mc=4))
    made = meet(governor, 4, "ready", 7200.0, lives=5.0)
    assert governor.fault is not None
    assert set(governor.fault.outcomes) == {"lost"}
    assert len(made) < 150, "a tenth of the fault's age apart, twice"
    governor.request(0, True, 8000.0)
    assert granted(governor, 8000.0) == [0]
    governor.spent(0, 8000.0)
    governor.finished(0, "ready", 8001.0)
    governor.request(1, True, 8002.0)
    assert granted(governor, 8002.0) == [], "it may die as well"
    assert governor.wake_at(8002.0) == pytest.approx(8061.0)
    assert 1 in granted(governor, 8061.0)
    assert governor.fault is None


@pytest.mark.checklist("K24", "B19")
def test_a_shard_that_fails_alone_is_stopped_however_well_the_others_are() -> None:
    governor = a_governor(16, budget=a_budget(mc=16))
    for shard_id in range(1, 16):
        assert identify(governor, shard_id, 0.0)
    now = 100.0
    for _ in range(10):
        governor.request(0, True, now)
        assert granted(governor, now) == [0]
        governor.spent(0, now)
        governor.finished(0, "invalid", now + 1)
        now += 30.0
    governor.request(0, True, now)
    assert refused(governor, now)[0].kind == "crash_loop"
    assert governor.fault is None


@pytest.mark.checklist("K24")
def test_three_sick_shards_of_a_thousand_hold_no_healthy_one_back() -> None:
    governor = a_governor(1000, budget=a_budget(10_000, mc=16))
    now = 0.0
    for _ in range(3):
        for shard_id in (16, 33, 50):
            governor.request(shard_id, True, now)
            for chosen in granted(governor, now):
                governor.spent(chosen, now)
                governor.finished(chosen, "closed", now)
            governor.withdraw(shard_id)
        now += 700.0
    assert governor.fault is not None
    governor.request(7, True, now)
    assert granted(governor, now) == [7]


@pytest.mark.checklist("K24")
def test_a_restart_in_the_middle_of_a_common_fault_goes_on_with_it() -> None:
    governor = a_governor(4, budget=a_budget(10_000, mc=4))
    meet(governor, 4, "invalid", 1200.0)
    again = IdentifyGovernor(shards=range(4))
    again.restore(governor.snapshot(boot(1200.0, 1200.0)), boot(1201.0, 1201.0))
    again.budget(a_budget(10_000, mc=4), 1201.0)
    assert again.fault is not None
    meet(again, 4, "invalid", 3000.0, begin=1201.0)
    assert again.snapshot(boot(3000.0, 3000.0)).stopped == {}


@pytest.mark.checklist("D6")
def test_shards_0_and_16_share_a_bucket_of_sixteen_and_1_and_17_too() -> None:
    governor = a_governor(32, budget=a_budget(mc=16))
    for shard_id in (0, 16, 1, 17):
        governor.request(shard_id, False, 0.0)
    assert granted(governor, 0.0) == [0, 1]
    for shard_id in (0, 1):
        governor.spent(shard_id, 0.0)
        governor.finished(shard_id, "ready", 0.1)
    assert granted(governor, 5.2) == []
    assert granted(governor, 5.25) == [16, 17]


@given(st.integers(min_value=1, max_value=200), st.sampled_from([1, 2, 16, 64]))
@settings(max_examples=60, deadline=None)
def test_n_shards_with_concurrency_c_start_in_as_many_rounds_as_they_need(
    shards: int, concurrency: int
) -> None:
    governor = a_governor(shards, budget=a_budget(mc=concurrency))
    for shard_id in range(shards):
        governor.request(shard_id, False, 0.0)
    now, last, started = 0.0, 0.0, 0
    while governor.waiting:
        for shard_id in granted(governor, now):
            governor.spent(shard_id, now)
            governor.finished(shard_id, "ready", now + 0.3)
            last, started = now, started + 1
        now = governor.wake_at(now) or now
    assert started == shards
    assert last == pytest.approx((math.ceil(shards / concurrency) - 1) * 5.25)


def test_a_lost_session_goes_before_a_new_start() -> None:
    governor = a_governor(8)
    for shard_id in range(4):
        governor.request(shard_id, False, 0.0)
    governor.request(7, True, 0.0)
    assert granted(governor, 0.0) == [7]


def test_a_permit_that_is_given_back_is_not_counted_and_frees_its_bucket() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    governor.request(1, False, 0.0)
    assert granted(governor, 0.0) == [0]
    assert governor.available(0.0) == 999
    governor.finished(0, "unused", 1.0)
    assert governor.available(1.0) == 1000
    assert granted(governor, 1.0) == [1]


def test_a_shard_that_withdraws_leaves_nothing_behind() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    governor.withdraw(0)
    assert governor.decide(0.0) == []
    assert governor.wake_at(0.0) is None


def test_a_dead_process_permit_counts_as_spent_just_then() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    assert granted(governor, 0.0) == [0]
    governor.spent(0, 3.0)
    governor.finished(0, "closed", 3.0)
    governor.request(1, False, 3.0)
    assert governor.available(3.0) == 999
    assert granted(governor, 8.2) == []
    assert granted(governor, 8.25) == [1]


def test_a_changed_max_concurrency_keeps_the_holds_and_the_spacing() -> None:
    governor = a_governor(32, budget=a_budget(mc=16))
    for shard_id in range(16):
        governor.request(shard_id, False, 0.0)
    for shard_id in granted(governor, 0.0):
        governor.spent(shard_id, 0.0)
        if shard_id != 3:
            governor.finished(shard_id, "ready", 0.2)
    governor.budget(a_budget(remaining=984, mc=2), 1.0)
    for shard_id in (16, 17):
        governor.request(shard_id, False, 1.0)
    assert granted(governor, 5.0) == []
    # Shard 3 still waits for its READY, and is in bucket 1 now.
    assert granted(governor, 5.25) == [16]
    governor.finished(3, "ready", 6.0)
    assert granted(governor, 6.0) == [17]


def test_who_waits_for_no_permit_can_ask_for_the_budget_once() -> None:
    governor = IdentifyGovernor(shards=range(3))
    assert not governor.needs_budget(0.0), "nobody waits"
    governor.want_budget()
    assert governor.needs_budget(0.0)
    governor.budget(a_budget(), 1.0)
    assert not governor.needs_budget(2.0)


@pytest.mark.checklist("D9")
def test_an_empty_budget_waits_reset_after_milliseconds_and_asks_again() -> None:
    governor = a_governor(budget=a_budget(remaining=0, reset_ms=90_000))
    governor.request(0, True, 0.0)
    refusal = refused(governor, 0.0)[0]
    assert refusal.kind == "budget"
    assert refusal.until == pytest.approx(95.0)
    governor.request(0, True, 95.0)
    assert governor.needs_budget(95.0)
    assert governor.decide(95.0) == [], "nobody is granted or refused on a budget that is out of date"
    governor.budget(a_budget(), 96.0)
    assert granted(governor, 96.0) == [0]


@pytest.mark.checklist("D9")
def test_a_reset_time_of_zero_is_not_a_reason_to_ask_without_pause() -> None:
    governor = a_governor(budget=a_budget(reset_ms=0))
    governor.request(0, False, 1.0)
    assert not governor.needs_budget(1.0)
    assert granted(governor, 1.0) == [0]


def test_below_the_reserve_only_lost_sessions_identify() -> None:
    governor = a_governor(16, budget=a_budget(remaining=51))
    governor.request(3, False, 0.0)
    assert granted(governor, 0.0) == [3]
    governor.spent(3, 0.0)
    governor.finished(3, "closed", 0.1)
    governor.request(3, False, 10.0)
    assert refused(governor, 10.0)[3].kind == "budget"
    governor.request(3, True, 10.0)
    assert granted(governor, 10.0) == [3]


@pytest.mark.parametrize(("shards", "remaining"), [(900, 1000), (900, 950), (1000, 1000), (40, 45)])
def test_the_first_start_of_all_shards_may_use_the_reserve_when_it_suffices(
    shards: int, remaining: int
) -> None:
    governor = a_governor(shards, budget=a_budget(remaining=remaining, mc=64))
    started, now = 0, 0.0
    for shard_id in range(shards):
        governor.request(shard_id, False, now)
    while governor.waiting:
        if governor.needs_budget(now):
            governor.budget(a_budget(remaining=remaining - started, mc=64), now)
        for decision in governor.decide(now):
            assert isinstance(decision, Granted), decision
            governor.spent(decision.shard_id, now)
            governor.finished(decision.shard_id, "ready", now)
            started += 1
        now = governor.wake_at(now) or now
    assert started == shards


def test_a_first_start_that_does_not_fit_stops_at_the_reserve() -> None:
    governor = a_governor(500, budget=a_budget(remaining=499, mc=500))
    for shard_id in range(500):
        governor.request(shard_id, False, 0.0)
    decisions = governor.decide(0.0)
    assert governor.reserve == 500
    assert [item for item in decisions if isinstance(item, Granted)] == []
    assert all(refusal.kind == "budget" for _, refusal in decisions if isinstance(refusal, Refusal))  # type: ignore[misc]


def test_lost_sessions_leave_the_last_hundredth_to_a_person() -> None:
    governor = a_governor(4, budget=a_budget(remaining=12, mc=4))
    used = 0
    for turn in range(20):
        now = turn * 120.0
        governor.budget(a_budget(remaining=12 - used, mc=4), now)
        used += identify(governor, turn % 4, now, lost=True)
    assert used == 2


def test_half_and_four_fifths_of_the_budget_are_told_once_each() -> None:
    governor = a_governor(4, budget=a_budget(total=100, mc=4), crash_loop=0)
    told: list[Alert] = []
    for turn in range(85):
        identify(governor, turn % 4, turn * 120.0, lost=True)
        told += governor.alerts
        governor.alerts.clear()
    assert [(alert.percent, alert.used) for alert in told] == [(50, 50), (80, 80)]


@pytest.mark.checklist("B19", "D10")
def test_a_shard_that_crash_loops_is_stopped_while_the_others_go_on() -> None:
    governor = a_governor(4, budget=a_budget(mc=4))
    now = 0.0
    for _ in range(10):
        governor.request(1, True, now)
        assert granted(governor, now) == [1]
        governor.spent(1, now)
        governor.finished(1, "closed", now + 1)
        now += 30.0
    governor.request(1, True, now)
    refusal = refused(governor, now)[1]
    assert refusal.kind == "crash_loop"
    assert refusal.until is not None and refusal.until > now + 3600
    assert identify(governor, 2, now, lost=True)
    # Afterwards there is one try, not a new series of them.
    now = refusal.until
    governor.budget(a_budget(mc=4), now)
    governor.request(1, True, now)
    assert granted(governor, now) == [1]
    governor.spent(1, now)
    governor.finished(1, "timeout", now + 1)
    governor.request(1, True, now + 60)
    assert refused(governor, now + 60)[1].kind == "crash_loop"
    governor.restart(1)
    governor.request(1, True, now + 60)
    assert granted(governor, now + 60) == [1]


@pytest.mark.checklist("B19")
def test_ready_and_dead_within_a_minute_is_a_crash_loop_too() -> None:
    governor = a_governor(2, crash_loop=3)
    for turn in range(4):
        governor.request(0, True, turn * 20.0)
        if turn < 3:
            assert granted(governor, turn * 20.0) == [0]
            governor.spent(0, turn * 20.0)
            governor.finished(0, "ready", turn * 20.0 + 1)
    assert refused(governor, 60.0)[0].kind == "crash_loop"


def test_a_shard_that_lived_for_a_minute_is_forgiven() -> None:
    governor = a_governor(2, crash_loop=2)
    for turn in range(12):
        assert identify(governor, 0, turn * 61.0, lost=True)


def test_a_shard_of_a_foreign_bucket_is_refused_with_the_setting_named() -> None:
    governor = IdentifyGovernor(shards=range(8), buckets=frozenset({0, 1}))
    governor.budget(a_budget(mc=4), 0.0)
    for shard_id in (0, 2, 5):
        governor.request(shard_id, False, 0.0)
    decisions = governor.decide(0.0)
    assert [item.shard_id for item in decisions if isinstance(item, Granted)] == [0, 5]
    assert "IDENTIFY_BUCKETS" in str(decisions)


@pytest.mark.checklist("D7")
@given(st.lists(st.integers(min_value=0, max_value=63), min_size=1, max_size=80))
@settings(deadline=None)
def test_gateways_with_disjoint_buckets_never_meet_in_one(shards: list[int]) -> None:
    halves = [frozenset(range(8)), frozenset(range(8, 16))]
    governors = [IdentifyGovernor(shards=range(64), buckets=half) for half in halves]
    last: dict[int, float] = {}
    now = 0.0
    for governor in governors:
        governor.budget(a_budget(mc=16), now)
    for shard_id in shards:
        for governor in governors:
            governor.request(shard_id, False, now)
            for chosen in granted(governor, now):
                assert now - last.get(chosen % 16, -9.0) >= 5.0
                last[chosen % 16] = now
                governor.spent(chosen, now)
                governor.finished(chosen, "ready", now)
            governor.withdraw(shard_id)
        now += 1.3


# Restarts


def boot(monotonic: float, wall: float, name: str = "one") -> Moment:
    return Moment(monotonic, wall, name)


@pytest.mark.checklist("D11")
def test_a_restart_does_not_free_a_bucket() -> None:
    governor = a_governor()
    identify(governor, 0, 100.0)
    ledger = governor.snapshot(boot(100.0, 5_000.0))
    again = IdentifyGovernor(shards=range(3))
    again.restore(ledger, boot(102.0, 5_002.0))
    again.budget(a_budget(), 102.0)
    again.request(1, False, 102.0)
    assert granted(again, 105.3) == []
    assert granted(again, 106.25) == [1], "5.25 s after the identify, and what the ledger may lag behind"


@pytest.mark.checklist("D11")
@pytest.mark.parametrize("jump", [-1e9, -3600.0, -3.0, 0.0, 2.0, 3600.0, 1e9])
def test_a_jump_of_the_wall_clock_within_one_boot_changes_nothing(jump: float) -> None:
    governor = a_governor()
    identify(governor, 0, 100.0)
    again = IdentifyGovernor(shards=range(3))
    again.restore(governor.snapshot(boot(100.0, 5_000.0)), boot(102.0, 5_002.0 + jump))
    again.budget(a_budget(), 102.0)
    again.request(1, False, 102.0)
    assert granted(again, 105.24) == []
    assert granted(again, 106.25) == [1]
    assert again.available(107.0) == 998


@pytest.mark.parametrize("jump", [-1e9, -30.0])
def test_a_wall_clock_that_went_back_over_a_reboot_waits_the_whole_time(jump: float) -> None:
    governor = a_governor()
    identify(governor, 0, 100.0)
    again = IdentifyGovernor(shards=range(3))
    again.restore(governor.snapshot(boot(100.0, 5_000.0)), boot(7.0, 5_000.0 + jump, "two"))
    again.budget(a_budget(), 7.0)
    again.request(1, False, 7.0)
    assert granted(again, 12.2) == []
    assert granted(again, 13.25) == [1], "never for ever"


@pytest.mark.checklist("D11")
def test_a_supervisor_that_restarts_every_minute_cannot_run_the_budget_dry() -> None:
    ledger: Ledger | None = None
    used = 0
    for minute in range(24 * 60):
        now = minute * 60.0
        governor = IdentifyGovernor(shards=range(16))
        if ledger is not None:
            governor.restore(ledger, boot(now, now))
        # Discord's figure is of no help here: it counts only what succeeded, say.
        governor.budget(a_budget(mc=16), now)
        for shard_id in range(16):
            governor.request(shard_id, False, now)
        for shard_id in granted(governor, now):
            governor.spent(shard_id, now)
            used += 1
        ledger = governor.snapshot(boot(now, now))
    assert used <= 950


def test_a_crash_loop_outlives_the_process() -> None:
    governor = a_governor(crash_loop=2)
    for turn in range(2):
        governor.request(0, True, turn * 10.0)
        assert granted(governor, turn * 10.0) == [0]
        governor.spent(0, turn * 10.0)
        governor.finished(0, "closed", turn * 10.0 + 1)
    again = IdentifyGovernor(shards=range(3), crash_loop=2)
    again.restore(governor.snapshot(boot(20.0, 20.0)), boot(25.0, 25.0))
    again.budget(a_budget(), 25.0)
    again.request(0, True, 25.0)
    assert refused(again, 25.0)[0].kind == "crash_loop"


def test_moving_the_time_of_a_spend_counts_it_once() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    assert granted(governor, 0.0) == [0]
    governor.spent(0, 0.0)
    governor.spent(0, 2.0)
    assert governor.available(2.0) == 999
    governor.finished(0, "ready", 2.5)
    governor.request(1, False, 2.5)
    assert granted(governor, 7.2) == []
    assert granted(governor, 7.25) == [1]


def test_reading_the_budget_changes_nothing() -> None:
    governor = a_governor()
    governor.request(0, False, 0.0)
    assert granted(governor, 0.0) == [0]
    governor.spent(0, 0.0)
    governor.finished(0, "ready", 1.0)
    governor.budget(a_budget(), 1.0)
    # A look from a later time, and from an earlier one again: the identify counts as it did.
    assert governor.available(90_000.0) == 1000
    assert governor.available(1.0) == 999
    assert governor.snapshot(boot(1.0, 1.0)).spends == [(0, 1.0)]


# The whole, against a judge


FAULTS = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=23),
        st.booleans(),
        st.floats(min_value=0.0, max_value=400.0),
        st.sampled_from(["ready", "invalid", "closed", "timeout", "unused", "silent"]),
    ),
    max_size=120,
)


@pytest.mark.checklist("D5", "D10", "D11")
@given(
    FAULTS,
    st.sampled_from([1, 3, 16]),
    st.integers(min_value=1, max_value=60),
    st.sets(st.integers(min_value=0, max_value=119), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_no_schedule_of_failures_and_restarts_breaks_a_bucket_or_the_budget(
    faults: list[tuple[int, bool, float, str]], concurrency: int, total: int, restarts: set[int]
) -> None:
    governor = a_governor(24, budget=a_budget(total=total, mc=concurrency))
    arrivals: list[tuple[float, int]] = []
    now = 0.0
    for turn, (shard_id, lost, pause, outcome) in enumerate(faults):
        if turn in restarts:
            ledger = governor.snapshot(boot(now, now))
            governor = IdentifyGovernor(shards=range(24))
            governor.restore(ledger, boot(now, now))
            governor.budget(a_budget(total=total, remaining=total - len(arrivals), mc=concurrency), now)
        if governor.needs_budget(now):
            governor.budget(a_budget(total=total, remaining=total - len(arrivals), mc=concurrency), now)
        governor.request(shard_id, lost, now)
        for chosen in granted(governor, now):
            if outcome != "unused":
                governor.spent(chosen, now)
                arrivals.append((now, chosen))
            if outcome != "silent":
                governor.finished(chosen, outcome, now)  # type: ignore[arg-type]
        now += pause
    assert len(arrivals) <= total
    for bucket in range(concurrency):
        times = [at for at, shard in arrivals if shard % concurrency == bucket]
        assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))


@given(FAULTS)
@settings(max_examples=60, deadline=None)
def test_a_ledger_says_the_same_after_a_round_trip(faults: list[tuple[int, bool, float, str]]) -> None:
    governor = a_governor(24, budget=a_budget(mc=16))
    now = 0.0
    for shard_id, lost, pause, outcome in faults:
        governor.request(shard_id, lost, now)
        for chosen in granted(governor, now):
            governor.spent(chosen, now)
            if outcome != "silent":
                governor.finished(chosen, outcome, now)  # type: ignore[arg-type]
        now += pause
    ledger = governor.snapshot(boot(now, now))
    again = IdentifyGovernor(shards=range(24))
    again.restore(ledger, boot(now, now))
    copy = again.snapshot(boot(now, now))
    assert [shard for shard, _ in copy.spends] == [shard for shard, _ in ledger.spends]
    assert all(new <= old for (_, new), (_, old) in zip(copy.spends, ledger.spends, strict=True))
    assert replace(copy, spends=[]) == replace(ledger, spends=[])


@pytest.mark.checklist("D10", "B19")
@pytest.mark.parametrize("outcome", ["closed", "ready"])
def test_a_network_that_flaps_for_a_day_uses_a_fraction_of_the_budget(outcome: str) -> None:
    governor = a_governor(16, budget=a_budget(mc=16))
    ask_at = dict.fromkeys(range(16), 0.0)
    used, now = 0, 0.0
    while now < 86_400:
        now = min(ask_at.values())
        governor.budget(a_budget(remaining=1000 - used, mc=16), now)
        shard_id = min(ask_at, key=lambda shard: ask_at[shard])
        governor.request(shard_id, True, now)
        for decision in governor.decide(now):
            if isinstance(decision, Granted):
                used += 1
                governor.spent(decision.shard_id, now)
                governor.finished(decision.shard_id, outcome, now + 1)  # type: ignore[arg-type]
                # Dead five seconds later, and asking again at once: a session without any back-off of its own.
                ask_at[decision.shard_id] = now + 6
            else:
                assert decision[1].until is not None
                ask_at[decision[0]] = decision[1].until
        if governor.waiting:
            governor.withdraw(shard_id)
            ask_at[shard_id] = now + 30
    assert used < 300


def test_a_second_session_goes_last_in_its_shards_bucket_and_counts_in_the_day() -> None:
    governor = a_governor(budget=a_budget(mc=2))
    for asker in (beside(0), beside(1), 2, 1):
        governor.request(asker, False, 0.0)
    assert granted(governor, 0.0) == [1, 2]
    for shard_id in (1, 2):
        governor.spent(shard_id, 0.0)
        governor.finished(shard_id, "ready", 0.1)
    assert granted(governor, 5.25) == [beside(0), beside(1)]
    before = governor.available(5.25)
    governor.spent(beside(0), 5.25)
    assert governor.available(5.25) == before
    governor.finished(beside(0), "ready", 5.3)
    ledger = governor.snapshot(Moment(6.0, 6.0, "boot"))
    assert [asker for asker, _ in ledger.spends] == [1, 2, beside(0)], "apart from those of the shard"
    # That it ended soon is no failure of the shard, nor of its own.
    governor.request(0, True, 12.0)
    assert granted(governor, 12.0) == [0] and governor.snapshot(Moment(12.0, 12.0, "boot")).failures == {}


def test_a_second_session_never_uses_the_reserve_nor_the_first_starts_right_to_it() -> None:
    governor = a_governor(budget=a_budget(1000, remaining=50))
    governor.request(beside(0), False, 0.0)
    governor.request(1, False, 0.0)
    decisions = governor.decide(0.0)
    assert Granted(1) in decisions, "the first start of the day"
    assert granted(governor, 10.0) == []
    governor.spent(1, 10.0)
    governor.finished(1, "ready", 10.0)
    governor.budget(a_budget(1000, remaining=49), 20.0)
    assert refused(governor, 20.0)[beside(0)].kind == "budget"


def test_a_second_session_that_fails_is_stopped_soon_and_harms_no_shard() -> None:
    governor = a_governor(shards=3)
    now = 0.0
    for _ in range(3):
        for shard_id in range(3):
            governor.request(beside(shard_id), False, now)
            assert granted(governor, now) == [beside(shard_id)]
            governor.spent(beside(shard_id), now)
            governor.finished(beside(shard_id), "invalid", now)
            now += 6.0
    assert governor.fault is None, "what its own sessions meet is all that says something of a shard"
    governor.request(beside(1), False, now)
    refusal = refused(governor, now)[beside(1)]
    assert refusal.kind == "crash_loop" and refusal.until is not None and refusal.until > now + 3600
    assert identify(governor, 1, now + 6.0, lost=True)
