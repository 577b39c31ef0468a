"""Learning to learn: the comparison of fastnet.examples.learning_to_learn with the shipped optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples import learning_to_learn as example
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import STYLES, grid

SOURCE = "M. Andrychowicz et al., NeurIPS 2016, abstract and figure 4: ahead of optimizers by hand"


def run(data: Data, seed: int, quick: bool) -> Result:
    """Forty-eight quadratics that the training has not seen; peers at the best of their rates."""
    count = 4 if quick else 48

    def problems() -> Any:
        return example.Quadratics(np.random.default_rng([example.TEST, seed]), count)

    if quick:
        found = {"learned": (example.LR, example.optimised(problems(), fn.LearnedOptimizer()))}
    else:
        found = example.compare(problems)
    rows = [
        Row(
            f"mean of f after {steps} steps, {name}",
            float(values[steps].mean()),
            digits=4,
            source=SOURCE
            if name == "learned"
            else f"rate {rate:g}, the best of {len(example.RATES)}",
        )
        for steps in (20, 100)
        for name, (rate, values) in found.items()
    ]
    ends = {name: float(values[100].mean()) for name, (_, values) in found.items()}
    best = min((value for name, value in ends.items() if name != "learned"), default=1.0)
    figures = {"learned / best peer": ends["learned"] / best}
    return Result(rows, {name: values.mean(axis=1) for name, (_, values) in found.items()}, figures)


def draw(figure: Any, result: Result) -> None:
    """The means by step."""
    ax = figure.subplots()
    for (name, values), style in zip(result.drawn.items(), STYLES, strict=False):
        ax.semilogy(values, linestyle=style, label=name, linewidth=2 if name == "learned" else 1)
    ax.set(xlabel="step", ylabel="mean of f")
    ax.legend()
    grid(ax)


EXPERIMENT = Experiment(
    "learned",
    "Learning to learn by gradient descent by gradient descent",
    150,
    "An LSTM that fastnet ships, trained on other quadratics of ten numbers, takes 100 steps on "
    "48 new ones, beside optimizers at the best rate of a grid.",
    run,
    draw,
    (6.2, 3.0),
    bands={
        "learned / best peer": (0.352, 1.22),
    },
)
