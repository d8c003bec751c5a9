"""The inflaters of one connection, one for each compression.

One source, two forms: compiled, ``plain.py`` has the C fields that ``compiled.pxd`` declares, and a message runs none
of Python's frames on its way to the decompressor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["SUFFIX", "InflateError", "Plain", "Zlib", "Zstd", "zstd"]

if TYPE_CHECKING:
    from rateway.native.inflate.plain import SUFFIX, InflateError, Plain, Zlib, Zstd, zstd
else:
    from rateway.native.form import is_plain_wanted

    try:
        if is_plain_wanted():
            raise ImportError
        from rateway.native.inflate.compiled import SUFFIX, InflateError, Plain, Zlib, Zstd, zstd
    except ImportError:
        from rateway.native.inflate.plain import SUFFIX, InflateError, Plain, Zlib, Zstd, zstd
