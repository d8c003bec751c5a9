"""A gateway that waits for another one's state folder can be stopped, also as the first process of a container."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from rateway.transports.state import StateDir

from tests.aio import run
from tests.e2e.harness import Gateway


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_waiting_gateway_leaves_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    async def main() -> None:
        settings = {
            "DISCORD_TOKEN": "a.b.c",
            "AMQP_URI": "amqp://127.0.0.1:1/",
            "DISCORD_API_URL": "http://127.0.0.1:1",
        }
        gateway = Gateway(tmp_path, **settings)
        with StateDir.open(gateway.state_dir) as state:
            await state.lock(lambda pid: None)
            await gateway.start()
            await gateway.logged("waiting until it has left")
            gateway.signal(number)
            assert await gateway.exited() == 130

    run(main())
