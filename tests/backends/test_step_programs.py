"""The loop over steps and its control instructions, on hand-made programs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fastnet.backends import registry
from fastnet.op import KERNELS
from fastnet.plan.instructions import control
from fastnet.plan.records import (
    ABSENT,
    BAD_LABEL,
    CONTROL,
    HOST,
    INSTRUCTION,
    KIND,
    NORM_NOT_FINITE,
    NOT_FINITE,
    OK,
    SEGMENT,
    TRAIN,
    zeros_aligned,
)

ROWS, WIDTH, PARAMETERS, GROUPS = 40, 5, 7, 2
SLOT = 4096  # bytes for each tensor of the workspace, and of the stage
RATES = 2.0 ** np.arange(8)  # of the steps
LOSS, ROW_LOSS, OUTPUT, P = (("workspace", k * SLOT) for k in range(4))
STAGES = X, Y, W, KEPT = tuple(("stage", k * SLOT) for k in range(4))


def instruction(name, dtype, tensors, size, group=0, scalar=()):
    i = np.zeros(1, INSTRUCTION)
    i["kernel"], i["dtype"], i["group"] = list(KERNELS).index(name), KIND[dtype], group
    i["segment"] = ABSENT
    for k, (segment, offset) in enumerate(tensors):
        i["segment"][0, k], i["offset"][0, k] = SEGMENT[segment], offset
    i["size"][0, 0] = size
    i["scalar"][0, : len(scalar)] = scalar
    return i


class Steps:
    """Output: leaky_relu of x; loss: mse or softmax_nll; two groups of sgd on gradients of 1.

    before: what stands before the update. host: whether the loss is left to Python.
    """

    def __init__(self, backend, dtype, x, y, batches, *, classes=0, before=(), host=False):
        self.backend, self.x, self.y = registry.get(backend), x, y
        self.memory = {"workspace": zeros_aligned(4 * SLOT), "stage": zeros_aligned(4 * SLOT)}
        self.memory |= {"params": np.zeros(GROUPS * PARAMETERS, dtype)}
        self.memory |= {"grads": np.ones(GROUPS * PARAMETERS, dtype)}
        self.memory |= {"buffers": np.arange(8.0), "training": np.zeros(1)}
        self.memory["stage"][:] = 0xFF
        count, rows = len(batches), sum(map(len, batches))
        self.table = np.zeros((count, GROUPS + 1, 3))
        self.table[:, :GROUPS, 0] = RATES[:count, None]
        self.table[:, :GROUPS, 2] = self.table[:, GROUPS, 0] = 1
        self.losses, self.row_losses = np.full(count, -1.0), np.full(rows, -1.0)
        self.outputs = np.full((rows, WIDTH), -1, dtype)
        tensors, item = [OUTPUT, ("y", 0)], PARAMETERS * np.dtype(dtype).itemsize
        last = (
            instruction("softmax_nll_forward", dtype, [LOSS, ROW_LOSS, P, *tensors], WIDTH)
            if classes
            else instruction("mse_forward", dtype, [LOSS, ROW_LOSS, *tensors], WIDTH)
        )
        update = [
            instruction(
                "sgd_update", dtype, [("params", g * item), ("grads", g * item)], PARAMETERS, g
            )
            for g in range(GROUPS)
        ]
        step = [
            control("keep", [KEPT], [self.memory["buffers"].nbytes]),
            control("gather", [X, Y], [WIDTH, 1 if classes else WIDTH]),
            instruction("leaky_relu_forward", dtype, [OUTPUT, ("x", 0)], WIDTH, scalar=(0.5,)),
            control("host") if host else last,
            control("record", [LOSS, ROW_LOSS, OUTPUT], [WIDTH * np.dtype(dtype).itemsize]),
            control("check", [LOSS], [NOT_FINITE]),
            # What was recorded is not read again: output += x.
            instruction("add_to_forward", dtype, [OUTPUT, ("x", 0)], WIDTH),
        ]
        self.program = np.concatenate([*step, *before, *update])
        self.args = np.zeros(1, TRAIN)
        a = self.args[0]
        for name, block in self.memory.items():
            a["context"]["segment"][SEGMENT[name]] = block.ctypes.data
        a["context"]["hyper"], a["context"]["hyper_size"] = self.table.ctypes.data, 3
        a["context"]["step"], a["context"]["threads"] = 5, 1
        a["table_bytes"] = 8 * (GROUPS + 1) * 3
        a["program"], a["count"] = self.program.ctypes.data, len(self.program)
        a["before_update"] = len(step)
        for name, data in (("x", x), ("y", y)):
            a[name], a[f"{name}_kind"] = data.ctypes.data, KIND[data.dtype.name]
        a["dtype"], a["classes"], a["steps"] = KIND[dtype], classes, count
        self.index = np.concatenate([np.zeros(0, np.int64), *batches]).astype(np.int64)
        self.offsets = np.cumsum([0, *map(len, batches)], dtype=np.int64)
        a["index"], a["batch_offsets"] = self.index.ctypes.data, self.offsets.ctypes.data
        for name in ("losses", "row_losses", "outputs"):
            a[name] = getattr(self, name).ctypes.data
        self.backend.prepare(self.program)

    def stage(self, place, count, dtype):
        begin = place[1]
        return self.memory["stage"][begin : begin + count * np.dtype(dtype).itemsize].view(dtype)

    def run(self):
        self.backend.train(self.args)
        return int(self.args["status"][0]), int(self.args["done"][0])

    def check_update(self, rates):
        np.testing.assert_array_equal(self.memory["params"], -float(sum(rates)))


BATCHES = [np.array([7, 3, 3, 39, 0]), np.arange(8, 20), np.array([5]), np.arange(39, 30, -1)]
jitted = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="plain Python copies every row"
)


def leaky(x):
    return np.where(x > 0, x, 0.5 * x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("y_kind", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("x_kind", ["float32", "float64", "uint8", "int64"])
def test_rows_are_gathered_and_converted(backend, dtype, x_kind, y_kind):
    random = np.random.default_rng(0)
    x = random.integers(0, 200, (ROWS, WIDTH)).astype(x_kind)
    y = random.integers(0, 200, (ROWS, WIDTH)).astype(y_kind)
    steps = Steps(backend, dtype, x, y, BATCHES)
    assert steps.run() == (OK, len(BATCHES))
    rows = np.concatenate(BATCHES)
    np.testing.assert_array_equal(steps.outputs, x[rows].astype(dtype))
    want = np.mean((x[rows].astype(float) - y[rows]) ** 2, axis=1)
    np.testing.assert_allclose(steps.row_losses, want, rtol=1e-6)
    means = [np.mean(part) for part in np.split(want, np.cumsum([*map(len, BATCHES)])[:-1])]
    np.testing.assert_allclose(steps.losses, means, rtol=1e-6)
    steps.check_update(RATES[:4])
    assert steps.args["context"]["step"][0] == 5 + len(BATCHES)


@jitted
@pytest.mark.parametrize("name", ["c", "numba"])
def test_a_contiguous_run_of_the_plans_dtype_is_used_in_place(name, backend):
    if backend != name:
        pytest.skip("of native code")
    x = np.ones((ROWS, WIDTH), "float32")
    steps = Steps(backend, "float32", x, x, [np.arange(8, 20)])
    steps.run()
    for place in (X, Y):
        assert np.isnan(steps.stage(place, 12 * WIDTH, "f")).all()
    steps = Steps(backend, "float32", x, x, [np.array([8, 9, 11])])
    steps.run()
    assert (steps.stage(X, 3 * WIDTH, "f") == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_are_copied_even_from_a_contiguous_run(backend, dtype):
    x, y = np.ones((ROWS, WIDTH), dtype), np.arange(ROWS) % WIDTH
    steps = Steps(backend, dtype, x, y, [np.arange(8, 20)], classes=WIDTH)
    assert steps.run() == (OK, 1)
    np.testing.assert_array_equal(steps.stage(Y, 12, "i8"), y[8:20])
    assert steps.losses[0] == pytest.approx(np.log(WIDTH), rel=1e-6)


@pytest.mark.parametrize("bad", [-1, WIDTH, 2**40, -(2**63)])
def test_a_bad_label_stops_before_its_step(backend, bad):
    x, y = np.ones((ROWS, WIDTH), "float32"), np.arange(ROWS) % WIDTH
    y[12] = bad
    steps = Steps(backend, "float32", x, y, BATCHES, classes=WIDTH)
    assert steps.run() == (BAD_LABEL, 1)
    assert steps.args["bad_row"][0] == 12
    steps.check_update([1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_before_its_update(backend, bad):
    x = np.ones((ROWS, WIDTH), "float32")
    y = x.copy()
    y[5, 2] = bad
    steps = Steps(backend, "float32", x, y, BATCHES)
    assert steps.run() == (NOT_FINITE, 2)
    assert not np.isfinite(steps.losses[2]) and not np.isfinite(steps.args["value"][0])
    steps.check_update([1, 2])


def test_what_is_kept_comes_back_where_a_step_is_refused(backend):
    x = np.ones((ROWS, WIDTH))
    # Each step adds x to the buffers, as batchnorm would move its statistics.
    moves = instruction("add_to_forward", "float64", [("buffers", 0), ("x", 0)], WIDTH)
    for bad, moved in ((False, 2.0), (True, 1.0)):
        y = x.copy()
        y[1] = np.nan if bad else 1
        steps = Steps(backend, "float64", x, y, [np.array([0]), np.array([1])])
        steps.program = np.concatenate([steps.program[:2], moves, steps.program[2:]])
        steps.args["program"], steps.args["count"] = steps.program.ctypes.data, len(steps.program)
        steps.args["before_update"] += 1
        steps.backend.prepare(steps.program)
        assert steps.run() == ((NOT_FINITE, 1) if bad else (OK, 2))
        want = np.arange(8.0) + moved * (np.arange(8) < WIDTH)
        np.testing.assert_array_equal(steps.memory["buffers"], want)


def test_a_step_may_end_before_its_update(backend):
    x = np.ones((ROWS, WIDTH), "float32")
    steps = Steps(backend, "float32", x, x, BATCHES, before=[control("unless", row=GROUPS)])
    steps.table[[0, 3], GROUPS, 0] = 0
    assert steps.run() == (OK, 4)
    steps.check_update([2, 4])


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_check_within_the_update(backend, bad):
    x = np.ones((ROWS, WIDTH), "float32")
    check = control("check", [("training", 0)], [NORM_NOT_FINITE])
    steps = Steps(backend, "float32", x, x, BATCHES, before=[check])
    assert steps.run() == (OK, 4)
    steps = Steps(backend, "float32", x, x, BATCHES, before=[check])
    steps.memory["training"][0] = bad
    assert steps.run() == (NORM_NOT_FINITE, 0)
    np.testing.assert_equal(steps.args["value"][0], bad)
    steps.check_update([0])


def test_python_may_act_within_a_step(backend):
    x = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
    steps = Steps(backend, "float64", x, x, BATCHES, host=True)
    loss = steps.memory["workspace"][:8].view("f8")
    seen = 0
    ended = steps.run()
    while ended[0] == HOST:
        assert ended[1] == seen
        rows = BATCHES[seen]
        begin = OUTPUT[1]
        output = steps.memory["workspace"][begin:].view("f8")[: len(rows) * WIDTH]
        np.testing.assert_array_equal(output.reshape(-1, WIDTH), leaky(x[rows]))
        seen += 1
        loss[0] = seen
        ended = steps.run()
    assert ended == (OK, 4) and seen == 4
    np.testing.assert_array_equal(steps.losses, [1, 2, 3, 4])
    np.testing.assert_array_equal(steps.outputs, leaky(x[np.concatenate(BATCHES)]))
    steps.check_update(RATES[:4])


def test_steps_that_are_done_are_not_done_again(backend):
    x = np.ones((ROWS, WIDTH), "float32")
    steps = Steps(backend, "float32", x, x, BATCHES)
    steps.args["steps"] = 2
    assert steps.run() == (OK, 2)
    assert steps.run() == (OK, 2)
    steps.args["steps"] = 4
    assert steps.run() == (OK, 4)
    steps.check_update(RATES[:4])


def test_no_steps_and_empty_minibatches(backend):
    x = np.ones((ROWS, WIDTH), "float32")
    if backend != "reference":  # of whose mean over no rows NumPy warns
        assert Steps(backend, "float32", x, x, [np.arange(0)]).run() == (NOT_FINITE, 0)
    steps = Steps(backend, "float32", x, x, BATCHES)
    steps.args["steps"] = 0
    assert steps.run() == (OK, 0)


def test_every_control_has_a_number_of_its_own():
    assert sorted(CONTROL.values()) == list(range(-len(CONTROL), 0))
