"""Fits that end early: divergence, labels that change meanwhile, Ctrl-C, metrics that fail."""

from __future__ import annotations

import _thread
import re
import signal
import threading
import time

import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import registry
from fastnet.train import run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = RNG.normal(size=(20, 2))
LABELS = RNG.integers(0, 2, size=20)


def net(backend, *, dtype="float64", batchnorm=True):
    between = [fn.BatchNorm1d(6)] if batchnorm else []
    layers = fn.Linear(3, 6), *between, fn.Dropout(0.2), fn.Linear(6, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=1)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def assert_well(trainer):
    """The model is finite, free and as many steps old as its trainer says, and can start over."""
    model, steps = trainer.model, trainer.step
    state = model.state_dict()
    assert all(np.isfinite(value).all() for value in state.values())
    assert trainer.optimizer.state(model).steps == steps
    assert state.get("1.num_batches_tracked", steps) == steps
    with model.edit():
        pass
    trainer.metrics, trainer.optimizer.lr = {}, 1e-3
    y = Y if isinstance(trainer.loss, fn.MSELoss) else LABELS
    trainer.reset()
    trainer.fit(X, y, batch_size=5, verbose=0)
    assert trainer.step == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("loss", "y"), [(fn.MSELoss(), Y), (fn.CrossEntropyLoss(), LABELS)], ids=["mse", "nll"]
)
def test_a_step_that_diverges_is_not_applied(backend, loss, y, dtype):
    lr = float(np.finfo(dtype).max) ** 0.75
    model, twin = (net(backend, dtype=dtype, batchnorm=False) for _ in range(2))
    trainer = fn.Trainer(model, loss, fn.SGD(lr), seed=3)
    with np.errstate(all="ignore"), pytest.raises(fn.DivergenceError) as caught:
        trainer.fit(X, y, 50, batch_size=20, verbose=0)
    assert 0 < trainer.step < 50
    begin = rf"the loss of step {trainer.step} is (inf|nan); .* smaller learning rate"
    assert re.match(begin, str(caught.value))
    fn.Trainer(twin, loss, fn.SGD(lr), seed=3).fit(X, y, trainer.step, batch_size=20, verbose=0)
    assert bits(model) == bits(twin)
    assert len(trainer.history) == trainer.epoch == trainer.step
    assert_well(trainer)


def test_the_reference_does_not_warn_of_what_it_raises():
    trainer = fn.Trainer(net("reference"), fn.MSELoss(), fn.SGD(1e200), seed=3)
    with pytest.raises(fn.DivergenceError):
        trainer.fit(X, Y, 50, batch_size=20, verbose=0)


def test_a_step_that_diverges_leaves_the_running_statistics(backend):
    model, twin = net(backend), net(backend)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(1e200), seed=3)
    with np.errstate(all="ignore"), pytest.raises(fn.DivergenceError):
        trainer.fit(X, Y, 50, batch_size=20, verbose=0)
    if trainer.step:
        fit = fn.Trainer(twin, fn.MSELoss(), fn.SGD(1e200), seed=3).fit
        fit(X, Y, trainer.step, batch_size=20, verbose=0)
    assert bits(model) == bits(twin)


@pytest.mark.parametrize("epochs", [1, 2])
def test_no_fit_ends_with_nan_and_says_nothing(backend, epochs):
    """The loss of the last step is finite, its update is not: 1e300 is infinity in float32."""
    trainer = fn.Trainer(net(backend, dtype="float32"), fn.MSELoss(), fn.SGD(0.0), seed=3)
    trainer.fit(X, Y, epochs, batch_size=20, verbose=0)
    trainer.optimizer.lr = 1e300
    assert np.isfinite(np.concatenate([p.ravel() for p in trainer.model.parameters()])).all()
    with np.errstate(all="ignore"), pytest.raises(fn.DivergenceError):
        trainer.fit(X, Y, batch_size=20, verbose=0)


def test_targets_that_become_nan_are_divergence(backend):
    if backend == "cuda":
        pytest.skip("copies the data set at first: see tests/backends/test_cuda_training.py")
    y = Y.copy()

    def spoil(targets, output):
        y[:] = np.nan
        return 0.0

    model = net(backend, batchnorm=False)
    trainer = fn.Trainer(model, fn.MSELoss(), metrics={"spoil": spoil}, seed=3)
    with pytest.raises(fn.DivergenceError, match="the loss of step 4 is nan"):
        trainer.fit(X, y, 3, batch_size=5, verbose=0)
    assert trainer.step == 4
    assert_well(trainer)


@pytest.mark.parametrize("label", [2, -1, 10**9, -(2**63), 2**63 - 1])
def test_a_label_that_changes_meanwhile_is_found(backend, label):
    if backend == "cuda":
        pytest.skip("copies the data set at first: see tests/backends/test_cuda_training.py")
    y = LABELS.copy()

    def spoil(labels, output):
        y[7] = label
        return 0.0

    trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), metrics={"spoil": spoil}, seed=3)
    with pytest.raises(fn.errors.DataError, match=r"outside \[0, 2\) at row 7: it was changed"):
        trainer.fit(X, y, 9, batch_size=5, verbose=0)
    second = list(fn.batches(np.arange(20), batch_size=5, seed=3, epoch=1))
    assert trainer.step == 4 + next(i for i, rows in enumerate(second) if 7 in rows)
    assert_well(trainer)


def test_labels_that_another_thread_writes(backend):
    y, done = LABELS.copy(), threading.Event()
    rows = np.resize(X, (2000, 3))
    many = np.resize(y, 2000)

    def write():
        while not done.is_set():
            for label in (10**15, 0, -(10**15), 1):
                many[1000:] = label

    trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), metrics={}, seed=3)
    writer = threading.Thread(target=write)
    refused = 0
    writer.start()
    try:
        for _ in range(20):
            try:
                trainer.fit(rows, many, 5, batch_size=50, verbose=0)
            except fn.errors.DataError as error:
                refused += "holds label" in str(error) or "was changed during" in str(error)
    finally:
        done.set()
        writer.join()
    assert refused > 0
    assert_well(trainer)


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_a_metric_that_fails_leaves_the_model_well(backend, error):
    calls = []

    def metric(y, output):
        calls.append(len(y))
        if len(calls) == 3:
            raise error
        return 0.0

    trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), metrics={"metric": metric}, seed=3)
    with pytest.raises(error):
        trainer.fit(X, LABELS, 9, batch_size=5, verbose=0)
    assert (trainer.step, trainer.epoch, len(trainer.history)) == (12, 2, 2)
    assert_well(trainer)


@pytest.mark.parametrize("late", [pytest.param(True, id="after"), pytest.param(False, id="before")])
def test_ctrl_c_during_a_chunk_counts_the_steps_that_were_done(backend, late, monkeypatch):
    """Python raises KeyboardInterrupt when the native call returns."""
    if backend == "cuda":
        pytest.skip("has no native call: see tests/backends/test_cuda_training.py")
    engine = registry.get(backend)
    train, chunks = engine.train, []

    def interrupted(args):
        chunks.append(int(args["steps"][0]))
        if len(chunks) < 3:
            train(args)
        else:
            if late:
                train(args)
            raise KeyboardInterrupt

    trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), seed=3)
    monkeypatch.setattr(engine, "train", interrupted)
    monkeypatch.setattr(run, "first_chunk", lambda seconds: 1)  # so that there are three calls
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(np.resize(X, (103, 3)), np.resize(LABELS, 103), 3, batch_size=5, verbose=0)
    monkeypatch.undo()
    assert trainer.step == sum(chunks[: 3 if late else 2])
    assert_well(trainer)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_stops_a_long_fit_soon(backend):
    trainer = fn.Trainer(net(backend), fn.CrossEntropyLoss(), seed=3)
    trainer.fit(X, LABELS, batch_size=5, verbose=0)  # compiles
    steps = trainer.step
    rows, labels = np.resize(X, (1000, 3)), np.resize(LABELS, 1000)
    begin = time.perf_counter()
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(rows, labels, 10**6, batch_size=5, verbose=0)
    assert time.perf_counter() - begin < 10
    assert trainer.step > steps
    assert all(np.isfinite(value).all() for value in trainer.model.state_dict().values())
    trainer.fit(X, LABELS, batch_size=5, verbose=0)


@pytest.fixture
def ctrl_c(heeding_ctrl_c):
    """Calls functions again and again until Ctrl-C comes after so many seconds."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs a timer that sends signals")
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))

    def interrupted(seconds, *calls):
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            # Python drops a Ctrl-C that comes where it frees garbage: another one follows.
            signal.setitimer(signal.ITIMER_REAL, seconds, 2.0)
            try:
                while True:
                    for call in calls:
                        call()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    yield interrupted
    signal.signal(signal.SIGALRM, before)


def test_ctrl_c_leaves_the_lock_free_wherever_it_comes(backend, ctrl_c):
    model, loss, optimizer = net(backend), fn.CrossEntropyLoss(), fn.SGD(1e-4)
    calls = (
        lambda: model.value_and_grad(loss, X, LABELS),
        lambda: optimizer.step(model),
        model.zero_grad,
    )
    for call in calls:
        call()  # compiles
    for _ in range(500):
        ctrl_c(RNG.uniform(1e-5, 4e-4), *calls)
        model.zero_grad()


def by_function(output, y):
    return float(np.square(output).mean()), 2 * output / output.size


# Ctrl-C may come where Python frees garbage, which drops it and warns; another one follows.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("loss", [fn.CrossEntropyLoss(), by_function], ids=["loss", "function"])
def test_ctrl_c_comes_between_two_steps(backend, loss, ctrl_c):
    averaging = fn.EMA(0.9)
    trainer = fn.Trainer(net(backend), loss, fn.SGD(1e-4), {}, seed=3, averaging=averaging)
    trainer.fit(X, LABELS, batch_size=5, verbose=0)  # compiles
    for _ in range(60):
        ctrl_c(RNG.uniform(1e-4, 2e-2), lambda: trainer.fit(X, LABELS, 50, batch_size=5, verbose=0))
        done = trainer.model.state_dict()["1.num_batches_tracked"]
        steps = trainer.optimizer.state(trainer.model).steps
        assert done == trainer.step == steps == trainer._chain.averaged


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_in_a_function_waits_for_no_later_step(backend):
    calls = []

    def function(output, y):
        calls.append(len(output))
        if len(calls) == 40:  # in the middle of a chunk
            signal.raise_signal(signal.SIGINT)
        return by_function(output, y)

    trainer = fn.Trainer(net(backend), function, fn.SGD(1e-4), {}, seed=3, averaging=fn.EMA(0.9))
    inputs = np.zeros((500, 3), "float32")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(inputs, np.zeros(500), batch_size=5, verbose=0)
    assert len(calls) == trainer.step == trainer.optimizer.state(trainer.model).steps == 40
    assert trainer._chain.averaged == trainer.model.state_dict()["1.num_batches_tracked"] == 40
    trainer.fit(inputs, np.zeros(500), batch_size=5, verbose=0)


def test_a_second_ctrl_c_ends_a_step_that_does_not_end(ctrl_c):
    def endless(output, y):
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        while True:
            pass

    trainer = fn.Trainer(net("reference"), endless, seed=3)
    ctrl_c(0.2, lambda: trainer.fit(X, LABELS, batch_size=5, verbose=0))
    assert trainer.step == 0 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert trainer.model.state_dict()["1.num_batches_tracked"] == 0
