"""Report to the service manager: READY once every cluster has started, then signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Condition", "Manager", "keep_informed"]

LOOK_EVERY_S = 5.0
# Until READY `systemctl start` waits.
LOOK_FIRST_S = 0.5


@dataclass(frozen=True, slots=True)
class Condition:
    """The gateway in a service manager's terms. ``begun``: configuration, Discord and broker accepted it."""

    begun: bool
    stopping: bool
    live: bool
    words: str


class Manager(Protocol):
    """``transports.systemd.Notifier``."""

    watchdog_s: float | None

    def tell(self, **fields: str) -> bool:
        """Lines of ``NAME=value``."""


async def keep_informed(manager: Manager, look: Callable[[], Awaitable[Condition]]) -> None:
    """Report to the service manager, until cancelled. Its watchdog is not fed while an event loop stands still."""
    ready = stopping = False
    every = LOOK_EVERY_S if manager.watchdog_s is None else min(LOOK_EVERY_S, manager.watchdog_s / 4)
    while True:
        now = await look()
        fields = {"STATUS": now.words}
        if now.begun and not ready:
            fields["READY"] = "1"
        if now.stopping and not stopping:
            fields["STOPPING"] = "1"
        if now.live:
            fields["WATCHDOG"] = "1"
        if manager.tell(**fields):
            ready, stopping = ready or now.begun, stopping or now.stopping
        await asyncio.sleep(every if ready else min(every, LOOK_FIRST_S))
