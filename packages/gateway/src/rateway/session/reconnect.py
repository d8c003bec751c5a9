"""Decide where to connect, after what delay, and when a session is given up.

Discord documentation, "Gateway": "Disconnecting", "Resuming", "Session Start Limit". A resume is free and urgent, an
identify is scarce: the first is tried at once and often, the second is delayed up to minutes and counted by the hour.
"""

from __future__ import annotations

from enum import Enum
from urllib.parse import urlsplit, urlunsplit

from rateway.backoff import Backoff
from rateway.session.options import Chance, Compression, SessionOptions

__all__ = ["Breaker", "Delays", "EndpointSelector", "JitteredBackoff", "Patience", "Turn", "gateway_address"]

API_VERSION = 10
# Failures in a row at one host after which the other is tried, with the same session.
FAILURES_PER_HOST = 2
HOUR = 3600.0
MINUTE = 60.0
# Connections of one shard that ended within a minute, after which a short life proves nothing.
FLAPPING = 10


def gateway_address(url: str, compression: Compression) -> str:
    """*url* with a path and our own query: READY's address comes bare, and a resume without them fails."""
    parts = urlsplit(url)
    query = f"v={API_VERSION}&encoding=json"
    if compression != "none":
        query += f"&compress={compression}"
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))


class JitteredBackoff:
    """Full jitter under a doubling bound: nothing first, then uniform in [0, the delay of a Backoff)."""

    __slots__ = ("_backoff", "_chance", "failures")

    def __init__(self, first: float, longest: float, chance: Chance) -> None:
        self._backoff = Backoff(first, longest)
        self._chance = chance
        self.failures = 0

    def delay(self) -> float:
        """Return seconds to wait after the failures so far; 0 before the first."""
        if self.failures == 0:
            return 0.0
        return self._chance.uniform(0.0, self._backoff.delay(self.failures - 1))

    def failed(self) -> None:
        self.failures += 1

    def reset(self) -> None:
        self.failures = 0


class Breaker:
    """At most so many identifies of one shard in any hour, whatever it is that keeps failing."""

    __slots__ = ("_log", "_most")

    def __init__(self, per_hour: int) -> None:
        self._most = max(1, per_hour)
        # The last identifies, at most that many. (An empty list takes a tenth of a deque's memory.)
        self._log: list[float] = []

    def identified(self, now: float) -> None:
        self._log.append(now)
        del self._log[: -self._most]

    def closed_until(self, now: float) -> float:
        """Return when the next identify may be sent; *now* or earlier means at once."""
        return self._log[0] + HOUR if len(self._log) == self._most else now

    def forget(self) -> None:
        self._log.clear()


class Delays:
    """Decide when the next connection may be tried.

    Three things fail for different reasons and are counted apart: reaching Hello, what comes after it, and sessions
    that had to be started. Resumes are free and every second of theirs counts (Discord's replay buffer may hold no more
    than some), so a connection that was live for a moment clears their delay, unless the shard is flapping; a shard
    that is READY and dies at once is what spends tokens, so only a longer life clears that of identifies.
    """

    __slots__ = ("_breaker", "_dial", "_ends", "_excused", "_identify", "_options", "_resume", "_trouble")

    def __init__(self, options: SessionOptions, chance: Chance) -> None:
        self._options = options
        self._dial = JitteredBackoff(options.resume_backoff, options.resume_backoff_cap, chance)
        self._resume = JitteredBackoff(options.resume_backoff, options.resume_backoff_cap, chance)
        self._identify = JitteredBackoff(options.identify_backoff, options.identify_backoff_cap, chance)
        self._breaker = Breaker(options.identifies_per_hour)
        self._trouble = False
        self._excused = False
        # The last ends of connections, at most FLAPPING.
        self._ends: list[float] = []

    def next(self, now: float, *, greeted: bool, identify: bool) -> float:
        """Return seconds until the next attempt, after one more end. *greeted*: Hello had come; *identify*: the next
        attempt will have to identify."""
        self._ends.append(now)
        del self._ends[:-FLAPPING]
        backoff = self._resume if greeted else self._dial
        if self._trouble and backoff.failures == 0:
            backoff.failed()
        self._trouble = False
        delay = backoff.delay()
        backoff.failed()
        if identify:
            delay = max(delay, self._identify.delay())
            if not self._excused:
                delay = max(delay, self._breaker.closed_until(now) - now)
        return delay

    def greeted(self) -> None:
        """Hello came: the host can be reached."""
        self._dial.reset()

    def excuse(self) -> None:
        """Do not count this shard's failed identifies: those of many shards fail alike. The governor paces them."""
        self._excused = True

    def forgive(self) -> None:
        """The fault that many shards met is over: what failed in it counts no longer."""
        self._excused = False
        self._breaker.forget()
        for backoff in (self._identify, self._resume, self._dial):
            backoff.reset()

    def identified(self, now: float) -> None:
        """An identify goes out; until the connection proves sound it counts as one that failed."""
        self._breaker.identified(now)
        self._identify.failed()

    def not_at_once(self) -> None:
        """Discord is in trouble: even a first attempt waits."""
        self._trouble = True

    def lived(self, now: float, seconds: float) -> None:
        """A connection was live for that long."""
        flapping = len(self._ends) == FLAPPING and now - self._ends[0] < MINUTE
        if seconds >= self._options.sound_after or (
            seconds >= self._options.resume_sound_after and not flapping
        ):
            self._resume.reset()
        if seconds >= self._options.sound_after:
            self._identify.reset()


class Patience:
    """The patience with a session that Discord neither resumes nor refuses.

    Both must be exceeded: RESUMEs sent and time since the first of them, without RESUMED or a replayed event.
    Connections that ended before a RESUME do not count.
    """

    __slots__ = ("_attempts", "_seconds", "_since", "sent")

    def __init__(self, attempts: int, seconds: float) -> None:
        self._attempts = attempts
        self._seconds = seconds
        self._since = 0.0
        self.sent = 0

    def resume_sent(self, now: float) -> None:
        if self.sent == 0:
            self._since = now
        self.sent += 1

    def progress(self) -> None:
        self.sent = 0

    def exhausted(self, now: float) -> bool:
        return self.sent >= self._attempts and now - self._since >= self._seconds


class Turn(Enum):
    """Which of the session's two addresses the next resume dials, after a failure at one of them."""

    STAY = "stay"
    TO_MAIN = "to main"
    """At once: the session's own host is dead, and Discord keeps its events for seconds only."""
    TO_OWN = "to own"
    """After the usual delay: the main one has failed as well."""


class EndpointSelector:
    """Which of the session's two addresses to dial: its own, or the main one when its own is dead.

    The one that worked last is kept; two failures in a row, or one that decides by itself, go over to the other.
    """

    __slots__ = ("_failures", "_two", "_use_main")

    def __init__(self) -> None:
        self._failures = 0
        self._use_main = False
        # Whether the last choice was one.
        self._two = False

    def choose(self, resume_url: str | None, gateway_url: str) -> str:
        """Return the address to dial now."""
        self._two = resume_url is not None and urlsplit(resume_url).netloc != urlsplit(gateway_url).netloc
        return gateway_url if self._use_main or resume_url is None else resume_url

    @property
    def at_main(self) -> bool:
        """Return whether the main host is dialled in place of the session's own."""
        return self._use_main

    def other(self, resume_url: str | None, gateway_url: str) -> str | None:
        """Return the address that would be dialled next, were the one chosen now known to be dead; None without one."""
        if resume_url is None or not self._two:
            return None
        return resume_url if self._use_main else gateway_url

    def failed(self, *, decides: bool = False) -> Turn:
        """Dial, TLS or upgrade failed, or no Hello came.

        *decides*: by itself, because the host was silent for a whole time-out, or answered 5xx.
        """
        self._failures += FAILURES_PER_HOST if decides else 1
        if self._failures < FAILURES_PER_HOST or not self._two:
            return Turn.STAY
        self._failures = 0
        self._use_main = not self._use_main
        return Turn.TO_MAIN if self._use_main else Turn.TO_OWN

    def worked(self) -> None:
        """Hello came."""
        self._failures = 0

    def forget(self) -> None:
        """The session is gone, its address with it."""
        self._failures = 0
        self._use_main = False
        self._two = False
