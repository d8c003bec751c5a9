"""Start, watch and replace the runner processes of one gateway, which behave together as one.

The supervising process moves no event. It starts the runners (a cluster is never cut), answers their requests for
identify permits, replaces one that died or hangs without touching the others, and ends them in the reverse order of the
start. What happens when each process dies is in docs/architecture.md, "Processes".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import BinaryIO

import msgspec
from rateway import hardening, logs
from rateway.backoff import Backoff
from rateway.config import VARIABLES, Settings
from rateway.config.handover import encode_settings
from rateway.fleet.choice import Choice
from rateway.fleet.layout import spread
from rateway.fleet.membership import Membership
from rateway.fleet.roster import TenureView
from rateway.runtime.answered import Answered
from rateway.runtime.identify.permits import IdentifyPermits
from rateway.runtime.identify.remote import Acquire, Finished, Spent, Withdraw
from rateway.runtime.identify.service import PermitService
from rateway.runtime.startup import Identity
from rateway.runtime.supervisor import ipc
from rateway.runtime.supervisor.ipc import FromRunner, Line
from rateway.runtime.supervisor.liveness import Liveness
from rateway.session.actions import Fatal

log = logging.getLogger(__name__)

# A runner that has died sooner than this after its start, more than a few times in a row, is restarted later and
# later. What kills it again and again takes less time than that; every second away costs Discord's small buffer.
SOUND_AFTER_S = 5.0
RESTARTS_AT_ONCE = 3
RESTART = Backoff(0.1, 30.0)
# A runner's event loop answers what a person asks within milliseconds, unless it stands still.
ANSWERS_WITHIN_S = 5.0
# Silence of so long is a note of the status.
SILENT_AFTER_S = 5.0
# Beyond STOP_TIMEOUT, for writing down and closing.
STOP_GRACE_S = 2.0

__all__ = ["Supervisor", "cores", "how_ended", "pump_lines"]


@dataclass(slots=True, eq=False)
class _RunnerProcess:
    """One runner, over the restarts of its process."""

    number: int
    clusters: list[int]
    process: asyncio.subprocess.Process | None = None
    line: Line | None = None
    liveness: Liveness = field(default_factory=lambda: Liveness(time.monotonic()))
    permits: PermitService | None = None
    restarts: int = 0
    failures: int = 0
    loading: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    elsewhere: list[int] = field(default_factory=list)
    tenures: list[TenureView] = field(default_factory=list)
    beat_at: float = 0.0


class Supervisor:
    """Runs ``clusters`` in runner processes. The same interface as one process's ``Runner``."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        choice: Choice,
        clusters: list[int],
        processes: int,
        permits: IdentifyPermits,
        lock_file: int,
        on_fatal: Callable[[int, Fatal], None],
        membership: Membership | None = None,
    ) -> None:
        self.settings = settings
        self.choice = choice
        self._identity = identity
        self._membership = membership
        self._permits = permits
        self._lock_file = lock_file
        self._on_fatal = on_fatal
        # Given up for other gateways.
        self.drained: set[int] = set()
        self._runners = [
            _RunnerProcess(number, share) for number, share in enumerate(spread(clusters, processes), 1)
        ]
        for runner in self._runners:
            self._doubt(runner)
        self._calls = itertools.count(1)
        self._asked: dict[int, asyncio.Future[ipc.Parts]] = {}
        self._answers: dict[int, asyncio.Future[Answered]] = {}
        # By cluster: how many of its events were left unconfirmed.
        self._draining: dict[int, asyncio.Future[int]] = {}
        # Of lines to processes that have ended.
        self._unreadable_before = 0
        self._stopping = False
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keep every runner running, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for runner in self._runners:
                tasks.create_task(self._keep(runner), name=f"runner {runner.number}")

    async def _keep(self, runner: _RunnerProcess) -> None:
        while not self._stopping:
            await self._one_life(runner)
            if self._is_stopping():
                return
            lived = time.monotonic() - runner.liveness.began_at
            runner.failures = 1 if lived >= SOUND_AFTER_S else runner.failures + 1
            delay = RESTART.delay(runner.failures - RESTARTS_AT_ONCE)
            runner.restarts += 1
            log.error(
                "runner %d ended (%s); starting it again in %.1f s, its shards resume",
                runner.number,
                how_ended(runner.process.returncode if runner.process else None),
                delay,
                extra={"action": "runner_died"},
            )
            await asyncio.sleep(delay)

    def _is_stopping(self) -> bool:
        return self._stopping

    async def _one_life(self, runner: _RunnerProcess) -> None:
        """Start the process, serve it until it has ended, and settle what it left behind."""
        ours, theirs = socket.socketpair()
        runner.liveness = Liveness(time.monotonic())
        runner.process = None
        try:
            process = runner.process = await self._start(theirs)
        except OSError as error:
            # No memory, too many processes: the others go on, and so does this one later.
            log.error("a runner cannot be started: %s", error, extra={"action": "runner_died"})
            ours.close()
            return
        finally:
            theirs.close()
        line = runner.line = await Line.open(ours, FromRunner)
        assert self._tasks is not None
        permits = runner.permits = PermitService(self._permits, line.send, self._tasks.create_task)
        settings = encode_settings(self.settings)
        clusters = [number for number in runner.clusters if number not in self.drained]
        begin = ipc.Begin(
            settings, self._identity, self.choice, clusters, runner.number, self._loading(), self._membership
        )
        line.send(begin)
        assert process.stderr is not None
        before = logs.line_start(sys.stderr, self.settings.log.format).encode()
        pumping = asyncio.create_task(pump_lines(process.stderr, sys.stderr.buffer, before))
        watching = asyncio.create_task(self._watch(runner, process))
        try:
            async for record in line.records():
                line.guard(self._take, runner, line, record)
            await process.wait()
        finally:
            watching.cancel()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            line.close()
            self._unreadable_before += line.unreadable
            runner.line = None
            self._doubt(runner)
            self._tell_loading()
            permits.end(counts=not self._stopping)
            for cluster in runner.clusters:
                # Its process died over it, and will be started without it.
                self._end_drain(cluster, 0)
            await asyncio.wait([pumping], timeout=1.0)
            pumping.cancel()

    async def _start(self, end: socket.socket) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *hardening.child_command("rateway.runtime.supervisor.runner_process", str(end.fileno())),
            # Settings, secrets among them, go over the socket.
            env=hardening.child_environment(os.environ, VARIABLES, logs.redact),
            pass_fds=(end.fileno(), self._lock_file),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # A terminal's Ctrl-C goes to the whole group; the supervisor alone decides.
            start_new_session=True,
        )

    async def _watch(self, runner: _RunnerProcess, process: asyncio.subprocess.Process) -> None:
        """Kill a runner whose loop stands still."""
        while True:
            delay = runner.liveness.look(time.monotonic())
            if not delay:
                break
            await asyncio.sleep(delay)
        log.error(
            "runner %d has not moved for %.0f s: it is killed and replaced",
            runner.number,
            runner.liveness.quiet(time.monotonic()),
            extra={"action": "runner_hangs"},
        )
        process.kill()

    # What a runner says.

    def _take(self, runner: _RunnerProcess, line: Line, record: FromRunner) -> None:
        runner.liveness.hear(time.monotonic())
        match record:
            case ipc.Beat():
                runner.tenures, runner.beat_at = record.tenures, time.monotonic()
                said = (record.loading, record.unreadable, record.elsewhere)
                if said != (runner.loading, runner.unreadable, runner.elsewhere):
                    runner.loading, runner.unreadable, runner.elsewhere = said
                    self._tell_loading()
            case Acquire() | Withdraw() | Spent() | Finished():
                assert runner.permits is not None
                runner.permits.take(record)
            case ipc.FatalWords():
                self._on_fatal(record.shard, Fatal(record.code, record.meaning, record.help))
            case ipc.Parts():
                asked = self._asked.pop(record.call, None)
                if asked is not None and not asked.done():
                    asked.set_result(record)
            case Answered():
                waiting = self._answers.get(record.call)
                if waiting is not None and not waiting.done():
                    waiting.set_result(record)
            case ipc.DialsRefused():
                for other in self._runners:
                    if other is not runner and other.line is not None:
                        other.line.send(record)
            case ipc.Drained():
                self._end_drain(record.cluster, record.left)

    # What is asked of all runners.

    async def parts(self) -> list[ipc.Parts]:
        """Return each runner's part of the status; a runner that does not answer within 2 s is left out."""
        asked = []
        for runner in self._runners:
            if runner.line is not None:
                call = next(self._calls)
                answer = self._asked[call] = asyncio.get_running_loop().create_future()
                runner.line.send(ipc.AskStatus(call))
                asked.append((call, answer))
        if asked:
            await asyncio.wait([answer for _, answer in asked], timeout=2.0)
        for call, _ in asked:
            self._asked.pop(call, None)
        return [answer.result() for _, answer in asked if answer.done() and not answer.cancelled()]

    def progress(self) -> tuple[int, int]:
        """(Live shards, all shards), as the runners last said; in a fleet of the clusters that are owned here."""
        if self._membership is not None:
            views = [view for runner in self._runners for view in runner.tenures]
            return sum(view.live for view in views), sum(view.shards for view in views)
        total = sum(len(self._shards_of(runner)) for runner in self._runners)
        return total - sum(len(runner.loading) for runner in self._runners), total

    def _shards_of(self, runner: _RunnerProcess) -> list[int]:
        layout = self.choice.layout
        running = (number for number in runner.clusters if number not in self.drained)
        return [shard for number in running for shard in layout.shards_of(number)]

    def _doubt(self, runner: _RunnerProcess) -> None:
        """Take it, until its process says otherwise, that none of its shards is live, and in a fleet that another
        gateway runs its clusters: what their stores say may be old.
        """
        runner.loading = self._shards_of(runner)
        runner.tenures = []
        runner.elsewhere = [] if self._membership is None else list(runner.clusters)

    def _loading(self) -> ipc.Loading:
        return ipc.Loading(
            [shard for runner in self._runners for shard in runner.loading],
            {number: why for runner in self._runners for number, why in runner.unreadable.items()},
            sorted({number for runner in self._runners for number in runner.elsewhere} | self.drained),
        )

    def _tell_loading(self) -> None:
        loading = self._loading()
        for runner in self._runners:
            if runner.line is not None:
                runner.line.send(loading)

    def unreadable(self) -> int:
        """Return how many messages of runners were passed over since the start."""
        lines = (runner.line for runner in self._runners)
        return self._unreadable_before + sum(line.unreadable for line in lines if line is not None)

    def silent(self) -> list[str]:
        """Return the operator's notes about runners that are down or silent."""
        now = time.monotonic()
        notes = []
        for runner in self._runners:
            if runner.line is None:
                notes.append(f"runner {runner.number} is down (restarts: {runner.restarts})")
            elif (quiet := runner.liveness.quiet(now)) > SILENT_AFTER_S:
                notes.append(f"runner {runner.number} has been silent for {quiet:.0f} s")
        return notes

    def use_gateway(self, url: str) -> None:
        """Take another address of Discord's gateway, for all runners, also those that start later."""
        self.choice = msgspec.structs.replace(self.choice, gateway_url=url)
        for runner in self._runners:
            if runner.line is not None:
                runner.line.send(ipc.UseGateway(url))

    def identify_fault(self, lasts: bool) -> None:
        """See ``Runner.identify_fault``. A runner that starts later counts its own failures from nought."""
        for runner in self._runners:
            if runner.line is not None:
                runner.line.send(ipc.IdentifyFault(lasts))

    async def restart_shard(self, shard_id: int, new_session: bool, refusal: str) -> Answered | None:
        """See ``Runner.restart_shard``. A runner that is down just now connects all of its shards."""
        number = self.choice.layout.cluster_of(shard_id)
        if self._runner_of(number) is None:
            return None
        call = next(self._calls)
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._answers[call] = answer
        try:
            if not self._tell(number, ipc.RestartShard(call, shard_id, new_session, refusal)):
                why = "its process is down just now; when it is back, all of its shards connect and resume"
                return Answered(False, f"shard {shard_id}: {why}")
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                return await answer
        except TimeoutError:
            return Answered(False, f"shard {shard_id}: its process does not answer")
        finally:
            del self._answers[call]

    @property
    def processes(self) -> int:
        """See ``fleet.member.HeldClusters``."""
        return len(self._runners)

    def tenure_views(self) -> list[TenureView]:
        """See ``fleet.member.HeldClusters``: as the runners last said."""
        now = time.monotonic()
        return [
            msgspec.structs.replace(
                view,
                held_for=view.held_for + now - runner.beat_at,
                record_age=None if view.record_age is None else view.record_age + now - runner.beat_at,
            )
            for runner in self._runners
            for view in runner.tenures
        ]

    def move(self, cluster: int, to: str) -> bool:
        """See ``fleet.member.HeldClusters``."""
        return self._tell(cluster, ipc.Move(cluster, to))

    def renew_shard(self, shard_id: int, why: str) -> bool:
        """Give one shard's session up for a new one, told as a gap; whether it runs here."""
        return self._tell(self.choice.layout.cluster_of(shard_id), ipc.RenewShard(shard_id, why))

    async def drain(self, cluster: int) -> int | None:
        """See ``Runner.drain``. A runner that dies meanwhile is started again without the cluster."""
        if self._runner_of(cluster) is None:
            return None
        drained: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._draining[cluster] = drained
        if not self._tell(cluster, ipc.Drain(cluster)):
            self._end_drain(cluster, 0)
        self.drained.add(cluster)
        return await drained

    def _end_drain(self, cluster: int, left: int) -> None:
        draining = self._draining.pop(cluster, None)
        if draining is not None and not draining.done():
            draining.set_result(left)

    def reload(self, settings: Settings) -> None:
        """Hand changed settings to every runner."""
        self.settings = settings
        for runner in self._runners:
            if runner.line is not None:
                runner.line.send(ipc.Reload(encode_settings(settings)))

    def _runner_of(self, cluster: int) -> _RunnerProcess | None:
        """Return the runner of a cluster, whether its process is up or not."""
        if cluster in self.drained:
            return None
        return next((runner for runner in self._runners if cluster in runner.clusters), None)

    def _tell(self, cluster: int, record: ipc.ToRunner) -> bool:
        runner = self._runner_of(cluster)
        if runner is None or runner.line is None:
            return False
        runner.line.send(record)
        return True

    async def wind_down(self, *, end_sessions: bool, to: Mapping[int, str] = MappingProxyType({})) -> None:
        """Stop the runners in the reverse order of the start, all at once in time."""
        self._stopping = True
        waiting = []
        for runner in reversed(self._runners):
            if runner.line is not None and runner.process is not None:
                runner.line.send(ipc.Stop(end_sessions, dict(to)))
                waiting.append(asyncio.ensure_future(runner.process.wait()))
        if waiting:
            await asyncio.wait(waiting, timeout=self.settings.process.stop_timeout + STOP_GRACE_S)
        for runner in self._runners:
            if runner.process is not None and runner.process.returncode is None:
                log.error("runner %d does not stop: it is killed", runner.number, extra={"action": "stop"})
                runner.process.kill()
        for waiter in waiting:
            await waiter

    def close(self) -> None:
        """Do nothing: stores and spools belong to the runners."""


def how_ended(code: int | None) -> str:
    """How a child process ended, in words; None: it was never started."""
    if code is None:
        return "never started"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


async def pump_lines(reader: asyncio.StreamReader, out: BinaryIO, before: bytes) -> None:
    """Copy a child's log to *out*, whole lines only, each preceded by *before*."""
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            continue  # a line beyond the reader's bound: dropped
        if not line:
            return
        with contextlib.suppress(OSError, ValueError):
            out.write(before + (line if line.endswith(b"\n") else line + b"\n"))
            out.flush()


def cores() -> int:
    """Return cores that affinity and the container's quota (cgroup v2 cpu.max) leave to this process."""
    available = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            available = min(available, max(1, int(quota) // int(period)))
    return max(1, available)
