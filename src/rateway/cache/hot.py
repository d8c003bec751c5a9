"""Is the compiled form of what every event needs there? It is used then, and the plain one (``plain.py``) otherwise.

Both say the same about any bytes; tests hold them together. ``RATEWAY_PLAIN=1`` in the environment leaves the compiled
one aside.
"""

from __future__ import annotations

from rateway.cache import plain

try:
    from rateway.cache import native
except ImportError:
    native = plain  # type: ignore[misc]  # the one does what the other does

__all__ = ["COMPILED", *plain.__all__]

COMPILED = native is not plain

Door = native.Door
Echoes = native.Echoes
divided, listed, page, tailed = native.divided, native.listed, native.page, native.tailed
field, find, less, merge, parted = native.field, native.find, native.less, native.merge, native.parted
is_text, offline, presence, says = native.is_text, native.offline, native.presence, native.says
