"""The choice of the instruction set, and that those with FMA give the same bits."""

from __future__ import annotations

from itertools import chain

import gradcheck
import numpy as np
import pytest
from onecall import Call, calls, tensors_for

import fastnet
from fastnet.backends import registry
from fastnet.backends.c import CBackend
from fastnet.backends.c.backend import LEVEL_VARIABLE
from fastnet.errors import HyperparameterError
from fastnet.op import KERNELS

if reason := fastnet.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture
def c():
    backend = registry.get("c")
    before = backend.level()
    yield backend
    backend.set_level(before)


def test_the_highest_level_is_the_default(monkeypatch):
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)
    c = CBackend()
    assert c.level() == len(c.levels()) - 1


def test_the_environment_lowers_the_level(monkeypatch):
    monkeypatch.setenv(LEVEL_VARIABLE, "0")
    assert CBackend().level() == 0


@pytest.mark.parametrize("text", ["fast", "-1", "1.5", "99"])
def test_a_bad_environment_is_an_error_that_names_it(monkeypatch, text):
    monkeypatch.setenv(LEVEL_VARIABLE, text)
    with pytest.raises(HyperparameterError, match=rf"{LEVEL_VARIABLE} is .*expected an integer"):
        CBackend()


def test_set_level_stays_within_the_machine():
    c = CBackend()
    for bad in (-1, len(c.levels())):
        with pytest.raises(HyperparameterError, match="level is"):
            c.set_level(bad)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (1, 1030, 530),
        (3, 530, 1030),
        (33, 530, 4),
        (260, 1, 1000),
        (430, 900, 66),
        (33, 900, 520),
        (32, 600, 1100),
        (8, 600, 1100),
        (530, 35, 6),
        (530, 35, 10),
        (260, 700, 900),
        (260, 700, 912),
        (37, 400, 528),
        (33, 1000, 60),
        (64, 200, 1100),
        (1000, 130, 270),
        (600, 1000, 3),
    ],
)
def test_levels_with_fma_multiply_matrices_to_the_same_bits(c, dtype, rows, inputs, outputs):
    levels = range(1 if c.levels()[0] == "x86-64" else 0, len(c.levels()))
    for kernel in KERNELS["linear_forward"], KERNELS["linear_vjp"]:
        sizes = {"I": inputs, "O": outputs}
        call = Call(kernel, dtype, rows, sizes, tensors_for(kernel, dtype, rows, sizes))
        results = []
        for level in levels:
            c.set_level(level)
            results.append(call.run(c))
        for other in results[1:]:
            for tensor, value in other.items():
                np.testing.assert_array_equal(value, results[0][tensor], err_msg=tensor)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_levels_with_fma_give_the_same_bits(c, dtype, name):
    """Every kernel, at sizes with whole vectors and a rest, and with many rows."""
    levels = range(1 if c.levels()[0] == "x86-64" else 0, len(c.levels()))
    kernel, dims = KERNELS[name], (67, 33)
    both = (
        calls(kernel, dtype, rows, gradcheck.named(kernel.op, dims, rows)) for rows in (35, 520)
    )
    for call in chain(*both):
        results = []
        for level in levels:
            c.set_level(level)
            results.append(call.run(c))
        for other in results[1:]:
            for tensor, value in other.items():
                np.testing.assert_array_equal(value, results[0][tensor], err_msg=tensor)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 17])
def test_a_row_predicts_to_the_same_bits_at_any_batch_size_and_place(dtype, outputs):
    random = np.random.default_rng(4)
    model = fastnet.Sequential(
        fastnet.Linear(201, 45),
        fastnet.Tanh(),
        fastnet.Linear(45, outputs),
        dtype=dtype,
        backend="c",
    )
    check_rows(model, random.normal(size=(70, 201)).astype(dtype), (1, 2, 13, 33))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_also_where_the_products_of_some_batch_sizes_are_packed(dtype):
    random = np.random.default_rng(5)
    model = fastnet.Sequential(
        fastnet.Linear(1030, 900), fastnet.Linear(900, 70), dtype=dtype, backend="c"
    )
    check_rows(model, random.normal(size=(450, 1030)).astype(dtype), (1, 2, 29, 255, 256, 430))


def check_rows(model, x, batch_sizes):
    """Assert that predictions do not depend on the rows beside them."""
    whole = model.predict(x, batch_size=len(x))
    for batch in batch_sizes:
        np.testing.assert_array_equal(model.predict(x, batch_size=batch), whole)
    np.testing.assert_array_equal(model.predict(x[5:]), whole[5:])
