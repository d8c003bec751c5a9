"""A client of Discord's gateway that does what a test says, right or wrong. Shares no code with the simulator."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from rateway_simulator.gateway.wire import zstd
from rateway_simulator.world.people import TOKEN as TOKEN

ALL_INTENTS = 53_608_447
GUILDS = 1


class _Inflater:
    """Compressed messages to texts, by the rules of each stream."""

    def __init__(self, compress: str) -> None:
        self._compress = compress
        self._buffer = bytearray()
        self._zlib = zlib.decompressobj()
        self._zstd = zstd.ZstdDecompressor()

    def feed(self, data: bytes, binary: bool) -> bytes | None:
        if not binary:
            return data
        if self._compress == "zlib-stream":
            self._buffer += data
            if not self._buffer.endswith(b"\x00\x00\xff\xff"):
                return None
            whole, self._buffer = bytes(self._buffer), bytearray()
            return self._zlib.decompress(whole)
        if self._compress == "zstd-stream":
            out = b""
            while data:
                out += self._zstd.decompress(data)
                data = b""
                if self._zstd.eof:
                    data, self._zstd = self._zstd.unused_data, zstd.ZstdDecompressor()
            return out
        return zlib.decompress(data)


class Client(WSListener):
    """One connection. `closed` has the server's close code, or None when TCP ended without one."""

    def __init__(self, compress: str = "") -> None:
        self.frames = 0
        self.seq = 0
        self.session_id = ""
        self.resume_url = ""
        self.hello: dict[str, Any] = {}
        self.closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.error: Exception | None = None
        self._code: int | None = None
        self._inflater = _Inflater(compress)
        self._fragments: list[bytes] = []
        self._binary = False
        self._transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.frames += 1
        payload = frame.get_payload_as_bytes()
        if frame.msg_type is WSMsgType.CLOSE:
            self._code = struct.unpack("!H", payload[:2])[0]
            if not transport.is_close_frame_sent:
                transport.send(WSMsgType.CLOSE, payload[:2])
            transport.disconnect()
            return
        if frame.msg_type is not WSMsgType.CONTINUATION:
            self._binary = frame.msg_type is WSMsgType.BINARY
        self._fragments.append(payload)
        if frame.fin:
            whole, self._fragments = b"".join(self._fragments), []
            try:
                self._message(whole)
            except (zlib.error, zstd.ZstdError, ValueError) as error:
                self.error = error
                transport.disconnect()

    def _message(self, whole: bytes) -> None:
        text = self._inflater.feed(whole, self._binary)
        if text is not None:
            message = json.loads(text)
            if message["op"] == 0:
                assert message["s"] == self.seq + 1 or self.seq == 0, (message["s"], self.seq)
                self.seq = message["s"]
            self.messages.put_nowait(message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.closed.done():
            self.closed.set_result(self._code)

    # What a test does

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.disconnect(False)
        await self.closed

    def send(self, op: int, d: object) -> None:
        self.send_text(json.dumps({"op": op, "d": d}))

    def send_text(self, text: str) -> None:
        self._transport.send(WSMsgType.TEXT, text.encode())

    def close(self, code: int) -> None:
        self._transport.send(WSMsgType.CLOSE, struct.pack("!H", code))

    async def end(self, code: int) -> None:
        """Close and wait until the server has answered."""
        self.close(code)
        await self.closed

    def cut(self) -> None:
        self._transport.disconnect(False)

    def pause_reading(self) -> None:
        self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.underlying_transport.resume_reading()

    def has_heard(self) -> bool:
        """Whether a message waits or the connection has ended."""
        return self.closed.done() or not self.messages.empty()

    async def take(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is wanted; others are passed over."""
        while True:
            message = await self.messages.get()
            if wanted(message):
                return message

    async def op(self, op: int) -> dict[str, Any]:
        return await self.take(lambda message: message["op"] == op)

    async def event(self, name: str) -> dict[str, Any]:
        return await self.take(lambda message: message["t"] == name)

    def identify(self, **changes: Any) -> None:
        d: dict[str, Any] = {
            "token": TOKEN,
            "intents": ALL_INTENTS,
            "properties": {"os": "linux", "browser": "test", "device": "test"},
            "large_threshold": 250,
            "shard": [0, 1],
        }
        d.update(changes)
        self.send(2, {name: value for name, value in d.items() if value is not None})

    async def ready(self, **changes: Any) -> dict[str, Any]:
        """Identify and wait for READY; its `d`."""
        self.identify(**changes)
        d: dict[str, Any] = (await self.event("READY"))["d"]
        self.session_id, self.resume_url = d["session_id"], d["resume_gateway_url"]
        return d

    def resume(self, session_id: str, seq: int | None, token: str = TOKEN) -> None:
        self.send(6, {"token": token, "session_id": session_id, "seq": seq})

    async def beat(self, d: object = None) -> None:
        """A heartbeat and its acknowledgement."""
        self.send(1, d)
        await self.op(11)


async def dial(
    url: str,
    *,
    query: str | None = None,
    compress: str = "",
    headers: dict[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Client:
    """Open a connection, without waiting for Hello."""
    if query is None:
        query = "v=10&encoding=json" + (f"&compress={compress}" if compress else "")
    _, listener = await ws_connect(
        lambda: Client(compress),
        f"{url}/?{query}",
        extra_headers=headers,
        ssl_context=ssl_context,
        max_redirects=0,
        logger_name="test",
        max_frame_size=1 << 30,
    )
    assert isinstance(listener, Client)
    return listener


async def connect(url: str, **changes: Any) -> Client:
    """Open a connection and wait for Hello."""
    client = await dial(url, **changes)
    client.hello = (await client.op(10))["d"]
    return client
