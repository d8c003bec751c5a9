"""The exchange, queue and keys of a cluster (``docs/contract.md``, *Exchange and queue*)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BEFORE", "CACHE_KEY", "EXCHANGE_TYPE", "GATEWAY_KEY", "MAX_KEY_BYTES", "OWN_PREFIX", "cluster_of_exchange",
    "event_key_fault", "event_log", "exchange", "exchanges",
    "incoming", "is_own_queue", "substitute",
]  # fmt: skip

EXCHANGE_TYPE = "direct"
# Commands for Discord, and queries to the cache: the two keys that a cluster's inbound queue is bound with.
GATEWAY_KEY = "gateway"
CACHE_KEY = "cache"
# Keys of the gateway's own messages begin so; no event of Discord does.
OWN_PREFIX = "RATEWAY_"
# The key of what was before an event is the event's name with this behind it.
BEFORE = ".before"
# Exchanges that a line names one by one.
_MOST_NAMED = 4
# AMQP's short string.
MAX_KEY_BYTES = 255
# Inbound queues, and those by which a gateway recognises its own connection.
_INCOMING = "rateway-incoming-"
_OWN_QUEUES = _INCOMING.encode()
_LOG = "rateway-log-"


def exchange(cluster: int) -> str:
    """Return the exchange of a cluster: type direct, durable, not auto-delete."""
    return f"rateway-{cluster}"


def exchanges(clusters: Sequence[int]) -> str:
    """Return the exchanges of clusters, in words: ``rateway-1, rateway-2`` or ``rateway-1 to rateway-25``.

    *clusters* ascend.
    """
    if len(clusters) > _MOST_NAMED and clusters[-1] - clusters[0] == len(clusters) - 1:
        return f"{exchange(clusters[0])} to {exchange(clusters[-1])}"
    more = ", …" if len(clusters) > _MOST_NAMED else ""
    return ", ".join(exchange(each) for each in clusters[:_MOST_NAMED]) + more


def incoming(cluster: int) -> str:
    """Return the queue that a cluster reads, bound to its exchange with :data:`CACHE_KEY` and :data:`GATEWAY_KEY`."""
    return f"{_INCOMING}{cluster}"


def substitute(cluster: int) -> str:
    """Return the queue that a cluster of a fleet reads while the node of :func:`incoming` is away, bound like it."""
    return f"{_INCOMING}{cluster}-substitute"


def event_log(cluster: int, random: str) -> str:
    """Return the event log of a cluster, a stream. *random* is another one for each that is declared: a stream has no
    identity but its name.
    """
    return f"{_LOG}{cluster}-{random}"


def is_own_queue(name: bytes) -> bool:
    """Return whether a queue is one of a gateway's own: an answer to it would come back as a query or a command."""
    return name.startswith(_OWN_QUEUES)


def is_workers_queue(name: str) -> bool:
    """Return whether a queue is a worker's: neither an inbound queue nor an event log."""
    return not name.startswith((_INCOMING, _LOG))


def event_key_fault(name: str) -> str:
    """Return why an event of that name cannot be published under it; empty when it can."""
    if not name:
        return "it has no name"
    if name in (GATEWAY_KEY, CACHE_KEY) or name.startswith(OWN_PREFIX):
        return "its name is a key of the gateway's own"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return "its name is longer than a routing key may be" if size > MAX_KEY_BYTES else ""


def cluster_of_exchange(name: str) -> int | None:
    """Return the cluster that an exchange's name stands for, or ``None`` for a foreign exchange."""
    number = name.removeprefix("rateway-")
    if number == name or not (number.isascii() and number.isdigit()) or number.startswith("0"):
        return None
    return int(number)
