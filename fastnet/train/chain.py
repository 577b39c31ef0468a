"""Chain: clipping, accumulation and averages that a trainer runs around an optimizer's rule."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastnet.backends.steps import Update
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import HyperparameterError, StateDictError, UsageError, check_kind, check_real
from fastnet.interrupts import held_back
from fastnet.layers import BatchNorm1d
from fastnet.model import Sequential
from fastnet.op import Array, Op
from fastnet.optim.averaging import Averaging, average, hide_average, show_average
from fastnet.optim.gradients import accumulate_gradient, clip_value, grad_norm, scale_to_norm
from fastnet.optim.optimizer import Optimizer, OptimizerState
from fastnet.parameter import check_count, check_names, fill, vector_state
from fastnet.plan.extras import Extras


class Pass:
    """An op over all parameters or a control instruction (by name), with its numbers.

    Each number is one for all steps or an array with one for each step: an op's hyper-parameters, or the
    first number of a control instruction.
    """

    def __init__(self, op: type[Op] | str, **numbers: Any) -> None:
        self.op = op
        self.numbers = [numbers[name] for name in (numbers if isinstance(op, str) else op.hyper)]


class Chain:
    """The passes before and after an optimizer's rule: accumulation, clipping, parameter averages."""

    def __init__(
        self, clip_value: float | None, clip_norm: float | None, averaging: Averaging | None
    ) -> None:
        limits = {"clip_value": clip_value, "clip_norm": clip_norm}
        given = {n: None if v is None else check_real(n, v, low=0.0) for n, v in limits.items()}
        self.clip_value, self.clip_norm = given["clip_value"], given["clip_norm"]
        if averaging is not None:
            check_kind("averaging", averaging, Averaging)
        self.averaging = averaging
        self.averaged = 0  # how many sets of parameters the average contains
        self.shown = False  # whether the model's parameters are the average, to be evaluated
        self._extras: Extras | None = None
        self._program: tuple[Any, np.ndarray, np.ndarray] | None = None  # its key, rule and code

    @property
    def evaluates(self) -> bool:
        """Whether the average is what is evaluated."""
        return self.averaging is not None and self.averaging.evaluate

    def check(self, optimizer: Optimizer) -> None:
        """Raise HyperparameterError where an optimizer has averages of its own."""
        if self.averaging is not None and optimizer.points:
            raise HyperparameterError(
                f"averaging is {self.averaging!r}; expected None with {type(optimizer).__name__}, whose "
                "parameters are averages already"
            )

    def extras(self, model: Sequential) -> Extras:
        """The compiler of the added passes, which also owns their memory."""
        if self._extras is None:
            self._extras = Extras(model.bind())
        return self._extras

    @property
    def memory(self) -> Array | None:
        """The segment of the added passes, which moves when there are more of them."""
        return None if self._extras is None else self._extras.segment

    def _passes(self, span: Span) -> tuple[list[Pass], list[Pass]]:
        """The passes before and after the rule, in order; other methods treat all passes alike."""
        before, after = [], []
        if span.accumulates:
            before.append(Pass(accumulate_gradient, keep=span.keep, share=span.share))
            before.append(Pass("unless", ends=span.ends))
        if self.clip_value is not None:
            before.append(Pass(clip_value, limit=self.clip_value))
        if self.clip_norm is not None:
            before.append(Pass(grad_norm))
            before.append(Pass("check"))
            before.append(Pass(scale_to_norm, max_norm=self.clip_norm))
        if self.averaging is not None and self.averaging.each_step:
            rates = self.averaging.rates(self.averaged, max(1, span.count))
            after.append(Pass(average, rate=span.of_updates(rates)))
        if span.last is not None:
            after.append(Pass("finite", last=span.last))
        return before, after

    def chunk(self, model: Sequential, state: OptimizerState, span: Span) -> Update:
        """The update program and the table of its numbers for a chunk of steps."""
        rule, hyper = state.rule, state.hyper(max(1, span.count))
        before, after = self._passes(span)
        added = [*before, *after]
        if not added:
            return Update(rule.program, rule.segment, hyper)
        first = hyper.shape[1]  # the rule's rows come first in the table
        width = max(hyper.shape[2], *(len(one.numbers) for one in added))
        table = np.zeros((len(span.ends), first + len(added), width))
        table[:, :first, : hyper.shape[2]] = span.of_updates(hyper)
        for row, one in enumerate(added, first):
            for i, number in enumerate(one.numbers):
                table[:, row, i] = number
        extras, ops = self.extras(model), [one.op for one in added]
        extras.need(op for op in ops if not isinstance(op, str))
        if self.evaluates:
            extras.need([show_average])  # later, the memory would move
        made = self._program
        if made is None or made[0] != (ops, len(before)) or made[1] is not rule:
            parts = [extras.instruction(op, row) for row, op in enumerate(ops, first)]
            program = np.concatenate([*parts[: len(before)], rule.program, *parts[len(before) :]])
            made = self._program = (ops, len(before)), rule, program
        return Update(made[2], rule.segment, table, extras.segment)

    def stepped(self, span: Span, begin: int, end: int) -> int:
        """Count the updates in steps begin … end − 1 of a span; return their number."""
        updates = int(span.ends[begin:end].sum()) if span.accumulates else end - begin
        if self.averaging is not None and self.averaging.each_step:
            self.averaged += updates
        return updates

    @property
    def after_epochs(self) -> bool:
        """Whether the average takes parameters after epochs, not after steps."""
        return self.averaging is not None and not self.averaging.each_step

    def end_epoch(self, model: Sequential, epoch: int) -> None:
        """Add the parameters at the end of an epoch to the average, if it takes this epoch."""
        if self.averaging is not None and self.averaging.takes(epoch):
            (rate,) = self.averaging.rates(self.averaged, 1)
            model.run_extra(self.extras(model), average, number=rate)
            self.averaged += 1

    def show(self, model: Sequential, shown: bool) -> bool:
        """Make an average that is to be evaluated the model's parameters, or those of the training.

        Returns whether they were others. The caller holds the lock.
        """
        if not (self.evaluates and self.averaged) or shown == self.shown:
            return False
        with held_back():
            op = show_average if shown else hide_average
            model.run_extra(self.extras(model), op, number=0.0)
            self.shown = shown
            model.touch(by_backend=True)
        return True

    def vectors(self, model: Sequential) -> dict[str, Array]:
        """The average and, where it is shown, the parameters of the training."""
        names = ["average", *(["trained"] if self.shown else [])] if self.averaged else []
        ops = {"average": average, "trained": show_average}
        self.extras(model).need([ops[name] for name in names])
        return {name: self.extras(model).vector(ops[name], name) for name in names}

    def reset(self) -> None:
        """Forget the average."""
        self.averaged, self.shown = 0, False

    def __getstate__(self) -> dict[str, Any]:
        fresh = {"averaged": 0, "shown": False, "_extras": None, "_program": None}
        return {**self.__dict__, **fresh}

    def _parts(self, model: Sequential, average: Array) -> dict[str, Array]:
        return dict(zip(model.named_parameters(), model.bind().parts(average), strict=True))

    def state_dict(self, model: Sequential) -> dict[str, Any]:
        """The average: "count", how many sets of parameters it contains, and "average/0.weight", ….

        "trained/0.weight", …: where the model's parameters are the average, those of the training.
        """
        found: dict[str, Any] = {"count": self.averaged}
        for name, vector in self.vectors(model).items():
            found |= vector_state(name, self._parts(model, vector))
        return found

    def checked_state(
        self, what: str, model: Sequential, state: Mapping[str, Any]
    ) -> tuple[int, dict[str, Array]]:
        """The arguments of `restore` for a state dict, or StateDictError."""
        check_names(what, state, ["count"], state)
        count = check_count(f"{what}['count']", state["count"])
        if count and self.averaging is None:
            raise StateDictError(
                f"{what}['count'] is {count} for a trainer without averaging; expected 0"
            )
        shown = self.evaluates and any(str(name).startswith("trained/") for name in state)
        names = ["average", *(["trained"] if shown else [])] if count else []
        vectors = {name: np.zeros_like(model.bind().flat("params")) for name in names}
        parts = {name: self._parts(model, vector) for name, vector in vectors.items()}
        needed = [f"{vector}/{name}" for vector, part in parts.items() for name in part]
        check_names(what, state, ["count", *needed])
        for vector, part in parts.items():
            fill(what, vector, part, state)
        return count, vectors

    def restore(self, model: Sequential, count: int, vectors: dict[str, Array]) -> None:
        """Continue from these values of `vectors`."""
        self.averaged, self.shown = count, "trained" in vectors
        for name, own in self.vectors(model).items():
            np.copyto(own, vectors[name])

    def total(self, model: Sequential) -> dict[str, Array]:
        """The gradients accumulated since the last update, by parameter."""
        vector = self.extras(model).vector(accumulate_gradient, "total")
        return {name: part.copy() for name, part in self._parts(model, vector).items()}

    def load_total(self, model: Sequential, total: Mapping[str, Any]) -> None:
        """Go on accumulating from these gradients, or raise StateDictError."""
        vector = np.zeros_like(model.bind().flat("params"))
        parts = self._parts(model, vector)
        check_names("total", total, parts)
        fill("total", "total", parts, {f"total/{name}": value for name, value in total.items()})
        np.copyto(self.extras(model).vector(accumulate_gradient, "total"), vector)
        model.touch()  # a device has the old ones

    def without_averages(self) -> Chain:
        """A chain with the same clipping and no average."""
        return Chain(self.clip_value, self.clip_norm, None)

    def averaged_model(self, model: Sequential, X: Any, batch_size: int) -> Sequential:
        """A copy of the model with the averages as its parameters, in evaluation mode.

        Its running statistics come from minibatches of X, or from the model if X is None.
        """
        if self.averaging is None:
            raise UsageError("this trainer has no averages; pass averaging=EMA(…) or SWA(…)")
        if not self.averaged:
            raise UsageError(f"{self.averaging!r} has averaged nothing yet; fit first")
        if X is None and has_statistics(model) and not self.averaging.each_step:
            raise UsageError(
                "the model has batchnorm, whose statistics do not fit the mean of its parameters; pass "
                "inputs X, such as the training set's"
            )
        made = copy.deepcopy(model)
        np.copyto(made.bind().flat("params"), self.extras(model).vector(average, "average"))
        made.touch()
        if X is not None:
            x = made.features("X", X)
            bounds = pairwise(batch_offsets(len(x), batch_size))
            recompute_statistics(made, [x[begin:end] for begin, end in bounds])
        return made.eval()


class Span:
    """Some steps of an epoch, or of several: which end with an update, and how they add up its gradient.

    offsets: where the minibatches of each epoch begin and end. An update follows every `steps` minibatches
    and the end of an epoch. Its gradient is the mean over their rows, or with `total` the sum over the
    minibatches. Each step accumulates g ← keep·g + share·(its own gradient). With `whole`, `last` is 1 for
    the last step of each epoch and 0 for others; else it is None.
    """

    def __init__(
        self,
        offsets: Array,
        begin: int,
        end: int,
        steps: int = 1,
        *,
        total: bool = False,
        whole: bool = False,
    ) -> None:
        self.accumulates = steps > 1
        number = np.arange(begin, end) % (len(offsets) - 1)
        self.last = (number == len(offsets) - 2) * 1.0 if whole else None
        if not self.accumulates:
            self.ends, self.count = np.ones(len(number), np.int64), len(number)
            return
        first = number - number % steps  # the first minibatch of each step's update
        self.ends = ((number + 1) % steps == 0) | (number == len(offsets) - 2)
        self.ends = self.ends.astype(np.int64)
        rows = np.diff(offsets)[number] / (offsets[number + 1] - offsets[first])
        self.share = np.ones(len(number)) if total else rows
        self.keep = (number > first) * 1.0 if total else 1.0 - rows
        self.count = int(self.ends.sum())

    def of_updates(self, numbers: Array) -> Array:
        """For each step, the numbers of its update."""
        if not self.accumulates:
            return numbers
        found: Array = numbers[np.minimum(np.cumsum(self.ends) - self.ends, len(numbers) - 1)]
        return found


def has_statistics(model: Sequential) -> bool:
    """Whether a model has running statistics."""
    return any(_has_statistics(layer) for _, layer in model.layers)


def _has_statistics(layer: Any) -> bool:
    return isinstance(layer, BatchNorm1d) and layer.track_running_stats


def recompute_statistics(
    model: Sequential, minibatches: Sequence[Array], respect_modes: bool = False
) -> None:
    """Set batchnorm's running statistics to their means over minibatches of inputs, in training mode.

    respect_modes: each layer stays in its own mode, so that those in evaluation mode keep their statistics.
    """
    norms = [
        (path, layer)
        for path, layer in model.layers
        if _has_statistics(layer)
        and layer.momentum != 0
        and not layer.frozen
        and (layer.training or not respect_modes)
    ]
    if not norms:
        return
    names = [f"{path}.running_{what}" for path, _ in norms for what in ("mean", "var")]
    # A mean over all minibatches takes the first whole.
    momenta = [
        1.0 if layer.momentum is None else layer.momentum for _, layer in norms for _ in range(2)
    ]
    sums: list[Any] = [0.0] * len(names)
    if len(minibatches) > 1 and len(minibatches[-1]) < model.min_training_rows(respect_modes):
        minibatches = minibatches[:-1]
    counts = [f"{path}.num_batches_tracked" for path, _ in norms]
    modes = [layer.training for _, layer in model.layers]
    if not respect_modes:
        model.train()
    for x in minibatches:
        with model.edit() as values:
            for name in (*names, *counts):
                values[name][...] = 0
        model.forward(x)  # the statistics were 0: now momentum · the minibatch's
        found = [value for _, la in norms for value in (la.running_mean, la.running_var)]
        sums = [
            total + value.astype(np.float64) / momentum
            for total, value, momentum in zip(sums, found, momenta, strict=True)
        ]
    with model.edit() as values:
        for name, total in zip(names, sums, strict=True):
            values[name][...] = total / len(minibatches)
        for name in counts:
            values[name][...] = len(minibatches)
    for (_, layer), mode in zip(model.layers, modes, strict=True):
        layer.train(mode)
