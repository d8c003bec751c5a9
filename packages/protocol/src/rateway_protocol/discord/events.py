"""The documented dispatch events, and what is known about each.

The list is ``events.json``, read once. Events that are not in it are forwarded all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from rateway_protocol.discord.intents import Intents

__all__ = ["DOCUMENTED", "EVENTS", "EventSpec"]


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One documented event (Discord documentation, "Gateway Events")."""

    name: str
    intents: int
    """Any of these bits brings the event; 0 means that it always comes."""
    guild_id_path: str | None
    """The path of the guild's id in ``d``, with dots (``meta.guild_id``, ``id``); None without one."""
    guild_id_optional: bool
    cached_entities: tuple[str, ...]
    """The kinds of cached entities that the event touches."""


def _load() -> dict[str, EventSpec]:
    text = resources.files("rateway_protocol.discord").joinpath("events.json").read_text("utf-8")
    return {
        row["event"]: EventSpec(
            name=row["event"],
            intents=sum(Intents[name] for name in row["intents"]),
            guild_id_path=row["guild_id_path"],
            guild_id_optional=bool(row["guild_id_optional"]),
            cached_entities=tuple(row["cached_entities"]),
        )
        for row in json.loads(text)
    }


EVENTS: Mapping[str, EventSpec] = MappingProxyType(_load())
DOCUMENTED: frozenset[str] = frozenset(EVENTS)
