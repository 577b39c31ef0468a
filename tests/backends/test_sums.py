"""Sums over very many rows are right within a few units in the last place of Σ|terms|."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import shape_of
from onecall import Call, calls, compare, tolerance

from fastnet.op import KERNELS

FEW = 8  # units in the last place
DTYPES = ["float32", "float64"]
MANY = ["linear_vjp", "prelu_vjp"]


def call(name: str, rows: int, sizes: dict[str, int], dtype: str, **tensors: object) -> Call:
    """A kernel's call on constants or arrays, by the names of its tensors."""
    op = KERNELS[name].op
    given = {
        n: np.broadcast_to(np.asarray(a, dtype), shape_of(op, n, rows, sizes))
        for n, a in tensors.items()
    }
    return Call(KERNELS[name], dtype, rows, sizes, given)


def assert_few(got: np.ndarray, want: float, dtype: str) -> None:
    assert np.max(np.abs(got / want - 1)) <= FEW * np.finfo(dtype).eps, (got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.1, 0.7])
def test_gradients_of_a_linear_layer_over_a_million_rows(engine, dtype, value):
    one = call("linear_vjp", 10**6, {"I": 2, "O": 1}, dtype, dy=value, x=1, w=1)
    got, want = one.run(engine), 1e6 * float(np.dtype(dtype).type(value))
    assert_few(got["db"], want, dtype)
    assert_few(got["dw"], want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slopes", [1, 8])
def test_gradients_of_slopes(engine, dtype, slopes):
    one = call("prelu_vjp", 10**5, {"N": 8, "A": slopes}, dtype, dy=0.1, x=-1, a=0.25)
    want = -8 // slopes * 1e5 * float(np.dtype(dtype).type(0.1))
    assert_few(one.run(engine)["da"], want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MANY)
def test_many_rows_agree_with_the_reference(engine, name, dtype):
    """The last block is shorter than the others; several pieces of dw."""
    kernel = KERNELS[name]
    for rows, dims in [(513, (61, 70)), (1300, (7, 7)), (1300, (70, 1))]:
        sizes = dict(zip(kernel.op.dims, dims, strict=False))
        for one in calls(kernel, dtype, rows, sizes):
            compare(one, engine, tolerance(kernel, dtype, rows, sizes))


def test_an_infinite_sum_is_infinite(engine):
    dy = np.ones((1000, 2))
    dy[::100] = 3e38, -3e38
    got = call("linear_vjp", 1000, {"I": 1, "O": 2}, "float32", dy=dy, x=1, w=1).run(engine)
    for name in ("db", "dw"):
        np.testing.assert_array_equal(got[name].reshape(-1), [np.inf, -np.inf], err_msg=name)
