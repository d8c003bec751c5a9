"""Track the sequence of a session's dispatches, and recognise repeated ones.

Discord documentation, "Gateway Events": "Payload Structure". Numbers rise by one within a session. What does not fit
is forwarded all the same: nothing here drops an event.
"""

from __future__ import annotations

import hashlib

from rateway_protocol.discord.envelope import Envelope

__all__ = ["SequenceTracker"]

# A sequence travels as a signed 64-bit number from here on.
MAX_SEQUENCE = (1 << 63) - 1
# Sequences of a session remembered for having been used again.
MOST_REPEATS = 1000
# Bytes of a digest: as good as the content itself for being told from another.
DIGEST_BYTES = 16


def _digest(envelope: Envelope) -> bytes:
    return hashlib.blake2b(bytes(envelope.d), digest_size=DIGEST_BYTES).digest()


class SequenceTracker:
    """One session's numbers."""

    __slots__ = ("_kept", "_latest", "_repeats")

    def __init__(self) -> None:
        # The highest sequence that came again, and the repeat that its latest dispatch was.
        self._latest: tuple[int, int] = (0, 0)
        self._repeats: dict[int, int] = {}
        # Sequence, name and digest of the dispatch that :meth:`keep_digest` was given.
        self._kept: tuple[int, str | None, bytes] | None = None

    def keep_digest(self, received: int, last: Envelope) -> None:
        """Remember the *last* dispatch, which had the highest sequence *received*, in place of the caller."""
        self._kept = (received, last.t, _digest(last))

    def count(
        self, envelope: Envelope, received: int, last: Envelope | None, replaying: bool
    ) -> tuple[int, int, str | None]:
        """Return ``(received, repeat, remark)`` after *envelope*, given the highest sequence *received* so far and the
        *last* dispatch that carried it (None: not known, or given to :meth:`keep_digest`).

        ``repeat`` is *n* for the *n*-th other dispatch under a number that was used before. The same dispatch
        again, as far as that can be told, is no repeat: it has its first one's identity. A number that cannot be
        one is taken off the envelope.
        """
        s = envelope.s
        if s is None:
            return received, 0, "a dispatch without a sequence"
        if s == 0 and received == 0 and envelope.t == "READY":
            # Some servers begin at 0.
            return 0, 0, None
        if not 1 <= s <= MAX_SEQUENCE:
            envelope.s = None
            return received, 0, "a dispatch with a sequence that cannot be one; it counts as without"
        if s > received:
            remark = None
            # A server may choose its first number; after that a hole is something to know about.
            if s != received + 1 and received > 0:
                remark = "sequences were left out by Discord"
            return s, 0, remark
        if s != received:
            return received, self._repeat(s, replaying), "a sequence came again"
        if last is None and (self._kept is None or self._kept[0] != s):
            repeat = self._repeat(s, replaying)
        elif self._is_last(envelope, last):
            repeat = self._latest[1] if self._latest[0] == s else 0
        else:
            repeat = self._repeat(s, False)
        self._latest = (s, repeat)
        return received, repeat, "a sequence came again"

    def _is_last(self, envelope: Envelope, last: Envelope | None) -> bool:
        """Return whether a dispatch with the highest sequence is the one that had it before."""
        if last is None:
            assert self._kept is not None
            return self._kept[1:] == (envelope.t, _digest(envelope))
        return last.t == envelope.t and bytes(last.d) == bytes(envelope.d)

    def _repeat(self, s: int, replaying: bool) -> int:
        if replaying:
            # A replay that reaches back further than was asked for: these were all received before.
            return 0
        repeat = self._repeats.get(s, 0) + 1
        if len(self._repeats) >= MOST_REPEATS:
            del self._repeats[next(iter(self._repeats))]
        self._repeats[s] = repeat
        return repeat
