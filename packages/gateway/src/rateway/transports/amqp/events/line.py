"""Keep a channel to publish on.

Dials, opens, declares the exchange and selects confirms; again whenever something of that is lost, for ever.
What was lost is said once, and once more when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import pamqp.commands as spec
from rateway.backoff import Backoff
from rateway.delivery.patience import Repeats
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.frames import CHANNEL
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["LineGate", "LineOwner", "keep_line"]

log = logging.getLogger(__name__)

# Between tries to reach the broker. They stay short: a try costs the broker next to nothing, and each second without it
# is a second's events on disk.
_RECONNECT: Final = Backoff(0.1, 2.0)
# A connection that breaks before it has lasted for so many seconds counts as a failed try.
_SHORT_S: Final = 2.0
# Seconds between tries when the broker refuses the connection: a setting there has to change first.
_REFUSED_DELAY: Final = 5.0
_CLOSED_BY_US: Final = 200
_NOT_FOUND: Final = 404
_PRECONDITION_FAILED: Final = 406


class LineOwner(Protocol):
    """The owner of the channel that :func:`keep_line` keeps."""

    def line_connected(self, connection: Connection) -> None:
        """Set the callbacks of a new connection and take its frame size. It has no channel yet."""

    def line_ready(self, channel: Channel) -> None:
        """Begin to publish on the channel: confirms are on, delivery tags begin at 1."""

    def line_lost(self) -> None:
        """Forget the channel: no answer to what was written on it comes any more."""

    def line_disconnected(self) -> None:
        """Forget the connection."""

    def line_outdated(self) -> None:
        """Close the channel: another one has to be opened, and until then nothing may be published."""

    def line_message_too_large(self, text: str) -> None:
        """Handle the broker's closing of the channel for a message's size; *text* is the broker's."""

    def line_state(self, up: bool, why: str) -> None:
        """Report a change: whether events are published, and why not, for the log and the status."""


class LineGate(Protocol):
    """A condition for opening a channel to publish on."""

    async def open(self, connection: Connection, say: Callable[[bool, str], None]) -> None:
        """Return once a channel that is opened after this may publish; ``say(False, why)`` when that takes long.

        Raises ConnectionLost and ChannelClosed.
        """

    async def watch(self, connection: Connection) -> None:
        """Return when another channel has to be opened. Cancelled when the channel has ended by itself."""


async def keep_line(
    owner: LineOwner,
    address: AddressSource,
    exchange: str,
    cluster: int,
    gate: LineGate | None = None,
    *,
    what: str = "events",
) -> None:
    """Keep a channel open for ``owner``, until cancelled. *what* is published on it, in words."""
    loop = asyncio.get_running_loop()
    said, delay, failures = "", 0.0, 0
    while True:
        if delay:
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
        try:
            connection = await dial(address, name=f"rateway: {what} of {exchange}")
        except BrokerUnavailable as error:
            if not said:
                said = "away"
                _say_down(owner, cluster, what, str(error))
            delay = _RECONNECT.delay(failures)
            failures += 1
            continue
        except BrokerRefused as error:
            if said != str(error):
                said = str(error)
                _say_down(owner, cluster, what, said)
            delay = _REFUSED_DELAY
            continue
        began = loop.time()
        try:
            why = await _serve(owner, connection, exchange, cluster, gate, what)
        finally:
            owner.line_disconnected()
            await connection.close()
        owner.line_lost()
        said = "away"
        _say_down(owner, cluster, what, why)
        if loop.time() - began < _SHORT_S:
            delay = _RECONNECT.delay(failures)
            failures += 1
        else:
            delay, failures = 0.0, 0


async def _serve(
    owner: LineOwner, connection: Connection, exchange: str, cluster: int, gate: LineGate | None, what: str
) -> str:
    """One connection's life; why it ended."""
    owner.line_connected(connection)
    repeats = Repeats()
    renewed = False

    def say(up: bool, why: str) -> None:
        nonlocal renewed
        renewed = False
        owner.line_state(up, why)

    while True:
        try:
            if gate is not None:
                await gate.open(connection, say)
            channel = await _open(connection, exchange)
        except ConnectionLost as lost:
            return str(lost)
        except ChannelClosed as closed:
            reason: ChannelClosed | ConnectionLost = closed
        else:
            if not renewed:
                log.info(
                    "publishing%s to %s (%s)",
                    "" if what == "events" else f" {what}",
                    exchange,
                    connection.server,
                    extra={"cluster": cluster, "action": "broker_up"},
                )
                owner.line_state(True, "")
            owner.line_ready(channel)
            reason = await _ended(owner, connection, channel, gate)
        if isinstance(reason, ConnectionLost):
            return str(reason)
        owner.line_lost()
        # The owner closes its channel to have another one.
        renewed = reason.code == _CLOSED_BY_US
        if renewed:
            continue
        owner.line_state(False, str(reason))
        delay = _closed(owner, reason, repeats, exchange, cluster)
        if delay:
            await asyncio.wait([connection.closed], timeout=delay)


async def _ended(
    owner: LineOwner, connection: Connection, channel: Channel, gate: LineGate | None
) -> ChannelClosed | ConnectionLost:
    """Why a channel has ended. One that the gate does not want any more is ended."""
    if gate is not None:
        watching = asyncio.get_running_loop().create_task(gate.watch(connection))
        try:
            either: list[asyncio.Future[Any]] = [channel.closed, watching]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not channel.closed.done():
                owner.line_outdated()
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    return await asyncio.shield(channel.closed)


async def _open(connection: Connection, exchange: str) -> Channel:
    channel = await connection.channel(CHANNEL)
    # With its reply: a publish that overtook a refused declaration would be lost on an exchange of another kind.
    await channel.call(spec.Exchange.Declare(0, exchange, "direct", durable=True), spec.Exchange.DeclareOk)
    await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    return channel


def _closed(owner: LineOwner, closed: ChannelClosed, repeats: Repeats, exchange: str, cluster: int) -> float:
    """The broker has closed the channel. Seconds to wait before the next one."""
    if closed.code == _PRECONDITION_FAILED and "message size" in closed.text:
        owner.line_message_too_large(closed.text)
    delay = repeats.happened((closed.code, re.sub(r"\d+", "", closed.text)))
    if repeats.count == 1 or repeats.loud:
        log.log(
            logging.ERROR if repeats.loud else logging.WARNING,
            "the broker closed the channel of %s: %s%s",
            exchange,
            _explained(closed, exchange),
            f" (for the {repeats.count}. time in a row; trying again)" if repeats.loud else "",
            extra={"cluster": cluster, "action": "channel_closed"},
        )
    return delay


def _explained(closed: ChannelClosed, exchange: str) -> str:
    if closed.code == _PRECONDITION_FAILED and "inequivalent" in closed.text:
        return f"{closed}. {exchange} must be a durable direct exchange: delete the other one"
    if closed.code == _NOT_FOUND and "no queue" in closed.text:
        return f"{closed}. Another event log begins"
    if closed.code == _NOT_FOUND:
        return f"{closed}. It is declared again; events find no queue on it until the workers have bound theirs again"
    return str(closed)


def _say_down(owner: LineOwner, cluster: int, what: str, why: str) -> None:
    log.warning(
        "no connection to publish%s on: %s; trying again until it is back, events wait",
        "" if what == "events" else f" {what}",
        why,
        extra={"cluster": cluster, "action": "broker_lost"},
    )
    owner.line_state(False, why)
