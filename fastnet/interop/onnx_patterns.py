"""Activations and norms that programs write to ONNX as several nodes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.interop.onnx_own import own_patterns
from fastnet.onnx.folding import axes_of
from fastnet.onnx.reading import Graph, Node
from fastnet.op import Array

X = "x"  # in a pattern: the value that an activation is of
ALL = "*"  # the end of the name of a constant that is no single number
ROOT_HALF = math.sqrt(0.5)
SLOPE = math.sqrt(2 / math.pi)

Pattern = Any  # X, a number, the name of any number, or an operator with the patterns of its inputs

_PHI = ("Add", ("Erf", ("Div", X, math.sqrt(2))), 1.0)
_PHI_2 = ("Add", ("Erf", ("Mul", X, ROOT_HALF)), 1.0)
_HALF = ("Mul", X, 0.5)
_CUBES = (("Pow", X, 3.0), ("Mul", X, ("Mul", X, X)))
_TANHS = tuple(
    ("Add", ("Tanh", ("Mul", ("Add", X, ("Mul", cube, 0.044715)), SLOPE)), 1.0) for cube in _CUBES
)
_CENTRED = ("Sub", X, ("ReduceMean", X))
_SQUARES = (("Pow", _CENTRED, 2.0), ("Mul", _CENTRED, _CENTRED))
_NORMS = tuple(
    ("Div", _CENTRED, ("Sqrt", ("Add", ("ReduceMean", square), "eps"))) for square in _SQUARES
)
_ROOTS = tuple(
    ("Div", X, ("Sqrt", ("Add", ("ReduceMean", square), "eps")))
    for square in (("Pow", X, 2.0), ("Mul", X, X))
)
_CLIPPED = ("Clip", ("Add", X, 3.0), 0.0, 6.0)

# The name of an activation, with its arguments from the pattern, and the forms in which it is written.
PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "SiLU": (("Mul", X, ("Sigmoid", X)),),
    "Mish": (("Mul", X, ("Tanh", ("Softplus", X))),),
    "GELU": (
        *(("Mul", X, ("Mul", phi, 0.5)) for phi in (_PHI, _PHI_2)),
        *(("Mul", ("Mul", X, phi), 0.5) for phi in (_PHI, _PHI_2)),
        *(("Mul", _HALF, phi) for phi in (_PHI, _PHI_2)),
        ("Add", ("Mul", _HALF, ("Erf", ("Mul", X, ROOT_HALF))), _HALF),
    ),
    "GELU tanh": (
        *(("Mul", _HALF, tanh) for tanh in _TANHS),
        *(("Mul", X, ("Mul", tanh, 0.5)) for tanh in _TANHS),
        *(("Mul", ("Mul", X, tanh), 0.5) for tanh in _TANHS),
    ),
    "Softplus": (("Where", ("Greater", X, "threshold"), X, ("Softplus", X)),),
    "Softsign": (("Div", X, ("Add", ("Abs", X), 1.0)),),
    "LogSigmoid": (("Neg", ("Softplus", ("Neg", X))), ("Log", ("Sigmoid", X))),
    "Hardswish": (
        ("Div", ("Mul", X, _CLIPPED), 6.0),
        ("Mul", X, ("Div", _CLIPPED, 6.0)),
        ("Mul", X, ("HardSigmoid", X)),
    ),
    "LayerNorm": (
        *(("Add", ("Mul", norm, "weight*"), "bias*") for norm in _NORMS),
        *(("Mul", norm, "weight*") for norm in _NORMS),
        *_NORMS,
    ),
    "RMSNorm": (*(("Mul", root, "weight*") for root in _ROOTS), *_ROOTS),
}
COMMUTATIVE = ("Add", "Mul")
LAYERS = "layers."
MOST_STEPS = 1_000_000
SIXTH = float(np.float32(1 / 6))


def recognised(graph: Graph, dtype: str) -> None:
    """Replace nodes that end such a pattern by one, of the operator "fastnet.<name>", in place.

    In a file of fastnet's also "fastnet.layers.<class>" for what `export_onnx` writes in this dtype. The
    last nodes come first: the end of a longer pattern may be a shorter one's.
    """
    match = _Matching(graph)
    forms = [(name, form) for name, several in PATTERNS.items() for form in several]
    if graph.producer == "fastnet":
        own = own_patterns(dtype, X)
        forms = [(f"{LAYERS}{name}", form) for name, form in own] + forms
    for node in reversed(graph.nodes):
        for name, form in forms:
            match.ordered = name.startswith(LAYERS)
            found = match.found(form, node.outputs[0], {})
            if found is not None and X in found:
                node.op, node.inputs = f"fastnet.{name}", [found.pop(X)]
                node.attributes = dict(found)
                break


class _Matching:
    """Looks for patterns in a graph, in so many steps at most that no file takes long."""

    def __init__(self, graph: Graph) -> None:
        self.producers, self.constants = graph.producers(), graph.constants
        self.left = MOST_STEPS
        self.ordered = False  # whether terms and factors have the order of the pattern

    def found(self, pattern: Pattern, name: str, known: dict[str, Any]) -> dict[str, Any] | None:
        """What X and the pattern's other names are, if the value of this name is of the pattern."""
        if pattern == X:
            if name in self.constants or known.get(X, name) != name:
                return None
            return {**known, X: name}
        if isinstance(pattern, (float, str)):
            return self._number(pattern, name, known)
        op, *inner = pattern
        node = self.producers.get(name)
        self.left -= 1
        if node is None or node.op != op or self.left < 0:
            return None
        inputs = [given for given in node.inputs if given]
        if op == "ReduceMean":
            if not _is_of_rows(node, self.constants):
                return None
            inputs = inputs[:1]
        if len(inputs) != len(inner) or (op == "HardSigmoid" and not _is_sixth(node)):
            return None
        both = op in COMMUTATIVE and not self.ordered
        for order in (inputs, inputs[::-1]) if both else (inputs,):
            result: dict[str, Any] | None = known
            for part, value in zip(inner, order, strict=True):
                result = None if result is None else self.found(part, value, result)
            if result is not None:
                return result
        return None

    def _number(self, pattern: Pattern, name: str, known: dict[str, Any]) -> dict[str, Any] | None:
        value = self.constants.get(name)
        if value is not None and isinstance(pattern, str) and pattern.endswith(ALL):
            return {**known, pattern.removesuffix(ALL): value}
        if value is None or value.size != 1:
            return None
        number = float(value.reshape(-1)[0])
        if isinstance(pattern, str):
            return {**known, pattern: number}
        close = abs(number - pattern) <= 1e-5 * abs(pattern)  # programs round them variously
        return known if close else None


def _is_sixth(node: Node) -> bool:
    """Whether a HardSigmoid is PyTorch's, min(max(x + 3, 0), 6)/6."""
    given = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return bool(abs(given[0] - SIXTH) < 1e-6 and given[1] == 0.5)


def _is_of_rows(node: Node, constants: Mapping[str, Array]) -> bool:
    """Whether a ReduceMean is over the columns of each row, and keeps the dimension."""
    given = [constants.get(name) for name in node.inputs]
    axes = axes_of(given, node.attributes, 2)
    return axes == (1,) and node.attributes.get("keepdims", 1) == 1


def merged(graph: Graph) -> None:
    """Join sums of sums, products of products and Concats of Concats to one node each, in place.

    Only the first of the terms, which are added from left to right. What other nodes read stays.
    """
    producers = graph.producers()
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses.update(value.name for value in graph.outputs)
    for node in graph.nodes:
        first = producers.get(node.inputs[0]) if node.inputs else None
        if first is None or node.op not in JOINED or first.op != node.op:
            continue
        constant = any(name in graph.constants for name in (*node.inputs, *first.inputs))
        if constant or uses[node.inputs[0]] > 1 or first.attributes != node.attributes:
            continue
        node.inputs[:1] = first.inputs


JOINED = ("Add", "Mul", "Concat")
