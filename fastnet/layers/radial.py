"""RBF: Gaussian bumps around trained centres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet import parameter
from fastnet.builder import Builder
from fastnet.errors import ShapeError, check_flag, check_int
from fastnet.init import Constant, Initializer, Uniform, check_init
from fastnet.layers.base import Layer, Shape
from fastnet.layers.centers import checked_rows, checked_widths, placed_centers
from fastnet.op import Array, Op, put, row_sums


class gaussian_basis(Op):
    """y_j = e^(−d_j/(2σ_j²)) with d_j = Σ_i (x_i − μ_ij)², and 1 in the columns of y beyond the J-th.

    Differences never cancel, as ‖x‖² − 2x·μ + ‖μ‖² does where x and μ are large beside their distance and
    the width; the C kernel takes products where they do not.
    With g = dy·y/σ²: dμ_ij = Σ_rows g_j·(x_i − μ_ij), dx_i = −Σ_j g_j·(x_i − μ_ij) and
    dσ_j = Σ_rows g_j·d_j/σ_j.
    """

    outputs: ClassVar = {"y": "B M", "d": "B J"}
    inputs: ClassVar = {"x": "B I", "mu": "I J", "sigma": "J"}
    dims = ("I", "J", "M")

    @staticmethod
    def forward(y: Array, d: Array, x: Array, mu: Array, sigma: Array) -> None:
        """The bumps, and squared distances, which the gradients need."""
        d[...] = 0
        for i in range(len(mu)):
            difference = x[:, i : i + 1] - mu[i]
            d += difference * difference
        y[:, : len(sigma)] = np.exp(d * (-0.5 / (sigma * sigma)))
        y[:, len(sigma) :] = 1

    @staticmethod
    def vjp(
        dx: Array,
        dmu: Array,
        dsigma: Array,
        dy: Array,
        y: Array,
        d: Array,
        x: Array,
        mu: Array,
        sigma: Array,
        accumulate: int,
    ) -> None:
        """Gradients of the inputs (B, I), the centres (I, J) and the widths (J)."""
        g = dy[:, : len(sigma)] * y[:, : len(sigma)] / (sigma * sigma)
        for i in range(len(mu)):
            terms = g * (x[:, i : i + 1] - mu[i])
            if dx.size:
                dx[:, i] = -terms.sum(axis=1)
            if dmu.size:
                put(dmu[i], row_sums(terms), accumulate)
        if dsigma.size:
            put(dsigma, row_sums(g * d) / sigma, accumulate)

    @classmethod
    def fitted(cls, sizes: dict[str, int]) -> dict[str, int]:
        """M is J, or J + 1 with a column of ones."""
        bumps = sizes["J"]
        return {**sizes, "M": bumps if sizes.get("M") == bumps else bumps + 1}

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """Two operations for each difference, and an exponential for each bump."""
        return (2 * sizes["I"] + 16) * sizes["J"]


class gaussian_slope(Op):
    """s_j = Σ_i (x_i − μ_ij)·(u_i − ν_ij): half the tangent of the squared distances, for ẋ = u and μ̇ = ν.

    A missing u or ν is 0. No terms cancel where x and μ are large beside their distance.
    """

    outputs: ClassVar = {"s": "B J"}
    inputs: ClassVar = {"x": "B I", "mu": "I J", "u": "B I", "nu": "I J"}
    optional = ("u", "nu")
    dims = ("I", "J")

    @staticmethod
    def forward(s: Array, x: Array, mu: Array, u: Array, nu: Array) -> None:
        """One input after the other."""
        s[...] = 0
        for i in range(len(mu)):
            moved = (u[:, i : i + 1] if u.size else 0) - (
                nu[i] if nu.size else np.zeros_like(mu[i])
            )
            s += (x[:, i : i + 1] - mu[i]) * moved

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """Three operations for each difference."""
        return 3 * sizes["I"] * sizes["J"]


class RBF(Layer):
    """φ_j(x) = e^(−‖x − μ_j‖²/(2σ_j²)), a layer of Gaussian radial basis functions.

    in_features, n_centers: integers ≥ 1.
    constant: bool (default True). Whether a column of ones follows the n_centers columns, so that a Linear
        without a bias behind the layer has one weight for it.
    centers_init: initialiser (default U(−1, 1)); fn.init.Uniform(low, high) draws from another box.
    widths_init: initialiser (default 1).

    The parameters are `centers` (n_centers, in_features) and `widths` (n_centers), the σ_j, of which only
    the square counts. `place_centers` sets both from data.
    x (rows, in_features) → y (rows, n_centers + 1), or (rows, n_centers) without the constant; any other
    width raises ShapeError. In float32 the results are those of float64 to a few roundings, also for
    centres far from 0. There distances are sums of squared differences; elsewhere backend "c" takes
    ‖x‖² − 2x·μ + ‖μ‖² from 16 inputs on, which trains about twice as fast: centre the data.
    Source: D. S. Broomhead, D. Lowe, "Multivariable functional interpolation and adaptive networks",
    Complex Systems 2 (1988); J. Moody, C. J. Darken, "Fast learning in networks of locally-tuned processing
    units", Neural Computation 1 (1989).
    """

    def __init__(
        self,
        in_features: int,
        n_centers: int,
        constant: bool = True,
        centers_init: Initializer | None = None,
        widths_init: Initializer | None = None,
    ) -> None:
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            n_centers=check_int("n_centers", n_centers, low=1),
            constant=check_flag("constant", constant),
            centers_init=check_init("centers_init", centers_init),
            widths_init=check_init("widths_init", widths_init, vector=True),
        )
        shape = self.in_features, self.n_centers
        fans = {"fan_in": self.in_features, "fan_out": self.n_centers}
        centers = centers_init or Uniform(-1.0, 1.0)
        self._declare("centers", shape, init=centers, transposed=True, **fans)
        self._declare("widths", shape[1:], init=widths_init or Constant(1.0), **fans)

    @property
    def in_width(self) -> int:
        """in_features."""
        return int(self.in_features)

    @property
    def out_width(self) -> int:
        """n_centers, and one more with the constant."""
        return int(self.n_centers) + int(self.constant)

    def output_shape(self, shape: Shape) -> Shape:
        """(in_features,) → (n_centers + 1,), or (n_centers,) without the constant."""
        if shape != (self.in_features,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected in_features = {self.in_features}"
            )
        return (self.out_width,)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `gaussian_basis`."""
        mu, sigma = self._parameters["centers"], self._parameters["widths"]
        return g.apply(gaussian_basis, x=x, mu=mu, sigma=sigma, M=self.out_width)

    def place_centers(
        self,
        X: Any,
        method: str = "kmeans",
        widths: Any = "nearest",
        neighbours: int = 2,
        seed: int | None = None,
    ) -> RBF:
        """Set the centres, and the widths, from rows of data; returns the layer.

        X: (rows, in_features), finite numbers; at least n_centers rows for "kmeans" and "sample".
        method: "kmeans" (default; k-means++, then Lloyd's iterations, by scikit-learn), "sample" (rows of
            X, each at most once) or "box" (uniform between least and greatest value of each column).
        widths: "nearest" (default), each centre's mean distance to its `neighbours` nearest centres; a
            number > 0 for all; or an array (n_centers,) of numbers > 0.
        neighbours: integer ≥ 1 (default 2).
        seed: integer in [0, 2⁶⁴) or None (default): other centres each time.

        Raises MissingExtra where scikit-learn is missing, DataError or ShapeError for X that does not fit.
        The widths are those of Moody and Darken.
        """
        rows = checked_rows("X", X, self.in_features)
        centers = placed_centers(rows, self.n_centers, method, seed)
        values = {"centers": centers, "widths": checked_widths(widths, centers, neighbours)}
        if (owner := self._owner) is None:
            parameter.load(self._ready(), values)
            return self
        while owner._owner is not None:
            owner = owner._owner
        prefix = self._path and f"{self._path}."
        owner.load_state_dict({prefix + n: v for n, v in values.items()}, strict=False)
        return self
