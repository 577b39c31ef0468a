"""Four optimizers over their hyper-parameters: the sweep of fastnet.examples.optimizers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples import optimizers
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import STYLES, grid

SOURCE = "M. D. Zeiler, arXiv:1212.5701, table"
CHECKED = False  # no copy of the report was at hand
# Test errors in percent; rows as RATES and EPSILONS of the example, columns as its COLUMNS and SHARES.
TABLE_1 = (
    (2.26, 89.68, 43.76),
    (2.51, 2.03, 2.82),
    (7.02, 2.68, 1.79),
    (17.01, 6.98, 5.21),
    (58.10, 16.98, 12.59),
)
TABLE_2 = ((2.59, 2.58, 2.32), (2.05, 1.99, 2.28), (1.90, 1.83, 2.05), (2.29, 2.13, 2.00))


def run(data: Data, seed: int, quick: bool) -> Result:
    """Both tables."""
    if quick:
        data = data.few(100)
    options = SimpleNamespace(backend="auto", seed=seed, data=data.mnist, epochs=1 if quick else 6)
    train, test = (data.X, data.y), (data.X_test, data.y_test)

    def error(optimizer: fn.Optimizer) -> float:
        return 100 * optimizers.test_error(optimizer, train, test, options)

    first = [[error(make(lr)) for make in optimizers.COLUMNS.values()] for lr in optimizers.RATES]
    second = [
        [error(fn.Adadelta(rho=rho, eps=eps)) for rho in optimizers.SHARES]
        for eps in optimizers.EPSILONS
    ]
    why = (
        "55,000 rows, where he has all; initial weights and the place of eps are not told"
        if data.mnist
        else "digits, in minibatches of 10"
    )
    rows = [
        Row(
            f"{name}, rate {lr:g}", first[i][j], TABLE_1[i][j], f"{SOURCE} 1", " %", 2, why, CHECKED
        )
        for j, name in enumerate(optimizers.COLUMNS)
        for i, lr in enumerate(optimizers.RATES)
    ]
    rows += [
        Row(
            f"Adadelta, ρ {rho:g}, ε {eps:g}",
            second[i][j],
            TABLE_2[i][j],
            f"{SOURCE} 2",
            " %",
            2,
            why,
            CHECKED,
        )
        for j, rho in enumerate(optimizers.SHARES)
        for i, eps in enumerate(optimizers.EPSILONS)
    ]
    figures = {
        f"best, {name}": float(np.min(first, axis=0)[j])
        for j, name in enumerate(optimizers.COLUMNS)
    }
    figures["best, Adadelta"] = float(np.min(second))
    figures["median, Adadelta"] = float(np.median(second))
    figures["least median of the others"] = float(np.median(first, axis=0).min())
    return Result(rows, {"first": np.array(first), "second": np.array(second)}, figures)


def draw(figure: Any, result: Result) -> None:
    """The errors by rate, and Adadelta's by ε."""
    axes = figure.subplots(1, 2, sharey=True)
    parts = (
        (result.drawn["first"], TABLE_1, optimizers.RATES, list(optimizers.COLUMNS)),
        (
            result.drawn["second"],
            TABLE_2,
            optimizers.EPSILONS,
            [f"ρ {s:g}" for s in optimizers.SHARES],
        ),
    )
    for ax, (ours, published, x, names) in zip(axes, parts, strict=True):
        for j, name in enumerate(names):
            (line,) = ax.loglog(
                x, ours[:, j], linestyle=STYLES[j], marker="o", markersize=3, label=name
            )
            ax.plot(x, np.array(published)[:, j], "x", color=line.get_color(), markersize=5)
        ax.legend()
        grid(ax)
    axes[0].set(title="test error, %; × published", xlabel="learning rate")
    axes[0].set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes[1].set(title="Adadelta", xlabel="ε")


EXPERIMENT = Experiment(
    "zeiler",
    "How much optimizers depend on their numbers",
    60,
    "A net with 500 and 300 tanh units learns for six epochs in minibatches of 100 (on the digits "
    "of 10). SGD, momentum and Adagrad need the right rate; Adadelta depends less on its numbers, "
    "in the published tables hardly at all.",
    run,
    draw,
    (8.0, 3.3),
    bands={
        "best, SGD": (1.52, 7.64),
        "best, momentum 0.9": (2.08, 5.98),
        "best, Adagrad": (1.38, 4.73),
        "best, Adadelta": (0.278, 5.84),
        "median, Adadelta": (0.415, 15.5),
        "least median of the others": (0.418, 27.7),
    },
)
