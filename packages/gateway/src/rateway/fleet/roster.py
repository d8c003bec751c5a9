"""The members of a fleet, as each of them knows the others: from what they announce each second.

A roster decides nothing that must not be wrong: who owns a cluster is the broker's word alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

__all__ = ["ANNOUNCE_EVERY_S", "GONE_AFTER_S", "Announcement", "Roster", "SeenMember", "TenureView"]

ANNOUNCE_EVERY_S = 1.0
# Silence after which a member is no longer counted: longer than a full collection of garbage, or a broker's node that
# another one replaces.
GONE_AFTER_S = 10.0
# Members of one fleet; more are no machines of one bot.
MOST_MEMBERS = 1_000


class TenureView(msgspec.Struct, frozen=True):
    """One cluster that a member owns. Times are seconds, counted back from the announcement."""

    cluster: int
    epoch: int
    shards: int
    live: int
    """Shards with a live session."""
    stopped: int = 0
    """Shards that wait for a person, or for hours: nothing waits for them."""
    held_for: float = 0.0
    """Since when it is owned."""
    how: str = ""
    """How the tenure began: ``first``, ``released``, ``inherited``."""
    former: str = ""
    """The member that owned it before."""
    record_age: float | None = None
    """Since the newest confirmed record was sent; None: none is confirmed."""
    moving: bool = False
    """Whether it is being handed over to another member."""

    @property
    def away(self) -> int:
        """Shards that are to come back by themselves."""
        return max(0, self.shards - self.live - self.stopped)

    @property
    def shape(self) -> tuple[int, int, int, int, bool]:
        """What of it is news when it changes: ages are not."""
        return self.cluster, self.epoch, self.live, self.stopped, self.moving


class Announcement(msgspec.Struct, frozen=True):
    """What a member says of itself."""

    version: str
    uptime: float
    generation: int
    """Of the layout that it runs; 0: none yet, or no longer."""
    clusters: list[TenureView] = []
    allowed: list[int] | None = None
    """The clusters that it may run; None: all."""
    processes: int = 1
    """Over which it spreads those clusters (``layout.spread``), owned or not."""
    leaving: bool = False
    """It hands its clusters over and takes none."""
    deaf: bool = False
    """It cannot reach Discord, and takes none."""
    governor: int = 0
    """The epoch of its tenure as the governor; 0: it is not."""

    @property
    def shape(self) -> tuple[object, ...]:
        """What of it is news when it changes: ages are not."""
        clusters = tuple(view.shape for view in self.clusters)
        return self.generation, clusters, self.leaving, self.deaf, self.governor


@dataclass(slots=True)
class SeenMember:
    """A member, and when it was heard of last (seconds of the clock that the roster is asked by)."""

    name: str
    said: Announcement
    heard_at: float


class Roster:
    """The members that were heard of."""

    def __init__(self) -> None:
        self._seen: dict[str, SeenMember] = {}

    def hear(self, name: str, said: Announcement, now: float) -> None:
        """Take in an announcement."""
        if name in self._seen or len(self._seen) < MOST_MEMBERS:
            self._seen[name] = SeenMember(name, said, now)

    def leave(self, name: str) -> None:
        """The member has said that it ends."""
        self._seen.pop(name, None)

    def forget_gone(self, now: float) -> list[str]:
        """Drop members that were silent for GONE_AFTER_S; return their names."""
        gone = [each.name for each in self._seen.values() if now - each.heard_at > GONE_AFTER_S]
        for name in gone:
            del self._seen[name]
        return gone

    def members(self) -> list[SeenMember]:
        """Return the members by name."""
        return sorted(self._seen.values(), key=lambda each: each.name)

    def get(self, name: str) -> SeenMember | None:
        return self._seen.get(name)

    def governor(self) -> tuple[str, int] | None:
        """Return the member that says it is the governor, and its epoch: of several the one with the greatest."""
        found = [(each.said.governor, each.name) for each in self._seen.values() if each.said.governor > 0]
        if not found:
            return None
        epoch, name = max(found)
        return name, epoch

    def owner(self, cluster: int) -> str | None:
        """Return the member that says it owns the cluster: of several the one with the greatest epoch."""
        found = [
            (view.epoch, each.name)
            for each in self._seen.values()
            for view in each.said.clusters
            if view.cluster == cluster
        ]
        return max(found)[1] if found else None

    def unowned(self, clusters: Iterable[int]) -> list[int]:
        """Return those of *clusters* that no member says it owns."""
        owned = {view.cluster for each in self._seen.values() for view in each.said.clusters}
        return [number for number in clusters if number not in owned]
