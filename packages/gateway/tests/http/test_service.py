"""The service manager: READY once the start has begun, progress, signs of life, and the end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from rateway.runtime.monitoring.http_views import HttpViews
from rateway.runtime.monitoring.service_manager import keep_informed
from rateway.transports.systemd import Notifier
from tests.http.fleet import Fleet

from tests.aio import run


class Ear:
    """The socket that systemd would listen on."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.setblocking(False)

    async def hear(self) -> dict[str, str]:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 65536), 60.0)
        return dict(line.split("=", 1) for line in data.decode().split("\n"))


@pytest.mark.parametrize("address", ["{folder}/notify", "@rateway-test-{folder}"])
def test_it_is_ready_once_the_start_has_begun_and_says_how_far_it_is(tmp_path: Path, address: str) -> None:
    address = address.format(folder=tmp_path)

    async def scene() -> None:
        ear, fleet = Ear(address), Fleet(4)
        fleet.state = "starting"
        waiting: dict[str, Any] = {"session": None, "identifies": 0, "away_s": 1.0}
        fleet.shards = {shard: {"state": "idle", **waiting} for shard in range(4)}
        manager = Notifier.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "80000"})
        assert manager is not None
        http_views = HttpViews(fleet, patience_s=180.0)

        async def look() -> Any:
            http_views.fresh_s = 0.0
            return await http_views.condition()

        telling = asyncio.create_task(keep_informed(manager, look))
        first = await ear.hear()
        assert "READY" not in first and first["WATCHDOG"] == "1"
        assert first["STATUS"].startswith("Starting: 0 of 4 shards are live.")
        fleet.state = "running"
        fleet.shards[0] = {"state": "connecting", **waiting}
        while "READY" not in (said := await ear.hear()):
            pass
        assert said["READY"] == "1"
        fleet.shards = {}
        while not (said := await ear.hear())["STATUS"].startswith("All is well"):
            assert "READY" not in said
        fleet.process = {"silent_s": 31.0}
        while "WATCHDOG" in (said := await ear.hear()):
            pass
        fleet.state = "stopping"
        while "STOPPING" not in (said := await ear.hear()):
            pass
        telling.cancel()
        ear.sock.close()

    run(scene())


def test_nobody_is_told_where_nobody_asked(tmp_path: Path) -> None:
    assert Notifier.of({}) is None
    assert Notifier.of({"NOTIFY_SOCKET": "vsock:2:1"}) is None
    gone = Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert gone is not None and not gone.tell(READY="1")


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    given = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "60000000"}
    for pid, seconds in (("1", None), ("77", 60.0), ("", 60.0)):
        found = Notifier.of({**given, "WATCHDOG_PID": pid}, pid=77)
        assert found is not None and found.watchdog_s == seconds
