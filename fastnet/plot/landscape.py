"""Slices of a loss, as fastnet.curvature makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.curvature import Landscape
from fastnet.errors import UsageError, check_flag, check_int, check_kind
from fastnet.op import Array
from fastnet.plot.figures import FIRST, SECOND, figure_of


def landscape(landscape: Any, levels: int = 16, log: bool = False, figure: Any = None) -> Any:
    """A slice of a loss: contour lines of a plane, or the curve along a line, with a mark at the model.

    landscape: the result of `fn.curvature.landscape`.
    levels: integer ≥ 2 (default 16), about how many steps of the loss lines stand at.
    log: True shows the loss by its logarithm, with which valleys beside steep walls are seen; all losses
        that are finite must be above 0 (default False).
    figure: a figure of matplotlib's to draw in (default None: a new one).

    Points whose loss is not finite stay white. Returns the figure. Raises MissingExtra without matplotlib.
    Source: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, "Visualizing the loss landscape of neural
    nets", NeurIPS 2018, figures 1 and 5.
    """
    check_kind("landscape", landscape, Landscape)
    levels, log = check_int("levels", levels, low=2), check_flag("log", log)
    losses = np.ma.masked_invalid(landscape.loss)
    known = losses.compressed()
    if not known.size:
        raise UsageError(
            "plot.landscape: no loss of the landscape is finite; expected one of a smaller extent"
        )
    if log and known.min() <= 0:
        raise UsageError(
            f"plot.landscape: log is True, and the least loss is {known.min():g}; expected losses above 0, "
            "or log=False"
        )
    if landscape.beta is None:
        return _curve(landscape, losses, log, figure)
    return _plane(landscape, losses, _levels(known, levels, log), log, figure)


def _levels(known: Array, count: int, log: bool) -> Array:
    """Where lines stand: at equal steps of the loss, or of its logarithm."""
    low, high = float(known.min()), float(known.max())
    if not high > low:
        high = low + max(abs(low), 1.0) * 1e-6
    return np.geomspace(low, high, count) if log else np.linspace(low, high, count)


def _curve(landscape: Landscape, losses: Any, log: bool, figure: Any) -> Any:
    made = figure_of(figure, 5.2, 3.6)
    axes = made.add_subplot()
    axes.plot(landscape.alpha, losses, color=FIRST)
    axes.axvline(0.0, color=SECOND, linewidth=1, label="the model")
    if log:
        axes.set_yscale("log")
    axes.set_xlabel("α")
    axes.set_ylabel("loss")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=0.9, edgecolor="none", fontsize=9)
    return made


def _plane(landscape: Landscape, losses: Any, levels: Array, log: bool, figure: Any) -> Any:
    made = figure_of(figure, 5.6, 4.6)
    axes = made.add_subplot()
    # Rows of a picture are what goes up: β.
    across = landscape.alpha, landscape.beta, losses.T
    scale = {"norm": "log"} if log else {}
    filled = axes.contourf(*across, levels=levels, cmap="Blues_r", **scale)
    axes.contour(*across, levels=levels, colors="white", linewidths=0.5)
    axes.plot([0.0], [0.0], marker="+", color=SECOND, markersize=11, markeredgewidth=2)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(nbins=5)
    axes.set_xlabel("α")
    axes.set_ylabel("β")
    axes.set_title("+ the model", fontsize=10, loc="left")
    bar = made.colorbar(filled, ax=axes, label="loss", ticks=levels[:: max(1, len(levels) // 6)])
    bar.ax.set_yticks(bar.get_ticks(), [f"{t:.3g}" for t in bar.get_ticks()])
    bar.ax.minorticks_off()
    return made
