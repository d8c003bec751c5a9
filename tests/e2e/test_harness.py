"""What a failed end-to-end test says, so that it can be judged by its output alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.aio import run
from tests.e2e.harness import stage
from tests.rabbitmq import Broker


def test_a_failure_carries_the_last_status_the_log_the_receipts_and_the_ledger(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=2, members=2) as it:
            await it.ready()
            await it.all_arrived()
            async with asyncio.timeout(0.2):
                await it.gateway.until(lambda status: False)

    with pytest.raises(TimeoutError) as found:
        run(main())
    cut_off = found.value.__cause__
    assert cut_off is not None
    # Once each, although two blocks were left.
    (wait,) = cut_off.__notes__
    assert wait.startswith("gateway (pid ")
    assert '"state":"live"' in wait and "the last lines of its log:" in wait
    gateway, judged = found.value.__notes__
    assert gateway.startswith("gateway (pid ")
    assert "'READY': 1" in judged and "'identify': 1" in judged
    assert "rules broken or warned of: []" in judged
