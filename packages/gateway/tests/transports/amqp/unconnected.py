"""A connection with a channel whose other end is the test: what it receives is given to it as bytes."""

from __future__ import annotations

import asyncio

import pamqp.commands as spec
from pamqp import frame
from rateway.transports.amqp.wire.channel import Channel
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.uri import parse

__all__ = ["channel_to_nowhere"]


class _Nowhere(asyncio.Transport):
    """Leads nowhere. What is written once the channel is open was not to be written."""

    def __init__(self) -> None:
        super().__init__()
        self.is_silent = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_silent, f"nothing was to be said: {bytes(data)!r}"

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""


async def channel_to_nowhere() -> tuple[Connection, Channel]:
    """Open channel 1 of a connection; its `data_received` is the test's to call."""
    connection = Connection(parse("amqp://127.0.0.1"), "test", asyncio.get_running_loop())
    transport = _Nowhere()
    connection.connection_made(transport)
    opening = asyncio.ensure_future(connection.channel(1))
    await asyncio.sleep(0)
    connection.data_received(frame.marshal(spec.Channel.OpenOk(), 1))
    channel = await opening
    transport.is_silent = True
    return connection, channel
