"""The connection to the broker: handshake, refusals in words, heartbeats, frames cut anywhere."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pamqp.commands as spec
import pytest
from pamqp import body as content
from pamqp import frame, header
from pamqp.heartbeat import Heartbeat
from rateway.transports.amqp.wire.channel import Acks, Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.deliveries import Properties
from rateway.transports.amqp.wire.uri import parse
from tests.proxy import virtual_time
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.unconnected import channel_to_nowhere

from tests.aio import keep_silent, run
from tests.rabbitmq import Broker


async def _open(broker: FakeBroker, query: str = "") -> Connection:
    return await connect(parse(broker.uri + query), name="test", timeout=60)


async def _channel(connection: Connection, acks: Acks) -> Channel:
    channel = await connection.channel(1)
    channel.on_acks = acks.extend
    return channel


def test_the_handshake_says_who_we_are_and_takes_what_the_broker_offers() -> None:
    async def scenario() -> None:
        async with FakeBroker(heartbeat=60, frame_max=50_000, channel_max=100) as broker:
            connection = await _open(broker)
            assert (connection.frame_max, connection.heartbeat, connection.server) == (50_000, 10, "Fake 1")
            assert broker.start_ok is not None and broker.tune_ok is not None
            assert broker.start_ok.mechanism == "PLAIN" and broker.start_ok.response == "\0user\0s3cret"
            about: Any = broker.start_ok.client_properties
            assert about["connection_name"] == "test" and about["product"] == "rateway"
            assert about["capabilities"]["publisher_confirms"] and about["capabilities"]["connection.blocked"]
            assert (broker.tune_ok.channel_max, broker.tune_ok.frame_max, broker.tune_ok.heartbeat) == (
                100,
                50_000,
                10,
            )
            assert "s3cret" not in repr(connection)
            await connection.close()
            assert connection.closed.result() == "closed by us"
            assert isinstance(broker.methods[-1], spec.Connection.Close)

    run(scenario())


@pytest.mark.checklist("K42")
@pytest.mark.parametrize(
    ("offered", "query", "agreed"),
    [
        (60, "", 10), (5, "", 5), (0, "", 0), (0, "?heartbeat=7", 7), (60, "?heartbeat=30", 30),
        (60, "?heartbeat=90", 60), (60, "?heartbeat=0", 0),
    ],
)  # fmt: skip
def test_a_heartbeat_is_ten_seconds_at_most_unless_the_address_names_one(
    offered: int, query: str, agreed: int
) -> None:
    async def scenario() -> None:
        async with FakeBroker(heartbeat=offered) as broker:
            connection = await _open(broker, query)
            assert broker.tune_ok is not None
            assert (connection.heartbeat, broker.tune_ok.heartbeat) == (agreed, agreed)
            await connection.close()

    run(scenario())


def test_the_address_may_ask_for_less_than_the_broker_offers_never_for_more() -> None:
    async def scenario() -> None:
        async with FakeBroker(heartbeat=60, frame_max=50_000, channel_max=0) as broker:
            connection = await _open(
                broker, "?heartbeat=10&frame_max=99999&channel_max=7&auth_mechanism=external"
            )
            assert broker.tune_ok is not None and broker.start_ok is not None
            assert (broker.tune_ok.channel_max, broker.tune_ok.frame_max, broker.tune_ok.heartbeat) == (
                7,
                50_000,
                10,
            )
            assert (broker.start_ok.mechanism, broker.start_ok.response) == ("EXTERNAL", "")
            await connection.close()
            quiet = await _open(broker, "?heartbeat=0")
            assert quiet.heartbeat == 0 and broker.tune_ok.heartbeat == 0
            await quiet.close()

    run(scenario())


@pytest.mark.parametrize(
    ("broker", "kind", "words"),
    [
        (
            FakeBroker(refuse_login=(403, "ACCESS_REFUSED - Login was refused")),
            BrokerRefused,
            "ACCESS_REFUSED - Login",
        ),
        (
            FakeBroker(refuse_open=(530, "NOT_ALLOWED - vhost x not found")),
            BrokerRefused,
            "530 NOT_ALLOWED - vhost x",
        ),
        (FakeBroker(refuse_open=(541, "INTERNAL_ERROR")), BrokerUnavailable, "541 INTERNAL_ERROR"),
        (
            FakeBroker(mechanisms="AMQPLAIN"),
            BrokerRefused,
            "does not offer the mechanism PLAIN, only AMQPLAIN",
        ),
    ],
)
def test_a_broker_that_does_not_want_us_says_why(
    broker: FakeBroker, kind: type[Exception], words: str
) -> None:
    async def scenario() -> None:
        async with broker:
            with pytest.raises(kind) as caught:
                await _open(broker)
            assert words in str(caught.value) and "user@127.0.0.1" in str(caught.value)
            assert "s3cret" not in str(caught.value)

    run(scenario())


def test_nobody_there_and_nobody_answering_are_told_apart() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            port = broker.port
        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            await connect(parse(f"amqp://127.0.0.1:{port}"), name="test")
        silent = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.1 s"):
            await connect(parse(f"amqp://127.0.0.1:{port}"), name="test", timeout=0.1)
        silent.close()

    run(scenario())


def test_another_protocol_at_that_port_is_an_error_in_words() -> None:
    async def scenario() -> None:
        for answer, words in (
            (b"AMQP\x00\x01\x00\x00", "does not speak AMQP 0-9-1"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP is spoken there"),
            (b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0aX", "without its end"),
            (b"\x01\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff\xce", "cannot be read"),
        ):

            def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer
            ) -> None:
                writer.write(answer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            with pytest.raises(BrokerUnavailable, match=words):
                await connect(parse(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}"), name="test")
            server.close()

    run(scenario())


@pytest.mark.checklist("H2")
@pytest.mark.parametrize("chop", [1, 2, 7, 20, 21, 22, 1000])
def test_acknowledgements_are_read_however_they_are_cut(chop: int) -> None:
    async def scenario() -> None:
        async with FakeBroker(chop=chop) as broker:
            connection = await _open(broker)
            acks: Acks = []
            channel = await _channel(connection, acks)
            nacks: list[tuple[int, bool]] = []
            done = asyncio.Event()

            def refused(tag: int, multiple: bool) -> None:
                nacks.append((tag, multiple))
                if tag == 99:
                    done.set()

            channel.on_nack = refused
            chance = random.Random(chop)
            expected: Acks = []
            for tag in range(1, 60):
                multiple = chance.random() < 0.5
                broker.ack(tag, multiple)
                expected.append((tag, int(multiple)))
                if chance.random() < 0.2:
                    broker.send(b"\x08\x00\x00\x00\x00\x00\x00\xce")
                if chance.random() < 0.2:
                    broker.nack(tag)
            broker.ack(2**63 - 1, False)
            broker.nack(99, True)
            await done.wait()
            assert acks == [*expected, (2**63 - 1, 0)] and nacks[-1] == (99, True)
            await connection.close()

    run(scenario())


def test_frames_are_read_in_bulk_from_one_read() -> None:
    async def scenario() -> None:
        connection, channel = await channel_to_nowhere()
        reads: list[Acks] = []
        channel.on_acks = reads.append
        data = b"".join(frame.marshal(spec.Basic.Ack(tag, True), 1) for tag in range(1, 501))
        connection.data_received(data)
        assert len(reads) == 1 and [tag for tag, _ in reads[0]] == list(range(1, 501))

    run(scenario())


def test_a_closed_channel_is_answered_and_its_number_can_be_used_again() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            connection = await _open(broker)
            channel = await connection.channel(1)
            waiting = asyncio.ensure_future(channel.call(spec.Queue.Declare(0, "q"), spec.Queue.DeclareOk))
            await broker.until(lambda: isinstance(broker.methods[-1], spec.Queue.Declare))
            broker.close_channel(404, "NOT_FOUND - no queue")
            reason = await channel.closed
            assert isinstance(reason, ChannelClosed) and (reason.code, reason.text) == (
                404,
                "NOT_FOUND - no queue",
            )
            with pytest.raises(ChannelClosed, match="404 NOT_FOUND"):
                await waiting
            with pytest.raises(ChannelClosed):
                await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
            again = await connection.channel(1)
            assert any(isinstance(method, spec.Channel.CloseOk) for method in broker.methods)
            await again.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
            await connection.close()
            assert isinstance(await again.closed, ConnectionLost)

    run(scenario())


def test_a_number_is_free_for_the_next_channel_once_the_one_before_is_closed() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            connection = await _open(broker)
            first = await connection.channel(1)
            # It is still open: whoever opens the number has it closed, and two who do so at once take turns.
            second, third = await asyncio.gather(connection.channel(1), connection.channel(1))
            assert first.closed.done() and second.closed.done() and not third.closed.done()
            kinds = [
                type(method)
                for method in broker.methods
                if isinstance(method, spec.Channel.Open | spec.Channel.Close)
            ]
            assert kinds == [spec.Channel.Open, spec.Channel.Close] * 2 + [spec.Channel.Open]
            third.close()
            with pytest.raises(ChannelClosed, match="closed by us"):
                await third.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
            await connection.close()

    run(scenario())


def test_an_answer_to_our_close_that_crossed_the_brokers_own_does_not_end_the_next_channel() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            connection = await _open(broker)
            first = await connection.channel(1)
            broker.close_channel(404, "NOT_FOUND - no queue")
            assert isinstance(await first.closed, ChannelClosed)
            again = await connection.channel(1)
            broker.method(spec.Channel.CloseOk())
            await again.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
            assert not again.closed.done()
            await connection.close()

    run(scenario())


def test_a_connection_that_the_broker_closes_says_why() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            connection = await _open(broker)
            channel = await connection.channel(1)
            broker.close_connection(320, "CONNECTION_FORCED - Closed via management plugin")
            assert await connection.closed == (
                "the broker closed the connection: 320 CONNECTION_FORCED - Closed via management plugin"
            )
            assert isinstance(await channel.closed, ConnectionLost)
            with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
                await connection.channel(2)
            cut = await _open(broker)
            await broker.drop()
            assert "the connection" in await cut.closed

    run(scenario())


def test_a_silent_broker_is_left_after_two_heartbeats_and_a_blocked_one_is_not() -> None:
    async def scenario() -> None:
        async with FakeBroker(heartbeat=1) as broker:
            connection = await _open(broker)
            broker.method(spec.Connection.Blocked("low on memory"), 0)
            told: list[tuple[bool, str]] = []
            connection.on_blocked = lambda blocked, why: told.append((blocked, why))
            # We go on beating while the broker says nothing.
            await broker.until(lambda: broker.heartbeats >= 4)
            assert told == [(True, "low on memory")] and connection.blocked and not connection.closed.done()
            broker.method(spec.Connection.Unblocked(), 0)
            assert await connection.closed == "the broker was silent for 2 s"
            assert told[-1] == (False, "") and not connection.blocked

    run(scenario())


@pytest.mark.checklist("K42")
def test_a_broker_that_falls_silent_just_after_it_spoke_is_left_within_two_heartbeats() -> None:
    async def scenario() -> None:
        async with FakeBroker(heartbeat=2) as broker:
            connection = await _open(broker)
            loop = asyncio.get_running_loop()
            # Just after a look at the connection, where silence takes longest to be found.
            await asyncio.sleep(0.3)
            broker.send(frame.marshal(Heartbeat(), 0))
            began = loop.time()
            assert await connection.closed == "the broker was silent for 4 s"
            # A look once in a heartbeat would need 5.7 s.
            assert 3.4 < loop.time() - began < 5.6

    virtual_time.run(scenario(), grace=0.25)


def test_deliveries_and_returns_are_put_together_from_their_frames() -> None:
    async def scenario() -> None:
        async with FakeBroker(frame_max=4096) as broker:
            connection = await _open(broker)
            channel = await connection.channel(1)
            came: list[tuple[int, str, int, bytes | None]] = []
            done = asyncio.Event()

            def returned(code: int, key: str, size: int, told: Properties) -> None:
                came.append((code, key, size, told.correlation_id))
                done.set()

            channel.on_return = returned
            basic = spec.Basic.Publish(0, "", "NAME", mandatory=True)
            body = b"x" * 10_000
            head = header.ContentHeader(0, len(body), spec.Basic.Properties(correlation_id="mine"))
            for part in (basic, head):
                connection.write(frame.marshal(part, 1))
            for at in (0, 4088, 8176):
                connection.write(frame.marshal(content.ContentBody(body[at : at + 4088]), 1))
            [publish] = await broker.publishes(1)
            assert publish.body == body and publish.mandatory
            broker.give_back(publish)
            await done.wait()
            assert came == [(312, "NAME", 10_000, b"mine")]
            await connection.close()

    run(scenario())


def test_rabbitmq_takes_our_handshake_and_refuses_a_wrong_password(broker: Broker) -> None:
    async def scenario() -> None:
        connection = await connect(parse(broker.uri), name="test")
        assert connection.server.startswith("RabbitMQ ") and connection.frame_max == 131072
        channel = await connection.channel(1)
        with pytest.raises(ChannelClosed) as caught:
            await channel.call(spec.Exchange.Declare(0, "nowhere", passive=True), spec.Exchange.DeclareOk)
        assert caught.value.code == 404
        await connection.close()
        place = f"127.0.0.1:{broker.port}"
        with pytest.raises(BrokerRefused, match="403 ACCESS_REFUSED"):
            await connect(parse(f"amqp://guest:wr0ng@{place}/"), name="test")
        with pytest.raises(BrokerRefused, match="vhost nowhere not found"):
            await connect(parse(f"amqp://guest:guest@{place}/nowhere"), name="test")

    run(scenario())


@pytest.mark.checklist("K74")
@pytest.mark.parametrize("offered", [1, 7, 8, 9, 4095])
def test_a_broker_that_takes_no_frame_of_amqps_least_size_is_refused_in_words(offered: int) -> None:
    async def scenario() -> str:
        async with FakeBroker(frame_max=offered) as broker:
            with pytest.raises(BrokerRefused) as caught:
                await _open(broker)
            return str(caught.value)

    assert f"frames of {offered} bytes" in run(scenario())
