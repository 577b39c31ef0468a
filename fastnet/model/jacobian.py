"""The Jacobian of a model's outputs, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.products import Runner
from fastnet.data import arrays
from fastnet.data.lazy import LazyRows
from fastnet.errors import (
    HyperparameterError,
    NoSecondDerivatives,
    UsageError,
    check_choice,
    shown,
)
from fastnet.model.curvature import jacobian_runner
from fastnet.model.order import places_by_name
from fastnet.model.rows import RowGradients
from fastnet.model.runtime import PREDICT_ROWS
from fastnet.op import Array

REVERSE, FORWARD = 3, 3  # work of a row for one output by reverse, one direction by forward mode


def jacobian(model: Any, x: Any, outputs: Any, wrt: Any) -> Any:
    """See Sequential.jacobian."""
    model._root("jacobian")
    check_choice("wrt", wrt, ("x", "parameters"))
    x = model.features("x", x)
    if arrays.on_device(x) or isinstance(x, LazyRows):
        raise UsageError(f"jacobian: x is {shown(x)}; expected dense rows in the host's memory")
    row = tuple(x.shape[1:])
    shape = model.output_shape(row)
    chosen = _chosen(outputs, math.prod(shape))
    modes = model._modes(False)
    for _, layer in model.layers:
        if layer.joins_rows:
            raise UsageError(
                f"jacobian: {layer.label} has no running statistics, so that the outputs of a row "
                "depend on all rows; take track_running_stats=True, or hand in directions to model.jvp"
            )
    with model.training_lock():
        by = _Rows(model, modes, np.ascontiguousarray(x, model.dtype), shape, chosen)
        if wrt == "x":
            forward = FORWARD * math.prod(row) < REVERSE * len(chosen)
            runner = by.runner(of_x=True) if forward else None
            return by.reverse_of_x() if runner is None else by.forward_of_x(runner)
        size = len(model.bind().trainable_places())
        runner = by.runner(of_x=False) if FORWARD * size < REVERSE * len(chosen) else None
        found = by.reverse_of_parameters() if runner is None else by.forward_of_parameters(runner)
        return {name: found[:, :, places] for name, places in places_by_name(model).items()}


class _Rows:
    """The rows whose Jacobians are wanted, and the chosen outputs."""

    def __init__(
        self, model: Any, modes: Any, x: Array, shape: tuple[int, ...], chosen: Array
    ) -> None:
        self.model, self.modes, self.x, self.shape, self.chosen = model, modes, x, shape, chosen
        self.storage = model.bind()
        self.row = tuple(x.shape[1:])

    def runner(self, *, of_x: bool) -> Runner | None:
        """What runs forward mode; None where an op has no tangent, or there is nothing to run."""
        times = math.prod(self.row) if of_x else 1
        rows = min(PREDICT_ROWS, max(1, len(self.x) * times))
        try:
            kind = "jvp", of_x, not of_x
            found = jacobian_runner(self.model, self.row, rows, self.modes, kind)
        except NoSecondDerivatives:
            return None
        return None if found.plan.output[0] == "x" else found

    def reverse_of_x(self) -> Array:
        """∂y_c/∂x by a backward for each output, many rows at once."""
        n, k, model = len(self.x), len(self.chosen), self.model
        result = np.empty((n, k, *self.row), model.dtype)
        flat, most = result.reshape(n * k, *self.row), min(PREDICT_ROWS, max(1, n * k))
        executor = model._runtime.executor(self.row, most, self.modes)
        if model._pending is not None and model._pending[0] is executor:
            model._pending = None  # its forward is overwritten
        gradients = self.storage.flat("grads")
        before = gradients.copy()
        try:
            for begin in range(0, n * k, most):
                index = np.arange(begin, min(begin + most, n * k))
                executor.forward(self.x[index // k], model.seed, 0)
                executor.backward(self._unit(self.chosen[index % k]))
                flat[index] = executor.input_gradient(len(index))
        finally:
            np.copyto(gradients, before)
        return result

    def forward_of_x(self, runner: Runner) -> Array:
        """The same by a direction for each input."""
        n, k, model, d = len(self.x), len(self.chosen), self.model, math.prod(self.row)
        result = np.zeros((n, k, d), model.dtype)
        products, most = runner.products, runner.plan.max_rows
        for begin in range(0, n * d if products.dy is not None else 0, most):
            index = np.arange(begin, min(begin + most, n * d))
            dx = np.zeros((len(index), d), model.dtype)
            dx[np.arange(len(index)), index % d] = 1
            assert products.dx is not None and products.dy is not None
            runner.move_x(dx)
            rows = np.ascontiguousarray(self.x[index // d])
            runner.linearize(rows, None, None, model.seed, 0)
            dy = runner.at(products.dy, (len(index), math.prod(self.shape)), model.dtype)
            result[index // d, :, index % d] = dy[:, self.chosen]
        return result.reshape(n, k, *self.row)

    def reverse_of_parameters(self) -> Array:
        """∂y_c/∂θ (n, k, P) by a backward for each row and output."""
        n, k, model = len(self.x), len(self.chosen), self.model
        most = min(PREDICT_ROWS, max(1, n))
        gradients = RowGradients(model, self.modes, self.row, most)
        result = np.empty((n, k, gradients.size), model.dtype)
        for begin in range(0, n, most):
            part = self.x[begin : begin + most]
            for j, output in enumerate(self.chosen):
                dy = self._unit(np.full(len(part), output))
                for first, rows in gradients.of(part, dy).parts():
                    at = begin + first
                    result[at : at + len(rows), j] = rows
        return result

    def forward_of_parameters(self, runner: Runner) -> Array:
        """The same by a direction for each parameter."""
        n, k, places = len(self.x), len(self.chosen), self.storage.trainable_places()
        model, products, most = self.model, runner.products, runner.plan.max_rows
        result, state = np.zeros((n, k, len(places)), model.dtype), runner.direction
        for begin in range(0, n if products.dy is not None else 0, most):
            part = np.ascontiguousarray(self.x[begin : begin + most])
            for i, place in enumerate(places):
                state.fill(0)
                state[place] = 1
                runner.linearize(part, None, None, model.seed, 0)
                assert products.dy is not None
                dy = runner.at(products.dy, (len(part), math.prod(self.shape)), model.dtype)
                result[begin : begin + len(part), :, i] = dy[:, self.chosen]
        return result

    def _unit(self, outputs: Array) -> Array:
        """dL/d-output that is 1 at one output of each row."""
        dy = np.zeros((len(outputs), math.prod(self.shape)), self.model.dtype)
        dy[np.arange(len(outputs)), outputs] = 1
        return dy.reshape(len(outputs), *self.shape)


def _chosen(outputs: Any, width: int) -> Array:
    """The numbers of the chosen outputs."""
    if outputs is None:
        return np.arange(width)
    try:
        found = np.atleast_1d(np.asarray(outputs))
    except ValueError:  # rows of different lengths
        found = np.zeros(0)
    good = found.dtype.kind in "iu" and found.ndim == 1 and found.size
    if not good or not (found.min() >= 0 and found.max() < width):
        raise HyperparameterError(
            f"outputs is {shown(outputs)}; expected None, the number of an output in [0, {width}), or a "
            "list of such numbers"
        )
    return found.astype(np.int64)
