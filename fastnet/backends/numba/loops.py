"""The two loops, one over a program and one over training steps; compiled once, for all models.

Callers pass the addresses of records. The loops run without the GIL.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cfunc, float32, float64, int32, int64, njit
from numba.np.numpy_support import from_dtype

from fastnet.backends.numba.lowlevel import call, move, reader, types, vector, writer
from fastnet.plan.records import (
    BAD_LABEL,
    CONTEXT,
    CONTROL,
    CONTROLS,
    HOST,
    INSTRUCTION,
    KINDS,
    MAX_SIZES,
    MAX_TENSORS,
    OK,
    SEGMENT,
    SEGMENTS,
    TRAIN,
)

_get_instruction, _get, _put = reader(INSTRUCTION), reader(TRAIN), writer(TRAIN)
_get_context, _put_context = reader(CONTEXT), writer(CONTEXT)


def _at(record: np.dtype[Any], name: str) -> int:
    return int(record.fields[name][1])  # type: ignore[index]


_STRIDE, _CONTEXT, _BASES = INSTRUCTION.itemsize, _at(TRAIN, "context"), _at(CONTEXT, "segment")
_SEGMENT, _OFFSET, _SIZE = (_at(INSTRUCTION, name) for name in ("segment", "offset", "size"))
_X, _Y, _W, _BUFFERS, _SCHEDULE = (SEGMENT[name] for name in ("x", "y", "w", "buffers", "schedule"))
_KEEP, _GATHER, _RECORD, _HOST, _CHECK, _UNLESS, _FINITE = (CONTROL[name] for name in CONTROLS)
_BYTES = tuple(np.dtype(kind).itemsize for kind in KINDS)
_THREE_INTEGERS = types.void(int64, int64, int64)


@njit(error_model="numpy")
def _run(program: int, count: int, context: int) -> int:
    """Run instructions up to the first that is no kernel's; returns the number of those run."""
    for done in range(count):
        if _get_instruction(program, "kernel") < 0:
            return done
        call(_get_instruction(program, "entry"), (program, context))
        program += _STRIDE
    return count


@njit(error_model="numpy")
def _gather(
    index: Any, source: int, kind: int, width: int, stage: int, wanted: int, convert: int
) -> Any:
    """Gather rows of the data set, converted to the wanted kind; returns their address."""
    nbytes = width * _BYTES[kind]
    if kind != wanted:
        step = width * _BYTES[wanted]
        for i in range(index.size):
            call(convert, (stage + i * step, source + index[i] * nbytes, width))
        return stage
    run_of_rows = True
    for i in range(1, index.size):
        if index[i] != index[0] + i:
            run_of_rows = False
            break
    if run_of_rows and index.size > 0:
        return source + index[0] * nbytes
    for i in range(index.size):
        move(stage + i * nbytes, source + index[i] * nbytes, nbytes)
    return stage


@njit(error_model="numpy")
def _gather_labels(index: Any, source: int, stage: int, classes: int, ignored: int) -> int:
    """Copy labels, reading each once; returns the index of one that is out of range, or -1."""
    for i in range(index.size):
        row = index[i]
        label = vector(source + 8 * row, 1, int64)[0]
        if (label < 0 or label >= classes) and label != ignored:
            return i
        vector(stage, index.size, int64)[i] = label
    return -1


@njit(error_model="numpy")
def _operand(at: int, context: int, i: int) -> Any:
    """The address of an instruction's tensor, or 0 if it is absent."""
    segment = vector(at + _SEGMENT, MAX_TENSORS, int32)[i]
    if segment < 0:
        return 0
    offset = vector(at + _OFFSET, MAX_TENSORS, int64)[i]
    return vector(context + _BASES, len(SEGMENTS), int64)[segment] + offset


@njit(error_model="numpy")
def _size(at: int, i: int) -> Any:
    return vector(at + _SIZE, MAX_SIZES, int64)[i]


@njit(error_model="numpy")
def _gather_inputs(args: int, at: int, index: Any, convert_x: int, convert_y: int) -> int:
    """Run the control `gather`; returns the status."""
    context, dtype, classes = args + _CONTEXT, _get(args, "dtype"), _get(args, "classes")
    segments = vector(context + _BASES, len(SEGMENTS), int64)
    x, y, w = _operand(at, context, 0), _operand(at, context, 1), _operand(at, context, 2)
    if y != 0 and classes > 0:
        bad = _gather_labels(index, _get(args, "y"), y, classes, _get(args, "ignored"))
        if bad >= 0:
            _put(args, "bad_row", index[bad])
            return BAD_LABEL
        segments[_Y] = y
    elif y != 0:
        source, kind = _get(args, "y"), _get(args, "y_kind")
        segments[_Y] = _gather(index, source, kind, _size(at, 1), y, dtype, convert_y)
    if w != 0:
        segments[_W] = _gather(index, _get(args, "w"), dtype, 1, w, dtype, 0)
    source, kind = _get(args, "x"), _get(args, "x_kind")
    segments[_X] = _gather(index, source, kind, _size(at, 0), x, dtype, convert_x)
    return OK


@njit(error_model="numpy")
def _record(args: int, at: int, step: int, begin: int, rows: int) -> None:
    """Run the control `record`."""
    context, nbytes = args + _CONTEXT, _size(at, 0)
    loss = vector(_operand(at, context, 0), 1, float64)
    vector(_get(args, "losses"), step + 1, float64)[step] = loss[0]
    if _get(args, "row_losses") != 0:
        move(_get(args, "row_losses") + 8 * begin, _operand(at, context, 1), 8 * rows)
    if _get(args, "outputs") != 0:
        into = _get(args, "outputs") + begin * nbytes
        move(into, _operand(at, context, 2), rows * nbytes)
    if _get(args, "decisions") != 0:
        move(_get(args, "decisions") + 8 * begin, _operand(at, context, 3), 8 * rows)


@njit(error_model="numpy")
def _keep(args: int, at: int, back: bool) -> None:
    """Run the control `keep`, or with `back` restore the buffers."""
    context = args + _CONTEXT
    kept, buffers = (
        _operand(at, context, 0),
        vector(context + _BASES, len(SEGMENTS), int64)[_BUFFERS],
    )
    if back:
        move(buffers, kept, _size(at, 0))
    else:
        move(kept, buffers, _size(at, 0))


@njit(error_model="numpy")
def _check(args: int, at: int) -> Any:
    """Run the control `check`; returns the status."""
    value = vector(_operand(at, args + _CONTEXT, 0), 1, float64)[0]
    if math.isfinite(value):
        return OK
    program = _get(args, "program")
    for _ in range(_get(args, "count")):
        if _get_instruction(program, "kernel") == _KEEP:
            _keep(args, program, True)
        program += _STRIDE
    _put(args, "value", value)
    return _size(at, 0)


@njit(error_model="numpy")
def _number(at: int, context: int) -> Any:
    """The first number of an instruction's row of the table."""
    row = _get_instruction(at, "group") * _get_context(context, "hyper_size")
    return vector(_get_context(context, "hyper"), row + 1, float64)[row]


@njit(error_model="numpy")
def _finite(args: int, at: int) -> Any:
    """The control `finite`; returns the status."""
    begin, nbytes = _operand(at, args + _CONTEXT, 0), _size(at, 0)
    total = 0.0
    if _get(args, "dtype") == 0:
        for value in vector(begin, nbytes // 4, float32):
            total += value * 0
    else:
        for value in vector(begin, nbytes // 8, float64):
            total += value * 0
    return OK if total == 0 else _size(at, 1)


@njit(error_model="numpy")
def _step(args: int, step: int, first: int, convert_x: int, convert_y: int) -> Any:
    """Run a step from the instruction `first` on; returns the status."""
    context, program, count = args + _CONTEXT, _get(args, "program"), _get(args, "count")
    offsets = vector(_get(args, "batch_offsets"), step + 2, int64)
    begin, rows = offsets[step], offsets[step + 1] - offsets[step]
    index = vector(_get(args, "index") + 8 * begin, rows, int64)
    _put_context(context, "rows", rows)
    status = OK
    i = first
    while i < count:
        i += _run(program + i * _STRIDE, count - i, context)
        if i == count:
            break
        at = program + i * _STRIDE
        kernel = _get_instruction(at, "kernel")
        i += 1
        if kernel == _KEEP:
            _keep(args, at, False)
        elif kernel == _GATHER:
            status = _gather_inputs(args, at, index, convert_x, convert_y)
        elif kernel == _RECORD:
            _record(args, at, step, begin, rows)
        elif kernel == _CHECK:
            status = _check(args, at)
        elif kernel == _HOST:
            _put(args, "at", i)
            status = HOST
        elif kernel == _UNLESS:
            if _number(at, context) == 0:
                break
        elif kernel == _FINITE and _number(at, context) != 0:
            status = _finite(args, at)
        if status != OK:
            break
    return status


@njit(error_model="numpy")
def _train(args: int, convert_x: int, convert_y: int) -> None:
    """Run a chunk of steps; convert_x and convert_y are addresses of converters, or 0."""
    context, status, first = args + _CONTEXT, OK, _get(args, "at")
    for s in range(_get(args, "done"), _get(args, "steps")):
        status = _step(args, s, first, convert_x, convert_y)
        if status != OK:
            break
        first = 0
        _put(args, "done", s + 1)
        hyper = _get_context(context, "hyper") + _get(args, "table_bytes")
        _put_context(context, "hyper", hyper)
        segments = vector(context + _BASES, len(SEGMENTS), int64)
        segments[_SCHEDULE] += _get(args, "schedule_bytes")
        _put_context(context, "step", _get_context(context, "step") + np.uint64(1))
    _put(args, "status", status)


def compile_loop(name: str) -> Any:
    """Compile `run(program, count, context)` or `train(args, convert_x, convert_y)`, a cfunc."""
    loop = {"run": _run, "train": _train}[name]

    def function(a: int, b: int, c: int) -> None:
        loop(a, b, c)

    return cfunc(_THREE_INTEGERS)(function)


def compile_converter(source: str, into: str) -> Any:
    """Compile convert(into, source, count), which converts elements; returns the cfunc."""
    of, to = from_dtype(np.dtype(source)), from_dtype(np.dtype(into))

    def convert(into: int, source: int, count: int) -> None:
        a, b = vector(into, count, to), vector(source, count, of)
        for i in range(count):
            a[i] = b[i]

    return cfunc(_THREE_INTEGERS)(convert)
