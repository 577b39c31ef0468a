"""The objective of a full-batch fit: the loss of a data set as a function of one vector."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import DivergenceError, NoSecondDerivatives, ShapeError, UsageError
from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.model.curvature import Curvature
from fastnet.model.rows import RowGradients
from fastnet.op import Array
from fastnet.tape import Tape, Value
from fastnet.train.full_batch.linearization import ByDifferences, Linearization
from fastnet.train.full_batch.settings import Settings

WORKSPACE_BYTES = 1 << 23  # of one native call, approximately


@dataclass(frozen=True, eq=False, repr=False)
class Point:
    """The objective at one x, with value +inf where loss or gradient is not finite."""

    x: Array
    value: float
    gradient: Array
    buffers: Array  # the running statistics after the evaluation

    @property
    def grad_norm(self) -> float:
        """The largest absolute component of the gradient."""
        return float(np.abs(self.gradient).max())


class Objective:
    """The loss of all rows, with its gradient, as a function of the trainable parameters.

    The parameters are one float64 vector without padding. One native call evaluates a block of rows, and
    the objective adds the losses and gradients of blocks in float64. `accepted` is the last iterate. Every
    evaluation starts from its running statistics and draws the same dropout masks.
    """

    def __init__(
        self, model: Sequential, loss: Loss, data: Dataset, settings: Settings, seed: int, step: int
    ) -> None:
        self.model, self.data, self.loss = model, data, loss
        self.storage = model.bind()
        self.places = self.storage.trainable_places()
        if not self.places.size:
            raise UsageError("the model has no trainable parameters; there is nothing to fit")
        count = data.rows
        self.offsets = batch_offsets(count, _rows(model, loss, data, settings))
        self.shares = np.diff(self.offsets) / count  # of each block's loss in L
        if loss.reduction == "sum":
            self.shares[:] = 1
        self.index = np.arange(count)
        modes, most = settings.respect_modes, int(np.diff(self.offsets).max())
        self._check_blocks(model.min_training_rows(modes))
        self.executor = model.training_executor(data, most, loss, modes)
        self.blocks = [
            Steps(self.index[begin:end], np.array([0, end - begin]), seed, step + number)
            for number, (begin, end) in enumerate(pairwise(self.offsets))
        ]  # a native call each
        self._modes = model._modes(None if modes else True)
        self.decayed = self._decayed(settings)  # of each parameter, whether weight decay counts it
        self.decay = self._decay(settings.weight_decay)  # of each parameter, or None
        self.evaluations = 0
        self._params, self._grads = (self.storage.flat(name) for name in ("params", "grads"))
        self._buffers = self.storage.segments["buffers"]
        x = self._params[self.places].astype(np.float64)
        self.accepted = Point(x, math.inf, np.zeros_like(x), self._buffers.copy())
        self._last = self.accepted
        self._linearized: Linearization | None = None
        self._written: Array | None = None  # the parameters that the model has
        self._curvatures: dict[bool, Curvature | None] = {}  # by whether they are Gauss–Newton's

    def start(self) -> Point:
        """Evaluate at the model's parameters; DivergenceError where loss or gradient is not finite."""
        point = self.evaluate(self.accepted.x)
        if not math.isfinite(point.value):
            raise DivergenceError(
                "the loss of the whole data set, or its gradient, is not finite at the start; inputs "
                "scaled to about 1 usually help"
            )
        # The start is no step: keep the running statistics from before it.
        self.accepted = self._last = Point(
            point.x, point.value, point.gradient, self.accepted.buffers
        )
        return self.accepted

    def at(self, x: Array) -> Point:
        """The objective at x, evaluated unless x is that of the last call or the accepted point."""
        for known in (self._last, self.accepted):
            if not (x != known.x).any():
                return known
        self._last = self.evaluate(np.array(x))
        return self._last

    def value_and_grad(self, x: Array) -> tuple[float, Array]:
        """Value and gradient for SciPy's line searches, which need finite numbers to interpolate.

        Where the loss is not finite the value is that of the accepted point plus the amount by which its
        slope would lower it. So no search accepts x, and the next trial is nearer.
        """
        point = self.at(x)
        if math.isfinite(point.value):
            return point.value, point.gradient.copy()
        here = self.accepted
        return here.value + abs(here.gradient @ (x - here.x)), -here.gradient

    def linearize(self, x: Array) -> Linearization:
        """Products with the second derivatives at x; those of the last x are kept."""
        known = self._linearized
        if known is None or (x != known.x).any():
            exact = self.curvature(gauss_newton=False) is not None
            kind = Linearization if exact else ByDifferences
            known = self._linearized = kind(self, np.array(x))
        return known

    def curvature(self, *, gauss_newton: bool) -> Curvature | None:
        """Products with exact second derivatives; None where the loss or a layer is Python code."""
        if gauss_newton not in self._curvatures:
            first = self.blocks[0]
            try:
                made = Curvature(
                    self.model,
                    self.loss,
                    self.data,
                    modes=self._modes,
                    gauss_newton=gauss_newton,
                    kept=True,
                    rows=int(np.diff(self.offsets).max()),
                    seed=first.seed,
                    step=first.first_step,
                )
                self._curvatures[gauss_newton] = made
            except NoSecondDerivatives:
                self._curvatures[gauss_newton] = None
        return self._curvatures[gauss_newton]

    def put(self, x: Array) -> None:
        """Let the model have the parameters x."""
        if self._written is not x:
            self._write(Point(x, 0.0, x, self.accepted.buffers))

    def set_decay(self, strength: float) -> None:
        """Take another weight decay from now on, for the accepted iterate too."""
        known, self._linearized = self.accepted, None
        before = self.decay
        self.decay = self._decay(strength)
        change = sum(sign * d for sign, d in ((1, self.decay), (-1, before)) if d is not None)
        self.accepted = self._last = Point(
            known.x,
            known.value + 0.5 * float(np.sum(change * known.x**2)),
            known.gradient + change * known.x,
            known.buffers,
        )

    def accept(self, x: Array) -> Point:
        """Make x the accepted iterate; the model ends with the last one."""
        self.accepted = self.at(x)
        return self.accepted

    def same(self, x: Array, other: Array) -> bool:
        """Whether both are the same parameters in the model's dtype."""
        return bool(np.array_equal(x.astype(self.storage.dtype), other.astype(self.storage.dtype)))

    def close(self) -> None:
        """Put the accepted iterate into the model, and let go of the data."""
        self._write(self.accepted)
        self.executor.unload()

    def _write(self, point: Point) -> None:
        self._written = point.x
        with np.errstate(over="ignore", invalid="ignore"):  # a trial may overflow; its loss tells
            self._params[self.places] = point.x  # one call, which no signal interrupts
        np.copyto(self._buffers, point.buffers)
        self.model.touch()

    def evaluate(self, x: Array) -> Point:
        """The objective at x, and its gradient."""
        self.evaluations += 1
        before, gradient, value = self.accepted.buffers, np.zeros_like(x), 0.0
        bad = Point(x, math.inf, gradient, before)
        self._write(Point(x, value, gradient, before))
        try:
            for share, steps in zip(self.shares, self.blocks, strict=True):
                value += share * float(self.executor.retrain(self.data, steps)[0])
                gradient += share * self._grads[self.places]
        except DivergenceError:
            return bad
        if self.decay is not None:
            pull = self.decay * x
            value += 0.5 * float(pull @ x)
            gradient += pull
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            return bad
        return Point(x, float(value), gradient, self._buffers.copy())

    def _decay(self, strength: float) -> Array | None:
        return strength * self.decayed if strength else None

    def _decayed(self, settings: Settings) -> Array:
        decayed = [
            settings.decay_biases_and_norms or len(p.shape) > 1 for p in self.storage.trainable()
        ]
        sizes = [math.prod(p.shape) for p in self.storage.trainable()]
        return np.repeat(decayed, sizes)

    # What second derivatives and Jacobians need.

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of a row of outputs."""
        return self.model.output_shape(self.data.row_shape)

    def row_gradients(self) -> RowGradients:
        """Gradients of single rows; UsageError where the model has none."""
        most = int(np.diff(self.offsets).max())
        return RowGradients(self.model, self._modes, self.data.row_shape, most)

    def by_blocks(self, x: Array, gradients: RowGradients) -> Iterator[tuple[Any, int, int]]:
        """Each block at x: a function from dL/d-output to the rows' gradients, the first row, the count."""
        self._write(Point(x, 0.0, x, self.accepted.buffers))
        for steps, rows in self._blocks_of_rows():
            yield (
                partial(gradients.of, rows, seed=steps.seed, step=steps.first_step),
                int(steps.index[0]),
                len(rows),
            )

    def outputs(self, x: Array) -> list[Array]:
        """The outputs of each block at x."""
        self._write(Point(x, 0.0, x, self.accepted.buffers))
        executor = self._plain()
        return [
            np.array(executor.forward(rows, steps.seed, steps.first_step))
            for steps, rows in self._blocks_of_rows()
        ]

    def pulled_back(self, x: Array, slopes: list[Array]) -> Iterator[Array]:
        """Jᵀ·dy of each block at x, float64, for dL/d-output of each."""
        self._write(Point(x, 0.0, x, self.accepted.buffers))
        executor = self._plain()
        for (steps, rows), dy in zip(self._blocks_of_rows(), slopes, strict=True):
            executor.forward(rows, steps.seed, steps.first_step)
            executor.backward(dy, accumulate=False)
            yield self._grads[self.places].astype(np.float64)

    def output_slope(self, number: int, output: Array) -> Array:
        """dL/d-output for outputs of a block, with its share of the objective, float64."""
        index, data = self.blocks[number].index, self.data
        target, w = data.y[index], None if data.w is None else data.w[index]
        if data.host is not None:
            slope: Array | None = data.host.call(output, target, w)[1]
        else:
            tape, given = Tape(np.dtype(np.float64)), Value(output)
            if target.dtype != np.int64:
                target = target.astype(np.float64)
            weight = None if w is None else Value(w.astype(np.float64))
            mean = {"by_rows": True} if data.by_rows else {}
            tape.backward(self.loss.emit(tape, given, Value(target), weight, **mean))
            slope = given.grad
        found: Array = self.shares[number] * np.asarray(slope, np.float64)
        return found

    def _blocks_of_rows(self) -> Iterator[tuple[Steps, Array]]:
        """Each block, and its rows of the inputs."""
        for steps in self.blocks:
            yield steps, np.asarray(self.data.x[steps.index], self.storage.dtype)

    def _plain(self) -> Any:
        """The executor of the model without the loss."""
        most = int(np.diff(self.offsets).max())
        return self.model._runtime.executor(self.data.row_shape, most, self._modes)

    def _check_blocks(self, minimum: int) -> None:
        fewest = int(np.diff(self.offsets).min())
        if fewest < minimum:
            raise ShapeError(
                f"X has {len(self.index)} rows, taken in blocks of which one has {fewest}; this model "
                f"has batchnorm and needs blocks of at least {minimum} rows in training"
            )


def _rows(model: Sequential, loss: Loss, data: Dataset, settings: Settings) -> int:
    """The rows of a block: all of them where batchnorm computes statistics."""
    count, modes = data.rows, settings.respect_modes
    if settings.batch_size is not None:
        return min(settings.batch_size, count)
    if model.min_training_rows(modes) > 1:
        return count
    few = min(count, 1024)
    plan = model.training_executor(data, few, loss, modes).plan
    return min(count, max(few, WORKSPACE_BYTES * plan.max_rows // max(1, plan.workspace_bytes)))
