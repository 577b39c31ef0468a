"""Every CUDA kernel as the compiler sees it: the types fit and there is code, without any device."""

from __future__ import annotations

import inspect
import math
import os
import re
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from gradcheck import COUNTER, NUMBERS, dtype_of, named, shape_of
from onecall import variants

from fastnet.op import KERNELS, MANY_ROWS

if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
    pytest.skip("the simulator has no compiler", allow_module_level=True)
if not os.environ.get("FASTNET_REQUIRE_NVVM"):
    pytest.importorskip("numba_cuda")

from numba import cuda, from_dtype, types
from numba.cuda import dispatcher
from numba.cuda.cudadrv import nvvm

from fastnet.backends.cuda import arrays, cublas, graphs, kernels, rows
from fastnet.backends.cuda import device as cuda_device
from fastnet.backends.cuda.kernels.registry import changing

if not nvvm.is_available() and not os.environ.get("FASTNET_REQUIRE_NVVM"):
    pytest.skip("no NVVM, NVIDIA's compiler", allow_module_level=True)

# Kernels whose teams have room for a sum and form none: each lane writes what no other one reads.
LANES_APART = {
    f"{op}_{phase}"
    for op in ("tree_log_softmax", "hierarchical_nll")
    for phase in ("forward", "vjp")
}
SIZES = (2, 3)  # of dims; a kernel's types depend on none of them
QUEUE = SimpleNamespace(handle=0)


class Tensor:
    """What a launcher may ask of a device array."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype, self.ndim = tuple(shape), np.dtype(dtype), len(shape)
        self.size = math.prod(shape)

    def reshape(self, shape):
        made = Tensor(np.atleast_1d(shape).tolist(), self.dtype)
        assert made.size == self.size
        return made

    def view(self, dtype):
        assert np.dtype(dtype).itemsize == self.dtype.itemsize
        return Tensor(self.shape, dtype)

    def __getitem__(self, rows):
        length = len(range(*rows.indices(self.shape[0])))
        return Tensor((length, *self.shape[1:]), self.dtype)


def type_of(value):
    if isinstance(value, Tensor):
        return types.Array(from_dtype(value.dtype), value.ndim, "C")
    return {int: types.int64, float: types.float64, np.uint64: types.uint64}[type(value)]


@pytest.fixture
def compiled(monkeypatch):
    """The kernels that are launched, by their types, as PTX; nothing is launched."""
    found = {}

    def launch(kernel, configuration):
        blocks, threads, queue = configuration
        assert math.prod(np.atleast_1d(blocks)) > 0 and queue is QUEUE
        assert math.prod(np.atleast_1d(threads)) <= 1024

        def run(*arguments):
            signature = types.void(*map(type_of, arguments))
            if (kernel, signature) not in found:
                code, _ = cuda.compile(
                    kernel.py_func, signature, device=False, abi="numba", cc=(9, 0), output="ptx"
                )
                found[kernel, signature] = code

        return run

    monkeypatch.setattr(dispatcher.CUDADispatcher, "__getitem__", launch)
    monkeypatch.setattr(cuda_device, "_configured", {})
    device = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)
    monkeypatch.setattr(cuda, "device_array", lambda size, dtype: Tensor((size,), dtype))
    monkeypatch.setattr(cublas, "handle", lambda queue: None)
    return found


def arguments(kernel, dtype, batch, absent, accumulate):
    op, numbers = kernel.op, {**NUMBERS, **COUNTER, "accumulate": int(accumulate)}
    sizes = named(op, SIZES, batch)
    for name in kernel.arguments:
        if name in changing(kernel):
            yield Tensor((1,), changing(kernel)[name])
            continue
        if name not in kernel.tensors:
            yield numbers[name]
            continue
        shape = shape_of(op, name, batch, sizes)
        missing = name in absent
        yield Tensor((0,) * len(shape) if missing else shape, dtype_of(op, name, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", kernels.LAUNCHERS)
def test_it_compiles(compiled, name, dtype):
    kernel = KERNELS[name]
    for batch, variant in product((5, MANY_ROWS + 5), variants(kernel)):
        kernels.LAUNCHERS[name](QUEUE, *arguments(kernel, dtype, batch, **variant))
    assert compiled
    for code in compiled.values():
        assert re.search(r"\.visible \.entry \w*fastnet", code)  # the sanitizer goes by names
        shared = re.findall(r"\.shared .*\[(\d+)\]", code)
        assert bool(shared) == ("bar.sync" in code) or name in LANES_APART
        # As much as a block may have. Registers suffice: 256 threads of the most that one may use.
        assert sum(map(int, shared)) <= 48 << 10


@pytest.mark.parametrize("source", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_what_moves_rows_compiles(compiled, dtype, source):
    out = Tensor((4, 3), dtype)
    begin = Tensor((1,), "int64")
    rows.gather(QUEUE, out, Tensor((9, 3), source), Tensor((4,), "int64"), begin)
    rows.put(QUEUE, out, 2, Tensor((2, 3), source))
    rows.put_at(QUEUE, Tensor((12,), dtype), begin, Tensor((2, 3), source))
    assert len(compiled) == 3


def test_what_turns_to_the_next_step_compiles(compiled):
    at, counter, starts = Tensor((2,), "int64"), Tensor((3,), "uint64"), Tensor((9,), "int64")
    hyper, scores = Tensor((6,), "float64"), Tensor((16,), "float64")
    rows.turn(QUEUE, at, counter, starts, hyper, Tensor((48,), "float64"), scores, 2)
    rows.score(QUEUE, scores, at, 2, 1, Tensor((1,), "float64"))
    assert len(compiled) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_check_of_arrays_on_the_device_compiles(compiled, dtype):
    flag = Tensor((1,), "int32")
    cuda_device.launch(arrays._bad, 1, 32, QUEUE, Tensor((5,), dtype), 3.4e38, flag)
    assert len(compiled) == 1


def test_the_driver_has_what_graphs_need():
    code = inspect.getsource(graphs)
    names = set(re.findall(r"river(?:\(\))?\.(cu\w+)", code))
    assert len(names) == 8
    for name in names:
        assert callable(getattr(graphs._binding(), name))
    for group, name in re.findall(r"_binding\(\)\.(\w+)\.(\w+)", code):
        assert getattr(getattr(graphs._binding(), group), name).value == 1
    assert hasattr(type(graphs._driver()), "_check_cuda_python_error")  # so that they raise


def test_without_a_driver_steps_are_made_call_by_call(monkeypatch):
    monkeypatch.setattr(graphs, "_failure", None)
    made, known = [], SimpleNamespace(initialization_error="none here", is_initialized=True)
    driver = graphs._driver()
    for name, value in vars(known).items():
        monkeypatch.setattr(driver, name, value)
    graphs.Step([(lambda *given: made.append(given), (1, 2))]).enqueue(QUEUE)
    assert made == [(QUEUE, 1, 2)]
    assert "none here" in graphs._failure
