"""The page of a real gateway in a real browser: shards are cut, the broker leaves, the port is flooded."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from rateway.demo.broker import free_ports
from tests.http.fleet import get
from tests.simulator.running import fault

from tests.aio import run
from tests.browser.chromium import browser
from tests.e2e.harness import stage
from tests.e2e.witness import all_live
from tests.rabbitmq import Broker

LIVE = "document.querySelectorAll('#clusters .tile.live').length"
VERDICT = "document.querySelector('#verdict').className"
REASONS = "document.querySelector('#reasons').innerText"
TOLD = "document.querySelector('#happenings').innerText"


def free_port() -> int:
    """Return a port that is free now, below those of outgoing connections."""
    return free_ports(1)[0]


def test_cut_shards_and_a_broker_outage_are_seen_live(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        port = free_port()
        address = f"127.0.0.1:{port}"
        async with (
            stage(tmp_path, broker, shards=4, per_cluster=2, PROCESSES="2", HTTP_ADDRESS=address) as it,
            browser() as page,
        ):
            await it.ready()
            await page.open(f"http://127.0.0.1:{port}/")
            await page.until(f"{LIVE} === 4 && {VERDICT} === 'well'")
            roles = await page.run("document.querySelector('#processes').innerText")
            assert "supervisor" in roles and "runner 1" in roles and "runner 2" in roles

            await it.sim.inject(fault("cut:shards=1,2"))
            await page.until(f"/shards? 1/.test({TOLD}) && /(shards?|,|–) ?2/.test({TOLD})")
            await page.until(f"{LIVE} === 4 && {VERDICT} === 'well'")

            # Why a shard is away stays to be read while it tries again.
            await it.sim.inject(fault("upgrade:status=503,seconds=5"))
            await it.sim.inject(fault("cut:shards=1"))
            await page.until(f"/shard 1: .*HTTP 503/.test({REASONS})")
            await page.until(f"{LIVE} === 4 && {VERDICT} === 'well'")

            await it.broker.stop()
            await page.until(f"{VERDICT} === 'trouble'")
            assert "roker is away" in await page.run("document.querySelector('#verdict').innerText")
            await page.until(f"/the broker is away for clusters? 1.* for \\d/.test({REASONS})")
            assert (await get(port, "/health/live"))[0] == 200
            assert (await get(port, "/health/ready"))[0] == 503
            await it.broker.start()
            await page.until(f"{VERDICT} === 'well' && {TOLD}.includes('the broker is back')")
            assert (await get(port, "/health/ready"))[0] == 200
            assert page.said == []

    run(main())


def test_a_flood_at_the_port_disturbs_no_shard(tmp_path: Path, broker: Broker) -> None:
    """One process, so that HTTP and shards share a loop; the judge watches the heartbeats."""

    async def main() -> None:
        port = free_port()
        # A beat every half second; one that is late by longer than any machine is busy would be a violation.
        quick = {"heartbeat_interval_ms": 500}
        async with stage(
            tmp_path, broker, shards=4, simulator=quick, PROCESSES="1", HTTP_ADDRESS=f"127.0.0.1:{port}"
        ) as it:
            await it.ready()
            flooding = [asyncio.create_task(flood(port, kind)) for kind in range(12)]
            await it.events(1500, rate=500)
            status = await it.gateway.until(all_live)
            for task in flooding:
                task.cancel()
            await asyncio.gather(*flooding, return_exceptions=True)
            assert all(shard["closes"] == {} for shard in status["shards"])
            result = await it.all_arrived()
            assert result.doubled == 0
            assert await get(port, "/health/ready") == (200, '{"status":"ok","reasons":[]}')
            flooding = [asyncio.create_task(flood(port, kind)) for kind in range(12)]
            await it.gateway.stop()
            for task in flooding:
                task.cancel()
            await asyncio.gather(*flooding, return_exceptions=True)
            log = it.gateway.log.read_text()
            assert " ERROR " not in log and "Traceback" not in log

    run(main())


async def flood(port: int, kind: int) -> None:
    """As fast as this machine can: proper requests, half ones, nonsense, connections without a word."""
    words = (
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60_000,
        b"\x16\x03\x01" + bytes(3000),
        b"",
    )[kind % 4]
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            try:
                async with asyncio.timeout(0.5):
                    await reader.read(65536)
            finally:
                writer.transport.abort()
