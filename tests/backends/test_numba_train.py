"""The Numba backend's training loop against the reference's, on hand-made programs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba")

import fastnet
from fastnet.backends.numba import NumbaBackend
from fastnet.backends.reference import ReferenceBackend
from fastnet.op import KERNELS
from fastnet.plan.records import (
    ABSENT,
    BAD_LABEL,
    INSTRUCTION,
    KIND,
    NOT_FINITE,
    OK,
    SEGMENT,
    TRAIN,
    zeros_aligned,
)

BACKEND = NumbaBackend()
ROWS, WIDTH, PARAMETERS, GROUPS = 40, 5, 7, 2
SLOT = 1024  # bytes for each tensor of the workspace


def instruction(name, dtype, tensors, size, group=0, scalar=()):
    i = np.zeros(1, INSTRUCTION)
    i["kernel"], i["dtype"], i["group"] = list(KERNELS).index(name), KIND[dtype], group
    i["segment"] = ABSENT
    for k, (segment, offset) in enumerate(tensors):
        i["segment"][0, k], i["offset"][0, k] = SEGMENT[segment], offset
    i["size"][0, 0] = size
    i["scalar"][0, : len(scalar)] = scalar
    return i


class Chunk:
    """Output: leaky_relu of x, in the workspace; loss: mse or softmax_nll; two groups of sgd."""

    def __init__(self, dtype, x, y, batches, *, classes=0, keep=True):
        self.x, self.y = x, y
        self.workspace, self.params = zeros_aligned(4 * SLOT), np.ones(2 * PARAMETERS, dtype)
        self.grads = np.arange(2 * PARAMETERS, dtype=dtype)
        self.stages = [zeros_aligned(8 * ROWS * WIDTH) for _ in range(2)]
        self.index = np.concatenate([np.zeros(0, np.int64), *batches]).astype(np.int64)
        self.offsets = np.cumsum([0, *map(len, batches)], dtype=np.int64)
        steps = len(batches)
        self.hyper = np.arange(1.0, 1 + steps * GROUPS * 3).reshape(steps, GROUPS, 3) / 100
        self.losses = np.full(steps, -1.0)
        self.row_losses = np.full(len(self.index), -1.0)
        self.outputs = np.full((len(self.index), WIDTH), -1, dtype)
        loss, row_loss, output, p = (("workspace", k * SLOT) for k in range(4))
        target = ("y", 0)
        last = (
            instruction("softmax_nll_forward", dtype, [loss, row_loss, p, output, target], WIDTH)
            if classes
            else instruction("mse_forward", dtype, [loss, row_loss, output, target], WIDTH)
        )
        first = instruction("leaky_relu_forward", dtype, [output, ("x", 0)], WIDTH, scalar=(0.5,))
        self.forward = np.concatenate([first, last])
        # The backward program counts: output += x, after the output was recorded.
        self.backward = instruction("add_to_forward", dtype, [output, ("x", 0)], WIDTH)
        item = PARAMETERS * np.dtype(dtype).itemsize
        self.update = np.concatenate(
            [
                instruction(
                    "sgd_update", dtype, [("params", g * item), ("grads", g * item)], PARAMETERS, g
                )
                for g in range(GROUPS)
            ]
        )
        self.args = np.zeros(1, TRAIN)
        a = self.args[0]
        segments = a["context"]["segment"]
        for name in ("params", "grads", "workspace"):
            segments[SEGMENT[name]] = getattr(self, name).ctypes.data
        a["context"]["hyper_size"], a["context"]["step"] = 3, 5
        for name in ("forward", "backward", "update"):
            program = getattr(self, name)
            a[name], a[f"{name}_count"] = program.ctypes.data, len(program)
        for name, stage in zip("xy", self.stages, strict=True):
            data = getattr(self, name)
            a[name], a[f"{name}_stage"] = data.ctypes.data, stage.ctypes.data
            a[f"{name}_kind"] = KIND[data.dtype.name]
            a[f"{name}_width"] = data[0].size
        a["dtype"], a["classes"], a["steps"], a["groups"] = KIND[dtype], classes, steps, GROUPS
        for name in ("batch_offsets", "index", "hyper", "losses"):
            a[name] = getattr(self, name.removeprefix("batch_")).ctypes.data
        a["loss"], a["row_loss"], a["output"] = (
            self.workspace.ctypes.data + k * SLOT for k in range(3)
        )
        a["output_bytes"] = WIDTH * np.dtype(dtype).itemsize
        if keep:
            a["row_losses"], a["outputs"] = self.row_losses.ctypes.data, self.outputs.ctypes.data

    def run(self, backend):
        for name in ("forward", "backward", "update"):
            backend.prepare(getattr(self, name))
        with np.errstate(all="ignore"):
            backend.train(self.args)
        a = self.args[0]
        assert a["context"]["step"] == 5
        return int(a["status"]), int(a["done"]), int(a["bad_row"])


def data(kind, width=WIDTH):
    random = np.random.default_rng(1)
    if kind == "uint8":
        return random.integers(0, 255, (ROWS, width), np.uint8)
    return random.normal(size=(ROWS, width)).astype(kind)


def batches():
    shuffled = np.random.default_rng(2).permutation(ROWS)
    return [shuffled[:7], np.arange(3, 12), shuffled[7:8], np.arange(0), np.array([4, 5, 7])]


def both(dtype, x, y, rows, **options):
    """Run a chunk on both backends; compare all that they leave; return how it ended."""
    ours, theirs = (Chunk(dtype, x, y, rows, **options) for _ in range(2))
    ended = ours.run(BACKEND)
    assert ended == theirs.run(ReferenceBackend())
    for name in ("losses", "row_losses", "outputs", "params"):
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-6, err_msg=name
        )
    return ended


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "int64"])
def test_gathers_and_converts(dtype, kind):
    rows = [b for b in batches() if len(b)]
    assert both(dtype, data(kind), data("float64"), rows) == (OK, 4, 0)
    assert both(dtype, data("float32"), data(kind), rows, keep=False) == (OK, 4, 0)


def test_rows_of_the_plan_s_dtype_are_used_in_place_when_they_are_contiguous():
    chunk = Chunk("float32", data("float32"), data("float32"), [np.arange(3, 12)])
    chunk.run(BACKEND)
    in_place = np.array_equal(chunk.stages[0], np.zeros_like(chunk.stages[0]))
    assert in_place or os.environ.get("NUMBA_DISABLE_JIT") == "1"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels(dtype):
    labels = np.random.default_rng(3).integers(0, WIDTH, ROWS)
    rows = [b for b in batches() if len(b)]
    assert both(dtype, data("uint8"), labels, rows, classes=WIDTH) == (OK, 4, 0)
    for bad in (-1, WIDTH, 2**40):
        labels[5] = bad
        ended = both(dtype, data(dtype), labels, [np.arange(4), np.arange(3, 9)], classes=WIDTH)
        assert ended == (BAD_LABEL, 1, 5)


def test_a_loss_that_is_not_finite_ends_the_chunk_before_its_update():
    for value in (np.inf, np.nan):
        x = data("float32")
        x[9, 2] = value
        rows = [np.arange(4), np.arange(4, 12), np.arange(12, 20)]
        assert both("float32", x, data("float32"), rows) == (NOT_FINITE, 1, 0)


def test_no_rows_is_not_finite():
    rows = [np.arange(4), np.arange(0)]
    ours = Chunk("float32", data("float32"), data("float32"), rows)
    assert ours.run(BACKEND) == (NOT_FINITE, 1, 0)


def test_no_steps():
    assert both("float32", data("float32"), data("float32"), []) == (OK, 0, 0)


def fit(backend, dtype="float32"):
    x, labels = data("uint8"), np.arange(ROWS) % 3
    model = fastnet.Sequential(
        fastnet.Linear(WIDTH, 16),
        fastnet.BatchNorm1d(16),
        fastnet.Tanh(),
        fastnet.Dropout(0.3),
        fastnet.Linear(16, 3),
        dtype=dtype,
        backend=backend,
        seed=4,
    )
    trainer = fastnet.Trainer(model, fastnet.CrossEntropyLoss(), fastnet.Adam(0.01), seed=5)
    trainer.fit(x, labels, epochs=3, batch_size=8, verbose=0)
    return {name: np.array(value) for name, value in model.state_dict().items()}


def test_a_model_trains_as_on_the_reference():
    want = fit("reference", "float64")
    for name, value in fit("numba", "float64").items():
        np.testing.assert_allclose(value, want[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_threads_train_their_own_models():
    want, got = fit("numba"), []

    def work():
        got.append(fit("numba"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    for state in got:
        for name, value in state.items():
            np.testing.assert_array_equal(value, want[name])


def script(text, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_threads_may_be_the_first_to_compile():
    text = """
import threading
from tests.backends.test_numba_train import fit
states = []
threads = [threading.Thread(target=lambda: states.append(fit("numba"))) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(states))
"""
    assert script(text) == "4\n"


def test_without_numba_it_says_how_to_get_it():
    text = """
import sys
sys.modules["numba"] = None
from fastnet.backends.numba import NumbaBackend
print(NumbaBackend().reason())
"""
    assert script(text) == "numba is not installed: pip install 'fastnet-engine[numba]'\n"


def test_a_broken_numba_is_quoted():
    text = """
import sys, importlib.abc
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "numba":
            raise ImportError("Numba needs NumPy 1.0 or less")
sys.meta_path.insert(0, Broken())
from fastnet.backends.numba import NumbaBackend
print(NumbaBackend().reason())
"""
    assert script(text) == "numba cannot be imported: Numba needs NumPy 1.0 or less\n"


def test_importing_fastnet_does_not_import_numba():
    assert script("import sys, fastnet; print('numba' in sys.modules)") == "False\n"


@pytest.mark.parametrize("way", ["plain", "loops"])
def test_products_without_blas(way):
    """NUMBA_DISABLE_JIT takes NumPy's product; where no BLAS is found, jitted loops do."""
    text = """
import ctypes, numpy as np
from fastnet.backends.numba import blas
if WAY == "loops":
    blas.FOUND = None
from fastnet.backends.numba.kernels import FUNCTIONS
assert hasattr(FUNCTIONS["linear_vjp"], "py_func") == (WAY == "loops")
x, w, b = np.ones((4, 3), "f4"), np.arange(6, dtype="f4").reshape(3, 2), np.ones(2, "f4")
y, dx, dw, db = np.full((4, 2), np.nan, "f4"), x * np.nan, w * np.nan, b * np.nan
FUNCTIONS["linear_forward"](y, x, w, b)
assert np.array_equal(y, x @ w + b), y
for accumulate in (0, 1):
    FUNCTIONS["linear_vjp"](dx, dw, db, y, x, w, accumulate)
    assert np.array_equal(dx, y @ w.T), dx
    assert np.array_equal(dw, (1 + accumulate) * (x.T @ y)), dw
    assert np.array_equal(db, (1 + accumulate) * y.sum(axis=0)), db
print("ok")
"""
    disabled = {"NUMBA_DISABLE_JIT": "1" if way == "plain" else "0"}
    assert script(text.replace("WAY", repr(way)), **disabled) == "ok\n"
