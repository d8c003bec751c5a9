"""The relay: bytes pass unchanged, and connections can be cut and refused."""

from __future__ import annotations

import asyncio
import os

import pytest
from rateway.demo.relay import Relay

from tests.aio import run


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()
    writer.close()


def test_bytes_pass_unchanged_in_both_directions() -> None:
    async def main() -> bool:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            sent = os.urandom(3_000_000)
            writer.write(sent)
            same = await reader.readexactly(len(sent)) == sent
            writer.close()
            return same

    assert run(main())


def test_a_cut_ends_open_connections_and_new_ones_work() -> None:
    async def main() -> tuple[int, bytes]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
            cut = relay.cut()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"2")
            return cut, await reader.readexactly(1)

    assert run(main()) == (1, b"2")


def test_while_refusing_nothing_gets_through() -> None:
    async def main() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as relay:
            relay.refuse(True)
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            relay.refuse(False)
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"2")
            return await reader.readexactly(1)

    assert run(main()) == b"2"
