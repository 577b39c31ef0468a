"""Confusion matrices, held to scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.integers(0, 4, 200)
PREDICTED = np.where(RANDOM.random(200) < 0.7, TRUE, RANDOM.integers(0, 4, 200))
WORDS = np.array(["ash", "birch", "cedar", "oak"])


def counts(figure):
    """The numbers that are written in the cells."""
    texts = figure.axes[0].texts
    size = round(len(texts) ** 0.5)
    found = np.zeros((size, size), int)
    for text in texts:
        x, y = text.get_position()
        found[y, x] = int(text.get_text())
    return found


def names(figure):
    axes = figure.axes[0]
    found = [[t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis)]
    assert found[0] == found[1]
    return found[0]


def test_counts_and_shares_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    figure = fn.plot.confusion_matrix(TRUE, PREDICTED)
    np.testing.assert_array_equal(counts(figure), metrics.confusion_matrix(TRUE, PREDICTED))
    shares = metrics.confusion_matrix(TRUE, PREDICTED, normalize="true")
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), shares)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    right = int((TRUE == PREDICTED).sum())
    assert axes.get_title() == f"accuracy {right / 200:.4g}  ({right} of 200 rows)"
    assert figure.axes[1].get_ylabel() == "share of the true class"


@pytest.mark.parametrize("make", [np.asarray, list, lambda a: np.asarray(a, "int8")])
def test_labels_of_any_integer_type(make):
    figure = fn.plot.confusion_matrix(make([0, 1, 2, 2]), make([0, 2, 2, 2]))
    np.testing.assert_array_equal(counts(figure), [[1, 0, 0], [0, 0, 1], [0, 0, 2]])


def test_outputs_of_a_model_stand_for_their_largest():
    output = np.eye(5)[PREDICTED] + 0.1 * RANDOM.random((200, 5))
    figure = fn.plot.confusion_matrix(TRUE, output)
    plain = counts(fn.plot.confusion_matrix(TRUE, PREDICTED))
    np.testing.assert_array_equal(counts(figure)[:4, :4], plain)
    assert names(figure) == ["0", "1", "2", "3", "4"] and counts(figure)[4].sum() == 0


def test_words_and_their_order():
    plain = counts(fn.plot.confusion_matrix(TRUE, PREDICTED))
    words = WORDS[TRUE], WORDS[PREDICTED]
    figure = fn.plot.confusion_matrix(*words)
    assert names(figure) == [*WORDS]
    np.testing.assert_array_equal(counts(figure), plain)
    order = ["oak", "ash", "cedar", "birch"]
    figure = fn.plot.confusion_matrix(*(list(part) for part in words), classes=order)
    assert names(figure) == order
    np.testing.assert_array_equal(counts(figure), plain[np.ix_([3, 0, 2, 1], [3, 0, 2, 1])])


def test_names_of_numbered_classes():
    figure = fn.plot.confusion_matrix([0, 1, 1], [0, 1, 0], classes=["no", "yes", "perhaps"])
    assert names(figure) == ["no", "yes", "perhaps"]
    np.testing.assert_array_equal(counts(figure), [[1, 0, 0], [1, 1, 0], [0, 0, 0]])


def test_counts_can_be_read_on_their_cells():
    """Light on dark cells, dark on light ones: by the WCAG's ratio of luminances, at least 4 : 1."""
    from matplotlib import colors

    def luminance(color):
        rgb = np.array(colors.to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for share in range(1, 100):
        predicted = [0] * share + [1] * (100 - share)
        figure = fn.plot.confusion_matrix([0] * 100, predicted)
        image = figure.axes[0].images[0]
        for text in figure.axes[0].texts[:2]:
            x, y = text.get_position()
            cell = luminance(image.to_rgba(image.get_array())[y, x][:3])
            dark, light = sorted((cell, luminance(text.get_color())))
            assert (light + 0.05) / (dark + 0.05) > 4, text


def test_many_classes_have_shades_alone_and_fewer_names():
    labels = np.arange(300)
    figure = fn.plot.confusion_matrix(labels, labels[::-1])
    assert not figure.axes[0].texts and len(names(figure)) == 30
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, np.eye(300)[::-1])


def test_long_names_are_cut():
    figure = fn.plot.confusion_matrix([0, 1], [0, 1], classes=["a" * 99, "b"])
    assert names(figure) == ["a" * 21 + "...", "b"]


REFUSED = {
    "lengths": (([0, 1], [0]), ShapeError, "^y_true has 2 rows and y_pred 1"),
    "no rows": (([], []), ShapeError, r"^y_true is .*; expected labels of shape \(n,\)"),
    "one output": (([0], [[0.3]]), ShapeError, "^y_pred is .*; expected labels .* Of one output"),
    "numbers": (([0.5, 1.0], [0, 1]), DataError, "^y_true has dtype float64; expected labels"),
    "kinds": (([0, 1], ["a", "b"]), DataError, "^y_true and y_pred have labels of different kinds"),
    "a lost name": (
        ([0, 2], [0, 1], ["a", "b"]),
        HyperparameterError,
        "^classes has 2 names and lacks the label 2",
    ),
    "a lost word": (
        (["a", "c"], ["a", "a"], ["a", "b"]),
        HyperparameterError,
        "^classes has 2 names and lacks the label 'c'",
    ),
    "a word for names": (([0, 1], [0, 1], "ab"), HyperparameterError, "^classes is 'ab'; expected"),
    "equal names": (([0, 1], [0, 1], ["a", "a"]), HyperparameterError, "^classes is .* different"),
    "too many": ((np.arange(501), np.arange(501)), DataError, "have 501 different labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    given, kind, message = REFUSED[case]
    refused(lambda: fn.plot.confusion_matrix(*given), kind, message)
