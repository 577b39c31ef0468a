"""What losses do where they are not smooth, at the ends of the number line, and for NaN."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from loss_kinks import CLASSES, ELEMENTS, GAUSSIANS

import fastnet as fn
from fastnet.errors import DivergenceError

columns = pytest.mark.parametrize("columns", [1, 16, 37])  # alone, whole vectors, a tail
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def net(row, backend, dtype):
    """A model whose every output is this row: its bias, whose gradient is that of the outputs."""
    model = fn.Sequential(fn.Linear(1, len(row)), dtype=dtype, backend=backend)
    with model.edit() as values:
        values["0.weight"][...] = 0
        values["0.bias"][...] = row
    return model


def check(row, t, loss, slopes, make, backend, dtype, rounding=8):
    """Two rows in a model and alone: the sum of their losses, and the slopes, up to roundings."""
    close = {"rtol": rounding * np.finfo(dtype).eps, "atol": 0}
    x, model, total = np.zeros((2, 1)), net(row, backend, dtype), make(reduction="sum")
    np.testing.assert_allclose(model.value_and_grad(total, x, t), 2 * loss, **close)
    np.testing.assert_allclose(model.grads["0.bias"], 2 * np.array(slopes), **close)
    alone, y = make(reduction="none"), np.array([row, row], dtype)
    np.testing.assert_allclose(alone.forward(y, t).sum(), 2 * loss, **close)
    np.testing.assert_allclose(alone.backward(), [slopes, slopes], **close)
    return model


@columns
@dtypes
@pytest.mark.parametrize(("kind", "options", "y", "t", "loss", "slope"), ELEMENTS)
def test_of_elements(backend, dtype, columns, kind, options, y, t, loss, slope):
    make = functools.partial(kind, **options)
    target, slopes = np.full((2, columns), t), np.full(columns, slope)
    check([y] * columns, target, columns * loss, slopes, make, backend, dtype)


@columns
@dtypes
@pytest.mark.parametrize(("options", "mean", "variance", "t", "loss", "dmean", "dvar"), GAUSSIANS)
def test_of_gaussians(backend, dtype, columns, options, mean, variance, t, loss, dmean, dvar):
    make = functools.partial(fn.GaussianNLLLoss, **options)
    row, slopes = (np.repeat(pair, columns) for pair in ([mean, variance], [dmean, dvar]))
    check(row, np.full((2, columns), t), columns * loss, slopes, make, backend, dtype)


@pytest.mark.parametrize("columns", [2, 16, 37])
@dtypes
@pytest.mark.parametrize(("kind", "options", "a", "b", "loss", "at_label", "elsewhere"), CLASSES)
def test_of_labels(backend, dtype, columns, kind, options, a, b, loss, at_label, elsewhere):
    label = np.arange(columns) == columns // 2
    slopes = np.array([at_label(columns) if own else elsewhere(columns) for own in label])
    row, t = np.where(label, a, b), np.full(2, columns // 2)
    make = functools.partial(kind, **options)
    model = check(row, t, loss(columns), slopes, make, backend, dtype, 16)
    mean = model.value_and_grad(make(), np.zeros((2, 1)), t)  # which has kernels of its own
    assert mean == pytest.approx(loss(columns), rel=1e-6, abs=0)
    np.testing.assert_allclose(model.grads["0.bias"], slopes, rtol=1e-6, atol=1e-9)


LABELS = np.array([0, 0])
NANS = {  # a loss, its targets for rows of two outputs
    **{
        f"{kind.__name__} {options or ''}": (functools.partial(kind, **options), np.ones((2, 2)))
        for kind, options, *_ in [*ELEMENTS, (fn.MSELoss, {}), (fn.HalfMSELoss, {})]
    },
    "GaussianNLLLoss": (fn.GaussianNLLLoss, np.ones((2, 1))),
    **{
        f"{kind.__name__} {options or ''}": (functools.partial(kind, **options), LABELS)
        for kind, options, *_ in CLASSES
    },
    **{
        f"{kind.__name__} without weight": (functools.partial(kind, weight=[0, 1]), LABELS)
        for kind in (fn.CrossEntropyLoss, fn.NLLLoss, fn.MultiMarginLoss, fn.OneVsRestHingeLoss)
    },
    "NLLLoss by HierarchicalSoftmaxLoss": (fn.HierarchicalSoftmaxLoss, LABELS),
    "CrossEntropyLoss of probabilities": (fn.CrossEntropyLoss, np.ones((2, 2))),
    "CrossEntropyLoss of nothing": (fn.CrossEntropyLoss, np.zeros((2, 2))),
}


@dtypes
@pytest.mark.parametrize("case", NANS)
@pytest.mark.parametrize("place", [0, 1])
def test_nan_is_seen(backend, dtype, case, place):
    """An output that is NaN makes a loss NaN, which no fit goes on with."""
    make, t = NANS[case]
    row = [0.25, 0.5]
    row[0 if case.startswith("NLLLoss") else place] = np.nan  # which sees the label's alone
    model = net(row, backend, dtype)
    for reduction in ("mean", "sum"):
        assert math.isnan(make(reduction=reduction).forward([row, row], t))
        with pytest.raises(DivergenceError, match=r"loss of step \d+ is nan"):
            model.value_and_grad(make(reduction=reduction), np.zeros((2, 1)), t)


@dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", [fn.CrossEntropyLoss, fn.NLLLoss])
def test_ignored_rows_add_nothing_whatever_they_hold(backend, dtype, kind, reduction):
    """The first row's outputs are infinite, and their softmax NaN."""
    loss, x = kind(ignore_index=1, reduction=reduction), np.array([[2.0], [0.0]])
    model = net([0.25, 0.5], backend, dtype)
    with model.edit() as values:
        values["0.weight"][...] = [[np.finfo(dtype).max], [np.finfo(dtype).min]]
    both, alone = (
        (model.value_and_grad(loss, x[i:], [1, 0][i:]), *(g.copy() for g in model.grads.values()))
        for i in (0, 1)
    )
    for got, wanted in zip(both, alone, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert both[0] != 0


def test_every_loss_is_asked():
    losses = {v for v in vars(fn.losses).values() if isinstance(v, type) and issubclass(v, fn.Loss)}
    asked = {getattr(make, "func", make) for make, _ in NANS.values()}
    assert asked == losses - {fn.Loss, fn.EnsembleLoss, fn.FunctionLoss}
