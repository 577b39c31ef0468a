"""Optimizer: hyper-parameters, state for each model, and rows of numbers for each step."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np

from fastnet.configured import Configured
from fastnet.errors import SMALLEST, HyperparameterError, check_flag, outside, shown
from fastnet.op import Array, Op
from fastnet.optim.groups import check_groups, group_numbers, own_numbers
from fastnet.optim.numbers import (
    BETA,
    Number,
    check_betas,
    check_number,
    evaluate,
    holds_schedule,
    is_on,
)
from fastnet.optim.penalties import l1_gradient, scale_units, soft_threshold
from fastnet.optim.rules import family_vectors, vectors_of
from fastnet.parameter import check_count, check_names, fill, vector_state
from fastnet.schedules.base import Schedule

SMALLEST_EPS = SMALLEST  # 0/0 would follow from less, where a gradient has always been zero
AHEAD = 64  # steps whose numbers are made at once


def _check_model(model: Any) -> None:
    """Raise HyperparameterError where this is no model."""
    if isinstance(model, type) or not hasattr(model, "apply_update"):
        raise HyperparameterError(f"model is {shown(model)}; expected a Sequential")


@dataclass(eq=False, repr=False)
class OptimizerState:
    """What an optimizer remembers of one model: its state vectors and the number of steps taken."""

    settings: list[Optimizer]  # for each group of parameters, one with that group's numbers
    passes: list[list[type[Op]]]  # for each group, the ops of a step
    group_of: list[int]  # of each parameter
    options: dict[str, Any]  # the optimizer's hyper-parameters when this was made
    rule: Any = None  # the passes, compiled
    run: Any = None  # runs them with a step's numbers
    backend: Any = None  # on which
    steps: int = 0
    since: list[int | None] = field(default_factory=list)  # each parameter's first with vectors
    vectors: dict[str, Array] = field(default_factory=dict)  # the rule's, and those that wait
    changes: int = 0  # the optimizer's when its options were last looked at
    warned: bool = False  # of a schedule that has ended
    _ahead: tuple[int, Array] = (0, np.empty(0))  # numbers of more steps, and the first of these

    def hyper(self, count: int) -> Array:
        """The numbers of the next steps: (count, passes of all groups, numbers).

        Warns once where a schedule has ended before them. Those of few steps are made for AHEAD steps at
        once and kept, being functions of the step.
        """
        if not self.warned and self.steps + count > self._length:
            self._warn()
        if count >= AHEAD:
            return numbers_of(self.settings, self.steps, count)
        first, numbers = self._ahead
        begin = self.steps - first
        if not 0 <= begin <= len(numbers) - count:
            numbers, begin = self._next(count), 0
            self._ahead = self.steps, numbers
        return numbers[begin : begin + count]

    def _next(self, count: int) -> Array:
        with suppress(Exception):  # a schedule's at a later step, which is told when that comes
            return numbers_of(self.settings, self.steps, AHEAD)
        return numbers_of(self.settings, self.steps, count)

    @cached_property
    def _length(self) -> float:
        """The steps that all schedules are made for."""
        return min((length for _, length in self._schedules()), default=math.inf)

    def _schedules(self) -> Iterator[tuple[Schedule, int]]:
        for one in self.settings:
            for value in one._argument_values().values():
                for part in value if isinstance(value, tuple) else (value,):
                    if isinstance(part, Schedule) and part.length is not None:
                        yield part, part.length

    def _warn(self) -> None:
        self.warned = True
        schedule, length = min(self._schedules(), key=lambda found: found[1])
        last = schedule(length)
        warnings.warn(
            f"{type(schedule).__name__} is made for {length} steps and step {max(self.steps, length)} "
            f"comes after its end, where it stays at {last:.3g}: assign a schedule of more steps, "
            "or a number (optimizer.lr = ...), to train on",
            stacklevel=outside(),
        )

    def forget_numbers(self) -> None:
        """Let the next step's numbers be made anew."""
        self._ahead = 0, np.empty(0)


class Optimizer(Configured, base=True):
    """Base of all optimizers, and what every one of them takes, by name, beside its own arguments.

    groups: parameters with hyper-parameters of their own, written as PyTorch's:
        `groups=[{"params": "0.*", "lr": 1e-4}, {"params": ["2.weight"], "weight_decay": 0.1}]`.
        "params" is a name of `model.named_parameters()` or a pattern with * and ?, or several; each
        must fit a parameter, and no parameter may belong to two groups. All others have the
        optimizer's own hyper-parameters, and so has a group where it says nothing else.
    decay_biases_and_norms: False takes weight_decay and l1 away from all parameters of one dimension:
        biases, and weights and biases of batchnorm. True by default, as in PyTorch.
    decoupled_weight_decay: True lets weight_decay shrink the weights, w ← w·(1 − lr·weight_decay), and not
        add to the gradient. False by default, but for AdamW and Lion, which are defined so.
    l1: λ ≥ 0 of a penalty λ‖w‖₁, 0 by default. Its subgradient λ·sign(w) is added to the gradient, or with
        l1_proximal=True each step ends with w ← sign(w)·max(|w| − lr·λ, 0), which makes small weights
        exactly 0.
    max_norm: c > 0, or None (default). Each step ends with the incoming weights of each unit, a column
        of a Linear's (in, out) weights without its bias, scaled to the length c where they are longer.
        A step whose lr is 0 leaves them as they are.

    Hyper-parameters are attributes; assigning one checks it and takes effect at the next step. No
    assignment resets the count of steps or a vector of the state; a vector that has not been needed
    before starts as it would at the first step. Each
    of the real ones is a number or a schedule (`fn.schedules`), a function of this optimizer's steps on
    the model, from 0. One optimizer may serve several models: it keeps a state for each, which goes
    with the model.
    """

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}  # hyper-parameter → arguments of check_real
    _shared_ranges: ClassVar = {"l1": {"low": 0.0}, "max_norm": {"low": 0.0, "open_low": True}}
    _decoupled = False  # what decoupled_weight_decay is by default
    _scheduled = False  # whether a hyper-parameter is a schedule
    _changes = 0  # assignments so far
    _since: int | None = 0  # the first step of its vectors

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Before arguments are bound, tell those who write PyTorch's first line what is written here."""
        if cls is Optimizer:
            raise HyperparameterError(
                "Optimizer is the base of all optimizers; make one of those, such as SGD(lr=0.1)"
            )
        if given and isinstance(given[0], Iterable) and not isinstance(given[0], (str, bytes)):
            raise HyperparameterError(
                f"the first argument is {shown(given[0])}; optimizers take no parameters here: write "
                f"{cls.__name__}(lr=...), and give it the model by Trainer(model, loss, optimizer) or "
                "optimizer.step(model)"
            )
        return super().__new__(cls, *given, **named)

    def __init__(
        self,
        *,
        groups: Iterable[Mapping[str, Any]] = (),
        decay_biases_and_norms: bool = True,
        decoupled_weight_decay: bool | None = None,
        l1: Number = 0.0,
        l1_proximal: bool = False,
        max_norm: Number | None = None,
    ) -> None:
        self._states: weakref.WeakKeyDictionary[Any, OptimizerState] = weakref.WeakKeyDictionary()
        self.decay_biases_and_norms = decay_biases_and_norms
        self.decoupled_weight_decay = (
            self._decoupled if decoupled_weight_decay is None else decoupled_weight_decay
        )
        self.l1, self.l1_proximal, self.max_norm = l1, l1_proximal, max_norm
        self.groups: tuple[dict[str, Any], ...] = ()  # those given are checked with all else there
        self.groups = groups  # type: ignore[assignment]  # made one there

    def step(self, model: Any) -> None:
        """Update the model's parameters in place from its gradients, in one pass."""
        _check_model(model)
        model.apply_update(self)

    def reset(self, model: Any) -> None:
        """Forget the model: the next step starts from a zero state."""
        _check_model(model)
        self._states.pop(model, None)

    def state(self, model: Any) -> OptimizerState:
        """The state for a model, new where there is none.

        Where hyper-parameters have changed, the count of steps and all vectors stay. A vector that the
        present rule has no use for waits for one that has.
        """
        _check_model(model)
        old = self._states.get(model)
        if old is not None and self._unchanged(old):
            return old
        options = self._argument_values()
        options["groups"] = tuple(dict(group) for group in self.groups)
        steps, since = (0, []) if old is None else (old.steps, old.since)
        settings, group_of, since = self._settings(model.named_parameters(), steps, since)
        passes = [one.passes() for one in settings]
        state = OptimizerState(settings, passes, group_of, options, steps=steps, since=since)
        state.changes = self._changes
        if old is not None:
            state.vectors, state.warned = self._carried(old, state, model), old.warned
            if (old.passes, old.group_of) == (passes, group_of):
                state.rule, state.run, state.backend = old.rule, old.run, old.backend
        self._states[model] = state
        return state

    def state_dict(self, model: Any) -> dict[str, Any]:
        """What the optimizer remembers of a model, by name: copies, which follow no later step.

        "steps": the number of steps taken, of which 0 is the whole state. "since/0.weight": for each
        parameter with vectors, the step from which on it has them, mostly 0. "m/0.weight": the vector m of
        the rule for that parameter, in PyTorch's shape. Hyper-parameters are in `config`.
        """
        _check_model(model)
        state = model.optimizer_state(self)
        if not state.steps:
            return {"steps": 0}
        since = dict(zip(model.named_parameters(), state.since, strict=True))
        found = {f"since/{name}": step for name, step in since.items() if step is not None}
        for vector in sorted(state.vectors.keys() & family_vectors(self.op)):
            parts = zip(since, model.bind().parts(state.vectors[vector]), strict=True)
            found |= vector_state(vector, {n: p for n, p in parts if since[n] is not None})
        return {"steps": state.steps, **found}

    def load_state_dict(self, model: Any, state: Mapping[str, Any]) -> None:
        """Go on with a model as an optimizer with these hyper-parameters that had this `state_dict`.

        Arrays are copied, to the model's dtype. Raises StateDictError, and changes nothing, where a name is
        missing or unexpected or a shape differs. Vectors that the present rule has no use for wait.
        """
        _check_model(model)
        with model.training_lock():
            self.restore(model, *self.checked_state("state_dict", model, state))

    def checked_state(
        self, what: str, model: Any, state: Mapping[str, Any]
    ) -> tuple[int, list[int | None], dict[str, Array]]:
        """The arguments of `restore` for a state dict, or StateDictError."""
        check_names(what, state, ["steps"], state)
        steps, named = check_count(f"{what}['steps']", state["steps"]), model.named_parameters()
        keys = {name: f"since/{name}" for name in named}
        since = [
            check_count(f"{what}[{key!r}]", state[key], steps) if key in state else None
            for key in keys.values()
        ]
        settings, group_of, _ = self._settings(named, steps, since)
        needed, also = ["steps"], set()
        for name, group, begun in zip(named, group_of, since, strict=True):
            if steps and (own := vectors_of(settings[group].op)):
                needed += [keys[name], *(f"{vector}/{name}" for vector in sorted(own))]
            if steps and begun is not None:
                also |= {keys[name], *(f"{vector}/{name}" for vector in family_vectors(self.op))}
        check_names(what, state, needed, also)
        vectors, storage = {}, model.bind()
        for vector in {key.partition("/")[0] for key in state} & family_vectors(self.op):
            vectors[vector] = np.zeros_like(storage.flat("params"))
            parts = dict(zip(named, storage.parts(vectors[vector]), strict=True))
            fill(what, vector, parts, state)
        return steps, since, vectors

    def restore(
        self, model: Any, steps: int, since: list[int | None], vectors: dict[str, Array]
    ) -> None:
        """Go on with a model as after the steps of a state, which had these vectors."""
        options = {**self._argument_values(), "groups": None}  # so that the state is made of this
        self._states[model] = OptimizerState(
            [], [], [], options, steps=steps, since=since, vectors=vectors
        )

    def _carried(self, old: OptimizerState, new: OptimizerState, model: Any) -> dict[str, Array]:
        """The vectors of an old state as the present rule means them."""
        return old.vectors

    def _unchanged(self, state: OptimizerState) -> bool:
        if state.options["groups"] != self.groups:  # whose dictionaries may change by themselves
            return False
        if state.changes != self._changes:
            if state.options != self._argument_values():
                return False
            state.forget_numbers()  # which a subclass may make of more than options
            state.changes = self._changes
        return True

    def _settings(
        self, named: Mapping[str, Array], steps: int, since: Sequence[int | None]
    ) -> tuple[list[Optimizer], list[int], list[int | None]]:
        """The optimizers of the groups, by when vectors began too; each parameter's place and `since`."""
        groups = self._checked(self.groups)  # whose dictionaries may have changed by themselves
        keys = [
            (number, value.ndim == 1 and not self.decay_biases_and_norms)
            for number, value in zip(
                group_numbers(groups, list(named)), named.values(), strict=True
            )
        ]
        numbers = [{}, *map(own_numbers, groups)]
        variants = {key: self._variant(numbers[key[0]], key[1]) for key in keys}
        began = [
            s if s is not None and s < steps else steps if len(variants[key].op.state) > 1 else None
            for s, key in zip(since or [None] * len(keys), keys, strict=True)
        ]
        each = list(zip(keys, began, strict=True))
        found = list(dict.fromkeys(each))
        settings = [variants[key]._beginning(s) for key, s in found]
        return settings, [found.index(one) for one in each], began

    def _beginning(self, since: int | None) -> Optimizer:
        """This optimizer, or one like it whose vectors begin at another step than 0."""
        if not since:
            return self
        other = copy.copy(self)
        other._since = since
        return other

    def _checked(self, groups: Any) -> tuple[dict[str, Any], ...]:
        return check_groups(
            groups, [n for n in self._constructor() if n not in NOT_IN_GROUPS], self._with
        )

    def _variant(self, given: Mapping[str, Any], undecayed: bool) -> Optimizer:
        """This optimizer with the numbers of a group, and with or without decay."""
        if undecayed:
            off = dict.fromkeys(("weight_decay", "l1"), 0.0)
            given = {**given, **{name: off[name] for name in off if name in self._constructor()}}
        return self._with(given) if given else self

    def _with(self, given: Mapping[str, Any]) -> Optimizer:
        return type(self)(**{**self._argument_values(), "groups": (), **given})

    @property
    def op(self) -> type[Op]:
        """The update rule that the hyper-parameters select."""
        raise NotImplementedError

    def passes(self) -> list[type[Op]]:
        """The ops of a step, in order: the rule, and what comes before and after it."""
        l1 = is_on(self.l1)
        return [
            *([l1_gradient] if l1 and not self.l1_proximal else []),
            self.op,
            *([soft_threshold] if l1 and self.l1_proximal else []),
            *([scale_units] if self.max_norm is not None else []),
        ]

    def initial(self) -> dict[str, float]:
        """What state vectors start from, where that is not 0."""
        return {}

    def hyper(self, first: int, count: int) -> Array:
        """The numbers for steps first, first + 1, … (from 0): (count, passes, numbers)."""
        return numbers_of([self], first, count)

    def _at(self, t: Array) -> Any:
        """The hyper-parameters at steps t: a number, or an array where there is a schedule."""
        if not self._scheduled:
            return self
        found = self._argument_values()
        for name, interval in self._intervals().items():
            found[name] = evaluate(name, found[name], t, interval)
        if "betas" in found:
            found["betas"] = tuple(
                evaluate(f"betas[{i}]", beta, t, BETA) for i, beta in enumerate(found["betas"])
            )
        return SimpleNamespace(**found)

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        """Each number of the passes by name, for steps t (from 0) with the hyper-parameters `at` them."""
        raise NotImplementedError

    def _common(self, at: Any) -> dict[str, Any]:
        """The numbers that every optimizer has."""
        decoupled, decay = self.decoupled_weight_decay, getattr(at, "weight_decay", 0.0)
        return {
            "lr": at.lr,
            "weight_decay": 0.0 if decoupled else decay,
            "shrink": 1.0 - at.lr * decay if decoupled else 1.0,
            "l1": at.l1,
            "cut": at.lr * at.l1,
            "max_norm": None if at.max_norm is None else np.where(at.lr == 0, np.inf, at.max_norm),
        }

    def _intervals(self) -> dict[str, dict[str, Any]]:
        return self._shared_ranges | self._ranges

    def __setattr__(self, name: str, value: Any) -> None:
        known = self._constructor()
        if name not in known and not name.startswith("_"):
            raise AttributeError(
                f"{type(self).__name__} has no hyper-parameter {name!r}; it has {', '.join(known)}"
            )
        if name in self._intervals() and not (name == "max_norm" and value is None):
            value = check_number(name, value, self._intervals()[name])
        if name in known and isinstance(known[name].default, bool):
            value = check_flag(name, value)
        if name == "betas":
            value = check_betas(value)
        if name == "groups":
            value = self._checked(value)
        super().__setattr__(name, value)
        super().__setattr__("_scheduled", holds_schedule(vars(self).values()))
        super().__setattr__("_changes", self._changes + 1)

    @classmethod
    @cache
    def _constructor(cls) -> dict[str, inspect.Parameter]:
        found = super()._constructor()
        decoupled = found["decoupled_weight_decay"].replace(default=cls._decoupled)
        return {**found, "decoupled_weight_decay": decoupled}

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts afresh: states belong to pairs of optimizer and model.
        return {k: v for k, v in self.__dict__.items() if k != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._states = weakref.WeakKeyDictionary()


NOT_IN_GROUPS = ("groups", "decay_biases_and_norms", "initial_accumulator_value")


def numbers_of(settings: Sequence[Optimizer], first: int, count: int) -> Array:
    """The numbers of the passes of several optimizers, for steps first, first + 1, … (from 0).

    float64 (count, passes, numbers); a pass with fewer numbers than another leaves the rest zero.
    """
    t = np.arange(first, first + count, dtype=np.int64)
    columns = []
    with np.errstate(all="ignore"):  # a rate that decays to nothing is no error
        for one in settings:
            at = one._at(t)
            columns.append(one._common(at) | one._columns(at, t))
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
