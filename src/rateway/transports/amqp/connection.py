"""One connection to the broker."""

from __future__ import annotations

from rateway.transports.amqp.uri import AmqpAddress

__all__ = ["BrokerRefused", "BrokerUnavailable", "Connection", "connect"]


class BrokerUnavailable(Exception):
    """Nobody answers there: try again later."""


class BrokerRefused(Exception):
    """The broker answers and does not want us: a wrong password, a virtual host that does not exist."""


class Connection: ...


async def connect(address: AmqpAddress, *, name: str, timeout: float = 10.0) -> Connection:
    """Connect and open; :class:`BrokerUnavailable` or :class:`BrokerRefused` with words for a person."""
    raise NotImplementedError
