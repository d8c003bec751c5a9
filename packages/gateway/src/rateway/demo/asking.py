"""A few questions to the shared cache, as a worker asks them, with the time each took."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from rateway_protocol.contract import topology

#: An answer has to come within this time, seconds.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: *status* is `ok`, `not_found` or `error`, *value* the decoded body."""

    status: str
    value: Any
    ms: float


async def ask(uri: str, cluster: int, questions: list[tuple[str, list[str]]]) -> list[Answer]:
    """Ask *cluster*'s exchange one question after the other; TimeoutError when one is not answered."""
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(topology.exchange(cluster), ensure=False)
        queue = await channel.declare_queue(exclusive=True)
        waiting: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}

        async def on_answer(message: AbstractIncomingMessage) -> None:
            future = waiting.pop(message.correlation_id or "", None)
            if future is not None:
                future.set_result(message)

        await queue.consume(on_answer, no_ack=True)
        answers = []
        for kind, arguments in questions:
            key = uuid.uuid4().hex
            waiting[key] = asyncio.get_running_loop().create_future()
            body = json.dumps({"type": kind, "arguments": arguments}).encode()
            started = time.perf_counter()
            await exchange.publish(
                aio_pika.Message(body, reply_to=queue.name, correlation_id=key), topology.CACHE_KEY
            )
            async with asyncio.timeout(PATIENCE):
                message = await waiting[key]
            ms = (time.perf_counter() - started) * 1000
            value = json.loads(message.body) if message.body else None
            answers.append(Answer(str(message.headers.get("status")), value, ms))
        return answers
