"""What workers ask of one cluster: commands for Discord, queries to the cache. Each is answered; none harms another.

A command is acknowledged once it went to Discord or was refused; a query once it was answered. Whatever is wrong
with a message is its own sender's affair: it is answered or logged, counted, and acknowledged
(docs/contract.md, "Answers").
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from typing import TYPE_CHECKING

from rateway.contract import commands, errors, queries, topology
from rateway.contract.errors import ErrorCode, Fault
from rateway.runtime.times import Times
from rateway.session.orders import Command, CommandDone
from rateway.transports.amqp.inbound import Inbound, Message

if TYPE_CHECKING:
    from rateway.runtime.cluster import Cluster
    from rateway.runtime.worker import Worker

log = logging.getLogger(__name__)

# A forwarded command carries how often it was handed on: gateways that disagree about the layout must not play ball.
HOPS = "rateway_hops"
MOST_HOPS = 3

# Enough to see what a worker does wrong; all are counted (docs/metrics.md). In a cluster, within so many seconds.
COMPLAINTS = 20
COMPLAINTS_S = 60.0

_CODES: dict[str, ErrorCode] = {
    "superseded": ErrorCode.SUPERSEDED,
    "expired": ErrorCode.EXPIRED,
    "queue_full": ErrorCode.QUEUE_FULL,
    "too_large": ErrorCode.TOO_LARGE,
    "invalid": ErrorCode.INVALID,
}
_STATUS = {status: ((errors.STATUS_HEADER, status.value),) for status in errors.Status}
_WORDS: dict[str, str] = {
    "superseded": "a newer presence took its place",
    "expired": "it waited for longer than its deadline",
    "queue_full": "too many commands wait for this shard",
}


@functools.cache
def _label(kind: str, outcome: str) -> str:
    """Types and outcomes are few."""
    return f"{kind} {outcome}"


class _Complaints:
    """Refused messages in the log, so many a minute: a worker that repeats a mistake must not fill it."""

    def __init__(self) -> None:
        self._until = 0.0
        self._said = 0
        self._unsaid = 0

    def say(self, message: Message, fault: Fault, cluster: int) -> None:
        """One line, or one more for the next line to count."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until, self._said = now + COMPLAINTS_S, 0
        if self._said >= COMPLAINTS:
            self._unsaid += 1
            return
        before = f" ({self._unsaid} more were refused before it)" if self._unsaid else ""
        self._said, self._unsaid = self._said + 1, 0
        log.warning(
            "a worker's message (key %s) was refused: %s: %s%s",
            message.key,
            fault.code.value,
            fault.message,
            before,
            extra={"cluster": cluster, "action": "refused"},
        )


class Responder:
    """The reader of one cluster's inbound queue; ``message`` is called for each message and never waits or raises."""

    inbound: Inbound

    def __init__(self, worker: Worker, cluster: Cluster) -> None:
        self._worker = worker
        self._cluster = cluster
        self._exchange = topology.exchange(cluster.number)
        self.commands: Counter[str] = Counter()
        self.queries: Counter[str] = Counter()
        self.query_kinds: Counter[str] = Counter()
        self.query_times = Times()
        self._complaints = _Complaints()
        cluster.on_command_done = self._done

    def message(self, message: Message) -> None:
        """A query or a command has come."""
        if message.key == topology.GATEWAY_KEY:
            self._command(message)
        elif message.key == topology.CACHE_KEY:
            self._query(message)
        else:
            fault = Fault(ErrorCode.INVALID, f"the routing key {message.key!r} is neither cache nor gateway")
            self._fail(message, fault, self.commands)

    # Commands.

    def _command(self, message: Message) -> None:
        layout = self._worker.choice.layout
        request = commands.parse_command(
            message.body, message.headers, shard_count=layout.shards, intents=self._worker.settings.intents
        )
        if isinstance(request, Fault):
            self._fail(message, request, self.commands)
            return
        number = layout.cluster_of(request.shard_id)
        cluster = self._worker.clusters.get(number)
        if cluster is None:
            self._hand_on(message, number)
            return
        now = asyncio.get_running_loop().time()
        patience = commands.deadline(message.expiration, self._worker.settings.command_deadline)
        handle = (self, message, request.shard_id)
        cluster.command(
            request.shard_id, Command(request.op, request.payload, request.guild_id, now + patience, handle)
        )

    def _hand_on(self, message: Message, number: int) -> None:
        """The shard runs elsewhere: its cluster's exchange knows where."""
        hops = message.headers.get(HOPS, 0)
        if not isinstance(hops, int) or hops >= MOST_HOPS:
            fault = Fault(ErrorCode.UNAVAILABLE, f"no gateway that was asked runs cluster {number}")
            self._fail(message, fault, self.commands)
            return
        self.commands["handed_on"] += 1
        self.inbound.forward(message, topology.exchange(number), {**message.headers, HOPS: hops + 1})
        self.inbound.acknowledge(message)

    def _done(self, order: CommandDone) -> None:
        handle = order.command.handle
        assert isinstance(handle, tuple)
        responder, message, shard_id = handle
        responder.answer(message, shard_id, order)

    def answer(self, message: Message, shard_id: int, order: CommandDone) -> None:
        """A command of ours has had its fate, on whichever shard of this process."""
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
        cache = self._worker.cache
        if cache is None:
            words = "the cache is switched off (CACHE_ENABLED)"
            self._fail_query(message, Fault(ErrorCode.CACHE_OFF, words), request.return_routing_key)
            return
        patience = commands.deadline(message.expiration, self._worker.settings.query_deadline)
        cache.desk.ask(self, message, request, patience)

    @property
    def takes_answers(self) -> bool:
        """Whether the broker takes what is answered; where it does not, answers would pile up in memory."""
        return self.inbound.writable

    def answer_query(self, message: Message, key: str | None, status: errors.Status, body: bytes) -> None:
        """The cache's answer; an old query's goes to its ``return_routing_key``, empty when nothing is known."""
        headers = _STATUS[status]
        self.queries[status.value] += 1
        if message.reply_to is not None:
            self.inbound.publish(message, "", message.reply_to, body, headers, message.correlation_id)
        elif key is not None:
            self.inbound.publish(message, self._exchange, key, body, headers, message.correlation_id)
        self.inbound.acknowledge(message)

    def timed(self, kind: str, outcome: str, seconds: float) -> None:
        """A query was taken this long ago and has been answered now."""
        self.query_kinds[_label(kind, outcome)] += 1
        self.query_times.add(seconds)

    def fail_query(self, message: Message, fault: Fault, key: str | None) -> None:
        """A query that cannot be answered: said to whoever asked, in the form that it asked for."""
        self._fail_query(message, fault, key)

    def _fail_query(self, message: Message, fault: Fault, key: str | None) -> None:
        if message.reply_to is None and key is not None:
            headers = tuple(errors.error_headers(fault).items())
            self.inbound.publish(message, self._exchange, key, b"", headers, message.correlation_id)
        self._fail(message, fault, self.queries)

    # Both.

    def _fail(self, message: Message, fault: Fault, counter: Counter[str]) -> None:
        counter[fault.code.value] += 1
        if message.reply_to is not None:
            self._reply(message, errors.error_body(fault), errors.Status.ERROR)
        elif fault.code is not ErrorCode.SUPERSEDED:
            self._complaints.say(message, fault, self._cluster.number)
        self.inbound.acknowledge(message)

    def _reply(self, message: Message, body: bytes, status: errors.Status) -> None:
        assert message.reply_to is not None
        self.inbound.publish(message, "", message.reply_to, body, _STATUS[status], message.correlation_id)
