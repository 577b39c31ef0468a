"""Metrics by name against scikit-learn's, in float64, on their own and by a trainer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

metrics = pytest.importorskip("sklearn.metrics")
RNG = np.random.default_rng(0)
N = 57
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def rounded(z, ties):
    """With ties, outputs of few different values."""
    return np.round(z) if ties else z


def of_classes(name, y, p, scores, count):
    """scikit-learn's number for labels y, probabilities p and the scores before them."""
    decided, every = scores.argmax(axis=1), np.arange(count)
    binary = count == 2
    return {
        "accuracy": lambda: metrics.accuracy_score(y, decided),
        "balanced_accuracy": lambda: metrics.balanced_accuracy_score(y, decided),
        "f1": lambda: metrics.f1_score(y, decided, average="binary" if binary else "macro"),
        "auc": lambda: (
            metrics.roc_auc_score(y, p[:, 1])
            if binary
            else metrics.roc_auc_score(y, p, multi_class="ovr", average="macro", labels=every)
        ),
        "log_loss": lambda: metrics.log_loss(y, p, labels=every),
        "top_k": lambda: metrics.top_k_accuracy_score(y, scores, k=2, labels=every),
    }[name]()


OF_CLASSES = {
    "accuracy": fn.accuracy,
    "balanced_accuracy": fn.BalancedAccuracy(),
    "f1": fn.F1(),
    "auc": fn.AUC(),
    "log_loss": fn.LogLoss(),
    "top_k": fn.TopK(2),
}


def named(width):
    """The metrics that outputs of this width have, by name."""
    return {n: m for n, m in OF_CLASSES.items() if n != "top_k" or width > 2}


def evaluated(loss, output, y, wanted):
    """The scores of a trainer whose model's outputs are these."""
    model = fn.Sequential(fn.Identity(), dtype="float64", backend="reference")
    found = fn.Trainer(model, loss, metrics=wanted).evaluate(output, y)
    return {name: value for name, value in found.items() if name != "loss"}


def probabilities(loss, output):
    """Those of a model whose outputs are these: equal ones are equal where the metrics see them."""
    model = fn.Sequential(fn.Identity(), dtype="float64", backend="reference")
    fn.Trainer(model, loss)
    return model.predict_proba(output)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("kind", ["softmax", "exp", "alone"])
def test_labels(kind, count, ties):
    for _ in range(5):
        z = rounded(RNG.normal(size=(N, count)) * 2, ties)
        y = RNG.integers(0, count, N)
        y[:count] = np.arange(count)
        p, wanted = softmax(z), named(count)
        if kind == "alone":
            found = {n: m(y, z if n == "top_k" else p) for n, m in wanted.items()}
        else:
            loss = fn.CrossEntropyLoss() if kind == "softmax" else fn.NLLLoss()
            z = z if kind == "softmax" else np.log(p)
            found, p = evaluated(loss, z, y, wanted), probabilities(loss, z)
            np.testing.assert_allclose(p, softmax(z), rtol=1e-14)
        for name, value in found.items():
            scores = p if kind == "alone" and name != "top_k" else z
            expected = of_classes(name, y, p, scores, count)
            np.testing.assert_allclose(value, expected, **CLOSE, err_msg=name)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", ["sigmoid", "probability", "alone"])
def test_one_output(kind, ties):
    for _ in range(5):
        z = rounded(RNG.normal(size=(N, 1)) * 3, ties)
        y = RNG.integers(0, 2, N)
        p = 1 / (1 + np.exp(-z[:, 0]))
        decided = z[:, 0] >= 0 if kind == "sigmoid" else p >= 0.5
        wanted = {n: OF_CLASSES[n] for n in ("balanced_accuracy", "f1", "auc", "log_loss")}
        if kind == "alone":
            found = {n: m(y, p[:, None]) for n, m in wanted.items()}
            assert found == {n: m(y[:, None] == 1, p[:, None]) for n, m in wanted.items()}
        elif kind == "sigmoid":
            found = evaluated(fn.BCEWithLogitsLoss(), z, y, wanted | {"accuracy": "accuracy"})
        else:
            found = evaluated(fn.BCELoss(), p[:, None], y, wanted | {"accuracy": "accuracy"})
        expected = {
            "balanced_accuracy": metrics.balanced_accuracy_score(y, decided),
            "f1": metrics.f1_score(y, decided),
            "auc": metrics.roc_auc_score(y, p),
            "log_loss": metrics.log_loss(y, p),
            "accuracy": metrics.accuracy_score(y, decided),
        }
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], **CLOSE, err_msg=name)


@pytest.mark.parametrize("ties", [False, True])
def test_several_truths(ties):
    for _ in range(5):
        z = rounded(RNG.normal(size=(N, 4)) * 2, ties)
        y = RNG.integers(0, 2, (N, 4))
        found = evaluated(fn.BCEWithLogitsLoss(), z, y, ["f1", "auc"])
        np.testing.assert_allclose(
            found["f1"], metrics.f1_score(y, z >= 0, average="macro"), **CLOSE
        )
        np.testing.assert_allclose(found["auc"], metrics.roc_auc_score(y, z), **CLOSE)


def test_a_column_of_truths_without_any_scores_0_in_f1():
    y, z = RNG.integers(0, 2, (N, 3)), RNG.normal(size=(N, 3))
    y[:, 1], z[:, 1] = 0, -1.0
    found = evaluated(fn.BCEWithLogitsLoss(), z, y, ["f1"])["f1"]
    expected = metrics.f1_score(y, z >= 0, average="macro", zero_division=0)
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("width", [1, 3])
def test_real_numbers(width):
    for scale in (1.0, 1e-6, 1e6):
        y, output = RNG.normal(size=(N, width)) * scale + scale, RNG.normal(size=(N, width)) * scale
        expected = {
            "mae": metrics.mean_absolute_error(y, output),
            "rmse": metrics.root_mean_squared_error(y, output),
            "r2": metrics.r2_score(y, output),
        }
        found = evaluated(fn.MSELoss(), output, y, list(expected))
        alone = {"mae": fn.MAE()(y, output), "rmse": fn.RMSE()(y, output), "r2": fn.R2()(y, output)}
        for name, value in expected.items():
            np.testing.assert_allclose([found[name], alone[name]], value, rtol=1e-12)


def test_columns_of_equal_targets():
    y, output = np.ones((N, 3)), np.ones((N, 3))
    output[:, 1] += 0.5
    y[:, 2] = RNG.normal(size=N)
    np.testing.assert_allclose(fn.R2()(y, output), metrics.r2_score(y, output), **CLOSE)


def test_a_single_class():
    """As scikit-learn has it; where it warns, the number is that beside the warning."""
    z = RNG.normal(size=(N, 3))
    for y in (np.zeros(N, int), np.full(N, 2), np.arange(N) % 2, 1 + np.arange(N) % 2):
        found = evaluated(fn.CrossEntropyLoss(), z, y, named(3))
        for name, value in found.items():
            if name == "auc":
                assert np.isnan(value)  # one class against the rest has no rest, or no class
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = of_classes(name, y, softmax(z), z, 3)
            np.testing.assert_allclose(value, expected, **CLOSE, err_msg=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(metrics.roc_auc_score(np.zeros(N), z[:, 0]))
    for y in (np.zeros(N, int), np.ones(N, int)):
        found = evaluated(fn.BCEWithLogitsLoss(), z[:, :1], y, ["f1", "auc", "balanced_accuracy"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert found["f1"] == metrics.f1_score(y, z[:, 0] >= 0, zero_division=0)
            assert found["balanced_accuracy"] == metrics.balanced_accuracy_score(y, z[:, 0] >= 0)
        assert np.isnan(found["auc"])


def test_a_class_that_is_neither_there_nor_decided_for_does_not_count_in_f1():
    y, z = np.arange(N) % 2, np.zeros((N, 4))
    z[np.arange(N), RNG.integers(0, 2, N)] = 1
    found = evaluated(fn.CrossEntropyLoss(), z, y, ["f1"])["f1"]
    np.testing.assert_allclose(found, metrics.f1_score(y, z.argmax(1), average="macro"), **CLOSE)


def test_certain_probabilities_are_clipped():
    y, z = np.array([0, 1, 1]), np.array([[50.0, -50.0], [60.0, -60.0], [-1.0, 1.0]])
    found = evaluated(fn.CrossEntropyLoss(), z, y, ["log_loss"])["log_loss"]
    np.testing.assert_allclose(found, metrics.log_loss(y, softmax(z)), rtol=1e-12)


def test_predicted_probabilities_are_those_of_scikit_learns_scorers(backend):
    """A model's predict_proba goes into scikit-learn's functions as it is."""
    x, y = RNG.normal(size=(N, 3)), np.array(["a", "b", "c"])[RNG.integers(0, 3, N)]
    model = fn.Sequential(fn.Linear(3, 3), dtype="float64", backend=backend, seed=0)
    trainer = fn.Trainer(
        model, fn.CrossEntropyLoss(), metrics=["auc", "log_loss", "accuracy"], seed=0
    )
    trainer.fit(x, y, 3, verbose=0)
    p, found = model.predict_proba(x), trainer.evaluate(x, y)
    np.testing.assert_allclose(
        found["log_loss"], metrics.log_loss(y, p, labels=model.classes_), **CLOSE
    )
    np.testing.assert_allclose(
        found["auc"], metrics.roc_auc_score(y, p, multi_class="ovr"), **CLOSE
    )
    assert found["accuracy"] == metrics.accuracy_score(y, model.predict_classes(x))
