"""How a granted identify permit ends: what a session reports and the identify governor takes in."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["PermitOutcome"]

PermitOutcome: TypeAlias = Literal["ready", "invalid", "closed", "timeout", "unused"]
"""READY came; op 9 came; the connection closed; no READY came in time; no IDENTIFY was sent."""
