"""Processes that a benchmark starts, speaks with in lines and always ends."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rig import machine
from benchmarks.rig.streams import INTENTS, TOKEN, Recipe

ROOT = Path(__file__).parents[2]
# Longer than anything here takes; a benchmark that hangs says so.
PATIENCE = 60.0
# Between two looks at a process's CPU clock, seconds.
LOOK = 0.02
# A tenth of a core: RabbitMQ's statistics go on while nothing comes.
REST_MS = 20.0


class Hung(RuntimeError):
    """A process did not say or do what was waited for."""


class Child:
    """One process: ``python -m MODULE ARGUMENTS``, or a program by its path; on some of the cores when they are given.

    The gateway is on the core that is measured, or on all when it is several processes.
    """

    def __init__(
        self,
        module: str | Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        cores: set[int] | None = None,
    ) -> None:
        self.module = module
        command = [str(module)] if isinstance(module, Path) else [sys.executable, "-P", "-m", module]
        if module == "rateway" and cores is None:
            alone = (environment or {}).get("PROCESSES") == "1"
            cores = machine.MEASURED if alone else machine.ALL
        self.log = log
        output = log.open("ab") if log is not None else None
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                # Its memory is measured, and profilers look into it.
                "RATEWAY_DEBUGGABLE": "1",
                **(environment or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output is None else output,
            stderr=output,
            text=True,
            preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
        )
        if output is not None:
            output.close()
        self._lines: queue.Queue[str] = queue.Queue()
        if self.process.stdout is not None:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, text: str) -> None:
        """One line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def hear(self, patience: float = PATIENCE) -> str:
        """The next line of its standard output."""
        try:
            return self._lines.get(timeout=patience)
        except queue.Empty:
            raise Hung(f"{self.module} said nothing for {patience:.0f} s{self.tail()}") from None

    def count(self) -> int:
        """How many events it has taken, for those that answer an empty line with that."""
        self.say("")
        return int(self.hear())

    def forget(self) -> None:
        """What it has said so far is of no interest."""
        while not self._lines.empty():
            self._lines.get_nowait()

    def fact(self, name: str, patience: float = PATIENCE) -> Any:
        """The next line of JSON that holds ``name``; the whole of it."""
        while True:
            found = json.loads(self.hear(patience))
            if name in found:
                return found

    def tail(self) -> str:
        """The end of its log."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def end(self) -> None:
        """SIGTERM, SIGKILL after 10 s."""
        for end in (self.process.terminate, self.process.kill):
            end()
            try:
                self.process.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def child(
    module: str | Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    cores: set[int] | None = None,
) -> Iterator[Child]:
    """A child that ends with the block."""
    found = Child(module, *arguments, environment=environment, log=log, cores=cores)
    try:
        yield found
    finally:
        found.end()


@contextmanager
def discord(recipe: Recipe, *compressions: str) -> Iterator[tuple[Child, int]]:
    """The stand-in for Discord, and its port."""
    with child("benchmarks.rig.discord", json.dumps(asdict(recipe)), ",".join(compressions)) as found:
        yield found, found.fact("port")["port"]


@contextmanager
def sink() -> Iterator[tuple[Child, str]]:
    """The broker that takes everything, and its address."""
    with child("benchmarks.path.sink") as found:
        # It sends no heartbeats.
        yield found, f"amqp://guest:guest@127.0.0.1:{int(found.hear())}/?heartbeat=0"


def settings(api_url: str, broker: str, folder: Path, shards: int, **more: str) -> dict[str, str]:
    """The gateway's environment for a benchmark; ``more`` goes over it."""
    return {
        "DISCORD_TOKEN": TOKEN,
        "DISCORD_API_URL": api_url,
        "AMQP_URI": broker,
        "STATE_DIR": str(folder / "state"),
        "INTENTS": str(INTENTS),
        "SHARDS": str(shards),
        "SHARDS_PER_CLUSTER": str(shards),
        "PROCESSES": "1",
        "HTTP_ADDRESS": "",
        "LOG_FORMAT": "text",
        **more,
    }


@contextmanager
def gateway(folder: Path, api_url: str, broker: str, shards: int, **more: str) -> Iterator[Child]:
    """The gateway itself."""
    environment = settings(api_url, broker, folder, shards, **more)
    with child("rateway", environment=environment, log=folder / "gateway.log") as found:
        yield found


def status(folder: Path, environment_path: str = "state") -> dict[str, Any]:
    """What ``rateway status --json`` says; empty when nobody answers."""
    import asyncio

    from rateway.transports import control_socket

    try:
        found: dict[str, Any] = msgspec.json.decode(
            asyncio.run(control_socket.ask(folder / environment_path, "status"))
        )
    except (control_socket.ControlError, msgspec.DecodeError):
        return {}
    return found


def until_quiet(
    pids: list[int],
    *,
    quiet_ms: float = 1.0,
    looks: int = 10,
    patience: float = PATIENCE,
    beside: list[int] | None = None,
) -> tuple[int, float]:
    """Wait until processes do (next to) nothing; their CPU in ns and the time (monotonic) when they ceased.

    Quiet is less than ``quiet_ms`` of CPU in ``looks`` looks together. Those ``beside``, which have still to take what
    these have sent, must rest as well: use less than :data:`REST_MS` meanwhile.
    """
    seen = [(machine.cpu_ns(pids), machine.cpu_ns(beside or []), time.monotonic())]
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(LOOK)
        seen.append((machine.cpu_ns(pids), machine.cpu_ns(beside or []), time.monotonic()))
        if len(seen) > looks:
            cpu, others, _ = seen[-1]
            was, others_were, _ = seen[-1 - looks]
            if cpu - was < quiet_ms * 1e6 and others - others_were < REST_MS * 1e6:
                # The first look that saw almost all of it.
                return cpu, next(at for was, _, at in seen if cpu - was < quiet_ms * 1e6)
    raise Hung(f"{pids} are still at work after {patience:.0f} s")
