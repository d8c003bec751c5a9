"""Members of a fleet share the clusters and the day's identifies, and hand over as they are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from rateway.transports import control_socket

from tests.aio import run
from tests.e2e.harness import Json
from tests.e2e.witness import witness
from tests.fleet.stage import FleetStage, Member, fleet_stage
from tests.rabbitmq import Broker


async def ask(member: Member, *words: str) -> dict[str, str]:
    answer: dict[str, str] = msgspec.json.decode(await control_socket.ask(member.state_dir, *words))
    return answer


def name_of(member: Member) -> str:
    return (member.state_dir / "member").read_text().strip()


async def owns(member: Member, clusters: set[int]) -> None:
    while set(await member.clusters()) != clusters:  # noqa: ASYNC110  # a status announces itself nowhere
        await asyncio.sleep(0.05)


def test_members_spread_the_clusters_and_hand_them_over_without_an_identify(
    broker: Broker, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with fleet_stage(tmp_path, [broker], members=2, fleet="bot", PROCESSES="2") as it:
            await it.whole()
            assert it.count("identify") == it.layout.shards
            await answer_for_one_another(it)
            await hand_over_by_hand(it)
            # The caches have gone along.
            await answer_for_one_another(it)
            await lose_the_governor(it)
            assert it.count("identify") == it.layout.shards, "every session was resumed"
            assert not it.sim.ledger.noted

    async def answer_for_one_another(it: FleetStage) -> None:
        guilds = sorted(it.sim.world.guild_ids)
        presence: Json = {"since": None, "activities": [], "status": "idle", "afk": False}
        async with witness(broker, *it.layout.clusters) as worker:
            for cluster in it.layout.clusters:
                listed: list[int] = []
                while listed != guilds:
                    question = {"type": "Guilds", "arguments": [], "limit": 1000, "fields": ["id"]}
                    status, answer = await worker.ask(cluster, "cache", question)
                    listed = [int(each["id"]) for each in answer] if status == "ok" else []
                # One of each cluster's shards, on another one's exchange.
                shard = it.layout.shards_of(cluster % len(it.layout.clusters) + 1)[0]
                told = await worker.ask(cluster, "gateway", {"op": 3, "d": presence}, {"shard_id": shard})
                assert told == ("ok", {"shard_id": shard})

    async def hand_over_by_hand(it: FleetStage) -> None:
        one, other = it.members
        cluster = (await one.clusters())[0]
        assert "goes to" in (await ask(one, "fleet-move", str(cluster), name_of(other)))["ok"]
        await owns(other, {*await other.clusters(), cluster})
        assert "no member" in (await ask(one, "fleet-move", "1", "host-x"))["error"]
        assert "no cluster 9" in (await ask(one, "fleet-move", "9", name_of(other)))["error"]
        assert "takes none" in (await ask(other, "fleet-drain", name_of(other)))["ok"]
        await owns(one, set(it.layout.clusters))
        assert "again" in (await ask(one, "fleet-undrain", name_of(other)))["ok"]
        await it.whole()

    async def lose_the_governor(it: FleetStage) -> None:
        governor = next(each for each in it.members if "is the governor" in each.tail(1000))
        (other,) = (each for each in it.members if each is not governor)
        struck = it.now()
        hit = it.shards_of(await governor.clusters())
        await governor.kill()
        await it.live_since(struck, hit)
        await owns(other, set(it.layout.clusters))
        await other.logged("is the governor")
        await governor.start()
        await it.whole()

    run(scene())


def test_a_gateway_that_joins_with_sessions_after_one_that_has_none_keeps_them(
    broker: Broker, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with fleet_stage(tmp_path, [broker], members=2, start=False) as it:
            former, empty = it.members
            await former.start()
            await it.live()
            # The wrong order: the empty one is the fleet's first member, while the other still runs without it.
            for member in (empty, former):
                member.environment["FLEET"] = "bot"
            await empty.start()
            await empty.logged("is the governor")
            await empty.logged("it is left to a member that has them")
            await former.stop()
            await former.start()
            await it.live()
            assert it.count("identify") == it.layout.shards, "every session was resumed"
            assert not it.sim.ledger.noted

    run(scene())
