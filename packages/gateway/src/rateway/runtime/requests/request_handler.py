"""Deal with what workers ask of one cluster: commands for Discord, queries to the cache. Each is answered.

A command is acknowledged once it went to Discord or was refused; a query once it was answered. A message that is
refused, for whatever reason, is answered if it says where to, logged if not, counted, and acknowledged
(docs/contract.md, "Answers"): it never comes again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter

import msgspec
from rateway.delivery.port import MAX_BODY, MAX_PROPERTIES, Headers, Message, Refusal, RequestSource
from rateway.histogram import Histogram
from rateway.runtime.requests.held_commands import Held, HeldCommands
from rateway.runtime.requests.ports import RequestCluster, RequestProcess
from rateway.session.actions import Command, CommandDone
from rateway_protocol.contract import commands, errors, queries, topology
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.header_table import TableUnreadable, fields_of, with_integer

log = logging.getLogger(__name__)

# A forwarded command carries how often it was handed on: gateways that disagree about the layout must not play ball.
HOPS = "rateway_hops"
MOST_HOPS = 3
# What is looked at of a command's headers.
NAMES = frozenset((b"shard_id", b"guild_id", HOPS.encode()))
_CLUSTER_NAMES = frozenset((queries.CLUSTER_HEADER.encode(),))
# Of RabbitMQ's consumer_timeout, once it is known to be shorter than a command's deadline, the part that one waits.
TIMEOUT_SHARE = 0.5

# Enough to see what a worker does wrong; all are counted (docs/metrics.md). In a cluster, within so many seconds.
COMPLAINTS = 20
COMPLAINTS_S = 60.0

# Upper edges: a query takes some microseconds, a batch of a thousand a few turns of the loop.
QUERY_EDGES_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
# A message that was refused unread is a note of the status for so long.
REFUSED_LATELY_S = 300.0

_CODES: dict[str, ErrorCode] = {
    "superseded": ErrorCode.SUPERSEDED,
    "expired": ErrorCode.EXPIRED,
    "queue_full": ErrorCode.QUEUE_FULL,
}
_STATUS: dict[errors.Status, Headers] = {
    status: ((errors.STATUS_HEADER, status.value),) for status in errors.Status
}
_WORDS: dict[str, str] = {
    "superseded": "a newer presence took its place",
    "expired": "it waited for longer than its deadline",
    "queue_full": "too many commands wait for this shard",
}


# Messages that are refused before they are looked at.
_REFUSALS: dict[Refusal, Fault] = {
    "properties_too_large": Fault(
        ErrorCode.TOO_LARGE, f"the message's properties have more than {MAX_PROPERTIES >> 10} KiB"
    ),
    "properties_unreadable": Fault(
        ErrorCode.INVALID, "the message's properties are no AMQP: a length is wrong"
    ),
    "body_too_large": Fault(ErrorCode.TOO_LARGE, f"a message has at most {MAX_BODY} bytes"),
    "bad_reply_to": Fault(ErrorCode.BAD_KEY, "reply_to is no text, or a queue of the gateway's own"),
    "bad_correlation_id": Fault(ErrorCode.INVALID, "correlation_id is no text (UTF-8)"),
    "failed": Fault(ErrorCode.INTERNAL, "a mistake of the gateway's; its log says more"),
}


@functools.cache
def _label(kind: str, outcome: str) -> str:
    """Types and outcomes are few."""
    return f"{kind} {outcome}"


def _cluster_asked(message: Message) -> int | None:
    """Return the cluster that another gateway asks; None for a worker's query."""
    if not message.headers:
        return None
    try:
        asked = fields_of(message.headers, _CLUSTER_NAMES).get(queries.CLUSTER_HEADER)
    except TableUnreadable:
        return None
    return asked if isinstance(asked, int) and not isinstance(asked, bool) else None


def _of_one_cluster(request: queries.QueryRequest, cluster: int) -> queries.QueryRequest:
    asked = tuple(
        query if isinstance(query, Fault) else msgspec.structs.replace(query, cluster=cluster)
        for query in request.queries
    )
    return msgspec.structs.replace(request, queries=asked)


class _Complaints:
    """Refused messages in the log, so many a minute: a worker that repeats a mistake must not fill it."""

    def __init__(self) -> None:
        self._until = 0.0
        self._said = 0
        self._unsaid = 0
        self._reasons: set[str] = set()

    def say(self, message: Message, fault: Fault, cluster: int, reason: str = "") -> None:
        """One line, or one more for the next line to count. Of a *reason* no more than one in that time."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until, self._said = now + COMPLAINTS_S, 0
            self._reasons.clear()
        if self._said >= COMPLAINTS or reason in self._reasons:
            self._unsaid += 1
            return
        if reason:
            self._reasons.add(reason)
        before = f" ({self._unsaid} more were refused before it)" if self._unsaid else ""
        self._said, self._unsaid = self._said + 1, 0
        log.warning(
            "a worker's message (key %s) was refused: %s: %s%s",
            errors.bounded(message.key),
            fault.code.value,
            errors.bounded(fault.message),
            before,
            extra={"cluster": cluster, "action": "message_refused"},
        )


class RequestHandler:
    """The reader of one cluster's inbound queue: ``message`` takes each message, ``refuse`` what cannot be read."""

    inbound: RequestSource

    def __init__(self, process: RequestProcess, cluster: RequestCluster) -> None:
        self._process = process
        self._cluster = cluster
        self._exchange = topology.exchange(cluster.number)
        self.commands: Counter[str] = Counter()
        self.queries: Counter[str] = Counter()
        self.query_kinds: Counter[str] = Counter()
        self.query_times = Histogram(QUERY_EDGES_S)
        # Messages that were refused before they were looked at, and when the last was (monotonic seconds).
        self.refused: Counter[Refusal] = Counter()
        self.refused_at: float | None = None
        self._held = HeldCommands()
        self._alarm: asyncio.TimerHandle | None = None
        self._complaints = _Complaints()
        cluster.watch_commands(self._done)

    def message(self, message: Message) -> None:
        """A query or a command has come."""
        if message.key == topology.GATEWAY_KEY:
            self._command(message)
        elif message.key == topology.CACHE_KEY:
            self._query(message)
        else:
            fault = Fault(ErrorCode.INVALID, f"the routing key {message.key!r} is neither cache nor gateway")
            self._fail(message, fault, self.commands)

    @property
    def refused_lately(self) -> bool:
        """Whether a message was refused unread in the last minutes."""
        now = asyncio.get_running_loop().time()
        return self.refused_at is not None and now < self.refused_at + REFUSED_LATELY_S

    def refuse(self, message: Message, reason: Refusal) -> None:
        """A message has come that cannot be read, or may not be answered where it says."""
        self.refused[reason] += 1
        self.refused_at = asyncio.get_running_loop().time()
        fault = _REFUSALS[reason]
        self._complaints.say(message, fault, self._cluster.number, reason)
        if message.key != topology.CACHE_KEY:
            self._fail(message, fault, self.commands, said=True)
            return
        self.query_kinds[f"unreadable {fault.code.value}"] += 1
        # An old query says where to in its body, which may be sound; with reply_to none is asked for.
        key = None
        if reason != "bad_reply_to" and message.reply_to is None:
            request = queries.parse_query(message.body, has_reply_to=False)
            key = None if isinstance(request, Fault) else request.return_routing_key
        self._fail_query(message, fault, key, said=True)

    # Commands.

    def _command(self, message: Message) -> None:
        layout = self._process.choice.layout
        try:
            headers = fields_of(message.headers, NAMES) if message.headers else {}
        except TableUnreadable as error:
            fault = Fault(ErrorCode.INVALID, f"the headers cannot be read: {error}")
            self._fail(message, fault, self.commands)
            return
        request = commands.parse_command(
            message.body, headers, shard_count=layout.shards, intents=self._process.settings.session.intents
        )
        if isinstance(request, Fault):
            self._fail(message, request, self.commands)
            return
        number = layout.cluster_of(request.shard_id)
        cluster = self._process.clusters.get(number)
        if cluster is None or number in self._process.cache.others:
            self._hand_on(message, number, headers.get(HOPS, 0))
            return
        deadline = asyncio.get_running_loop().time() + self._patience(message)
        held = self._held.hold(message, request.shard_id, request.op, deadline)
        if isinstance(held, Fault):
            self._fail(message, held, self.commands)
            return
        self._wake_for_overdue()
        command = Command(request.op, request.d, request.payload, deadline, (self, held))
        try:
            cluster.command(request.shard_id, command)
        except Exception:
            # It is refused where it came from; an outcome that comes later finds it over.
            self._held.release(held)
            raise

    def _patience(self, message: Message) -> float:
        """Return the seconds that a command may wait: well within RabbitMQ's consumer_timeout, after which it would be
        delivered again without end.
        """
        settings = self._process.settings
        most, timeout = settings.requests.command_deadline_max, self.inbound.consumer_timeout
        if timeout is not None:
            most = min(most, timeout * TIMEOUT_SHARE)
        return commands.deadline(message.expiration, settings.requests.command_deadline, most)

    def _hand_on(self, message: Message, number: int, hops: object) -> None:
        """The shard runs elsewhere: its cluster's exchange knows where."""
        if not isinstance(hops, int) or not 0 <= hops < MOST_HOPS:
            fault = Fault(ErrorCode.UNAVAILABLE, f"no gateway that was asked runs cluster {number}")
            self._fail(message, fault, self.commands)
            return
        headers = with_integer(message.headers, HOPS.encode(), hops + 1)
        if not self.inbound.forward(message, topology.exchange(number), headers):
            words = "the message's properties do not fit into a frame of the connection (frame_max)"
            self._fail(message, Fault(ErrorCode.TOO_LARGE, words), self.commands)
            return
        self.commands["handed_on"] += 1

    def _wake_for_overdue(self) -> None:
        """See to it that what has had no outcome in its time is answered all the same."""
        due = self._held.next_due
        if due is None or (self._alarm is not None and self._alarm.when() <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due, self._end_overdue)

    def _end_overdue(self) -> None:
        self._alarm = None
        fault = Fault(ErrorCode.EXPIRED, _WORDS["expired"])
        for held in self._held.overdue(asyncio.get_running_loop().time()):
            self._fail(held.message, fault, self.commands)
        self._wake_for_overdue()

    def _done(self, order: CommandDone) -> None:
        handle = order.command.handle
        assert isinstance(handle, tuple)
        request_handler, held = handle
        request_handler.answer(held, order)

    def answer(self, held: Held, order: CommandDone) -> None:
        """Answer a command that has had its outcome, on any shard of this process."""
        if not self._held.release(held):
            return
        message, shard_id = held.message, held.shard_id
        if order.outcome == "sent":
            self.commands["sent"] += 1
            if message.reply_to is not None:
                self._reply(message, commands.command_answer(shard_id), errors.Status.OK)
            self.inbound.acknowledge(message)
            return
        words = order.detail or _WORDS.get(order.outcome, order.outcome)
        self._fail(message, Fault(_CODES[order.outcome], words), self.commands)

    # Queries.

    def _query(self, message: Message) -> None:
        request = queries.parse_query(message.body, has_reply_to=message.reply_to is not None)
        if isinstance(request, Fault):
            self.query_kinds[f"unreadable {request.code.value}"] += 1
            self._fail_query(message, request, None)
            return
        patience = commands.deadline(
            message.expiration, self._process.settings.requests.query_deadline, queries.MAX_DEADLINE_S
        )
        cache = self._process.cache
        cluster = _cluster_asked(message)
        if cluster is not None:
            request = _of_one_cluster(request, cluster)
        elif others := cache.others:
            situation = cache.situation()
            if self._process.other_clusters.take(self, message, request, patience, situation, others):
                return
        cache.query_queue.ask(self, message, request, patience)

    def unrouted(self, message: Message, why: str) -> None:
        """A command was handed on to where no gateway reads, or the broker refuses it there for this reason. It is
        acknowledged by others.
        """
        fault = Fault(ErrorCode.UNAVAILABLE, why or "no gateway runs the cluster of this command's shard")
        self.commands[fault.code.value] += 1
        if message.reply_to is not None:
            self._reply(message, errors.error_body(fault), errors.Status.ERROR)
        else:
            self._complaints.say(message, fault, self._cluster.number)

    @property
    def takes_answers(self) -> bool:
        """Whether the broker takes answers; while it does not, they would collect in memory."""
        return self.inbound.writable

    def answer_part(self, message: Message, body: bytes, part: int) -> None:
        """A part of the cache's answer, from 1 on; the last one comes by :meth:`answer_query`."""
        self.inbound.answer(message, body, (*_STATUS[errors.Status.OK], (errors.PART_HEADER, part)))

    def answer_query(
        self, message: Message, key: str | None, status: errors.Status, body: bytes, part: int | None = None
    ) -> None:
        """The cache's answer; an old query's goes to its ``return_routing_key``, empty when nothing is known.

        ``part``: it is the last of so many.
        """
        headers = _STATUS[status]
        if part is not None:
            headers = (*headers, (errors.PART_HEADER, part), (errors.PARTS_HEADER, part))
        self.queries[status.value] += 1
        if message.reply_to is not None:
            self.inbound.answer(message, body, headers)
        elif key is not None:
            self.inbound.publish(message, self._exchange, key, body, headers)
        self.inbound.acknowledge(message)

    def timed(self, kind: str, outcome: str, seconds: float) -> None:
        """A query was taken this long ago and has been answered now."""
        self.query_kinds[_label(kind, outcome)] += 1
        self.query_times.add(seconds)

    def fail_query(self, message: Message, fault: Fault, key: str | None) -> None:
        """Answer a query with an error, in the form that its sender expects."""
        self._fail_query(message, fault, key)

    def _fail_query(self, message: Message, fault: Fault, key: str | None, *, said: bool = False) -> None:
        if message.reply_to is None and key is not None:
            headers = tuple(errors.error_headers(fault).items())
            self.inbound.publish(message, self._exchange, key, b"", headers)
        self._fail(message, fault, self.queries, said=said)

    # Both.

    def _fail(self, message: Message, fault: Fault, counter: Counter[str], *, said: bool = False) -> None:
        counter[fault.code.value] += 1
        if message.reply_to is not None:
            self._reply(message, errors.error_body(fault), errors.Status.ERROR)
        elif fault.code is not ErrorCode.SUPERSEDED and not said:
            self._complaints.say(message, fault, self._cluster.number)
        self.inbound.acknowledge(message)

    def _reply(self, message: Message, body: bytes, status: errors.Status) -> None:
        self.inbound.answer(message, body, _STATUS[status])
