"""One gateway in several processes: any of them may die or hang, and what runs in the others does not notice."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rateway.transports import control_socket
from rateway_simulator.faults import Fault
from rateway_simulator.judge.ledger import Entry

from tests.aio import run
from tests.e2e.harness import LOOK, Gateway, Stage, stage
from tests.e2e.witness import Witness, all_live, sessions_of, witness
from tests.rabbitmq import Broker


async def runners(gateway: Gateway) -> dict[str, int]:
    """Pids of the runners by role, once there are two."""
    status = await gateway.until(lambda status: len(status["processes"]) == 3)
    return {each["role"]: each["pid"] for each in status["processes"] if each["role"] != "supervisor"}


def is_gone(pid: int) -> bool:
    """Whether a process has ended (whoever inherited it may not have asked for its exit code yet)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def gone(pids: Iterable[int]) -> None:
    for pid in pids:
        while not is_gone(pid):
            await asyncio.sleep(LOOK)


def held_twice(journal: Iterable[Entry]) -> list[Entry]:
    """Entries of the journal in which a shard got a connection while another one still held it."""
    held: set[int] = set()
    found = []
    for entry in journal:
        if entry.what in ("ready", "resumed"):
            if entry.shard in held:
                found.append(entry)
            held.add(entry.shard)
        elif entry.what in ("detached", "ended"):
            held.discard(entry.shard)
    return found


async def resumed_after(it: Stage, shards: set[int], since: float) -> float:
    """Seconds from *since* (Unix time) until the last of the shards had resumed."""
    while True:
        at = {e.shard: e.time for e in it.sim.ledger.journal if e.what == "resumed" and e.time >= since}
        if shards <= at.keys():
            return max(at[shard] for shard in shards) - since
        await asyncio.sleep(LOOK)


def sent_and_heard(it: Stage, worker: Witness, since: float) -> list[str]:
    """Return the ids of the first two shards' events that were sent after *since* (Unix time) and have arrived."""
    ids = (
        f"{sent.session}:{sent.shard}:{sent.seq}"
        for sent in it.sim.ledger.log()
        if sent.shard < 2 and sent.time >= since
    )
    return [each for each in ids if each in worker.at]


def two(**more: str) -> dict[str, Any]:
    """Two clusters of two shards in two runners."""
    return {"shards": 4, "per_cluster": 2, "PROCESSES": "2", **more}


def test_a_killed_workers_shards_resume_and_the_others_events_flow_meanwhile(
    tmp_path: Path, broker: Broker
) -> None:
    """In how many seconds, and how late, ``benchmarks/kills.py`` measures; a suite shares its cores with other work."""

    async def main() -> None:
        async with stage(tmp_path, broker, guilds=160, members=3, **two(LOG_FORMAT="json")) as it:
            await it.ready()
            await it.all_arrived()
            async with witness(broker, 1) as worker:
                it.sim.set_rate(200)
                victim = (await runners(it.gateway))["runner 2"]
                # Nothing starts it again while the supervisor stands still, which moves no event.
                it.gateway.freeze()
                killed_at = time.time()
                os.kill(victim, signal.SIGKILL)
                await worker.until(lambda worker: len(sent_and_heard(it, worker, killed_at)) > 5)
                it.gateway.thaw()
                await resumed_after(it, {2, 3}, killed_at)
                it.sim.set_rate(0)
                await it.all_arrived()
            assert {entry.shard for entry in it.sim.ledger.journal if entry.what == "detached"} == {2, 3}
            assert it.count("identify") == 4
            resumed = [e.shard for e in it.sim.ledger.journal if e.what == "resumed"]
            assert sorted(resumed) == [2, 3]
            assert victim not in (await runners(it.gateway)).values()
            doubled = (await it.all_arrived()).doubled
            await it.events(400)
            await it.gateway.stop()
            # Nothing of what it had received was left unconfirmed: nothing is published again.
            await it.gateway.start()
            await it.ready()
            assert (await it.all_arrived()).doubled == doubled
            await it.gateway.stop()
            # One stream of whole lines, each with where it comes from.
            lines = [msgspec.json.decode(line) for line in it.gateway.log.read_bytes().splitlines()]
            assert {line.get("process") for line in lines} >= {"runner 1", "runner 2"}
            assert [
                line for line in lines if line.get("action") == "stop" and line.get("process") == "runner 2"
            ]

    run(main())


def test_commands_and_queries_reach_the_other_process(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=24, members=3, **two()) as it:
            await it.ready()
            await it.all_arrived()
            async with witness(broker, 1, 2, names=frozenset()) as worker:
                for shard in range(4):
                    guild_id = next(iter(it.sim.gateway.guilds_of(shard, 4)))
                    for cluster in (1, 2):
                        status, guild = await worker.ask(
                            cluster, "cache", {"type": "Guild", "arguments": [guild_id]}
                        )
                        assert (status, guild["id"]) == ("ok", str(guild_id))
                        status, place = await worker.ask(
                            cluster, "cache", {"type": "WhereIs", "arguments": [guild_id]}
                        )
                        assert (place["cluster"], place["shard"]) == (1 + shard // 2, shard)
                        request = {"op": 8, "d": {"guild_id": str(guild_id), "user_ids": ["1"], "limit": 0}}
                        for header in ({"shard_id": shard}, {"guild_id": guild_id}):
                            answer = await worker.ask(cluster, "gateway", request, header)
                            assert answer == ("ok", {"shard_id": shard})
            # A command is answered once it is sent; the simulator may not have read it yet.
            await it.heard(lambda receipts: receipts.names["GUILD_MEMBERS_CHUNK"] >= 4 * 2 * 2)
            await it.all_arrived()
            assert it.receipts.names["GUILD_MEMBERS_CHUNK"] == 4 * 2 * 2

    run(main())


def test_a_killed_supervisor_leaves_no_orphan_and_no_shard_is_ever_held_twice(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=160, members=3, **two()) as it:
            sessions = sessions_of(await it.ready())
            pids = await runners(it.gateway)
            it.sim.set_rate(200)
            # One of them cannot leave yet: the next gateway has to wait for it.
            os.kill(pids["runner 2"], signal.SIGSTOP)
            await it.gateway.kill()
            await gone([pids["runner 1"]])
            await it.gateway.start()
            await it.gateway.logged("waiting until it has left")
            before = [entry for entry in it.sim.ledger.journal if entry.what in ("resume", "identify")]
            assert len(before) == 4
            os.kill(pids["runner 2"], signal.SIGCONT)
            await gone(pids.values())
            assert (
                sessions_of(await it.gateway.until(lambda s: len(s["shards"]) == 4 and all_live(s)))
                == sessions
            )
            it.sim.set_rate(0)
            await it.all_arrived()
            assert held_twice(it.sim.ledger.journal) == []
            assert (it.count("identify"), it.count("resume")) == (4, 4)
            # And again, without anything in the way.
            pids = await runners(it.gateway)
            await it.gateway.kill()
            await it.gateway.start()
            await gone(pids.values())
            await it.gateway.until(lambda status: len(status["shards"]) == 4 and all_live(status))
            assert held_twice(it.sim.ledger.journal) == []
            assert it.count("identify") == 4

    run(main())


def test_a_worker_that_hangs_is_replaced_and_its_shards_resume(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=40, members=3, **two()) as it:
            await it.ready()
            await it.all_arrived()
            hung = (await runners(it.gateway))["runner 1"]
            stopped_at = time.time()
            os.kill(hung, signal.SIGSTOP)
            await it.gateway.logged("runner 1 has not moved for")
            await resumed_after(it, {0, 1}, stopped_at)
            await gone([hung])
            await it.events(200)
            await it.all_arrived()
            assert it.count("identify") == 4
            assert held_twice(it.sim.ledger.journal) == []

    run(main())


@pytest.mark.checklist("D7")
def test_a_dead_workers_permit_counts_as_spent(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        simulator = {"max_concurrency": 1, "ready_delay": 1.5}
        settings: dict[str, Any] = {"shards": 2, "per_cluster": 1, "PROCESSES": "2"}
        async with stage(tmp_path, broker, guilds=4, members=3, simulator=simulator, **settings) as it:
            while not it.count("identify"):
                await asyncio.sleep(LOOK)
            # Its op 2 has gone out and READY is not there yet.
            first = next(entry for entry in it.sim.ledger.journal if entry.what == "identify")
            os.kill((await runners(it.gateway))[f"runner {first.shard + 1}"], signal.SIGKILL)
            status = await it.ready()
            at = [entry.time for entry in it.sim.ledger.journal if entry.what == "identify"]
            assert len(at) == 3
            # 5 s apart as they were sent; the simulator may have read the first a little late.
            assert min(late - early for early, late in itertools.pairwise(at)) >= 4.0
            assert status["budget"]["remaining"] == it.sim.options.identifies_total - 3

    run(main())


async def messages_arrived(it: Stage) -> None:
    """Wait until every message has arrived, and with it what was published before the last one of each cluster."""
    sent = [each for each in it.sim.ledger.log() if each.event == "MESSAGE_CREATE"]
    await it.heard(lambda receipts: all(receipts.times(each.session, each.seq) for each in sent))


def others(it: Stage) -> int:
    """Return how many events of Discord's have arrived that the settings leave out."""
    return it.receipts.arrived - it.receipts.names["MESSAGE_CREATE"]


def test_settings_are_read_again_by_all_processes_and_what_cannot_change_is_said(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        file = tmp_path / "rateway.toml"
        file.write_text('log_level = "info"\n')
        async with stage(tmp_path, broker, guilds=24, members=3, start=False, **two()) as it:
            it.gateway.arguments = ["-m", "rateway", "-c", str(file)]
            await it.gateway.start()
            await it.ready()
            await it.all_arrived()
            file.write_text('log_level = "info"\nevents = ["MESSAGE_CREATE"]\nstop_timeout = "9s"\n')
            it.gateway.signal(signal.SIGHUP)
            assert "stop_timeout" in await it.gateway.logged("changed only by a restart")
            await it.gateway.logged("settings read again")
            # Each runner reads them when it comes to it: as soon as all have left something out.
            it.sim.set_rate(200)
            await it.gateway.until(lambda status: all(c["filtered"] > 0 for c in status["clusters"]))
            await it.events(100)
            await messages_arrived(it)
            before = others(it)
            await it.events(400)
            await messages_arrived(it)
            assert others(it) == before

    run(main())


def test_a_drained_cluster_is_taken_by_another_gateway_and_the_rest_goes_on(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        # Gateways of different state folders do not know of each other's identifies.
        simulator = {"identify_window": 0.0}
        async with stage(tmp_path, broker, guilds=24, members=3, simulator=simulator, **two()) as it:
            await it.ready()
            environment = it.gateway.environment | {"STATE_DIR": str(tmp_path / "other"), "CLUSTERS": "2"}
            # Both gateways have to cut the bot alike.
            environment["SHARDS"] = str(it.layout.shards)
            del environment["EXTRA_SHARDS"]
            other = Gateway(tmp_path, "other", **(environment | {"PROCESSES": "1"}))
            await other.start()
            try:
                await other.logged("another gateway reads rateway-incoming-2")
                answer = msgspec.json.decode(await control_socket.ask(it.gateway.state_dir, "drain", "2"))
                assert "cluster 2" in answer["ok"]
                await it.gateway.logged("cluster 2 is given up for another gateway")
                await other.until(lambda status: len(status["shards"]) == 2 and all_live(status))
                status = await it.gateway.until(
                    lambda status: [c["cluster"] for c in status["clusters"]] == [1]
                )
                assert {shard["state"] for shard in status["shards"]} == {"live"}
                again = msgspec.json.decode(await control_socket.ask(it.gateway.state_dir, "drain", "2"))
                assert "does not run here" in again["error"]
                # Its former worker, started anew, leaves the cluster alone.
                os.kill((await runners(it.gateway))["runner 2"], signal.SIGKILL)
                await it.gateway.logged("runner 2 ended (killed by SIGKILL)")
                await it.gateway.until(lambda status: len(status["processes"]) == 3)
                assert held_twice(it.sim.ledger.journal) == []
                await other.stop()
            finally:
                await other.kill()

    run(main())


@pytest.mark.checklist("B16")
def test_a_fatal_close_ends_all_processes_and_the_next_start_sends_nothing_to_discord(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=8, members=3, **two()) as it:
            await it.ready()
            pids = await runners(it.gateway)
            await it.sim.inject(Fault(kind="token_reset"))
            assert await it.gateway.exited() == 78
            await gone(pids.values())
            assert "DISCORD_TOKEN" in it.gateway.tail()
            dials = it.count("dial")
            await it.gateway.start()
            assert await it.gateway.exited() == 78
            assert it.count("dial") == dials

    run(main())
