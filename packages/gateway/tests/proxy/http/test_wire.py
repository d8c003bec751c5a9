"""Frames of bots: read as RFC 6455 says, however they are cut; payloads to bots, in every compression."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from rateway.native.inflate import zstd
from rateway.proxy.http import wire
from rateway.proxy.http.wire import FrameReader
from tests.proxy.frames import MASK, client_frame, server_frames


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_payload(self, payload: bytes) -> None:
        self.told.append(payload)

    def on_ping(self, data: bytes) -> None:
        self.told.append(("ping", data))

    def on_close(self, code: int | None) -> None:
        self.told.append(("close", code))

    def on_fault(self, code: int, reason: str) -> None:
        assert reason and len(reason.encode()) <= 123
        self.told.append(("fault", code))


def heard(*pieces: bytes) -> list[object]:
    listener = Heard()
    reader = FrameReader(listener)
    for piece in pieces:
        assert reader.feed_data(piece) == (False, b"")
    return listener.told


HEARTBEAT = b'{"op":1,"d":251}'
LARGE = b'{"op":2,"d":"' + b"x" * 4000 + b'"}'
CONVERSATION = (
    client_frame(1, HEARTBEAT)
    + client_frame(9, b"there?")
    + client_frame(2, LARGE)
    + client_frame(1, b'{"op":', fin=False)
    + client_frame(9, b"between")
    + client_frame(0, b"1,", fin=False)
    + client_frame(0, b'"d":7}')
    + client_frame(10, b"unasked")
    + client_frame(1, b"")
    + client_frame(8, struct.pack("!H", 4900) + b"later")
)
SAID = [
    HEARTBEAT, ("ping", b"there?"), LARGE, ("ping", b"between"), b'{"op":1,"d":7}', b"", ("close", 4900),
]  # fmt: skip


def test_a_conversation_is_read_whole_and_byte_by_byte() -> None:
    assert heard(CONVERSATION) == SAID
    assert heard(*(CONVERSATION[at : at + 1] for at in range(len(CONVERSATION)))) == SAID


def test_a_conversation_is_read_wherever_it_is_cut() -> None:
    chance = random.Random(7)
    for _ in range(200):
        cuts = sorted(chance.sample(range(len(CONVERSATION)), 6))
        pieces = [CONVERSATION[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        assert heard(*pieces) == SAID


def test_nothing_is_told_after_a_close_frame() -> None:
    assert heard(CONVERSATION, client_frame(1, HEARTBEAT))[-1] == ("close", 4900)
    assert heard(client_frame(8, b"") + client_frame(1, HEARTBEAT)) == [("close", None)]


@pytest.mark.parametrize(
    "data",
    [client_frame(1, b"x" * 4097), client_frame(1, b"x" * 70_000), client_frame(2, b"x" * 4097)[:8],
     client_frame(1, b"x" * 3000, fin=False) + client_frame(0, b"x" * 3000),
     b"\x81" + bytes((0x80 | 127,)) + b"\x7f" + b"\xff" * 7],
)  # fmt: skip
def test_a_payload_over_4096_bytes_is_refused_before_it_has_come(data: bytes) -> None:
    assert heard(data, client_frame(1, HEARTBEAT)) == [("fault", 4002)]


def test_a_payload_of_4096_bytes_is_read() -> None:
    assert heard(client_frame(1, b"x" * 4096)) == [b"x" * 4096]


@pytest.mark.parametrize(
    "data",
    [b"\x81\x01x", b"\xc1\x80" + MASK, b"\x83\x80" + MASK, b"\x80\x80" + MASK, b"\x09\x80" + MASK,
     client_frame(9, b"x" * 126), client_frame(1, b"a", fin=False) + client_frame(1, b"b")],
    ids=["not masked", "compressed", "unknown opcode", "continues nothing", "control in pieces", "long control",
         "message within a message"],
)  # fmt: skip
def test_what_breaks_the_protocol_ends_with_1002(data: bytes) -> None:
    assert heard(data, client_frame(1, HEARTBEAT)) == [("fault", 1002)]


PAYLOADS = [b'{"op":10}', b'{"op":0,"d":"%s"}' % (b"some words and others " * 20), b'{"a":1}' * 20_000, b"{}"]


def test_payloads_are_text_without_compression() -> None:
    frames = wire.frames("none")
    data = b"".join(frames.frame(payload) for payload in PAYLOADS)
    assert server_frames(data) == [(1, payload) for payload in PAYLOADS]


def test_each_message_of_a_zlib_stream_ends_with_its_sync_flush() -> None:
    frames, inflate = wire.frames("zlib-stream"), zlib.decompressobj()
    for payload in PAYLOADS:
        ((opcode, packed),) = server_frames(frames.frame(payload))
        assert opcode == 2 and packed.endswith(b"\x00\x00\xff\xff")
        assert inflate.decompress(packed) == payload


def test_each_message_of_a_zstd_stream_can_be_read_at_once() -> None:
    frames, inflate = wire.frames("zstd-stream"), zstd.ZstdDecompressor()
    for payload in PAYLOADS:
        ((opcode, packed),) = server_frames(frames.frame(payload))
        assert opcode == 2
        assert inflate.decompress(packed) == payload


def test_compressed_payloads_are_streams_of_their_own_where_it_is_worth_it() -> None:
    frames = wire.Payloads()
    (short,) = server_frames(frames.frame(PAYLOADS[1]))
    (long,) = server_frames(frames.frame(PAYLOADS[2]))
    assert short == (1, PAYLOADS[1])
    assert long[0] == 2 and zlib.decompress(long[1]) == PAYLOADS[2] and len(long[1]) < len(PAYLOADS[2])


def test_the_reason_of_a_close_frame_is_cut_at_a_character() -> None:
    ((opcode, body),) = server_frames(wire.close_frame(4014, "ä" * 100))
    assert (opcode, body[:2]) == (8, struct.pack("!H", 4014))
    assert body[2:].decode() == "ä" * 61
