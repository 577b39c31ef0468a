"""Short ways: native functions that do what a method of a model does, where nothing stands against it.

For a small net, the checks of a method in Python take many times as long as its work. A method that has
gone the long way therefore keeps a native function for calls of the same kind. The function looks at the
arrays itself; what else may have changed since, the way looks at before each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastnet import parallel
from fastnet.backends.base import Counter
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.data.lazy import LazyRows
from fastnet.losses.base import Loss
from fastnet.plan.segments import Storage

MOST = 8  # ways kept for a model
CALLED_AHEAD = 256  # steps whose numbers a way of a trainer knows


class Ways(dict[Any, "Way"]):
    """The ways of a model, by what they are for: at most MOST, the ones that were made last."""

    def keep(self, key: Any, way: Way | None) -> None:
        """Keep a way in place of an older one for the same; None: there is none any more."""
        self.pop(key, None)
        if way is not None:
            self[key] = way
        if len(self) > MOST:
            del self[next(iter(self))]


def step_way(
    model: Any,
    executor: Any,
    data: Dataset,
    loss: Loss,
    least: int,
    counters: Sequence[Counter],
    update: Update | None = None,
    seed: int | None = None,
    **others: Any,
) -> Way | None:
    """A way to make training steps on data of this kind; None where there is none.

    least: the fewest rows. update: with the numbers of some steps. seed: of random draws (default: the
    model's). others: arguments of Way.
    """
    if isinstance(data.x, LazyRows) or model._runtime.coded:  # the function reads arrays alone
        return None
    targets = accepted_targets(loss, data)
    if targets is None or not model._runtime.backend.native_calls:
        return None
    offsets = np.zeros(1 + (1 if update is None else len(update.table)), np.int64)
    index, seed = np.arange(executor.plan.max_rows), model.seed if seed is None else seed
    steps = Steps(index, offsets, seed, 0)
    call = executor.step_call(data, steps, update, targets, least, counters)
    return None if call is None else Way(model, call, executor, **others)


def kind_of(data: Dataset) -> Dataset:
    """A data set of the same kind without rows."""
    x = data.x[:0]
    return replace(data, x=x if isinstance(x, LazyRows) else x.copy(), y=data.y[:0].copy())


def accepted_targets(loss: Loss, data: Dataset) -> tuple[float, float] | None:
    """The least and the largest target that the loss takes as it is; None where only the loss knows.

    For labels any two numbers: they are counted from 0.
    """
    if not type(loss).__module__.startswith("fastnet."):
        return None  # its `target` may check more
    if not data.classes:
        return loss.accepted_targets()
    ignored = -1 if loss.ignore_index is None else loss.ignore_index
    return None if 0 <= ignored < data.classes else (0.0, 0.0)


class Way:
    """A native function of a model, and what must still be as it was when it was made.

    call: the function. executor: the executor whose plan it runs, or None. modes: those of the layers, or
    None where they do not matter. more: what else the caller compares.
    """

    def __init__(
        self,
        model: Any,
        call: Any,
        executor: Any = None,
        modes: tuple[bool, ...] | None = None,
        more: Any = None,
    ) -> None:
        self.call, self.executor, self.more = call, executor, more
        self._runtime = model._running
        self._storage: Storage = model.bind()
        self._frozen, self._team = self._storage.frozen, parallel.count
        self._layers = [] if modes is None else [layer for _, layer in model.layers]
        self._modes = [layer.training for layer in self._layers]

    def version(self) -> int:
        """The version of the model's values."""
        return self._storage.version

    def is_open(self, model: Any) -> bool:
        """Whether the model's state is still that for which the function was made."""
        storage = self._storage
        return (
            model._running is self._runtime
            and storage.frozen is self._frozen
            and not storage.editing
            and parallel.count == self._team
            and not model._claims
            and [layer.training for layer in self._layers] == self._modes
        )
