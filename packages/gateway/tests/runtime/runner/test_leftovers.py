"""What was kept from an earlier tenure is asked about, dropped or published, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rateway.delivery.message import Publish
from rateway.fleet.leftovers import PATIENCE_S, SessionPosition
from rateway.runtime.runner.leftovers import Leftovers, leftover_folders
from rateway.transports.amqp.wire import frames
from rateway.transports.spool import Spool
from rateway_protocol.contract.messages import ShardStatus
from tests.delivery.memory import MemorySink
from tests.proxy.virtual_time import pass_time, run
from tests.transports.test_spool import no_free_descriptors

LIMIT = 1 << 24


class Clock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    time = monotonic


class Observer:
    def on_pause(self) -> None: ...
    def on_resume(self) -> None: ...
    def on_settled(self) -> None: ...
    def on_oversize(self, *facts: object) -> None: ...
    def on_refused(self, *facts: object) -> None: ...
    def on_state(self, up: bool, why: str) -> None: ...


class Sink(MemorySink):
    """Has *left* unpublished when a tenure ends."""

    def __init__(self) -> None:
        super().__init__(clock=Clock(), most=1_000_000, observer=Observer())
        self.left: list[Publish] = []

    def leave_behind(self) -> list[Publish]:
        super().leave_behind()
        left, self.left = self.left, []
        return left

    @property
    def bodies(self) -> list[int]:
        return [int(each.body) for each in self.taken]


def event(seq: int, session: str = "s", shard: int = 0) -> Publish:
    message_id = f"{session}:{shard}:{seq}".encode()
    properties = frames.event_properties(b"X", shard, 1, seq, message_id, 0, False, True)
    return Publish(b"X", properties, b"%d" % seq)


def own(key: str, body: bytes, message_id: str | None = None) -> Publish:
    return Publish(key.encode(), frames.own_properties(key.encode(), {}, message_id, 0, True), body)


@dataclass
class Scene:
    folder: Path
    sink: Sink = field(default_factory=Sink)
    answer: Sequence[SessionPosition] | None = None
    asked: int = 0
    spool: Spool = field(init=False)
    kept: Leftovers = field(init=False)

    async def ask(self) -> Sequence[SessionPosition] | None:
        self.asked += 1
        return self.answer

    def open(self, *, fleet: bool = True) -> None:
        self.spool = Spool.open(self.folder / "spool", LIMIT)
        (self.spool.note_unsettled if fleet else self.spool.note_settled)()
        clock = Clock().monotonic
        self.kept = Leftovers(1, self.sink, self.spool, self.ask if fleet else None, clock)

    def say(self, through: int, *, is_open: bool = True) -> None:
        self.answer = [SessionPosition(0, "s", through, is_open)]

    @property
    def folders(self) -> list[str]:
        return [path.name for path in leftover_folders(self.folder / "spool")]


@asynccontextmanager
async def scene(folder: Path, *, fleet: bool = True, up: bool = True) -> AsyncIterator[Scene]:
    it = Scene(folder)
    it.open(fleet=fleet)
    it.sink.set_up(up)
    task = asyncio.ensure_future(it.kept.run())
    try:
        yield it
    finally:
        task.cancel()
        await asyncio.wait({task})
        it.kept.close()


async def until(fact: Callable[[], bool], seconds: int = 600) -> None:
    for _ in range(seconds * 10):
        if fact():
            return
        await pass_time(0.1)
    raise AssertionError("it does not happen")


def test_nothing_is_published_before_the_owner_has_come_as_far_and_then_only_what_it_has_not(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.spool.append([event(seq) for seq in range(11, 21)])
            it.sink.left = [event(seq) for seq in range(21, 26)]
            it.kept.set_aside()
            assert (it.spool.events, it.kept.events, it.folders) == (0, 15, ["spool-left-1"])
            await until(lambda: it.asked > 3)
            it.say(10)
            await pass_time(PATIENCE_S / 2)
            it.say(18)
            await pass_time(PATIENCE_S / 2)
            assert (it.sink.taken, it.kept.events) == ([], 15)
            it.say(18, is_open=False)
            await until(lambda: it.kept.events == 0)
            assert it.sink.bodies == [19, 20, 21, 22, 23, 24, 25]
            assert all(each.headers["republished"] for each in it.sink.taken)
            assert (it.kept.dropped, it.kept.published, it.folders) == (8, 7, [])

    run(main())


def test_a_status_of_an_earlier_tenure_is_dropped_and_what_nobody_else_says_is_published(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.spool.append(
                [
                    own(ShardStatus.key, b"1"),
                    own("RATEWAY_GAP", b"2", "gap:s:0"),
                    own("RATEWAY_UNREADABLE", b"3", "unreadable:s:0:7"),
                    own("RATEWAY_UNREADABLE", b"4", "unreadable:s:0:9"),
                    event(5, "t"),
                ]
            )
            it.say(8, is_open=False)
            it.kept.set_aside()
            await until(lambda: it.kept.events == 0)
            assert it.sink.bodies == [2, 4, 5]

    run(main())


def test_without_an_answer_it_is_published_after_a_while_in_which_the_broker_was_there(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with scene(tmp_path, up=False) as it:
            it.spool.append([event(1)])
            it.kept.set_aside()
            await pass_time(5 * PATIENCE_S)
            assert it.kept.events == 1
            it.sink.set_up(True)
            await pass_time(PATIENCE_S - 5)
            assert it.sink.taken == []
            await until(lambda: it.kept.events == 0)
            assert it.sink.bodies == [1]

    run(main())


def test_what_a_killed_process_has_left_is_asked_about_by_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.spool.append([event(1), event(2)])
            it.kept.set_aside()
            it.spool.append([event(3), event(4)])
            it.spool.close()
        async with scene(tmp_path) as it:
            assert (it.folders, it.kept.events) == (["spool-left-1", "spool-left-2"], 4)
            it.say(3, is_open=False)
            await until(lambda: it.kept.events == 0)
            assert (it.sink.bodies, it.folders) == ([4], [])

    run(main())


@pytest.mark.parametrize("after_the_judgement", [False, True])
def test_a_process_without_a_free_descriptor_publishes_what_was_kept_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, after_the_judgement: bool
) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.spool.append([event(seq) for seq in range(1, 6)])
            it.kept.set_aside()
            if after_the_judgement:
                await until(lambda: it.asked > 0)
                it.say(2, is_open=False)
            with no_free_descriptors():
                await pass_time(5)
                assert (it.sink.bodies, it.kept.events) == ([], 5)
            assert it.folders == ["spool-left-1"]
            assert [record.__dict__["action"] for record in caplog.records].count("spool_unreadable") == 1
            it.say(2, is_open=False)
            await until(lambda: it.kept.events == 0)
            assert (it.sink.bodies, it.folders) == ([3, 4, 5], [])

    run(main())


def test_a_tenure_that_ends_while_something_is_published_keeps_that_and_asks_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.sink.hold(True)
            it.spool.append([event(seq) for seq in range(1, 6)])
            it.say(2, is_open=False)
            it.kept.set_aside()
            await until(lambda: it.kept.dropped == 2)
            # The rest waits in the sink. Another owner may have come further by now.
            it.say(4, is_open=False)
            it.kept.set_aside()
            it.sink.hold(False)
            await until(lambda: it.kept.events == 0)
            assert it.sink.bodies == [5]

    run(main())


def test_a_gateway_that_is_alone_again_publishes_what_was_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.spool.append([event(1), event(2)])
            it.kept.set_aside()
            it.spool.close()
        async with scene(tmp_path, fleet=False) as it:
            await until(lambda: it.kept.events == 0)
            assert (it.sink.bodies, it.asked, it.folders) == ([1, 2], 0, [])

    run(main())


@pytest.mark.parametrize("starts_without_the_broker", [0, 1, 2])
def test_what_counted_as_settled_before_there_was_a_fleet_is_published(
    tmp_path: Path, starts_without_the_broker: int
) -> None:
    async def main() -> None:
        alone = Spool.open(tmp_path / "spool", LIMIT)
        alone.append([event(1), event(2)])
        alone.close()
        for _ in range(starts_without_the_broker):
            async with scene(tmp_path, up=False) as it:
                await pass_time(1)
            it.spool.close()
        async with scene(tmp_path) as it:
            it.say(50, is_open=False)
            await until(lambda: it.kept.events == 0)
            assert it.sink.bodies == [1, 2]

    run(main())


def test_what_is_kept_takes_its_part_of_the_bound_on_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.spool.append([event(seq) for seq in range(1, 1001)])
            size = it.spool.bytes
            it.kept.set_aside()
            assert it.spool.limit == LIMIT - size
            it.say(1000)
            await until(lambda: it.kept.events == 0)
            assert it.spool.limit == LIMIT

    run(main())


def test_what_no_disk_takes_at_the_end_of_the_process_is_said_with_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            it.sink.left = [event(seq) for seq in range(1, 4)]
            it.kept.set_aside()
            it.spool.limit = 0

    run(main())
    (said,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert said.getMessage().startswith("3 events that were kept in memory are lost: ")
    assert "SPOOL_BYTES" in said.getMessage()
