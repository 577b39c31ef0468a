"""Mean squared error."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import DataError, ShapeError
from fastnet.layers.base import Builder, Shape
from fastnet.losses.base import Loss
from fastnet.op import Array, Op


class mse(Op):
    """loss = mean over all elements of (y − t)²; row_loss is each row's mean; dy = 2(y − t)/(B·N)."""

    outputs: ClassVar = {"loss": "float64 1", "row_loss": "float64 B"}
    inputs: ClassVar = {"y": "B N", "t": "B N"}
    dims = ("N",)

    @staticmethod
    def forward(loss: Array, row_loss: Array, y: Array, t: Array) -> None:
        """Squares are taken in the model's dtype and summed in float64."""
        error = y - t
        np.mean(error * error, axis=1, dtype=np.float64, out=row_loss)
        loss[0] = row_loss.mean()

    @staticmethod
    def vjp(dy: Array, y: Array, t: Array) -> None:
        """2(y − t)/(B·N)."""
        np.multiply(y - t, 2.0 / y.size, out=dy)


class MSELoss(Loss):
    """L = (1/(n·k))·Σ (y − t)² over all elements of y and t, both (n, k).

    Shapes never broadcast: targets of shape (n,) for outputs (n, 1) are an error that says so. The
    gradient is 2(y − t)/(n·k).
    Source: A.-M. Legendre's least squares (1805), as PyTorch takes the mean: over all elements.
    """

    def target(self, y: Any, shape: Shape | None, name: str = "y") -> Array:
        """Targets as a float array (n, k) for an output shape (k,)."""
        array = np.asarray(y)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{name} has dtype {array.dtype}; MSELoss takes numbers")
        if shape is not None and (array.ndim < 2 or array.shape[1:] != shape):
            wanted = ", ".join(map(str, ("n", *shape)))
            remedy = "; use y.reshape(-1, 1)" if array.ndim == 1 and shape == (1,) else ""
            raise ShapeError(
                f"{name} has shape {array.shape}; MSELoss takes the output's shape ({wanted}){remedy}"
            )
        if array.dtype not in (np.float32, np.float64):
            with np.errstate(all="ignore"):  # infinity is refused where the data is checked
                array = array.astype(np.float64)
        return array

    def emit(self, g: Builder, output: Any, target: Any) -> Any:
        """One `mse`."""
        return g.apply(mse, y=output, t=target)
