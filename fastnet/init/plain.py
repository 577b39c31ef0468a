"""Initialisers that do not depend on the size of the layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet.errors import check_real
from fastnet.init.base import Array, Draw, Initializer, Shape


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Initializer):
    """w = value in every element; a bias of 0.01, for example, keeps every ReLU active at the start.

    Source: PyTorch's constant_.
    """

    value: float

    def __post_init__(self) -> None:
        check_real("value", self.value)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return np.full(shape, float(self.value))


@dataclass(frozen=True, eq=False, repr=False)
class Zeros(Initializer):
    """w = 0 in every element.

    Source: PyTorch's zeros_.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return np.zeros(shape)


@dataclass(frozen=True, eq=False, repr=False)
class Ones(Initializer):
    """w = 1 in every element.

    Source: PyTorch's ones_.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return np.ones(shape)


@dataclass(frozen=True, eq=False, repr=False)
class RandomSigns(Initializer):
    """w = 1 or −1, each with probability ½, in every element.

    Source: Y. Wen, D. Tran, J. Ba, "BatchEnsemble: an alternative approach to efficient ensemble and
    lifelong learning", ICLR 2020.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return np.where(draw.uniform(shape, 1.0) < 0, -1.0, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Uniform(Initializer):
    """U(a, b) with a < b (default U(0, 1)), whatever the size of the layer.

    Source: PyTorch's uniform_.
    """

    a: float = 0.0
    b: float = 1.0

    def __post_init__(self) -> None:
        check_real("a", self.a)
        check_real("b", self.b, low=self.a, open_low=True)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        half = 0.5 * float(self.b) - 0.5 * float(self.a)
        return (0.5 * float(self.a) + 0.5 * float(self.b)) + draw.uniform(shape, half)


@dataclass(frozen=True, eq=False, repr=False)
class Normal(Initializer):
    """N(mean, std²) with std ≥ 0 (default N(0, 1)), whatever the size of the layer.

    Source: PyTorch's normal_.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_real("mean", self.mean)
        check_real("std", self.std, low=0.0)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return float(self.mean) + draw.normal(shape, float(self.std))
