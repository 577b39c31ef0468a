"""A quantised net as an ONNX file of quantised operators."""

from __future__ import annotations

import numpy as np

from fastnet.int8.chain import Front
from fastnet.int8.layer import Layer
from fastnet.int8.ranges import Codes, Entry
from fastnet.onnx import wire
from fastnet.onnx.elements import Elements
from fastnet.onnx.nodes import Nodes
from fastnet.onnx.schema import IR_VERSION, NUMBER_OF, SCHEMA, value_info
from fastnet.onnx.writing import BATCH, INPUT, NEWEST_OPSET, OLDEST_OPSET, OUTPUT
from fastnet.op import Array
from fastnet.plan.graph import Node

CODES = "codes"
MIDDLE = 128  # the zero point of weights as uint8

__all__ = ["NEWEST_OPSET", "OLDEST_OPSET", "model_bytes"]


def model_bytes(
    front: Front,
    entry: Entry,
    layers: list[Layer],
    shape: tuple[int, ...],
    opset: int,
    producer: tuple[str, str],
) -> bytes:
    """The bytes of the file."""
    nodes = Nodes(np.float32, opset)
    for name in (INPUT, OUTPUT, CODES):
        nodes.name(name)
    nodes.fixed = {INPUT, OUTPUT, CODES}
    x = INPUT
    width = len(front.centre)
    if len(shape) != 1:
        x = nodes.reshape(x, width)
    if front.centre.any():
        x = nodes.add("Sub", x, nodes.constant(front.centre))
    if np.any(front.factor != 1):
        x = nodes.add("Mul", x, nodes.constant(front.factor))
    if front.offset.any():
        x = nodes.add("Add", x, nodes.constant(front.offset))
    elements, codes = Elements(nodes), _codes(nodes, entry.codes)
    x = nodes.add("QuantizeLinear", x, *codes)
    if front.activations:
        x = nodes.add("DequantizeLinear", x, *codes)
        x = _activated(elements, front.activations, x)
        x = nodes.add("QuantizeLinear", x, *_codes(nodes, entry.after))
    x = nodes.reshape(x, width, 1, 1)
    for layer in layers:
        nodes.label = layer.label
        x = _layer(nodes, elements, layer, x)
    nodes.label = ""
    outputs = layers[-1].w.shape[1]
    nodes.add("Reshape", x, nodes.integers(-1, outputs), into=CODES)
    nodes.add("DequantizeLinear", CODES, *_codes(nodes, layers[-1].after), into=OUTPUT)
    row = BATCH, outputs
    content: wire.Message = {
        "node": nodes.nodes,
        "name": "quantized",
        "initializer": nodes.initializers,
        "input": [value_info(INPUT, NUMBER_OF["float32"], (BATCH, *shape))],
        "output": [
            value_info(OUTPUT, NUMBER_OF["float32"], row),
            value_info(CODES, NUMBER_OF["uint8"], row),
        ],
    }
    return wire.encode(
        SCHEMA,
        "Model",
        {
            "ir_version": IR_VERSION,
            "producer_name": producer[0],
            "producer_version": producer[1],
            "graph": content,
            "opset_import": [{"domain": "", "version": opset}],
        },
    )


def _codes(nodes: Nodes, codes: Codes) -> tuple[str, str]:
    """The names of a scale and a zero point."""
    zero = np.array(codes.zero, np.uint8)
    return nodes.constant(np.array(codes.scale, np.float32)), nodes.constant(zero)


def _layer(nodes: Nodes, elements: Elements, layer: Layer, x: str) -> str:
    """A product with its activation; the bias has no zero point in it here."""
    inputs, outputs = layer.w.shape
    w = (layer.w.T.astype(np.int16) + MIDDLE).astype(np.uint8).reshape(outputs, inputs, 1, 1)
    bias = layer.bias + layer.given.zero * layer.w.sum(axis=0, dtype=np.int64)
    x = nodes.add(
        "QLinearConv",
        x,
        *_codes(nodes, layer.given),
        nodes.constant(w, "weight"),
        nodes.constant(layer.scales),
        nodes.constant(np.full(outputs, MIDDLE, np.uint8)),
        *_codes(nodes, layer.before),
        nodes.constant(_int32(bias), "bias"),
    )
    if layer.table is None:
        return x
    value = nodes.add("DequantizeLinear", x, *_codes(nodes, layer.before))
    value = _activated(elements, layer.product.activations, value)
    return nodes.add("QuantizeLinear", value, *_codes(nodes, layer.after))


def _activated(elements: Elements, activations: list[Node], value: str) -> str:
    """Activations of a value."""
    for node in activations:
        formula = node.op.kernels["forward"].formula
        assert formula is not None
        numbers = {n: float(node.arguments[n]) for n in node.op.scalars}
        value = elements.results(formula, {"x": value}, numbers)[0]
    return value


def _int32(values: Array) -> Array:
    return values.astype(np.int32)
