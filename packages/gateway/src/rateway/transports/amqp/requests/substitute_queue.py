"""The substitute queue of a cluster: where its requests arrive while the node of the inbound queue is away.

In a fleet the election says who the owner is, so the owner need not wait for a machine to answer requests. It declares
``rateway-incoming-<i>-substitute`` on a node that is there, binds it as the inbound queue is bound, and reads it as
exclusively. Once the inbound queue is back, requests are sent there again before it is read; what is left in the
substitute is read, and it is deleted. Whoever owns the cluster later, in a fleet or not, does that with one that was
left over.

RabbitMQ 3.10 routes nothing to a queue whose node is away, and refuses to unbind it. RabbitMQ 4 goes on routing to it,
refuses each such message to a publisher that asked for a confirm, and does unbind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pamqp.commands as spec
from rateway.backoff import Backoff
from rateway.transports.amqp.requests.inbound_queue import (
    Counts,
    ask,
    classic,
    count,
    is_away,
    is_missing,
    is_taken,
)
from rateway.transports.amqp.requests.request_copies import RequestCopies, digest_of
from rateway.transports.amqp.requests.request_link import PREFETCH, RequestLink, RequestTaker
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.frames import CHANNEL
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["SubstituteQueue"]

log = logging.getLogger(__name__)

# A gateway that does not know of it binds the inbound queue and leaves this one to fill: it goes by itself.
EXPIRES_MS: Final = 3_600_000
# Each answer of the broker's.
ANSWER_S: Final = 10.0
# Between two tries: another consumer, or the substitute's own node, is in the way.
AGAIN_S: Final = 0.5
# The same where requests do not wait for it: what was left over may be on a node that is away for long.
LEFT_OVER_S: Final = 5.0
# A right at the broker has to change first.
REFUSED_S: Final = 15.0
# Between two looks whether the substitute is empty and all that came through it is dealt with. A channel that was
# publishing when it was unbound may still route to it for a moment.
EMPTY_LOOK_S: Final = 0.5
# A request that went to both queues has been read from the substitute so long after the inbound queue was unbound.
SINGLE_AFTER_S: Final = 2.0
_RECONNECT: Final = Backoff(0.1, 5.0)
# Beside the consumer's: for questions whose answer may be that the channel is closed.
_ASKING: Final = 2
_ACCESS_REFUSED: Final = 403


class SubstituteQueue:
    """Serve requests through the substitute, from :meth:`begin` to :meth:`retire`, and drain it after that."""

    def __init__(
        self,
        *,
        address: AddressSource,
        name: str,
        exchange: str,
        queue: str,
        inbound: str,
        keys: tuple[str, ...],
        taker: RequestTaker,
        on_change: Callable[[], None],
    ) -> None:
        """*queue* stands in for *inbound*. ``on_change`` is called when :attr:`words` has changed."""
        self.queue = queue
        self.words = ""
        """Since when requests come through the substitute, or why they cannot; empty when they need not."""
        self._address = address
        self._name = name
        self._exchange = exchange
        self._inbound = inbound
        self._keys = keys
        self._taker = taker
        self._on_change = on_change
        self._copies = RequestCopies()
        # Whether the inbound queue is away; whether there may be a substitute; whether it is bound.
        self._is_needed = self._exists = self._is_bound = False
        self._changed = asyncio.Event()
        # Held by whoever changes bindings: the inbound queue's connection and the substitute's both do.
        self._binding = asyncio.Lock()
        self._connection: Connection | None = None
        self._link: RequestLink | None = None
        # Copies that were dropped when the log last told of them.
        self._told_dropped = 0

    @property
    def writable(self) -> bool:
        """Whether the broker takes what is written; true without a connection."""
        return self._connection is None or self._connection.writable

    @property
    def is_serving(self) -> bool:
        """Whether requests come through the substitute now."""
        return self._is_bound and self._link is not None

    # The inbound queue's side.

    def begin(self) -> None:
        """Have requests come through the substitute from now on: the inbound queue is away."""
        if not self._is_needed:
            if not self._exists:
                self._copies.note_ended()
            self._is_needed = self._exists = True
            self._changed.set()

    def note_away(self, asked_at: float) -> None:
        """Note that RabbitMQ said, when it was asked then (the loop's time), that the inbound queue is away."""
        self._copies.note_away(asked_at)

    async def retire(
        self,
        connection: Connection,
        number: int,
        bind_inbound: Callable[[], Awaitable[None]],
        progress: Callable[[], None],
    ) -> None:
        """Bind the inbound queue, which is back, and have requests go there alone from now on; note how many it holds
        by then: they may be copies. As long as another connection reads it, the substitute goes on.

        Asks on the channel *number* of *connection*, and calls *progress* after each answer.
        """
        found = await count(connection, number, self._inbound)
        progress()
        async with self._binding:
            self._copies.note_double()
            # First this, so that no request is routed to nothing.
            await bind_inbound()
            progress()
            if not isinstance(found, Counts) or found.consumers:
                return
            was_needed, self._is_needed, self._is_bound = self._is_needed, False, False
            for key in self._keys:
                unbind = spec.Queue.Unbind(0, self.queue, self._exchange, key)
                closed = await ask(connection, number, unbind, spec.Queue.UnbindOk)
                progress()
                if closed is None:
                    continue
                if not was_needed and not is_away(closed):
                    return  # there is none
                # Where its own node is away it is bound again when it comes back.
                self._copies.notes_inbound = is_away(closed)
        found = await count(connection, number, self._inbound)
        progress()
        messages = found.messages if isinstance(found, Counts) else 0
        self._copies.hold(messages, asyncio.get_running_loop().time())
        self._exists = True
        # What becomes of the inbound queue is logged next.
        self.words = ""
        self._changed.set()

    def watch(self, link: RequestLink) -> None:
        """Drop copies among what is read from the inbound queue on *link*."""
        if not self._exists and self._copies.is_idle:
            return

        def is_copy(delivery: Delivery, told: Properties, body: bytes) -> bool:
            found = self._copies.came_through_inbound(
                digest_of(delivery, told, body),
                asyncio.get_running_loop().time(),
                redelivered=delivery.redelivered,
            )
            if not self._copies.held:
                self._tell_dropped()
            if not self._exists and self._copies.is_idle:
                link.is_copy = None
            return found

        link.is_copy = is_copy

    # The substitute's side.

    async def run(self) -> None:
        """Serve and drain, whenever there is a substitute, until cancelled. It may be run again after that."""
        failures = 0
        try:
            while True:
                while not self._exists:
                    self._changed.clear()
                    await self._changed.wait()
                try:
                    connection = await dial(self._address, name=self._name)
                except (BrokerUnavailable, BrokerRefused) as error:
                    self._say_trouble(str(error))
                    await asyncio.sleep(_RECONNECT.delay(failures) * random.uniform(0.5, 1))
                    failures += 1
                    continue
                failures = 0
                self._connection = connection
                is_refused = False
                try:
                    await self._serve(connection)
                except ChannelClosed as closed:
                    if not self._is_needed and is_missing(closed):
                        self._end()
                    else:
                        self._say_trouble(closed.text)
                        is_refused = closed.code == _ACCESS_REFUSED and not is_taken(closed)
                except ConnectionLost as lost:
                    self._say_trouble(str(lost))
                except TimeoutError:
                    self._say_trouble("the broker does not answer about it")
                finally:
                    self._drop()
                    await connection.close()
                if self._exists:
                    await self._pause(
                        REFUSED_S if is_refused else AGAIN_S if self._is_needed else LEFT_OVER_S
                    )
        finally:
            self._is_needed = self._exists = self._is_bound = False
            self.words = ""

    async def _pause(self, seconds: float) -> None:
        """Wait for so many seconds, or until the substitute is needed or is not any more."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.end()
        self._connection = None

    def _end(self) -> None:
        """Note that there is no substitute any more."""
        self._exists = self._is_needed
        self._copies.note_ended()
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if (dropped := self._copies.dropped) > self._told_dropped:
            log.info(
                "%d requests that both %s and %s had are answered once",
                dropped - self._told_dropped,
                self._inbound,
                self.queue,
                extra={"action": "ownership"},
            )
            self._told_dropped = dropped

    async def _serve(self, connection: Connection) -> None:
        """Read the substitute until it is deleted. Raises ChannelClosed, ConnectionLost and TimeoutError."""
        async with asyncio.timeout(ANSWER_S):
            channel = await connection.channel(CHANNEL)
            link = self._link = RequestLink(connection, channel, self.queue, self._taker)
            link.is_copy = self._is_copy
            if self._is_needed:
                await self._declare(connection, channel)
            else:
                await self._unbind(channel)
            await channel.call(spec.Basic.Qos(0, PREFETCH, False), spec.Basic.QosOk)
            channel.on_delivery = link.deliver
            await channel.call(
                spec.Basic.Consume(0, self.queue, "", False, False, True), spec.Basic.ConsumeOk
            )
        while True:
            self._changed.clear()
            if self._is_needed and not self._is_bound:
                await self._bind(channel)
                await self._unbind_inbound(connection)
            has_changed = await self._changes(channel, None if self._is_needed else EMPTY_LOOK_S)
            if channel.closed.done():
                raise channel.closed.result()
            if not has_changed and link.is_idle and await self._delete(channel):
                self._end()
                return

    async def _changes(self, channel: Channel, timeout: float | None) -> bool:
        """Wait for a change, or the channel's end, at most so many seconds; whether one came."""
        changing = asyncio.ensure_future(self._changed.wait())
        try:
            either: set[asyncio.Future[Any]] = {channel.closed, changing}
            done, _ = await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            changing.cancel()

    async def _declare(self, connection: Connection, channel: Channel) -> None:
        await channel.call(
            spec.Exchange.Declare(0, self._exchange, "direct", durable=True), spec.Exchange.DeclareOk
        )
        declare = classic(self.queue, {"x-expires": EXPIRES_MS})
        closed = await ask(connection, _ASKING, declare, spec.Queue.DeclareOk)
        # One with other arguments is as good; whatever else is wrong with it shows when it is read.
        if closed is not None and is_away(closed):
            raise closed

    async def _unbind(self, channel: Channel) -> None:
        for key in self._keys:
            await channel.call(spec.Queue.Unbind(0, self.queue, self._exchange, key), spec.Queue.UnbindOk)
        # What is unbound can be reached: from now on what it holds ends.
        self._copies.notes_inbound = False

    async def _bind(self, channel: Channel) -> None:
        async with self._binding, asyncio.timeout(ANSWER_S):
            if not self._is_needed:
                return
            self._copies.note_double()
            for key in self._keys:
                await channel.call(spec.Queue.Bind(0, self.queue, self._exchange, key), spec.Queue.BindOk)
            self._is_bound = True
        self._say(f"requests come through {self.queue} since {time.strftime('%H:%M:%S', time.gmtime())} UTC")

    async def _unbind_inbound(self, connection: Connection) -> None:
        """Have no copies put into the inbound queue, where RabbitMQ allows that."""
        # Not given up before its answer: done after the inbound queue is back, it would leave nothing bound.
        async with self._binding:
            if not self._is_needed:
                return
            for key in self._keys:
                unbind = spec.Queue.Unbind(0, self._inbound, self._exchange, key)
                if await ask(connection, _ASKING, unbind, spec.Queue.UnbindOk) is not None:
                    return
            self._copies.note_single(asyncio.get_running_loop().time() + SINGLE_AFTER_S)

    async def _delete(self, channel: Channel) -> bool:
        """Delete the substitute if it is empty; whether it was. One that has been filled since closes the channel."""
        async with self._binding, asyncio.timeout(ANSWER_S):
            found = await channel.call(spec.Queue.Declare(0, self.queue, passive=True), spec.Queue.DeclareOk)
            if self._is_needed or found.message_count:
                return False
            # The end of the consumer is expected.
            channel.on_cancel = lambda tag: None
            await channel.call(spec.Queue.Delete(0, self.queue, if_empty=True), spec.Queue.DeleteOk)
        return True

    def _is_copy(self, delivery: Delivery, told: Properties, body: bytes) -> bool:
        return self._copies.came_through_substitute(
            digest_of(delivery, told, body),
            asyncio.get_running_loop().time(),
            redelivered=delivery.redelivered,
        )

    def _say_trouble(self, why: str) -> None:
        if self._is_needed:
            self._is_bound = False
            self._say(f"no request is answered: {self.queue}: {why}")

    def _say(self, words: str) -> None:
        if words != self.words:
            self.words = words
            self._on_change()
