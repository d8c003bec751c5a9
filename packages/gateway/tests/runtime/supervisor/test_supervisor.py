"""How clusters are spread over processes, and what crosses between them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway import hardening
from rateway.config import load
from rateway.config.handover import decode_settings, encode_settings
from rateway.fleet.choice import Choice
from rateway.fleet.layout import Layout, spread
from rateway.runtime.identify.permits import IdentifyPermits, Refusal
from rateway.runtime.identify.remote import Acquire, Permitted, RefusalWords, RemotePermits, Spent, Withdraw
from rateway.runtime.startup import Identity
from rateway.runtime.supervisor import ipc
from rateway.runtime.supervisor.ipc import FromRunner, Line, ToRunner
from rateway.runtime.supervisor.liveness import HANGS_AFTER_S, LOOK_EVERY_S, Liveness
from rateway.runtime.supervisor.supervisor import Supervisor, cores
from rateway.session.actions import Fatal

from tests.aio import run


@given(st.integers(1, 200), st.integers(1, 64))
def test_every_cluster_runs_in_exactly_one_process_and_shares_are_even(clusters: int, processes: int) -> None:
    shares = spread(range(1, clusters + 1), processes)
    assert [number for share in shares for number in share] == list(range(1, clusters + 1))
    assert len(shares) == min(processes, clusters)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_a_machine_has_at_least_one_core() -> None:
    assert cores() >= 1


def test_settings_reach_a_runner_complete_and_secrets_stay_wrapped() -> None:
    given_settings = load(
        None,
        {
            "DISCORD_TOKEN": "a.b.c",
            "INTENTS": "GUILDS,GUILD_MESSAGES",
            "AMQP_URI": "amqp://user:password@localhost/",
            "EVENTS": "MESSAGE_CREATE,READY",
            "SHARDS": "32",
            "CLUSTERS": "1-2",
            "PRESENCE": '{"status": "online", "activities": [{"name": "shard {shard}", "type": 0}]}',
        },
    )
    arrived = decode_settings(encode_settings(given_settings))
    assert arrived == given_settings
    assert "password" not in repr(arrived)
    assert arrived.session.token.reveal() == "a.b.c"


async def line_pair() -> tuple[Line, Line]:
    ours, theirs = socket.socketpair()
    return await Line.open(ours, FromRunner), await Line.open(theirs, ToRunner)


def test_a_runner_asks_its_supervisor_for_permits_and_hears_refusals() -> None:
    async def scenario() -> tuple[Refusal | None, Refusal | None]:
        supervisor, runner = await line_pair()
        permits = RemotePermits(runner)

        async def supervise() -> None:
            async for record in supervisor.records():
                match record:
                    case Acquire(call, shard, lost):
                        assert (shard, lost) == (7, True)
                        supervisor.send(Permitted(call, None))
                    case Spent(call, _):
                        refusal = RefusalWords("ledger", 30.0, "the disk is full")
                        supervisor.send(Permitted(call, refusal))
                        return

        async def hear() -> None:
            async for record in runner.records():
                permits.answered(record)

        supervising, hearing = asyncio.create_task(supervise()), asyncio.create_task(hear())
        granted = await permits.acquire(7, lost=True)
        refused = await permits.spent(7)
        await supervising
        hearing.cancel()
        return granted, refused

    granted, refused = run(scenario())
    assert granted is None
    assert refused is not None
    assert refused.why == "the disk is full"


def test_a_cancelled_request_is_withdrawn() -> None:
    async def scenario() -> list[object]:
        supervisor, runner = await line_pair()
        asking = asyncio.create_task(RemotePermits(runner).acquire(3, lost=False))
        heard = []
        async for record in supervisor.records():
            heard.append(record)
            if isinstance(record, Acquire):
                asking.cancel()
            else:
                break
        return heard

    asked, withdrawn = run(scenario())
    assert isinstance(asked, Acquire)
    assert withdrawn == Withdraw(asked.call, 3)


def test_the_end_of_a_line_ends_its_records() -> None:
    async def scenario() -> list[object]:
        supervisor, runner = await line_pair()
        supervisor.send(ipc.Stop(False))
        supervisor.close()
        return [record async for record in runner.records()]

    assert run(scenario()) == [ipc.Stop(False)]


@pytest.mark.parametrize("stood_still", [0.0, 3600.0])
def test_a_supervisor_that_stood_still_itself_holds_it_against_no_runner(stood_still: float) -> None:
    liveness = Liveness(100.0)
    liveness.hear(101.0)
    now = 101.0
    while delay := liveness.look(now):
        now += delay
        if now == 103.0:
            now += stood_still
    assert now - stood_still == pytest.approx(101.0 + HANGS_AFTER_S, abs=2 * LOOK_EVERY_S)


def test_a_runner_that_still_starts_has_longer_than_one_that_has_spoken() -> None:
    starting, silent = Liveness(0.0), Liveness(0.0)
    silent.hear(0.0)
    for second in range(1, int(HANGS_AFTER_S)):
        assert starting.look(float(second)) > 0 and silent.look(float(second)) > 0
    assert silent.look(HANGS_AFTER_S) == 0 < starting.look(HANGS_AFTER_S)


def test_the_supervising_process_loads_nothing_of_what_moves_events_or_serves_http() -> None:
    """It holds no cluster: what its runners and its optional server need would only cost it memory."""
    look = "import sys, rateway.app; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "rateway.runtime.supervisor.supervisor" in loaded
    unwanted = {"aiohttp", "picows", "prometheus_client", "rich", "zlib_ng", "rateway.runtime.runner.runner"}
    assert unwanted.isdisjoint(loaded)


HANGING = """
import asyncio, time
from rateway.runtime.supervisor import runner_process

class Cache:
    def unreadable(self): return {}
    def gone(self): return ()

class Nothing:
    clusters = {}
    cache = Cache()
    fleet = None
    def tenure_views(self): return []
    def send(self, record): print("beat", flush=True)

async def main():
    runner_process.ENDS_ITSELF_AFTER_S = 0.5
    beating = asyncio.ensure_future(runner_process.beat(Nothing(), Nothing()))
    await asyncio.sleep(0)
    time.sleep(3600)

asyncio.run(main())
"""


def test_a_runner_that_hangs_when_nobody_supervises_it_ends_itself() -> None:
    """Else the lock of the state folder would stay with an orphan, and no gateway could start."""
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=200)
    assert ended.stdout == "beat\n"
    assert (ended.returncode, ended.stderr) == (1, "")


async def hostile_line(data: bytes) -> list[object]:
    """The records that a supervisor reads when a runner has written these bytes, and then one that is sound."""
    ours, theirs = socket.socketpair()
    line = await Line.open(ours, FromRunner)
    _, writer = await asyncio.open_unix_connection(sock=theirs)
    writer.write(data + b"\n" + msgspec.json.encode(Withdraw(1, 2)) + b"\n")
    writer.write_eof()
    found = [record async for record in line.records()]
    writer.close()
    line.close()
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda tag, fields: json.dumps({"type": tag, **fields}).encode(),
            st.sampled_from(["Acquire", "Beat", "Parts", "Drained", "Nothing", "DialsRefused"]),
            st.dictionaries(
                st.sampled_from(["call", "shard", "lost", "seconds", "x"]), st.integers() | st.text()
            ),
        )
        | st.integers(1, 3000).map(lambda deep: b'{"type":"Beat","x":' + b"[" * deep + b"]" * deep + b"}"),
        max_size=8,
    )
)
def test_a_line_that_is_no_record_is_passed_over_and_the_next_one_is_read(lines: list[bytes]) -> None:
    assert run(hostile_line(b"\n".join(lines)))[-1] == Withdraw(1, 2)


def test_a_line_that_is_too_long_is_passed_over_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ipc, "MAX_LINE_BYTES", 4096)
    assert run(hostile_line(b'"' + b"x" * 100_000 + b'"')) == [Withdraw(1, 2)]


def test_a_record_that_cannot_be_carried_out_ends_nothing() -> None:
    async def scenario() -> tuple[list[int], int]:
        ours, runner = await line_pair()
        carried: list[int] = []

        def carry_out(record: Withdraw) -> None:
            if record.shard == 1:
                raise KeyError(record.shard)
            carried.append(record.shard)

        for shard in (0, 1, 2):
            runner.send(Withdraw(7, shard))
        runner.close()
        async for record in ours.records():
            ours.guard(carry_out, record)
        return carried, ours.unreadable

    assert run(scenario()) == ([0, 2], 1)


def test_a_process_that_does_not_read_is_given_up_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ipc, "MAX_LINE_BYTES", 1 << 20)

    async def scenario() -> list[object]:
        ours, theirs = socket.socketpair()
        line = await Line.open(ours, FromRunner)
        record = ipc.UseGateway("x" * 10_000)
        for _ in range(10_000):
            line.send(record)
        # To be given up is the end of the line, for us as well; else this would wait for ever.
        async with asyncio.timeout(60):
            found = [each async for each in line.records()]
        theirs.close()
        return found

    assert run(scenario()) == []


# A runner process that says one thing that is no record, and then that a shard's session ended for good; it ends when
# the supervisor says where the gateway is.
GARBLED = """
import socket, sys
end = socket.socket(fileno=int(sys.argv[1]))
lines = end.makefile("rb")
lines.readline()
end.sendall(b'{"type":"Beat"}\\n{"type":"FatalWords","shard":1,"code":4004,"meaning":"m","help":"h"}\\n')
lines.readline()
"""


# A runner process that says as a shard's last words which shards it was told at its start are not live.
KNOWING = """
import json, socket, sys
end = socket.socket(fileno=int(sys.argv[1]))
begin = json.loads(end.makefile("rb").readline())
known = str(begin["others"]["shards"])
words = {"type": "FatalWords", "shard": begin["number"], "code": 4004, "meaning": known, "help": ""}
end.sendall(json.dumps(words).encode() + b"\\n")
end.recv(1)
"""


@asynccontextmanager
async def supervised(
    program: str, clusters: int, on_fatal: Callable[[int, Fatal], None], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Supervisor]:
    """A supervisor of one runner for each cluster, of one shard each; its runners run *program*."""

    def command(module: str, descriptor: str) -> list[str]:
        return [sys.executable, "-c", program, descriptor]

    monkeypatch.setattr("rateway.hardening.child_command", command)
    lock = os.open(os.devnull, os.O_RDONLY)
    try:
        supervisor = Supervisor(
            load(None, {"DISCORD_TOKEN": "a.b.c", "INTENTS": "GUILDS", "AMQP_URI": "amqp://localhost/"}),
            Identity("bot", "settings"),
            Choice(Layout(clusters, 1), "ws://127.0.0.1:1", ""),
            list(range(1, clusters + 1)),
            clusters,
            cast(IdentifyPermits, None),  # no shard asks for one
            lock,
            on_fatal,
        )
        running = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            running.cancel()
            await asyncio.wait([running])
    finally:
        os.close(lock)


def test_a_runner_knows_from_its_first_moment_which_shards_of_the_others_are_not_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> set[tuple[int, str]]:
        told: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

        def on_fatal(runner: int, order: Fatal) -> None:
            told.put_nowait((runner, order.meaning))

        async with supervised(KNOWING, 2, on_fatal, monkeypatch):
            return {await told.get(), await told.get()}

    assert run(scenario()) == {(1, "[0, 1]"), (2, "[0, 1]")}


def test_what_runner_processes_say_and_nobody_can_read_is_counted_over_their_restarts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> list[int]:
        told: asyncio.Queue[int] = asyncio.Queue()
        counts = []
        async with supervised(
            GARBLED, 1, lambda shard, order: told.put_nowait(shard), monkeypatch
        ) as supervisor:
            for _ in range(3):
                await told.get()
                counts.append(supervisor.unreadable())
                supervisor.use_gateway("ws://127.0.0.1:2")
        return counts

    assert run(scenario()) == [1, 2, 3]


def test_a_runner_process_tells_its_supervisor_how_much_it_could_not_read(tmp_path: Path) -> None:
    async def scenario() -> int:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *hardening.child_command("rateway.runtime.supervisor.runner_process", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=ipc.MAX_LINE_BYTES)
        given_settings = load(
            None,
            {
                "DISCORD_TOKEN": "a.b.c",
                "INTENTS": "GUILDS",
                "AMQP_URI": "amqp://127.0.0.1:1/",
                "STATE_DIR": str(tmp_path),
            },
        )
        begin = ipc.Begin(
            encode_settings(given_settings),
            Identity("bot", "settings"),
            Choice(Layout(1, 1), "ws://127.0.0.1:1", ""),
            [1],
            1,
            ipc.Loading([0]),
        )
        lines = [
            msgspec.json.encode(begin),
            b"garbage",
            b'{"type":"RestartShard","call":"7"}',
            msgspec.json.encode(ipc.AskStatus(7)),
        ]
        writer.write(b"\n".join(lines) + b"\n")
        status = None
        while status is None:
            record = msgspec.json.decode(await reader.readline(), type=FromRunner)
            if isinstance(record, ipc.Parts):
                status = record
        writer.close()
        await process.wait()
        return status.process.messages_unread

    assert run(scenario()) == 2
