"""One cluster's events into its exchange, each kept until the broker has confirmed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from rateway.delivery.limits import DeliveryLimits
from rateway.transports.amqp.uri import AmqpAddress
from rateway.transports.spool import Spool

__all__ = ["Clock", "EventPublisher", "PublisherObserver", "ShardStream"]


class Clock(Protocol):
    """The module :mod:`time` is one."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def time(self) -> float:
        """Seconds since 1970."""


class PublisherObserver(Protocol):
    """Who hears what happens to a cluster's events. Called from the event loop, must return soon and never raise."""

    def on_pause(self) -> None:
        """Unconfirmed events have reached the bound and there is no spool (or it is full): stop reading from Discord."""

    def on_resume(self) -> None:
        """There is room again."""

    def on_settled(self) -> None:
        """``settled`` of at least one stream has moved. At most once for each read from the broker."""

    def on_unrouted(self, name: str, routed: bool) -> None:
        """Nobody is bound to this event's name (``routed`` false), or somebody is again."""

    def on_oversize(self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None) -> None:
        """The broker does not take an event of this size (bytes); RATEWAY_OVERSIZE goes out in its place."""

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        """An event was refused for longer than ``nack_patience`` and is given up; RATEWAY_REFUSED goes out in its place."""

    def on_state(self, up: bool, why: str) -> None:
        """The connection is ready to publish, or is not any more, and why in words (fit for a log line; no secrets)."""


class ShardStream:
    """One shard's dispatches on their way to the exchange. Made by :meth:`EventPublisher.stream`."""

    shard_id: int
    shard_count: int

    @property
    def settled(self) -> int:
        """The highest sequence such that it and all before it are confirmed, in the spool or filtered on purpose. 0: none."""
        raise NotImplementedError

    def begin(self, session_id: str) -> None:
        """A new session: its first dispatch (READY) comes next. ``settled`` starts at 0."""

    def restore(self, session_id: str, settled: int) -> None:
        """A stored session goes on: everything up to ``settled`` needs no confirm any more."""

    def publish(self, name: str, body: bytes | msgspec.Raw, seq: int | None, replayed: bool, repeat: int = 0) -> None:
        """Publish a dispatch: ``body`` is the JSON of ``d``, ``seq`` its ``s``; ``repeat`` n for the n-th other content under one ``s``.

        Never blocks, never raises for what Discord may send. Before :meth:`begin` or :meth:`restore` events go out without an id.
        """

    def skip(self, seq: int) -> None:
        """A dispatch that is filtered on purpose: it counts as settled once all before it are."""


class EventPublisher:
    """The publishing connection of one cluster; it reconnects by itself, for ever."""

    published: int  # events given to us, own messages included
    confirmed: int
    nacked: int
    returned: int
    republished: int  # events written again, after a lost connection or a refusal
    bytes_out: int
    unconfirmed: int  # events in memory and in the spool
    unconfirmed_bytes: int  # in memory
    paused: bool
    connected: bool
    blocked: bool
    unrouted: set[str]  # event names that nobody is bound to
    spool: Spool | None

    def __init__(
        self, *, address: AmqpAddress, exchange: str, cluster: int, limits: DeliveryLimits, persistent: bool, spool: Spool | None,
        clock: Clock, observer: PublisherObserver,
    ) -> None: ...  # fmt: skip

    def stream(self, shard_id: int, shard_count: int) -> ShardStream:
        """The stream of one shard: one for each shard, for the life of the process."""
        raise NotImplementedError

    async def run(self) -> None:
        """Connect, publish, reconnect, until :meth:`stop`."""

    def stop(self) -> None:
        """End :meth:`run`. What is unconfirmed then is in the spool if there is one, else it is for Discord to send again."""

    async def drain(self, timeout: float) -> int:
        """Wait until everything is confirmed, or in the spool, or ``timeout`` seconds are over; events still neither."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what has been published since the last flush. Scheduled by itself at the end of each wake-up."""

    def publish_own(
        self, key: str, body: bytes, message_id: str | None = None, headers: Mapping[str, str | int | bool] | None = None,
        on_confirmed: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """A message of the gateway's own (RATEWAY_*), in order with the events of the cluster.

        ``on_confirmed`` is called once the broker has it, or the spool.
        """

    def oldest(self) -> tuple[float, str] | None:
        """Age in seconds and event name of the oldest unconfirmed event in memory."""
        raise NotImplementedError

    def latencies(self) -> list[tuple[float, int]]:
        """Events confirmed by time from :meth:`ShardStream.publish` to confirm: (upper edge in seconds, events), the last edge infinite."""
        raise NotImplementedError
