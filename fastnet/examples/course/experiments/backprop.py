"""Backpropagation worked by hand, number by number, as a picture of the net."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import BLUE, GREY, INK, ORANGE

INPUTS, TARGET = (1.0, 2.0), 3.0
FIRST, SECOND = [[2, 1], [1, -2], [1, 2]], [[-1, 3, 2]]
# By hand: z₁ = (2·1 + 1·2, 1·1 − 2·2, 1·1 + 2·2) = (4, −3, 5), h = (4, 0, 5), y = −4 + 0 + 10 = 6,
# loss (6 − 3)² = 9, dy = 2·3 = 6, dh = 6·(−1, 3, 2), of which the second unit passes nothing on.
RADIUS = 0.21  # of a unit in the picture
HAND = "by hand, exactly"
BY_HAND = {
    "z": [4, -3, 5],
    "h": [4, 0, 5],
    "y": [6],
    "loss": [9],
    "dL/dy": [6],
    "dL/dh": [-6, 18, 12],
    "dL/dz": [-6, 0, 12],
    "dL/dx": [0, 18],
    "dL/dW₁": [-6, -12, 0, 0, 12, 24],
    "dL/dW₂": [24, 0, 30],
}


def run(data: Data, seed: int, quick: bool) -> Result:
    """Layer by layer, with layers and a loss that stand alone."""
    first, relu, second = fn.Linear(2, 3, bias=False), fn.ReLU(), fn.Linear(3, 1, bias=False)
    model = fn.Sequential(first, relu, second, dtype="float64")
    model.load_state_dict({"0.weight": np.array(FIRST, float), "2.weight": np.array(SECOND, float)})
    x, target = np.array([INPUTS]), np.array([[TARGET]])
    loss, outputs, found = fn.MSELoss(), [x], {}
    for layer in (first, relu, second):
        outputs.append(layer.forward(outputs[-1]))
    _, found["z"], found["h"], found["y"] = outputs
    found["loss"] = np.array([loss.forward(outputs[-1], target)])
    found["dL/dy"] = loss.backward()
    found["dL/dh"] = second.backward(found["dL/dy"])
    found["dL/dz"] = relu.backward(found["dL/dh"])
    found["dL/dx"] = first.backward(found["dL/dz"])
    model.value_and_grad(loss, x, target)
    for name, key in (("dL/dW₁", "0.weight"), ("dL/dW₂", "2.weight")):
        found[name] = np.array(model.grads[key])
    numbers = {name: np.ravel(values).tolist() for name, values in found.items()}
    rows = [
        Row(name + (f", number {i + 1}" if len(hand) > 1 else ""), ours, by, HAND, digits=0)
        for name, hand in BY_HAND.items()
        for i, (ours, by) in enumerate(zip(numbers[name], hand, strict=True))
    ]
    wrong = float(sum(row.ours != row.published for row in rows))
    return Result(rows, numbers, {"numbers that differ": wrong})


def draw(figure: Any, result: Result) -> None:
    """The net: values in the units, weights with their gradients at the lines."""
    n = result.drawn
    ax = figure.subplots()
    ax.set(xlim=(-0.6, 4.2), ylim=(-0.55, 2.6))
    ax.set_axis_off()
    columns = {0: [1.6, 0.4], 1.5: [2.1, 1.0, -0.1], 3: [1.0]}
    (a, b, c) = columns
    places = {x: [(x, y) for y in ys] for x, ys in columns.items()}
    for begin, end, weights, grads in (
        (a, b, FIRST, np.reshape(n["dL/dW₁"], (3, 2))),
        (b, c, SECOND, np.reshape(n["dL/dW₂"], (1, 3))),
    ):
        for (o, i), weight in np.ndenumerate(np.array(weights)):
            ends = np.array([places[begin][i], places[end][o]])
            along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
            (x0, y0), (x1, y1) = ends[0] + RADIUS * along, ends[1] - RADIUS * along
            ax.plot((x0, x1), (y0, y1), color=GREY, linewidth=0.9, zorder=1)
            at = 0.3 if i == 0 else 0.42 if i == 1 else 0.54
            if end == c:
                at = 0.45
            spot = {"ha": "center", "va": "center", "fontsize": 7.5, "zorder": 2}
            x, y = x0 + at * (x1 - x0), y0 + at * (y1 - y0)
            ax.text(x, y + 0.08, f"{weight}", color=BLUE, **spot)
            ax.text(x, y - 0.08, f"{grads[o, i]:g}", color=ORANGE, **spot)
    units = [
        *((p, f"{v:g}", f"{d:g}") for p, v, d in zip(places[a], INPUTS, n["dL/dx"], strict=True)),
        *(
            (p, f"{z:g} → {h:g}", f"{d:g}")
            for p, z, h, d in zip(places[b], n["z"], n["h"], n["dL/dz"], strict=True)
        ),
        (places[c][0], f"{n['y'][0]:g}", f"{n['dL/dy'][0]:g}"),
    ]
    for (x, y), value, slope in units:
        ax.plot(x, y, "o", markersize=40, markerfacecolor="none", markeredgecolor=INK)
        ax.text(x, y + 0.07, value, color=BLUE, ha="center", va="center", fontsize=8)
        ax.text(x, y - 0.12, slope, color=ORANGE, ha="center", va="center", fontsize=8)
    ax.text(3.4, 1.0, f"loss (6 − 3)² = {n['loss'][0]:g}", va="center", color=INK)
    ax.text(-0.5, 2.45, "values, forward", color=BLUE)
    ax.text(-0.5, 2.25, "slopes of the loss, backward", color=ORANGE)
    for x, name in ((a, "inputs"), (b, "ReLU: z → h; slope of z"), (c, "output")):
        ax.text(x, -0.53, name, ha="center", fontsize=8)


EXPERIMENT = Experiment(
    "backprop",
    "Backpropagation by hand",
    40,
    "Two inputs, three ReLU units without biases, one output, and the squared error against 3. "
    "Each number of the forward pass and of the backward pass is the one that hand and paper "
    "give, exactly.",
    run,
    draw,
    (7.2, 4.2),
    bands={
        "numbers that differ": (0, 0),
    },
)
