"""Trainer: minibatch training of a model, in chunks of steps that are one native call each."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from fastnet import random
from fastnet.backends.steps import Steps
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import epoch_order, training_offsets
from fastnet.errors import (
    Attributed,
    StateDictError,
    check_flag,
    check_int,
    check_kind,
    check_seed,
)
from fastnet.interrupts import held_back
from fastnet.losses.base import Loss
from fastnet.losses.function import Function, as_loss
from fastnet.losses.metrics import Metric
from fastnet.model import Sequential
from fastnet.op import Array
from fastnet.optim import Adam, Optimizer
from fastnet.optim.averaging import Averaging
from fastnet.parameter import MOST, check_count, check_names
from fastnet.train import full_batch, range_test
from fastnet.train.callbacks import Callback, KeepBest, Kept, check_callbacks
from fastnet.train.chain import Chain, Span
from fastnet.train.history import History, copied_records
from fastnet.train.progress import Progress
from fastnet.train.run import EpochScores, Run, check_parameters, validation_parts
from fastnet.train.scores import check_metrics, evaluate, measure, metrics_of, resized


class Trainer(Attributed):
    """Trains a model on arrays in memory.

    model: the Sequential; its backend runs the steps.
    loss: CrossEntropyLoss() or another, or a function (output, y) → (loss, gradient), see FunctionLoss.
    optimizer: an optimizer; Adam() by default. The trainer's steps are the optimizer's.
    metrics: {name: function(y, output) → float}, reported beside the loss; by default the loss's own
        (accuracy for classification losses), {} for none. `fn.accuracy` means the loss's own, element by
        element for binary losses. The arrays are read-only and valid during the call alone.
    clip_value: each element of a step's gradient is clipped to ± this number ≥ 0; None: to none.
    clip_norm: then the gradient is scaled by min(1, clip_norm/(‖g‖₂ + 10⁻⁶)), as `clip_grad_norm_` does,
        with a number ≥ 0; None: it is not. A norm that is not finite raises DivergenceError, without that
        step's update.
    averaging: EMA(…) or SWA(…): keep averages of the parameters, see `averaged_model`.
    seed: integer in [0, 2⁶⁴) that drives shuffling and dropout; None takes a fresh one (`seed` tells).

    `fit` called again goes on where it stopped: same optimizer state, step and epoch numbers;
    `reset()` starts over. A copy, by `copy` or `pickle`, has a model of its own and goes on likewise.
    """

    stop_training: bool = False  # set by a callback: the fit ends with this epoch

    def __init__(
        self,
        model: Sequential,
        loss: Loss | Function,
        optimizer: Optimizer | None = None,
        metrics: Mapping[str, Metric] | None = None,
        seed: int | None = None,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        averaging: Averaging | None = None,
    ) -> None:
        check_kind("model", model, Sequential)
        loss = as_loss(loss)
        self.optimizer = Adam() if optimizer is None else optimizer
        check_kind("optimizer", self.optimizer, Optimizer)
        self.model, self.loss = model, loss
        self.metrics = metrics_of(loss, metrics)
        self._chain = Chain(clip_value, clip_norm, averaging)
        known = check_seed("seed", seed)
        self.seed = random.fresh_seed() if known is None else known
        self.key = random.fresh_seed()  # tells it, and copies that go on for it, from others
        self.history = History()
        self.epoch = self.step = 0  # epochs and steps done; the latter count the draws of dropout

    def _assignable(self) -> Iterable[str]:
        return _ASSIGNED

    def __repr__(self) -> str:
        return f"Trainer(loss={self.loss!r}, optimizer={self.optimizer!r}, seed={self.seed})"

    def __copy__(self) -> Trainer:
        return copy.deepcopy(self)  # never shallow: two trainers must not share a model

    def state_dict(self) -> dict[str, Any]:
        """What training has made beside the model's values, by name: copies, which follow no later step.

        "epoch" and "step": how many are done. "seed". "key": a number that tells this trainer, and those
        that go on for it, from others. "history": the records, a list of dicts. "optimizer": its
        `state_dict` for the model. "averages": "count", the sets of parameters in the average, and where
        that is not 0 "average/0.weight", …. Hyper-parameters are no part of it: see the `config` of each.
        """
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "history": [dict(record) for record in self.history.records],
            "optimizer": self.optimizer.state_dict(self.model),
            "averages": self._chain.state_dict(self.model),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, to the bit, as a trainer with the same arguments that had this `state_dict`.

        The model's own `load_state_dict` loads its values. Raises StateDictError, and changes nothing,
        where a name is missing or unexpected, a shape differs or a count is no integer ≥ 0.
        """
        with self.model.training_lock():
            check_names("state_dict", state, [*_COUNTS, "history", "optimizer", "averages"])
            counts = {
                n: check_count(f"state_dict[{n!r}]", state[n], high) for n, high in _COUNTS.items()
            }
            records = copied_records("state_dict['history']", state["history"], StateDictError)
            of_optimizer, of_averages = (
                owner.checked_state(f"state_dict[{name!r}]", self.model, state[name])
                for name, owner in (("optimizer", self.optimizer), ("averages", self._chain))
            )
            self._chain.restore(self.model, *of_averages)
            self.optimizer.restore(self.model, *of_optimizer)
            for name, count in counts.items():
                setattr(self, name, count)
            self.history = History(records)
            self.model.touch()  # a backend with memory of its own has another average there

    def __getstate__(self) -> dict[str, Any]:
        # An optimizer's copy starts afresh, so what it remembers of the model goes with the trainer.
        return {**self.__dict__, "history": None, "_state": self.state_dict()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept)
        self.load_state_dict(self.__dict__.pop("_state"))

    def reset(self) -> None:
        """Start over: the model's parameters as its seed draws them, no optimizer state, epoch 0."""
        self.model.reset_parameters()
        self.optimizer.reset(self.model)
        self._chain.reset()
        self.history = History()
        self.epoch = self.step = 0

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, ...] | None = None,
        *,
        sample_weight: Any = None,
        shuffle: bool = True,
        drop_last: bool = False,
        accumulation_steps: int = 1,
        restore_best: bool = False,
        respect_modes: bool = False,
        callbacks: Iterable[Callback] = (),
        verbose: int = 1,
    ) -> History:
        """Train for `epochs` more epochs; returns the history of all epochs so far.

        X, y: inputs (n, features) of any real dtype (uint8 and float64 are converted minibatch by
            minibatch) and targets as the loss takes them. They are checked before anything changes.
        epochs: ≥ 1. batch_size: ≥ 1; the last minibatch of an epoch is smaller where it does not
            divide n, and is left out with drop_last=True. Where that last minibatch would be a
            single row and the model has batchnorm, it is left out too, with one warning.
        accumulation_steps: ≥ 1; one update for so many minibatches, with the mean of their gradients
            (weighted by rows), or with reduction="sum" their sum, and one at the end of the epoch for those
            that are left. Without batchnorm and dropout that is the update of one minibatch so many times
            as large.
        validation_data: (X, y) or (X, y, sample_weight), evaluated after every epoch.
        sample_weight: (n,), finite and ≥ 0: how much each row counts for in the loss of the data, for any
            batch_size (see Loss); metrics do not see it. None: all alike.
        shuffle: take the rows in a new order each epoch, a pure function of (seed, epoch).
        restore_best: end with the parameters and buffers of the epoch with the best score, the first of
            equals: of what the first EarlyStopping in callbacks monitors, else the lowest val_loss, which
            needs validation_data. Takes effect however the fit ends, so after Ctrl-C too.
        respect_modes: True trains each layer by its mode: after `eval()` batchnorm keeps its running
            statistics still and uses them, and dropout passes all. False: all layers train.
        callbacks: called after each epoch, in this order: EarlyStopping, ReduceLROnPlateau, or a
            Callback of your own.
        verbose: 0 is silent, 1 shows one line an epoch, and a bar on a terminal.

        The layers' modes are left as they are. The epoch's loss is the
        mean over its samples, or with reduction="sum" their sum, in float64. Raises DivergenceError
        where a step's loss is not finite, without that step's update, and where an epoch ends with
        parameters that are not.
        """
        epochs = check_int("epochs", epochs, low=1)
        batch_size = check_int("batch_size", batch_size, low=1)
        several = min(check_int("accumulation_steps", accumulation_steps, low=1), 2**31)
        samples = X, y, sample_weight
        shuffle = check_flag("shuffle", shuffle)
        restore_best = check_flag("restore_best", restore_best)
        run = self._prepare(samples, batch_size, validation_data, drop_last, respect_modes)
        run.several = several
        progress = Progress(verbose, int(run.offsets[-1]))
        last_epoch = self.epoch + epochs
        names = ["loss", *self.metrics]
        names += [f"val_{name}" for name in names if run.validation is not None]
        called = check_callbacks(callbacks, names)
        if restore_best:
            called = check_callbacks([KeepBest.among(called), *called], names)
        with self.model.training_lock(), ExitStack() as at_the_end:
            run.executor = run.find()
            self.stop_training = False
            for callback in called:
                callback.trainer = self
                callback.on_train_begin()
                at_the_end.callback(callback.on_train_end)
            at_the_end.callback(progress.close)
            for _ in range(epochs):
                progress.begin_epoch(self.epoch + 1, last_epoch)
                record = self._fit_epoch(run, shuffle, progress)
                self.history.records.append(record)
                progress.end_epoch(record, last_epoch)
                for callback in called:
                    callback.on_epoch_end(record["epoch"], dict(record))
                if self.stop_training:
                    break
        return self.history

    def fit_full_batch(
        self,
        X: Any,
        y: Any,
        method: str = "L-BFGS-B",
        *,
        max_iter: int = 100,
        tol: float = 1e-5,
        weight_decay: float = 0.0,
        decay_biases_and_norms: bool = True,
        batch_size: int | None = None,
        options: Mapping[str, Any] | None = None,
        callback: full_batch.Callback | None = None,
        sample_weight: Any = None,
        respect_modes: bool = False,
    ) -> full_batch.FullBatchHistory:
        """Minimise L(w) + weight_decay/2·‖w‖², L the loss of all rows, by SciPy or gradient descent.

        X, y, sample_weight, respect_modes: as in `fit`. The trainer's optimizer, epochs and history take
            no part.
        method: SciPy's "L-BFGS-B", "BFGS" (memory of n² for n parameters), "CG", or "Newton-CG" with
            Hessian-vector products by central differences of the gradient (the extra `scipy`); or
            "gradient-descent", w ← w − α·∇L, where α is the first of step, shrink·step, shrink²·step …
            that lowers the loss by c1·α·‖∇L‖² (Armijo), and grow·α the next iteration's first.
        max_iter: iterations, ≥ 1. tol: ≥ 0; ends where no component of the gradient is larger.
        decay_biases_and_norms: False takes the decay away from all parameters of one dimension.
        batch_size: the rows of a native call, about 8 MiB of workspace by default. All rows are one
            block where there is batchnorm, whose statistics are those of a block.
        options: more options of SciPy's method; of gradient descent step (1.0), shrink (0.5), grow (2)
            and c1 (1e-4).
        callback: a function that gets each iteration's record. StopIteration raised in it ends the fit.

        So that L is one function, dropout keeps the same masks throughout, and
        running statistics move once for each iteration, not with a line search's trials. Where a trial's
        loss is not finite it counts as +∞. However the fit ends, the model has the last iterate.
        Take float64: with float32, L has noise of about 1e-7 of its size, where line searches give up
        (`result.success` is then False), and Newton-CG's products have two or three digits.
        Source: J. Nocedal, S. J. Wright, "Numerical optimization", 2nd edition, Springer 2006,
        chapters 3 and 5 to 7.
        """
        settings = full_batch.Settings.checked(locals())
        data = self._checked(X, y, sample_weight, "X", "y")
        with self.model.training_lock():
            args = self.model, self.loss, data, settings, self.seed, self.step
            objective = full_batch.Objective(*args)
            try:
                return full_batch.fit(objective, settings)
            finally:
                self.step += objective.blocks if objective.evaluations else 0

    def find_lr(
        self,
        X: Any,
        y: Any,
        batch_size: int = 32,
        *,
        min_lr: float = 1e-6,
        max_lr: float = 10.0,
        steps: int = 200,
        stop_factor: float = 2.0,
        drop_last: bool = False,
        respect_modes: bool = False,
    ) -> range_test.RangeTest:
        """The learning-rate range test: train with rates that grow from step to step, then go back.

        X, y, batch_size, drop_last, respect_modes: as in `fit`; the minibatches are its next epochs'.
        min_lr, max_lr: > 0, the rates of the first and the last step, with equal ratios between them.
        steps: ≥ 2. stop_factor: ≥ 0; the test ends where the averaged loss is more than so many times
            the mean of the first ten above its lowest, or where the loss is not finite.

        Returns the curve, with a `suggestion` and a `plot()`. The optimizer is a copy with no state,
        whose groups keep their ratios to its rate; everything else of it is as it would be in `fit`.
        However the test ends, parameters, buffers, gradients, optimizer state, step, epoch and history
        are what they were before; a backward that is still to come is refused, as after every change.
        Raises DivergenceError where the first loss is not finite.
        Source: L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017,
        section 3.3; growing exponentially, and the steepest descent, are later practice.
        """
        trial = range_test.Trial.checked(min_lr, max_lr, steps, stop_factor)
        batch_size = check_int("batch_size", batch_size, low=1)
        run = self._prepare((X, y, None), batch_size, None, drop_last, respect_modes)
        batches = trial.minibatches(run.offsets, run.data.rows, self.seed, self.epoch)
        with self.model.training_lock():
            run.executor = run.find()
            segments = "params", "buffers", "grads"
            kept, before = Kept(self.model, segments), (self.optimizer, self.step, self._chain)
            try:
                now = self.model.optimizer_state(self.optimizer).steps
                self.optimizer = trial.optimizer(self.optimizer, now)
                # Its schedules are not made for the test's steps.
                self.model.optimizer_state(self.optimizer).warned = True
                self._chain = self._chain.without_averages()
                return trial.run(partial(self._chunk, run, outputs=None), run, *batches)
            finally:
                kept.restore()
                self.optimizer, self.step, self._chain = before

    def averaged_model(self, X: Any = None, batch_size: int = 32) -> Sequential:
        """A copy of the model with the averages of its parameters, in evaluation mode.

        X: inputs from which batchnorm's running statistics are computed anew, as their means over
            minibatches of batch_size rows with all layers training. Needed after SWA where the model has
            batchnorm, as nothing has passed through the averaged parameters yet; without X the copy has
            the model's statistics.
        """
        batch_size = check_int("batch_size", batch_size, low=1)
        return self._chain.averaged_model(self.model, X, batch_size)

    def evaluate(
        self, X: Any, y: Any, batch_size: int | None = None, *, sample_weight: Any = None
    ) -> dict[str, float]:
        """{"loss": of all samples at once, and each metric}, in evaluation mode."""
        return self._evaluate(self._checked(X, y, sample_weight, "X", "y"), batch_size)

    def _evaluate(self, data: Dataset, batch_size: int | None = None) -> dict[str, float]:
        value, output = evaluate(self.model, self.loss, data, batch_size, bool(self.metrics))
        return {"loss": value, **measure(self.metrics, data.y, output)}

    def _prepare(
        self,
        samples: tuple[Any, Any, Any],
        batch_size: int,
        validation_data: tuple[Any, ...] | None,
        drop_last: bool,
        respect_modes: bool,
    ) -> Run:
        """Check everything before anything changes."""
        drop_last = check_flag("drop_last", drop_last)
        respect_modes = check_flag("respect_modes", respect_modes)
        data = self._checked(*samples, "X", "y")
        validation = None
        if validation_data is not None:
            parts = validation_parts(validation_data)
            validation = self._checked(*parts, "validation X", "validation y")
        offsets = training_offsets(
            data.rows, batch_size, drop_last, self.model.min_training_rows(respect_modes)
        )
        rows = int(np.diff(offsets).max())
        find = partial(self.model.training_executor, data, rows, self.loss, respect_modes)
        executor = find()
        self.model.optimizer_state(self.optimizer)  # its groups must fit the model
        check_metrics(self.metrics, executor.plan.output_shape)
        total = self.loss.reduction == "sum"
        scores = EpochScores(self.metrics, offsets, executor.plan, total=total)
        return Run(data, offsets, validation, find, executor, scores)

    def _checked(self, X: Any, y: Any, w: Any, x_name: str, y_name: str) -> Dataset:
        x = self.model.features(x_name, X)
        return self.model.data(self.loss, x, y, x_name, y_name, w, by_rows=True)

    def _fit_epoch(self, run: Run, shuffle: bool, progress: Progress) -> dict[str, Any]:
        begun = time.perf_counter()
        data, offsets, scores = run.data, run.offsets, run.scores
        order = epoch_order(data.rows, self.seed, self.epoch, shuffle)[: int(offsets[-1])]
        done = 0
        with run.executor.resident():
            while done < scores.steps:
                begin, done = done, min(done + run.chunk, scores.limit(done))
                part = offsets[begin : done + 1]
                index = order[part[0] : part[-1]]
                started = time.perf_counter()
                span = Span(offsets, begin, done, run.several, total=scores.total)
                out = scores.outputs(begin, done)
                losses = self._chunk(run, index, part - part[0], out, span)
                run.chunk = resized(run.chunk, done - begin, time.perf_counter() - started)
                scores.add(begin, done, losses, data.y, order)
                progress.advance(len(index), partial(scores.mean_loss, done))
        seconds = time.perf_counter() - begun
        check_parameters(self.model, self.epoch + 1)
        self._chain.end_epoch(self.model, self.epoch + 1)
        record: dict[str, Any] = {"epoch": self.epoch + 1, **scores.record()}
        if run.validation is not None:
            record |= {f"val_{name}": v for name, v in self._evaluate(run.validation).items()}
        record |= {
            "seconds": time.perf_counter() - begun,
            "samples_per_second": int(offsets[-1]) / max(seconds, 1e-9),
        }
        self.epoch += 1
        return record

    def _chunk(
        self,
        run: Run,
        index: Array,
        offsets: Array,
        outputs: Array | None,
        span: Span | None = None,
    ) -> Array:
        state = self.model.optimizer_state(self.optimizer)
        span = span or Span(offsets, 0, len(offsets) - 1)
        update = self._chain.chunk(self.model, state, span)
        steps = Steps(index, offsets, self.seed, self.step, outputs=outputs)
        run.executor.ready(update)
        with held_back():  # until all that counts steps has counted these
            try:
                return run.executor.train(run.data, steps, update)
            finally:
                self.model.touch(by_backend=True)
                self.step += run.executor.steps_done
                state.steps += self._chain.stepped(span, run.executor.steps_done)


_COUNTS = {"epoch": MOST, "step": MOST, "seed": 2**64 - 1, "key": 2**64 - 1}  # and the highest
_ASSIGNED = ("model", "loss", "optimizer", "metrics", "history", *_COUNTS)
