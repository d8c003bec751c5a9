"""What becomes of events that an owner kept and could not publish before another one had its cluster. Pure.

The next owner resumed each session from the sequence that the fleet record named, and Discord sent it everything since.
So what it has settled of a session is published under the same ids, and must not come a second time. What the former
owner has kept is newer than the record that it had confirmed: in a fleet an event counts as settled when the broker has
it, and only then the record's sequence moves. Hence, session by session:

- up to the sequence that later owners have settled, a kept event is theirs, and is dropped;
- above it, while the session lives there, the answer is still to come: Discord's replay is under way;
- above it, once the session has ended there (it could not be resumed, or was lost later) or nobody knows of it, the
  kept event is the only copy, and is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

__all__ = ["PATIENCE_S", "Judgement", "SessionKey", "SessionPosition", "event_named"]

SessionKey = tuple[int, str]
"""(shard, name of the session)"""

# Seconds without any news of what the present owner has settled, after which the rest is published: rather twice than
# never. A shard that Discord keeps waiting for an identify permit may take a minute until it is known to be lost.
PATIENCE_S: Final = 120.0

# docs/contract.md: the message_id of an event, and of what the gateway says in an event's place.
_EVENT: Final = re.compile(r"(?:(?:unreadable|oversize|refused):)?(.+):([0-9]{1,9}):([0-9]{1,18})")


class SessionPosition(msgspec.Struct, frozen=True):
    """How far an owner of the cluster has come with one session."""

    shard_id: int
    name: str
    through: int
    """It has settled everything that it was sent up to this sequence."""
    is_open: bool
    """Whether that may still grow: the session lives, or events of it are unconfirmed."""


def event_named(message_id: str | None) -> tuple[SessionKey, int] | None:
    """Return the session and the sequence of the event that a message is, or stands for; None for any other message."""
    found = None if message_id is None else _EVENT.fullmatch(message_id)
    return None if found is None else ((int(found[2]), found[1]), int(found[3]))


class Judgement:
    """Decides about the events that were kept of some sessions. Times are seconds of one clock."""

    def __init__(self, highest: Mapping[SessionKey, int], now: float) -> None:
        """*highest*: of each session the highest sequence that was kept."""
        self._highest = dict(highest)
        self._settled: dict[SessionKey, int] = {}
        self._open = set(highest)
        self._moved_at = now

    @property
    def waits_for(self) -> int:
        """Of how many sessions more has to be heard."""
        return len(self._open)

    def hear(self, positions: Iterable[SessionPosition], now: float) -> None:
        """Take in all sessions that the present owner of the cluster knows of."""
        known = {(each.shard_id, each.name): each for each in positions}
        for key in tuple(self._open):
            position = known.get(key)
            if position is None:
                self._open.discard(key)
                continue
            if position.through > self._settled.get(key, 0):
                self._settled[key] = position.through
                self._moved_at = now
            if not position.is_open or self._settled.get(key, 0) >= self._highest[key]:
                self._open.discard(key)

    def wait(self, now: float) -> None:
        """Note that nobody can be asked, and nothing published, until *now*: that is not waited for."""
        self._moved_at = max(self._moved_at, now)

    def is_exhausted(self, now: float) -> bool:
        """Whether it was waited long enough."""
        return now - self._moved_at >= PATIENCE_S

    def is_elsewhere(self, message_id: str | None) -> bool:
        """Whether the message with that id was published by a later owner."""
        named = event_named(message_id)
        return named is not None and named[1] <= self._settled.get(named[0], 0)
