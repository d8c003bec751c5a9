"""The tails of all logs that sessions of this process read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, ValuesView

from rateway.delivery.proxy_port import LogReader
from rateway.proxy.log.fanout import Answers, Visible
from rateway.proxy.log.reading import Timers
from rateway.proxy.log.tail import LogTail

__all__ = ["Tails"]


class Tails:
    """One tail a log, while it is used and one look (:meth:`close_unused`) beyond.

    *on_lost* is called with words for the log when a log is gone; its sessions have ended by then.
    """

    def __init__(
        self, reader: LogReader, timers: Timers, visible: Visible, answers: Answers, on_lost: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._reader = reader
        self._timers = timers
        self._visible = visible
        self._answers = answers
        self._on_lost = on_lost
        self._tails: dict[str, LogTail] = {}
        self._uses: Counter[str] = Counter()
        self._unused: set[str] = set()

    def all(self) -> ValuesView[LogTail]:
        """The tails that are read."""
        return self._tails.values()

    def get(self, log: str) -> LogTail | None:
        """The tail of a log that is read."""
        return self._tails.get(log)

    def use(self, log: str) -> LogTail:
        """Return the tail of a log, which is read until :meth:`release`."""
        self._uses[log] += 1
        self._unused.discard(log)
        tail = self._tails.get(log)
        if tail is None:
            tail = self._tails[log] = LogTail(
                log, self._reader, self._timers, self._visible, self._answers, self._lose
            )
            tail.open()
        return tail

    def release(self, log: str) -> None:
        """End one use."""
        self._uses[log] -= 1

    def close_unused(self) -> None:
        """Close the tails that were unused at the last call already."""
        for log in self._unused:
            tail = self._tails.pop(log, None)
            if tail is not None:
                tail.close()
        self._unused = {log for log in self._tails if self._uses[log] <= 0}
        self._uses = +self._uses

    def close(self) -> None:
        """Close all."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()

    def _lose(self, tail: LogTail, text: str) -> None:
        if self._tails.get(tail.log) is tail:
            del self._tails[tail.log]
        self._on_lost(text)
