"""Every kernel of every backend against the reference in float64, at sizes and addresses that hurt."""

from __future__ import annotations

import numpy as np
import pytest
import sizes
from onecall import GROUP, TEAM, Call, agree, calls_at, tensors_for

import fastnet as fn
from fastnet.op import KERNELS

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
every_kernel = pytest.mark.parametrize("name", KERNELS)


@dtypes
@every_kernel
def test_awkward_sizes(engines, name, dtype):
    kernel = KERNELS[name]
    agree(calls_at([*sizes.awkward(kernel), *sizes.small(kernel)], kernel, dtype), engines)


@dtypes
@every_kernel
def test_large_sizes(engines, name, dtype):
    kernel = KERNELS[name]
    large = [(130, (300, 97)), (97, (40, 784)), (5, (4099, 3)), (400, (7, 33))]
    agree(calls_at(large, kernel, dtype), engines)


# Rows, inputs, outputs around the sizes from which matrix products are blocked or packed.
BLOCKED = [
    (7, 1100, 70),
    (430, 900, 66),
    (33, 900, 520),
    (260, 40, 900),
    (1, 1030, 530),
    (530, 1, 450),
    (450, 450, 1),
    (70, 513, 3),
    (70, 3, 513),
    (32, 600, 1100),
    (8, 600, 1100),
    (530, 35, 6),
    (530, 35, 10),
    (260, 700, 900),  # panels packed by shares, while tiles compute with the one before
    (260, 700, 912),  # down to a last one of one vector
    (37, 400, 528),  # gradients by streaming stores
    (33, 1000, 60),  # weights in place, in a long block
    (64, 200, 1100),  # rows of weights far apart, transposed by blocks
]


@dtypes
@pytest.mark.parametrize(("rows", "inputs", "outputs"), BLOCKED)
@pytest.mark.parametrize(
    "name",
    [
        "linear_forward",
        "linear_vjp",
        "bfloat16_linear_forward",
        "bfloat16_linear_vjp",
        "bfloat16_pairs_forward",
        "bfloat16_pairs_linear_forward",
    ],
)
def test_blocks_of_matrix_products(engines, name, rows, inputs, outputs, dtype):
    kernel = KERNELS[name]
    dims = kernel.op.fitted({"I": inputs, "O": outputs})
    operands = tensors_for(kernel, dtype, rows, dims)
    ways = {"threads": 1}, {"threads": TEAM}, {"accumulate": kernel.phase == "vjp"}
    agree([Call(kernel, dtype, rows, dims, operands, **way) for way in ways], engines)


@dtypes
@every_kernel
@pytest.mark.parametrize("shift", [1, 3])
def test_tensors_need_no_alignment_beyond_their_elements(engines, name, dtype, shift):
    kernel = KERNELS[name]
    agree(calls_at([(3, (7, 33)), (17, (67, 2))], kernel, dtype, shift=shift), engines)


@dtypes
@pytest.mark.parametrize("name", [n for n, k in KERNELS.items() if k.op.inplace])
def test_in_place(engines, name, dtype):
    kernel = KERNELS[name]
    agree(calls_at(sizes.awkward(kernel), kernel, dtype, inplace=True), engines)


@dtypes
@pytest.mark.parametrize("name", [n for n, k in KERNELS.items() if k.phase == "update"])
def test_updates_take_the_hyper_parameters_of_their_group(engines, name, dtype):
    """Also where a row of hyper is longer than the rule's numbers."""
    kernel = KERNELS[name]
    (call,) = calls_at([(1, (33, 7))], kernel, dtype)
    wide = np.full((len(call.hyper), call.hyper.shape[1] + 2), np.nan)
    wide[GROUP, :-2] = call.hyper[GROUP]
    call.context["hyper"], call.context["hyper_size"] = wide.ctypes.data, wide.shape[1]
    agree([call], engines)


# Whole models: what users hand in.


def model_and_data(backend, dtype):
    random = np.random.default_rng(5)
    layers = fn.Linear(6, 9), fn.BatchNorm1d(9), fn.Tanh(), fn.Linear(9, 4)
    model = fn.Sequential(*layers, dtype=dtype, backend=backend, seed=1)
    x, dy = random.normal(size=(7, 6)).astype(dtype), random.normal(size=(7, 4)).astype(dtype)
    return model, x, dy, random.integers(0, 4, 7)


def everything(model, x, dy, labels):
    """All that a model makes of its inputs."""
    model.zero_grad()
    found = {"forward": model.forward(x), "dx": model.backward(dy)}
    found |= {f"d {name}": grad.copy() for name, grad in model.grads.items()}
    found["loss"] = model.value_and_grad(fn.CrossEntropyLoss(), x, labels)
    found["mse"] = model.value_and_grad(fn.MSELoss(), x, dy)
    found |= {f"loss d {name}": grad.copy() for name, grad in model.grads.items()}
    found["predict"] = model.predict(x, batch_size=3)
    return found


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
    raw[...] = np.ascontiguousarray(a).view(np.uint8).ravel()
    return raw.view(a.dtype).reshape(a.shape)


def readonly(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def spread(a):
    return np.repeat(a, 3, axis=0)[::3]


def in_wider_rows(a):
    return np.concatenate([a, a], axis=-1)[..., : a.shape[-1]]


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every third row": spread,
    "part of wider rows": in_wider_rows,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "read-only": readonly,
    "unaligned": unaligned,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a: a.tolist(),
}


@dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_the_inputs_gives_the_same_results(backend, dtype, layout):
    model, *data = model_and_data(backend, dtype)
    expected = everything(model, *data)
    given = [LAYOUTS[layout](a) for a in data]
    again = model_and_data(backend, dtype)[0]
    got = everything(again, *given)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    for before, after in zip(data, given, strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("kind", ["uint8", "int16", "bool", "float16", "float32", "float64"])
def test_inputs_of_any_real_dtype_are_converted(backend, kind):
    model, _, dy, labels = model_and_data(backend, "float64")
    x = np.random.default_rng(0).integers(0, 2, (7, 6))
    expected = everything(model, x.astype("float64"), dy, labels)
    got = everything(model_and_data(backend, "float64")[0], x.astype(kind), dy, labels)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@dtypes
def test_a_model_agrees_with_the_reference(backend, dtype):
    model, x, dy, labels = model_and_data(backend, dtype)
    reference = model_and_data("reference", "float64")[0]
    reference.load_state_dict(model.state_dict())
    data = x.astype("float64"), dy.astype("float64"), labels
    expected, got = everything(reference, *data), everything(model, x, dy, labels)
    assert got.keys() == expected.keys()
    tol = {"float32": 1e-6, "float64": 2e-15}[dtype]
    for name, value in expected.items():
        np.testing.assert_allclose(
            got[name], value, rtol=0, atol=tol * max(1, np.max(np.abs(value)))
        )
