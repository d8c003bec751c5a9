"""The outcomes of a granted identify permit: a session reports them, the identify governor takes them in."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["PermitOutcome"]

PermitOutcome: TypeAlias = Literal["ready", "invalid", "closed", "timeout", "unused"]
"""READY came; op 9 came; the connection closed; no READY came in time; no IDENTIFY was sent."""
