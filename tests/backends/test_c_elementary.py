"""exp, log, tanh and the logistic function of the C backend, in units in the last place."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet.backends.c import CBackend
from fastnet.op import KERNELS
from fastnet.plan.records import ABSENT, CONTEXT, INSTRUCTION, KIND

if reason := CBackend().reason():
    pytest.skip(reason, allow_module_level=True)

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1e38, -1e38, -700, -103.9, -745, 88.8]
C = CBackend()


def run(name, dtype, tensors, size, rows, level):
    """Run one kernel whose tensors are at their own addresses."""
    program, context = np.zeros(1, INSTRUCTION), np.zeros(1, CONTEXT)
    program["kernel"], program["dtype"] = list(KERNELS).index(name), KIND[dtype]
    program["segment"] = ABSENT
    for i, tensor in enumerate(tensors):
        program["segment"][0, i], program["offset"][0, i] = 0, tensor.ctypes.data
    program["size"][0, 0], context["rows"] = size, rows
    C.set_level(level)
    C.prepare(program)
    C.run(program, context)


def elementwise(name, x, level):
    y = np.empty_like(x)
    run(name, x.dtype.name, [y, x], x.size, 1, level)
    return y


def softmax_of_pairs(x, level):
    """Probability of the second and loss of the first of the logits (0, x)."""
    z = np.stack([np.zeros_like(x), x], axis=1)
    p, labels = np.empty_like(z), np.zeros(len(x), np.int64)
    loss, row_loss = np.empty(1), np.empty(len(x))
    run("softmax_nll_forward", x.dtype.name, [loss, row_loss, p, z, labels], 2, len(x), level)
    return p[:, 1].copy(), row_loss


def samples(dtype):
    random = np.random.default_rng(0)
    small = random.normal(size=40_000) * np.exp(random.uniform(-40, 2, 40_000))
    return np.concatenate(
        [np.linspace(-12, 12, 60_001), np.linspace(-120, 120, 20_001), small]
    ).astype(dtype)


def worst_ulps(got, want):
    spacing = np.spacing(np.abs(want.astype(got.dtype))).astype(np.longdouble)
    return float(np.max(np.abs(got - want) / spacing))


levels = pytest.mark.parametrize("level", range(len(C.levels())))
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@levels
@dtypes
def test_tanh_and_sigmoid_are_within_3_ulp(dtype, level):
    x = samples(dtype)
    wide = x.astype(np.longdouble)
    assert worst_ulps(elementwise("tanh_forward", x, level), np.tanh(wide)) < 3
    want = 1 / (1 + np.exp(-wide))
    assert worst_ulps(elementwise("sigmoid_forward", x, level), want) < 3


@levels
@dtypes
def test_exp_and_log_through_softmax(dtype, level):
    x = -np.abs(samples(dtype))
    e = np.exp(x.astype(np.longdouble))
    p, loss = softmax_of_pairs(x, level)
    assert worst_ulps(p, e / (1 + e)) < 3
    assert np.max(np.abs(loss - np.log1p(e))) < np.finfo(dtype).eps


@levels
@dtypes
def test_special_values(dtype, level):
    with np.errstate(over="ignore"):
        x = np.array(SPECIAL, dtype)
        want = (1 / (1 + np.exp(-x.astype(np.longdouble)))).astype(dtype)
    smallest = np.finfo(dtype).smallest_subnormal
    sigmoid = elementwise("sigmoid_forward", x, level)
    np.testing.assert_allclose(sigmoid, want, rtol=1e-6, atol=smallest)
    tanh = elementwise("tanh_forward", x, level)
    np.testing.assert_allclose(tanh, np.tanh(x), rtol=1e-6)
    np.testing.assert_array_equal(np.signbit(tanh), np.signbit(x))
    relu = elementwise("relu_forward", x, level)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))


@levels
@dtypes
@pytest.mark.parametrize("columns", [1, 2, 10, 16, 33])
def test_what_is_not_finite_in_a_row_of_logits_shows_in_the_loss(dtype, level, columns):
    for bad in (np.nan, np.inf):
        z = np.zeros((columns, columns), dtype)
        np.fill_diagonal(z, bad)
        p, labels = np.empty_like(z), np.zeros(columns, np.int64)
        loss, row_loss = np.empty(1), np.empty(columns)
        run("softmax_nll_forward", dtype, [loss, row_loss, p, z, labels], columns, columns, level)
        assert np.isnan(row_loss).all()
        assert np.isnan(loss).all()
