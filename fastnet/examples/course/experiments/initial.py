"""The variance of activations and of gradients through twenty layers, for five initialisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import STYLES, grid

LAYERS = 20
KINDS: dict[str, Callable[[int], fn.init.Initializer]] = {
    "LeCun": lambda width: fn.init.LecunNormal(),
    "Glorot": lambda width: fn.init.GlorotNormal(),
    "He": lambda width: fn.init.HeNormal(),
    "too small": lambda width: fn.init.Normal(0.0, 0.5 / width**0.5),
    "too large": lambda width: fn.init.Normal(0.0, 2 * (2 / width) ** 0.5),
}
# Variance of a weight times the fan, σ²·n. Rectifiers pass half of it on (K. He et al., ICCV 2015, 2.2).
FACTORS = {"LeCun": 1.0, "Glorot": 1.0, "He": 2.0, "too small": 0.25, "too large": 8.0}
UNITS = {"ReLU": fn.ReLU, "tanh": fn.Tanh}
WHY = "a mean over random weights, theirs; ours are one draw of 128 units a layer"
SOURCE = "K. He et al., ICCV 2015, section 2.2: σ²·n/2 a layer, with ReLU"


def linears(weights: fn.init.Initializer, width: int, seed: int) -> list[fn.Linear]:
    """The layers with weights, drawn as those of a model."""
    options: dict[str, Any] = {"weight_init": weights, "bias_init": fn.init.Zeros()}
    layers = [fn.Linear(width, width, **options) for _ in range(LAYERS)]
    fn.Sequential(*layers, dtype="float64", seed=seed).parameters()
    return layers


def moments(linear: list[fn.Linear], unit: Any, seed: int, x: Array) -> tuple[Array, Array]:
    """The mean squares of each layer's output, and of the gradient of each layer's input."""
    layers = [layer for one in linear for layer in (one, unit())]
    forward, backward = [np.mean(x**2)], []
    for layer in layers:
        x = layer.forward(x)
        forward.append(np.mean(x**2))
    dy = np.random.default_rng(seed + 1).normal(size=x.shape)
    backward.append(np.mean(dy**2))
    for layer in reversed(layers):
        dy = layer.backward(dy)
        backward.append(np.mean(dy**2))
    return np.array(forward[::2]), np.array(backward[::2])


def run(data: Data, seed: int, quick: bool) -> Result:
    """Layer by layer, forward and backward."""
    x = np.random.default_rng(seed).normal(size=(32, 32) if quick else (256, 128))
    found, rows, figures = {}, [], {}
    width = x.shape[1]
    drawn = {kind: linears(make(width), width, seed) for kind, make in KINDS.items()}
    for name, unit in UNITS.items():
        for kind, linear in drawn.items():
            there, back = moments(linear, unit, seed, x)
            found[name, kind] = there, back
            for way, values in (("activations", there), ("gradients", back)):
                factor = float((values[-1] / values[0]) ** (1 / LAYERS))
                published = FACTORS[kind] / 2 if name == "ReLU" else None
                source, why = (SOURCE, WHY) if name == "ReLU" else ("", "")
                rows.append(
                    Row(
                        f"{way}, factor a layer, {kind}, {name}",
                        factor,
                        published,
                        source,
                        digits=3,
                        why=why,
                    )
                )
                figures[f"{way}, {kind}, {name}"] = factor
    return Result(rows, found, figures)


def draw(figure: Any, result: Result) -> None:
    """Mean squares by layer."""
    axes = figure.subplots(1, 4, sharey=True)
    for column, name in enumerate(UNITS):
        for (kind, _), style in zip(KINDS.items(), STYLES, strict=False):
            there, back = result.drawn[name, kind]
            axes[2 * column].semilogy(there, linestyle=style, label=kind)
            axes[2 * column + 1].semilogy(range(LAYERS, -1, -1), back, linestyle=style)
        axes[2 * column].set(title=f"{name}: activations²", xlabel="layer")
        axes[2 * column + 1].set(title=f"{name}: gradients²", xlabel="layer")
    axes[0].legend(fontsize=7)
    for ax in axes:
        grid(ax)


EXPERIMENT = Experiment(
    "initial",
    "Initialisations through twenty layers",
    90,
    "Twenty layers of 128 units get normal inputs, and normal gradients at their end. A layer "
    "multiplies the mean square by a factor: with ReLU by σ²·n/2, which is 1 for He's "
    "initialisation alone; in layers as wide as their inputs LeCun's is Glorot's. tanh holds "
    "activations in its range, but not the gradients of large weights.",
    run,
    draw,
    (10.0, 2.9),
    bands={
        "activations, LeCun, ReLU": (0.435, 0.564),
        "gradients, LeCun, ReLU": (0.466, 0.529),
        "activations, Glorot, ReLU": (0.435, 0.564),
        "gradients, Glorot, ReLU": (0.466, 0.529),
        "activations, He, ReLU": (0.871, 1.13),
        "gradients, He, ReLU": (0.932, 1.06),
        "activations, too small, ReLU": (0.108, 0.141),
        "gradients, too small, ReLU": (0.116, 0.133),
        "activations, too large, ReLU": (3.48, 4.51),
        "gradients, too large, ReLU": (3.72, 4.23),
        "activations, LeCun, tanh": (0.811, 0.848),
        "gradients, LeCun, tanh": (0.832, 0.864),
        "activations, Glorot, tanh": (0.811, 0.848),
        "gradients, Glorot, tanh": (0.832, 0.864),
        "activations, He, tanh": (0.937, 0.948),
        "gradients, He, tanh": (1.05, 1.08),
        "activations, too small, tanh": (0.234, 0.254),
        "gradients, too small, tanh": (0.236, 0.253),
        "activations, too large, tanh": (0.978, 0.984),
        "gradients, too large, tanh": (1.7, 1.81),
    },
)
