"""Gradients against differences of the loss."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.check.report import Report, checked, rows_of, spread
from fastnet.data.dataset import Dataset
from fastnet.errors import (
    DivergenceError,
    ShapeError,
    check_flag,
    check_int,
    check_real,
    check_seed,
)
from fastnet.losses.base import Loss
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.tape import Tape, Value

STEPS = (1e-5, 1e-6, 1e-7)  # of the differences, relative to max(1, |w|)
ROUNDING = 16 * 2.0**-52  # relative error of a loss in float64
ROWS = 32  # rows, by default
SAMPLES = 20  # elements of each parameter, by default
JUMP, STEEP = (
    1e-3,
    1e3,
)  # a slope that changes by more, and so much faster than its input, has a kink


@dataclass(frozen=True, eq=False)
class ParameterCheck:
    """The gradient of one parameter against differences.

    name, shape: the parameter's, as in the state dict. checked: how many elements were compared.
    error: the largest relative error of those without a kink. index: where it is.
    gradient, difference: both values there. kinks: how many elements lie at a kink.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    error: float
    index: tuple[int, ...]
    gradient: float
    difference: float
    kinks: int


@dataclass(frozen=True, eq=False, repr=False)
class GradientReport(Report):
    """The result of `fn.check.gradients`.

    parameters: a ParameterCheck for each parameter. error: the largest relative error of all.
    tolerance: the largest that is well. kinks: the layers, or "the loss", with kinks at which no
        difference tells the gradient, and how many elements each has kept from being compared.
    loss: the loss of the rows in float64.
    """

    parameters: list[ParameterCheck]
    tolerance: float
    kinks: dict[str, int]
    loss: float

    @property
    def error(self) -> float:
        """The largest relative error."""
        return max((one.error for one in self.parameters), default=0.0)

    @property
    def ok(self) -> bool:  # type: ignore[override]
        """Whether no error is above the tolerance."""
        return self.error <= self.tolerance

    def text(self) -> str:
        """A table with a line for each parameter."""
        word = "ok" if self.ok else "WRONG"
        rows = [("parameter", "shape", "checked", "kinks", "largest relative error", "")]
        for one in self.parameters:
            where = ""
            if one.error > self.tolerance:
                where = (
                    f"at {list(one.index)}: gradient {one.gradient:.6g}, "
                    f"difference {one.difference:.6g}"
                )
            cells = str(one.checked), str(one.kinks or ""), f"{one.error:.1e}", where
            rows.append((one.name, str(one.shape), *cells))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [f"gradients: {word}, largest relative error {self.error:.1e} (at most "
                 f"{self.tolerance:.0e}), loss {self.loss:.6g}"]  # fmt: skip
        for row in rows:
            texts = [f"{row[0]:<{widths[0]}}", f"{row[1]:<{widths[1]}}"]
            texts += [f"{row[i]:>{widths[i]}}" for i in range(2, 5)]
            lines.append("  ".join([*texts, row[5]]).rstrip())
        for name, count in self.kinks.items():
            lines.append(f"{count} elements not compared: kinks of {name}")
        return "\n".join(lines)


def gradients(
    model: Sequential,
    loss: Any,
    X: Any,
    y: Any,
    *,
    samples: int = SAMPLES,
    rows: int = ROWS,
    tolerance: float = 1e-5,
    seed: int | None = 0,
    respect_modes: bool = False,
    raise_on_failure: bool = False,
) -> GradientReport:
    """Compare dL/dw with (L(w + h) − L(w − h))/2h, in float64, for some elements of each parameter.

    model: a Sequential, which stays as it is; a copy in float64 runs on its backend. Its gradients are
        those of `value_and_grad`.
    loss: a loss or a function, as `Trainer` takes it: the check for a loss or layer of your own.
    X, y: inputs and targets, as `fit` takes them.
    samples: integer ≥ 1 (default 20). How many elements of each parameter are compared, at random.
    rows: integer ≥ 1 (default 32). How many rows of the data are used, at equal distances.
    tolerance: number > 0 (default 1e-5). The largest relative error that is well.
    seed: integer in [0, 2⁶⁴) for the choice of elements (default 0), or None for a random one.
    respect_modes: bool (default False: all layers train, dropout with the same masks throughout). True
        leaves each layer in its own mode.
    raise_on_failure: bool (default False). True raises CheckFailed where the report is not ok.

    The relative error is |g − d|/max(|g|, |d|, r), where r is what rounding leaves of a difference, divided
    by the tolerance. h = 10⁻⁵·max(1, |w|); where a slope of a layer or of the loss jumps between w − h and
    w + h, as ReLU's at 0, the difference tells nothing, and smaller h are tried. Elements that stay at a
    kink are not compared; the report names the layers. Raises DivergenceError where the loss is not finite.
    Source: R. L. Burden, J. D. Faires, "Numerical analysis", section 4.1, for differences.
    """
    found, data, flag = checked(model, loss, X, y, raise_on_failure)
    samples = check_int("samples", samples, low=1)
    index = spread(data.rows, check_int("rows", rows, low=1))
    tolerance = check_real("tolerance", tolerance, low=0.0, open_low=True)
    random = np.random.default_rng(check_seed("seed", seed))
    own = check_flag("respect_modes", respect_modes)
    least = model.min_training_rows(own)
    if len(index) < least:
        raise ShapeError(
            f"X has {len(index)} rows here; expected at least {least}, as batchnorm trains"
        )
    trial = _Trial(model, found, data, index, own)
    value, analytic = trial.loss_and_gradients()
    kinks: dict[str, int] = {}
    report = [
        _compare(trial, name, gradient, random, samples, tolerance, kinks)
        for name, gradient in analytic.items()
    ]
    return GradientReport(report, tolerance, kinks, value).told(flag)


def _compare(
    trial: _Trial,
    name: str,
    gradient: Array,
    random: np.random.Generator,
    samples: int,
    tolerance: float,
    kinks: dict[str, int],
) -> ParameterCheck:
    """Compare some elements of a parameter; counts kinks by the layer's name."""
    count = min(samples, gradient.size)
    chosen = np.sort(random.choice(gradient.size, count, replace=False))
    worst: tuple[float, tuple[int, ...], float, float] = -1.0, (), 0.0, 0.0
    skipped = 0
    for flat in chosen.tolist():
        place = tuple(int(i) for i in np.unravel_index(flat, gradient.shape))
        exact = float(gradient[place])
        for step in STEPS:
            difference, h, size = trial.difference(name, place, step)
            rounding = ROUNDING * size / (2 * h) / tolerance
            scale = max(abs(exact), abs(difference), rounding)
            error = abs(exact - difference) / scale if scale else 0.0
            bad = not error <= tolerance  # also for NaN
            names = trial.kinks(name, place, h) if bad else []
            if not names:
                if bad and np.isnan(error):
                    error = np.inf
                worst = max(worst, (error, place, exact, difference), key=lambda one: one[0])
                break
        else:
            skipped += 1
            for layer in names:
                kinks[layer] = kinks.get(layer, 0) + 1
    return ParameterCheck(
        name, gradient.shape, count - skipped, max(worst[0], 0.0), *worst[1:], skipped
    )


class _Trial:
    """A copy of a model in float64, and its loss on some rows at any parameters."""

    def __init__(
        self, model: Sequential, loss: Loss, data: Dataset, index: Array, respect_modes: bool
    ) -> None:
        self.loss = loss
        self.x, self.y = rows_of(data, index)
        inner = copy.deepcopy(model)
        draws = model._draws
        # Around the copy, in its own layers' modes: a model of float64 with the same layers.
        self.model = Sequential(inner, dtype="float64", backend=model.backend, seed=model.seed)
        if not respect_modes:
            self.model.train()
        self.draws = draws
        self.named = {
            name.removeprefix("0."): p for name, p in self.model._named().items() if not p.buffer
        }
        self.layers = [(path.removeprefix("0."), layer) for path, layer in self.model.layers]
        self.buffers = self.model.bind().segments["buffers"].copy()

    def value(self) -> float:
        """The loss; dropout draws the same masks each time, and running statistics stay."""
        self.model._draws = self.draws
        np.copyto(self.model.bind().segments["buffers"], self.buffers)
        self.model.touch()
        return self.model.value_and_grad(self.loss, self.x, self.y)

    def loss_and_gradients(self) -> tuple[float, dict[str, Array]]:
        """The loss, and the gradients in PyTorch's shapes."""
        value = self.value()
        found = {}
        for name, p in self.named.items():
            assert p.grad is not None
            found[name] = np.array(p.shown(p.grad))
        return value, found

    def moved(self, name: str, place: tuple[int, ...], h: float) -> Iterator[float]:
        """Go to w + h and to w − h; yields the distance from w."""
        view = self.named[name].view()
        before = float(view[place])
        try:
            for sign in (1.0, -1.0):
                view[place] = before + sign * h
                self.model.touch()
                yield float(view[place]) - before
        finally:
            view[place] = before
            self.model.touch()

    def difference(
        self, name: str, place: tuple[int, ...], step: float
    ) -> tuple[float, float, float]:
        """(L(w + h) − L(w − h))/2h, h, and the size of L there."""
        h = step * max(1.0, abs(float(self.named[name].view()[place])))
        values, distances = [], []
        for distance in self.moved(name, place, h):
            try:
                values.append(self.value())
            except DivergenceError:
                values.append(np.nan)
            distances.append(distance)
        there = (values[0] - values[1]) / (distances[0] - distances[1])
        return there, h, max(abs(v) for v in values)

    def kinks(self, name: str, place: tuple[int, ...], h: float) -> list[str]:
        """The layers, or "the loss", whose slopes jump between their inputs at w − h and at w + h."""
        inputs = [self._inputs() for _ in self.moved(name, place, h)]
        # By the parameters as they are, so that slopes differ by the inputs alone.
        slopes = [{key: (x, self._slope(key, x)) for key, x in one.items()} for one in inputs]
        found = (key for key in slopes[0] if _jumps(*(one[key] for one in slopes)))
        return list(dict.fromkeys(self._label(key) for key in found))

    def _inputs(self) -> dict[Any, Array]:
        """The input of each use of a layer by its place and use, and that of the loss."""
        tape = _Inputs(self.model, self.draws)
        with np.errstate(all="ignore"):
            output: Array = tape.enter(self.model, Value(np.array(self.x, np.float64))).array
        found: dict[Any, Array] = {}
        for i, (_, layer) in enumerate(self.layers):
            found |= {(i, use): x for use, x in enumerate(tape.inputs.get(id(layer), []))}
        return {**found, "loss": output}

    def _slope(self, key: Any, x: Array) -> Array:
        """d(Σ y)/dx of a layer, or dL/dx of the loss."""
        if key != "loss":
            return _slope(self.layers[key[0]][1], x)
        loss = copy.copy(self.loss)
        with np.errstate(all="ignore"):
            loss.forward(x, self.y)
            return loss.backward()

    def _label(self, key: Any) -> str:
        if key == "loss":
            return "the loss"
        path, layer = self.layers[key[0]]
        return f"layer {path} ({type(layer).__name__})"


class _Inputs(Tape):
    """A tape that keeps the inputs of each layer, with the masks of a plan."""

    def __init__(self, model: Sequential, step: int) -> None:
        super().__init__(np.dtype("float64"), seed=model.seed, step=step)
        self._modes = {id(layer): layer.training for _, layer in model.layers}
        self.inputs: dict[int, list[Array]] = {}

    def enter(self, layer: Any, x: Any) -> Any:
        """The output of a layer, whose input is kept."""
        self.inputs.setdefault(id(layer), []).append(x.array)
        return super().enter(layer, x)


def _slope(layer: Any, x: Array) -> Array:
    """d(Σ y)/dx of a layer in evaluation mode, where what it draws cannot differ."""
    alone = copy.deepcopy(layer).eval()
    with np.errstate(all="ignore"):
        output: Array = alone.forward(x)
        return np.asarray(alone.backward(np.ones_like(output)))


def _jumps(one: tuple[Array, Array], other: tuple[Array, Array]) -> bool:
    """Whether a slope differs by more than a smooth one can over the distance of its inputs."""
    change = np.abs(one[1] - other[1])
    size = max(float(np.abs(one[1]).max(initial=0.0)), float(np.abs(other[1]).max(initial=0.0)))
    distance = np.abs(one[0] - other[0])
    return bool(((change > JUMP * size) & (change > STEEP * distance * size)).any()) and size > 0.0
