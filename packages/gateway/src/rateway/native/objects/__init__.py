"""Surgery on JSON objects as bytes: what every cached event needs, compiled where that form is installed.

The plain form (``plain.py``) is the reference and does the same with any bytes; tests compare the two.
``RATEWAY_PLAIN=1`` in the environment selects it.
"""

from __future__ import annotations

from rateway.native.form import is_plain_wanted
from rateway.native.objects import plain

try:
    if is_plain_wanted():
        raise ImportError
    from rateway.native.objects import compiled
except ImportError:
    compiled = plain  # type: ignore[misc]  # the one does what the other does

__all__ = ["COMPILED", *plain.__all__]

COMPILED = compiled is not plain

Door = compiled.Door
SeenFingerprints = compiled.SeenFingerprints
divided, listed, page, tailed = compiled.divided, compiled.listed, compiled.page, compiled.tailed
field, find, less, merge, parted = (
    compiled.field,
    compiled.find,
    compiled.less,
    compiled.merge,
    compiled.parted,
)
is_text, offline, presence, says = compiled.is_text, compiled.offline, compiled.presence, compiled.says
