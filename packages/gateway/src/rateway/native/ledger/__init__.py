"""The unconfirmed events of a cluster, and the settled sequence of each of its shards.

One source, two forms: compiled, ``plain.py`` has the C fields and calls that ``compiled.pxd`` declares. At fifty events
a second on each of many shards nearly every event is a run of its own, and what is done for each run is done for each
event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["STRIDE", "Batch", "Cursor", "Headroom", "Run", "Unconfirmed", "times_of"]

if TYPE_CHECKING:
    from rateway.native.ledger.plain import STRIDE, Batch, Cursor, Headroom, Run, Unconfirmed, times_of
else:
    from rateway.native.form import is_plain_wanted

    try:
        if is_plain_wanted():
            raise ImportError
        from rateway.native.ledger.compiled import STRIDE, Batch, Cursor, Headroom, Run, Unconfirmed, times_of
    except ImportError:
        from rateway.native.ledger.plain import STRIDE, Batch, Cursor, Headroom, Run, Unconfirmed, times_of
