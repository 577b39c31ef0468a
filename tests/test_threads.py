"""Threads: predictions side by side, two models trained at once, two fits of one model."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype("f")
LABELS = RNG.integers(0, 3, size=300)
PATIENCE = 60  # seconds, after which a thread that waits is taken for deadlocked


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def net(backend, seed=1):
    first = fn.Linear(6, 24), fn.BatchNorm1d(24), fn.ReLU(), fn.Dropout(0.2)
    return fn.Sequential(*first, fn.Linear(24, 3), backend=backend, seed=seed)


def fit(model, epochs=1, metrics=None):
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), metrics=metrics, seed=2)
    return trainer.fit(X, LABELS, epochs, batch_size=20, verbose=0)


def at_once(*tasks):
    """The results of functions that start together, each in a thread of its own."""
    barrier = threading.Barrier(len(tasks))

    def run(task):
        barrier.wait(PATIENCE)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [f.result(PATIENCE) for f in [pool.submit(run, task) for task in tasks]]


def values(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def test_threads_that_predict_on_one_model_agree_with_one_thread(backend):
    model = net(backend)
    fit(model)
    inputs = [X[i:] * (i + 1) for i in range(4)]
    expected = [model.predict(x, batch_size=7 + i) for i, x in enumerate(inputs)]

    def task(i):
        return lambda: [model.predict(inputs[i], batch_size=7 + i) for _ in range(20)]

    for given, alone in zip(at_once(*map(task, range(4))), expected, strict=True):
        for output in given:
            np.testing.assert_array_equal(output, alone)


class Slow(fn.init.Initializer):
    """Zeros, which take a while to whoever draws them first."""

    def __init__(self):
        self.drawing = threading.Event()

    def sample(self, shape, fan_in, fan_out, draw):
        if not self.drawing.is_set():
            self.drawing.set()
            time.sleep(0.3)
        return np.zeros(shape)


def test_what_a_thread_writes_while_another_uses_the_new_model_first_is_kept():
    slow = Slow()
    model = fn.Sequential(fn.Linear(6, 3, bias=False, weight_init=slow))

    def write():
        assert slow.drawing.wait(PATIENCE)
        with model.edit() as p:
            p["0.weight"][:] = np.eye(3, 6)

    at_once(lambda: model.predict(X), write)
    np.testing.assert_allclose(model.predict(X), X[:, :3], rtol=1e-5)


def test_two_models_train_at_once_as_they_do_alone(backend):
    alone = [net(backend, seed) for seed in (1, 2)]
    histories = [fit(model, 4) for model in alone]
    together = [net(backend, seed) for seed in (1, 2)]
    found = at_once(*[lambda model=model: fit(model, 4) for model in together])
    for a, b, one, two in zip(alone, together, histories, found, strict=True):
        assert values(a) == values(b)
        # Not bit for bit: sums of losses by chunks, whose sizes depend on the clock.
        np.testing.assert_allclose(one.history["loss"], two.history["loss"], rtol=1e-12)
    assert values(alone[0]) != values(alone[1])


def test_a_second_fit_of_a_model_is_refused_and_the_first_ends_well(backend):
    model, alone = net(backend), net(backend)
    inside, tried = threading.Event(), threading.Event()

    def pause(y, output):
        """A metric, which the first fit calls in the middle of its training."""
        inside.set()
        assert tried.wait(PATIENCE)
        return 0.0

    def second():
        assert inside.wait(PATIENCE)
        model.predict(X)  # brings the values over where a fit keeps them on a device
        before = values(model)
        try:
            for change in (
                fit,
                fn.SGD().step,
                lambda m: m.forward(X),
                lambda m: m.reset_parameters(),
            ):
                with pytest.raises(fn.errors.UsageError, match="trained or edited elsewhere"):
                    change(model)
            with pytest.raises(fn.errors.UsageError, match="trained or edited"), model.edit():
                pass
            model.predict(X)
            assert values(model) == before
        finally:
            tried.set()

    history, _ = at_once(lambda: fit(model, 2, {"pause": pause}), second)
    assert len(history) == 2
    fit(alone, 2)
    assert values(model) == values(alone)
    fit(model)  # the lock is free again


def test_two_fits_that_start_together(backend):
    model, alone = net(backend), net(backend)
    model.parameters()  # the first use has a test of its own above

    def attempt():
        try:
            return fit(model, 5)
        except fn.errors.UsageError as error:
            return error

    outcomes = at_once(*[attempt] * 4)
    ended = [outcome for outcome in outcomes if isinstance(outcome, fn.History)]
    assert ended and all(len(history) == 5 for history in ended)
    for _ in ended:  # a thread that came late enough had the model to itself
        fit(alone, 5)
    assert values(model) == values(alone)


def test_predictions_while_another_thread_trains(backend):
    model = net(backend)
    model.predict(X)
    done = threading.Event()

    def predict():
        count = 0
        while not done.is_set() or not count:
            output = model.predict(X, batch_size=64)
            assert output.shape == (300, 3) and np.isfinite(output).all()
            count += 1
        return count

    def train():
        try:
            fit(model, 20)
        finally:
            done.set()

    counts = at_once(predict, predict, train)[:2]
    assert min(counts) > 0
    alone = net(backend)
    fit(alone, 20)
    assert values(model) == values(alone)  # predictions disturb nothing
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))  # and are not stale


def test_predictions_while_another_thread_sets_the_number_of_threads(backend):
    model = net(backend)
    expected = model.predict(X)
    done, before = threading.Event(), fn.get_num_threads()

    def predict():
        try:
            return [model.predict(X, batch_size=2) for _ in range(20)]
        finally:
            done.set()

    def change():
        while not done.is_set():
            for count in (1, 2):
                fn.set_num_threads(count)

    try:
        outputs, _ = at_once(predict, change)
    finally:
        fn.set_num_threads(before)
    for output in outputs:
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
