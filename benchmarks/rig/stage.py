"""The simulated Discord in this process, the gateway as a process of its own, and what a benchmark waits for."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rateway.transports import control_socket
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator

from benchmarks.rig import child, machine
from benchmarks.rig.child import Child, Hung

LOOK = 0.05
Status = dict[str, Any]


@dataclass(slots=True)
class Stage:
    """What a benchmark acts on."""

    sim: Simulator
    gateway: Child
    folder: Path
    shards: int

    async def status(self) -> Status:
        """What ``rateway status`` would show; empty while nobody answers."""
        try:
            found: Status = msgspec.json.decode(await control_socket.ask(self.folder / "state", "status"))
        except (control_socket.ControlError, msgspec.DecodeError):
            return {}
        return {} if "error" in found else found

    async def until(self, fact: Callable[[Status], bool], patience: float = 300.0) -> Status:
        """Wait until the status says so."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            status = await self.status()
            if status and fact(status):
                return status
            self._assert_running()
            await asyncio.sleep(LOOK)
        raise Hung(f"the gateway did not get there in {patience:.0f} s{self.gateway.tail()}")

    async def live(self) -> float:
        """Wait until all shards are live and all guilds announced; when (monotonic seconds)."""
        sim = self.sim
        while len(sim.gateway.sessions) < self.shards or sim.gateway.streaming:
            self._assert_running()
            await asyncio.sleep(LOOK)
        await self.until(
            lambda status: sum(each["shards_ready"] for each in status["clusters"]) == self.shards
        )
        return await self.settled()

    async def settled(self) -> float:
        """Wait until the gateway has nothing unconfirmed and rests; when it ceased to work."""
        while True:
            _, ended = await asyncio.to_thread(child.until_quiet, self.pids, quiet_ms=20.0)
            status = await self.status()
            if status and not sum(each["publisher"]["unconfirmed"] for each in status["clusters"]):
                return ended

    def _assert_running(self) -> None:
        if self.gateway.process.poll() is not None:
            raise Hung(f"the gateway has ended{self.gateway.tail()}")

    @property
    def pids(self) -> list[int]:
        return machine.tree(self.gateway.pid)

    def cpu(self) -> float:
        """CPU seconds of the gateway's processes so far."""
        return machine.cpu_ns(self.pids) / 1e9

    def pss(self, which: str = "Pss") -> int:
        """Proportional set size of them all, bytes; ``which`` as for :func:`machine.pss`."""
        return sum(machine.pss(pid, which) for pid in self.pids)


@asynccontextmanager
async def stage(
    options: SimulatorOptions, broker: str, *, folder: Path | None = None, **settings: str
) -> AsyncIterator[Stage]:
    """Simulator and gateway; ``settings`` are the gateway's variables."""
    with tempfile.TemporaryDirectory() as name:
        where = folder or Path(name)
        async with Simulator(options) as sim:
            with child.gateway(where, sim.api_url, broker, options.shards, **settings) as gateway:
                yield Stage(sim, gateway, where, options.shards)
