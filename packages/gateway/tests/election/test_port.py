"""What each form of the election's port must do, run with the form in memory."""

from __future__ import annotations

import asyncio

from rateway.fleet.port import RIGHT_S, Owned, has_right
from tests.election.memory import Coordinator, MemoryElections
from tests.proxy.virtual_time import pass_time, run


async def _owner(member: MemoryElections, lost: list[str]) -> Owned:
    return await member.campaign("cluster-1", lost.append)


def test_the_first_owner_has_no_record_and_the_next_one_gets_the_released_record_at_once() -> None:
    async def scene() -> None:
        coordinator, lost = Coordinator(), list[str]()
        one, two = coordinator.member("one"), coordinator.member("two")
        owned = await _owner(one, lost)
        assert (owned.epoch, owned.record, owned.how) == (1, None, "first")
        waiting = asyncio.ensure_future(_owner(two, lost))
        await pass_time()
        assert await one.write("cluster-1", 1, b"before") == "confirmed"
        began = coordinator.clock()
        assert await one.release("cluster-1", 1, b"last")
        owned = await waiting
        assert coordinator.clock() - began < 0.1
        assert (owned.epoch, owned.how) == (2, "released")
        assert owned.record is not None
        assert (owned.record.body, owned.record.owner) == (b"last", "one")
        assert await one.write("cluster-1", 1, b"late") == "stale"
        assert not lost

    run(scene())


def test_a_released_subject_goes_to_the_member_it_is_meant_for_whatever_the_line() -> None:
    async def scene() -> None:
        coordinator, lost = Coordinator(), list[str]()
        one, two, three = (coordinator.member(name) for name in ("one", "two", "three"))
        await _owner(one, lost)
        second = asyncio.ensure_future(_owner(two, lost))
        await pass_time()
        third = asyncio.ensure_future(_owner(three, lost))
        await pass_time()
        await one.release("cluster-1", 1, b"", to="three")
        assert (await third).epoch == 2
        assert not second.done()
        second.cancel()

    run(scene())


def test_the_successor_of_a_cut_owner_begins_after_its_right_has_ended_and_with_its_newest_record() -> None:
    async def scene() -> None:
        coordinator, lost = Coordinator(), list[str]()
        one, two = coordinator.member("one"), coordinator.member("two")
        await _owner(one, lost)
        waiting = asyncio.ensure_future(_owner(two, []))
        await one.write("cluster-1", 1, b"confirmed")
        one.cut()
        assert await one.write("cluster-1", 1, b"not confirmed") == "away"
        await pass_time(RIGHT_S - 0.1)
        assert has_right(one.confirmed_at("cluster-1"), coordinator.clock())
        assert not waiting.done()
        owned = await waiting
        assert not has_right(one.confirmed_at("cluster-1"), coordinator.clock())
        assert (owned.epoch, owned.how) == (2, "inherited")
        assert owned.record is not None
        assert owned.record.body == b"confirmed"
        one.heal()
        assert len(lost) == 1
        assert one.confirmed_at("cluster-1") is None

    run(scene())


def test_a_cut_owner_whom_nobody_replaces_goes_on_and_its_newest_body_is_written() -> None:
    async def scene() -> None:
        coordinator, lost = Coordinator(), list[str]()
        one = coordinator.member("one")
        await _owner(one, lost)
        one.cut()
        assert await one.write("cluster-1", 1, b"newest") == "away"
        await pass_time(600)
        one.heal()
        record = coordinator.record("cluster-1")
        assert record is not None
        assert (record.epoch, record.body) == (1, b"newest")
        assert has_right(one.confirmed_at("cluster-1"), coordinator.clock())
        assert not lost

    run(scene())
