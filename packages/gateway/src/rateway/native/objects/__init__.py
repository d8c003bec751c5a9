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

__all__ = ["COMPILED", "NUMBERS", *plain.__all__]

COMPILED = compiled is not plain

NUMBERS = compiled.NUMBERS
CacheFastPath = compiled.CacheFastPath
SeenFingerprints = compiled.SeenFingerprints
append_to_each, page, find = compiled.append_to_each, compiled.page, compiled.find
drop_fields, field, merge, split_field = (
    compiled.drop_fields,
    compiled.field,
    compiled.merge,
    compiled.split_field,
)
list_by_id, split_lists = compiled.list_by_id, compiled.split_lists
is_offline, is_part_of, is_text = compiled.is_offline, compiled.is_part_of, compiled.is_text
read_presence = compiled.read_presence
