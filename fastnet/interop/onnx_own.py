"""The patterns of nodes as which `export_onnx` writes activations that ONNX has no operator for."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastnet import layers as fl
from fastnet.layers.pointwise import Activation
from fastnet.model import Sequential
from fastnet.model.exported import prediction_of
from fastnet.onnx.nodes import Nodes
from fastnet.onnx.schema import array_of
from fastnet.onnx.writing import INPUT, OLDEST_OPSET, Written


@cache
def own_patterns(dtype: str, x: Any) -> tuple[tuple[str, Any], ...]:
    """Each activation's name and pattern, of their default arguments, the longest first.

    A pattern is x, a number, or an operator with the patterns of its inputs.
    """
    found = []
    for name in fl.__all__:
        kind = getattr(fl, name)
        if not (isinstance(kind, type) and issubclass(kind, Activation)):
            continue
        structure = prediction_of(Sequential(kind(), dtype=dtype, backend="reference"), (2,))
        written = Written(structure, {}, Nodes(dtype, OLDEST_OPSET))
        if len(written.nodes.nodes) > 1:
            found.append((name, _pattern(written, x)))
    return tuple(sorted(found, key=lambda pair: -len(str(pair[1]))))


def _pattern(written: Written, x: Any) -> Any:
    producers = {node["output"][0]: node for node in written.nodes.nodes}
    numbers = {t["name"]: float(array_of(t).reshape(-1)[0]) for t in written.nodes.initializers}

    def of(name: str) -> Any:
        if name == INPUT:
            return x
        if name in numbers:
            return numbers[name]
        node = producers[name]
        return (node["op_type"], *map(of, node["input"]))

    return of(written.output)
