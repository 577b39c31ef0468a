"""Kernels of the Numba backend at special values; test_agreement.py has all of them at awkward sizes."""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest
from gradcheck import NUMBERS

import fastnet.layers
import fastnet.losses
import fastnet.optim.rules
from fastnet.backends import registry
from fastnet.backends.reference import ReferenceBackend
from fastnet.errors import BackendUnavailable
from fastnet.op import KERNELS, ROWS
from fastnet.plan.records import ABSENT, CONTEXT, INSTRUCTION, KIND, SEGMENT, zeros_aligned

if reason := fastnet.backends()["numba"].reason:
    pytest.skip(reason, allow_module_level=True)

BACKEND = registry.get("numba")
DTYPES = ("float32", "float64")
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


class Call:
    """One instruction on tensors packed in one segment."""

    def __init__(self, name, dtype, rows, sizes, absent=(), inplace=False, accumulate=0):
        self.kernel = kernel = KERNELS[name]
        self.dtype, self.rows, self.sizes = dtype, rows, sizes
        op = kernel.op
        random = np.random.default_rng(zlib.crc32(repr((name, rows, sizes)).encode()))
        self.spans, end = {}, 0
        values = {}
        for tensor in kernel.tensors:
            if tensor in absent:
                continue
            spec = op.spec(tensor)
            shape = tuple(rows if d == ROWS else int(d) for d in op.shape(tensor, sizes))
            values[tensor] = self.value(random, tensor, shape, spec.dtype or dtype)
            self.spans[tensor] = (end, values[tensor].nbytes, shape, spec.dtype or dtype)
            end += -(-values[tensor].nbytes // 64) * 64
        if inplace:
            first, second = kernel.tensors[:2]
            self.spans[first] = self.spans[second]
        self.memory = zeros_aligned(end + 64)
        for tensor, value in values.items():
            self.view(self.memory, tensor)[...] = value
        self.start = self.memory.copy()
        self.hyper = np.array([[9.0] * len(op.hyper), [NUMBERS[h] for h in op.hyper]])
        self.program = np.zeros(1, INSTRUCTION)
        i = self.program[0]
        i["kernel"] = list(KERNELS).index(name)
        i["dtype"], i["stream"], i["group"] = KIND[dtype], 3, 1
        i["segment"] = ABSENT
        for k, tensor in enumerate(kernel.tensors):
            if tensor in self.spans:
                i["segment"][k] = SEGMENT["workspace"]
                i["offset"][k] = self.spans[tensor][0]
        i["size"][: len(op.dims)] = [sizes[d] for d in op.dims]
        i["scalar"][: len(op.scalars)] = [NUMBERS[s] for s in op.scalars]
        self.context = np.zeros(1, CONTEXT)
        c = self.context[0]
        c["segment"][SEGMENT["workspace"]] = self.memory.ctypes.data
        c["hyper"], c["hyper_size"] = self.hyper.ctypes.data, len(op.hyper)
        c["rows"], c["seed"], c["step"] = rows, 2**63 + 12345, 2**33 + 7
        c["accumulate"] = accumulate

    def value(self, random, tensor, shape, dtype):
        if dtype == "int64":
            return random.integers(0, self.sizes.get("C", 9), shape)
        values = random.normal(size=shape).astype(dtype)
        values[np.abs(values) < 1e-3] = 0
        if tensor in ("v", "running_var", "rstd", "p"):
            values = np.abs(values) + np.asarray(0.1, dtype)
        return values

    def view(self, memory, tensor):
        begin, nbytes, shape, dtype = self.spans[tensor]
        return memory[begin : begin + nbytes].view(dtype).reshape(shape)

    def run(self, backend):
        self.memory[...] = self.start
        with np.errstate(all="ignore"):
            backend.prepare(self.program)
            backend.run(self.program, self.context)
        return {t: self.view(self.memory, t).copy() for t in self.spans}


def check(call):
    expected, got = call.run(ReferenceBackend()), call.run(BACKEND)
    tolerance = TOLERANCE[call.dtype]
    for tensor, value in expected.items():
        scale = np.max(np.abs(value), initial=1, where=np.isfinite(value))
        np.testing.assert_allclose(
            got[tensor], value, rtol=tolerance, atol=tolerance * scale,
            err_msg=f"{call.kernel.name}: {tensor}",
        )  # fmt: skip


def test_it_has_every_kernel_with_the_same_tensors():
    eager = {name: k.tensors for name, k in KERNELS.items() if not (k.op.lazy or k.op.packs)}
    assert dict(BACKEND.kernels()) == eager


@pytest.mark.parametrize(
    "name", ["linear_forward", "linear_vjp", "relu_forward", "dropout_forward"]
)
def test_no_rows(name):
    op = KERNELS[name].op
    sizes = dict.fromkeys(op.dims, 5)
    check(Call(name, "float32", 0, sizes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(784, 128), (512, 300), (64, 1), (1, 64)])
def test_large_products(sizes, dtype):
    for name in ("linear_forward", "linear_vjp"):
        check(Call(name, dtype, 70, dict(zip("IO", sizes, strict=True)), accumulate=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh"])
def test_special_values(name, dtype):
    call = Call(f"{name}_forward", dtype, 1, {"N": 9})
    x = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -200.0, 1e4, -1e4]
    with np.errstate(over="ignore"):
        call.view(call.start, "x")[0] = x
    check(call)


@pytest.mark.parametrize("p", [0.0, 0.999, 1.0])
def test_dropout_probabilities(p):
    call = Call("dropout_forward", "float32", 3, {"N": 100})
    call.program["scalar"][0, :2] = float(round(p * 2**32)), 1.5
    check(call)


def test_a_kernel_that_is_not_here_is_refused_by_name(monkeypatch):
    from fastnet.backends.numba.engine import FUNCTIONS

    monkeypatch.delitem(FUNCTIONS, "softmax_forward")
    call = Call("softmax_forward", "float32", 1, {"N": 1})
    if os.environ.get("NUMBA_DISABLE_JIT") != "1":
        with pytest.raises(BackendUnavailable, match="softmax_forward"):
            BACKEND.prepare(call.program)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_extreme_logits(dtype):
    call = Call("softmax_nll_forward", dtype, 3, {"C": 4})
    call.view(call.start, "z")[...] = [[1e4, 0, -1e4, 1e4], [np.nan, 0, 0, 0], [-np.inf, 0, 1, 2]]
    call.view(call.start, "t")[...] = [1, 2, 3]
    check(call)
