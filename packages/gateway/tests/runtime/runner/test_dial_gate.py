"""Shards and identify permits of an owner whose fleet record is confirmed, or is not."""

from __future__ import annotations

import asyncio

from rateway.fleet.dial_right import FIRST_S
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.identify.permits import Refusal
from rateway.runtime.runner.dial_gate import DialGate, FencedPermits
from tests.proxy.virtual_time import pass_time, run


class Record:
    """When the newest record was confirmed, for a gate."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.silent_s: float | None = 0.0
        self.gate = DialGate(1, lambda: self.at, self.now, lambda: self.silent_s)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def confirm(self) -> None:
        self.at = self.now()


class Permits:
    """Grants everything, and notes it; ``during_spend`` is what happens meanwhile."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.during_spend: list[Record] = []

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        self.calls.append(f"acquire {shard_id} {lost}")
        return None

    async def spent(self, shard_id: int) -> Refusal | None:
        self.calls.append(f"spent {shard_id}")
        for record in self.during_spend:
            record.at = None
        return None

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        self.calls.append(f"finished {shard_id} {outcome}")


def test_a_shard_dials_when_the_right_comes_back_whatever_it_waits_for() -> None:
    async def scene() -> None:
        record = Record()
        resuming = asyncio.ensure_future(record.gate.dial(0, resuming=True, asked=False))
        identifying = asyncio.ensure_future(record.gate.dial(1, resuming=False, asked=False))
        await asyncio.sleep(FIRST_S / 2)
        assert not resuming.done()
        record.confirm()
        await asyncio.gather(resuming, identifying)
        assert record.now() < FIRST_S

    run(scene())


def test_without_the_right_a_resume_is_late_and_an_identify_never_comes() -> None:
    async def scene() -> None:
        record = Record()
        identifying = asyncio.ensure_future(record.gate.dial(1, resuming=False, asked=False))
        before = record.now()
        await record.gate.dial(0, resuming=True, asked=False)
        assert FIRST_S <= record.now() - before < FIRST_S + 1
        await asyncio.sleep(100 * FIRST_S)
        assert not identifying.done()
        identifying.cancel()

    run(scene())


def test_without_the_right_and_any_live_shard_only_those_are_resumed_that_discord_has_asked_to_reconnect() -> (
    None
):
    async def scene() -> None:
        record = Record()
        record.silent_s = None
        unasked = asyncio.ensure_future(record.gate.dial(0, resuming=True, asked=False))
        before = record.now()
        await record.gate.dial(1, resuming=True, asked=True)
        assert FIRST_S <= record.now() - before < FIRST_S + 1
        await asyncio.sleep(100 * FIRST_S)
        assert not unasked.done()
        record.silent_s = 0.0
        await unasked

    run(scene())


def test_permits_are_asked_for_with_the_right_only_and_not_spent_without_it() -> None:
    async def scene() -> None:
        record, permits = Record(), Permits()
        fenced = FencedPermits(permits, record.gate)
        acquiring = asyncio.ensure_future(fenced.acquire(3, lost=True))
        await pass_time()
        assert permits.calls == []
        record.confirm()
        assert await acquiring is None
        assert await fenced.spent(3) is None
        fenced.finished(3, "ready")
        assert permits.calls == ["acquire 3 True", "spent 3", "finished 3 ready"]
        record.at = None
        refusal = await fenced.spent(3)
        assert refusal is not None and refusal.kind == "right"
        assert permits.calls[3:] == []

    run(scene())


def test_a_right_that_ends_while_a_spend_is_written_down_sends_no_identify() -> None:
    async def scene() -> None:
        record, permits = Record(), Permits()
        record.confirm()
        permits.during_spend.append(record)
        refusal = await FencedPermits(permits, record.gate).spent(3)
        assert refusal is not None and refusal.kind == "right"

    run(scene())
