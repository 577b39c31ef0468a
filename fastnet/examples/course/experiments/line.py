"""A line by three forms of gradient descent, with raw and with standardised inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import COLORS, GREY, STYLES

RATE, NEAR, MOST = 0.005, 0.05, 150
OPTIMIZERS: dict[str, Callable[[], fn.Optimizer]] = {
    "SGD": lambda: fn.SGD(RATE),
    "momentum 0.6": lambda: fn.SGD(RATE, momentum=0.6),
    "Nesterov 0.8": lambda: fn.SGD(RATE, momentum=0.8, nesterov=True),
}
INPUTS = {"raw": "raw input, U(0, 5)", "standardised": "standardised input"}


def points(seed: int) -> dict[str, tuple[Array, Array]]:
    """Thirty points of y = 3x + 2 + U(−0.1, 0.1): their inputs as they are, and standardised."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 5, (30, 1))
    y = 3 * x + 2 + random.uniform(-0.1, 0.1, (30, 1))
    return {"raw": (x, y), "standardised": ((x - x.mean()) / x.std(), y)}


def path(
    x: Array, y: Array, start: Array, optimizer: fn.Optimizer, epochs: int, seed: int
) -> Array:
    """Bias and slope at the start and after each epoch: (epochs + 1, 2)."""
    model = fn.Sequential(fn.Linear(1, 1), dtype="float64")
    with model.edit() as values:
        values["0.bias"][...], values["0.weight"][...] = start
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer, seed=seed)
    found = [[*start]]
    for _ in range(epochs):
        trainer.fit(x, y, batch_size=1, verbose=0)
        found.append([p.item() for p in reversed(model.parameters())])
    return np.array(found)


def epochs_to(line: Array, best: Array) -> int:
    """The first epoch after which both numbers stay within a share of the way that they had to go."""
    away = np.abs(line - best).max(axis=1)
    beyond = np.flatnonzero(away > NEAR * away[0])
    return int(beyond[-1]) + 1


def run(data: Data, seed: int, quick: bool) -> Result:
    """Each optimizer on each form of the inputs."""
    paths, least, counts = {}, {}, {}
    given = points(seed)
    raw_x = given["raw"][0]
    # The same line in either form: 10 + 5x.
    starts = {"raw": [10, 5], "standardised": [10 + 5 * raw_x.mean(), 5 * raw_x.std()]}
    for form, (x, y) in given.items():
        best = np.polyfit(x[:, 0], y[:, 0], 1)[::-1]
        hessian = 2 * np.array([[1, x.mean()], [x.mean(), (x**2).mean()]])
        least[form] = best, hessian
        for name, make in OPTIMIZERS.items():
            paths[form, name] = path(
                x, y, np.array(starts[form], float), make(), 5 if quick else MOST, seed
            )
            counts[form, name] = epochs_to(paths[form, name], best)
    raw = paths["raw", "Nesterov 0.8"][-1]
    source = "by 1/(1 − μ), the sum of a geometric series; the method is B. T. Polyak's, 1964"
    rows = [
        Row(
            f"{part}, raw input, Nesterov 0.8",
            float(raw[i]),
            value,
            "the line itself",
            digits=3,
            why=w,
        )
        for i, (part, value) in enumerate((("bias", 2.0), ("slope", 3.0)))
        for w in ["the noise of thirty points, and of the last steps"]
    ]
    figures = {"bias": float(raw[0]), "slope": float(raw[1])}
    for form, (_, hessian) in least.items():
        first, last = np.linalg.eigvalsh(hessian)
        condition = float(last / first)
        rows.append(Row(f"condition of the Hessian, {INPUTS[form]}", condition, digits=1))
        figures[f"condition, {form}"] = condition
        plain = counts[form, "SGD"]
        for name, μ in (("SGD", 0.0), ("momentum 0.6", 0.6), ("Nesterov 0.8", 0.8)):
            count = counts[form, name]
            rows.append(
                Row(f"epochs to {NEAR:.0%} of the way, {INPUTS[form]}, {name}", count, digits=0)
            )
            if μ:
                why = "epochs are whole numbers, and the standardised input needs few"
                rows.append(
                    Row("  as a share of SGD's", count / plain, 1 - μ, source, digits=2, why=why)
                )
                figures[f"share, {form}, {name}"] = count / plain
    return Result(rows, {"paths": paths, "least": least}, figures)


def draw(figure: Any, result: Result) -> None:
    """The paths on the contours of the loss."""
    for ax, (form, (best, hessian)) in zip(
        figure.subplots(1, 2), result.drawn["least"].items(), strict=True
    ):
        lines = {name: p for (f, name), p in result.drawn["paths"].items() if f == form}
        every = np.concatenate([*lines.values(), best[None]])
        low, high = every.min(axis=0), every.max(axis=0)
        middle, half = (low + high) / 2, 0.56 * (high - low).max()
        b, w = (np.linspace(middle[i] - half, middle[i] + half, 120) for i in (0, 1))
        apart = np.stack(np.meshgrid(b, w), axis=-1) - best
        loss = np.einsum("...i,ij,...j->...", apart, hessian, apart) / 2
        ax.contour(
            b, w, loss, levels=np.geomspace(0.02, loss.max(), 14), colors=GREY, linewidths=0.6
        )
        for (name, p), style, color in zip(lines.items(), STYLES, COLORS, strict=False):
            ax.plot(
                *p.T,
                linestyle=style,
                color=color,
                marker=".",
                markersize=3,
                linewidth=1.1,
                label=name,
            )
        ax.plot(
            *best, "+", color=COLORS[3], markersize=12, markeredgewidth=2, label="least squares"
        )
        ax.set(title=INPUTS[form], xlabel="bias", ylabel="slope", aspect="equal")
    figure.axes[0].legend()


EXPERIMENT = Experiment(
    "line",
    "y = 3x + 2 by SGD, momentum and Nesterov",
    20,
    "A unit learns a line from thirty points, one at a time, from the line 10 + 5x at the rate "
    "0.005; the picture has a point for each epoch. With raw inputs the loss is a narrow valley, "
    "along which SGD creeps. With standardised inputs it is round, and all go straight.",
    run,
    draw,
    (7.6, 3.8),
    bands={
        "bias": (1.93, 2.09),
        "slope": (2.96, 3.04),
        "condition, raw": (12.2, 89.4),
        "share, raw, momentum 0.6": (0.374, 0.434),
        "share, raw, Nesterov 0.8": (0.17, 0.232),
        "condition, standardised": (0.999999, 1.000001),
        "share, standardised, momentum 0.6": (0.3999996, 0.4000004),
        "share, standardised, Nesterov 0.8": (0.1999998, 0.2000002),
    },
)
