"""BatchNorm1d without running statistics, whose rows depend on one another, and with their means."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError

X = np.random.default_rng(0).normal(size=(700, 5)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 700)


def net(backend="reference", **options):
    layers = fn.Linear(5, 4), fn.BatchNorm1d(4, track_running_stats=False, **options), fn.Tanh()
    return fn.Sequential(*layers, fn.Linear(4, 3), backend=backend, seed=1)


def expected(model, x):
    """The output by the statistics of all rows."""
    p = {name: value.astype("float64") for name, value in model.state_dict().items()}
    h = x @ p["0.weight"].T + p["0.bias"]
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) * p.get("1.weight", 1) + p.get("1.bias", 0)
    return np.tanh(h) @ p["3.weight"].T + p["3.bias"]


def test_there_are_no_buffers():
    assert list(net().state_dict()) == [
        *("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    ]
    assert list(net(affine=False)[1].state_dict()) == []


@pytest.mark.parametrize("rows", [2, 255, 256, 257, 700, 300])
def test_a_prediction_takes_all_rows_at_once(backend, rows):
    """Also where the same model has predicted more or fewer rows, and by every way to predict."""
    model = net(backend)
    for count in (rows, 700, rows):
        x = X[:count]
        want = expected(model, x)
        np.testing.assert_allclose(model.predict(x), want, atol=2e-5)
        np.testing.assert_allclose(model.predict(x, batch_size=count), want, atol=2e-5)
        np.testing.assert_allclose(model.predict(x.tolist()), want, atol=2e-5)
        out = np.empty((count, 3), "float32")
        assert model.predict(x, out=out) is out
        np.testing.assert_allclose(out, want, atol=2e-5)
        np.testing.assert_allclose(model.eval().forward(x), want, atol=2e-5)


def test_an_evaluation_takes_all_rows_at_once(backend):
    model = net(backend)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), metrics=["accuracy"], seed=0)
    z = expected(model, X)
    loss = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(700), Y])
    got = trainer.evaluate(X, Y)
    np.testing.assert_allclose(got["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(got["accuracy"], np.mean(z.argmax(1) == Y))
    for callbacks in ((), [fn.Callback()]):
        history = trainer.fit(
            X[:300], Y[:300], epochs=3, validation_data=(X, Y), callbacks=callbacks, verbose=0
        )
        want = trainer.evaluate(X, Y)
        for name, value in want.items():
            np.testing.assert_allclose(history.history[f"val_{name}"][-1], value, rtol=1e-6)


def test_parts_are_refused(backend):
    model = net(backend)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    message = r"^batch_size is 3 for 700 rows; layer 1 \(BatchNorm1d\) has no running statistics"
    with pytest.raises(HyperparameterError, match=message):
        model.predict(X, batch_size=3)
    with pytest.raises(HyperparameterError, match=message):
        trainer.evaluate(X, Y, batch_size=3)


def test_a_single_row_is_refused(backend):
    model = net(backend)
    before = {name: value.copy() for name, value in model.state_dict().items()}
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    one = X[:1], Y[:1]
    for call in (
        lambda: model.predict(X),
        lambda: model.predict(one[0]),
        lambda: model.predict(one[0]),
        lambda: model.eval().forward(one[0]),
        lambda: model.train().forward(one[0]),
        lambda: model.value_and_grad(fn.CrossEntropyLoss(), *one),
        lambda: trainer.evaluate(*one),
        lambda: trainer.fit(X, Y, epochs=1, validation_data=one, verbose=0),
        lambda: trainer.fit(*one, epochs=1, respect_modes=True, verbose=0),
        lambda: trainer.train_on_batch(*one),
        lambda: fn.BatchNorm1d(5, track_running_stats=False).eval().forward(one[0]),
    ):
        if call.__code__.co_names == ("predict", "X"):
            call()  # after it, a single row must not go the short way
            continue
        with pytest.raises(ShapeError, match="at least 2"):
            call()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert model.predict(X[:0]).shape == (0, 3)


def test_frozen_it_still_takes_the_rows_statistics(backend):
    model = net(backend)
    model[1].freeze()
    np.testing.assert_allclose(model.forward(X), expected(model, X), atol=2e-5)
    assert model[1].frozen


def test_means_over_all_minibatches(backend):
    model = fn.Sequential(fn.BatchNorm1d(5, momentum=None), backend=backend, dtype="float64")
    parts = [X[:100], X[100:102], X[102:400]]
    for x in parts:
        model.forward(x)
    state = model.state_dict()
    means = np.mean([x.astype("float64").mean(0) for x in parts], axis=0)
    variances = np.mean([x.astype("float64").var(0, ddof=1) for x in parts], axis=0)
    np.testing.assert_allclose(state["0.running_mean"], means, atol=1e-12)
    np.testing.assert_allclose(state["0.running_var"], variances, rtol=1e-12)
    assert state["0.num_batches_tracked"] == 3


def test_means_over_minibatches_at_averaged_parameters():
    """SWA computes the statistics anew; the count goes on from there."""
    found = []
    for momentum in (None, 0.1):
        layers = fn.Linear(5, 4), fn.BatchNorm1d(4, momentum=momentum), fn.Linear(4, 3)
        model = fn.Sequential(*layers, backend="reference", dtype="float64", seed=1)
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), averaging=fn.SWA(1), seed=0)
        trainer.fit(X, Y, epochs=2, batch_size=100, verbose=0)
        found.append(trainer.averaged_model(X, batch_size=100).state_dict())
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-9, atol=1e-12)
    assert found[0]["1.num_batches_tracked"] == 7


def test_the_count_is_read_before_it_grows():
    """By every thread of a team."""
    if fn.backends()["c"].reason:
        pytest.skip("the C backend")
    minibatches = np.random.default_rng(2).normal(size=(9, 400, 4000)).astype("float32")
    found = set()
    for threads in (1, 2, 3, 8) * 2:
        model = fn.Sequential(fn.BatchNorm1d(4000, momentum=None), backend="c")
        with fn.threads(threads):
            for x in minibatches:
                model.forward(x)
        found.add(model.state_dict()["0.running_mean"].tobytes())
    assert len(found) == 1
