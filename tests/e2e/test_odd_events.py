"""Events that nobody would write, through the whole gateway: delivered byte for byte, said once, nobody else's loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway_client import Worker
from rateway_simulator.world import snapshot

from tests.aio import run
from tests.e2e.harness import stage
from tests.rabbitmq import Broker

encode = msgspec.json.encode


@pytest.mark.checklist("K10", "K11", "K12")
def test_an_odd_event_is_delivered_as_it_came_and_costs_its_odd_element_alone(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=3) as it:
            async with await aio_pika.connect(it.broker.uri) as connection, Worker(it.broker.uri) as worker:
                await it.ready()
                guild_id, other, third = it.sim.world.guild_ids
                channel = await connection.channel()
                queue = await channel.declare_queue(exclusive=True)
                for name in ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"):
                    await queue.bind("rateway-1", name)
                guild = msgspec.json.decode(encode(snapshot.guild_create(it.sim.world, guild_id)))
                guild["guild_scheduled_events"] = [None]
                guild["emojis"] = [{"id": None, "name": "rose"}]
                guild["members"].insert(0, {"roles": []})
                hostile = [
                    ("GUILD_CREATE", encode({**guild, "name": "kept"})),
                    ("GUILD_UPDATE", b'{"id":"%d","name":"a\\ud800b"}' % other),
                    ("GUILD_UPDATE", b"null"),
                    ("GUILD_DELETE", b'"text"'),
                    ("GUILD_CREATE", b'[\n"a\\ud800b"]'),
                ]
                (session,) = it.sim.gateway.sessions.values()
                for name, d in hostile:
                    it.sim.gateway.deliver(session, name, d)
                found: list[AbstractIncomingMessage] = []
                async with queue.iterator(no_ack=True) as messages:
                    async for message in messages:
                        found.append(message)
                        if len(found) == len(hostile):
                            break
                assert [(each.routing_key, each.body) for each in found] == hostile
                assert found[0].headers["cause"] == "available"
                answers: list[Any] = [await worker.query("Guild", each) for each in (guild_id, other, third)]
                assert (
                    answers[0]["name"] == "kept"
                    and answers[1]["name"] == "a\ufffdb"
                    and answers[2] is not None
                )
                assert await worker.query("GuildMembers", guild_id) and await worker.query(
                    "GuildRoles", third
                )
                assert await worker.query("GuildScheduledEvents", guild_id) == []

                for words in (
                    "guild_scheduled_events[] is no object", "emojis[].id is no id", "members[].user is missing",
                    "half a surrogate pair",
                ):  # fmt: skip
                    assert "left out" in await it.gateway.logged(words)
                assert "not in the cache" in await it.gateway.logged(
                    "GUILD_DELETE of shard 0: d is no object"
                )
                status = await it.ready()
                (cluster,) = status["clusters"]
                assert cluster["cache_unread"] == {"left_out": 2, "not_applied": 3}
                assert any("could not read all that Discord sent" in note for note in status["notes"])
                assert status["shards"][0]["incomplete_since"] == 0

            # Replayed after a restart, they are what they were, and nobody's loss.
            await it.gateway.kill()
            await it.gateway.start()
            await it.ready()
            await it.all_arrived()
            status = await it.ready()
            assert status["shards"][0]["incomplete_since"] == 0

    run(main())
