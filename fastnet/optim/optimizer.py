"""Optimizer: hyper-parameters, the state for each model, and the numbers of each step."""

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
    Intervals,
    Number,
    check_number,
    check_numbers,
    evaluate,
    holds_schedule,
    is_on,
)
from fastnet.optim.penalties import l1_gradient, scale_units, soft_threshold
from fastnet.optim.rules import family_vectors, vectors_of, width_of
from fastnet.parameter import check_array, check_count, check_names, fill, vector_state
from fastnet.schedules.base import Schedule

SMALLEST_EPS = SMALLEST  # a smaller one would allow 0/0 where a gradient has always been zero
AHEAD = 64  # steps whose numbers are computed together


def _check_model(model: Any) -> None:
    """Raise HyperparameterError where `model` is no model."""
    if isinstance(model, type) or not hasattr(model, "apply_update"):
        raise HyperparameterError(f"model is {shown(model)}; expected a Sequential")


@dataclass(eq=False, repr=False)
class OptimizerState:
    """An optimizer's memory of one model: state vectors and the number of steps."""

    settings: list[Optimizer]  # for each group of parameters, an optimizer with the group's numbers
    passes: list[list[type[Op]]]  # for each group, the ops of a step
    group_of: list[int]  # for each parameter, the index of its group
    options: dict[str, Any]  # the optimizer's hyper-parameters when this object was made
    rule: Any = None  # the compiled passes
    run: Any = None  # runs them with the numbers of a step
    backend: Any = None  # the backend of `run`
    moves: Sequence[Any] = ()  # each runs one of the optimizer's `points`
    averaged: bool = False  # whether the first of these was the last to run
    steps: int = 0
    since: list[int | None] = field(default_factory=list)  # first step of each parameter's vectors
    vectors: dict[str, Array] = field(default_factory=dict)  # the rule's, and others kept for later
    changes: int = 0  # the optimizer's count of assignments when its options were last compared
    warned: bool = False  # whether it has warned of a schedule that ended
    _ahead: tuple[int, Array] = (0, np.empty(0))  # numbers computed ahead, and their first step

    def hyper(self, count: int) -> Array:
        """The numbers of the next steps: (count, passes of all groups, numbers).

        Warns once where a schedule ends before them. For few steps it computes and keeps those of AHEAD
        steps, because they are functions of the step.
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

    def ahead(self) -> tuple[int, Array]:
        """The numbers that are known of further steps, and their first step; none after a schedule's end.

        There `hyper` warns.
        """
        first, numbers = self._ahead
        return first, numbers[: self.before_warning(first, len(numbers))]

    def before_warning(self, first: int, count: int) -> int:
        """How many of `count` steps from `first` on need no warning of a schedule's end."""
        return count if self.warned else int(min(count, max(0, self._length - first)))

    def is_current(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer still has the hyper-parameters and the memory of this state."""
        groups = optimizer.groups  # the dicts in it may have changed in place
        return self.changes == optimizer._changes and (
            not groups or self.options["groups"] == groups
        )

    def numbers(self, op: type[Op]) -> Array:
        """The numbers of an op of `points`: a row for each group."""
        found: Array = numbers_of(self.settings, self.steps, 1, [op])[0]
        return found

    def _next(self, count: int) -> Array:
        with suppress(Exception):  # of a schedule at a later step; raised again when that comes
            return numbers_of(self.settings, self.steps, AHEAD)
        return numbers_of(self.settings, self.steps, count)

    @cached_property
    def _length(self) -> float:
        """The number of steps until the first schedule ends."""
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
        """Compute the next step's numbers anew."""
        self._ahead = 0, np.empty(0)


class Optimizer(Configured, base=True):
    """Base of all optimizers, with the keyword arguments that each of them takes.

    groups: sequence of dicts (default none). Parameters with hyper-parameters of their own, as in PyTorch:
        `groups=[{"params": "0.*", "lr": 1e-4}, {"params": ["2.weight"], "weight_decay": 0.1}]`.
        "params" is a name of `model.named_parameters()`, a pattern with * and ?, or several. Each must
        match a parameter, and no parameter may belong to two groups. What a group does not set, and all
        other parameters, use the optimizer's own hyper-parameters.
    decay_biases_and_norms: bool (default True, as in PyTorch). False exempts parameters with one dimension
        from weight_decay and l1: biases, and weights and biases of batchnorm.
    decoupled_weight_decay: bool (default False; True for AdamW and Lion, which are defined so). True:
        weight_decay shrinks the weights, w ← w·(1 − lr·weight_decay), and is not added to the gradient.
    l1: λ, number ≥ 0 (default 0). Adds the penalty λ‖w‖₁ through its subgradient λ·sign(w).
    l1_proximal: bool (default False). True: each step ends with w ← sign(w)·max(|w| − lr·λ, 0) instead,
        which makes small weights exactly 0.
    max_norm: c, number > 0, or None (default). Each step ends by scaling the incoming weights of each unit
        to length c if they are longer. A unit is a column of a Linear's (in, out) weights without its bias.
        A step with lr = 0 changes nothing.

    Hyper-parameters are attributes; an assignment is checked and takes effect at the next step. No
    assignment resets the count of steps or a state vector; a vector that becomes necessary starts as at a
    first step. Each real hyper-parameter is a number or a schedule (`fn.schedules`), a function of this
    optimizer's steps on the model, from 0. One optimizer may serve several models: it keeps a state for
    each, which is freed with the model.
    """

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}  # hyper-parameter → arguments of check_real
    _not_in_groups: ClassVar[tuple[str, ...]] = ()  # hyper-parameters of all groups together
    _several: ClassVar[dict[str, Intervals]] = {"betas": (BETA, BETA)}  # tuples of numbers
    # Where parameters are evaluated at another point: the ops that move them there and back.
    points: ClassVar[tuple[type[Op], ...]] = ()
    _shared_ranges: ClassVar = {"l1": {"low": 0.0}, "max_norm": {"low": 0.0, "open_low": True}}
    _decoupled = False  # default of decoupled_weight_decay
    _scheduled = False  # whether a hyper-parameter is a schedule
    _changes = 0  # number of assignments
    _since: int | None = 0  # the first step of its vectors

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Refuse PyTorch's first argument, the parameters, before arguments are bound."""
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
        self.groups: tuple[dict[str, Any], ...] = ()  # checked by the next line
        self.groups = groups  # type: ignore[assignment]  # __setattr__ makes a tuple

    def step(self, model: Any) -> None:
        """Update the model's parameters in place by its gradients, in one pass."""
        _check_model(model)
        model.apply_update(self)

    def reset(self, model: Any) -> None:
        """Forget the model: the next step starts from a new state."""
        _check_model(model)
        self._states.pop(model, None)
        self._forget()

    def state(self, model: Any) -> OptimizerState:
        """The state for a model, made at first use.

        A change of hyper-parameters keeps the count of steps and all vectors. Vectors that the present
        rule does not use are kept for one that does.
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
            state.averaged = old.averaged
            if (old.passes, old.group_of) == (passes, group_of) and self._continues(old):
                state.rule, state.run, state.backend = old.rule, old.run, old.backend
                state.moves = old.moves
        self._states[model] = state
        return state

    def state_dict(self, model: Any) -> dict[str, Any]:
        """The optimizer's memory of a model, as copies by name.

        "steps": the number of steps; if it is 0, there is nothing else. "since/0.weight": for each
        parameter with vectors, their first step, mostly 0. "m/0.weight": the rule's vector m for that
        parameter, in PyTorch's shape. "tuning": numbers of a rule for all parameters together, float64.
        `config` has the hyper-parameters.
        """
        _check_model(model)
        state = model.optimizer_state(self)
        if not state.steps:
            return {"steps": 0}
        since = dict(zip(model.named_parameters(), state.since, strict=True))
        found = {f"since/{name}": step for name, step in since.items() if step is not None}
        for vector in sorted(state.vectors.keys() & self.family() - self._unkept(state.averaged)):
            parts = zip(since, model.bind().parts(state.vectors[vector]), strict=True)
            found |= vector_state(vector, {n: p for n, p in parts if since[n] is not None})
        found |= {name: state.vectors[name].copy() for name in self._fixed()}
        return {"steps": state.steps, **found}

    def load_state_dict(self, model: Any, state: Mapping[str, Any]) -> None:
        """Continue with a model from the `state_dict` of an optimizer with equal hyper-parameters.

        Arrays are copied to the model's dtype. Raises StateDictError and changes nothing where a name is
        missing or unexpected or a shape differs. Vectors that the present rule does not use are kept.
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
            if steps and (own := settings[group].kept()):
                needed += [keys[name], *(f"{vector}/{name}" for vector in sorted(own))]
            if steps and begun is not None:
                also |= {keys[name], *(f"{vector}/{name}" for vector in self.family())}
        fixed = self._fixed() if steps else {}
        check_names(what, state, [*needed, *fixed], also)
        vectors, storage = {}, model.bind()
        for vector in {key.partition("/")[0] for key in state} & self.family():
            width = width_of(self.op, vector, self.sizes()) if vector in self.op.tensors else 1
            vectors[vector] = np.zeros(width * storage.flat("params").size, storage.dtype)
            parts = dict(zip(named, storage.parts(vectors[vector]), strict=True))
            fill(what, vector, parts, state)
        for name, size in fixed.items():
            vectors[name] = check_array(f"{what}[{name!r}]", state[name], (size,)).astype("d")
        return steps, since, vectors

    def restore(
        self, model: Any, steps: int, since: list[int | None], vectors: dict[str, Array]
    ) -> None:
        """Continue with a model from these steps and vectors."""
        options = {**self._argument_values(), "groups": None}  # so `state` makes a new one
        state = OptimizerState([], [], [], options, steps=steps, since=since, vectors=vectors)
        state.averaged = bool(self._unkept(False) & vectors.keys())
        self._states[model] = state
        self._forget()

    def _forget(self) -> None:
        """Let no model go on with a state that it has kept (see OptimizerState.is_current)."""
        super().__setattr__("_changes", self._changes + 1)

    def _carried(self, old: OptimizerState, new: OptimizerState, model: Any) -> dict[str, Array]:
        """The vectors of an old state in the units of the present rule."""
        return old.vectors

    def _continues(self, old: OptimizerState) -> bool:
        """Whether the sizes and constants of an old state are still those of the rule."""
        return True

    def _unchanged(self, state: OptimizerState) -> bool:
        if state.options["groups"] != self.groups:  # the dicts in it may have changed in place
            return False
        if state.changes != self._changes:
            if state.options != self._argument_values():
                return False
            state.forget_numbers()  # a subclass may derive them from more than options
            state.changes = self._changes
        return True

    def _settings(
        self, named: Mapping[str, Array], steps: int, since: Sequence[int | None]
    ) -> tuple[list[Optimizer], list[int], list[int | None]]:
        """An optimizer for each group and beginning of vectors, and each parameter's index and `since`."""
        groups = self._checked(self.groups)  # the dicts in it may have changed in place
        keys = [
            (number, value.ndim == 1 and not self.decay_biases_and_norms, self._kind(value.ndim))
            for number, value in zip(
                group_numbers(groups, list(named)), named.values(), strict=True
            )
        ]
        numbers = [{}, *map(own_numbers, groups)]
        variants = {key: self._variant(numbers[key[0]], key[1])._of(key[2]) for key in keys}
        began = [
            s if s is not None and s < steps else steps if variants[key].kept() else None
            for s, key in zip(since or [None] * len(keys), keys, strict=True)
        ]
        each = list(zip(keys, began, strict=True))
        found = list(dict.fromkeys(each))
        settings = [variants[key]._beginning(s) for key, s in found]
        return settings, [found.index(one) for one in each], began

    def _beginning(self, since: int | None) -> Optimizer:
        """This optimizer, or a copy whose vectors begin at a later step."""
        if not since:
            return self
        other = copy.copy(self)
        other._since = since
        return other

    def _checked(self, groups: Any) -> tuple[dict[str, Any], ...]:
        fixed = *NOT_IN_GROUPS, *self._not_in_groups
        return check_groups(groups, [n for n in self._constructor() if n not in fixed], self._with)

    def _variant(self, given: Mapping[str, Any], undecayed: bool) -> Optimizer:
        """This optimizer with the numbers of a group, and without decay if `undecayed`."""
        if undecayed:
            off = dict.fromkeys(("weight_decay", "l1"), 0.0)
            given = {**given, **{name: off[name] for name in off if name in self._constructor()}}
        return self._with(given) if given else self

    def _kind(self, dimensions: int) -> int:
        """What `_of` takes for parameters with so many dimensions; 0 stands for itself."""
        return 0

    def _of(self, kind: int) -> Optimizer:
        """The optimizer of the parameters of a kind."""
        return self

    def _with(self, given: Mapping[str, Any]) -> Optimizer:
        return type(self)(**{**self._argument_values(), "groups": (), **given})

    @property
    def op(self) -> type[Op]:
        """The update rule that the hyper-parameters select."""
        raise NotImplementedError

    def passes(self) -> list[type[Op]]:
        """The ops of a step, in order: the rule with its penalties before and after it."""
        l1 = is_on(self.l1)
        return [
            *([l1_gradient] if l1 and not self.l1_proximal else []),
            self.op,
            *([soft_threshold] if l1 and self.l1_proximal else []),
            *([scale_units] if self.max_norm is not None else []),
        ]

    def kept(self) -> set[str]:
        """The vectors that the next step goes on from."""
        return vectors_of(self.op)

    def _fixed(self) -> dict[str, int]:
        """The sizes of what the passes keep for all parameters together, by name."""
        specs = {name: op.tensors[name] for op in self.passes() for name in op.state}
        return {
            name: int(spec.dims[0])
            for name, spec in sorted(specs.items())
            if len(spec.dims) == 1 and spec.dims[0].isdigit()
        }

    def family(self) -> set[str]:
        """The vectors of all rules that the hyper-parameters may select."""
        return family_vectors(self.op)

    def point_vectors(self) -> list[str]:
        """The vectors with which `points` work."""
        return sorted({name for op in self.points for name in op.tensors} - {"w"})

    def _unkept(self, averaged: bool) -> set[str]:
        """The vectors that no state dict has, where the parameters are averages or not."""
        return set()

    def initial(self) -> dict[str, float]:
        """Initial values of state vectors that do not start at 0."""
        return {}

    def sizes(self) -> dict[str, int]:
        """The dims of the passes besides those that the parameters give, where they have such."""
        return {}

    def constants(self) -> dict[str, Array]:
        """Tensors that the passes only read, flat and by name; all parameters have the same."""
        return {}

    def hyper(self, first: int, count: int) -> Array:
        """The numbers for steps first, first + 1, … (from 0): (count, passes, numbers)."""
        return numbers_of([self], first, count)

    def _at(self, t: Array) -> Any:
        """The hyper-parameters at steps t: numbers, and arrays where there are schedules."""
        if not self._scheduled:
            return self
        found = self._argument_values()
        for name, interval in self._intervals().items():
            found[name] = evaluate(name, found[name], t, interval)
        for name in found.keys() & self._several.keys():
            found[name] = tuple(
                evaluate(f"{name}[{i}]", one, t, interval)
                for i, (one, interval) in enumerate(
                    zip(found[name], self._several[name], strict=True)
                )
            )
        return SimpleNamespace(**found)

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        """The numbers of the passes by name, for steps t (from 0) and hyper-parameters `at` these steps."""
        raise NotImplementedError

    def _common(self, at: Any) -> dict[str, Any]:
        """The numbers that all optimizers have."""
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
        if name in self._several:
            value = check_numbers(name, value, self._several[name])
        if name == "groups":
            value = self._checked(value)
        super().__setattr__(name, value)
        if holds_schedule((value,)):
            super().__setattr__("_scheduled", True)
        elif self._scheduled:
            super().__setattr__("_scheduled", holds_schedule(vars(self).values()))
        super().__setattr__("_changes", self._changes + 1)

    @classmethod
    @cache
    def _constructor(cls) -> dict[str, inspect.Parameter]:
        found = super()._constructor()
        decoupled = found["decoupled_weight_decay"].replace(default=cls._decoupled)
        return {**found, "decoupled_weight_decay": decoupled}

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts without states: a state belongs to one optimizer and one model. So copies of equal
        # optimizers are equal, byte by byte.
        return {k: v for k, v in self.__dict__.items() if k not in ("_states", "_changes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _states=weakref.WeakKeyDictionary())


NOT_IN_GROUPS = ("groups", "decay_biases_and_norms", "initial_accumulator_value")


def numbers_of(
    settings: Sequence[Optimizer], first: int, count: int, ops: Sequence[type[Op]] | None = None
) -> Array:
    """The numbers of the passes of several optimizers for steps first, first + 1, … (from 0).

    ops: of each optimizer, by default its passes.
    float64 (count, passes, numbers); a pass with fewer numbers than another is padded with zeros.
    """
    t = np.arange(first, first + count, dtype=np.int64)
    columns = []
    with np.errstate(all="ignore"):  # a rate may underflow
        for one in settings:
            at = one._at(t)
            columns.append(one._common(at) | one._columns(at, t))
    rows = [
        (found, op.hyper)
        for found, one in zip(columns, settings, strict=True)
        for op in (one.passes() if ops is None else ops)
    ]
    numbers = np.zeros((count, len(rows), max((len(names) for _, names in rows), default=0)))
    for row, (found, names) in enumerate(rows):
        for i, name in enumerate(names):
            numbers[:, row, i] = found[name]
    return numbers
