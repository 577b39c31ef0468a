"""The curves of a history: loss, metrics and learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnet.errors import UsageError
from fastnet.op import Array
from fastnet.plot.figures import FIRST, SECOND, along_epochs, grid_of

COUNTERS = ("epoch", "iteration")  # what x is, the first that there is
OTHERS = (*COUNTERS, "seconds", "samples_per_second", "evaluations")  # not drawn
RATES = ("lr", "learning_rate")
MARKED = 20  # epochs up to which each is marked
DECADES = 1.5  # that positive losses and rates must span for a logarithmic axis


def curves(records: Sequence[Mapping[str, Any]], figure: Any = None) -> Any:
    """Axes for the loss, each metric and the learning rate, each with its validation's curve."""
    if not records:
        raise UsageError("plot: the history has no epochs; call fit first")
    counter = next((name for name in COUNTERS if name in records[0]), "")
    x = _column(records, counter) if counter else np.arange(1.0, len(records) + 1)
    names = dict.fromkeys(name for record in records for name in record if name not in OTHERS)
    columns = {name: _column(records, name) for name in names}
    drawn = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    panels = [n for n in drawn if not (n.startswith("val_") and n.removeprefix("val_") in drawn)]
    panels.sort(key=lambda name: name in RATES)  # the rate comes last
    if not panels:
        raise UsageError("plot: the history has no numbers to draw; expected records with a loss")
    made, grid = grid_of(figure, len(panels))
    for axes, name in zip(grid, panels, strict=True):
        _draw(axes, x, name, drawn)
        along_epochs(axes, counter or "epoch")
    return made


def _draw(axes: Any, x: Array, name: str, drawn: Mapping[str, Array]) -> None:
    marker = "o" if len(x) <= MARKED else None
    style: dict[str, Any] = {"marker": marker, "markersize": 3.5, "linewidth": 1.6}
    values, valid = drawn[name], drawn.get(f"val_{name}")
    axes.plot(x, values, color=FIRST, label="training", **style)
    if valid is not None:
        axes.plot(x, valid, color=SECOND, linestyle="--", label="validation", **style)
        if name == "loss":
            at = int(np.nanargmin(valid))
            label = f"lowest: {valid[at]:.4g} at {x[at]:,.0f}"
            dot = {"color": "none", "markeredgecolor": "black", "markersize": 9}
            axes.plot(x[at], valid[at], "o", label=label, **dot)
        axes.legend(frameon=False)
    axes.set_ylabel("learning rate" if name in RATES else name.replace("_", " "))
    if (name == "loss" or name in RATES) and _spans(values, valid):
        axes.set_yscale("log")


def _spans(*values: Array | None) -> bool:
    """Whether the numbers are positive and lie decades apart."""
    every = np.concatenate([part for part in values if part is not None])
    every = every[np.isfinite(every)]
    return bool(every.size and every.min() > 0 and every.max() > 10**DECADES * every.min())


def _column(records: Sequence[Mapping[str, Any]], name: str) -> Array:
    """The numbers of a name; NaN for what is missing or no number."""
    found = np.full(len(records), np.nan)
    for i, record in enumerate(records):
        value = record.get(name)
        if isinstance(value, (int, float, np.integer, np.floating)):
            found[i] = value
    return found
