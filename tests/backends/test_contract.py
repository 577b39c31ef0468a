"""The backends' contract: every kernel, with the reference's arguments and, at small sizes, results."""

from __future__ import annotations

import gradcheck
import numpy as np
import pytest
from onecall import calls, compare, tolerance

from fastnet.op import KERNELS

pytestmark = pytest.mark.contract

SIZES = [(2, (2, 3)), (5, (3, 1)), (3, (7, 5))]  # rows, dims


def test_it_has_every_kernel_with_the_same_tensors(engine):
    wanted = {name: kernel.tensors for name, kernel in KERNELS.items()}
    assert dict(engine.kernels()) == wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(engine, name, dtype):
    kernel = KERNELS[name]
    for rows, dims in SIZES:
        sizes = dict(zip(kernel.op.dims, dims, strict=False))
        for call in calls(kernel, dtype, rows, sizes):
            compare(call, engine, tolerance(kernel, dtype, rows, sizes))


@pytest.mark.parametrize("name", [n for n, k in KERNELS.items() if k.phase != "update"])
def test_no_rows_and_more_of_them(engine, name):
    """More than a block of threads takes in Numba's simulator."""
    kernel, sizes = KERNELS[name], dict(zip(KERNELS[name].op.dims, (1, 3), strict=False))
    for rows in (0, 19):
        if rows >= gradcheck.MIN_ROWS.get(kernel.op.name, 0):
            for call in calls(kernel, "float64", rows, sizes):
                compare(call, engine, tolerance(kernel, "float64", rows, sizes))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [n for n, k in KERNELS.items() if k.op.inplace])
def test_in_place(engine, name, dtype):
    kernel = KERNELS[name]
    for call in calls(kernel, dtype, 3, {"N": 7}, inplace=True):
        compare(call, engine, tolerance(kernel, dtype, 3, {"N": 7}))


def test_a_program_runs_in_order_on_one_context(engine):
    """relu after y += x, as two instructions of one program."""
    add, relu = KERNELS["add_to_forward"], KERNELS["relu_forward"]
    (call,) = calls(add, "float64", 3, {"N": 2})
    program = np.concatenate([call.program, call.program])
    program["kernel"][1] = list(KERNELS).index(relu.name)
    for field in ("segment", "offset"):
        program[field][1, :2] = program[field][0, 0]
    engine.prepare(program)
    engine.run(program, call.context)
    total = call.given["y"] + call.given["x"]
    assert (total < 0).any()
    assert (total > 0).any()
    np.testing.assert_array_equal(call.view("y"), np.maximum(total, 0))


def test_the_numbers_of_the_checks_are_the_ops():
    used = {n for op in gradcheck.ops() for n in (*op.scalars, *op.hyper)}
    assert used == set(gradcheck.NUMBERS)
