"""`rateway tail` and `rateway send` against a real broker, with a stand-in for the gateway."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError
from rateway.commands import broker_access, send, tail
from rateway_protocol.contract import topology

from tests.aio import run
from tests.rabbitmq import Broker


def options(module: object, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    getattr(module, "configure")(parser)  # noqa: B009 (tail and send have the same face)
    return parser.parse_args(words)


@asynccontextmanager
async def cluster(broker: Broker, number: int = 1) -> AsyncIterator[tuple[AbstractChannel, AbstractExchange]]:
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange(
            topology.exchange(number), topology.EXCHANGE_TYPE, durable=True
        )
        yield channel, exchange


async def publish_once_bound(exchange: AbstractExchange, key: str, message: aio_pika.Message) -> None:
    while True:
        try:
            await exchange.publish(message, key, mandatory=True)
        except DeliveryError:
            continue
        return


def event(body: bytes, seq: int, **headers: bool) -> aio_pika.Message:
    return aio_pika.Message(
        body, message_id=f"s:3:{seq}", timestamp=1_700_000_000, headers={"shard_id": 3, "seq": seq, **headers}
    )


def test_tail_shows_time_shard_seq_event_size_and_guild(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)

    async def main() -> int:
        async with cluster(broker) as (_, exchange):
            tailing = asyncio.create_task(tail.follow(options(tail, "--count", "3")))
            await publish_once_bound(exchange, "MESSAGE_CREATE", event(b'{"guild_id":"42","id":"7"}', 9))
            await publish_once_bound(
                exchange, "GUILD_CREATE", event(b'{"id":"77","name":"x"}', 10, replayed=True)
            )
            await publish_once_bound(exchange, "RATEWAY_GAP", event(b"{not json", 11, republished=True))
            return await tailing

    assert run(main()) == 0
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()[1:]] == [
        ["22:13:20", "3", "9", "MESSAGE_CREATE", "26", "B", "42"],
        ["22:13:20", "3", "10", "GUILD_CREATE", "22", "B", "77", "replayed"],
        ["22:13:20", "3", "11", "RATEWAY_GAP", "9", "B", "-", "republished"],
    ]
    assert "every documented one" in shown.err


def test_tail_filters_by_name_and_writes_json_with_the_body(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    wanted = options(
        tail, "typing_start", "--also", "NEW_THING", "--json", "--body", "--count", "2", "--cluster", "2"
    )

    async def main() -> int:
        async with cluster(broker, 2) as (_, exchange):
            tailing = asyncio.create_task(tail.follow(wanted))
            await publish_once_bound(exchange, "NEW_THING", event(b'{"a":[1]}', 1))
            await exchange.publish(event(b"{}", 2), "MESSAGE_CREATE", mandatory=False)
            await publish_once_bound(exchange, "TYPING_START", event(b'{"guild_id":"5"}', 3))
            return await tailing

    assert run(main()) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["event"], first["seq"], first["guild"], first["body"]) == ("NEW_THING", 1, None, {"a": [1]})
    assert (second["event"], second["shard"], second["guild"], second["size"]) == ("TYPING_START", 3, "5", 16)


def test_tail_tells_how_many_its_bounded_queue_dropped(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    monkeypatch.setattr(tail, "PREFETCH", 1)
    total, kept = 200, 5
    wanted = options(tail, "TYPING_START", "--length", str(kept), "--json", "--also", "LAST")
    slow = asyncio.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with cluster(broker) as (_, exchange):
            # A terminal that takes the first line and then stands still until everything is published.
            printed: list[int] = []
            go_on = asyncio.Event()

            def blocked(message: AbstractIncomingMessage) -> None:
                printed.append(int(str(message.headers["seq"])))
                if len(printed) == 1:
                    loop.call_soon_threadsafe(slow.set)
                    asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
                if message.routing_key == "LAST":
                    raise BrokenPipeError

            monkeypatch.setattr(tail, "_printer", lambda _options: blocked)
            tailing = asyncio.create_task(asyncio.to_thread(tail.run, wanted))
            try:
                await publish_once_bound(exchange, "TYPING_START", event(b"{}", 0))
                await slow.wait()
                for seq in range(1, total):
                    await publish_once_bound(exchange, "TYPING_START", event(b"{}", seq))
                await publish_once_bound(exchange, "LAST", event(b"{}", total))
            finally:
                go_on.set()
            await tailing
            assert printed[0] == 0 and printed[-1] == total
            assert len(printed) <= kept + 2
            told = capsys.readouterr().err
            assert f"{total + 1 - len(printed)} so far" in told

    run(main())


def test_send_puts_the_command_under_its_key_and_prints_the_answer(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    command = '{"op":3,"d":{"status":"idle"}}'

    async def gateway(channel: AbstractChannel, exchange: AbstractExchange, status: str, body: bytes) -> None:
        queue = await channel.declare_queue(topology.incoming(1), durable=True)
        await queue.bind(exchange, topology.GATEWAY_KEY)

        async def answer(message: AbstractIncomingMessage) -> None:
            assert (message.body, message.headers) == (command.encode(), {"shard_id": 7})
            assert message.reply_to is not None
            reply = aio_pika.Message(body, correlation_id=message.correlation_id, headers={"status": status})
            await channel.default_exchange.publish(reply, message.reply_to)

        await queue.consume(answer, no_ack=True)

    async def main(status: str, body: bytes) -> int:
        async with cluster(broker) as (channel, exchange):
            await gateway(channel, exchange, status, body)
            return await asyncio.to_thread(send.run, options(send, "--shard", "7", command))

    assert run(main("ok", b"")) == 0
    assert capsys.readouterr().out == "ok\n"
    assert run(main("error", b'{"error":{"code":"no_such_shard","message":"there are 4 shards"}}')) == 1
    assert capsys.readouterr().out == "error: no_such_shard: there are 4 shards\n"


def test_send_says_when_nobody_takes_commands_and_when_nobody_answers(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    quick = options(send, "--guild", "5", "--timeout", "0.2", '{"op":3,"d":{}}')

    async def main() -> list[int]:
        codes = [await asyncio.to_thread(send.run, quick)]
        async with cluster(broker) as (channel, exchange):
            codes.append(await asyncio.to_thread(send.run, quick))
            queue = await channel.declare_queue(topology.incoming(1), durable=True)
            await queue.bind(exchange, topology.GATEWAY_KEY)
            codes.append(await asyncio.to_thread(send.run, quick))
        return codes

    assert run(main()) == [69, 69, 69]
    told = capsys.readouterr().err.splitlines()
    assert ["no exchange" in told[0], "no queue" in told[1], "no answer" in told[2]] == [True] * 3


def test_the_address_comes_from_variable_file_or_configuration_and_its_absence_is_explained(
    tmp_path: Path,
) -> None:
    secret, config, pointing = tmp_path / "secret", tmp_path / "a.toml", tmp_path / "b.toml"
    secret.write_text("amqp://from-secret/\n")
    config.write_text('amqp = "amqp://from-config/"\n')
    pointing.write_text(f'amqp_file = "{secret}"\n')
    assert (
        broker_access.address(config, {"AMQP_URI": "amqp://from-variable/"}).reveal()
        == "amqp://from-variable/"
    )
    assert broker_access.address(config, {"AMQP_URI_FILE": str(secret)}).reveal() == "amqp://from-secret/"
    assert broker_access.address(config, {}).reveal() == "amqp://from-config/"
    assert broker_access.address(pointing, {}).reveal() == "amqp://from-secret/"
    with pytest.raises(broker_access.Refused, match="AMQP_URI=") as refused:
        broker_access.address(None, {})
    assert refused.value.code == 78


def test_a_broker_that_is_away_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", "amqp://someone:hunter2@127.0.0.1:1/")
    assert tail.run(options(tail)) == 69
    told = capsys.readouterr().err
    assert "127.0.0.1:1" in told and "hunter2" not in told
