"""What goes into the last hidden layer's sigmoids over a training, with and without batchnorm."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import BLUE, grid
from fastnet.examples.course.training import fitted, tested

SOURCE = "S. Ioffe, C. Szegedy, ICML 2015, section 4.1 and figure 1"
NAMES = ("without batchnorm", "with batchnorm")


def net(data: Data, normalised: bool, seed: int) -> fn.Sequential:
    """inputs-100-100-100-10 with sigmoids, from small normal weights."""
    layers: list[Any] = []
    weights = fn.init.Normal(0.0, 0.1)
    for width in (data.inputs, 100, 100):
        layers.append(fn.Linear(width, 100, weight_init=weights, bias_init=fn.init.Zeros()))
        layers += [fn.BatchNorm1d(100)] if normalised else []
        layers.append(fn.Sigmoid())
    return fn.Sequential(*layers, fn.Linear(100, 10, weight_init=weights), seed=seed)


def run(data: Data, seed: int, quick: bool) -> Result:
    """Train both for as many steps as the paper, 50,000, or 5,000 on the digits."""
    if quick:
        data = data.few(300)
    steps = 50_000 if data.mnist else 5_000
    epochs = 2 if quick else round(steps / (len(data.X) / 60))
    models = [net(data, normalised, seed) for normalised in (False, True)]
    every = max(1, epochs // 40)
    records = [[fn.Record(gradients=False, every=every)] for _ in models]
    options = {"epochs": epochs, "batch_size": 60, "callbacks": records}
    rate = fn.SGD(0.1)
    histories = fitted(
        models, data.X, data.y, rate, seed, validation=(data.X_test, data.y_test), **options
    )
    found = tested(models, data)
    bands, spreads, moved = [], [], []
    for model, (record,) in zip(models, records, strict=True):
        path = str(len(model) - 3)  # what goes into the last sigmoids
        kept = [one["activations"][path] for one in record.history]
        points = np.array([[one[p] for p in ("p15", "p50", "p85")] for one in kept])
        bands.append((np.array([one["epoch"] for one in record.history]), points))
        spreads.append(float(points[-1, 2] - points[-1, 0]))
        moved.append(float(np.abs(np.diff(points, axis=0)).sum(axis=0).max()))
    early = [float(100 * h.history["val_accuracy"][max(0, epochs // 10 - 1)]) for h in histories]
    rows = [
        *(
            Row(f"test accuracy, {name}", value, unit=" %")
            for name, value in zip(NAMES, found, strict=True)
        ),
        *(
            Row(
                f"after a tenth of the training, {n}",
                v,
                unit=" %",
                source=f"{SOURCE} (a): batchnorm learns faster",
            )
            for n, v in zip(NAMES, early, strict=True)
        ),
        *(
            Row(f"distance of the 15 % and 85 % percentiles at the end, {n}", v)
            for n, v in zip(NAMES, spreads, strict=True)
        ),
        *(
            Row(
                f"way of a percentile over the training, {n}",
                v,
                source=f"{SOURCE} (b, c): more stable with batchnorm",
                why="ours of all units, where γ widens the band; theirs of one unit, on binary images",
            )
            for n, v in zip(NAMES, moved, strict=True)
        ),
    ]
    figures = {
        "accuracy with": float(found[1]),
        "faster": early[1] - early[0],
        "way without / with": moved[0] / moved[1],
    }
    curves = [100 * np.array(h.history["val_accuracy"]) for h in histories]
    return Result(rows, {"bands": bands, "curves": curves}, figures)


def draw(figure: Any, result: Result) -> None:
    """The test accuracy, and the bands of the two nets."""
    axes = figure.subplots(1, 3)
    for curve, name, style in zip(result.drawn["curves"], NAMES, ("--", "-"), strict=True):
        axes[0].plot(range(1, len(curve) + 1), curve, linestyle=style, label=name)
    axes[0].set(title="test accuracy, %", xlabel="epoch")
    axes[0].legend()
    for ax, (epochs, points), name in zip(axes[1:], result.drawn["bands"], NAMES, strict=True):
        ax.fill_between(epochs, points[:, 0], points[:, 2], color=BLUE, alpha=0.3, linewidth=0)
        ax.plot(epochs, points[:, 1], color=BLUE, label="median, 15 % to 85 %")
        ax.set(title=f"into the last sigmoids, {name}", xlabel="epoch")
        ax.sharey(axes[1])
    axes[1].legend()
    for ax in axes:
        grid(ax)


EXPERIMENT = Experiment(
    "batchnorm",
    "What batchnorm does to a layer's inputs",
    50,
    "A net with three layers of 100 sigmoids learns in minibatches of 60. The bands are the 15 %, "
    "50 % and 85 % percentiles of what goes into the last hidden sigmoids, over all units (the "
    "paper shows one typical unit). With batchnorm the net learns sooner, and the median stays at "
    "0 from the first steps on, while the band widens with γ.",
    run,
    draw,
    (9.6, 2.9),
    bands={
        "accuracy with": (95.9, 99.87),
        "faster": (72, 92.7),
        "way without / with": (1.11, 1.95),
    },
)
