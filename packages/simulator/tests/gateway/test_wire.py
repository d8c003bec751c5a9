"""Frames and compressed streams as a decoder sees them, runs prepared beforehand between live messages."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_simulator.gateway import wire
from rateway_simulator.gateway.wire import zstd

MESSAGES = st.lists(st.binary(max_size=300), min_size=1, max_size=6)


def _frames(data: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """Opcode, whether it is the last of its message, and payload of each frame of a server."""
    at = 0
    while at < len(data):
        opcode, fin, size = data[at] & 0xF, data[at] >= 0x80, data[at + 1]
        at += 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, at)[0], at + 2
        elif size == 127:
            size, at = struct.unpack_from("!Q", data, at)[0], at + 8
        yield opcode, fin, data[at : at + size]
        at += size


class _Decoder:
    def __init__(self, compression: str) -> None:
        self._compression = compression
        self._zlib = zlib.decompressobj()
        self._zstd = zstd.ZstdDecompressor()

    def feed(self, data: bytes) -> bytes:
        if self._compression == "none":
            return data
        if self._compression == "zlib-stream":
            assert data.endswith(b"\x00\x00\xff\xff")
            return self._zlib.decompress(data)
        out = b""
        while data:
            out += self._zstd.decompress(data)
            data = b""
            if self._zstd.eof:
                data, self._zstd = self._zstd.unused_data, zstd.ZstdDecompressor()
        return out


@pytest.mark.parametrize("compression", wire.COMPRESSIONS)
@given(live=st.lists(MESSAGES, min_size=1, max_size=3), runs=st.lists(MESSAGES, max_size=3))
def test_live_messages_and_runs_follow_one_another_in_any_order(
    compression: str, live: list[list[bytes]], runs: list[list[bytes]]
) -> None:
    context, sent, expected = wire.stream(compression), b"", []
    for part in range(max(len(live), len(runs))):
        for message in live[part] if part < len(live) else []:
            sent += wire.frame(context.opcode, context.pack(message))
            expected.append(message)
        if part < len(runs):
            sent += wire.run(compression, runs[part]).after(context.leave())
            expected += runs[part]
    decoder = _Decoder(compression)
    assert [decoder.feed(payload) for _, _, payload in _frames(sent)] == expected


@given(st.binary(max_size=70_000).filter(len) | st.just(b"x" * 66_000), st.integers(1, 70_000))
def test_fragments_join_to_the_message(payload: bytes, size: int) -> None:
    frames = list(_frames(wire.fragments(wire.BINARY, payload, max(size, len(payload) // 50 + 1))))
    assert b"".join(piece for _, _, piece in frames) == payload
    assert [fin for _, fin, _ in frames] == [False] * (len(frames) - 1) + [True]
    assert [opcode for opcode, _, _ in frames] == [wire.BINARY] + [wire.CONTINUATION] * (len(frames) - 1)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_of_any_size_has_a_header_of_its_size(size: int) -> None:
    assert list(_frames(wire.frame(wire.TEXT, b"x" * size))) == [(wire.TEXT, True, b"x" * size)]


@pytest.mark.parametrize("compression", ["zlib-stream", "zstd-stream"])
def test_no_decoder_takes_a_corrupt_message(compression: str) -> None:
    context, decoder = wire.stream(compression), _Decoder(compression)
    decoder.feed(context.pack(b"{}"))
    [(_, _, payload)] = _frames(wire.corrupt(compression))
    with pytest.raises((zlib.error, zstd.ZstdError)):
        decoder.feed(payload)
