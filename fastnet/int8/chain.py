"""A net's prediction as a chain of matrix products with activations, or the layer that is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.errors import UsageError
from fastnet.op import Array
from fastnet.parameter import Derived, Parameter
from fastnet.plan.graph import Node, Structure, Tensor

LEFT_OUT = ("softmax", "log_softmax")  # at the end: the order of outputs is that of their inputs


@dataclass(eq=False)
class Product:
    """h = x·w + b in float64, w (inputs, outputs), then activations, element by element."""

    label: str
    w: Array
    b: Array
    activations: list[Node] = field(default_factory=list)

    @property
    def rectifies(self) -> bool:
        """Whether max(0, h) is the one activation."""
        return [node.op.name for node in self.activations] == ["relu"]

    def activated(self, h: Array) -> Array:
        """The activations of h, float64."""
        return activated(self.activations, h)


def activated(activations: list[Node], h: Array) -> Array:
    """Activations of h, one after the other, float64."""
    for node in activations:
        kernel, y = node.op.kernels["forward"], np.empty_like(h)
        numbers = {name: node.arguments[name] for name in node.op.scalars}
        given = {"x": h, "y": y, **numbers}
        with np.errstate(all="ignore"):
            kernel.function(*(given[name] for name in kernel.arguments))
        h = y
    return h


@dataclass(eq=False)
class Front:
    """What comes before the first product: y = (x − centre)·factor + offset of each column, float64.

    activations: of y, element by element.
    """

    centre: Array
    factor: Array
    offset: Array
    activations: list[Node] = field(default_factory=list)

    def __call__(self, x: Array) -> Array:
        """y for rows x, before the activations."""
        y: Array = (x - self.centre) * self.factor + self.offset
        return y

    def rounded(self) -> Front:
        """The same in float32. What is lost of the centre goes into the offset."""
        centre = self.centre.astype(np.float32)
        offset = self.offset + (centre.astype(np.float64) - self.centre) * self.factor
        numbers = centre, self.factor.astype(np.float32), offset.astype(np.float32)
        return Front(*numbers, self.activations)


@dataclass(eq=False)
class Chain:
    """The front and the products of a net.

    left_out: the op at the end, softmax or log_softmax, which has no part in it.
    """

    front: Front
    products: list[Product]
    left_out: str = ""


def chain_of(structure: Structure) -> Chain:
    """The chain of a graph for prediction; UsageError names a layer that has no place in one."""
    width = int(np.prod([int(d) for d in structure.x.shape[1:]]))
    front = Front(np.zeros(width), np.ones(width), np.zeros(width))
    products: list[Product] = []
    before: tuple[Array, Array] | None = None  # factors and summands to put into the next product
    left_out, last = "", structure.x.root
    for node in structure.graph.nodes:
        name, kernel = node.op.name, node.op.kernels.get("forward")
        inputs = [tensor.root for _, tensor in node.inputs()]
        if left_out or node.times != 1 or inputs != [last]:
            raise _refused(node, "branches, and what follows a softmax, have no form of integers")
        last = node.output
        if name == "linear":
            w, b = _value(node, "w"), _value(node, "b")
            b = np.zeros(w.shape[1]) if b.size == 0 else b
            if before is not None:
                w, b, before = before[0][:, None] * w, b + before[1] @ w, None
            products.append(Product(node.label, w, b))
        elif name in AFFINE:
            factor, summand = AFFINE[name](node)
            if not products and not front.activations:
                front = _after(front, node, factor, summand)
            elif before is None and products and not products[-1].activations:
                products[-1].w = products[-1].w * factor
                products[-1].b = products[-1].b * factor + summand
            else:
                f, s = before or (np.ones_like(factor), np.zeros_like(factor))
                before = f * factor, s * factor + summand
        elif name in LEFT_OUT and products and before is None:
            left_out = name
        elif _is_element(kernel) and before is None:
            (products[-1] if products else front).activations.append(node)
        elif name == "take_columns" and not products and _takes_all(node):
            continue
        else:
            raise _refused(node, "it has no form of integers")
    if not products:
        raise UsageError("the model has no Linear layer; there is nothing to quantize")
    if before is not None:
        raise UsageError(
            "the model ends with factors of columns behind an activation, which have no form of integers; "
            "put them before the activation"
        )
    return Chain(front, products, left_out)


def _refused(node: Node, why: str) -> UsageError:
    return UsageError(
        f"{node.label} cannot be quantized: {why}; int8 has chains of scalers, Linear, BatchNorm1d and "
        "activations of one number, with a Softmax at the end"
    )


def _is_element(kernel: Any) -> bool:
    formula = None if kernel is None else kernel.formula
    if formula is None or formula.draws:
        return False
    return tuple(n for n in formula.elements if n not in kernel.op.scalars) == ("x",)


def _value(node: Node, name: str) -> Array:
    """A parameter in float64; of size 0 where it is absent."""
    argument = node.arguments.get(name)
    if isinstance(argument, Tensor):
        raise _refused(node, f"its {name} is computed from the rows")
    if isinstance(argument, Parameter):
        return np.asarray(argument.value, np.float64)
    return (
        np.asarray(argument.compute(), np.float64) if isinstance(argument, Derived) else np.empty(0)
    )


def _takes_all(node: Node) -> bool:
    """Whether an op that takes columns takes all in their order."""
    places = _value(node, "places")
    return np.array_equal(places, np.arange(int(node.arguments["x"].shape[-1])))


def _of_times(node: Node) -> tuple[Array, Array]:
    factor = np.full(int(node.output.shape[-1]), float(node.arguments["factor"]))
    return factor, np.zeros_like(factor)


def _of_scale(node: Node) -> tuple[Array, Array]:
    w = _value(node, "w")
    return w, np.zeros_like(w)


def _of_shift(node: Node) -> tuple[Array, Array]:
    b = _value(node, "b")
    return np.ones_like(b), b


def _of_affine(node: Node) -> tuple[Array, Array]:
    return _value(node, "w"), _value(node, "b")


def _of_batchnorm(node: Node) -> tuple[Array, Array]:
    mean, gamma, beta = (_value(node, name) for name in ("running_mean", "gamma", "beta"))
    factor = 1 / np.sqrt(_value(node, "running_var") + float(node.arguments["eps"]))
    factor = factor * gamma if gamma.size else factor
    return factor, (beta if beta.size else 0.0) - mean * factor


def _of_rescale(node: Node) -> tuple[Array, Array]:
    centre, f = _value(node, "c") + _value(node, "r"), _value(node, "f")
    factor = f if f.size else np.ones_like(centre)
    return factor, float(node.arguments["offset"]) - centre * factor


AFFINE: dict[str, Callable[[Node], tuple[Array, Array]]] = {
    "scale": _of_scale,
    "times": _of_times,
    "shift": _of_shift,
    "affine": _of_affine,
    "batchnorm_inference": _of_batchnorm,
    "rescale": _of_rescale,
}


def _after(front: Front, node: Node, factor: Array, summand: Array) -> Front:
    """A front followed by another map; the first scaler's centre stays exact."""
    plain = np.all(front.factor == 1) and not front.centre.any() and not front.offset.any()
    if node.op.name == "rescale" and plain:
        centre = _value(node, "c") + _value(node, "r")
        return Front(centre, factor, np.full_like(centre, float(node.arguments["offset"])))
    return Front(front.centre, front.factor * factor, front.offset * factor + summand)
