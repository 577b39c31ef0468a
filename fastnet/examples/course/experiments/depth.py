"""Nets of sigmoids with zero to four hidden layers, and what makes depth work."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import COLORS, STYLES, grid
from fastnet.examples.course.training import fitted, one_hot, tested

NIELSEN = "M. Nielsen, Neural Networks and Deep Learning, 2015, chapter 5"
PUBLISHED = {
    0: (88.0, "the course's lecture, about; its settings are not told"),
    1: (96.48, NIELSEN),
    2: (96.90, NIELSEN),
    3: (96.57, NIELSEN),
    4: (96.53, NIELSEN),
}
SHORT = "an epoch of the digits has 144 steps, where his has 5,000: too few for the upper layers' slopes"
WHY = "his of one run on 50,000 rows, by 10,000 for validation; ours by the test rows"
SHORT_ROWS = "one random net each, and eight by eight pixels"
KINDS = {
    "sigmoid": "sigmoids, N(0, 1/fan_in)",
    "relu": "ReLU, He's initialisation",
    "batchnorm": "ReLU, He's initialisation, batchnorm",
}


def net(data: Data, depth: int, kind: str, seed: int) -> fn.Sequential:
    """inputs-(30)ⁿ-10; its outputs are the logits of ten sigmoids."""
    weights = fn.init.LecunNormal() if kind == "sigmoid" else fn.init.HeNormal()
    biases = fn.init.Normal(0.0, 1.0) if kind == "sigmoid" else fn.init.Zeros()
    layers: list[Any] = []
    for i, o in pairwise((data.inputs, *[30] * depth, 10)):
        layers.append(fn.Linear(i, o, weight_init=weights, bias_init=biases))
        if len(layers) and o == 30:
            layers += [fn.BatchNorm1d(30)] if kind == "batchnorm" else []
            layers.append(fn.Sigmoid() if kind == "sigmoid" else fn.ReLU())
    return fn.Sequential(*layers, seed=seed)


def rate(kind: str) -> fn.Optimizer:
    """Nielsen's 0.1 on the sum over the outputs, which is ten times their mean, with his λ/n = 10⁻⁴."""
    return fn.SGD(1.0, weight_decay=1e-5) if kind == "sigmoid" else fn.SGD(0.3, weight_decay=1e-5)


def run(data: Data, seed: int, quick: bool) -> Result:
    """Train fifteen nets; measure the gradients of those with four hidden layers."""
    epochs = 1 if quick else 30
    if quick:
        data = data.few(200)
    y = one_hot(data.y)
    found: dict[str, Array] = {}
    norms: dict[str, Any] = {}
    biases: dict[str, Any] = {}
    for number, kind in enumerate(KINDS):
        models = [net(data, depth, kind, 100 * seed + 10 * number + depth) for depth in range(5)]
        records = [[fn.Record(activations=False, rows=500)] if n == 4 else [] for n in range(5)]
        options = {"epochs": epochs, "batch_size": 10, "metrics": {}, "callbacks": records}
        fitted(models, data.X, y, rate(kind), seed, fn.BCEWithLogitsLoss(), **options)
        found[kind] = tested(models, data)
        history = records[4][0].history
        linears = [i for i, layer in enumerate(models[4]) if isinstance(layer, fn.Linear)]
        norms[kind], biases[kind] = (
            np.array([[one["gradients"][f"{i}.{part}"] for i in linears] for one in history])
            for part in ("weight", "bias")
        )
    rows = []
    for n, (published, source) in PUBLISHED.items():
        why = WHY if data.mnist else SHORT
        if n == 0:
            why = "ours minimises the cross-entropy"
        what = f"{n} hidden layers, {KINDS['sigmoid']}"
        rows.append(Row(what, found["sigmoid"][n], published, source, " %", 2, why, n > 0))
    rows += [
        Row(
            f"{n} hidden layers, {KINDS[kind]}",
            found[kind][n],
            unit=" %",
        )
        for kind in ("relu", "batchnorm")
        for n in range(1, 5)
    ]
    ratios = {kind: float(norms[kind][0, 0] / norms[kind][0, 3]) for kind in KINDS}
    slope = float(biases["sigmoid"][0, 0] / biases["sigmoid"][0, 3])
    why = "his and ours of one random net each; ours by 500 rows" if data.mnist else SHORT_ROWS
    what = "‖gradient‖ of the biases of layer 1 / of layer 4 at the start, sigmoids"
    rows.append(Row(what, slope, 0.003 / 0.285, NIELSEN, "", 4, why))
    source = "K. He et al., ICCV 2015: He's initialisation keeps the gradients' variance"
    rows += [
        Row(f"‖gradient‖ of layer 1 / of layer 4 at the start, {KINDS[k]}", ratios[k], source=s)
        for k, s in (("sigmoid", f"{NIELSEN}: early layers learn slowest"), ("relu", source))
    ]
    figures = {
        "linear": found["sigmoid"][0],
        "sigmoid, 1 hidden layer": found["sigmoid"][1],
        "sigmoid, 4 hidden layers": found["sigmoid"][4],
        "ReLU, 4 hidden layers": found["relu"][4],
        "batchnorm, 4 hidden layers": found["batchnorm"][4],
        "log₁₀ of gradients, sigmoid": float(np.log10(ratios["sigmoid"])),
        "log₁₀ of gradients, ReLU": float(np.log10(ratios["relu"])),
    }
    return Result(rows, {"norms": norms, "found": found}, figures)


def draw(figure: Any, result: Result) -> None:
    """The accuracies by depth, and the norms of the gradients by layer over the training."""
    axes = figure.subplots(1, 4, width_ratios=(1.25, 1, 1, 1))
    for (kind, values), style in zip(result.drawn["found"].items(), STYLES, strict=False):
        first = 0 if kind == "sigmoid" else 1
        axes[0].plot(
            range(first, 5), values[first:], linestyle=style, marker="o", markersize=3, label=kind
        )
    axes[0].set(title="test accuracy, %", xlabel="hidden layers", xticks=range(5))
    axes[0].legend()
    for ax, (kind, norms) in zip(axes[1:], result.drawn["norms"].items(), strict=True):
        for layer in range(norms.shape[1]):
            values = norms[:, layer]
            ax.semilogy(
                values, linestyle=STYLES[layer], color=COLORS[layer], label=f"layer {layer + 1}"
            )
        ax.set(title=f"{kind}: ‖gradient‖", xlabel="epoch")
        ax.sharey(axes[1])
    axes[1].legend(ncols=2, fontsize=6.5)
    for ax in axes:
        grid(ax)


EXPERIMENT = Experiment(
    "depth",
    "Depth with sigmoids, and with what makes it work",
    10,
    "Nets with layers of 30 units learn by SGD in minibatches of 10, with ten sigmoid outputs, "
    "their cross-entropy and a little weight decay, for 30 epochs. With sigmoids more layers "
    "hardly help, as the gradients of the first layers are small. With ReLU and He's "
    "initialisation they start with equal size; batchnorm keeps them so.",
    run,
    draw,
    (10.0, 2.9),
    bands={
        "linear": (93.4, 96.3),
        "sigmoid, 1 hidden layer": (94, 97.91),
        "sigmoid, 4 hidden layers": (7.49, 16.4),
        "ReLU, 4 hidden layers": (94.7, 98.05),
        "batchnorm, 4 hidden layers": (95.4, 99.3),
        "log₁₀ of gradients, sigmoid": (-2.7, -1.67),
        "log₁₀ of gradients, ReLU": (-0.523, 0.571),
    },
)
