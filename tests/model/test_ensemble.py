"""Ensemble: averages of outputs and of probabilities, into arrays of one's own too; bad arguments."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError, UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype("f")


def nets(backend="auto", out=2, dtype="float32"):
    kinds = fn.ReLU, fn.Tanh, fn.GELU
    return [
        fn.Sequential(
            fn.Linear(3, 4 + i),
            kinds[i](),
            fn.Linear(4 + i, out),
            dtype=dtype,
            backend=backend,
            seed=i,
        )
        for i in range(3)
    ]


def softmax(z):
    parts = np.exp(z - z.max(axis=1, keepdims=True))
    return parts / parts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("average", "out"), [("outputs", 1), ("outputs", 2), ("probabilities", 5)])
def test_it_is_the_mean(backend, average, out, dtype):
    models = nets(backend, out, dtype)
    ensemble = fn.Ensemble(models, average)
    each = [model.predict(X).astype("float64") for model in models]
    expected = np.mean([z if average == "outputs" else softmax(z) for z in each], axis=0)
    found = ensemble.predict(X)
    assert found.dtype == ensemble.dtype == dtype and found.shape == (300, out)
    np.testing.assert_allclose(
        found, expected, rtol=1e-6 if dtype == "float32" else 1e-14, atol=1e-9
    )
    room = np.empty_like(found)
    assert ensemble.predict(X, out=room) is room
    for other in (room, pickle.loads(pickle.dumps(ensemble)).predict(X)):
        assert other.tobytes() == found.tobytes()
    in_sevens = ensemble.predict(X, 7)
    if (
        backend == "c"
    ):  # the others' products come from a BLAS, whose bits depend on the number of rows
        assert in_sevens.tobytes() == found.tobytes()
    np.testing.assert_allclose(in_sevens, found, rtol=0, atol=1e-6 if dtype == "float32" else 1e-14)


def test_a_single_logit_is_one_of_a_sigmoid():
    models = nets(out=1, dtype="float64")
    for model in models:
        with model.edit() as values:
            values["2.bias"][:] = 800
    expected = np.mean([1 / (1 + np.exp(-m.predict(X))) for m in models[:1]], axis=0)
    np.testing.assert_allclose(fn.Ensemble(models[:1], "probabilities").predict(X), expected)
    for model in models:
        with model.edit() as values:
            values["2.bias"][:] = -800
    assert (fn.Ensemble(models, "probabilities").predict(X) < 1e-300).all()


def test_out_may_be_x():
    models = [fn.Sequential(fn.Linear(3, 3), seed=i) for i in range(3)]
    ensemble, own = fn.Ensemble(models), X.copy()
    expected = ensemble.predict(X)
    assert ensemble.predict(own, out=own).tobytes() == expected.tobytes()


def test_it_follows_its_models():
    models = nets()
    ensemble = fn.Ensemble(iter(models))
    assert list(ensemble) == models and len(ensemble) == 3
    assert ensemble.input_shape == (3,) and ensemble.output_shape((3,)) == (2,)
    assert "3 models" in repr(ensemble)
    before = ensemble.predict(X)
    fn.fit_many(models, X, X[:, :2], losses=fn.MSELoss(), epochs=3)
    assert np.abs(ensemble.predict(X) - before).max() > 1e-4


@pytest.mark.parametrize(
    "models", [None, 3, [], "no", [1], nets()[0], [nets()[0], fn.Linear(3, 2)]]
)
def test_other_models_are_refused(models):
    with pytest.raises(HyperparameterError, match="models is"):
        fn.Ensemble(models)


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"models\[1\] has output rows of shape \(1,\)"):
        fn.Ensemble([nets()[0], nets(out=1)[1]])
    with pytest.raises(ShapeError, match="models have input rows"):
        fn.Ensemble([nets()[0], fn.Sequential(fn.Linear(4, 2))])
    with pytest.raises(HyperparameterError, match=r"models\[1\] has dtype float64"):
        fn.Ensemble([nets()[0], nets(dtype="float64")[1]])
    with pytest.raises(HyperparameterError, match="average is 'no'"):
        fn.Ensemble(nets(), "no")
    ensemble = fn.Ensemble(nets())
    with pytest.raises(ShapeError, match="x has shape"):
        ensemble.predict(X[:, :2])
    with pytest.raises(ShapeError, match="out is float64"):
        ensemble.predict(X, out=np.empty((300, 2)))


LABELS = np.array(["a", "b", "c"])[RNG.integers(0, 3, 300)]
LINKS = {  # a loss, its targets, outputs, and last layers
    "softmax": (fn.CrossEntropyLoss(), LABELS, 3, []),
    "exp": (fn.NLLLoss(), LABELS, 3, [fn.LogSoftmax]),
    "sigmoid": (fn.BCEWithLogitsLoss(), LABELS == "a", 1, []),
    "several": (fn.BCEWithLogitsLoss(), RNG.integers(0, 2, (300, 2)), 2, []),
    "probability": (fn.BCELoss(), LABELS == "a", 1, [fn.Sigmoid]),
}


def trained(case, average, backend="auto"):
    loss, y, out, last = LINKS[case]
    models = []
    for i in range(3):
        layers = fn.Linear(3, 4 + i), fn.ReLU(), fn.Linear(4 + i, out), *[layer() for layer in last]
        models.append(fn.Sequential(*layers, dtype="float64", backend=backend, seed=i))
        fn.Trainer(models[-1], loss, seed=i).fit(X, y, 2, verbose=0)
    return fn.Ensemble(models, average), y


@pytest.mark.parametrize("average", ["outputs", "probabilities"])
@pytest.mark.parametrize("case", LINKS)
def test_probabilities_and_classes(case, average, backend):
    ensemble, y = trained(case, average, backend)
    p, classes = ensemble.predict_proba(X), ensemble.predict_classes(X)
    mean = np.mean([model.predict_proba(X) for model in ensemble.models], axis=0)
    z = np.mean([model.predict(X) for model in ensemble.models], axis=0)
    if average == "outputs" and case in ("softmax", "exp"):
        mean = softmax(z)
    elif average == "outputs" and case in ("sigmoid", "several"):
        mean = 1 / (1 + np.exp(-z))
        mean = np.hstack([1 - mean, mean]) if case == "sigmoid" else mean
    np.testing.assert_allclose(p, mean, 1e-12)
    if case == "several":
        assert ensemble.classes_ is None
        np.testing.assert_array_equal(classes, p >= 0.5)
        return
    assert ensemble.classes_.tolist() == np.unique(y).tolist()
    np.testing.assert_array_equal(classes, ensemble.classes_[p.argmax(axis=1)])
    np.testing.assert_allclose(p.sum(axis=1), 1, 1e-12)
    assert ensemble.predict_proba(X, 7).shape == p.shape
    assert ensemble.predict_proba(X[:0]).shape == (0, p.shape[1])


@pytest.mark.parametrize("method", ["predict_proba", "predict_classes"])
@pytest.mark.parametrize("average", ["outputs", "probabilities"])
def test_models_that_do_not_belong_together_have_no_probabilities(method, average):
    def ask(*models):
        getattr(fn.Ensemble(models, average), method)(X)

    models = nets(out=3)
    with pytest.raises(UsageError, match=f"{method}: no trainer with a loss"):
        ask(*models)
    fn.Trainer(models[0], fn.CrossEntropyLoss())
    fn.Trainer(models[1], fn.BCEWithLogitsLoss())
    with pytest.raises(UsageError, match=r"loss of models\[1\] .* 'sigmoid'.* models\[0\]"):
        ask(*models[:2])
    fn.Trainer(models[2], fn.CrossEntropyLoss()).fit(X, LABELS, verbose=0)
    with pytest.raises(UsageError, match=r"models\[1\] has the classes .* models\[0\] None"):
        ask(models[0], models[2])
    margins = nets(out=3)
    for model in margins:
        fn.Trainer(model, fn.MultiMarginLoss())
    if method == "predict_classes" and average == "outputs":
        wanted = fn.Ensemble(margins).predict(X).argmax(axis=1)
        np.testing.assert_array_equal(fn.Ensemble(margins).predict_classes(X), wanted)
    else:
        with pytest.raises(UsageError, match=method):
            ask(*margins)
