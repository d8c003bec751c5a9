"""The proxy's socket: WebSockets of bots, one write a wake-up, limits, and what bad neighbours can do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket as sockets
import ssl
import struct
import weakref
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from rateway.native.inflate import zstd
from rateway.proxy.http.server import BotSocket, Limits, ProxyServer, Upgrade
from rateway_simulator import certificate
from tests.proxy.frames import client_frame, server_frames

from tests.aio import run

HELLO = b'{"op":10,"d":{"heartbeat_interval":41250}}'


class Echo:
    """A conversation that says HELLO, keeps what it is told, and sends each message back."""

    def __init__(self, socket: BotSocket, upgrade: Upgrade) -> None:
        self.socket = socket
        self.upgrade = upgrade
        self.messages: list[bytes] = []
        self.closed: list[int | None] = []
        self.writable = asyncio.Event()
        self.ended = asyncio.Event()
        self.socket.send(HELLO)

    def on_message(self, payload: bytes) -> None:
        self.socket.identified = True
        self.messages.append(payload)
        self.socket.send(payload)

    def on_closed(self, code: int | None) -> None:
        self.closed.append(code)
        self.ended.set()

    def on_writable(self) -> None:
        self.writable.set()


@dataclass
class Scene:
    server: ProxyServer
    port: int
    bots: list[Echo] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def bot(
        self, target: str = "/?v=10&encoding=json"
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{self.port}{target}", max_msg_size=0) as bot,
        ):
            yield bot

    async def handshake(self, target: str = "/") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection behind its handshake."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(handshake(target))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        return reader, writer


def handshake(target: str = "/", **headers: str) -> bytes:
    given = {
        "Host": "localhost:7878", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | {name.replace("_", "-"): value for name, value in headers.items()}  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode()


@contextlib.asynccontextmanager
async def scene(
    limits: Limits | None = None, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Scene]:
    bots: list[Echo] = []

    def connect(socket: BotSocket, upgrade: Upgrade) -> Echo:
        bots.append(Echo(socket, upgrade))
        return bots[-1]

    async def rest(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="rest")

    def url(request: web.BaseRequest) -> str | None:
        return f"ws://{request.headers['Host']}"

    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = ProxyServer(f"127.0.0.1:{port}", tls, rest, connect, url, limits)
    serving = asyncio.create_task(server.run(bound.set_result))
    try:
        yield Scene(server, await bound, bots)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


def pause(writer: asyncio.StreamWriter) -> None:
    """Read nothing more."""
    cast(asyncio.Transport, writer.transport).pause_reading()


def resume(writer: asyncio.StreamWriter) -> None:
    cast(asyncio.Transport, writer.transport).resume_reading()


async def frames_of(reader: asyncio.StreamReader, wait_s: float = 10.0) -> list[tuple[int, bytes]]:
    """All frames until the proxy ends the connection."""
    async with asyncio.timeout(wait_s):
        return server_frames(await reader.read())


@pytest.mark.parametrize(
    "target", ["", "/", "//", "/?v=9&encoding=json", "/gateway", "/api/v10/anything?v=10"]
)
def test_a_bot_is_served_on_any_path(target: str) -> None:
    async def it() -> None:
        async with scene() as s, s.bot(target) as bot:
            assert (await bot.receive_str()).encode() == HELLO
            await bot.send_str('{"op":1,"d":null}')
            assert await bot.receive_str() == '{"op":1,"d":null}'
            assert s.bots[0].upgrade.version == (9 if "v=9" in target else 10)
            assert s.bots[0].upgrade.url == f"ws://127.0.0.1:{s.port}"
            assert s.server.connections == 1

    run(it())


def test_paths_of_no_and_of_two_slashes_arrive_as_they_are() -> None:
    async def it() -> None:
        async with scene() as s:
            for target in ("//", "//?v=10", "/?v=10&encoding=json&compress=zlib-stream", "http://x/?v=10"):
                _, writer = await s.handshake(target)
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"rest")
            writer.close()

    run(it())


@pytest.mark.parametrize("compression", ["zlib-stream", "zstd-stream"])
def test_a_compressed_stream_can_be_read_message_by_message(compression: str) -> None:
    async def it() -> None:
        inflate = zlib.decompressobj() if compression == "zlib-stream" else zstd.ZstdDecompressor()
        async with scene() as s, s.bot(f"/?v=10&encoding=json&compress={compression}") as bot:
            assert inflate.decompress(await bot.receive_bytes()) == HELLO
            s.bots[0].socket.compress_payloads()
            for number in range(20):
                words = json.dumps({"op": 1, "d": "words " * number * 30})
                await bot.send_str(words)
                assert inflate.decompress(await bot.receive_bytes()) == words.encode()

    run(it())


def test_payloads_are_compressed_for_a_bot_that_asks_in_its_identify() -> None:
    async def it() -> None:
        async with scene() as s, s.bot() as bot:
            await bot.receive_str()
            s.bots[0].socket.compress_payloads()
            s.bots[0].socket.send(b'{"d":"' + b"x" * 20_000 + b'"}')
            assert json.loads(zlib.decompress(await bot.receive_bytes())) == {"d": "x" * 20_000}

    run(it())


def test_a_heartbeat_is_answered_after_what_is_sent_with_it() -> None:
    """An answer at once comes before discord.py has noted when its heartbeat went out."""

    async def it() -> None:
        async with scene() as s, s.bot() as bot:
            await bot.receive_str()
            s.bots[0].socket.acknowledge(b'{"op":11}')
            s.bots[0].socket.send(b'{"op":0}')
            assert [await bot.receive_str() for _ in range(2)] == ['{"op":0}', '{"op":11}']
            s.bots[0].socket.acknowledge(b'{"op":11}')
            s.bots[0].socket.close(4000, "the answer does not come")
            assert (await bot.receive()).type is aiohttp.WSMsgType.CLOSE

    run(it())


def test_all_payloads_of_a_wake_up_go_out_together_and_in_order() -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await s.handshake()
            bot = s.bots[0]
            for number in range(1000):
                bot.socket.send(b'{"s":%d}' % number)
            assert bot.socket.waiting > 0
            bot.socket.close(4000, "over")
            writer.write(client_frame(8, b""))
            got = await frames_of(reader)
            assert [payload for opcode, payload in got if opcode == 1][1:] == [
                b'{"s":%d}' % n for n in range(1000)
            ]
            assert got[-1] == (8, struct.pack("!H", 4000) + b"over")
            writer.close()

    run(it())


def test_what_came_with_the_handshake_is_not_lost() -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(handshake() + client_frame(1, b"early") + client_frame(8, struct.pack("!H", 4900)))
            await reader.readuntil(b"\r\n\r\n")
            got = await frames_of(reader)
            assert got == [(1, HELLO), (1, b"early"), (8, struct.pack("!H", 4900))]
            await s.bots[0].ended.wait()
            assert s.bots[0].closed == [4900]
            writer.close()

    run(it())


def test_pings_are_answered_and_an_end_without_a_close_frame_is_told() -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await s.handshake()
            writer.write(client_frame(9, b"there?"))
            hello = await reader.readexactly(2 + len(HELLO))
            assert server_frames(hello) == [(1, HELLO)]
            assert server_frames(await reader.readexactly(8)) == [(10, b"there?")]
            writer.transport.abort()
            await s.bots[0].ended.wait()
            assert s.bots[0].closed == [None]

    run(it())


@pytest.mark.parametrize(
    ("target", "words"),
    [("/?v=10&encoding=etf", "json"), ("/?v=10&compress=lz4", "zstd-stream")],
)
def test_what_the_proxy_does_not_speak_is_refused_in_words(target: str, words: str) -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await s.handshake(target)
            writer.write(client_frame(8, b""))
            ((opcode, body),) = await frames_of(reader)
            assert opcode == 8 and body[:2] == struct.pack("!H", 4012) and words in body[2:].decode()
            assert s.bots == []
            writer.close()

    run(it())


@pytest.mark.parametrize(
    "head",
    [handshake(Sec_WebSocket_Version="8"), handshake(Sec_WebSocket_Key="short"), handshake(Sec_WebSocket_Key=""),
     handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), handshake().replace(b"GET", b"POST")],
)  # fmt: skip
def test_a_handshake_that_is_none_is_refused(head: bytes) -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(head)
            assert (await reader.readline()).split()[1] == b"400"
            writer.close()
            assert s.bots == []

    run(it())


def test_a_payload_over_4096_bytes_is_closed_with_4002() -> None:
    async def it() -> None:
        async with scene() as s, s.bot() as bot:
            await bot.receive_str()
            await bot.send_str("x" * 4097)
            assert (await bot.receive()).type is aiohttp.WSMsgType.CLOSE
            assert bot.close_code == 4002
            assert s.bots[0].messages == []

    run(it())


def test_a_bot_that_does_not_identify_in_time_is_closed() -> None:
    async def it() -> None:
        async with scene(Limits(identify_s=0.05)) as s, s.bot() as bot:
            await bot.receive_str()
            assert (await bot.receive()).type is aiohttp.WSMsgType.CLOSE
            assert bot.close_code == 4003
            assert s.server.turned_away["silent"] == 1

    run(it())


def test_a_bot_that_has_identified_may_be_silent() -> None:
    async def it() -> None:
        async with scene(Limits(identify_s=2.0)) as s, s.bot() as bot, s.bot() as other:
            await bot.receive_str()
            await bot.send_str("identify")
            await bot.receive_str()
            await other.receive_str()
            assert (await other.receive()).type is aiohttp.WSMsgType.CLOSE
            await bot.send_str("still here")
            assert await bot.receive_str() == "still here"

    run(it())


def test_those_that_never_identify_keep_no_bot_out() -> None:
    async def it() -> None:
        async with scene(Limits(unidentified=3)) as s:
            crowd = [await s.handshake() for _ in range(3)]
            async with s.bot() as bot:
                await bot.receive_str()
                await bot.send_str("identify")
                await bot.receive_str()
                first, _ = crowd[0]
                assert await frames_of(first) == [(1, HELLO)], "the oldest made room"
                more = [await s.handshake() for _ in range(3)]
                await bot.send_str("still here")
                assert await bot.receive_str() == "still here"
            for _, writer in (*crowd, *more):
                writer.close()

    run(it())


def test_beyond_the_bound_of_connections_bots_are_told_to_come_later() -> None:
    async def it() -> None:
        async with scene(Limits(connections=2)) as s, s.bot() as first, s.bot() as second:
            for bot in (first, second):
                await bot.receive_str()
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with s.bot():
                    pass
            assert refused.value.status == 503
            assert s.server.turned_away["full"] == 1

    run(it())


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", handshake()[:40]])
def test_whoever_sends_no_whole_request_is_not_waited_for(said: bytes) -> None:
    async def it() -> None:
        async with scene(Limits(head_s=0.05)) as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(60):
                    assert await reader.read() == b""
            writer.close()

    run(it())


def test_a_bot_that_reads_slowly_can_be_waited_for() -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await s.handshake()
            pause(writer)
            bot, sent = s.bots[0], 0
            while not bot.socket.is_full:
                bot.socket.send(b"x" * 100_000)
                sent += 1
                await asyncio.sleep(0)
            resume(writer)
            reading = asyncio.create_task(reader.read(-1))
            await bot.writable.wait()
            assert bot.socket.waiting < 1 << 20
            bot.socket.close(4000)
            writer.write(client_frame(8, b""))
            assert sum(1 for opcode, _ in server_frames(await reading) if opcode == 1) == sent + 1
            writer.close()

    run(it())


def test_whoever_waits_for_room_is_told_also_when_the_socket_takes_everything_at_once() -> None:
    async def it() -> None:
        async with scene(Limits(full_bytes=1_000)) as s, s.bot() as bot:
            assert (await bot.receive()).data
            told, sent = s.bots[0], b"x" * 100_000
            for _ in range(3):
                told.writable.clear()
                told.socket.send(sent)
                assert told.socket.is_full
                await told.writable.wait()
                assert (await bot.receive()).data == sent.decode()

    run(it())


def test_a_bot_that_does_not_read_loses_its_connection_and_no_other_notices() -> None:
    async def it() -> None:
        limits = Limits(full_bytes=10_000, unread_bytes=1 << 20)
        async with scene(limits) as s, s.bot() as other:
            await other.receive_str()
            _, writer = await s.handshake()
            pause(writer)
            slow = s.bots[1]
            while not slow.closed:
                slow.socket.send(b"x" * 100_000)
                await asyncio.sleep(0)
            assert s.server.turned_away["slow"] == 1
            await other.send_str("still here")
            assert await other.receive_str() == "still here"
            writer.close()

    run(it())


def test_a_peer_that_takes_nothing_for_long_is_given_up() -> None:
    async def it() -> None:
        async with scene(Limits(full_bytes=10_000, unread_s=0.1)) as s:
            sock = sockets.socket()
            sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", s.port))
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(handshake())
            await reader.readuntil(b"\r\n\r\n")
            pause(writer)
            s.bots[0].socket.send(b"x" * 20_000_000)
            await s.bots[0].ended.wait()
            assert s.server.turned_away["unread"] == 1
            writer.close()

    run(it())


def test_a_close_that_the_bot_does_not_answer_ends_all_the_same() -> None:
    async def it() -> None:
        async with scene(Limits(close_s=0.05)) as s:
            reader, writer = await s.handshake()
            s.bots[0].socket.close(4000, "over")
            s.bots[0].socket.send(b"too late")
            assert await frames_of(reader) == [(1, HELLO), (8, struct.pack("!H", 4000) + b"over")]
            await s.bots[0].ended.wait()
            writer.close()

    run(it())


def test_nothing_is_kept_of_a_connection_that_has_ended() -> None:
    async def it() -> None:
        async with scene() as s:
            kept = []
            for compression in ("zlib-stream", "zstd-stream"):
                reader, writer = await s.handshake(f"/?v=10&compress={compression}")
                await reader.read(2)
                bot = s.bots.pop()
                kept.append(weakref.ref(bot.socket))
                writer.transport.abort()
                await bot.ended.wait()
                del bot
            # One more, and its answer: what the loop had still to do for them is done.
            async with s.bot() as another:
                await another.receive_str()
            gc.collect()
            assert [each() for each in kept] == [None, None]

    run(it())


def test_when_the_server_ends_every_connection_does() -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await s.handshake()
            idle, idle_writer = await asyncio.open_connection("127.0.0.1", s.port)
        assert s.bots[0].closed == [None] and s.server.connections == 0
        assert await frames_of(reader) == [(1, HELLO)] and await idle.read() == b""
        for each in (writer, idle_writer):
            each.close()

    run(it())


def test_a_second_proxy_shares_the_address_and_takes_the_bots_of_the_first() -> None:
    async def it() -> None:
        async with scene() as first, first.bot() as bot:
            await bot.receive_str()
            async with scene(port=first.port) as second:
                first.server.turn_away()
                async with second.bot() as moved:
                    await moved.receive_str()
                    await bot.send_str("still here")
                    assert await bot.receive_str() == "still here"
                assert len(second.bots) == 1 and len(first.bots) == 1

    run(it())


def test_tls_is_the_proxys_own(tmp_path: Path) -> None:
    async def it() -> None:
        files = certificate.make(tmp_path, "127.0.0.1")
        trust = ssl.create_default_context(cafile=files[0])
        async with (
            scene(tls=certificate.server_context(*files)) as s,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"wss://127.0.0.1:{s.port}/?v=10", ssl=trust) as bot,
        ):
            assert (await bot.receive_str()).encode() == HELLO

    run(it())
