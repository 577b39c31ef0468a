"""Periodic: cosines and sines of numbers, with trained frequencies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError, check_flag, check_int, check_real
from fastnet.formulas.language import Real, cos, each, sin
from fastnet.init import Normal, Uniform
from fastnet.layers.base import Layer, Shape
from fastnet.layers.pointwise import Elementwise
from fastnet.op import Array, Op, put, row_sums
from fastnet.parameter import Derived


class angles(Op):
    """y = 2π·(w_ik·x_i − n) + p_isk, where n is the nearest integer of w_ik·x_i, for S phases p each.

    dp = Σ_rows dy; dw_ik = 2π·Σ_rows Σ_s dy_isk·x_i; dx_i = 2π·Σ_sk dy_isk·w_ik.
    """

    outputs: ClassVar = {"y": "B M"}
    inputs: ClassVar = {"x": "B I", "w": "I K", "p": "M"}
    dims = ("I", "K", "M")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, p: Array) -> None:
        """The angles of each input in turn, of these for one phase after the other."""
        turns = x[:, :, None] * w
        turns -= np.rint(turns)
        shape = len(x), w.shape[0], p.size // w.size, w.shape[1]
        y.reshape(shape)[...] = (2 * math.pi * turns)[:, :, None] + p.reshape(shape[1:])

    @staticmethod
    def vjp(
        dx: Array, dw: Array, dp: Array, dy: Array, x: Array, w: Array, accumulate: int
    ) -> None:
        """Gradients of the inputs (B, I), the frequencies (I, K) and the phases (M)."""
        shape = len(x), w.shape[0], dy.shape[1] // w.size, w.shape[1]
        slopes = 2 * math.pi * dy.reshape(shape).sum(axis=2)
        if dx.size:
            np.sum(slopes * w, axis=2, out=dx)
        if dw.size:
            terms = (slopes * x[:, :, None]).reshape(len(x), w.size)
            put(dw, row_sums(terms).reshape(w.shape), accumulate)
        if dp.size:
            put(dp, row_sums(dy), accumulate)

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """M is a multiple of I·K."""
        each = sizes["I"] * sizes["K"]
        given = sizes.get("M", 2 * each)
        return {**sizes, "M": given if given and given % each == 0 else 2 * each}

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A few operations for each output."""
        return 4 * sizes["M"]


class cosine(Elementwise):
    """y = cos x; dx = −dy·sin x."""

    @each
    def forward(x: Real) -> Real:
        """The cosine."""
        return cos(x)

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """The negative sine."""
        return -dy * sin(x)


class Periodic(Layer):
    """y_ik = cos(2π·w_ik·x_i), sin(2π·w_ik·x_i): each number as waves, with trained frequencies w.

    in_features, n_frequencies: integers ≥ 1. Each feature has frequencies of its own.
    sigma: number > 0 (default 1). Initial frequencies are N(0, sigma²); the best one depends on the data,
        and is worth a search from 0.01 to 10.
    phases: bool (default False). True: y_ik = cos(2π·w_ik·x_i + b_ik) with trained phases b in place of
        pairs, as in RealMLP.

    The parameters are `weight` (in_features, n_frequencies), and with phases `bias` of as many numbers, one
    for each column of the output, which start as U(−π, π). The columns of a feature stand together, first
    the cosines and then the sines. Whole turns are taken off before the multiplication by 2π, so that many
    turns cost no accuracy beyond that of w·x.
    x (rows, in_features) → y (rows, 2·in_features·n_frequencies), or half as many columns with phases;
    any other width raises ShapeError. Inputs should be scaled to about 1.
    Source: Y. Gorishniy, I. Rubachev, A. Babenko, "On embeddings for numerical features in tabular deep
    learning", NeurIPS 2022; with phases, D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default:
    strong pre-tuned MLPs and boosted trees on tabular data", NeurIPS 2024.
    """

    def __init__(
        self, in_features: int, n_frequencies: int, sigma: float = 1.0, phases: bool = False
    ) -> None:
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            n_frequencies=check_int("n_frequencies", n_frequencies, low=1),
            sigma=check_real("sigma", sigma, low=0.0, open_low=True),
            phases=check_flag("phases", phases),
        )
        shape = self.in_features, self.n_frequencies
        self._declare("weight", shape, init=Normal(0.0, self.sigma))
        if phases:
            self._declare("bias", (self.out_width,), init=Uniform(-math.pi, math.pi))

    @property
    def in_width(self) -> int:
        """in_features."""
        return int(self.in_features)

    @property
    def out_width(self) -> int:
        """The number of columns of the output."""
        return int(self.in_features) * int(self.n_frequencies) * (1 if self.phases else 2)

    def output_shape(self, shape: Shape) -> Shape:
        """(in_features,) → (2·in_features·n_frequencies,), or half as many with phases."""
        if shape != (self.in_features,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected in_features = {self.in_features}"
            )
        return (self.out_width,)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `angles`, then `cosine`: sin z is cos(z − π/2)."""
        w = self._parameters["weight"]
        quarters = Derived((self.out_width,), self._quarters, constant=True)
        p = self._parameters["bias"] if self.phases else quarters
        return g.apply(cosine, x=g.apply(angles, x=x, w=w, p=p, M=self.out_width))

    def _quarters(self) -> Array:
        """0 for cosines and −π/2 for sines."""
        pair = np.repeat([0.0, -math.pi / 2], int(self.n_frequencies))
        return np.tile(pair, int(self.in_features))
