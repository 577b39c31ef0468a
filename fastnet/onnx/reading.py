"""ONNX files as graphs of nodes whose constants are computed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.errors import FileError, check_path, shown
from fastnet.onnx import folding, wire
from fastnet.onnx.schema import DTYPES, SCHEMA, STRING, array_of
from fastnet.onnx.wire import Message
from fastnet.op import Array

OLDEST_OPSET = 7  # before it, operators broadcast by attributes
STANDARD = ("", "ai.onnx")  # names of the domain of ONNX's own operators
ML = "ai.onnx.ml"


@dataclass
class Node:
    """One operator. Inputs that are absent have the name ""."""

    op: str  # with its domain, if that is not ONNX's own: "ai.onnx.ml.Scaler"
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    name: str

    @property
    def title(self) -> str:
        """The node in messages."""
        return f"{self.op} ({shown(self.name or self.outputs[0])})"


@dataclass
class Value:
    """An input or output of the graph: its dtype, None where it is not told, and its shape.

    A dimension is None where it may have any size, and so is the shape.
    """

    name: str
    dtype: str | None
    shape: tuple[int | None, ...] | None


@dataclass
class Graph:
    """A file's graph, in an order of execution."""

    path: Path
    opset: int
    nodes: list[Node]
    constants: dict[str, Array]
    inputs: list[Value]
    outputs: list[Value]
    size: int = 0  # the bytes of the file
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    def producers(self) -> dict[str, Node]:
        """The node of each value."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def read(path: Any) -> Graph:
    """The graph of an ONNX file, of any version of the format and of the operators from 7 on.

    Takes memory in proportion to the file. Raises FileError for a file that is damaged, is no ONNX file or
    has parts in other files, and OSError where it cannot be read.
    """
    source = check_path("path", path)
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read(status.st_size) if stat.S_ISREG(status.st_mode) else b""
    return parsed(source, data)


def parsed(source: Path, data: bytes) -> Graph:
    """The graph of the bytes of a file, see `read`."""
    try:
        message = wire.decode(SCHEMA, "Model", memoryview(data))
        if "graph" not in message or "opset_import" not in message:
            raise ValueError("has no graph of operators with a version")
        return _graph(source, message, len(data))
    except (ValueError, OverflowError, ArithmeticError) as error:
        text = str(error)
        told = text if text.startswith(("has ", "ends ")) else f"is damaged ({shown(text)})"
        raise FileError(f"{source} is no ONNX file that can be read: it {told}") from None


def _graph(source: Path, message: Message, size: int) -> Graph:
    versions = {o.get("domain", ""): o.get("version", 0) for o in message["opset_import"]}
    opset = max((versions[name] for name in STANDARD if name in versions), default=0)
    if opset < OLDEST_OPSET:
        raise ValueError(
            f"has version {opset} of ONNX's operators; expected {OLDEST_OPSET} or later"
        )
    content = message["graph"]
    if content.get("sparse_initializer"):
        raise ValueError("has sparse constants, which are not read")
    constants: dict[str, Array] = {}
    for tensor in content.get("initializer", []):
        if tensor.get("data_type") != STRING:
            constants[tensor.get("name", "")] = array_of(tensor)
    nodes = [_node(n, constants) for n in content.get("node", [])]
    inputs = [_value(v) for v in content.get("input", []) if v.get("name") not in constants]
    metadata = {p.get("key", ""): p.get("value", "") for p in message.get("metadata_props", [])}
    graph = Graph(
        source,
        opset,
        _ordered([n for n in nodes if n is not None], constants),
        constants,
        inputs,
        [_value(v) for v in content.get("output", [])],
        size,
        message.get("producer_name", ""),
        metadata,
    )
    folding.fold(graph.nodes, constants, opset, size)
    graph.nodes = [n for n in graph.nodes if n.outputs[0] not in constants]
    return graph


def _node(message: Message, constants: dict[str, Array]) -> Node | None:
    """A node; None for a Constant, whose value joins the constants."""
    domain, op = message.get("domain", ""), message.get("op_type", "")
    title = op if domain in STANDARD else f"{domain}.{op}"
    outputs = message.get("output", [])
    if not outputs or not outputs[0]:
        raise ValueError(f"has a node {title} without an output")
    attributes: dict[str, Any] = {}
    for attribute in message.get("attribute", []):
        attributes[attribute.get("name", "")] = _attribute(attribute)
    if title == "Constant":
        value = _constant(attributes)
        if value is not None:
            constants[outputs[0]] = value
            return None
    return Node(title, message.get("input", []), outputs, attributes, message.get("name", ""))


def _attribute(message: Message) -> Any:
    """The value of an attribute; None for what nothing here reads, such as a graph."""
    if "t" in message:
        return None if message["t"].get("data_type") == STRING else array_of(message["t"])
    if "s" in message:
        return bytes(message["s"]).decode("utf-8", "replace")
    if "strings" in message:
        return [bytes(text).decode("utf-8", "replace") for text in message["strings"]]
    for name in ("f", "i", "floats", "ints"):
        if name in message:
            return message[name]
    # Numbers that are 0, and empty lists, may be left out.
    return {1: 0.0, 2: 0, 3: "", 6: [], 7: [], 8: []}.get(message.get("type", 0))


def _constant(attributes: dict[str, Any]) -> Array | None:
    """The value of a Constant."""
    for name, dtype in {
        "value": None,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }.items():
        if attributes.get(name) is not None:
            return np.asarray(attributes[name], dtype)
    return None


def _value(message: Message) -> Value:
    kind = message.get("type", {}).get("tensor_type", {})
    number = kind.get("elem_type", 0)
    dtype, _ = DTYPES.get(number, ("string" if number == STRING else None, ""))
    shape = None
    if "shape" in kind:
        sizes = [d.get("dim_value", 0) for d in kind["shape"].get("dim", [])]
        shape = tuple(size if size > 0 else None for size in sizes)
    return Value(message.get("name", ""), dtype, shape)


def _ordered(nodes: list[Node], constants: dict[str, Array]) -> list[Node]:
    """The nodes, each after those that it reads; ValueError where there is no such order."""
    made: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in made or name in constants:
                raise ValueError(f"has two values with the name {shown(name)}")
            made[name] = number
    readers: dict[int, list[int]] = {}
    missing = []
    for number, node in enumerate(nodes):
        before = {made[name] for name in node.inputs if name in made}
        missing.append(len(before))
        for other in before:
            readers.setdefault(other, []).append(number)
    ready = [number for number, count in enumerate(missing) if not count]
    found = []
    for number in ready:  # which grows
        found.append(nodes[number])
        for reader in readers.get(number, []):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if len(found) < len(nodes):
        raise ValueError("has nodes that read one another's results in a circle")
    return found
