"""The gateway proxy and real libraries behind it, as processes.

async with stage(tmp_path, broker, shards=2, EVENT_LOG="stream") as it:
    async with proxied(tmp_path, it) as proxy, bot("discord_py", tmp_path, proxy) as seen:
        await seen.until(lambda said: said["saw"] == "ready")
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rateway.demo.broker import free_ports
from rateway.demo.children import Child

from tests.e2e.harness import LOOK, STOP_PATIENCE, Stage, log_shown

__all__ = ["Bot", "Proxy", "bot", "free_port", "proxied"]

BOTS = Path(__file__).parent / "bots"
Json = dict[str, Any]


def free_port() -> int:
    """Return a port that is free now, below those of outgoing connections."""
    return free_ports(1)[0]


class Proxy(Child):
    """`rateway proxy` for the gateway of a stage, on a port that it keeps over restarts."""

    def __init__(self, folder: Path, it: Stage, name: str = "proxy", **settings: str) -> None:
        self.address = settings.get("PROXY_ADDRESS") or f"127.0.0.1:{free_port()}"
        environment = {
            "DISCORD_TOKEN": it.sim.options.token,
            "DISCORD_API_URL": it.sim.api_url,
            "AMQP_URI": it.broker.uri,
            "PROXY_ADDRESS": self.address,
            "STATE_DIR": str(folder / "none"),
        }
        super().__init__(name, ["-m", "rateway", "proxy"], environment | settings, folder / f"{name}.log")

    async def logged(self, words: str) -> str:
        """Wait until a line with *words* is in the log; that line."""
        while (found := await self.line_with(words)) is None:
            assert self.running, f"the proxy has ended without saying {words!r}"
            await asyncio.sleep(LOOK)
        return found


class Bot(Child):
    """A bot of tests/e2e/bots: what it says is kept in order."""

    def __init__(self, library: str, folder: Path, address: str, token: str, **environment: str) -> None:
        super().__init__(
            library,
            [str(BOTS / f"{library}.py")],
            {"PROXY": address, "TOKEN": token} | environment,
            folder / f"{library}.log",
        )
        self.said: list[Json] = []
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start it."""
        process = await self.start(pipe=True)
        self._reading = asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            with self.log.open("ab") as log:
                log.write(line)
            # Libraries write what they like beside the bot's own lines.
            if line.startswith(b'{"saw"'):
                self.said.append(json.loads(line))
                self._changed.set()
        await process.wait()
        self._changed.set()

    def saw(self, what: str) -> list[Json]:
        """All that it has said of one kind."""
        return [said for said in self.said if said["saw"] == what]

    async def until(self, fact: Callable[[list[Json]], bool]) -> list[Json]:
        """Wait until *fact* holds of what it has said."""
        while not fact(self.said):
            assert self.running, f"the bot has ended:\n{self.tail(60)}"
            self._changed.clear()
            await self._changed.wait()
        return self.said

    async def until_saw(self, what: str, count: int = 1) -> list[Json]:
        """Wait until it has said something of that kind so often."""
        await self.until(lambda said: sum(1 for each in said if each["saw"] == what) >= count)
        return self.saw(what)


@asynccontextmanager
async def proxied(folder: Path, it: Stage, name: str = "proxy", **settings: str) -> AsyncIterator[Proxy]:
    """A proxy that serves; it is stopped at the end and has to end in order."""
    proxy = Proxy(folder, it, name, **settings)
    await proxy.start()
    try:
        with log_shown(proxy):
            await proxy.logged("bots connect to")
            yield proxy
            if proxy.running:
                code = await proxy.terminate(STOP_PATIENCE)
                assert code == 0, f"the proxy ended with {code}"
    finally:
        await proxy.kill()


@asynccontextmanager
async def bot(library: str, folder: Path, address: str, token: str, **environment: str) -> AsyncIterator[Bot]:
    """A bot that runs until the end."""
    child = Bot(library, folder, address, token, **environment)
    await child.run()
    try:
        with log_shown(child):
            yield child
    finally:
        await child.kill()
