"""One fit: its data, its steps, and how epochs are run in native calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.steps import ParametersNotFinite, Steps
from fastnet.data.dataset import Dataset
from fastnet.errors import DivergenceError
from fastnet.interrupts import held_back
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Optimizer
from fastnet.optim.optimizer import OptimizerState
from fastnet.train.chain import Chain, Span
from fastnet.train.history import History
from fastnet.train.progress import Progress
from fastnet.train.scores import EpochScores, resized

MOST_ROWS, MOST_STEPS = 1 << 20, 1 << 15  # of the epochs in one native call


class Trained(Protocol):
    """What a run reads of its trainer, and counts there."""

    model: Sequential
    optimizer: Optimizer
    history: History
    seed: int
    epoch: int
    step: int

    _chain: Chain

    def _evaluate(self, data: Dataset, batch_size: int | None = None) -> dict[str, float]: ...


@dataclass(eq=False, repr=False)
class Loaded:
    """Steps that an executor has ready, and how far they are done."""

    state: OptimizerState
    changes: int  # of the optimizer's hyper-parameters, when the steps' numbers were made
    span: Span
    done: int = 0
    refused: int = 0  # 1: the last of these ends an epoch whose parameters are not finite

    def serves(self, state: OptimizerState) -> bool:
        """Whether something is left, and is still what is to be done."""
        left = self.done < len(self.span.ends)
        return left and state is self.state and state.changes == self.changes


@dataclass(eq=False, repr=False)
class Run:
    """One fit of a trainer."""

    trainer: Trained
    data: Dataset
    offsets: Array
    validation: Dataset | None
    find: Callable[[], Executor]  # under the lock, since plans are shared
    executor: Executor
    scores: EpochScores
    accumulation_steps: int = 1  # minibatches of each update
    shuffle: bool = True
    watched: bool = True  # whether somebody looks at each epoch's record as it comes
    chunk: int = 1  # steps of the next native call

    def whole_epochs(self, most: int) -> int:
        """How many epochs fit into the next native call; 0 where it has part of one."""
        able = self.executor.whole_epochs and self.data.host is None
        if not able or self.trainer._chain.after_epochs or self.scores.metrics:
            return 0
        fit = min(MOST_ROWS // int(self.offsets[-1]), MOST_STEPS // self.scores.steps)
        return min(most, self.chunk // self.scores.steps, max(1, fit))

    def minibatches(self, epoch: int, epochs: int) -> tuple[Array, Array]:
        """The rows of epochs epoch, epoch + 1, …, and where their minibatches begin and end."""
        rows, count = int(self.offsets[-1]), self.data.rows
        if self.shuffle:
            index = self.executor.orders(count, self.trainer.seed, epoch, epochs)[:, :rows]
        else:
            index = np.tile(np.arange(rows), (epochs, 1))
        begins = np.arange(epochs, dtype=np.int64)[:, None] * rows + self.offsets[:-1]
        return index.reshape(-1), np.append(begins, epochs * rows)

    def epochs(self, last_epoch: int, progress: Progress) -> Generator[dict[str, Any], None, None]:
        """Train at least one epoch; yields a record after each, unless nobody looks at it by then.

        Short epochs are loaded as many at once as fit into a chunk. One native call runs all of them where
        nobody looks, and one call each of them otherwise.
        """
        count = self.whole_epochs(last_epoch - self.trainer.epoch)
        if not count:
            progress.begin_epoch(self.trainer.epoch + 1, last_epoch)
            yield self._in_chunks(progress)
            return
        first, scores, steps = self.trainer.epoch, self.scores, self.scores.steps
        index, offsets = self.minibatches(first, count)
        decisions = scores.room_for_decisions(count)
        loaded: Loaded | None = None
        spent = 0.0
        with self.executor.resident():
            while (done := self.trainer.epoch - first) < count:
                if loaded is None or not loaded.serves(
                    self.trainer.optimizer.state(self.trainer.model)
                ):
                    rest = None if decisions is None else decisions[done * scores.rows :]
                    part = index, offsets, done * steps
                    try:
                        loaded = self.load(*part, decisions=rest, whole=True)
                    except Exception as error:  # of a schedule, perhaps at a later epoch
                        if isinstance(error, Warning) or done + 1 == count:
                            raise
                        end = (done + 1) * steps
                        loaded = self.load(*part, end, decisions=rest, whole=True)
                if not self.watched:
                    self._advance_unwatched(loaded, index, decisions, done)
                    continue
                progress.begin_epoch(self.trainer.epoch + 1, last_epoch)
                begun = time.perf_counter()
                found = scores.found(self.advance(loaded, steps), index, decisions, done)
                spent += time.perf_counter() - begun
                record = {name: value for name, (value,) in found.items()}
                progress.advance(scores.rows, partial(record.__getitem__, "loss"))
                yield self._end_epoch(record, begun)
        if self.watched:
            self.chunk = resized(self.chunk, count * steps, spent)

    def _in_chunks(self, progress: Progress) -> dict[str, Any]:
        """Train an epoch in chunks of steps."""
        begun = time.perf_counter()
        offsets, scores = self.offsets, self.scores
        order, _ = self.minibatches(self.trainer.epoch, 1)
        done = 0
        with self.executor.resident():
            while done < scores.steps:
                begin, done = done, min(done + self.chunk, scores.limit(done))
                started = time.perf_counter()
                outputs = scores.outputs(begin, done)
                decisions = scores.decisions(begin)
                loaded = self.load(order, offsets, begin, done, outputs, decisions)
                losses = self.advance(loaded, done - begin)
                self.chunk = resized(self.chunk, done - begin, time.perf_counter() - started)
                scores.add(begin, done, losses, self.data.y, order)
                rows = int(offsets[done] - offsets[begin])
                progress.advance(rows, partial(scores.mean_loss, done))
        check_parameters(self.trainer.model, self.trainer.epoch + 1)
        self.trainer._chain.end_epoch(self.trainer.model, self.trainer.epoch + 1)
        return self._end_epoch(scores.record(order), begun)

    def _end_epoch(self, found: dict[str, float], begun: float) -> dict[str, Any]:
        """Count an epoch that is trained; returns its record."""
        trained = time.perf_counter() - begun
        record: dict[str, Any] = {"epoch": self.trainer.epoch + 1, **found}
        if self.validation is not None:
            record |= {
                f"val_{name}": v for name, v in self.trainer._evaluate(self.validation).items()
            }
        record["seconds"] = time.perf_counter() - begun
        record["samples_per_second"] = int(self.offsets[-1]) / max(trained, 1e-9)
        vars(self.trainer)["epoch"] += 1
        return record

    def load(
        self,
        index: Array,
        offsets: Array,
        begin: int,
        end: int | None = None,
        outputs: Array | None = None,
        decisions: Array | None = None,
        *,
        whole: bool = False,
    ) -> Loaded:
        """Make steps begin … end − 1 of these minibatches ready; without `end` all from `begin` on.

        whole: epochs, each of which ends with a look at the parameters.
        """
        end = len(offsets) - 1 if end is None else end
        state = self.trainer.model.optimizer_state(self.trainer.optimizer)
        span = Span(
            self.offsets, begin, end, self.accumulation_steps, total=self.scores.total, whole=whole
        )
        update = self.trainer._chain.chunk(self.trainer.model, state, span)
        part = offsets[begin : end + 1]
        rows = index[part[0] : part[-1]]
        self.executor.ready(update)
        steps = Steps(rows, part - part[0], self.trainer.seed, self.trainer.step)
        steps.outputs, steps.decisions = outputs, decisions
        self.executor.load(self.data, steps, update)
        return Loaded(state, state.changes, span)

    def advance(self, loaded: Loaded, steps: int) -> Array:
        """Run so many more steps of what is loaded, and count those that are done; returns their losses."""
        executor, begin = self.executor, loaded.done
        with held_back():  # until all that counts steps has counted these
            try:
                executor.run(begin + steps)
            except ParametersNotFinite:
                loaded.refused = 1
                epochs = (executor.steps_done - begin) // self.scores.steps
                raise parameters_diverged(self.trainer.epoch + epochs) from None
            finally:
                self.trainer.model.touch(by_backend=True)
                loaded.done = executor.steps_done
                # Past the check of names, which takes as long as a small step.
                vars(self.trainer)["step"] += loaded.done - begin
                loaded.state.steps += self.trainer._chain.stepped(loaded.span, begin, loaded.done)
        return executor.losses[begin : loaded.done]

    def _advance_unwatched(
        self, loaded: Loaded, index: Array, decisions: Array | None, first: int
    ) -> None:
        """Run all epochs that are loaded, and record those that are done.

        first: the first of them, among those whose rows the index has.
        """
        begun, begin, steps = time.perf_counter(), loaded.done, self.scores.steps
        with held_back():
            try:
                self.advance(loaded, len(loaded.span.ends) - begin)
            finally:
                seconds = time.perf_counter() - begun
                epochs = (loaded.done - loaded.refused - begin) // steps
                losses = self.executor.losses[begin : begin + epochs * steps]
                each = seconds / max(1, epochs)
                columns: dict[str, Sequence[Any]] = {
                    "epoch": range(self.trainer.epoch + 1, self.trainer.epoch + epochs + 1),
                    **self.scores.found(losses, index, decisions, first),
                    "seconds": [each] * epochs,
                    "samples_per_second": [int(self.offsets[-1]) / max(each, 1e-9)] * epochs,
                }
                self.trainer.history.extend(columns)
                self.trainer.epoch += epochs
                self.chunk = resized(self.chunk, loaded.done - begin, seconds)

    def steps(self, index: Array, offsets: Array) -> Array:
        """Run the steps of these minibatches; returns their losses."""
        return self.advance(self.load(index, offsets, 0), len(offsets) - 1)


def check_parameters(model: Sequential, epoch: int) -> None:
    """Raise DivergenceError where the last update, which no later loss checks, is not finite."""
    flat = model.bind().flat("params")
    if flat.size and not (math.isfinite(flat.min()) and math.isfinite(flat.max())):
        raise parameters_diverged(epoch)


def parameters_diverged(epoch: int) -> DivergenceError:
    """The error of parameters that are not finite."""
    return DivergenceError(
        f"the parameters are not finite after the last update of epoch {epoch}; a "
        "smaller learning rate usually helps (reset() or load_state_dict starts over)"
    )
