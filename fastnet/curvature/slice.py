"""Slices of a loss along one or two directions of the parameters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import (
    DivergenceError,
    HyperparameterError,
    UsageError,
    check_flag,
    check_int,
    check_kind,
    check_real,
    check_seed,
    shown,
)
from fastnet.losses.base import Loss
from fastnet.losses.function import as_loss
from fastnet.model import Sequential
from fastnet.model.curvature import direction_of, joins_rows
from fastnet.model.order import places_by_name
from fastnet.model.runtime import PREDICT_ROWS
from fastnet.model.structure import Ending
from fastnet.op import Array


@dataclass(frozen=True, eq=False, repr=False)
class Landscape:
    """The loss at points of a line or a plane through the parameters; `fn.plot.landscape` draws it.

    alpha: float64 (points,), the multiples of the first direction. beta: those of the second, or None for a
        line. loss: float64 (points,), or (points, points) with loss[i, j] at θ + alpha[i]·d₀ + beta[j]·d₁;
        inf or NaN where it overflows. directions: one dict or two, arrays by the names of
        `named_parameters` and in their shapes, in the model's dtype.
    """

    alpha: Array
    beta: Array | None
    loss: Array
    directions: list[dict[str, Array]]

    def __repr__(self) -> str:
        size = "×".join(map(str, self.loss.shape))
        return f"<Landscape of {size} losses, from {self.loss.min():.4g} to {self.loss.max():.4g}>"


def landscape(
    model: Any,
    loss: Any,
    X: Any,
    y: Any,
    *,
    directions: Any = 2,
    points: int = 25,
    extent: float = 1.0,
    normalize: bool = True,
    sample_weight: Any = None,
    seed: int | None = 0,
) -> Landscape:
    """The loss of all rows on a line or a plane through the model's parameters θ.

    L(α, β) = loss at θ + α·d₀ + β·d₁, for α and β in `points` equal steps from −extent to extent.

    model, loss, X, y, sample_weight: as for `Sequential.hvp`; the loss is that of `Trainer.evaluate` where
        all layers are in evaluation mode.
    directions: 1 or 2 (default), so many random ones of normal numbers; or a list of one or two directions,
        each arrays by the names of `named_parameters` and in their shapes, for all that are not frozen,
        such as `vectors` of `fn.curvature.eigenvalues`.
    points: integer ≥ 2 (default 25). With an odd number the centre is θ itself.
    extent: number > 0 (default 1).
    normalize: True (default) scales each filter of a direction to the norm of the same filter of θ, and
        sets what has no filters to 0. The filter of a weight matrix is the row of one unit, in the shape
        (out, in); biases and the parameters of norms, which have one dimension, have none. So slices of
        different nets can be compared, though weights before a ReLU or a norm have an arbitrary scale.
        False takes directions as they are.
    seed: of random directions, an integer in [0, 2⁶⁴) (default 0) or None, a random one.

    Returns a Landscape: `alpha`, `beta`, `loss` and the `directions` as they were used. It works on a copy
    of the model. Raises UsageError for a loss that is a Python function.
    Source: H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein, "Visualizing the loss landscape of neural
    nets", NeurIPS 2018, arXiv 1712.09913.
    """
    check_kind("model", model, Sequential)
    points = check_int("points", points, low=2)
    extent = check_real("extent", extent, low=0.0, open_low=True)
    normalize = check_flag("normalize", normalize)
    seed = check_seed("seed", seed)
    model._root("landscape")
    known: Loss = as_loss(loss)
    known.check_trainable()
    if known.on_host:
        raise UsageError(
            f"landscape: loss is {shown(loss)}, which Python computes; expected a loss of fastnet's"
        )
    x = model.features("X", model.on_host("X", X))
    data = model.data(known, x, y, "X", "y", sample_weight, by_rows=True)
    with model.training_lock():
        given = _given(model, directions, seed)
        if normalize:
            given = [_normalized(model, d) for d in given]
        moved = _Moved(copy.deepcopy(model), known, data)
    alpha = np.linspace(-extent, extent, points)
    alpha[np.abs(alpha) < 1e-12 * extent] = 0.0
    losses = np.empty([points] * len(given))
    for at in np.ndindex(*losses.shape):
        losses[at] = moved.loss([float(alpha[i]) for i in at], given)
    names = [
        {n: np.array(d[p], model.dtype) for n, p in places_by_name(model).items()} for d in given
    ]
    return Landscape(alpha, alpha.copy() if len(given) == 2 else None, losses, names)


def _given(model: Sequential, directions: Any, seed: int | None) -> list[Array]:
    """The directions as float64 vectors in the model's own order."""
    size = len(model.bind().trainable_places())
    if not size:
        raise UsageError("the model has no trainable parameters; unfreeze some by model.unfreeze()")
    if isinstance(directions, (list, tuple)) and len(directions) in (1, 2):
        return [direction_of(model, f"directions[{i}]", d) for i, d in enumerate(directions)]
    try:
        count = check_int("directions", directions, low=1, high=2)
    except HyperparameterError:
        raise HyperparameterError(
            f"directions is {shown(directions)}; expected 1 or 2, or a list of one or two directions, such "
            "as the vectors of fn.curvature.eigenvalues"
        ) from None
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size) for _ in range(count)]


def _normalized(model: Sequential, direction: Array) -> Array:
    """A direction whose filters have the norms of the model's."""
    storage = model.bind()
    values = storage.flat("params")[storage.trainable_places()].astype(np.float64)
    found = np.zeros_like(direction)
    for places in places_by_name(model).values():
        if places.ndim < 2:
            continue
        rows = places.reshape(len(places), -1)
        now, wanted = (np.linalg.norm(v[rows], axis=1, keepdims=True) for v in (direction, values))
        found[rows] = direction[rows] * np.divide(
            wanted, now, out=np.zeros_like(now), where=now > 0
        )
    if not found.any():
        raise UsageError(
            "landscape: with normalize=True nothing of the directions is left, as only matrices of weights "
            "have filters, and those of the model or of the directions are 0; expected normalize=False"
        )
    return found


class _Moved:
    """A model of its own, whose loss is taken at other parameters; running statistics stay as they are."""

    def __init__(self, model: Sequential, loss: Loss, data: Dataset) -> None:
        self.model, self.known, self.data = model, loss, data
        modes, count = model._modes(), data.rows
        model._check_rows(count, modes)
        rows = count if joins_rows(model, modes) else min(PREDICT_ROWS, count)
        ending = Ending(loss, data.classes > 0, data.w is not None, outputs=False)
        runtime = model._runtime
        self._executor = runtime.executor_of_loss(data.row_shape, rows, modes, ending)
        self._steps = Steps(np.arange(count), batch_offsets(count, rows), model.seed, model._draws)
        self._steps.row_losses = np.empty(count)
        self._storage = storage = model.bind()
        self._places = storage.trainable_places()
        self._start = storage.flat("params")[self._places].astype(np.float64)
        self._buffers = storage.segments["buffers"].copy()

    def loss(self, at: list[float], directions: list[Array]) -> float:
        """The loss at θ + Σ at_i·d_i; inf or NaN where it overflows."""
        moved = self._start.copy()
        for factor, direction in zip(at, directions, strict=True):
            moved += factor * direction
        with np.errstate(over="ignore"):
            self._storage.flat("params")[self._places] = moved
        np.copyto(self._storage.segments["buffers"], self._buffers)
        self.model.touch()
        executor = self._executor
        try:
            executor.train(self.data, self._steps, None)
        except DivergenceError:
            return float(executor.losses[executor.steps_done])
        losses = self._steps.row_losses
        assert losses is not None
        return self.known.of_rows(losses, self.data.y, self.data.w)
