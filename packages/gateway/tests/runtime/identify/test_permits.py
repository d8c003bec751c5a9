"""The port that shards ask for identifies. Each form of it passes these tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import msgspec
import pytest
from rateway.fleet.identify import IdentifyGovernor, Ledger, Moment
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.fleet.permits import FleetPermits, PermitDesk, PermitState
from rateway.runtime.identify.permits import FolderLedger, IdentifyPermits, LocalPermits, Refusal
from rateway.runtime.identify.remote import Permitted, RemotePermits
from rateway.runtime.identify.service import PermitService
from rateway.runtime.supervisor.ipc import FromRunner, Line, ToRunner
from rateway.transports.rest import GatewayBot, RestFailure
from rateway.transports.state import StateError
from tests.fleet_line.memory import MemoryHub

from tests.aio import run

# Discord wants 5 s between two identifies of a bucket. A quarter more is kept, of which a permit's way through a socket
# may take a part of what is seen here.
APART_S = 5.2


class Disk:
    """A ledger in memory that can be slow, or full."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data
        self.writes = 0
        self.full = False
        self.before_write: Callable[[], None] = lambda: None

    def read_ledger(self) -> bytes | None:
        return self.data

    def write_ledger(self, ledger: bytes) -> None:
        self.before_write()
        if self.full:
            raise StateError("the disk is full")
        self.data = ledger
        self.writes += 1


class Discord:
    """Answers of /gateway/bot, the last one again and again."""

    def __init__(self, *answers: GatewayBot | RestFailure) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def gateway_bot(self) -> GatewayBot | RestFailure:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Clock:
    """The machine's clocks, as the loop's own, which jumps."""

    def moment(self) -> Moment:
        now = asyncio.get_running_loop().time()
        return Moment(now, now, "boot")


def answer(*, mc: int = 1, remaining: int = 1000, reset_ms: int = 3_600_000, total: int = 1000) -> GatewayBot:
    return GatewayBot("wss://gateway.discord.gg", 4, total, remaining, reset_ms, mc)


class Running(IdentifyPermits, Protocol):
    """The port, with what keeps it in motion."""

    async def run(self) -> None: ...
    def restart(self, shard_id: int) -> None: ...


class Bench:
    """One form of the port in motion, with its surroundings in hand."""

    def __init__(self, permits: Running, disk: Disk, discord: Discord) -> None:
        self.permits = permits
        self.disk = disk
        self.discord = discord


def local(discord: Discord, disk: Disk, clock: Clock, **more: Any) -> LocalPermits:
    governor = {key: more.pop(key) for key in ("crash_loop", "buckets") if key in more}
    governing = IdentifyGovernor(shards=range(4), **governor)
    return LocalPermits(governing, FolderLedger(disk), discord, bot="bot", clock=clock, **more)


class OverProcesses:
    """The port as a runner has it: a socket pair with the supervisor's service at its other end."""

    def __init__(self, discord: Discord, disk: Disk, clock: Clock, **governor: Any) -> None:
        self.inner = local(discord, disk, clock, **governor)
        self.remote: asyncio.Future[RemotePermits] = asyncio.get_running_loop().create_future()
        self.stalls: list[float] = []
        """Seconds for which the runner stands still when the next answers to Spent have come."""

    async def run(self) -> None:
        ends = socket.socketpair()
        ours, theirs = await Line.open(ends[0], FromRunner), await Line.open(ends[1], ToRunner)
        time = asyncio.get_running_loop().time
        remote = RemotePermits(theirs, clock=time)
        try:
            async with asyncio.TaskGroup() as tasks:
                service = PermitService(self.inner, ours.send, tasks.create_task, clock=time)
                tasks.create_task(self.inner.run())
                tasks.create_task(self._serve(service, ours))
                tasks.create_task(self._listen(remote, theirs))
                self.remote.set_result(remote)
        finally:
            ours.close()
            theirs.close()

    async def _serve(self, service: PermitService, line: Line) -> None:
        async for record in line.records():
            service.take(record)

    async def _listen(self, remote: RemotePermits, line: Line) -> None:
        async for record in line.records():
            if self.stalls and isinstance(record, Permitted) and record.marked_at:
                await asyncio.sleep(self.stalls.pop(0))
            remote.answered(record)

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        return await (await asyncio.shield(self.remote)).acquire(shard_id, lost=lost)

    async def spent(self, shard_id: int) -> Refusal | None:
        return await self.remote.result().spent(shard_id)

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        self.remote.result().finished(shard_id, outcome)

    def restart(self, shard_id: int) -> None:
        self.inner.restart(shard_id)


class OverFleet:
    """The port as a member of a fleet has it: messages through a broker, with the governor's desk behind it."""

    def __init__(self, discord: Discord, disk: Disk, clock: Clock, **governor: Any) -> None:
        self.inner = local(discord, disk, clock, **governor)
        self.hub = MemoryHub()
        self.member, self.governor = self.hub.line("member-1"), self.hub.line("governor-1")
        loop_time = asyncio.get_running_loop().time
        self.permits = FleetPermits(self.member, lambda: ("governor-1", 1), lambda: 1, clock=loop_time)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            desk = PermitDesk(
                self.inner, self.governor.tell, tasks.create_task, epoch=1, is_open=lambda generation: True
            )
            self.governor.handle(PermitState, desk.take)
            tasks.create_task(self.inner.run())
            tasks.create_task(self.permits.run())

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        return await self.permits.acquire(shard_id, lost=lost)

    async def spent(self, shard_id: int) -> Refusal | None:
        return await self.permits.spent(shard_id)

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        self.permits.finished(shard_id, outcome)

    def restart(self, shard_id: int) -> None:
        self.inner.restart(shard_id)


FORMS = [
    pytest.param(local, id="local"),
    pytest.param(OverProcesses, id="over processes"),
    pytest.param(OverFleet, id="over a fleet"),
]
Form = Callable[..., Running]


def on(
    form: Form,
    scenario: Callable[[Bench], Any],
    *answers: GatewayBot | RestFailure,
    disk: Disk | None = None,
    **more: Any,
) -> Any:
    """Run *scenario* against one form of the port, on a loop whose time jumps to the next timer."""

    async def whole() -> Any:
        bench = Bench(
            form(discord := Discord(*answers), disk_ := disk or Disk(), Clock(), **more), disk_, discord
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.permits.run())
            try:
                return await scenario(bench)
            finally:
                running.cancel()

    return run_in_jumps(whole())


def run_in_jumps(coroutine: Any) -> Any:
    """Run on a loop that never sleeps: when nothing is ready its clock jumps to the next timer."""
    loop = JumpingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(coroutine)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own. Threads are waited for, timers are not."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0
        self.threads = 0
        self.turns = 0

    def time(self) -> float:
        return super().time() + getattr(self, "offset", 0.0)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]  # any thread
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)

        def done(_: object) -> None:
            self.threads -= 1

        future.add_done_callback(done)
        return future

    async def shutdown_default_executor(self, *timeout: float) -> None:
        # From 3.12 on this has a timer of five minutes, which is not to be jumped over: threads are waited for.
        self.threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self.threads -= 1

    def _run_once(self) -> None:
        self.turns += 1
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled and not self.threads and not self._selector.select(0):  # type: ignore[attr-defined]
            self.offset += max(0.0, scheduled[0].when() - self.time())
        super()._run_once()  # type: ignore[misc]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


async def identify(
    permits: IdentifyPermits, shard_id: int, log: list[tuple[int, float]], *, lost: bool = False
) -> Refusal | None:
    refusal = await permits.acquire(shard_id, lost=lost)
    if refusal is not None:
        return refusal
    refusal = await permits.spent(shard_id)
    if refusal is not None:
        permits.finished(shard_id, "unused")
        return refusal
    log.append((shard_id, asyncio.get_running_loop().time()))
    permits.finished(shard_id, "ready")
    return None


@pytest.mark.checklist("D5", "D7")
def test_shards_of_one_bucket_come_5_seconds_apart_however_they_ask(form: Form) -> None:
    async def scenario(bench: Bench) -> list[tuple[int, float]]:
        log: list[tuple[int, float]] = []
        await asyncio.gather(*(identify(bench.permits, shard, log) for shard in (3, 1, 2, 0)))
        return log

    log = on(form, scenario, answer())
    assert [shard for shard, _ in log] == [0, 1, 2, 3]
    gaps = [later[1] - earlier[1] for earlier, later in pairwise(log)]
    # The pad of 0.25 s is for what lies between the grant and the socket; some of it is in these times.
    assert all(APART_S <= gap < 5.6 for gap in gaps), gaps


@pytest.mark.checklist("D6")
def test_buckets_are_independent(form: Form) -> None:
    async def scenario(bench: Bench) -> list[tuple[int, float]]:
        log: list[tuple[int, float]] = []
        await asyncio.gather(*(identify(bench.permits, shard, log) for shard in range(4)))
        return log

    log = on(form, scenario, answer(mc=16))
    assert max(at for _, at in log) - min(at for _, at in log) < 1


@pytest.mark.checklist("D11")
def test_an_identify_is_on_disk_before_it_is_sent(form: Form) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.permits.acquire(2, lost=False) is None
        assert bench.disk.writes == 0
        assert await bench.permits.spent(2) is None
        ledger = msgspec.json.decode(bench.disk.read_ledger() or b"", type=dict[str, Ledger])["bot"]
        assert [shard for shard, _ in ledger.spends] == [2]

    on(form, scenario, answer())


@pytest.mark.checklist("D11")
def test_a_restart_waits_for_the_bucket(form: Form) -> None:
    disk = Disk()

    async def first(bench: Bench) -> float:
        log: list[tuple[int, float]] = []
        await identify(bench.permits, 0, log)
        return log[0][1]

    async def second(bench: Bench) -> float:
        log: list[tuple[int, float]] = []
        await identify(bench.permits, 1, log)
        return log[0][1]

    async def whole(scenario: Any) -> float:
        bench = Bench(form(Discord(answer()), disk, Clock()), disk, Discord(answer()))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.permits.run())
            at: float = await scenario(bench)
            running.cancel()
        return at

    async def both() -> tuple[float, float]:
        return await whole(first), await whole(second)

    one, two = run_in_jumps(both())
    assert two - one >= APART_S


def test_a_disk_that_is_full_sends_nothing(form: Form) -> None:
    async def scenario(bench: Bench) -> Refusal | None:
        bench.disk.full = True
        return await identify(bench.permits, 0, [])

    refusal = on(form, scenario, answer())
    assert refusal.kind == "ledger"
    assert refusal.until is not None
    assert "full" in refusal.why


def test_shards_that_identify_together_share_a_write(form: Form) -> None:
    async def scenario(bench: Bench) -> int:
        await asyncio.gather(*(identify(bench.permits, shard, []) for shard in range(16)))
        return bench.disk.writes

    assert on(form, scenario, answer(mc=16)) <= 3


@pytest.mark.checklist("D9")
def test_an_empty_budget_is_refused_until_its_reset_in_milliseconds_and_asked_for_again(form: Form) -> None:
    async def scenario(bench: Bench) -> tuple[float, Refusal | None, int]:
        begun = asyncio.get_running_loop().time()
        refusal = await bench.permits.acquire(0, lost=True)
        assert refusal is not None and refusal.kind == "budget" and refusal.until is not None
        waits = refusal.until - begun
        await asyncio.sleep(waits)
        return waits, await bench.permits.acquire(0, lost=True), bench.discord.asked

    waits, again, asked = on(form, scenario, answer(remaining=0, reset_ms=90_000), answer())
    assert 90 <= waits < 100
    assert again is None
    assert asked == 2


def test_a_rest_that_fails_is_asked_again_until_it_answers(form: Form) -> None:
    async def scenario(bench: Bench) -> tuple[Refusal | None, float, int]:
        begun = asyncio.get_running_loop().time()
        refusal = await bench.permits.acquire(0, lost=False)
        return refusal, asyncio.get_running_loop().time() - begun, bench.discord.asked

    failures = [RestFailure("unavailable", "502"), RestFailure("rate_limited", "429", 30.0)]
    refusal, waited, asked = on(form, scenario, *failures, answer())
    assert refusal is None
    assert waited >= 30.5
    assert asked == 3


@pytest.mark.checklist("K25")
def test_a_token_refused_twice_with_no_session_alive_refuses_everybody_and_is_used_no_more(
    form: Form,
) -> None:
    async def scenario(bench: Bench) -> tuple[list[Refusal | None], list[Refusal | None], int]:
        both = await asyncio.gather(bench.permits.acquire(0, lost=False), bench.permits.acquire(1, lost=True))
        await asyncio.sleep(301)
        again = await asyncio.gather(
            bench.permits.acquire(0, lost=False), bench.permits.acquire(1, lost=True)
        )
        await asyncio.sleep(86_400)
        later = await bench.permits.acquire(2, lost=False)
        return list(both), [*again, later], bench.discord.asked

    first, then, asked = on(form, scenario, RestFailure("unauthorized", "401"))
    assert [refusal.kind for refusal in [*first, *then]] == ["unauthorized"] * 5
    assert all(refusal.until is not None and "asked again in 300 s" in refusal.why for refusal in first)
    assert [refusal.until for refusal in then] == [None] * 3
    assert asked == 2


@pytest.mark.checklist("K25")
def test_a_token_that_sessions_live_with_is_tried_again_with_long_pauses(
    form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        found: list[tuple[str, float]] = []
        begun = loop.time()
        while True:
            refusal = await bench.permits.acquire(0, lost=True)
            found.append(("granted" if refusal is None else refusal.kind, loop.time() - begun))
            if refusal is None:
                return found
            assert refusal.until is not None
            await asyncio.sleep(refusal.until - loop.time())

    refused = [RestFailure("unauthorized", "401", None, 401)] * 6
    found = on(form, scenario, *refused, answer(), any_live=lambda: True)
    assert [kind for kind, _ in found] == ["unauthorized"] * 6 + ["granted"]
    waits = [later[1] - earlier[1] for earlier, later in pairwise(found)]
    assert waits == pytest.approx([300, 600, 1200, 2400, 3600, 3600], abs=5)
    assert sum("sessions live with the same token" in each for each in caplog.messages) == 6, (
        "each refusal, once"
    )


@pytest.mark.checklist("K25")
def test_a_401_does_not_hold_back_identifies_that_the_known_budget_allows(form: Form) -> None:
    async def scenario(bench: Bench) -> tuple[Refusal | None, Refusal | None]:
        first = await identify(bench.permits, 0, [])
        await asyncio.sleep(3601)
        return first, await identify(bench.permits, 1, [], lost=True)

    refused = RestFailure("unauthorized", "401", None, 401)
    assert on(form, scenario, answer(), refused, any_live=lambda: True) == (None, None)


@pytest.mark.checklist("K30")
def test_while_rest_answers_429_without_a_time_it_is_asked_ever_more_rarely(form: Form) -> None:
    async def scenario(bench: Bench) -> int:
        waiting = asyncio.create_task(bench.permits.acquire(0, lost=True))
        await asyncio.sleep(1800)
        waiting.cancel()
        return bench.discord.asked

    assert on(form, scenario, RestFailure("rate_limited", "429", None, 429)) < 70


@pytest.mark.checklist("K25")
def test_a_budget_that_is_out_of_date_is_waited_for_without_turning_in_circles(form: Form) -> None:
    """With the reserve reached and REST away, a shard waits for the next answer: the loop has nothing to do."""

    async def scenario(bench: Bench) -> tuple[int, int]:
        assert await identify(bench.permits, 0, []) is None
        await asyncio.sleep(90)
        waiting = asyncio.create_task(bench.permits.acquire(0, lost=False))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        await asyncio.sleep(5)
        turns = loop.turns
        await asyncio.sleep(1200)
        waiting.cancel()
        return loop.turns - turns, bench.discord.asked

    few = answer(remaining=4)
    turns, asked = on(form, scenario, few, RestFailure("unavailable", "503", None, 503))
    assert asked > 10
    assert turns < 40 * asked


@pytest.mark.checklist("K24")
def test_identifies_that_fail_alike_are_said_once_and_their_end_forgives_everybody(
    form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bool] = []

    async def shard(bench: Bench, shard_id: int, well_at: float) -> float:
        loop = asyncio.get_running_loop()
        while True:
            assert await bench.permits.acquire(shard_id, lost=True) is None, "nobody is stopped"
            assert await bench.permits.spent(shard_id) is None
            well = loop.time() >= well_at
            bench.permits.finished(shard_id, "ready" if well else "invalid")
            if well:
                return loop.time()
            await asyncio.sleep(10)

    async def scenario(bench: Bench) -> list[float]:
        well_at = asyncio.get_running_loop().time() + 1200
        ready = await asyncio.gather(*(shard(bench, number, well_at) for number in range(4)))
        return [at - well_at for at in ready]

    late = on(form, scenario, answer(total=5000, remaining=5000, mc=4),
              on_fault=told.append)  # fmt: skip
    assert max(late) < 140, "a tenth of the fault's age"
    assert max(late) - min(late) < 15
    assert told == [True, False]
    assert sum("fail alike" in each and "op 9" in each for each in caplog.messages) == 1
    assert sum("identifies succeed again" in each for each in caplog.messages) == 1


def test_a_cancelled_wait_leaves_nothing_behind(form: Form) -> None:
    async def scenario(bench: Bench) -> list[tuple[int, float]]:
        log: list[tuple[int, float]] = []
        await identify(bench.permits, 0, log)
        waiting = asyncio.create_task(bench.permits.acquire(1, lost=False))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await identify(bench.permits, 2, log)
        return log

    log = on(form, scenario, answer())
    assert [shard for shard, _ in log] == [0, 2]
    assert log[1][1] - log[0][1] < 5.6


@pytest.mark.checklist("K26")
def test_a_ready_that_never_comes_holds_the_next_shard_up_for_15_seconds(form: Form) -> None:
    async def scenario(bench: Bench) -> float:
        loop = asyncio.get_running_loop()
        assert await bench.permits.acquire(0, lost=False) is None
        waiting = asyncio.create_task(bench.permits.acquire(1, lost=False))
        assert await bench.permits.spent(0) is None
        begun = loop.time()
        assert await waiting is None
        return loop.time() - begun

    assert 14.5 <= on(form, scenario, answer()) < 16.0


def test_a_permit_that_is_given_back_goes_to_the_next(form: Form) -> None:
    async def scenario(bench: Bench) -> float:
        begun = asyncio.get_running_loop().time()
        assert await bench.permits.acquire(0, lost=False) is None
        waiting = asyncio.create_task(bench.permits.acquire(1, lost=False))
        await asyncio.sleep(0)
        bench.permits.finished(0, "unused")
        assert await waiting is None
        return asyncio.get_running_loop().time() - begun

    assert on(form, scenario, answer()) < 1


def test_a_slow_disk_moves_the_bucket_and_not_only_the_write(form: Form) -> None:
    async def scenario(bench: Bench) -> tuple[Refusal | None, list[float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        slow = [2.0, 0.0]

        def pass_time() -> None:
            loop.offset += slow.pop(0) if slow else 0.0

        bench.disk.before_write = pass_time
        log: list[tuple[int, float]] = []
        begun = loop.time()
        refusal = await identify(bench.permits, 0, log)
        await identify(bench.permits, 1, log)
        return refusal, [at - begun for _, at in log]

    refusal, times = on(form, scenario, answer())
    assert refusal is None
    assert times[0] >= 2.0
    assert times[1] - times[0] >= APART_S


@pytest.mark.parametrize(
    ("stalls", "sent"), [([3.0], [0, 1]), ([20.0], [1]), ([1.0] * 10, [1])], ids=["again", "late", "often"]
)
def test_a_runner_that_stood_still_before_its_identify_sends_it_with_a_new_time_or_not_at_all(
    stalls: list[float], sent: list[int]
) -> None:
    async def scenario(bench: Bench) -> tuple[list[tuple[int, float]], int]:
        assert isinstance(bench.permits, OverProcesses)
        log: list[tuple[int, float]] = []
        bench.permits.stalls = stalls
        await asyncio.gather(*(identify(bench.permits, shard, log) for shard in (0, 1)))
        governor = bench.permits.inner.governor
        return log, governor.available(bench.permits.inner.now())

    log, left = on(OverProcesses, scenario, answer())
    assert [shard for shard, _ in log] == sent
    assert all(later[1] - earlier[1] >= APART_S for earlier, later in pairwise(log))
    assert left == 998


class HeldLedger:
    """A ledger whose write is held up until ``go``."""

    place = "memory"

    def __init__(self) -> None:
        self.writing = asyncio.Event()
        self.go = asyncio.Event()

    def read_ledger(self) -> bytes | None:
        return None

    async def write_ledger(self, ledger: bytes) -> None:
        self.writing.set()
        await self.go.wait()


@pytest.mark.parametrize("written_after", [0.0, 2.0])
def test_an_identify_that_ends_while_it_is_written_down_is_counted_once_and_holds_no_bucket(
    written_after: float,
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        governor, ledger = IdentifyGovernor(shards=range(4)), HeldLedger()
        permits = LocalPermits(governor, ledger, Discord(answer()), bot="bot", clock=Clock())
        running = asyncio.create_task(permits.run())
        assert await permits.acquire(0, lost=False) is None
        begun = loop.time()
        spending = asyncio.create_task(permits.spent(0))
        await ledger.writing.wait()
        permits.finished(0, "closed")
        await asyncio.sleep(written_after)
        ledger.go.set()
        assert await spending is not None
        assert governor.available(permits.now()) == 999
        assert await permits.acquire(1, lost=False) is None
        assert loop.time() - begun < 5.6
        running.cancel()

    run_in_jumps(scenario())


def test_an_identify_whose_bucket_was_not_kept_until_it_was_written_down_is_not_sent(form: Form) -> None:
    async def scenario(bench: Bench) -> list[tuple[int, float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        slow = [20.0]

        def pass_time() -> None:
            loop.offset += slow.pop() if slow else 0.0

        bench.disk.before_write = pass_time
        log: list[tuple[int, float]] = []
        await asyncio.gather(*(identify(bench.permits, shard, log) for shard in (0, 1)))
        return log

    assert [shard for shard, _ in on(form, scenario, answer())] == [1]


def test_a_disk_that_stays_slow_is_told(form: Form) -> None:
    async def scenario(bench: Bench) -> Refusal | None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)

        def pass_time() -> None:
            loop.offset += 2.0

        bench.disk.before_write = pass_time
        return await identify(bench.permits, 0, [])

    refusal = on(form, scenario, answer())
    assert refusal is not None and refusal.kind == "ledger"


def test_a_ledger_that_cannot_be_read_or_belongs_to_another_bot_is_let_be(form: Form) -> None:
    async def scenario(bench: Bench) -> bytes | None:
        assert await identify(bench.permits, 0, []) is None
        return bench.disk.data

    for data in (b"{torn", b"[]", b'{"bot": 3}'):
        assert on(form, scenario, answer(), disk=Disk(data)) is not None
    foreign = Ledger(Moment(1, 1, "x"), [(0, 1.0)], {}, {})
    kept = on(form, scenario, answer(), disk=Disk(msgspec.json.encode({"another": foreign})))
    assert set(msgspec.json.decode(kept)) == {"another", "bot"}


@pytest.mark.checklist("B19")
def test_a_crash_loop_is_refused_until_a_person_restarts_the_shard(form: Form) -> None:
    async def scenario(bench: Bench) -> list[str]:
        seen: list[str] = []
        for _ in range(4):
            refusal = await bench.permits.acquire(0, lost=True)
            seen.append("granted" if refusal is None else refusal.kind)
            if refusal is None:
                await bench.permits.spent(0)
                bench.permits.finished(0, "closed")
        bench.permits.restart(0)
        seen.append("granted" if await bench.permits.acquire(0, lost=True) is None else "refused")
        return seen

    seen = on(form, scenario, answer(), crash_loop=3)
    assert seen == ["granted", "granted", "granted", "crash_loop", "granted"]


def test_the_port_runs_on_the_gateway_own_loop_as_well() -> None:
    async def scenario() -> Refusal | None:
        permits = LocalPermits(
            IdentifyGovernor(shards=range(4)), FolderLedger(Disk()), Discord(answer()), bot="bot"
        )
        running = asyncio.create_task(permits.run())
        refusal = await identify(permits, 0, [])
        running.cancel()
        return refusal

    assert run(scenario()) is None
