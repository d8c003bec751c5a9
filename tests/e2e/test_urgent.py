"""Urgent events through the whole gateway: the broker is away, comes back, and a full queue holds the spool up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from rateway.demo.relay import Relay
from rateway_simulator.world.dispatch import Dispatch

from tests.aio import run
from tests.e2e.harness import LOOK, Stage, stage
from tests.e2e.witness import witness
from tests.rabbitmq import Broker

URGENT = "INTERACTION_CREATE"
# So many of them arrive ahead of the backlog.
URGENT_WANTED = 5


def interact(it: Stage, number: int) -> None:
    guild_id = it.sim.world.guild_ids[0]
    it.sim.dispatch(
        Dispatch(URGENT, guild_id, {"id": str(number << 22), "guild_id": str(guild_id), "type": 2})
    )


def test_urgent_events_arrive_before_the_backlog_and_all_others_in_order(
    tmp_path: Path, broker: Broker
) -> None:
    async def scenario() -> None:
        host = urlsplit(broker.uri).hostname
        assert host is not None
        async with (
            Relay(host, broker.port) as relay,
            stage(
                tmp_path,
                broker,
                amqp_uri=broker.uri.replace(f":{broker.port}/", f":{relay.port}/"),
                URGENT=URGENT,
                EVENT_LOG="stream",
                # Everything goes to the spool at once.
                UNCONFIRMED_EVENTS="100",
            ) as it,
        ):
            await it.ready()
            await it.all_arrived()
            relay.refuse(True)
            await it.gateway.until(lambda status: not status["clusters"][0]["publisher"]["connected"])
            await it.events(2_000, rate=2_000)
            # A full queue refuses most events: what the spool holds stands behind the first of them, until it is gone.
            await broker.add_full_queue(it.often)
            relay.refuse(False)
            await it.gateway.until(lambda status: status["clusters"][0]["publisher"]["nacked"] > 0)
            number = 0
            async with witness(broker, names=frozenset({URGENT})) as worker:
                while sum("ahead" in message.headers for message in worker.heard) < URGENT_WANTED:
                    number += 1
                    interact(it, number)
                    await asyncio.sleep(LOOK)
            # They have arrived, and what came before them waits.
            status = await it.gateway.until(lambda status: True)
            assert status["clusters"][0]["publisher"]["unconfirmed"] > URGENT_WANTED
            assert status["clusters"][0]["publisher"]["ahead"] >= URGENT_WANTED
            assert it.receipts.distinct < it.sim.ledger.events
            await broker.delete_full_queue()
            # Clean: nothing lost, changed, or out of order without its mark.
            await it.all_arrived()
            await it.gateway.until(lambda status: status["clusters"][0]["publisher"]["unconfirmed"] == 0)
            assert it.receipts.gaps == []
            # All of it is settled: a restart has nothing to ask for again.
            await it.gateway.stop()
            await it.gateway.start()
            await it.ready()
            assert it.count("identify") == it.layout.shards
            await it.all_arrived()

    run(scenario())
