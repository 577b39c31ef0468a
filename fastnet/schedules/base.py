"""Schedule: a number that depends on the step, and what all schedules share."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import HyperparameterError, check_real

Array = NDArray[Any]
LAST_STEP = 2**53  # the integers up to here are float64 numbers


class Schedule:
    """Base of the schedules: immutable, compared by value, a pure function of the step.

    `s(step)` is the number for a step of the optimizer, counted from 0, or an array of numbers for an
    array of steps (so `plt.plot(s(np.arange(1000)))` draws it). An optimizer takes a schedule wherever
    it takes a number: `fn.SGD(lr=s)`.

    Values do not depend on the machine, nor on which steps are asked for together. A schedule of your
    own passes its arguments on to `super().__init__(name=value)` and defines `values(t)`.
    """

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}  # argument → arguments of check_real

    def __init__(self, **arguments: Any) -> None:
        for name, value in arguments.items():
            if name in self._ranges:
                value = check_real(name, value, **self._ranges[name])
            self.__dict__[name] = value

    def values(self, t: Array) -> Array:
        """The numbers for steps t, int64 (n,) ≥ 0: float64 (n,)."""
        raise NotImplementedError

    def __call__(self, step: Any) -> Any:
        """The number for a step, or float64 numbers for an array of steps of any shape."""
        t = np.asarray(step)
        if t.dtype.kind not in "iu" or (t.size and not (t.min() >= 0 and t.max() <= LAST_STEP)):
            raise HyperparameterError(f"step is {step!r}; expected integers in [0, 2⁵³]")
        with np.errstate(all="ignore"):  # an optimizer refuses numbers that are no good
            values = self.values(t.astype(np.int64).ravel())
        found = np.broadcast_to(values, t.size).reshape(t.shape)
        return np.array(found, np.float64) if t.ndim else float(found)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed: build a new one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed: build a new one")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        given = inspect.signature(type(self)).parameters.values()
        shown = ((p.name, getattr(self, p.name), p.default) for p in given)
        words = [f"{name}={value!r}" for name, value, default in shown if value != default]
        return f"{type(self).__name__}({', '.join(words)})"
