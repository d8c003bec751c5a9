"""Tables and pictures of results: ``python -m benchmarks.tables [RESULTS.json] [--write]``

Prints the tables of a file of results, or of the last runs here. ``--write`` puts those of ``benchmarks/results.json``
into the pages that show them, between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``, and draws their
pictures. No figure between these marks is written by hand; ``tests/test_figures.py`` holds the pages to the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.path.__main__ import Variant
from benchmarks.peers.__main__ import (
    CLIENT,
    GATEWAYS,
    GO,
    LAPIN,
    LOADS,
    OURS,
    PROXY,
    QUEUES,
    Load,
    variant_of,
)
from benchmarks.rig import pictures
from benchmarks.rig.results import PUBLISHED, destination, ratio

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "fleet.md")
BLOCK = re.compile(r"<!-- figures: ([\w-]+) -->\n(.*?)<!-- end of figures -->", re.DOTALL)
# (compression, cache, shards, paced) → the most that ours may cost into the sink, × floor.
TO_REACH = {
    ("zstd", "off", 4, False): 3.5,
    ("zstd", "all", 4, False): 6.5,
    ("zlib", "off", 4, False): 3.0,
    ("zlib", "all", 4, False): 5.0,
    ("zstd", "off", 64, True): 12.0,
    ("zstd", "all", 64, True): 16.0,
}
# What ours without its cache may take of a peer: (peer, shards, events a second a shard or None) → ratio.
OF_A_PEER: dict[tuple[str, int, float | None], float] = {
    (QUEUES, 4, None): 0.75,
    (QUEUES, 64, 50): 1.0,
    (QUEUES, 4, 400): 1.0,
    (QUEUES, 64, 20): 1.1,
    (QUEUES, 256, 20): 0.9,
    (LAPIN, 4, None): 0.4,
    (LAPIN, 64, 50): 0.5,
    (LAPIN, 4, 400): 0.6,
}
# Scene of a fleet → the most seconds that shards may take to be live elsewhere, events to pause, and a query to be
# without an answer; None: nothing is to be reached.
OF_A_FLEET: dict[str, tuple[float | None, float | None, float | None]] = {
    **dict.fromkeys(("sigterm", "drain", "move", "rolling_upgrade"), (1.0, None, 1.0)),
    "kill": (5.0, None, 20.0),
    **dict.fromkeys(("frozen", "cut_from_broker", "network_gone"), (20.0, None, 20.0)),
    **dict.fromkeys(("node_killed", "node_partitioned", "nodes_restarted"), (None, 15.0, 20.0)),
    "broker_away": (75.0, None, None),
}
NAMES = {
    PROXY: "the barest proxy (twilight, Rust), no broker",
    QUEUES: "proxy by queues, as gateway-proxy (twilight, Rust), no broker",
    LAPIN: "twilight and lapin (Rust)",
    GO: "discordgo and amqp091-go (Go)",
}
# For the picture, where room is short.
SHORT = {
    (OURS, "off"): "rateway",
    (OURS, "all"): "rateway with its cache",
    (QUEUES, "off"): "proxy by queues (Rust),\nno broker",
    (LAPIN, "off"): "twilight and lapin (Rust)",
    (GO, "off"): "discordgo and\namqp091-go (Go)",
}
BROKERS = {"sink": "sink", "rabbitmq": "RabbitMQ", CLIENT: "its client"}

Results = dict[str, Any]
Row = dict[str, Any]


def number(value: float) -> str:
    """Two digits that count, more where there are more before the point."""
    if value == 0 or abs(value) >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2g}"


def median(value: Any) -> float:
    """The middle of a figure, which may be a single one."""
    return float(value["median"] if isinstance(value, dict) else value)


def figure(value: Any) -> str:
    """Median, and the extremes where there are several runs."""
    if not isinstance(value, dict):
        return number(value)
    if len(value["runs"]) < 2 or value["low"] == value["high"]:
        return number(value["median"])
    return f"{number(value['median'])} ({number(value['low'])}–{number(value['high'])})"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown, its columns as wide as they need to be read as text; columns without a word are left out."""
    body = list(rows)
    kept = [place for place, _ in enumerate(head) if place == 0 or any(row[place] for row in body)]
    cells = [[row[place] for place in kept] for row in [head, *body]]
    widths = [max(3, *(len(row[place]) for row in cells)) for place, _ in enumerate(kept)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return (
        "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"
    )


def provenance(report: Results) -> str:
    """Where and when a report was made, as one paragraph."""
    counts = sorted({len(row["rounds"]) for row in report["rows"] if "rounds" in row})
    made = report["machine"]
    day = report["when"][:10]
    changed = " (with changes)" if made.get("changed") else ""
    others = report["others"] or [0.0]
    rounds = f"{'–'.join(map(str, sorted({counts[0], counts[-1]})))} rounds in turns, " if counts else ""
    return (
        f"`{report['command']}`: {rounds}{day}, commit `{made['commit']}`{changed}, {made['cpu']}, "
        f"{made['cores']} cores, Python {made['python']}, {made['form']}; other programs used "
        f"{statistics.mean(others):.0%} of the cores meanwhile, at most {max(others):.0%}"
        f"{': **disturbed**' if report['noisy'] else ''}.\n"
    )


# The path and the peers


def load_of(shards: int, rate: float | None) -> str:
    """A load in words."""
    return f"{shards:,} shards flat out" if rate is None else f"{shards:,} × {rate:g}/s"


def missing(row: Row) -> str:
    """What did not arrive was not paid for."""
    lost = row["missing"]["high"] if "missing" in row else 0
    return f" (up to {lost:g} events of a round did not arrive)" if lost > 0 else ""


def name_of(variant: dict[str, Any]) -> str:
    """A gateway without its load."""
    who = variant["who"]
    if who != OURS:
        return NAMES.get(who, f"{who} with its cache and aio-pika")
    caches = {
        "off": "no cache",
        "on": "cache, members by their own events",
        "all": "cache, members from all events",
    }
    more = "".join(f", `{key}={value}`" for key, value in variant["settings"].items())
    later = ", as many events later" if variant["known"] else ""
    return f"{variant['compression']}, {caches[variant['cache']]}{later}{more}"


def path(results: Results) -> str:
    """CPU of the whole gateway, and of those that one would write in Python."""
    rows = results["path"]["rows"]
    body = []
    for row in rows:
        variant = row["variant"]
        key = (variant["compression"], variant["cache"], variant["shards"], variant["rate"] is not None)
        is_ours = variant["who"] == OURS and variant["broker"] == "sink" and not variant["settings"]
        goal = TO_REACH.get(key) if is_ours else None
        reach = (
            "" if goal is None else number(goal) + ("" if median(row["ratio"]) <= goal else ": **missed**")
        )
        slept = f"{median(row['us']) / median(row['paced_floor_us']):.1f}" if "paced_floor_us" in row else ""
        plain = next((each for each in rows if _is_plain(each["variant"], variant)), None)
        times = ratio(row, plain) if plain is not None and variant["who"] != OURS else None
        body.append(
            [
                f"{name_of(variant)}, {load_of(variant['shards'], variant['rate'])} → {BROKERS[variant['broker']]}"
                + missing(row),
                figure(row["us"]),
                figure(row["ratio"]),
                reach,
                slept,
                number(median(row["events_per_s"])),
                figure(times) if times else "",
            ]
        )
    head = ["Gateway", "µs", "× floor", "to reach", "× a floor that sleeps", "events/s", "× ours"]
    return table(head, body) + "\n" + provenance(results["path"])


def _is_plain(ours: dict[str, Any], variant: dict[str, Any]) -> bool:
    same = all(ours[key] == variant[key] for key in ("rate", "shards", "broker"))
    return (
        same and ours["who"] == OURS and ours["cache"] == "off" and not ours["settings"] and not ours["known"]
    )


def found(report: Results, variant: Variant) -> Row | None:
    """The row of a variant, if there is one."""
    return next((row for row in report["rows"] if row["label"] == variant.label), None)


def measured_loads(report: Results) -> list[Load]:
    """The loads of which ours without its cache was measured."""
    return [load for load in LOADS if found(report, variant_of(OURS, "off", load)) is not None]


def taken(report: Results, load: Load, row: Row) -> str:
    """What ours takes of a peer's CPU: without its cache in bold, then with it."""
    cells = []
    for cache in ("off", "all"):
        ours = found(report, variant_of(OURS, cache, load))
        times = ratio(ours, row) if ours is not None else None
        if times is not None:
            cells.append(f"**{times['median']:.2f}**" if cache == "off" else f"{times['median']:.2f}")
    return " · ".join(cells)


def peers(results: Results, *, whole: bool) -> str:
    """Ours beside gateways in Rust and Go; ``whole``: every row with its extremes, else the medians of the README's."""
    report = results["peers"]
    loads = measured_loads(report)
    gateways = [*GATEWAYS, (PROXY, "off")] if whole else [*GATEWAYS]
    say = figure if whole else _middle
    body = []
    for who, cache in gateways:
        name = SHORT[who, cache] if who == OURS else NAMES[who]
        cells = []
        for load in loads:
            row = found(report, variant_of(who, cache, load))
            if row is None:
                cells.append("")
                continue
            share = "" if who == OURS else f" · {taken(report, load, row)}"
            cells.append(say(row["us"]) + share + missing(row))
        if any(cells):
            body.append([f"**{name}**" if who == OURS else name, *cells])
    head = ["µs of CPU an event", *map(_heading, loads)]
    versions = {
        name: version
        for name, version in report["machine"]["versions"].items()
        if name in ("twilight-gateway", "lapin", "tokio", "discordgo", "amqp091-go", "rust", "go")
    }
    words = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    text = table(head, body) + "\n" + provenance(report).rstrip("\n") + f" {words}.\n"
    return text + ("\n" + goals(results) if whole else "")


def _middle(value: Any) -> str:
    return number(median(value))


def _heading(load: Load) -> str:
    zlib = ", zlib" if load.compression == "zlib" else ""
    return f"{load_of(load.shards, load.rate)}{zlib} → {BROKERS[load.broker]}"


def goals(results: Results) -> str:
    """What ours takes of the peers beside what is to be reached, with the rounds' extremes."""
    report = results["peers"]
    body = []
    for load in measured_loads(report):
        for who in (QUEUES, LAPIN, GO):
            row, ours = (
                found(report, variant_of(who, "off", load)),
                found(report, variant_of(OURS, "off", load)),
            )
            times = ratio(ours, row) if row is not None and ours is not None else None
            if times is None:
                continue
            goal = OF_A_PEER.get((who, load.shards, load.rate))
            verdict = "" if goal is None or times["median"] <= goal else ": **missed**"
            body.append(
                [
                    f"{NAMES[who]}: {_heading(load)}",
                    _exact(times),
                    "" if goal is None else f"{goal:g}{verdict}",
                ]
            )
    return table(["ours, no cache, of", "ratio of the rounds", "to reach"], body)


def _exact(value: Any) -> str:
    if len(value["runs"]) < 2:
        return f"{value['median']:.2f}"
    return f"{value['median']:.2f} ({value['low']:.2f}–{value['high']:.2f})"


# All others: a table for each, a column for each figure


@dataclass(frozen=True, slots=True)
class Column:
    """A figure, and what stands above it."""

    key: str
    head: str

    def cell(self, row: Row) -> str:
        return figure(row[self.key]) if self.key in row else ""


def listed(results: Results, name: str, columns: list[Column]) -> str:
    """A report's rows that have the first of some columns."""
    report = results[name]
    rows = [row for row in report["rows"] if columns[0].key in row]
    body = [[row["label"].strip(), *(column.cell(row) for column in columns)] for row in rows]
    return table(["", *(column.head for column in columns)], body) + "\n" + provenance(report)


def profile(results: Results) -> str:
    """µs by step, without and with the cache."""
    report = results["profile"]
    sides: dict[str, dict[str, float]] = {"without cache": {}, "with the cache": {}}
    for row in report["rows"]:
        side, _, step = row["label"].partition(": ")
        sides[side][step] = row["us"]
    steps = list(dict.fromkeys(step for side in sides.values() for step in side if step != "total"))
    body = [
        [step, *(number(side[step]) if step in side else "" for side in sides.values())]
        for step in [*steps, "total"]
    ]
    return table(["Step", "no cache, µs", "with the cache, µs"], body) + "\n" + provenance(report)


def cliffs(results: Results) -> str:
    """Each shape in multiples of the plain one."""
    report = results["cliffs"]
    body = []
    for row in report["rows"]:
        if "times" in row:
            shape, _, plain = row["label"].partition(", against ")
            body.append(
                [_shape(shape), _shape(plain), _exact(row["times"]), f"{row['times_above_floor']:.2f}"]
            )
    head = ["Shape", "beside", "× (to reach: 1.5)", "without what inflating costs anyway"]
    return table(head, body) + "\n" + provenance(report)


def _shape(label: str) -> str:
    return label.removeprefix("rateway zstd cache off, ").replace(" each", "").replace(", rabbitmq", "")


# Of a bot: what a server brings a second, servers a shard, members a server, bytes in and out an event.
EVENTS_A_SERVER, SERVERS_A_SHARD, BYTES_IN, BYTES_OUT = 0.05, 1000, 230, 1000
SIZES = (1_000, 100_000, 1_000_000)


def fleet(results: Results) -> str:
    """What each failure costs a fleet: the worst of its runs; empty where no results have them."""
    if "fleet" not in results:
        return ""
    report = results["fleet"]
    times = (("live_s", "live elsewhere"), ("pause_s", "events pause"), ("hole_s", "queries unanswered"))
    counts = (
        ("identifies", "identifies"),
        ("lost", "lost"),
        ("two_ids", "under two ids"),
        ("concurrency", "identify-concurrency"),
        ("doubled", "came twice"),
    )
    body = []
    for row in report["rows"]:
        failed = f" ({row['failed']} ended without a result)" if row["failed"] else ""
        cells = [row["label"], f"{row['runs']:,}{failed}"]
        for (key, _), goal in zip(times, OF_A_FLEET[row["scene"]], strict=True):
            worst = row[key]["high"]
            cells.append("–" if not worst else number(worst) if goal is None else _against(worst, goal))
        cells += [f"{row[key]:,}" for key, _ in counts]
        body.append(cells)
    heads = ["", "runs", *(f"{words}, s (to reach)" for _, words in times), *(words for _, words in counts)]
    commits = sorted({row["commit"] for row in report["rows"]} - {report["machine"]["commit"]})
    earlier = (
        f" Rows of commit {' and '.join(f'`{each}`' for each in commits)} among them.\n" if commits else "\n"
    )
    return table(heads, body) + "\n" + provenance(report).rstrip("\n") + earlier


def _against(worst: float, goal: float) -> str:
    return f"{number(worst)} ({number(goal)}{': **missed**' if worst > goal else ''})"


def needs(results: Results) -> str:
    """What bots of some sizes need, from the path's rows and memory's."""
    rows = {row["label"]: row for row in results["path"]["rows"]}
    flat = [median(rows[Variant(cache=cache).label]["us"]) for cache in ("all", "off")]
    paced = [median(rows[Variant(cache=cache, shards=64, rate=50).label]["us"]) for cache in ("all", "off")]
    body = []
    for servers in SIZES:
        events, shards = servers * EVENTS_A_SERVER, -(-servers // SERVERS_A_SHARD)
        cores = [
            number(events * high / 1e6)
            if shards == 1
            else f"{number(events * low / 1e6)}–{number(events * high / 1e6)}"
            for low, high in zip(flat, paced, strict=True)
        ]
        body.append(
            [
                f"{servers:,}",
                f"{shards:,}, {number(events)}",
                f"{cores[0]} ({cores[1]})",
                f"{number(events * BYTES_IN / 1e6)} MB/s, {number(events * BYTES_OUT / 1e6)} MB/s",
            ]
        )
    return table(["Servers", "Shards, events/s", "Cores with the cache (without)", "In, out"], body)


US = Column("us", "µs")
P50, P99 = Column("p50_ms", "p50, ms"), Column("p99_ms", "p99, ms")
BLOCKS: dict[str, Callable[[Results], str]] = {
    "peers-readme": partial(peers, whole=False),
    "path": path,
    "peers": partial(peers, whole=True),
    "profile": profile,
    "cliffs": cliffs,
    "latency": partial(
        listed,
        name="latency",
        columns=[P50, P99, Column("p999_ms", "p99.9, ms"), Column("events_per_s", "events/s")],
    ),
    "start": partial(
        listed,
        name="start",
        columns=[
            Column("cpu_s", "CPU, s"),
            Column("seconds", "until all is there, s"),
            Column("memory_mb", "MB"),
        ],
    ),
    "memory-processes": partial(
        listed,
        name="memory",
        columns=[
            Column("supervisor_mb", "supervisor, MB (to reach: 30, 50 with HTTP)"),
            Column("worker_mb", "runner without guilds, MB (to reach: 50)"),
        ],
    ),
    "memory-shards": partial(
        listed,
        name="memory",
        columns=[
            Column("idle_mb", "idle, MB"),
            Column("used_mb", "after traffic in portions, MB"),
            Column("inflated_mb_a_shard", "of each shard, inflated, MB"),
            Column("peak_mb", "at most in a flood of as much, MB"),
            Column("flooded_mb", "after the flood, MB"),
            Column("decompressor_kb", "a decompressor, KB"),
        ],
    ),
    "memory-members": partial(
        listed,
        name="memory",
        columns=[
            Column("memory_bytes_a_member", "bytes a member in memory, the store's mapped pages included"),
            Column("disk_bytes_a_member", "on disk"),
        ],
    ),
    "queries": partial(
        listed,
        name="queries",
        columns=[US, Column("per_core", "a second a core (to reach: 15,000)"), P50, P99],
    ),
    "queries-beside": partial(
        listed,
        name="queries",
        columns=[
            Column("event_p99_ms", "events p99, ms"),
            Column("event_p50_ms", "events p50, ms"),
            Column("core", "of a core"),
            Column("events_per_s", "events/s"),
            P99,
            Column("own_p99_ms", "by the gateway's own clock, p99, ms"),
            Column("answered_per_s", "answers/s"),
        ],
    ),
    "recovery": partial(
        listed,
        name="recovery",
        columns=[
            Column("gone_after_s", "lag gone after, s"),
            Column("sent", "events"),
            Column("lost", "lost"),
            Column("doubled", "doubled"),
            Column("out_of_order", "out of order"),
            Column("gaps", "gaps"),
            Column("memory_before_mb", "memory before, MB"),
            Column("memory_most_mb", "at most, MB"),
            Column("spool_most_mb", "spool, MB"),
        ],
    ),
    "soak": partial(
        listed,
        name="soak",
        columns=[
            Column("memory_mb", "memory at the end, MB"),
            Column("slope_kb_a_minute", "KB a minute"),
            Column("own_mb", "the process's own, MB"),
            Column("own_slope_kb_a_minute", "KB a minute"),
            Column("lag_most_s", "lag at most, s"),
            Column("violations", "violations"),
        ],
    ),
    "processes": partial(
        listed,
        name="processes",
        columns=[
            Column("per_s", "events/s by the clock; × of one"),
            Column("carries_per_s", "by the CPU of the busiest runner (to reach: 1.8 ×)"),
            Column("us", "µs an event (to reach: 1.05 ×)"),
            Column("allowed", "the most that this machine allows, ×"),
        ],
    ),
    "kills": partial(
        listed,
        name="kills",
        columns=[
            Column("back_p50_s", "back p50, s"),
            Column("back_p99_s", "back p99, s (to reach: 3)"),
            Column("others_p99_ms", "the others' events p99, ms"),
            Column("others_most_ms", "at most, ms (to reach: 100)"),
            Column("without_p99_ms", "p99 without a kill, ms"),
            Column("gaps", "gaps"),
            Column("identifies_beyond_the_start", "identifies"),
            Column("violations", "violations"),
        ],
    ),
    "resume": partial(
        listed,
        name="resume",
        columns=[
            Column("seconds", "until the last RESUMED, s (to reach: 5)"),
            Column("ms_a_shard", "CPU of a shard, ms"),
            Column("identifies", "identifies"),
            Column("violations", "violations"),
        ],
    ),
    "shards": partial(
        listed,
        name="shards",
        columns=[
            Column("latest_heartbeat_s", "latest heartbeat, s (to reach: 1)"),
            Column("cpu_share", "of a core"),
            Column("memory_mb", "memory, MB"),
            Column("reconnects", "reconnects"),
            Column("violations", "violations"),
        ],
    ),
    "proxy-cost": partial(
        listed,
        name="proxy",
        columns=[
            US,
            Column("gateway_us", "the gateway meanwhile, µs"),
            Column("broker_us", "broker or client meanwhile, µs"),
        ],
    ),
    "proxy-ratio": partial(listed, name="proxy", columns=[Column("ratio", "of the peer (to reach: 1.5)")]),
    "proxy-times": partial(
        listed,
        name="proxy",
        columns=[
            Column("seconds", "s"),
            Column("mb_each", "memory a connection, MB (to reach: 1)"),
            Column("missing", "missing"),
        ],
    ),
    "proxy-latency": partial(listed, name="proxy", columns=[P50, P99, Column("rate", "events/s")]),
    "fleet": fleet,
    "needs": needs,
}


# Pages and pictures


def _narrow(line: str) -> str:
    """A table's line without what makes it readable as text only: a figure that changes changes no other line."""
    return re.sub(r" +\|", " |", re.sub(r"-{3,}", "---", line)) if line.startswith("|") else line


def written(text: str, results: Results) -> str:
    """A page with its figures."""

    def block(match: re.Match[str]) -> str:
        try:
            lines = [_narrow(line) for line in BLOCKS[match[1]](results).splitlines()]
        except KeyError as missing:
            raise SystemExit(f"{match[1]} cannot be printed: {missing} is not in the results") from None
        return "\n".join([f"<!-- figures: {match[1]} -->", *lines, "<!-- end of figures -->"])

    return BLOCK.sub(block, text)


def digest(rows: list[Row]) -> str:
    """What a picture carries of the rows that it shows."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def draw(results: Results, folder: Path) -> None:
    """The pictures that show tables."""
    if "peers" in results:
        report = results["peers"]
        panels = []
        for load in measured_loads(report):
            bars = [
                (SHORT[who, cache], row["us"], who == OURS)
                for who, cache in GATEWAYS
                if (row := found(report, variant_of(who, cache, load))) is not None
            ]
            panels.append((_heading(load).replace(" → ", "\n→ "), bars))
        pictures.panels(
            "peers", "µs of CPU an event: less is cheaper", panels, digest(report["rows"]), folder
        )
    if "path" in results:
        rows = results["path"]["rows"]
        pictures.bars(
            "path",
            "CPU an event, whole gateway, in multiples of inflating it and reading its envelope",
            [(row["label"], row["ratio"]) for row in rows],
            "× floor",
            digest(rows),
            folder,
        )


def main() -> None:
    """Print, or write."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("results", nargs="?", type=Path, help="default: those of the last runs here")
    parser.add_argument("--write", action="store_true", help="into the pages, from benchmarks/results.json")
    options = parser.parse_args()
    source = PUBLISHED if options.write else options.results or destination()
    if not source.exists():
        raise SystemExit(f"{source} is not there yet: each benchmark writes it, `make bench` all of it")
    results = json.loads(source.read_text())
    if options.write:
        for page in PAGES:
            page.write_text(written(page.read_text(), results))
            print(f"written: {page}")
        draw(results, PUBLISHED.parent / "pictures")
        if disturbed := [name for name, report in results.items() if report["noisy"]]:
            print(f"measured beside others' work, to be measured again: {', '.join(disturbed)}")
        return
    for name, block in BLOCKS.items():
        try:
            text = block(results)
        except KeyError:
            continue  # not measured here
        if name != "needs" and text.count("\n") > 4:
            print(f"## {name}\n\n{text}")


if __name__ == "__main__":
    main()
