"""The wire format of Protocol Buffers, and the table of ONNX's messages."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet.onnx import schema, wire
from fastnet.onnx.schema import SCHEMA

VARINTS = {
    0: b"\x00",
    1: b"\x01",
    127: b"\x7f",
    128: b"\x80\x01",
    300: b"\xac\x02",
    2**63: b"\x80" * 9 + b"\x01",
    -1: b"\xff" * 9 + b"\x01",
}


@pytest.mark.parametrize("value", VARINTS)
def test_a_varint_has_seven_bits_a_byte(value):
    """300 is the example of the format's own page."""
    assert wire.varint(value) == VARINTS[value]
    fields = list(wire.fields_of(memoryview(b"\x08" + VARINTS[value])))
    assert fields == [(1, 0, value % 2**64)]


MODEL = {
    "ir_version": 8,
    "producer_name": "näme",
    "opset_import": [{"domain": "", "version": 17}, {"domain": "ai.onnx.ml", "version": -3}],
    "graph": {
        "node": [
            {
                "input": ["a", "", "b"],
                "output": ["c"],
                "op_type": "Gemm",
                "attribute": [
                    schema.attribute_of(name, value)
                    for name, value in {
                        "alpha": 0.5,
                        "transB": 1,
                        "axes": [1, -2, 300],
                        "scales": [0.5, -1.0],
                        "mode": "constant",
                    }.items()
                ],
            }
        ],
        "input": [schema.value_info("x", 1, ("batch", 3))],
    },
}


def test_a_message_comes_back():
    data = wire.encode(SCHEMA, "Model", MODEL)
    assert wire.decode(SCHEMA, "Model", memoryview(data)) == MODEL


def test_packed_and_single_numbers_are_the_same():
    """A writer may write each number of a repeated field as a field."""
    packed = wire.encode(SCHEMA, "Tensor", {"dims": [2, 300], "float_data": [0.5, 2.0]})
    single = b"\x08\x02" + b"\x08\xac\x02" + b"\x25\x00\x00\x00?" + b"\x25\x00\x00\x00@"
    for data in (packed, single):
        found = wire.decode(SCHEMA, "Tensor", memoryview(data))
        assert found == {"dims": [2, 300], "float_data": [0.5, 2.0]}


DAMAGED = {
    "ends within a number": b"\x08\x80",
    "has a number of 10 bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "ends within a field of 9 bytes": b"\x12\x09abc",
    "ends within a field of 8 bytes": b"\x49abc",
    "has a field with the number 0": b"\x00\x01",
    "has a field of wire type 3": b"\x0b",
    "has a number of wire type 2": b"\x0a\x01a",
    "has a text of wire type 0": b"\x10\x01",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_no_message_is_refused(what):
    with pytest.raises(ValueError, match=what):
        wire.decode(SCHEMA, "Model", memoryview(DAMAGED[what]))


def test_messages_in_messages_are_refused_where_they_are_deep():
    table = {"A": {"a": wire.Field(1, "A")}}
    data = b""
    for _ in range(wire.DEEPEST + 1):
        data = b"".join([b"\x0a", wire.varint(len(data)), data])
    with pytest.raises(ValueError, match="deep"):
        wire.decode(table, "A", memoryview(data))


ARRAYS = {
    "float32": np.array([[1.5, -np.inf], [0, 3]], "f"),
    "float64": np.array(0.1),
    "float16": np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "int32": np.array([-5, 7], np.int32),
    "int8": np.array([-128, 127], np.int8),
    "uint8": np.array([0, 255], np.uint8),
    "uint64": np.array([2**64 - 1], np.uint64),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), "f"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_comes_back(kind):
    """Also from the other form, a field of numbers, as other programs write it."""
    array = ARRAYS[kind]
    tensor = schema.tensor_of("w", array)
    data = wire.encode(SCHEMA, "Tensor", tensor)
    given = wire.decode(SCHEMA, "Tensor", memoryview(data))
    _, field = schema.DTYPES[tensor["data_type"]]
    numbers = array.view(np.uint16) if kind == "float16" else array
    listed = {**tensor, field: numbers.reshape(-1).tolist()}
    del listed["raw_data"]
    for found in (schema.array_of(given), schema.array_of(listed)):
        assert found.dtype == array.dtype and found.shape == array.shape
        np.testing.assert_array_equal(found, array)


REFUSED = {
    "another file": {"data_location": 1, "external_data": [{"key": "location", "value": "/x"}]},
    "data type 99": {"data_type": 99},
    "7 bytes; expected 8": {"raw_data": b"1234567"},
    "1 numbers; expected 2": {"raw_data": None, "float_data": [1.0]},
    "shape": {"dims": [-1, -2]},
    "dims too many": {"dims": [2**40, 2**40], "raw_data": None},
}


@pytest.mark.parametrize("what", REFUSED)
def test_tensors_that_are_wrong_are_refused(what):
    tensor = {"name": "w", "dims": [2], "data_type": 1, "raw_data": b"12345678", **REFUSED[what]}
    tensor = {name: value for name, value in tensor.items() if value is not None}
    with pytest.raises(ValueError, match="'w'" if what.startswith(("shape", "dims")) else what):
        schema.array_of(tensor)


def test_the_table_is_that_of_the_package_onnx():
    onnx = pytest.importorskip("onnx")
    kinds = {1: "double", 2: "float", 3: "int", 4: "uint", 5: "int", 9: "text", 12: "bytes"}
    known = {
        "Type": onnx.TypeProto,
        "TensorType": onnx.TypeProto.Tensor,
        "TensorShape": onnx.TensorShapeProto,
        "Dimension": onnx.TensorShapeProto.Dimension,
    }
    for name, fields in SCHEMA.items():
        theirs = known.get(name) or getattr(onnx, f"{name}Proto")
        by_name = theirs.DESCRIPTOR.fields_by_name
        for field, own in fields.items():
            their = by_name[field]
            assert own.number == their.number, (name, field)
            if own.kind == "bytes" and their.type == 11:
                continue  # a message that nothing reads
            if their.type == 14:  # an enumeration
                assert own.kind == "int"
            elif their.type == 11:
                kind = their.message_type.name.removesuffix("Proto")
                assert own.kind == ("TensorType" if kind == "Tensor" and name == "Type" else kind)
            else:
                assert own.kind == kinds[their.type], (name, field)
    for number, (dtype, _) in schema.DTYPES.items():
        assert onnx.helper.tensor_dtype_to_np_dtype(number) == np.dtype(dtype)
    attributes = onnx.AttributeProto
    assert (
        *(attributes.FLOAT, attributes.INT, attributes.STRING),
        *(attributes.TENSOR, attributes.FLOATS, attributes.INTS),
    ) == (schema.FLOAT, schema.INT, schema.TEXT, schema.TENSOR, schema.FLOATS, schema.INTS)
