"""Nodes of an ONNX graph while it is written: names of values, constants, each once."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.onnx.schema import attribute_of, tensor_of
from fastnet.onnx.wire import Message
from fastnet.op import Array


class Nodes:
    """The nodes and constants of a graph whose numbers have one dtype.

    Equal constants, and nodes of equal ops with equal inputs, are written once. opset: the version of the
    operators. label: the layer whose nodes follow, which names them.
    """

    def __init__(self, dtype: Any, opset: int) -> None:
        self.dtype, self.opset, self.label = np.dtype(dtype), opset, ""
        self.nodes: list[Message] = []
        self.initializers: list[Message] = []
        self.fixed: set[str] = set()  # names of inputs and outputs of the graph
        self._names: set[str] = set()
        self._known: dict[Any, str] = {}

    def name(self, wish: str) -> str:
        """A name for a value that no other has."""
        found, number = wish, 0
        while found in self._names:
            number += 1
            found = f"{wish}_{number}"
        self._names.add(found)
        return found

    def constant(self, value: Any, wish: str = "") -> str:
        """The name of a constant: floating-point numbers get the graph's dtype, others keep theirs."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):  # a number of a formula, as NumPy rounds it
                array = array.astype(self.dtype)
        key = wish, array.dtype.str, array.shape, array.tobytes()
        if array.dtype.kind in "UO" or key not in self._known:
            kind = {"f": "number", "i": "integers"}.get(array.dtype.kind, "constant")
            name = self._known[key] = self.name(wish or kind)
            self.initializers.append(tensor_of(name, array))
        return self._known[key]

    def integers(self, *values: int) -> str:
        """The name of a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def add(self, op: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the name of that, which is `into` where this is given.

        Where the values of inputs are equal to those of an earlier node of this op, it is that one's.
        """
        key = op, inputs, tuple((n, str(v)) for n, v in attributes.items())
        if not into and key in self._known:
            return self._known[key]
        output = into or self.name(op.lower())
        self._known.setdefault(key, output)
        self.nodes.append(
            {
                "input": list(inputs),
                "output": [output],
                "name": f"{self.label}: {output}" if self.label else output,
                "op_type": op,
                "attribute": [attribute_of(n, v) for n, v in attributes.items()],
            }
        )
        return output

    def rename(self, old: str, new: str) -> bool:
        """Give the result of a node another name, unless it is an input or output of the graph."""
        made = [node for node in self.nodes if node["output"] == [old]]
        if old in self.fixed or not made:
            return False
        made[0]["output"] = [new]
        for node in self.nodes:
            node["input"] = [new if name == old else name for name in node["input"]]
        self._known = {key: new if name == old else name for key, name in self._known.items()}
        return True

    def cast(self, value: str, number: int) -> str:
        """A value as another data type, by its number in ONNX."""
        return self.add("Cast", value, to=number)

    def reshape(self, value: str, *row: int) -> str:
        """Rows of another shape, and as many of them as there then are."""
        return self.add("Reshape", value, self.integers(-1, *row))

    def reduce(self, op: str, value: str, axis: int, keepdims: bool = False) -> str:
        """ReduceSum, ReduceMean or ReduceMax over an axis."""
        keep = int(keepdims)
        if op == "ReduceSum" or self.opset >= 18:
            return self.add(op, value, self.integers(axis), keepdims=keep)
        return self.add(op, value, axes=[axis], keepdims=keep)

    def columns(self, value: str, places: Array) -> str:
        """Some columns, in any order."""
        return self.add("Gather", value, self.constant(places.astype(np.int64)), axis=1)

    def slice(self, value: str, begin: int, end: int) -> str:
        """The columns from begin to end."""
        ends = self.integers(begin), self.integers(end), self.integers(1)
        return self.add("Slice", value, *ends)
