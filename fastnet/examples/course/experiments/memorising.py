"""Nets that learn random labels and random inputs by heart."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import STYLES, grid
from fastnet.examples.course.training import accuracies, fitted, tested

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
KINDS = ("plain", "dropout", "decay")
ROWS = 500
SOURCE = "C. Zhang et al., ICLR 2017, table 1: MLP 3×512 on CIFAR-10"
PIXELS = "C. Zhang et al., ICLR 2017, figure 1 (a): a small Inception on CIFAR-10"
ENDS = "ours ends after 100 epochs"
WHY = "other images, and a smaller net"


def net(inputs: int, kind: str, seed: int) -> fn.Sequential:
    """inputs-256-256-10 of ReLU."""
    layers: list[Any] = []
    for width in (inputs, 256):
        layers += [fn.Linear(width, 256, weight_init=fn.init.HeNormal()), fn.ReLU()]
        layers += [fn.Dropout(0.5)] if kind == "dropout" else []
    return fn.Sequential(*layers, fn.Linear(256, 10), seed=seed)


def corrupted(y: Array, share: float, random: np.random.Generator) -> Array:
    """Labels of which so many, in random places, are drawn anew."""
    chosen = random.permutation(len(y))[: round(share * len(y))]
    made = y.copy()
    made[chosen] = random.integers(10, size=len(chosen))
    return made


def run(data: Data, seed: int, quick: bool) -> Result:
    """Each share of corrupted labels for each kind of net, then random inputs."""
    data, epochs = (data.few(100), 2) if quick else (data.few(ROWS), 100)
    random = np.random.default_rng(seed)
    rate = {kind: fn.AdamW(1e-3, weight_decay=1.0 if kind == "decay" else 0.0) for kind in KINDS}
    training, test = np.zeros((2, len(KINDS), len(SHARES)))
    for i, share in enumerate(SHARES):
        y = corrupted(data.y, share, random)
        models = [net(data.inputs, kind, 10 * seed + j) for j, kind in enumerate(KINDS)]
        fitted(models, data.X, y, list(rate.values()), seed, epochs=epochs, batch_size=50)
        training[:, i], test[:, i] = accuracies(models, data.X, y), tested(models, data)
    noise = random.normal(0.5, 0.3, size=data.X.shape).astype(np.float32)
    model = net(data.inputs, "plain", 10 * seed)
    fitted([model], noise, data.y, rate["plain"], seed, epochs=epochs, batch_size=50)
    (heart,) = accuracies([model], noise, data.y)
    rows = [
        Row("training accuracy, true labels", training[0, 0], 100.0, SOURCE, " %", why=ENDS),
        Row("test accuracy, true labels", test[0, 0], 52.39, SOURCE, " %", why=WHY),
        Row("test accuracy, true labels, decay", test[2, 0], 53.35, SOURCE, " %", why=WHY),
        Row("training accuracy, random labels", training[0, -1], 100.0, SOURCE, " %", why=ENDS),
        Row(
            "test accuracy, random labels",
            test[0, -1],
            10.48,
            SOURCE,
            " %",
            why="chance is 10; random",
        ),
        Row("training accuracy, random inputs", heart, 100.0, PIXELS, " %", why=ENDS),
    ]
    rows += [
        Row(f"training accuracy, random labels, {kind}", training[j, -1], unit=" %", source=s)
        for j, kind in enumerate(KINDS)
        for s in ["C. Zhang et al., section 3: regularisers need not prevent it; ours are strong"]
        if j
    ]
    rows += [
        Row(f"test accuracy, {share:.0%} corrupted, {kind}", test[j, i], unit=" %")
        for i, share in enumerate(SHARES[1:-1], 1)
        for j, kind in enumerate(KINDS)
    ]
    figures = {
        "training, random labels": training[0, -1],
        "training, random inputs": float(heart),
        "test, true labels": test[0, 0],
        "test, random labels": test[0, -1],
        "test, 40 % corrupted": test[0, 2],
        "test, 40 % corrupted, dropout": test[1, 2],
    }
    return Result(rows, {"training": training, "test": test}, figures)


def draw(figure: Any, result: Result) -> None:
    """Accuracies by the share of corrupted labels."""
    axes = figure.subplots(1, 2, sharey=True)
    for ax, part in zip(axes, ("training", "test"), strict=True):
        for values, kind, style in zip(result.drawn[part], KINDS, STYLES, strict=False):
            ax.plot(
                100 * np.array(SHARES),
                values,
                linestyle=style,
                marker="o",
                markersize=3,
                label=kind,
            )
        ax.set(title=f"{part} accuracy, %", xlabel="corrupted labels, %")
        grid(ax)
    axes[1].axhline(10, linewidth=0.7, color="#85909b")
    axes[0].legend()


EXPERIMENT = Experiment(
    "memorising",
    "Random labels by heart",
    70,
    "A net with two layers of 256 ReLUs learns the first 500 images for 100 epochs, with ever "
    "more labels drawn at random, and in the end with random inputs. It learns them all; what it "
    "knows of other images falls with the share. Dropout and decay change how far, not the kind "
    "of it.",
    run,
    draw,
    (7.4, 3.0),
    bands={
        "training, random labels": (99.69, 100),
        "training, random inputs": (99.9999, 100.0001),
        "test, true labels": (94.8, 97.63),
        "test, random labels": (1.11, 21.2),
        "test, 40 % corrupted": (59.3, 77.7),
        "test, 40 % corrupted, dropout": (76.1, 91.7),
    },
)
