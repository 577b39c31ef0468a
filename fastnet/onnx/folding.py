"""Nodes of an ONNX graph that read constants alone are computed when the file is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.onnx.schema import DTYPES
from fastnet.op import Array

LEAST_ROOM = 1 << 20  # numbers that computed constants may have together, in a file of any size


def fold(nodes: list[Any], constants: dict[str, Array], opset: int, size: int) -> None:
    """Add the values of nodes that read constants alone to the constants.

    size: the bytes of the file; so many numbers are computed at most, or LEAST_ROOM. What is not computed
    here stays a node. Raises ValueError where a node's constants do not fit.
    """
    room = max(size, LEAST_ROOM)
    for node in nodes:
        room -= fold_one(node, constants, room)


def fold_one(node: Any, constants: dict[str, Array], room: int) -> int:
    """Add a node's value, if it has at most `room` numbers; returns how many, 0: none is added."""
    compute = COMPUTED.get(node.op)
    if compute is None or len(node.outputs) > 1 or not node.inputs:
        return 0
    if any(name and name not in constants for name in node.inputs):
        return 0
    given = [constants[name] if name else None for name in node.inputs]
    if given[0] is None:
        return 0
    count = _elements(node.op, given)
    if count > room:
        return 0
    try:
        with np.errstate(all="ignore"):
            constants[node.outputs[0]] = compute(given, node.attributes)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"has {node.title} with constants that do not fit ({error})") from None
    return count


def _elements(op: str, given: list[Any]) -> int:
    """The most numbers that a result may have."""
    shapes = [a.shape for a in given if a is not None]
    if op == "Gather":  # each index takes a part of the first
        return int(math.prod(shapes[0]) * max(1, math.prod(shapes[-1])))
    if op in BROADCASTING:
        try:
            return math.prod(np.broadcast_shapes(*shapes))
        except ValueError:
            return 0
    return sum(map(math.prod, shapes))


def axes_of(given: list[Any], attributes: dict[str, Any], rank: int) -> tuple[int, ...] | None:
    """The axes of an operator, an input or in older versions an attribute, ≥ 0; None: there are none."""
    found = given[1].tolist() if len(given) > 1 and given[1] is not None else attributes.get("axes")
    if found is None:
        return None
    return tuple(int(a) + rank if a < 0 else int(a) for a in np.ravel(found))


def _squeeze(given: list[Any], attributes: dict[str, Any]) -> Array:
    return np.asarray(np.squeeze(given[0], axes_of(given, attributes, given[0].ndim)))


def _unsqueeze(given: list[Any], attributes: dict[str, Any]) -> Array:
    count = len(np.ravel(given[1] if len(given) > 1 else attributes.get("axes", [])))
    axes = axes_of(given, attributes, given[0].ndim + count)
    return np.asarray(np.expand_dims(given[0], () if axes is None else axes))


def _reshape(given: list[Any], attributes: dict[str, Any]) -> Array:
    wanted, shape = given[1].tolist(), given[0].shape
    if not attributes.get("allowzero"):
        wanted = [shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    return np.reshape(given[0], wanted)


def _cast(given: list[Any], attributes: dict[str, Any]) -> Array:
    dtype, _ = DTYPES[attributes["to"]] if attributes.get("to") in DTYPES else ("", "")
    if not dtype:
        raise ValueError(f"data type {attributes.get('to')}")
    return np.asarray(given[0]).astype(dtype)


def _transpose(given: list[Any], attributes: dict[str, Any]) -> Array:
    return np.transpose(given[0], attributes.get("perm"))


def _concat(given: list[Any], attributes: dict[str, Any]) -> Array:
    return np.concatenate([a for a in given if a is not None], axis=attributes.get("axis", 0))


def _gather(given: list[Any], attributes: dict[str, Any]) -> Array:
    return np.asarray(np.take(given[0], given[1], axis=attributes.get("axis", 0)))


def _two(function: Callable[..., Any]) -> Callable[[list[Any], dict[str, Any]], Array]:
    return lambda given, _: np.asarray(function(given[0], given[1]))


def _one(function: Callable[..., Any]) -> Callable[[list[Any], dict[str, Any]], Array]:
    return lambda given, _: np.asarray(function(given[0]))


def _divide(a: Array, b: Array) -> Array:
    """Quotients, of integers rounded towards 0."""
    found = np.trunc(a / b) if a.dtype.kind in "iu" else a / b
    return np.asarray(found).astype(a.dtype)


COMPUTED: dict[str, Callable[[list[Any], dict[str, Any]], Array]] = {
    "Add": _two(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _two(_divide),
    "Exp": _one(np.exp),
    "Gather": _gather,
    "Identity": _one(np.asarray),
    "Mul": _two(np.multiply),
    "Neg": _one(np.negative),
    "Reciprocal": _one(np.reciprocal),
    "Reshape": _reshape,
    "Sqrt": _one(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _two(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
BROADCASTING = ("Add", "Div", "Mul", "Sub")
