"""The settings of the gateway's processes: options of the layers above this one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rateway.config.presence import PresenceTemplate

__all__ = ["ProcessSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """The processes of a gateway. Times are seconds."""

    processes: int | None
    """None: as many as the cores that are left to this process."""
    presence: PresenceTemplate | None
    state_dir: Path
    stop_timeout: float
    lag_warning: float
