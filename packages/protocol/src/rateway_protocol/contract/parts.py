"""Join an answer that comes in several messages (``docs/contract.md``, *Answers in parts*)."""

from __future__ import annotations

from collections.abc import Mapping

from rateway_protocol.contract.errors import PART_HEADER, PARTS_HEADER, ErrorCode, Fault

__all__ = ["AnswerParts"]


class AnswerParts:
    """The bodies of one answer so far. An answer whose ``status`` is ``error`` is not for here: it ends what came."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        #: Bytes of the bodies so far.
        self.size = 0

    def take(self, headers: Mapping[str, object], body: bytes) -> bytes | Fault | None:
        """Take the next message of the answer; return the answer once it is whole, None while it is not.

        A message without the header ``part`` is a whole answer. A Fault, and no answer, when a part is missing: the
        broker drops answers that wait for longer than a minute.
        """
        part = headers.get(PART_HEADER)
        if part is None and not self._bodies:
            return body
        self._bodies.append(body)
        self.size += len(body)
        if part != len(self._bodies):
            return Fault(
                ErrorCode.UNAVAILABLE, f"part {len(self._bodies)} of the answer is missing; ask again"
            )
        if PARTS_HEADER not in headers:
            return None
        return b"".join(self._bodies)
