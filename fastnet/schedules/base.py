"""Schedule: a number that depends on the step; the base of all schedules, and their products."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np

from fastnet.configured import Configured
from fastnet.errors import HyperparameterError, check_int, check_real, shown, undefined

Array = np.ndarray
BLOCK = 4096  # steps computed together, so that temporaries stay in the cache
LAST_STEP = 2**53  # float64 represents all integers up to here
NOT_NEGATIVE: dict[str, Any] = {"low": 0.0}
FRACTION: dict[str, Any] = {"low": 0.0, "high": 1.0}


class Schedule(Configured, base=True):
    """Base of the schedules: immutable, compared by value, a pure function of the step.

    `s(step)` is the number for a step of the optimizer, counted from 0, or an array of numbers for an
    array of steps; `plt.plot(s(np.arange(1000)))` draws it. An optimizer takes a schedule in place of a
    number: `fn.SGD(lr=s)`. `s * r` is the product with another schedule or a number.

    A schedule of your own passes its arguments to `super().__init__(name=value)` and defines `values(t)`.
    Its numbers are the same on every machine if it uses only additions, multiplications, divisions and
    square roots, as the schedules here do.
    """

    __array_ufunc__ = None  # makes NumPy leave `np.float64(0.5) * s` to this class
    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}  # argument → arguments of check_real

    def __init__(self, **arguments: Any) -> None:
        for name, value in arguments.items():
            if name in self._ranges:
                value = check_real(name, value, **self._ranges[name])
            self.__dict__[name] = value

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the arguments

    def values(self, t: Array) -> Any:
        """The numbers for steps t, int64 (n,) ≥ 0: float64 (n,)."""
        raise undefined(
            self, "values(self, t)", "it returns a number for each of the steps t, an array"
        )

    @property
    def length(self) -> int | None:
        """The number of steps until the schedule ends; None: it has no end."""
        return None

    def __call__(self, step: Any) -> Any:
        """The number for a step, or float64 numbers for an array of steps of any shape."""
        try:
            t = np.asarray(step)
        except ValueError:  # a ragged list
            t = np.empty(0)
        if t.dtype.kind not in "iu" or (t.size and not (t.min() >= 0 and t.max() <= LAST_STEP)):
            raise HyperparameterError(f"step is {shown(step)}; expected integers in [0, 2⁵³]")
        flat, found = t.astype(np.int64).ravel(), np.empty(t.size)
        with np.errstate(all="ignore"):  # the optimizer checks the numbers
            for begin in range(0, t.size, BLOCK):
                found[begin : begin + BLOCK] = self.values(flat[begin : begin + BLOCK])
        return found.reshape(t.shape) if t.ndim else float(found[0])

    def per_epoch(self, steps_per_epoch: int) -> PerEpoch:
        """The same schedule for epochs of so many steps: constant within an epoch."""
        return PerEpoch(self, steps_per_epoch)

    def __mul__(self, other: Any) -> Any:
        return product(self, other)

    def __rmul__(self, other: Any) -> Any:
        return product(other, self)

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


class ProductLR(Schedule):
    """s(t) = factor · s₁(t) · s₂(t) · …; written `s1 * s2`, `0.5 * s1`.

    A schedule that begins with 1 can warm up another while that runs: `LinearLR(1.0, 0.1, 1.0, 500) * s`.
    PyTorch's ChainedScheduler is such a product.

    factor: number ≥ 0.
    schedules: one schedule or more.
    Source: PyTorch's ChainedScheduler, as the product that it computes.
    """

    _ranges: ClassVar = {"factor": NOT_NEGATIVE}

    def __init__(self, factor: float, *schedules: Schedule) -> None:
        if not schedules:
            raise HyperparameterError("schedules is (); expected one schedule or more")
        for i, schedule in enumerate(schedules):
            check_schedule(f"schedules[{i}]", schedule)
        super().__init__(factor=factor, schedules=schedules)

    @property
    def length(self) -> int | None:
        """The number of steps until the first of them ends."""
        return min((s.length for s in self.schedules if s.length is not None), default=None)

    def values(self, t: Array) -> Any:
        """The product, multiplied from left to right."""
        return math.prod((s.values(t) for s in self.schedules), start=np.full(len(t), self.factor))

    def __repr__(self) -> str:
        words = [repr(s) for s in self.schedules]
        return " * ".join(
            words if self.factor == 1.0 and words[1:] else [repr(self.factor), *words]
        )


class PerEpoch(Schedule):
    """s(t) = schedule(⌊t / steps_per_epoch⌋): a schedule that counts epochs; `schedule.per_epoch(n)`.

    An epoch of `fit` has ⌈rows / batch_size⌉ steps, `math.ceil(len(X) / batch_size)`; with
    accumulation_steps=k it has a k-th of them, rounded up. So `StepLR(0.1, 30).per_epoch(n)` divides the
    rate by ten every 30 epochs, like PyTorch's StepLR(…, 30) whose step() is called once an epoch.

    schedule: a schedule.
    steps_per_epoch: integer ≥ 1.
    Source: PyTorch's custom of calling a scheduler once an epoch.
    """

    def __init__(self, schedule: Schedule, steps_per_epoch: int) -> None:
        super().__init__(
            schedule=check_schedule("schedule", schedule),
            steps_per_epoch=check_steps("steps_per_epoch", steps_per_epoch),
        )

    @property
    def length(self) -> int | None:
        """As many epochs as the schedule has steps."""
        inner = self.schedule.length
        return None if inner is None else int(inner * self.steps_per_epoch)

    def values(self, t: Array) -> Any:
        """The schedule's numbers at the epochs of t."""
        return self.schedule.values(t // self.steps_per_epoch)


def check_steps(name: str, value: Any, low: int = 1) -> int:
    """Return a number of steps, or raise HyperparameterError."""
    return check_int(name, value, low=low, high=LAST_STEP)


def check_schedule(name: str, value: Any) -> Schedule:
    """Return a schedule, or raise HyperparameterError."""
    if not isinstance(value, Schedule):
        raise HyperparameterError(
            f"{name} is {shown(value)}; expected a schedule, such as StepLR(0.1, 30)"
        )
    return value


def product(*parts: Any) -> Any:
    """The product of schedules and numbers as one ProductLR, with one factor and no nested product."""
    factor, schedules = 1.0, []
    for part in parts:
        if isinstance(part, ProductLR):
            factor *= part.factor
            schedules += part.schedules
        elif isinstance(part, Schedule):
            schedules.append(part)
        else:
            factor *= check_real("factor", part, low=0.0)
    return ProductLR(factor, *schedules)
