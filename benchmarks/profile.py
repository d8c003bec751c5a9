"""A flame graph of the hot path, and a table of µs by step whose sum is the total.

python -m benchmarks.profile

py-spy samples the gateway while it takes a flood; each sample belongs to the step whose function is innermost on its
stack, and its share of all samples is its share of the CPU time that the kernel counted.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.rig import child, machine
from benchmarks.rig.results import Report, arguments, picture_folder
from benchmarks.rig.streams import Recipe

# Innermost first: the first of a stack's frames that is in the table decides.
STEPS = (
    # Only in plain Python: compiled, a usual event's way from its frame to its run is the event loop's.
    ("native/inflate/", "inflate"),
    ("rateway_protocol/discord/envelope.py", "envelope"),
    ("rateway/session/", "session"),
    ("native/frames/", "messages, and the general path"),
    ("transports/websocket.py", "messages, and the general path"),
    ("rateway/cache/", "cache"),
    ("transports/store/", "cache"),
    ("transports/amqp/events/stream.py", "publish: frames"),
    ("transports/amqp/wire/frames.py", "publish: frames"),
    # Only in plain Python: compiled, the ledger is the publisher's.
    ("native/ledger/", "publish: ledger"),
    ("transports/amqp/events/publisher.py", "publish: write, confirms"),
    ("transports/amqp/wire/connection.py", "publish: write, confirms"),
    ("rateway/runtime/", "runtime"),
)
REST = "event loop, sockets, WebSocket frames; usual events"


def step_of(stack: str) -> str:
    """The step that a stack's innermost known frame belongs to."""
    for frame in reversed(stack.split(";")):
        for part, step in STEPS:
            if part in frame:
                return step
    return REST


def profile(cache: bool, events: int, folder: Path) -> tuple[float, Counter[str], Path]:
    """(µs an event, samples by step, py-spy's raw stacks)."""
    recipe = Recipe(events=events)
    raw = folder / "stacks.txt"
    more = {"CACHE_ENABLED": str(cache).lower()}
    with child.sink() as (_, uri), child.discord(recipe, "zstd") as (discord, port):
        api = f"http://127.0.0.1:{port}/api/v10"
        with child.gateway(folder, api, uri, recipe.shards, **more) as gateway:
            discord.fact("live")
            child.until_quiet([gateway.pid])
            spy = subprocess.Popen(
                f"{Path(sys.executable).with_name('py-spy')} record --rate 500 --format raw --output {raw} "
                f"--pid {gateway.pid} --duration 60".split(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            before = machine.cpu_ns([gateway.pid])
            discord.say(json.dumps({"do": "flood", "events": events}))
            sent = discord.fact("sent")["sent"]
            # To be stopped and looked at 500 times a second costs the idle gateway several milliseconds in each look.
            after, _ = child.until_quiet([gateway.pid], quiet_ms=25.0)
            spy.send_signal(signal.SIGINT)
            spy.wait()
    steps: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        # Threads that wait for work are no part of the path.
        if "MainThread" in stack or "threading.py" not in stack:
            steps[step_of(stack)] += int(count)
    return (after - before) / 1000 / sent, steps, raw


def flame(raw: Path, title: str, path: Path) -> None:
    """The stacks as a flame graph: an SVG that needs nothing else."""
    root: dict[str, list[object]] = {}
    total = 0
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        level, number = root, int(count)
        total += number
        for name in stack.split(";"):
            node = level.setdefault(name, [0, {}])
            node[0] = int(str(node[0])) + number
            level = node[1]  # type: ignore[assignment]  # a node is [samples, nodes below it]
    shapes: list[str] = []
    deepest = _draw(root, 0.0, 0, 1200.0 / max(1, total), shapes)
    height = 18 * (deepest + 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="{height}" '
        f'font-family="monospace" font-size="10">'
        f'<text x="6" y="13">{title}: {total} samples</text>{"".join(shapes)}</svg>\n'
    )


def _draw(level: dict[str, list[object]], x: float, depth: int, scale: float, shapes: list[str]) -> int:
    deepest = depth
    for name, (count, below) in level.items():
        width = int(str(count)) * scale
        if width >= 0.5:
            y = 18 * (depth + 1)
            hue = 20 + hash(name) % 40
            label = name.replace("&", "&amp;").replace("<", "&lt;")
            shown = label[: int(width / 6.2)] if width > 20 else ""
            shapes.append(
                f'<g><title>{label}: {count}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="17" '
                f'fill="hsl({hue},80%,65%)" stroke="white"/><text x="{x + 2:.1f}" y="{y + 12}">{shown}</text></g>'
            )
            assert isinstance(below, dict)
            deepest = max(deepest, _draw(below, x, depth + 1, scale, shapes))
        x += width
    return deepest


def main() -> None:
    """Profile without and with the cache."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--events", type=int, default=40_000, help="events of each of 4 shards")

    options = arguments(__doc__, add)
    report = Report("profile")
    for cache in (False, True):
        report.see_load()
        name = "with the cache" if cache else "without cache"
        with tempfile.TemporaryDirectory() as folder:
            total, steps, raw = profile(cache, options.events, Path(folder))
            picture = picture_folder() / f"flame-{'cache' if cache else 'path'}.svg"
            flame(raw, f"rateway, a flood, {name}", picture)
        samples = sum(steps.values())
        for step, count in steps.most_common():
            report.row(f"{name}: {step}", us=round(total * count / samples, 3), samples=count)
        report.row(f"{name}: total", us=round(total, 3), samples=samples)
    report.write()


if __name__ == "__main__":
    main()
