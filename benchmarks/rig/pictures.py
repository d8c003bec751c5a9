"""Pictures of results as PNG, drawn only when matplotlib is there (the ``compare`` group)."""

from __future__ import annotations

from typing import Any

from benchmarks.rig.results import PICTURES


def _plot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def bars(name: str, title: str, rows: list[tuple[str, dict[str, Any]]], unit: str, ours: str = "") -> None:
    """Horizontal bars with the runs' extremes, largest below; a logarithmic axis when they differ much. Rows whose
    label does not begin with ``ours`` are pale.
    """
    plot = _plot()
    if plot is None or not rows:
        return
    rows = sorted(rows, key=lambda row: -float(row[1]["median"]))
    middle = [row[1]["median"] for row in rows]
    low = [row[1]["median"] - row[1]["low"] for row in rows]
    high = [row[1]["high"] - row[1]["median"] for row in rows]
    figure, axes = plot.subplots(figsize=(9, 0.7 + 0.36 * len(rows)))
    colours = ["#5865f2" if row[0].startswith(ours) else "#b3b8d4" for row in rows]
    axes.barh([row[0] for row in rows], middle, xerr=[low, high], color=colours, ecolor="#888888", capsize=2)
    for place, (value, more) in enumerate(zip(middle, high, strict=True)):
        # Behind the extremes, which it would hide.
        axes.text(value + more, place, f"  {value:.3g}", va="center", fontsize=8)
    if max(middle) > 20 * min(middle):
        axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="y", labelsize=7)
    _save(plot, figure, name)


def histograms(name: str, title: str, samples: dict[str, list[float]], unit: str) -> None:
    """Overlaid histograms on a logarithmic axis, the median of each as a line."""
    plot = _plot()
    if plot is None or not samples:
        return
    every = sorted(value for values in samples.values() for value in values)
    low, high = max(every[0], 1e-3), every[-1]
    edges = [low * (high / low) ** (step / 80) for step in range(81)]
    figure, axes = plot.subplots(figsize=(9, 4))
    for label, values in samples.items():
        axes.hist(values, bins=edges, histtype="step", label=label, density=False)
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_ylabel("events")
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=10)
    _save(plot, figure, name)


def lines(name: str, title: str, series: dict[str, tuple[list[float], list[float]]], x: str, y: str) -> None:
    """Curves over a common x."""
    plot = _plot()
    if plot is None or not series:
        return
    figure, axes = plot.subplots(figsize=(9, 4))
    for label, (across, up) in series.items():
        axes.plot(across, up, label=label, linewidth=1)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=10)
    _save(plot, figure, name)


def _save(plot: Any, figure: Any, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.png"
    # As wide as its longest label wants.
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plot.close(figure)
    print(f"picture: {path}")
