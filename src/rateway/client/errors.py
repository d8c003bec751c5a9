"""Why was a query or command not answered as asked?"""

from __future__ import annotations

from rateway.contract.errors import ErrorCode

__all__ = ["GatewayError", "NoAnswer"]


class GatewayError(Exception):
    """The gateway answered with an error. ``code`` is a word of the contract, such as ``loading`` or ``expired``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def worth_trying_again(self) -> bool:
        """Whether the same request may succeed later (a shard that loads, a full queue)."""
        again = (
            ErrorCode.LOADING,
            ErrorCode.QUEUE_FULL,
            ErrorCode.UNAVAILABLE,
            ErrorCode.EXPIRED,
            ErrorCode.INCOMPLETE,
        )
        return self.code in again


class NoAnswer(TimeoutError):
    """Nothing came back in time: no gateway runs this cluster, or the broker is away."""
