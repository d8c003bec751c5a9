"""Who owns a cluster, when two gateways that know nothing of each other are started for it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self

import aio_pika
import pytest
from rateway.demo.relay import Relay

from tests.aio import run
from tests.e2e.harness import Gateway, stage
from tests.e2e.witness import all_live, relayed, sessions_of
from tests.rabbitmq import Broker

# Gateways without a common state folder do not know of each other's identifies (docs/architecture.md, "Who may
# identify"); that is not what is tried here.
APART: dict[str, object] = {"identify_window": 0.0}
WAITS = "another gateway reads rateway-incoming-1"


def another(folder: Path, gateway: Gateway) -> Gateway:
    """A gateway of the same settings with a state folder of its own."""
    return Gateway(folder, "another", **(gateway.environment | {"STATE_DIR": str(folder / "another-state")}))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_second_gateway_with_a_state_of_its_own_waits_and_takes_over_when_the_first_has_left(
    tmp_path: Path, broker: Broker, end: str
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=6, members=3, simulator=APART) as it:
            first = sessions_of(await it.ready())
            second = another(tmp_path, it.gateway)
            await second.start()
            try:
                line = await second.logged(WAITS)
                assert "this cluster's shards stay away until it has left" in line
                await second.until(lambda status: status["clusters"][0]["owned"] is False)
                assert (it.count("dial"), it.count("identify")) == (2, 2)
                await (it.gateway.stop() if end == "stop" else it.gateway.kill())
                await second.until(lambda status: status["clusters"][0]["owned"])
                taken = await second.until(all_live)
                assert not set(sessions_of(taken).values()) & set(first.values())
                said = second.log.read_text()
                assert (said.count(WAITS), said.count("0 of 2 shards are live")) in {(1, 0), (1, 1)}
                await second.stop()
            finally:
                await second.kill()

    run(main(), timeout=60)


@pytest.mark.checklist("H24")
def test_a_queue_with_other_flags_keeps_one_cluster_away_until_it_is_deleted(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            stage(tmp_path, broker, shards=4, per_cluster=2, start=False) as it,
            await aio_pika.connect(broker.uri) as connection,
        ):
            channel = await connection.channel()
            await channel.declare_queue("rateway-incoming-1", durable=False)
            await it.gateway.start()
            line = await it.gateway.logged("rateway-incoming-1")
            assert "delete" in line and " error " in line
            status = await it.gateway.until(lambda status: status["clusters"][1]["shards_ready"] == 2)
            assert [cluster["owned"] for cluster in status["clusters"]] == [False, True]
            await channel.queue_delete("rateway-incoming-1")
            await it.ready()
            await it.all_arrived()
            # Said once, however often it was tried.
            assert it.gateway.log.read_text().count("error") == 1

    run(main(), timeout=90)


def test_a_cluster_whose_ownership_is_lost_gives_its_shards_up_and_takes_them_again(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            relayed(broker) as (relay, uri),
            stage(tmp_path, broker, guilds=6, members=3, simulator=APART, amqp_uri=uri) as it,
        ):
            mine = sessions_of(await it.ready())
            second = another(tmp_path, it.gateway)
            second.environment["AMQP_URI"] = broker.uri
            await second.start()
            try:
                await second.logged(WAITS)
                relay.refuse(True)
                await second.until(all_live)
                # Without the broker nobody can tell the first one; it holds its shards, as in any outage.
                await it.gateway.until(all_live)
                relay.refuse(False)
                await it.gateway.logged(WAITS)
                status = await it.gateway.until(lambda status: not status["clusters"][0]["owned"])
                assert {shard["state"] for shard in status["shards"]} == {"idle"}
                # Away once more, the owner is still the other one: its shards are not touched.
                before = it.count("dial")
                relay.refuse(True)
                await it.gateway.until(lambda status: "rateway-incoming-1" not in str(status["notes"]))
                relay.refuse(False)
                await it.gateway.until(lambda status: "rateway-incoming-1" in str(status["notes"]))
                assert it.count("dial") == before
                await second.stop()
                assert sessions_of(await it.ready()) == mine
                assert it.count("identify") == 4
            finally:
                await second.kill()

    run(main(), timeout=60)


class HalfOpen(Relay):
    """A relay that can lose its connections on the gateway's side alone: the broker goes on believing in them."""

    def lose(self) -> None:
        for writer in list(self._near):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
        self._near.add(writer)
        self._open.add(far_writer)
        backward = asyncio.create_task(self._pump(far_reader, writer))
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                far_writer.write(chunk)
        await backward

    async def __aenter__(self) -> Self:
        self._near: set[asyncio.StreamWriter] = set()
        await super().__aenter__()
        return self


def test_a_connection_that_only_the_broker_believes_in_is_no_other_gateway(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with HalfOpen("127.0.0.1", broker.port) as relay:
            uri = broker.uri.replace(f":{broker.port}/", f":{relay.port}/")
            async with stage(tmp_path, broker, guilds=20, members=3, amqp_uri=uri) as it:
                await it.ready()
                await it.all_arrived()
                relay.lose()
                await it.gateway.logged("our former connection still reads rateway-incoming-1")
                await it.events(200)
                await it.all_arrived()
                await it.gateway.until(lambda status: not status["clusters"][0]["owned"] and all_live(status))
                await broker.close_connections()
                await it.gateway.until(lambda status: status["clusters"][0]["owned"] and all_live(status))
                assert (it.count("dial"), it.count("identify")) == (2, 2)
                assert WAITS not in it.gateway.log.read_text()

    run(main(), timeout=60)
