"""Events that wait on disk while the broker is away."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Spool", "SpoolFull"]


class SpoolFull(Exception):
    """The bound is reached, or the disk does not take more."""


class Spool:
    """One cluster's spool: a folder of append-only segments."""

    events: int
    bytes: int
    limit: int
    healthy: bool

    @classmethod
    def open(cls, folder: Path, limit: int) -> Spool:
        """Open or create; what a former process left is kept and comes first. ``limit`` in bytes."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the files back. What is in them stays."""
