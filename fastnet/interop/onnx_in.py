"""Models of ONNX files."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from fastnet import layers as fl
from fastnet.data.terms import UNKNOWN, Terms
from fastnet.errors import FastnetError, FileError, HyperparameterError, shown
from fastnet.interop import onnx_patterns
from fastnet.interop.branches import Branches
from fastnet.interop.onnx_layers import (
    JOINS,
    Reader,
    Shape,
    Unsupported,
    layers_of,
    linear,
)
from fastnet.layers.base import Layer
from fastnet.model import Sequential
from fastnet.model.exported import RESERVED
from fastnet.model.saved import terms_of
from fastnet.onnx import folding
from fastnet.onnx.reading import Graph, Node, Value, read

LEAST_ROOM = 1 << 22  # numbers that layers may have beyond those of a file of any size
MOST_MISSING = 12  # nodes that a message lists


def import_onnx(path: Any, output: Any = None) -> Sequential:
    """The model of an ONNX file, in evaluation mode, ready to predict and to train on.

    path: of the file, of any program. output: the name of the output that the model predicts (default
        None: the first one of floating-point numbers).

    Rows of numbers go in and come out; the first dimension is that of the rows, also where the file fixes
    their number. Layers are made of the operators of dense nets: Gemm and MatMul, BatchNormalization and
    LayerNormalization, activations, Softmax, sums, products and Concat of branches, columns by Gather,
    Slice and Split. Activations that stand there as several nodes, such as SiLU and GELU, become one layer.
    Sums and products with constants become Bias and Scale, which are frozen: they are arithmetic more often
    than parameters, and `unfreeze` lets them train. Dropout and Cast between floating-point numbers compute
    nothing. Weights are read from where nodes use them, whatever names they have, and keep their bits. The
    dtype is that of the input: float64 for double, else float32.

    Versions of the operators from 7 on are read, and all versions of the format. A file that
    `model.export_onnx` has written tells columns, classes and the link of the outputs too.

    Raises FileError for a file that is damaged, has its numbers in another file, or has operators that
    fastnet lacks: the message lists all of them. Raises OSError where it cannot be read.
    """
    if output is not None and not isinstance(output, str):
        raise HyperparameterError(f"output is {shown(output)}; expected a name, or None")
    graph = read(path)
    try:
        return _Importer(graph, output).model()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, FastnetError):
            raise
        raise FileError(f"{graph.path} is damaged ({shown(str(error))})") from None


class _Importer:
    """Makes the model of a graph."""

    def __init__(self, graph: Graph, output: str | None) -> None:
        self.graph, self.path, self.constants = graph, graph.path, graph.constants
        self.input = self._input()
        self.output = self._output(output)
        self.dtype = np.dtype("float64" if self.input.dtype == "float64" else "float32")
        onnx_patterns.recognised(graph, self.dtype.name)
        onnx_patterns.merged(graph)
        self.producers = graph.producers()
        self.nodes = self._needed()
        self.uses = Counter(name for node in self.nodes for name in node.inputs)
        self.uses[self.output] += 1
        self.rows: dict[str, Shape] = {}
        self.branches = Branches(self.input.name)
        self.room = max(graph.size, LEAST_ROOM)

    def model(self) -> Sequential:
        """The model."""
        missing = self._read()
        if missing:
            more = f" and {len(missing) - MOST_MISSING} more" if len(missing) > MOST_MISSING else ""
            raise FileError(
                f"{self.path} has operators that no layer computes: {', '.join(missing[:MOST_MISSING])}"
                f"{more}"
            )
        try:
            layers = self.branches.path(self.output) or [fl.Identity()]
            model = Sequential(*layers, dtype=self.dtype.name)
            model._terms = self._terms(model)
            model.bind()
        except FastnetError as error:
            raise FileError(f"{self.path} describes no model that can be made: {error}") from None
        return model.eval()

    def _input(self) -> Value:
        read = {name for node in self.graph.nodes for name in node.inputs}
        found = [v for v in self.graph.inputs if v.name in read] or self.graph.inputs[:1]
        if len(found) != 1:
            names = ", ".join(shown(v.name) for v in found)
            raise FileError(
                f"{self.path} has {len(found)} inputs, {names}; expected one, the rows"
                if found
                else f"{self.path} has no input"
            )
        return found[0]

    def _output(self, name: str | None) -> str:
        known = [v.name for v in self.graph.outputs]
        if name is not None:
            if name not in known:
                raise HyperparameterError(
                    f"output is {shown(name)}; {self.path} has {', '.join(map(shown, known))}"
                )
            return name
        floats = [v.name for v in self.graph.outputs if (v.dtype or "float").startswith("float")]
        floats = [n for n in floats if n not in self.constants]
        if not floats:
            raise FileError(f"{self.path} has no output of floating-point numbers")
        return floats[0]

    def _needed(self) -> list[Node]:
        """The nodes that the output needs, in their order."""
        wanted, found = {self.output}, []
        for node in reversed(self.graph.nodes):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                found.append(node)
        return found[::-1]

    def _read(self) -> list[str]:
        """Read all nodes; returns those for which there are no layers."""
        dims = self.input.shape
        row: Shape = None if dims is None else tuple(dims[1:])
        if row is None or (len(row) == 1 and row[0] is None):
            row = self._first_width()
        self.rows[self.input.name] = row
        missing = []
        for node in self.nodes:
            try:
                self._read_node(node)
            except Unsupported as error:
                reason = f": {error}" if str(error) else ""
                missing.append(f"{node.title}{reason}")
                for name in node.outputs:  # so that the nodes after it are looked at, too
                    self.branches.add(name, self.input.name, [])
                    self.rows[name] = None
        return missing

    def _first_width(self) -> Shape:
        """The width of the input, from the first weights that read it without a change of width."""
        same = {self.input.name}
        for node in self.nodes:
            if not same.intersection(node.inputs):
                continue
            given = [self.constants[n] for n in node.inputs if n in self.constants]
            if node.op in ("Gemm", "MatMul") and given and given[0].ndim == 2:
                return (given[0].shape[1 if node.attributes.get("transB") else 0],)
            if node.op in ("BatchNormalization", "LayerNormalization") and given:
                return (given[0].size,)
            if node.op not in ("Concat", "Gather", "Slice", "Split", "Flatten", "Reshape"):
                same.update(node.outputs)
        return None

    def _read_node(self, node: Node) -> None:
        data = [name for name in node.inputs if name and name not in self.constants]
        if unknown := [name for name in data if name not in self.branches]:
            raise Unsupported(f"it reads {shown(unknown[0])}, which nothing computes")
        if not data:
            count = folding.fold_one(node, self.constants, self.room)
            if not count:
                raise Unsupported("it computes a constant")
            self.room -= count
            return
        if node.op == "Shape" and self._shape(node, data[0]):
            return
        if len(data) > 1:
            self._read_join(node, data)
            return
        (x,) = data
        for name in filter(None, node.outputs if node.op == "Split" else node.outputs[:1]):
            layers = self._with_bias(node, x) or layers_of(self._reader(node, self.rows[x]), name)
            self.branches.add(name, x, layers)
            self.rows[name] = self._row_after(layers, self.rows[x])

    def _shape(self, node: Node, name: str) -> bool:
        """Make a constant of the shape of rows; the number of rows is 0, which Reshape leaves as it is."""
        row = self.rows[name]
        if row is None or None in row or {"start", "end"} & node.attributes.keys():
            return False
        self.constants[node.outputs[0]] = np.array([0, *row], np.int64)
        return True

    def _reader(self, node: Node, row: Shape) -> Reader:
        return Reader(node, self.constants, row, self.dtype, self._spend)

    def _spend(self, count: int) -> None:
        """Make room for numbers of layers that the file does not have."""
        self.room -= count
        if self.room < 0:
            raise Unsupported("the layers would be much larger than the file")

    def _with_bias(self, node: Node, x: str) -> list[Layer] | None:
        """An Add of a constant to a product without a bias: one linear layer in place of both."""
        before = self.branches.made(x)
        given = [self.constants[name] for name in node.inputs if name in self.constants]
        if node.op != "Add" or self.uses[x] > 1 or len(before) != 1 or not given:
            return None
        product = before[0]
        if not isinstance(product, fl.Linear) or product.bias is not None:
            return None
        try:
            joined = linear(self._reader(node, self.rows[x]), product.weight, given[0])
        except (FastnetError, ValueError):
            return None
        self.branches.moved(x)
        return [joined]

    def _row_after(self, layers: list[Layer], row: Shape) -> Shape:
        """The shape of rows after layers, as far as it is known."""
        for layer in layers:
            if isinstance(layer, fl.Linear):
                row = (int(layer.out_features),)
            elif isinstance(layer, fl.Columns):
                row = (len(layer.columns),)
            elif isinstance(layer, fl.Flatten):
                known = row is not None and None not in row
                row = (int(np.prod([d for d in row or () if d is not None])),) if known else (None,)
            elif layer.in_width is not None and row in (None, (None,)):
                row = (layer.in_width,)
        return row

    def _read_join(self, node: Node, data: list[str]) -> None:
        """An operator of several values: a block."""
        (output,) = node.outputs[:1]
        kind = JOINS.get(node.op)
        if kind is None:
            raise Unsupported("it joins several values" if node.op != "MatMul" else "")
        if len(data) < len(list(filter(None, node.inputs))) and node.op == "Concat":
            raise Unsupported("it joins rows and a constant")
        if len(data) < len(node.inputs) and node.op == "Sum":
            raise Unsupported("it adds a constant to several values")
        rows = [self.rows[name] for name in data]
        if node.op == "Concat":
            axis = node.attributes.get("axis", 0)
            if axis not in (1, -1) or any(r is not None and len(r) != 1 for r in rows):
                raise Unsupported(f"it has axis {axis}")
        self.rows[output] = row = self._joined_row(node, rows)
        negative = [self._reader(node, row).scaled(-1.0)] if node.op == "Sub" else []
        try:
            self.branches.join(output, kind, data, negative)
        except ValueError as error:  # ShapeError, too
            raise Unsupported(str(error)) from None

    def _joined_row(self, node: Node, rows: list[Shape]) -> Shape:
        known = [row for row in rows if row is not None and None not in row]
        if node.op != "Concat":
            if len(set(known)) > 1:
                raise Unsupported(f"it joins rows of shapes {', '.join(map(str, known))}")
            return known[0] if known else None
        return (sum(row[0] for row in known if row[0]),) if len(known) == len(rows) else None

    def _terms(self, model: Sequential) -> Terms:
        """What a file of fastnet's tells of the data."""
        if self.graph.producer != "fastnet" or self.output != "output":
            return UNKNOWN
        told = dict.fromkeys(RESERVED)
        try:
            told |= {n: json.loads(t) for n, t in self.graph.metadata.items() if n in told}
        except RecursionError as error:
            raise ValueError(str(error)) from None
        columns, classes, link = told.values()
        return terms_of(model, {"columns": columns, "classes": classes, "link": link})
