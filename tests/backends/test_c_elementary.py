"""exp, log, tanh and the logistic function of the C backend, in units in the last place."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends.c import CBackend
from fastnet.op import KERNELS
from fastnet.plan.records import ABSENT, CONTEXT, INSTRUCTION, KIND

if reason := fn.backends()["c"].reason:
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


def softmax_nll(z, level):
    """Softmax of each row of logits, the loss of its first class, and their mean."""
    rows, columns = z.shape
    p, labels = np.empty_like(z), np.zeros(rows, np.int64)
    loss, row_loss = np.empty(1), np.empty(rows)
    run("softmax_nll_forward", z.dtype.name, [loss, row_loss, p, z, labels], columns, rows, level)
    return p, row_loss, loss


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
    p, loss, _ = softmax_nll(np.stack([np.zeros_like(x), x], axis=1), level)
    assert worst_ulps(p[:, 1], e / (1 + e)) < 3
    assert np.max(np.abs(loss - np.log1p(e))) < np.finfo(dtype).eps


def floats(start, stop, step=1):
    """The float32 numbers whose bits are start, start + step, … as whole numbers, in chunks."""
    for begin in range(start, stop, step << 22):
        bits = np.arange(begin, min(stop, begin + (step << 22)), step, np.uint32)
        x = bits.view(np.float32)
        yield x[~np.isnan(x)]


def check_floats(x, level):
    """tanh and the logistic function, and exp, which the latter is where e^x vanishes beside 1."""
    wide = x.astype(np.float64)
    assert worst_ulps(elementwise("tanh_forward", x, level), np.tanh(wide)) < 3
    e = np.exp(-np.abs(wide))
    got = elementwise("sigmoid_forward", x, level)
    assert worst_ulps(got, np.where(wide < 0, e, 1) / (1 + e)) < 3
    below = wide < -17.5
    if below.any():
        assert worst_ulps(got[below], e[below]) < 2


@levels
def test_all_over_float32(level):
    for x in floats(0, 2**32, 1009):
        check_floats(x, level)


@pytest.mark.slow
@levels
@pytest.mark.parametrize("sign", [1, -1])
def test_every_float32_from_2_to_the_minus_30_to_128(sign, level):
    """Smaller ones give themselves or ½, greater ones 0 or ±1."""
    start, stop = (int(np.float32(x).view(np.uint32)) for x in (2.0**-30, 128))
    for x in floats(start, stop):
        check_floats(sign * x, level)


@levels
@dtypes
def test_exp_alone_is_within_2_ulp(dtype, level):
    """The ratio of the two probabilities; one ulp more for the rounding of the one."""
    x = -np.abs(samples(dtype))
    z = np.stack([np.zeros_like(x), x], axis=1)
    p = softmax_nll(z, level)[0].astype(np.longdouble)
    e = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(p[:, 1] / p[:, 0] / e - 1)[e > 1e-30]) < 3 * np.finfo(dtype).eps


@levels
@dtypes
def test_log_alone_is_within_2_ulp(dtype, level):
    """The loss of a row in which n logits are equal and the others vanish."""
    n = np.arange(1, 1001)
    z = np.where(np.arange(1000) < n[:, None], 0, -1000).astype(dtype)
    losses = softmax_nll(z, level)[1].astype(dtype)
    assert losses[0] == 0
    assert worst_ulps(losses[1:], np.log(n[1:].astype(np.longdouble))) < 2


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
        _, row_loss, loss = softmax_nll(z, level)
        assert np.isnan(row_loss).all()
        assert np.isnan(loss).all()
