"""The order of a model's trainable parameters in vectors and matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.op import Array
from fastnet.parameter import Parameter


def trained(model: Any) -> dict[str, Parameter]:
    """The trainable parameters by name, in the order of their vector."""
    names = {id(p): name for name, p in reversed(model._named().items())}
    return {names[id(p)]: p for p in model.bind().trainable()}


def places_by_name(model: Any) -> dict[str, Array]:
    """Where each trainable parameter's elements, in PyTorch's shape, lie in the model's own vector."""
    found, begin = {}, 0
    for name, p in trained(model).items():
        end = begin + math.prod(p.shape)
        found[name] = p.shown(np.arange(begin, end).reshape(p.shape))
        begin = end
    return found


def shown_order(model: Any) -> Array:
    """For each element of the users' vector, its place in the model's own.

    The users' has the parameters in the order of `named_parameters` and each row by row in PyTorch's shape,
    as `torch.nn.utils.parameters_to_vector` has them.
    """
    parts = [places.ravel() for places in places_by_name(model).values()]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def slices(model: Any) -> dict[str, slice]:
    """Which elements of the users' vector each trainable parameter has, by name."""
    found, begin = {}, 0
    for name, places in places_by_name(model).items():
        found[name] = slice(begin, begin + places.size)
        begin += places.size
    return found
