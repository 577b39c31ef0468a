"""Training of a net of radial basis functions in two or three phases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.data import arrays
from fastnet.errors import DataError, check_choice, check_int, check_real
from fastnet.layers import RBF, Linear
from fastnet.layers.centers import METHODS
from fastnet.losses.base import Loss
from fastnet.losses.function import as_loss
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Optimizer
from fastnet.train import Trainer


def fit_rbf(
    X: Any,
    y: Any,
    n_centers: int,
    loss: Any,
    optimizer: Optimizer | None = None,
    *,
    phases: int = 3,
    ridge: float | None = None,
    method: str = "kmeans",
    neighbours: int = 2,
    epochs: int = 50,
    batch_size: int = 32,
    validation_data: tuple[Any, ...] | None = None,
    seed: int | None = None,
    dtype: str = "float32",
    backend: str = "auto",
    verbose: int = 1,
) -> Trainer:
    """Train RBF → Linear in phases: centres and widths, then the output weights, then all together.

    1. `RBF.place_centers` takes centres from X, and widths from the distances to the nearest centres.
    2. The output weights alone: by gradient, or with `ridge` in closed form, min ‖Φw − t‖² + ridge·‖w‖²
       over the outputs Φ of the RBF layer.
    3. All parameters together by gradient.

    X, y: inputs (n, features) and targets as the loss takes them, arrays or frames.
    n_centers: integer ≥ 1. The last column of the RBF layer's output is 1, so Linear needs no bias.
    loss: a loss or a function, as `Trainer` takes it; labels give the net an output for each class.
    optimizer: for phases 2 and 3 (default None: Adam()).
    phases: 3 (default), or 2, which leaves the RBF layer frozen: `trainer.model.unfreeze()` ends that.
    ridge: number ≥ 0, or None (default: phase 2 by gradient). Targets t are y, or for labels 1 in the
        column of the class and 0 in the others; the weight of the constant column has no penalty. In
        float64, by least squares.
    method, neighbours: as for `RBF.place_centers`.
    epochs: integer ≥ 1 (default 50), of each phase by gradient.
    batch_size, validation_data, verbose: as for `Trainer.fit`.
    seed: integer in [0, 2⁶⁴) or None (default), for the centres, the initial weights and the shuffling.
    dtype, backend: as for `Sequential`.

    Returns the trainer; `trainer.model` is the net. With two phases and `ridge` no epoch runs, and the
    history is empty. All arguments are checked before anything trains.
    Source: F. Schwenker, H. A. Kestler, G. Palm, "Three learning phases for radial-basis-function
    networks", Neural Networks 14 (2001).
    """
    phases = check_int("phases", phases, low=2, high=3)
    if ridge is not None:
        ridge = check_real("ridge", ridge, low=0.0)
    epochs = check_int("epochs", epochs, low=1)
    rows = arrays.features("X", X, None, np.float64)
    if not rows.size:
        raise DataError(f"X has shape {rows.shape}; expected at least one row and one column")
    n_centers = check_int("n_centers", n_centers, low=1)
    method = check_choice("method", method, METHODS)
    if method != "box" and n_centers > len(rows):
        raise DataError(f"X has {len(rows)} rows; expected at least n_centers = {n_centers}")
    layer = RBF(rows.shape[1], n_centers)
    net = Linear(layer.out_width, _outputs(as_loss(loss), y), bias=False)
    model = Sequential(layer, net, dtype=dtype, backend=backend, seed=seed)
    trainer = Trainer(model, loss, optimizer, seed=seed)
    _, target, terms = trainer._named(X, y)
    given: dict[str, Any] = {"batch_size": batch_size, "validation_data": validation_data}
    trainer._data(X, y, None, epochs, (batch_size, True, False), validation_data, None, None)
    layer.place_centers(rows, method, neighbours=neighbours, seed=seed)
    model.freeze("0.*")
    if ridge is None:
        trainer.fit(X, y, epochs, **given, verbose=verbose)
    else:
        model._terms = terms
        wanted = _wanted(target, int(net.out_features))
        weight = _least_squares(_bumps(layer, rows), wanted, ridge)
        model.load_state_dict({"1.weight": weight.T}, strict=False)
    if phases == 3:
        model.unfreeze("0.*")
        trainer.fit(X, y, epochs, **given, verbose=verbose)
    return trainer


def _outputs(loss: Loss, y: Any) -> int:
    """The number of outputs that a loss needs for these targets."""
    target = arrays.as_array("y", y)
    if target.ndim not in (1, 2) or not target.size:
        raise DataError(f"y has shape {target.shape}; expected (n,) or (n, outputs), not empty")
    if loss.classes_of((2,)):
        count = len(np.unique(target))
        if count < 2:
            raise DataError(f"y has {count} class; expected at least two")
        return count
    return 1 if target.ndim == 1 else target.shape[1]


def _wanted(target: Array, outputs: int) -> Array:
    """Targets of least squares, float64 (n, outputs)."""
    target = np.asarray(target)
    if outputs > 1 and target.ndim == 1:
        return np.eye(outputs)[target.astype(np.int64)]
    return target.reshape(len(target), outputs).astype(np.float64)


def _bumps(layer: RBF, rows: Array) -> Array:
    """The layer's outputs in float64."""
    model = Sequential(RBF(**layer._config), dtype="float64")
    model.load_state_dict({f"0.{name}": value for name, value in layer.state_dict().items()})
    return np.asarray(model.predict(rows.astype(np.float64)))


def _least_squares(bumps: Array, wanted: Array, ridge: float) -> Array:
    """The weights (columns, outputs) of min ‖Φw − t‖² + ridge·‖w‖², the last row without a penalty."""
    columns = bumps.shape[1]
    penalty = math.sqrt(ridge) * np.eye(columns - 1, columns)
    rows = np.concatenate([bumps, penalty])
    right = np.concatenate([wanted, np.zeros((columns - 1, wanted.shape[1]))])
    return np.asarray(np.linalg.lstsq(rows, right, rcond=None)[0])
