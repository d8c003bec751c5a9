"""A shard of a fleet whose connection opens when another member may own its cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rateway.session.actions import State
from rateway_simulator.faults import Fault
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
