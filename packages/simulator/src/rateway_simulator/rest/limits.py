"""Limit the requests for one route: Discord's buckets. (The limit over all routes is in ``middleware.py``.)

Windows are fixed, as Discord's are: a bucket's window begins with its first request (docs: Rate Limits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rateway_simulator.payloads.values import noise

# (method, route) → requests, seconds; everything else has the last line's.
LIMITS: Final = {
    ("POST", "/channels/{channel_id}/messages"): (5, 5.0),
    ("PATCH", "/channels/{channel_id}/messages/{message_id}"): (5, 5.0),
    ("DELETE", "/channels/{channel_id}/messages/{message_id}"): (5, 1.0),
    ("POST", "/channels/{channel_id}/typing"): (5, 5.0),
    ("PUT", "/channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me"): (1, 0.25),
    ("PATCH", "/guilds/{guild_id}/members/{user_id}"): (10, 10.0),
    ("PATCH", "/channels/{channel_id}"): (5, 15.0),
}
DEFAULT: Final = (50, 10.0)
# Unused buckets are forgotten when there are more than so many.
_KEPT: Final = 10_000


@dataclass(slots=True)
class Verdict:
    """Headers of the answer; `retry_after` in seconds when the request is refused."""

    headers: dict[str, str]
    retry_after: float | None = None


class Limits:
    """Counts requests; times are Unix seconds."""

    def __init__(self) -> None:
        # Bucket → end of its window, requests in it.
        self._windows: dict[tuple[str, str, str], tuple[float, int]] = {}

    def ask(self, method: str, route: str, major: str, now: float) -> Verdict:
        """Count a request and return whether it may pass; `major` is the channel, guild or webhook that it is about."""
        most, seconds = LIMITS.get((method, route), DEFAULT)
        key = (method, route, major)
        end, count = self._windows.get(key, (0.0, 0))
        if end <= now:
            if len(self._windows) > _KEPT:
                self._windows = {k: w for k, w in self._windows.items() if w[0] > now}
            end, count = now + seconds, 0
        count += 1
        headers = {
            "X-RateLimit-Limit": str(most),
            "X-RateLimit-Remaining": str(max(0, most - count)),
            "X-RateLimit-Reset": f"{end:.3f}",
            "X-RateLimit-Reset-After": f"{end - now:.3f}",
            "X-RateLimit-Bucket": f"{noise(*method.encode(), *route.encode()):016x}",
        }
        if count > most:
            headers |= {"X-RateLimit-Scope": "user", "Retry-After": f"{end - now:.3f}"}
            return Verdict(headers, end - now)
        self._windows[key] = (end, count)
        return Verdict(headers)
