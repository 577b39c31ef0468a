"""A sigmoid unit fed back fifty times: a cliff in the loss, and what clipping does there."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Array, Data, Experiment, Result, Row
from fastnet.examples.course.picture import BLUE, ORANGE, STYLES

LAYERS, STATE, TARGET = 50, 0.5, 0.7
SOURCE = "R. Pascanu, T. Mikolov, Y. Bengio, ICML 2013, figure 6, sections 2.3 and 3.2"
RATE, CLIP = 0.5, 0.1
W, B = (4.0, 7.0), (-3.6, -2.0)


def net() -> fn.Sequential:
    """x ← w·σ(x) + b, fifty times with the same w and b, and σ of the last."""
    unit = fn.Linear(1, 1)
    layers = [part for _ in range(LAYERS) for part in (fn.Sigmoid(), unit)]
    return fn.Sequential(*layers, fn.Sigmoid(), dtype="float64", seed=0)


def surface(w: Array, b: Array) -> Array:
    """The loss for many w and b at once."""
    x = np.full(np.broadcast_shapes(w.shape, b.shape), STATE)
    for _ in range(LAYERS):
        x = w / (1 + np.exp(-x)) + b
    return np.asarray((1 / (1 + np.exp(-x)) - TARGET) ** 2)


def descent(start: tuple[float, float], clip: float | None, steps: int) -> tuple[Array, Array]:
    """w, b and the loss before each step: (steps + 1, 2) and (steps + 1,); the norms of the gradients."""
    model, loss = net(), fn.MSELoss()
    with model.edit() as values:
        values["1.weight"][...], values["1.bias"][...] = start
    trainer = fn.Trainer(model, loss, fn.SGD(RATE), metrics={}, seed=0, clip_norm=clip)
    x, y = np.array([[STATE]]), np.array([[TARGET]])
    path, norms = [], []
    for _ in range(steps + 1):
        path.append([model.parameters()[0].item(), model.parameters()[1].item()])
        model.value_and_grad(loss, x, y)
        norms.append(float(np.hypot(*(g.item() for g in model.grads.values()))))
        trainer.fit(x, y, verbose=0)
    return np.array(path), np.array(norms)


def edge(b: float) -> float:
    """The w on the cliff for a bias: where the loss changes most between neighbours."""
    w = np.linspace(*W, 20001)
    return float(w[np.abs(np.diff(surface(w, np.array(b)))).argmax()])


def run(data: Data, seed: int, quick: bool) -> Result:
    """Descend from a point beside the cliff, with and without clipping."""
    steps = 20 if quick else 200
    random = np.random.default_rng(seed)
    b = float(random.uniform(-2.9, -2.5))
    start = edge(b) + 0.002, b
    paths = {
        name: descent(start, clip, steps) for name, clip in (("as it is", None), ("clipped", CLIP))
    }
    plain, clipped = paths["as it is"], paths["clipped"]
    longest = {k: float(np.hypot(*np.diff(p, axis=0).T).max()) for k, (p, _) in paths.items()}
    ends = {k: float(surface(*p[-1].reshape(2, 1))[0]) for k, (p, _) in paths.items()}
    far = max(longest["as it is"], 1e-12)
    rows = [
        Row(
            "largest gradient on the way, not clipped",
            float(plain[1].max()),
            source=f"{SOURCE}: the wall of high curvature",
        ),
        Row("longest step, not clipped", longest["as it is"]),
        Row(
            "longest step, clipped",
            longest["clipped"],
            RATE * CLIP,
            "rate · clip_norm, exactly",
            digits=4,
        ),
        Row(
            "loss at the end, not clipped",
            ends["as it is"],
            digits=4,
            source=f"{SOURCE}: thrown far away",
        ),
        Row(
            "loss at the end, clipped",
            ends["clipped"],
            digits=4,
            source=f"{SOURCE}: stays near, and goes on",
        ),
    ]
    figures = {
        "longest step, clipped": longest["clipped"],
        "log₁₀ of step, not clipped / clipped": float(np.log10(far / longest["clipped"])),
    }
    return Result(
        rows, {"paths": {k: p for k, (p, _) in paths.items()}, "clipped": clipped[1]}, figures
    )


def draw(figure: Any, result: Result) -> None:
    """The loss in perspective, and the ways down from above."""
    w, b = np.linspace(*W, 240), np.linspace(*B, 200)
    loss = surface(w[None, :], b[:, None])
    left = figure.add_subplot(1, 2, 1, projection="3d")
    left.plot_surface(
        w[None, :] + 0 * loss, b[:, None] + 0 * loss, loss, cmap="viridis", rcount=70, ccount=70
    )
    left.set(xlabel="w", ylabel="b")
    left.set_title("loss", loc="center")
    left.patch.set_alpha(0)
    for axis in (left.xaxis, left.yaxis, left.zaxis):
        axis.set_pane_color((0.5, 0.5, 0.5, 0.08))
        axis._axinfo["grid"]["linewidth"] = 0.3
    left.view_init(35, -60)
    right = figure.add_subplot(1, 2, 2)
    right.contourf(w, b, loss, levels=20, cmap="viridis", alpha=0.6)
    for (name, path), style, color in zip(
        result.drawn["paths"].items(), STYLES, (ORANGE, BLUE), strict=False
    ):
        right.plot(*path.T, linestyle=style, color=color, marker="o", markersize=2.5, label=name)
    right.plot(*next(iter(result.drawn["paths"].values()))[0], "s", color="white", markersize=5)
    right.set(xlabel="w", ylabel="b", title="the ways from □", xlim=W, ylim=B)
    right.legend()


EXPERIMENT = Experiment(
    "cliff",
    "Clipping at a cliff of fifty layers",
    80,
    "One sigmoid unit feeds itself fifty times from the state 0.5; its last output is to be 0.7. "
    "Where the unit changes from one fixed point to another, the loss has a cliff, and a gradient "
    "there throws the parameters far away. clip_norm bounds the step.",
    run,
    draw,
    (8.6, 3.6),
    bands={
        "longest step, clipped": (0.04999995, 0.05000005),
        "log₁₀ of step, not clipped / clipped": (-0.176, 4.84),
    },
)
