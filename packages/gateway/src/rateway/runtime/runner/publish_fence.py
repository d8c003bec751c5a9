"""Hold a cluster's events back while another member of the fleet may have taken the cluster over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["HOLD_MOST_S", "PublishFence"]

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
# Seconds that events wait for the right although the broker takes them: far longer than it takes to learn of a
# successor (``fleet/tenure.py``, DOUBT_S). A fleet's queue that is stuck for longer must not stop events for good.
HOLD_MOST_S: Final = 60.0


class HeldSink(Protocol):
    """What the fence needs of a cluster's sink."""

    connected: bool

    def hold(self, held: bool) -> None: ...


class PublishFence:
    """One cluster's, over all of its tenures in this process. Outside of a tenure nothing is held."""

    def __init__(
        self, number: int, sink: HeldSink, has_right: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        """*has_right*: whether no other member can own the cluster now (``fleet/port.py``). *clock*: seconds."""
        self._number = number
        self._sink = sink
        self._has_right = has_right
        self._clock = clock
        self._is_on = False
        # Since when the broker takes events and they are held.
        self._held_since: float | None = None
        self._is_overdue = False

    def begin(self) -> None:
        """A tenure begins."""
        self._is_on = True

    def end(self) -> None:
        """The tenure is over, and nothing of it waits any more."""
        self._is_on = False
        self._release()

    def look(self) -> None:
        """Hold or release, as the right is now. To be called before anything is written, too: a process that was
        frozen does not know of it.
        """
        if not self._is_on:
            return
        if self._has_right():
            self._release()
            return
        if not self._is_overdue:
            self._sink.hold(True)
        now = self._clock()
        if not self._sink.connected:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = now
        elif now - self._held_since >= HOLD_MOST_S and not self._is_overdue:
            self._is_overdue = True
            log.warning(
                "the fleet's record of this cluster is not confirmed for %.0f s, though the broker takes events: they "
                "are published all the same, and come twice if another gateway has the cluster. Is a node of RabbitMQ "
                "away, or the queue without a majority?",
                now - self._held_since,
                extra={"cluster": self._number, "action": "tenure"},
            )
            self._sink.hold(False)

    def _release(self) -> None:
        self._held_since, self._is_overdue = None, False
        self._sink.hold(False)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()
