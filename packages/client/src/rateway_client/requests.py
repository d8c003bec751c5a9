"""Requests to the gateway: AMQP's direct reply-to, one correlation id a request."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelInvalidStateError,
    DeliveryError,
    PublishError,
)
from rateway_client.errors import ConnectionLost, NoAnswer
from rateway_client.line import FAILURES, Broken, watched
from rateway_protocol.contract import topology
from rateway_protocol.contract.errors import STATUS_HEADER, ErrorCode, Status

__all__ = ["Answer", "Requests"]

log = logging.getLogger(__name__)

# RabbitMQ's pseudo-queue: the answer goes straight to the channel that asked, without a queue in between.
# https://www.rabbitmq.com/docs/direct-reply-to
_REPLY_TO: Final = "amq.rabbitmq.reply-to"
_UNKNOWN_FATE: Final = (
    "the connection to the broker broke before the answer came: the command may have been sent or not"
)


class Answer(msgspec.Struct, frozen=True):
    """An answer: the ``status`` of its header, and its body as JSON (None for an empty one)."""

    status: str
    body: Any


class _Lost(Exception):
    """The connection has ended while an answer was awaited."""


class Requests:
    """The asking side of a worker. Give :meth:`opened` and :meth:`lost` to a :class:`rateway_client.line.Line`."""

    def __init__(self, cluster: int) -> None:
        #: The cluster whose exchange requests go to that name no other.
        self.cluster = cluster
        self._clusters = {cluster}
        self._channel: AbstractChannel | None = None
        self._exchanges: dict[int, AbstractExchange] = {}
        self._up = asyncio.Event()
        #: Set when the present connection has ended.
        self.gone = asyncio.Event()
        #: No connection will come any more.
        self.closed = False
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        #: Answers that were no JSON.
        self.unreadable = 0
        #: The connection while there is one, for further channels; :attr:`up` says when.
        self.connection: AbstractConnection | None = None

    async def opened(self, connection: AbstractConnection, broken: Broken) -> None:
        """Use a new connection for requests and their answers."""
        channel = await watched(connection, broken, confirms=True)
        await self._declare(channel, self._clusters)
        replies = await channel.get_queue(_REPLY_TO, ensure=False)
        await replies.consume(self._answered, no_ack=True)
        self.gone = asyncio.Event()
        self.connection = connection
        self._channel = channel
        self._up.set()

    async def serve(self, clusters: Iterable[int]) -> None:
        """Let requests go to these clusters' exchanges as well."""
        new = set(clusters) - self._clusters
        self._clusters |= new
        if new and self._channel is not None:
            try:
                await self._declare(self._channel, new)
            except FAILURES:
                # The connection has just gone: the next one declares all.
                return

    async def _declare(self, channel: AbstractChannel, clusters: Iterable[int]) -> None:
        for cluster in sorted(clusters):
            self._exchanges[cluster] = await channel.declare_exchange(
                topology.exchange(cluster), topology.EXCHANGE_TYPE, durable=True, auto_delete=False
            )

    def lost(self) -> None:
        """End all waiting requests: their connection has ended."""
        self._up.clear()
        self.gone.set()
        self._channel = self.connection = None
        self._exchanges = {}
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Lost())

    def close(self) -> None:
        """End all requests, now and later, with ConnectionLost."""
        self.closed = True
        self.lost()
        self._up.set()

    async def up(self) -> AbstractConnection:
        """Wait for a connection. Raises ConnectionLost when the worker was closed."""
        while self.connection is None:
            if self.closed:
                raise ConnectionLost("the worker was closed")
            await self._up.wait()
        return self.connection

    async def ask(
        self,
        key: str,
        body: bytes,
        headers: Mapping[str, Any],
        *,
        expires: float,
        patience: float,
        repeatable: bool,
        cluster: int | None = None,
    ) -> Answer:
        """Publish a request and wait for its answer.

        *cluster* None is :attr:`cluster`.

        *expires* is the request's deadline at the gateway, *patience* the time that this waits, both in seconds. When
        the connection breaks, a *repeatable* request is asked again on the next one, any other raises ConnectionLost
        unless it cannot have been published. Raises NoAnswer.
        """
        loop = asyncio.get_running_loop()
        void_at = loop.time() + expires
        try:
            async with asyncio.timeout(patience):
                while True:
                    await self.up()
                    gone = self.gone
                    try:
                        left = max(0.001, void_at - loop.time())
                        return await self._once(cluster, key, body, headers, left)
                    except _Lost:
                        if not repeatable:
                            raise ConnectionLost(_UNKNOWN_FATE) from None
                    except ChannelInvalidStateError:
                        # Nothing was written: the channel had been closed before.
                        log.debug("a request waits for the next connection", extra={"action": "broker_lost"})
                    await gone.wait()
        except NoAnswer:
            raise
        except TimeoutError:
            why = "no connection to the broker" if self.connection is None else "no gateway has answered"
            raise NoAnswer(f"no answer within {patience:g} s: {why}") from None

    async def _once(
        self, cluster: int | None, key: str, body: bytes, headers: Mapping[str, Any], expires: float
    ) -> Answer:
        """Ask on this connection. Raises _Lost, ChannelInvalidStateError (nothing was written) and NoAnswer."""
        cluster = cluster if cluster in self._exchanges else self.cluster
        exchange = self._exchanges[cluster]
        correlation_id = format(next(self._numbers), "x")
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = waiting
        message = aio_pika.Message(
            body,
            headers=dict(headers),
            content_type="application/json",
            correlation_id=correlation_id,
            reply_to=_REPLY_TO,
            expiration=expires,
        )
        try:
            await exchange.publish(message, key, mandatory=True)
            return await waiting
        except PublishError:
            raise NoAnswer(f"no gateway has run cluster {cluster} on this broker") from None
        except DeliveryError as error:
            raise NoAnswer(f"the broker does not take requests of cluster {cluster}: {error}") from None
        except ChannelInvalidStateError:
            raise
        except CONNECTION_EXCEPTIONS:
            raise _Lost from None
        except asyncio.CancelledError:
            # aiormq cancels what waits on a connection that ends; this task was not cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _Lost from None
        finally:
            del self._waiting[correlation_id]
            if not waiting.cancel() and not waiting.cancelled():
                # Read, or asyncio reports an exception that was never retrieved.
                waiting.exception()

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(message.correlation_id or "")
        if waiting is None or waiting.done():
            return
        status = str(message.headers.get(STATUS_HEADER, Status.OK.value))
        try:
            body = msgspec.json.decode(message.body) if message.body else None
        # Not JSON, not UTF-8, nested too deep: all that msgspec raises.
        except (ValueError, RecursionError) as error:
            self.unreadable += 1
            waiting.set_result(_unreadable(error))
            return
        waiting.set_result(Answer(status, body))


def _unreadable(error: Exception) -> Answer:
    what = {"code": ErrorCode.INTERNAL.value, "message": f"the answer is no JSON: {error}"}
    return Answer(Status.ERROR.value, {"error": what})
