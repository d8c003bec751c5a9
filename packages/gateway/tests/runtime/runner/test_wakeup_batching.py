"""The moment that the event loop waits so that one wake-up serves many shards."""

from __future__ import annotations

import asyncio

from rateway.runtime.runner.wakeup_batching import GATHER_S, WakeupBatching

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
    wakeup_batching: WakeupBatching, clock: Clock, *, after: float, work: float, clusters: int = 1
) -> None:
    """Events of so many clusters come *after* seconds and take *work* seconds."""
    clock.now += after
    since = clock.now
    clock.now += work
    for _ in range(clusters):
        wakeup_batching.worked(since)
    await asyncio.sleep(0)


def sleeps(*steps: tuple[float, float]) -> list[float]:
    """How long the loop waited over wake-ups given as (after, work) in seconds."""
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        for after, work in steps:
            await wake_up(wakeup_batching, clock, after=after, work=work)
        assert wakeup_batching.taken == len(clock.slept)

    run(main())
    return clock.slept


def test_events_that_come_steadily_are_waited_for() -> None:
    assert sleeps(*[(0.0003, 0.0001)] * 4) == [GATHER_S] * 3


def test_events_that_are_rare_are_not_delayed() -> None:
    assert sleeps(*[(0.02, 0.0001)] * 4) == []


def test_a_flood_is_never_made_to_wait() -> None:
    assert sleeps(*[(0.0, 0.003)] * 4) == []


def test_no_wait_adds_a_millisecond() -> None:
    assert 0 < GATHER_S < 0.001


def test_several_clusters_in_one_wake_up_wait_once() -> None:
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        await wake_up(wakeup_batching, clock, after=1.0, work=0.0001, clusters=8)
        await wake_up(wakeup_batching, clock, after=0.0003, work=0.0001, clusters=8)

    run(main())
    assert clock.slept == [GATHER_S]


def test_the_wait_comes_in_the_turn_after_the_one_that_wrote() -> None:
    clock = Clock()

    async def main() -> None:
        wakeup_batching = WakeupBatching(clock=clock, sleep=clock.sleep)
        await wake_up(wakeup_batching, clock, after=1.0, work=0.0)
        wakeup_batching.worked(clock.now)
        assert clock.slept == []
        await asyncio.sleep(0)
        assert clock.slept == [GATHER_S]

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
        assert clock.slept == [GATHER_S]

    run(main())
