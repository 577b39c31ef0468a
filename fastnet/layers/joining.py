"""Ops that join two tensors: sum, product, and columns side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastnet.formulas.language import Real, each
from fastnet.op import Array, Op


class add(Op):
    """y = a + b; dL/da = dL/db = dL/dy, so that a backward copies nothing."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"a": "B N", "b": "B N"}
    dims = ("N",)
    inplace = True

    @each
    def forward(a: Real, b: Real) -> Real:
        """The sum."""
        return a + b

    @staticmethod
    def adjoint(g: Any, name: str, dy: Any, arguments: Mapping[str, Any]) -> Any:
        """The output's gradient is that of both inputs."""
        return dy


class multiply(Op):
    """y = a·b; dL/da = dL/dy·b, dL/db = dL/dy·a."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"a": "B N", "b": "B N"}
    dims = ("N",)
    inplace = True

    @each
    def forward(a: Real, b: Real) -> Real:
        """The product."""
        return a * b

    @staticmethod
    def adjoint(g: Any, name: str, dy: Any, arguments: Mapping[str, Any]) -> Any:
        """The product with the other input."""
        return g.apply(multiply, a=dy, b=arguments["b" if name == "a" else "a"])


class concat(Op):
    """Each row of y is the row of a and, behind it, the row of b."""

    outputs: ClassVar = {"y": "B I+O"}
    inputs: ClassVar = {"a": "B I", "b": "B O"}
    dims = ("I", "O")

    @staticmethod
    def forward(y: Array, a: Array, b: Array) -> None:
        """The columns of a, then those of b."""
        np.concatenate([a, b], axis=1, out=y)

    @staticmethod
    def vjp(da: Array, db: Array, dy: Array) -> None:
        """Each input has its columns of the gradient."""
        if da.size:
            np.copyto(da, dy[:, : da.shape[1]])
        if db.size:
            np.copyto(db, dy[:, dy.shape[1] - db.shape[1] :])

    @classmethod
    def work(cls, sizes: Mapping[str, int], rows: int) -> int:
        """A copy."""
        return sizes["I"] + sizes["O"]
