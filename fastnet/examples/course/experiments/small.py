"""What helps where there are few data: L1, L2, dropout, early stopping, label smoothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import BLUE, GREY, grid
from fastnet.examples.course.training import tested

ROWS, NETS = 200, 5
SRIVASTAVA = (
    "N. Srivastava et al., JMLR 2014, table 2: error 1.60 % of a net without it, 1.35 % of another with "
    "it, all of MNIST"
)


def net(data: Data, dropout: float, seed: int) -> fn.Sequential:
    """inputs-256-256-10 of ReLU."""
    layers: list[Any] = []
    for width in (data.inputs, 256):
        layers += [fn.Linear(width, 256, weight_init=fn.init.HeNormal()), fn.ReLU()]
        layers += [fn.Dropout(dropout)] if dropout else []
    return fn.Sequential(*layers, fn.Linear(256, 10), seed=seed)


def adam() -> fn.Optimizer:
    """Adam at its usual rate."""
    return fn.Adam(1e-3)


KINDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "L1, 10⁻⁴": {"optimizer": lambda: fn.Adam(1e-3, l1=1e-4)},
    "L2, 10⁻³": {"optimizer": lambda: fn.Adam(1e-3, weight_decay=1e-3)},
    "dropout 0.5": {"dropout": 0.5},
    "early stopping": {"stop": True},
    "label smoothing 0.1": {"smoothing": 0.1},
}


def run(data: Data, seed: int, quick: bool) -> Result:
    """Five nets for each, on rows of their own."""
    epochs, nets = (2, 1) if quick else (100, NETS)
    random = np.random.default_rng(seed)
    chosen = [random.permutation(len(data.X))[: 50 if quick else ROWS] for _ in range(nets)]
    found = {}
    for name, kind in KINDS.items():
        models = [net(data, kind.get("dropout", 0.0), 100 * seed + i) for i in range(nets)]
        stop = [fn.EarlyStopping(patience=10, restore_best_weights=True)]
        fn.fit_many(
            models,
            data.X,
            data.y,
            losses=fn.CrossEntropyLoss(label_smoothing=kind.get("smoothing", 0.0)),
            optimizers=kind.get("optimizer", adam)(),
            seeds=[seed] * nets,
            rows=chosen,
            epochs=epochs,
            validation_split=0.2 if kind.get("stop") else None,
            callbacks=stop if kind.get("stop") else [],
        )
        found[name] = tested(models, data)
    base = found["nothing"]
    rows = [
        Row(
            f"test accuracy, {name}",
            float(values.mean()),
            unit=" %",
            why=f"from {values.min():.2f} to {values.max():.2f}",
        )
        for name, values in found.items()
    ]
    for name, values in found.items():
        gain = Row(f"  gain by {name}", float((values - base).mean()), unit=" %")
        if name.startswith("dropout"):
            why = f"of {ROWS} rows, not 60,000; its rate and the epochs are not tuned"
            gain = replace(gain, published=0.25, source=SRIVASTAVA, why=why)
        if name == "early stopping":
            gain = replace(gain, why="a fifth of the rows is held back to stop by")
        rows += [gain] if name != "nothing" else []
    figures = {name: float(values.mean()) for name, values in found.items()}
    return Result(rows, found, figures)


def draw(figure: Any, result: Result) -> None:
    """A point for each net, a bar for their mean."""
    ax = figure.subplots()
    for i, values in enumerate(result.drawn.values()):
        ax.plot(values, np.full(len(values), i), "o", color=GREY, markersize=4)
        ax.plot(values.mean(), i, "|", color=BLUE, markersize=18, markeredgewidth=3)
    ax.set_yticks(range(len(result.drawn)), list(result.drawn))
    ax.invert_yaxis()
    ax.set(xlabel="test accuracy, %")
    grid(ax)


EXPERIMENT = Experiment(
    "small",
    "Regularisers where data are few",
    110,
    "Five nets with two layers of 256 ReLUs learn 200 images each for 100 epochs by Adam; all "
    "kinds see the same rows in the same order. Bars are means, points the nets.",
    run,
    draw,
    (7.0, 2.6),
    bands={
        "nothing": (91.1, 95.6),
        "L1, 10⁻⁴": (90.6, 95.6),
        "L2, 10⁻³": (91.2, 95.4),
        "dropout 0.5": (91.5, 95.4),
        "early stopping": (89.3, 95.6),
        "label smoothing 0.1": (92.5, 96.1),
    },
)
