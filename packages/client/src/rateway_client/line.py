"""A connection to the broker that is dialled again whenever it ends, and set up again each time.

aio-pika's own robust connection restores channel by channel and cannot say that a request under way is lost; here one
broken part ends the whole connection, and every request that waits on it fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelPreconditionFailed,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ConnectionNotAllowed
from rateway_client.errors import BrokerUnavailable
from rateway_client.sound_frames import SoundFrames, Unreadable
from yarl import URL

__all__ = ["FAILURES", "Broken", "Line", "dialled", "watched"]

log = logging.getLogger(__name__)

#: What a broker that is away, or goes away, raises in aio-pika; its RuntimeError is aiormq's for a closed channel.
FAILURES: Final = (*CONNECTION_EXCEPTIONS, TimeoutError)
# These last until an operator changes a password, permissions, or a queue that was declared with other settings.
_REFUSALS: Final = (
    AuthenticationError,
    ProbableAuthenticationError,
    ConnectionNotAllowed,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelPreconditionFailed,
    ssl.SSLCertVerificationError,
)
# A broker that boots takes connections and lets them wait.
_DIAL_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.2
_MOST_PAUSE_S: Final = 5.0

#: Called when any part of the connection has broken: the whole of it is dialled again.
Broken: TypeAlias = Callable[[], None]


class Line:
    """One connection. Each time it is dialled ``opened(connection, broken)`` sets it up; ``lost()`` is called at its
    end.
    """

    def __init__(
        self,
        uri: str,
        *,
        name: str,
        ssl_context: ssl.SSLContext | None,
        opened: Callable[[AbstractConnection, Broken], Awaitable[None]],
        lost: Callable[[], None],
        unreadable: Unreadable,
    ) -> None:
        """*name* is what the broker's management page shows; *unreadable* is called for messages that are malformed."""
        self._frames = SoundFrames(unreadable)
        self._uri = uri
        self._name = name
        self._ssl_context = ssl_context
        self._opened = opened
        self._lost = lost
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trouble = "it has not answered yet"

    async def began(self, patience: float) -> None:
        """Wait for the first connection, *patience* seconds at most. Raises BrokerUnavailable with the reason."""
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._began)
        except TimeoutError:
            raise BrokerUnavailable(
                f"no connection to the broker in {patience:g} s: {self._trouble}"
            ) from None

    async def run(self) -> None:
        """Keep it until cancelled. Returns when the broker refuses the very first one: :meth:`began` raises that."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self._hold()
                log.warning(
                    "the connection to the broker broke; connecting again", extra={"action": "broker_lost"}
                )
                pause = _FIRST_PAUSE_S
            except _REFUSALS as error:
                self._trouble = f"it refuses: {_words(error)}"
                if not self._began.done():
                    self._began.set_exception(BrokerUnavailable(f"the broker refuses: {_words(error)}"))
                    return
                log.error("the broker refuses: %s", _words(error), extra={"action": "broker_refuses"})
                pause = _MOST_PAUSE_S
            except FAILURES as error:
                self._trouble = _words(error)
                log.warning("the broker does not answer: %s", self._trouble, extra={"action": "broker_away"})
                pause = min(_MOST_PAUSE_S, pause * 2)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _hold(self) -> None:
        """One connection's life; returns when it is lost."""
        connection = await dialled(
            self._uri, timeout=_DIAL_S, name=self._name, ssl_context=self._ssl_context, frames=self._frames
        )
        ended = asyncio.Event()
        try:
            connection.close_callbacks.add(lambda *_facts: ended.set())
            async with asyncio.timeout(_DIAL_S):
                await self._opened(connection, ended.set)
            if not self._began.done():
                self._began.set_result(None)
            await ended.wait()
        finally:
            self._lost()
            await connection.close()


async def dialled(
    url: str | URL,
    *,
    timeout: float,
    name: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    frames: SoundFrames | None = None,
) -> AbstractConnection:
    """Return an open connection; raises one of :data:`FAILURES` after *timeout* seconds or earlier.

    `aio_pika.connect` leaves an unreachable object of a failed dial behind: the thread that collects it begins a
    `close` that is never awaited. *name* is what the broker's management page shows. *frames*: properties that cannot
    be read, or that the gateway's events and answers do not have, are left out of a message.
    """
    connection = aio_pika.Connection(
        make_url(url),
        ssl_context=ssl_context,
        client_properties=None if name is None else {"connection_name": name},
    )
    if frames is not None:
        connection.kwargs["transport_factory"] = frames
    try:
        await connection.connect(timeout=timeout)
    except BaseException:
        await connection.close()
        raise
    return connection


async def watched(connection: AbstractConnection, broken: Broken, *, confirms: bool) -> AbstractChannel:
    """Open a channel whose end, or the broker's cancelling of a consumer on it, ends the connection."""
    channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    channel.close_callbacks.add(lambda *_facts: broken())
    underlay = await channel.get_underlay_channel()
    # The queue was deleted, or its node went away: nothing would come any more.
    underlay.on_consumer_cancel_callbacks.add(lambda _frame: broken())
    return channel


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
