"""Chaos runs for people (a table, a picture) and machines (JSON)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.chaos.runner import Result

__all__ = ["draw", "show", "summary", "times", "write_json"]

BOT_FAULTS = ("bot_missing", "bot_doubled", "bot_wrong")
# Events a second are shown over so many samples.
SMOOTHED = 4


def times(results: Sequence[Result]) -> list[tuple[str, int, list[float], list[float]]]:
    """(Kind, how often in all, how long each alone lasted, how long each alone took to recover from), and what came
    close together below.
    """
    struck: dict[str, int] = {}
    alone: dict[str, tuple[list[float], list[float]]] = {}
    together: dict[str, tuple[list[float], list[float]]] = {}
    for each in (recovery for result in results for recovery in result.recoveries):
        for kind in each.kinds:
            struck[kind] = struck.get(kind, 0) + 1
        if len(each.kinds) == 1:
            lasted, recovered = alone.setdefault(each.kinds[0], ([], []))
        else:
            count = "2 close together" if len(each.kinds) == 2 else "3 or more close together"
            lasted, recovered = together.setdefault(count, ([], []))
        lasted.append(each.lasted)
        recovered.append(each.recovered)
    rows = [(kind, count, *alone.get(kind, ([], []))) for kind, count in sorted(struck.items())]
    return rows + [(name, len(values[0]), *values) for name, values in sorted(together.items())]


def summary(results: Sequence[Result]) -> list[tuple[str, str]]:
    """The audit of all runs together."""

    def total(name: str) -> int:
        return sum(int(getattr(result, name)) for result in results)

    violations = sum(len(result.violations) for result in results)
    return [
        ("faults", f"{total('faults'):,} of {total('planned'):,}"),
        ("events sent", f"{total('sent'):,}"),
        ("lost", f"{total('lost'):,}"),
        ("forgotten by Discord, and told", f"{total('forgotten'):,}"),
        ("doubled (same message_id)", f"{total('doubled'):,}"),
        ("changed", f"{total('changed'):,}"),
        ("out of order", f"{total('out_of_order'):,}"),
        ("rules of Discord's broken", f"{violations:,}"),
        ("sessions that Discord ended", f"{total('lost_sessions'):,}"),
        ("of these, its buffer exceeded", f"{total('overrun_sessions'):,}"),
        ("tracebacks in the log", f"{total('tracebacks'):,}"),
        ("entries of event logs (of these doubled)", f"{total('entries'):,} ({total('log_doubled'):,})"),
        ("in a queue and not in the log", f"{total('log_missing'):,}"),
        ("wrong in the log", f"{total('log_wrong'):,}"),
        (
            "of a bot behind proxies: sessions, resumes",
            f"{total('bot_sessions'):,}, {total('bot_resumes'):,}",
        ),
        ("its events", f"{total('bot_events'):,}"),
        ("missing in a session, twice, wrong", ", ".join(f"{total(name):,}" for name in BOT_FAULTS)),
        ("its state and Discord's differ in", f"{total('bot_differences'):,}"),
        ("gaps told", f"{total('gaps'):,}"),
        ("identifies (required)", f"{total('identifies'):,} ({total('identifies_allowed'):,})"),
    ]


def show(results: Sequence[Result], console: Console) -> None:
    """The recovery times by kind, and the audit."""
    seeds = ", ".join(f"seed {result.seed} with {result.processes} processes" for result in results)
    table = Table(title=f"seconds to recover, faults that came alone ({seeds})")
    for name in ("fault", "times", "lasted p50", "recovered p50", "recovered max"):
        table.add_column(name, justify="left" if name == "fault" else "right", no_wrap=True)
    for kind, count, lasted, recovered in times(results):
        figures = (
            [
                f"{statistics.median(lasted):.2f}",
                f"{statistics.median(recovered):.2f}",
                f"{max(recovered):.2f}",
            ]
            if recovered
            else ["–"] * 3
        )
        table.add_row(kind, str(count), *figures)
    console.print(table)
    for kind, why in {pair for result in results for pair in result.not_run.items()}:
        console.print(f"not run: {kind}: {why}", highlight=False)
    audit = Table(title="audit against the simulated Discord's ledger", show_header=False)
    for name, value in summary(results):
        audit.add_row(name, value)
    console.print(audit)
    for result in results:
        for line in (*result.violations[:20], *result.notes):
            console.print(f"seed {result.seed}: {line}", markup=False, highlight=False)


def write_json(results: Iterable[Result], path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(results)), indent=1))


def draw(results: Sequence[Result], path: Path) -> None:
    """A timeline of each run: events a second sent and arrived, the lag between them, and where faults struck."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    count = 2 * len(results)
    figure, every = plt.subplots(count, 1, figsize=(16, 3.2 * count), layout="constrained")
    for place, result in enumerate(results):
        rates, lags = every[2 * place], every[2 * place + 1]
        samples = result.samples
        for index, name in ((1, "sent"), (2, "arrived")):
            points = [
                (later[0], (later[index] - earlier[index]) / max(1e-6, later[0] - earlier[0]))
                for earlier, later in zip(samples, samples[SMOOTHED:], strict=False)
            ]
            rates.plot(
                [point[0] for point in points], [point[1] for point in points], label=name, linewidth=0.7
            )
        lags.plot(
            [sample[0] for sample in samples],
            [max(0, sample[1] - sample[2]) for sample in samples],
            color="tab:red",
            linewidth=0.7,
        )
        for each in result.recoveries:
            for axes in (rates, lags):
                axes.axvspan(
                    each.at, each.at + each.lasted + each.recovered, color="grey", alpha=0.2, linewidth=0
                )
        rates.set_ylim(bottom=0)
        lags.set_ylim(bottom=0)
        rates.set_ylabel("events a second")
        rates.legend(loc="upper right")
        lags.set_ylabel("sent − arrived")
        lags.set_xlabel("seconds; grey: from a fault to its recovery")
        rates.set_title(f"{result.faults} faults, seed {result.seed}, {result.processes} processes")
    figure.savefig(path, dpi=90)
    plt.close(figure)
