"""Bases of activations: an op y = f(x) of each element, and a layer that consists of one such op."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnet.builder import Builder
from fastnet.formulas.language import Formula
from fastnet.layers.base import Layer
from fastnet.op import Op


class Elementwise(Op):
    """Base of the ops y = f(x) of a tensor with any number of columns.

    An op with the formula `forward` alone gets its `vjp` derived: dx = dy·f′(x) (see formulas/derive.py).
    """

    outputs: ClassVar = {"y": "B N"}
    inputs: ClassVar = {"x": "B N"}
    dims = ("N",)
    inplace = True

    def __init_subclass__(cls) -> None:
        forward = getattr(cls, "forward", None)
        if isinstance(forward, Formula) and not hasattr(cls, "vjp"):
            from fastnet.formulas.derive import vjp_of

            cls.vjp = vjp_of(forward, tuple(cls.outputs), next(iter(cls.inputs)))
        super().__init_subclass__()

    vjp: ClassVar[Any]


class Activation(Layer, base=True):
    """Base of layers that are one elementwise op; the op's numbers are the layer's hyper-parameters."""

    op: ClassVar[type[Op]]

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the op."""
        return g.apply(self.op, x=x, **{name: getattr(self, name) for name in self.op.scalars})
