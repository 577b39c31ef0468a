"""LayerNorm and RMSNorm: digits, bits and shapes."""

from __future__ import annotations

import numpy as np
import pytest
from onecall import TEAM, Call, same_bits, tensors_for

import fastnet as fn
from fastnet.backends import registry
from fastnet.errors import HyperparameterError, ShapeError
from fastnet.op import KERNELS

DTYPES = ["float32", "float64"]
ROWS = {
    "far from 0": lambda r: r.normal(1e6, 1, (40, 100)),
    "one far from the others": lambda r: np.where(
        np.arange(100) == 0, 1e4, r.normal(size=(40, 100))
    ),
    "a few far from the others": lambda r: r.normal(size=(40, 100)) + 1e4 * (np.arange(100) < 16),
    "long": lambda r: r.normal(3, 1, (2, 40_001)),
    "nearly constant": lambda r: 1e3 + 1e-3 * r.integers(0, 2, (40, 100)),
}


def model_of(layer, backend, dtype="float32"):
    return fn.Sequential(layer, dtype=dtype, backend=backend, seed=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 16, 37, 300])
def test_a_constant_row_becomes_the_bias(backend, dtype, width):
    constants = np.array([100.1, -1e-3, 1e6 / 3, 0.0, 7e17])[:, None]
    model = model_of(fn.LayerNorm(width), backend, dtype)
    with model.edit() as p:
        p["0.bias"][...] = 0.3
    y = model.forward(np.tile(constants, (1, width)).astype(dtype))
    np.testing.assert_array_equal(y, np.full_like(y, 0.3))


@pytest.mark.parametrize("name", ROWS)
def test_no_digits_are_lost(backend, name):
    """Each number within a few units in the last place of the largest; float64 tells what it should be."""
    x = ROWS[name](np.random.default_rng(0)).astype("float32")
    exact = x.astype("float64")
    centred = exact - exact.mean(1, keepdims=True)
    want = centred / np.sqrt(exact.var(1, keepdims=True) + 1e-5)
    y = model_of(fn.LayerNorm(x.shape[1]), backend).forward(x)
    spread = np.abs(want).max()
    np.testing.assert_allclose(y, want, rtol=0, atol=8 * np.finfo("float32").eps * spread)


def test_gradients_of_rows_far_from_zero(backend):
    random = np.random.default_rng(6)
    x = random.normal(1e6, 1, (700, 60)).astype("float32")
    dy = (1 + random.random((700, 60))).astype("float32")
    model = model_of(fn.LayerNorm(60), backend)
    twin = model_of(fn.LayerNorm(60), "reference", "float64")
    for one in (model, twin):
        one.forward(x)
    dx, want = model.backward(dy), twin.backward(dy)
    np.testing.assert_allclose(dx, want, rtol=0, atol=2e-6 * np.abs(want).max())
    for name, grad in twin.grads.items():
        np.testing.assert_allclose(model.grads[name], grad, rtol=2e-6, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [5, 96, 513, 1300])
@pytest.mark.parametrize("name", ["layernorm_vjp", "rmsnorm_vjp"])
def test_a_team_adds_up_what_a_thread_alone_does(name, rows, dtype):
    """One pass for dx and all gradients, or two: the same bits."""
    if fn.backends()["c"].reason:
        pytest.skip("the C backend")
    kernel, backend = KERNELS[name], registry.get("c")
    for width in (3, 37, 128):
        given = tensors_for(kernel, dtype, rows, {"N": width})
        for more in ({}, {"accumulate": True}):
            alone = Call(kernel, dtype, rows, {"N": width}, given, **more)
            team = Call(kernel, dtype, rows, {"N": width}, given, threads=TEAM, **more)
            parameters = Call(kernel, dtype, rows, {"N": width}, given, absent=("dx",), **more)
            expected = alone.run(backend)
            same_bits(team, backend, expected)
            del expected["dx"]
            same_bits(parameters, backend, expected)


def test_rows_do_not_depend_on_one_another(backend):
    x = np.random.default_rng(1).normal(size=(50, 33)).astype("float32")
    for layer in (fn.LayerNorm(33), fn.RMSNorm(33)):
        model = model_of(layer, backend)
        whole = model.predict(x)
        parts = [model.predict(x[i : i + 1]) for i in range(len(x))]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(model.predict(x, batch_size=7), whole)


def test_the_epsilon_of_rmsnorm_is_the_dtypes(backend):
    x = np.full((1, 4), 1e-6)
    for dtype in DTYPES:
        eps = np.finfo(dtype).eps
        y = model_of(fn.RMSNorm(4), backend, dtype).forward(x.astype(dtype))
        np.testing.assert_allclose(y, x / np.sqrt(1e-12 + eps), rtol=1e-6)


def test_a_shape_of_one_dimension():
    for shape in (3, (3,), [3], np.int64(3)):
        assert fn.LayerNorm(shape).normalized_shape == fn.RMSNorm(shape).normalized_shape == (3,)
    for shape in ((2, 3), [], (0,), (1.5,), "3"):
        with pytest.raises(
            HyperparameterError, match=r"^normalized_shape is .*; expected an integer"
        ):
            fn.LayerNorm(shape)
    with pytest.raises(ShapeError, match=r"normalized_shape = \(3,\)"):
        fn.Sequential(fn.Linear(2, 4), fn.LayerNorm(3))


def test_parameters_that_are_absent():
    assert list(fn.LayerNorm(3).state_dict()) == ["weight", "bias"]
    assert list(fn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert fn.LayerNorm(3, bias=False).bias is None
    assert list(fn.LayerNorm(3, elementwise_affine=False).state_dict()) == []
    assert list(fn.RMSNorm(3).state_dict()) == ["weight"]
    assert list(fn.RMSNorm(3, elementwise_affine=False).state_dict()) == []
