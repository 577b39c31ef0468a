"""The distribution of each layer's activations over the training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, UsageError, shown
from fastnet.op import Array
from fastnet.plot.figures import BAND, FIRST, along_epochs, grid_of


def activations(record: Any, layers: Iterable[str] | None = None, figure: Any = None) -> Any:
    """The median of each layer's outputs by epoch, with a band from their 15 % to their 85 % percentile.

    record: an `fn.Record` that has been among the callbacks of a fit, or its `history`.
    layers: the paths of the layers to show, such as ["1", "3"] (default None: all).
    figure: a figure of matplotlib's to draw in (default None: a new one).

    A band that closes is a layer that says the same of all inputs; one at the end of an activation's range
    is saturated. A title ends with the share of saturated outputs or of dead units after the last epoch,
    where the record has it. Returns the figure. Raises MissingExtra without matplotlib.
    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, figures 2 and 3 (there with percentiles of 2 and 98 %).
    """
    history = getattr(record, "history", record)
    if not isinstance(history, list) or not all(
        isinstance(one, Mapping) and "epoch" in one for one in history
    ):
        raise HyperparameterError(
            f"record is {shown(record)}; expected a fastnet.Record, or its history"
        )
    measured = [one for one in history if one.get("activations")]
    if not measured:
        raise UsageError(
            "plot.activations: the record has no activations; fit with callbacks=[record], where record "
            "is fn.Record(activations=True)"
        )
    there = list(dict.fromkeys(path for one in measured for path in one["activations"]))
    wanted = there if layers is None else _paths(layers, there)
    made, grid = grid_of(figure, len(wanted))
    for axes, path in zip(grid, wanted, strict=True):
        ones = [one for one in measured if path in one["activations"]]
        epochs = np.array([one["epoch"] for one in ones])
        values = [one["activations"][path] for one in ones]
        _draw(axes, epochs, values, path)
        along_epochs(axes)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("activation")
    grid[0].legend(framealpha=0.9, edgecolor="none", fontsize=9)
    return made


def _paths(layers: Any, there: list[str]) -> list[str]:
    try:
        wanted = [layers] if isinstance(layers, str) else list(layers)
    except TypeError:
        wanted = []
    if not wanted or not all(isinstance(path, str) and path in there for path in wanted):
        raise HyperparameterError(
            f"layers is {shown(layers)}; expected paths among {', '.join(map(repr, there))}"
        )
    return wanted


def _draw(axes: Any, epochs: Array, values: list[Mapping[str, Any]], path: str) -> None:
    low, middle, high = (
        np.array([value[name] for value in values], float) for name in ("p15", "p50", "p85")
    )
    axes.fill_between(epochs, low, high, color=BAND, linewidth=0, label="15 % to 85 %")
    marker = "o" if len(epochs) <= 20 else None
    axes.plot(epochs, middle, color=FIRST, marker=marker, markersize=3.5, label="median")
    last = values[-1]
    ends = [f"{name} {last[name]:.1%}" for name in ("dead", "saturated") if name in last]
    axes.set_title(", ".join([f"{path}  {last['layer']}", *ends]), fontsize=10, loc="left")
