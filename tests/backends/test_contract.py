"""The backends' contract: every kernel, with the reference's arguments and, at small sizes, results."""

from __future__ import annotations

import gradcheck
import numpy as np
import pytest
import sizes
from onecall import agree, calls, calls_at, has

from fastnet.op import KERNELS

pytestmark = pytest.mark.contract

# What test_agreement.py checks at these sizes and many more.
repeats = pytest.mark.repeats
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def test_it_has_every_kernel_with_the_same_tensors(engine):
    wanted = {name: k.tensors for name, k in KERNELS.items() if has(engine, k)}
    assert dict(engine.kernels()) == wanted


@repeats
@dtypes
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(engines, name, dtype):
    kernel = KERNELS[name]
    agree(calls_at(sizes.small(kernel), kernel, dtype), engines)


@repeats
@dtypes
@pytest.mark.parametrize("name", [n for n, k in KERNELS.items() if k.op.inplace])
def test_in_place(engines, name, dtype):
    agree(calls_at([(3, (7,))], KERNELS[name], dtype, inplace=True), engines)


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
