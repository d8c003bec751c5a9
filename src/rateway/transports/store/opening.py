"""May this store be trusted? Opening LMDB, recognising what is old, torn or foreign, and naming every fault."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StoreFault"]


@dataclass(frozen=True, slots=True)
class StoreFault:
    """Why the store cannot be used, in words for a person. Events flow on; queries answer with these words."""

    words: str
    full: bool = False
    """The disk or the map has no room left."""
