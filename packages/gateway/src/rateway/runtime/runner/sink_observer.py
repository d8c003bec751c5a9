"""Carry what happens to a cluster's events at the broker to its shards, its counters and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from rateway.runtime.runner.event_tallies import EventTallies
from rateway.runtime.runner.session_writer import SessionWriter
from rateway.runtime.runner.shard import Shard

log = logging.getLogger(__name__)

__all__ = ["ClusterSinkObserver"]


class ClusterSinkObserver:
    """The observer of one cluster's event sink (``delivery.port.SinkObserver``)."""

    def __init__(
        self,
        number: int,
        shards: Mapping[int, Shard],
        tallies: EventTallies,
        session_writer: SessionWriter,
        on_up: Callable[[], None],
    ) -> None:
        """*on_up* is called whenever events can be published again: the exchange may be a new one then."""
        self.why = "not connected yet"
        """The sink's last word on whether events can be published."""
        self._number = number
        self._shards = shards
        self._tallies = tallies
        self._session_writer = session_writer
        self._on_up = on_up

    def on_pause(self) -> None:
        log.warning(
            "the broker does not keep up and the spool is full or off: reading from Discord pauses",
            extra={"cluster": self._number, "action": "pause"},
        )
        for shard in self._shards.values():
            shard.pause()

    def on_resume(self) -> None:
        log.info("reading from Discord goes on", extra={"cluster": self._number, "action": "resume_reading"})
        for shard in self._shards.values():
            shard.resume_reading()

    def on_settled(self) -> None:
        self._session_writer.note_change()

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        self._tallies.oversize += 1

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        self._tallies.refused += 1

    def on_state(self, up: bool, why: str) -> None:
        self.why = why
        if up:
            self._on_up()
