"""fit(class_weight=...): weights of labels are weights of rows, and not of the loss."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.data.split import split_rows
from fastnet.errors import DataError, HyperparameterError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("f")
CODES = RNG.choice(3, 60, p=[0.6, 0.3, 0.1])
NAMED = np.array(["a", "b", "c"])[CODES]
W = RNG.uniform(0.5, 2.0, 60)
COUNTS = np.bincount(CODES)


def trainer(loss=None, backend="reference", width=3):
    model = fn.Sequential(fn.Linear(3, width), dtype="float64", backend=backend, seed=1)
    return fn.Trainer(model, loss or fn.CrossEntropyLoss(), fn.SGD(0.5), seed=2)


def bits(made):
    return [value.tobytes() for value in made.model.state_dict().values()]


CASES = {
    "a dict": ({0: 0.5, 1: 2.0, 2: 3}, [0.5, 2.0, 3.0]),
    "a part of the classes": ({2: 4.0}, [1.0, 1.0, 4.0]),
    "NumPy's labels": ({np.int64(1): np.float32(0.25)}, [1.0, 0.25, 1.0]),
    "a class that does not count": ({0: 0.0}, [0.0, 1.0, 1.0]),
    "no class": ({}, [1.0, 1.0, 1.0]),
    "balanced": ("balanced", 60 / (3 * COUNTS)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weight", [None, W], ids=["equal", "weighted"])
@pytest.mark.parametrize(
    "loss",
    [
        fn.CrossEntropyLoss(),
        fn.CrossEntropyLoss([1.0, 2.0, 0.5], label_smoothing=0.1),
        fn.CrossEntropyLoss(reduction="sum"),
        fn.OneVsRestHingeLoss(),
    ],
    ids=repr,
)
def test_it_multiplies_the_weights_of_rows(case, weight, loss, backend):
    given, weights = CASES[case]
    one, other = trainer(loss, backend), trainer(loss, backend)
    of_rows = np.asarray(weights)[CODES] * (1.0 if weight is None else weight)
    one.fit(X, CODES, 2, 16, sample_weight=weight, class_weight=given, verbose=0)
    other.fit(X, CODES, 2, 16, sample_weight=of_rows, verbose=0)
    assert bits(one) == bits(other)
    if isinstance(given, dict):
        given = {"abc"[label]: value for label, value in given.items()}
    named = trainer(loss, backend)
    named.fit(X, NAMED, 2, 16, sample_weight=weight, class_weight=given, verbose=0)
    assert bits(named) == bits(one)


@pytest.mark.parametrize("loss", [fn.BCEWithLogitsLoss(), fn.BCEWithLogitsLoss(pos_weight=2)])
@pytest.mark.parametrize("labels", [[0, 1], [False, True], ["no", "yes"], [0.0, 1.0]])
def test_two_classes_by_one_output(loss, labels, backend):
    truths, counts = CODES == 0, np.array([np.sum(CODES != 0), np.sum(CODES == 0)])
    y = np.array(labels)[truths.astype(int)]
    for given, weights in ({labels[1]: 3.0}, [1.0, 3.0]), ("balanced", 60 / (2 * counts)):
        one, other = trainer(loss, backend, 1), trainer(loss, backend, 1)
        one.fit(X, y, 2, 16, class_weight=given, verbose=0)
        other.fit(
            X, truths, 2, 16, sample_weight=np.asarray(weights)[truths.astype(int)], verbose=0
        )
        assert bits(one) == bits(other)


def test_it_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=CODES)
    one, other = trainer(), trainer()
    one.fit(X, CODES, class_weight="balanced", verbose=0)
    other.fit(X, CODES, class_weight=dict(enumerate(expected)), verbose=0)
    assert bits(one) == bits(other)


def test_classes_without_rows_and_ignored_rows_do_not_count():
    y = np.where(CODES == 1, 0, CODES)
    y[:10] = -100
    counts = np.bincount(y[10:], minlength=3)
    loss = fn.CrossEntropyLoss(reduction="sum")  # in a mean a factor of all weights means nothing
    one, other = trainer(loss), trainer(loss)
    one.fit(X, y, class_weight="balanced", verbose=0)
    weights = {0: 50 / (2 * counts[0]), 2: 50 / (2 * counts[2])}
    other.fit(X, y, class_weight=weights, verbose=0)
    assert bits(one) == bits(other)


def test_the_validation_is_not_weighted_and_balanced_counts_the_training():
    one, other = trainer(), trainer()
    one.fit(
        X[:50], CODES[:50], validation_data=(X[50:], CODES[50:]), class_weight={2: 9.0}, verbose=0
    )
    assert one.history.records[0]["val_loss"] == one.evaluate(X[50:], CODES[50:])["loss"]
    one = trainer()
    one.fit(X, CODES, class_weight="balanced", validation_split=7, verbose=0)
    rows, held = split_rows(7, 60, 2, CODES)
    other.fit(
        X[rows],
        CODES[rows],
        class_weight="balanced",
        validation_data=(X[held], CODES[held]),
        verbose=0,
    )
    assert bits(one) == bits(other)
    assert one.history.records[0]["val_loss"] == other.history.records[0]["val_loss"]


def best_constant(loss, **options):
    """The probabilities of the best constant answer where one row in 100 is of class 1."""
    y = (np.arange(200) % 100 == 0).astype(int)
    model = fn.Sequential(fn.Linear(1, 2), dtype="float64", seed=0)
    made = fn.Trainer(model, loss, fn.Adam(0.05), seed=0)
    made.fit(np.zeros((200, 1)), y, 400, 200, verbose=0, **options)
    return model.predict_proba(np.zeros((1, 1)))[0]


def test_smoothed_labels_of_balanced_rows_are_balanced():
    """As weights of the loss they would also weigh the smoothed share of each row, and the rare win."""
    smoothed = {"label_smoothing": 0.1}
    np.testing.assert_allclose(
        best_constant(fn.CrossEntropyLoss(**smoothed), class_weight="balanced"),
        [0.5, 0.5],
        atol=1e-3,
    )
    of_loss = [200 / (2 * 198), 200 / (2 * 2)]
    found = best_constant(fn.CrossEntropyLoss(of_loss, **smoothed))
    np.testing.assert_allclose(found, [0.138, 0.862], atol=2e-3)
    for loss in (fn.CrossEntropyLoss(of_loss), fn.CrossEntropyLoss()):
        weights = None if loss.weight is not None else "balanced"
        np.testing.assert_allclose(best_constant(loss, class_weight=weights), [0.5, 0.5], atol=1e-3)


BAD = {
    "a label nobody has": ({3: 1.0}, r"^class_weight has a weight for 3; the classes are 0, 1, 2$"),
    "a name": ({"a": 1.0}, "^class_weight has a weight for 'a'; the classes are 0, 1, 2$"),
    "a negative weight": (
        {0: -1.0},
        r"^class_weight\[0\] is -1.0; expected a finite number in \[0",
    ),
    "an infinite weight": ({0: np.inf}, r"^class_weight\[0\] is inf"),
    "no number": ({0: "1"}, r"^class_weight\[0\] is '1'"),
    "another word": ("even", "^class_weight is 'even'; expected a dict of weights by label, or"),
    "a list": ([1.0, 2.0, 3.0], "^class_weight is .*; expected a dict"),
    "an array": (np.ones(3), "^class_weight is an array of shape"),
    "a number": (2.0, "^class_weight is 2.0; expected a dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses_changes_nothing(case):
    given, message = BAD[case]
    made = trainer()
    refused(lambda: made.fit(X, CODES, class_weight=given, verbose=0), HyperparameterError, message)
    assert bits(made) == bits(trainer()) and made.epoch == 0 and made.classes_ is None


def test_targets_that_are_no_labels_have_no_weights():
    message = (
        "^class_weight is 'balanced' and y holds no labels for {}; give weights of rows as sample_w"
    )
    for loss, y, width in [
        (fn.MSELoss(), CODES[:, None], 1),
        (fn.CrossEntropyLoss(), np.eye(3)[CODES], 3),
        (fn.BCEWithLogitsLoss(), np.eye(3)[CODES], 3),
        (fn.BCEWithLogitsLoss(), CODES / 3, 1),
        (lambda y, t: (0.0, y), CODES, 1),
    ]:
        made = trainer(loss, width=width)
        name = type(made.loss).__name__
        call = lambda made=made, y=y: made.fit(X, y, class_weight="balanced", verbose=0)  # noqa: E731
        refused(call, HyperparameterError, message.format(name))
    made = trainer()
    refused(
        lambda: made.fit(X, CODES, sample_weight=W[:5], class_weight="balanced", verbose=0),
        fn.errors.ShapeError,
        "^sample_weight has shape",
    )
    refused(lambda: made.fit(X, [None] * 60, class_weight="balanced", verbose=0), DataError, "^y ")
