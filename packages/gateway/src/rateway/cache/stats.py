"""Count a store's entities by kind, and the shards whose guilds came without what is kept now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from itertools import islice

import msgspec
from rateway.cache.guild_row import GuildState, state_of
from rateway.cache.kinds import ENTITY_KINDS, MESSAGES
from rateway.cache.policy import CachePolicy
from rateway.cache.reader import View
from rateway.cache.storage import Table

__all__ = ["counting", "incomplete_shards", "stats_of"]

# Guilds whose state is counted between two looks at the clock.
COUNTED = 500


def counting(view: View) -> Generator[bytes, None, dict[str, int]]:
    """Count the entities of each kind in a store, guild by guild. What it yields in between are parts of an answer with
    nothing in them (``asking.Listing``).
    """
    raw = view.reading.get(Table.META, b"counts")
    counts = msgspec.msgpack.decode(raw, type=dict[int, int]) if raw else {}
    found = {
        row.name: counts.get(row.kind, 0) if row.table is None else view.reading.entries(row.table)
        for row in ENTITY_KINDS
        if row.kind is not None
    }
    found["messages"] = counts.get(MESSAGES, 0)
    states: Counter[GuildState] = Counter()
    rows = view.reading.scan(Table.GUILDS, b"", b"\xff" * 9)
    while some := [state_of(value) for _, value in islice(rows, COUNTED)]:
        states.update(some)
        yield b""
    found["guilds"] = states.total()
    found["unavailable_guilds"] = states[GuildState.OUTAGE]
    found["pending_guilds"] = states[GuildState.PENDING]
    return found


def stats_of(view: View) -> dict[str, int]:
    """Return how many entities of each kind a store holds."""
    work = counting(view)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: dict[str, int] = done.value
            return found


def incomplete_shards(view: View, policy: CachePolicy) -> dict[int, int]:
    """Return shards with guilds that came before a kind was kept that is kept now: the newest stamp from which one is.

    A guild in an outage is none of them: a new session would not bring it. Nor is a guild of a cold shard that has not
    come: a second session brings it, and nobody has to give the shard's own up.
    """
    kinds = [
        kind
        for kind in (*policy.kept(), "guilds")
        if kind not in _WITHOUT_SNAPSHOT and not view.is_complete(kind)
    ]
    if not kinds:
        return {}
    since = max(view.incomplete_since(kind) for kind in kinds)
    return {
        row.shard_id: since
        for _, row in view.guild_rows()
        if row.stamp < since and row.state is not GuildState.OUTAGE
    }


# No GUILD_CREATE brings them, however new.
_WITHOUT_SNAPSHOT = frozenset(
    row.name for row in ENTITY_KINDS if not row.snapshot_field and not row.comes_inside
)
