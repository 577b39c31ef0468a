"""Noise in training, alone and before a rectifier."""

from __future__ import annotations

from typing import Any

from fastnet import random
from fastnet.builder import Builder
from fastnet.errors import check_real
from fastnet.formulas.language import Real, each, sigmoid, sqrt, where
from fastnet.layers.base import Layer
from fastnet.layers.pointwise import Elementwise
from fastnet.layers.rectifiers import relu
from fastnet.random import normal_of_tail


class noisy_relu(Elementwise):
    """y = max(x + ε, 0), ε = √σ(x)·z with z ~ N(0, 1); dx = dy·(1 + ½·ε·(1 − σ(x))) where y > 0."""

    @each
    def forward(x: Real, tail: Real) -> Real:
        """The positive part of the noisy input. NaN stays NaN."""
        noisy = x + sqrt(sigmoid(x)) * normal_of_tail(tail)
        return where(noisy <= 0, 0, noisy)

    @each
    def vjp(dy: Real, x: Real, y: Real) -> Real:
        """dε/dx = z·σ·(1 − σ)/(2·√σ) with ε = y − x where y > 0."""
        return where(y <= 0, 0, dy * (1 + 0.5 * (y - x) * (1 - sigmoid(x))))


class NoisyReLU(Layer):
    """In training y = max(0, x + ε), ε ~ N(0, σ(x)) with the variance σ(x) = 1/(1 + e^−x); else max(0, x).

    The gradient treats the noise as ε = √σ(x)·z with z ~ N(0, 1) independent of x, so that it is an
    unbiased gradient of the expected loss: dy/dx = 1 + ½·ε·(1 − σ(x)) where y > 0, else 0. z is a function
    of the seed, the layer's index in the model, the step and the element's place in the minibatch, and is
    the same on every backend. The layer stores no noise: where y > 0, ε is y − x.

    Source: V. Nair, G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML
    2010, section 2: a sum of sigmoid units with shifted biases is approximately this. The paper samples
    units of an RBM and takes no gradient through the noise.
    """

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `noisy_relu` in training, `relu` in evaluation."""
        if not g.training:
            return g.apply(relu, x=x)
        return g.apply(noisy_relu, x=x, stream=random.stream_of(random.NOISE, self._index))


class gaussian_noise(Elementwise):
    """y = x + stddev·z with z ~ N(0, 1); dx = dy."""

    scalars = ("stddev",)

    @each
    def forward(x: Real, stddev: float, tail: Real) -> Real:
        """Add the noise."""
        return x + stddev * normal_of_tail(tail)

    @each
    def vjp(dy: Real) -> Real:
        """The noise does not depend on x."""
        return dy


class GaussianNoise(Layer):
    """y = x + ε with ε ~ N(0, stddev²) in training; y = x in evaluation.

    ε is a function of the seed, the layer's index in the model, the step and the element's place in the
    minibatch, and is the same on every backend.

    stddev: number ≥ 0, the standard deviation of the noise; 0 adds none.
    Source: C. M. Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural
    Computation 7 (1995); name and argument are Keras's.
    """

    def __init__(self, stddev: float) -> None:
        super().__init__(stddev=check_real("stddev", stddev, low=0.0))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `gaussian_noise` in training, no op in evaluation."""
        if not g.training or self.stddev == 0.0:
            return x
        stream = random.stream_of(random.NOISE, self._index)
        return g.apply(gaussian_noise, x=x, stddev=self.stddev, stream=stream)
