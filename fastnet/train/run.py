"""One fit: its data, its steps, and how epochs are run in native calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.steps import Evaluation, ParametersNotFinite, Steps
from fastnet.data.dataset import Dataset
from fastnet.data.terms import Terms
from fastnet.errors import DivergenceError, StateDictError
from fastnet.losses.base import Loss
from fastnet.losses.metrics import Metric
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Optimizer
from fastnet.parameter import check_count
from fastnet.train import saved, watched
from fastnet.train.callbacks.base import Callback, is_patient
from fastnet.train.callbacks.monitors import KeepBest
from fastnet.train.chain import Chain, Span
from fastnet.train.history import History
from fastnet.train.progress import Progress
from fastnet.train.ready import Ready, Waiting, finish
from fastnet.train.scores import EpochScores, first_chunk, resized
from fastnet.train.standing import Hooks, Loaded, Pauses, Position, call
from fastnet.train.validating import Validation, validation_within

EPOCHS = "epochs"  # the reason of a fit that has trained all of them
MOST_ROWS, MOST_STEPS = 1 << 20, 1 << 15  # of the epochs in one native call
JOINED_STEPS = 1 << 13  # of a net that waits for others: many nets have such chunks at once


class Trained(Protocol):
    """What a run reads of its trainer, and counts there."""

    model: Sequential
    loss: Loss
    optimizer: Optimizer
    metrics: dict[str, Metric]
    history: History
    seed: int
    epoch: int
    step: int
    stop_training: bool
    stop_reason: str | None

    _chain: Chain
    _fitting: Fit | None

    def _to_training(self) -> None: ...

    def _to_evaluation(self, run: Run | None = None) -> bool: ...

    def _named(self, X: Any, y: Any, *, learn: bool) -> tuple[Any, Any, Terms]: ...

    def _evaluating(
        self,
        data: Dataset,
        wait: Callable[[Ready], Waiting[None]] | None,
        pause: Callable[[], None],
    ) -> Waiting[dict[str, float]]: ...


@dataclass(eq=False, repr=False)
class Part:
    """Minibatches begin … end − 1 of an epoch, for one native call; minibatch i has the rows of the data
    set at index[offsets[i] : offsets[i + 1]].
    """

    index: Array
    offsets: Array
    begin: int
    end: int

    @property
    def steps(self) -> int:
        """The number of minibatches."""
        return self.end - self.begin

    @property
    def rows(self) -> int:
        """The number of their rows."""
        return int(self.offsets[self.end] - self.offsets[self.begin])


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
    respect_modes: bool = False
    rows: Array | None = None  # those of the data set that are the fit's, in this order; None: all
    joins: bool = False  # whether its steps wait to be run together with those of other nets
    evaluated: bool = True  # whether somebody looks at the model after each epoch
    patient: Sequence[
        Callback
    ] = ()  # who hears of epochs after several of them, where nobody looks
    within: Validation | None = None  # who does within native calls; None: Python does
    chunk: int = 1  # steps of the next native call
    most_rows: int = MOST_ROWS
    waited: float = field(default=0.0, init=False)  # seconds in which others have run
    position: Position = field(default_factory=Position)
    pauses: Pauses = field(default_factory=Pauses)
    hooks: Hooks = field(default_factory=Hooks)
    goes_on_within = True  # whether it can go on from a position within an epoch
    whole_calls = True  # whether native calls may have whole epochs
    speaks = True  # whether it prints and writes to files

    @property
    def epoch_rows(self) -> int | None:
        """The rows of an epoch, where they are known."""
        return int(self.offsets[-1])

    def fingerprint(self, terms: Terms) -> dict[str, Any]:
        """What tells its data from others."""
        return saved.fingerprint(self.data, terms)

    def begin(self) -> None:
        """Find the executor, under the lock."""
        self.executor = self.find()
        if self.executor.joins and self.data.host is None:
            state = self.trainer.model.optimizer_state(self.trainer.optimizer)
            ops = [op for passes in state.passes for op in passes]
            if all({*op.dims} <= {"N", "M"} for op in ops):  # others may take any time
                self.chunk = first_chunk(self.executor.surely_takes(len(ops)))

    def unload(self) -> None:
        """Let go of the data."""
        self.executor.unload()

    def resident(self) -> AbstractContextManager[None]:
        """While this is open, values may stay in a device's memory."""
        return self.executor.resident()

    def sample(self, most: int) -> list[Any]:
        """The inputs of the first epoch's first minibatches, at most so many."""
        order, offsets = self.minibatches(0, 1)
        return [self.data.x[order[begin:end]] for begin, end in pairwise(offsets[: most + 1])]

    def now(self) -> float:
        """A clock that stands still while others run."""
        return time.perf_counter() - self.waited

    def resize(self, steps: int, seconds: float) -> None:
        """Make chunks of a length that Ctrl-C can wait for, unless others look after that."""
        if not self.joins:
            self.chunk = resized(self.chunk, steps, seconds)

    def join(self, most_rows: int) -> None:
        """Let steps wait for others, if the backend can run them together, with so many rows at once."""
        self.joins = self.executor.joins and self.data.host is None
        if self.joins:
            self.chunk, self.most_rows = JOINED_STEPS, most_rows

    def whole_epochs(self, most: int) -> int:
        """How many epochs fit into the next native call; 0 where it has part of one."""
        able = self.executor.whole_epochs and self.data.host is None
        if not able or self.trainer._chain.after_epochs or self.scores.metrics:
            return 0
        if not self.position.between_epochs or self.hooks.of_batches:
            return 0
        if (limit := self.pauses.steps()) is not None:
            most = min(most, limit // self.scores.steps)
        if (limit := self.pauses.epochs()) is not None:
            most = min(most, limit)
        fit = min(self.most_rows // int(self.offsets[-1]), MOST_STEPS // self.scores.steps)
        return min(most, self.chunk // self.scores.steps, max(1, fit))

    def minibatches(self, epoch: int, epochs: int) -> tuple[Array, Array]:
        """The rows of epochs epoch, epoch + 1, …, and where their minibatches begin and end."""
        rows = int(self.offsets[-1])
        count = self.data.rows if self.rows is None else len(self.rows)
        if self.shuffle:
            index = self.executor.orders(count, self.trainer.seed, epoch, epochs)[:, :rows]
        else:
            index = np.tile(np.arange(rows), (epochs, 1))
        if self.rows is not None:
            index = self.rows[index]
        begins = np.arange(epochs, dtype=np.int64)[:, None] * rows + self.offsets[:-1]
        return index.reshape(-1), np.append(begins, epochs * rows)

    def epochs(
        self, last_epoch: int, progress: Progress, ended: Callable[[dict[str, Any]], None]
    ) -> Waiting[None]:
        """Train at least one epoch; `ended` gets each one's record, where somebody looks at it.

        Short epochs are loaded as many at once as fit into a chunk. One native call runs all of them where
        nobody looks, as many as patient callbacks admit, and one call each of them otherwise.
        """
        count = self.whole_epochs(last_epoch - self.trainer.epoch)
        if not count:
            ended((yield from self._in_chunks(progress)))
            return
        within = self.within if self.within is not None and self.within.epochs else None
        if self.within is not within:
            count = 1  # which tells how long a validation takes
        if within is not None:
            count = min(count, within.most(self.most_rows, self.most_rows / MOST_ROWS))
            count = count if self.joins else min(count, within.epochs)
        first, scores, steps = self.trainer.epoch, self.scores, self.scores.steps
        index, offsets = self.minibatches(first, count)
        decisions = scores.room_for_decisions(count)
        loaded: Loaded | None = None
        spent, plain = 0.0, watched.is_plain(self)
        with self.executor.resident():
            while (done := self.trainer.epoch - first) < count:
                if self.hooks.epoch_begin:  # may change a hyper-parameter
                    call(self.hooks.epoch_begin, self.trainer.epoch + 1)
                if loaded is None or not loaded.serves(
                    self.trainer.optimizer.state(self.trainer.model)
                ):
                    rest = None if decisions is None else decisions[done * scores.rows :]
                    part = index, offsets, done * steps
                    follows = None if within is None else within.within(count - done, steps)
                    try:
                        loaded = self.load(*part, decisions=rest, whole=True, evaluation=follows)
                    except Exception as error:  # of a schedule, perhaps at a later epoch
                        if isinstance(error, Warning) or done + 1 == count:
                            raise
                        end = (done + 1) * steps
                        loaded = self.load(
                            *part, end, decisions=rest, whole=True, evaluation=follows
                        )
                    loaded.first = done
                if within is not None or not self.evaluated:
                    yield from self._advance_unwatched(loaded, index, decisions, progress, within)
                    if self.trainer.stop_training:
                        return
                    continue
                if plain:
                    try:
                        spent += watched.train(
                            self, loaded, index, decisions, done, count, progress, ended
                        )
                    except ParametersNotFinite:
                        raise parameters_diverged(self.trainer.epoch + 1) from None
                    if self.trainer.stop_training:
                        return
                    continue
                begun = self.now()
                losses = yield from self.advance(loaded, steps)
                record = scores.of_epoch(losses, index, decisions, done)
                spent += self.now() - begun
                progress.advance(scores.rows, partial(record.__getitem__, "loss"))
                ended((yield from self._end_epoch(record, begun)))
                if self.trainer.stop_training:
                    return
        if spent:
            self.resize(count * steps, spent)

    def _in_chunks(self, progress: Progress) -> Waiting[dict[str, Any]]:
        """Train an epoch in chunks of steps, or the rest of one."""
        at = self.position
        begun = self.now() - at.seconds
        if at.found is not None:
            return (yield from self._end_epoch(at.found, begun))
        scores = self.scores
        if not at.done:
            call(self.hooks.epoch_begin, self.trainer.epoch + 1)
        with self.resident(), closing(self.parts()) as parts:
            for part in parts:
                begin, end = at.done, at.done + part.steps
                if self.hooks.batch_begin:
                    call(self.hooks.batch_begin, end)
                started = self.now()
                outputs = scores.outputs(begin, end)
                decisions = scores.decisions(begin)
                minibatches = part.index, part.offsets, part.begin, part.end
                loaded = self.load(*minibatches, outputs, decisions, epoch=part.offsets)
                losses = yield from self.advance(loaded, part.steps)
                self.resize(part.steps, self.now() - started)
                scores.add(begin, end, losses, self.data.y, part.index)
                at.done, at.seconds = end, self.now() - begun
                progress.advance(part.rows, partial(scores.mean_loss, end))
                if self.hooks.batch_end:
                    call(self.hooks.batch_end, end, {"loss": float(losses[-1])})
                if end < scores.steps:
                    self._pause()
        check_parameters(self.trainer.model, self.trainer.epoch + 1)
        self.trainer._chain.end_epoch(self.trainer.model, self.trainer.epoch + 1)
        return (yield from self._end_epoch(scores.record(), begun))

    def parts(self) -> Generator[Part]:
        """The epoch's minibatches from the position on, for native calls of `chunk` steps."""
        order, _ = self.minibatches(self.trainer.epoch, 1)
        while (begin := self.position.done) < self.scores.steps:
            chunk = 1 if self.hooks.of_batches else self.chunk
            end = min(begin + chunk, self.scores.limit(begin))
            if (limit := self.pauses.steps()) is not None:
                end = min(end, begin + limit)
            yield Part(order, self.offsets, begin, end)

    def row_losses(self, index: Array) -> Array | None:
        """The array for the losses of these rows, which steps are to record; None: nobody wants them."""
        return None

    def _pause(self) -> None:
        """Let happen what happens within an epoch."""
        if self.goes_on_within:
            self.pauses.pause()
        else:
            self.pauses.leave()

    def _end_epoch(self, found: dict[str, float], begun: float) -> Waiting[dict[str, Any]]:
        """Count an epoch that is trained; returns its record."""
        trained = self.now() - begun
        record: dict[str, Any] = {"epoch": self.trainer.epoch + 1, **found}
        if self.evaluated:
            self.trainer._to_evaluation(self)
        if self.validation is not None:
            self.position.done, self.position.found = self.scores.steps, found
            self.position.seconds = trained
            call(self.hooks.test_begin)
            values = yield from self._validate(self.validation)
            scored = {f"val_{name}": value for name, value in values.items()}
            call(self.hooks.test_end, scored)
            record |= scored
        record["seconds"] = self.now() - begun
        record["samples_per_second"] = self.scores.rows / max(trained, 1e-9)
        if self.within is not None:
            self.within.took(1, record["seconds"])
        self.position.done, self.position.found = 0, None
        self.position.seconds = 0.0
        vars(self.trainer)["epoch"] += 1
        return record

    def _validate(self, data: Dataset) -> Waiting[dict[str, float]]:
        """The scores of the validation data."""
        wait = self._wait if self.joins else None
        evaluate = self.trainer._evaluating if self.within is None else self.within.evaluating
        return (yield from evaluate(data, wait, self._pause))

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
        epoch: Array | None = None,
        evaluation: Evaluation | None = None,
    ) -> Loaded:
        """Make steps begin … end − 1 of these minibatches ready; without `end` all from `begin` on.

        whole: epochs, each of which ends with a look at the parameters, and with an `evaluation` if given.
        epoch: where all minibatches of an epoch begin and end (default: `offsets` of the run).
        """
        end = len(offsets) - 1 if end is None else end
        epoch = self.offsets if epoch is None else epoch
        state = self.trainer.model.optimizer_state(self.trainer.optimizer)
        span = Span(
            epoch, begin, end, self.accumulation_steps, total=self.scores.total, whole=whole
        )
        update = self.trainer._chain.chunk(self.trainer.model, state, span)
        part = offsets[begin : end + 1]
        rows = index[part[0] : part[-1]]
        self.executor.ready(update)
        steps = Steps(rows, part - part[0], self.trainer.seed, self.trainer.step)
        steps.outputs, steps.decisions, steps.evaluation = outputs, decisions, evaluation
        steps.row_losses = self.row_losses(rows)
        steps.goes_on = not (whole or self.hooks.of_batches) and end < len(epoch) - 1
        self.executor.load(self.data, steps, update)
        return Loaded(state, state.changes, span)

    def advance(self, loaded: Loaded, steps: int) -> Waiting[Array]:
        """Run so many more steps of what is loaded, and count those that are done; returns their losses."""
        begin = loaded.done
        self.trainer._to_training()
        yield from self._run(Ready(self.executor, begin + steps, partial(self._count, loaded)))
        return self.executor.losses[begin : loaded.done]

    def _run(self, ready: Ready) -> Waiting[None]:
        """Run steps, or wait until they have been run."""
        try:
            if self.joins:
                yield from self._wait(ready)
            else:
                ready.run()
        except ParametersNotFinite:
            raise parameters_diverged(self.trainer.epoch + 1) from None

    def _wait(self, ready: Ready) -> Waiting[None]:
        """Wait until steps have been run."""
        begun = time.perf_counter()
        try:
            yield ready
        finally:
            self.waited += time.perf_counter() - begun - ready.seconds

    def _count(self, loaded: Loaded, _: Ready) -> None:
        """Count the steps that have been done since the last call."""
        begin, end = loaded.done, self.executor.steps_done
        self.executor.storage.version += 1  # as the model's `touch` does
        loaded.done = end
        # Past the check of names, which takes as long as a small step.
        vars(self.trainer)["step"] += end - begin
        loaded.state.steps += self.trainer._chain.stepped(loaded.span, begin, end)

    def _advance_unwatched(
        self,
        loaded: Loaded,
        index: Array,
        decisions: Array | None,
        progress: Progress,
        within: Validation | None,
    ) -> Waiting[None]:
        """Run the epochs that are loaded, as many as patient callbacks admit, and record those done.

        index, decisions: the rows of all epochs of the load. within: what evaluates each.
        """
        steps, executor = self.scores.steps, self.executor
        begin, first = loaded.done, loaded.first
        recorded, timed, evaluating = begin // steps, 0.0, loaded.evaluating
        end = len(loaded.span.ends)
        for callback in self.patient:
            end = min(end, begin + max(1, callback.epochs_ahead()) * steps)
        ended: list[dict[str, Sequence[Any]]] = []

        def count(ready: Ready) -> None:
            nonlocal recorded, timed, evaluating
            self._count(loaded, ready)
            epochs = (loaded.done - executor.refused) // steps - executor.unevaluated - recorded
            if not epochs:
                return
            losses = executor.losses[recorded * steps : (recorded + epochs) * steps]
            each = (ready.seconds - timed) / epochs
            trained, scored = each, dict[str, list[float]]()
            if within is not None:
                scored = within.found(recorded, recorded + epochs)
                trained -= (executor.evaluation_seconds - evaluating) / epochs
                evaluating = executor.evaluation_seconds
                within.took(epochs, each * epochs)
            columns: dict[str, Sequence[Any]] = {
                "epoch": range(self.trainer.epoch + 1, self.trainer.epoch + epochs + 1),
                **self.scores.found(losses, index, decisions, first + recorded),
                **scored,
                "seconds": [each] * epochs,
                "samples_per_second": [int(self.offsets[-1]) / max(trained, 1e-9)] * epochs,
            }
            if within is not None:
                within.keep(columns, recorded)
            self.trainer.history.extend(columns)
            self.trainer.epoch += epochs
            recorded, timed = recorded + epochs, ready.seconds
            ended.append(columns)

        self.trainer._to_training()
        ready = Ready(self.executor, end, count)
        try:
            yield from self._run(ready)
        finally:
            self.resize(loaded.done - begin, ready.seconds - (evaluating - loaded.evaluating))
            loaded.evaluating = evaluating
            for columns in ended:
                rows = self.scores.rows * len(columns["epoch"])
                progress.advance(rows, partial(columns["loss"].__getitem__, -1))
                progress.epochs_ended(columns)
                tell(self.trainer, self.patient, columns)

    def steps(self, index: Array, offsets: Array) -> Array:
        """Run the steps of these minibatches; returns their losses."""
        return finish(self.advance(self.load(index, offsets, 0), len(offsets) - 1))


@dataclass(eq=False, repr=False)
class Fit:
    """A fit whose arguments have been checked. Whoever trains it holds the model's lock.

    arguments: what its steps depend on, besides trainer and data. start: these, with the settings of the
    trainer when the fit began. data: the fingerprint of its data.
    """

    run: Run
    last_epoch: int
    callbacks: list[Callback]
    progress: Progress
    terms: Terms  # what the data are called
    arguments: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    resumed: Mapping[str, Any] | None = None  # the state of an earlier one with which it goes on

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of a fit of equal `start`, or raise and change nothing."""
        run, position = self.run, state["position"]
        done = check_count("done", position["done"], run.scores.steps)
        found = position["found"]
        if found is not None:
            found = {str(name): float(value) for name, value in found.items()}
        seconds = float(position["seconds"])
        if len(state["callbacks"]) != len(self.callbacks):
            raise StateDictError(
                f"the fit has {len(state['callbacks'])} callbacks in the file; expected "
                f"{len(self.callbacks)}"
            )
        if done and found is None:
            run.scores.load_state_dict(done, state["scores"])
            if state["total"] is not None:
                run.trainer._chain.load_total(run.trainer.model, state["total"])
        run.position = Position(done, seconds, found)
        self.start, self.resumed = dict(state["start"]), state

    def state_dict(self, reason: str | None = None) -> dict[str, Any]:
        """Where the fit stands, for `resume`. reason: why it is over, if it is."""
        run, at = self.run, self.run.position
        inside = 0 < at.done < run.scores.steps and at.found is None
        total = None
        if inside and at.done % run.accumulation_steps:
            total = run.trainer._chain.total(run.trainer.model)
        return {
            "epochs": self.last_epoch,
            "start": self.start,
            "data": self.data,
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "position": {"done": at.done, "seconds": at.seconds, "found": at.found},
            "scores": run.scores.state_dict(at.done) if inside else None,
            "total": total,
            "reason": reason,
        }

    def training(self) -> Waiting[None]:
        """Train all epochs, with the callbacks after each."""
        run, trainer, progress = self.run, self.run.trainer, self.progress
        last_epoch = self.last_epoch

        def ended(record: dict[str, Any]) -> None:
            trainer.history.append(record)
            if progress.verbose:
                progress.epoch_ended(record)
            tell_of(trainer, heard, record)
            for callback in savers:
                callback.save(save)
            run.pauses.pause()

        def save(path: Path) -> None:
            saved.save(trainer, path, self.state_dict())

        heard = [one for one in self.callbacks if run.speaks or not one.writes_files]
        savers = [callback for callback in heard if callback.saves_trainer]
        run.hooks = Hooks(heard)
        with ExitStack() as at_the_end:
            at_the_end.callback(setattr, trainer, "_fitting", None)
            trainer._fitting = self
            at_the_end.callback(run.unload)
            trainer.model._terms = self.terms
            trainer.stop_training, trainer.stop_reason = False, None
            for i, callback in enumerate(self.callbacks):
                if callback not in heard:
                    continue
                callback.trainer, callback.resumed = trainer, self.resumed is not None
                callback.on_train_begin()
                if self.resumed is not None:
                    callback.load_state_dict(self.resumed["callbacks"][i])
                at_the_end.callback(callback.on_train_end)
            done = run.position.done  # of streams always 0
            rows = int(run.offsets[done]) if done else 0
            progress.begin(trainer.epoch, last_epoch, rows)
            at_the_end.callback(progress.close)
            at_the_end.callback(trainer._to_evaluation, run)  # before a callback restores an epoch
            others = [one for one in heard if type(one) is not KeepBest]
            run.within = validation_within(run, heard) if run.whole_calls else None
            run.patient = others if all(map(is_patient, others)) else ()
            run.evaluated = len(run.patient) < len(others) or run.validation is not None
            if self.resumed is not None:
                trainer._to_training()  # so that statistics are computed anew where they would be
            if self.resumed is not None and self.resumed["reason"] not in (None, EPOCHS):
                trainer.stop_training, trainer.stop_reason = True, str(self.resumed["reason"])
            try:
                while trainer.epoch < last_epoch and not trainer.stop_training:
                    yield from run.epochs(last_epoch, progress, ended)
                    run.pauses.pause()
            except BaseException as error:
                trainer.stop_reason = type(error).__name__
                raise
            if trainer.stop_reason is None:
                trainer.stop_reason = "stop_training" if trainer.stop_training else EPOCHS
            run.pauses.end(trainer.stop_reason)


def tell(
    trainer: Trained, callbacks: Sequence[Callback], columns: Mapping[str, Sequence[Any]]
) -> None:
    """Tell callbacks of epochs that have ended, and keep the name of the one that ends the fit."""
    for i in range(len(columns["epoch"]) if callbacks else 0):
        tell_of(trainer, callbacks, {name: column[i] for name, column in columns.items()})


def tell_of(trainer: Trained, callbacks: Sequence[Callback], record: dict[str, Any]) -> None:
    """The same of one epoch, by its record."""
    epoch = record["epoch"]
    for callback in callbacks:
        callback.on_epoch_end(epoch, record.copy())
        if trainer.stop_training and trainer.stop_reason is None:
            trainer.stop_reason = type(callback).__name__


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
