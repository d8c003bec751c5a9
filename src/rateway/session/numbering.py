"""Which sequence does a dispatch carry, and has it been used before?

Discord documentation, "Gateway Events": "Payload Structure". Numbers rise by one within a session. What does not fit
is forwarded all the same: nothing here drops an event.
"""

from __future__ import annotations

from rateway.discord.envelope import Envelope

__all__ = ["Numbering"]

# A sequence travels as a signed 64-bit number from here on.
MAX_SEQUENCE = (1 << 63) - 1
# Sequences of a session remembered for having been used again.
MOST_REPEATS = 1000


class Numbering:
    """One session's numbers."""

    __slots__ = ("_last_repeat", "_repeats")

    def __init__(self) -> None:
        self._last_repeat: tuple[int, int] = (0, 0)
        self._repeats: dict[int, int] = {}

    def count(
        self, envelope: Envelope, received: int, last: Envelope | None, replaying: bool
    ) -> tuple[int, int, str | None]:
        """``(received, repeat, remark)`` after *envelope*, given the highest sequence *received* so far and the
        *last* dispatch that carried it.

        ``repeat`` is *n* for the *n*-th other dispatch under a number that was used before. The same dispatch
        again, as far as that can be told, is no repeat: it has its first one's identity. A number that cannot be
        one is taken off the envelope.
        """
        s = envelope.s
        if s is None:
            return received, 0, "a dispatch without a sequence"
        if not 1 <= s <= MAX_SEQUENCE:
            envelope.s = None
            return received, 0, "a dispatch with a sequence that cannot be one; it counts as without"
        if s > received:
            remark = None
            # A server may choose its first number; after that a hole is something to know about.
            if s != received + 1 and received > 0:
                remark = "sequences were left out by Discord"
            return s, 0, remark
        latest = last if s == received else None
        return received, self._repeat(envelope, s, latest, replaying), "a sequence came again"

    def _repeat(self, envelope: Envelope, s: int, last: Envelope | None, replaying: bool) -> int:
        if last is not None:
            if last.t == envelope.t and bytes(last.d) == bytes(envelope.d):
                return self._repeat_of_last(s)
        elif replaying:
            # A replay that reaches back further than was asked for: these were all received before.
            return 0
        repeat = self._repeats.get(s, 0) + 1
        if len(self._repeats) >= MOST_REPEATS:
            del self._repeats[next(iter(self._repeats))]
        self._repeats[s] = repeat
        self._last_repeat = (s, repeat)
        return repeat

    def _repeat_of_last(self, s: int) -> int:
        at, repeat = self._last_repeat
        return repeat if at == s else 0
