"""How the C backend's training loop gathers rows and when it stops, on a program of its own."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet.backends.c import CBackend
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
)

if reason := CBackend().reason():
    pytest.skip(reason, allow_module_level=True)

N, WIDTH = 40, 5
SLOT = 4096  # bytes for each tensor of the workspace
C = CBackend()


def instruction(name, dtype, tensors, size):
    i = np.zeros(1, INSTRUCTION)
    i["kernel"], i["dtype"], i["segment"] = list(KERNELS).index(name), KIND[dtype], ABSENT
    for k, (segment, offset) in enumerate(tensors):
        i["segment"][0, k], i["offset"][0, k] = SEGMENT[segment], offset
    i["size"][0, 0] = size
    return i


class Steps:
    """Forward: output = relu(x) and the loss of it; backward: none; update: w −= lr·1."""

    def __init__(self, dtype, x, y, batches, classes=0):
        self.batches, self.keep = batches, [x, y]
        self.workspace = self.array(np.zeros(4 * SLOT, np.uint8))
        self.w, self.g = self.array(np.zeros(3, dtype)), self.array(np.ones(3, dtype))
        loss, row_loss, output, p = (("workspace", k * SLOT) for k in range(4))
        size, tensors = x.shape[1], [output, ("y", 0)]
        last = (
            instruction("softmax_nll_forward", dtype, [loss, row_loss, p, *tensors], size)
            if classes
            else instruction("mse_forward", dtype, [loss, row_loss, *tensors], size)
        )
        programs = {
            "forward": np.concatenate(
                [instruction("relu_forward", dtype, [output, ("x", 0)], size), last]
            ),
            "backward": np.zeros(0, INSTRUCTION),
            "update": instruction("sgd_update", dtype, [("params", 0), ("grads", 0)], 3),
        }
        count, rows = len(batches), sum(map(len, batches))
        self.losses, self.row_losses = self.array(np.zeros(count)), self.array(np.zeros(rows))
        self.outputs = self.array(np.zeros((rows, size), dtype))
        numbers = 2.0 ** np.arange(count), np.zeros(count), np.ones(count)
        self.hyper = self.array(np.stack(numbers, axis=1))
        self.x_stage = self.array(np.full((N, size), -1, dtype))
        self.y_stage = self.array(np.full((N, size), -1, "int64" if classes else dtype))
        self.args = np.zeros(1, TRAIN)
        a = self.args[0]
        for name, program in programs.items():
            C.prepare(program)
            a[name], a[f"{name}_count"] = self.array(program).ctypes.data, len(program)
        for name, block in {"workspace": self.workspace, "params": self.w, "grads": self.g}.items():
            a["context"]["segment"][SEGMENT[name]] = block.ctypes.data
        a["context"]["hyper_size"], a["groups"] = 3, 1
        for name, data in {"x": x, "y": y}.items():
            a[name], a[f"{name}_kind"] = data.ctypes.data, KIND[data.dtype.name]
            a[f"{name}_width"] = data[0].size
        a["dtype"], a["classes"], a["steps"] = KIND[dtype], classes, count
        index = np.concatenate(batches).astype(np.int64)
        offsets = np.cumsum([0, *map(len, batches)]).astype(np.int64)
        a["index"], a["batch_offsets"] = (self.array(v).ctypes.data for v in (index, offsets))
        for name in ("losses", "row_losses", "outputs", "hyper", "x_stage", "y_stage"):
            a[name] = getattr(self, name).ctypes.data
        a["loss"], a["row_loss"], a["output"] = (
            self.workspace.ctypes.data + k * SLOT for k in range(3)
        )
        a["output_bytes"] = size * self.outputs.itemsize

    def array(self, value):
        self.keep.append(value)
        return value

    def run(self):
        C.train(self.args)
        return int(self.args["status"][0]), int(self.args["done"][0])


BATCHES = [np.array([7, 3, 3, 39, 0]), np.arange(8, 20), np.array([5]), np.arange(39, 30, -1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("y_kind", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("x_kind", ["float32", "float64", "uint8", "int64"])
def test_rows_are_gathered_and_converted(dtype, x_kind, y_kind):
    random = np.random.default_rng(0)
    x = random.integers(0, 200, (N, WIDTH)).astype(x_kind)
    y = random.integers(0, 200, (N, WIDTH)).astype(y_kind)
    steps = Steps(dtype, x, y, BATCHES)
    assert steps.run() == (OK, len(BATCHES))
    rows = np.concatenate(BATCHES)
    np.testing.assert_array_equal(steps.outputs, x[rows].astype(dtype))
    want = np.mean((x[rows].astype(float) - y[rows]) ** 2, axis=1)
    np.testing.assert_allclose(steps.row_losses, want, rtol=1e-6)
    means = [np.mean(part) for part in np.split(want, np.cumsum([*map(len, BATCHES)])[:-1])]
    np.testing.assert_allclose(steps.losses, means, rtol=1e-6)
    # The step's row of hyper-parameters: learning rates 1, 2, 4, 8.
    np.testing.assert_array_equal(steps.w, -15)


def test_a_contiguous_run_of_the_plans_dtype_is_used_in_place():
    x = np.ones((N, WIDTH), "float32")
    steps = Steps("float32", x, x, [np.arange(8, 20)])
    steps.run()
    assert (steps.x_stage == -1).all()
    assert (steps.y_stage == -1).all()
    steps = Steps("float32", x, x, [np.array([8, 9, 11])])
    steps.run()
    assert (steps.x_stage[:3] == 1).all()


def test_labels_are_copied_even_from_a_contiguous_run():
    x, y = np.ones((N, WIDTH), "float32"), np.arange(N) % WIDTH
    steps = Steps("float32", x, y, [np.arange(8, 20)], classes=WIDTH)
    assert steps.run() == (OK, 1)
    np.testing.assert_array_equal(steps.y_stage.reshape(-1)[:12], y[8:20])


@pytest.mark.parametrize("bad", [-1, WIDTH, 2**40, -(2**63)])
def test_a_bad_label_stops_before_its_step(bad):
    x, y = np.ones((N, WIDTH), "float32"), np.arange(N) % WIDTH
    y[12] = bad
    steps = Steps("float32", x, y, BATCHES, classes=WIDTH)
    assert steps.run() == (BAD_LABEL, 1)
    assert steps.args["bad_row"][0] == 12
    np.testing.assert_array_equal(steps.w, -1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_before_its_update(bad):
    x = np.ones((N, WIDTH), "float32")
    y = x.copy()
    y[5, 2] = bad
    steps = Steps("float32", x, y, BATCHES)
    assert steps.run() == (NOT_FINITE, 2)
    assert not np.isfinite(steps.losses[2])
    np.testing.assert_array_equal(steps.w, -3)


def test_no_steps_and_empty_minibatches():
    x = np.ones((N, WIDTH), "float32")
    assert Steps("float32", x, x, [np.arange(0)]).run() == (NOT_FINITE, 0)
    steps = Steps("float32", x, x, BATCHES)
    steps.args["steps"] = 0
    assert steps.run() == (OK, 0)
