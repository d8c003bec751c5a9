"""A shard whose connection opens, or ends, while something else decides whether it may speak."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rateway.session.actions import State
from rateway_simulator.faults import Fault
from tests.runtime.identify.test_permits import HeldLedger
from tests.runtime.runner.test_second_session import ground


class Gate:
    """Lets every shard dial, and use what it has dialled while `opens` says so."""

    def __init__(self) -> None:
        self.opens = True
        self.dials = 0

    async def dial(self, shard_id: int, *, resuming: bool, asked: bool) -> None:
        self.dials += 1

    def may_open(self, shard_id: int) -> bool:
        return self.opens


def test_a_connection_that_opens_too_late_is_closed_before_it_says_anything(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with ground(tmp_path, gate) as it:
            await it.until(lambda: it.shard.conversation.state is State.LIVE)
            session, dials = it.shard.conversation.session_id, gate.dials
            gate.opens = False
            await it.sim.inject(Fault(kind="op7"))
            await it.until(lambda: gate.dials >= dials + 2)
            counts = it.sim.ledger.counts
            assert counts["resume"] == 0 and counts["identify"] == 1
            assert it.shard.conversation.session_id == session
            gate.opens = True
            await it.until(lambda: it.shard.conversation.state is State.LIVE)
            assert counts["resume"] == 1 and counts["identify"] == 1
            assert it.shard.conversation.session_id == session

    asyncio.run(main())


def test_the_refusal_of_an_identify_whose_connection_has_ended_leaves_the_next_one_alone(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        gate, ledger = Gate(), HeldLedger()
        async with ground(tmp_path, gate, ledger=ledger) as it:
            await ledger.writing.wait()
            it.shard.reconnect("asked for by an operator")
            await it.until(lambda: it.shard.conversation.state is State.WAITING_PERMIT)
            ledger.go.set()
            await it.until(lambda: it.shard.conversation.state is State.LIVE)
            assert gate.dials == 2
            assert it.sim.ledger.counts["identify"] == 1

    asyncio.run(main())
