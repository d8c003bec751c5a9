"""Sessions of the whole gateway: resumed whatever ended the process, and told when they cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from rateway.demo.audit import audit
from rateway_simulator.faults import Fault
from rateway_simulator.gateway.connection import Connection
from rateway_simulator.gateway.gateway import Gateway as SimulatedGateway
from rateway_simulator.gateway.sessions import Session
from rateway_simulator.world import requests
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.people import TOKEN

from tests.aio import run
from tests.e2e.harness import LOOK, stage
from tests.e2e.witness import all_live, all_settled, relayed, sessions_of, witness, written_down
from tests.rabbitmq import Broker

SMALL_BUFFER = {"replay_events": 100}
# Of the same bot: its id comes first in a token.
RESET_TOKEN = f"{TOKEN.partition('.')[0]}.another.token"


@pytest.mark.checklist("H1", "B22")
def test_an_outage_longer_than_discords_buffer_with_a_kill_in_the_middle_loses_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            relayed(broker) as (relay, uri),
            stage(tmp_path, broker, guilds=40, members=5, simulator=SMALL_BUFFER, amqp_uri=uri) as it,
        ):
            await it.ready()
            relay.refuse(True)
            await it.events(1500, rate=3000)
            await it.gateway.until(
                lambda status: (
                    all_settled(status) and status["clusters"][0]["publisher"]["spool_events"] >= 1500
                )
            )
            await it.gateway.kill()
            await it.gateway.start()
            await it.gateway.until(all_live)
            assert it.count("resume") == 2
            await it.events(500, rate=3000)
            await it.gateway.until(all_settled)
            relay.refuse(False)
            await it.all_arrived()
            assert it.count("identify") == 2

    run(main())


@pytest.mark.checklist("B22")
def test_a_start_without_a_broker_resumes_and_spools(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with (
            relayed(broker) as (relay, uri),
            stage(tmp_path, broker, guilds=40, members=5, simulator=SMALL_BUFFER, amqp_uri=uri) as it,
        ):
            await it.ready()
            await it.all_arrived()
            await it.gateway.stop()
            relay.refuse(True)
            await it.sim.inject(Fault(kind="rest", status=503, seconds=60.0))
            await it.events(50)
            await it.gateway.start()
            await it.gateway.until(all_live)
            assert (it.count("resume"), it.count("identify")) == (2, 2)
            await it.events(500, rate=3000)
            await it.gateway.until(all_settled)
            relay.refuse(False)
            result = await it.all_arrived()
            assert result.doubled == 0

    run(main())


@pytest.mark.checklist("H11", "H21")
def test_what_no_buffer_holds_is_told_as_a_gap_and_nothing_that_was_received_is_missing(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        # A pause ends in a close after three quarters of an interval.
        simulator = SMALL_BUFFER | {"heartbeat_interval_ms": 10_000}
        async with (
            relayed(broker) as (relay, uri),
            stage(
                tmp_path,
                broker,
                members=3,
                simulator=simulator,
                amqp_uri=uri,
                UNCONFIRMED_EVENTS="200",
                SPOOL_BYTES="1MiB",
            ) as it,
        ):
            old = sessions_of(await it.ready())
            await it.all_arrived()
            relay.refuse(True)
            it.sim.set_rate(1500)
            status = await it.gateway.until(
                lambda status: all(shard["state"] == "backing_off" for shard in status["shards"])
            )
            assert status["clusters"][0]["publisher"]["paused"]
            assert {shard["last_close"].split()[0] for shard in status["shards"]} == {"4900"}
            it.sim.set_rate(0)
            await it.events(400, rate=3000)
            relay.refuse(False)
            new = sessions_of(
                await it.gateway.until(
                    lambda status: all_live(status) and all(c["gaps"] >= 2 for c in status["clusters"])
                )
            )
            # READY comes once more where its first confirm did not come before the cut: the new ones are waited for.
            await it.gateway.until(
                lambda status: (
                    all_settled(status)
                    and all(c["publisher"]["unconfirmed"] == 0 for c in status["clusters"])
                    and all(it.receipts.times(session, 1) for session in new.values())
                )
            )
            result = audit(it.sim.ledger.log(), it.receipts)
            gaps = {gap["old_session"]: gap for gap in map(msgspec.json.decode, it.receipts.gaps)}
            assert {gap["shard"]: (gap["old_session"], gap["new_session"]) for gap in gaps.values()} == {
                shard: (old[shard], new[shard]) for shard in old
            }
            for sent in it.sim.ledger.log():
                if not it.receipts.times(sent.session, sent.seq):
                    assert sent.seq > gaps[sent.session]["received"]
            assert result.lost > 0 and result.out_of_order == result.changed == 0
            assert it.count("identify") == 4

    run(main())


@pytest.mark.checklist("H15")
def test_a_session_lost_in_the_middle_of_its_replay_is_told_between_its_last_event_and_the_next_ready(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resume(self: SimulatedGateway, connection: Connection, session: Session, seq: int) -> None:
        for payload in list(session.replay(seq))[:40]:
            connection.send(payload)
        self.refuse_resume(connection, session, "forgotten in the middle of the replay")

    async def main() -> None:
        async with witness(broker) as worker, stage(tmp_path, broker, shards=1, guilds=8, members=3) as it:
            old = sessions_of(await it.ready())[0]
            await it.all_arrived()
            await it.gateway.stop()
            await it.events(200)
            monkeypatch.setattr(SimulatedGateway, "resume", resume)
            await it.gateway.start()
            await it.gateway.until(all_live)
            await worker.until(lambda worker: len(worker.named("READY")) >= 2)
            order = [message for message in worker.heard if message.routing_key != "RATEWAY_SHARD_STATUS"]
            at = next(index for index, each in enumerate(order) if each.routing_key == "RATEWAY_GAP")
            assert order[at].message_id == f"gap:{old}:0"
            replayed = [each for each in order[:at] if (each.headers or {}).get("replayed")]
            assert len(replayed) == 40
            assert order[at - 1] is replayed[-1]
            assert order[at + 1].routing_key == "READY"
            assert not [each for each in order[at + 1 :] if str(each.message_id).startswith(f"{old}:")]
            gap = msgspec.json.decode(order[at].body)
            assert gap["settled"] <= gap["received"]
            assert order[at - 1].message_id == f"{old}:0:{gap['received']}"

    run(main())


@pytest.mark.checklist("H14")
def test_a_gap_and_the_guilds_that_left_are_told_over_a_kill_between_the_new_ready_and_its_confirm(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            relayed(broker) as (relay, uri),
            witness(broker) as worker,
            stage(tmp_path, broker, shards=1, guilds=3, members=3, amqp_uri=uri, SPOOL_BYTES="0") as it,
        ):
            old = sessions_of(await it.ready())[0]
            await it.all_arrived()
            relay.stall(True)
            gone = it.sim.world.guild_ids[0]
            await it.sim.inject(Fault(kind="op9"))
            world_guilds.leave(it.sim.world, gone)
            status = await it.gateway.until(
                lambda status: all_live(status) and sessions_of(status)[0] not in (None, old)
            )
            assert status["shards"][0]["settled"] == 0
            await it.gateway.kill()
            left = written_down(it.gateway.state_dir)
            assert set(left) == {""} and left[""].pending_left == ((old, gone),)
            relay.cut()
            relay.stall(False)
            await it.gateway.start()
            last = sessions_of(await it.ready())[0]
            await worker.until(lambda worker: f"{last}:0:1" in worker.ids("READY"))
            assert set(worker.ids("RATEWAY_GAP")) == {f"gap:{old}:0"}
            assert set(worker.ids("RATEWAY_GUILD_LEFT")) == {f"left:{old}:{gone}"}
            order = [str(message.message_id) for message in worker.heard]
            told = [order.index(each) for each in (f"gap:{old}:0", f"left:{old}:{gone}", f"{last}:0:1")]
            assert told == sorted(told)
            await it.gateway.stop()
            record = written_down(it.gateway.state_dir)[last]
            assert (record.pending_gap, record.pending_left) == (None, ())

    run(main())


@pytest.mark.checklist("H14")
def test_what_a_worker_has_not_heard_of_a_lost_session_is_told_by_the_next_start_that_resumes(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        own = ["RATEWAY_GAP", "RATEWAY_GUILD_LEFT"]
        async with (
            witness(broker) as worker,
            stage(tmp_path, broker, shards=1, guilds=3, members=3, SPOOL_BYTES="0") as it,
        ):
            old = sessions_of(await it.ready())[0]
            await it.all_arrived()
            # The broker refuses both for a queue's sake, and takes READY.
            await broker.add_full_queue(own)
            gone = it.sim.world.guild_ids[0]
            await it.sim.inject(Fault(kind="op9"))
            world_guilds.leave(it.sim.world, gone)
            new = sessions_of(
                await it.gateway.until(lambda status: all_live(status) and sessions_of(status)[0] != old)
            )[0]
            await it.gateway.until(lambda status: status["shards"][0]["settled"] >= 1)
            while new not in written_down(it.gateway.state_dir):
                await it.gateway.until(all_live)
            await it.gateway.kill()
            record = written_down(it.gateway.state_dir)[new]
            assert record.pending_gap is not None and record.pending_left == ((old, gone),)
            await broker.delete_full_queue()
            heard = len(worker.heard)
            await it.gateway.start()
            assert sessions_of(await it.ready())[0] == new
            await worker.until(
                lambda worker: (
                    {f"gap:{old}:0", f"left:{old}:{gone}"}
                    <= {str(message.message_id) for message in worker.heard[heard:]}
                )
            )
            await it.all_arrived()
            await it.gateway.stop()
            record = written_down(it.gateway.state_dir)[new]
            assert (record.pending_gap, record.pending_left) == (None, ())
            assert it.count("identify") == 2

    run(main())


@pytest.mark.checklist("B22", "H11")
def test_a_session_lost_while_the_broker_is_away_loses_nothing_that_came_and_costs_one_identify_over_a_kill(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            relayed(broker) as (relay, uri),
            stage(tmp_path, broker, shards=1, guilds=10, members=3, amqp_uri=uri) as it,
        ):
            old = sessions_of(await it.ready())[0]
            await it.all_arrived()
            relay.refuse(True)
            await it.gateway.until(lambda status: not status["clusters"][0]["publisher"]["connected"])
            await it.events(300)
            await it.sim.inject(Fault(kind="op9"))
            new = sessions_of(
                await it.gateway.until(lambda status: all_live(status) and sessions_of(status)[0] != old)
            )[0]
            while new not in written_down(it.gateway.state_dir):
                await it.gateway.until(all_live)
            await it.gateway.kill()
            await it.gateway.start()
            assert sessions_of(await it.gateway.until(all_live))[0] == new
            relay.refuse(False)
            await it.all_arrived()
            assert [msgspec.json.decode(gap)["old_session"] for gap in it.receipts.gaps] == [old]
            assert it.count("identify") == 2

    run(main())


@pytest.mark.checklist("B22")
def test_a_store_that_cannot_be_written_is_resumed_from_and_written_again_once_that_is_mended(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=10, members=3) as it:
            sessions = sessions_of(await it.ready())
            await it.all_arrived()
            await it.gateway.stop()
            # Nobody can open it for writing like this, root neither.
            lock = it.gateway.state_dir / "clusters" / "1" / "store" / "lock.mdb"
            lock.unlink()
            lock.mkdir()
            await it.events(100)
            await it.gateway.start()
            status = await it.ready()
            assert sessions_of(status) == sessions and status["clusters"][0]["store"] != "ok"
            await it.events(100)
            await it.all_arrived()
            lock.rmdir()
            await it.gateway.until(lambda status: status["clusters"][0]["store"] == "ok")
            await it.events(100)
            await it.gateway.until(all_settled)
            stored = written_down(it.gateway.state_dir)[str(sessions[0])]
            await it.gateway.until(
                lambda status: (
                    written_down(it.gateway.state_dir)[stored.session_id].settled
                    == status["shards"][0]["settled"]
                )
            )
            await it.gateway.kill()
            await it.gateway.start()
            assert sessions_of(await it.ready()) == sessions
            result = await it.all_arrived()
            assert result.doubled == 0
            assert (it.count("identify"), it.receipts.gaps) == (1, [])

    run(main())


@pytest.mark.checklist("H16")
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2)])
def test_a_changed_recommendation_changes_nothing_until_it_is_asked_for(
    tmp_path: Path, broker: Broker, before: int, after: int
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=before, guilds=10, members=3) as it:
            old = sessions_of(await it.ready())
            await it.gateway.stop()
            await it.sim.inject(Fault(kind="shards", value=after))
            await it.gateway.start()
            assert sessions_of(await it.ready()) == old
            assert (it.count("identify"), it.count("resume")) == (before, before)
            await it.gateway.stop()
            it.gateway.environment["RESHARD"] = "1"
            await it.gateway.start()
            line = await it.gateway.logged("RESHARD is set")
            assert f"{before} sessions are given up" in line
            await it.gateway.until(lambda status: len(status["shards"]) == after and all_live(status))
            await it.gateway.until(lambda status: len(it.receipts.gaps) >= before)
            gaps = [msgspec.json.decode(gap) for gap in it.receipts.gaps]
            assert {gap["old_session"] for gap in gaps} == set(old.values())
            assert {gap["reason"] for gap in gaps} == {
                f"the number of shards changed from {before} to {after}"
            }
            assert it.count("identify") == before + after
            await it.gateway.until(all_settled)
            await it.gateway.stop()
            left = written_down(it.gateway.state_dir)
            assert sorted(record.shard_id for record in left.values()) == list(range(after))
            assert {record.pending_gap for record in left.values()} == {None}

    run(main())


@pytest.mark.checklist("B22")
@pytest.mark.parametrize("change", ["intents", "token"])
def test_sessions_of_other_intents_or_another_token_are_not_resumed_and_what_that_costs_is_said_before(
    tmp_path: Path, broker: Broker, change: str
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=6, members=3) as it:
            old = sessions_of(await it.ready())
            await it.gateway.stop()
            if change == "intents":
                it.gateway.environment["INTENTS"] = "GUILDS,GUILD_MESSAGES"
            else:
                it.sim.gateway.token = it.gateway.environment["DISCORD_TOKEN"] = RESET_TOKEN
            await it.gateway.start()
            line = await it.gateway.logged(
                "2 stored sessions belong to other intents, another token or another layout"
            )
            assert line.endswith("their shards identify (layout)")
            assert it.count("identify") == 2
            new = sessions_of(await it.ready())
            assert (it.count("identify"), it.count("resume")) == (4, 0)
            assert not set(old.values()) & set(new.values())
            if change == "intents":
                await it.gateway.until(lambda status: len(it.receipts.gaps) >= 2)
                gaps = [msgspec.json.decode(gap) for gap in it.receipts.gaps]
                assert {gap["old_session"] for gap in gaps} == set(old.values())

    run(main())


@pytest.mark.checklist("H12", "H13")
def test_heartbeats_name_no_more_than_what_a_killed_gateway_has_left_written_down(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        simulator = {"heartbeat_interval_ms": 400}
        async with stage(tmp_path, broker, guilds=40, members=3, simulator=simulator) as it:
            await it.ready()
            while not all(record.named for record in it.sim.ledger.sessions.values()):
                await asyncio.sleep(LOOK)
            for _ in range(3):
                await it.events(400, rate=800)
                await it.gateway.kill()
                stored = written_down(it.gateway.state_dir)
                named = {key: record.named for key, record in it.sim.ledger.sessions.items()}
                assert set(stored) == set(named)
                for session, heard in named.items():
                    assert heard is not None and 0 < heard <= stored[session].settled
                await it.gateway.start()
                await it.gateway.until(all_live)
            await it.all_arrived()
            assert it.count("identify") == 2

    run(main())


@pytest.mark.checklist("H17")
def test_a_second_gateway_on_the_same_state_waits_and_takes_over_with_the_same_sessions(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=20, members=3) as it:
            sessions = sessions_of(await it.ready())
            second = type(it.gateway)(tmp_path, "second", **it.gateway.environment)
            await second.start()
            try:
                line = await second.logged("another gateway")
                assert f"(pid {it.gateway.pid})" in line
                assert it.count("dial") == 2
                await it.events(300)
                await it.gateway.kill()
                it.gateway.process, second.process = second.process, None
                await it.events(300)
                assert sessions_of(await it.ready()) == sessions
                await it.all_arrived()
                assert (it.count("identify"), it.count("resume")) == (2, 2)
            finally:
                await second.kill()

    run(main())


@pytest.mark.checklist("B2")
def test_stop_with_end_sessions_ends_them_at_discord_and_the_next_start_identifies(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, guilds=6, members=3) as it:
            await it.ready()
            await it.events(100)
            stop = type(it.gateway)(tmp_path, "stop", **it.gateway.environment)
            stop.arguments = [
                "-m",
                "rateway",
                "stop",
                "--end-sessions",
                "--state-dir",
                str(it.gateway.state_dir),
            ]
            await stop.start()
            assert await stop.exited() == 0
            assert "its sessions ended" in stop.tail()
            assert await it.gateway.exited() == 0
            assert {record.ended for record in it.sim.ledger.sessions.values()} == {"ended by the client"}
            assert written_down(it.gateway.state_dir) == {}
            await it.gateway.start()
            await it.ready()
            await it.all_arrived()
            assert (it.count("identify"), it.count("resume"), it.receipts.gaps) == (4, 0, [])

    run(main())


def has_presence(state_dir: Path, session: str) -> bool:
    """Return whether the session is written down, with a presence."""
    record = written_down(state_dir).get(session)
    return record is not None and record.presence is not None


@pytest.mark.checklist("K33")
@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_presence_that_a_worker_set_is_shown_by_the_identify_after_a_restart_and_a_lost_session(
    tmp_path: Path, broker: Broker, way: str
) -> None:
    async def main() -> None:
        async with (
            witness(broker) as worker,
            stage(tmp_path, broker, shards=1, guilds=3, members=3, PRESENCE='{"status": "idle"}') as it,
        ):
            session = sessions_of(await it.ready())[0]
            assert it.sim.world.app.presence == {"status": "idle", "activities": []}
            # As discord.py writes it.
            d = {
                "activities": [
                    {"type": 0, "name": "a game", "assets": {}, "timestamps": {}, "platform": None}
                ],
                "afk": False,
                "since": 0.0,
                "status": "dnd",
            }
            assert await worker.ask(1, "gateway", {"op": 3, "d": d}, {"shard_id": 0}) == (
                "ok",
                {"shard_id": 0},
            )
            shown = {"status": "dnd", "activities": [{"type": 0, "name": "a game"}]}
            # A command is answered once it is sent; the simulator may not have read it yet.
            while it.sim.world.app.presence != shown:
                await asyncio.sleep(LOOK)
            while way == "kill" and not has_presence(it.gateway.state_dir, session):
                await it.gateway.until(all_live)
            await (it.gateway.stop() if way == "stop" else it.gateway.kill())
            await it.sim.inject(Fault(kind="forget"))
            requests.own_presence(it.sim.world, "online", [])
            await it.gateway.start()
            await it.gateway.until(
                lambda status: all_live(status) and sessions_of(status)[0] not in (None, session)
            )
            assert it.sim.world.app.presence == shown
            await it.gateway.stop()
            # Another setting counts more than what it replaces.
            await it.sim.inject(Fault(kind="forget"))
            it.gateway.environment["PRESENCE"] = '{"status": "invisible"}'
            await it.gateway.start()
            await it.ready()
            assert it.sim.world.app.presence == {"status": "invisible", "activities": []}

    run(main())
