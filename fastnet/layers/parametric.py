"""ParametricActivation: an activation whose strength is trained for each feature."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import HyperparameterError, check_int, shown
from fastnet.init import Constant
from fastnet.layers import activations, rectifiers
from fastnet.layers.pointwise import Activation
from fastnet.layers.scale import OfFeatures
from fastnet.op import Array, Op, put, row_sums


class blend(Op):
    """y = x + a·(f − x) by columns; dx = dy·(1 − a), df = dy·a, da = Σ_rows dy·(f − x)."""

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N", "f": "B N", "a": "N"}
    dims = ("N",)
    inplace = True

    @staticmethod
    def forward(y: Array, x: Array, f: Array, a: Array) -> None:
        """Each column has its own a."""
        np.copyto(y, x + a * (f - x))

    @staticmethod
    def vjp(
        dx: Array,
        dy: Array,
        df: Array,
        da: Array,
        x: Array,
        f: Array,
        a: Array,
        accumulate: int,
    ) -> None:
        """The gradients of both inputs, and of a."""
        if da.size:
            put(da, row_sums(dy * (f - x)), accumulate)
        if df.size:
            np.multiply(dy, a, out=df)
        if dx.size:
            np.multiply(dy, 1 - a, out=dx)


# The activations by name, in small letters.
NAMED: dict[str, type[Activation]] = {
    name.lower(): kind
    for module in (activations, rectifiers)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Activation) and kind is not Activation
}


class ParametricActivation(OfFeatures):
    """y = x + weight·(f(x) − x) for each feature: f where weight = 1, the identity where it is 0.

    activation: f, an activation such as Mish(), ELU(0.5) or one of `fn.elementwise`; or the name of one
        with its defaults, such as "selu" or "mish", in any case.
    num_features: integer ≥ 1. The parameter is `weight` (num_features,), at first 1.

    x (rows, num_features) → y of the same shape; any other width raises ShapeError.
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491), section 3.
    """

    def __init__(self, activation: Activation | str, num_features: int) -> None:
        kind, made = check_activation(activation)
        super().__init__(
            activation=kind, num_features=check_int("num_features", num_features, low=1)
        )
        self.__dict__["_function"] = made
        self._declare("weight", (self.num_features,), init=Constant(1.0))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the activation, and `blend`."""
        f = self._function.emit(g, x)
        return g.apply(blend, x=x, f=f, a=self._parameters["weight"])


def check_activation(value: Any) -> tuple[Activation | str, Activation]:
    """An activation or its name in small letters, and the activation; or HyperparameterError."""
    if isinstance(value, Activation):
        return value, value
    name = value.lower() if isinstance(value, str) else None
    if name not in NAMED:
        raise HyperparameterError(
            f"activation is {shown(value)}; expected an activation, such as Mish(), or a name, one of "
            f"{', '.join(sorted(NAMED))}"
        )
    return name, NAMED[name]()
