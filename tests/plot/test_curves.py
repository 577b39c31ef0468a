"""history.plot(): the curves of a fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import UsageError

X = np.random.default_rng(0).normal(size=(60, 3))
LABELS = (X[:, 0] > 0).astype(int)


def fitted(**options):
    model = fn.Sequential(fn.Linear(3, 2), seed=0)
    return fn.Trainer(model, fn.CrossEntropyLoss(), fn.SGD(0.5), seed=0).fit(
        X, LABELS, 12, verbose=0, **options
    )


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_loss_and_metrics_with_their_validation():
    history = fitted(validation_data=(X[:9], LABELS[:9]))
    loss, accuracy = history.plot().axes
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", name)
        for label, column in (("training", name), ("validation", f"val_{name}")):
            line = lines(axes)[label]
            assert [*line.get_xdata()] == [*range(1, 13)]
            assert [*line.get_ydata()] == history.history[column]
        found = [text.get_text() for text in axes.get_legend().get_texts()]
        assert found[:2] == ["training", "validation"]
    train, valid = lines(loss)["training"], lines(loss)["validation"]
    assert train.get_linestyle() != valid.get_linestyle()  # they differ in grey too


def test_the_lowest_validation_loss_is_marked():
    records = [{"epoch": n, "loss": 1.0, "val_loss": v} for n, v in ((4, 3.0), (5, 2.5), (6, 2.75))]
    (axes,) = fn.History(records).plot().axes
    dot = lines(axes)["lowest: 2.5 at 5"]
    assert (dot.get_xdata().tolist(), dot.get_ydata().tolist()) == ([5], [2.5])


def test_without_validation_there_is_a_line_and_no_legend():
    for axes in fitted().plot().axes:
        assert len(axes.get_lines()) == 1 and axes.get_legend() is None


@pytest.mark.parametrize("name", ["lr", "learning_rate"])
def test_a_recorded_rate_has_axes_of_its_own_the_last_ones(name):
    records = [
        {"epoch": n, "loss": 1.0, name: 0.1**n, "seconds": 1.0, "mae": 2.0} for n in (1, 2, 3)
    ]
    axes = fn.History(records).plot().axes
    assert [one.get_ylabel() for one in axes] == ["loss", "mae", "learning rate"]
    assert axes[-1].get_yscale() == "log" and axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([1.0, 0.5, 0.2], "linear"), ([1.0, 0.1, 0.01], "log"), ([1.0, 0.0, 0.01], "linear")],
)
def test_losses_that_span_decades_have_a_logarithmic_axis(losses, scale):
    records = [{"epoch": n, "loss": loss} for n, loss in enumerate(losses, 1)]
    (axes,) = fn.History(records).plot().axes
    assert axes.get_yscale() == scale


def test_epochs_without_a_number_are_gaps():
    """Such as a metric that came with a later fit, or was NaN."""
    records = [
        {"epoch": 1, "loss": 1.0},
        {"epoch": 2, "loss": 0.5, "val_loss": math.nan, "word": "a"},
        {"epoch": 3, "loss": 0.4, "val_loss": 0.7},
    ]
    (axes,) = fn.History(records).plot().axes
    np.testing.assert_array_equal(lines(axes)["validation"].get_ydata(), [np.nan, np.nan, 0.7])


def test_the_iterations_of_a_full_batch_fit():
    trainer = fn.Trainer(fn.Sequential(fn.Linear(3, 2), seed=0), fn.CrossEntropyLoss())
    history = trainer.fit_full_batch(X, LABELS, "gradient-descent", max_iter=5)
    loss, norm = history.plot().axes
    assert loss.get_xlabel() == norm.get_xlabel() == "iteration"
    assert [*lines(loss)["training"].get_xdata()] == [*range(len(history))]


def test_axes_of_epochs_have_whole_numbers():
    for epochs in (1, 2, 3):
        figure = fn.History([{"epoch": n + 1, "loss": 1.0} for n in range(epochs)]).plot()
        figure.draw_without_rendering()
        ticks = figure.axes[0].get_xticks()
        assert len(ticks) and (ticks == ticks.round()).all()


def test_a_history_without_epochs_is_refused():
    refused(fn.History().plot, UsageError, "^plot: the history has no epochs; call fit first")
    refused(fn.History([{"epoch": 1}]).plot, UsageError, "^plot: the history has no numbers")
