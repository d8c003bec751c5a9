"""A bounded set of recent ``message_id``s, noted after processing, that recognises repeated events.

The gateway delivers at least once, and the same event always carries the same id. Remembering only the highest
``seq`` would drop events that a broker took late. Noted *after* processing: a worker that dies in the middle gets the
event again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

__all__ = ["Remembering", "Seen"]


class Remembering(Protocol):
    """The interface of :class:`Seen`, for a store of one's own. Its methods must return at once; a remote store belongs
    into the handler.
    """

    def __contains__(self, message_id: object) -> bool: ...

    def note(self, message_id: str, now: float) -> None: ...


class Seen:
    """The newest ids, at most ``most`` and none older than ``seconds``. ``now`` is monotonic seconds."""

    def __init__(self, most: int = 10_000, seconds: float = 600.0) -> None:
        self._most = most
        self._seconds = seconds
        self._ids: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._ids

    def note(self, message_id: str, now: float) -> None:
        """An event was processed."""
        ids = self._ids
        ids[message_id] = now
        ids.move_to_end(message_id)
        while ids and (len(ids) > self._most or now - next(iter(ids.values())) > self._seconds):
            ids.popitem(last=False)
