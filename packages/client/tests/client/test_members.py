"""Members by their chunks: out of order, again, under a rate limit, after a lost session or connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from rateway_client import NoAnswer, Worker
from rateway_protocol.contract.messages import Gap, encode
from tests.client.stand_in import Answer, gateway

from tests.aio import run
from tests.rabbitmq import Broker

GUILD = "290926798626357250"


class Discord:
    """Notes the requests for members, and answers each by a step of a script."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.arrived = asyncio.Event()

    def __call__(self, message: AbstractIncomingMessage) -> Answer | None:
        body = json.loads(message.body)
        if body.get("type") == "WhereIs":
            return b'{"cluster":1,"shard":3,"shard_count":8}', "ok"
        self.asked.append(body["d"])
        self.arrived.set()
        return b'{"shard_id":3}', "ok"

    async def request(self) -> dict[str, Any]:
        """Wait for the next request."""
        await self.arrived.wait()
        self.arrived.clear()
        return self.asked[-1]


async def say(exchange: AbstractExchange, name: str, d: object) -> None:
    await exchange.publish(aio_pika.Message(json.dumps(d).encode(), type=name), name)


async def chunk(exchange: AbstractExchange, nonce: str, index: int, count: int, **more: object) -> None:
    member = {"user": {"id": str(index)}}
    d = {
        "guild_id": GUILD, "members": [member], "chunk_index": index, "chunk_count": count, "nonce": nonce, **more
    }  # fmt: skip
    await say(exchange, "GUILD_MEMBERS_CHUNK", d)


def test_chunks_are_counted_not_awaited_in_order_and_those_of_others_are_left_alone(broker: Broker) -> None:
    async def main() -> None:
        discord = Discord()
        async with gateway(broker, discord) as exchange, Worker(broker.uri) as worker:
            call = asyncio.create_task(worker.request_members(GUILD, presences=True))
            asked = await discord.request()
            assert len(asked["nonce"].encode()) <= 32
            assert {key: asked[key] for key in ("guild_id", "query", "limit", "presences")} == {
                "guild_id": GUILD, "query": "", "limit": 0, "presences": True,
            }  # fmt: skip
            await chunk(exchange, "another's", 0, 1)
            await exchange.publish(aio_pika.Message(b"[", type="?"), "GUILD_MEMBERS_CHUNK")
            await chunk(exchange, asked["nonce"], 2, 3, not_found=["9"], presences=[{"user": {"id": "2"}}])
            await chunk(exchange, asked["nonce"], 0, 3)
            await chunk(exchange, asked["nonce"], 0, 3)
            assert not call.done()
            await chunk(exchange, asked["nonce"], 1, 3)
            found = await call
        assert [each["user"]["id"] for each in found.members] == ["0", "1", "2"]
        assert (found.not_found, found.presences) == (["9"], [{"user": {"id": "2"}}])

    run(main())


def test_what_makes_the_answer_incomplete_asks_again_with_a_new_nonce(broker: Broker) -> None:
    async def main() -> None:
        discord = Discord()
        async with Worker(broker.uri) as worker:
            async with gateway(broker, discord) as exchange:
                call = asyncio.create_task(worker.request_members(GUILD, timeout=60))
                asked = await discord.request()
                others = {"opcode": 8, "retry_after": 50.0, "meta": {"guild_id": GUILD, "nonce": "another's"}}
                await say(exchange, "RATE_LIMITED", others)
                ours = {
                    "opcode": 8,
                    "retry_after": 0.05,
                    "meta": {"guild_id": GUILD, "nonce": asked["nonce"]},
                }
                await say(exchange, "RATE_LIMITED", ours)
                await discord.request()
                for shard in (2, 3):
                    gap = Gap(shard=shard, old_session="s", settled=1, received=2, reason="lost", since=0.0)
                    await exchange.publish(aio_pika.Message(encode(gap)), Gap.key)
                asked = await discord.request()
                await chunk(exchange, asked["nonce"], 0, 2)
                await broker.close_connections()
            async with gateway(broker, discord) as exchange:
                asked = await discord.request()
                await chunk(exchange, asked["nonce"], 1, 2)
                await chunk(exchange, asked["nonce"], 0, 2)
                assert len((await call).members) == 2
        assert len({each["nonce"] for each in discord.asked}) == len(discord.asked) == 4

    run(main())


def test_chunks_that_never_come_are_told_with_what_came(broker: Broker) -> None:
    async def main() -> None:
        discord = Discord()
        async with gateway(broker, discord) as exchange, Worker(broker.uri) as worker:
            with pytest.raises(NoAnswer, match="GUILD_MEMBERS_CHUNK and RATE_LIMITED"):
                await worker.request_members(GUILD, timeout=0.5)
            discord.arrived.clear()
            call = asyncio.create_task(worker.request_members(GUILD, timeout=15.0))
            await chunk(exchange, (await discord.request())["nonce"], 0, 2)
            with pytest.raises(NoAnswer, match="1 of 2 chunks"):
                await call

    run(main())
