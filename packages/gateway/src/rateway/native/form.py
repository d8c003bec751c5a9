"""The form in which the hot path runs, compiled or plain Python; both forms of a module do the same."""

from __future__ import annotations

import importlib
import os
from typing import Literal

__all__ = ["COMPILED", "form", "is_plain_wanted"]

# Every ``compiled.pyx``, and every ``compiled.pxd`` that compiles the plain form.
COMPILED = (
    "rateway.native.fast_path.compiled",
    "rateway.native.frames.compiled",
    "rateway.native.inflate.compiled",
    "rateway.native.ledger.compiled",
    "rateway.native.log_entries.compiled",
    "rateway.native.objects.compiled",
    "rateway.native.rows.compiled",
)


def is_plain_wanted() -> bool:
    """Return whether ``RATEWAY_PLAIN`` in the environment asks for plain Python."""
    return os.environ.get("RATEWAY_PLAIN", "") not in ("", "0")


def form() -> Literal["compiled", "partly compiled", "plain Python"]:
    """Return the form in use; it is plain Python when compiled modules are missing, do not load, or are unwanted."""
    found = 0 if is_plain_wanted() else sum(_can_import(name) for name in COMPILED)
    return "compiled" if found == len(COMPILED) else "partly compiled" if found else "plain Python"


def _can_import(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
