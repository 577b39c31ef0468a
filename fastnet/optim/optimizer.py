"""Optimizers: hyper-parameters, state for each model, and a row of numbers for each step."""

from __future__ import annotations

import inspect
import weakref
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from fastnet import portable
from fastnet.errors import HyperparameterError, check_real
from fastnet.op import Array, Op
from fastnet.optim.rules import adam, adamw, sgd, sgd_momentum, sgd_nesterov
from fastnet.schedules.base import Schedule

# A smaller eps would vanish in float32, and 0/0 would follow where a gradient has always been zero.
SMALLEST_EPS = float(np.finfo(np.float32).tiny)

Number = float | Schedule  # a hyper-parameter: the same at every step, or one number for each
BETA = {"low": 0.0, "high": 1.0, "open_high": True}


@dataclass(eq=False, repr=False)
class OptimizerState:
    """What an optimizer remembers of one model: its state vectors and the number of steps taken."""

    op: type[Op]
    segment: Array | None = None  # bytes; the op's vectors one after the other
    program: np.ndarray | None = None
    steps: int = 0


class Optimizer:
    """Base of all optimizers.

    Hyper-parameters are attributes; assigning one checks it and takes effect at the next step. Each
    of the real ones is a number or a schedule (`fn.schedules`), a function of this optimizer's steps on
    the model, from 0. One optimizer may serve several models: it keeps a state for each, which goes
    with the model.
    """

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}  # hyper-parameter → arguments of check_real

    def __init__(self) -> None:
        self._states: weakref.WeakKeyDictionary[Any, OptimizerState] = weakref.WeakKeyDictionary()

    def step(self, model: Any) -> None:
        """Update the model's parameters in place from its gradients, in one pass."""
        if not hasattr(model, "apply_update"):
            raise HyperparameterError(f"model is {model!r}; expected a Sequential")
        model.apply_update(self)

    def reset(self, model: Any) -> None:
        """Forget the model: the next step starts from a zero state."""
        self._states.pop(model, None)

    def state(self, model: Any) -> OptimizerState:
        """The state for a model, new where there is none or where another update rule is needed now."""
        state = self._states.get(model)
        if state is None or state.op is not self.op:
            state = self._states[model] = OptimizerState(self.op)
        return state

    @property
    def op(self) -> type[Op]:
        """The update rule that the hyper-parameters select."""
        raise NotImplementedError

    def hyper(self, first: int, count: int) -> Array:
        """The numbers of the rule for steps first, first + 1, … (from 0): (count, groups, numbers)."""
        t = np.arange(first, first + count, dtype=np.int64)
        columns, names = self._columns(self._at(t), t), self.op.hyper
        numbers = np.empty((count, 1, len(names)))
        for i, name in enumerate(names):
            numbers[:, 0, i] = columns[name]
        return numbers

    def _at(self, t: Array) -> SimpleNamespace:
        """The hyper-parameters at steps t: a number, or an array where there is a schedule."""
        found = {k: v for k, v in self.__dict__.items() if not k.startswith("_")}
        for name, interval in self._ranges.items():
            found[name] = _evaluate(name, found[name], t, interval)
        if "betas" in found:
            found["betas"] = tuple(
                _evaluate(f"betas[{i}]", beta, t, BETA) for i, beta in enumerate(found["betas"])
            )
        return SimpleNamespace(**found)

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        """Each number of the rule by name, for steps t (from 0) with the hyper-parameters `at` them."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        known = inspect.signature(type(self)).parameters
        if name not in known and not name.startswith("_"):
            raise AttributeError(
                f"{type(self).__name__} has no hyper-parameter {name!r}; it has {', '.join(known)}"
            )
        if name in self._ranges:
            value = _check_number(name, value, self._ranges[name])
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        shown = ((k, v) for k, v in self.__dict__.items() if not k.startswith("_"))
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown)})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts afresh: states belong to pairs of optimizer and model.
        return {k: v for k, v in self.__dict__.items() if k != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = weakref.WeakKeyDictionary()


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum in PyTorch's form.

    d = g + weight_decay·w; without momentum w ← w − lr·d. With it v ← momentum·v + (1 − dampening)·d
    (at the first step v = d) and w ← w − lr·v, or with `nesterov` w ← w − lr·(d + momentum·v).

    lr: learning rate ≥ 0; 1e-3 by default.
    momentum: ≥ 0. dampening: any number. weight_decay: ≥ 0 (L2, added to the gradient). All 0.
    nesterov: needs momentum > 0 and dampening = 0.
    Source: I. Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013; PyTorch scales the velocity by lr only when it is used, so that a change of lr acts at
    once.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "momentum": {"low": 0.0},
        "dampening": {},
        "weight_decay": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__()
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, bool(nesterov)

    def __setattr__(self, name: str, value: Any) -> None:
        before = dict(self.__dict__)
        super().__setattr__(name, value)
        try:
            if "nesterov" in self.__dict__:
                self.op  # noqa: B018  (checks the combination)
        except HyperparameterError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @property
    def op(self) -> type[Op]:
        """`sgd`, `sgd_momentum` or `sgd_nesterov`."""
        if self.nesterov:
            if not _is_on(self.momentum) or self.dampening != 0.0:
                raise HyperparameterError(
                    f"nesterov=True with momentum={self.momentum} and dampening={self.dampening}; "
                    "expected momentum > 0 and dampening = 0"
                )
            return sgd_nesterov
        return sgd_momentum if _is_on(self.momentum) else sgd

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {
            "lr": at.lr,
            "weight_decay": at.weight_decay,
            "momentum": at.momentum,
            "damping": np.where(t == 0, 1.0, 1.0 - at.dampening),
        }


class Adam(Optimizer):
    """Adam: m ← β₁m + (1 − β₁)d, v ← β₂v + (1 − β₂)d², w ← w − lr·m̂ / (√v̂ + eps).

    d = g + weight_decay·w (L2; for decoupled decay take AdamW); at step t ≥ 1 m̂ = m/(1 − β₁ᵗ) and
    v̂ = v/(1 − β₂ᵗ).

    lr: ≥ 0, 1e-3 by default. betas: two numbers in [0, 1), (0.9, 0.999). eps: ≥ 1.2e-38, 1e-8.
    weight_decay: ≥ 0, 0.
    Source: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "eps": {"low": SMALLEST_EPS},
        "weight_decay": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
    ) -> None:
        super().__init__()
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "betas":
            value = _check_betas(value)
        super().__setattr__(name, value)

    @property
    def op(self) -> type[Op]:
        """`adam`."""
        return adam

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        beta1, beta2 = at.betas
        first, count = int(t[0]) + 1, len(t)
        return {
            "step_size": at.lr / (1.0 - powers(beta1, first, count)),
            "root_scale": 1.0 / np.sqrt(1.0 - powers(beta2, first, count)),
            "beta1": beta1,
            "beta2": beta2,
            "eps": at.eps,
            "weight_decay": at.weight_decay,
            "shrink": 1.0 - at.lr * at.weight_decay,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w·(1 − lr·weight_decay), then Adam's step with d = g.

    lr: ≥ 0, 1e-3 by default. betas: two numbers in [0, 1), (0.9, 0.999). eps: ≥ 1.2e-38, 1e-8.
    weight_decay: ≥ 0, 1e-2.
    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2,
    with the decay scaled by lr as PyTorch does.
    """

    def __init__(
        self,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    @property
    def op(self) -> type[Op]:
        """`adamw`."""
        return adamw


def _is_on(value: Number) -> bool:
    return isinstance(value, Schedule) or value > 0.0


def _check_number(name: str, value: Any, interval: dict[str, Any]) -> Number:
    """Check a number, or a schedule's first one; the others are checked before the steps they are for."""
    if isinstance(value, Schedule):
        _evaluate(name, value, np.zeros(1, np.int64), interval)
        return value
    return check_real(name, value, **interval)


def _evaluate(name: str, value: Any, t: Array, interval: dict[str, Any]) -> Any:
    if not isinstance(value, Schedule):
        return value
    column = value(t)
    for place in (int(column.argmin()), int(column.argmax())):  # a NaN is both
        check_real(f"{name} at step {t[place]}", float(column[place]), **interval)
    return column


def powers(base: Any, first: int, count: int) -> Array:
    """`base`, a number or one for each, to the powers first ≥ 0, first + 1, …: float64 (count,).

    By squaring: multiplications alone, so that the bits do not depend on a machine's `pow`.
    """
    if np.ndim(base):
        return portable.integer_power(base, np.arange(first, first + count))
    numbers = range(first // POWERS, (first + count - 1) // POWERS + 1)
    blocks = [_powers(base, number) for number in numbers]
    begin = first % POWERS
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks))[begin : begin + count]


POWERS = 1024  # in one block; those in use are kept, as steps come one after the other


@lru_cache(maxsize=64)
def _powers(base: float, number: int) -> Array:
    result = np.ones(POWERS)
    square, filled = base, 1  # square = base^filled
    while filled < POWERS:
        np.multiply(result[:filled], square, out=result[filled : 2 * filled])
        square, filled = square * square, 2 * filled
    for bit in bin(number)[:1:-1]:  # times base^(number·POWERS), lowest bit first
        if bit == "1":
            result *= square
        square *= square
    return result


def _check_betas(value: Any) -> tuple[Number, Number]:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise HyperparameterError(f"betas is {value!r}; expected two numbers in [0, 1)") from None
    return _check_number("betas[0]", first, BETA), _check_number("betas[1]", second, BETA)
