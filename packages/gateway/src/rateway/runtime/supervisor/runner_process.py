"""One runner process: it runs its share of the clusters, and ends with its supervisor.

A program of its own (``python -P -m rateway.runtime.supervisor.runner_process``). It imports nothing that it does not
need: after a crash its shards wait for it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys

import msgspec
import uvloop
from rateway import hardening, logs
from rateway.config.handover import decode_settings
from rateway.runtime.answered import Answered
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.identify.remote import Permitted, RemotePermits
from rateway.runtime.ignored_signals import say_ignored_signals
from rateway.runtime.monitoring.loop_lag import LoopLag
from rateway.runtime.runner.collect import collect
from rateway.runtime.runner.memory import tune_garbage_collection
from rateway.runtime.runner.runner import Runner
from rateway.runtime.supervisor import ipc
from rateway.runtime.supervisor.ipc import Line, ToRunner
from rateway.session.actions import Fatal, State
from rateway.transports.state import StateDir

log = logging.getLogger(__name__)

BEAT_EVERY_S = 1.0
# Looks between two beats whether a cluster's tenure has changed, in a fleet.
LOOKS_A_BEAT = 5
# A supervisor replaces a runner whose loop stands still for 20 s. Without one it is not replaced, and the lock of the
# state folder would stay with it for good: a thread of the interpreter's own, which needs nothing of ours, ends it.
ENDS_ITSELF_AFTER_S = 40.0

__all__ = ["beat", "work"]


def work(descriptor: int) -> int:
    """Run one runner process; ``descriptor`` is its end of the socket pair to the supervisor. The exit code."""
    end = socket.socket(fileno=descriptor)
    # The supervisor alone decides; a stop reaches the runner over the line.
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    hardening.ignore_ending_signals()
    hardening.keep_memory_private()
    return uvloop.run(_work(end))


async def _work(end: socket.socket) -> int:
    line, begin = await _first_words(end)
    if begin is None:
        return 0
    settings = decode_settings(begin.settings)
    logs.configure(
        settings.log.level, settings.log.format, secrets=settings.secrets(), process=f"runner {begin.number}"
    )
    say_ignored_signals(asyncio.get_running_loop())
    tune_garbage_collection()
    return await _run(line, begin)


async def _first_words(end: socket.socket) -> tuple[Line, ipc.Begin | None]:
    """Return the line to the supervisor, and its first record; None when the supervisor has ended already."""
    line = await Line.open(end, ToRunner)
    async for record in line.records():
        if isinstance(record, ipc.Begin):
            return line, record
    return line, None


async def _run(line: Line, begin: ipc.Begin) -> int:
    """Run the clusters that ``begin`` names until the supervisor stops this runner or ends; return the exit code."""
    settings = decode_settings(begin.settings)
    permits = RemotePermits(line)

    def on_fatal(shard_id: int, order: Fatal) -> None:
        line.send(ipc.FatalWords(shard_id, order.code, order.meaning, order.help))

    state = StateDir.shared(settings.process.state_dir)
    elections, part = None, None
    if begin.membership is not None:
        # What a runner without a fleet does not load.
        from rateway.runtime.fleet.opening import open_elections

        elections = open_elections(settings, begin.membership)
        part = FleetPart(begin.membership, elections)
    runner = Runner(settings, state, begin.identity, begin.choice, begin.clusters, permits, on_fatal, part)
    runner.cache.learn(begin.others.shards, begin.others.unreadable, begin.others.elsewhere)
    runner.dialer.on_refusal = lambda host, seconds, status: line.send(
        ipc.DialsRefused(host, seconds, status)
    )
    watch = LoopLag()
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(runner.run()),
                tasks.create_task(beat(line, runner)),
                tasks.create_task(watch.run()),
            ]
            if elections is not None:
                running.append(tasks.create_task(elections.run()))
            stop = await _listen(line, runner, permits, watch, f"runner {begin.number}")
            await runner.wind_down(end_sessions=stop.end_sessions, to=stop.to)
            for task in running:
                task.cancel()
    finally:
        runner.close()
        faulthandler.cancel_dump_traceback_later()
    return 0


async def _drain(line: Line, runner: Runner, number: int) -> None:
    line.send(ipc.Drained(number, await runner.drain(number) or 0))


async def beat(line: Line, runner: Runner) -> None:
    """Say every BEAT_EVERY_S seconds that the loop runs, until cancelled. The process ends itself when the loop stands
    still for ENDS_ITSELF_AFTER_S.
    """
    # Where it stood is not logged.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    while True:
        faulthandler.dump_traceback_later(ENDS_ITSELF_AFTER_S, exit=True, file=nowhere)
        shards = [shard for cluster in runner.clusters.values() for shard in cluster.shards.values()]
        loading = [shard.shard_id for shard in shards if shard.conversation.state is not State.LIVE]
        views = runner.tenure_views()
        line.send(ipc.Beat(loading, runner.cache.unreadable(), sorted(runner.cache.gone()), views))
        shape = [each.shape for each in views]
        for _ in range(LOOKS_A_BEAT if runner.fleet is not None else 1):
            await asyncio.sleep(BEAT_EVERY_S / (LOOKS_A_BEAT if runner.fleet is not None else 1))
            # The other members wait for it.
            if [each.shape for each in runner.tenure_views()] != shape:
                break


async def _listen(line: Line, runner: Runner, permits: RemotePermits, watch: LoopLag, role: str) -> ipc.Stop:
    """Carry out the supervisor's records until it stops this runner, or its end of the line closes; return how it is to
    stop.
    """
    draining: set[asyncio.Future[None]] = set()

    def carry_out(record: ToRunner) -> None:
        match record:
            case Permitted():
                permits.answered(record)
            case ipc.AskStatus():
                clusters, shards, process, notes = collect(runner, watch, role)
                process = msgspec.structs.replace(process, messages_unread=line.unreadable)
                line.send(ipc.Parts(record.call, clusters, shards, process, notes))
            case ipc.RestartShard():
                found = runner.restart(record.shard, record.new_session, record.refusal)
                found = found or Answered(False, f"shard {record.shard} does not run here")
                line.send(Answered(found.done, found.words, record.call))
            case ipc.Loading():
                runner.cache.learn(record.shards, record.unreadable, record.elsewhere)
            case ipc.DialsRefused():
                runner.dialer.hold(record.host, record.seconds, record.status)
            case ipc.IdentifyFault():
                runner.identify_fault(record.lasts)
            case ipc.UseGateway():
                runner.use_gateway(record.url)
            case ipc.RenewShard():
                runner.renew_shard(record.shard, record.why)
            case ipc.Move():
                runner.move(record.cluster, record.to)
            case ipc.Drain():
                # Beside this: permits and questions of the other clusters do not wait for it.
                draining.add(asyncio.ensure_future(_drain(line, runner, record.cluster)))
            case ipc.Reload():
                runner.reload(decode_settings(record.settings))

    async for record in line.records():
        if isinstance(record, ipc.Stop):
            return record
        line.guard(carry_out, record)
    log.warning("the supervising process is gone: closing, sessions are kept", extra={"action": "orphaned"})
    return ipc.Stop(False)


if __name__ == "__main__":
    sys.exit(work(int(sys.argv[1])))
