"""Decide whether a session is worth another attempt, and its address, compression and delay.

One shard's memory of how its connections went. The parts that remember are in ``reconnect.py`` and
``compression.py``; here is what an event in a connection's life means for each of them.
"""

from __future__ import annotations

from rateway.session.actions import DialFailure, State
from rateway.session.compression import Preference
from rateway.session.options import Chance, Compression, SessionOptions
from rateway.session.reconnect import Delays, EndpointSelector, Patience, Turn, gateway_address
from rateway_protocol.discord.close_codes import Verdict

__all__ = ["IN_SESSION", "ReconnectPolicy"]

# States in which the session's life depends on what ends the connection.
IN_SESSION = frozenset({State.RESUMING, State.LIVE})
# HTTP: about how often we call, not about this host's health.
TOO_MANY_REQUESTS = 429
# HTTP: from here on the host itself says that it is not well.
SERVER_ERROR = 500


class ReconnectPolicy:
    """Over all connections of one shard. Times are monotonic seconds."""

    __slots__ = ("_delays", "_hosts", "_live_since", "_patience", "_preference")

    def __init__(self, options: SessionOptions, chance: Chance, begun_with: Compression | None) -> None:
        """*begun_with*: the compression of a stored session, None for none or when that is not known."""
        self._preference = Preference(options.compression, begun_with)
        self._delays = Delays(options, chance)
        self._patience = Patience(options.resume_attempts, options.resume_patience)
        self._hosts = EndpointSelector()
        self._live_since = 0.0

    @property
    def compression(self) -> Compression:
        """Of the connection, or of the next one that resumes."""
        return self._preference.current

    def address(self, own: str | None, main: str, *, resuming: bool) -> str:
        """Return where to connect now: the session's *own* address or the *main* one, with the query for this
        connection.
        """
        if resuming:
            return gateway_address(self._hosts.choose(own, main), self.compression)
        self._preference.begin()
        return gateway_address(main, self.compression)

    def other_address(self, own: str | None, main: str, *, resuming: bool) -> str | None:
        """Return where to resume if the address just given is known to be down; None when there is no other."""
        return self._hosts.other(own, main) if resuming else None

    @property
    def at_own(self) -> bool:
        """Return whether resumes dial the session's own host, not the main one in its place."""
        return not self._hosts.at_main

    # A connection's life.

    def dial_failed(self, failure: DialFailure) -> Turn:
        """Return which address is next."""
        if failure.status == TOO_MANY_REQUESTS:
            # Not waited for where the session's own host may be well.
            return self._hosts.failed(decides=True) if self._hosts.at_main else Turn.STAY
        unwell = failure.status is not None and failure.status >= SERVER_ERROR
        return self._hosts.failed(decides=failure.silent or unwell)

    def corrupt_before_hello(self, *, resuming: bool) -> Compression | None:
        """Return the compression that is preferred from now on, None for the same as before."""
        return self._preference.corrupt(resuming=resuming)

    def greeted(self) -> None:
        """Hello came."""
        self._hosts.worked()
        self._delays.greeted()
        self._preference.greeted()

    def excuse(self) -> None:
        """Identifies of many shards fail alike."""
        self._delays.excuse()

    def forgive(self) -> None:
        """They succeed again."""
        self._delays.forgive()

    def identified(self, now: float) -> None:
        self._delays.identified(now)

    def resume_sent(self, now: float) -> None:
        self._patience.resume_sent(now)

    def progress(self) -> None:
        """RESUMED or a replayed event came."""
        self._patience.progress()

    def live(self, now: float) -> None:
        self._live_since = now

    def trouble(self) -> None:
        """Discord closed because it is in trouble itself: even a first attempt waits."""
        self._delays.not_at_once()

    def ended(self, state: State, now: float, *, silent: bool) -> Turn:
        """Take in that a connection ended in *state*, *silent* after a whole time-out; return which address is next."""
        if state is State.WAITING_HELLO:
            return self._hosts.failed(decides=silent)
        if state is State.LIVE:
            self._delays.lived(now, now - self._live_since)
        return Turn.STAY

    # What follows.

    def given_up(self, state: State, verdict: Verdict, now: float) -> bool:
        """Return whether the session is dropped. The end of a connection before its RESUME says nothing about the
        session.
        """
        if state not in IN_SESSION:
            return False
        if verdict is Verdict.IDENTIFY:
            return True
        if state is State.LIVE or self._patience.sent == 0:
            return False
        return verdict is Verdict.RESUME_ONCE or self._patience.exhausted(now)

    @property
    def resumes(self) -> int:
        """RESUMEs in a row that led to nothing."""
        return self._patience.sent

    def delay(self, now: float, *, greeted: bool, resuming: bool, turn: Turn, wait: float) -> float:
        """Return seconds until the next attempt, after one more end. *greeted*: Hello had come; *wait*: for so long the
        host that failed wants to be left alone, which is nothing to another host.
        """
        delay = self._delays.next(now, greeted=greeted, identify=not resuming)
        if resuming and turn is Turn.TO_MAIN:
            return 0.0
        return delay if resuming and turn is Turn.TO_OWN else max(wait, delay)

    def forget(self) -> None:
        """The session is gone."""
        self._hosts.forget()
        self._patience.progress()
