"""A model's prediction as an ONNX file, written without the `onnx` package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnet.errors import UsageError
from fastnet.losses import links
from fastnet.onnx import ops, wire
from fastnet.onnx.elements import Elements
from fastnet.onnx.nodes import Nodes
from fastnet.onnx.schema import IR_VERSION, NUMBER_OF, SCHEMA, STRING, value_info
from fastnet.onnx.wire import Message
from fastnet.op import Array
from fastnet.parameter import Derived, Parameter
from fastnet.plan.graph import Node, Structure, Tensor

OLDEST_OPSET, NEWEST_OPSET = 17, 28
MOST_BYTES = 2**31 - 1  # of a message of Protocol Buffers
INPUT, OUTPUT, PROBABILITIES, CLASSES = "input", "output", "probabilities", "classes"
OUTPUTS = (OUTPUT, PROBABILITIES, CLASSES)
BATCH = "batch"  # the name of the dimension that may have any size


class Ending:
    """What a model's outputs stand for: the link of the loss, and the labels of the classes."""

    def __init__(self, link: str | None, classes: Array | None) -> None:
        self.link, self.classes = link, classes

    def available(self) -> tuple[str, ...]:
        """The outputs that a file of the model may have."""
        has = {
            OUTPUT: True,
            PROBABILITIES: self.link in links.OF_PROBABILITIES,
            CLASSES: self.link in links.OF_CLASSES,
        }
        return tuple(name for name in OUTPUTS if has[name])


def model_bytes(
    structure: Structure,
    names: Mapping[int, str],
    dtype: Any,
    ending: Ending,
    outputs: Sequence[str],
    opset: int,
    producer: tuple[str, str],
    metadata: Mapping[str, str],
) -> bytes:
    """The bytes of an ONNX file.

    structure: the graph for prediction. names: those of parameters, by their ids. outputs: some of
    OUTPUTS. producer: the name and version of the program. metadata: texts by name.
    Raises UsageError, with the layer's name, for an op that ONNX cannot express.
    """
    graph = Written(structure, names, Nodes(dtype, opset))
    made = [_output(graph, ending, name) for name in outputs]
    row = tuple(int(d) for d in structure.x.shape[1:])
    content: Message = {
        "node": graph.nodes.nodes,
        "name": "model",
        "initializer": graph.nodes.initializers,
        "input": [value_info(INPUT, NUMBER_OF[np.dtype(dtype).name], (BATCH, *row))],
        "output": made,
    }
    data = wire.encode(
        SCHEMA,
        "Model",
        {
            "ir_version": IR_VERSION,
            "producer_name": producer[0],
            "producer_version": producer[1],
            "graph": content,
            "opset_import": [{"domain": "", "version": opset}],
            "metadata_props": [{"key": k, "value": v} for k, v in metadata.items()],
        },
    )
    if len(data) > MOST_BYTES:
        raise UsageError(
            f"the model has {len(data)} bytes as ONNX; a file may have {MOST_BYTES}: save it by model.save"
        )
    return data


class Written:
    """A structure's nodes, and the name of its output."""

    def __init__(self, structure: Structure, names: Mapping[int, str], nodes: Nodes) -> None:
        self.structure, self.parameters, self.nodes = structure, names, nodes
        self.elements = Elements(nodes)
        for name in (INPUT, *OUTPUTS):
            nodes.name(name)
        nodes.fixed = {INPUT, *OUTPUTS}
        x = structure.x
        self.values: dict[int, str] = {id(x): INPUT}  # by the tensors' ids
        self.shapes: dict[int, tuple[Any, int]] = {id(x): (x.shape, 1)}
        for node in structure.graph.nodes:
            nodes.label = node.label
            self.write(node)
        nodes.label = ""
        self.output = self.tensor(structure.output, structure.output.shape, structure.output.times)

    def tensor(self, tensor: Tensor, shape: tuple[Any, ...], times: int) -> str:
        """The name of a tensor's value in a shape."""
        root = tensor.root
        name = self.values[id(root)]
        if self.shapes[id(root)] == (shape, times):
            return name
        return self.nodes.reshape(name, *(int(d) for d in shape[1:]))

    def write(self, node: Node) -> None:
        """Add an op's nodes."""
        op = node.op
        writer = ops.TABLE.get(op.name) or ops.native(op.name, self.nodes.dtype)
        kernel = op.kernels.get("forward")
        formula = kernel.formula if kernel is not None else None
        if writer is None and (formula is None or formula.draws):
            kind = "NumPy code of your own" if op.on_host else f"the op {op.name}"
            raise UsageError(f"{node.label} cannot be exported to ONNX: it has {kind}")
        operands = self.operands(node)
        try:
            if writer is not None:
                made = writer(operands)
            else:
                assert formula is not None
                numbers = {n: operands.numbers[n] for n in formula.elements if n in op.scalars}
                inputs = {n: operands[n] for n in formula.elements if n not in numbers}
                made = self.elements.results(formula, inputs, numbers)[0]
        except UsageError as error:
            raise UsageError(f"{node.label} cannot be exported to ONNX: it {error}") from None
        self.values[id(node.output)] = made
        self.shapes[id(node.output)] = (node.output.shape, node.times)

    def operands(self, node: Node) -> ops.Operands:
        """The arguments of a node."""
        op, names = node.op, dict[str, str]()
        arrays, wishes = dict[str, Array | None](), dict[str, str]()
        for name in (*op.inputs, *op.state):
            argument = node.arguments.get(name)
            if isinstance(argument, Tensor):
                names[name] = self.tensor(argument, op.shape(name, node.sizes), node.times)
            else:
                arrays[name] = value_of(argument)
                wishes[name] = self.parameters.get(id(argument), "")
        numbers = {name: float(node.arguments[name]) for name in op.scalars}
        return ops.Operands(self.nodes, names, arrays, wishes, numbers, node.sizes)


def value_of(argument: Any) -> Array | None:
    """The value of a parameter or of a tensor derived from parameters; None: it is absent."""
    if isinstance(argument, Parameter):
        assert argument.value is not None
        return argument.value
    return np.asarray(argument.compute()) if isinstance(argument, Derived) else None


def _output(graph: Written, ending: Ending, name: str) -> Message:
    """Add the nodes of an output of the file; returns its declaration."""
    nodes, shape = graph.nodes, graph.structure.output.shape
    row = tuple(int(d) for d in shape[1:])
    number = NUMBER_OF[nodes.dtype.name]
    if name == OUTPUT:
        made = graph.output
    elif name == PROBABILITIES:
        made = probabilities(nodes, str(ending.link), graph.output, row)
        row = (2,) if row == (1,) and ending.link in links.OF_TRUTHS else row
    else:
        made = decisions(nodes, str(ending.link), graph.output, row)
        row, number = () if row == (1,) or ending.link in links.ONE_OF_CLASSES else row, ops.INT64
        if ending.classes is not None and not row:
            labels = np.asarray(ending.classes)
            number = NUMBER_OF.get(labels.dtype.name, STRING)
            made = nodes.add("Gather", nodes.constant(labels, "labels"), made, axis=0)
    if not nodes.rename(made, name):
        nodes.add("Identity", made, into=name)
    elif made == graph.output:
        graph.output = name
    return value_info(name, number, (BATCH, *row))


def probabilities(nodes: Nodes, link: str, output: str, row: tuple[int, ...]) -> str:
    """Those of `links.probabilities`, in the model's dtype."""
    if link == links.SOFTMAX:
        return nodes.add("Softmax", output, axis=-1)
    if link == links.EXP:
        return nodes.add("Exp", output)
    p = nodes.add("Sigmoid", output) if link == links.SIGMOID else output
    if row != (1,):
        return p
    if link == links.SIGMOID:
        other = nodes.add("Sigmoid", nodes.add("Neg", output))
    else:
        other = nodes.add("Sub", nodes.constant(1.0), p)
    return nodes.add("Concat", other, p, axis=1)


def decisions(nodes: Nodes, link: str, output: str, row: tuple[int, ...]) -> str:
    """Those of `links.decisions`, int64."""
    if link in links.ONE_OF_CLASSES:
        return nodes.add("ArgMax", output, axis=1, keepdims=0)
    least = nodes.constant(0.0 if link == links.SIGMOID else 0.5)
    found = nodes.cast(nodes.add("GreaterOrEqual", output, least), ops.INT64)
    return nodes.add("Reshape", found, nodes.integers(-1)) if row == (1,) else found
