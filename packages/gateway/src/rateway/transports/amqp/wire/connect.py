"""One attempt to connect to one address of the broker, and why it failed, in words."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from rateway.transports.amqp.wire.connection import (
    BrokerRefused,
    BrokerTrouble,
    BrokerUnavailable,
    Connection,
    words_of,
)
from rateway.transports.amqp.wire.remedy import HTTP_SPOKEN, NO_GREETING, TLS_SPOKEN, remedy
from rateway.transports.amqp.wire.uri import AmqpAddress

__all__ = ["connect"]

# Seconds for what answers in some other protocol.
_ASK_S: Final = 2.0


async def connect(address: AmqpAddress, *, name: str, timeout: float | None = None) -> Connection:
    """Connect and open. ``name`` is what the broker's management shows.

    :class:`BrokerUnavailable` (try again) or :class:`BrokerRefused` (a setting has to change first) with
    words for a person. ``timeout`` in seconds, by default the address's own.
    """
    where = f"the broker at {address}"
    seconds = address.connection_timeout if timeout is None else timeout
    loop = asyncio.get_running_loop()
    try:
        context = address.tls_context()
    except ValueError as error:
        raise BrokerRefused(f"{where}: {error}") from None
    connection = Connection(address, name, loop)
    kind: type[BrokerTrouble]
    # Looked at even when connect() itself is cancelled: else asyncio logs an exception that was never retrieved.
    connection.opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
    try:
        async with asyncio.timeout(seconds):
            await loop.create_connection(
                lambda: connection, address.host, address.port, ssl=context,
                server_hostname=(address.server_name or address.host) if context else None,
            )  # fmt: skip
            await asyncio.shield(connection.opened)
    except TimeoutError:
        connection.abort("no answer")
        kind, what = BrokerUnavailable, f"{where} did not answer within {seconds:g} s"
    except ssl.SSLCertVerificationError as error:
        kind = BrokerRefused
        what = f"{where} shows a certificate that is not trusted: {error.verify_message}"
    except (OSError, ssl.SSLError) as error:
        connection.abort("no connection")
        kind, what = BrokerUnavailable, f"{where} cannot be reached: {words_of(error)}"
    except BrokerTrouble as error:
        connection.abort("refused")
        kind = type(error)
        strange = error.what == HTTP_SPOKEN or error.what.startswith("what the broker sent")
        silent = not address.tls and not connection.server and not strange
        spoken = await _what_is_spoken(address) if silent else error.what
        what = f"{where} refused us: {spoken}"
    except asyncio.CancelledError:
        connection.abort("cancelled")
        raise
    else:
        return connection
    raise kind(what, remedy(what, address))


async def _what_is_spoken(address: AmqpAddress) -> str:
    """Ask a port that closes a connection without any AMQP in HTTP, and return what it speaks."""
    try:
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"HEAD / HTTP/1.0\r\n\r\n")
                answer = await reader.readexactly(len(b"HTTP/"))
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        return NO_GREETING
    if answer == b"HTTP/":
        return HTTP_SPOKEN
    # The head of an alert: RFC 8446, 5.1.
    return TLS_SPOKEN if answer.startswith(b"\x15\x03") else NO_GREETING
