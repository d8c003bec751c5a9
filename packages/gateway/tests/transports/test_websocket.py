"""Connections to a gateway host over real sockets: whole messages in, the close code of our choice out."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server
from rateway.runtime.runner.memory import give_back_pages
from rateway.transports.websocket import RECEIVE_BYTES, DialError, WebSocket, dial
from rateway_simulator.certificate import make, server_context

from tests.aio import keep_silent, run

Script = Callable[[WSTransport], None]


class Peer(WSListener):
    """A host that plays a script once it is connected, and keeps the close codes that it gets."""

    def __init__(self, script: Script, codes: asyncio.Queue[int]) -> None:
        self._script = script
        self._codes = codes

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._script(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            self._codes.put_nowait(struct.unpack(">H", frame.get_payload_as_bytes()[:2])[0])
            transport.disconnect()


class Handler:
    def __init__(self) -> None:
        self.socket: WebSocket | None = None
        self.messages: list[tuple[bytes, bool]] = []
        self.failures: list[Exception] = []
        self.ended: asyncio.Future[tuple[int | None, str]] = asyncio.get_running_loop().create_future()

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket

    def message(self, data: bytes, binary: bool) -> None:
        assert self.socket is not None, "a message came before the opening"
        self.messages.append((bytes(data), binary))

    def closed(self, code: int | None, reason: str) -> None:
        self.ended.set_result((code, reason))

    def failed(self, error: Exception) -> None:
        self.failures.append(error)


async def connected(
    script: Script, *, bound: int = 1 << 20, certificate: tuple[Path, Path] | None = None
) -> tuple[Handler, asyncio.Queue[int]]:
    """A connection over TLS where there is a certificate (and its key)."""
    codes: asyncio.Queue[int] = asyncio.Queue()
    served = trusting = None
    if certificate is not None:
        served, trusting = server_context(*certificate), ssl.create_default_context(cafile=certificate[0])

    def accept(request: WSUpgradeRequest) -> Peer:
        return Peer(script, codes)

    server = await ws_create_server(accept, "127.0.0.1", 0, ssl=served)
    port = server.sockets[0].getsockname()[1]
    handler = Handler()
    url = f"{'ws' if certificate is None else 'wss'}://127.0.0.1:{port}/?v=10"
    headers = {"User-Agent": "test"}
    await dial(url, handler, timeout=60, max_message_bytes=bound, headers=headers, ssl_context=trusting)
    return handler, codes


def send_all_and_close(transport: WSTransport) -> None:
    transport.send(WSMsgType.BINARY, b"whole")
    transport.send(WSMsgType.TEXT, b"text")
    transport.send(WSMsgType.BINARY, b"be", fin=False)
    transport.send(WSMsgType.CONTINUATION, b"ginn", fin=False)
    transport.send(WSMsgType.PING, b"between")
    transport.send(WSMsgType.CONTINUATION, b"ing", fin=True)
    transport.send(WSMsgType.CLOSE, struct.pack(">H", 4000) + b"unknown error")


def test_fragments_are_joined_and_the_peers_close_code_is_told() -> None:
    async def scenario() -> tuple[list[tuple[bytes, bool]], tuple[int | None, str]]:
        handler, _ = await connected(send_all_and_close)
        return handler.messages, await handler.ended

    messages, ended = run(scenario())
    assert messages == [(b"whole", True), (b"text", False), (b"beginning", True)]
    assert ended == (4000, "unknown error")


@pytest.mark.parametrize("size", [124, 125, 126, 4000])
@pytest.mark.parametrize("end", [b"1", b"}", b"]\n", b'"', b"e", b"l"])
@pytest.mark.parametrize("begin", [b"{", b"[", b" {", b"4", b"\x04", b"\x00", b"\xef\xbb\xbf{"])
def test_long_or_short_and_whatever_it_begins_and_ends_with_a_message_is_told_with_its_kind(
    begin: bytes, end: bytes, size: int
) -> None:
    payload = begin.ljust(size - len(end), b"1") + end

    def both(transport: WSTransport) -> None:
        transport.send(WSMsgType.BINARY, payload)
        if begin > b"\x08":
            transport.send(WSMsgType.TEXT, payload)
        transport.send(WSMsgType.BINARY, payload[:5], fin=False)
        transport.send(WSMsgType.CONTINUATION, payload[5:], fin=True)
        transport.send(WSMsgType.CLOSE, struct.pack(">H", 4000))

    async def scenario() -> list[tuple[bytes, bool]]:
        handler, _ = await connected(both)
        await handler.ended
        return handler.messages

    told = [True, False, True] if begin > b"\x08" else [True, True]
    assert run(scenario()) == [(payload, binary) for binary in told]


@pytest.mark.parametrize("begin", range(256))
def test_a_binary_message_is_told_as_one_whatever_bytes_it_begins_and_ends_with(begin: int) -> None:
    payloads = [bytes((begin,)) + b"1" * 200 + bytes((end,)) for end in range(256)]

    def all_of_them(transport: WSTransport) -> None:
        for payload in payloads:
            transport.send(WSMsgType.BINARY, payload)
        transport.send(WSMsgType.CLOSE, struct.pack(">H", 4000))

    async def scenario() -> list[tuple[bytes, bool]]:
        handler, _ = await connected(all_of_them)
        await handler.ended
        return handler.messages

    assert run(scenario()) == [(payload, True) for payload in payloads]


def test_tcp_that_ends_without_a_close_frame_has_no_code() -> None:
    async def scenario() -> tuple[int | None, str]:
        handler, _ = await connected(lambda transport: transport.disconnect(graceful=False))
        return await handler.ended

    code, _ = run(scenario())
    assert code is None


@pytest.mark.checklist("B1")
def test_our_close_carries_the_code_and_is_not_told_to_the_handler() -> None:
    async def scenario() -> tuple[int, bool]:
        handler, codes = await connected(lambda transport: None)
        assert handler.socket is not None
        handler.socket.close(4900)
        return await codes.get(), handler.ended.done()

    code, told = run(scenario())
    assert code == 4900
    assert not told


def test_a_message_beyond_the_bound_ends_the_connection_with_a_code_that_keeps_the_session() -> None:
    def endless(transport: WSTransport) -> None:
        transport.send(WSMsgType.BINARY, b"x" * 600, fin=False)
        transport.send(WSMsgType.CONTINUATION, b"x" * 600, fin=False)

    async def scenario() -> tuple[int | None, str]:
        handler, _ = await connected(endless, bound=1000)
        return await handler.ended

    _, reason = run(scenario())
    assert "1000 bytes" in reason


@pytest.mark.checklist("C8")
def test_seventeen_megabytes_arrive_whole() -> None:
    size = 17_000_000

    async def scenario() -> int:
        def large(transport: WSTransport) -> None:
            transport.send(WSMsgType.BINARY, b"x" * size)
            transport.send(WSMsgType.CLOSE, struct.pack(">H", 4000))

        handler, _ = await connected(large, bound=256 << 20)
        await handler.ended
        return len(handler.messages[0][0])

    assert run(scenario()) == size


@pytest.mark.checklist("H22")
@pytest.mark.parametrize(("status", "retry_after"), [(429, 7.0), (403, None), (503, None)])
def test_an_upgrade_that_is_refused_tells_status_and_retry_after(
    status: int, retry_after: float | None
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        extra = f"Retry-After: {retry_after:g}\r\n" if retry_after is not None else ""
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n{extra}\r\n".encode())
        writer.close()

    async def scenario() -> DialError:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DialError) as caught:
            await dial(f"ws://127.0.0.1:{port}/", Handler(), timeout=60, max_message_bytes=1, headers={})
        return caught.value

    error = run(scenario())
    assert error.status == status
    assert error.retry_after == retry_after


@pytest.mark.checklist("A2")
def test_a_host_that_accepts_and_says_nothing_is_left_in_time() -> None:
    async def scenario() -> str:
        server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DialError) as caught:
            await dial(f"ws://127.0.0.1:{port}/", Handler(), timeout=0.2, max_message_bytes=1, headers={})
        return caught.value.reason

    assert "within 0.2 s" in run(scenario())


@pytest.mark.checklist("A2")
@pytest.mark.parametrize("how", ["at once", "after the request", "reset", "in the middle of its answer"])
def test_a_host_that_hangs_up_before_the_upgrade_is_a_dial_error(how: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how != "at once":
            await reader.readuntil(b"\r\n\r\n")
        if how == "in the middle of its answer":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs")
        if how == "reset":
            writer.transport.abort()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        handler = Handler()
        with pytest.raises(DialError) as caught:
            await dial(f"ws://127.0.0.1:{port}/", handler, timeout=60, max_message_bytes=1, headers={})
        assert not caught.value.silent
        assert handler.socket is None and not handler.ended.done()

    run(scenario())


def test_nobody_there_is_a_dial_error() -> None:
    async def scenario() -> None:
        with pytest.raises(DialError, match="Refused"):
            await dial("ws://127.0.0.1:1/", Handler(), timeout=60, max_message_bytes=1, headers={})

    run(scenario())


def test_a_flood_is_read_in_portions_so_that_what_came_first_need_not_wait_for_the_last() -> None:
    async def main() -> None:
        payload, count = bytes(1000), 4000

        def flood(transport: WSTransport) -> None:
            for _ in range(count):
                transport.send(WSMsgType.BINARY, payload)

        handler, _ = await connected(flood)
        turns: list[int] = []
        while len(handler.messages) < count:
            turns.append(len(handler.messages))
            await asyncio.sleep(0)
        largest = max(after - before for before, after in pairwise([*turns, count]))
        # The kernel doubles what it is asked for.
        assert largest <= 4 * RECEIVE_BYTES / len(payload)

    run(main())


@pytest.mark.parametrize("tls", [False, True])
def test_the_unused_part_of_the_read_buffer_may_be_given_back_at_any_time(tls: bool, tmp_path: Path) -> None:
    sent = [bytes([number]) * (300_000 * (number % 2) + 500) for number in range(8)]

    def send_large_ones(transport: WSTransport) -> None:
        for each in sent:
            transport.send(WSMsgType.BINARY, each)
        transport.send(WSMsgType.CLOSE, struct.pack(">H", 4000))

    async def scenario() -> tuple[list[bytes], int]:
        handler, _ = await connected(
            send_large_ones, certificate=make(tmp_path, "127.0.0.1") if tls else None
        )
        assert handler.socket is not None
        most = 0
        # Most of these turns are in the middle of a message.
        while not handler.ended.done():
            unused = handler.socket.unused_buffer
            most = max(most, unused.nbytes)
            give_back_pages([unused])
            await asyncio.sleep(0)
        assert handler.socket.unused_buffer.nbytes == 0
        return [data for data, _ in handler.messages], most

    messages, most = run(scenario())
    assert messages == sent and most > 128 * 1024


@pytest.mark.parametrize("first", ["pause", "wait"])
def test_what_is_paused_for_two_reasons_is_read_once_both_have_gone(first: str) -> None:
    def send_and_close(transport: WSTransport) -> None:
        transport.send(WSMsgType.BINARY, b"x")
        transport.send(WSMsgType.CLOSE, struct.pack(">H", 4000))

    class Paused(Handler):
        def opened(self, socket: WebSocket) -> None:
            super().opened(socket)
            socket.pause_reading()
            socket.wait()

    async def scenario() -> tuple[bool, bool]:
        asked: asyncio.Future[WSTransport] = asyncio.get_running_loop().create_future()
        server = await ws_create_server(
            lambda request: Peer(asked.set_result, asyncio.Queue()), "127.0.0.1", 0
        )
        handler = Paused()
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await dial(url, handler, timeout=60, max_message_bytes=1 << 20, headers={})
        send_and_close(await asked)
        assert handler.socket is not None
        ends = [handler.socket.resume_reading, handler.socket.read_on]
        ends[first == "wait"]()
        reading = handler.socket.is_reading
        ends[first == "pause"]()
        await handler.ended
        return reading, handler.messages == [(b"x", True)]

    assert run(scenario()) == (False, True)
