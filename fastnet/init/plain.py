"""Initialisers that do not look at the size of the layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet.errors import check_real
from fastnet.init.base import Array, Draw, Initializer, Shape


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Initializer):
    """w = value in every element, as a bias of 0.01 that lets every ReLU pass something at the start.

    Source: PyTorch's constant_.
    """

    value: float

    def __post_init__(self) -> None:
        check_real("value", self.value)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return np.full(shape, float(self.value))


@dataclass(frozen=True, eq=False, repr=False)
class Zeros(Initializer):
    """w = 0 in every element.

    Source: PyTorch's zeros_.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return np.zeros(shape)


@dataclass(frozen=True, eq=False, repr=False)
class Ones(Initializer):
    """w = 1 in every element.

    Source: PyTorch's ones_.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return np.ones(shape)


@dataclass(frozen=True, eq=False, repr=False)
class Uniform(Initializer):
    """U(a, b), whatever the size of the layer; a < b, U(0, 1) by default.

    Source: PyTorch's uniform_.
    """

    a: float = 0.0
    b: float = 1.0

    def __post_init__(self) -> None:
        check_real("a", self.a)
        check_real("b", self.b, low=self.a, open_low=True)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        half = 0.5 * float(self.b) - 0.5 * float(self.a)
        return (0.5 * float(self.a) + 0.5 * float(self.b)) + draw.uniform(shape, half)


@dataclass(frozen=True, eq=False, repr=False)
class Normal(Initializer):
    """N(mean, std²), whatever the size of the layer; std ≥ 0, N(0, 1) by default.

    Source: PyTorch's normal_.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_real("mean", self.mean)
        check_real("std", self.std, low=0.0)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return float(self.mean) + draw.normal(shape, float(self.std))
