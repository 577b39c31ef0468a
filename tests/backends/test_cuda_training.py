"""Models on a device: what stays there and when the host sees it, chunks that go wrong, failures."""

from __future__ import annotations

import _thread
import copy
import importlib
import inspect

import numpy as np
import on_cuda
import pytest

import fastnet as fn
from fastnet.backends.executor import Executor
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.op import KERNELS

pytestmark = on_cuda.MARKS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
Y = RNG.integers(0, 2, size=12)
LOSS = fn.CrossEntropyLoss()


def net(backend, *between, dtype="float64"):
    return fn.Sequential(
        fn.Linear(3, 4), *between, fn.Linear(4, 2), dtype=dtype, backend=backend, seed=1
    )


def same(one, other, rtol=1e-9):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(value, other.state_dict()[name], rtol=rtol, atol=1e-13)


def chunk(model, loss, y, optimizer, x=X, size=3):
    """What trains a chunk of all rows in order, and its arguments."""
    data = model.data(loss, np.ascontiguousarray(x), y, "x", "y")
    executor = model.training_executor(data, size, loss)
    count = len(x) // size
    state = model.optimizer_state(optimizer)
    steps = Steps(np.arange(len(x)), np.arange(count + 1) * size, 5, 0)
    return executor, (
        data,
        steps,
        Update(state.rule.program, state.rule.segment, state.hyper(count)),
    )


def test_its_executor_has_the_interface_of_the_others():
    mine = type(net("cuda").training_executor(Dataset(X, Y, 2), 4, LOSS))
    assert mine is not Executor
    # Of backends with native_calls, and of those that join the steps of many nets.
    calls = {"forward_call", "backward_call", "step_call", "resume", "address"}
    calls |= {"begin", "ended", "outcome", "native_run", "surely_takes"}
    calls |= {"run_to_host", "twin"}  # of ranks, which it refuses
    public = {n: f for n, f in vars(Executor).items() if callable(f) and n[0] != "_"}
    public = {n: f for n, f in public.items() if n not in calls}
    for name, function in public.items():
        want, got = inspect.signature(function), inspect.signature(getattr(mine, name))
        assert list(got.parameters) == list(want.parameters), name
    made = net("cuda").training_executor(Dataset(X, Y, 2), 4, LOSS)
    other = net("reference").training_executor(Dataset(X, Y, 2), 4, LOSS)
    shown = {name for name in vars(other) if not name.startswith("_")} - {"backend"}
    assert not [name for name in shown - {"losses"} if not hasattr(made, name)]


def test_what_steps_change_reaches_the_host_when_the_epoch_ends():
    model, twin = net("cuda", fn.BatchNorm1d(4)), net("reference", fn.BatchNorm1d(4))
    before = {name: value.copy() for name, value in model.state_dict().items()}
    executor, args = chunk(model, LOSS, Y, fn.SGD(0.1, 0.9))
    with executor.resident():
        executor.train(*args)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])
    other, theirs = chunk(twin, LOSS, Y, fn.SGD(0.1, 0.9))
    np.testing.assert_allclose(executor.losses, other.train(*theirs), rtol=1e-12)
    same(model, twin)


def test_the_device_sees_whatever_the_host_writes():
    models = net("cuda"), net("reference")
    values = {name: 2.0 * value for name, value in models[0].state_dict().items()}
    outputs = []
    for model in models:
        model.value_and_grad(LOSS, X, Y)
        model.zero_grad()
        model.value_and_grad(LOSS, X[:6], Y[:6], accumulate=True)
        layer = model[1]
        layer.forward(np.ones((2, 4)))
        model.predict(X)
        layer.backward(np.ones((2, 2)))  # adds to the gradients on the host
        fn.SGD(0.1).step(model)
        outputs.append([model.predict(X)])
        model.load_state_dict(values)
        outputs[-1].append(model.predict(X))
        with model.edit() as p:
            for number in (1.0, 3.0):
                p["0.bias"][:] = number
                outputs[-1].append(model.predict(X))
        fn.SGD(0.1).step(model)
        outputs[-1].append(model.predict(X))
    same(*models)
    np.testing.assert_allclose(*outputs, rtol=1e-9)


def test_a_loss_that_is_a_function_and_fails_in_its_third_step():
    found = []
    for backend in ("cuda", "reference"):
        calls = []

        def squared(output, y, calls=calls):
            calls.append(1)
            gradient = 2 * (output - y[:, None]) / output.size
            return np.nan if len(calls) == 3 else np.mean((output - y[:, None]) ** 2), gradient

        model = net(backend, fn.BatchNorm1d(4), fn.Dropout(0.3))
        trainer = fn.Trainer(model, squared, fn.SGD(0.1), seed=2, clip_norm=0.1)
        with pytest.raises(fn.DivergenceError, match="the loss of step 2 is nan"):
            trainer.fit(X, Y, batch_size=4, verbose=0)
        found.append(model)
    same(*found)


def test_the_data_set_is_copied_once():
    labels = Y.copy()

    def spoil(y, output):
        labels[:] = 10**9
        return 0.0

    models = [net("cuda") for _ in range(2)]
    for model, y, metric in zip(models, (labels, Y), (spoil, lambda *_: 0.0), strict=True):
        trainer = fn.Trainer(model, LOSS, fn.SGD(0.1), {"metric": metric}, seed=2)
        trainer.fit(X, y, 2, batch_size=6, verbose=0)
    same(*models)


def test_a_label_out_of_range_ends_the_chunk_before_its_step():
    found = []
    for model in (net("cuda"), net("reference")):
        executor, args = chunk(model, LOSS, Y.copy(), fn.SGD(0.1))
        args[0].y[7] = 2  # after the check
        with pytest.raises(fn.errors.DataError, match=r"outside \[0, 2\) at row 7"):
            executor.train(*args)
        found.append((model, executor.steps_done))
    assert found[0][1] == found[1][1] == 2
    same(found[0][0], found[1][0])


@pytest.mark.parametrize("bad", [0, 6])
def test_a_step_that_diverges_within_a_chunk_leaves_what_the_steps_before_made(bad):
    found = []
    for backend in ("cuda", "reference"):
        model = net(backend, fn.BatchNorm1d(4), fn.Dropout(0.3))
        y = RNG.normal(size=(12, 2)) * 0.0 + 0.5
        y[bad] = 1e200
        executor, args = chunk(model, fn.MSELoss(), y, fn.SGD(0.1, 0.9))
        with pytest.raises(
            fn.DivergenceError, match=f"the loss of step {bad // 3} is inf"
        ) as caught:
            executor.train(*args)
        grads = {name: g.copy() for name, g in model.grads.items()}
        found.append((model, executor.steps_done, executor.losses[: bad // 3], grads, caught.value))
    (one, done, losses, grads, error), other = found
    assert done == bad // 3 == other[1]
    assert str(error) == str(other[4])
    np.testing.assert_allclose(losses, other[2], rtol=1e-9)
    same(one, other[0])
    for name, g in grads.items():
        np.testing.assert_allclose(g, other[3][name], rtol=1e-9, atol=1e-13)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_waits_for_the_end_of_the_chunk(monkeypatch):
    model, twin = net("cuda"), net("cuda")
    executor, args = chunk(model, LOSS, Y, fn.SGD(0.1))
    kind = importlib.import_module("fastnet.backends.cuda.programs").Program
    launch, calls = kind.launch, []

    def interrupted(*given, **named):
        calls.append(1)
        if len(calls) == 2:  # of the first step, the others being that again
            _thread.interrupt_main()
        launch(*given, **named)

    monkeypatch.setattr(kind, "launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.train(*args)
    monkeypatch.undo()
    assert executor.steps_done == 4
    executor, args = chunk(twin, LOSS, Y, fn.SGD(0.1))
    executor.train(*args)
    same(model, twin, rtol=0)


def test_a_grid_is_not_higher_than_a_device_allows(monkeypatch):
    from numba import cuda

    from fastnet.backends.cuda import device
    from fastnet.backends.cuda.kernels import sums

    launch, grids = sums.launch, []
    monkeypatch.setattr(sums, "HIGHEST", 2)
    monkeypatch.setattr(sums, "launch", lambda *a: (grids.append(a[1]), launch(*a)))
    a = RNG.normal(size=(5 * sums._HEIGHT, 3))
    into = cuda.to_device(np.zeros(3))
    sums.column_sums(device.stream_for(sums.column_sums), into, cuda.to_device(a), 0)
    np.testing.assert_allclose(into.copy_to_host(), a.sum(0), rtol=1e-9)
    assert grids[0][1] == 2


def test_a_kernel_that_fails_is_named(monkeypatch):
    model = net("cuda", fn.ReLU())
    launchers = importlib.import_module("fastnet.backends.cuda.kernels").LAUNCHERS

    def broken(*_):
        raise RuntimeError("an illegal memory access")

    assert "relu_forward" in KERNELS
    monkeypatch.setitem(launchers, "relu_forward", broken)
    with pytest.raises(
        fn.DeviceError, match="kernel relu_forward failed on the device: an illegal"
    ):
        model.forward(X)


def test_too_little_memory_is_said_with_the_remedy(monkeypatch):
    model = net("cuda")
    model.predict(X)
    from fastnet.backends.cuda import device

    plain, tried = device.cuda.device_array, []

    def full(*_, **__):
        raise RuntimeError("Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    def full_once(*given):
        tried.append(1)
        return (plain if len(tried) > 1 else full)(*given)

    monkeypatch.setattr(device.cuda, "device_array", full_once)
    assert device.new_array(3, "uint8").size == 3 and len(tried) == 2
    monkeypatch.setattr(device.cuda, "device_array", full)
    with pytest.raises(
        MemoryError, match=r"too little free memory for .* bytes; smaller minibatches"
    ):
        model.predict(np.ones((300, 3)), batch_size=300)
    monkeypatch.undo()
    assert model.predict(X).shape == (12, 2)


@pytest.mark.parametrize(
    "layers", [[fn.Linear(3, 2), fn.BatchNorm1d(2), fn.ReLU()], [fn.Dropout(0.5)]]
)
@pytest.mark.parametrize("size", [4, 12])  # some steps at once; one alone
def test_a_data_set_is_measured(layers, size):
    x, y = X.copy(), X[:, : 3 if len(layers) == 1 else 2] ** 2
    x[5] = np.inf  # is refused in training alone
    found = []
    for backend in ("cuda", "reference"):
        model = fn.Sequential(*copy.deepcopy(layers), dtype="float64", backend=backend, seed=1)
        data, rows = Dataset(x, y), np.arange(12)[::-1].copy()
        executor = model.evaluator(data, size, fn.MSELoss())
        outputs, losses = np.empty_like(y), np.empty(12)
        offsets = np.arange(12 // size + 1) * size
        steps = Steps(rows, offsets, 0, 0, outputs=outputs, row_losses=losses)
        found.append((executor.train(data, steps, None), losses, outputs))
    assert (~np.isfinite(found[1][0])).sum() == 1
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)
