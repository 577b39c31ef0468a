"""Samplers: which rows an epoch trains on, and how often, instead of each once."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastnet import random
from fastnet.backends.steps import Steps
from fastnet.configured import Fixed
from fastnet.data.dataset import Dataset
from fastnet.errors import HyperparameterError, StateDictError, check_real, shown
from fastnet.op import Array
from fastnet.parameter import check_array
from fastnet.train.run import Part, Run

DRAWS, ORDER, CLASSES = 4, 5, 16  # users of shuffling streams; class c has user CLASSES + c


class Sampler(Fixed, base=True):
    """Base of samplers, for `Trainer.fit(sampler=...)`.

    An epoch of a sampler is a function of the seed, the epoch's number, and what the trainer has seen. So a
    fit goes on from a file, at the end of an epoch, as if it had not stopped.
    """

    weighted = False  # whether rows have weights of the sampler's
    looks = False  # whether an epoch depends on losses, so that each is made after the one before
    chooses = False  # whether a minibatch is chosen out of a larger one

    def order(self, run: SampledRun, epoch: int) -> Array:
        """The rows of an epoch, as places among the fit's rows, as many as the run's minibatches take."""
        raise NotImplementedError


class ClassBalanced(Sampler):
    """Each of k classes has n/k of an epoch's n rows: rows of small classes come several times.

    A class with m rows has each of them ⌊n/(k·m)⌋ times or once more in an epoch; a large one has a part of
    its rows, another one in each epoch. Minibatches have the classes at random. Unlike class_weight this
    changes no gradient of a row, so that rare classes do not make large steps.

    Rows without a class, such as those of ignore_index, are left out. Metrics of the training are those of
    the rows that are drawn. Source: H. He, E. A. Garcia, "Learning from imbalanced data", IEEE TKDE 21,
    2009, section 3.1, on random oversampling and undersampling.
    """

    def order(self, run: SampledRun, epoch: int) -> Array:
        """The rows of each class in turn, then shuffled."""
        count, seed = run.drawn, run.trainer.seed
        assert run.classes is not None
        members = [np.flatnonzero(run.classes == c) for c in run.present]
        chosen = []
        for place, rows in enumerate(members):
            turn = (place - epoch) % len(members)  # the classes with a row more take turns
            quota = count // len(members) + (turn < count % len(members))
            mixed = rows[random.permutation(len(rows), seed, epoch, user=CLASSES + place)]
            chosen.append(np.resize(mixed, quota))
        found = np.concatenate(chosen)
        return found[random.permutation(len(found), seed, epoch)]


class ImportanceSampling(Sampler):
    """Rows are drawn with probabilities p_i by their last loss, and weighted by 1/(n·p_i).

    p_i = (1 − uniform)·l_i/Σ_j l_j + uniform/n for the last loss l_i of row i, times its sample weight; of
    losses below 0, l is counted from the least. Weights keep the expected gradient that of all rows. Each
    is 1/uniform at most. The first epoch has each row once. Draws are stratified: row i comes ⌊n·p_i⌋ or
    ⌈n·p_i⌉ times, but for one.

    uniform: share in (0, 1] (default 0.1).

    The losses are those of the steps, so they cost nothing; the trainer keeps them for a further fit on as
    many rows, and in its files. The loss of an epoch estimates that of all rows; other metrics of the
    training are those of the rows that are drawn.
    Source: A. Katharopoulos, F. Fleuret, "Not all samples are created equal: deep learning with importance
    sampling", ICML 2018, equations 2 and 3, with the loss as the score; I. Loshchilov, F. Hutter, "Online
    batch selection for faster training of neural networks", 2015, for last losses.
    """

    weighted = looks = True

    def __init__(self, uniform: float = 0.1) -> None:
        super().__init__(uniform=check_real("uniform", uniform, low=0.0, high=1.0, open_low=True))

    def probabilities(self, losses: Array) -> Array:
        """p_i for last losses, of which NaN are unknown and count as the mean."""
        known = np.nan_to_num(losses, nan=float(np.nanmean(losses)))
        known = np.minimum(known - min(0.0, known.min()), np.finfo(np.float64).max / len(known))
        total = known.sum()
        share = known / total if total > 0 else np.full(len(known), 1 / len(known))
        mixed: Array = (1 - self.uniform) * share + self.uniform / len(known)
        return mixed

    def draw(self, p: Array, count: int, seed: int, epoch: int) -> Array:
        """`count` rows with probabilities p, in random order: row i is expected count·p_i times."""
        stream = random.stream_of(random.SHUFFLE, DRAWS)
        places = (np.arange(count) + random.uniform(count, seed, stream, epoch)) / count
        ends = np.cumsum(p)
        rows = np.searchsorted(ends / ends[-1], places, side="right").clip(max=len(p) - 1)
        mixed: Array = rows[random.permutation(count, seed, epoch, user=ORDER)]
        return mixed

    def order(self, run: SampledRun, epoch: int) -> Array:
        """Draw the rows, and weight them in the run's data."""
        losses = run.trainer_losses()
        if losses is None:
            run.weigh(None)
            return random.permutation(run.count, run.trainer.seed, epoch)[: run.drawn]
        p = self.probabilities(losses)
        run.weigh(1 / (len(p) * p))
        return self.draw(p, run.drawn, run.trainer.seed, epoch)


class HardExamples(Sampler):
    """Each step trains on the ⌈fraction·B⌉ rows with the highest losses among B = batch_size rows.

    A forward in evaluation mode tells the losses, times sample weights, at the parameters of the step. The
    order of the rows is that of a fit without a sampler.

    fraction: share in (0, 1] (default 0.25). Raise batch_size accordingly: with 128 and 0.25 a step trains
        on 32 rows.

    Loss and metrics of the training are those of the rows that are trained on. Outliers and wrong labels
    are hard, too.
    Source: A. Shrivastava, A. Gupta, R. Girshick, "Training region-based object detectors with online hard
    example mining", CVPR 2016.
    """

    looks = chooses = True

    def __init__(self, fraction: float = 0.25) -> None:
        super().__init__(
            fraction=check_real("fraction", fraction, low=0.0, high=1.0, open_low=True)
        )

    def sizes(self, offsets: Array, least: int) -> Array:
        """How many rows of each minibatch are trained on."""
        before = np.diff(offsets)
        wanted = np.maximum(np.ceil(before * self.fraction - 1e-9).astype(np.int64), least)
        sizes: Array = np.minimum(wanted, before)
        return sizes

    def order(self, run: SampledRun, epoch: int) -> Array:
        """All rows, of which minibatches are chosen later."""
        if run.shuffle:
            return random.permutation(run.count, run.trainer.seed, epoch)
        return np.arange(run.count)


def checked(given: Any) -> Sampler | None:
    """The argument `sampler`: a Sampler or None."""
    if given is None or isinstance(given, Sampler):
        return given
    remedy = f", such as {given.__name__}()" if isinstance(given, type) else ""
    raise HyperparameterError(
        f"sampler is {shown(given)}; expected None, ClassBalanced(), ImportanceSampling(...) or "
        f"HardExamples(...){remedy}"
    )


def check_fits(sampler: Sampler, data: Any, classes: Array | None, shuffle: bool) -> None:
    """Raise HyperparameterError where a sampler cannot draw from these data."""
    if not isinstance(data, Dataset):
        raise HyperparameterError(
            f"sampler is {sampler!r} with minibatches; expected None: whoever makes them chooses the rows"
        )
    if isinstance(sampler, ClassBalanced) and classes is None:
        raise HyperparameterError(
            "sampler is ClassBalanced() and y holds no labels for this loss; expected labels of classes"
        )
    if not (shuffle or sampler.chooses):
        raise HyperparameterError(
            f"sampler is {sampler!r} and shuffle is False; expected shuffle=True: it draws rows at random"
        )
    if sampler.looks and data.host is not None:
        raise HyperparameterError(
            f"sampler is {sampler!r}, and the loss is a Python function, which tells no losses of rows; "
            "expected one of fastnet's losses"
        )


def data_for(sampler: Sampler, data: Dataset, dtype: Any, *, mean: bool) -> Dataset:
    """The data set of a fit, with weights where the sampler writes them."""
    if not sampler.weighted:
        return data
    w = np.ones(data.rows, dtype) if data.w is None else data.w
    return replace(data, w=w, by_rows=mean)


@dataclass(eq=False, repr=False)
class SampledRun(Run):
    """A fit whose rows a sampler draws.

    candidates: the bounds of the minibatches out of which the run's are chosen. classes: the class of each
    of the fit's rows.
    """

    sampler: Sampler = field(default_factory=ClassBalanced)
    candidates: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    classes: Array | None = None

    def __post_init__(self) -> None:
        self.goes_on_within = not self.sampler.looks
        self.present: list[int] = []  # classes that have rows
        if self.classes is not None:
            known = self.classes >= 0
            known &= self.classes < (self.data.classes or 2)
            if (ignored := self.trainer.loss.ignore_index) is not None:
                known &= self.classes != ignored
            self.present = np.unique(self.classes[known]).tolist()
        self._plain = self.data.w  # weights without the sampler's
        self._seen: list[tuple[Array, Array]] = []  # rows of steps, and their losses

    @property
    def count(self) -> int:
        """The number of the fit's rows."""
        return self.data.rows if self.rows is None else len(self.rows)

    @property
    def drawn(self) -> int:
        """The number of rows that an epoch takes."""
        return int(self.candidates[-1])

    def whole_epochs(self, most: int) -> int:
        """0 where an epoch depends on the one before."""
        return 0 if self.sampler.looks else super().whole_epochs(most)

    def minibatches(self, epoch: int, epochs: int) -> tuple[Array, Array]:
        """The rows of epochs, as the sampler draws them, and where their minibatches begin and end."""
        index = np.stack([self.sampler.order(self, epoch + i) for i in range(epochs)])
        index = index[:, : self.drawn]
        if self.rows is not None:
            index = self.rows[index]
        begins = np.arange(epochs, dtype=np.int64)[:, None] * self.drawn + self.candidates[:-1]
        return index.reshape(-1), np.append(begins, epochs * self.drawn)

    def parts(self) -> Generator[Part]:
        """The epoch's minibatches; those that are chosen one by one, at the parameters of their step."""
        if not self.sampler.chooses:
            yield from super().parts()
            return
        order, offsets = self.minibatches(self.trainer.epoch, 1)
        chosen = np.empty(int(self.offsets[-1]), np.int64)
        while (step := self.position.done) < self.scores.steps:
            rows = order[offsets[step] : offsets[step + 1]]
            begin, end = self.offsets[step : step + 2]
            chosen[begin:end] = self._hardest(rows, int(end - begin))
            yield Part(chosen, self.offsets, step, step + 1)

    def _hardest(self, rows: Array, count: int) -> Array:
        """So many of these rows with the highest losses, in their order; of equals the first."""
        losses = np.empty(len(rows))
        data = self.data
        executor = self.trainer.model.evaluator(data, len(rows), self.trainer.loss)
        steps = Steps(rows, np.array([0, len(rows)]), 0, 0)
        steps.row_losses = losses
        executor.train(data, steps, None)
        executor.unload()
        if data.w is not None:
            losses *= data.w[rows]
        hard = np.argsort(-losses, kind="stable")[:count]  # NaN last: the step finds what is left
        found: Array = rows[np.sort(hard)]
        return found

    def row_losses(self, index: Array) -> Array | None:
        """The array for the losses of the rows of the next steps."""
        if not self.sampler.weighted:
            return None
        losses = np.empty(len(index))
        self._seen.append((index, losses))
        return losses

    def weigh(self, factors: Array | None) -> None:
        """Multiply the rows' weights by these; None: by 1."""
        assert self._plain is not None
        w = self._plain.copy()
        if factors is not None:
            if self.rows is None:
                w *= factors
            else:
                w[self.rows] *= factors
        self.data = replace(self.data, w=w)

    def trainer_losses(self) -> Array | None:
        """The last losses of the fit's rows times their weights; None before the first epoch."""
        losses: Array | None = vars(self.trainer)["_row_losses"]
        if losses is None or len(losses) != self.count:
            return None
        weights = self._plain if self.rows is None else self._plain[self.rows]  # type: ignore[index]
        weighted: Array = losses * weights
        return weighted

    def _end_epoch(self, found: dict[str, float], begun: float) -> Any:
        if self.sampler.weighted:
            known = vars(self.trainer)["_row_losses"]
            whole = np.full(self.data.rows, np.nan)
            places = np.arange(self.data.rows) if self.rows is None else self.rows
            if known is not None and len(known) == self.count:
                whole[places] = known
            for index, losses in self._seen:
                whole[index] = losses
            self._seen = []
            vars(self.trainer)["_row_losses"] = whole[places]
        return (yield from super()._end_epoch(found, begun))


def prepare(run: Run, sampler: Sampler, classes: Array | None, least: int) -> SampledRun:
    """A run with a sampler, out of one on the same data. least: the fewest rows of a minibatch."""
    given = {name: getattr(run, name) for name in ("trainer", "data", "find", "executor", "rows")}
    offsets = run.offsets
    if isinstance(sampler, HardExamples):
        offsets = np.append(0, np.cumsum(sampler.sizes(run.offsets, least)))
    made = SampledRun(
        **given,
        offsets=offsets,
        validation=None,
        scores=run.scores.like(offsets),
        sampler=sampler,
        candidates=run.offsets,
        classes=classes if classes is None or run.rows is None else classes[run.rows],
    )
    made.respect_modes = run.respect_modes
    return made


def state_dict(losses: Array | None) -> dict[str, Any]:
    """A trainer's part for samplers, of its state dict; nothing where none has kept anything."""
    return {} if losses is None else {"sampler": {"losses": losses.copy()}}


def checked_state(what: str, state: Any) -> Array | None:
    """The losses in that part, or StateDictError; None where there is none."""
    if state is None:
        return None
    if not isinstance(state, Mapping) or state.keys() != {"losses"}:
        raise StateDictError(f"{what} is {shown(state)}; expected losses alone")
    losses = state["losses"]
    shape = np.shape(losses) if np.ndim(losses) == 1 else (0,)
    return check_array(f"{what}['losses']", losses, shape).astype(np.float64)
