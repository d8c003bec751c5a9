"""The errors of the client: why a query or a command was not answered as asked.

ClientError
  GatewayError        the gateway answered with an error: code and message
    QueryError        ... to a query
    CommandError      ... to a command: it was not sent to Discord
  NoAnswer            nothing came back in time (a TimeoutError as well)
  ConnectionLost      the broker went away, and what became of a command is not known (a ConnectionError as well)
  BrokerUnavailable   the broker could not be reached, or refused, when the worker started
"""

from __future__ import annotations

from rateway_protocol.contract.errors import ErrorCode

__all__ = [
    "BrokerUnavailable", "ClientError", "CommandError", "ConnectionLost", "GatewayError", "NoAnswer", "QueryError",
]  # fmt: skip

_AGAIN = frozenset(
    code.value
    for code in (
        ErrorCode.LOADING,
        ErrorCode.QUEUE_FULL,
        ErrorCode.UNAVAILABLE,
        ErrorCode.EXPIRED,
        ErrorCode.INCOMPLETE,
    )
)


class ClientError(Exception):
    """Everything that a worker's calls raise for what happens outside of it."""


class GatewayError(ClientError):
    """The gateway answered with an error.

    ``code`` is a word of the contract (docs/contract.md, *Answers*) such as ``loading`` or ``expired``; new ones may
    come. ``message`` is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def worth_trying_again(self) -> bool:
        """Whether the same request may succeed later (a shard that loads, a full queue)."""
        return self.code in _AGAIN


class QueryError(GatewayError):
    """A query cannot be answered. What is merely not known is no error: the answer is ``None``."""


class CommandError(GatewayError):
    """A command was not sent to Discord; ``superseded``: a newer presence took its place."""


class NoAnswer(ClientError, TimeoutError):
    """Nothing came back in time: no gateway runs this cluster, it is busy, or the broker is away."""


class ConnectionLost(ClientError, ConnectionError):
    """The connection broke after a command was published: it may have been sent or not. Or the worker was closed."""


class BrokerUnavailable(ClientError, ConnectionError):
    """At the start: the broker does not answer, or refuses (password, virtual host, a queue with other settings)."""
