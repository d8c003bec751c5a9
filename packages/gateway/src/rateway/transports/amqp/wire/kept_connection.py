"""Keep a connection to the broker: dial again whenever it is lost, and log each trouble once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias

from rateway.backoff import Backoff
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["KeptConnection", "Trouble"]

log = logging.getLogger(__name__)

Trouble: TypeAlias = Literal["disconnected", "refused"]
"""Why there is no connection: no broker answers, or the broker refuses the user."""

# Seconds between attempts. They stay short: an attempt costs the broker next to nothing.
_RECONNECT: Final = Backoff(0.1, 2.0)
# Until a user, a password or a virtual host was changed at the broker.
_REFUSED_S: Final = 5.0


class KeptConnection:
    """A connection that :meth:`run` keeps.

    *name* is what the broker's management shows. *lost* and *back* are log messages, each with one ``%s``: the reason,
    and the server.
    """

    def __init__(self, address: AddressSource, name: str, *, lost: str, back: str) -> None:
        self._address = address
        self._name = name
        self._lost = lost
        self._back = back
        # What was logged last; empty while all is well.
        self._said = ""

    async def run(
        self,
        serve: Callable[[Connection], Awaitable[str]],
        on_trouble: Callable[[Trouble, str], None] = lambda trouble, text: None,
    ) -> None:
        """Connect, and connect again, until cancelled.

        Args:
            serve: Uses a connection until it has ended; returns why it ended, fit for a log line; empty when that is
                not worth one.
            on_trouble: Called for each attempt that fails.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                connection = await dial(self._address, name=self._name)
            except BrokerRefused as error:
                self._say(str(error))
                on_trouble("refused", str(error))
                await asyncio.sleep(_REFUSED_S)
                continue
            except BrokerUnavailable as error:
                self._say(str(error))
                on_trouble("disconnected", str(error))
                await self._pause(failures)
                failures += 1
                continue
            began = loop.time()
            try:
                reason = await serve(connection)
            finally:
                await connection.close()
            if reason:
                self._say(reason)
            # A connection that breaks as soon as it is up is not dialled in a circle.
            failures = failures + 1 if loop.time() - began < _RECONNECT.longest else 0
            if failures:
                await self._pause(failures)

    def say_back(self, connection: Connection) -> None:
        """Log that all is well, if a trouble was logged."""
        if self._said:
            self._said = ""
            log.info(self._back, connection.server, extra={"action": "broker_up"})

    def _say(self, why: str) -> None:
        if why != self._said:
            self._said = why
            log.warning(self._lost, why, extra={"action": "broker_lost"})

    @staticmethod
    async def _pause(failures: int) -> None:
        await asyncio.sleep(_RECONNECT.delay(failures) * random.uniform(0.5, 1.0))
