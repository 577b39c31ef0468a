"""Full-batch training: the loss of a data set as a function of one vector, which SciPy minimises."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import (
    DivergenceError,
    HyperparameterError,
    MissingExtra,
    ShapeError,
    UsageError,
    check_choice,
    check_flag,
    check_int,
    check_kind,
    check_real,
    shown,
)
from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.train.history import History

DESCENT = "gradient-descent"
METHODS = ("L-BFGS-B", "BFGS", "CG", "Newton-CG", DESCENT)
DESCENT_OPTIONS = {"step": 1.0, "shrink": 0.5, "grow": 2.0, "c1": 1e-4}
WORKSPACE_BYTES = 1 << 23  # of one native call, approximately

Callback = Callable[[dict[str, Any]], Any]


class FullBatchHistory(History):
    """The records of a full-batch fit, one for each iteration, and how the fit ended.

    records: one dict for each accepted iterate, beginning with the start: "iteration" (from 0), "loss"
        (with the weight decay), "grad_norm" (largest absolute component of the gradient), "evaluations"
        of loss and gradient so far, "seconds" since the start.
    result: SciPy's OptimizeResult, with success, message, fun, nit, nfev and x, the parameters as one
        float64 vector in the model's order. Gradient descent gives a namespace with these names.
    """

    result: Any

    def __init__(self, records: Any = (), result: Any = None) -> None:
        super().__init__(records)
        self.result = result

    def __repr__(self) -> str:
        last = f", last {self.records[-1]}" if self.records else ""
        return f"<FullBatchHistory of {len(self)} iterates{last}>"


@dataclass(frozen=True, eq=False, repr=False)
class Settings:
    """The checked options of a fit, without the data."""

    method: str
    max_iter: int
    tol: float
    weight_decay: float
    decay_biases_and_norms: bool
    batch_size: int | None
    respect_modes: bool
    options: dict[str, Any]
    callback: Callback | None

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> Settings:
        """From the arguments of `fit_full_batch`; raises where one of them is invalid."""
        method = check_choice("method", given["method"], METHODS)
        options = {} if given["options"] is None else given["options"]
        check_kind("options", options, Mapping)
        size, callback = given["batch_size"], given["callback"]
        if callback is not None and not callable(callback):
            raise HyperparameterError(
                f"callback is {shown(callback)}; expected a function (record)"
            )
        return cls(
            method,
            check_int("max_iter", given["max_iter"], low=1),
            check_real("tol", given["tol"], low=0.0),
            check_real("weight_decay", given["weight_decay"], low=0.0),
            check_flag("decay_biases_and_norms", given["decay_biases_and_norms"]),
            None if size is None else check_int("batch_size", size, low=1),
            check_flag("respect_modes", given["respect_modes"]),
            descent_options(options) if method == DESCENT else dict(options),
            callback,
        )


def descent_options(given: Mapping[str, Any]) -> dict[str, float]:
    """The options of gradient descent, defaults included."""
    if unknown := [name for name in given if name not in DESCENT_OPTIONS]:
        raise HyperparameterError(
            f"options has {unknown[0]!r}; gradient descent has {', '.join(DESCENT_OPTIONS)}"
        )
    found = {**DESCENT_OPTIONS, **given}
    unit: dict[str, Any] = {"low": 0.0, "high": 1.0, "open_low": True, "open_high": True}
    return {
        "step": check_real("options['step']", found["step"], low=0.0, open_low=True),
        "shrink": check_real("options['shrink']", found["shrink"], **unit),
        "grow": check_real("options['grow']", found["grow"], low=1.0),
        "c1": check_real("options['c1']", found["c1"], **unit),
    }


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
        self.model, self.data = model, data
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
        self.decay = self._decay(settings)
        self.evaluations = 0
        self._params, self._grads = (self.storage.flat(name) for name in ("params", "grads"))
        self._buffers = self.storage.segments["buffers"]
        x = self._params[self.places].astype(np.float64)
        self.accepted = Point(x, math.inf, np.zeros_like(x), self._buffers.copy())
        self._last = self.accepted

    def start(self) -> Point:
        """Evaluate at the model's parameters; DivergenceError where loss or gradient is not finite."""
        point = self._evaluate(self.accepted.x)
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
        self._last = self._evaluate(np.array(x))
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

    def hessian_product(self, x: Array, v: Array) -> Array:
        """∇²L(x)·v by central differences of the gradient."""
        norm = float(np.linalg.norm(v))
        if norm == 0.0:
            return np.zeros_like(v)
        eps = float(np.finfo(self.storage.dtype).eps)
        h = np.cbrt(eps) * (1.0 + float(np.linalg.norm(x))) / norm
        ends = [self._evaluate(x + sign * h * v) for sign in (1, -1)]
        if not all(math.isfinite(end.value) for end in ends):
            raise DivergenceError(
                "the loss is not finite near the last iterate, so that Newton-CG has no second "
                "derivatives; another method, or weight_decay, usually helps"
            )
        product: Array = (ends[0].gradient - ends[1].gradient) / (2 * h)
        return product

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
        with np.errstate(over="ignore", invalid="ignore"):  # a trial may overflow; its loss tells
            self._params[self.places] = point.x  # one call, which no signal interrupts
        np.copyto(self._buffers, point.buffers)
        self.model.touch()

    def _evaluate(self, x: Array) -> Point:
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

    def _decay(self, settings: Settings) -> Array | None:
        if settings.weight_decay == 0.0:
            return None
        decayed = [
            settings.decay_biases_and_norms or len(p.shape) > 1 for p in self.storage.trainable()
        ]
        sizes = [math.prod(p.shape) for p in self.storage.trainable()]
        return settings.weight_decay * np.repeat(decayed, sizes).astype(np.float64)

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


def fit(objective: Objective, settings: Settings) -> FullBatchHistory:
    """Minimise; the caller holds the training lock, and the model ends with the last accepted iterate."""
    minimize = _descend if settings.method == DESCENT else _scipy(settings.method)
    begun, history = time.perf_counter(), FullBatchHistory()

    def note(x: Array) -> None:
        point = objective.accept(x)
        record = {
            "iteration": len(history),
            "loss": point.value,
            "grad_norm": point.grad_norm,
            "evaluations": objective.evaluations,
            "seconds": time.perf_counter() - begun,
        }
        history.records.append(record)
        if settings.callback is not None:
            settings.callback(dict(record))

    try:
        note(objective.start().x)
        history.result = minimize(objective, settings, note)
    except StopIteration:
        history.result = _result(objective, False, "stopped by the callback")
    finally:
        objective.close()
    history.result.nit = len(history) - 1
    history.result.nfev = objective.evaluations
    return history


Minimize = Callable[[Objective, Settings, Callable[[Array], None]], Any]


def _converged(objective: Objective, settings: Settings) -> bool:
    return objective.accepted.grad_norm <= settings.tol


def _result(objective: Objective, success: bool, message: str) -> Any:
    point = objective.accepted
    return SimpleNamespace(
        x=point.x, fun=point.value, jac=point.gradient, success=success, message=message
    )


_FLAT = "no component of the gradient is larger than tol"


def _descend(objective: Objective, settings: Settings, note: Callable[[Array], None]) -> Any:
    """x ← x − α·g with the first α of step, step·shrink, … that lowers the loss by c1·α·‖g‖²."""
    step, shrink, grow, c1 = (settings.options[name] for name in DESCENT_OPTIONS)
    for _ in range(settings.max_iter):
        here = objective.accepted
        if _converged(objective, settings):
            break
        slope = float(here.gradient @ here.gradient)
        while True:
            x = here.x - step * here.gradient
            if objective.at(x).value <= here.value - c1 * step * slope:
                break
            step *= shrink
            if objective.same(x, here.x):
                return _result(objective, False, "no step along the gradient lowers the loss")
        note(x)
        step *= grow
    flat = _converged(objective, settings)
    return _result(objective, flat, _FLAT if flat else "max_iter iterations are done")


def _scipy(method: str) -> Minimize:
    """Minimise by SciPy's method; imports SciPy, or raises MissingExtra."""
    try:
        import scipy.optimize
    except ImportError as error:
        raise MissingExtra(
            f"method={method!r} needs SciPy ({error}); install it with "
            f'pip install "fastnet-engine[scipy]", or take method={DESCENT!r}, which needs none'
        ) from None

    def minimize(objective: Objective, settings: Settings, note: Callable[[Array], None]) -> Any:
        if _converged(objective, settings):
            return _result(objective, True, _FLAT)
        eps = float(np.finfo(objective.storage.dtype).eps)
        limits = {
            "L-BFGS-B": {"gtol": settings.tol, "ftol": eps, "maxfun": 100 * settings.max_iter},
            "Newton-CG": {"xtol": eps},
        }
        options = {"maxiter": settings.max_iter, **limits.get(method, {"gtol": settings.tol})}
        newton = {"hessp": objective.hessian_product} if method == "Newton-CG" else {}

        def accepted(intermediate_result: Any) -> None:
            note(intermediate_result.x)
            if _converged(objective, settings):
                raise StopIteration

        result = scipy.optimize.minimize(
            objective.value_and_grad,
            objective.accepted.x,
            jac=True,
            method=method,
            callback=accepted,
            options={**options, **settings.options},
            **newton,
        )
        if _converged(objective, settings):
            result.success, result.message = True, _FLAT
        return result

    return minimize
