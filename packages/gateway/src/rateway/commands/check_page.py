"""The page of `rateway check` for a person: tables, then what is wrong and what to do about it."""

from __future__ import annotations

from rateway import logs
from rateway.commands.plan import Finding, Plan
from rateway_protocol.contract import topology
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["show"]

# Clusters shown in full; a fleet has hundreds.
SHOWN_CLUSTERS = 6


def show(plan: Plan, console: Console | None = None) -> None:
    """Print the plan."""
    page = console or Console(highlight=False)
    page.print(_overview(plan))
    if plan.clusters:
        page.print(_clusters(plan))
    if plan.intents:
        page.print(_intents(plan))
    for note in plan.notes:
        page.print(f"[dim]·[/] {_text(note)}")
    _findings(page, "warning", "yellow", plan.warnings)
    _findings(page, "problem", "red", plan.problems)
    page.print("[bold green]a start would work[/]" if plan.ok else "[bold red]a start would not work[/]")


def _text(text: str) -> str:
    return escape(logs.escape(logs.redact(text)))


def _findings(page: Console, name: str, colour: str, findings: list[Finding]) -> None:
    for finding in findings:
        page.print(
            f"[{colour}]{name}[/] [bold]{_text(finding.where)}[/]: {_text(finding.what)}", soft_wrap=True
        )
        if finding.do:
            page.print(f"        → {_text(finding.do)}", soft_wrap=True)


def _overview(plan: Plan) -> Table:
    table = Table(title="the plan", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        table.add_row(name, _text(text))

    if plan.application is not None:
        row("application", plan.application)
    if plan.gateway_url is not None:
        row("Discord", plan.gateway_url)
    if plan.broker is not None:
        row("broker", f"{plan.broker.address} {plan.broker.server}" if plan.broker.reached else "not reached")
        for node in plan.broker.nodes:
            row("", f"{node.address} {node.server}, cluster {node.cluster}" if node.reached else node.problem)
    if plan.shards is not None:
        here = "" if plan.shards_here == plan.shards else f", {plan.shards_here} of them here"
        row("shards", f"{plan.shards}{here}: {plan.shards_why}")
    if plan.clusters:
        exchanges = topology.exchanges([each.cluster for each in plan.clusters])
        row("workers", f"bind a queue to {exchanges}; the query Clusters lists them (docs/amqp.md)")
    if plan.proxy is not None:
        row(
            "proxy",
            f"bots connect to {plan.proxy.address} and show {plan.proxy.shows}; {plan.proxy.tls} does TLS",
        )
    if plan.identifies is not None:
        budget = plan.identifies
        row(
            "identifies",
            f"{budget.spends} for this start ({budget.needed} if no session could be resumed), "
            f"{budget.left} of {budget.total} left today, "
            f"{budget.reserve} of them kept for lost sessions; "
            + (f"reset in {_duration(budget.resets_in_s)}" if budget.resets_in_s else "no reset pending"),
        )
    if plan.start is not None:
        row("start", f"about {_duration(plan.start.seconds)}: {plan.start.why}")
    if plan.memory is not None:
        memory = plan.memory
        span = (
            _bytes(memory.least)
            if memory.least == memory.most
            else f"{_bytes(memory.least)} to {_bytes(memory.most)}"
        )
        machine = f" of {_bytes(memory.machine)}" if memory.machine is not None else ""
        row(
            "memory",
            f"{span}{machine} after some traffic, the cache (a file) apart; {_bytes(memory.with_zlib)} with zlib",
        )
        if memory.advice:
            row("", memory.advice)
    less = "" if plan.form == "compiled" else "; with a C compiler at its installation it takes less CPU"
    row("program", plan.form + less)
    row("state folder", plan.state_dir + (f" (in use by pid {plan.running_pid})" if plan.running_pid else ""))
    return table


def _clusters(plan: Plan) -> Table:
    table = Table(title="clusters", title_justify="left")
    for name in ("cluster", "shards", "exchange", "inbound queue", "runs"):
        table.add_column(name)
    rows = plan.clusters
    shown = rows if len(rows) <= SHOWN_CLUSTERS else [*rows[: SHOWN_CLUSTERS - 1], rows[-1]]
    for row in shown:
        if row is rows[-1] and len(shown) < len(rows):
            table.add_row("…", f"{len(rows) - len(shown)} more", "", "", "")
        span = (
            f"{row.first_shard}–{row.last_shard}"
            if row.first_shard < row.last_shard
            else str(row.first_shard)
        )
        table.add_row(str(row.cluster), span, row.exchange, row.queue, "here" if row.here else "elsewhere")
    return table


def _intents(plan: Plan) -> Table:
    table = Table(title="intents", title_justify="left")
    for name in ("intent", "privileged", "switched on"):
        table.add_column(name)
    for row in plan.intents:
        on = {True: "yes", False: "[red]no[/]", None: "not known" if row.privileged else ""}[row.switched_on]
        table.add_row(row.name, "[yellow]privileged[/]" if row.privileged else "", on)
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
