"""A server that gives every session of a shard one id and numbers READY 0, as Spacebar does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway_client import Worker
from rateway_protocol.discord.events import DOCUMENTED
from rateway_simulator.faults import Fault
from rateway_simulator.world import snapshot

from tests.aio import run
from tests.e2e.harness import LOOK, Stage, stage
from tests.rabbitmq import Broker


class Heard:
    """Every event of cluster 1, with its id, its cause and its body."""

    def __init__(self) -> None:
        self.bodies: dict[str, set[tuple[str, bytes]]] = defaultdict(set)
        self.readies: list[str] = []
        self.causes: list[tuple[str, str, str]] = []
        self.gaps: list[tuple[str, str | None]] = []

    async def listen(self, connection: aio_pika.abc.AbstractConnection) -> None:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
        queue = await channel.declare_queue(exclusive=True)
        for name in (*DOCUMENTED, "RATEWAY_GAP"):
            await queue.bind(exchange, name)
        await queue.consume(self._take, no_ack=True)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        name, identity = message.routing_key or "", message.message_id or ""
        if name == "RATEWAY_GAP":
            gap = msgspec.json.decode(message.body)
            self.gaps.append((gap["old_session"], gap["new_session"]))
            return
        assert identity, name
        self.bodies[identity].add((name, message.body))
        if name == "READY" and identity not in self.readies:
            self.readies.append(identity)
        if name == "GUILD_CREATE" and not message.headers.get("replayed"):
            guild_id = msgspec.json.decode(message.body)["id"]
            self.causes.append((identity.split(":")[0], guild_id, str(message.headers.get("cause"))))

    def sessions(self) -> list[str]:
        return [identity.split(":")[0] for identity in self.readies]


async def renamed(it: Stage) -> None:
    """Change every guild, and see the cache tell of what is so now."""
    async with Worker(it.broker.uri) as worker:
        for guild_id in it.sim.world.guild_ids:
            wanted = msgspec.json.decode(msgspec.json.encode(snapshot.guild_create(it.sim.world, guild_id)))[
                "name"
            ]

            async def told(guild_id: int = guild_id, wanted: str = wanted) -> bool:
                found = await worker.query("Guild", guild_id, fields=("name",))
                return bool(found and found["name"] == wanted)

            while not await told():
                await asyncio.sleep(LOOK)


@pytest.mark.checklist("K49")
@pytest.mark.parametrize("first", [0, 1])
def test_a_session_with_the_id_of_an_earlier_one_is_another_session(
    tmp_path: Path, broker: Broker, first: int
) -> None:
    async def main() -> None:
        server = {"repeat_session_ids": True, "first_sequence": first}
        async with (
            stage(
                tmp_path, broker, shards=1, guilds=3, simulator=server, start=False, expect=frozenset({"*"})
            ) as it,
            await aio_pika.connect(it.broker.uri) as connection,
        ):
            heard = Heard()
            await heard.listen(connection)
            await it.gateway.start()
            await it.ready()
            await it.events(100)
            await renamed(it)
            # Lost twice while the gateway runs, which is then killed and resumes.
            for number in (1, 2):
                await it.sim.inject(Fault(kind="op9"))
                while len(heard.readies) <= number:
                    await asyncio.sleep(LOOK)
                await it.ready()
                await it.events(50)
                await renamed(it)
            await it.gateway.kill()
            await it.gateway.start()
            await it.ready()
            await it.events(50)
            await renamed(it)

            name = heard.sessions()[0]
            assert heard.sessions() == [name, f"{name}~1", f"{name}~2"]
            assert [identity.split(":")[2] for identity in heard.readies] == [str(first)] * 3
            # No id stands for two events.
            assert {identity: found for identity, found in heard.bodies.items() if len(found) > 1} == {}
            guilds = {str(guild_id) for guild_id in it.sim.world.guild_ids}
            for session in heard.sessions():
                begun = {each[1] for each in heard.causes if each[0] == session and each[2] == "start"}
                assert begun == guilds, session
            assert heard.gaps == [(name, f"{name}~1"), (f"{name}~1", f"{name}~2")]

    run(main())
