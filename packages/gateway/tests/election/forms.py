"""The forms of the election's port, as its tests use them: members, and the end and return of their connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

from rateway.demo.relay import Relay
from rateway.fleet.port import RIGHT_S, Elections
from rateway.transports.amqp.fleet_queues import FleetQueues
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.boot_clock import boottime
from tests.election.memory import Coordinator, MemoryElections
from tests.proxy.virtual_time import run as run_virtually

from tests.aio import run as run_now


class Form(Protocol):
    """One fleet of a form, for one test."""

    @property
    def at_once_s(self) -> float:
        """Within so many seconds a subject that was released has its next owner, who waits for no right to end."""

    async def member(self, name: str) -> Elections:
        """A member that is connected."""

    async def cut(self, name: str) -> None:
        """End a member's connection to the coordinator, and let no other one come about."""

    async def heal(self, name: str) -> None:
        """Let the member connect again."""

    def now(self) -> float:
        """Seconds of the clock of `confirmed_at`."""

    def run(self, scene: Callable[[], Awaitable[None]]) -> None:
        """Run a test to its end."""


class MemoryForm:
    at_once_s = RIGHT_S

    def __init__(self) -> None:
        self._coordinator = Coordinator()
        self._members: dict[str, MemoryElections] = {}

    async def member(self, name: str) -> Elections:
        member = self._members[name] = self._coordinator.member(name)
        return member

    async def cut(self, name: str) -> None:
        self._members[name].cut()

    async def heal(self, name: str) -> None:
        self._members[name].heal()

    def now(self) -> float:
        return self._coordinator.clock()

    def run(self, scene: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await scene()

        run_virtually(whole())


class QueueForm:
    """Each member speaks to the broker through a relay of its own."""

    # The broker shares its machine with other work; that no right is waited for is seen in the other form's time.
    at_once_s = 60.0

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._relays: dict[str, Relay] = {}
        self._stack = AsyncExitStack()

    async def member(self, name: str) -> Elections:
        address = parse(self._uri)
        relay = self._relays[name] = await self._stack.enter_async_context(Relay(address.host, address.port))
        through = parse(self._uri.replace(f":{address.port}/", f":{relay.port}/"))
        member = FleetQueues(address=through, fleet="test", member=name)
        running = asyncio.ensure_future(member.run())
        self._stack.push_async_callback(_end, running)
        return member

    async def cut(self, name: str) -> None:
        self._relays[name].refuse(True)

    async def heal(self, name: str) -> None:
        self._relays[name].refuse(False)

    def now(self) -> float:
        return boottime()

    def run(self, scene: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with self._stack:
                await scene()

        run_now(whole())


async def _end(running: asyncio.Future[None]) -> None:
    running.cancel()
    await asyncio.wait([running])
