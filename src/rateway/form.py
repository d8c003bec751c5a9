"""Which form of this package runs, compiled or plain Python? A module that has both does the same in either."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import ModuleType
from typing import Literal

__all__ = ["COMPILED", "Plain", "form", "heed_wish"]

# Every .pyx.
COMPILED = ("rateway.cache.native", "rateway.discord.native", "rateway.lane.native")


def form() -> Literal["compiled", "partly compiled", "plain Python"]:
    """The last when compiled modules are missing, do not fit this machine, or are not wanted."""
    found = sum(_there(name) for name in COMPILED)
    return "compiled" if found == len(COMPILED) else "partly compiled" if found else "plain Python"


def _there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def heed_wish() -> None:
    """With ``RATEWAY_PLAIN=1`` no compiled module of this package is found from now on."""
    if os.environ.get("RATEWAY_PLAIN", "") not in ("", "0"):
        sys.meta_path.insert(0, Plain)


class Plain:
    """Finds this package's modules as Python does, less what was compiled."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The source's specification; nothing for others' modules, which the next finder looks for."""
        if not name.startswith("rateway."):
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is None or not isinstance(found.loader, ExtensionFileLoader):
            return found
        source = os.path.join(os.path.dirname(found.loader.path), f"{name.rpartition('.')[2]}.py")
        if not os.path.exists(source):
            raise ModuleNotFoundError(f"{name} is compiled only, and RATEWAY_PLAIN is set", name=name)
        return importlib.util.spec_from_file_location(name, source)
