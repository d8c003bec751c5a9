"""A worker's connection to its clusters: events in, each once; queries and commands out, and answered.

Two connections: one for events and their acknowledgements, one for requests and their answers, so that a broker that
holds publishers back holds back no events.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import urlsplit

import msgspec
from rateway_client.cache import Cache, Id, Json, error_in, question
from rateway_client.clusters import ClusterLayout
from rateway_client.errors import CommandError, ConnectionLost, GatewayError, NoAnswer, QueryError
from rateway_client.event import Event
from rateway_client.inbox import Inbox, QueueKind
from rateway_client.line import Line
from rateway_client.members import MemberRequests, Members, place_of
from rateway_client.requests import Answer, Requests
from rateway_client.seen import Remembering, Seen
from rateway_client.signals import stopped_by_signals
from rateway_client.sound_frames import Unreadable
from rateway_protocol.contract import topology
from rateway_protocol.contract.errors import ErrorCode, Status
from rateway_protocol.contract.messages import OWN_KEYS
from rateway_protocol.contract.queries import QUERY_TYPES
from rateway_protocol.discord.events import DOCUMENTED
from rateway_protocol.discord.opcodes import Opcode

__all__ = ["Handler", "Worker"]

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Event], Awaitable[None]]

# A command's answer may come a moment after its deadline: "expired" says for certain that it was not sent.
_GRACE_S: Final = 2.0
# Between two attempts at an event whose handler got no answer from the gateway.
_PASSING_S: Final = 1.0
# How many events' failures are remembered.
_FAILURES_KEPT: Final = 10_000
# How often the clusters are asked for, beside the moment at which an event shows another number of shards: a small
# query, and the longest for which a new cluster's events would miss a worker that gets no others.
_LAYOUT_EVERY_S: Final = 5.0
# How long one question for them waits, and how long after it the next is asked where there was no answer.
_LAYOUT_PATIENCE_S: Final = 2.0
_AGAIN_S: Final = 1.0

# The cluster of the event whose handler runs: its gateway is asked.
_event_cluster: ContextVar[int | None] = ContextVar("rateway_event_cluster", default=None)


class Worker:
    """A worker of all the bot's clusters, or of one; use it as ``async with Worker(...) as worker``.

    Without *cluster* it asks the gateway for the clusters when it starts, again every few seconds, and at once when an
    event says that the bot has another number of shards; until a gateway answers it serves cluster 1 alone. *uri* is
    the broker's address, as aio-pika takes it. *events* are names of events that :meth:`events` gives out; :meth:`on`
    adds those of its handlers. *queue* names a durable queue that survives this process and is shared by all workers of
    that name; without it the queue is the connection's own, and what comes while it is away is lost to this worker.
    *queue_kind* is ``classic`` or ``quorum``, *queue_arguments* are further ones of AMQP's (``x-max-length``,
    ``x-dead-letter-exchange`` …). *prefetch* bounds the events in hand.

    *attempts* is how often a handler may fail on one event. *seen* remembers what was processed: 10,000 ids or ten
    minutes. Entering raises BrokerUnavailable: at once for a refusal, after *patience* seconds for a broker that is
    away. Later the worker reconnects by itself, as often as necessary.
    """

    def __init__(
        self,
        uri: str,
        *,
        cluster: int | None = None,
        events: Iterable[str] = (),
        queue: str | None = None,
        queue_kind: QueueKind = "classic",
        queue_arguments: Mapping[str, Any] | None = None,
        prefetch: int = 100,
        attempts: int = 2,
        seen: Remembering | None = None,
        patience: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if queue is None and queue_kind == "quorum":
            raise ValueError("a quorum queue is durable: give it a name")
        _check_address(uri)
        #: The one cluster that is served; None: all that the bot has.
        self.cluster = cluster
        first = 1 if cluster is None else cluster
        self._uri = uri
        self._names = _checked(events)
        self._queue = queue
        self._inbox = Inbox(
            [first],
            queue,
            kind=queue_kind,
            prefetch=prefetch,
            arguments=queue_arguments or {},
            seen=seen if seen is not None else Seen(),
        )
        self._attempts = attempts
        self._patience = patience
        self._ssl_context = ssl_context
        self._unreadable = Unreadable(time.monotonic)
        self._requests = Requests(first)
        self._members = MemberRequests(self._requests, self._request_members, self._where)
        self._handlers: dict[str, list[Handler]] = {}
        self._failed: OrderedDict[str, int] = OrderedDict()
        self._tasks: asyncio.TaskGroup | None = None
        self._layout: ClusterLayout | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._listening: Line | None = None
        self._said_no_layout = False
        #: The gateway's cache, a method for each type of query.
        self.cache = Cache(self.query)

    async def __aenter__(self) -> Self:
        ready: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(ready))
        self._tasks = await ready
        try:
            await self._dial("requests", self._requests)
            if self.cluster is None:
                await self._learn_clusters()
                self._tasks.create_task(self._follow_clusters())
            if self._names:
                self._inbox.names |= self._names
                self._listening = await self._dial("events", self._inbox)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End both connections: what was not acknowledged goes to others, calls under way raise ConnectionLost."""
        self._inbox.stop()
        self._requests.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = self._tasks = self._listening = None

    async def _keep(self, ready: asyncio.Future[asyncio.TaskGroup]) -> None:
        """The parent of the two connections' tasks, until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                ready.set_result(tasks)
                await asyncio.Event().wait()
        except Exception:
            log.exception("the worker's connections have ended", extra={"action": "own_fault"})
            self._requests.close()
            self._inbox.stop()
            raise

    async def _dial(self, what: str, end: Inbox | Requests) -> Line:
        if self._tasks is None:
            raise RuntimeError("a worker is used as `async with Worker(...) as worker`")
        whom = "all clusters" if self.cluster is None else f"cluster {self.cluster}"
        name = f"rateway worker, {whom}, {what}"
        line = Line(
            self._uri, name=name, ssl_context=self._ssl_context, opened=end.opened, lost=end.lost,
            unreadable=self._unreadable,
        )  # fmt: skip
        self._tasks.create_task(line.run())
        await line.began(self._patience)
        return line

    @property
    def unreadable(self) -> int:
        """The number of messages that could not be read whole: with properties left out, or not at all."""
        return self._unreadable.count + self._inbox.unreadable + self._requests.unreadable

    # Clusters.

    @property
    def clusters(self) -> list[int]:
        """The numbers of the clusters that are served, ascending."""
        return sorted(self._inbox.clusters)

    async def _follow_clusters(self) -> None:
        """Serve further clusters as the layout changes, until the worker is closed."""
        loop = asyncio.get_running_loop()
        while not self._requests.closed:
            began = loop.time()
            # While no gateway runs a question waits in the queue nearly all the time: the next gateway answers it
            # before it connects any shard, so that no event of a new cluster comes too early.
            again_at = began + _AGAIN_S
            if await self._learn_clusters():
                again_at = loop.time() + _LAYOUT_EVERY_S
            try:
                async with asyncio.timeout_at(again_at):
                    await self._inbox.resharded.wait()
            except TimeoutError:
                continue
            self._inbox.resharded.clear()

    async def _learn_clusters(self) -> bool:
        """Ask for the clusters, at the next exchange where one has not answered; whether there was an answer."""
        asked = self._requests.cluster
        try:
            found = _content(
                await self._ask({"type": "Clusters", "arguments": []}, _LAYOUT_PATIENCE_S), QueryError
            )
            layout = msgspec.convert(found, ClusterLayout)
        except (NoAnswer, ConnectionLost):
            self._requests.cluster = _next_after(asked, self.clusters)
            return False
        except (QueryError, msgspec.ValidationError) as error:
            if not (isinstance(error, QueryError) and error.worth_trying_again) and not self._said_no_layout:
                self._said_no_layout = True
                log.warning(
                    "the gateway does not say which clusters there are, so only cluster %s is served (%s): update the "
                    "gateway, or name each cluster (cluster=1)",
                    ", ".join(map(str, self.clusters)),
                    error,
                    extra={"action": "clusters"},
                )
            return False
        if self._layout is None or layout.shard_count != self._layout.shard_count:
            log.info(
                "serving %d clusters, %d shards",
                len(layout.clusters),
                layout.shard_count,
                extra={"action": "clusters"},
            )
        self._layout = layout
        self._inbox.shard_count = layout.shard_count
        await self._requests.serve(layout.numbers)
        await self._inbox.serve(layout.numbers)
        return True

    def _cluster_of(self, *, shard_id: int | None = None, guild_id: Id | None = None) -> int | None:
        """Return the cluster of a shard or guild; else that of the event in hand; None where none is known."""
        if self.cluster is not None:
            return self.cluster
        found = None
        if self._layout is not None and shard_id is not None:
            found = self._layout.of_shard(shard_id)
        elif self._layout is not None and guild_id is not None and str(guild_id).isdecimal():
            found = self._layout.of_guild(int(guild_id))
        return found if found is not None else _event_cluster.get()

    def _cluster_to_ask(self, kind: str, arguments: Sequence[Id]) -> int | None:
        """Return the cluster to ask: any cluster of a gateway answers for all that it runs; the guild's own if another
        gateway runs it.
        """
        row = QUERY_TYPES.get(kind)
        at = row.arguments.index("guild") if row is not None and "guild" in row.arguments else len(arguments)
        if at < len(arguments) and self._layout is not None:
            found = self._cluster_of(guild_id=arguments[at])
            if found is not None and not self._layout.is_of_gateway(found):
                return found
        if self.cluster is not None:
            return self.cluster
        own = _event_cluster.get()
        return None if self._layout is not None and self._layout.is_of_gateway(own) else own

    # Events.

    def on(self, *names: str) -> Callable[[Handler], Handler]:
        """Register a handler for events of these names, before :meth:`run`. Several for one name run in turn."""
        _checked(names)

        def register(handler: Handler) -> Handler:
            for name in names:
                self._handlers.setdefault(name, []).append(handler)
            return handler

        return register

    async def run(self, *, concurrency: int = 16) -> None:
        """Give events to their handlers until :meth:`stop`, at most *concurrency* at a time; 1 keeps their order.

        An event is acknowledged when its handlers are done. A handler that raises gives it back to the broker until
        its attempts are used up; then it is dropped with a log line, to the queue's dead-letter exchange if it has
        one. What the gateway or the broker cannot serve just now (NoAnswer, ``loading`` …) uses up none. After
        :meth:`stop` the handlers under way come to their end. SIGINT (Ctrl-C) and SIGTERM call :meth:`stop`, unless
        the application handles them itself.
        """
        with stopped_by_signals(self.stop):
            await self._run(concurrency)

    async def _run(self, concurrency: int) -> None:
        await self._listen(self._handlers)
        free = asyncio.Semaphore(concurrency)

        async def handle(event: Event) -> None:
            try:
                await self._handle(event)
            finally:
                free.release()

        async with asyncio.TaskGroup() as handling:
            while True:
                await free.acquire()
                event = await self._next()
                if event is None:
                    break
                handling.create_task(handle(event))
            await self._inbox.leave()

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of ``events=[…]``, each to be settled by ``await event.done()``, until :meth:`stop`."""
        with stopped_by_signals(self.stop):
            await self._listen(self._names)
            try:
                while (event := await self._next()) is not None:
                    yield event
            finally:
                await self._inbox.leave()

    def stop(self) -> None:
        """End :meth:`run` and :meth:`events`, from a signal handler for example."""
        self._inbox.stop()

    async def _listen(self, names: Iterable[str]) -> None:
        if self._tasks is None:
            raise RuntimeError("a worker is used as `async with Worker(...) as worker`")
        await self._inbox.read(names)
        if self._listening is None:
            self._listening = await self._dial("events", self._inbox)

    async def _next(self) -> Event | None:
        event = await self._inbox.next()
        if event is None and self._keeper is not None and self._keeper.done():
            raise RuntimeError(
                "the worker's connections have ended; its log says why"
            ) from self._keeper.exception()
        return event

    async def _handle(self, event: Event) -> None:
        _event_cluster.set(event.cluster)
        try:
            for handler in self._handlers.get(event.name, ()):
                await handler(event)
        except (NoAnswer, ConnectionLost) as error:
            await self._not_answered(event, error)
        # Whatever a handler raises is the application's; the queue must go on.
        except Exception as error:
            if isinstance(error, GatewayError) and error.worth_trying_again:
                await self._not_answered(event, error)
                return
            last = self._failure(event) >= self._attempts
            log.exception(
                "a handler of %s failed (%s); %s",
                event.name,
                event.message_id or "no id",
                "the event is dropped" if last else "it comes again",
                extra={"cluster": event.cluster, "action": "handler_failed"},
            )
            await (event.drop() if last else event.give_back())
        else:
            await event.done()

    async def _not_answered(self, event: Event, error: Exception) -> None:
        """Wait before the event comes again: the gateway or the broker is restarting."""
        log.warning(
            "a handler of %s (%s) got no answer, it comes again: %s",
            event.name,
            event.message_id or "no id",
            error,
            extra={"cluster": event.cluster, "action": "not_answered"},
        )
        await asyncio.sleep(_PASSING_S)
        await event.give_back()

    def _failure(self, event: Event) -> int:
        """Return how often this event has failed, this time included."""
        if event.message_id is None:
            return 1 + event.redelivered
        count = self._failed.pop(event.message_id, 0) + 1
        self._failed[event.message_id] = count
        if len(self._failed) > _FAILURES_KEPT:
            self._failed.popitem(last=False)
        return count

    # Queries.

    async def query(
        self,
        kind: str,
        *arguments: Id,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        after: Id | None = None,
        options: Mapping[str, Any] | None = None,
        timeout: float = 5.0,
    ) -> Any:
        """Ask the cache: the entity or list as Discord's JSON, None when it is not known.

        Types, arguments and ``options``: docs/queries.md; :attr:`cache` has a method for each. ``timeout`` in seconds
        is the query's deadline, too; when the broker goes away meanwhile it is asked again. Raises
        :class:`QueryError` with a code (``loading``, ``elsewhere``, …) and :class:`NoAnswer`.
        """
        body = question(kind, arguments, fields=fields, limit=limit, after=after, options=options)
        return _content(await self._ask(body, timeout, self._cluster_to_ask(kind, arguments)), QueryError)

    async def queries(self, questions: Iterable[Mapping[str, Any]], *, timeout: float = 5.0) -> list[Any]:
        """Ask up to 1,000 things in one message; the answers in the same order, None for what is not known.

        Each question as :func:`question` makes it. One that fails is its :class:`QueryError`, not raised.
        """
        found = _content(
            await self._ask({"queries": list(questions)}, timeout, self._cluster_of()), QueryError
        )
        if not isinstance(found, list):
            raise QueryError(ErrorCode.INTERNAL.value, "the answer to a batch is no list")
        return [error_in(item) or item for item in found]

    async def _ask(self, body: Json, timeout: float, cluster: int | None = None) -> Answer:
        self._check_open()
        return await self._requests.ask(
            topology.CACHE_KEY,
            msgspec.json.encode(body),
            {},
            expires=timeout,
            patience=timeout,
            repeatable=True,
            cluster=cluster,
        )

    def _check_open(self) -> None:
        if self._tasks is None:
            raise RuntimeError("a worker is used as `async with Worker(...) as worker`")

    # Commands.

    async def command(
        self,
        op: int,
        data: Mapping[str, Any],
        *,
        shard_id: int | None = None,
        guild_id: Id | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Send a gateway command on a shard, named by itself or by a guild of its; returns when it was sent.

        ``timeout`` in seconds is its deadline: it is not sent later. Raises :class:`CommandError` (``expired``,
        ``queue_full``, ``superseded``, ``invalid`` …: it was not sent), :class:`NoAnswer`, and
        :class:`ConnectionLost` when the broker went away before the answer: it may have been sent.
        """
        if (shard_id is None) == (guild_id is None):
            raise ValueError("a command goes to a shard_id or to a guild_id")
        self._check_open()
        headers: Json = {"shard_id": shard_id} if guild_id is None else {"guild_id": guild_id}
        body = msgspec.json.encode({"op": op, "d": data})
        answer = await self._requests.ask(
            topology.GATEWAY_KEY,
            body,
            headers,
            expires=timeout,
            patience=timeout + _GRACE_S,
            repeatable=False,
            cluster=self._cluster_of(shard_id=shard_id, guild_id=guild_id),
        )
        _content(answer, CommandError)

    async def update_presence(
        self,
        shard_id: int,
        *,
        status: str = "online",
        activities: Sequence[Mapping[str, Any]] = (),
        since: int | None = None,
        afk: bool = False,
        timeout: float = 60.0,
    ) -> None:
        """Set the bot's presence on a shard. *activities* as Discord's (``{"name": …, "type": 0}``), *since* in ms.

        A presence is a shard's: it lasts until its session ends, so set it again at each READY of the shard.
        """
        data = {"since": since, "activities": list(activities), "status": status, "afk": afk}
        await self.command(Opcode.PRESENCE_UPDATE, data, shard_id=shard_id, timeout=timeout)

    async def voice_state(
        self,
        guild_id: Id,
        channel_id: Id | None,
        *,
        self_mute: bool = False,
        self_deaf: bool = False,
        timeout: float = 60.0,
    ) -> None:
        """Join or move to a voice channel, or leave with None. Discord answers with VOICE_STATE_UPDATE events."""
        data = {
            "guild_id": str(guild_id),
            "channel_id": None if channel_id is None else str(channel_id),
            "self_mute": self_mute,
            "self_deaf": self_deaf,
        }
        await self.command(Opcode.VOICE_STATE_UPDATE, data, guild_id=guild_id, timeout=timeout)

    async def request_members(
        self,
        guild_id: Id,
        *,
        query: str = "",
        limit: int = 0,
        user_ids: Sequence[Id] | None = None,
        presences: bool = False,
        timeout: float = 120.0,
    ) -> Members:
        """Return a guild's members from Discord itself: all of them, those whose name begins with *query*, or
        *user_ids*.

        Awaits all chunks; asks again after RATE_LIMITED, a lost session or connection, within *timeout* seconds. All
        members at once needs the intent GUILD_MEMBERS, and Discord gives them once a guild and 30 s; *limit* and
        *user_ids* are 100 at most. Raises :class:`CommandError` and :class:`NoAnswer`.
        """
        data: Json = {"guild_id": str(guild_id), "presences": presences}
        if user_ids is not None:
            data["user_ids"] = [str(user_id) for user_id in user_ids]
        else:
            data |= {"query": query, "limit": limit}
        self._check_open()
        return await self._members.request(str(guild_id), data, timeout)

    async def request_soundboard_sounds(self, guild_ids: Iterable[Id], *, timeout: float = 60.0) -> None:
        """Ask for soundboard sounds; a SOUNDBOARD_SOUNDS event comes for each guild, all of one shard."""
        wanted = [str(guild_id) for guild_id in guild_ids]
        if not wanted:
            raise ValueError("no guild is named")
        await self.command(
            Opcode.REQUEST_SOUNDBOARD_SOUNDS, {"guild_ids": wanted}, guild_id=wanted[0], timeout=timeout
        )

    async def request_channel_info(
        self, guild_id: Id, fields: Sequence[str] = ("status", "voice_start_time"), *, timeout: float = 60.0
    ) -> None:
        """Ask for what voice channels show; a CHANNEL_INFO event comes."""
        data = {"guild_id": str(guild_id), "fields": list(fields)}
        await self.command(Opcode.REQUEST_CHANNEL_INFO, data, guild_id=guild_id, timeout=timeout)

    async def _request_members(self, data: Json, guild_id: str, timeout: float) -> None:
        await self.command(Opcode.REQUEST_GUILD_MEMBERS, data, guild_id=guild_id, timeout=timeout)

    async def _where(self, guild_id: str) -> tuple[int, int | None]:
        own = self._cluster_of(guild_id=guild_id)
        return await place_of(self.cache.where_is, guild_id, self._requests.cluster if own is None else own)


def _content(answer: Answer, kind: type[GatewayError]) -> Any:
    """Return an answer's body, None for ``not_found``. Raises *kind*."""
    if answer.status == Status.ERROR.value:
        error = error_in(answer.body) or GatewayError(ErrorCode.INTERNAL.value, "the gateway said no more")
        raise kind(error.code, error.message)
    return answer.body if answer.status == Status.OK.value else None


def _check_address(uri: str) -> None:
    """Raises ValueError, whose text has nothing of the address: a password is in it."""
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
        # The rest of a password with an unescaped '/', '?' or '#': errors would show it as a virtual host, say.
        usable = usable and not parts.fragment and "@" not in parts.path + parts.query
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("the broker's address should be amqp://user:password@host:port/vhost, or amqps://…")


def _next_after(number: int, numbers: Sequence[int]) -> int:
    """Return the next of ascending numbers, the first after the last."""
    return next((each for each in numbers if each > number), numbers[0])


def _checked(names: Iterable[str]) -> set[str]:
    """Return the names; one that is unknown is only said, because Discord invents new ones."""
    wanted = {names} if isinstance(names, str) else set(names)
    for name in wanted:
        if name.removesuffix(".before") not in DOCUMENTED and name not in OWN_KEYS:
            near = difflib.get_close_matches(name, DOCUMENTED | OWN_KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            log.warning("no documented event is called %s%s", name, hint, extra={"action": "unknown_event"})
    return wanted
