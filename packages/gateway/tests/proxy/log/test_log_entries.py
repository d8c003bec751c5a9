"""The parser of a log's deliveries, in its compiled and its plain form: whole, cut, and hostile."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.delivery.proxy_port import LogEntry
from rateway.native import log_entries
from rateway.native.log_entries import plain

FRAME_MAX = 4_096
FORMS = [
    pytest.param(log_entries.EntryParser, id="used"),
    pytest.param(plain.EntryParser, id="plain"),
]


def frame(kind: int, payload: bytes, channel: int = 2, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def method(key: bytes = b"A", tag: int = 1) -> bytes:
    return (
        b"\x00\x3c\x00\x3c"
        + short(b"consumer")
        + struct.pack(">Q", tag)
        + b"\x00"
        + short(b"rateway-1")
        + short(key)
    )


def header(size: int, properties: bytes) -> bytes:
    return b"\x00\x3c\x00\x00" + struct.pack(">Q", size) + properties


def field(name: bytes, value: bytes) -> bytes:
    return short(name) + value


def integer(value: int) -> bytes:
    return b"l" + struct.pack(">q", value)


def properties(
    fields: bytes = b"",
    message_id: bytes | None = b"s:3:7",
    timestamp: int | None = 9,
    flags: int = 0,
    more: bytes = b"",
    offset: int = 42,
) -> bytes:
    """As the broker writes them of what a gateway has published; *flags* and *more* come on top."""
    fields = (
        field(b"shard_id", b"I" + struct.pack(">i", 3)) + fields + field(b"x-stream-offset", integer(offset))
    )
    flags |= 0xB000 | (0x80 if message_id is not None else 0) | (0x40 if timestamp is not None else 0)
    return (
        struct.pack(">H", flags) + short(b"application/json") + struct.pack(">I", len(fields)) + fields + b"\x02" + more
        + (short(message_id) if message_id is not None else b"")
        + (struct.pack(">Q", timestamp) if timestamp is not None else b"")
    )  # fmt: skip


def delivery(
    body: bytes = b"{}", told: bytes | None = None, key: bytes = b"A", tag: int = 1, channel: int = 2
) -> bytes:
    told = properties() if told is None else told
    pieces = [frame(1, method(key, tag), channel), frame(2, header(len(body), told), channel)]
    pieces += [frame(3, body[at : at + FRAME_MAX - 8], channel) for at in range(0, len(body), FRAME_MAX - 8)]
    return b"".join(pieces)


def told_by(form: Any, data: bytes) -> tuple[list[LogEntry], int]:
    """The entries of one call, and where it stopped."""
    parser = form(LogEntry)
    end = parser.parse(data, 0, 2, FRAME_MAX)
    return parser.entries, end


@pytest.mark.parametrize("form", FORMS)
def test_whole_deliveries_become_entries_in_one_call(form: Any) -> None:
    parser = form(LogEntry)
    data = b"\xce" + b"".join(delivery(b"%d" % tag, tag=tag) for tag in range(1, 6))
    assert parser.parse(data, 1, 2, FRAME_MAX) == len(data)
    assert parser.tag == 5
    assert parser.entries == [LogEntry(42, "A", b"%d" % tag, 3, "s", 7, 0, False, 9) for tag in range(1, 6)]
    assert len({id(each.session) for each in parser.entries}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_whole_is_left_where_it_begins(form: Any) -> None:
    first = delivery(b"first")
    second = delivery(b"second", tag=2)
    for cut in range(len(second)):
        entries, end = told_by(form, first + second[:cut])
        assert ([each.body for each in entries], end) == ([b"first"], len(first))
    assert told_by(form, b"") == ([], 0)
    # The last byte of an entry without a body is its header's end.
    empty = delivery(b"", tag=2)
    for cut in range(len(empty)):
        assert told_by(form, first + empty[:cut])[1] == len(first)
    assert told_by(form, first + empty)[1] == len(first + empty)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "next_one",
    [
        delivery(channel=3),
        delivery(b"x" * FRAME_MAX),
        frame(8, b"", 0),
        frame(1, b"\x00\x3c\x00\x1f" + b"tag"),
        frame(1, method()) + frame(2, header(2, properties()), end=b"!") + frame(3, b"{}"),
        frame(1, method(), end=b"!") + frame(2, header(2, properties())) + frame(3, b"{}"),
        frame(1, method()) + frame(2, header(2, properties())) + frame(3, b"{}", end=b"!"),
        frame(1, method()) + frame(2, header(2, properties())) + frame(3, b"{}", 3),
        frame(1, method()) + frame(2, header(2, properties()), 3) + frame(3, b"{}"),
        frame(1, method()) + frame(2, header(2, b"")) + frame(3, b"{}"),
        frame(1, method()) + frame(2, header(1 << 63, properties())) + frame(3, b"{}"),
        frame(1, method()[:-2]) + frame(2, header(2, properties())) + frame(3, b"{}"),
        frame(1, method()[:4]) + frame(2, header(2, properties())) + frame(3, b"{}"),
        frame(1, method()[:12]) + frame(2, header(2, properties())) + frame(3, b"{}"),
    ],
    ids=[
        "another channel", "body in pieces", "heartbeat", "another method", "header's end", "method's end",
        "body's end", "body's channel", "header's channel", "no flags", "size", "no key", "no tag", "half a tag",
    ],
)  # fmt: skip
def test_frames_that_are_no_whole_delivery_are_left_to_the_connection(form: Any, next_one: bytes) -> None:
    first = delivery(b"first")
    entries, end = told_by(form, first + next_one + delivery(b"last"))
    assert ([each.body for each in entries], end) == ([b"first"], len(first))


@pytest.mark.parametrize("form", FORMS)
def test_a_delivery_in_pieces_becomes_an_entry(form: Any) -> None:
    parser = form(LogEntry)
    body = b"x" * 10_000
    assert parser.parse_parts(frame(1, method(b"B", 7)), frame(2, header(len(body), properties())), body)
    assert (parser.entries, parser.tag) == ([LogEntry(42, "B", body, 3, "s", 7, 0, False, 9)], 7)
    assert not parser.parse_parts(frame(1, b""), frame(2, header(1, properties())), b"")
    assert not parser.parse_parts(frame(1, method()), frame(2, b""), b"")
    assert not parser.parse_parts(frame(1, method()), frame(2, header(1, properties()))[:-1], b"")
    assert len(parser.entries) == 1


# What stands in a header → the fields of the entry that it changes.
ODD: Mapping[str, tuple[bytes, Mapping[str, object]]] = {
    "repeated": (properties(message_id=b"a:b:3:12:r2"), {"session": "a:b", "seq": 12, "repeat": 2}),
    "another shard": (properties(message_id=b"s:4:7"), {"session": "", "seq": 0}),
    "no session": (properties(message_id=b":3:7"), {"session": "", "seq": 0}),
    "no seq": (properties(message_id=b"s:3:"), {"session": "", "seq": 0}),
    "no number": (properties(message_id=b"s:3:-7"), {"session": "", "seq": 0}),
    "no shard": (properties(message_id=b"s::7"), {"session": "", "seq": 0}),
    "no colon": (properties(message_id=b"r7"), {"session": "", "seq": 0}),
    "r alone": (properties(message_id=b"s:3:7:r"), {"session": "", "seq": 0}),
    "r of nothing": (properties(message_id=b"3:7:r1"), {"session": "", "seq": 0, "repeat": 0}),
    "before": (properties(message_id=b"s:3:7:before"), {"session": "", "seq": 0}),
    "long seq": (properties(message_id=b"s:3:" + b"9" * 18), {"seq": 10**18 - 1}),
    "too long seq": (properties(message_id=b"s:3:" + b"9" * 19), {"session": "", "seq": 0}),
    "too long repeat": (properties(message_id=b"s:3:7:r" + b"9" * 10), {"session": "", "seq": 0}),
    "none": (properties(message_id=None), {"session": "", "seq": 0}),
    "empty": (properties(message_id=b""), {"session": "", "seq": 0}),
    "not text": (properties(message_id=b"\xff:3:7"), {"session": "\ufffd"}),
    "republished": (properties(field(b"republished", b"t\x01")), {"is_out_of_order": True}),
    "ahead": (properties(field(b"ahead", b"t\x01")), {"is_out_of_order": True}),
    "not ahead": (properties(field(b"ahead", b"t\x00")), {}),
    "ahead as text": (properties(field(b"ahead", b"S\x00\x00\x00\x01t")), {}),
    "timeless": (properties(timestamp=None), {"timestamp": 0}),
    "beyond time": (properties(timestamp=1 << 63), {"timestamp": 0}),
    "all properties": (
        properties(flags=0x0F00, more=b"\x05" + short(b"correlation") + short(b"reply") + short(b"1000")), {},
    ),
    "nested": (
        properties(
            field(b"table", b"F\x00\x00\x00\x04\x01at\x01") + field(b"array", b"A\x00\x00\x00\x02t\x01")
            + field(b"bytes", b"x\x00\x00\x00\x01\x00") + field(b"void", b"V")
            + field(b"decimal", b"D\x00\x00\x00\x00\x01")
            + field(b"double", b"d" + bytes(8)) + field(b"time", b"T" + bytes(8)) + field(b"", b"t\x01")
            + field(b"nothing", b"\x00") + field(b"float", b"f" + bytes(4)),
        ),
        {},
    ),
    "unknown type": (properties(field(b"odd", b"?\x00")), {"offset": -1}),
    "length beyond": (properties(field(b"odd", b"S\xff\xff\xff\xff")), {"offset": -1}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ODD)
def test_odd_properties_change_what_they_say_and_nothing_else(form: Any, name: str) -> None:
    told, fields = ODD[name]
    usual = LogEntry(42, "A", b"{}", 3, "s", 7, 0, False, 9)
    data = delivery(told=told)
    entries, end = told_by(form, data)
    assert entries == [msgspec.structs.replace(usual, **fields)]
    assert end == len(data)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "shard"),
    [
        (b"b\x03", 3), (b"B\xff", 255), (b"s\x00\x03", 3), (b"U\x00\x03", 3), (b"u\xff\xff", 65_535),
        (b"I\x00\x00\x00\x03", 3), (b"i\xff\xff\xff\xff", -1), (b"l" + bytes(7) + b"\x03", 3),
        (b"L" + bytes(7) + b"\x03", 3), (b"I\xff\xff\xff\xff", -1), (b"l\x00\x00\x00\x00\x80\x00\x00\x00", -1),
        (b"l\x80" + bytes(7), -1), (b"t\x01", -1), (b"S\x00\x00\x00\x013", -1), (b"V", -1),
    ],
)  # fmt: skip
def test_a_shard_is_a_whole_number_of_any_width(form: Any, value: bytes, shard: int) -> None:
    (entry,), _ = told_by(form, delivery(told=properties(field(b"shard_id", value), b"s:%d:7" % shard)))
    assert (entry.shard_id, entry.session) == (shard, "s" if shard >= 0 else "")


@pytest.mark.parametrize("form", FORMS)
def test_names_are_any_bytes(form: Any) -> None:
    for key, name in ((b"", ""), (b"\xff\xfe", "\ufffd\ufffd"), ("ä".encode() * 127, "ä" * 127)):
        (entry,), _ = told_by(form, delivery(key=key))
        assert entry.name == name


def test_many_sessions_are_not_remembered_for_ever_and_stay_right() -> None:
    for form in (log_entries.EntryParser, plain.EntryParser):
        parser = form(LogEntry)
        data = b"".join(delivery(told=properties(message_id=b"s%d:3:7" % number)) for number in range(9_000))
        assert parser.parse(data, 0, 2, FRAME_MAX) == len(data)
        assert [each.session for each in parser.entries] == [f"s{number}" for number in range(9_000)]


def both(data: bytes) -> None:
    assert told_by(log_entries.EntryParser, data) == told_by(plain.EntryParser, data)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([told for told, _ in ODD.values()]) | st.binary(max_size=60), st.binary(max_size=40)
        ),
        max_size=4,
    ),
    st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 255)), max_size=4),
    st.integers(0, 1_000),
)  # fmt: skip
def test_both_forms_make_the_same_of_anything(
    parts: Sequence[tuple[bytes, bytes]], changes: Sequence[tuple[int, int]], cut: int
) -> None:
    data = bytearray(b"".join(delivery(body, told) for told, body in parts))
    for at, value in changes:
        if at < len(data):
            data[at] = value
    both(bytes(data))
    both(bytes(data[:cut]))


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=8))
def test_both_forms_make_the_same_of_any_pieces(first: bytes, second: bytes, body: bytes) -> None:
    told = []
    for form in (log_entries.EntryParser, plain.EntryParser):
        parser = form(LogEntry)
        for one, other in (
            (first, second),
            (frame(1, method()), frame(2, second)),
            (frame(1, first), frame(2, header(0, second))),
        ):
            told.append((parser.parse_parts(one, other, body), parser.entries, parser.tag))
    assert told[:3] == told[3:]
