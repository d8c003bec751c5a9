"""What all members of a fleet have in common: the layout that they run, and the salt of their fingerprints."""

from __future__ import annotations

import msgspec
from rateway.fleet.choice import Choice
from rateway.fleet.layout import MOST_SHARDS, Layout

__all__ = ["Charter", "GovernorRecord"]


class Charter(msgspec.Struct, frozen=True):
    """The governor writes it; each member runs what it says. A greater generation replaces it."""

    generation: int
    """Of the layout, from 1. Members of different generations never run at the same time."""
    salt: bytes
    """Of the fingerprints beside sessions: a member must know the sessions of another for this bot's."""
    account: str
    """The bot's fingerprint: gateways of another bot must not share its fleet."""
    shards: int
    per_cluster: int
    gateway_url: str
    refused: int = 0
    """See ``choice.StoredLayout``."""
    refused_in_a_row: int = 0
    """Layouts that Discord refused without a READY between."""

    @property
    def layout(self) -> Layout:
        return Layout(self.shards, self.per_cluster)

    @property
    def is_sound(self) -> bool:
        """Whether it can be run: it came from another machine."""
        bounded = 1 <= self.shards <= 2 * MOST_SHARDS and 1 <= self.per_cluster <= 100_000
        return bounded and self.generation >= 1 and len(self.salt) >= 32

    def choice(self) -> Choice:
        """Return the layout as a start takes it."""
        words = f"{self.shards} shards, the fleet's layout (generation {self.generation})"
        return Choice(self.layout, self.gateway_url, words, self.refused)

    def following(self, choice: Choice, *, refused_in_a_row: int) -> Charter:
        """Return the charter of the next generation, with the layout of *choice*."""
        return Charter(
            self.generation + 1,
            self.salt,
            self.account,
            choice.layout.shards,
            choice.layout.per_cluster,
            choice.gateway_url,
            choice.refused,
            refused_in_a_row,
        )


class GovernorRecord(msgspec.Struct, frozen=True):
    """What the governor keeps at the broker, for the next one."""

    charter: Charter | None = None
    """None before the fleet's first layout is chosen."""
    ledger: bytes = b""
    """The identifies of the day, as ``runtime.identify.permits`` writes them."""
