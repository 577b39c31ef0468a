"""Losses of your own, as plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.errors import DataError, HyperparameterError, ShapeError, shown
from fastnet.layers.base import Shape
from fastnet.losses.base import Loss
from fastnet.op import Array

Function = Callable[..., tuple[float, Array]]


class FunctionLoss(Loss):
    """A loss of your own: L, dL/dy = function(y, t) for a minibatch of outputs y and targets t.

        def squared_error(y, t):
            return np.mean((y - t) ** 2), 2 * (y - t) / y.size

        trainer = fn.Trainer(model, squared_error)
    function: takes outputs y (n, …), targets t of their rows, and with sample weights these (n,) as a
        third argument; returns the loss, a number, and its gradient with respect to y, of y's shape. A
        trainer divides the weights by their mean over the data, so that the mean of w·l is the weighted
        loss. y and w have the model's dtype, and so has t if it holds real numbers; integers and bools
        come as int64. The function must neither write to the arrays nor keep them after the call. t may
        have any shape with a row for each sample; (n,) for one output comes as (n, 1). The function itself
        checks t.
    reduction: "mean" (default) or "sum": how L combines its rows. An epoch's loss combines the losses of
        its minibatches in the same way.

    Any argument that takes a loss also takes the function itself, with reduction "mean". Python calls the
    function in each step; model and update run on the backend as usual. In training, a loss or gradient
    that is not finite raises DivergenceError, and that step makes no update. Nothing checks the gradient
    against L: compare it with differences of L.
    Source: that of the function.
    """

    reductions = ("mean", "sum")
    on_host = True

    def __init__(self, function: Function, reduction: str = "mean") -> None:
        if not callable(function) or isinstance(function, type):
            raise HyperparameterError(
                f"function is {shown(function)}; expected a function (output, y) → (loss, gradient)"
            )
        super().__init__(reduction, function=function)

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Targets as they are: numbers with a row for each sample."""
        array = arrays.numbers(name, y)
        if array.ndim == 0:
            raise ShapeError(f"{name} is a single number; expected a row for each sample")
        return array

    def call(self, output: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        """The function's loss and gradient for some rows, checked."""
        dtype = output.dtype
        target = target.astype(dtype if target.dtype.kind == "f" else np.int64, copy=False)
        given = [part.view() for part in (output, target, weight) if part is not None]
        for part in given:
            part.flags.writeable = False
        return self._checked(self.function(*given), output)

    def _checked(self, result: Any, output: Array) -> tuple[float, Array]:
        name = self.name
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise DataError(f"{name} returned {_short(result)}; expected a pair (loss, gradient)")
        try:
            number = arrays.numbers("the loss", result[0])
            value = float(number.reshape(()))
        except (DataError, ValueError):
            raise DataError(
                f"{name} returned {_short(result[0])} for the loss; expected one number"
            ) from None
        gradient = arrays.as_array(f"the gradient that {name} returned", result[1])
        if gradient.shape != output.shape or gradient.dtype.kind not in "fiub":
            raise ShapeError(
                f"{name} returned a gradient of shape {gradient.shape} and dtype {gradient.dtype}; "
                f"expected numbers of the output's shape {output.shape}"
            )
        return value, gradient

    def _forward(self, output: Any, target: Array, weight: Array | None) -> float:
        target = self.column(np.asarray(target), np.shape(output)[1:])
        value, gradient = self.call(output, target, weight)
        gradient = np.array(gradient, output.dtype)
        self._pending = lambda d: gradient if d is None else gradient * d
        return value

    def _unexplained(self, output: float, target: float) -> str:
        return "The outputs and targets of this step are finite: this is the function's own doing"

    @property
    def name(self) -> str:
        """The function's name in error messages."""
        return getattr(self.function, "__qualname__", repr(self.function))

    def __repr__(self) -> str:
        name = self.name
        how = "" if self.reduction == "mean" else f", reduction={self.reduction!r}"
        return f"FunctionLoss({name}{how})"


def _short(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)


def as_loss(loss: Any) -> Loss:
    """The loss itself, or a FunctionLoss for a function; raises for anything else."""
    if callable(loss) and not isinstance(loss, type | Loss):
        return FunctionLoss(loss)
    if not isinstance(loss, Loss):
        own = isinstance(loss, type) and issubclass(loss, Loss)
        raise HyperparameterError(
            f"loss is {shown(loss)}; expected a loss, such as {loss.__name__ if own else 'MSELoss'}(), or "
            "a function (output, y) → (loss, gradient)"
        )
    loss.check_trainable()
    return loss
