"""Initialisers of whole matrices: orthogonal and sparse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet.errors import check_real
from fastnet.init.base import Array, Draw, Initializer, Shape
from fastnet.init.gains import calculate_gain, check_nonlinearity


@dataclass(frozen=True, eq=False, repr=False)
class Orthogonal(Initializer):
    """W = gain·Q with orthonormal rows or columns, whichever are fewer; Q is uniformly distributed.

    Q comes from the QR factorisation of a matrix of normal numbers. Each column of Q is multiplied by the
    sign of R's diagonal; otherwise Q would depend on the algorithm and not be uniform.

    gain: number > 0 (default 1).
    nonlinearity: name of an activation (default "linear"). Multiplies the gain by `calculate_gain`'s.

    LAPACK computes the factorisation, and its rounding differs between machines. So of all initialisers
    only this one may differ there in the last bits, which float32 mostly rounds away.

    Sources: A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks", ICLR 2014; for the signs, F. Mezzadri, "How to generate
    random matrices from the classical compact groups", Notices of the AMS 54 (2007).
    """

    of_matrices = True

    gain: float = 1.0
    nonlinearity: str = "linear"

    def __post_init__(self) -> None:
        check_real("gain", self.gain, low=0.0, open_low=True)
        check_nonlinearity(self.nonlinearity)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        rows, columns = max(shape), min(shape)
        q, r = np.linalg.qr(draw.normal((rows, columns), 1.0))
        q *= self.gain * calculate_gain(self.nonlinearity) * np.copysign(1.0, np.diagonal(r))
        return np.ascontiguousarray(q if shape == q.shape else q.T)


@dataclass(frozen=True, eq=False, repr=False)
class Sparse(Initializer):
    """N(0, std²) on some of each unit's incoming weights, chosen at random; the others are 0.

    sparsity: number in [0, 1]. The share of zeros among a unit's fan_in incoming weights. Their number is
        rounded, and at least one weight stays unless sparsity is 1.
    std: number ≥ 0 (default 0.01, as in PyTorch; the paper has 1 with 15 connections per unit).

    Deviation from PyTorch: its sparse_ removes weights that leave an input, so that a unit may lose all of
    its weights. Here, as in the paper, each unit keeps the same number of incoming weights.
    Source: J. Martens, "Deep learning via Hessian-free optimization", ICML 2010, section 5.
    """

    of_matrices = True

    sparsity: float
    std: float = 0.01

    def __post_init__(self) -> None:
        check_real("sparsity", self.sparsity, low=0.0, high=1.0)
        check_real("std", self.std, low=0.0)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        w = draw.normal(shape, float(self.std))
        zeros = round(float(self.sparsity) * shape[0])
        zeros = zeros if self.sparsity == 1.0 else min(zeros, shape[0] - 1)
        places = np.argsort(draw.keys(shape), axis=0, kind="stable")[:zeros]
        np.put_along_axis(w, places, 0.0, axis=0)
        return w
