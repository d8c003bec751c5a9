"""What is read and not confirmed is bounded: connections wait, and are read again as confirms come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from picows import WSListener, WSMsgType, WSTransport, ws_create_server
from rateway.runtime.runner.read_gate import TURN_BYTES, ReadGate
from rateway.transports.spool import Spool
from rateway.transports.websocket import WebSocket, dial
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import QUICK, begun, cluster_on, seqs

from tests.aio import run

MB = 1024 * 1024


class Connection:
    """A connection that brings events whenever it is read."""

    def __init__(self) -> None:
        self.is_waiting = False
        self.waits = 0
        self.unused_buffer = memoryview(b"")

    def wait(self) -> None:
        self.is_waiting = True
        self.waits += 1

    def read_on(self) -> None:
        self.is_waiting = False


def gate_of(count: int, most: int = 4 * MB, longest_wait: float = 60.0) -> tuple[ReadGate, list[Connection]]:
    gate = ReadGate(most, longest_wait)
    connections = [Connection() for _ in range(count)]
    for each in connections:
        gate.add(each)
    return gate, connections


def read(connections: list[Connection]) -> list[int]:
    """The numbers of those that are read."""
    return [number for number, each in enumerate(connections) if not each.is_waiting]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until it is so."""
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


def test_all_wait_from_the_moment_when_too_much_was_read() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(5)
        gate.headroom.take(4 * MB)
        assert read(connections) == [0, 1, 2, 3, 4]
        gate.headroom.take(1)
        assert read(connections) == []

    run(scenario())


def test_the_time_in_which_a_connection_waits_is_counted_once_however_many_wait() -> None:
    now = 50.0

    async def scenario() -> None:
        nonlocal now
        gate = ReadGate(4 * MB, 60.0, clock=lambda: now)
        first, second = Connection(), Connection()
        for each in (first, second):
            gate.add(each)
        now = 60.0
        assert gate.waited == 0
        gate.headroom.take(5 * MB)
        now = 62.0
        assert gate.waited == 2
        # There is room for one of the two; the other still waits.
        gate.discard(first)
        now = 63.0
        assert gate.waited == 3
        gate.discard(second)
        now = 70.0
        assert gate.waited == 3
        gate.add(third := Connection())
        gate.headroom.take(5 * MB)
        assert third.is_waiting
        now = 70.5
        assert gate.waited == 3.5

    run(scenario())


def test_what_connections_do_not_use_is_given_back_whether_they_are_read_or_wait() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(2)
        gate.headroom.take(5 * MB)
        gate.headroom.give(2 * MB)
        assert read(connections) == [0]
        for each in connections:
            each.unused_buffer = memoryview(bytearray(b"x" * MB))
        gate.give_back_unused()
        assert [each.unused_buffer[MB // 2] for each in connections] == [0, 0]

    run(scenario())


def test_confirms_let_as_many_read_as_there_is_room_for_and_those_first_that_have_waited_longest() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(5)
        gate.headroom.take(5 * MB)
        gate.headroom.give(2 * MB - 1)
        assert read(connections) == []
        gate.headroom.give(TURN_BYTES)
        assert read(connections) == [0]
        # What it brings uses the room up again, and the next one has its turn.
        gate.headroom.take(2 * MB)
        assert read(connections) == []
        gate.headroom.give(2 * MB)
        await until(lambda: bool(read(connections)))
        assert read(connections) == [1]

    run(scenario())


def test_those_that_have_nothing_to_read_leave_their_room_to_the_next() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(100)
        gate.headroom.take(5 * MB)
        gate.headroom.give(5 * MB)
        assert len(read(connections)) < 100
        await until(lambda: len(read(connections)) == 100)
        # And all of them wait again at the next flood.
        gate.headroom.take(5 * MB)
        assert read(connections) == []

    run(scenario())


def test_a_connection_that_ended_leaves_its_turn_to_the_next_one() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(3)
        gate.headroom.take(5 * MB)
        gate.discard(connections[0])
        gate.headroom.give(2 * MB)
        assert read(connections) == [1]
        for each in connections:
            gate.discard(each)
        assert not gate.headroom.is_waited_for
        # None waits, so a new one is read, until there is too much again.
        gate.add(new := Connection())
        assert not new.is_waiting
        gate.headroom.take(5 * MB)
        assert new.is_waiting

    run(scenario())


def test_connections_that_begin_while_others_wait_do_not_pass_the_bound_and_are_read_after_those() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(1)
        gate.headroom.take(5 * MB)
        for _ in range(3):
            connections.append(Connection())
            gate.add(connections[-1])
        assert read(connections) == []
        gate.headroom.give(2 * MB)
        assert read(connections) == [0]
        # There is room, and it is that of those that have waited.
        connections.append(Connection())
        gate.add(connections[-1])
        assert read(connections) == [0]
        turns = [0]
        while len(turns) < 5:
            gate.headroom.take(2 * MB)
            assert read(connections) == []
            gate.headroom.give(2 * MB)
            await until(lambda: bool(read(connections)))
            turns += read(connections)
        assert turns == [0, 1, 2, 3, 4]

    run(scenario())


def test_a_connection_that_is_read_stays_so_when_it_is_added_again() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(2)
        gate.headroom.take(5 * MB)
        gate.headroom.give(2 * MB)
        for each in connections:
            gate.add(each)
        assert read(connections) == [0] and [each.waits for each in connections] == [1, 1]

    run(scenario())


def test_a_connection_that_waits_from_its_start_is_overdue_and_read_although_those_before_it_end() -> None:
    now = 50.0

    async def scenario() -> None:
        nonlocal now
        gate = ReadGate(4 * MB, 10.0, clock=lambda: now)
        gate.add(first := Connection())
        gate.headroom.take(5 * MB)
        now = 55.0
        gate.add(new := Connection())
        now = 61.0
        gate.discard(first)
        assert (gate.headroom.is_waited_for, gate.headroom.is_overdue) == (True, False)
        now = 65.0
        gate.discard(first)
        assert (gate.headroom.is_overdue, gate.waited) == (True, 15.0)
        gate.headroom.give(5 * MB)
        assert not new.is_waiting and not gate.headroom.is_waited_for

    run(scenario())


def test_a_wait_of_some_time_is_overdue_until_the_connection_is_read() -> None:
    async def scenario() -> None:
        gate = ReadGate(4 * MB, longest_wait=0.01)
        connection = Connection()
        gate.add(connection)
        gate.headroom.take(5 * MB)
        assert not gate.headroom.is_overdue
        await until(lambda: gate.headroom.is_overdue)
        gate.headroom.give(5 * MB)
        assert not connection.is_waiting and not gate.headroom.is_overdue

    run(scenario())


class Flooded:
    """A connection that is sent 64 KB at once; what it brings is confirmed in the loop's next turn."""

    def __init__(self, gate: ReadGate, most: list[int]) -> None:
        self.received = 0
        self._gate = gate
        self._most = most

    def opened(self, socket: WebSocket) -> None:
        self._gate.add(socket)

    def message(self, data: bytes, binary: bool) -> None:
        headroom = self._gate.headroom
        headroom.take(len(data))
        self._most.append(headroom.size - headroom.bytes)
        self.received += len(data)
        asyncio.get_running_loop().call_soon(headroom.give, len(data))

    def closed(self, code: int | None, reason: str) -> None: ...

    def failed(self, error: Exception) -> None:
        raise error


class Host(WSListener):
    def __init__(self, opened: asyncio.Queue[WSTransport]) -> None:
        self._opened = opened

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._opened.put_nowait(transport)


def test_connections_that_are_ready_in_the_same_turn_of_the_loop_wait_as_well() -> None:
    async def scenario() -> list[int]:
        gate, most = ReadGate(100 * 1024), [0]
        opened: asyncio.Queue[WSTransport] = asyncio.Queue()
        server = await ws_create_server(lambda request: Host(opened), "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        flooded = [Flooded(gate, most) for _ in range(30)]
        for each in flooded:
            await dial(url, each, timeout=60, max_message_bytes=1 << 20, headers={})
        hosts = [await opened.get() for _ in flooded]
        for host in hosts:
            for _ in range(64):
                host.send(WSMsgType.BINARY, bytes(1024))
        await until(lambda: all(each.received == 65536 for each in flooded))
        server.close()
        return most

    # The one that used the room up is read to the end of what it had brought, and no other one begins.
    assert 100 * 1024 < max(run(scenario())) <= (100 + 64) * 1024


def test_a_flood_is_read_no_faster_than_the_broker_confirms_and_nothing_of_it_is_lost() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(2, MB)
        limits = replace(QUICK, spool_after=3600.0)
        async with FakeBroker() as broker, cluster_on(broker, limits, headroom=gate.headroom) as cluster:
            stream, seq, most = begun(cluster.publisher), 0, 0
            while seq < 4_000:
                while read(connections) and seq < 4_000:
                    seq += 1
                    stream.publish("X", b"x" * 2_000, seq, False)
                most = max(most, MB - gate.headroom.bytes)
                await asyncio.sleep(0)
            # One event more than may be; the counted size of what is not written yet is an estimate.
            assert most < 1.1 * MB and connections[0].waits >= 3
            await cluster.all_confirmed()
            await cluster.until(lambda: len(read(connections)) == 2)
            assert gate.headroom.bytes == MB and seqs(broker.received) == list(range(1, 4_001))

    run(scenario())


def test_what_a_broker_does_not_confirm_goes_to_the_spool_and_connections_are_read_again(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        gate, connections = gate_of(2, MB, 0.01)
        # Nothing else would take it there.
        limits = replace(QUICK, spool_after=3600.0)
        spool = Spool(tmp_path, 100 * MB)
        async with (
            FakeBroker(confirm=False) as broker,
            cluster_on(broker, limits, spool, headroom=gate.headroom) as cluster,
        ):
            stream, seq = begun(cluster.publisher), 0
            while read(connections):
                seq += 1
                stream.publish("X", b"x" * 10_000, seq, False)
            assert spool.events == 0
            await cluster.until(lambda: len(read(connections)) == 2)
            assert spool.events == seq and stream.settled == seq and not cluster.publisher.paused

    run(scenario())


def test_while_the_broker_is_away_the_spool_takes_what_is_read_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        gate, connections = gate_of(2, MB)
        limits = replace(QUICK, spool_after=3600.0)
        spool = Spool(tmp_path, 100 * MB)
        async with (
            FakeBroker() as broker,
            cluster_on(broker, limits, spool, headroom=gate.headroom) as cluster,
        ):
            await broker.stop_listening()
            await cluster.until(lambda: not cluster.publisher.connected)
            stream = begun(cluster.publisher)
            for seq in range(1, 1_001):
                stream.publish("X", b"x" * 10_000, seq, False)
                if not read(connections):
                    before = spool.events
                    cluster.publisher.flush()
                    assert spool.events > before
                    await until(lambda: bool(read(connections)))
            await broker.listen()
            await cluster.until(lambda: cluster.publisher.unconfirmed == 0)
            assert seqs(broker.received) == list(range(1, 1_001))

    run(scenario())


def test_where_no_spool_takes_it_either_the_bounds_of_the_cluster_alone_decide() -> None:
    async def scenario() -> None:
        gate, connections = gate_of(2, MB)
        limits = replace(QUICK, bytes=8 * MB)
        async with (
            FakeBroker(confirm=False) as broker,
            cluster_on(broker, limits, headroom=gate.headroom) as cluster,
        ):
            stream, seq = begun(cluster.publisher), 0
            while not cluster.publisher.paused:
                await cluster.until(lambda: len(read(connections)) == 2)
                while len(read(connections)) == 2 and not cluster.publisher.paused:
                    seq += 1
                    stream.publish("X", b"x" * 100_000, seq, False)
                    cluster.publisher.flush()
            assert 8 * MB <= cluster.publisher.unconfirmed_bytes < 9 * MB
            broker.confirm = True
            broker.ack(seq, multiple=True)
            await cluster.until(lambda: not cluster.publisher.paused)
            await cluster.until(lambda: gate.headroom.bytes == MB)

    run(scenario())
