"""A relay between a client and a server, whose connections can be cut, held up and delayed."""

from __future__ import annotations

import asyncio
from types import TracebackType

#: Bytes read at once; the relay must not become the bottleneck.
CHUNK = 1 << 16


class Relay:
    """Passes TCP connections on to *host*:*port*. `async with Relay(…) as relay:` listens on *listen*:`relay.port`."""

    def __init__(self, host: str, port: int, *, listen: str = "127.0.0.1") -> None:
        self.host = host
        self.target = port
        self.listen = listen
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, self.listen, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        self.cut()

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        count = len(self._open) // 2
        for writer in list(self._open):
            writer.transport.abort()
        return count

    def refuse(self, refusing: bool) -> None:
        """While *refusing*, connections are cut and new ones are closed at once: the server seems to be away."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def stall(self, stalled: bool) -> None:
        """While *stalled*, nothing passes and nothing is closed: a network that swallows everything."""
        if stalled:
            self._flowing.clear()
        else:
            self._flowing.set()

    def delay(self, seconds: float) -> None:
        """From now on whatever is read is passed on so many seconds later, in each direction; 0: at once."""
        self._delay = seconds

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
        except OSError:
            self._open.discard(writer)
            writer.transport.abort()
            return
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer))
                both.create_task(self._pump(far_reader, writer))
        finally:
            self._open -= {writer, far_writer}
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
            await self._flowing.wait()
            writer.write_eof()
        except (OSError, RuntimeError):
            # One side is gone; the other learns it at once, unless nothing passes.
            await self._flowing.wait()
            writer.transport.abort()
