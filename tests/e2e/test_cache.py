"""A cache that lacks something: shards take new sessions for it by setting, and queries say what is the matter."""

from __future__ import annotations

from pathlib import Path

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway_client import QueryError, Worker

from tests.aio import run
from tests.e2e.harness import Stage, stage
from tests.rabbitmq import Broker

WITHOUT_ROLES = "channels,members,users,threads"
WITH_ROLES = f"{WITHOUT_ROLES},roles"


async def codes(it: Stage) -> dict[int, str]:
    """What the cache says to a query for each guild's roles: ``ok``, or why not."""
    said = {}
    async with Worker(it.broker.uri) as worker:
        for guild_id in it.sim.world.guild_ids:
            try:
                found = await worker.query("GuildRoles", guild_id, limit=1)
            except QueryError as error:
                said[guild_id] = error.code
            else:
                said[guild_id] = "ok" if found else "none"
    return said


def test_shards_take_new_sessions_for_what_the_cache_lacks_one_by_one_and_tell_of_it(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=6, CACHE_KINDS=WITHOUT_ROLES) as it:
            await it.ready()
            assert set((await codes(it)).values()) == {"cache_off"}
            assert it.count("identify") == 2
            await it.gateway.stop()

            # By its setting alone: without it everything stays as it is, and says so.
            it.gateway.environment["CACHE_KINDS"] = WITH_ROLES
            await it.gateway.start()
            status = await it.ready()
            assert set((await codes(it)).values()) == {"incomplete"}
            assert all(each["incomplete_since"] > 0 for each in status["shards"])
            await it.gateway.stop()
            assert it.count("identify") == 2

            it.gateway.environment["CACHE_RENEW"] = "true"
            gaps: list[AbstractIncomingMessage] = []
            async with await aio_pika.connect(it.broker.uri) as connection:
                channel = await connection.channel()
                queue = await channel.declare_queue(exclusive=True)
                await queue.bind("rateway-1", "RATEWAY_GAP")
                await it.gateway.start()
                async with queue.iterator(no_ack=True) as messages:
                    async for message in messages:
                        gaps.append(message)
                        if len(gaps) == 2:
                            break
            bodies = [msgspec.json.decode(gap.body) for gap in gaps]
            assert sorted(each["shard"] for each in bodies) == [0, 1]
            assert all("CACHE_RENEW" in each["reason"] for each in bodies)
            await it.gateway.until(
                lambda status: all(
                    each["state"] == "live" and not each["incomplete_since"] for each in status["shards"]
                )
            )
            await it.ready()
            assert set((await codes(it)).values()) == {"ok"}
            # One new session for each shard, the second only when the first was live again.
            assert it.count("identify") == 4
            first, second = (int(gap.timestamp.timestamp()) for gap in gaps if gap.timestamp is not None)
            assert second - first >= 5

    run(main())


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_store_that_cannot_be_opened_stops_no_event_and_is_said_to_whoever_asks(
    tmp_path: Path, broker: Broker, processes: str
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "2").write_text("a file where the folder of cluster 2 should be")

    async def main() -> None:
        async with stage(
            tmp_path, broker, shards=2, per_cluster=1, guilds=8, CACHE_PATH=str(cache), PROCESSES=processes
        ) as it:
            await it.ready()
            await it.events(200)
            await it.all_arrived()
            clusters = {guild_id: (guild_id >> 22) % 2 + 1 for guild_id in it.sim.world.guild_ids}
            assert set(clusters.values()) == {1, 2}
            async with Worker(it.broker.uri, cluster=1) as worker:
                # What is wrong in another process is known here a moment later.
                code = None
                while code != "unavailable":
                    try:
                        assert await worker.cache.emoji(1) is None
                    except QueryError as error:
                        code = error.code
                        if code not in ("unavailable", "loading"):
                            raise
                for guild_id, cluster in clusters.items():
                    if cluster == 1:
                        assert (await worker.cache.guild(guild_id) or {})["id"] == str(guild_id)
                        continue
                    with pytest.raises(QueryError) as refused:
                        await worker.cache.guild(guild_id)
                    assert refused.value.code == "unavailable"
                    assert str(cache / "2") in refused.value.message

    run(main())
