"""A net of thirty radial basis functions on noisy points, with and without a penalty."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import GREEN, GREY, STYLES

CENTERS, POINTS, NOISE = 30, 40, 0.4
ALPHAS = (0.0, 2.0)


def truth(x: Array) -> Array:
    """What the points are around."""
    return np.asarray(np.sin(2 * np.pi * x))


def run(data: Data, seed: int, quick: bool) -> Result:
    """Centres at points, output weights in closed form for each α."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1, (POINTS, 1))
    y = truth(x) + NOISE * random.normal(size=x.shape)
    grid = np.linspace(0, 1, 400)[:, None]
    found: dict[float, Array] = {}
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for alpha in ALPHAS:
        trainer = fn.recipes.fit_rbf(
            x,
            y,
            CENTERS,
            fn.MSELoss(),
            phases=2,
            ridge=alpha,
            method="sample",
            seed=seed,
            dtype="float64",
            verbose=0,
        )
        model = trainer.model
        found[alpha] = model.predict(grid)[:, 0]
        size = float(np.linalg.norm(model.state_dict()["1.weight"]))
        inside = float(np.sqrt(np.mean((model.predict(x) - y) ** 2)))
        outside = float(np.sqrt(np.mean((found[alpha] - truth(grid)[:, 0]) ** 2)))
        rows += [
            Row(
                f"deviation at the points, α = {alpha:g}",
                inside,
                NOISE if alpha else None,
                "the noise's" if alpha else "",
                digits=3,
                why="forty points, and a net that bends" if alpha else "",
            ),
            Row(f"deviation from the sine, α = {alpha:g}", outside, digits=3),
            Row(f"length of the weights, α = {alpha:g}", size, digits=1),
        ]
        figures |= {f"inside, {alpha:g}": inside, f"outside, {alpha:g}": outside}
    return Result(rows, {"x": x, "y": y, "grid": grid, "found": found}, figures)


def draw(figure: Any, result: Result) -> None:
    """The points, the sine, and both nets."""
    ax = figure.subplots()
    d = result.drawn
    ax.plot(d["x"], d["y"], "o", color=GREY, markersize=3.5)
    ax.plot(d["grid"], truth(d["grid"]), color=GREEN, linewidth=1, label="sine")
    for (alpha, values), style in zip(d["found"].items(), STYLES, strict=False):
        ax.plot(d["grid"], values, linestyle=style, label=f"α = {alpha:g}")
    ax.set(ylim=(-2.2, 2.2), xlabel="x")
    ax.legend()


EXPERIMENT = Experiment(
    "rbf",
    "Thirty radial basis functions, and a penalty",
    120,
    "Forty points lie around a sine, with noise of 0.4. Thirty of them are the centres, and the "
    "output weights are found in closed form, with the penalty α·‖w‖². With α = 0 the net follows "
    "the noise; α = 2 keeps the weights small and the curve smooth.",
    run,
    draw,
    (6.4, 3.0),
    bands={
        "inside, 0": (0.0429, 0.333),
        "outside, 0": (0, 2.5),
        "inside, 2": (0.179, 0.569),
        "outside, 2": (0.128, 0.549),
    },
)
