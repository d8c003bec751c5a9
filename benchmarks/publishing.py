"""The cost of publishing an event, and of other ways to do it. ``python -m benchmarks.publishing``

CPU of one process, in µs an event, the best of several rounds: frames built in every way that was tried, the
bookkeeping until the confirm, confirms read, and the write through uvloop into a socket that somebody
empties. The table is ``docs/performance.md``'s, *Publishing*.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import pamqp.commands as spec
import uvloop
from pamqp import body as content
from pamqp import frame, header
from rateway.native.ledger import Cursor, Run, Unconfirmed
from rateway.transports.amqp.wire import frames
from rateway.transports.amqp.wire.channel import Acks
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.uri import parse

EVENTS = 40
ROUNDS = 30
BODY = b'{"content":"' + b"x" * 760 + b'"}'
NAME, EXCHANGE, PREFIX = b"MESSAGE_CREATE", b"rateway-1", b"0123456789abcdef0123456789abcdef:7:"
FIRST = 123_456
STAMP = struct.pack(">Q", 1_800_000_000)
ANSWER = bytes.fromhex("010001" + "0000000d" + "003c0050")


def measure(work: Callable[[], object]) -> float:
    """µs of CPU for one of the :data:`EVENTS` that ``work`` handles, in the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(50):
            work()
        best = min(best, (time.process_time_ns() - began) / 1000 / 50 / EVENTS)
    return best


def frames_by_pamqp() -> list[bytes]:
    """A general library's way."""
    out = []
    for seq in range(FIRST, FIRST + EVENTS):
        headers: Any = {"shard_id": 7, "shard_count": 16, "seq": seq}
        properties = spec.Basic.Properties(
            content_type="application/json", headers=headers, delivery_mode=2, message_id=f"{PREFIX.decode()}{seq}",
            message_type=NAME.decode(),
        )  # fmt: skip
        out.append(frame.marshal(spec.Basic.Publish(0, "rateway-1", NAME.decode()), 1))
        out.append(frame.marshal(header.ContentHeader(0, len(BODY), properties), 1))
        out.append(frame.marshal(content.ContentBody(BODY), 1))
    return out


def _format() -> bytes:
    quoted = [part.replace(b"%", b"%%") for part in PARTS]
    return b"%b".join(quoted[:3]) + b"%d%b" + quoted[3]


def frames_by_format() -> list[bytes]:
    """One ``%`` for everything, the body copied into it."""
    out, whole = [], WHOLE
    long, size = struct.Struct(">Q").pack, struct.Struct(">I").pack
    for seq in range(FIRST, FIRST + EVENTS):
        length = len(RAW)
        out.append(whole % (long(length), long(seq), seq, STAMP, size(length), RAW))
    return out


def frames_by_format_of_the_head() -> list[Any]:
    """The same, the body left where it is."""
    out: list[Any] = []
    add, format_head = out.append, HEAD
    long, size = struct.Struct(">Q").pack, struct.Struct(">I").pack
    for seq in range(FIRST, FIRST + EVENTS):
        length = len(RAW)
        add(format_head % (long(length), long(seq), seq, STAMP, size(length)))
        add(RAW)
        add(frames.END)
    return out


def frames_by_struct_in_one_piece() -> list[bytes]:
    """One ``struct`` for the head, head, body and end joined for each event."""
    out = []
    begin, middle, identity, end = PARTS
    pack = PACK
    for seq in range(FIRST, FIRST + EVENTS):
        length = len(RAW)
        top = pack(begin, length, middle, seq, identity, b"%d" % seq, STAMP, end, length)
        out.append(b"".join((top, RAW, frames.END)))
    return out


def frames_by_struct() -> list[Any]:
    """One ``struct`` for the head, the pieces joined once for the whole write."""
    out: list[Any] = []
    add = out.append
    begin, middle, identity, end = PARTS
    pack = PACK
    for seq in range(FIRST, FIRST + EVENTS):
        length = len(RAW)
        add(pack(begin, length, middle, seq, identity, b"%d" % seq, STAMP, end, length))
        add(RAW)
        add(frames.END)
    return out


def frames_by_template() -> list[Any]:
    """Ours: the same, the head made by a template, which may be compiled."""
    out: list[Any] = []
    add = out.append
    for seq in range(FIRST, FIRST + EVENTS):
        add(TEMPLATE.head(len(RAW), seq, STAMP))
        add(RAW)
        add(frames.END)
    return out


def kept_as_tuples() -> None:
    """A tuple an event in a queue, one look at it for each confirm."""
    queue: deque[tuple[int, Cursor, int, bytes]] = deque()
    cursor = Cursor(0)
    for tag, seq in enumerate(range(FIRST, FIRST + EVENTS), 1):
        queue.append((tag, cursor, seq, BODY))
    while queue and queue[0][0] <= EVENTS:
        _, owner, seq, _ = queue.popleft()
        owner.settled = seq


def kept_by_tag() -> None:
    """A dictionary from tag to event."""
    pending: dict[int, tuple[Cursor, int, bytes]] = {}
    cursor = Cursor(0)
    for tag, seq in enumerate(range(FIRST, FIRST + EVENTS), 1):
        pending[tag] = (cursor, seq, BODY)
    for tag in range(1, EVENTS + 1):
        owner, seq, _ = pending.pop(tag)
        owner.settled = seq


def kept_by_run() -> None:
    """Ours: a run of events, its marks in a list, joined for its write, one confirm for all of it."""
    ledger, cursor = Unconfirmed(), Cursor(0)
    run = Run(cursor, 0.0)
    cursor.runs.append(run)
    mark = run.marks.append
    for seq in range(FIRST, FIRST + EVENTS):
        mark(seq)
    run.pieces = PIECES
    ledger.add_written([run])
    ledger.acknowledge([(EVENTS, 1)])


def confirms_by_pamqp() -> None:
    """Each acknowledgement decoded by a general library."""
    at = 0
    while at < len(ACKS):
        used, _, _ = frame.unmarshal(ACKS[at:])
        at += used


class _Reader:
    """Ours: :meth:`Connection.data_received`, an acknowledgement an event."""

    def __init__(self) -> None:
        loop = asyncio.new_event_loop()
        self.connection = Connection(parse("amqp://localhost"), "benchmark", loop)
        opening = loop.create_task(self.connection.channel(1))
        loop.call_soon(self.connection.data_received, frame.marshal(spec.Channel.OpenOk(), 1))
        self.seen = 0
        loop.run_until_complete(opening).on_acks = self.take
        loop.close()

    def take(self, acks: Acks) -> None:
        self.seen += len(acks)

    def read(self) -> None:
        self.connection.data_received(ACKS)


def answered(acks: Acks) -> float:
    """µs an event of :meth:`Unconfirmed.acknowledge`, 20 acknowledgements a read, for 50 runs of :data:`EVENTS`."""
    best = float("inf")
    for _ in range(ROUNDS):
        ledger, cursor = Unconfirmed(), Cursor(0)
        for first in range(1, 50 * EVENTS, EVENTS):
            run = Run(cursor, 0.0)
            cursor.runs.append(run)
            run.pieces, run.marks = list(PIECES), list(range(first, first + EVENTS))
            ledger.add_written([run])
        began = time.process_time_ns()
        for at in range(0, len(acks), 20):
            ledger.acknowledge(acks[at : at + 20])
        best = min(best, (time.process_time_ns() - began) / 1000 / (50 * EVENTS))
        assert cursor.settled == 50 * EVENTS
    return best


def written(writes: str, batch: int) -> float:
    """µs an event of a uvloop transport that gets ``batch`` events at a time, joined or as pieces."""
    near, far = socket.socketpair()
    threading.Thread(target=_empty, args=(far,), daemon=True).start()
    pieces = PIECES[: 3 * batch]

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        best = float("inf")
        for _ in range(ROUNDS):
            # Of this thread alone: the one that empties the socket is not ours to pay for.
            began = time.thread_time_ns()
            for _ in range(50):
                if writes == "join":
                    transport.write(b"".join(pieces))
                else:
                    transport.writelines(pieces)
                await asyncio.sleep(0)
            best = min(best, (time.thread_time_ns() - began) / 1000 / 50 / batch)
        transport.close()
        return best

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(scenario())


def _empty(connection: socket.socket) -> None:
    buffer = bytearray(1024 * 1024)
    while connection.recv_into(buffer):
        pass


TEMPLATE = frames.template(EXCHANGE, NAME, 7, 16, PREFIX, 6, False, True)
# What a template is made of: a head, cut where size, sequence, digits and time stand.
_MODEL = TEMPLATE.head(0, 0, bytes(8))
_AT = _MODEL.rindex(b"000000")
_SEQ = _MODEL.index(b"\x03seql") + 5
_SIZE = _MODEL.index(b"\x00\x3c\x00\x00") + 4
PARTS = (_MODEL[:_SIZE], _MODEL[_SIZE + 8 : _SEQ], _MODEL[_SEQ + 8 : _AT], _MODEL[_AT + 14 : -4])
PACK = struct.Struct(f">{len(PARTS[0])}sQ{len(PARTS[1])}sq{len(PARTS[2])}s6s8s{len(PARTS[3])}sI").pack
HEAD = _format() + b"%b"
WHOLE = HEAD + b"%b\xce"
RAW = msgspec.json.decode(BODY, type=msgspec.Raw)
PIECES = frames_by_struct()
ACKS = b"".join(struct.pack(">11sQBB", ANSWER, tag, 0, 0xCE) for tag in range(1, EVENTS + 1))


TAGS = 50 * EVENTS
OUT_OF_ORDER: Acks = [
    (tag, 0) for begin in range(1, TAGS, 200) for odd in (0, 1) for tag in range(begin + odd, begin + 200, 2)
]


def main() -> None:
    """Print the table."""
    assert (
        b"".join(frames_by_template())
        == b"".join(frames_by_struct())
        == b"".join(frames_by_format())
        == b"".join(frames_by_format_of_the_head())
    )
    rows: list[tuple[str, float]] = [
        ("frames: pamqp", measure(frames_by_pamqp)),
        ("frames: one % format, body and all", measure(frames_by_format)),
        ("frames: % format of the head, pieces", measure(frames_by_format_of_the_head)),
        ("frames: struct, joined per event", measure(frames_by_struct_in_one_piece)),
        ("frames: struct, pieces", measure(frames_by_struct)),
        ("frames: template, pieces (ours)", measure(frames_by_template)),
        ("kept: a tuple an event", measure(kept_as_tuples)),
        ("kept: a dictionary by tag", measure(kept_by_tag)),
        ("kept: runs (ours)", measure(kept_by_run)),
        ("confirms one by one: pamqp", measure(confirms_by_pamqp)),
        ("confirms one by one: by hand (ours)", measure(_Reader().read)),
        ("answered: multiple, run by run", answered([(tag, 1) for tag in range(EVENTS, TAGS + 1, EVENTS)])),
        ("answered: multiple, inside runs", answered([*((tag, 1) for tag in range(7, TAGS, 7)), (TAGS, 1)])),
        ("answered: one by one", answered([(tag, 0) for tag in range(1, TAGS + 1)])),
        ("answered: one by one, odd before even", answered(OUT_OF_ORDER)),
        ("join of the pieces", measure(lambda: b"".join(PIECES))),
    ]
    for batch in (1, 4, 40):
        rows += [(f"write, {batch} a wake-up: {how}", written(how, batch)) for how in ("join", "writelines")]
    width = max(len(name) for name, _ in rows)
    for name, cost in rows:
        print(f"{name:{width}}  {cost:7.3f} µs")


if __name__ == "__main__":
    main()
