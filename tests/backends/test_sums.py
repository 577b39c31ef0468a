"""Sums over very many rows are right within a few units in the last place of Σ|terms|."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import shape_of
from on_cuda import MARKS
from onecall import Call, agree, calls_at

import fastnet as fn
from fastnet.backends import registry
from fastnet.op import KERNELS

FEW = 8  # units in the last place
OF_A_PRODUCT = 50  # of one product of 512 rows, which a BLAS may add up one by one
DTYPES = ["float32", "float64"]
MANY = ["linear_vjp", "batchnorm_forward", "batchnorm_vjp", "batchnorm_inference_vjp", "prelu_vjp"]
MANY += ["scale_vjp", "shift_vjp", "affine_vjp", "layernorm_vjp", "rmsnorm_vjp"]

TALL = 4001
UNEVEN = {"x": np.resize([[-0.3], [0.4]], (TALL, 1)), "running_mean": 0, "running_var": 1}
STILL = {"dy": 0.1, "x": 1, "gamma": 1}
# What adds up in float64 on CUDA: kernels with rows, sizes and operands, and which results are sums.
ON_CUDA = [
    ("linear_vjp", 20_001, {"I": 1, "O": 1}, {"dy": 0.1, "x": 1, "w": 1}, ["db"]),
    ("prelu_vjp", TALL, {"N": 1, "A": 1}, {"dy": 0.1, "x": -1, "a": 1}, ["da"]),
    ("prelu_vjp", 1, {"N": TALL, "A": 1}, {"dy": 0.1, "x": -1, "a": 1}, ["da"]),
    ("batchnorm_forward", TALL, {"N": 1}, UNEVEN, ["shift", "rstd"]),
    ("batchnorm_vjp", TALL, {"N": 1}, STILL | {"shift": -0.3, "rstd": 1}, ["dgamma", "dbeta"]),
    (
        "batchnorm_inference_vjp",
        TALL,
        {"N": 1},
        STILL | {"running_mean": 0.3, "running_var": 1},
        ["dgamma", "dbeta"],
    ),
    ("mse_forward", TALL, {"N": 1}, {"y": 0.4, "t": 0}, ["loss"]),
    ("softmax_nll_forward", TALL, {"C": 3}, {"z": 0, "t": 1}, ["loss"]),
    ("weighted_loss_forward", TALL, {}, {"row_loss": 0.1, "w": 0.7, "c": 0.3}, ["loss", "scale"]),
]


def call(
    name: str,
    rows: int,
    sizes: dict[str, int],
    dtype: str,
    absent: tuple[str, ...] = (),
    **tensors: object,
) -> Call:
    """A kernel's call on constants or arrays, by the names of its tensors."""
    op = KERNELS[name].op
    given = {
        n: np.broadcast_to(np.asarray(a, dtype), shape_of(op, n, rows, sizes))
        for n, a in tensors.items()
    }
    return Call(KERNELS[name], dtype, rows, sizes, given, absent=absent)


def assert_few(got: np.ndarray, want: Any, dtype: str, few: int = FEW) -> None:
    assert np.max(np.abs(got / want - 1)) <= few * np.finfo(dtype).eps, (got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.1, 0.7])
def test_gradients_of_a_linear_layer_over_a_million_rows(engine, dtype, value):
    one = call("linear_vjp", 10**6, {"I": 2, "O": 1}, dtype, dy=value, x=1, w=1)
    got, want = one.run(engine), 1e6 * float(np.dtype(dtype).type(value))
    assert_few(got["db"], want, dtype)
    assert_few(got["dw"], want, dtype, OF_A_PRODUCT if engine.name == "cuda" else FEW)


class TestCuda:
    """Sums do not get worse with the rows, or with what is added up like them."""

    pytestmark = MARKS

    @pytest.mark.parametrize("accumulate", [False, True])
    def test_gradient_of_a_weight(self, accumulate):
        """The last block is one row."""
        kernel, given = KERNELS["linear_vjp"], {"dy": 0.9, "x": 1.0, "w": 1.0}
        rows, sizes = 2049, {"I": 2, "O": 1}
        tensors = {
            n: np.full(shape_of(kernel.op, n, rows, sizes), v, "float32") for n, v in given.items()
        }
        one = Call(kernel, "float32", rows, sizes, tensors, accumulate=accumulate)
        got, want = one.run(registry.get("cuda"))["dw"], one.expected()["dw"]
        assert_few(got, want, "float32", OF_A_PRODUCT)

    @pytest.mark.parametrize(("name", "rows", "sizes", "given", "sums"), ON_CUDA)
    def test_sums_in_float64(self, name, rows, sizes, given, sums):
        one = call(name, rows, sizes, "float64", ("dx", "dw"), **given)
        got, want = one.run(registry.get("cuda")), one.expected()
        for tensor in sums:
            assert_few(got[tensor], want[tensor], "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slopes", [1, 8])
def test_gradients_of_slopes(engine, dtype, slopes):
    one = call("prelu_vjp", 10**5, {"N": 8, "A": slopes}, dtype, dy=0.1, x=-1, a=0.25)
    want = -8 // slopes * 1e5 * float(np.dtype(dtype).type(0.1))
    assert_few(one.run(engine)["da"], want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 10**6), (600, 3000)])
@pytest.mark.parametrize("slopes", [1, 3])
def test_gradients_of_slopes_of_very_many_columns(engine, dtype, rows, columns, slopes):
    columns -= columns % slopes
    one = call("prelu_vjp", rows, {"N": columns, "A": slopes}, dtype, dy=0.7, x=-1, a=0.25)
    want = -(columns // slopes) * rows * float(np.dtype(dtype).type(0.7))
    assert_few(one.run(engine)["da"], want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_batchnorm(engine, dtype):
    """x̂ is 1 in every row."""
    sizes, statistics = {"N": 3}, {"running_mean": 1, "running_var": 0.95}
    one = call("batchnorm_inference_vjp", 10**6, sizes, dtype, dy=0.1, x=2, gamma=1, **statistics)
    got = one.run(engine)
    assert_few(got["dbeta"], 1e6 * float(np.dtype(dtype).type(0.1)), dtype)
    assert_few(got["dgamma"], got["dbeta"][0], dtype)
    one = call("batchnorm_vjp", 10**6, sizes, dtype, dy=0.1, x=2, gamma=1, shift=-1, rstd=1)
    got = one.run(engine)
    assert_few(got["dbeta"], 1e6 * float(np.dtype(dtype).type(0.1)), dtype)
    assert_few(got["dgamma"], got["dbeta"][0], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MANY)
def test_many_rows_agree_with_the_reference(engines, name, dtype):
    """The last block is shorter than the others; several pieces of dw."""
    sizes = [(513, (61, 70)), (1300, (7, 7)), (1300, (70, 1))]
    agree(calls_at(sizes, KERNELS[name], dtype), engines)


def test_an_infinite_sum_is_infinite(engine):
    dy = np.ones((1000, 2))
    dy[::100] = 3e38, -3e38
    got = call("linear_vjp", 1000, {"I": 1, "O": 2}, "float32", dy=dy, x=1, w=1).run(engine)
    for name in ("db", "dw"):
        np.testing.assert_array_equal(got[name].reshape(-1), [np.inf, -np.inf], err_msg=name)


def trained_once(backend: str, x: np.ndarray, dtype: str) -> tuple[fn.Sequential, np.ndarray]:
    """A batchnorm with a bias of its own after one forward in training, and what came out."""
    model = fn.Sequential(fn.BatchNorm1d(x.shape[1], momentum=1.0), backend=backend, dtype=dtype)
    with model.edit() as p:
        p["0.bias"][...] = 0.3
    return model, model.forward(x.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [2, 37, 512, 1000])
def test_a_constant_feature_leaves_batchnorm_as_its_bias(backend, dtype, rows):
    constants = np.array([100.1, -1e-3, 1e6 / 3, 0.0, 7e20])
    model, y = trained_once(backend, np.tile(constants, (rows, 1)), dtype)
    np.testing.assert_array_equal(y, np.full_like(y, 0.3))
    values = model.state_dict()
    np.testing.assert_array_equal(values["0.running_mean"], constants.astype(dtype))
    np.testing.assert_array_equal(values["0.running_var"], 0)


@pytest.mark.parametrize(("rows", "mean"), [(200_000, 1e4), (4096, 1e6), (400, 1e6), (300_000, 0)])
def test_statistics_of_features_far_from_zero(backend, rows, mean):
    x = np.random.default_rng(5).normal(mean, 1, (rows, 3)).astype("float32")
    model, y = trained_once(backend, x, "float32")
    exact = x.astype("float64")
    values = model.state_dict()
    np.testing.assert_allclose(values["0.running_mean"], exact.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(values["0.running_var"], exact.var(0, ddof=1), rtol=2e-6)
    want = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5) + np.float32(0.3)
    np.testing.assert_allclose(y, want, atol=1e-5)


def test_gradients_of_features_far_from_zero(backend):
    """dgamma = Σ dy·x̂ where the mean itself is rounded by more than it may be off."""
    random = np.random.default_rng(6)
    x = random.normal(1e6, 1, (4096, 2)).astype("float32")
    dy = (1 + random.random((4096, 2))).astype("float32")
    model, _ = trained_once(backend, x, "float32")
    model.backward(dy)
    exact = x.astype("float64")
    terms = dy * (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    off = np.abs(model.grads["0.weight"] - terms.sum(0)) / np.abs(terms).sum(0)
    assert np.all(off <= FEW * np.finfo("float32").eps)
