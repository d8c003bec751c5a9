"""Which messages are in a connection's frames: every compression, however it is cut, and no garbage passes."""

from __future__ import annotations

import json
import random
import time
import zlib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.native.inflate import SUFFIX, zstd
from rateway.session.inflate import InflateError, Inflater, make_inflater
from rateway.session.options import Compression
from rateway_protocol.discord.envelope import EnvelopeError, split
from tests.session.driver import Wire

LIMIT = 64 * 1024 * 1024
payloads = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=300), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


def fresh(compression: str, limit: int = LIMIT) -> Inflater:
    return make_inflater(cast("Compression", compression), limit)


def encoded(objects: list[dict[str, str]]) -> list[bytes]:
    return [json.dumps(each).encode() for each in objects]


def fed(inflater: Inflater, messages: list[bytes], *, binary: bool = True) -> list[bytes]:
    out = [inflater.feed(memoryview(message), binary) for message in messages]
    return [bytes(each) for each in out if each is not None]


@pytest.mark.checklist("C7", "C10")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
@given(payloads)
def test_each_message_is_one_payload_of_the_connections_stream(
    compression: str, objects: list[dict[str, str]]
) -> None:
    wire, inflater = Wire(compression), fresh(compression)
    documents = encoded(objects)
    assert fed(inflater, [wire.pack(each) for each in documents], binary=wire.binary) == documents


@pytest.mark.checklist("C1", "C2", "C3")
@given(payloads, st.data())
def test_a_zlib_stream_cut_anywhere_gives_the_same_payloads(
    objects: list[dict[str, str]], data: st.DataObject
) -> None:
    wire, inflater = Wire("zlib-stream"), make_inflater("zlib-stream", LIMIT)
    documents = encoded(objects)
    out: list[bytes] = []
    for document in documents:
        message = wire.pack(document)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=4)))
        out += fed(inflater, [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)])
    # A cut right after the mark's bytes inside a message ends a part early; no byte is lost or doubled.
    assert b"".join(out) == b"".join(documents)


@pytest.mark.checklist("C1", "C2")
@given(payloads)
def test_a_zlib_stream_byte_by_byte_gives_the_same_payloads(objects: list[dict[str, str]]) -> None:
    wire, inflater = Wire("zlib-stream"), make_inflater("zlib-stream", LIMIT)
    documents = encoded(objects)
    stream = b"".join(wire.pack(document) for document in documents)
    assert b"".join(fed(inflater, [stream[i : i + 1] for i in range(len(stream))])) == b"".join(documents)


@pytest.mark.checklist("C2")
def test_an_end_mark_that_is_itself_split_is_found() -> None:
    wire, inflater = Wire("zlib-stream"), make_inflater("zlib-stream", LIMIT)
    message = wire.pack(b'{"op":11}')
    assert message.endswith(SUFFIX)
    assert fed(inflater, [message[:-2]]) == []
    assert fed(inflater, [message[-2:-1]]) == []
    assert fed(inflater, [message[-1:]]) == [b'{"op":11}']


@pytest.mark.checklist("C3")
def test_the_end_marks_bytes_inside_a_message_do_not_end_it() -> None:
    # Stored blocks carry their bytes as they are.
    packer = zlib.compressobj(level=0)
    text = b'{"op":0,"d":"' + SUFFIX + b'"}'
    message = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert message.count(SUFFIX) == 2
    inflater = make_inflater("zlib-stream", LIMIT)
    assert fed(inflater, [message]) == [text]
    whole = Wire("zlib-stream")
    first = whole.pack(b'{"a":1}') + whole.pack(b'{"b":2}')
    assert fed(make_inflater("zlib-stream", LIMIT), [first]) == [b'{"a":1}{"b":2}']


@pytest.mark.checklist("C5")
@pytest.mark.parametrize(("level", "header"), [(1, b"\x78\x01"), (6, b"\x78\x9c"), (9, b"\x78\xda")])
def test_every_zlib_header_is_taken(level: int, header: bytes) -> None:
    packer = zlib.compressobj(level)
    message = packer.compress(b'{"op":11}') + packer.flush(zlib.Z_SYNC_FLUSH)
    assert message.startswith(header)
    assert fed(make_inflater("zlib-stream", LIMIT), [message]) == [b'{"op":11}']


@pytest.mark.checklist("C4", "C8", "C11")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
@pytest.mark.parametrize("size", [65_535, 65_536, 131_073, 17_000_000])
def test_a_payload_larger_than_any_buffer_comes_whole(compression: str, size: int) -> None:
    random_text = random.Random(size).randbytes(min(size, 300_000) // 2).hex().encode()
    document = b'"' + (random_text * (size // len(random_text) + 1))[: size - 2] + b'"'
    wire, inflater = Wire(compression), fresh(compression)
    assert fed(inflater, [wire.pack(document), wire.pack(b"1")], binary=wire.binary) == [document, b"1"]


@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
def test_a_bomb_is_refused_at_the_bound_and_not_cut(compression: str) -> None:
    wire = Wire(compression)
    bomb, just = b" " * 1_000_001, b" " * 1_000_000
    assert fed(fresh(compression, 1_000_000), [Wire(compression).pack(just)], binary=wire.binary) == [just]
    with pytest.raises(InflateError, match="100000"):
        fed(fresh(compression, 1_000_000), [wire.pack(bomb)], binary=wire.binary)


def test_a_bomb_in_several_zstd_frames_is_refused_too() -> None:
    frame = zstd.compress(b" " * 600_000)
    with pytest.raises(InflateError, match="more than 1000000"):
        fed(make_inflater("zstd-stream", 1_000_000), [frame + frame])
    assert fed(make_inflater("zstd-stream", 1_200_000), [frame + frame]) == [b" " * 1_200_000]


def test_a_zlib_message_that_never_ends_is_refused_at_the_bound() -> None:
    inflater = make_inflater("zlib-stream", 1000)
    assert fed(inflater, [b"x" * 100] * 10) == []
    with pytest.raises(InflateError, match="does not end"):
        inflater.feed(b"x", True)


@pytest.mark.checklist("C10")
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6), st.data())
def test_zstd_frames_in_a_row_are_one_stream(parts: list[bytes], data: st.DataObject) -> None:
    frames = [zstd.compress(part) for part in parts]
    assert b"".join(fed(make_inflater("zstd-stream", LIMIT), frames)) == b"".join(parts)
    assert fed(make_inflater("zstd-stream", LIMIT), [b"".join(frames)]) == [b"".join(parts)]
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert b"".join(fed(make_inflater("zstd-stream", LIMIT), pieces)) == b"".join(parts)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
def test_a_zstd_stream_byte_by_byte_loses_nothing(parts: list[bytes]) -> None:
    wire = Wire("zstd-stream")
    stream = b"".join(wire.pack(part) for part in parts)
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert b"".join(fed(make_inflater("zstd-stream", LIMIT), pieces)) == b"".join(parts)


@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
def test_text_frames_are_plain_in_every_mode(compression: str) -> None:
    assert fed(fresh(compression), [b'{"op":11}'], binary=False) == [b'{"op":11}']


@pytest.mark.checklist("C13")
def test_without_transport_compression_text_and_compressed_payloads_may_be_mixed() -> None:
    inflater = make_inflater("none", 1000)
    assert fed(inflater, [b'{"op":10}'], binary=False) == [b'{"op":10}']
    assert fed(inflater, [zlib.compress(b'{"op":0}')]) == [b'{"op":0}']
    assert fed(inflater, [b'{"op":11}']) == [b'{"op":11}']
    for broken in (zlib.compress(b'{"op":0}')[:-3], b"\x78\x9cxxx", zlib.compress(b" " * 1001)):
        with pytest.raises(InflateError):
            inflater.feed(broken, True)


@pytest.mark.checklist("C9")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
@given(st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=8))
def test_garbage_is_an_inflate_error_or_output_and_nothing_else(
    compression: str, messages: list[tuple[bytes, bool]]
) -> None:
    inflater, taken = fresh(compression, 10_000), 0
    try:
        for message, binary in messages:
            inflater.feed(memoryview(message), binary)
            taken += 1
    except InflateError:
        assert taken < len(messages)


@pytest.mark.checklist("C9")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream"])
@given(payloads, st.data())
def test_a_flipped_byte_never_makes_the_decoder_raise_anything_else(
    compression: str, objects: list[dict[str, str]], data: st.DataObject
) -> None:
    wire, inflater = Wire(compression), fresh(compression)
    messages = [bytearray(wire.pack(document)) for document in encoded(objects)]
    broken = data.draw(st.sampled_from(messages))
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    out: list[bytes] = []
    try:
        for each in fed(inflater, [bytes(message) for message in messages]):
            out += split(each)
    except (InflateError, EnvelopeError):
        assert len(out) < len(messages)


@pytest.mark.checklist("C6")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream"])
def test_an_inflater_of_an_old_connection_cannot_read_a_new_one(compression: str) -> None:
    old = fresh(compression)
    first, second = Wire(compression), Wire(compression)
    old.feed(first.pack(b'{"op":10}'), True)
    message = second.pack(b'{"op":10}')
    assert fed(fresh(compression), [message]) == [b'{"op":10}']
    with pytest.raises(InflateError):
        old.feed(message, True)


@pytest.mark.checklist("K18")
@pytest.mark.parametrize("frame", [zstd.compress(b""), zstd.compress(b"x")], ids=["empty", "of a byte"])
def test_zstd_frames_without_end_are_refused_before_they_cost_time(frame: bytes) -> None:
    assert len(fed(fresh("zstd-stream"), [frame * 50])) <= 1
    began = time.process_time()
    with pytest.raises(InflateError, match="frames"):
        fed(fresh("zstd-stream"), [frame * 500_000])
    assert time.process_time() - began < 5
