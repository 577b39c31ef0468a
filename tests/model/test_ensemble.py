"""Ensemble: averages of outputs and of probabilities, into arrays of one's own too; bad arguments."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError

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
