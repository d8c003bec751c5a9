"""Is the compiled form of what every event needs there? It is used then, and the plain one (``plain.py``) otherwise.

Both say the same about any bytes; tests hold them together. ``RATEWAY_PLAIN=1`` in the environment leaves the compiled
one aside.
"""

from __future__ import annotations

try:
    from rateway.cache.native import (
        Door,
        Echoes,
        divided,
        field,
        find,
        less,
        listed,
        merge,
        page,
        parted,
        presence,
        says,
        tailed,
    )

    COMPILED = True
except ImportError:
    from rateway.cache.plain import (
        Door,
        Echoes,
        divided,
        field,
        find,
        less,
        listed,
        merge,
        page,
        parted,
        presence,
        says,
        tailed,
    )

    COMPILED = False

__all__ = [
    "COMPILED",
    "Door",
    "Echoes",
    "divided",
    "field",
    "find",
    "less",
    "listed",
    "merge",
    "page",
    "parted",
    "presence",
    "says",
    "tailed",
]
