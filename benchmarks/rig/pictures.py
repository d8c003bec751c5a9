"""Pictures of results as PNG, drawn only when matplotlib is there (the ``compare`` group)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.rig.results import picture_folder

OURS, OTHERS, EXTREMES = "#5865f2", "#b3b8d4", "#888888"


def _plot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def bars(
    name: str, title: str, rows: list[tuple[str, dict[str, Any]]], unit: str, digest: str, folder: Path
) -> None:
    """Horizontal bars with the runs' extremes, largest below; a logarithmic axis when they differ much. ``digest`` is
    noted in the file: which rows it shows.
    """
    plot = _plot()
    if plot is None or not rows:
        return
    rows = sorted(rows, key=lambda row: -float(row[1]["median"]))
    middle = [row[1]["median"] for row in rows]
    low = [row[1]["median"] - row[1]["low"] for row in rows]
    high = [row[1]["high"] - row[1]["median"] for row in rows]
    figure, axes = plot.subplots(figsize=(9, 0.7 + 0.36 * len(rows)))
    axes.barh([row[0] for row in rows], middle, xerr=[low, high], color=OURS, ecolor=EXTREMES, capsize=2)
    for place, (value, more) in enumerate(zip(middle, high, strict=True)):
        # Behind the extremes, which it would hide.
        axes.text(value + more, place, f"  {value:.3g}", va="center", fontsize=8)
    if max(middle) > 20 * min(middle):
        axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="y", labelsize=7)
    _save(plot, figure, name, folder, digest)


# (what it is about, (label, figure, whether it is ours) of each bar)
Panel = tuple[str, list[tuple[str, dict[str, Any], bool]]]


def panels(name: str, title: str, shown: list[Panel], digest: str, folder: Path) -> None:
    """A panel of horizontal bars for each load, three in a row, each on a linear axis of its own that begins at 0, with
    the runs' extremes. ``digest`` is noted in the file: which rows it shows.
    """
    plot = _plot()
    if plot is None or not shown:
        return
    across = 3
    down = -(-len(shown) // across)
    bars_each = max(len(bars) for _, bars in shown)
    figure, grid = plot.subplots(down, across, figsize=(11, down * (0.8 + 0.36 * bars_each)), squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.axis("off")
            continue
        words, bars = shown[place]
        middle = [value["median"] for _, value, _ in bars]
        low = [value["median"] - value["low"] for _, value, _ in bars]
        high = [value["high"] - value["median"] for _, value, _ in bars]
        colours = [OURS if ours else OTHERS for _, _, ours in bars]
        lines = range(len(bars))
        axes.barh(lines, middle, xerr=[low, high], color=colours, ecolor=EXTREMES, capsize=2)
        for line, (value, more) in enumerate(zip(middle, high, strict=True)):
            axes.text(
                value + more,
                line,
                f"  {value:.2g}" if value < 100 else f"  {value:.0f}",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(lines, [label for label, _, _ in bars] if place % across == 0 else ["" for _ in bars])
        axes.tick_params(labelsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.22 * max(value + more for value, more in zip(middle, high, strict=True)))
        axes.set_title(words, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    _save(plot, figure, name, folder, digest)


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
    _save(plot, figure, name, picture_folder())


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
    _save(plot, figure, name, picture_folder())


def _save(plot: Any, figure: Any, name: str, folder: Path, digest: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    # As wide as its longest label wants.
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Description": digest})
    plot.close(figure)
    print(f"picture: {path}")
