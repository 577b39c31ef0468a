"""Layers with given values: those of other programs, checked as a state dict's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fastnet.errors import StateDictError
from fastnet.layers.base import Layer
from fastnet.op import Array
from fastnet.parameter import check_value

Made = TypeVar("Made", bound=Layer)


def filled(layer: Made, values: Mapping[str, Any], dtype: Any) -> Made:
    """The layer with these values by name, in PyTorch's shapes, as its own copies in a dtype.

    Every parameter and buffer needs one. Raises StateDictError where one is missing, has another shape or
    holds NaN or infinity.
    """
    for name, parameter in layer._parameters.items():
        if name not in values:
            raise StateDictError(f"{name} is missing")
        checked = check_value(name, parameter, np.asarray(values[name]), dtype)
        parameter.value = np.array(parameter.held(checked), order="C")
        parameter.grad = None if parameter.buffer else np.zeros_like(parameter.value)
    return layer


def layer_of(
    kind: Callable[..., Made], *arguments: Any, values: Mapping[str, Any], dtype: Any, **config: Any
) -> Made:
    """A layer of a kind, with these arguments and values."""
    return filled(kind(*arguments, **config), values, dtype)


def vector(value: Array, width: int) -> Array:
    """A constant that is added to or multiplies rows of a width, as a vector; ValueError for others."""
    array = np.asarray(value)
    if array.size == 1:
        return np.full(width, array.reshape(-1)[0])
    if array.shape[-1] == width and array.size == width:
        return array.reshape(width)
    raise ValueError(f"has a constant of shape {array.shape}, which does not fit rows of {width}")
