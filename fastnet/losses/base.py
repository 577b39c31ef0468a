"""Loss: the number that training makes small, and its gradient with respect to the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from threading import get_ident
from typing import Any, ClassVar

import numpy as np

from fastnet.builder import Builder
from fastnet.configured import Fixed
from fastnet.data import arrays
from fastnet.errors import (
    DataError,
    HyperparameterError,
    ShapeError,
    UsageError,
    check_choice,
    shown,
    undefined,
)
from fastnet.layers.base import Shape
from fastnet.losses import links
from fastnet.losses.metrics import Metric
from fastnet.op import Array, Op
from fastnet.tape import Tape, Value

# The divisor of a minibatch's loss: 1, the sum of its weights, or its number of rows.
SUM, OWN_WEIGHTS, ROWS = range(3)
LANES = 64  # interleaved partial sums

# A function (loss, output, target) that finds a native one for such arrays where compiled kernels are
# loaded (see fastnet/model/lone.py). Models, which load them, are above losses, and set it.
step_of: Callable[[Any, Array, Array], Any] | None = None


class weighted_loss(Op):
    """loss = Σ w·row_loss / total over B rows, in float64; total is 1, Σ w·c or B, by `mean`.

    mean: 0 (SUM), 1 (OWN_WEIGHTS) or 2 (ROWS); of rows that are part of a larger minibatch −total, the
    number of its rows. w are the samples' weights and c the rows' own counts; a
    missing one is 1. scale is 1/total. With total 0, loss and scale are 0, except that NaN stays NaN. An
    infinite loss with weight 0 adds 0. drow_loss = w·scale.
    """

    outputs: ClassVar = {"loss": "float64 1", "scale": "float64 1"}
    inputs: ClassVar = {"row_loss": "float64 B", "w": "B", "c": "B"}
    optional = ("w", "c")
    scalars = ("mean",)

    @staticmethod
    def forward(
        loss: Array, scale: Array, row_loss: Array, w: Array, c: Array, mean: float
    ) -> None:
        """The weighted sum, divided by the total."""
        one = np.ones(row_loss.size)
        weight = w.astype(np.float64) if w.size else one
        total = 1.0 if mean == SUM else -mean if mean < 0 else float(row_loss.size)
        if mean == OWN_WEIGHTS:
            total = np.sum(weight * (c if c.size else one))
        scale[0] = 1 / total if total > 0 else 0
        summed = np.sum(weight * np.where((weight == 0) & np.isinf(row_loss), 0, row_loss))
        loss[0] = summed / total if total > 0 else summed if np.isnan(summed) else 0

    @staticmethod
    def vjp(drow_loss: Array, scale: Array, w: Array) -> None:
        """w·scale."""
        drow_loss[...] = w * scale[0] if w.size else scale[0]


def summed_rows(values: Array) -> list[float]:
    """`summed` for each row of a matrix."""
    count, length = values.shape
    whole = length // LANES * LANES
    if whole:
        lanes = values[:, :whole].reshape(count, -1, LANES).sum(axis=1)
        values = np.concatenate([lanes, values[:, whole:]], axis=1)
    rows = values.tolist()
    try:
        return [math.fsum(row) for row in rows]
    except (OverflowError, ValueError):
        return [_summed(row) for row in rows]


def _summed(values: list[float]) -> float:
    """Σ values, rounded once; where that overflows, or is ∞ − ∞, one after the other."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        total = 0.0
        for value in values:
            total += value
        return total


def summed(values: Array) -> float:
    """Σ values, float64, in an order that depends only on their number, on every machine.

    The order of NumPy's sum over a vector depends on the instruction set; the order over the rows of a
    matrix does not. For 10⁶ terms the error is below 1e-11·Σ|terms|.
    """
    whole = len(values) // LANES * LANES
    lanes = values[:whole].reshape(-1, LANES).sum(axis=0)
    return _summed([*lanes.tolist(), *values[whole:].tolist()])


class Loss(Fixed, base=True):
    """Base of all losses.

    reduction: "mean" (default), "sum", or "none", which returns the single losses that the others add up:
        one for each element or, where the loss is defined for whole rows, for each row. Training needs
        "mean" or "sum".

    With sample weights w ≥ 0 (n,), the mean is Σ wᵢ·lᵢ / Σ wᵢ over the rows and the sum Σ wᵢ·lᵢ: a row
    with weight 2 counts like two equal rows. Where all weights are 0, loss and gradient are 0. Where a
    loss has weights of its own, by class or 0 for ignored rows, wᵢ is the product of all.

    PyTorch divides by the weights of the rows at hand, and so does a loss. `Trainer.fit` minimises the
    weighted mean over the whole data: it divides a minibatch's Σ wᵢ·lᵢ by B·w̄, where B is the number of
    its rows and w̄ the mean of wᵢ over the data. So weights mean the same for every batch size.

    Accuracy: each class states a bound for float32. The error of an element's (or row's) loss and gradient
    is at most this bound times the sum of the magnitudes of the formula's terms, that is, relative where
    no terms cancel. Values beyond float32's largest number become ±∞ with the right sign, never NaN; so
    may values for which a difference of output and target, or of two logits, overflows. Values below the
    smallest normal number have an error of at most a few times that. Sums over a million rows are accurate
    to 1e-10.

    A subclass passes its checked hyper-parameters to `super().__init__` under the names of its own
    constructor's arguments, checks targets in `target` and describes the losses of rows by ops in `rows`.
    Hyper-parameters are attributes and never change. Outside a model a loss runs the NumPy reference:
    `forward(output, y)` returns the value, `backward()` dL/d-output.
    """

    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")
    domain: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # outputs for which it is defined
    on_host: ClassVar[bool] = False  # whether Python computes it within a step
    targets: ClassVar[tuple[float, float] | None] = None  # see accepted_targets
    ignore_index: int | None = None  # the label of ignored rows
    takes_minus_infinity: bool = False  # whether targets may be −∞
    link: str | None = (
        None  # how outputs become probabilities and classes, see fastnet.losses.links
    )

    def __init__(self, reduction: str = "mean", **config: Any) -> None:
        check_choice("reduction", reduction, self.reductions)
        super().__init__(**config, reduction=reduction)
        self._pending: Callable[[Array | None], Array] | None = None
        self._step: tuple[int, Any] = 0, None  # a native function, and the thread for which it is

    # What a subclass defines.

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics that training reports by default; `fn.accuracy` stands for its "accuracy"."""
        return {}

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Check targets against the shape of one output row and return them as an array.

        `name` names them in error messages. Labels are an int64 array (n,).
        """
        raise undefined(
            self, "target(self, y, shape, name)", "it checks targets and returns them as an array"
        )

    def rows(self, g: Builder, output: Any, target: Any) -> tuple[Any, Any]:
        """Apply ops on the builder; returns the losses of the rows, and the rows' counts.

        A mean divides by the sum of the counts; None: each row counts 1.
        """
        raise undefined(
            self, "rows(self, g, output, target)", "it returns the losses of rows and their counts"
        )

    def emit(
        self, g: Builder, output: Any, target: Any, weight: Any = None, *, by_rows: bool = False
    ) -> Any:
        """Apply ops on the builder; returns the scalar loss.

        by_rows: True lets a mean divide by the number of rows, not by the sum of their weights. Callers
            pass it only if it is True: `fit` with weights, and `weight_mean`.
        """
        losses, count = self.rows(g, output, target)
        mean = SUM if self.reduction == "sum" else ROWS if by_rows else OWN_WEIGHTS
        counted = count if mean == OWN_WEIGHTS else None
        return g.apply(weighted_loss, row_loss=losses, w=weight, c=counted, mean=float(mean))

    def counts(self, target: Array) -> Array | None:
        """The count of each row in a mean, for checked targets; None: each counts 1."""
        return None

    def classes_of(self, shape: Shape) -> int:
        """How many classes labels may name for a row of outputs; 0: targets are no labels."""
        return 0

    def target_shape(self, shape: Shape) -> Shape:
        """The shape of a row of targets other than labels, for a row of outputs."""
        return shape

    def square_factor(self, shape: Shape) -> float | None:
        """f, if the loss of a row of outputs is f·Σ_j (y_j − t_j)²; None where it is no sum of squares."""
        return None

    # What callers use.

    def accepted_targets(self) -> tuple[float, float] | None:
        """The least and the largest target that `target` takes as they are, floats in the right shape.

        None: only `target` knows.
        """
        return self.targets

    def column(self, y: Array, shape: Shape) -> Array:
        """Targets (n,) as (n, 1), if a row of targets for these outputs is one number."""
        return y[:, None] if y.ndim == 1 and self.target_shape(shape) == (1,) else y

    def explain(self, output: Array, target: Array) -> str | None:
        """A sentence that says why the loss of these rows is not finite; None where outputs are not."""
        if not (output.size and np.isfinite(output).all()):
            return None
        low, high = float(output.min()), float(output.max())
        if low < self.domain[0] or high > self.domain[1]:
            return (
                f"The model's outputs go from {low:g} to {high:g}; {type(self).__name__} takes outputs in "
                f"[{self.domain[0]:g}, {self.domain[1]:g}]"
            )
        least = -math.inf if self.takes_minus_infinity else -np.finfo(np.float64).max
        bad = target[~((target >= least) & (target < math.inf))]
        if bad.size:
            return f"The model's outputs are finite; the targets of this step hold {bad[0]:g}"
        sizes = [float(np.abs(part).max()) for part in (output, target)]
        return self._unexplained(*sizes)

    def _unexplained(self, output: float, target: float) -> str | None:
        """The same for finite outputs and targets, whose largest magnitudes these are."""
        return (
            f"The model's outputs reach {output:g} and the targets {target:g}, of which "
            f"{type(self).__name__} overflows. Targets scaled to about 1, or a smaller learning rate, "
            "usually help"
        )

    def weights(self, target: Array, given: Any, dtype: Any) -> Array | None:
        """Sample weights as an array (n,) of a dtype, 0 for ignored rows; None: all are 1."""
        weight = (
            None if given is None else arrays.weights("sample_weight", given, len(target), dtype)
        )
        if self.ignore_index is not None and target.dtype == np.int64 and target.ndim == 1:
            kept = target != self.ignore_index
            if not kept.all():
                weight = kept.astype(dtype) if weight is None else weight * kept
        return weight

    def scaled_weights(
        self, target: Array, weight: Array | None, mean: float | None
    ) -> Array | None:
        """Sample weights divided by `mean`, for a loss that divides by rows; None: all are 1.

        mean: mean over the data of sample weight times `counts`; None: that of these targets.
        """
        counts = self.counts(target)
        product = weight if counts is None or weight is None else weight * counts
        product = counts if product is None else product
        if mean is None:
            if product is None:
                return None
            mean = math.fsum(product.tolist()) / max(1, len(product)) or 1.0
        given = np.ones(len(target)) if weight is None else weight.astype(np.float64)
        return np.asarray(given / mean)

    def of_rows(self, losses: Array, target: Array, weight: Array | None) -> float:
        """The loss of rows with these single losses, float64, with equal bits on every machine."""
        weights = np.ones(len(losses)) if weight is None else weight.astype(np.float64)
        counts = self.counts(target)
        total = 1.0
        if self.reduction != "sum":
            total = summed(weights if counts is None else weights * counts)
        value = summed(weights * np.where((weights == 0) & np.isinf(losses), 0.0, losses))
        return value / total if total > 0 else value if math.isnan(value) else 0.0

    def of_each(self, losses: Array, target: Array, weight: Array | None) -> list[float]:
        """`of_rows` for each of several evaluations of the same rows: losses (evaluations, n)."""
        counts, weights = self.counts(target), None if weight is None else weight.astype(np.float64)
        total = 1.0
        if self.reduction != "sum":
            one = np.ones(len(target)) if weights is None else weights
            total = summed(one if counts is None else one * counts)
        if weights is not None:
            losses = weights * np.where((weights == 0) & np.isinf(losses), 0.0, losses)
        values = summed_rows(losses)
        if not total > 0:
            return [value if math.isnan(value) else 0.0 for value in values]
        return [value / total for value in values]

    def check_trainable(self) -> None:
        """Raise HyperparameterError where the loss is not a single number, or its link is none."""
        if self.link is not None and self.link not in links.LINKS:
            raise HyperparameterError(
                f"{type(self).__name__}.link is {shown(self.link)}; expected None, "
                f"{', '.join(map(repr, links.LINKS))}"
            )
        if self.reduction == "none":
            raise HyperparameterError(
                f"{type(self).__name__} with reduction='none' has a value for each element; expected a "
                "loss with reduction='mean' or 'sum' to train with"
            )

    def plan_key(self) -> Any:
        """The properties that a compiled plan depends on: losses with equal keys share plans."""
        return type(self), tuple((k, _key(v)) for k, v in self._config.items())

    def forward(self, output: Any, y: Any, sample_weight: Any = None) -> Any:
        """The loss of outputs (n, …) for targets y: a float, or an array with reduction="none"."""
        thread, step = self._step
        if (
            step is not None
            and sample_weight is None
            and thread == get_ident()
            and step_of is not None
        ):
            value = self._forward_by(step, output, y)
            if value is not None:
                return value
        with np.errstate(all="ignore"):  # as in compiled plans: IEEE results without warnings
            return self._forward(output, y, sample_weight)

    def _forward(self, output: Any, y: Any, sample_weight: Any) -> Any:
        output = arrays.floats("output", output)
        shape = output.shape[1:]
        targets = self.target(self.column(arrays.as_array("y", y), shape), shape)
        arrays.check_lengths("output", output, "y", targets)
        weight = self.weights(targets, sample_weight, output.dtype)
        if targets.dtype != np.int64:
            targets = targets.astype(output.dtype, copy=False)
        if self.reduction == "none":
            losses, gradient = self._each(np.array(output), targets)
            factor = 1 if weight is None else weight.reshape(-1, *[1] * (losses.ndim - 1))
            self._pending = lambda d: gradient(factor * _upstream(d, losses.shape, output.dtype))
            return (losses * factor).astype(output.dtype)
        if step_of is not None and sample_weight is None and weight is None and len(output):
            target = np.ascontiguousarray(targets)
            self._step = get_ident(), step_of(self, output, target)
            value = self._forward_by(self._step[1], np.ascontiguousarray(output), target)
            if value is not None:
                return value
        tape, given = Tape(output.dtype), Value(np.array(output))
        weighing = None if weight is None else Value(weight)
        loss = self.emit(tape, given, Value(np.array(targets)), weighing)

        def backward(d: Any) -> Array:
            tape.backward(loss)
            assert given.grad is not None
            return given.grad if d is None else given.grad * _upstream(d, (), output.dtype)

        self._pending = backward
        return float(loss.array[0])

    def _forward_by(self, step: Any, output: Any, y: Any) -> float | None:
        """The loss by a native function, which computes the gradient at once; None where it declines."""
        if step is None or type(output) is not np.ndarray:
            return None
        gradient = np.empty(output.shape, output.dtype)
        value: float | None = step(output, y, gradient, None)
        if value is not None:
            self._pending = partial(_times, gradient)
        return value

    def backward(self, d: Any = None) -> Array:
        """dL/d-output of the last forward, a new array of the output's shape and dtype.

        d: gradient with respect to the loss, of its shape (default: ones).
        """
        pending = self._pending
        if pending is None:
            raise UsageError(f"{type(self).__name__}: backward needs a forward before it")
        if d is None and type(pending) is partial:  # the gradient is there
            self._pending = None
            return pending.args[0]  # type: ignore[no-any-return]
        with np.errstate(all="ignore"):
            gradient = pending(d)
        self._pending = None
        return gradient

    def _each(self, output: Array, target: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The single losses, and a function from dL/d-losses to dL/d-output."""
        tape, given = Tape(output.dtype), Value(output)
        losses, _ = self.rows(tape, given, Value(target))

        def backward(d: Array) -> Array:
            tape.backward(losses, d.astype(np.float64))
            assert given.grad is not None
            return given.grad

        return losses.array, backward

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": None, "_step": (0, None)}


def _times(gradient: Array, d: Any) -> Array:
    """A loss's gradient times that with respect to the loss."""
    scaled: Array = gradient * _upstream(d, (), gradient.dtype)
    return scaled


def numbers(array: Array, name: str, kind: str) -> Array:
    """Targets as floats."""
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{name} has dtype {array.dtype}; {kind} takes numbers: convert {name} to float32"
        )
    if array.dtype in (np.float32, np.float64):
        return array
    with np.errstate(all="ignore"):  # the check of the data refuses infinity
        return array.astype(np.float64)


def probabilities(array: Array, name: str, kind: str) -> Array:
    """Targets as floats in [0, 1]."""
    array = numbers(array, name, kind)
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(
            f"{name} holds numbers from {array.min()} to {array.max()}; {kind} takes probabilities "
            "in [0, 1]"
        )
    return array


def _key(value: Any) -> Any:
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def _upstream(d: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    if d is None:
        return np.ones(shape, dtype)
    array = arrays.as_array("d", d)
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise ShapeError(
            f"d has shape {array.shape} and dtype {array.dtype}; expected numbers of shape {shape}"
        )
    return array.astype(dtype)
