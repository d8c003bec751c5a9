"""Rows of the store on their way into a transaction.

One source, two forms: compiled, ``plain.py`` has the C fields and calls that ``compiled.pxd`` declares. At fifty events
a second on each of many shards a commit has a dozen rows in half as many tables, and Python spends more on each of them
than LMDB does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["POSITION", "TIP", "WaitingRows", "position_rows", "tip_rows"]

if TYPE_CHECKING:
    from rateway.native.rows.plain import POSITION, TIP, WaitingRows, position_rows, tip_rows
else:
    from rateway.native.form import is_plain_wanted

    try:
        if is_plain_wanted():
            raise ImportError
        from rateway.native.rows.compiled import POSITION, TIP, WaitingRows, position_rows, tip_rows
    except ImportError:
        from rateway.native.rows.plain import POSITION, TIP, WaitingRows, position_rows, tip_rows
