"""The whole Hessian of a loss, and the diagonal of its Fisher matrix."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import (
    DivergenceError,
    HyperparameterError,
    UsageError,
    check_choice,
    check_flag,
    shown,
)
from fastnet.losses import links
from fastnet.losses.base import Loss
from fastnet.losses.function import as_loss
from fastnet.losses.regression import HalfMSELoss, MSELoss
from fastnet.model.curvature import Curvature
from fastnet.model.order import places_by_name, shown_order
from fastnet.model.rows import RowGradients
from fastnet.model.runtime import PREDICT_ROWS
from fastnet.op import Array
from fastnet.tape import Tape, Value

MATRIX_BYTES = 1 << 31  # of a whole Hessian, at most: 16384 parameters
TILE = 1024  # rows and columns of a matrix that are made symmetric at once


def checked(
    model: Any, what: str, loss: Any, X: Any, y: Any, sample_weight: Any
) -> tuple[Loss, Dataset]:
    """The loss and the checked data of a method of this name."""
    model._root(what)
    loss = as_loss(loss)
    loss.check_trainable()
    x = model.features("X", model.on_host("X", X))
    return loss, model.data(loss, x, y, "X", "y", sample_weight, by_rows=True)


def located(model: Any, loss: Loss, data: Dataset, *, gauss_newton: bool) -> Curvature:
    """The curvature at the model's parameters, whose forward and backward are kept where there is room.

    The caller holds the model's lock. Raises UsageError where no parameter is trainable.
    """
    modes = model._modes()
    model._check_rows(data.rows, modes)
    made = Curvature(
        model,
        loss,
        data,
        modes=modes,
        gauss_newton=gauss_newton,
        kept=True,
        seed=model.seed,
        step=model._draws,
    )
    if not len(made.places):
        raise UsageError("the model has no trainable parameters; unfreeze some by model.unfreeze()")
    return made


def finite(product: Array) -> Array:
    """A product of a curvature, or DivergenceError."""
    if not np.isfinite(product).all():
        raise DivergenceError(
            "the loss has no finite second derivatives here: parameters or inputs are too large for the "
            "model's dtype; inputs scaled to about 1, or a model in float64, usually help"
        )
    return product


def hessian(model: Any, loss: Any, X: Any, y: Any, sample_weight: Any, gauss_newton: Any) -> Array:
    """See Sequential.hessian."""
    gauss_newton = check_flag("gauss_newton", gauss_newton)
    loss, data = checked(model, "hessian", loss, X, y, sample_weight)
    check_size("hessian", len(model.bind().trainable_places()))
    with model.training_lock():
        curvature = located(model, loss, data, gauss_newton=gauss_newton)
        return whole(curvature, shown_order(model))


def check_size(what: str, n: int) -> None:
    """Raise UsageError where a matrix for so many parameters is too large."""
    if 8 * n * n > MATRIX_BYTES:
        most = math.isqrt(MATRIX_BYTES // 8)
        raise UsageError(
            f"{what}: the model has {n} trainable parameters, whose matrix takes {8 * n * n / 2**30:.1f} "
            f"GiB; expected at most {most}: freeze some by model.freeze, or take products by model.hvp, "
            "fn.curvature.eigenvalues or fn.curvature.hutchinson_trace"
        )


def whole(curvature: Curvature, order: Array) -> Array:
    """The matrix of a curvature, symmetric, with rows and columns in this order of the model's own."""
    n = len(order)
    unit, found = np.zeros(n), np.empty((n, n))
    for row, place in enumerate(order):
        unit[place] = 1
        found[row] = finite(curvature.product(unit))[order]
        unit[place] = 0
    return _symmetric(found)


def _symmetric(matrix: Array) -> Array:
    """(A + Aᵀ)/2 in place, in tiles."""
    starts = range(0, len(matrix), TILE)
    for i in starts:
        for j in range(i, len(matrix), TILE):
            above, below = (slice(k, k + TILE) for k in (i, j))
            mean = (matrix[above, below] + matrix[below, above].T) / 2
            matrix[above, below] = mean
            matrix[below, above] = mean.T
    return matrix


def fisher_diagonal(
    model: Any, loss: Any, X: Any, y: Any, sample_weight: Any, labels: Any
) -> dict[str, Array]:
    """See Sequential.fisher_diagonal."""
    check_choice("labels", labels, ("data", "model"))
    loss, data = checked(model, "fisher_diagonal", loss, X, y, sample_weight)
    if loss.on_host:
        raise UsageError(
            f"fisher_diagonal: loss is {shown(loss)}, which Python computes for whole minibatches; "
            "expected a loss of fastnet's, which is a sum over rows"
        )
    row, dtype = data.row_shape, model.dtype
    if labels == "model":
        _check_distribution(loss, model.output_shape(row))
    with model.training_lock():
        modes = model._modes()
        model._check_rows(data.rows, modes)
        most = min(PREDICT_ROWS, data.rows)
        gradients = RowGradients(model, modes, row, most)
        total = np.zeros(gradients.size)
        offsets = batch_offsets(data.rows, most)
        for number, (begin, end) in enumerate(pairwise(offsets)):
            draws = model.seed, model._draws + number
            x = np.ascontiguousarray(np.asarray(data.x[begin:end]), dtype)
            output = gradients.forward(x, *draws).astype(np.float64)
            target = data.y[begin:end]
            w = np.ones(end - begin) if data.w is None else data.w[begin:end].astype(np.float64)
            root = np.sqrt(w).reshape(-1, *[1] * (output.ndim - 1))
            with np.errstate(all="ignore"):  # what is not finite is refused below
                for slope in _slopes(loss, output, target, labels, data.classes):
                    dy = np.where(root > 0, root * slope, 0.0)
                    total += gradients.of(x, dy.astype(dtype), *draws).squares()
        if loss.reduction != "sum":
            total /= data.rows
        if not np.isfinite(total).all():
            raise DivergenceError(
                "fisher_diagonal: the gradient of a row is not finite; inputs scaled to about 1 "
                "usually help"
            )
        return {name: total[places] for name, places in places_by_name(model).items()}


def _check_distribution(loss: Loss, shape: tuple[int, ...]) -> None:
    """Raise HyperparameterError where a loss tells no distribution of targets."""
    known = loss.link in links.OF_PROBABILITIES or type(loss) in (MSELoss, HalfMSELoss)
    if known and len(shape) == 1:
        return
    if known:
        raise HyperparameterError(
            f"labels is 'model' for outputs with rows of shape {shape}; expected (k,), or labels='data'"
        )
    raise HyperparameterError(
        f"labels is 'model', and {type(loss).__name__} tells no distribution of targets; expected "
        "CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss, BCELoss, MSELoss or HalfMSELoss, or labels='data'"
    )


def _slopes(loss: Loss, output: Array, target: Array, labels: str, classes: int) -> Any:
    """Vectors dL/d-output of each row, the squares of whose gradients the Fisher matrix adds up."""
    if labels == "data":
        yield _slope(loss, output, target)
    elif type(loss) in (MSELoss, HalfMSELoss):
        # Of y ~ N(output, 1/h), h the loss's second derivative: E(h·(y_j − t_j))² = h for each output.
        scale = np.sqrt(_slope(loss, output, output - 1))
        yield from _one_by_one(scale)
    elif loss.link in links.ONE_OF_CLASSES:
        p = links.mean_of(loss.link, output)
        for c in range(p.shape[1]):
            drawn = np.full(len(p), c) if classes else np.eye(p.shape[1])[np.full(len(p), c)]
            yield np.sqrt(p[:, [c]]) * _slope(loss, output, drawn)
    else:  # each output is true or not, independently of the others
        p = links.mean_of(loss.link, output)
        no, yes = (_slope(loss, output, np.full(output.shape, t)) for t in (0.0, 1.0))
        yield (1 - p) * no + p * yes
        yield from _one_by_one(np.sqrt(p * (1 - p)) * (yes - no))


def _one_by_one(slopes: Array) -> Any:
    """The same with one output at a time."""
    for j in range(slopes[0].size):
        one = np.zeros(slopes.shape)
        one.reshape(len(one), -1)[:, j] = slopes.reshape(len(one), -1)[:, j]
        yield one


def _slope(loss: Loss, output: Array, target: Array) -> Array:
    """The gradient of each row's loss with respect to its output, float64."""
    if target.dtype != np.int64:
        target = target.astype(np.float64)
    tape, given = Tape(np.dtype(np.float64)), Value(output)
    losses, _ = loss.rows(tape, given, Value(target))
    tape.backward(losses, np.ones(losses.array.shape))
    assert given.grad is not None
    return given.grad
