"""The plots of docs/methods.md, activations and schedules, and docs/second-order.md's landscape, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fastnet as fn
from fastnet import schedules
from fastnet.errors import HyperparameterError, ShapeError

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": "#9aa3ad",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": "#1f262d",
    "xtick.color": "#3a424b",
    "ytick.color": "#3a424b",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fastnet",  # the same file each time
}
VALUE, SLOPE, ZERO = "#c2410c", "#1e5b8f", "#d5dae0"
X = np.linspace(-4, 4, 321)
T = np.arange(200)
COLUMNS = 4
# How each schedule is drawn, as code.
EXAMPLES = (
    "ConstantLR(1, 1/3, 50)",
    "StepLR(1, 50, 0.5)",
    "MultiStepLR(1, [40, 60, 150], 0.5)",
    "ExponentialLR(1, 0.98)",
    "InverseTimeLR(1, 0.05)",
    "InverseSqrtLR(1, 20)",
    "PolynomialLR(1, 150, 2)",
    "LinearLR(1, 0.1, 1, 100)",
    "LambdaLR(1, lambda t: 1 / (1 + t // 50))",
    "CosineAnnealingLR(1, 200)",
    "CosineAnnealingWarmRestarts(1, 30, 2)",
    "CosLogLR(1, 200)",
    "FlatCosLR(1, 200)",
    "OneCycleLR(1, 200)",
    "OneCycleLR(1, 200, anneal_strategy='linear', three_phase=True)",
    "OneCycleMomentum(200)",
    "CyclicLR(0.1, 1, 25)",
    "CyclicLR(0.1, 1, 25, mode='triangular2')",
    "WarmupLR(StepLR(1, 60, 0.5), 40)",
    "SequentialLR([0.2, ExponentialLR(1, 0.98)], [50])",
    "ProductLR(1, LinearLR(1, 0.1, 1, 40), StepLR(1, 60, 0.5))",
    "PerEpoch(ExponentialLR(1, 0.8), 20)",
)


def elementwise(classes: Iterable[type]) -> Iterator[tuple[str, Any, Any]]:
    """Name, f and f′ on X of the layers that map each element by itself, but the identity."""
    for method in classes:
        try:
            layer: Any = method().eval()
            apart, together = layer.forward(X[:, None])[:, 0], layer.forward(X[None])[0]
        except (
            TypeError,
            HyperparameterError,
            ShapeError,
        ):  # it needs sizes, layers, or several features
            continue
        if np.allclose(apart, together) and not np.array_equal(apart, X):
            layer.forward(X[:, None])
            yield method.__name__, apart, layer.backward(np.ones((len(X), 1)))[:, 0]


def grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many small plots."""
    rows = -(-count // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(2.6 * COLUMNS, height * rows), layout="constrained"
    )
    for unused in axes.flat[count:]:
        unused.set_visible(False)
    return figure, list(axes.flat[:count])


def activations(classes: Iterable[type]) -> Figure:
    """f and f′ of each activation."""
    found = list(elementwise(classes))
    figure, axes = grid(len(found), 1.9)
    for ax, (name, value, slope) in zip(axes, found, strict=True):
        ax.axhline(0, color=ZERO, linewidth=0.8)
        ax.axvline(0, color=ZERO, linewidth=0.8)
        ax.plot(X, _broken(slope), color=SLOPE, linewidth=1.1, label="f′")
        ax.plot(X, value, color=VALUE, linewidth=1.5, label="f")
        ax.set_title(name)
        ax.set_ylim(max(-2.2, value.min() - 0.2), min(4.2, max(value.max(), slope.max()) + 0.3))
    axes[0].legend(frameon=False, loc="upper left")
    return figure


def _broken(slope: Any) -> Any:
    """The line without what would join the two sides of a jump."""
    jumps = np.abs(np.diff(slope, append=slope[-1])) > 0.15
    return np.where(jumps, np.nan, slope)


def plot_schedules(classes: Iterable[type]) -> Figure:
    """The numbers of each schedule."""
    drawn = {code.partition("(")[0] for code in EXAMPLES}
    if missing := [method.__name__ for method in classes if method.__name__ not in drawn]:
        raise LookupError(f"docs/plots.py has no example of {', '.join(missing)}")
    figure, axes = grid(len(EXAMPLES), 1.7)
    names = {name: getattr(schedules, name) for name in schedules.__all__}
    for ax, code in zip(axes, EXAMPLES, strict=True):
        name, _, arguments = code.partition("(")
        ax.plot(T, eval(code, {**names})(T), color=VALUE, linewidth=1.4)
        ax.set_title(name)
        ax.set_xlabel(_folded(f"({arguments}"), fontsize=6.5, color="#5b6570")
        ax.set_ylim(-0.05, 1.08)
    return figure


def landscape() -> Figure:
    """The loss of a small net around its minimum, in a plane."""
    (x, y), _ = fn.datasets.digits()
    x = x / x.max()
    layers = fn.Linear(64, 16), fn.Tanh(), fn.Linear(16, 10)
    model, loss = fn.Sequential(*layers, dtype="float64", seed=0), fn.CrossEntropyLoss()
    fn.Trainer(model, loss, fn.Adam(1e-2), seed=0).fit(x, y, epochs=10, verbose=0)
    found = fn.curvature.landscape(model.eval(), loss, x, y, points=21)
    figure = plt.figure(figsize=(4.8, 4.0), layout="constrained")
    fn.plot.landscape(found, levels=12, log=True, figure=figure)
    return figure


def _folded(code: str) -> str:
    """In two lines where it is long."""
    if len(code) <= 36:
        return code
    cut = code.rfind(", ", 0, 38) + 2
    return f"{code[:cut].rstrip()}\n{code[cut:]}"


def draw(layers: Iterable[type], classes: Iterable[type]) -> dict[str, Figure]:
    """All figures by their names."""
    with plt.rc_context(STYLE):
        return {
            "activations": activations(layers),
            "schedules": plot_schedules(classes),
            "landscape": landscape(),
        }


def write(folder: Path, layers: Iterable[type], classes: Iterable[type]) -> None:
    """The figures as SVG files."""
    folder.mkdir(exist_ok=True)
    for name, figure in draw(layers, classes).items():
        with plt.rc_context(STYLE):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
