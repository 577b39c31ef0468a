"""Leaving a saddle: the fits of fastnet.examples.saddle."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.examples import saddle
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import STYLES, grid


def run(data: Data, seed: int, quick: bool) -> Result:
    """The three methods; nothing in them is random."""
    histories = {
        "saddle-free Newton": saddle.fit(saddle.OFFSET, "saddle-free-newton", tol=1e-9),
        "Newton": saddle.fit(saddle.OFFSET, "newton", tol=1e-9),
        "gradient descent, best rate": saddle.descent(1.0, 50) if quick else saddle.best_descent(),
    }
    source = "Y. Dauphin et al., NeurIPS 2014: it leaves saddles, to which Newton's method is drawn"
    rows, figures = [], {}
    for name, history in histories.items():
        found, last = saddle.left(history), history.records[-1]["loss"] / saddle.LOSS
        count = float("inf") if found is None else float(found)
        rows += [
            Row(
                f"iterations to leave, {name}",
                count,
                source=source,
                digits=0,
                why="" if found else "it does not leave",
            ),
            Row(f"loss at the end / at the saddle, {name}", last, digits=2),
        ]
        figures[f"end, {name}"] = float(last)
    figures["iterations, saddle-free Newton"] = float(
        saddle.left(histories["saddle-free Newton"]) or 0
    )
    losses = {name: np.array(h.history["loss"]) / saddle.LOSS for name, h in histories.items()}
    return Result(rows, losses, figures)


def draw(figure: Any, result: Result) -> None:
    """The losses by iteration."""
    ax = figure.subplots()
    for (name, losses), style in zip(result.drawn.items(), STYLES, strict=False):
        x = 1 + np.arange(len(losses))
        marker = "o" if len(x) < 50 else None
        ax.loglog(
            x, np.maximum(losses, 1e-6), linestyle=style, marker=marker, markersize=3, label=name
        )
    ax.set(xlabel="iteration, from 1", ylabel="loss / at the saddle", ylim=(1e-6, 3))
    ax.legend()
    grid(ax)


EXPERIMENT = Experiment(
    "saddle",
    "Saddle-free Newton at a saddle",
    140,
    "Three linear layers start a thousandth beside a saddle. Newton's method goes into it, "
    "gradient descent stays for long, and the saddle-free method takes curvatures by their size "
    "and leaves.",
    run,
    draw,
    (6.2, 3.0),
    bands={  # nothing is random; rounding differs between machines
        "end, saddle-free Newton": (0.0, 1e-6),
        "end, Newton": (0.999, 1.001),
        "end, gradient descent, best rate": (0.0, 1e-6),
        "iterations, saddle-free Newton": (8.0, 18.0),
    },
)
