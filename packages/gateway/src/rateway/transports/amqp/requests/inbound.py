"""A cluster's inbound queue: own it by its exclusive consumer, read requests from it, answer them.

The second connection of a cluster (docs/contract.md, "Connections"): a broker that blocks publishers blocks their
connection alone, so that queries are answered while events wait. Consuming is exclusive: a second gateway on the
same cluster is refused by the broker until the first has left (``docs/architecture.md``, "Who owns a cluster").
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
import secrets
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import pamqp.commands as spec
from rateway.backoff import Backoff
from rateway.delivery.port import Headers, Message, Ownership, Refusal
from rateway.transports.amqp.requests.inbound_queue import (
    Away,
    Found,
    Missing,
    Refused,
    ask,
    count,
    flag,
    flag_stands,
    is_away,
    is_taken,
    lock_holds,
    look,
    make,
)
from rateway.transports.amqp.requests.request_link import PREFETCH, RequestLink, RequestTaker
from rateway.transports.amqp.requests.substitute_queue import SubstituteQueue
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.frames import CHANNEL
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["HOME_WORDS", "Inbound", "Message", "Ownership", "Refusal"]

# Before the queue is known to be ours, a few round trips to the broker.
EARLY_BYTES: Final = 16 << 20
# Another gateway's consumer leaves without a word to us: RabbitMQ refuses, and has to be asked again.
ASK_AGAIN_S: Final = 0.5
# Between two looks whether this gateway may own the queue.
MAY_LOOK_S: Final = 0.25
# A setting at the broker has to change first.
PATIENT_S: Final = 15.0
# What a broker is asked about a queue is answered at once, unless the node of that queue has stopped answering.
ANSWER_S: Final = 10.0
# After so long without an answer we are as without a broker: stored sessions do not wait. RabbitMQ 4.0 answers nothing
# about a queue whose node is down, where 3.10 says so.
SLOW_S: Final = 1.0
# In a fleet requests come through the substitute queue once the broker has not answered about the queue for so long.
STAND_IN_AFTER_S: Final = 2.0
RECONNECT: Final = Backoff(0.5, 10.0)

# Another gateway that has the name of this one's home.
HOME_WORDS: Final = "a gateway with this state folder, or a copy of it,"

# Beside the consumer's: for questions whose answer may be that the channel is closed.
_ASKING: Final = 2
_ACCESS_REFUSED, _PRECONDITION_FAILED = 403, 406


class _NotOurs(msgspec.Struct, frozen=True):
    """The reason that the queue is not owned now, and the seconds until the next try."""

    state: Ownership
    why: str
    delay: float


class _Early:
    """Deliveries that came before the ownership is known: kept, up to a bound, or given back later."""

    def __init__(self) -> None:
        self.messages: list[tuple[Delivery, Properties, bytes]] = []
        self.given_back: list[int] = []
        self._room = EARLY_BYTES

    def take(self, delivery: Delivery, told: Properties, body: bytes) -> None:
        self._room -= len(body) + len(told.headers)
        if self._room >= 0:
            self.messages.append((delivery, told, body))
        else:
            self.given_back.append(delivery.tag)


class Inbound:
    """Consume one cluster's requests over a connection of its own, which is dialled again whenever it is lost."""

    def __init__(
        self,
        *,
        address: AddressSource,
        name: str,
        exchange: str,
        queue: str,
        keys: tuple[str, ...],
        on_message: Callable[[Message], None],
        on_ownership: Callable[[Ownership, str], None],
        on_refused: Callable[[Message, Refusal], None] | None = None,
        on_writable: Callable[[], None] = lambda: None,
        on_other_live: Callable[[], None] = lambda: None,
        on_unrouted: Callable[[Message, str], None] = lambda message, why: None,
        home: str = "",
        home_words: str = HOME_WORDS,
        on_home_taken: Callable[[], None] | None = None,
        may_own: Callable[[], bool] = lambda: True,
        substitute: str = "",
        uses_substitute: bool = False,
    ) -> None:
        """``on_ownership(state, why)`` is called when the state changes, ``on_writable`` when :attr:`writable` has
        become true or a new connection begins, ``on_other_live`` each time that another gateway is found to own the
        cluster and to have sessions for it. ``on_message`` must not wait; when it raises, and for what cannot be read,
        ``on_refused(message, reason)`` is called and has to acknowledge the message (without it that is all that is
        done). ``on_unrouted(message, why)`` is called for what was forwarded to where no gateway reads, and, with the
        broker's words, for what the broker refuses there; it can be answered, and is acknowledged by others. ``home``
        names the state folder, or the fleet, and ``home_words`` another gateway with that name. ``on_home_taken`` is
        called where that other gateway has the queue, which is told as *away* then and not as *elsewhere*: something
        else decides who the owner is, and it is this gateway. The queue is not
        consumed while ``may_own()`` is false. ``substitute`` names the substitute queue, which is drained and deleted
        where one is found; with ``uses_substitute`` requests come through it while the queue is out of reach.
        """
        self._address = address
        self._name = name
        self._exchange = exchange
        self._queue = queue
        # Exclusive to the connection that holds the consumer: as long as it is there, so is that connection.
        self._flag = f"{queue}-held-{secrets.token_hex(8)}"
        # The same for all processes on one state folder, one after the other.
        self._home_flag = f"{queue}-home-{home or secrets.token_hex(8)}"
        # Of the owner whose shards have sessions, this gateway or another one.
        self._live_flag = f"{queue}-live"
        self._home_words = home_words
        self._on_home_taken = on_home_taken
        self._may_own = may_own
        self._live = False
        self._asking = False
        self.existed: bool | None = None
        """Whether the queue was there before this process: some gateway ran the cluster. None until that is known."""
        self._keys = keys
        self._taker = RequestTaker(
            on_message,
            on_refused or (lambda message, reason: self.acknowledge(message)),
            on_unrouted,
            on_writable,
        )
        # RabbitMQ's consumer_timeout in seconds, once it has closed a channel for it.
        self.consumer_timeout: float | None = None
        self._on_ownership = on_ownership
        self._on_other_live = on_other_live
        self._connection: Connection | None = None
        self._link: RequestLink | None = None
        self._said: tuple[Ownership, str] | None = None
        # Why the queue is away, without where requests come from meanwhile.
        self._away_why = ""
        self._substitute = (
            SubstituteQueue(
                address=address,
                name=f"{name}, while {queue} is away",
                exchange=exchange,
                queue=substitute,
                inbound=queue,
                keys=keys,
                taker=self._taker,
                on_change=self._say_away_again,
            )
            if substitute
            else None
        )
        self._uses_substitute = uses_substitute

    async def run(self) -> None:
        """Own the queue, or wait until that is possible, until cancelled. It may be run again after that."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._substitute is not None:
                    tasks.create_task(self._substitute.run(), name=f"substitute of {self._queue}")
                await self._run()
        finally:
            self._said = None

    @property
    def stands_in(self) -> bool:
        """Whether requests come through the substitute queue: this gateway is the owner, and answers."""
        return self._substitute is not None and self._substitute.is_serving

    async def readers(self) -> int | None:
        """Return how many consumers the queue has, this one too; None when there is no queue, 0 when that cannot be
        found out.
        """
        try:
            connection = await dial(self._address, name=self._name)
        except (BrokerUnavailable, BrokerRefused):
            return 0
        try:
            found = await count(connection, _ASKING, self._queue, timeout=ANSWER_S)
            if isinstance(found, Missing):
                return None
            return 0 if isinstance(found, Away) else found.consumers
        except (ConnectionLost, TimeoutError):
            return 0
        finally:
            await connection.close()

    async def _run(self) -> None:
        delay, failures = 0.0, 0
        while True:
            if delay:
                await asyncio.sleep(delay)
            try:
                connection = await dial(self._address, name=self._name)
            except BrokerUnavailable as error:
                self._say("away", str(error))
                delay = RECONNECT.delay(failures) * random.uniform(0.5, 1)
                failures += 1
                continue
            except BrokerRefused as error:
                self._say("refused", str(error))
                delay = PATIENT_S
                continue
            failures = 0
            try:
                delay = await self._hold(connection)
            finally:
                self._drop()
                await connection.close()

    async def _hold(self, connection: Connection) -> float:
        """One connection's life. Returns after how many seconds to try again."""
        owned = False
        while True:
            while not self._may_own():
                await asyncio.wait([connection.closed], timeout=MAY_LOOK_S)
                if connection.closed.done():
                    self._say("away", connection.closed.result())
                    return ASK_AGAIN_S
            try:
                channel, refusal = await self._try(connection)
            except TimeoutError:
                self._say_silent()
                return ASK_AGAIN_S
            except ChannelClosed as closed:
                self._drop()
                if not is_taken(closed):
                    delay = self._refused(closed)
                else:
                    delay = await self._taken(connection)
                    if owned:
                        # The flags of this connection would say that we are the owner.
                        return delay
            except ConnectionLost as lost:
                self._say("away", str(lost))
                return ASK_AGAIN_S
            else:
                if refusal is None:
                    owned = True
                    self._say("owned", "")
                    reason = await asyncio.shield(channel.closed)
                    self._drop()
                    if isinstance(reason, ConnectionLost):
                        self._say("away", str(reason))
                        return 0.1
                    delay = self._refused(reason)
                else:
                    self._drop()
                    self._say(refusal.state, refusal.why)
                    delay = refusal.delay
            await asyncio.sleep(delay)
            if connection.closed.done():
                self._say("away", connection.closed.result())
                return 0.1

    async def _try(self, connection: Connection) -> tuple[Channel, _NotOurs | None]:
        """Open a channel and own the queue on it, or say why not. TimeoutError when the broker does not answer."""
        late = asyncio.get_running_loop().call_later(SLOW_S, self._say_silent)
        self._asking = True
        try:
            async with asyncio.timeout(ANSWER_S) as bound:
                channel = await connection.channel(CHANNEL)
                # What waits in the queue is delivered with the broker's word that we consume, before we have read
                # that: it is answered on this channel.
                self._connection = connection
                link = self._link = RequestLink(connection, channel, self._queue, self._taker)
                refusal = await self._own(connection, link, bound)
                if refusal is not None:
                    channel.close()
                    await asyncio.shield(channel.closed)
            return channel, refusal
        finally:
            self._asking = False
            late.cancel()

    def _say_silent(self) -> None:
        """Log that the broker does not answer; not for a cluster that another gateway runs."""
        if self._said is None or self._said[0] != "elsewhere":
            words = "the broker does not answer about it, its node may be down or silent"
            self._say("away", f"{self._queue} is out of reach: {words}")

    def _drop(self) -> None:
        """Forget the channel, which has ended: nothing can be answered on it."""
        link, self._link = self._link, None
        if link is not None:
            link.end()

    async def bind_again(self) -> None:
        """Bind the queue to the exchange, which may have been deleted and declared again: its bindings are gone
        then, and the channel that consumes gets no notice of it.
        """
        link = self._link
        if link is not None and self._said == ("owned", ""):
            # A channel that ends meanwhile is noticed, and replaced, where it is held.
            with contextlib.suppress(ChannelClosed, ConnectionLost):
                await self._bind(link.channel)

    async def _bind(self, channel: Channel) -> None:
        for key in self._keys:
            await channel.call(spec.Queue.Bind(0, self._queue, self._exchange, key), spec.Queue.BindOk)

    async def _own(
        self, connection: Connection, link: RequestLink, bound: asyncio.Timeout
    ) -> _NotOurs | None:
        """Consume exclusively and make sure of it; None when the queue is ours. ChannelClosed when it is taken.

        *bound* is for one answer, and begins again with each: a slow broker is no silent one.
        """

        def progress() -> None:
            bound.reschedule(asyncio.get_running_loop().time() + ANSWER_S)

        channel = link.channel
        await channel.call(
            spec.Exchange.Declare(0, self._exchange, "direct", durable=True), spec.Exchange.DeclareOk
        )
        progress()
        asked_at = asyncio.get_running_loop().time()
        stand_in = asyncio.get_running_loop().call_later(STAND_IN_AFTER_S, self._stand_in)
        try:
            found = await look(connection, _ASKING, self._queue)
        finally:
            stand_in.cancel()
        progress()
        if self.existed is None and isinstance(found, Found | Missing):
            self.existed = isinstance(found, Found)
        if isinstance(found, Missing):
            found = await make(connection, _ASKING, self._queue)
        if isinstance(found, Away):
            self._stand_in()
            if self._substitute is not None:
                self._substitute.note_away(asked_at)
            return _NotOurs("away", f"{self._queue} is out of reach: {found.words}", ASK_AGAIN_S)
        if isinstance(found, Refused):
            return self._queue_refused(found.closed)
        if self._substitute is None:
            await self._bind(channel)
        else:
            bind = functools.partial(self._bind, channel)
            await self._substitute.retire(connection, _ASKING, bind, progress)
        progress()
        await channel.call(spec.Basic.Qos(0, PREFETCH, False), spec.Basic.QosOk)
        # A gateway that is not the owner answers nothing: until that is known, what comes is only kept.
        early = _Early()
        channel.on_delivery = early.take
        await channel.call(spec.Basic.Consume(0, self._queue, "", False, False, True), spec.Basic.ConsumeOk)
        progress()
        holds = await lock_holds(connection, _ASKING, self._queue)
        if holds is not True:
            return self._unlocked(found, holds)
        for name in (self._flag, self._home_flag, *([self._live_flag] if self._live else ())):
            progress()
            await ask(connection, _ASKING, flag(name), spec.Queue.DeclareOk)
        if self._substitute is not None:
            self._substitute.watch(link)
        channel.on_delivery = link.deliver
        for message in early.messages:
            link.deliver(*message)
        for tag in early.given_back:
            link.give_back(tag)
        return None

    async def tell_live(self) -> None:
        """Let other gateways know that shards of this cluster have sessions here, as long as the queue is ours."""
        self._live = True
        connection = self._connection
        # While a call waits for its answer, the exception ends that call.
        if connection is not None and self._said == ("owned", "") and not self._asking:
            with contextlib.suppress(ConnectionLost, TimeoutError):
                await ask(connection, _ASKING, flag(self._live_flag), spec.Queue.DeclareOk, timeout=ANSWER_S)

    def tell_idle(self) -> None:
        """Stop telling other gateways of sessions: the shards of this cluster have no connections here any more."""
        self._live = False

    def _unlocked(self, found: Found, holds: ChannelClosed | Literal[False]) -> _NotOurs:
        kind = f"a {found.kind} queue" if found.kind else "a queue"
        if holds is False:
            why = (
                f"{self._queue} is {kind} that lets two exclusive consumers read it: two gateways could both own the "
                "cluster. Delete it, and it is declared again as a classic queue: rabbitmqctl delete_queue "
                f"{self._queue}"
            )
        else:
            why = f"whether {self._queue}, {kind}, is ours alone cannot be found out: {holds}"
        return _NotOurs("refused", why, PATIENT_S)

    def _queue_refused(self, closed: ChannelClosed) -> _NotOurs:
        """Report the broker's refusal of the queue's declaration."""
        if closed.code == _PRECONDITION_FAILED:
            why = (
                f"{self._queue} exists with other properties ({closed.text}). Delete what an older version left: "
                f"rabbitmqctl delete_queue {self._queue}"
            )
        else:
            why = f"the broker refuses {self._queue}: {closed}"
        return _NotOurs("refused", why, PATIENT_S)

    async def _taken(self, connection: Connection) -> float:
        """Report which gateway consumes exclusively, as far as the flags tell; return seconds until the next try."""
        try:
            if await flag_stands(connection, _ASKING, self._flag, timeout=ANSWER_S):
                self._say(
                    "away",
                    f"our former connection still reads {self._queue}: the broker has not missed it yet",
                )
            elif await flag_stands(connection, _ASKING, self._home_flag, timeout=ANSWER_S):
                words = f"{self._home_words} still reads {self._queue}"
                if self._on_home_taken is not None:
                    self._on_home_taken()
                self._say("elsewhere" if self._on_home_taken is None else "away", words)
            else:
                self._say("elsewhere", f"another gateway reads {self._queue}")
                if await flag_stands(connection, _ASKING, self._live_flag, timeout=ANSWER_S):
                    self._on_other_live()
        except (ConnectionLost, TimeoutError):
            # The next try finds out.
            pass
        return ASK_AGAIN_S

    def _refused(self, closed: ChannelClosed) -> float:
        if is_away(closed):
            self._say("away", f"{self._queue} is out of reach: {closed.text}")
            return ASK_AGAIN_S
        if closed.code == _PRECONDITION_FAILED and (timeout := _acknowledgement_timeout(closed)) is not None:
            self.consumer_timeout = timeout
            self._say(
                "away",
                f"RabbitMQ closed the channel of {self._queue}, because a command waited for longer than its "
                f"consumer_timeout of {timeout:g} s ({closed.text}). Set consumer_timeout in rabbitmq.conf well above "
                "COMMAND_DEADLINE_MAX, or COMMAND_DEADLINE_MAX below it; from now on commands wait half of it at most",
            )
            return ASK_AGAIN_S
        if closed.code == _PRECONDITION_FAILED and "inequivalent arg" in closed.text:
            self._say(
                "refused",
                f"{self._exchange} exists with other properties ({closed.text}). Delete what an older version left",
            )
            return PATIENT_S
        if closed.code == 200:
            return ASK_AGAIN_S
        self._say("refused", f"the broker closed the channel of {self._queue}: {closed}")
        return PATIENT_S if closed.code == _ACCESS_REFUSED else ASK_AGAIN_S

    def _stand_in(self) -> None:
        """Have requests come through the substitute: the queue is out of reach."""
        if self._substitute is not None and self._uses_substitute:
            self._substitute.begin()

    def _say_away_again(self) -> None:
        """Say once more that the queue is away: where requests come from meanwhile has changed."""
        if self._said is not None and self._said[0] == "away":
            self._say("away", self._away_why)

    def _say(self, state: Ownership, why: str) -> None:
        if state == "away":
            self._away_why = why
            if self._substitute is not None and self._substitute.words:
                why = f"{why}; {self._substitute.words}"
        if self._said != (state, why):
            self._said = (state, why)
            self._on_ownership(state, why)

    @property
    def writable(self) -> bool:
        """Whether the broker takes what is written; true without a connection."""
        own = self._connection is None or self._connection.writable
        return own and (self._substitute is None or self._substitute.writable)

    def acknowledge(self, message: Message) -> None:
        """Acknowledge a message; once its connection has ended, the broker delivers it again."""
        if isinstance(message.origin, RequestLink):
            message.origin.acknowledge(message)

    def answer(self, message: Message, body: bytes, headers: Headers) -> None:
        """Send an answer to the message's ``reply_to``: transient, and gone after a minute if it is not fetched."""
        if isinstance(message.origin, RequestLink):
            message.origin.answer(message, body, headers)

    def publish(self, message: Message, exchange: str, key: str, body: bytes, headers: Headers) -> None:
        """Send an answer under a routing key of at most 255 bytes, as the original rateway did."""
        if isinstance(message.origin, RequestLink):
            message.origin.publish(message, exchange, key, body, headers)

    def forward(self, message: Message, exchange: str, headers: bytes) -> bool:
        """Publish the message again, as it is but for its headers, to the same key of another exchange.

        See :meth:`RequestLink.forward`, which acknowledges it.
        """
        if not isinstance(message.origin, RequestLink):
            return True
        return message.origin.forward(message, exchange, headers)


def _acknowledgement_timeout(closed: ChannelClosed) -> float | None:
    """Return RabbitMQ's consumer_timeout in seconds, if that is why it closed the channel.

    It says: ``PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms.``
    """
    if "delivery acknowledgement" not in closed.text or "timed out" not in closed.text:
        return None
    told = re.search(r"value used: (\d{1,12})", closed.text)
    # Without the number: RabbitMQ's default from 3.8.17 on.
    return int(told[1]) / 1000 if told is not None else 1800.0
