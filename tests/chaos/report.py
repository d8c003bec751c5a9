"""A chaos run for people (a table, a picture) and machines (JSON)."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.plan import NOT_RUN
from tests.chaos.runner import Result

__all__ = ["draw", "show", "write_json"]


def show(result: Result, console: Console) -> None:
    """The recovery times by kind, and the audit."""
    table = Table(title=f"time to recover, seconds (seed {result.seed}, {result.processes} processes)")
    for name in ("fault", "times", "lasted p50", "recovered p50", "recovered max"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    kinds: dict[str, list[tuple[float, float]]] = {}
    for each in result.recoveries:
        kinds.setdefault(each.step.kind, []).append((each.made, each.recovered))
    for kind, times in sorted(kinds.items()):
        made, recovered = [time[0] for time in times], [time[1] for time in times]
        table.add_row(
            kind,
            str(len(times)),
            f"{statistics.median(made):.2f}",
            f"{statistics.median(recovered):.2f}",
            f"{max(recovered):.2f}",
        )
    console.print(table)
    for kind, why in NOT_RUN.items():
        console.print(f"not run: {kind} ({why})", highlight=False)
    audit = result.audit
    assert audit is not None
    summary = Table(title="audit against the simulator's ledger", show_header=False)
    for name, value in (
        ("faults", len(result.recoveries)),
        ("sent", audit.sent),
        ("delivered", audit.delivered),
        ("lost", result.lost),
        ("forgotten by Discord, and told", result.forgotten),
        ("doubled (same message_id)", audit.doubled),
        ("changed", audit.changed),
        ("out of order", audit.out_of_order),
        ("gaps told", result.gaps),
        ("violations", len(result.violations)),
        ("identifies (allowed)", f"{result.identifies} ({result.identifies_allowed})"),
    ):
        summary.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    console.print(summary)
    for line in (*audit.examples, *result.violations[:20]):
        console.print(line, markup=False)


def write_json(result: Result, path: Path) -> None:
    audit = result.audit
    assert audit is not None
    path.write_text(
        json.dumps(
            {
                "seed": result.seed,
                "processes": result.processes,
                "sent": audit.sent,
                "lost": result.lost,
                "forgotten_and_told": result.forgotten,
                "doubled": audit.doubled,
                "out_of_order": audit.out_of_order,
                "gaps": result.gaps,
                "violations": result.violations,
                "identifies": result.identifies,
                "identifies_allowed": result.identifies_allowed,
                "faults": [
                    {"kind": each.step.kind, "at": each.at, "lasted": each.made, "recovered": each.recovered}
                    for each in result.recoveries
                ],
                "not_run": NOT_RUN,
            },
            indent=1,
        )
    )


def draw(result: Result, path: Path) -> None:
    """A timeline: events a second sent and arrived, the lag between them, and where faults struck."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    times = [sample[0] for sample in result.samples]
    lag = [sent - arrived for _, sent, arrived in result.samples]
    figure, (rates, lags) = plt.subplots(2, 1, sharex=True, figsize=(14, 7), layout="constrained")
    for index, name in ((1, "sent"), (2, "arrived")):
        points = [
            (later[0], (later[index] - earlier[index]) / max(1e-6, later[0] - earlier[0]))
            for earlier, later in zip(result.samples, result.samples[4:], strict=False)
        ]
        rates.plot([point[0] for point in points], [point[1] for point in points], label=name, linewidth=0.9)
    lags.plot(times, lag, color="tab:red", linewidth=0.9)
    for each in result.recoveries:
        for axes in (rates, lags):
            axes.axvspan(each.at, each.at + each.made + each.recovered, color="grey", alpha=0.15, linewidth=0)
    rates.set_ylabel("events a second")
    rates.legend(loc="upper right")
    lags.set_ylabel("sent − arrived (events)")
    lags.set_xlabel("seconds; grey: from a fault to its recovery")
    rates.set_title(f"{len(result.recoveries)} faults, seed {result.seed}, {result.processes} processes")
    figure.savefig(path, dpi=110)
    plt.close(figure)
