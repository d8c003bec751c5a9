"""Show the demonstration: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from rateway.demo.audit import Audit
from rateway.histogram import milliseconds
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

#: Happenings that the live table shows; plain lines show all.
RECENT = 10
#: Seconds between two plain lines.
PLAIN_EVERY = 2.0
MIB = 1 << 20
#: The live table's columns and their least widths: a table that changes its shape cannot be read.
COLUMNS = {
    "cluster": 12,
    "shards": 6,
    "received": 9,
    "confirmed": 9,
    "waiting": 7,
    "spooled": 7,
    "p50": 6,
    "p99": 6,
    "broker": 9,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment. *status* is the gateway's own, None while it does not answer; memory in bytes."""

    elapsed: float
    seconds: float
    sent: int
    delivered: int
    arriving: float
    violations: int
    gateway_memory: int
    status: dict[str, Any] | None


@dataclass(slots=True)
class Show:
    """Where frames and happenings go."""

    console: Console
    happenings: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    _live: Live | None = None
    _last_plain: float = -PLAIN_EVERY
    _elapsed: float | None = None
    _frame: Frame | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """While inside, a terminal shows the live table."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False) as self._live:
            try:
                yield
            finally:
                self._live = None

    def say(self, words: str) -> None:
        """Something happened."""
        line = words if self._elapsed is None else f"{self._elapsed:6.1f} s  {words}"
        self.happenings.append(line)
        if self._live is None:
            self.line(line)
        elif self._frame is not None:
            self._draw(self._frame)

    def line(self, words: str) -> None:
        """A line as it is, however long."""
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)

    def frame(self, frame: Frame) -> None:
        """Show a moment."""
        self._elapsed, self._frame = frame.elapsed, frame
        if self._live is not None:
            self._draw(frame)
        elif frame.elapsed - self._last_plain >= PLAIN_EVERY:
            self._last_plain = frame.elapsed
            self.line(line_of(frame))

    def _draw(self, frame: Frame) -> None:
        assert self._live is not None
        self._live.update(Group(table_of(frame), Text("\n".join(self.happenings))), refresh=True)


def clusters_of(status: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if status is None else list(status.get("clusters", []))


def total(status: dict[str, Any] | None, name: str) -> int:
    """Return the sum of one number of all clusters' publishers."""
    return sum(int(cluster["publisher"].get(name) or 0) for cluster in clusters_of(status))


def latency(status: dict[str, Any] | None, name: str) -> float | None:
    """Return the worst cluster's latency from socket to confirm, milliseconds; None when none has one."""
    found = [cluster["publisher"].get(name) for cluster in clusters_of(status)]
    return max((float(each) for each in found if each is not None), default=None)


def line_of(frame: Frame) -> str:
    """Return a moment as one line."""
    status = frame.status
    p50, p99 = (milliseconds(latency(status, f"latency_{name}_ms")) for name in ("p50", "p99"))
    shards = sum(cluster["shards_ready"] for cluster in clusters_of(status))
    gateway = (
        "gateway away"
        if status is None
        else (
            f"{shards} shards ready, confirmed {total(status, 'confirmed'):,}, "
            f"waiting {total(status, 'unconfirmed'):,}, socket to confirm p50 {p50} "
            f"p99 {p99}, {frame.gateway_memory / MIB:.0f} MiB"
        )
    )
    return (
        f"{frame.elapsed:6.1f} s  {frame.arriving:,.0f} events/s, sent {frame.sent:,}, delivered {frame.delivered:,}, "
        f"violations {frame.violations}; {gateway}"
    )


def table_of(frame: Frame) -> Table:
    """Return a moment as the live table."""
    left = "" if not frame.seconds else f" of {frame.seconds:.0f} s"
    title = f"rateway demo   {frame.elapsed:.0f} s{left}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column, width in COLUMNS.items():
        justify: Literal["left", "right"] = "left" if column in ("cluster", "broker") else "right"
        table.add_column(column, justify=justify, min_width=width, no_wrap=True)
    for cluster in clusters_of(frame.status):
        publisher = cluster["publisher"]
        broker = "blocked" if publisher["blocked"] else "connected" if publisher["connected"] else "away"
        table.add_row(
            str(cluster["exchange"]),
            f"{cluster['shards_ready']}/{cluster['shards']}",
            f"{cluster['received']:,}",
            f"{publisher['confirmed']:,}",
            f"{publisher['unconfirmed']:,}",
            f"{publisher['spool_events']:,}",
            milliseconds(publisher["latency_p50_ms"]),
            milliseconds(publisher["latency_p99_ms"]),
            broker,
        )
    if frame.status is None:
        table.add_row("[red]gateway away[/red]", *[""] * 8)
    table.caption = (
        f"{frame.arriving:,.0f} events/s   sent {frame.sent:,}   delivered {frame.delivered:,}   "
        f"violations {frame.violations}   gateway {frame.gateway_memory / MIB:.0f} MiB"
    )
    return table


def about_doubled(doubled: int) -> str:
    """Return what an arrival beyond the first means: it is promised, not a fault."""
    return (
        f"doubled {doubled:,}: promised, not a fault. Delivery is at least once: what a killed gateway or a restarted "
        "broker had not confirmed is sent again under the same message_id. rateway_client hands each event to a "
        "handler once; any other worker skips the message_ids that it has seen (docs/delivery.md)."
    )


def summary_of(audit: Audit, violations: int, redelivered: int, facts: dict[str, str]) -> Table:
    """Return the end: what was sent and what became of it."""
    table = Table(title="audit against the simulator's ledger", title_justify="left", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    bad = "[bold red]{:,}[/bold red]"
    table.add_row("sent", f"{audit.sent:,}")
    table.add_row("delivered", f"{audit.delivered:,}")
    table.add_row("lost", bad.format(audit.lost) if audit.lost else "0")
    table.add_row("doubled (same message_id)", f"{audit.doubled:,}")
    table.add_row("changed on the way", bad.format(audit.changed) if audit.changed else "0")
    table.add_row("never sent", bad.format(audit.unknown) if audit.unknown else "0")
    table.add_row("out of order", bad.format(audit.out_of_order) if audit.out_of_order else "0")
    table.add_row("violations of Discord's rules", bad.format(violations) if violations else "0")
    if redelivered:
        table.add_row("given again by the broker", f"{redelivered:,}")
    for name, value in facts.items():
        table.add_row(name, value)
    return table
