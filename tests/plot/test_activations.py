"""The bands of each layer's activations over the training."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError

X = np.random.default_rng(0).normal(size=(60, 3))


def recorded(**options):
    layers = fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 5), fn.ReLU(), fn.Linear(5, 2)
    record = fn.Record(**options)
    trainer = fn.Trainer(fn.Sequential(*layers, seed=0), fn.MSELoss(), seed=0)
    trainer.fit(X, X[:, :2], 6, callbacks=[record], verbose=0)
    return record


def test_a_median_and_a_band_for_each_layer():
    record = recorded(gradients=False, every=2)
    figure = fn.plot.activations(record)
    assert len(figure.axes) == 5
    for path, axes in enumerate(figure.axes):
        numbers = [one["activations"][str(path)] for one in record.history]
        (median,) = axes.get_lines()
        assert [*median.get_xdata()] == [0, 2, 4, 6]
        assert [*median.get_ydata()] == [n["p50"] for n in numbers]
        (band,) = axes.collections
        edges = band.get_paths()[0].vertices
        for n, epoch in zip(numbers, (0, 2, 4, 6), strict=True):
            there = edges[edges[:, 0] == epoch, 1]
            assert (there.min(), there.max()) == pytest.approx((n["p15"], n["p85"]))
        assert axes.get_title(loc="left").startswith(f"{path}  {numbers[0]['layer']}")
        assert axes.get_xlabel() == "epoch"
    assert ", saturated " in figure.axes[1].get_title(loc="left")
    assert ", dead " in figure.axes[3].get_title(loc="left")
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["15 % to 85 %", "median"]


def test_some_layers_of_a_plain_history():
    history = recorded().history
    titles = [a.get_title(loc="left") for a in fn.plot.activations(history, ["3", "1"]).axes]
    assert [title[:4] for title in titles] == ["3  R", "1  T"]


def test_what_is_refused():
    record = recorded()
    for bad in ("9", ["1", "9"], [], 3, [1]):
        refused(
            lambda bad=bad: fn.plot.activations(record, bad),
            HyperparameterError,
            "^layers is .*; expected paths among '0', '1', '2', '3', '4'$",
        )
    for bad in (3, None, fn.History([{"loss": 1.0}]), [3], {"epoch": 1}):
        refused(
            lambda bad=bad: fn.plot.activations(bad),
            HyperparameterError,
            "^record is .*; expected a fastnet.Record, or its history$",
        )
    for empty in (fn.Record(), [], recorded(activations=False)):
        refused(
            lambda empty=empty: fn.plot.activations(empty),
            UsageError,
            "^plot.activations: the record has no activations; fit with callbacks",
        )
