"""The messages of a fleet in memory: a form of ``runtime.fleet.line.Wire`` for tests that need no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rateway.runtime.fleet.line import FleetLine


class MemoryHub:
    """What carries the messages. ``loses`` says of each copy of one whether it is lost, ``lasts`` how long it is on its
    way, in seconds."""

    def __init__(self) -> None:
        self.loses: Callable[[], bool] = lambda: False
        self.lasts: Callable[[], float] = lambda: 0.0
        self.wires: dict[str, MemoryWire] = {}

    def line(self, member: str) -> FleetLine:
        """Return the line of one more member."""
        wire = self.wires[member] = MemoryWire(self)
        return FleetLine(wire, member)

    def carry(self, member: str, data: bytes) -> None:
        """Deliver to one member, or to all."""
        for name, wire in self.wires.items():
            if (member in ("", name)) and not wire.is_cut and not self.loses():
                loop, lasts = asyncio.get_running_loop(), self.lasts()
                if lasts:
                    loop.call_later(lasts, wire.deliver, data)
                else:
                    loop.call_soon(wire.deliver, data)


class MemoryWire:
    """One member's end; ``is_cut``: nothing goes in or out."""

    def __init__(self, hub: MemoryHub) -> None:
        self.is_cut = False
        self._hub = hub
        self.on_message: Callable[[bytes], None] = lambda data: None
        self.on_up: Callable[[], None] = lambda: None

    @property
    def is_up(self) -> bool:
        return not self.is_cut

    def send(self, member: str, data: bytes) -> bool:
        if self.is_cut:
            return False
        self._hub.carry(member, data)
        return True

    def deliver(self, data: bytes) -> None:
        if not self.is_cut:
            self.on_message(data)

    async def run(self) -> None:
        self.on_up()
        await asyncio.get_running_loop().create_future()
