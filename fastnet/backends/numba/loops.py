"""The two loops, compiled once and independent of any model: a program, and a chunk of training steps.

Both are called with the addresses of records and run without the GIL.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cfunc, float64, int64, njit
from numba.np.numpy_support import from_dtype

from fastnet.backends.numba.lowlevel import call, move, reader, types, vector, writer
from fastnet.plan.records import (
    BAD_LABEL,
    CONTEXT,
    INSTRUCTION,
    KINDS,
    NORM_NOT_FINITE,
    NOT_FINITE,
    OK,
    SEGMENT,
    TRAIN,
)

_ADDRESS = np.dtype([("address", "i8")])
_get_instruction, _get, _put = reader(INSTRUCTION), reader(TRAIN), writer(TRAIN)
_get_context, _put_context = reader(CONTEXT), writer(CONTEXT)
_get_address, _put_address = reader(_ADDRESS), writer(_ADDRESS)

_STRIDE = INSTRUCTION.itemsize
_CONTEXT = TRAIN.fields["context"][1]  # type: ignore[index]
_X, _Y, _W, _BUFFERS = (
    _CONTEXT + CONTEXT.fields["segment"][1] + 8 * SEGMENT[name]  # type: ignore[index]
    for name in ("x", "y", "w", "buffers")
)
_BYTES = tuple(np.dtype(kind).itemsize for kind in KINDS)
_THREE_INTEGERS = types.void(int64, int64, int64)


@njit(error_model="numpy")
def _run(program: int, count: int, context: int) -> None:
    """Run `count` instructions."""
    for _ in range(count):
        call(_get_instruction(program, "entry"), (program, context))
        program += _STRIDE


@njit(error_model="numpy")
def _gather(
    index: Any, source: int, kind: int, width: int, stage: int, wanted: int, convert: int
) -> Any:
    """Bring rows of the data set together in the wanted kind; returns where they are."""
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
    """Copy labels, each read once; returns the place in index of one out of range, or -1."""
    for i in range(index.size):
        row = index[i]
        label = vector(source + 8 * row, 1, int64)[0]
        if (label < 0 or label >= classes) and label != ignored:
            return i
        vector(stage, index.size, int64)[i] = label
    return -1


@njit(error_model="numpy")
def _update(args: int, step: int, context: int) -> bool:
    """Run what follows the backward of a step; returns whether all is well."""
    program, count = _get(args, "update"), _get(args, "update_count")
    first, guarded = _get(args, "collect_count"), _get(args, "guard_count")
    _run(program, first, context)
    if _get(args, "updates") != 0 and not vector(_get(args, "updates"), step + 1, int64)[step]:
        return True
    _run(program + first * _STRIDE, guarded, context)
    if _get(args, "norm") != 0 and not math.isfinite(vector(_get(args, "norm"), 1, float64)[0]):
        return False
    _run(program + (first + guarded) * _STRIDE, count - first - guarded, context)
    return True


@njit(error_model="numpy")
def _train(args: int, convert_x: int, convert_y: int) -> None:
    """Run a chunk of training steps; the conversions are addresses, 0 where none is needed."""
    context = args + _CONTEXT
    steps, dtype, classes = _get(args, "steps"), _get(args, "dtype"), _get(args, "classes")
    first = _get_context(context, "step")
    offsets = vector(_get(args, "batch_offsets"), steps + 1, int64)
    losses = vector(_get(args, "losses"), steps, float64)
    hyper_bytes = 8 * _get(args, "groups") * _get_context(context, "hyper_size")
    output_bytes, buffers_bytes = _get(args, "output_bytes"), _get(args, "buffers_bytes")
    buffers, kept = _get_address(args + _BUFFERS, "address"), _get(args, "buffers_kept")
    x, x_kind, x_width, x_stage = (
        _get(args, "x"), _get(args, "x_kind"), _get(args, "x_width"), _get(args, "x_stage")
    )  # fmt: skip
    y, y_kind, y_width, y_stage = (
        _get(args, "y"), _get(args, "y_kind"), _get(args, "y_width"), _get(args, "y_stage")
    )  # fmt: skip
    w, w_stage = _get(args, "w"), _get(args, "w_stage")
    status, done = OK, 0
    for s in range(steps):
        begin, rows = offsets[s], offsets[s + 1] - offsets[s]
        index = vector(_get(args, "index") + 8 * begin, rows, int64)
        _put_context(context, "rows", rows)
        if classes > 0:
            bad = _gather_labels(index, y, y_stage, classes, _get(args, "ignored"))
            if bad >= 0:
                status = BAD_LABEL
                _put(args, "bad_row", index[bad])
                break
            _put_address(args + _Y, "address", y_stage)
        else:
            taken = _gather(index, y, y_kind, y_width, y_stage, dtype, convert_y)
            _put_address(args + _Y, "address", taken)
        if w != 0:
            _put_address(args + _W, "address", _gather(index, w, dtype, 1, w_stage, dtype, 0))
        taken = _gather(index, x, x_kind, x_width, x_stage, dtype, convert_x)
        _put_address(args + _X, "address", taken)
        move(kept, buffers, buffers_bytes)
        _run(_get(args, "forward"), _get(args, "forward_count"), context)
        losses[s] = vector(_get(args, "loss"), 1, float64)[0]
        if _get(args, "outputs") != 0:
            into = _get(args, "outputs") + begin * output_bytes
            move(into, _get(args, "output"), rows * output_bytes)
        if _get(args, "row_losses") != 0:
            move(_get(args, "row_losses") + 8 * begin, _get(args, "row_loss"), 8 * rows)
        if not math.isfinite(losses[s]):
            move(buffers, kept, buffers_bytes)
            status = NOT_FINITE
            break
        _run(_get(args, "backward"), _get(args, "backward_count"), context)
        _put_context(context, "hyper", _get(args, "hyper") + s * hyper_bytes)
        if not _update(args, s, context):
            move(buffers, kept, buffers_bytes)
            status = NORM_NOT_FINITE
            break
        _put_context(context, "step", first + np.uint64(s + 1))
        done += 1
    _put_context(context, "step", first)
    _put(args, "done", done)
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
