"""The event log holds every event that Discord sent, whatever happens to the gateway and the broker meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from rateway_client import Worker

from tests.aio import run
from tests.e2e.harness import Json, Stage, stage
from tests.event_log import read_log
from tests.rabbitmq import VERSIONS, Broker, fresh_vhost, private_rabbitmq

#: Events a second of the load under which things happen.
RATE = 600.0
#: After the declaration of a stream RabbitMQ needs a moment before it survives a kill of its node, seconds.
WRITTEN_DOWN = 5.0


def logs_of(status: Json) -> dict[int, str]:
    return {each["cluster"]: each["event_log"]["name"] for each in status["clusters"]}


async def kept(it: Stage) -> dict[int, str]:
    """Wait until all shards are live and each cluster's events go into its log."""
    await it.ready()
    status = await it.gateway.until(
        lambda status: [each["event_log"]["state"] for each in status["clusters"]] == ["kept", "kept"]
    )
    return logs_of(status)


async def audited(it: Stage, logs: dict[int, str]) -> int:
    """Hold each cluster's log against what was sent to its shards; how many entries came twice."""
    doubled = 0
    for number, name in logs.items():
        shards = it.layout.shards_of(number)
        log = await read_log(it.broker.uri, name)
        found = log.audit(each for each in it.sim.ledger.log() if each.shard in shards)
        assert found.clean and found.sent, f"{found}\n{it.gateway.tail(40)}"
        doubled += found.doubled
    return doubled


async def old_enough(it: Stage) -> dict[int, str]:
    """Wait until the logs have been there for a moment, with the load running."""
    status = await it.gateway.until(
        lambda status: all(
            each["event_log"]["state"] == "kept" and each["event_log"]["since_s"] > WRITTEN_DOWN
            for each in status["clusters"]
        )
    )
    return logs_of(status)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_event_is_in_the_log_through_kills_and_restarts_of_the_broker(
    tmp_path: Path, version: str
) -> None:
    async def scenario(broker: Broker) -> None:
        async with stage(tmp_path, broker, shards=2, per_cluster=1, EVENT_LOG="stream") as it:
            await it.ready()
            it.sim.set_rate(RATE)
            logs = await old_enough(it)
            for happens in (broker.kill, broker.stop):
                await happens()
                await broker.start()
                status = await it.gateway.until(
                    lambda status: all(
                        each["publisher"]["connected"] and not each["publisher"]["spool_events"]
                        for each in status["clusters"]
                    )
                )
                assert logs_of(status) == logs
            await it.events(500)
            assert not (await it.settled()).lost
            await audited(it, logs)

    with private_rabbitmq(version=version) as node, fresh_vhost(node) as broker:
        run(scenario(broker))


def test_the_log_goes_on_through_kills_of_the_gateway(tmp_path: Path, broker: Broker) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, broker, shards=2, per_cluster=1, PROCESSES="2", EVENT_LOG="stream") as it:
            logs = await kept(it)
            it.sim.set_rate(RATE)
            for _ in range(3):
                await it.events(400)
                await it.gateway.kill()
                await it.gateway.start()
                assert await kept(it) == logs
            await it.all_arrived()
            await audited(it, logs)

    run(scenario())


def test_clusters_tells_the_logs_of_all_processes(tmp_path: Path, broker: Broker) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, broker, shards=2, per_cluster=1, PROCESSES="2", EVENT_LOG="stream") as it:
            logs = await kept(it)
            async with Worker(broker.uri, cluster=1) as worker:
                rows = (await worker.cache.clusters())["clusters"]
            assert {row["cluster"]: row["log"] for row in rows} == logs

    run(scenario())


def test_without_the_setting_nothing_is_declared_and_nothing_said(tmp_path: Path, broker: Broker) -> None:
    async def scenario() -> None:
        async with stage(tmp_path, broker) as it:
            status = await it.ready()
            assert [each["event_log"] for each in status["clusters"]] == [None]
            found = await broker.api("GET", f"queues/{broker.vhost}")
            assert not [each for each in found if each["name"].startswith("rateway-log-")]
            assert not list(it.gateway.state_dir.glob("event-log*"))

    run(scenario())
