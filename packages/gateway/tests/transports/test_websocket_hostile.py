"""A host that sends whatever it likes: memory and time stay bounded, the end keeps the session, others are served."""

from __future__ import annotations

import asyncio
import resource
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from picows import WSListener, WSUpgradeRequest, ws_create_server
from rateway.transports.websocket import MOST_UNREAD_BYTES, MOST_WIRE_BYTES, DialError, WebSocket, dial

from tests.aio import run

MIB = 1024 * 1024
Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Handler:
    """What the owner of a connection is told, and what it remembers of it."""

    raising: bool = False
    # The number of messages after which it closes the connection; 0 for never.
    closing_after: int = 0
    socket: WebSocket | None = None
    messages: list[bytes] = field(default_factory=list)
    # Of each message whether it was binary.
    kinds: list[bool] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    ended: asyncio.Future[tuple[int | None, str]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket

    def message(self, data: bytes, binary: bool) -> None:
        self.messages.append(data)
        self.kinds.append(binary)
        if len(self.messages) == self.closing_after:
            assert self.socket is not None
            self.socket.close(4901)
        if self.raising:
            raise KeyError(data)

    def closed(self, code: int | None, reason: str) -> None:
        assert not self.ended.done(), "told twice"
        self.ended.set_result((code, reason))

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    @property
    def refusal(self) -> str:
        assert self.socket is not None
        return self.socket.refusal


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, size: int | None = None) -> bytes:
    """A frame of a server; *size* is what its header says."""
    size = len(payload) if size is None else size
    if size < 126:
        length = bytes((size,))
    else:
        length = b"\x7e" + struct.pack(">H", size) if size < 65536 else b"\x7f" + struct.pack(">Q", size)
    return bytes((opcode | (0x80 if fin else 0),)) + length + payload


async def upgraded(
    script: Raw, *, bound: int = 256 * MIB, raising: bool = False, closing_after: int = 0
) -> Handler:
    """Dial a host that answers the upgrade by picows' own rules and then plays *script* on the bare socket."""
    playing: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import base64
        import hashlib

        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        try:
            await script(reader, writer)
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    handler = Handler(raising, closing_after)
    await dial(f"ws://127.0.0.1:{port}/", handler, timeout=60, max_message_bytes=bound, headers={})
    return handler


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code of the client's close frame, the frames before it passed over."""
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", await reader.readexactly(2))[0]
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await reader.readexactly(size)))
        if first & 0x0F == 8:
            return int(struct.unpack(">H", payload[:2])[0])


@pytest.mark.checklist("K18")
def test_pings_of_a_peer_that_does_not_read_are_not_answered_without_end() -> None:
    async def scenario() -> tuple[tuple[int | None, str], str, int]:
        async def pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # It never reads; asyncio stops at twice the bound of a StreamReader's buffer.
            flood = frame(9, b"x" * 125) * 1000
            while True:
                writer.write(flood)
                await writer.drain()

        before = peak()
        handler = await upgraded(pings)
        async with asyncio.timeout(60):
            ended = await handler.ended
        return ended, handler.refusal, peak() - before

    ended, refusal, grown = run(scenario())
    assert ended == (None, "the host does not read what it is sent")
    # It is no message that would come again.
    assert refusal == ""
    assert grown < 32 * MOST_UNREAD_BYTES


@pytest.mark.checklist("K18")
def test_what_is_sent_to_a_peer_that_does_not_read_is_bounded() -> None:
    async def scenario() -> tuple[int | None, str]:
        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # It never reads; asyncio stops at twice the bound of a StreamReader's buffer.
            await asyncio.Event().wait()

        handler = await upgraded(deaf)
        assert handler.socket is not None
        for _ in range(64 * MOST_UNREAD_BYTES // 4096):
            handler.socket.send(b"x" * 4096)
        async with asyncio.timeout(60):
            return await handler.ended

    assert run(scenario()) == (None, "the host does not read what it is sent")


@pytest.mark.checklist("K18")
def test_a_peer_that_reads_has_all_its_pings_answered() -> None:
    async def scenario() -> bytes:
        answers: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(9, b"one") + frame(9, b"two"))
            answers.set_result(await reader.readexactly(2 * (2 + 4 + 3)))

        await upgraded(pings)
        return await answers

    said = run(scenario())
    unmasked = [
        bytes(byte ^ part[2 + at % 4] for at, byte in enumerate(part[6:])) for part in (said[:9], said[9:])
    ]
    assert (said[0], unmasked) == (0x8A, [b"one", b"two"])


@pytest.mark.checklist("K18")
@pytest.mark.parametrize("size", [MOST_WIRE_BYTES + 1, 256 * MIB, 2**40, 2**63 - 1])
def test_a_frame_that_is_too_large_is_refused_by_its_header(size: int) -> None:
    async def scenario() -> tuple[tuple[int | None, str], str, int, int]:
        codes: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(2, size=size))
            codes.set_result(await close_code(reader))

        before = peak()
        handler = await upgraded(huge)
        ended = await handler.ended
        return ended, handler.refusal, await codes, peak() - before

    (code, reason), refusal, sent, grown = run(scenario())
    assert code is None
    assert reason == refusal and str(size) in refusal
    assert sent == 4900
    assert grown < 16 * MIB


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty continuations": (frame(2, b"a", fin=False) + frame(0, fin=False) * 10_000, "empty frames"),
    "many small continuations": (
        frame(2, b"a", fin=False) + frame(0, b"b" * 100, fin=False) * 1000,
        "more than 65536 bytes",
    ),
    "no beginning": (frame(0, b"a"), "without a beginning"),
    "a long message within another": (
        frame(2, b"a" * 200, fin=False) + frame(2, b"b" * 200) + frame(0, b"c"),
        "within another",
    ),
    "a long message after an unknown opcode": (frame(3, b"a") + frame(2, b"b" * 200), "opcode"),
    "a message within another": (frame(2, b"a", fin=False) + frame(1, b"b"), "within another"),
    "a beginning within another": (frame(2, b"a", fin=False) + frame(2, b"b", fin=False), "within another"),
    "an unknown opcode": (frame(3, b"a"), "opcode"),
    "a masked frame": (b"\x82\x81abcde", "masked"),
    "a control frame in parts": (frame(9, b"a", fin=False), "fragmented control"),
    "a long control frame": (frame(9, b"a" * 126), "control frame"),
}


@pytest.mark.checklist("K18")
@pytest.mark.parametrize(("said", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_what_breaks_a_bound_or_the_protocol_is_refused_with_a_code_that_keeps_the_session(
    said: bytes, reason: str
) -> None:
    async def scenario() -> tuple[Handler, tuple[int | None, str], int]:
        codes: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(2, b"before") + said)
            codes.set_result(await close_code(reader))

        handler = await upgraded(play, bound=65536)
        return handler, await handler.ended, await codes

    handler, (code, why), sent = run(scenario())
    assert (code, sent) == (None, 4900)
    assert reason in why and why == handler.refusal
    # What the parser had taken before is not lost with what follows it.
    assert handler.messages in ([b"before"], [])


@pytest.mark.parametrize("said", [frame(8, b"\x00"), frame(8, b"\x03\xec\xff"), frame(8, b"\x00\x01")])
def test_a_close_frame_that_is_wrong_is_an_end_like_any_other(said: bytes) -> None:
    async def scenario() -> str:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            await reader.read()

        handler = await upgraded(play)
        async with asyncio.timeout(60):
            await handler.ended
        return handler.refusal

    assert run(scenario()) == ""


@pytest.mark.checklist("K7")
def test_an_owner_that_raises_costs_its_connection_nothing() -> None:
    async def scenario() -> Handler:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(2, b"one") + frame(2, b"x" * 200) + frame(8, struct.pack(">H", 4000)))
            await reader.read()

        handler = await upgraded(play, raising=True)
        assert await handler.ended == (4000, "")
        return handler

    handler = run(scenario())
    assert handler.messages == [b"one", b"x" * 200]
    assert [type(error) for error in handler.failures] == [KeyError, KeyError]


# What a server may say of one message and the next, and what is made of it: (message, whether it is binary).
USUAL = b"\x04" + b"u" * 200
SPOKEN = (
    frame(2, USUAL)
    + frame(9, b"ping")
    + frame(2, USUAL, fin=False)
    + frame(10)
    + frame(0, USUAL, fin=False)
    + frame(0, b"end")
    + frame(1, b'{"op":11,"d":"%b"}' % USUAL[1:])
    + frame(2, b"")
    + frame(2, b"{" + USUAL + b"}")
    + frame(1, b"", fin=False)
    + frame(0, b"{}")
    + frame(2, USUAL)
    + frame(8, struct.pack(">H", 4000))
    + frame(2, USUAL)
    + frame(0, b"nothing after a close frame counts")
)
HEARD = [
    (USUAL, True),
    (USUAL + USUAL + b"end", True),
    (b'{"op":11,"d":"%b"}' % USUAL[1:], False),
    (b"", True),
    (b"{" + USUAL + b"}", True),
    (b"{}", False),
    (USUAL, True),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 130, 1 << 20])
def test_however_the_stream_is_cut_each_message_is_told_once_whole_and_in_order(step: int) -> None:
    async def scenario() -> Handler:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for at in range(0, len(SPOKEN), step):
                writer.write(SPOKEN[at : at + step])
                await asyncio.sleep(0)
            await reader.read()

        handler = await upgraded(play)
        assert await handler.ended == (4000, "")
        return handler

    handler = run(scenario())
    assert list(zip(handler.messages, handler.kinds, strict=True)) == HEARD
    assert handler.failures == []


@pytest.mark.parametrize("ends", [1, 2, 4])
def test_after_a_message_that_closes_the_connection_nothing_else_of_the_same_read_is_told(ends: int) -> None:
    async def scenario() -> tuple[Handler, int]:
        codes: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # The fourth ends a message in parts.
            parts = frame(2, USUAL, fin=False) + frame(0, USUAL)
            writer.write(frame(2, USUAL) + frame(1, b"{}") + frame(2, b"{" + USUAL + b"}") + parts)
            writer.write(frame(2, USUAL) + frame(2, USUAL, fin=False) + frame(0, USUAL) + frame(2, USUAL))
            codes.set_result(await close_code(reader))

        handler = await upgraded(play, closing_after=ends)
        return handler, await codes

    handler, code = run(scenario())
    assert len(handler.messages) == ends and code == 4901
    assert not handler.ended.done()


FRAMES = st.lists(
    st.one_of(
        st.builds(
            frame,
            st.sampled_from([0, 1, 2, 8, 9, 10]),
            st.binary(max_size=200),
            fin=st.booleans(),
        ),
        st.builds(frame, st.integers(0, 127), st.binary(max_size=8), size=st.integers(0, 2**64 - 1)),
        st.binary(max_size=30),
    ),
    max_size=12,
)


@pytest.mark.checklist("K18")
@settings(max_examples=150, deadline=None)
@given(FRAMES, st.lists(st.integers(1, 50), max_size=5))
@example([frame(8), frame(0, fin=False)], [])
def test_any_frames_end_in_words_or_go_on_and_a_neighbour_is_served(
    frames: list[bytes], cuts: list[int]
) -> None:
    async def scenario() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = b"".join(frames)
            for cut in cuts:
                writer.write(said[:cut])
                await asyncio.sleep(0)
                said = said[cut:]
            writer.write(said)
            writer.write_eof()
            await reader.read()
            writer.close()

        async def neighbour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(2, b"served") + frame(8, struct.pack(">H", 4000)))
            await reader.read()

        hostile, well = await asyncio.gather(upgraded(play, bound=MIB), upgraded(neighbour))
        async with asyncio.timeout(60):
            code, reason = await hostile.ended
            await well.ended
        assert well.messages == [b"served"] and well.failures == []
        assert hostile.failures == []
        assert not hostile.refusal or (code is None and reason == hostile.refusal)

    run(scenario())


@pytest.mark.checklist("K20")
@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("7", 7.0), ("0.5", 0.5), ("1e18", None), ("inf", None), ("-5", None), ("nan", None),
        ("9" * 400, 86_400.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("", None),
        ("Fri, 31 Dec 2199 23:59:59 GMT", 86_400.0), ("٣", None),
    ],
)  # fmt: skip
def test_the_retry_after_of_a_refused_upgrade_is_bounded(header: str, told: float | None) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: {header}\r\n\r\n".encode())
        writer.close()

    async def scenario() -> DialError:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DialError) as caught:
            await dial(f"ws://127.0.0.1:{port}/", Handler(), timeout=60, max_message_bytes=1, headers={})
        return caught.value

    assert run(scenario()).retry_after == told


@pytest.mark.checklist("K18")
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"HTTP/1.1 101 Sw\r\n" + rest))
def test_any_answer_to_the_upgrade_is_a_dial_error(answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(say, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DialError):
            await dial(f"ws://127.0.0.1:{port}/", Handler(), timeout=60, max_message_bytes=1, headers={})

    run(scenario())


def accept(request: WSUpgradeRequest) -> WSListener:
    return WSListener()


def test_a_host_that_accepts_is_dialled() -> None:
    async def scenario() -> bool:
        server = await ws_create_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        handler = Handler()
        await dial(f"ws://127.0.0.1:{port}/", handler, timeout=60, max_message_bytes=MIB, headers={})
        return handler.socket is not None

    assert run(scenario())


@pytest.mark.checklist("K70")
@pytest.mark.parametrize(
    "address",
    [
        "wss://a..discord.gg", "wss://.discord.gg", "wss://%s.discord.gg" % ("a" * 64),
        "wss://xn--ä.discord.gg", "wss://\u200d.discord.gg", "ws://127.0.0.1:1/p#f", "ws://[", "ws://h:x",
        "ws://127.0.0.1:0", "http://127.0.0.1:1", "",
    ],
)  # fmt: skip
def test_an_address_that_nothing_can_be_dialled_at_is_a_failed_dial_and_nothing_else(address: str) -> None:
    async def scenario() -> DialError:
        with pytest.raises(DialError) as caught:
            await dial(address, Handler(), timeout=60, max_message_bytes=1, headers={})
        return caught.value

    assert run(scenario()).reason
