"""The page of `rateway status` for a person: what needs attention first, then totals, clusters and shards."""

from __future__ import annotations

from collections import Counter

from rateway import logs
from rateway.delivery.limits import HELD_UP_S
from rateway.histogram import milliseconds
from rateway.runtime.monitoring.health import numbered, ranges, unowned, unread, unrouted, unwanted, verdict
from rateway.runtime.monitoring.status import (
    ClusterStatus,
    FleetClusterStatus,
    FleetStatus,
    GatewayStatus,
    ProcessStatus,
    ShardStatus,
)
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

__all__ = ["away", "fitted", "page", "show"]

# Shards that are not live, shown one by one; more are only counted.
SHOWN_SHARDS = 20
# Clusters that a terminal shows before it shows more shards.
LEAST_CLUSTERS = 5
# Of the verdict.
COLOURS = {"well": "green", "starting": "blue", "notice": "yellow", "trouble": "red"}


def show(
    status: GatewayStatus,
    *,
    every_shard: bool = False,
    unrouted_names: bool = False,
    console: Console | None = None,
) -> None:
    """Print the page."""
    found = page(status, every_shard=every_shard, unrouted_names=unrouted_names)
    (console or Console(highlight=False)).print(found)


def page(
    status: GatewayStatus,
    *,
    every_shard: bool = False,
    unrouted_names: bool = False,
    most_clusters: int | None = None,
    most_shards: int = SHOWN_SHARDS,
) -> RenderableType:
    """Return the page. With *most_clusters* no more of them are shown, those in trouble first."""
    parts: list[RenderableType] = [_verdict(status), _head(status)]
    parts += [Text.from_markup(f"[yellow]![/] {_text(note)}") for note in status.notes]
    parts += [
        Text.from_markup(f"[yellow]![/] {_text(each.text)}")
        for each in [*unowned(status), *unread(status), *unrouted(status.clusters)]
    ]
    if unrouted_names:
        parts.append(_unrouted_names(status.clusters))
    parts += [Text(""), _processes(status.processes), Text("")]
    if status.fleet is not None:
        parts += [_members(status.fleet), Text("")]
    clusters = status.clusters
    if most_clusters is not None and len(clusters) > most_clusters:
        clusters = sorted(clusters, key=lambda cluster: (not _state(cluster), cluster.cluster))[
            :most_clusters
        ]
    parts.append(_clusters(clusters))
    if len(clusters) < len(status.clusters):
        hidden = (
            status.clusters if not clusters else [each for each in status.clusters if each not in clusters]
        )
        troubled = sum(1 for each in hidden if _state(each))
        words = f"{troubled} of them in trouble" if troubled else "all of them well"
        parts.append(Text(f"… and {len(hidden)} more clusters, {words}"))
    shards = status.shards if every_shard else [shard for shard in status.shards if shard.state != "live"]
    if shards:
        parts.append(Text(""))
        parts.append(_shards(shards if every_shard else shards[:most_shards], in_full=every_shard))
        if not every_shard and len(shards) > most_shards:
            parts.append(
                Text(f"… and {len(shards) - most_shards} more that are not live (--shards shows all)")
            )
    return Group(*parts)


def fitted(status: GatewayStatus, console: Console) -> RenderableType:
    """Return the page in as many lines as the terminal has: what is in trouble first, as far as there is room."""
    away = sum(1 for shard in status.shards if shard.state != "live")
    for most_shards in sorted({min(SHOWN_SHARDS, away), min(5, away), min(1, away)}, reverse=True):
        for most_clusters in (len(status.clusters), *range(min(len(status.clusters) - 1, 60), -1, -1)):
            found = page(status, most_clusters=most_clusters, most_shards=most_shards)
            if len(console.render_lines(found, pad=False)) < console.height:
                return found
            if most_shards > 1 and most_clusters <= LEAST_CLUSTERS:
                break
    return found


def away(why: str) -> RenderableType:
    """Return what takes the page's place while no gateway answers."""
    return Text.from_markup(f"[yellow]![/] {_text(why)}")


def _text(text: str) -> str:
    return escape(logs.escape(logs.redact(text)))


def _verdict(status: GatewayStatus) -> Text:
    found = verdict(status, status.resume_patience_s, {})
    return Text.from_markup(f"[bold {COLOURS[found.level]}]{_text(found.words)}[/]")


def _unrouted_names(clusters: list[ClusterStatus]) -> RenderableType:
    names = unwanted(clusters)
    if not names and any(_is_hidden_by_log(each) for each in clusters):
        return Text(
            "beside an event log no event name is returned for want of a queue; with MANAGEMENT_URL the gateway sees "
            "which clusters lack a queue that others have"
        )
    if not names:
        return Text("no event name was returned for want of a queue")
    table = _table()
    table.add_column("no queue takes", no_wrap=True)
    table.add_column("returned by", overflow="fold")
    for name, numbers in names.items():
        table.add_row(_text(name), numbered(numbers))
    return table


def _is_hidden_by_log(cluster: ClusterStatus) -> bool:
    log = cluster.event_log
    return log is not None and log.state == "kept" and not cluster.publisher.routed


def _head(status: GatewayStatus) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("rateway", f"{status.version}, {status.state} for {_span(status.uptime_s)}")
    states = Counter(shard.state for shard in status.shards)
    unseen = status.shards_here - len(status.shards)
    listed = ", ".join(
        [f"{count} {state}" for state, count in states.most_common()]
        + ([f"{unseen} of which nothing is known"] if unseen > 0 else [])
    )
    table.add_row("shards", f"{listed or 'none yet'} ({status.shard_count} in the whole bot)")
    received = sum(cluster.received for cluster in status.clusters)
    rate = sum(cluster.events_per_s for cluster in status.clusters)
    table.add_row("events", f"{received:,} received, {rate:,.0f} a second")
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
    if status.fleet is not None:
        table.add_row("fleet", _fleet(status.fleet))
    if status.wants_proxy:
        table.add_row("proxy", _proxy(status))
    return table


def _proxy(status: GatewayStatus) -> str:
    """The gateway proxy in one line."""
    proxy = status.proxy
    if proxy is None:
        return "[red]down[/]"
    states = ", ".join(f"{count} {state}" for state, count in proxy.states.items())
    bots = f"{proxy.connections} bots" + (f" ({states})" if states else "")
    return f"{_text(proxy.address)}: {bots}, {proxy.sent:,} events sent, {proxy.resumes:,} resumes"


def _fleet(fleet: FleetStatus) -> str:
    """The fleet in one line."""
    words = f"{_text(fleet.name)}: this is {_text(fleet.member)}; layout {fleet.generation}"
    if fleet.governor is not None:
        words += f"; governor {_text(fleet.governor)} (epoch {fleet.governor_epoch})"
    return words if fleet.connected else f"{words}; [red]the others are not heard[/]"


def _members(fleet: FleetStatus) -> Table:
    """Members, and below each the clusters that it owns: the epoch, since when, why, and its record's age."""
    table = _table()
    table.add_column("member", overflow="fold")
    for name in ("clusters", "heard", "version"):
        table.add_column(name, no_wrap=True)
    table.add_column("owns", overflow="fold")
    for member in fleet.members:
        state = " leaving" if member.leaving else " deaf" if member.deaf else ""
        owned = [each for each in fleet.clusters if each.owner == member.member]
        table.add_row(
            _text(member.member) + (f" [yellow]{state.strip()}[/]" if state else ""),
            ranges(member.clusters) or "–",
            f"{member.heard_s:.0f} s",
            _text(member.version),
            "; ".join(map(_tenure, owned)),
        )
    return table


def _tenure(cluster: FleetClusterStatus) -> str:
    former = f" from {_text(cluster.former)}" if cluster.former else ""
    record = "no record" if cluster.record_age_s is None else f"record {cluster.record_age_s:.0f} s"
    moving = ", [yellow]moving[/]" if cluster.moving else ""
    how = _text(cluster.how)
    return f"{cluster.cluster}: epoch {cluster.epoch}, {how}{former} {_span(cluster.since_s)} ago, {record}{moving}"


def _table() -> Table:
    """Lines without a frame: a terminal of 80 columns and 24 lines has to do."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)


def _processes(processes: list[ProcessStatus]) -> Table:
    table = _table()
    for name in ("process", "pid", "clusters", "CPU", "CPU time", "memory", "loop late"):
        table.add_column(name, justify="left" if name in ("process", "clusters") else "right", no_wrap=True)
    for process in processes:
        table.add_row(
            _text(process.role),
            str(process.pid),
            ranges(sorted(process.clusters)) or "–",
            f"{100 * process.cpu_share:.0f} %",
            f"{process.cpu_s:,.1f} s",
            f"{process.memory_bytes / 1e6:,.0f} MB",
            milliseconds(process.loop_lag_ms),
        )
    return table


def _state(cluster: ClusterStatus) -> str:
    """What is wrong with a cluster, in two words; empty when nothing is."""
    publisher = cluster.publisher
    if not publisher.connected:
        return "broker away"
    if publisher.blocked:
        return "blocked"
    if publisher.paused:
        return "paused"
    if publisher.held_up_s > HELD_UP_S:
        return "held up"
    if not cluster.owned:
        return "not ours"
    if cluster.store != "ok":
        return "store"
    return "shards away" if cluster.shards_ready < cluster.shards else ""


def _clusters(clusters: list[ClusterStatus]) -> Table:
    # Narrow enough for a terminal of 80 columns; the exchange of cluster 7 is rateway-7.
    table = _table()
    for name in ("cluster", "live", "received", "per s", "waiting", "lag", "p99", "spool", "gaps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for cluster in clusters:
        publisher = cluster.publisher
        state = _state(cluster)
        # What is measured at confirms is no figure of now while none come.
        measured = publisher.connected and publisher.held_up_s <= HELD_UP_S
        table.add_row(
            str(cluster.cluster),
            f"{cluster.shards_ready}/{cluster.shards}",
            _count(cluster.received),
            _count(round(cluster.events_per_s)),
            _count(publisher.unconfirmed),
            f"{publisher.lag_s:.1f} s" if publisher.lag_s else "–",
            _confirmed_within(publisher.latency_p99_ms) if measured else "–",
            f"{publisher.spool_bytes / 1e6:.1f} MB" if publisher.spool_bytes else "–",
            str(cluster.gaps) if not cluster.gaps else f"[red]{cluster.gaps}[/]",
            f"[red]{state}[/]" if state else "",
        )
    return table


def _count(number: int) -> str:
    if number < 100_000:
        return f"{number:,}"
    if number < 1_000_000:
        return f"{number / 1e3:.0f} k"
    return f"{number / 1e6:.2f} M" if number < 1_000_000_000 else f"{number / 1e9:.2f} G"


def _shards(shards: list[ShardStatus], *, in_full: bool) -> Table:
    table = _table()
    names = ("seq", "settled", "latency") if in_full else ()
    for name in ("shard", "cluster", "state", "since", *names, "event"):
        table.add_column(name, no_wrap=True)
    table.add_column("why, and the last close", overflow="fold")
    for shard in shards:
        colour = (
            "green" if shard.state == "live" else "red" if shard.state in ("fatal", "stopped") else "yellow"
        )
        figures = (str(shard.received), str(shard.settled), milliseconds(shard.latency_ms))
        table.add_row(
            str(shard.shard),
            str(shard.cluster),
            f"[{colour}]{_text(shard.state)}[/]",
            _span(shard.since_s),
            *(figures if in_full else ()),
            "–" if shard.dispatch_s is None else f"{_span(shard.dispatch_s)} ago",
            _text("; ".join(filter(None, (shard.why, shard.last_close)))),
        )
    return table


def _confirmed_within(value: float | None) -> str:
    return ">10 s" if value is not None and value > 10_000 else milliseconds(value)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
