"""Greedy pretraining of an auto-encoder against none: the nets of fastnet.examples.autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.examples import autoencoder
from fastnet.examples.course.experiment import Data, Experiment, Result, Row

SIZES = (64, 48, 32, 16)  # for the digits
ROWS = 10_000
SOURCE = (
    "G. E. Hinton, R. R. Salakhutdinov, Science 313, 2006: without pretraining a very deep auto-encoder of "
    "curves gives their mean; there with restricted Boltzmann machines"
)


def run(data: Data, seed: int, quick: bool) -> Result:
    """Pretraining and then all layers together; these alone for as long, and for twice as long."""
    data, epochs = (data.few(100), 1) if quick else (data.few(ROWS), 10)
    sizes = autoencoder.SIZES if data.mnist else SIZES
    if not data.mnist:
        epochs *= 5
    parts, test = (data.X, data.y), (data.X_test, data.y_test)
    found, images = {}, {}

    def keep(name: str, model: Any) -> None:
        found[name] = autoencoder.scored(model, parts, test, seed)
        images[name] = model.predict(data.X_test[:10])

    said: list[str] = []
    greedy = autoencoder.pretrained(data.X, epochs, "auto", seed, sizes, said.append)
    keep("pretrained, not yet together", greedy)
    autoencoder.train(greedy, data.X, epochs, seed)
    keep("pretrained, then together", greedy)
    plain = autoencoder.coder(sizes, "auto", seed)
    autoencoder.train(plain, data.X, epochs, seed)
    keep("together alone", plain)
    autoencoder.train(plain, data.X, epochs, seed + 1)
    keep("together alone, twice as long", plain)
    rows = [
        *(
            Row(
                f"squared error of a test pixel, {n}",
                e,
                digits=4,
                source=SOURCE if n.startswith("pre") else "",
            )
            for n, (e, _) in found.items()
        ),
        *(
            Row(f"accuracy of a linear classifier on the codes, {n}", 100 * a, unit=" %")
            for n, (_, a) in found.items()
        ),
    ]
    twice = found["together alone, twice as long"][0]
    figures = {"error, pretrained / alone": found["pretrained, then together"][0] / twice}
    figures["accuracy of codes, pretrained"] = 100 * found["pretrained, then together"][1]
    return Result(rows, {"test": data.X_test[:10], **images}, figures)


def draw(figure: Any, result: Result) -> None:
    """Ten test images, and what the nets make of them."""
    axes = figure.subplots(len(result.drawn), 1)
    for ax, (name, images) in zip(axes, result.drawn.items(), strict=True):
        side = int(np.sqrt(images.shape[1]))
        row = images.reshape(-1, side, side).transpose(1, 0, 2).reshape(side, -1)
        ax.imshow(row, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_axis_off()
        ax.set_title("test images" if name == "test" else name, fontsize=8)


EXPERIMENT = Experiment(
    "pretraining",
    "Greedy pretraining against none",
    130,
    "An auto-encoder of sigmoids, 784-512-256-64 and its mirror on MNIST, 64-48-32-16 on the "
    "digits, learns layer by layer and then together, or together alone for as long.",
    run,
    draw,
    (5.4, 4.4),
    bands={
        "error, pretrained / alone": (0.409, 0.763),
        "accuracy of codes, pretrained": (83.3, 92.3),
    },
)
