"""What cannot be read or answered costs itself alone, once; what waits is bounded in number, bytes and time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands as spec
from rateway.delivery.port import MAX_BODY
from rateway.runtime.requests.held_commands import MOST_HELD
from rateway.runtime.requests.query_queue import MOST_BYTES
from rateway.transports.amqp.requests.forwarding import FORWARDING, MOST_FORWARDED
from rateway.transports.amqp.requests.request_link import ANSWER_EXPIRES_MS
from tests.runtime.requests.inbound_stage import PRESENCE, VOICE, Stage, inbound_stage
from tests.transports.amqp.inbound_broker import field_of, fields, properties

from tests.aio import run

GUILD = b'{"type":"Guild","arguments":[1]}'
BATCH = 1_000

# Tables as anybody may send them: every type there is and some that there are not, nested, wide, with wrong lengths.

short = st.binary(max_size=255)
names = st.sampled_from([b"shard_id", b"guild_id", b"rateway_hops", b"", b"\xff\xfe"]) | st.binary(
    max_size=20
)
lengths = st.integers(0, 2**32 - 1).map(lambda value: struct.pack(">I", value))


def counted(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def fixed(kind: bytes, size: int) -> st.SearchStrategy[bytes]:
    """Values of a type that has so many bytes."""
    return st.binary(min_size=size, max_size=size).map(lambda raw: kind + raw)


plain_values = st.one_of(
    *(
        fixed(kind, size)
        for kind, size in (
            (b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"U", 2), (b"u", 2), (b"I", 4), (b"i", 4), (b"l", 8),
            (b"L", 8), (b"f", 4), (b"d", 8), (b"D", 5), (b"T", 8), (b"V", 0), (b"\0", 0),
        )
    ),
    st.binary(max_size=60).map(lambda raw: b"S" + counted(raw)),
    st.binary(max_size=60).map(lambda raw: b"x" + counted(raw)),
    st.tuples(st.sampled_from(list(b"SxAF")), lengths, st.binary(max_size=10)).map(
        lambda parts: bytes((parts[0],)) + parts[1] + parts[2]
    ),
    st.binary(min_size=1, max_size=10),
)  # fmt: skip
values = st.recursive(
    plain_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"A" + counted(b"".join(items))),
        st.lists(st.tuples(names, inner), max_size=4).map(lambda items: b"F" + counted(table(items))),
    ),
    max_leaves=12,
)


def table(items: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(bytes((len(name),)) + name + value for name, value in items)


tables = st.one_of(
    st.lists(st.tuples(names, values), max_size=6).map(table),
    # Deep: arrays in arrays, as deep as a frame holds.
    st.integers(1, 12_000).map(lambda depth: field_of(b"x", b"A", nested(depth))),
    # Wide: tens of thousands of fields, or of elements.
    st.integers(1, 40_000).map(lambda count: b"\x01aV" * count),
    st.integers(1, 120_000).map(lambda count: field_of(b"x", b"A", counted(b"V" * count))),
    st.binary(max_size=40),
)


def nested(depth: int) -> bytes:
    """The content of an array of an array of … with its length."""
    parts = [struct.pack(">I", 5 * level) for level in range(depth - 1, -1, -1)]
    return b"A".join(parts)


@st.composite
def hostile_properties(draw: st.DrawFn) -> bytes:
    """A content header from the flags on: any property present or not, each with any bytes, lengths right or wrong."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(min_size=2, max_size=60))
    flags = draw(st.integers(0, 0xFFFF).map(lambda bits: bits & 0xFFFC) | st.integers(0, 0xFFFF))
    parts = []
    for bit in range(15, 1, -1):
        if not flags & 1 << bit:
            continue
        if bit == 13:
            content = draw(tables)
            parts.append(draw(lengths) + content if draw(st.integers(0, 7)) == 0 else counted(content))
        elif bit in (12, 11):
            parts.append(draw(st.binary(min_size=1, max_size=1)))
        elif bit == 6:
            parts.append(draw(st.binary(min_size=8, max_size=8)))
        else:
            text = draw(short)
            size = draw(st.integers(0, 255)) if draw(st.integers(0, 7)) == 0 else len(text)
            parts.append(bytes((size,)) + text)
    found = struct.pack(">H", flags) + b"".join(parts)
    return found[:131_000]


bodies = st.one_of(
    st.sampled_from(
        [VOICE, GUILD, b"", b"{", b'{"queries":[{},null,3]}', b"[" * 5_000, b'{"type":"a\\ud800"}']
    ),
    st.binary(max_size=200),
)
keys = st.sampled_from([b"gateway", b"cache", b"\xff\xfe", b""]) | st.binary(max_size=255)


@pytest.mark.checklist("K1", "K2", "K3")
@settings(max_examples=120)
@given(st.lists(st.tuples(hostile_properties(), bodies, keys, st.booleans()), min_size=1, max_size=6))
def test_whatever_is_in_a_message_its_neighbours_are_served_and_it_never_comes_again(
    messages: list[tuple[bytes, bytes, bytes, bool]],
) -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            await it.is_served()
            for told, body, key, redelivered in messages:
                it.broker.deliver(told, body, key, redelivered=redelivered)
            await it.is_served()
            await it.all_settled()
            assert it.broker.connections == 1
            assert [state for state, _ in it.said] == ["owned"]

    run(scenario())


@pytest.mark.checklist("K1")
@pytest.mark.parametrize(
    ("told", "code", "reason"),
    [
        (properties(correlation_id=b"\xff\xfe", reply_to=b"answers"), "invalid", "bad_correlation_id"),
        (properties(correlation_id=b"c", reply_to=b"\xff\xfe"), None, "bad_reply_to"),
    ],
)
@pytest.mark.parametrize("key", [b"cache", b"gateway"])
def test_ids_that_are_no_text_are_refused_and_answered_where_that_can_be(
    told: bytes, code: str | None, reason: str, key: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            for _ in range(30):
                it.broker.deliver(told, GUILD, key, redelivered=True)
            await it.is_served()
            await it.all_settled()
            assert it.request_handler.refused == {reason: 30} and it.request_handler.refused_lately
            refusals = [each for each in it.broker.received if each.headers["status"] == "error"]
            assert len(refusals) == (30 if code else 0)
            for each in refusals:
                assert each.key == "answers" and each.properties.correlation_id is None
                assert msgspec.json.decode(each.body)["error"]["code"] == code

    with caplog.at_level(logging.WARNING):
        run(scenario())
    said = [record for record in caplog.records if "was refused" in record.getMessage()]
    assert len(said) == 1, "once for its reason"


@pytest.mark.checklist("K1")
def test_a_query_of_the_original_form_whose_ids_are_no_text_is_answered_under_its_key() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            body = b'{"type":"Guild","arguments":[1],"return_routing_key":"mine"}'
            it.broker.deliver(properties(correlation_id=b"\xff\xfe"), body)
            await it.broker.until(lambda: bool(it.broker.received))
            (answer,) = it.broker.received
            assert (answer.key, answer.body, answer.headers["status"]) == ("mine", b"", "error")
            await it.is_served()

    run(scenario())


@pytest.mark.checklist("K2")
@pytest.mark.parametrize(
    "header",
    [
        field_of(b"ratio", b"d", struct.pack(">d", 1e300)),
        field_of(b"text", b"S", counted(b"\xff\xfe")),
        field_of(b"odd", b"x", counted(b"\0\xff")),
        field_of(b"when", b"T", b"\xff" * 8),
        field_of(b"many", b"A", counted(b"V" * 100)),
        field_of(b"\xff\xfe", b"V", b""),
    ],
)
def test_a_command_for_another_process_is_passed_on_with_the_headers_that_it_came_with(header: bytes) -> None:
    async def scenario() -> None:
        seen: list[bytes] = []
        async with inbound_stage() as it:
            it.broker.on_content = seen.append
            headers = header + fields({"shard_id": 8})
            it.broker.deliver(
                properties(headers=headers, correlation_id=b"c", expiration=b"5000"), PRESENCE, b"gateway"
            )
            await it.broker.until(lambda: it.broker.all_settled)
            await it.is_served()
            passed_on = seen[0]
            hops = field_of(b"rateway_hops", b"l", struct.pack(">q", 1))
            assert counted(headers + hops) in passed_on
            assert passed_on.endswith(b"\x01c\x045000\xce")
            assert it.request_handler.commands == {"handed_on": 1}

    run(scenario())


def for_cluster_2(it: Stage, correlation_id: str) -> None:
    """A worker's command for a shard of another cluster."""
    told = properties(
        headers=fields({"shard_id": 8}), correlation_id=correlation_id.encode(), reply_to=b"answers"
    )
    it.broker.deliver(told, PRESENCE, b"gateway")


@pytest.mark.checklist("K2")
def test_a_cluster_whose_exchange_the_broker_refuses_costs_its_own_commands_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            it.broker.refused.add("rateway-2")
            owned = len(it.said)
            for number in range(10):
                for_cluster_2(it, f"refused-{number}")
                await it.is_served()
                assert await it.refused(f"refused-{number}") == "unavailable"
            await it.all_settled()
            # Neither the channel that reads the queue nor the connection has ended, and the broker was asked once.
            assert it.said[owned:] == []
            asked = [each for each in it.broker.methods if isinstance(each, spec.Exchange.Declare)]
            assert [each.exchange for each in asked].count("rateway-2") == 1
            assert caplog.text.count("the broker refuses rateway-2: 406") == 1

    run(scenario())


@pytest.mark.checklist("K2")
def test_a_publish_that_the_broker_refuses_fails_what_goes_there_and_no_message_comes_again() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            words = (
                "ACCESS_REFUSED - write access to exchange 'rateway-2' in vhost '/' refused for user 'user'"
            )
            it.broker.on_forward = lambda number: (
                it.broker.method(spec.Channel.Close(403, words, 60, 40), FORWARDING) if number == 3 else None
            )
            for number in range(3):
                for_cluster_2(it, f"flying-{number}")
            for number in range(3):
                assert await it.refused(f"flying-{number}") == "unavailable"
            await it.all_settled()
            await it.is_served()

    run(scenario())


@pytest.mark.checklist("K2")
def test_a_command_for_another_process_is_acknowledged_when_the_broker_has_it_and_not_before() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            published: list[int] = []
            it.broker.on_forward = published.append
            for number in range(3):
                for_cluster_2(it, f"command-{number}")
            await it.broker.until(lambda: published == [1, 2, 3])
            await it.is_served()
            assert not it.broker.settled & {1, 2, 3}
            it.broker.method(spec.Basic.Ack(2, True), FORWARDING)
            it.broker.method(spec.Basic.Nack(3), FORWARDING)
            assert await it.refused("command-2") == "unavailable"
            await it.all_settled()
            # What the broker has is answered by the other gateway.
            assert [len(it.broker.answers_to(f"command-{number}")) for number in range(3)] == [1, 1, 2]

    run(scenario())


@pytest.mark.checklist("K2")
def test_commands_are_handed_on_after_the_channel_of_the_queue_has_ended_and_its_connection_has_not() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            for number in range(3):
                for_cluster_2(it, f"command-{number}")
                await it.all_settled()
                said = len(it.said)
                it.broker.close_channel(
                    404, "NOT_FOUND - queue 'rateway-incoming-1' process is stopped by supervisor"
                )
                while it.said[said:].count(("owned", "")) == 0:
                    it.changed.clear()
                    await it.changed.wait()
                await it.is_served()
            assert it.broker.connections == 1

    run(scenario())


@pytest.mark.checklist("K2")
def test_commands_that_the_broker_does_not_confirm_are_bounded_and_hold_up_no_query() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            published: list[int] = []
            it.broker.on_forward = published.append
            for number in range(MOST_FORWARDED + 5):
                for_cluster_2(it, f"command-{number}")
            for number in range(MOST_FORWARDED, MOST_FORWARDED + 5):
                assert await it.refused(f"command-{number}") == "unavailable"
            await it.is_served()
            it.broker.method(spec.Basic.Ack(MOST_FORWARDED, True), FORWARDING)
            await it.all_settled()

    run(scenario())


@pytest.mark.checklist("K2")
def test_an_exchange_that_was_deleted_is_declared_again_for_the_command_that_found_out() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            words = "NOT_FOUND - no exchange 'rateway-2' in vhost '/'"
            answers = iter([
                spec.Basic.Ack(1), spec.Channel.Close(404, words, 60, 40), spec.Basic.Ack(1),
            ])  # fmt: skip
            it.broker.on_forward = lambda number: it.broker.method(next(answers), FORWARDING)
            for_cluster_2(it, "before")
            await it.all_settled()
            for_cluster_2(it, "after")
            await it.all_settled()
            # Twice on its way, never answered with an error.
            assert [each.key for each in it.broker.answers_to("after")] == ["gateway", "gateway"]

    run(scenario())


@pytest.mark.checklist("K2")
@pytest.mark.parametrize("hops", [3, 4, -1, -(2**63), 2**63 - 1, 0.0, "1", None])
def test_a_command_that_was_passed_on_often_enough_or_says_nonsense_of_it_goes_no_further(
    hops: object,
) -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            headers = fields({"shard_id": 8, "rateway_hops": hops})
            it.broker.deliver(
                properties(headers=headers, correlation_id=b"c", reply_to=b"answers"), PRESENCE, b"gateway"
            )
            assert await it.refused("c") == "unavailable"
            await it.is_served()

    run(scenario())


@pytest.mark.checklist("K3")
def test_properties_over_the_bound_are_refused_unread_and_answered() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            large = field_of(b"x", b"A", counted(b"V" * 130_000))
            began = time.process_time()
            for number in range(60):
                told = properties(headers=large, correlation_id=b"c%d" % number, reply_to=b"answers")
                it.broker.deliver(told, VOICE, b"gateway")
            await it.is_served()
            # They took half a second of this process each.
            assert time.process_time() - began < 10
            for number in range(60):
                assert await it.refused(f"c{number}") == "too_large"
            assert it.request_handler.refused == {"properties_too_large": 60}
            await it.all_settled()

    run(scenario())


@pytest.mark.checklist("K3")
@pytest.mark.parametrize("frame_max", [4_096, 131_072])
@pytest.mark.parametrize("size", [60_000, 500_000, 5_000_000])
def test_properties_larger_than_a_frame_may_be_are_passed_over(frame_max: int, size: int) -> None:
    """A broker passes them on in one frame, whatever it agreed on with who consumes."""

    async def scenario() -> None:
        async with inbound_stage(frame_max=frame_max) as it:
            told = properties(headers=field_of(b"x", b"S", counted(b"y" * size)), reply_to=b"answers")
            for _ in range(3):
                it.broker.deliver(told, b"z" * 10_000)
            await it.is_served()
            await it.all_settled()
            assert it.broker.connections == 1

    run(scenario())


@pytest.mark.checklist("K13")
def test_a_body_over_the_bound_is_refused_and_not_kept() -> None:
    async def scenario() -> int:
        async with inbound_stage() as it:
            body = b'{"type":"Guild","arguments":["' + b"1" * 4 * MAX_BODY + b'"]}'
            tracemalloc.start()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            it.query("large", body)
            sent = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            assert await it.refused("large") == "too_large"
            peak = tracemalloc.get_traced_memory()[1] - sent
            tracemalloc.stop()
            assert before < sent
            await it.is_served()
            return peak

    assert run(scenario()) < MAX_BODY, "what is refused is not put together first"


@pytest.mark.checklist("K4")
def test_batches_of_unknown_types_cost_their_reading_alone() -> None:
    unknown = msgspec.json.encode({"queries": [{"type": f"Gilds{number}"} for number in range(BATCH)]})

    async def scenario() -> None:
        async with inbound_stage() as it:
            began = time.process_time()
            for number in range(40):
                it.query(f"c{number}", unknown)
            await it.is_served()
            # They took half a second of this process each.
            assert time.process_time() - began < 10
            for number in range(40):
                (answer,) = await it.answered(f"c{number}")
                found = msgspec.json.decode(answer.body)
                assert [each["error"]["code"] for each in found] == ["unknown_type"] * BATCH
                assert len(answer.body) < 4 * len(unknown)

    run(scenario())


@pytest.mark.checklist("K4")
def test_a_single_slip_is_answered_with_what_was_meant_and_a_long_name_is_not_compared() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            it.query("slip", b'{"type":"GuildMember","arguments":[1]}')
            it.query("long", b'{"type":"' + b"Guild" * 1_000 + b'","arguments":[1]}')
            (slip,), (long,) = await it.answered("slip"), await it.answered("long")
            assert b"did you mean GuildMembers?" in slip.body
            assert b"did you mean" not in long.body and len(long.body) < 300
            await it.is_served()

    run(scenario())


@pytest.mark.checklist("K13")
def test_waiting_queries_are_bounded_in_bytes_and_small_ones_have_room_beside_large_ones() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            it.cache.endless.add("GuildMembers")
            query = {"type": "GuildMembers", "arguments": ["1"], "padding": "x" * 900_000}
            body = msgspec.json.encode(query)
            for number in range(100):
                it.query(f"c{number}", body, expiration=b"12000")
            await it.broker.until(lambda: len(it.broker.received) >= 45)
            codes = [await it.refused(f"c{number}") for number in range(55, 100)]
            assert codes == ["queue_full"] * 45
            await it.is_served()
            first = [await it.refused(f"c{number}") for number in range(40)]
            assert first == ["expired"] * 40
            await it.all_settled()

    assert MOST_BYTES == 64 << 20
    run(scenario())


OTHERS: list[tuple[int, dict[str, Any]]] = [
    (3, {"since": None, "activities": [], "status": "online", "afk": False}),
    (8, {"guild_id": "0", "query": "a", "limit": 1}),
    (31, {"guild_ids": ["0"]}),
]


@pytest.mark.checklist("K14", "K22")
def test_commands_past_their_bound_are_refused_at_once_and_queries_are_answered() -> None:
    weeks = b"%d" % (49 * 24 * 3600 * 1000)

    async def scenario() -> None:
        async with inbound_stage() as it:
            it.shards.sends = False
            now = asyncio.get_running_loop().time()
            for number in range(5_000):
                it.command(f"c{number}", expiration=weeks)
                if number % 500 == 0:
                    await asyncio.sleep(0)
            await it.is_served()
            # What is left when the other kinds of commands have their share.
            voice = MOST_HELD * 80 // 100
            assert len(it.shards.waiting) == voice
            assert it.request_handler.commands == {"queue_full": 5_000 - voice}
            assert max(each.deadline for each in it.shards.waiting) < now + 660, (
                "a deadline has its own bound"
            )
            assert len(it.broker.settled) == 5_001 - voice
            for op, d in OTHERS:
                it.command(f"op {op}", body=msgspec.json.encode({"op": op, "d": d}))
            await it.is_served()
            assert [each.op for each in it.shards.waiting[voice:]] == [op for op, _ in OTHERS]
            # What is carried out makes room.
            it.shards.sends = True
            for each in it.shards.waiting[:100]:
                it.shards.command(0, each)
            it.command("later")
            (answer,) = await it.answered("later")
            assert answer.headers["status"] == "ok"

    run(scenario())


@pytest.mark.checklist("K14", "K15")
def test_a_command_without_an_outcome_is_answered_after_its_deadline_and_once_only() -> None:
    async def scenario() -> None:
        async with inbound_stage(command_deadline_max=0.1) as it:
            it.shards.sends = False
            it.command("forgotten", expiration=b"3600000")
            assert await it.refused("forgotten") == "expired"
            # The shard has come to life all the same: the broker knows no second acknowledgement.
            it.shards.sends = True
            it.shards.command(0, it.shards.waiting[0])
            await it.is_served()
            await it.all_settled()
            assert len(it.broker.answers_to("forgotten")) == 1

    run(scenario())


@pytest.mark.checklist("K15")
def test_a_queue_taken_away_for_an_acknowledgement_that_came_too_late_is_said_so_and_held_again() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            it.shards.sends = False
            it.command("waits", expiration=b"3600000")
            await it.broker.until(lambda: it.broker.delivered == 1)
            await it.is_served()
            words = (
                "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 60000 ms. "
                "This timeout value can be configured, see consumers doc guide to learn more"
            )
            it.broker.close_channel(406, words)
            why = await it.until("away")
            assert "consumer_timeout of 60 s" in why and "COMMAND_DEADLINE_MAX" in why
            assert "delete" not in why
            await it.until("owned")
            now = asyncio.get_running_loop().time()
            it.shards.waiting.clear()
            it.command("again", expiration=b"3600000")
            await it.is_served()
            assert it.shards.waiting[0].deadline <= now + 35, "it ends well before the broker's patience does"
            assert it.broker.connections == 1

    run(scenario())


@pytest.mark.checklist("K15")
@pytest.mark.parametrize(
    ("words", "advised"),
    [
        ("PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'rateway-1' in vhost '/'", True),
        ("PRECONDITION_FAILED - unknown delivery tag 7", False),
        ("PRECONDITION_FAILED - something of a later version", False),
    ],
)
def test_deletion_is_advised_for_other_properties_alone(words: str, advised: bool) -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            it.broker.close_channel(406, words)
            why = await it.until("refused")
            assert words in why and ("delete" in why.lower()) == advised

    run(scenario())


def test_a_burst_of_messages_is_taken_a_few_at_a_time_and_in_order() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            settled: list[int] = []

            async def watch() -> None:
                while len(it.broker.settled) < 3_000:
                    settled.append(sum(it.request_handler.commands.values()))
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            for number in range(3_000):
                it.command(f"c{number}", body=b"{")
            await watching
            most = max(after - before for before, after in itertools.pairwise([*settled, 3_000]))
            # The reader is not alone on this loop: between two looks it may have had a turn or two.
            assert most <= 300
            assert [each.properties.correlation_id for each in it.broker.received] == [
                f"c{number}" for number in range(3_000)
            ]
            await it.is_served()

    run(scenario())


@pytest.mark.checklist("K61")
@pytest.mark.parametrize(
    "queue", [b"rateway-incoming-1", b"rateway-incoming-27", b"rateway-incoming-1-held-ab"]
)
@pytest.mark.parametrize("key", [b"cache", b"gateway"])
def test_answers_never_go_to_a_queue_of_a_gateway(queue: bytes, key: bytes) -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            told = properties(headers=fields({"shard_id": 0}), reply_to=queue, correlation_id=b"c")
            it.broker.deliver(told, VOICE if key == b"gateway" else GUILD, key)
            await it.is_served()
            await it.all_settled()
            assert [each.key for each in it.broker.received] == ["answers"]
            assert it.request_handler.refused == {"bad_reply_to": 1}

    run(scenario())


@pytest.mark.checklist("K61")
def test_answers_to_reply_to_are_transient_and_expire_and_those_of_the_original_have_no_properties_more() -> (
    None
):
    async def scenario() -> None:
        async with inbound_stage() as it:
            it.query("new", GUILD)
            it.command("command")
            body = b'{"type":"Guild","arguments":[1],"return_routing_key":"mine"}'
            it.broker.deliver(properties(), body)
            await it.broker.until(lambda: len(it.broker.received) == 3)
            for each in it.broker.received:
                told = each.properties
                if each.key == "mine":
                    assert (told.delivery_mode, told.expiration) == (None, None)
                else:
                    assert (told.delivery_mode, told.expiration) == (1, str(ANSWER_EXPIRES_MS))

    run(scenario())


@pytest.mark.checklist("K1")
def test_a_mistake_of_the_gateway_in_one_message_refuses_that_one(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: Stage) -> None:
        it.shards.fault = RuntimeError("a mistake")
        for number in range(20):
            it.command(f"c{number}")
        for number in range(20):
            assert await it.refused(f"c{number}") == "internal"
        it.shards.fault = None
        await it.is_served()
        await it.all_settled()
        assert it.request_handler.refused == {"failed": 20} and it.broker.connections == 1

    async def staged() -> None:
        async with inbound_stage() as it:
            await scenario(it)

    run(staged())
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.checklist("K13")
def test_what_comes_before_the_queue_is_known_to_be_ours_is_kept_up_to_a_bound() -> None:
    async def scenario() -> None:
        async with inbound_stage() as it:
            # The channel is lost and opened anew; 40 large queries and a small one stand ready in the queue.
            it.broker.queued = [(properties(reply_to=b"answers"), b" " * 900_000 + GUILD)] * 40
            it.broker.close_channel(320, "CONNECTION_FORCED - moved")
            await it.until("refused")
            await it.until("owned")
            await it.broker.until(lambda: bool(it.broker.given_back))
            await it.all_settled()
            assert 15 <= len(it.broker.given_back) <= 30
            assert len(it.broker.received) == 40 - len(it.broker.given_back)
            await it.is_served()

    run(scenario())
