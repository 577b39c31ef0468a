"""Ops of ensembles whose members share a net: rows for each member, and what becomes of them.

A row of the minibatch has one row for each of N members. As one long row these stand side by side, so that
`Builder.reshape` shows them as N rows, and any op works on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.op import Array, Op, put, row_products, row_sums


class spread(Op):
    """y_n = factor·x for each of N members; dx = factor·Σ_n dy_n."""

    outputs: ClassVar = {"y": "B N I"}
    inputs: ClassVar = {"x": "B I"}
    dims = ("I", "N")
    scalars = ("factor",)

    @staticmethod
    def forward(y: Array, x: Array, factor: float) -> None:
        """The row once for each member."""
        y[...] = x[:, None] * x.dtype.type(factor)

    @staticmethod
    def adjoint(g: Any, name: str, dy: Any, arguments: Mapping[str, Any]) -> Any:
        """The sum over the members."""
        row = tuple(int(d) for d in arguments["y"].shape[1:])
        return g.apply(sum_members, x=g.reshape(dy, row), factor=arguments["factor"])


class sum_members(Op):
    """y = factor·Σ_n x_n over N members; dx_n = factor·dy."""

    outputs: ClassVar = {"y": "B I"}
    inputs: ClassVar = {"x": "B N I"}
    dims = ("I", "N")
    scalars = ("factor",)

    @staticmethod
    def forward(y: Array, x: Array, factor: float) -> None:
        """One member after the other."""
        y[...] = 0
        for n in range(x.shape[1]):
            y += x[:, n]
        y *= y.dtype.type(factor)

    @staticmethod
    def adjoint(g: Any, name: str, dy: Any, arguments: Mapping[str, Any]) -> Any:
        """Each member has its share."""
        x, width = arguments["x"], int(arguments["y"].shape[1])  # x may have another shape
        count = x.times * math.prod(map(int, x.shape[1:])) // width
        return g.apply(spread, x=g.reshape(dy, (width,)), N=count, factor=arguments["factor"])


class spread_labels(Op):
    """y_n = t for each of N members; labels have no gradient."""

    outputs: ClassVar = {"y": "int64 B N"}
    inputs: ClassVar = {"t": "int64 B"}
    dims = ("N",)

    @staticmethod
    def forward(y: Array, t: Array) -> None:
        """The label once for each member."""
        y[...] = t[:, None]

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A copy."""
        return sizes["N"]


class log_mean_exp(Op):
    """y = ln((1/N)·Σ_n e^x_n) over N members; dx_n = dy·e^(x_n − y)/N, 0 where all x_n are −∞."""

    outputs: ClassVar = {"y": "B I"}
    inputs: ClassVar = {"x": "B N I"}
    dims = ("I", "N")

    @staticmethod
    def forward(y: Array, x: Array) -> None:
        """Subtracts the largest of the members."""
        top = _finite(x.max(axis=1))
        y[...] = top + np.log(np.exp(x - top[:, None]).sum(axis=1) / x.shape[1])

    @staticmethod
    def vjp(dx: Array, dy: Array, x: Array, y: Array) -> None:
        """Each member's share of the mean."""
        dx[...] = dy[:, None] * np.exp(x - _finite(y)[:, None]) / x.shape[1]

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """Some ten operations for each exponential."""
        return 10 * sizes["I"] * sizes["N"]


def _finite(x: Array) -> Array:
    """0 in place of −∞, from which no difference is NaN then."""
    return np.where(x == -np.inf, 0, x).astype(x.dtype)


class mean_of_losses(Op):
    """row_loss = (1/N)·Σ_n losses_n, count = (1/N)·Σ_n counts_n of N members; dlosses_n = drow_loss/N.

    Without counts, count is 1.
    """

    outputs: ClassVar = {"row_loss": "float64 B", "count": "B"}
    inputs: ClassVar = {"losses": "float64 B N", "counts": "B N"}
    optional = ("counts",)
    dims = ("N",)

    @staticmethod
    def forward(row_loss: Array, count: Array, losses: Array, counts: Array) -> None:
        """The means over the members."""
        np.mean(losses, axis=1, out=row_loss)
        count[...] = counts.mean(axis=1) if counts.size else 1

    @staticmethod
    def vjp(dlosses: Array, drow_loss: Array) -> None:
        """An equal share for each member."""
        dlosses[...] = drow_loss[:, None] / dlosses.shape[1]


class linear_ensemble(Op):
    """y = x·w_n + b_n for the rows of member n, which are row n and every N-th after it.

    dx = dy·w_nᵀ, and over these rows dw_n = xᵀ·dy, db_n = Σ dy.
    """

    outputs: ClassVar = {"y": "B O"}
    inputs: ClassVar = {"x": "B I", "w": "N I O", "b": "N O"}
    optional = ("b",)
    dims = ("I", "O", "N")

    @staticmethod
    def forward(y: Array, x: Array, w: Array, b: Array) -> None:
        """A product for each member."""
        for n, own in enumerate(w):
            y[n :: len(w)] = x[n :: len(w)] @ own + (b[n] if b.size else 0)

    @staticmethod
    def vjp(
        dx: Array, dw: Array, db: Array, dy: Array, x: Array, w: Array, accumulate: int
    ) -> None:
        """Gradients of the input (B, I), the weights (N, I, O) and the biases (N, O)."""
        for n, own in enumerate(w):
            rows = slice(n, None, len(w))
            if dx.size:
                dx[rows] = dy[rows] @ own.T
            if dw.size:
                put(dw[n], row_products(x[rows], dy[rows]), accumulate)
            if db.size:
                put(db[n], row_sums(dy[rows]), accumulate)

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A multiplication for each weight of one member."""
        return sizes["I"] * sizes["O"]
