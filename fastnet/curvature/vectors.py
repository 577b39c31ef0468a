"""Vectors of all trainable parameters, as users see them, and as arrays by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.errors import check_kind
from fastnet.model import Sequential
from fastnet.model.order import places_by_name
from fastnet.model.order import slices as slices_of
from fastnet.op import Array


def slices(model: Any) -> dict[str, slice]:
    """Which rows and columns of `model.hessian(…)` are whose: a slice for each parameter, by name.

    model: a Sequential.

    A vector in this order is `np.concatenate([v.ravel() for v in arrays.values()])` for arrays by the names
    of `named_parameters` and in their shapes, as `hvp` takes and returns them.
    """
    check_kind("model", model, Sequential)
    return slices_of(model)


def by_name(model: Any, vector: Array) -> dict[str, Array]:
    """A vector in the model's own order as arrays by name, in its dtype."""
    return {n: np.array(vector[at], model.dtype) for n, at in places_by_name(model).items()}
