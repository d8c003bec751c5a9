"""A binary message is told from all other frames by its bytes, and by nothing that an honest peer's bytes could be."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rateway.native.frames import MessageReader, is_message, plain
from rateway.native.inflate import SUFFIX
from rateway.session.inflate import make_inflater
from rateway.session.options import Compression
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World
from tests.session.driver import Wire

MESSAGE = b"\x04" + b"m" * 200


class Frame:
    """A frame as picows gives it."""

    def __init__(self, payload: bytes, *, fin: int = 1) -> None:
        self.fin = fin
        self.payload = payload

    def get_payload_as_bytes(self) -> bytes:
        return self.payload


class Owner:
    """Keeps what a reader does with frames."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bool]] = []
        self.others: list[tuple[Any, Any]] = []
        self.failures: list[Exception] = []
        self.reader = MessageReader(self.message, self.failures.append, self.other)

    def message(self, data: bytes, binary: bool) -> None:
        self.messages.append((data, binary))
        if b"BREAKS" in data:
            raise RuntimeError("a mistake of the owner's")
        if b"CLOSES" in data:
            self.reader.open = False

    def other(self, transport: object, frame: Frame) -> None:
        self.others.append((transport, frame))


def block(size: int, *, kind: int = 2, last: int = 0) -> bytes:
    """A zstd block of *size* bytes, its header included."""
    return (size - 3 << 3 | kind << 1 | last).to_bytes(3, "little") + b"b" * (size - 3)


@given(st.binary(max_size=140) | st.integers(3, 140).map(block))
@example(b"")
def test_both_forms_tell_the_same_of_any_bytes(data: bytes) -> None:
    for each in (data, data + b"\x00\x00\xff\xff", b"{" + data, data + b"}", data.ljust(130, b"}")):
        assert is_message(each) is plain.is_message(each)


@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream"])
def test_nearly_every_message_of_a_compressed_stream_is_told_by_its_bytes(compression: Compression) -> None:
    world = World(WorldOptions(seed=5, guilds=20, members_per_guild=20))
    chance, wire = random.Random(5), Wire(compression)
    inflater = make_inflater(compression, 1 << 20)
    short, told = 0, 0
    for seq in range(1, 2_001):
        event = step(world, chance)
        document = json.dumps({"t": event.name, "s": seq, "op": 0, "d": event.d}).encode()
        message = wire.pack(document)
        assert inflater.feed(message, True) == document
        short += len(message) <= 125
        told += is_message(message)
    assert short > 200
    assert told > 1_900, told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans(), st.sampled_from(["", " ", "\n", "\r\n", "\t" * 130]))
def test_no_text_is_taken_for_a_binary_message(document: Any, ascii_only: bool, space: str) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    for each in (text, space + text + space):
        assert not is_message(each.encode("utf-8", "replace"))


@given(st.text(st.characters(min_codepoint=32), max_size=125))
def test_neither_is_the_payload_of_a_ping_that_is_text(text: str) -> None:
    assert not is_message(text.encode("utf-8", "replace")[:125])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["I", "Q", "d", "II", "QQ", "dd", "QQQ", "QQQQ"])
def test_neither_is_one_of_equal_numbers_or_times(form: str, order: str) -> None:
    # All that the first two bytes can be, in both orders, and what a zlib message ends with.
    for number in (*range(1 << 16), 0xFFFF, 0xFFFF0000, 0xFFFFFF, 1_700_000_000):
        assert not is_message(struct.pack(order + form, *[number] * len(form)))


@pytest.mark.parametrize("order", ["<", ">"])
@given(numbers=st.lists(st.integers(0, (1 << 24) - 1), min_size=1, max_size=15))
@example(numbers=[108, 108])
@example(numbers=[0, 0xFFFF])
def test_neither_is_one_of_counters(numbers: list[int], order: str) -> None:
    assert not is_message(struct.pack(f"{order}{len(numbers)}Q", *numbers))


@given(st.integers(1000, 4999), st.text(max_size=30))
def test_neither_is_a_close_frame(code: int, reason: str) -> None:
    # No reason begins with a zero.
    assert not is_message(struct.pack(">H", code) + reason.lstrip("\x00").encode("utf-8", "replace"))


@pytest.mark.parametrize(
    "data", [b"", bytes(20) + SUFFIX, block(15), block(60, kind=0), block(60, kind=1), block(60, last=1)]
)
def test_what_may_be_a_message_and_is_no_usual_one_is_the_listeners(data: bytes) -> None:
    owner = Owner()
    owner.reader.read("transport", frame := Frame(data))
    assert owner.messages == [] and owner.others == [("transport", frame)]


@pytest.mark.parametrize("data", [MESSAGE, block(16), block(125), b"z" * 20 + SUFFIX])
def test_a_usual_message_is_passed_on_and_any_frame_of_one_in_parts_is_the_listeners(data: bytes) -> None:
    owner = Owner()
    whole, begin, end = Frame(data), Frame(data, fin=0), Frame(data)
    owner.reader.read("transport", whole)
    owner.reader.read("transport", begin)
    owner.reader.open = False
    owner.reader.read("transport", end)
    owner.reader.open = True
    owner.reader.read("transport", whole)
    assert owner.messages == [(data, True), (data, True)]
    assert owner.others == [("transport", begin), ("transport", end)]


def test_an_owner_that_raises_is_told_and_the_next_message_is_passed_on() -> None:
    owner = Owner()
    for data in (MESSAGE + b"BREAKS", MESSAGE):
        owner.reader.read("transport", Frame(data))
    assert owner.messages == [(MESSAGE + b"BREAKS", True), (MESSAGE, True)]
    assert [type(each) for each in owner.failures] == [RuntimeError]
    assert owner.others == []


def test_after_a_message_that_closes_the_connection_all_frames_are_the_listeners() -> None:
    owner = Owner()
    frames = [Frame(MESSAGE + b"CLOSES"), Frame(MESSAGE), Frame(b"")]
    for each in frames:
        owner.reader.read("transport", each)
    assert owner.messages == [(MESSAGE + b"CLOSES", True)]
    assert [frame for _, frame in owner.others] == frames[1:]
