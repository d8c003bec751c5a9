"""The whole gateway and a broker that misbehaves: what workers get, ask and send goes on or comes later."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.aio import run
from tests.e2e.harness import LOOK, Stage, stage
from tests.e2e.witness import all_live, all_settled, answer_of, witness
from tests.rabbitmq import Broker

STATS = {"type": "Stats", "arguments": []}


async def alarm(broker: Broker, on: bool) -> None:
    """RabbitMQ's memory alarm: it blocks every connection that publishes, and no other."""
    await broker.ctl("set_vm_memory_high_watermark", "0.000001" if on else "0.4")


def publisher_of(status: dict[str, object]) -> dict[str, object]:
    clusters = status["clusters"]
    assert isinstance(clusters, list)
    found: dict[str, object] = clusters[0]["publisher"]
    return found


@pytest.mark.checklist("H9", "A7")
def test_a_broker_that_blocks_publishers_costs_neither_heartbeats_nor_events_and_queries_go_on_at_once(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(
            tmp_path, broker, guilds=10, members=3, simulator={"heartbeat_interval_ms": 1000}
        ) as it:
            await it.ready()
            async with witness(broker, names=frozenset()) as worker:
                await it.all_arrived()
                await alarm(broker, True)
                try:
                    await it.events(300)
                    await it.gateway.until(lambda status: publisher_of(status)["blocked"] is True)
                    asked = await worker.send(1, "cache", STATS)
                    # Two beats of each shard later; the first may have been on its way.
                    since = asyncio.get_running_loop().time()
                    while not all((each.beat_at or 0.0) > since + 2.0 for each in it.sim.gateway.connections):
                        await asyncio.sleep(LOOK)
                finally:
                    # RabbitMQ reads from no connection that publishes meanwhile, whoever's it is.
                    await alarm(broker, False)
                assert answer_of(await asked)[0] == "ok"
            await it.all_arrived()
            assert it.count("identify") == 2 and it.count("resume") == 0

    # rabbitmqctl starts an Erlang machine of its own, twice: seconds alone, half a minute where others work too.
    run(main())


@pytest.mark.checklist("H6")
def test_a_deleted_exchange_comes_back_with_our_own_queue_bound(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=10, members=3) as it:
            await it.ready()
            await it.all_arrived()
            exchange = f"exchanges/{quote(broker.vhost, safe='')}/rateway-1"
            await broker.api("DELETE", exchange)
            await it.events(200)
            await it.gateway.logged("It is declared again")
            status = await it.gateway.until(
                lambda status: all_settled(status) and publisher_of(status)["unconfirmed"] == 0
            )
            assert publisher_of(status)["unrouted_events"]
            assert publisher_of(status)["unrouted"]
            async with witness(broker) as worker:
                status_word, _ = await worker.ask(1, "cache", STATS)
                assert status_word == "ok"
                await it.events(100)
                await worker.until(lambda worker: len([i for i in worker.ids() if i != "None"]) >= 100)

    run(main())


@pytest.mark.checklist("H4")
def test_a_queue_that_rejects_gives_the_other_doubles_of_the_same_id_and_stops_nothing_for_good(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=10, members=3) as it:
            await it.ready()
            await it.all_arrived()
            await broker.add_full_queue(it.often)
            await it.events(300)
            await it.gateway.until(lambda status: publisher_of(status)["nacked"] != 0)
            await it.gateway.logged("is a queue full that rejects")
            await broker.delete_full_queue()
            result = await it.all_arrived()
            assert result.doubled > 0
            status = await it.gateway.until(lambda status: publisher_of(status)["unconfirmed"] == 0)
            assert publisher_of(status)["republished"]

    run(main())


async def flood(it: Stage, broker: Broker) -> tuple[Counter[str], int]:
    """A thousand commands for shard 0 and what became of them; how many queries were answered meanwhile."""
    async with witness(broker, names=frozenset()) as worker:
        voice = {"op": 4, "d": {"guild_id": None, "channel_id": None, "self_mute": False, "self_deaf": False}}
        guilds = list(it.sim.gateway.guilds_of(0, 2))
        answers = []
        for number in range(1000):
            voice["d"] = {**voice["d"], "guild_id": str(guilds[number % len(guilds)])}  # type: ignore[dict-item]  # a payload
            answers.append(await worker.send(1, "gateway", voice, {"shard_id": 0}))
        status, _ = await worker.ask(1, "cache", STATS)
        assert status == "ok"
        presence = {"op": 3, "d": {"since": None, "activities": [], "status": "dnd", "afk": False}}
        status, _ = await worker.ask(1, "gateway", presence, {"shard_id": 1})
        assert status == "ok"
        waiting = sum(not answer.done() for answer in answers)
        outcomes: Counter[str] = Counter()
        for answer in asyncio.as_completed(answers):
            status, body = answer_of(await answer)
            outcomes[status if status == "ok" else body["error"]["code"]] += 1
        return outcomes, waiting


@pytest.mark.checklist("H18", "H19")
def test_a_thousand_commands_for_one_shard_leave_queries_and_the_other_shard_alone_and_all_are_answered(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(
            tmp_path, broker, guilds=30, members=3, COMMAND_DEADLINE="4s", COMMAND_QUEUE="600"
        ) as it:
            await it.ready()
            outcomes, waiting = await flood(it, broker)
            assert waiting > 0
            assert sum(outcomes.values()) == 1000
            # All that one kind of command gets of a minute; the rest is kept for the other kinds (docs/contract.md).
            assert outcomes["ok"] >= 94
            assert outcomes["expired"] and outcomes["queue_full"]
            await it.gateway.until(all_live)
            # Asked of the broker itself: the management API's numbers are seconds old.
            queues = await broker.ctl("list_queues", "-p", broker.vhost, "name", "consumers")
            assert "rateway-incoming-1\t1" in queues.splitlines()
            assert it.count("close 4008") == 0

    run(main())
