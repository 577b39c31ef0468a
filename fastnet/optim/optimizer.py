"""Optimizers: hyper-parameters, state for each model, and a row of numbers for each step."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from fastnet.errors import HyperparameterError
from fastnet.op import Array, Op
from fastnet.optim.groups import check_groups, group_numbers, own_numbers
from fastnet.optim.numbers import BETA, Number, check_betas, check_number, evaluate, is_on
from fastnet.optim.rules import adam, sgd, sgd_momentum, sgd_nesterov
from fastnet.portable import powers

# A smaller eps would vanish in float32, and 0/0 would follow where a gradient has always been zero.
SMALLEST_EPS = float(np.finfo(np.float32).tiny)


@dataclass(eq=False, repr=False)
class OptimizerState:
    """What an optimizer remembers of one model: its state vectors and the number of steps taken."""

    settings: list[
        Optimizer
    ]  # for each group of parameters, an optimizer with that group's numbers
    passes: list[list[type[Op]]]  # for each group, the ops of a step
    group_of: list[int]  # of each trainable parameter
    options: dict[str, Any]  # the optimizer's hyper-parameters when this was made
    segment: Array | None = None  # bytes; the ops' vectors one after the other
    program: np.ndarray | None = None
    steps: int = 0

    def hyper(self, count: int) -> Array:
        """The numbers of the next steps: (count, passes of all groups, numbers)."""
        return numbers_of(self.settings, self.steps, count)


class Optimizer:
    """Base of all optimizers, and what every one of them takes, by name, beside its own arguments.

    groups: parameters with hyper-parameters of their own, written as PyTorch's:
        `groups=[{"params": "0.*", "lr": 1e-4}, {"params": ["2.weight"], "weight_decay": 0.1}]`.
        "params" is a name of `model.named_parameters()` or a pattern with * and ?, or several; each
        must fit a parameter, which belongs to the first group that it fits. All others have the
        optimizer's own hyper-parameters, and so has a group where it says nothing else.
    decay_biases_and_norms: False takes the weight decay away from all parameters of one dimension:
        biases, and weights and biases of batchnorm. True by default, as in PyTorch.

    Hyper-parameters are attributes; assigning one checks it and takes effect at the next step. Each
    of the real ones is a number or a schedule (`fn.schedules`), a function of this optimizer's steps on
    the model, from 0. One optimizer may serve several models: it keeps a state for each, which goes
    with the model.
    """

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}  # hyper-parameter → arguments of check_real
    _decays: ClassVar = ("weight_decay",)

    def __init__(
        self,
        *,
        groups: Iterable[Mapping[str, Any]] = (),
        decay_biases_and_norms: bool = True,
    ) -> None:
        self._states: weakref.WeakKeyDictionary[Any, OptimizerState] = weakref.WeakKeyDictionary()
        self.decay_biases_and_norms = bool(decay_biases_and_norms)
        self.groups: tuple[dict[str, Any], ...] = groups  # type: ignore[assignment]  # made one there

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
        old, options = self._states.get(model), self._options()
        if old is not None and old.options == options:
            return old
        settings, group_of = self._settings(model.named_parameters())
        passes = [one.passes() for one in settings]
        options["groups"] = tuple(dict(group) for group in self.groups)
        state = OptimizerState(settings, passes, group_of, options)
        if old is not None and (old.passes, old.group_of) == (passes, group_of):
            state.segment, state.program, state.steps = old.segment, old.program, old.steps
        self._states[model] = state
        return state

    def _settings(self, named: Mapping[str, Array]) -> tuple[list[Optimizer], list[int]]:
        """The optimizers of the groups, and each parameter's place in that list."""
        keys = [
            (number, value.ndim == 1 and not self.decay_biases_and_norms)
            for number, value in zip(
                group_numbers(self.groups, list(named)), named.values(), strict=True
            )
        ]
        found = list(dict.fromkeys(keys))
        return [self._variant(*key) for key in found], [found.index(key) for key in keys]

    def _variant(self, number: int, undecayed: bool) -> Optimizer:
        """This optimizer with the numbers of a group (0: its own), and with or without decay."""
        given = own_numbers(self.groups[number - 1]) if number else {}
        if undecayed:
            given |= dict.fromkeys(self._decays, 0.0)
        return self._with(given) if given else self

    def _with(self, given: Mapping[str, Any]) -> Optimizer:
        return type(self)(**{**self._options(), "groups": (), **given})

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name[0] != "_"}

    @property
    def op(self) -> type[Op]:
        """The update rule that the hyper-parameters select."""
        raise NotImplementedError

    def passes(self) -> list[type[Op]]:
        """The ops of a step, in order: the rule, and what comes before and after it."""
        return [self.op]

    def hyper(self, first: int, count: int) -> Array:
        """The numbers for steps first, first + 1, … (from 0): (count, passes, numbers)."""
        return numbers_of([self], first, count)

    def _at(self, t: Array) -> SimpleNamespace:
        """The hyper-parameters at steps t: a number, or an array where there is a schedule."""
        found = self._options()
        for name, interval in self._ranges.items():
            found[name] = evaluate(name, found[name], t, interval)
        if "betas" in found:
            found["betas"] = tuple(
                evaluate(f"betas[{i}]", beta, t, BETA) for i, beta in enumerate(found["betas"])
            )
        return SimpleNamespace(**found)

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        """Each number of the passes by name, for steps t (from 0) with the hyper-parameters `at` them."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        known = self._arguments()
        if name not in known and not name.startswith("_"):
            raise AttributeError(
                f"{type(self).__name__} has no hyper-parameter {name!r}; it has {', '.join(known)}"
            )
        if name in self._ranges:
            value = check_number(name, value, self._ranges[name])
        if name == "groups":
            value = check_groups(value, [n for n in known if n not in SHARED], self._with)
        super().__setattr__(name, value)

    @classmethod
    def _arguments(cls) -> list[str]:
        given = inspect.signature(cls).parameters.values()
        return [p.name for p in given if p.kind is not p.VAR_KEYWORD] + list(SHARED)

    def __repr__(self) -> str:
        shown = (
            (name, value)
            for name, value in self._options().items()
            if name not in SHARED or value != SHARED[name]
        )
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown)})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts afresh: states belong to pairs of optimizer and model.
        return {k: v for k, v in self.__dict__.items() if k != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = weakref.WeakKeyDictionary()


# What every optimizer takes by name, and what it is if it is not given.
SHARED = {name: p.default for name, p in inspect.signature(Optimizer).parameters.items()}


def numbers_of(settings: Sequence[Optimizer], first: int, count: int) -> Array:
    """The numbers of the passes of several optimizers, for steps first, first + 1, … (from 0).

    float64 (count, passes, numbers); a pass with fewer numbers than another leaves the rest zero.
    """
    t = np.arange(first, first + count, dtype=np.int64)
    columns = [one._columns(one._at(t), t) for one in settings]
    rows = [
        (found, op.hyper)
        for found, one in zip(columns, settings, strict=True)
        for op in one.passes()
    ]
    numbers = np.zeros((count, len(rows), max((len(names) for _, names in rows), default=0)))
    for row, (found, names) in enumerate(rows):
        for i, name in enumerate(names):
            numbers[:, row, i] = found[name]
    return numbers


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
        **shared: Any,
    ) -> None:
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, bool(nesterov)
        super().__init__(**shared)

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
            if not is_on(self.momentum) or self.dampening != 0.0:
                raise HyperparameterError(
                    f"nesterov=True with momentum={self.momentum} and dampening={self.dampening}; "
                    "expected momentum > 0 and dampening = 0"
                )
            return sgd_nesterov
        return sgd_momentum if is_on(self.momentum) else sgd

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
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "betas":
            value = check_betas(value)
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
            "shrink": 1.0,
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
        **shared: Any,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, **shared)

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        decoupled = {"weight_decay": 0.0, "shrink": 1.0 - at.lr * at.weight_decay}
        return super()._columns(at, t) | decoupled
