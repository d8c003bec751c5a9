"""Reading a configuration: the file, the environment over it, every mistake at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rateway.config.settings import Settings

__all__ = ["load"]


def load(file: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings that *file* and *environ* give, the environment first.

    Raises :class:`ConfigurationError` with every mistake in either of them.
    """
    raise NotImplementedError
