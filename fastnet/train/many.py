"""fit_many: trains many nets at once, each as a fit of its own would."""

from __future__ import annotations

import copy
import gc
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet import parallel
from fastnet.errors import (
    DivergenceError,
    HyperparameterError,
    UsageError,
    check_choice,
    shown,
)
from fastnet.interrupts import Bracket, held_back, holding_often
from fastnet.losses.base import Loss
from fastnet.losses.function import Function
from fastnet.losses.named_metrics import Metrics
from fastnet.model import Sequential
from fastnet.optim import Optimizer
from fastnet.terminal import show
from fastnet.train.callbacks import Callback
from fastnet.train.given import Given
from fastnet.train.history import History
from fastnet.train.progress import Progress, epoch_line
from fastnet.train.ready import Ready, Waiting
from fastnet.train.run import Fit
from fastnet.train.scores import resized
from fastnet.train.shared_data import SharedData, each
from fastnet.train.trainer import Trainer

SECONDS = 0.1  # of a native call, after which Ctrl-C acts
AT_ONCE = (
    64  # nets that have begun and not ended: each has orders and numbers for many steps in memory
)
ROWS = 1 << 23  # of their orders


def fit_many(
    models: Sequence[Sequential | Trainer],
    X: Any,
    y: Any,
    *,
    losses: Loss | Function | Sequence[Loss | Function] | None = None,
    optimizers: Optimizer | Sequence[Optimizer] | None = None,
    seeds: Sequence[int | None] | None = None,
    rows: Sequence[Any] | None = None,
    sample_weight: Any = None,
    class_weight: Mapping[Any, float] | str | None = None,
    validation: tuple[Any, ...] | Sequence[Any] | str | None = None,
    validation_split: float | int | None = None,
    epochs: int | Sequence[int] = 1,
    batch_size: int | Sequence[int] = 32,
    metrics: Metrics | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    accumulation_steps: int = 1,
    restore_best: bool = False,
    respect_modes: bool = False,
    callbacks: Iterable[Any] = (),
    errors: str = "raise",
    verbose: int = 0,
) -> list[History]:
    """Train N nets at once, each as `Trainer(model, …, seed=s).fit(X[rows], y[rows], …)` alone.

    models: N different models, whose layers, widths, dtypes and backends may differ; or N trainers, which
        bring loss, optimizer, seed and metrics, clipping and averages, and continue. On backend "c" one
        native call after the other walks all nets: a net runs on one thread, each thread takes the next
        net, and nets that have ended drop out. Each net has the bits of its own `fit`. On other backends,
        and with a loss that is a Python function, nets are trained one after the other.
    X, y: one data set for all nets, as `fit` takes it. All its rows are checked.
    losses: a loss for all nets, or N of them.
    optimizers: an optimizer, of which each net gets a copy, or N of them (default None: Adam()).
    seeds: N integers in [0, 2⁶⁴), or None for a random one (default None: all are random).
    rows: for each net the rows of X, y and sample_weight that it trains on, as integers or as a mask of n
        bools, or None for all (default None: all nets train on all rows). They are not copied.
    sample_weight: (n,), as in `fit` (default None). A mean loss divides by the mean over a net's own rows.
    class_weight: as in `fit`, for all nets (default None). "balanced" counts a net's own rows.
    validation: (X, y) or (X, y, sample_weight) for all nets; or for each net rows of X and y, without
        weights, or None for no validation; or "rest", those rows that the net does not train on (default
        None).
    validation_split: as in `fit`, of each net's own rows by its own seed (default None). Not together with
        validation.
    epochs, batch_size: an integer ≥ 1 for all nets, or N of them (default 1 and 32).
    metrics, shuffle, drop_last, accumulation_steps, restore_best, respect_modes: as in `Trainer` and `fit`,
        for all nets.
    callbacks: callbacks, of which each net gets copies, or N lists of callbacks of its own (default none).
        EarlyStopping ends the training of its own net. Those of N lists tell afterwards, for instance,
        each net's `best_epoch`.
    errors: what happens where a net diverges. It drops out as a fit that raises does, and the other nets
        are trained to their ends. "raise" (default) then raises DivergenceError, which names the nets and
        whose `histories` are those of all. "return" returns them; a net's history has its `error`.
    verbose: 0 (default) or 1: a line for each net that ends, with its last epoch.

    Returns the nets' histories, in order; their "seconds" are those of a net's own steps. All arguments
    are checked before anything changes. Ctrl-C, or another error than divergence, ends the training of all
    nets, each of which keeps the steps it has made: callbacks and `restore_best` act as at the end of a
    fit. The error has a note with the number of the net.
    """
    check_choice("errors", errors, ("raise", "return"))
    options: dict[str, Any] = {
        "shuffle": shuffle,
        "drop_last": drop_last,
        "accumulation_steps": accumulation_steps,
        "restore_best": restore_best,
        "respect_modes": respect_modes,
    }
    lines = bool(Progress(verbose, 0).verbose)
    with _Kept():
        trainers = _trainers(models, losses, optimizers, seeds, metrics)
    count = len(trainers)
    many_epochs = each("epochs", epochs, count, _is_several)
    many_batches = each("batch_size", batch_size, count, _is_several)
    called = _callbacks(callbacks, count)
    data = SharedData(trainers, X, y, sample_weight, class_weight)
    parts = data.parts(rows)
    if validation_split is None:
        valid = data.validation(validation, parts)
    elif validation is None:
        parts, valid = data.split(validation_split, parts)
    else:
        raise HyperparameterError(
            f"validation_split is {shown(validation_split)} and there is a validation; expected one of both"
        )
    nets = []
    # Python drops a Ctrl-C that comes where garbage is freed, of which there is much here.
    with held_back() as between, _Kept():
        for i, trainer in enumerate(trainers):
            try:
                fit = trainer._fit(
                    Given(*data.training(trainer, parts[i]), valid[i], parts[i]),
                    epochs=many_epochs[i],
                    batch_size=many_batches[i],
                    callbacks=called[i],
                    verbose=0,
                    **options,
                )
            except Exception as error:
                error.add_note(_note(i))
                raise
            nets.append(_Net(i, trainer, fit, fit.training()))
            between()
    with holding_often(), _Locked([trainer.model for trainer in trainers]):
        _train(nets, lines)
    histories = [trainer.history for trainer in trainers]
    for net in nets:
        net.trainer.history.error = net.error
    failed = [net for net in nets if net.error is not None]
    if failed and errors == "raise":
        raise _diverged(failed, histories) from failed[0].error
    return histories


def _note(number: int) -> str:
    return f"This was net {number} of fit_many."


@dataclass(eq=False, repr=False)
class _Net:
    """One of the nets, its fit, and the steps that wait."""

    number: int
    trainer: Trainer
    fit: Fit
    waiting: Waiting[None]
    ready: Ready | None = None
    error: DivergenceError | None = None
    slice: int = 1  # steps of a call of its own

    def begin(self, most_rows: int) -> None:
        """Go on to the first steps that wait."""
        run = self.fit.run
        run.executor = run.find()
        run.join(most_rows)
        self.go_on(None)

    def go_on(self, error: Exception | None) -> None:
        """Go on to the next steps that wait: `ready` is None where there are none, and the net has ended.

        error: what the last steps have raised.
        """
        self.ready = None
        try:
            self.ready = next(self.waiting) if error is None else self.waiting.throw(error)
        except StopIteration:
            pass
        except DivergenceError as found:
            self.error = found
        except Exception as found:
            found.add_note(_note(self.number))
            raise

    def run_alone(self) -> None:
        """Run steps on all threads, and go on where all that wait are done."""
        ready, error = self.ready, None
        assert ready is not None
        before, spent = ready.left, ready.seconds
        try:
            ready.run(self.slice)
        except Exception as found:
            error = found
        self.slice = resized(self.slice, before - ready.left, ready.seconds - spent)
        if error is not None or not ready.left:
            self.go_on(error)

    def settle(self) -> None:
        """Go on where all steps that wait are done, or one was refused."""
        assert self.ready is not None
        try:
            self.ready.executor.outcome()
        except Exception as error:
            self.go_on(error)
        else:
            if not self.ready.left:
                self.go_on(None)


def _train(nets: list[_Net], lines: bool) -> None:
    """Train all nets to their ends; the caller holds the models."""
    most = min(AT_ONCE, ROWS // max(int(net.fit.run.offsets[-1]) for net in nets))
    most = max(most, 2 * parallel.get_num_threads())
    later, now = deque(nets), list[_Net]()
    try:
        while later or now:
            if later and len(now) < most:
                with _Kept():
                    while later and len(now) < most:
                        now.append(later.popleft())
                        with held_back():
                            now[-1].begin(ROWS // AT_ONCE)
            ready = [net for net in now if net.ready is not None]
            before = {net.number: net.ready for net in ready}
            if len(ready) == 1:
                ready[0].run_alone()
            elif ready:
                _together(ready)
            if lines:
                for net in now:
                    _show_end(net)
            # Those with the same steps still before them come first, so that all nets keep pace.
            now = [net for net in now if net.ready is not None]
            now.sort(key=lambda net: net.ready is not before.get(net.number))
    finally:
        _close(nets)


def _together(nets: list[_Net]) -> None:
    """Run the steps that wait, as many as there is time for."""
    waiting = [net.ready for net in nets if net.ready is not None]
    backend = waiting[0].executor.backend
    done = [(ready.executor.steps_done, ready.executor.evaluated) for ready in waiting]
    many = [ready.executor.begin(ready.end) for ready in waiting]
    spent = np.zeros(len(many))
    with held_back():
        try:
            spent = backend.train_many(many, SECONDS)
        finally:
            for ready, before, seconds in zip(waiting, done, spent.tolist(), strict=True):
                ready.executor.ended()
                if seconds or (ready.executor.steps_done, ready.executor.evaluated) != before:
                    ready.count(seconds)
    for net in nets:
        net.settle()


def _show_end(net: _Net) -> None:
    """Print the last epoch of a net that has ended."""
    records = net.trainer.history.records
    if net.ready is None and records:
        show(f"net {net.number}  {epoch_line(records[-1], net.fit.last_epoch)}")


def _close(nets: list[_Net]) -> None:
    """End all fits, whatever happens in one of them."""
    failed: BaseException | None = None
    for net in nets:
        try:
            net.waiting.close()
        except BaseException as error:
            failed = failed or error
    if failed is not None:
        raise failed


class _Kept(Bracket[None]):
    """Objects that are made here stay: while this is open, Python does not look which of them are garbage.

    With a thousand nets it would look through all of them again and again, for a quarter of the time.
    """

    _was_on = False

    def _begin(self) -> None:
        self._was_on = gc.isenabled()
        gc.disable()

    def _end(self) -> None:
        if self._was_on:
            gc.enable()


class _Locked(Bracket[None]):
    """The locks of all models."""

    def __init__(self, models: list[Sequential]) -> None:
        self._models = models
        self._held: list[Any] = []

    def _begin(self) -> None:
        for number, model in enumerate(self._models):
            try:
                lock: Any = model.training_lock()
            except UsageError as error:
                error.add_note(_note(number))
                raise
            lock.acquire()
            self._held.append(lock)

    def _end(self) -> None:
        while self._held:
            self._held.pop().release()


def _diverged(failed: list[_Net], histories: list[History]) -> DivergenceError:
    """The error of nets that have diverged, when the others are trained."""
    first = failed[0]
    others = f"; so did {len(failed) - 1} others: " if len(failed) > 1 else ""
    others += ", ".join(str(net.number) for net in failed[1:10])
    others += ", …" if len(failed) > 10 else ""
    error = DivergenceError(
        f"net {first.number} diverged{others}. The other nets are trained: errors='return' returns the "
        f"histories, which the error has too. Net {first.number}: {first.error}"
    )
    error.histories = histories
    return error


def _is_several(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _trainers(models: Any, losses: Any, optimizers: Any, seeds: Any, metrics: Any) -> list[Trainer]:
    """The trainer of each net."""
    try:
        given = [] if isinstance(models, (Sequential, Trainer, str)) else list(models)
    except TypeError:
        given = []
    kinds = {kind for kind in (Sequential, Trainer) if any(isinstance(m, kind) for m in given)}
    if len(kinds) != 1 or not all(isinstance(m, tuple(kinds)) for m in given):
        raise HyperparameterError(
            f"models is {shown(models)}; expected a list of Sequential, or of Trainer"
        )
    count = len(given)
    _check_distinct([m.model if isinstance(m, Trainer) else m for m in given])
    named = {"losses": losses, "optimizers": optimizers, "seeds": seeds, "metrics": metrics}
    if Trainer in kinds:
        for name, value in named.items():
            if value is not None:
                raise HyperparameterError(
                    f"{name} is {shown(value)} and models are trainers; expected None, as each trainer "
                    "has its own"
                )
        return given
    if losses is None:
        raise HyperparameterError("losses is None; expected a loss for all nets, or one for each")
    many_losses = each("losses", losses, count, _is_several)
    if _is_several(optimizers):
        many_optimizers = each("optimizers", optimizers, count)
    else:
        many_optimizers = [copy.deepcopy(optimizers) for _ in range(count)]
    many_seeds = [None] * count if seeds is None else each("seeds", seeds, count)
    made = []
    for i, model in enumerate(given):
        try:
            made.append(Trainer(model, many_losses[i], many_optimizers[i], metrics, many_seeds[i]))
        except Exception as error:
            error.add_note(_note(i))
            raise
    return made


def _check_distinct(models: list[Sequential]) -> None:
    numbers: dict[int, int] = {}
    for i, model in enumerate(models):
        if numbers.setdefault(id(model), i) != i:
            raise HyperparameterError(
                f"models {numbers[id(model)]} and {i} are the same object; expected different ones, as "
                "copy.deepcopy(model) makes them"
            )


def _callbacks(given: Any, count: int) -> list[list[Callback]]:
    """The callbacks of each net."""
    try:
        items = list(given)
        if not all(isinstance(one, Callback) for one in items):
            items = [list(one) for one in each("callbacks", items, count)]
        else:
            if writing := [one for one in items if one.writes_files and count > 1]:
                raise HyperparameterError(
                    f"callbacks has {shown(writing[0])}, of which each net would write the same file; "
                    "expected lists of callbacks for each net, with a file of its own"
                )
            return [[copy.deepcopy(one) for one in items] for _ in range(count)]
    except TypeError:
        raise HyperparameterError(
            f"callbacks is {shown(given)}; expected callbacks, of which each net gets copies, or a list of "
            "callbacks for each net"
        ) from None
    seen: dict[int, int] = {}
    for i, called in enumerate(items):
        for one in called:
            if seen.setdefault(id(one), i) != i:
                raise HyperparameterError(
                    f"callbacks of nets {seen[id(one)]} and {i} have one in common, {shown(one)}; expected "
                    "different ones"
                )
    return items
