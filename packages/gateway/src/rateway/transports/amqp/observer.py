"""The port that observes a publisher, and its clock."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Clock", "PublisherObserver"]


class Clock(Protocol):
    """The module :mod:`time` is one."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def time(self) -> float:
        """Seconds since 1970."""


class PublisherObserver(Protocol):
    """Who hears what happens to a cluster's events. Called from the event loop; must return soon and never raise."""

    def on_pause(self) -> None:
        """Unconfirmed events have reached the bound and there is no spool (or it is full):

        Stop reading from Discord.
        """

    def on_resume(self) -> None:
        """There is room again."""

    def on_settled(self) -> None:
        """``settled`` of at least one stream has moved. At most once for each read from the broker."""

    def on_unrouted(self, name: str, routed: bool) -> None:
        """Nobody is bound to this event's name (``routed`` false), or somebody is again."""

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        """The broker does not take an event of this size (bytes); RATEWAY_OVERSIZE goes out in its place."""

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        """An event was refused for longer than ``nack_patience``, or has an impossible name:

        RATEWAY_REFUSED takes its place.
        """

    def on_state(self, up: bool, why: str) -> None:
        """The connection is ready to publish, or is not any more, and why in words (fit for a log line;

        No secrets).
        """
