"""The messages of ONNX that fastnet writes and reads, and arrays as its tensors.

Names and numbers of fields are those of onnx.proto3 at IR version 8; later versions only add fields.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3 (Apache License 2.0).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.onnx import wire
from fastnet.onnx.wire import Field, Message
from fastnet.op import Array

IR_VERSION = 8  # the one that came with opset 17

SCHEMA: wire.Table = {
    "Model": {
        "ir_version": Field(1, "int"),
        "producer_name": Field(2, "text"),
        "producer_version": Field(3, "text"),
        "doc_string": Field(6, "text"),
        "graph": Field(7, "Graph"),
        "opset_import": Field(8, "OperatorSetId", repeated=True),
        "metadata_props": Field(14, "StringStringEntry", repeated=True),
        "functions": Field(25, "bytes", repeated=True),
    },
    "OperatorSetId": {"domain": Field(1, "text"), "version": Field(2, "int")},
    "StringStringEntry": {"key": Field(1, "text"), "value": Field(2, "text")},
    "Graph": {
        "node": Field(1, "Node", repeated=True),
        "name": Field(2, "text"),
        "initializer": Field(5, "Tensor", repeated=True),
        "input": Field(11, "ValueInfo", repeated=True),
        "output": Field(12, "ValueInfo", repeated=True),
        "sparse_initializer": Field(15, "bytes", repeated=True),
    },
    "Node": {
        "input": Field(1, "text", repeated=True),
        "output": Field(2, "text", repeated=True),
        "name": Field(3, "text"),
        "op_type": Field(4, "text"),
        "attribute": Field(5, "Attribute", repeated=True),
        "domain": Field(7, "text"),
    },
    "Attribute": {
        "name": Field(1, "text"),
        "f": Field(2, "float"),
        "i": Field(3, "int"),
        "s": Field(4, "bytes"),
        "t": Field(5, "Tensor"),
        "g": Field(6, "bytes"),
        "floats": Field(7, "float", repeated=True),
        "ints": Field(8, "int", repeated=True),
        "strings": Field(9, "bytes", repeated=True),
        "type": Field(20, "int"),
        "ref_attr_name": Field(21, "text"),
    },
    "Tensor": {
        "dims": Field(1, "int", repeated=True),
        "data_type": Field(2, "int"),
        "segment": Field(3, "bytes"),
        "float_data": Field(4, "float", repeated=True),
        "int32_data": Field(5, "int", repeated=True),
        "string_data": Field(6, "bytes", repeated=True),
        "int64_data": Field(7, "int", repeated=True),
        "name": Field(8, "text"),
        "raw_data": Field(9, "bytes"),
        "double_data": Field(10, "double", repeated=True),
        "uint64_data": Field(11, "uint", repeated=True),
        "external_data": Field(13, "StringStringEntry", repeated=True),
        "data_location": Field(14, "int"),
    },
    "ValueInfo": {"name": Field(1, "text"), "type": Field(2, "Type")},
    "Type": {"tensor_type": Field(1, "TensorType")},
    "TensorType": {"elem_type": Field(1, "int"), "shape": Field(2, "TensorShape")},
    "TensorShape": {"dim": Field(1, "Dimension", repeated=True)},
    "Dimension": {"dim_value": Field(1, "int"), "dim_param": Field(2, "text")},
}

STRING = 8
# The numbers of data types. The second word is the field that may hold such numbers beside raw_data.
DTYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    4: ("uint16", "int32_data"),
    5: ("int16", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
    12: ("uint32", "uint64_data"),
    13: ("uint64", "uint64_data"),
}
NUMBER_OF = {name: number for number, (name, _) in DTYPES.items()}
FLOAT, INT, TEXT, TENSOR, FLOATS, INTS = 1, 2, 3, 4, 6, 7  # types of attributes
MOST_ELEMENTS = 2**31  # of an array that a file holds


def tensor_of(name: str, array: Array) -> Message:
    """An array of numbers, or of strings, as a Tensor."""
    head = {"name": name, "dims": list(array.shape)}
    if array.dtype.kind in "UO":
        texts = [str(text).encode() for text in array.reshape(-1)]
        return {**head, "data_type": STRING, "string_data": texts}
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {**head, "data_type": NUMBER_OF[array.dtype.name], "raw_data": data}


def array_of(tensor: Message) -> Array:
    """The array of a Tensor of numbers, a read-only view or a new one.

    Raises ValueError where its parts do not fit, and where its numbers lie in another file: a path that a
    file from elsewhere names is not opened.
    """
    name, dims = tensor.get("name", ""), tensor.get("dims", [])
    if tensor.get("data_location") or tensor.get("external_data"):
        raise ValueError(
            f"has the numbers of {name!r} in another file, which is not opened; save the model as one "
            "file, by onnx.save(onnx.load(path), new_path) say"
        )
    dtype, field = DTYPES.get(tensor.get("data_type", 0), ("", ""))
    if not dtype or "segment" in tensor:
        raise ValueError(
            f"has {name!r} of data type {tensor.get('data_type', 0)}, which is unknown"
        )
    count = math.prod(dims)
    if any(d < 0 for d in dims) or count > MOST_ELEMENTS or len(dims) > 32:
        raise ValueError(f"has {name!r} of shape {dims[:8]}")
    if "raw_data" in tensor:
        raw, size = tensor["raw_data"], count * np.dtype(dtype).itemsize
        if len(raw) != size:
            raise ValueError(f"has {name!r} with {len(raw)} bytes; expected {size}")
        array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))
        return array.astype(dtype, copy=False).reshape(dims)
    given: Any = tensor.get(field, [])
    if len(given) != count:
        raise ValueError(f"has {name!r} with {len(given)} numbers; expected {count}")
    try:
        if dtype == "float16":  # as the bits of each
            return np.array(given, np.uint16).view(np.float16).reshape(dims)
        return np.array(given, dtype).reshape(dims)
    except OverflowError:
        raise ValueError(f"has {name!r} with numbers that are no {dtype}") from None


def attribute_of(name: str, value: Any) -> Message:
    """A node's attribute: an int, a float, a text, an array, or a list of ints or of floats."""
    if isinstance(value, (bool, int)):
        return {"name": name, "i": int(value), "type": INT}
    if isinstance(value, float):
        return {"name": name, "f": value, "type": FLOAT}
    if isinstance(value, str):
        return {"name": name, "s": value.encode(), "type": TEXT}
    if isinstance(value, np.ndarray):
        return {"name": name, "t": tensor_of("", value), "type": TENSOR}
    if all(isinstance(v, int) for v in value):
        return {"name": name, "ints": list(value), "type": INTS}
    return {"name": name, "floats": list(value), "type": FLOATS}


def value_info(name: str, dtype: int, shape: tuple[int | str, ...]) -> Message:
    """An input or output of a graph; a text in the shape names a dimension that may have any size."""
    dims = [{"dim_param": d} if isinstance(d, str) else {"dim_value": d} for d in shape]
    return {
        "name": name,
        "type": {"tensor_type": {"elem_type": dtype, "shape": {"dim": dims}}},
    }
