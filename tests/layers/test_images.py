"""RandomTranslation, RandomFlip and RandomContrast: what they do to images, and with which probability."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(1, 2, (400, 5, 6, 2))
X = IMAGES.reshape(400, -1)
KINDS = {
    "shift": lambda: fn.RandomTranslation((5, 6, 2), 2, 3),
    "flip": lambda: fn.RandomFlip((5, 6, 2), "horizontal_and_vertical"),
    "contrast": lambda: fn.RandomContrast(0.3),
}


def moved(image, down, right):
    """A shifted image, with 0 from outside."""
    found = np.zeros_like(image)
    high, wide = image.shape[:2]
    for i in range(high):
        for j in range(wide):
            if 0 <= i - down < high and 0 <= j - right < wide:
                found[i, j] = image[i - down, j - right]
    return found


def output(layer, x=X, backend="reference", seed=0):
    return fn.Sequential(layer, dtype="float64", backend=backend, seed=seed).forward(x)


def which(image, candidates):
    found = [key for key, other in candidates.items() if np.array_equal(image, other)]
    assert len(found) == 1
    return found[0]


def is_uniform(found, wanted):
    """Whether counts are within four standard deviations of equal ones."""
    assert set(found) == set(wanted)
    counts = np.unique(np.array([wanted.index(f) for f in found]), return_counts=True)[1]
    expected = len(found) / len(wanted)
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_translation_shifts_each_image_uniformly(backend):
    y = output(KINDS["shift"](), backend=backend).reshape(IMAGES.shape)
    shifts = [(d, r) for d in range(-2, 3) for r in range(-3, 4)]
    found = [which(b, {s: moved(a, *s) for s in shifts}) for a, b in zip(IMAGES, y, strict=True)]
    for axis, most in ((0, 2), (1, 3)):
        is_uniform([f[axis] for f in found], [*range(-most, most + 1)])
    assert abs(np.corrcoef(np.array(found).T)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("horizontal", [(1, 1), (1, -1)]),
        ("vertical", [(1, 1), (-1, 1)]),
        ("horizontal_and_vertical", [(1, 1), (1, -1), (-1, 1), (-1, -1)]),
    ],
)
def test_flip_mirrors_half_of_the_images(mode, kinds, backend):
    y = output(fn.RandomFlip((5, 6, 2), mode), backend=backend).reshape(IMAGES.shape)
    found = [
        which(b, {k: a[:: k[0], :: k[1]] for k in kinds}) for a, b in zip(IMAGES, y, strict=True)
    ]
    is_uniform(found, kinds)


def test_contrast_stretches_around_the_mean(backend):
    y = output(KINDS["contrast"](), backend=backend)
    mean = X.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(y.mean(axis=1, keepdims=True), mean)
    factors = np.sum((y - mean) * (X - mean), axis=1) / np.sum((X - mean) ** 2, axis=1)
    np.testing.assert_allclose(y, mean + factors[:, None] * (X - mean))
    assert 0.7 < factors.min() < 0.71 and 1.29 < factors.max() < 1.3
    assert abs(factors.mean() - 1) < 0.03 and abs(np.var(factors) - 0.6**2 / 12) < 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_changes_nothing_and_each_step_draws_anew(kind, backend):
    model = fn.Sequential(KINDS[kind](), dtype="float64", backend=backend, seed=3)
    first, second = model.forward(X), model.forward(X)
    assert not np.array_equal(first, second)
    again = fn.Sequential(KINDS[kind](), dtype="float64", backend=backend, seed=3)
    np.testing.assert_array_equal(first, again.forward(X))
    np.testing.assert_array_equal(model.predict(X), X)
    np.testing.assert_array_equal(model.eval().forward(X), X)


def test_layers_of_one_model_draw_by_themselves():
    model = fn.Sequential(KINDS["flip"](), KINDS["flip"](), dtype="float64", seed=0)
    y = model.forward(X).reshape(IMAGES.shape)
    same = np.mean([np.array_equal(a, b) for a, b in zip(IMAGES, y, strict=True)])
    assert 0.1 < same < 0.4  # a quarter


def test_images_of_one_channel_are_matrices():
    one, two = fn.RandomTranslation((5, 12)), fn.RandomTranslation((5, 12, 1))
    np.testing.assert_array_equal(output(one), output(two))
    assert not np.array_equal(output(one), output(fn.RandomTranslation((12, 5))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_with_it_gives_equal_nets_on_every_backend(kind, backend):
    def fit(name):
        layers = KINDS[kind](), fn.Linear(60, 4), fn.Tanh(), fn.Linear(4, 1)
        model = fn.Sequential(*layers, dtype="float64", backend=name, seed=1)
        y = X[:, :1] + X[:, -1:]
        fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=2).fit(X, y, 2, verbose=0)
        return model.predict(X)

    np.testing.assert_allclose(fit(backend), fit("reference"), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fn.RandomFlip((5,)), r"^shape is \(5,\); expected \(height, width\)"),
        (lambda: fn.RandomFlip((5, 0)), r"^shape is \(5, 0\); expected \(height"),
        (lambda: fn.RandomFlip(28), "^shape is 28; expected"),
        (lambda: fn.RandomFlip((5, 6), "up"), "^mode is 'up'; expected one of 'horizontal'"),
        (
            lambda: fn.RandomTranslation((5, 6), 5),
            r"^height is 5 and shape is \(5, 6\); expected .* \[0, 4\]",
        ),
        (lambda: fn.RandomTranslation((5, 6), 1, 6), r"^width is 6 and shape is .* \[0, 5\]"),
    ],
)
def test_refusals(make, message):
    refused(make, HyperparameterError, message)


def test_rows_of_another_size_are_refused():
    model = fn.Sequential(fn.RandomFlip((5, 6)), fn.Linear(30, 1))
    refused(lambda: model.predict(X), ShapeError, r"expected")
    refused(
        lambda: fn.Sequential(fn.Linear(3, 31), fn.RandomFlip((5, 6))),
        ShapeError,
        r"rows of shape \(31,\) came, expected 30 = 5·6 values",
    )
