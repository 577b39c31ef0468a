"""Trainer: minibatch training of a model, in chunks of steps that are one native call each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastnet import random
from fastnet.backends.base import Counter, Counts
from fastnet.configured import described, from_config
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import training_offsets
from fastnet.data.streams import Default, Source, Stream, check_second, plain_value, source_of
from fastnet.data.terms import UNKNOWN, Terms
from fastnet.distributed import Group
from fastnet.errors import (
    Attributed,
    HyperparameterError,
    StateDictError,
    UsageError,
    check_flag,
    check_int,
    check_kind,
    check_seed,
    shown,
)
from fastnet.files import tensors
from fastnet.interrupts import holding_often
from fastnet.losses.base import Loss
from fastnet.losses.function import Function, as_loss
from fastnet.losses.metrics import Metric
from fastnet.losses.named_metrics import Metrics
from fastnet.model import Sequential
from fastnet.model.ways import CALLED_AHEAD, Way, kind_of, step_way
from fastnet.op import Array
from fastnet.optim import Adam, Optimizer
from fastnet.optim.averaging import Averaging
from fastnet.parameter import MOST, check_count, check_names
from fastnet.train import across, across_setup, range_test, sampling, saved
from fastnet.train.callbacks import Callback, KeepBest, check_callbacks
from fastnet.train.chain import Chain, Span, has_statistics, recompute_statistics
from fastnet.train.checkpoint import Checkpoint
from fastnet.train.given import Given, classes_of, given, validation
from fastnet.train.history import History, copied_records
from fastnet.train.progress import Progress
from fastnet.train.ready import Ready, Waiting, finish
from fastnet.train.run import Fit, Run
from fastnet.train.sampling import Sampler
from fastnet.train.scores import (
    EpochScores,
    check_metrics,
    evaluating,
    measure,
    metrics_of,
    threshold_for,
)
from fastnet.train.streams import StreamRun, StreamScores

if TYPE_CHECKING:
    from fastnet.train import full_batch

BATCH_SIZE: Any = Default(32)
SHUFFLE: Any = Default(True)
STATISTICS = 50  # minibatches at most, from which batchnorm's statistics at averages are computed


class Trainer(Attributed):
    """Trains a model on arrays, or on minibatches as they come.

    model: a Sequential. Its backend runs the steps.
    loss: a loss such as CrossEntropyLoss(), or a function (output, y) → (loss, gradient), see
        FunctionLoss.
    optimizer: an optimizer (default Adam()). It counts the trainer's steps as its own.
    metrics: reported beside the loss (default: the loss's own, which is accuracy for classification losses;
        {} for none). A list of names and metrics: "accuracy", "top_k", "balanced_accuracy", "f1", "auc",
        "log_loss", "mae", "rmse", "r2", TopK(3); or a dict {name: one of these, or a function
        (y, output) → float}. `fn.accuracy` and "accuracy" stand for the loss's accuracy, which counts
        elements for binary losses. A function gets the numbers of classes for labels, and must neither
        write to its arrays nor keep them after the call.
    seed: integer in [0, 2⁶⁴) for shuffling and dropout (default None: a random one, see `seed`).
    clip_value: number ≥ 0, or None (default). Each element of a step's gradient is clipped to ± this.
    clip_norm: number ≥ 0, or None (default). After `clip_value`, the gradient is scaled by
        min(1, clip_norm/(‖g‖₂ + 10⁻⁶)), as `clip_grad_norm_` does. A norm that is not finite raises
        DivergenceError, and that step makes no update.
    averaging: EMA(…), SWA(…) or None (default). Averages of the parameters, see `averaged_model`.
    comm: mpi4py's MPI.COMM_WORLD, another communicator with its Allreduce, Bcast, Get_rank and Get_size, or
        None (default: this process trains alone). All ranks run the same program; `fit` then takes a share
        of each minibatch on every rank and makes the same update everywhere. See docs/scaling.md.
    deterministic: bool (default False). With comm, True gives the same bits at any number of ranks up to
        12: each minibatch is cut into 12 parts, whose gradients are added in their order.
    sync_batchnorm: bool or None (default: as `deterministic`). With comm, True lets batchnorm take mean and
        variance of the whole minibatch, for one exchange more in the forward and in the backward of each
        such layer. False: each rank takes those of its rows, of which it has then two at least, and the
        running statistics become the mean over the ranks after each epoch.

    A further `fit` continues with optimizer state, step and epoch numbers; `reset()` starts over. A copy,
    by `copy` or `pickle`, has a model of its own and continues in the same way.
    """

    stop_training: bool = False  # True, set by a callback, ends the fit after this epoch
    stop_reason: str | None = (
        None  # of the last fit: "epochs", or the name of a callback or an error
    )

    def __init__(
        self,
        model: Sequential,
        loss: Loss | Function,
        optimizer: Optimizer | None = None,
        metrics: Metrics | None = None,
        seed: int | None = None,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        averaging: Averaging | None = None,
        comm: Any = None,
        deterministic: bool = False,
        sync_batchnorm: bool | None = None,
    ) -> None:
        check_kind("model", model, Sequential)
        loss = as_loss(loss)
        self.optimizer = Adam() if optimizer is None else optimizer
        check_kind("optimizer", self.optimizer, Optimizer)
        self.model, self.loss = model, loss
        self._metrics = metrics_of(loss, metrics)
        self._chain = Chain(clip_value, clip_norm, averaging)
        self._chain.check(self.optimizer)
        if model._terms.link is None:
            model._terms = model._terms.linked(loss.link)
        known = check_seed("seed", seed)
        self.seed = random.fresh_seed() if known is None else known
        self._given_seed = known
        self._group: Group | None = None if comm is None else Group(comm)
        both = across_setup.checked(self._group, deterministic, sync_batchnorm)
        self._deterministic, self._sync_batchnorm = both
        self.key = random.fresh_seed()  # identifies this trainer and copies that continue from it
        if self._group is not None:
            self.seed, self.key = across_setup.seeds(self._group, self.seed, self.key)
        self.history = History()
        self.epoch = self.step = 0  # epochs and steps done; dropout draws by the step
        self._way: Way | None = None  # of `train_on_batch`
        self._fitting: Fit | None = None
        self._row_losses: Array | None = None  # of the rows of the last fit with ImportanceSampling
        # The fit that a loaded file has not ended: its state, its callbacks, and the trainer's step there.
        self._unfinished: tuple[dict[str, Any], list[Callback], int] | None = None

    def _assignable(self) -> Iterable[str]:
        return _ASSIGNED

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name; what is assigned is as for the constructor."""
        return self._metrics

    @metrics.setter
    def metrics(self, given: Metrics | None) -> None:
        self._metrics = metrics_of(self.loss, given)

    @property
    def classes_(self) -> Array | None:
        """The labels of the classes, sorted, as the first fit has found them; see `model.classes_`."""
        return self.model.classes_

    def __repr__(self) -> str:
        return f"Trainer(loss={self.loss!r}, optimizer={self.optimizer!r}, seed={self.seed})"

    def __copy__(self) -> Trainer:
        return copy.deepcopy(self)  # never shallow: two trainers must not share a model

    def state_dict(self) -> dict[str, Any]:
        """Everything that training has made except the model's values, as copies by name.

        "epoch", "step": how many are done. "seed". "key": a number that identifies this trainer and those
        that continue from it. "history": the records, a list of dicts. "optimizer": the optimizer's
        `state_dict` for the model. "averages": "count", how many sets of parameters the average contains,
        and if any "average/0.weight", …. "sampler", after
        ImportanceSampling: the last losses of rows. Each object's `config` has its hyper-parameters.
        """
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "history": [dict(record) for record in self.history.records],
            "optimizer": self.optimizer.state_dict(self.model),
            "averages": self._chain.state_dict(self.model),
            **sampling.state_dict(self._row_losses),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, to the bit, from the `state_dict` of a trainer with equal arguments.

        The model's own `load_state_dict` loads its values. Raises StateDictError and changes nothing
        where a name is missing or unexpected, a shape differs or a count is no integer ≥ 0.
        """
        with self.model.training_lock():
            needed = [*_COUNTS, "history", "optimizer", "averages"]
            check_names("state_dict", state, needed, ("sampler",))
            losses = sampling.checked_state("state_dict['sampler']", state.get("sampler"))
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
            self.history, self._row_losses = History(records), losses
            self.model.touch()  # averages in a device's memory are stale now

    def __getstate__(self) -> dict[str, Any]:
        # A copied optimizer starts without state, so the trainer keeps the state for this model.
        fresh: dict[str, Any] = {"history": None, "_way": None, "_fitting": None}
        fresh |= {
            "_group": None,
            "_deterministic": False,
            "_sync_batchnorm": False,
        }  # a copy trains alone
        return {**self.__dict__, **fresh, "_state": self.state_dict()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept)
        self.load_state_dict(self.__dict__.pop("_state"))

    def reset(self) -> None:
        """Start over: parameters as the model's seed draws them, no optimizer state, epoch 0.

        Names of columns and labels of classes are forgotten too.
        """
        self.model.reset_parameters()
        self.model._terms = UNKNOWN.linked(self.loss.link)
        self.optimizer.reset(self.model)
        self._chain.reset()
        self.history = History()
        self.epoch = self.step = 0
        self._unfinished = self._row_losses = None

    @across.together
    def fit(
        self,
        X: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = BATCH_SIZE,
        validation_data: tuple[Any, ...] | None = None,
        *,
        sample_weight: Any = None,
        validation_split: float | int | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        shuffle: bool = SHUFFLE,
        drop_last: bool = False,
        accumulation_steps: int = 1,
        sampler: Sampler | None = None,
        restore_best: bool = False,
        respect_modes: bool = False,
        callbacks: Iterable[Callback] = (),
        verbose: int = 1,
        checkpoint: Any = None,
        checkpoint_every: str | None = None,
        sharded: bool = False,
    ) -> History:
        """Train for `epochs` more epochs; returns the history of all epochs so far.

        X, y: inputs (n, features) of any real dtype, and targets as the loss takes them: arrays, or frames
            and series of pandas, polars and pyarrow. uint8 and float64 inputs are converted minibatch by
            minibatch, and so are a `Scaled` and a sparse matrix of SciPy (CSR; others are converted once).
            On backend "c" a first Linear layer reads the elements of a matrix with at most 1/16 of them
            alone, and plain SGD moves only the weights of columns that a minibatch has; the bits are those
            of dense rows. A C-contiguous memory map of float32, float64 or uint8 may be larger than the
            memory. For a loss of classes, and for a binary one with one output, labels may be strings,
            booleans or any integers (n,), of as many classes as the outputs tell apart: the first fit
            keeps them as `classes_`, sorted, and the names of X's columns. Later data must have the same.
            `fit` checks all arguments before it changes anything. Or X alone: minibatches, see below.
        epochs: integer ≥ 1 (default 1).
        batch_size: integer ≥ 1 (default 32). If it does not divide n, the last minibatch is smaller. If
            that one has a single row and the model has batchnorm, `fit` leaves it out and warns once.
        validation_data: (X, y) or (X, y, sample_weight), evaluated after every epoch (default None).
        sample_weight: (n,), finite and ≥ 0 (default None: equal weights). The weight of each row in the
            loss of the whole data set, for any batch_size (see Loss); metrics ignore it.
        validation_split: a share in (0, 1) or a number of rows to be held back as validation data, with
            their weights (default None). They are drawn by the seed alone, and labels are stratified: each
            class has its share, up to a row. The fit is that on the other rows, in their order. Not
            together with validation_data.
        class_weight: {label: number ≥ 0}, 1 for labels that it lacks, or "balanced", n/(k·n_c) for n_c of n
            rows and k classes (default None). Multiplies the weight of each row of the training by that of
            its label. Unlike the loss's own weights these leave smoothed labels their shape.
        shuffle: bool (default True). The order of the rows is a new one each epoch and depends on seed
            and epoch alone.
        drop_last: bool (default False). True leaves out a last minibatch that is smaller than the others.
        accumulation_steps: integer ≥ 1 (default 1). The number of minibatches for one update, with the
            mean of their gradients weighted by rows, or with reduction="sum" their sum. An epoch ends
            with an update. Without batchnorm and dropout the update is that of one minibatch of all
            their rows.
        sampler: which rows an epoch trains on, and how often: ClassBalanced(), ImportanceSampling(...),
            HardExamples(...), or None (default): each row once. The last two go on from a file at ends of
            epochs alone, and need one of fastnet's losses.
        restore_best: bool (default False). True restores, however the fit ends, the parameters and buffers
            of the epoch with the best score, the first of equals. The score is the one that the first
            EarlyStopping in callbacks monitors, else val_loss. Needs validation_data.
        respect_modes: bool (default False: all layers train). True trains each layer in its own mode:
            after `eval()` batchnorm uses its running statistics unchanged, and dropout drops nothing.
        callbacks: callbacks, called after each epoch in the given order (default none): EarlyStopping,
            ReduceLROnPlateau, or a Callback of your own.
        verbose: 0 (silent) or 1 (default): a line for each epoch, and on a terminal a bar with loss and
            time left. Of epochs that take less than a tenth of a second the first 20 have a line, and then
            every 2nd, 5th, 10th, 20th, … has one, about ten in a second; the last epoch always has one.

        checkpoint: path of a file, or None (default). The fit saves trainer and position there, by
            `checkpoint_every`, at its end, and before it ends by Ctrl-C or SIGTERM (with exit status 143),
            which wait for the end of a minibatch; a second one acts at once. The same program run again
            goes on where the file stands, to the bit of a run without a stop. Then `epochs` is the total:
            where it is reached, or a callback had ended the fit, `fit` returns at once. Raises
            HyperparameterError, which lists the differences, where model, trainer or arguments are others;
            other data are a warning. At the end the file has the last epoch's parameters, whatever
            `restore_best` restores.
        checkpoint_every: "60s", "5 min", "5 epochs" or "2000 steps": how often to save, at the end of a
            minibatch (default None: "60s"). Only with a checkpoint.

        sharded: bool (default False: all ranks of `comm` have all rows, or a memory map of them). True:
            each rank has rows of its own, of any number, none included, and gives its share of every
            minibatch; batch_size counts the rows of all ranks. validation_data are the same on all ranks,
            each of which evaluates its share of them.

        Without y, X gives minibatches (x, y) or (x, y, weight), of arrays or of tensors in the host's
        memory, whose sizes may differ. It is an iterable, gone through anew in each epoch, such as a list
        or PyTorch's DataLoader; an iterator, for a single epoch; or a function that returns an iterator
        for an epoch. The function gets the epoch's number, from 0, if it has a parameter `epoch` or any
        without a default. A data set with `__len__` and `__getitem__`, but no `__iter__`, gives samples:
        `fit` puts them together by batch_size, shuffle and drop_last, as the rows of arrays. Otherwise
        these three, like sample_weight, are refused. A mean loss with weights divides by the mean weight
        of each minibatch, as in `train_on_batch`. Unless X is a list or gives samples, a minibatch is
        asked for when the step on the one before is done (with accumulation_steps, one earlier). It is
        checked then: errors name its number, from 0, and the steps before it are done. A checkpoint is
        saved at ends of epochs alone, and the fit goes on there; Ctrl-C within an epoch leaves it as it is.

        The modes of the layers stay as they are. `stop_reason` says why the fit ended. The loss of an epoch
        is the mean over its samples, or with reduction="sum" their sum, in float64. Raises DivergenceError
        where the loss of a step is not finite (that step makes no update), and where the parameters are
        not finite after an epoch.
        """
        epochs = check_int("epochs", epochs, low=1)
        counts: Array | None = None
        if check_flag("sharded", sharded):
            if validation_split is not None or class_weight is not None or drop_last:
                raise HyperparameterError(
                    "sharded is True with validation_split, class_weight or drop_last, which need the rows "
                    "of all ranks; expected validation_data, which all ranks have, and sample_weight"
                )
            X, y, sample_weight, counts = across_setup.shard(self._group, X, y, sample_weight)
        data = self._data(
            X,
            y,
            sample_weight,
            epochs,
            (batch_size, shuffle, drop_last),
            validation_data,
            validation_split,
            class_weight,
        )
        data.counts = counts
        fit = self._fit(
            data,
            epochs=epochs,
            batch_size=plain_value(batch_size),
            shuffle=plain_value(shuffle),
            drop_last=drop_last,
            accumulation_steps=accumulation_steps,
            sampler=sampler,
            restore_best=restore_best,
            respect_modes=respect_modes,
            callbacks=callbacks,
            verbose=verbose,
        )
        if checkpoint is None:
            if checkpoint_every is not None:
                raise HyperparameterError(
                    f"checkpoint_every is {shown(checkpoint_every)} without a checkpoint; expected "
                    "checkpoint=, the path of a file, too"
                )
            with self.model.training_lock(), holding_often():
                self._train(fit)
            return self.history
        keeper = Checkpoint(checkpoint, "60s" if checkpoint_every is None else checkpoint_every)
        fit.last_epoch -= self.epoch
        saved.describe(fit)
        with keeper.signals():
            keeper.begin(fit)
            with self.model.training_lock(), holding_often():
                self._train(fit)
        return self.history

    def _train(self, fit: Fit) -> None:
        """Run a fit; the caller holds the model's lock."""
        fit.run.begin()
        finish(fit.training())

    def _data(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        epochs: int,
        division: tuple[Any, Any, Any],
        validation_data: Any,
        validation_split: Any = None,
        class_weight: Any = None,
        kept: Mapping[str, Any] | None = None,
    ) -> Given:
        """The arrays or the stream that `fit` got, checked.

        division: batch_size, shuffle and drop_last, of which the first two may be a Default. kept: see
        `given`.
        """
        of_arrays = {"validation_split": validation_split, "class_weight": class_weight}
        if y is not None:
            check_second(X, y)
            split = validation_split, class_weight, kept
            return given(self, X, y, sample_weight, validation_data, *split)
        for name, value in of_arrays.items():
            if value is not None:
                raise HyperparameterError(
                    f"{name} is {shown(value)} with minibatches; expected None: give validation_data, and "
                    "weights with the minibatches, as (x, y, weight)"
                )
        batch_size, shuffle, drop_last = division
        check_int("batch_size", plain_value(batch_size), low=1)
        check_flag("shuffle", plain_value(shuffle))
        source = source_of(
            X,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=check_flag("drop_last", drop_last),
            sample_weight=sample_weight,
        )
        terms, of_fit = self.model._terms, None
        if validation_data is not None:
            of_fit = validation(self, validation_data, terms)
        return Given(terms, source, of_fit)

    def _fit(
        self,
        given: Given,
        *,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        accumulation_steps: int,
        restore_best: bool,
        respect_modes: bool,
        callbacks: Iterable[Callback],
        verbose: int,
        sampler: Any = None,
    ) -> Fit:
        """A fit on data that are checked already, with the arguments of `fit`, which are checked here."""
        epochs = check_int("epochs", epochs, low=1)
        batch_size = check_int("batch_size", batch_size, low=1)
        accumulation_steps = min(check_int("accumulation_steps", accumulation_steps, low=1), 2**31)
        shuffle = check_flag("shuffle", shuffle)
        restore_best = check_flag("restore_best", restore_best)
        run: Run
        drawing = sampling.checked(sampler)
        if drawing is not None:
            classes = classes_of(self, given.data) if isinstance(given.data, Dataset) else None
            sampling.check_fits(drawing, given.data, classes, shuffle)
            mean = self.loss.reduction != "sum"
            given.data = sampling.data_for(drawing, given.data, self.model.dtype, mean=mean)
        if isinstance(given.data, Source):
            run, division = self._prepare_stream(given.data, respect_modes), given.data.division
        else:
            args = given.data, batch_size, drop_last, respect_modes, given.rows
            run = self._prepare(*args, shard=given.counts is not None)
            division = batch_size, shuffle, drop_last
        if drawing is not None:
            least = self.model.min_training_rows(respect_modes)
            run = sampling.prepare(run, drawing, classes, least)
        if self._group is not None:
            run = across_setup.prepare(run, self, given, batch_size)
        run.validation = given.validation
        if given.validation is not None:
            self.model.rows_at_once("the validation data", given.validation.rows, None)
        run.accumulation_steps, run.shuffle = accumulation_steps, shuffle
        progress = Progress(verbose, run.epoch_rows)
        if not run.speaks:
            progress.verbose = 0
        names = ["loss", *self.metrics]
        names += [f"val_{name}" for name in names if run.validation is not None]
        called = check_callbacks(callbacks, names)
        if restore_best:
            called = check_callbacks([KeepBest.among(called), *called], names)
        fit = Fit(run, self.epoch + epochs, called, progress, given.terms)
        fit.arguments = {  # what the steps depend on
            **dict(zip(("batch_size", "shuffle", "drop_last"), division, strict=True)),
            "accumulation_steps": accumulation_steps,
            "restore_best": restore_best,
            "respect_modes": run.respect_modes,
            **given.arguments,
        }
        if drawing is not None:
            fit.arguments["sampler"] = described(drawing)
        if any(callback.saves_trainer for callback in called):
            saved.describe(fit)
        return fit

    @across.together
    def resume(
        self,
        X: Any,
        y: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        *,
        sample_weight: Any = None,
        verbose: int = 1,
    ) -> History:
        """Go on with the fit that the file of `Trainer.load` had not ended, with its other arguments.

        X, y, validation_data, sample_weight, verbose: as in `fit`; other data than those of that fit are a
            warning.

        Parameters and history become, to the bit, those of a fit that was not interrupted. Raises
        UsageError where there is no such fit.
        """
        if self._unfinished is None:
            raise UsageError(
                "resume: this trainer has no fit to go on with; load a file that was saved within a fit by "
                "Trainer.load(path), or call fit"
            )
        state, callbacks, step = self._unfinished
        if step != self.step:
            raise UsageError(
                f"resume: the file was saved at step {step} and the trainer is at step {self.step}; load "
                "it anew, as training in between is not part of that fit"
            )
        kept = {**state["start"]["fit"], "restore_best": False}  # a callback does that
        on_stream = kept["batch_size"] is None
        if on_stream:
            kept |= {"batch_size": BATCH_SIZE, "shuffle": SHUFFLE}
        division = (kept[name] for name in ("batch_size", "shuffle", "drop_last"))
        left = max(1, state["epochs"] - self.epoch)
        if (kept_sampler := kept.get("sampler")) is not None:
            kept["sampler"] = from_config(kept_sampler)
        of_data = {name: kept.pop(name, None) for name in ("validation_split", "class_weight")}
        data = self._data(X, y, sample_weight, left, tuple(division), validation_data, kept=of_data)
        if on_stream and not isinstance(data.data, Stream):
            raise UsageError(
                f"resume: X is {shown(X)}, and the file's fit was on minibatches; expected them here too"
            )
        fit = self._fit(
            data,
            epochs=state["epochs"],
            callbacks=callbacks,
            verbose=verbose,
            **{name: plain_value(value) for name, value in kept.items()},
        )
        fit.last_epoch = state["epochs"]
        with self.model.training_lock(), holding_often():
            saved.go_on(fit, state, "the file")
            self._unfinished = None
            self._train(fit)
        return self.history

    def save(self, path: Any) -> None:
        """Save model and training in a safetensors file, for `Trainer.load` and `fastnet.load`.

        path: of the file, such as "run.safetensors". An existing file is replaced as a whole: whatever
            fails, the old one or the new one is there.

        The file has all of `state_dict`, the model, its modes, and the configurations of loss, optimizer
        and averaging. It has no data, and of functions nothing: they are given again to `load`. Within a
        fit `fit(checkpoint=...)` and `ModelCheckpoint` save, together with the fit's position. Raises
        SaveError where the file cannot be written.
        """
        if self._fitting is not None:
            raise UsageError(
                "save: within a fit, ModelCheckpoint(path) or fit(checkpoint=path) save the trainer, when "
                "all callbacks have seen the epoch; model.save(path) saves the model now"
            )
        with self.model.training_lock():
            saved.save(self, path)

    @classmethod
    def load(
        cls,
        path: Any,
        *,
        loss: Loss | Function | None = None,
        metrics: Metrics | None = None,
        callbacks: Iterable[Callback] = (),
        layers: Iterable[type] = (),
    ) -> Self:
        """The trainer of a file, with a model of its own, ready to `fit` further or to `resume`.

        loss: a loss for one that is a function, or of a class that was not given to `fastnet.register`
            (default None: as saved).
        metrics: functions by name, for those that are not the loss's accuracy (default None).
        callbacks: for `resume`, those of the fit that are of classes of your own or write to files: a file
            makes none that would (default none).
        layers: classes of layers that are not registered (default none), see `fastnet.load`.

        The model's backend is "auto"; it takes the saved one's to continue to the bit. Raises FileError for
        a file that is damaged or holds no trainer, HyperparameterError where something must be given
        again, and OSError where the file cannot be read.
        """
        contents = tensors.read(path)
        description = contents.described("trainer")
        state = saved.fit_in(contents, description)
        given = check_callbacks(callbacks, None)
        trainer: Self = saved.made(cls, contents, description, loss, metrics, layers)
        if state is not None:
            called = saved.callbacks_of(contents, state["start"]["callbacks"], given)
            trainer._unfinished = state, called, trainer.step
        return trainer

    def train_on_batch(
        self, X: Any, y: Any, *, sample_weight: Any = None, respect_modes: bool = False
    ) -> float:
        """Make one step on these rows, with forward, backward and update in one native call.

        X, y, sample_weight, respect_modes: as in `fit`. A mean loss with weights divides by the number of
            rows and by the mean weight of this minibatch.

        Counts a step of the trainer and of its optimizer, and no epoch: `epoch`, `history` and callbacks
        belong to `fit`. Over the minibatches of `fn.batches` with the trainer's seed, such a loop equals an
        epoch of `fit` to the bit. Returns the loss. Raises DivergenceError, without an update, where it is
        not finite.
        With ScheduleFreeSGD and ScheduleFreeAdamW batchnorm's running statistics are those of training, as
        `fit` alone takes them anew at its end.
        """
        way = self._way
        if way is not None and sample_weight is None and respect_modes is False:
            value = self._step_by(way, X, y)
            if value is not None:
                return value
        if self._group is not None:
            raise UsageError(
                "train_on_batch makes a step of this process alone, after which the ranks of comm would "
                "differ; expected fit, or a trainer without comm"
            )
        respect_modes = check_flag("respect_modes", respect_modes)
        data, terms = self._checked(X, y, sample_weight)
        offsets = training_offsets(
            data.rows, data.rows, False, self.model.min_training_rows(respect_modes)
        )
        self._chain.check(self.optimizer)
        with self.model.training_lock():
            find = self.model.training_executor
            executor = find(data, data.rows, self.loss, respect_modes)
            total = self.loss.reduction == "sum"
            scores = EpochScores({}, data, offsets, executor.plan, total=total)
            run = Run(self, data, offsets, None, lambda: executor, executor, scores)
            self.model._terms = terms
            try:
                value = float(run.steps(np.arange(data.rows), offsets)[0])
            finally:
                executor.unload()
                self._to_evaluation()
            if sample_weight is None and not respect_modes and not terms.renames:
                self._way = self._made_way(executor, kind_of(data))
            return value

    def _step_by(self, way: Way, X: Any, y: Any) -> float | None:
        """A step of `train_on_batch` by a short way; None where it declines."""
        loss, optimizer, state, chain, memory, seed, last, kind, terms = way.more
        model = self.model
        if not (
            loss is self.loss
            and optimizer is self.optimizer
            and chain is self._chain
            and chain.memory is memory
            and terms is model._terms
            and seed == self.seed
            and state.is_current(optimizer)
            and way.is_open(model)
        ):
            return None
        with model.training_lock():
            value: float | None = way.call(X, y, False, self.__dict__)
            if value is None and state.steps == last:  # it has no more numbers
                self._way = more = self._made_way(way.executor, kind)
                value = None if more is None else more.call(X, y, False, self.__dict__)
        return value

    def _made_way(self, executor: Any, kind: Dataset) -> Way | None:
        """A short way for the next steps on such data; None where there is none.

        kind: a data set without rows. The caller holds the model's lock.
        """
        model, chain, storage = self.model, self._chain, self.model.bind()
        state = model.optimizer_state(self.optimizer)
        count = state.before_warning(state.steps, CALLED_AHEAD)
        moves = chain.evaluates or self.optimizer.points  # parameters before and after each step
        if moves or not (count and model._runtime.backend.native_calls):
            return None
        total = self.loss.reduction == "sum"
        try:
            span = Span(np.arange(count + 1), 0, count, total=total)
            update = chain.chunk(model, state, span)
        except Exception:  # of a schedule at one of these steps; it comes again when the step does
            return None
        counters = [
            Counter(None, "step", Counts.DRAWS),
            Counter(state, "steps", Counts.NUMBERS, state.steps),
            Counter(storage, "version"),
        ]
        if chain.averaging is not None and chain.averaging.each_step:
            counters.append(Counter(chain, "averaged", Counts.NUMBERS, chain.averaged))
        last = state.steps + count
        objects = self.loss, self.optimizer, state, chain
        more = *objects, chain.memory, self.seed, last, kind, model._terms
        return step_way(
            model,
            executor,
            kind,
            self.loss,
            model.min_training_rows(),
            counters,
            update,
            self.seed,
            more=more,
        )

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
        """Minimise L(w) + weight_decay/2·‖w‖², where L is the loss of all rows.

        X, y, sample_weight, respect_modes: as in `fit`. The trainer's optimizer, epochs and history are
            neither used nor changed.
        method: one of the names below (default "L-BFGS-B"). docs/full-batch.md says which one when.
        max_iter: integer ≥ 1 (default 100). The most iterations.
        tol: number ≥ 0 (default 1e-5). The fit ends when no component of the gradient is larger.
        weight_decay: number ≥ 0 (default 0).
        decay_biases_and_norms: bool (default True). False exempts all parameters with one dimension.
        batch_size: integer ≥ 1, the rows of a native call (default None: as many as take about 8 MiB of
            workspace). With batchnorm the default is all rows, because its statistics are those of a
            block.
        options: a mapping of options of the method, by the names below (default None: their defaults).
        callback: a function that gets each iteration's record. Raising StopIteration in it ends the fit.

        Methods of SciPy (the extra `scipy`); without a default, options have SciPy's:

        - "L-BFGS-B": ftol (default the dtype's eps), gtol (tol), maxcor, maxfun (100·max_iter), maxls;
        - "BFGS", with n² numbers for n parameters: gtol (tol), xrtol, c1, c2;
        - "CG": beta, "polak-ribiere+" (default, SciPy's own loop), "fletcher-reeves" or
          "hestenes-stiefel", each with a line search for the strong Wolfe conditions; c1, c2;
        - "Newton-CG": xtol (eps), c1, c2; "trust-ncg" and "trust-krylov": initial_trust_radius,
          max_trust_radius, eta, and for the latter inexact. They take products of the Hessian.

        Methods that need NumPy alone:

        - "levenberg-marquardt", for MSELoss and HalfMSELoss: w ← w − (A + μ·D)⁻¹·g with A = JᵀJ, scaled
          as the loss is, of the exact Jacobian J of the errors, plus the weight decay. damping: "marquardt"
          (default), D the diagonal of A at its largest so far, or "levenberg", D = I. mu (1e-3), its
          factors mu_increase (3) and mu_decrease (0.2), and mu_max (1e10). bayesian: True re-estimates the
          weight decay, which begins with `weight_decay`, from the evidence; records then have
          "effective_parameters", "alpha", "beta" and "weight_decay" (see docs/full-batch.md). Records
          have "mu". At most 10,000 parameters;
        - "hessian-free": conjugate gradients on the Gauss–Newton matrix G + λI. damping, the first λ (1);
          warm_start (0.95), the part of the last step where they begin; cg_iter (250), the most inner
          iterations; cg_tol (5e-4), their least progress. Records have "damping" and "cg_iterations";
        - "saddle-free-newton": w ← w − (|H| + μ·max|λ|·I)⁻¹·g, where |H| has the Hessian's eigenvectors
          and |λ|. damping, the first μ (1e-3); dimension: None (default) takes the whole Hessian up to 500
          parameters and else a Krylov subspace of 50 dimensions, an integer one of so many. It ends where
          the gradient is flat and, as far as that subspace tells, no eigenvalue is negative. Records have
          "damping" and "negative_eigenvalues";
        - "newton": w ← w − H⁺·g with the whole Hessian, without a line search. It goes to the nearest point
          without slope, also a saddle or a maximum, and is there for comparison. rcond (1e-8) is the least
          |λ| that counts, over the largest. Records have "negative_eigenvalues";
        - "irprop-": the rule of `Rprop`: step (0.01), eta_minus (0.5), eta_plus (1.2), least (1e-15), most
          (50);
        - "gradient-descent": w ← w − α·∇L. Its α is the first of step, shrink·step, shrink²·step, … that
          lowers the loss by c1·α·‖∇L‖² (Armijo); the next iteration starts with step = grow·α. step (1),
          shrink (0.5), grow (2), c1 (1e-4).

        To make L one function, dropout keeps its masks throughout, and running statistics move once for
        each iteration and not with the trials of a line search. A trial whose loss is not finite counts
        as +∞. However the fit ends, the model has the last iterate. Use float64: with float32, L has
        relative noise of about 1e-7, and line searches give up there (`result.success` is then False).
        Raises HyperparameterError for options that a method does not have, and UsageError where a model is
        too large for one or, with Levenberg–Marquardt, has batchnorm with the statistics of minibatches.
        Source: J. Nocedal, S. J. Wright, "Numerical optimization", 2nd edition, Springer 2006,
        chapters 3 to 7 and 10; D. W. Marquardt, "An algorithm for least-squares estimation of nonlinear
        parameters", 1963, and J. J. Moré, "The Levenberg–Marquardt algorithm", 1978; J. Martens, "Deep
        learning via Hessian-free optimization", ICML 2010; Y. Dauphin et al., "Identifying and attacking
        the saddle point problem in high-dimensional non-convex optimization", NeurIPS 2014.
        """
        from fastnet.train import full_batch

        settings = full_batch.checked_settings(locals())
        data, terms = self._checked(X, y, sample_weight)
        with self.model.training_lock():
            args = self.model, self.loss, data, settings, self.seed, self.step
            objective = full_batch.Objective(*args)
            self.model._terms = terms
            try:
                return full_batch.fit(objective, settings)
            finally:
                self.step += len(objective.blocks) if objective.evaluations else 0

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
        """Learning-rate range test: train with rates that grow from step to step, then undo the training.

        X, y, batch_size, drop_last, respect_modes: as in `fit`; the minibatches are its next epochs'.
        min_lr, max_lr: numbers > 0 (default 1e-6 and 10). The rates of the first and the last step; each
            step multiplies the rate by the same number.
        steps: integer ≥ 2 (default 200).
        stop_factor: number ≥ 0 (default 2). The test ends where the averaged loss exceeds its lowest value
            by more than stop_factor times the mean of the first ten losses, or is not finite.

        Returns the curve, with a `suggestion` and a `plot()`. The test trains with a copy of the optimizer
        without state; rates of groups keep their ratios to the optimizer's own, and all else is as in
        `fit`. However the test ends, parameters, buffers, gradients, optimizer state, step, epoch and
        history are as before. A pending backward is refused, as after every change.
        Raises DivergenceError where the first loss is not finite.
        Source: L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017,
        section 3.3; growing exponentially, and the steepest descent, are later practice.
        """
        trial = range_test.Trial.checked(min_lr, max_lr, steps, stop_factor)
        batch_size = check_int("batch_size", batch_size, low=1)
        data, _ = self._checked(X, y, None)
        run = self._prepare(data, batch_size, drop_last, respect_modes)
        epochs = -(-trial.steps // run.scores.steps)
        index, offsets = run.minibatches(self.epoch, epochs)
        with self.model.training_lock():
            run.executor = run.find()
            segments = "params", "buffers", "grads"
            kept, before = (
                range_test.Snapshot(self.model, segments),
                (self.optimizer, self.step, self._chain),
            )
            try:
                now = self.model.optimizer_state(self.optimizer).steps
                self.optimizer = trial.optimizer(self.optimizer, now)
                # The test ends before schedules do, and must not warn of that.
                self.model.optimizer_state(self.optimizer).warned = True
                self._chain = self._chain.without_averages()
                return trial.run(run.steps, run, index, offsets[: trial.steps + 1])
            finally:
                run.executor.unload()
                kept.restore()
                self.optimizer, self.step, self._chain = before

    def averaged_model(self, X: Any = None, batch_size: int = 32) -> Sequential:
        """A copy of the model with the averages as its parameters, in evaluation mode.

        X: inputs, or None (default: keep the model's running statistics). From X batchnorm's running
            statistics are computed as means over minibatches in training mode. After SWA a model with
            batchnorm needs X, because its statistics do not belong to the averaged parameters.
        batch_size: integer ≥ 1 (default 32). The rows of these minibatches.
        """
        batch_size = check_int("batch_size", batch_size, low=1)
        return self._chain.averaged_model(self.model, X, batch_size)

    def _has_points(self) -> bool:
        """Whether the parameters that are evaluated are not those of the training."""
        return bool(self.optimizer.points) or self._chain.evaluates

    def _to_training(self) -> None:
        """Move the parameters to where the next step takes its gradients."""
        if not self._has_points():
            return
        self.model.move_parameters(self.optimizer, False)
        self._chain.show(self.model, False)

    def _to_evaluation(self, run: Run | None = None) -> bool:
        """Move the parameters to the averages that are to be evaluated, if there are such.

        Returns whether they were elsewhere.

        run: if given, batchnorm's running statistics become theirs, over some of its data.
        """
        if not self._has_points():
            return False
        moved = self.model.move_parameters(self.optimizer, True)
        moved |= self._chain.show(self.model, True)
        if moved and run is not None and has_statistics(self.model):
            twin = copy.deepcopy(self.model)  # whose lock is free
            recompute_statistics(twin, run.sample(STATISTICS), run.respect_modes)
            np.copyto(self.model.bind().segments["buffers"], twin.bind().segments["buffers"])
            self.model.touch()
        return moved

    def _points(self) -> dict[str, Array]:
        """The vectors that belong to averages that are evaluated, by parameter: {"gap/0.weight": …}."""
        vectors = self._chain.vectors(self.model) if self._chain.evaluates else {}
        state = self.model.optimizer_state(self.optimizer)
        vectors |= {name: state.vectors[name] for name in self.optimizer.point_vectors()}
        named, storage = self.model.named_parameters(), self.model.bind()
        return {
            f"{vector}/{name}": part
            for vector, values in vectors.items()
            for name, part in zip(named, storage.parts(values), strict=True)
        }

    def evaluate(
        self, X: Any, y: Any, batch_size: int | None = None, *, sample_weight: Any = None
    ) -> dict[str, float]:
        """{"loss": …, and each metric}, over all samples at once, in evaluation mode.

        Labels are those of the fit, or the numbers of classes if there was none.
        """
        data, _ = self._checked(X, y, sample_weight, learn=False)
        return finish(self._evaluating(data, batch_size=batch_size))

    def _evaluating(
        self,
        data: Dataset,
        wait: Callable[[Ready], Waiting[None]] | None = None,
        pause: Callable[[], None] | None = None,
        batch_size: int | None = None,
    ) -> Waiting[dict[str, float]]:
        """The scores of a data set, by steps that run here or, with `wait`, elsewhere; see `evaluating`."""
        args = self.model, self.loss, data, batch_size, bool(self.metrics), wait
        value, output = yield from evaluating(*args, *([] if pause is None else [pause]))
        return {"loss": value, **measure(self.metrics, data.y, output)}

    def _prepare(
        self,
        data: Dataset,
        batch_size: int,
        drop_last: bool,
        respect_modes: bool,
        rows: Array | None = None,
        *,
        shard: bool = False,
    ) -> Run:
        """Check everything before anything changes. shard: other ranks have more rows of minibatches."""
        self._chain.check(self.optimizer)
        drop_last = check_flag("drop_last", drop_last)
        respect_modes = check_flag("respect_modes", respect_modes)
        count = data.rows if rows is None else len(rows)
        minimum = 1 if shard else self.model.min_training_rows(respect_modes)
        offsets = training_offsets(count, batch_size, drop_last, minimum)
        if data.host is None:
            data.threshold = threshold_for(self.metrics, self.model.output_shape(data.row_shape))
        data.outputs = bool(self.metrics)
        most = int(np.diff(offsets).max())
        find = partial(self.model.training_executor, data, most, self.loss, respect_modes)
        executor = find()
        self.model.optimizer_state(self.optimizer)  # its groups must fit the model
        check_metrics(self.metrics, executor.plan.output_shape, data.y.shape[1:])
        total = self.loss.reduction == "sum"
        scores = EpochScores(self.metrics, data, offsets, executor.plan, total=total)
        run = Run(self, data, offsets, None, find, executor, scores, rows=rows)
        run.respect_modes = respect_modes
        return run

    def _prepare_stream(self, source: Source, respect_modes: bool) -> StreamRun:
        """Check everything that does not need the minibatches."""
        self._chain.check(self.optimizer)
        self.loss.check_trainable()
        respect_modes = check_flag("respect_modes", respect_modes)
        self.model.optimizer_state(self.optimizer)  # its groups must fit the model
        unknown: Any = None
        keeps = STATISTICS if self._has_points() and has_statistics(self.model) else 0
        run = StreamRun(
            self,
            data=unknown,
            offsets=unknown,
            validation=None,
            find=unknown,
            executor=unknown,
            scores=StreamScores(self.metrics, total=self.loss.reduction == "sum"),
            source=source,
            least=self.model.min_training_rows(respect_modes),
            keeps=keeps,
        )
        run.respect_modes = respect_modes
        return run

    def _checked(
        self,
        X: Any,
        y: Any,
        w: Any,
        x_name: str = "X",
        y_name: str = "y",
        terms: Terms | None = None,
        *,
        learn: bool = True,
    ) -> tuple[Dataset, Terms]:
        """The checked data set, and its terms: those given (default: the model's), and what it adds.

        learn: whether it may add classes.
        """
        x, y, terms = self._named(X, y, x_name, y_name, terms, learn=learn)
        return self.model.data(self.loss, x, y, x_name, y_name, w, by_rows=True), terms

    def _named(
        self,
        X: Any,
        y: Any,
        x_name: str = "X",
        y_name: str = "y",
        terms: Terms | None = None,
        *,
        learn: bool = True,
    ) -> tuple[Any, Any, Terms]:
        """Checked inputs, targets with the numbers of classes, and their terms, see `_checked`."""
        terms = self.model._terms if terms is None else terms
        terms.check_columns(x_name, X)
        x = self.model.features(x_name, X)
        shape, loss = self.model.output_shape(tuple(x.shape[1:])), self.loss
        of_loss: dict[str, Any] = {"count": loss.classes_of(shape), "ignored": loss.ignore_index}
        of_loss |= {"column": shape == (1,), "link": loss.link, "learn": learn}
        terms, y = terms.of_fit(X, y_name, self.model.on_host(y_name, y), **of_loss)
        return x, y, terms


_COUNTS = {"epoch": MOST, "step": MOST, "seed": 2**64 - 1, "key": 2**64 - 1}  # and the highest
_ASSIGNED = ("model", "loss", "optimizer", "metrics", "history", *_COUNTS)
