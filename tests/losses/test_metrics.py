"""Metrics know their loss: which rows count, and what counts as right."""

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(0)
X = RNG.standard_normal((64, 3)).astype(np.float32)
TRUE = RNG.integers(0, 2, (64, 1)).astype(np.float32)


def scores(loss, width, y, metrics=None, final=None):
    layers = [fn.Linear(3, width), *([final] if final else [])]
    model = fn.Sequential(*layers, seed=1)
    found = fn.Trainer(model, loss, metrics=metrics).evaluate(X, y)
    return found, model.predict(X)


@pytest.mark.parametrize("given", [None, {"accuracy": fn.accuracy}])
@pytest.mark.parametrize("columns", [1, 4])
def test_binary_losses_compare_element_by_element(given, columns):
    y = RNG.integers(0, 2, (64, columns)).astype(np.float32)
    found, output = scores(fn.BCEWithLogitsLoss(), columns, y, given)
    assert found["accuracy"] == np.mean((output >= 0) == (y == 1)) < 1
    found, output = scores(fn.BCELoss(), columns, y, given, fn.Sigmoid())
    assert found["accuracy"] == np.mean((output >= 0.5) == (y == 1)) < 1


def test_a_fit_reports_binary_accuracy_of_its_own_steps():
    model = fn.Sequential(fn.Linear(3, 1), seed=1)
    trainer = fn.Trainer(model, fn.BCEWithLogitsLoss(), fn.SGD(0.0))
    record = trainer.fit(X, TRUE, validation_data=(X, TRUE), verbose=0).records[0]
    share = np.mean((model.predict(X) >= 0) == (TRUE == 1))
    assert record["accuracy"] == pytest.approx(share) and record["val_accuracy"] == share < 1


def test_targets_from_a_half_on_are_true():
    y, output = np.array([[0.5], [0.49], [0.9]]), np.array([[0.0], [-0.1], [-2.0]])
    assert fn.binary_accuracy(threshold=0)(y, output) == pytest.approx(2 / 3)
    assert fn.binary_accuracy()(y, np.array([[0.5], [0.4], [0.4]])) == pytest.approx(2 / 3)


def test_binary_accuracy_never_broadcasts():
    with pytest.raises(fn.errors.ShapeError, match=r"targets of shape \(3,\) for outputs \(3, 1\)"):
        fn.binary_accuracy()(np.ones(3), np.ones((3, 1)))
    with pytest.raises(fn.errors.HyperparameterError, match="threshold"):
        fn.binary_accuracy(np.nan)


def test_accuracy_of_one_column_names_the_binary_one():
    with pytest.raises(fn.errors.HyperparameterError, match=r"fn\.binary_accuracy\(threshold="):
        fn.accuracy(np.zeros(3, np.int64), np.zeros((3, 1)))
    model = fn.Sequential(fn.Linear(3, 1), seed=1)
    trainer = fn.Trainer(model, fn.MSELoss(), metrics={"right": fn.accuracy})
    before = model.state_dict()["0.weight"].copy()
    with pytest.raises(fn.errors.HyperparameterError, match="binary_accuracy"):
        trainer.fit(X, TRUE, verbose=0)
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before)


def test_accuracy_of_other_shapes_is_refused():
    with pytest.raises(fn.errors.ShapeError, match=r"targets of shape \(2,\)"):
        fn.accuracy(np.zeros(2, np.int64), np.zeros((3, 2)))


@pytest.mark.parametrize("loss", [fn.CrossEntropyLoss, fn.NLLLoss])
@pytest.mark.parametrize("ignored", [-100, 1])
def test_ignored_rows_do_not_count(loss, ignored):
    y = RNG.integers(0, 3, 64)
    y[::3] = ignored
    found, output = scores(loss(ignore_index=ignored), 3, y)
    kept = y != ignored
    assert found["accuracy"] == np.mean(output.argmax(1)[kept] == y[kept])


def test_classes_of_weight_0_do_not_count():
    y = RNG.integers(0, 3, 64)
    found, output = scores(fn.CrossEntropyLoss(weight=[1.0, 0.0, 2.0]), 3, y)
    kept = y != 1
    assert found["accuracy"] == np.mean(output.argmax(1)[kept] == y[kept])


@pytest.mark.parametrize(
    "loss", [fn.CrossEntropyLoss, fn.NLLLoss, fn.MultiMarginLoss, fn.OneVsRestHingeLoss]
)
def test_losses_of_classes_refuse_one_output(loss):
    with pytest.raises(fn.errors.ShapeError, match="BCEWithLogitsLoss"):
        fn.Trainer(fn.Sequential(fn.Linear(3, 1)), loss()).fit(X, np.zeros(64, np.int64), verbose=0)
