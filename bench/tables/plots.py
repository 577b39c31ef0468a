"""Plots of a run: training steps, predictions, matrix products, the roofline; PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from measure.timing import duration, median, microseconds, ratio
from tables import ratios

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE = {
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": "#3a424b",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": "#1f262d",
    "xtick.color": "#3a424b",
    "ytick.color": "#3a424b",
    "svg.hashsalt": "fastnet",  # the same file for the same run
}
OURS, OURS_TOO, PEER, EDGE = "#c2410c", "#f0a071", "#b9c2cc", "#1f262d"
FIRST = ("fastnet c", "fastnet", "fastnet train_on_batch")  # of fastnet's, in its first colour
PARTS = {
    "GEMM": "#1e5b8f",
    "Adam": "#5a9bc9",
    "batchnorm": "#2a9d8f",
    "dropout": "#8ac6a4",
    "softmax": "#7a6fb0",
}
REST = "#e6e9ed"
MOST = 2.1  # the end of the axis of products
FORMS = {"A·B": ("o", "#1e5b8f"), "Aᵀ·B": ("s", "#2a9d8f"), "A·Bᵀ": ("^", "#c2410c")}


def colour(name: str) -> str:
    """Of a contender's bar."""
    if name in FIRST:
        return OURS
    return OURS_TOO if name.startswith("fastnet") else PEER


def bars(
    axes: Axes, times: dict[str, list[float]], title: str, write: Callable[[float], str]
) -> None:
    """One case: a bar for each contender, shortest first, its time written beside it."""
    middle = {name: median(each) for name, each in times.items() if name != "roofline"}
    names = sorted(middle, key=middle.__getitem__)
    axes.barh(names, [middle[name] for name in names], color=list(map(colour, names)), height=0.72)
    longest = max(middle.values())
    for row, name in enumerate(names):
        weight = "bold" if name.startswith("fastnet") else "normal"
        label = write(middle[name])
        axes.text(middle[name] + 0.015 * longest, row, label, va="center", weight=weight)
    if "roofline" in times and median(times["roofline"]) > 0.005 * longest:
        axes.axvline(median(times["roofline"]), color=EDGE, linestyle=(0, (3, 2)), linewidth=1)
    axes.set_title(title)
    axes.set_xlim(0, 1.2 * longest)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines["bottom"].set_visible(False)


def panels(
    cases: dict[str, Any],
    titles: list[str],
    heading: str,
    notes: Sequence[str] = (),
    write: Callable[[float], str] = microseconds,
) -> Figure:
    """A panel of bars for each case, two in a row, and one for notes."""
    across = 2
    down = math.ceil((len(cases) + bool(notes)) / across)
    most = max(len(case["times"]) for case in cases.values())
    figure, grid = plt.subplots(
        down, across, figsize=(5 * across, down * (0.7 + 0.26 * most)), squeeze=False
    )
    for axes, title, case in zip(grid.flat, titles, cases.values(), strict=False):
        bars(axes, case["times"], title, write)
    for axes in grid.flat[len(cases) :]:
        axes.axis("off")
    if notes:
        grid.flat[-1].text(0, 0.98, "\n".join(notes), va="top", linespacing=1.5)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12, weight="bold")
    figure.tight_layout(h_pad=1.6, w_pad=2.0)
    return figure


def fit(cases: dict[str, Any]) -> Figure | None:
    """Whole fits in which others take part."""
    cases = {n: c for n, c in cases.items() if ratios.against(c["times"], "fastnet", ())}
    if not cases:
        return None
    titles = [case["title"].replace(" rows, ", " rows,\n") for case in cases.values()]
    heading = "Time of a whole fit, one core (less is better)"
    return panels(cases, titles, heading, write=duration)


def loops(cases: dict[str, Any]) -> Figure:
    """Steps of loops of one's own."""
    titles = [case["title"] for case in cases.values()]
    heading = "µs per step of a loop of one's own, one core (less is better)"
    notes = [
        "fastnet engine: the steps alone, thousands",
        "in one native call, as a fit makes them.",
    ]
    return panels(cases, titles, heading, notes)


def steps(cases: dict[str, Any]) -> Figure:
    """Training steps of each workload."""
    titles = [case["title"].replace(", batchnorm", ",\nbatchnorm") for case in cases.values()]
    notes = ["Dashed: the roofline, the least time that", "a step can take on this core."]
    if "deep" in cases and "scikit-learn" in cases["deep"]["times"]:
        notes += ["", "scikit-learn trains the deep net without", "batchnorm and dropout."]
    return panels(
        cases, titles, "µs per training step of the engine, one core (less is better)", notes
    )


def predict(cases: dict[str, Any]) -> Figure:
    """Predictions of each net and batch."""
    return panels(
        cases, list(cases), "µs per prediction called from Python, one core (less is better)"
    )


def gemm(cases: dict[str, Any]) -> Figure | None:
    """Products: how many times as fast as PyTorch's and NumPy's BLAS."""
    peers = [p for p in ("PyTorch", "NumPy") if any(p in c["times"] for c in cases.values())]
    if not peers:
        return None
    shapes = list(dict.fromkeys(name.split()[0] for name in cases))
    figure, grid = plt.subplots(
        1, len(peers), figsize=(10, 1.3 + 0.3 * len(shapes)), sharey=True, squeeze=False
    )
    for axes, peer in zip(grid.flat, peers, strict=True):
        beyond: list[tuple[float, int]] = []
        for form, (marker, colour) in FORMS.items():
            points = [
                (ratio(cases[f"{shape} {form}"]["times"], peer, "fastnet"), row)
                for row, shape in enumerate(shapes)
                if peer in cases.get(f"{shape} {form}", {"times": {}})["times"]
            ]
            across = [min(value, MOST) for value, _ in points]
            rows = [row for _, row in points]
            axes.scatter(across, rows, marker=marker, color=colour, s=34, label=form, zorder=3)
            beyond += [point for point in points if point[0] > MOST]
        for row in {row for _, row in beyond}:
            values = sorted(value for value, at in beyond if at == row)
            label = " – ".join(f"{v:.0f}×" for v in dict.fromkeys((values[0], values[-1])))
            axes.text(MOST - 0.06, row, f"{label} →", va="center", ha="right")
        axes.axvline(1, color=EDGE, linewidth=1)
        axes.set_xlim(0.4, MOST + 0.05)
        ticks = (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)
        axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
        axes.grid(axis="x", color="#eef0f3")
        axes.set_yticks(range(len(shapes)), shapes)
        axes.set_axisbelow(True)
        axes.tick_params(left=False)
        axes.set_title(f"against {peer} ({'MKL' if peer == 'PyTorch' else 'OpenBLAS'})")
    grid.flat[0].invert_yaxis()
    grid.flat[0].legend(frameon=False, loc="lower right")
    heading = "Matrix products M×N×K: times as fast as the peer, one core (more is better)"
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12, weight="bold")
    figure.tight_layout(w_pad=2.0)
    return figure


def roofline(cases: dict[str, Any]) -> Figure | None:
    """What a step must take, part by part, as shares of the time that fastnet takes."""
    rows = [
        (f"{name}, {ours.removeprefix('fastnet ')}", case, ours)
        for name, case in cases.items()
        if name != "xor"  # its step is overhead
        for ours in ratios.STEPS_OURS
        if ours in case["times"] and "roofline" in case["times"]
    ]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.36 * len(rows)))
    for row, (_, case, ours) in enumerate(rows):
        share, begin = ratio(case["times"], "roofline", ours), 0.0
        whole = sum(case["parts"].values())
        for part, seconds in case["parts"].items():
            width = share * seconds / whole
            axes.barh(row, width, left=begin, color=PARTS.get(part, PEER), height=0.7)
            begin += width
        axes.barh(row, max(0, 1 - begin), left=begin, color=REST, height=0.7)
        axes.text(1.01, row, f"{share:.0%}", va="center", weight="bold")
    used = [part for part in PARTS if any(part in case["parts"] for _, case, _ in rows)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=PARTS[part]) for part in used]
    handles.append(plt.Rectangle((0, 0), 1, 1, color=REST))
    axes.legend(
        handles,
        [*used, "all else"],
        ncols=len(handles),
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
    )
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_xlim(0, 1.06)
    axes.set_xticks([])
    axes.tick_params(left=False)
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    heading = "Share of a training step that is its roofline: work at the core's best rate"
    figure.suptitle(heading, x=0.01, ha="left", fontsize=12, weight="bold")
    figure.tight_layout()
    return figure


DRAWERS: dict[str, tuple[str, Callable[[dict[str, Any]], Figure | None]]] = {
    "fit": ("fit", fit),
    "loops": ("loops", loops),
    "steps": ("steps", steps),
    "roofline": ("steps", roofline),
    "predict": ("predict", predict),
    "gemm": ("gemm", gemm),
}


def draw(results: dict[str, Any], folder: Path) -> list[str]:
    """Write all plots that the run has times for; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with plt.rc_context(STYLE):
        for name, (section, drawer) in DRAWERS.items():
            figure = drawer(results[section]) if results.get(section) else None
            if figure is None:
                continue
            figure.savefig(folder / f"{name}.png", dpi=160)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)
            drawn.append(name)
    return drawn
