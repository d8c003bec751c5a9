"""A broker that sends whatever it likes: the publisher lives, says why it left, and its events arrive all the same."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rateway.delivery.limits import DeliveryLimits
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import begun, cluster_on, publish

from tests.aio import run

# Class and method of what a broker may say: connection, channel, exchange, queue, basic, confirm, tx; and some that
# AMQP does not have.
METHODS = [
    (10, 10), (10, 20), (10, 30), (10, 40), (10, 41), (10, 50), (10, 51), (10, 60), (10, 61), (10, 70), (10, 71),
    (20, 11), (20, 20), (20, 21), (20, 40), (20, 41), (40, 11), (50, 11), (60, 11), (60, 21), (60, 30), (60, 31),
    (60, 50), (60, 60), (60, 71), (60, 72), (60, 80), (60, 90), (60, 111), (60, 120), (85, 11), (90, 11), (0, 0),
    (65535, 65535), (60, 999),
]  # fmt: skip
LIMITS = DeliveryLimits(refused_delay=0.01, refused_delay_most=0.02, spool_after=0.05)


def frame(kind: int, channel: int, payload: bytes, *, size: int | None = None, end: int = 0xCE) -> bytes:
    return (
        struct.pack(">BHI", kind, channel, len(payload) if size is None else size) + payload + bytes((end,))
    )


channels = st.sampled_from([0, 1, 1, 1, 2, 65535])
arguments = st.binary(max_size=40)
methods = st.builds(
    lambda which, channel, rest: frame(1, channel, struct.pack(">HH", *which) + rest),
    st.sampled_from(METHODS),
    channels,
    arguments,
)
tags = st.sampled_from([0, 1, 2, 5, 2**31, 2**63, 2**64 - 1])
confirms = st.builds(
    lambda method, tag, flags: frame(1, 1, struct.pack(">HHQB", 60, method, tag, flags)),
    st.sampled_from([80, 120]),
    tags,
    st.integers(0, 255),
)
returns = st.builds(
    lambda code, text, key: frame(
        1, 1, struct.pack(">HHH", 60, 50, code) + b"%c%b" % (len(text), text) + b"\x00%c%b" % (len(key), key)
    ),
    st.integers(0, 65535),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
headers = st.builds(
    lambda size, rest: frame(2, 1, struct.pack(">HHQ", 60, 0, size) + rest),
    st.sampled_from([0, 1, 10, 2**31, 2**64 - 1]),
    arguments,
)
others = st.builds(
    lambda kind, channel, payload, end: frame(kind, channel, payload, end=end),
    st.sampled_from([0, 1, 2, 3, 4, 8, 8, 9, 255]),
    channels,
    arguments,
    st.sampled_from([0xCE, 0xCE, 0xCE, 0, 0xCF]),
)
lying = st.builds(
    lambda kind, size, payload: frame(kind, 1, payload, size=size),
    st.integers(1, 3),
    st.sampled_from([0, 1, 200_000, 2**31, 2**32 - 1]),
    arguments,
)
hostile = st.one_of(
    methods, confirms, returns, headers, others, lying, st.binary(max_size=60), st.just(frame(3, 1, b""))
)


@pytest.mark.checklist("K77")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(hostile, min_size=1, max_size=6))
def test_whatever_a_broker_sends_events_arrive_and_nothing_is_raised(
    caplog: pytest.LogCaptureFixture, sent: list[bytes]
) -> None:
    unseen: list[str] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: unseen.append(str(about)))
        async with FakeBroker() as broker, cluster_on(broker, LIMITS) as cluster:
            stream = begun(cluster.publisher)
            publish(stream, range(1, 6))
            await cluster.all_confirmed()
            for data in sent:
                if cluster.publisher.connected:
                    broker.send(data)
                await asyncio.sleep(0)
            # Half a frame would be waited for: the broker ends it as brokers do, by ending the connection.
            await broker.drop()
            publish(stream, range(6, 11))
            await cluster.all_confirmed()
            assert stream.settled == 10
            assert {each.seq for each in broker.received} == set(range(1, 11))
            assert all(len(str(told)) < 1_000 for told in cluster.listener.told)

    caplog.clear()
    with caplog.at_level(logging.ERROR):
        run(scenario())
    # What the stand-in for a broker makes of our answers to all this is its own business.
    assert [each for each in unseen if "FakeBroker" not in each] == []
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("rateway"))
