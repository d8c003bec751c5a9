"""The page of `rateway status` for a person: what needs attention first, then totals, clusters and shards."""

from __future__ import annotations

from collections import Counter

from rateway import logs
from rateway.delivery.limits import HELD_UP_S
from rateway.runtime.monitoring.health import unrouted
from rateway.runtime.monitoring.status import ClusterStatus, GatewayStatus, ProcessStatus, ShardStatus
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

__all__ = ["away", "page", "show"]

# Shards that are not live, shown one by one; more are only counted.
SHOWN_SHARDS = 20


def show(status: GatewayStatus, *, every_shard: bool = False, console: Console | None = None) -> None:
    """Print the page."""
    (console or Console(highlight=False)).print(page(status, every_shard=every_shard))


def page(status: GatewayStatus, *, every_shard: bool = False) -> RenderableType:
    """The page."""
    parts: list[RenderableType] = [_head(status)]
    parts += [Text.from_markup(f"[yellow]![/] {_text(note)}") for note in status.notes]
    parts += [Text.from_markup(f"[yellow]![/] {_text(each.text)}") for each in unrouted(status.clusters)]
    parts.append(_processes(status.processes))
    parts.append(_clusters(status.clusters))
    shards = status.shards if every_shard else [shard for shard in status.shards if shard.state != "live"]
    if shards:
        parts.append(_shards(shards if every_shard else shards[:SHOWN_SHARDS]))
        if not every_shard and len(shards) > SHOWN_SHARDS:
            parts.append(
                Text(f"… and {len(shards) - SHOWN_SHARDS} more that are not live (--shards shows all)")
            )
    return Group(*parts)


def away(why: str) -> RenderableType:
    """In place of the page while nobody answers."""
    return Text.from_markup(f"[yellow]![/] {_text(why)}")


def _text(text: str) -> str:
    return escape(logs.escape(logs.redact(text)))


def _head(status: GatewayStatus) -> Table:
    table = Table(show_header=False, title=f"rateway {status.version}, {status.state}", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    states = Counter(shard.state for shard in status.shards)
    unseen = status.shards_here - len(status.shards)
    listed = ", ".join(
        [f"{count} {state}" for state, count in states.most_common()]
        + ([f"{unseen} of which nothing is known"] if unseen > 0 else [])
    )
    table.add_row("shards", f"{listed or 'none yet'} ({status.shard_count} in the whole bot)")
    received = sum(cluster.received for cluster in status.clusters)
    rate = sum(cluster.events_per_s for cluster in status.clusters)
    table.add_row("events", f"{received:,} received, {rate:,.0f} a second, up for {_span(status.uptime_s)}")
    latencies = sorted(shard.latency_ms for shard in status.shards if shard.latency_ms is not None)
    if latencies:
        middle = latencies[len(latencies) // 2]
        table.add_row("heartbeats", f"{middle:.0f} ms in the middle, {latencies[-1]:.0f} ms at most")
    budget = status.budget
    if budget.total is not None:
        remaining = "–" if budget.remaining is None else budget.remaining
        reset = f", reset in {_span(budget.resets_in_s)}" if budget.resets_in_s else ""
        table.add_row(
            "identifies",
            f"{remaining} of {budget.total} left{reset}; {budget.spent_here} by this start",
        )
    return table


def _processes(processes: list[ProcessStatus]) -> Table:
    table = Table(title="processes", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("process", "pid", "clusters", "CPU", "CPU time", "memory", "loop late"):
        table.add_column(name, justify="left" if name in ("process", "clusters") else "right", no_wrap=True)
    for process in processes:
        table.add_row(
            _text(process.role),
            str(process.pid),
            _runs(process.clusters) or "–",
            f"{100 * process.cpu_share:.0f} %",
            f"{process.cpu_s:,.1f} s",
            f"{process.memory_bytes / 1e6:,.0f} MB",
            _milliseconds(process.loop_lag_ms),
        )
    return table


def _runs(numbers: list[int]) -> str:
    """Numbers in short: ``1-4, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _clusters(clusters: list[ClusterStatus]) -> Table:
    # Narrow enough for a terminal of 80 columns.
    table = Table(title="clusters", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("exchange", "live", "received", "a second", "waiting", "lag", "p50 / p99", "spool", "gaps"):
        table.add_column(name, justify="left" if name == "exchange" else "right", no_wrap=True)
    for cluster in clusters:
        publisher = cluster.publisher
        state = "" if cluster.owned else "not ours"
        state = state if publisher.connected else "broker away"
        state = "held up" if publisher.held_up_s > HELD_UP_S else state
        state = "blocked" if publisher.blocked else "paused" if publisher.paused else state
        table.add_row(
            _text(cluster.exchange) + (f" [red]{state}[/]" if state else ""),
            f"{cluster.shards_ready}/{cluster.shards}",
            _count(cluster.received),
            f"{cluster.events_per_s:,.0f}",
            _count(publisher.unconfirmed),
            f"{publisher.lag_s:.1f} s" if publisher.lag_s else "–",
            f"{_milliseconds(publisher.latency_p50_ms)} / {_milliseconds(publisher.latency_p99_ms)}",
            f"{publisher.spool_bytes / 1e6:.1f} MB" if publisher.spool_bytes else "–",
            str(cluster.gaps) if not cluster.gaps else f"[red]{cluster.gaps}[/]",
        )
    return table


def _count(number: int) -> str:
    if number < 1_000_000:
        return f"{number:,}"
    return f"{number / 1e6:.2f} M" if number < 1_000_000_000 else f"{number / 1e9:.2f} G"


def _shards(shards: list[ShardStatus]) -> Table:
    table = Table(title="shards", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("shard", "cluster", "state", "since", "seq", "settled", "event", "latency"):
        table.add_column(name, no_wrap=True)
    table.add_column("why, and the last close", overflow="fold")
    for shard in shards:
        colour = (
            "green" if shard.state == "live" else "red" if shard.state in ("fatal", "stopped") else "yellow"
        )
        table.add_row(
            str(shard.shard),
            str(shard.cluster),
            f"[{colour}]{_text(shard.state)}[/]",
            _span(shard.since_s),
            str(shard.received),
            str(shard.settled),
            "–" if shard.dispatch_s is None else f"{_span(shard.dispatch_s)} ago",
            _milliseconds(shard.latency_ms),
            _text("; ".join(filter(None, (shard.why, shard.last_close)))),
        )
    return table


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return "over 10 s" if value > 10_000 else f"{value:.3g} ms"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
