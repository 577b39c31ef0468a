"""Dropout; its masks are recomputed and not stored."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.builder import Builder
from fastnet.errors import check_real
from fastnet.layers.base import Layer
from fastnet.op import Array, Op
from fastnet.optim.numbers import Number, check_number, evaluate
from fastnet.parameter import Scheduled
from fastnet.schedules.base import FRACTION, Schedule


class dropout(Op):
    """y = scale·x where the element's random word ≥ threshold, else 0; dx likewise from dy.

    The word of element row·N + column is fastnet.random.words(…)[row·N + column] at the counter
    (seed, stream, step). So the vector-Jacobian product draws the same mask again. Rows that are part of a
    larger minibatch have the words of their place there (`random.words_of_rows`).
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    scalars = ("threshold", "scale")
    inplace = True

    @staticmethod
    def forward(
        y: Array, x: Array, threshold: float, scale: float, seed: int, step: int, stream: int
    ) -> None:
        """Scale the kept elements and set the others to zero."""
        words = random.words_of_rows(x.shape, seed, stream, step)
        np.copyto(y, np.where(words >= threshold, x * scale, 0))

    @staticmethod
    def vjp(
        dx: Array, dy: Array, threshold: float, scale: float, seed: int, step: int, stream: int
    ) -> None:
        """The same map of dy, because it is linear."""
        dropout.forward(dx, dy, threshold, scale, seed, step, stream)


class scheduled_dropout(Op):
    """`dropout` with the threshold and the scale of the step, the two numbers n."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "n": "float64 2"}
    dims = ("N",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, n: Array, seed: int, step: int, stream: int) -> None:
        """Scale the kept elements and set the others to zero."""
        threshold, scale = n.tolist()
        dropout.forward(y, x, threshold, scale, seed, step, stream)

    @staticmethod
    def vjp(dx: Array, dy: Array, n: Array, seed: int, step: int, stream: int) -> None:
        """The same map of dy."""
        threshold, scale = n.tolist()
        dropout.forward(dx, dy, threshold, scale, seed, step, stream)


class alpha_dropout(Op):
    """y = scale·x + kept where the element's random word ≥ threshold, else dropped; dx = scale·dy or 0.

    The words are those of `dropout`, which the vector-Jacobian product draws again.
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    scalars = ("threshold", "scale", "kept", "dropped")
    inplace = True

    @staticmethod
    def forward(
        y: Array,
        x: Array,
        threshold: float,
        scale: float,
        kept: float,
        dropped: float,
        seed: int,
        step: int,
        stream: int,
    ) -> None:
        """An affine map of the kept elements, and a constant for the others."""
        words = random.words_of_rows(x.shape, seed, stream, step)
        np.copyto(y, np.where(words >= threshold, x * scale + kept, dropped))

    @staticmethod
    def vjp(
        dx: Array, dy: Array, threshold: float, scale: float, seed: int, step: int, stream: int
    ) -> None:
        """Dropout of dy."""
        dropout.forward(dx, dy, threshold, scale, seed, step, stream)


class Dropout(Layer):
    """y = x·kept/(1 − p) in training, with kept = 0 with probability p, else 1; y = x in evaluation.

    An element is kept if its random 32-bit word is at least round(p·2³²). The word is a function of the
    seed, the layer's index in the model, the step and the element's place in the minibatch, and is the
    same on every backend.

    p: probability in [0, 1] (default 0.5), or a schedule of such (`fn.schedules`). With p = 1 the output is
        zero. A schedule is a function of the step that the random words have: in `fit` the number of
        minibatches that the trainer has trained on before, in loops of your own that of the model's
        training forwards. A number outside [0, 1] raises HyperparameterError when its step comes.
    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15 (2014), in the inverted form that scales while training.
    """

    def __init__(self, p: Number = 0.5) -> None:
        super().__init__(p=check_number("p", p, FRACTION))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `dropout`, or `scheduled_dropout`, in training; no op in evaluation."""
        if not g.training or self.p == 0.0:
            return x
        stream = random.stream_of(random.DROPOUT, self._index)
        if isinstance(self.p, Schedule):
            numbers = Scheduled((2,), self._numbers)
            return g.apply(scheduled_dropout, x=x, n=numbers, stream=stream)
        threshold, scale = thresholds(np.array([self.p]))[0].tolist()
        return g.apply(dropout, x=x, threshold=threshold, scale=scale, stream=stream)

    def _numbers(self, steps: Array) -> Array:
        """The threshold and the scale of each step."""
        return thresholds(evaluate("p", self.p, steps, FRACTION))


def thresholds(p: Array) -> Array:
    """For each probability the threshold of kept words and the scale of kept elements: (n, 2)."""
    kept = np.where(p < 1.0, 1.0 - p, np.inf)
    return np.stack([np.rint(p * 2.0**32), 1.0 / kept], axis=1)


# Where SELU saturates, −λ·α.
SATURATED = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717


class AlphaDropout(Layer):
    """y = a·(x·kept + α′·(1 − kept)) + b in training, with kept = 0 with probability p, else 1; else y = x.

    α′ = −1.7581 is the value at which SELU saturates, a = 1/√((1 − p)·(1 + p·α′²)) and b = −a·p·α′. So
    inputs of mean 0 and variance 1, as SELU makes them, keep both. Which elements are kept is drawn as for
    `Dropout`.

    p: probability in [0, 1] (default 0.5). With p = 1 the output is zero, as in PyTorch.
    Source: G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
    NeurIPS 2017, "New dropout technique"; its q is 1 − p.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=check_real("p", p, low=0.0, high=1.0))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `alpha_dropout` in training, no op in evaluation."""
        if not g.training or self.p == 0.0:
            return x
        spread = (1.0 - self.p) * (1.0 + self.p * SATURATED**2)
        scale = 1.0 / math.sqrt(spread) if self.p < 1.0 else 0.0
        kept = -scale * self.p * SATURATED
        return g.apply(
            alpha_dropout,
            x=x,
            threshold=float(round(self.p * 2**32)),
            scale=scale,
            kept=kept,
            dropped=scale * SATURATED + kept,
            stream=random.stream_of(random.DROPOUT, self._index),
        )
