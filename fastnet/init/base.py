"""The base of initialisers, and the random numbers that they draw."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.configured import Configured
from fastnet.errors import HyperparameterError, shown, undefined
from fastnet.plain import plain

Shape = tuple[int, ...]
Array = np.ndarray


@plain()
class Draw:
    """Random numbers for one parameter, from the counter of fastnet.random."""

    seed: int
    stream: int
    step: int

    def uniform(self, shape: Shape, bound: float) -> Array:
        """U(−bound, bound)."""
        u = random.uniform(math.prod(shape), self.seed, self.stream, self.step)
        u *= 2.0
        u -= 1.0
        u *= bound
        return u.reshape(shape)

    def normal(self, shape: Shape, std: float) -> Array:
        """N(0, std²)."""
        z = random.normal(math.prod(shape), self.seed, self.stream, self.step)
        z *= std
        return z.reshape(shape)

    def keys(self, shape: Shape) -> Array:
        """Random 64-bit words to sort by, independent of the numbers above."""
        apart = self.step + (1 << 32)  # beyond the steps of all parameters
        return random.words64(math.prod(shape), self.seed, self.stream, apart).reshape(shape)


class Initializer(Configured, base=True):
    """Base of the initialisers; dataclasses compare equal if class and fields are equal."""

    of_matrices: ClassVar[bool] = False  # whether it cannot draw a vector, such as a bias

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value of a parameter of this shape, float64; a matrix is (fan_in, fan_out)."""
        raise undefined(
            self,
            "sample(self, shape, fan_in, fan_out, draw)",
            "it returns a float64 array of this shape",
        )

    def _numbers(self) -> tuple[Any, ...]:
        """The fields of a dataclass; other initialisers equal only themselves."""
        if not is_dataclass(self):
            return (id(self),)
        return tuple(getattr(self, f.name) for f in fields(self))

    # Defined once here: dataclass would generate both for each class, which makes the import slower.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._numbers() == other._numbers()

    def __hash__(self) -> int:
        return hash((type(self), self._numbers()))

    def __repr__(self) -> str:
        # The code that makes it after `from fastnet import init`.
        place = "init." if type(self).__module__.startswith("fastnet.init.") else ""
        return f"{place}{super().__repr__()}"


def check_init(name: str, value: object, *, vector: bool = False) -> Initializer | None:
    """Return an initialiser (with `vector`, one that can draw vectors) or None, or raise an error."""
    if not (value is None or isinstance(value, Initializer)):
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected an initialiser, such as fastnet.init.KaimingUniform()"
        )
    if vector and value is not None and value.of_matrices:
        raise HyperparameterError(
            f"{name} is {shown(value)}, which initialises matrices; expected an initialiser that can draw "
            "a vector, such as fastnet.init.Constant(0.01)"
        )
    return value
