"""Which requests have been taken already: copies of a request that the inbound queue and its substitute both hold.

While both queues are bound, the broker puts each request into both of them. A message has no identity, so a copy is
one that is equal in all that its publisher gave it. Workers may well send equal messages on purpose: each one that was
taken accounts for one copy, and only what the inbound queue held when the substitute had been unbound, or got within
some seconds, can be one: another node may still have had it on its way.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from rateway.transports.amqp.wire.deliveries import Delivery, Properties

__all__ = ["KEPT_S", "MOST_KEPT", "RequestCopies", "digest_of"]

# A silent node may keep copies for as long as Erlang waits for it, which is 75 s unless net_ticktime is set.
KEPT_S: Final = 120.0
# The newest of more are kept: a node that comes back is noticed within seconds.
MOST_KEPT: Final = 20_000
# A node that has just been joined by another one sends it what it had routed there, once they are connected.
LATE_S: Final = 5.0
# A request that was taken so long before RabbitMQ said that the inbound queue is away has no copy there.
AWAY_MARGIN_S: Final = 1.0
_LENGTH: Final = struct.Struct(">i").pack
_NONE: Final = _LENGTH(-1)


def digest_of(delivery: Delivery, told: Properties, body: bytes) -> bytes:
    """Return a digest of what the publisher gave a message: equal for its copies in two queues."""
    parts = []
    for part in (
        delivery.key.encode(),
        told.headers,
        told.correlation_id,
        told.reply_to,
        told.expiration,
        told.rest,
        body,
    ):
        parts += [_NONE] if part is None else [_LENGTH(len(part)), part]
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


class _Taken:
    """Digests of requests that were taken through one queue lately, each as often as it was taken."""

    def __init__(self) -> None:
        # By number, which ascends: the digest and when it was noted.
        self._notes: dict[int, tuple[bytes, float]] = {}
        self._numbers: dict[bytes, list[int]] = {}
        self._next = 0

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._numbers

    def __len__(self) -> int:
        return len(self._notes)

    def note(self, digest: bytes, now: float) -> None:
        self._notes[self._next] = (digest, now)
        self._numbers.setdefault(digest, []).append(self._next)
        self._next += 1
        if len(self._notes) > MOST_KEPT:
            self._forget(next(iter(self._notes)))

    def remove(self, digest: bytes) -> bool:
        """Remove one equal digest, the oldest; whether there was one."""
        numbers = self._numbers.get(digest)
        if not numbers:
            return False
        self._forget(numbers[0])
        return True

    def forget_before(self, time: float) -> None:
        while self._notes:
            number, (_, noted_at) = next(iter(self._notes.items()))
            if noted_at > time:
                return
            self._forget(number)

    def _forget(self, number: int) -> None:
        digest, _ = self._notes.pop(number)
        numbers = self._numbers[digest]
        numbers.remove(number)
        if not numbers:
            del self._numbers[digest]


class RequestCopies:
    """Decides for each delivery of either queue whether it is a copy. Times are seconds that never jump."""

    def __init__(self) -> None:
        self.dropped = 0
        """Copies that were found."""
        self.held = 0
        """Deliveries of the inbound queue to come that may be copies."""
        self.notes_inbound = False
        """Whether all that comes through the inbound queue is noted: a substitute queue that cannot be reached may be
        bound all the same.
        """
        self._substitute = _Taken()
        self._inbound = _Taken()
        # Copies whose acknowledgement the broker may have missed: it delivers them again.
        self._copies = _Taken()
        self._late_until = float("-inf")
        self._single_from = float("inf")

    def hold(self, messages: int, now: float) -> None:
        """Note that the inbound queue held so many messages when the substitute had been unbound."""
        self.held = messages
        self._late_until = now + LATE_S

    def note_away(self, asked_at: float) -> None:
        """Note that RabbitMQ says that the inbound queue is away: nothing is routed to it."""
        self._substitute.forget_before(asked_at - AWAY_MARGIN_S)

    def note_single(self, at: float) -> None:
        """Note that requests which arrive from then on go to the substitute queue alone."""
        self._single_from = at

    def note_double(self) -> None:
        """Note that requests may go to both queues from now on."""
        self._single_from = float("inf")

    def note_ended(self) -> None:
        """Note that there is no substitute queue any more: it delivers no copies of what was taken until now."""
        self.notes_inbound = False
        self._inbound = _Taken()

    @property
    def is_idle(self) -> bool:
        """Whether the inbound queue delivers no copy any more."""
        return not (self.held or self.notes_inbound or self._substitute or self._copies)

    def came_through_substitute(self, digest: bytes, now: float, *, redelivered: bool) -> bool:
        """Return whether a delivery of the substitute queue is a copy; one that is none is taken."""
        self._expire(now)
        if self._is_copy(self._inbound, digest, now, redelivered=redelivered):
            return True
        if now < self._single_from and not (redelivered and digest in self._substitute):
            self._substitute.note(digest, now)
        return False

    def came_through_inbound(self, digest: bytes, now: float, *, redelivered: bool) -> bool:
        """Return whether a delivery of the inbound queue is a copy; one that is none is taken."""
        self._expire(now)
        was_held = self.held > 0
        may_be = was_held or now < self._late_until
        self.held = max(0, self.held - 1)
        # One that comes again was held by another consumer, or by an earlier channel.
        if (may_be or redelivered) and self._is_copy(self._substitute, digest, now, redelivered=redelivered):
            return True
        if (was_held or self.notes_inbound) and not (redelivered and digest in self._inbound):
            self._inbound.note(digest, now)
        return False

    def _is_copy(self, other: _Taken, digest: bytes, now: float, *, redelivered: bool) -> bool:
        if other.remove(digest):
            self._copies.note(digest, now)
            self.dropped += 1
            return True
        return redelivered and digest in self._copies

    def _expire(self, now: float) -> None:
        for each in (self._substitute, self._inbound, self._copies):
            each.forget_before(now - KEPT_S)
