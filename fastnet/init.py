"""Initialisers: the distribution of a parameter's first value.

An initialiser is a small immutable object; `sample` draws float64 from a counter-based stream, so the
numbers depend only on the seed, the layer's place and the parameter's place in the layer, and are the
same for every backend and dtype. fan_in and fan_out are the numbers of inputs and outputs of the
layer that owns the parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import random
from fastnet.errors import HyperparameterError, check_choice, check_real

Shape = tuple[int, ...]
Array = NDArray[Any]


@dataclass(eq=False, repr=False)
class Draw:
    """Where an initialiser's numbers come from: the counter of fastnet.random."""

    seed: int
    stream: int
    step: int

    def uniform(self, shape: Shape, bound: float) -> Array:
        """U(−bound, bound)."""
        u = random.uniform(math.prod(shape), self.seed, self.stream, self.step)
        return ((2.0 * u - 1.0) * bound).reshape(shape)

    def normal(self, shape: Shape, std: float) -> Array:
        """N(0, std²)."""
        z = random.normal(math.prod(shape), self.seed, self.stream, self.step)
        return (z * std).reshape(shape)


class Initializer:
    """Base of the initialisers."""

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value of a parameter of this shape, float64."""
        raise NotImplementedError

    def __repr__(self) -> str:
        # As code beside `from fastnet import init`, with what differs from its default.
        shown: list[Any] = (
            [(f, getattr(self, f.name)) for f in fields(self)] if is_dataclass(self) else []
        )
        words = [f"{f.name}={value!r}" for f, value in shown if value != f.default]
        place = "init." if type(self).__module__ == __name__ else ""
        return f"{place}{type(self).__name__}({', '.join(words)})"


def check_init(name: str, value: object) -> Initializer | None:
    """Return an initialiser or None, or raise HyperparameterError."""
    if value is None or isinstance(value, Initializer):
        return value
    raise HyperparameterError(
        f"{name} is {value!r}; expected an initialiser, such as fastnet.init.KaimingUniform()"
    )


@dataclass(frozen=True, repr=False)
class Constant(Initializer):
    """Every element is `value`."""

    value: float

    def __post_init__(self) -> None:
        check_real("value", self.value)

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return np.full(shape, float(self.value))


@dataclass(frozen=True, repr=False)
class Zeros(Initializer):
    """Every element is 0."""

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return np.zeros(shape)


@dataclass(frozen=True, repr=False)
class _Kaiming(Initializer):
    a: float = 0.0
    mode: str = "fan_in"

    def __post_init__(self) -> None:
        check_real("a", self.a)
        check_choice("mode", self.mode, ("fan_in", "fan_out"))

    def std(self, fan_in: int, fan_out: int) -> float:
        """√(2 / ((1 + a²)·fan))."""
        fan = fan_in if self.mode == "fan_in" else fan_out
        return math.sqrt(2.0 / ((1.0 + self.a * self.a) * fan))


class KaimingUniform(_Kaiming):
    """U(−√3·σ, √3·σ) with σ = √(2 / ((1 + a²)·fan)), fan = fan_in or fan_out by `mode`.

    `a` is the negative slope of the rectifier that follows (0 for ReLU). PyTorch's default weights of
    Linear are KaimingUniform(a=√5), which is U(−1/√fan_in, 1/√fan_in).
    Source: K. He et al., "Delving deep into rectifiers", ICCV 2015, equations 10, 14 and 15.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return draw.uniform(shape, math.sqrt(3.0) * self.std(fan_in, fan_out))


class KaimingNormal(_Kaiming):
    """N(0, σ²) with σ = √(2 / ((1 + a²)·fan)), fan = fan_in or fan_out by `mode`.

    Source: K. He et al., "Delving deep into rectifiers", ICCV 2015, equations 10, 14 and 15.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return draw.normal(shape, self.std(fan_in, fan_out))


@dataclass(frozen=True, repr=False)
class _Glorot(Initializer):
    gain: float = 1.0

    def __post_init__(self) -> None:
        check_real("gain", self.gain, low=0.0, open_low=True)

    def std(self, fan_in: int, fan_out: int) -> float:
        """gain·√(2 / (fan_in + fan_out))."""
        return self.gain * math.sqrt(2.0 / (fan_in + fan_out))


class GlorotUniform(_Glorot):
    """U(−√3·σ, √3·σ) with σ = gain·√(2 / (fan_in + fan_out)).

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, equation 16.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return draw.uniform(shape, math.sqrt(3.0) * self.std(fan_in, fan_out))


class GlorotNormal(_Glorot):
    """N(0, σ²) with σ = gain·√(2 / (fan_in + fan_out)); same source as GlorotUniform (equation 12)."""

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return draw.normal(shape, self.std(fan_in, fan_out))


@dataclass(frozen=True, repr=False)
class FanInUniform(Initializer):
    """U(−1/√fan_in, 1/√fan_in): what PyTorch draws the bias of Linear from, and its weights too."""

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The first value, float64."""
        return draw.uniform(shape, 1.0 / math.sqrt(fan_in))
