"""Who owns a cluster, when two gateways that know nothing of each other are started for it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Self

import aio_pika
import msgspec
import pytest
from rateway.demo.relay import Relay
from rateway_protocol.contract import messages

from tests.aio import run
from tests.e2e.harness import LOOK, Gateway, Json, Stage, stage
from tests.e2e.witness import all_live, relayed, sessions_of, witness
from tests.rabbitmq import Broker

# Gateways without a common state folder do not know of each other's identifies (docs/architecture.md, "Who may
# identify"); that is not what is tried here.
APART: dict[str, object] = {"identify_window": 0.0}
WAITS = "another gateway reads rateway-incoming-1"


def another(folder: Path, gateway: Gateway) -> Gateway:
    """A gateway of the same settings with a state folder of its own."""
    return Gateway(folder, "another", **(gateway.environment | {"STATE_DIR": str(folder / "another-state")}))


def ready(status: Json, cluster: int) -> int:
    """Live shards of a cluster, by its number."""
    return sum(int(each["shards_ready"]) for each in status["clusters"] if each["cluster"] == cluster)


def refusal(answer: tuple[str, Any]) -> str:
    """Return the code of an error, or the status of any other answer."""
    status, body = answer
    return str(body["error"]["code"]) if status == "error" else status


async def gaps_of_a_takeover(it: Stage, status: Json) -> None:
    """Each shard's new session is told as one that follows a gap of unknown length."""
    wanted = {f"gap:none:{shard['shard']}:{shard['session']}": shard["session"] for shard in status["shards"]}

    def told() -> dict[str, Json]:
        found = {messages.gap_id(gap): msgspec.json.decode(gap) for gap in it.receipts.gaps}
        return {name: gap for name, gap in found.items() if gap["new_session"] in wanted.values()}

    await it.heard(lambda receipts: len(told()) >= len(wanted))
    assert {name: gap["new_session"] for name, gap in told().items()} == wanted
    assert {gap["old_session"] for gap in told().values()} == {None}


@pytest.mark.checklist("K43")
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
                await gaps_of_a_takeover(it, taken)
                assert second.log.read_text().count(WAITS) == 1
                await second.stop()
            finally:
                await second.kill()

    run(main())


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
            status = await it.gateway.until(lambda status: ready(status, 2) == 2)
            assert [cluster["owned"] for cluster in status["clusters"]] == [False, True]
            await channel.queue_delete("rateway-incoming-1")
            await it.ready()
            await it.all_arrived()
            # Said once, however often it was tried.
            said = [line for line in it.gateway.lines() if " error " in line and "rateway-incoming-1" in line]
            assert len(said) == 1

    run(main())


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
                # What the other one has told by now must not come again from the sessions of before.
                await it.gateway.logged(
                    "another gateway has sessions for this cluster: the 2 stored here are forgotten"
                )
                await second.stop()
                status = await it.gateway.until(all_live)
                assert not set(sessions_of(status).values()) & set(mine.values())
                assert it.count("identify") == 6
            finally:
                await second.kill()

    run(main())


@pytest.mark.checklist("K43")
def test_a_gateway_that_takes_over_a_cluster_which_nobody_holds_any_more_tells_a_gap(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=6, members=3, simulator=APART) as it:
            await it.ready()
            await it.all_arrived()
            assert it.receipts.gaps == []
            await it.gateway.stop()
            second = another(tmp_path, it.gateway)
            await second.start()
            try:
                await gaps_of_a_takeover(it, await second.until(all_live))
                # Its own restart is no take-over.
                await second.stop()
                await second.start()
                await second.until(all_live)
                await it.all_arrived()
                assert len(it.receipts.gaps) == 2
                await second.stop()
            finally:
                await second.kill()

    run(main())


@pytest.mark.checklist("K43")
def test_a_gateway_that_has_seen_another_one_live_does_not_resume_what_it_had_before(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=12, members=3, simulator=APART) as it:
            former = sessions_of(await it.ready())
            await it.gateway.stop()
            second = another(tmp_path, it.gateway)
            await second.start()
            try:
                await second.until(all_live)
                await it.events(100)
                await it.gateway.start()
                await it.gateway.logged("are forgotten")
                # Also over a restart while it waits.
                await it.gateway.stop()
                await it.gateway.start()
                await it.gateway.logged(WAITS)
                await second.stop()
                status = await it.gateway.until(all_live)
                assert not set(sessions_of(status).values()) & set(former.values())
                await gaps_of_a_takeover(it, status)
                assert it.count("resume") == 0
            finally:
                await second.kill()

    run(main())


@pytest.mark.checklist("K43")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_gateway_that_may_not_identify_gives_the_cluster_up_and_says_so(
    tmp_path: Path, broker: Broker, processes: str
) -> None:
    async def main() -> None:
        async with stage(
            tmp_path, broker, shards=4, per_cluster=2, guilds=8, members=3, simulator=APART | {"max_concurrency": 4},
            IDENTIFY_BUCKETS="0-1", CLUSTERS="1-2", SHARDS="4", EXTRA_SHARDS="", PROCESSES=processes,
        ) as it, witness(broker, 1, 2) as worker:  # fmt: skip
            status = await it.gateway.until(
                lambda status: (
                    "IDENTIFY_BUCKETS" in str(status["notes"])
                    and sum(cluster["shards_ready"] for cluster in status["clusters"]) == 2
                )
            )
            assert [cluster["owned"] for cluster in status["clusters"]] == [True, False]
            assert "given up for another gateway" in str(status["notes"])
            second = another(tmp_path, it.gateway)
            second.environment["IDENTIFY_BUCKETS"] = "2-3"
            await second.start()
            try:
                await second.until(lambda status: ready(status, 2) == 2)
                guild = next(guild for guild in it.sim.world.guild_ids if (guild >> 22) % 4 >= 2)
                question = {"type": "Guild", "arguments": [guild]}
                # A runner learns within about a second which clusters the others have given up; it says `loading` until
                # then, and never that there is no such guild. The other gateway answers after that.
                while (code := refusal(await worker.ask(1, "cache", question))) == "loading":
                    await asyncio.sleep(LOOK)
                assert code == "ok"
                await second.stop()
            finally:
                await second.kill()

    run(main())


@pytest.mark.checklist("K44")
def test_queries_and_commands_for_another_gateways_cluster_are_answered_there_though_its_store_is_here(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            stage(tmp_path, broker, shards=4, per_cluster=2, guilds=12, members=3, simulator=APART) as it,
            witness(broker, 1, 2) as worker,
        ):
            await it.ready()
            guilds: dict[int, list[int]] = {1: [], 2: []}
            for guild in it.sim.world.guild_ids:
                guilds[(guild >> 22) % 4 // 2 + 1].append(guild)
            second = another(tmp_path, it.gateway)
            second.environment |= {"CLUSTERS": "2", "SHARDS": "4"}
            del second.environment["EXTRA_SHARDS"]
            await second.start()
            try:
                await second.logged("another gateway reads rateway-incoming-2")
                await it.gateway.stop()
                await second.until(lambda status: ready(status, 2) == 2)
                await it.gateway.start()
                await it.gateway.until(lambda status: ready(status, 1) == 2)
                await it.gateway.logged("another gateway reads rateway-incoming-2")

                async def ask(cluster: int, type_: str, *arguments: int) -> Any:
                    question = {"type": type_, "arguments": list(arguments)}
                    status, body = await worker.ask(cluster, "cache", question)
                    assert status == "ok", body
                    return body

                # Its other process learns with the next beat that the second cluster is another gateway's.
                while (await ask(1, "Clusters"))["clusters"][1]["owner"] != "another":
                    await asyncio.sleep(LOOK)
                # The first one's store of the second cluster knows other sessions.
                first = await it.gateway.until(lambda status: ready(status, 1) == 2)
                sessions = sessions_of(first) | sessions_of(await second.until(all_live))
                presence: Json = {"since": None, "activities": [], "status": "idle", "afk": False}
                for cluster in (1, 2):
                    for shard in range(4):
                        told = await ask(cluster, "ShardSnapshot", shard)
                        assert told["session"] == sessions[shard]
                        command = {"op": 3, "d": presence}
                        done = await worker.ask(cluster, "gateway", command, {"shard_id": shard})
                        assert done == ("ok", {"shard_id": shard})
                    listed = await ask(cluster, "Guilds")
                    assert [each["id"] for each in listed] == sorted(
                        map(str, it.sim.world.guild_ids), key=int
                    )
                    for each in (1, 2):
                        assert (await ask(cluster, "Guild", guilds[each][0]))["id"] == str(guilds[each][0])
            finally:
                await second.kill()

    run(main())


@pytest.mark.checklist("K44")
def test_a_lost_salt_is_said_and_its_sessions_are_told_as_gaps(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=6, members=3, simulator=APART) as it:
            former = sessions_of(await it.ready())
            await it.gateway.stop()
            (it.gateway.state_dir / "salt").unlink()
            await it.gateway.start()
            line = await it.gateway.logged("2 stored sessions belong to other intents, another token")
            assert "`salt` of the state folder was missing" in line and "their shards identify" in line
            await it.gateway.until(all_live)
            await it.heard(lambda receipts: len(receipts.gaps) >= 2)
            told = [msgspec.json.decode(gap) for gap in it.receipts.gaps]
            assert {gap["old_session"] for gap in told} == set(former.values())
            assert all("salt" in gap["reason"] for gap in told)

    run(main())


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

    run(main())
