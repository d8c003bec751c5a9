"""A broker on a real socket that answers as a test wants: late, out of order, in pieces, refusing, or not at all."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pamqp import commands as spec
from pamqp import frame, header
from pamqp.base import Frame
from rateway.transports.amqp.wire.uri import LEAST_FRAME_MAX


@dataclass(frozen=True, slots=True)
class Received:
    """One publish as it arrived."""

    tag: int
    key: str
    body: bytes
    properties: header.commands.Basic.Properties  # type: ignore[name-defined]  # pamqp does not re-export it
    mandatory: bool
    frames: int
    connection: int

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.properties.headers or {}

    @property
    def seq(self) -> int:
        return int(self.headers["seq"])


@dataclass
class FakeBroker:
    """Offers these in tune; takes publishes into ``received``. ``confirm`` answers each read with one multiple ack."""

    confirm: bool = True
    frame_max: int = 131072
    channel_max: int = 2047
    heartbeat: int = 0
    product: tuple[str, str] = ("Fake", "1")
    mechanisms: str = "PLAIN AMQPLAIN EXTERNAL"
    # (code, text) that answers connection.open, or the credentials.
    refuse_open: tuple[int, str] | None = None
    refuse_login: tuple[int, str] | None = None
    # (code, text) that answers exchange.declare.
    refuse_declare: tuple[int, str] | None = None
    # Bodies above it close the channel with 406, as RabbitMQ does.
    largest: int | None = None
    # Answers go out in pieces of so many bytes.
    chop: int | None = None
    # It reads nothing while this is set.
    asleep: bool = False
    received: list[Received] = field(default_factory=list)
    methods: list[Frame] = field(default_factory=list)
    # The channel that the method came on which is answered just now.
    answering: int = 1
    heartbeats: int = 0
    connections: int = 0
    channels: int = 0
    port: int = 0
    start_ok: spec.Connection.StartOk | None = None
    tune_ok: spec.Connection.TuneOk | None = None

    async def __aenter__(self) -> FakeBroker:
        self._changed = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        await self.listen()
        return self

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port or self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop_listening(self) -> None:
        """Nobody can connect; the connection that is open is cut."""
        self._server.close()
        await self.drop()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def uri(self) -> str:
        return f"amqp://user:s3cret@127.0.0.1:{self.port}/"

    # What a test does to the client

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        if self.chop is None:
            self._writer.write(data)
            return
        for at in range(0, len(data), self.chop):
            self._writer.write(data[at : at + self.chop])

    def method(self, method: Frame, channel: int = 1) -> None:
        self.send(frame.marshal(method, channel))

    def ack(self, tag: int, multiple: bool = False) -> None:
        self.method(spec.Basic.Ack(tag, multiple))

    def nack(self, tag: int, multiple: bool = False) -> None:
        self.method(spec.Basic.Nack(tag, multiple, False))

    def give_back(self, received: Received) -> None:
        """basic.return of a publish."""
        self.method(spec.Basic.Return(312, "NO_ROUTE", "rateway-1", received.key))
        self.send(frame.marshal(header.ContentHeader(0, len(received.body), received.properties), 1))
        for at in range(0, len(received.body), self.frame_max - 8):
            part = received.body[at : at + self.frame_max - 8]
            self.send(struct.pack(">BHI", 3, 1, len(part)) + part + b"\xce")

    def close_channel(self, code: int, text: str) -> None:
        self._closing = True
        self.method(spec.Channel.Close(code, text, 60, 40))

    def close_connection(self, code: int, text: str) -> None:
        self.method(spec.Connection.Close(code, text, 0, 0), 0)

    async def drop(self) -> None:
        """Cut the connection without a word."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the client does."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def wake(self) -> None:
        self.asleep = False
        self._changed.set()

    async def publishes(self, count: int) -> list[Received]:
        await self.until(lambda: len(self.received) >= count)
        return self.received

    # The server

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            assert await reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"
            self.connections += 1
            self._closing = False
            product: Any = dict(zip(("product", "version"), self.product, strict=True))
            self.method(spec.Connection.Start(0, 9, product, self.mechanisms, "en_US"), 0)
            await self._connection(lambda: self._frame(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._changed.set()
            writer.close()

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
        if self.asleep:
            await self.until(lambda: not self.asleep)
        head = await reader.readexactly(7)
        kind, channel, length = struct.unpack(">BHI", head)
        # What comes before the agreement has AMQP's least size.
        assert length <= max(self.frame_max, LEAST_FRAME_MAX) - 8, "a frame larger than agreed"
        rest = await reader.readexactly(length + 1)
        assert rest[-1] == 0xCE
        return kind, channel, head + rest

    async def _connection(self, read: Callable[[], Awaitable[tuple[int, int, bytes]]]) -> None:
        tag, publish, content, body, frames = 0, None, None, b"", 0
        while True:
            kind, _channel, data = await read()
            if kind == 8:
                self.heartbeats += 1
                self._changed.set()
                continue
            _, _, found = frame.unmarshal(data)
            if isinstance(found, Frame):
                self.methods.append(found)
                if isinstance(found, spec.Basic.Publish):
                    publish, content, body, frames = found, None, b"", 1
                    continue
                if isinstance(found, spec.Confirm.Select):
                    tag = 0
                self.answering = _channel
                self._answer(found)
                self._changed.set()
                if isinstance(found, spec.Connection.CloseOk | spec.Connection.Close):
                    return
                continue
            if isinstance(found, header.ContentHeader):
                content = found
            else:
                body += found.value  # type: ignore[union-attr]  # a body frame is all that is left
            frames += 1
            if publish is None or content is None or len(body) < content.body_size:
                continue
            if self._closing:
                continue  # the channel is closed until close-ok
            tag += 1
            taken = Received(
                tag,
                publish.routing_key,
                body,
                content.properties,
                bool(publish.mandatory),
                frames,
                self.connections,
            )
            self._publish(taken)

    def _publish(self, taken: Received) -> None:
        if self.largest is not None and len(taken.body) > self.largest:
            size = f"message size {len(taken.body)} is larger than configured max size {self.largest}"
            self.close_channel(406, f"PRECONDITION_FAILED - {size}")
            return
        self.received.append(taken)
        if self.confirm:
            self.ack(taken.tag, True)
        self._changed.set()

    def _answer(self, method: Frame) -> None:
        match method:
            case spec.Connection.StartOk():
                self.start_ok = method
                if self.refuse_login is not None:
                    self.close_connection(*self.refuse_login)
                else:
                    self.method(spec.Connection.Tune(self.channel_max, self.frame_max, self.heartbeat), 0)
            case spec.Connection.TuneOk():
                self.tune_ok = method
                self.frame_max = method.frame_max or self.frame_max
            case spec.Connection.Open():
                if self.refuse_open is not None:
                    self.close_connection(*self.refuse_open)
                else:
                    self.method(spec.Connection.OpenOk(), 0)
            case spec.Connection.Close():
                self.method(spec.Connection.CloseOk(), 0)
            case spec.Channel.Open():
                self.channels += 1
                self.method(spec.Channel.OpenOk())
            case spec.Channel.CloseOk():
                self._closing = False
            case spec.Channel.Close():
                self.method(spec.Channel.CloseOk())
            case spec.Exchange.Declare():
                if self.refuse_declare is not None:
                    self.close_channel(*self.refuse_declare)
                else:
                    self.method(spec.Exchange.DeclareOk())
            case spec.Confirm.Select():
                self.method(spec.Confirm.SelectOk())
