"""Small refusals and remedies, each of something that people meet."""

from fractions import Fraction

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError

X = np.random.default_rng(0).standard_normal((9, 3))


def test_a_minibatch_too_small_for_batchnorm_names_drop_last(backend):
    model = fn.Sequential(fn.Linear(3, 2), fn.BatchNorm1d(2), backend=backend)
    *_, last = fn.batches(X, batch_size=4, seed=0)
    with pytest.raises(ShapeError, match=r"minibatch of 1 rows.*drop_last=True"):
        model.forward(last)
    for xb in fn.batches(X, batch_size=4, seed=0, drop_last=True):
        model.forward(xb)


@pytest.mark.parametrize("kind", [fn.Softmax, fn.LogSoftmax])
def test_a_softmax_of_one_feature_is_refused(kind):
    with pytest.raises(ShapeError, match=r"always 1; expected at least 2.*Sigmoid"):
        kind().forward(X[:, :1])
    with pytest.raises(ShapeError, match=rf"layer 1 \({kind.__name__}\)"):
        fn.Sequential(fn.Linear(3, 1), kind()).predict(X)


@pytest.mark.parametrize("size", [1e200, 1e-200, 1e308, 1e-320])
def test_norms_beyond_the_range_of_squares(backend, size):
    model = fn.Sequential(fn.Linear(3, 50, bias=False), dtype="float64", backend=backend, seed=0)
    model.forward(np.eye(3))
    model.backward(np.full((3, 50), size))
    with np.errstate(over="ignore"):
        norm = np.sqrt(150) * size
    assert fn.clip_grad_norm_(model, 2.0) == pytest.approx(
        norm, rel=1e-3 if size < 1e-300 else 1e-12
    )
    clipped = np.concatenate([g.ravel() for g in model.grads.values()])
    if np.isfinite(norm):
        wanted = 2.0 if size > 1 else norm
        assert np.linalg.norm(clipped / clipped.max()) * clipped.max() == pytest.approx(wanted)


def test_units_beyond_the_range_of_squares_are_scaled(backend):
    model = fn.Sequential(fn.Linear(3, 5, bias=False), dtype="float64", backend=backend, seed=0)
    with model.edit() as p:
        p["0.weight"][...] = 1e200
        p["0.weight"][2] = [0.1, 0.0, 0.0]
    fn.SGD(1e-300, max_norm=0.5).step(model)
    lengths = np.linalg.norm(model.state_dict()["0.weight"], axis=1)
    np.testing.assert_allclose(lengths, [0.5, 0.5, 0.1, 0.5, 0.5])


@pytest.mark.parametrize("bad", ["no", None, 2, -1, 0.5, [1], np.ones(3)])
def test_verbose_is_0_or_1(bad):
    trainer = fn.Trainer(fn.Sequential(fn.Linear(3, 1)), fn.MSELoss())
    with pytest.raises(HyperparameterError, match=r"^verbose is .*; expected 0 \(silent\) or 1"):
        trainer.fit(X, X[:, :1], verbose=bad)
    assert trainer.epoch == 0


def test_a_whole_float_is_a_power_of_the_hinge():
    y = np.array([0, 1, 2])
    a, b = (fn.MultiMarginLoss(p=p).forward(X[:3], y) for p in (1.0, 1))
    assert a == b and fn.MultiMarginLoss(p=2.0).p == 2
    with pytest.raises(HyperparameterError, match=r"^p is 1\.5"):
        fn.MultiMarginLoss(p=1.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.datasets.read_idx("a\0b"), "^path is 'a.*b'; expected a path: "),
        (lambda: fn.datasets.read_idx("\ud800"), "^path is .*; expected a path: "),
        (
            lambda: fn.init.Uniform(Fraction(1, 2), Fraction(1, 3)),
            r"^b is Fraction\(1, 3\); expected a finite number in \(0\.5, inf\)$",
        ),
        (
            lambda: fn.Sequential(fn.ReLU())["0"],
            "^the index of a layer is '0'; expected an integer or a slice$",
        ),
        (lambda: fn.SGD(0.1).state("model"), "^model is 'model'; expected a Sequential$"),
        (lambda: fn.SGD(0.1).reset("model"), "^model is 'model'; expected a Sequential$"),
    ],
)
def test_no_error_is_foreign(call, message):
    refused(call, HyperparameterError, message)
