"""Losses outside a model run the C backend's kernels where these are loaded, else the reference."""

import threading

import numpy as np
import pytest
from engines import backends

import fastnet as fn
from fastnet.losses import base
from fastnet.model import lone

pytestmark = pytest.mark.skipif("c" not in backends(), reason="needs the backend c")

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _compiled(_losses_alone_are_the_reference, monkeypatch):
    monkeypatch.setattr(base, "step_of", lone.step_of)


def numbers(rows, width):
    return RNG.standard_normal((rows, width))


def shares(rows, width):
    return RNG.uniform(0.05, 0.95, (rows, width))


def labels(rows, width):
    return RNG.integers(0, width, rows)


# For each loss: outputs, targets, and whether compiled kernels serve it.
CASES = {
    "mse": (fn.MSELoss, numbers, numbers, True),
    "sum": (lambda: fn.MSELoss(reduction="sum"), numbers, numbers, True),
    "l1": (fn.L1Loss, numbers, numbers, True),
    "huber": (lambda: fn.HuberLoss(0.7), numbers, numbers, True),
    "bce": (fn.BCELoss, shares, shares, True),
    "logits": (fn.BCEWithLogitsLoss, numbers, shares, True),
    "positive": (lambda: fn.BCEWithLogitsLoss(pos_weight=[2.0, 1.0, 3.0]), numbers, shares, False),
    "kl": (fn.KLDivLoss, lambda r, w: np.log(shares(r, w)), shares, True),
    "log targets": (
        lambda: fn.KLDivLoss(log_target=True),
        lambda r, w: np.log(shares(r, w)),
        lambda r, w: np.log(shares(r, w)),
        False,
    ),
    "poisson": (fn.PoissonNLLLoss, numbers, shares, True),
    "labels": (fn.CrossEntropyLoss, numbers, labels, True),
    "int32": (fn.CrossEntropyLoss, numbers, lambda r, w: labels(r, w).astype(np.int32), True),
    "smooth": (lambda: fn.CrossEntropyLoss(label_smoothing=0.1), numbers, labels, True),
    "nll": (fn.NLLLoss, numbers, labels, True),
    "margin": (fn.MultiMarginLoss, numbers, labels, True),
    "classes": (lambda: fn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0]), numbers, labels, False),
    "none": (lambda: fn.MSELoss(reduction="none"), numbers, numbers, False),
}


def results(loss, output, target, compiled, monkeypatch, weight=None):
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(base, "step_of", None)
        value = loss.forward(output, target, weight)
        return value, loss.backward()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_compiled_losses_agree_with_the_reference(name, dtype, monkeypatch):
    make, outputs, targets, served = CASES[name]
    loss, tolerance = make(), {"float32": 3e-6, "float64": 1e-13}[dtype]
    for rows in (1, 2, 7, 256, 257, 3, 1000):
        output, target = outputs(rows, 3).astype(dtype), targets(rows, 3)
        value, gradient = results(loss, output, target, True, monkeypatch)
        expected, slope = results(make(), output, target, False, monkeypatch)
        assert type(value) is type(expected)
        assert (loss._step[1] is not None) == served
        np.testing.assert_allclose(value, expected, rtol=tolerance)
        scale = np.abs(slope).max()
        np.testing.assert_allclose(gradient, slope, rtol=tolerance, atol=tolerance * scale)
        assert gradient.dtype == slope.dtype and gradient.flags.owndata and gradient.flags.writeable


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_have_the_references_loss(bad, monkeypatch):
    output, target = numbers(4, 3).astype(np.float32), numbers(4, 3)
    output[1, 2] = bad
    loss = fn.MSELoss()
    loss.forward(target, target)
    compiled = results(loss, output, target, True, monkeypatch)
    for found, expected in zip(
        compiled, results(fn.MSELoss(), output, target, False, monkeypatch), strict=True
    ):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))


def test_a_gradient_of_ones_own_and_weights(monkeypatch):
    output, target = numbers(6, 2), numbers(6, 2)
    loss = fn.MSELoss()
    loss.forward(output, target)
    np.testing.assert_allclose(loss.backward(3.0), 6 * (output - target) / 12, rtol=1e-14)
    with pytest.raises(fn.errors.UsageError, match="forward before it"):
        loss.backward()
    weight = RNG.random(6)
    found = results(loss, output, target, True, monkeypatch, weight)
    expected = results(fn.MSELoss(), output, target, False, monkeypatch, weight)
    assert found[0] == expected[0]


def test_a_column_of_targets_and_other_dtypes():
    loss, output = fn.MSELoss(), numbers(6, 1)
    flat = numbers(6, 1)[:, 0]
    expected = np.mean((output[:, 0] - flat) ** 2)
    for target in (flat, flat[:, None], flat.astype(np.float32), list(flat)):
        assert loss.forward(output, target) == pytest.approx(expected, rel=1e-6)


def test_bad_targets_get_the_same_errors():
    loss, output = fn.BCEWithLogitsLoss(), numbers(5, 2)
    loss.forward(output, shares(5, 2))
    with pytest.raises(fn.errors.DataError, match="probabilities"):
        loss.forward(output, shares(5, 2) + 1)
    with pytest.raises(fn.errors.FastnetError, match="shape"):
        loss.forward(output, shares(5, 3))
    of_labels = fn.CrossEntropyLoss()
    of_labels.forward(output, labels(5, 2))
    with pytest.raises(fn.errors.DataError, match=r"\[0, 2\)|2 classes|label"):
        of_labels.forward(output, np.array([0, 1, 2, 0, 1]))


def test_a_loss_of_ones_own_runs_numpy():
    class Mine(fn.MSELoss):
        pass

    loss = Mine()
    loss.forward(numbers(4, 2), numbers(4, 2))
    assert loss._step[1] is None


def test_each_thread_has_a_workspace_of_its_own():
    loss, output, target = fn.MSELoss(), numbers(64, 8), numbers(64, 8)
    expected, wrong = loss.forward(output, target), []

    def work(scale):
        mine = fn.MSELoss()
        for _ in range(300):
            if mine.forward(output * scale, target * scale) != pytest.approx(expected * scale**2):
                wrong.append(scale)

    threads = [threading.Thread(target=work, args=(2.0**i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_models_on_c_load_it(monkeypatch):
    from fastnet.model.runtime import Runtime

    monkeypatch.setattr(Runtime, "compiled_losses", True)
    monkeypatch.setattr(base, "step_of", None)
    fn.Sequential(fn.Linear(2, 1), backend="c").predict(np.ones((1, 2)))
    assert base.step_of is lone.step_of
