"""Which events are published."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EventFilter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Names of the events that are published. An event that is not still feeds the cache and counts as settled."""

    only: frozenset[str] | None
    """None: all but those in ``never``."""
    never: frozenset[str]

    def publishes(self, event: str) -> bool:
        """Return whether events of that name are published."""
        return (self.only is None or event in self.only) and event not in self.never
