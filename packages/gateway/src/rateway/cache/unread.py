"""Keep account of what of events could not be taken into the cache: how often, and what is still to be said of it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Unread"]

# Pairs of event name and reason that are said; names and reasons come from tables, so that there are hardly more.
MOST_SAID = 500


@dataclass(slots=True)
class Unread:
    """One cluster's account, for the life of its process."""

    events: dict[str, int] = field(default_factory=dict)
    """Event name → how many events of it could not be taken in whole."""
    left_out: int = 0
    """Events that were taken in without a part of them."""
    not_applied: int = 0
    """Events of which nothing was taken in."""
    latest: dict[tuple[str, str], int] = field(default_factory=dict)
    """(Event name, reason) → how often."""
    lines: list[str] = field(default_factory=list)
    """Lines for the log that are not written yet: one for the first of each event name and reason."""

    def record(self, name: str, reasons: list[str], shard_id: int, guild: str, *, applied: bool) -> None:
        """Count one event, and keep a line for each reason that is new. ``guild``: what is known of its guild's id."""
        self.events[name] = self.events.get(name, 0) + 1
        if applied:
            self.left_out += 1
        else:
            self.not_applied += 1
        for reason in dict.fromkeys(reasons):
            key = (name, reason)
            if key not in self.latest:
                if len(self.latest) >= MOST_SAID:
                    continue
                where = f"shard {shard_id}" + (f", guild {guild}" if guild else "")
                then = "is left out of the cache" if applied else "the event is not in the cache"
                self.lines.append(
                    f"{name} of {where}: {reason}: {then}; the event itself is published as it came. "
                    "The first of this name and reason is said, all are counted"
                )
            self.latest[key] = self.latest.get(key, 0) + 1

    def take_lines(self) -> list[str]:
        """Return the lines that are not logged yet, and forget them."""
        lines, self.lines = self.lines, []
        return lines

    def note(self) -> str:
        """Return one sentence for the status; empty when every event could be read."""
        if not self.events:
            return ""
        *_, (name, reason) = self.latest
        parts = []
        if self.left_out:
            parts.append(f"a part of {self.left_out} events was left out")
        if self.not_applied:
            parts.append(f"{self.not_applied} events were not taken in")
        counted = " and ".join(parts)
        return (
            f"the cache could not read all that Discord sent: {counted} (the latest reason: {name}: {reason})"
        )
