"""The moment that the event loop waits so that one wake-up serves many shards."""

from __future__ import annotations

import asyncio

from rateway.runtime.runner.wakeup_batching import (
    ENOUGH,
    ENOUGH_WITH_CACHE,
    LONGEST_S,
    SHORTEST_S,
    WakeupBatching,
    wait_for,
)

from tests.aio import run


class Clock:
    """A clock that only sleep and the test move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def wake_up(
    wakeup_batching: WakeupBatching,
    clock: Clock,
    *,
    after: float,
    work: float,
    clusters: int = 1,
    events: int = 1,
) -> None:
    """So many events of each of so many clusters come *after* seconds and take *work* seconds."""
    clock.now += after
    since = clock.now
    clock.now += work
    for _ in range(clusters):
        wakeup_batching.worked(since, events)
    await asyncio.sleep(0)


def sleeps(*steps: tuple[float, float]) -> list[float]:
    """How long the loop waited over wake-ups of one event given as (after, work) in seconds."""
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        for after, work in steps:
            await wake_up(wakeup_batching, clock, after=after, work=work)
        assert wakeup_batching.taken == len(clock.slept)

    run(main())
    return clock.slept


def waits_at(per_s: float, enough: int = ENOUGH, clusters: int = 1, most: int = 200) -> list[float]:
    """How long the loop waited at a constant rate of events, each of which takes 5 µs beside 50 µs a wake-up. They are
    of so many clusters in turns.
    """
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(enough, clock=clock, sleep=clock.sleep)
        served, began = 0, clock.now
        for _ in range(most):
            due = began + (served + 1) / per_s
            clock.now = max(clock.now, due)
            events = int((clock.now - began) * per_s + 1e-6) - served
            served += events
            since = clock.now
            clock.now += 50e-6 + 5e-6 * events
            for first in range(min(events, clusters)):
                wakeup_batching.worked(since, (events - first + clusters - 1) // clusters)
            await asyncio.sleep(0)

    run(main())
    return clock.slept


def test_events_that_come_steadily_are_waited_for() -> None:
    assert len(sleeps(*[(0.0003, 0.0001)] * 4)) == 3


def test_events_that_are_rare_are_not_delayed() -> None:
    assert sleeps(*[(0.02, 0.0001)] * 4) == []


def test_a_flood_is_never_made_to_wait() -> None:
    assert sleeps(*[(0.0, 0.003)] * 4) == []


def test_the_wait_is_as_long_as_a_few_events_need() -> None:
    assert waits_at(1_000)[-1] == LONGEST_S
    for enough in (ENOUGH, ENOUGH_WITH_CACHE):
        assert abs(waits_at(5_000, enough)[-1] - enough / 5_000) < 0.0002
        # Many a millisecond: they gain nothing by waiting longer.
        assert waits_at(25_000, enough)[-1] == SHORTEST_S


def test_each_cluster_has_a_commit_and_a_write_of_its_own_so_as_many_events_of_each_are_waited_for() -> None:
    one = waits_at(20_000, ENOUGH_WITH_CACHE)[-1]
    four = waits_at(20_000, ENOUGH_WITH_CACHE, clusters=4)[-1]
    assert one == SHORTEST_S
    assert abs(four - 4 * ENOUGH_WITH_CACHE / 20_000) < 0.0002
    assert waits_at(5_000, clusters=32)[-1] == LONGEST_S


def test_no_wait_adds_more_than_is_stated() -> None:
    assert LONGEST_S <= 0.005
    assert {wait_for(interval) for interval in (0.0, 1e-6)} == {SHORTEST_S}
    assert {wait_for(interval) for interval in (1.0, 1e6)} == {LONGEST_S}


def test_after_a_pause_the_rate_is_that_of_before() -> None:
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        for _ in range(100):
            await wake_up(wakeup_batching, clock, after=0.0001, work=0.0001, events=30)
        clock.slept.clear()
        for after in (3600.0, 0.0001):
            await wake_up(wakeup_batching, clock, after=after, work=0.0001, events=30)

    run(main())
    assert len(clock.slept) == 1
    assert SHORTEST_S <= clock.slept[0] < LONGEST_S


def test_several_clusters_in_one_wake_up_wait_once() -> None:
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        await wake_up(wakeup_batching, clock, after=1.0, work=0.0001, clusters=8)
        await wake_up(wakeup_batching, clock, after=0.0003, work=0.0001, clusters=8)

    run(main())
    assert len(clock.slept) == 1


def test_the_wait_comes_in_the_turn_after_the_one_that_wrote() -> None:
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        await wake_up(wakeup_batching, clock, after=1.0, work=0.0)
        wakeup_batching.worked(clock.now, 1)
        assert clock.slept == []
        await asyncio.sleep(0)
        assert len(clock.slept) == 1

    run(main())


def test_what_is_read_already_is_not_made_to_wait() -> None:
    clock = Clock()
    in_hand = False

    async def main() -> None:
        nonlocal in_hand
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        wakeup_batching.watch(lambda: False)
        wakeup_batching.watch(lambda: in_hand)
        await wake_up(wakeup_batching, clock, after=1.0, work=0.0001)
        in_hand = True
        await wake_up(wakeup_batching, clock, after=0.0003, work=0.0001)
        assert clock.slept == []
        # Once it is written, it is a wake-up like any other.
        in_hand = False
        await wake_up(wakeup_batching, clock, after=0.0001, work=0.0001)
        assert len(clock.slept) == 1

    run(main())
