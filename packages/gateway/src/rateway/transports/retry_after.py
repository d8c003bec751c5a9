"""Read the header ``Retry-After``: seconds, or a date (RFC 9110, 10.2.3).

Discord writes seconds, with a fraction at times ("Rate Limits" of its documentation); a proxy or a cache before it may
write a date.
"""

from __future__ import annotations

import re
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Final

__all__ = ["believable", "read_retry_after"]

# Discord's longest windows are a day; nothing waits for longer because of a header.
LONGEST_S: Final = 86_400.0
# Longer than any date.
MOST_CHARACTERS: Final = 64
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


def read_retry_after(text: str | None) -> float | None:
    """Return the seconds to wait, a day at most; None where the header is missing or neither a number nor a date."""
    if text is None:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return believable(float(text))
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        date = parsedate_tz(text)
        return None if date is None else min(max(0.0, mktime_tz(date) - time.time()), LONGEST_S)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def believable(seconds: float) -> float | None:
    """Return *seconds*, a day at most; None where they are negative or no number."""
    return min(seconds, LONGEST_S) if seconds >= 0 else None
