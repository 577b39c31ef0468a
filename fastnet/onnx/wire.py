"""The wire format of Protocol Buffers, for messages that a table describes.

A message is a sequence of fields. Each is a key, number·8 + type, and a value: a varint (type 0, seven bits
a byte, the lowest first), 8 bytes (1), a length and so many bytes (2), or 4 bytes (5). Repeated numbers may
stand packed, as the bytes of one field. Unknown fields are skipped.
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Message = dict[str, Any]
DEEPEST = 32  # messages within messages
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """A field of a message: its number, its kind, and whether there may be several.

    kind: "int", "uint", "float", "double", "text", "bytes", or the name of a message.
    """

    number: int
    kind: str
    repeated: bool = False


Table = Mapping[str, Mapping[str, Field]]
NUMBERS = {"float": ("<f4", FOUR), "double": ("<f8", EIGHT)}


def varint(value: int) -> bytes:
    """An integer in [−2⁶³, 2⁶⁴) as a varint; negative ones as their two's complement."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def encode(table: Table, kind: str, message: Mapping[str, Any]) -> bytes:
    """The bytes of a message, with its fields in the table's order; None and empty lists are left out."""
    fields, parts = table[kind], list[bytes]()
    for name in message:
        if name not in fields:
            raise KeyError(f"{kind} has no field {name!r}")
    for name, field in fields.items():
        value = message.get(name)
        if value is None or (field.repeated and not len(value)):
            continue
        if field.repeated and field.kind in ("int", "uint", *NUMBERS):
            parts += _sized(field.number, _packed(field.kind, value))
            continue
        for one in value if field.repeated else [value]:
            parts += _single(table, field, one)
    return b"".join(parts)


def _sized(number: int, value: bytes) -> list[bytes]:
    return [varint(number << 3 | BYTES), varint(len(value)), value]


def _packed(kind: str, values: Any) -> bytes:
    if kind in NUMBERS:
        return np.asarray(values, NUMBERS[kind][0]).tobytes()
    return b"".join(map(varint, values))


def _single(table: Table, field: Field, value: Any) -> list[bytes]:
    number, kind = field.number, field.kind
    if kind in ("int", "uint"):
        return [varint(number << 3 | VARINT), varint(value)]
    if kind in NUMBERS:
        return [varint(number << 3 | NUMBERS[kind][1]), _packed(kind, [value])]
    if kind == "text":
        return _sized(number, value.encode())
    return _sized(number, value if kind == "bytes" else encode(table, kind, value))


def decode(table: Table, kind: str, data: memoryview, depth: int = 0) -> Message:
    """The message of these bytes: repeated fields as lists, bytes as views, absent fields left out.

    Takes memory in proportion to the bytes. Raises ValueError where they are no such message.
    """
    if depth > DEEPEST:
        raise ValueError(f"has messages more than {DEEPEST} deep")
    names = {field.number: (name, field) for name, field in table[kind].items()}
    message: Message = {}
    for number, wire, value in fields_of(data):
        name, field = names.get(number, ("", None))
        if field is None:
            continue
        found = _values(table, field, wire, value, depth)
        if field.repeated:
            message.setdefault(name, []).extend(found)
        elif found:
            message[name] = found[-1]  # of several the last counts
    return message


def _values(table: Table, field: Field, wire: int, value: Any, depth: int) -> list[Any]:
    """The values of a field as it was read; several where they stand packed."""
    kind = field.kind
    if kind in ("int", "uint"):
        given = list(_varints(value)) if wire == BYTES and field.repeated else [value]
        if wire not in (VARINT, BYTES) or (wire == BYTES and not field.repeated):
            raise ValueError(f"has a number of wire type {wire}")
        return [v - (1 << 64) if kind == "int" and v >> 63 else v for v in given]
    if kind in NUMBERS:
        code, own = NUMBERS[kind]
        if wire not in (own, BYTES) or (wire == BYTES and not field.repeated):
            raise ValueError(f"has a {kind} of wire type {wire}")
        if len(value) % np.dtype(code).itemsize:
            raise ValueError(f"has {len(value)} bytes of numbers of type {kind}")
        numbers: list[Any] = np.frombuffer(value, code).tolist()
        return numbers
    if wire != BYTES:
        raise ValueError(f"has a {kind} of wire type {wire}")
    if kind == "text":
        return [bytes(value).decode("utf-8", "replace")]
    return [value if kind == "bytes" else decode(table, kind, value, depth + 1)]


def fields_of(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """The number, wire type and value of each field: an int for a varint, else the bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0 or number >= 1 << 29:
            raise ValueError(f"has a field with the number {number}")
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire in (EIGHT, FOUR):
            size = 8 if wire == EIGHT else 4
        else:
            raise ValueError(f"has a field of wire type {wire}")
        if size > len(data) - at:
            raise ValueError(f"ends within a field of {size} bytes")
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The varint at a place, and the place behind it."""
    value = shift = 0
    for i in range(at, min(at + 10, len(data))):
        value |= (data[i] & 0x7F) << shift
        if data[i] < 0x80:
            return value & (1 << 64) - 1, i + 1
        shift += 7
    raise ValueError("ends within a number" if at + 10 > len(data) else "has a number of 10 bytes")


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def float32(value: float) -> float:
    """A number as float32 has it."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
