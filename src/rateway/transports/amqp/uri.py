"""What does the broker's address say?"""

from __future__ import annotations

__all__ = ["AmqpAddress", "parse"]


class AmqpAddress: ...


def parse(uri: str) -> AmqpAddress:
    """Read ``amqp://`` or ``amqps://``; :class:`ValueError` says in words what is wrong, without the password."""
    raise NotImplementedError
