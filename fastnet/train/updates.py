"""Updates: what a trainer adds to an optimizer's steps, in the same native calls."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain, count, pairwise
from typing import Any

import numpy as np

from fastnet.backends.steps import Update
from fastnet.data.minibatches import batch_offsets
from fastnet.errors import StateDictError, UsageError, check_kind, check_real
from fastnet.layers import BatchNorm1d
from fastnet.model import Sequential
from fastnet.op import Array, Op
from fastnet.optim.averaging import Averaging, average
from fastnet.optim.gradients import accumulate_gradient, clip_value, grad_norm, scale_to_norm
from fastnet.optim.optimizer import OptimizerState
from fastnet.parameter import check_count, check_names, fill, vector_state
from fastnet.plan.extras import Extras

Passes = tuple[type[Op] | str, ...]


class Updates:
    """Gradient accumulation, clipping and averages of parameters, around an optimizer's passes."""

    def __init__(
        self, clip_value: float | None, clip_norm: float | None, averaging: Averaging | None
    ) -> None:
        limits = {"clip_value": clip_value, "clip_norm": clip_norm}
        given = {n: None if v is None else check_real(n, v, low=0.0) for n, v in limits.items()}
        self.clip_value, self.clip_norm = given["clip_value"], given["clip_norm"]
        if averaging is not None:
            check_kind("averaging", averaging, Averaging)
        self.averaging = averaging
        self.averaged = 0  # sets of parameters in the average
        self._extras: Extras | None = None
        self._program: tuple[Any, np.ndarray, np.ndarray] | None = None  # and what it was made of

    def extras(self, model: Sequential) -> Extras:
        """The passes that are added, and their memory."""
        if self._extras is None:
            self._extras = Extras(model.bind())
        return self._extras

    def chunk(self, model: Sequential, state: OptimizerState, part: Part) -> Update:
        """The update programs and numbers of a chunk of steps."""
        assert state.segment is not None and state.program is not None
        hyper = state.hyper(max(1, part.count))
        added = self._added(part.several)
        if added == ((), ()):
            return Update(state.program, state.segment, hyper)
        own = self._rows(added, part)
        steps = np.minimum(np.cumsum(part.ends) - part.ends, len(hyper) - 1)
        both = np.zeros((len(own), hyper.shape[1] + own.shape[1], max(hyper.shape[2], 2)))
        both[:, : hyper.shape[1], : hyper.shape[2]] = hyper[steps]
        both[:, hyper.shape[1] :, :2] = own
        program = self._compiled(model, state, added, hyper.shape[1])
        return Update(program, state.segment, both, self.extras(model).segment)

    def _added(self, several: bool) -> tuple[Passes, Passes]:
        """What is added before and after the rule: ops, and controls by name."""
        before: list[type[Op] | str] = [accumulate_gradient, "unless"] if several else []
        if self.clip_value is not None:
            before.append(clip_value)
        if self.clip_norm is not None:
            before += [grad_norm, "check", scale_to_norm]
        each_step = self.averaging is not None and self.averaging.each_step
        return tuple(before), (average,) if each_step else ()

    def _rows(self, added: tuple[Passes, Passes], part: Part) -> Array:
        """Their rows of the table, two numbers each."""
        numbers = self._numbers(part)
        rows = np.zeros((len(part.ends), sum(map(len, added)), 2))
        for row, what in enumerate(chain(*added)):
            names = ("ends",) if what == "unless" else () if isinstance(what, str) else what.hyper
            for i, name in enumerate(names):
                rows[:, row, i] = numbers[name]
        return rows

    def _numbers(self, part: Part) -> dict[str, Any]:
        rates: Any = 0.0
        if self.averaging is not None and self.averaging.each_step:
            found = self.averaging.rates(self.averaged, max(1, part.count))
            rates = found[np.minimum(np.cumsum(part.ends) - part.ends, len(found) - 1)]
        limits = {"limit": self.clip_value, "max_norm": self.clip_norm}
        shares = {"keep": part.keep, "share": part.share, "ends": part.ends}
        return {**limits, **shares, "rate": rates}

    def _compiled(
        self, model: Sequential, state: OptimizerState, added: tuple[Passes, Passes], row: int
    ) -> np.ndarray:
        assert state.program is not None
        made = self._program
        if made is None or made[0] != added or made[1] is not state.program:
            extras, rows = self.extras(model), count(row)
            before, after = [
                [extras.instruction(what, next(rows)) for what in part] for part in added
            ]
            program = np.concatenate([*before, state.program, *after])
            made = self._program = added, state.program, program
        return made[2]

    def stepped(self, part: Part, steps: int) -> int:
        """Count the updates of so many first steps of a part; returns how many these are."""
        updates = int(part.ends[:steps].sum())
        if self.averaging is not None and self.averaging.each_step:
            self.averaged += updates
        return updates

    def end_epoch(self, model: Sequential, epoch: int) -> None:
        """Take the parameters of the end of an epoch into the average, where they count."""
        if self.averaging is not None and self.averaging.takes(epoch):
            (rate,) = self.averaging.rates(self.averaged, 1)
            model.run_extra(self.extras(model), average, number=rate)
            self.averaged += 1

    def reset(self) -> None:
        """Forget the average."""
        self.averaged = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "averaged": 0, "_extras": None, "_program": None}

    def _parts(self, model: Sequential, average: Array) -> dict[str, Array]:
        return dict(zip(model.named_parameters(), model.bind().parts(average), strict=True))

    def state_dict(self, model: Sequential) -> dict[str, Any]:
        """The average so far: "count", the sets of parameters in it, and "average/0.weight", …."""
        if not self.averaged:
            return {"count": 0}
        parts = self._parts(model, self.extras(model).average)
        return {"count": self.averaged, **vector_state("average", parts)}

    def checked_state(
        self, what: str, model: Sequential, state: Mapping[str, Any]
    ) -> tuple[int, Array | None]:
        """The arguments of `restore` for a state dict, or StateDictError."""
        check_names(what, state, ["count"], state)
        count = check_count(f"{what}['count']", state["count"])
        if count and self.averaging is None:
            raise StateDictError(
                f"{what}['count'] is {count} for a trainer without averaging; expected 0"
            )
        average = np.zeros_like(model.bind().flat("params"))
        parts = self._parts(model, average) if count else {}
        check_names(what, state, ["count", *(f"average/{name}" for name in parts)])
        fill(what, "average", parts, state)
        return count, average if count else None

    def restore(self, model: Sequential, count: int, average: Array | None) -> None:
        """Go on with this average."""
        if average is not None:
            np.copyto(self.extras(model).average, average)
        self.averaged = count

    def without_averages(self) -> Updates:
        """The same clipping, and no average."""
        return Updates(self.clip_value, self.clip_norm, None)

    def averaged_model(self, model: Sequential, statistics: bool) -> Sequential:
        """A copy of the model with the averages for parameters, in evaluation mode.

        `statistics`: whether it is to keep the model's running statistics.
        """
        if self.averaging is None:
            raise UsageError("this trainer has no averages; pass averaging=EMA(…) or SWA(…)")
        if not self.averaged:
            raise UsageError(f"{self.averaging!r} has averaged nothing yet; fit first")
        norms = any(isinstance(layer, BatchNorm1d) for _, layer in model.layers)
        if statistics and norms and not self.averaging.each_step:
            raise UsageError(
                "the model has batchnorm, whose statistics do not fit the mean of its parameters; pass "
                "inputs X, such as the training set's"
            )
        made = copy.deepcopy(model)
        np.copyto(made.bind().flat("params"), self.extras(model).average)
        made.touch()
        return made.eval()


class Part:
    """Steps of an epoch: which end with an update, and the share of each in the gradient so far.

    An update is made after each `several` minibatches and at the end of the epoch. Its gradient is the
    mean over their rows, or with `total` the sum over the minibatches: `keep` times the gradient so far
    plus `share` times that of the step.
    """

    def __init__(
        self, offsets: Array, begin: int, end: int, several: int = 1, *, total: bool = False
    ) -> None:
        self.several = several > 1
        number = np.arange(begin, end)
        first = number - number % several  # of the minibatches that belong together
        self.ends = ((number + 1) % several == 0) | (number == len(offsets) - 2)
        self.ends = self.ends.astype(np.int64)
        rows = np.diff(offsets)[begin:end] / (offsets[number + 1] - offsets[first])
        self.share = np.ones(len(number)) if total else rows
        self.keep = (number > first) * 1.0 if total else 1.0 - rows
        self.count = int(self.ends.sum())


def recompute_statistics(model: Sequential, X: Any, batch_size: int) -> None:
    """Batchnorm's running statistics anew: their means over the minibatches of X, all layers training."""
    x = model.features("X", X)
    norms = [(path, la) for path, la in model.layers if isinstance(la, BatchNorm1d) and la.momentum]
    if not norms:
        return
    names = [f"{path}.running_{what}" for path, _ in norms for what in ("mean", "var")]
    momenta = [layer.momentum for _, layer in norms for _ in range(2)]
    sums: list[Any] = [0.0] * len(names)
    offsets = batch_offsets(len(x), batch_size)
    if len(offsets) > 2 and offsets[-1] - offsets[-2] < model.min_training_rows():
        offsets = offsets[:-1]
    with model.edit() as values:
        for path, _ in norms:
            values[f"{path}.num_batches_tracked"][...] = 0
    modes = [layer.training for _, layer in model.layers]
    model.train()
    for begin, end in pairwise(offsets):
        with model.edit() as values:
            for name in names:
                values[name][...] = 0
        model.forward(x[begin:end])  # running ← momentum·minibatch's
        found = [value for _, la in norms for value in (la.running_mean, la.running_var)]
        sums = [
            total + value.astype(np.float64) / momentum
            for total, value, momentum in zip(sums, found, momenta, strict=True)
        ]
    with model.edit() as values:
        for name, total in zip(names, sums, strict=True):
            values[name][...] = total / (len(offsets) - 1)
    for (_, layer), mode in zip(model.layers, modes, strict=True):
        layer.train(mode)
