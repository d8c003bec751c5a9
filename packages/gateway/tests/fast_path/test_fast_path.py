"""The fast path does what the general path does, whatever comes, and takes only usual dispatches."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.native import fast_path
from rateway.native.fast_path import plain
from rateway.native.objects.applied import Applied
from rateway.runtime.runner.event_forwarder import EventForwarder
from rateway.runtime.runner.event_tallies import EventTallies
from rateway.runtime.runner.shard import Shard
from rateway.session.actions import Order, SessionStarted
from rateway.session.conversation import Conversation
from rateway.session.options import Compression
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World
from tests.session.driver import GATEWAY, Wire, options
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import cluster_on

NAMES = ["MESSAGE_CREATE", "TYPING_START", "PRESENCE_UPDATE", "GUILD_MEMBER_UPDATE", "A", "X" * 255]
ODD_NAMES = ["", "X" * 256, "ÄNDERUNG", "NEW\nS", 'A"B', None, 5, "gateway", "RATEWAY_GAP", "a\ud800"]


class Socket:
    """A connection that takes everything."""

    def __init__(self) -> None:
        self.said = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.said.set()

    def close(self, code: int) -> None:
        pass


class Dialer:
    """Opens the first connection, and no other."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.opened = asyncio.Event()
        self.line: Any = None

    async def dial(self, url: str, line: Any, **how: object) -> None:
        if self.opened.is_set():
            await asyncio.Event().wait()
        self.line = line
        line.opened(self.socket)
        self.opened.set()


class Permits:
    """Whoever asks may identify."""

    async def acquire(self, shard_id: int, *, lost: bool) -> None:
        pass

    async def spent(self, shard_id: int) -> None:
        pass

    def finished(self, shard_id: int, outcome: str) -> None:
        pass


class CacheDouble:
    """A cache that adds something to some of the events that are applied to it."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str, bytes]] = []

    def apply(self, shard_id: int, seq: int, name: str, d: Any) -> Applied | None:
        """Add the entity as it was before to each seventh event, a cause to each eleventh."""
        if name == "BREAKS":
            raise RuntimeError("a mistake in the cache")
        self.seen.append((shard_id, seq, name, bytes(d)))
        if seq % 7 == 0 and len(name) < 200:
            return Applied(before=b'{"was":%d}' % seq)
        return Applied(cause="join") if seq % 11 == 0 else None


class Observer:
    """Begins each session on its stream, and keeps the states that the shard went through."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def session_started(self, shard: Shard, order: SessionStarted) -> None:
        shard.stream.begin(order.session_id)

    def session_resumed(self, shard: Shard) -> None: ...
    def session_lost(self, shard: Shard, order: Order) -> None: ...
    def command_done(self, shard: Shard, order: Order) -> None: ...
    def fatal(self, shard: Shard, order: Order) -> None: ...
    def barred(self, shard: Shard, why: str) -> None: ...
    def state_changed(self, shard: Shard, order: Any) -> None:
        self.told.append(f"{order.new.value}: {order.why}")


@dataclass(frozen=True)
class Outcome:
    """All that can be seen of a history afterwards."""

    published: list[Any]
    counts: dict[str, int]
    seen: list[Any]
    told: list[str]
    numbers: tuple[Any, ...]


def take(line: Any, data: bytes, binary: bool) -> None:
    """As a WebSocket hands a message over."""
    try:
        line.message(data, binary)
    except RuntimeError as error:
        line.failed(error)


async def walked(messages: list[bytes], compression: Compression, *, fast: bool, cache: bool) -> Outcome:
    """What becomes of these messages after a session's READY."""
    async with FakeBroker() as broker, cluster_on(broker) as publishing, asyncio.TaskGroup() as tasks:
        begun: list[asyncio.Task[None]] = []

        def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            begun.append(tasks.create_task(work))
            return begun[-1]

        known, observer, dialer = CacheDouble(), Observer(), Dialer()
        pipeline = fast_path.EventPipeline()
        events = EventForwarder(
            pipeline, EventTallies(pipeline), publishing.publisher, lambda shard_id, guild_ids: None
        )
        if cache:
            pipeline.apply = known.apply
            pipeline.publishes = lambda name: name != "TYPING_START"
        conversation = Conversation(
            shard_id=3,
            shard_count=16,
            options=options(compression=compression),
            gateway_url=GATEWAY,
            session=None,
            chance=random.Random(7),
        )
        made: Any = {"dialer": dialer, "permits": Permits(), "observer": observer}
        shard = Shard(
            conversation=conversation,
            shard_id=3,
            stream=publishing.publisher.stream(3, 16),
            events=events,
            clock=lambda: 1000.0,
            spawn=spawn,
            **made,
        )
        shard.start()
        await dialer.opened.wait()
        wire = Wire(compression)
        line = dialer.line
        line.fast_path.open = fast
        take(line, wire.pack(b'{"op":10,"d":{"heartbeat_interval":41250}}'), wire.binary)
        # Its identify.
        await dialer.socket.said.wait()
        ready = {"session_id": "s1", "resume_gateway_url": "wss://resume.discord.test"}
        take(line, wire.pack(dispatch("READY", 1, ready)), wire.binary)
        for number, message in enumerate(messages):
            take(line, wire.pack(message), wire.binary)
            if number % 5 == 4:
                # The end of a wake-up.
                await asyncio.sleep(0)
        await publishing.all_confirmed()
        for task in begun:
            task.cancel()
        published = [
            (each.key, each.body, dict(each.headers), each.properties.message_id, each.mandatory)
            for each in broker.received
        ]
        numbers = (
            conversation.state, conversation.received_seq, conversation.bytes_in, conversation.bytes_inflated,
            conversation.heard_at, conversation.ignored, conversation.repeat, conversation.session_id,
            events.tallies.filtered, events.tallies.replayed, events.tallies.repeated,
            shard.stream.settled, shard.stream.received,
            pipeline.unreadable, pipeline.other,
        )  # fmt: skip
        return Outcome(published, pipeline.events, known.seen, observer.told, numbers)


def dispatch(name: object, seq: object, d: object, **more: object) -> bytes:
    return json.dumps({"t": name, "s": seq, "op": 0, "d": d} | more, separators=(",", ":")).encode()


def history(chance: random.Random, count: int, *, broken: bool) -> list[bytes]:
    """Mostly usual dispatches; and everything else that may come instead."""
    messages: list[bytes] = []
    seq = chance.choice((1, 5, 95, 9_990))
    odd: list[Any] = [
        lambda: dispatch(chance.choice(ODD_NAMES), seq, {"a": 1}),
        lambda: dispatch("A", chance.choice((seq - 2, seq + 2, 0, -1, 1 << 64, None, "5", True)), {"b": 2}),
        lambda: messages[-1] if messages else b'{"op":11}',
        lambda: dispatch("A", seq, {"again": 1}) + b" " + dispatch("A", seq, {"again": 2}),
        lambda: b'{"t":"A","s":%d.0,"op":0,"d":{"float":1}}' % seq,
        lambda: b' {"d" : [ 1 , {"x":"\\u00e4\\""} ],\n"extra":{"t":"B"},"op": 0,"s":%d ,"t":"A"} ' % seq,
        lambda: b'{"t":"A","s":%d,"op":0,"d":null,"d":{"twice":1}}' % seq,
        lambda: b'{"t":"A","s":%d,"op":0}' % seq,
        lambda: b'{"\\u0074":"A","s":%d,"op":0,"d":"escaped"}' % seq,
        lambda: b'{"t":"A","s":%d,"op":0,"d":"\xff not UTF-8"}' % seq,
        lambda: b'{"t":"A","s":%d,"op":0,"d":"a\\ud800b"}' % seq,
        lambda: b'{"t":"A\xff","s":%d,"op":0,"d":1}' % seq,
        lambda: b'{"t":"A","s":%d,"op":%b,"d":1}' % (seq, b"9" * 5000),
        lambda: b'{"t":"A","s":%d,"op":0,"d":%b}' % (seq, b"[" * 5000 + b"]" * 5000),
        lambda: b'{"t":"A","s":%d,"op":0,"d":[nul,"\x01"]}' % seq,
        lambda: b'{"t":"A","s":%d,"op":0,"d":%b}' % (seq, b"[" * 70 + b"]" * 70),
        lambda: dispatch("A", seq, "x" * 140_000),
        lambda: b'{"op":11}',
        lambda: b'{"op":1,"d":null}',
        lambda: b'{"op":99,"d":{}}',
        lambda: b"[1,2]",
    ]
    for _ in range(count):
        if chance.random() < 0.8:
            seq += 1
            d = {
                "id": str(seq),
                "text": "x" * chance.choice((0, 1, 7, 8, 9, 300, 5_000)),
                "n": [1, -0.5e3, None],
            }
            messages.append(
                dispatch(chance.choice(NAMES), seq, chance.choice((d, d, d, None, [], {}, 7, "ä")))
            )
        else:
            if chance.random() < 0.5:
                seq += 1
            messages.append(chance.choice(odd)())
    if broken:
        messages.append(chance.choice((b'{"t":"A","s":', b"}", b'{"op":0,"d":[}', b'{"op":7,"d":null}')))
        messages += [dispatch("A", seq + 1, {"late": True})]
    return messages


@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_lane_does_what_the_general_way_does(seed: int, cache: bool, compression: Compression) -> None:
    chance = random.Random(f"{seed} {cache} {compression}")
    messages = history(chance, 150, broken=seed % 2 == 1)

    async def both() -> tuple[Outcome, Outcome]:
        return (
            await walked(messages, compression, fast=True, cache=cache),
            await walked(messages, compression, fast=False, cache=cache),
        )

    short, general = asyncio.run(both())
    assert len(general.published) > 50
    assert short == general


@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream"])
def test_a_message_that_cannot_be_inflated_ends_the_connection_on_either_way(
    compression: Compression,
) -> None:
    class Torn(Wire):
        def pack(self, data: bytes) -> bytes:
            return super().pack(data) if b"TORN" not in data else b"\xff\x00 torn \x00\x00\xff\xff"

    messages = [dispatch("A", 2, {}), b"TORN", dispatch("A", 3, {})]

    async def both() -> list[Outcome]:
        return [await walked(messages, compression, fast=way, cache=False) for way in (True, False)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fast_path.test_fast_path.Wire", Torn)
        short, general = asyncio.run(both())
    assert short == general
    assert [each[0] for each in general.published] == ["READY", "A"]
    assert "a message that cannot be read" in general.told[-1]


# What is usual.


def test_every_event_of_discords_mix_is_usual() -> None:
    world = World(WorldOptions(seed=5, guilds=20, members_per_guild=20))
    chance = random.Random(5)
    for seq in range(1, 2_000):
        event = step(world, chance)
        found = fast_path.parts(dispatch(event.name, seq, event.d))
        assert found is not None
        assert found[:2] == (seq, event.name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)
HURTS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from("sdx"), st.binary(min_size=1, max_size=1)),
    max_size=3,
)


@given(
    d=JSON, name=st.sampled_from(NAMES), seq=st.integers(0, 1 << 70), hurts=HURTS, ascii_only=st.booleans()
)
def test_what_is_taken_for_usual_says_what_the_general_way_says(
    d: Any, name: str, seq: int, hurts: list[tuple[int, str, bytes]], ascii_only: bool
) -> None:
    document = bytearray(json.dumps({"t": name, "s": seq, "op": 0, "d": d}, ensure_ascii=ascii_only).encode())
    for where, how, byte in hurts:
        at = where % len(document)
        if how == "s":
            document[at : at + 1] = byte
        elif how == "d":
            del document[at]
        else:
            document[at:at] = byte
    found, general = fast_path.parts(bytes(document)), plain.parts(bytes(document))
    # What is taken for usual is what the general path makes of it; what is not, the general path gets.
    assert found in (None, general)
    if found is None and not hurts and seq < 10**18 and depth(d) < 60:
        raise AssertionError("usual, and not taken for it")


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


@pytest.mark.checklist("K5")
@pytest.mark.parametrize(
    "d",
    [
        "01", "1.", ".5", "-", "+1", "1e", "1e+", "0x1", "NaN", "Infinity", "tru", "nul", "falsy", '"\\x"',
        '"a\\ud800b"', '"\\u12g4"', '"\\u123"', '"\t"', '"\x1f"', '"\x00"', "[\x00]", "[1,]", "[,1]", "[1 2]", "{,}",
        '{"a":1,}', '{"a"}', '{"a":}', "{1:2}", '{"}":"]\\"["}',
    ],
)  # fmt: skip
def test_what_is_delimited_is_not_judged_in_either_form(d: str) -> None:
    document = b'{"t":"A","s":1,"op":0,"d":%b}' % d.encode()
    assert fast_path.parts(document) == plain.parts(document) == (1, "A", d.encode())


@pytest.mark.parametrize("d", ['"', '"\\"', "[}", "{]", "[[1]", '{"a":[}', "", " ", "1 2", "\xff", "'a'"])
def test_what_is_not_delimited_is_not_usual_in_either_form(d: str) -> None:
    document = b'{"t":"A","s":1,"op":0,"d":%b}' % d.encode("latin-1")
    assert fast_path.parts(document) is None
    assert plain.parts(document) is None


def test_a_cut_message_is_not_usual() -> None:
    whole = dispatch(
        "MESSAGE_CREATE", 12, {"id": "1", "list": [1, True, None, "ä\\"], "more": {"x": -1.5e-3}}
    )
    assert fast_path.parts(whole) is not None
    assert fast_path.parts(whole + b" \n") == fast_path.parts(whole)
    for stop in range(len(whole)):
        assert fast_path.parts(whole[:stop]) is None
    for more in (b"x", b"{}", b"\x00"):
        assert fast_path.parts(whole + more) is None


# Heads.


@given(
    pieces=st.tuples(st.binary(), st.binary(), st.binary(), st.binary(), st.binary()),
    digits=st.integers(1, 18),
    size=st.integers(0, (1 << 32) - 1),
    stamp=st.binary(min_size=8, max_size=8),
    data=st.data(),
)
def test_both_forms_of_a_template_make_the_same_head(
    pieces: tuple[bytes, bytes, bytes, bytes, bytes],
    digits: int,
    size: int,
    stamp: bytes,
    data: st.DataObject,
) -> None:
    begin, middle, identity, end, tail = pieces
    seq = data.draw(st.integers(10 ** (digits - 1), 10**digits - 1))
    made = fast_path.Template("READY", begin, middle, identity, digits, end, tail).head(size, seq, stamp)
    assert made == plain.Template("READY", begin, middle, identity, digits, end, tail).head(size, seq, stamp)
    assert made.endswith(size.to_bytes(4, "big"))
