"""Several runs side by side, each with a seed, a broker and a simulated Discord of its own, in a process of its own.

What a fault costs is mostly waiting (for a broker that starts, for a back-off), so two runs on two cores take little
longer than one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.chaos.runner import Result

__all__ = ["ROOT", "run_lanes"]

ROOT = Path(__file__).parents[2]


async def run_lanes(
    out: Path,
    faults: int,
    seed: int,
    processes: tuple[int, ...],
    *,
    kinds: str = "",
    say: Callable[[str], None] = lambda words: None,
) -> list[Result]:
    """One lane for each number of ``processes``; lane n has the seed ``seed`` + n and its share of the faults. Every
    second one, the first among them, has an event log, and a bot behind two proxies: both are audited as well.

    AssertionError with its last words when a lane ends without a result.
    """
    shares = [faults // len(processes) + (lane < faults % len(processes)) for lane in range(len(processes))]
    async with asyncio.TaskGroup() as tasks:
        lanes = [
            tasks.create_task(
                _lane(
                    out / f"lane-{lane}",
                    shares[lane],
                    seed + lane,
                    number,
                    kinds,
                    lane % 2 == 0,
                    say if len(processes) == 1 else _marked(say, seed + lane),
                )
            )
            for lane, number in enumerate(processes)
        ]
    return [lane.result() for lane in lanes]


def _marked(say: Callable[[str], None], seed: int) -> Callable[[str], None]:
    return lambda words: say(f"[seed {seed}] {words}")


async def _lane(
    out: Path, faults: int, seed: int, processes: int, kinds: str, event_log: bool, say: Callable[[str], None]
) -> Result:
    out.mkdir(parents=True, exist_ok=True)
    found = out / "result.json"
    found.unlink(missing_ok=True)
    arguments = [
        *("--faults", str(faults), "--seed", str(seed), "--processes", str(processes)),
        *("--kinds", kinds, "--out", str(out), "--lane"),
        *(["--event-log"] if event_log else []),
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "tests.chaos", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    last: list[str] = []
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            words = line.decode(errors="replace").rstrip()
            last = [*last[-40:], words]
            say(words)
        await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert found.exists(), f"the run with seed {seed} ended with {process.returncode}:\n" + "\n".join(last)
    return msgspec.json.decode(found.read_bytes(), type=Result)
