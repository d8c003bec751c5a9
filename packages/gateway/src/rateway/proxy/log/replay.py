"""Events that a bot missed before it identified again (``PROXY_REPLAY``).

The last heartbeat of each connection says what its bot has: that place in the logs is kept under the bot's shard, where
every proxy finds it (:class:`~rateway.delivery.proxy_port.Positions`). The next IDENTIFY of the same ``[shard, count]``
gets the events of the wanted names since then, after its GUILD_CREATEs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from rateway.delivery.proxy_port import EndReason, LogEntry, LogReader, Offset, Positions
from rateway.proxy.log.fanout import Visible
from rateway.proxy.log.order import LOOK_BACK, Order
from rateway.proxy.log.reading import Reading, Timers
from rateway.proxy.log.stream import Feed, Stream

__all__ = ["PATIENCE", "MissedEvents", "Replay"]

logger = logging.getLogger(__name__)

# Seconds without an entry after which no more is waited for: the last one is known to be in the log.
PATIENCE: Final = 30.0
# The pass waits while the bot has so many bytes to take.
MOST_WAITING: Final = 1 << 20
# An interaction cannot be answered after three seconds (Discord documentation, "Receiving and Responding").
INTERACTION_SECONDS: Final = 3

_decode = msgspec.json.Decoder(dict[str, int]).decode


@dataclass(frozen=True, slots=True)
class Replay:
    """The events that are sent again, and the store of the bots' places."""

    names: frozenset[str]
    seconds: float
    """Events older than that are left out."""
    positions: Positions
    wall: Callable[[], float]
    """Seconds since 1970."""

    async def keep(self, stream: Stream, places: Mapping[str, int]) -> None:
        """Keep up to where a bot has seen its logs."""
        await self.positions.keep(_key(stream), msgspec.json.encode(places))

    async def places(self, stream: Stream) -> dict[str, int]:
        """Return up to where the former connection of the bot's shard had seen its logs; empty where there was none."""
        kept = await self.positions.read(_key(stream))
        if kept is None:
            return {}
        try:
            return _decode(kept)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            logger.warning("the place of a bot in the event log cannot be read", extra={"action": "proxy"})
            return {}


def _key(stream: Stream) -> str:
    return f"{stream.own_id}-{stream.shard}-{stream.count}"


class MissedEvents:
    """One pass over what a bot missed in one log: after ``begin``, up to where its feed begins. *done* is called at
    the end."""

    def __init__(
        self, feed: Feed, begin: int, replay: Replay, reader: LogReader, timers: Timers, visible: Visible,
        done: Callable[[], None],
    ) -> None:  # fmt: skip
        self.count = 0
        """Events that were sent."""
        self._feed = feed
        self._reading = Reading(feed.log, reader, timers, self)
        self._begin = begin
        self._end = feed.at
        self._names = replay.names
        self._oldest = replay.wall() - replay.seconds
        self._oldest_interaction = replay.wall() - INTERACTION_SECONDS
        self._visible = visible
        self._done = done
        self._order = Order()
        self._last = -1
        self._read()

    def _read(self) -> None:
        """Begin, or go on with the last entry that was read."""
        self._reading.begin(Offset(self._last if self._last >= 0 else max(0, self._begin - LOOK_BACK)))

    def close(self) -> None:
        """Stop. *done* is not called any more."""
        self._reading.close()

    def acknowledge(self) -> None:
        """Let more come, unless the bot has still much to take."""
        if self._last >= 0 and self._feed.receiver.waiting <= MOST_WAITING:
            self._reading.acknowledge(self._last)

    # LogSink.

    def on_begin(self) -> None:
        self._wait()

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        self._reading.note_entries()
        for entry in entries:
            if entry.offset > self._end:
                break
            if entry.offset <= self._last:
                continue
            self._last = entry.offset
            if self._order.is_new(entry) and entry.offset > self._begin and entry.name in self._names:
                self._tell(entry)
        if entries[-1].offset >= self._end:
            self._finish()
        else:
            self.acknowledge()
            self._wait()

    def on_end(self, reason: EndReason, text: str) -> None:
        self._reading.note_end()
        if reason in ("down", "disconnected"):
            self._reading.try_again(self._read)
        else:
            self._give_up(text)

    def _tell(self, entry: LogEntry) -> None:
        stream = self._feed.stream
        oldest = self._oldest_interaction if entry.name == "INTERACTION_CREATE" else self._oldest
        if entry.shard_id not in self._feed.shards or entry.timestamp < oldest:
            return
        d = self._visible(entry.name, entry.body, stream.intents, stream.own_id)
        if d is not None and (not stream.is_partial or stream.has_entry(entry)):
            self.count += 1
            self._feed.tell(entry.name, d)

    def _wait(self) -> None:
        self._reading.wait(PATIENCE, self._on_silence)

    def _on_silence(self) -> None:
        if self._feed.receiver.waiting > MOST_WAITING:
            self._wait()
        else:
            self._give_up(f"{self._feed.log} brings nothing")

    def _give_up(self, why: str) -> None:
        logger.warning("what a bot missed cannot be read to its end: %s", why, extra={"action": "proxy"})
        self._finish()

    def _finish(self) -> None:
        self.close()
        self._done()
