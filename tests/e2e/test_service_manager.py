"""A real gateway under a service manager's socket: READY once all is accepted, progress, life, the end."""

from __future__ import annotations

from pathlib import Path

from tests.http.test_service import Ear

from tests.aio import run
from tests.browser.test_page_of_a_gateway import free_port
from tests.e2e.harness import stage
from tests.rabbitmq import Broker


def test_systemd_hears_ready_progress_life_and_the_stop(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        ear = Ear(str(tmp_path / "notify"))
        notify = str(tmp_path / "notify")
        async with stage(
            tmp_path,
            broker,
            shards=2,
            per_cluster=1,
            PROCESSES="2",
            NOTIFY_SOCKET=notify,
            WATCHDOG_USEC="2000000",
        ) as it:
            while "READY" not in (said := await ear.hear()):
                pass
            assert said["WATCHDOG"] == "1"
            await it.ready()
            while not (said := await ear.hear())["STATUS"].startswith("All is well: 2 shards are live"):
                pass
            assert "READY" not in said
        ear.sock.close()

    run(main())


def test_a_start_that_waits_for_the_broker_is_not_ready_and_says_so(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        ear = Ear(str(tmp_path / "notify"))
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
        async with stage(
            tmp_path, broker, shards=2, amqp_uri=away, NOTIFY_SOCKET=str(tmp_path / "notify")
        ) as it:
            for _ in range(12):
                said = await ear.hear()
                assert "READY" not in said
            assert "roker" in said["STATUS"] or "cluster 1" in said["STATUS"], said
            assert it.count("identify") == 0
        ear.sock.close()

    run(main())
