"""Commands for other gateways' clusters: each is published again, and acknowledged once the broker has it.

They have a channel of their own. A broker that refuses an exchange (another kind of exchange has that name, or the user
may not write to it) closes the channel that asked, and would deliver again all that was taken on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pamqp.commands as spec
from rateway.delivery.port import Message
from rateway.transports.amqp.requests.refused_exchanges import REFUSED_S, RefusedExchanges, is_named
from rateway.transports.amqp.wire.channel import Acks, Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Properties
from rateway_protocol.contract.topology import EXCHANGE_TYPE

__all__ = ["FORWARDING", "MOST_FORWARDED", "Forwarding"]

log = logging.getLogger(__name__)

# The channel's number: beside the consumer's, and the one that questions are asked on.
FORWARDING: Final = 3
_NOT_FOUND: Final = 404
# Messages that are under way at a time: each holds one of its queue's places, and no query may wait for one.
MOST_FORWARDED: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A message, where it goes to, and the frames that publish it there on channel :data:`FORWARDING`."""

    message: Message
    exchange: str
    frames: bytes


class Forwarding:
    """What one connection's messages are forwarded through. The channel is opened when the first one comes."""

    def __init__(
        self,
        connection: Connection,
        *,
        on_done: Callable[[Message], None],
        on_refused: Callable[[Message, str], None],
        on_return: Callable[[int, str, int, Properties], None],
    ) -> None:
        """``on_done(message)`` is called once for each message, when the broker has it or it was refused;
        ``on_refused(message, why)`` before that where it goes nowhere; ``on_return`` for what no queue took.
        """
        self._connection = connection
        self._on_done = on_done
        self._on_refused = on_refused
        self._on_return = on_return
        self._channel: Channel | None = None
        self._working: asyncio.Task[None] | None = None
        self._waiting: deque[_Parcel] = deque()
        # Published and not confirmed, by the number of the publish on this channel.
        self._flying: dict[int, _Parcel] = {}
        self._published = 0
        # Exchanges that are declared on this channel; the one that is asked for.
        self._declared: set[str] = set()
        self._asked = ""
        self._refused = RefusedExchanges()

    def send(self, message: Message, exchange: str, frames: bytes) -> None:
        """Publish *frames*, which are *message* for *exchange*."""
        parcel = _Parcel(message.envelope(), exchange, frames)
        if len(self._waiting) + len(self._flying) >= MOST_FORWARDED:
            self._refuse(parcel, f"{MOST_FORWARDED} commands wait for other gateways already")
            return
        if 0 < self._connection.channel_max < FORWARDING:
            self._refuse(parcel, f"the broker allows {self._connection.channel_max} channels on a connection")
            return
        if self._channel is not None and not self._waiting and exchange in self._declared:
            self._publish(parcel)
            return
        self._waiting.append(parcel)
        self._work()

    def end(self) -> None:
        """Nothing can be acknowledged any more: the broker delivers it again."""
        self._waiting.clear()
        self._flying.clear()
        self._asked = ""
        if self._working is not None:
            self._working.cancel()
        if self._channel is not None:
            self._channel.close()

    def _work(self) -> None:
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        while self._waiting:
            exchange = self._waiting[0].exchange
            try:
                if exchange not in self._declared and not self._refused.why(exchange):
                    await self._declare(exchange)
            except ChannelClosed:
                continue  # `_ended` has said why
            except ConnectionLost:
                return
            if self._waiting and self._waiting[0].exchange == exchange:
                parcel = self._waiting.popleft()
                if why := self._refused.why(exchange):
                    self._refuse(parcel, why)
                else:
                    self._publish(parcel)

    async def _declare(self, exchange: str) -> None:
        self._asked = exchange
        channel = self._channel
        if channel is None:
            channel = await self._connection.channel(FORWARDING)
            channel.on_acks, channel.on_nack, channel.on_return = self._acked, self._nacked, self._on_return
            channel.on_end = lambda: self._ended(channel)
            self._published = 0
            await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
            if channel.closed.done():
                raise channel.closed.result()
            self._channel = channel
        declare = spec.Exchange.Declare(0, exchange, EXCHANGE_TYPE, durable=True)
        await channel.call(declare, spec.Exchange.DeclareOk)
        if channel.closed.done():
            raise channel.closed.result()
        self._declared.add(exchange)
        self._asked = ""

    def _publish(self, parcel: _Parcel) -> None:
        self._published += 1
        self._flying[self._published] = parcel
        self._connection.write(parcel.frames)

    def _acked(self, acks: Acks) -> None:
        for tag, multiple in acks:
            for parcel in self._landed(tag, bool(multiple)):
                self._on_done(parcel.message)

    def _nacked(self, tag: int, multiple: bool) -> None:
        for parcel in self._landed(tag, multiple):
            self._refuse(parcel, "the broker could not take it")

    def _landed(self, tag: int, multiple: bool) -> list[_Parcel]:
        tags = [each for each in self._flying if each <= tag] if multiple else [tag]
        return [self._flying.pop(each) for each in tags if each in self._flying]

    def _ended(self, channel: Channel) -> None:
        """The channel has ended, for the sake of one exchange: the others' messages go out on the next one."""
        reason = channel.closed.result()
        self._channel = None
        self._declared.clear()
        flying, self._flying = list(self._flying.values()), {}
        asked, self._asked = self._asked, ""
        if isinstance(reason, ConnectionLost):
            self._waiting.clear()
            return
        suspects = {each.exchange for each in flying} | ({asked} if asked else set())
        # The broker names it.
        guilty = {each for each in suspects if is_named(each, reason)} or suspects
        if reason.code == _NOT_FOUND:
            # Somebody has deleted it: it is declared again.
            guilty -= {each.exchange for each in flying}
        for exchange in guilty:
            log.warning(
                "commands for another gateway's cluster cannot be forwarded and are answered with an error: %s. Asked "
                "again after %.0f s",
                self._refused.note(exchange, reason),
                REFUSED_S,
                extra={"action": "channel_closed"},
            )
        self._waiting.extendleft(reversed(flying))
        if self._waiting:
            self._work()

    def _refuse(self, parcel: _Parcel, why: str) -> None:
        try:
            self._on_refused(parcel.message, why)
        except Exception:
            log.exception(
                "a refused command could not be answered, a mistake of the gateway's own. Please report this",
                extra={"action": "own_fault"},
            )
        self._on_done(parcel.message)
