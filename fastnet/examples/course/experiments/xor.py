"""XOR from large and from scaled first weights."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import BLUE, GREY, ORANGE
from fastnet.examples.course.training import fitted

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])
NETS = 20
KINDS: dict[str, tuple[fn.init.Initializer, int]] = {
    "U(−10, 10)": (fn.init.Uniform(-10, 10), 6),
    "N(0, 1/√fan_in)": (fn.init.LecunNormal(), 0),
}
WHY = "counts of 20 random nets spread; the lecture's rate and steps are not told"
LECTURE = "the course's lecture, failures of 20 nets"


def net(weights: fn.init.Initializer, seed: int) -> fn.Sequential:
    """2-4-1 with sigmoids; the last one belongs to the loss."""
    options: dict[str, Any] = {"weight_init": weights, "bias_init": fn.init.Zeros()}
    layers = fn.Linear(2, 4, **options), fn.Sigmoid(), fn.Linear(4, 1, **options)
    return fn.Sequential(*layers, seed=seed, dtype="float64")


def run(data: Data, seed: int, quick: bool) -> Result:
    """Twenty nets of each kind."""
    rows, figures, surfaces = [], {}, []
    for kind, (weights, published) in KINDS.items():
        models = [net(weights, NETS * seed + i) for i in range(NETS)]
        options: dict[str, Any] = {
            "epochs": 20 if quick else 1000,
            "batch_size": 4,
            "shuffle": False,
            "metrics": {},
        }
        fitted(models, X, Y, fn.SGD(0.1, momentum=0.99), seed, fn.BCEWithLogitsLoss(), **options)
        solved = [np.array_equal(m.predict(X) > 0, Y > 0.5) for m in models]
        failed = NETS - sum(solved)
        rows.append(Row(f"nets that fail, {kind}", failed, published, LECTURE, "", 0, WHY, False))
        figures[f"failures, {kind}"] = float(failed)
        for right in (False, True):
            chosen = [m for m, s in zip(models, solved, strict=True) if s == right]
            if chosen:
                name = f"{kind}: one of {len(chosen)} that {'learn' if right else 'fail'}"
                surfaces.append((name, surface(chosen[0])))
    return Result(rows, {"surfaces": surfaces}, figures)


def surface(model: fn.Sequential) -> Array:
    """The net's probability on a grid around the four points."""
    a = np.linspace(-0.5, 1.5, 60)
    z = model.predict(np.stack(np.meshgrid(a, a), axis=-1).reshape(-1, 2)).reshape(60, 60)
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def draw(figure: Any, result: Result) -> None:
    """The decision surface of a net of each kind that fails, and of one that learns."""
    surfaces = result.drawn["surfaces"]
    a = np.linspace(-0.5, 1.5, 60)
    for ax, (name, p) in zip(
        figure.subplots(1, len(surfaces), squeeze=False)[0], surfaces, strict=True
    ):
        ax.contourf(a, a, p, levels=np.linspace(0, 1, 11), cmap="PuOr_r", alpha=0.75)
        ax.contour(a, a, p, levels=[0.5], colors=GREY, linewidths=1.5)
        for x, y in zip(X, Y[:, 0], strict=True):
            marker = {"marker": "s" if y else "o", "color": ORANGE if y else BLUE}
            ax.plot(*x, **marker, markersize=8, markeredgecolor="white", linestyle="")
        ax.set_title(name, fontsize=7.5)
        ax.set(aspect="equal", xticks=(0, 1), yticks=(0, 1))


EXPERIMENT = Experiment(
    "xor",
    "XOR: what large first weights do",
    30,
    "Twenty nets 2-4-1 of sigmoids make 1000 steps with momentum 0.99 on the four cases. From "
    "U(−10, 10) their units start saturated, where a sigmoid has no slope, and some nets never "
    "tell two cases apart. From N(0, 1/√fan_in) nearly all learn. Squares are ones, circles "
    "zeros.",
    run,
    draw,
    (7.6, 2.7),
    bands={
        "failures, U(−10, 10)": (3.5, 17.5),
        "failures, N(0, 1/√fan_in)": (0, 4.5),
    },
)
