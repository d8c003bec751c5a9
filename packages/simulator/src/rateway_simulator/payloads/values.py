"""The values that payloads are built of: JSON objects, timestamps and numbers derived from a seed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

# Snowflakes count milliseconds from here, the first second of 2015 (docs: Reference, Snowflakes).
DISCORD_EPOCH_MS = 1_420_070_400_000
# The bits of a hash that are kept, so that the number is never negative.
_MASK = (1 << 62) - 1


def iso(seconds: float) -> str:
    """Unix seconds as Discord writes a timestamp: ISO 8601 with microseconds and an offset."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def noise(*parts: int) -> int:
    """Return 62 bits that depend on nothing but `parts` (the hash of integers is the same in every process)."""
    return hash(parts) & _MASK
