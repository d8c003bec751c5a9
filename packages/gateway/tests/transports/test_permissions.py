"""The permissions that `docs/rabbitmq.md` tells operators to give are enough: names of rateway's own, no others."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import quote

import aio_pika
from rateway.transports.amqp.requests.inbound import Inbound, Message
from rateway.transports.amqp.wire.uri import parse
from tests.transports.amqp.test_rabbitmq import publish_some, publishing

from tests.aio import run
from tests.rabbitmq import Broker

PAGE = Path(__file__).parents[4] / "docs/rabbitmq.md"


async def restricted(broker: Broker) -> str:
    """The address for a user who may do what the page says."""
    found = re.search(r"set_permissions -p \S+ rateway '(\S+)' '(\S+)' '(\S+)'", PAGE.read_text())
    assert found is not None
    configure, write, read = found.groups()
    assert "rateway-1" not in configure and not re.match(read, "somebody-elses-queue")
    await broker.api("PUT", "users/rateway", {"password": "pw", "tags": ""})
    vhost = quote(broker.vhost, safe="")
    rights = {"configure": configure, "write": write, "read": read}
    await broker.api("PUT", f"permissions/{vhost}/rateway", rights)
    return broker.uri.replace("guest:guest@", "rateway:pw@")


def test_the_documented_permissions_are_enough_for_events_questions_and_answers(broker: Broker) -> None:
    async def scenario() -> None:
        uri = await restricted(broker)
        owned = asyncio.Event()

        def answer(message: Message) -> None:
            inbound.answer(message, b'"answer"', (("status", "ok"),))
            inbound.publish(message, "rateway-1", "by-routing-key", b'"answer"', ())
            inbound.acknowledge(message)

        inbound = Inbound(
            address=parse(uri),
            name="rateway: inbound",
            exchange="rateway-1",
            queue="rateway-incoming-1",
            keys=("cache", "gateway"),
            on_message=answer,
            on_ownership=lambda state, why: owned.set() if state == "owned" else None,
        )
        async with publishing(uri) as (publisher, _), await aio_pika.connect(broker.uri) as connection:
            task = asyncio.create_task(inbound.run())
            await owned.wait()
            stream = publisher.stream(0, 1)
            stream.begin("s")
            publish_some(stream, 1, 100)
            assert await publisher.drain(60) == 0 and stream.settled == 100
            channel = await connection.channel()
            replies = await channel.declare_queue(exclusive=True)
            exchange = await channel.get_exchange("rateway-1")
            await replies.bind(exchange, "by-routing-key")
            await exchange.publish(aio_pika.Message(b"{}", reply_to=replies.name), "cache")
            keys = set()
            async with replies.iterator(no_ack=True) as messages:
                async for message in messages:
                    keys.add(message.routing_key)
                    if len(keys) == 2:
                        break
            assert keys == {replies.name, "by-routing-key"}
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(scenario())
