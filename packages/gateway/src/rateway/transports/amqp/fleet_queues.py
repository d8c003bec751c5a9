"""The election over RabbitMQ: one quorum queue with a single active consumer for each subject of a fleet.

What is decided is in ``rateway.fleet.tenure``; here are the connection, a channel for each subject, and the clock. A
record is published on the channel that consumes its queue: a member that the broker has dropped cannot write.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import pamqp.commands as spec
from pamqp import frame as framing
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from rateway.backoff import Backoff
from rateway.fleet import tenure
from rateway.fleet.port import MOST_BODY, FleetRecord, Owned, WriteResult, is_subject
from rateway.fleet.tenure import QUEUE_LENGTH, SubjectElection
from rateway.transports.amqp.requests.inbound_queue import is_away
from rateway.transports.amqp.wire.channel import Acks, Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.kept_connection import KeptConnection
from rateway.transports.amqp.wire.uri import AddressSource
from rateway.transports.boot_clock import boottime

__all__ = ["FleetQueues", "lacks_quorum_queues", "queue_of"]

log = logging.getLogger(__name__)

# A declaration with other arguments is refused for ever, so these are the same in all versions.
_ARGUMENTS: Final[dict[str, str | int | bool]] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    # A queue that nobody reads keeps little.
    "x-max-length": QUEUE_LENGTH,
    # RabbitMQ 4 drops a message after twenty returns by default: a record outlives any number of owners.
    "x-delivery-limit": 1_000_000_000,
}
_FIRST_WITH_QUORUM_QUEUES: Final = (3, 8)
_VERSION: Final = re.compile(r"RabbitMQ (\d+)\.(\d+)")
# Beside its body a record has some hundred bytes.
_MOST_RECORD: Final = MOST_BODY + 4096
# Between two channels of one subject, in seconds: the queue's node is away; the broker refuses.
_AGAIN: Final = Backoff(0.1, 1.0)
_REFUSED_S: Final = 5.0
# What a channel is asked when it opens and closes is answered within milliseconds, on a machine that has no rest within
# seconds. A channel whose queue has lost its leader in the middle of it may never answer: then the connection is given
# up, for such a channel may still hold the records.
_ANSWER_S: Final = 20.0
# RabbitMQ 3.10 closes the connections of members that declare one queue at the same moment. The next try finds the
# queue; only a second one within so many seconds is something else.
_COLLISION: Final = "541 INTERNAL_ERROR"
_COLLISION_AGAIN_S: Final = 60.0
_FRAME_OVERHEAD: Final = 8
_PERSISTENT: Final = 2
_CLOSED_BY_US, _ACCESS_REFUSED, _PRECONDITION_FAILED = 200, 403, 406

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FleetRecord).decode


def lacks_quorum_queues(server: str) -> bool:
    """Whether a broker is known to be too old for quorum queues. Others than RabbitMQ are tried."""
    found = _VERSION.match(server)
    return found is not None and (int(found[1]), int(found[2])) < _FIRST_WITH_QUORUM_QUEUES


def queue_of(fleet: str, subject: str) -> str:
    """Return the name of the queue that holds the records of a subject."""
    return f"rateway-fleet-{fleet}-{subject}"


@dataclass(eq=False)
class _Subject:
    name: str
    queue: str
    election: SubjectElection
    channel: Channel | None = None
    """The one that consumes."""
    won: asyncio.Future[Owned] | None = None
    released: asyncio.Future[bool] | None = None
    on_lost: Callable[[str], None] = lambda why: None
    writes: dict[int, asyncio.Future[WriteResult]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    keeper: asyncio.Task[None] | None = None
    reopen_after: float = 0.0
    has_unreadable: bool = False
    """Whether that was logged."""


class FleetQueues:
    """One member's :class:`~rateway.fleet.port.Elections`, over a connection of its own, which :meth:`run` keeps.

    Args:
        address: The broker's.
        fleet: Its name.
        member: This member's id, another for each process that campaigns for the same subject.
        clock: Counts the time that the machine is suspended.
    """

    def __init__(
        self,
        *,
        address: AddressSource,
        fleet: str,
        member: str,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.unreadable = 0
        """Messages in the queues that were no records."""
        self._fleet = fleet
        self._member = member
        # A process that is started again must not take the claims of the one before for its own.
        self._nonce = secrets.token_bytes(8)
        self._clock = clock
        self._kept = KeptConnection(
            address,
            f"rateway: fleet {fleet}",
            lost="the fleet's records cannot be written: %s; trying again until they can",
            back="the fleet's records can be written again (%s)",
        )
        self._subjects: dict[str, _Subject] = {}
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._channels: set[int] = set()
        self._waiters = itertools.count(1)
        self._collided_at = -_COLLISION_AGAIN_S
        # Troubles that were logged, until a channel was opened.
        self._said: set[str] = set()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled; the port's calls wait for it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._running.set()
                await self._kept.run(self._serve)
        finally:
            self._running.clear()
            self._connected.clear()
            self._group = self._connection = None
            for subject in self._subjects.values():
                if subject.timer is not None:
                    subject.timer.cancel()

    # The port.

    async def campaign(self, subject: str, on_lost: Callable[[str], None]) -> Owned:
        if not is_subject(subject):
            raise ValueError(f"{subject!r} is no subject")
        await self._running.wait()
        found = self._subjects.get(subject)
        if found is None:
            found = _Subject(
                subject, queue_of(self._fleet, subject), SubjectElection(self._member, self._nonce)
            )
            self._subjects[subject] = found
        found.election.campaign()
        won: asyncio.Future[Owned] = asyncio.get_running_loop().create_future()
        found.won = won
        found.on_lost = on_lost
        self._keep(found)
        try:
            return await won
        except asyncio.CancelledError:
            if won.cancelled() or not won.done():
                self._carry_out(found, found.election.withdraw())
            else:
                # It was won in the same moment: whoever is next need not wait for the right to end.
                owned = won.result()
                body = b"" if owned.record is None else owned.record.body
                self._carry_out(found, found.election.release(self._clock(), owned.epoch, body, ""))
            raise

    async def write(self, subject: str, epoch: int, body: bytes) -> WriteResult:
        if len(body) > MOST_BODY:
            raise ValueError(f"a record of {len(body)} bytes, above {MOST_BODY}")
        found = self._subjects.get(subject)
        if found is None:
            return "stale"
        waiter = next(self._waiters)
        answer: asyncio.Future[WriteResult] = asyncio.get_running_loop().create_future()
        found.writes[waiter] = answer
        try:
            self._carry_out(found, found.election.write(self._clock(), epoch, body, waiter))
            return await answer
        finally:
            del found.writes[waiter]

    async def release(self, subject: str, epoch: int, body: bytes, to: str = "") -> bool:
        if len(body) > MOST_BODY:
            raise ValueError(f"a record of {len(body)} bytes, above {MOST_BODY}")
        found = self._subjects.get(subject)
        if found is None or found.election.epoch != epoch or found.released is not None:
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        found.released = answer
        try:
            self._carry_out(found, found.election.release(self._clock(), epoch, body, to))
            return await answer
        finally:
            found.released = None

    def confirmed_at(self, subject: str) -> float | None:
        found = self._subjects.get(subject)
        return None if found is None else found.election.confirmed_at

    # The connection.

    async def _serve(self, connection: Connection) -> str:
        """One connection's life; why it ended."""
        self._channels = set()
        self._connection = connection
        self._connected.set()
        self._kept.say_back(connection)
        try:
            reason = await asyncio.shield(connection.closed)
        finally:
            self._connected.clear()
            self._connection = None
        now = asyncio.get_running_loop().time()
        if _COLLISION in reason:
            before, self._collided_at = self._collided_at, now
            if now - before >= _COLLISION_AGAIN_S:
                log.debug("%s; trying again", reason, extra={"action": "broker_lost"})
                return ""
        return reason

    # A subject's channel.

    def _keep(self, subject: _Subject) -> None:
        """Have a channel kept open as long as the subject wants one."""
        assert self._group is not None
        if subject.keeper is None or subject.keeper.done():
            subject.keeper = self._group.create_task(self._keep_channel(subject))

    async def _keep_channel(self, subject: _Subject) -> None:
        failures = 0
        while not subject.election.is_idle:
            pause, subject.reopen_after = subject.reopen_after, 0.0
            if pause:
                await asyncio.sleep(pause)
            await self._connected.wait()
            connection, channels = self._connection, self._channels
            if connection is None or connection.closed.done():
                # Its end is about to be noticed.
                await asyncio.sleep(0)
                continue
            number = next(each for each in itertools.count(1) if each not in channels)
            channels.add(number)
            reason: ChannelClosed | ConnectionLost
            channel: Channel | None = None
            try:
                async with asyncio.timeout(_ANSWER_S):
                    channel = await self._consume(connection, number, subject)
                reason = await asyncio.shield(channel.closed)
            except (ChannelClosed, ConnectionLost) as closed:
                reason = closed
            except TimeoutError:
                self._give_up(connection, subject)
                continue
            finally:
                channels.discard(number)
                if channel is not None:
                    channel.close()
            if isinstance(reason, ConnectionLost):
                continue
            if reason.code == _CLOSED_BY_US:
                failures = 0
                continue
            self._say(subject, reason)
            subject.reopen_after = _REFUSED_S if _is_refusal(reason) else _AGAIN.delay(failures)
            failures += 1

    async def _consume(self, connection: Connection, number: int, subject: _Subject) -> Channel:
        """Open a channel that consumes the subject's queue."""
        channel = await connection.channel(number)
        channel.body_max = _MOST_RECORD
        early: list[tuple[Delivery, Properties, bytes]] | None = []

        def delivered(delivery: Delivery, properties: Properties, body: bytes) -> None:
            if early is not None:
                # The answer to basic.consume has come with it.
                early.append((delivery, properties, body))
            elif subject.channel is channel:
                record = None if properties.fault is not None else self._record_of(subject, body)
                self._carry_out(subject, subject.election.delivered(self._clock(), delivery.tag, record))

        channel.on_delivery = delivered
        await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
        declare = spec.Queue.Declare(0, subject.queue, durable=True, arguments=_ARGUMENTS)  # type: ignore[arg-type]  # pamqp's table type is closed over its own values
        declared = await channel.call(declare, spec.Queue.DeclareOk)
        is_empty = not declared.message_count and not declared.consumer_count
        cancelled: list[str] = []
        channel.on_cancel = cancelled.append
        await channel.call(spec.Basic.Consume(0, subject.queue), spec.Basic.ConsumeOk)
        if channel.closed.done():
            raise channel.closed.result()
        if cancelled or subject.election.is_idle:
            self._close(subject, channel)
            return channel
        self._said.clear()
        subject.channel = channel

        def acks(found: Acks) -> None:
            for tag, multiple in found:
                if subject.channel is channel:
                    self._carry_out(subject, subject.election.confirmed(self._clock(), tag, bool(multiple)))

        def nack(tag: int, multiple: bool) -> None:
            if subject.channel is channel:
                self._carry_out(subject, subject.election.refused(tag, multiple))

        def end() -> None:
            if subject.channel is channel:
                subject.channel = None
                self._carry_out(subject, subject.election.closed(self._clock()))

        channel.on_acks, channel.on_nack, channel.on_end = acks, nack, end
        channel.on_cancel = lambda consumer: self._cancelled(subject, channel)
        self._carry_out(subject, subject.election.opened(self._clock(), is_empty))
        waiting, early = early or [], None
        for each in waiting:
            delivered(*each)
        return channel

    def _cancelled(self, subject: _Subject, channel: Channel) -> None:
        """The queue was deleted, or its node stopped: another channel finds out."""
        if subject.channel is channel:
            subject.channel = None
            self._carry_out(subject, subject.election.closed(self._clock()))
        self._close(subject, channel)

    def _record_of(self, subject: _Subject, body: bytes) -> FleetRecord | None:
        try:
            return _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.unreadable += 1
            if not subject.has_unreadable:
                subject.has_unreadable = True
                log.warning(
                    "a message in %s is no record of the fleet's and is dropped, as others of that kind will be: %s. "
                    "Nobody else may publish to that queue",
                    subject.queue,
                    error,
                    extra={"action": "fleet_record_unreadable"},
                )
            return None

    # What the election orders.

    def _carry_out(self, subject: _Subject, orders: list[tenure.Order]) -> None:
        for order in orders:
            match order:
                case tenure.Publish(record):
                    self._publish(subject, record)
                case tenure.Acknowledge(tags):
                    if subject.channel is not None:
                        for tag in tags:
                            subject.channel.send(spec.Basic.Ack(tag))
                case tenure.Close():
                    self._leave(subject, 0.0)
                case tenure.Reopen(after):
                    self._leave(subject, after)
                case tenure.Won(owned):
                    if subject.won is not None and not subject.won.done():
                        subject.won.set_result(owned)
                case tenure.Lost(why):
                    # After the campaign has returned, should that be now.
                    asyncio.get_running_loop().call_soon(subject.on_lost, why)
                case tenure.Answer(waiter, result):
                    answer = subject.writes.get(waiter)
                    if answer is not None and not answer.done():
                        answer.set_result(result)
                case tenure.Released(confirmed):
                    if subject.released is not None and not subject.released.done():
                        subject.released.set_result(confirmed)
        self._wind(subject)

    def _wind(self, subject: _Subject) -> None:
        """Set the timer of the election's next tick."""
        if subject.timer is not None:
            subject.timer.cancel()
            subject.timer = None
        at = subject.election.wake_at()
        if at is not None and self._group is not None:
            loop = asyncio.get_running_loop()
            subject.timer = loop.call_later(max(0.0, at - self._clock()), self._tick, subject)

    def _tick(self, subject: _Subject) -> None:
        self._carry_out(subject, subject.election.tick(self._clock()))

    def _leave(self, subject: _Subject, reopen_after: float) -> None:
        """Close the channel: its consumer is gone, and what it has not acknowledged is the next one's."""
        channel, subject.channel = subject.channel, None
        subject.reopen_after = reopen_after
        if channel is not None:
            self._close(subject, channel)

    def _close(self, subject: _Subject, channel: Channel) -> None:
        channel.close()
        if (connection := self._connection) is not None:
            timer = asyncio.get_running_loop().call_later(_ANSWER_S, self._give_up, connection, subject)
            channel.closed.add_done_callback(lambda closed: timer.cancel())

    def _give_up(self, connection: Connection, subject: _Subject) -> None:
        """End a connection on which the channel of a subject is not answered."""
        connection.abort(f"nothing was answered about {subject.queue} for {_ANSWER_S:.0f} s")

    def _publish(self, subject: _Subject, record: FleetRecord) -> None:
        channel, connection = subject.channel, self._connection
        if channel is None or connection is None:
            return
        body, room = _encode(record), connection.frame_max - _FRAME_OVERHEAD
        properties = spec.Basic.Properties(
            content_type="application/msgpack", delivery_mode=_PERSISTENT, app_id="rateway"
        )
        number = channel.number
        parts = [
            framing.marshal(spec.Basic.Publish(0, "", subject.queue), number),
            framing.marshal(ContentHeader(0, len(body), properties), number),
        ]
        parts += [
            framing.marshal(ContentBody(body[at : at + room]), number) for at in range(0, len(body), room)
        ]
        connection.write(b"".join(parts))

    def _say(self, subject: _Subject, closed: ChannelClosed) -> None:
        """Log why a subject has no channel, once for all of them."""
        words = closed.text.replace(subject.name, "<subject>")
        if words in self._said:
            return
        self._said.add(words)
        remedy = "trying again"
        if closed.code == _ACCESS_REFUSED:
            remedy = f"the user needs to configure, write and read rateway-fleet-{self._fleet}-.*"
        elif closed.code == _PRECONDITION_FAILED and "inequivalent" in closed.text:
            remedy = f"the queue was declared by something else: stop the fleet and delete {subject.queue}"
        log.warning(
            "the fleet's election over %s is held up: %s; %s",
            subject.queue,
            closed,
            remedy,
            extra={"action": "fleet_queue_refused"},
        )


def _is_refusal(closed: ChannelClosed) -> bool:
    """Whether somebody must change something at the broker."""
    if closed.code == _PRECONDITION_FAILED:
        # Also when a delivery was not acknowledged for too long (consumer_timeout): another channel goes on.
        return "inequivalent" in closed.text or "invalid arg" in closed.text
    return closed.code == _ACCESS_REFUSED and not is_away(closed)
