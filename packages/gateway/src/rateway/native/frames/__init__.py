"""A connection's whole messages, on their way from its frames to whoever takes them.

One source, two forms: compiled, ``plain.py`` has the C fields that ``compiled.pxd`` declares, and a message reaches the
compiled fast path without a frame of Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["MessageReader", "is_message"]

if TYPE_CHECKING:
    from rateway.native.frames.plain import MessageReader, is_message
else:
    from rateway.native.form import is_plain_wanted

    try:
        if is_plain_wanted():
            raise ImportError
        from rateway.native.frames.compiled import MessageReader, is_message
    except ImportError:
        from rateway.native.frames.plain import MessageReader, is_message
