"""How does a worker speak with its cluster? One robust connection: events in, queries and commands out and answered."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aio_pika
import msgspec
from aio_pika.abc import (
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustQueue,
)
from aio_pika.exceptions import DeliveryError

from rateway.client.errors import GatewayError, NoAnswer
from rateway.client.event import Event, event_of
from rateway.client.seen import Seen
from rateway.contract import topology
from rateway.contract.errors import STATUS_HEADER, Status

__all__ = ["Handler", "Worker"]

log = logging.getLogger(__name__)

Handler = Callable[[Event], Awaitable[None]]


class Worker:
    """One worker of one cluster.

    *uri* is the broker's address. *queue* names a durable queue that survives this process and is shared by all
    workers of that name; without it the queue is exclusive and ends with the connection, and what comes meanwhile is
    lost to this worker. *prefetch* bounds the events in hand at a time: their handlers run side by side, so take 1
    where the order of events matters.
    """

    def __init__(
        self,
        uri: str,
        *,
        cluster: int = 1,
        queue: str | None = None,
        prefetch: int = 100,
        seen: Seen | None = None,
    ) -> None:
        self.cluster = cluster
        self._uri = uri
        self._queue_name = queue
        self._prefetch = prefetch
        self._seen = seen if seen is not None else Seen()
        self._handlers: dict[str, list[Handler]] = {}
        self._connection: AbstractRobustConnection | None = None
        self._events: AbstractRobustChannel | None = None
        self._requests: AbstractRobustChannel | None = None
        self._answers: AbstractRobustQueue | None = None
        self._waiting: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}
        self._busy: dict[str, asyncio.Event] = {}
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect_robust(self._uri)
        self._requests = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await self._requests.declare_exchange(
            topology.exchange(self.cluster), topology.EXCHANGE_TYPE, durable=True
        )
        self._answers = await self._requests.declare_queue(_own_name(), exclusive=True, auto_delete=True)
        await self._answers.consume(self._answered, no_ack=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for waiting in self._waiting.values():
            waiting.cancel()
        if self._connection is not None:
            await self._connection.close()

    # Events.

    def on(self, *names: str) -> Callable[[Handler], Handler]:
        """Register a handler for events of these names. Handlers are registered before :meth:`run`."""

        def register(handler: Handler) -> Handler:
            for name in names:
                self._handlers.setdefault(name, []).append(handler)
            return handler

        return register

    async def run(self) -> None:
        """Consume until :meth:`stop`. An event is acknowledged when its handlers are done, and handled once.

        A handler that raises gives the event back to the broker once; if it fails again it is dropped with a log
        line. Connections that break come back by themselves, with the queue and its bindings.
        """
        if self._connection is None:
            raise RuntimeError("a worker is used as `async with Worker(...) as worker`")
        self._events = await self._connection.channel()
        await self._events.set_qos(prefetch_count=self._prefetch)
        exchange = await self._events.declare_exchange(
            topology.exchange(self.cluster), topology.EXCHANGE_TYPE, durable=True
        )
        shared = self._queue_name is not None
        name = self._queue_name or _own_name()
        queue = await self._events.declare_queue(name, durable=shared, exclusive=not shared)
        for key in self._handlers:
            await queue.bind(exchange, routing_key=key)
        tag = await queue.consume(self._deliver)
        await self._stopping.wait()
        await queue.cancel(tag)

    def stop(self) -> None:
        """End :meth:`run`."""
        self._stopping.set()

    async def _deliver(self, message: AbstractIncomingMessage) -> None:
        event = event_of(message)
        known = event.message_id
        while known is not None and (first := self._busy.get(known)) is not None:
            await (
                first.wait()
            )  # the same event twice in hand: the first one's end decides about this one, too
        if known is not None and known in self._seen:
            await message.ack()
            return
        done = asyncio.Event()
        if known is not None:
            self._busy[known] = done
        try:
            for handler in self._handlers.get(event.name, ()):
                await handler(event)
            if known is not None:
                self._seen.note(known, time.monotonic())
        # Whatever a handler raises is the application's; the queue must go on.
        except Exception:
            log.exception("a handler of %s failed (%s)", event.name, event.message_id or "no id")
            await message.reject(requeue=not event.redelivered)
        else:
            await message.ack()
        finally:
            if known is not None:
                del self._busy[known]
            done.set()

    # Queries.

    async def query(
        self,
        kind: str,
        *arguments: int,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        after: int | None = None,
        timeout: float = 5.0,
    ) -> Any:
        """Ask the cache: the entity or list as Discord's JSON, None when it is not known.

        Types and arguments: docs/queries.md. ``timeout`` in seconds is the query's deadline, too. Raises
        :class:`GatewayError` with a code (``loading``, ``elsewhere``, …) and :class:`NoAnswer`.
        """
        body = question(kind, arguments, fields=fields, limit=limit, after=after)
        return _content(await self._ask(topology.CACHE_KEY, msgspec.json.encode(body), {}, timeout))

    async def queries(self, questions: Iterable[Mapping[str, Any]], *, timeout: float = 5.0) -> list[Any]:
        """Ask many things in one message; the answers in the same order, None for what is not known.

        Each question as :func:`question` makes it. One that fails is its :class:`GatewayError`, not raised.
        """
        body = msgspec.json.encode({"queries": list(questions)})
        found = _content(await self._ask(topology.CACHE_KEY, body, {}, timeout))
        return [_error(item) or item for item in found]

    # Commands.

    async def command(
        self,
        op: int,
        data: Mapping[str, Any],
        *,
        shard_id: int | None = None,
        guild_id: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Send a gateway command on a shard, named by itself or by a guild of its; returns when it is sent.

        ``timeout`` in seconds is its deadline: it is not sent later. Raises :class:`GatewayError` (``expired``,
        ``queue_full``, ``superseded``, …) and :class:`NoAnswer`.
        """
        if (shard_id is None) == (guild_id is None):
            raise ValueError("a command goes to a shard_id or to a guild_id")
        headers = {"shard_id": shard_id} if shard_id is not None else {"guild_id": guild_id}
        body = msgspec.json.encode({"op": op, "d": data})
        _content(await self._ask(topology.GATEWAY_KEY, body, headers, timeout))

    async def _ask(
        self, key: str, body: bytes, headers: Mapping[str, Any], timeout: float
    ) -> AbstractIncomingMessage:
        if self._requests is None or self._answers is None:
            raise RuntimeError("a worker is used as `async with Worker(...) as worker`")
        correlation_id = uuid.uuid4().hex
        waiting: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = waiting
        try:
            async with asyncio.timeout(timeout):
                exchange = await self._requests.get_exchange(topology.exchange(self.cluster), ensure=False)
                message = aio_pika.Message(
                    body,
                    headers=dict(headers),
                    content_type="application/json",
                    correlation_id=correlation_id,
                    reply_to=self._answers.name,
                    expiration=timeout,
                )
                await exchange.publish(message, key, mandatory=True)
                return await waiting
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout:g} s") from None
        except DeliveryError:
            raise NoAnswer(f"no gateway has run cluster {self.cluster} on this broker") from None
        finally:
            del self._waiting[correlation_id]

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(message.correlation_id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


def _own_name() -> str:
    """A queue's name of ours: those that the broker makes up cannot be declared again after a reconnect."""
    return f"rateway-client-{uuid.uuid4().hex}"


def question(
    kind: str,
    arguments: Sequence[int] = (),
    *,
    fields: Sequence[str] | None = None,
    limit: int | None = None,
    after: int | None = None,
) -> dict[str, Any]:
    """One query as the contract has it, for :meth:`Worker.queries`."""
    options = {"fields": fields, "limit": limit, "after": after}
    said = {name: value for name, value in options.items() if value is not None}
    return {"type": kind, "arguments": [str(argument) for argument in arguments], **said}


def _error(item: object) -> GatewayError | None:
    error = item.get("error") if isinstance(item, dict) and len(item) == 1 else None
    if not isinstance(error, dict) or "code" not in error:
        return None
    return GatewayError(str(error["code"]), str(error.get("message", "")))


def _content(message: AbstractIncomingMessage) -> Any:
    status = message.headers.get(STATUS_HEADER, Status.OK.value)
    found = msgspec.json.decode(message.body) if message.body else None
    if status == Status.ERROR.value:
        raise _error(found) or GatewayError("internal", "the gateway said no more")
    return found if status == Status.OK.value else None
