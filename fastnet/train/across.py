"""A fit on several processes: each takes its share of each minibatch, and all make the same update.

A step has two parts. The **gradient** is that of this rank's rows, divided by the number of rows of the
whole minibatch, so that the sum over all ranks is the gradient of the whole. The **update** then runs on
the sum, on every rank alike. `fastnet.distributed` adds, and tells all when one has failed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from fastnet import random
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.data.terms import Terms
from fastnet.distributed import Group
from fastnet.distributed.group import Vector
from fastnet.errors import HyperparameterError, outside
from fastnet.interrupts import held_back
from fastnet.losses.base import SUM, weighted_loss
from fastnet.op import Array
from fastnet.plan.instructions import kernels_of
from fastnet.plan.records import SEGMENT
from fastnet.train.across_sync import Lockstep
from fastnet.train.across_update import AcrossUpdate
from fastnet.train.across_validation import AcrossValidation, identity
from fastnet.train.chain import Span
from fastnet.train.progress import Progress
from fastnet.train.ready import Waiting
from fastnet.train.run import Run
from fastnet.train.shares import PARTS, ShardShares, Shares
from fastnet.train.standing import Loaded

Given = ParamSpec("Given")
Result = TypeVar("Result")
Owner = TypeVar("Owner")

WATCHED = 64  # steps after which the trainer says whether several ranks pay


def together(
    method: Callable[Concatenate[Owner, Given], Result],
) -> Callable[Concatenate[Owner, Given], Result]:
    """A method of a trainer that all ranks call: an error in one of them ends it in all of them."""

    @wraps(method)
    def wrapper(self: Owner, /, *args: Given.args, **named: Given.kwargs) -> Result:
        group: Group | None = vars(self)["_group"]
        if group is None:
            return method(self, *args, **named)
        with group.together():
            return method(self, *args, **named)

    return wrapper


@dataclass(eq=False, repr=False)
class Piece:
    """A part of a global minibatch that this rank computes: rows low … high − 1 of it, as step `local` of
    the chunk of executor `which`; `number` counts parts.
    at: where its rows begin among this rank's in the chunk.
    """

    number: int
    which: int
    local: int
    at: int
    low: int
    high: int


@dataclass(eq=False, repr=False)
class AcrossRun(Run):
    """The fit of one rank among several.

    shares: which rows of each minibatch are whose. deterministic: minibatches are cut into PARTS parts,
    whose gradients are added in their order, whoever computed them. synced: batchnorm's statistics are
    those of all ranks.
    """

    group: Group = field(default_factory=lambda: Group(None))
    deterministic: bool = False
    synced: bool = False
    shares: Shares = field(default_factory=lambda: Shares(0, 1, np.zeros(1, np.int64)))

    def __post_init__(self) -> None:
        self.goes_on_within = False  # checkpoints go on at any number of ranks
        self.speaks, self.whole_calls = self.group.is_first, False
        self._pieces: list[list[Piece]] = []  # of each step of the chunk
        self._losses = np.zeros((0, 1))  # of each step's parts, of this rank
        self._first_step = 0  # of the chunk
        self._sizes = np.zeros(0, np.int64)  # rows of its minibatches
        self._schedule = 0
        self.seconds = [0.0, 0.0, 0.0]  # that gradients, exchanges and updates took
        self._counted, self._said = 0, False

    # What all agree on.

    def begin(self) -> None:
        """Find the executor; all ranks begin with the values of rank 0."""
        super().begin()
        group, trainer, model = self.group, self.trainer, self.trainer.model
        storage = model.bind()
        dtype, count = storage.dtype, storage.flat("params").size
        self._vector = Vector(group, count, dtype, chain=self.deterministic)
        self._blocks = [self._vector.numbers]
        if self.deterministic:
            own = self.shares.own_parts()
            self._blocks = [Vector(group, count, dtype).numbers for _ in range(len(own))]
        self._find_losses()
        parts = PARTS if self.deterministic else group.size
        self._lockstep = Lockstep(group, self.executor.plan, parts)
        self._lockstep.owner = self.executor
        self._executors = [self.executor]
        if self._lockstep:
            self._executors += [self.executor.twin() for _ in self._blocks[1:]]
        self._update = AcrossUpdate(self.executor, self._vector.sums)
        validation = identity(self.validation)
        group.meet()
        self.scores.settle()  # type: ignore[attr-defined]
        state = model.optimizer_state(trainer.optimizer)
        numbers = [trainer.epoch, trainer.step, state.steps, count, self.scores.steps]
        remedy = "all ranks run the same program on the same data, and read the same checkpoint"
        group.check_equal("the state", numbers, remedy)
        group.check_equal("validation_data", validation, "give the same rows on all ranks")
        self._validation = None
        if self.validation is not None and not model.joins_rows:
            self._validation = AcrossValidation(
                trainer, self.validation, group, deterministic=self.deterministic
            )
        chain = trainer._chain.memory
        for array in (
            *(storage.segments[n] for n in ("params", "buffers")),
            state.rule.segment,
            chain,
        ):
            if array is not None:
                group.share(array)
        model.touch()

    def _find_losses(self) -> None:
        """Find where the executor's program divides the loss by the number of rows."""
        self._dividing: list[
            tuple[int, int, float]
        ] = []  # instructions, rows of a row, their number
        found = False
        for i, instruction in enumerate(self.executor.plan.step):
            for _, kernel in kernels_of(self.executor.plan.step[i : i + 1]):
                if kernel.op is weighted_loss and kernel.phase == "forward":
                    found = True
                    mean = float(instruction["scalar"][0])
                    if mean != SUM:
                        self._dividing.append((i, 1 + int(instruction["more_rows"]), mean))
        if not found:
            raise HyperparameterError(
                f"loss is {self.trainer.loss!r}, which is no weighted mean or sum over rows; with comm "
                "expected one that is"
            )

    def fingerprint(self, terms: Terms) -> dict[str, Any]:
        """What tells the data from others: of shards, the number of all rows."""
        if isinstance(self.shares, ShardShares):
            return {"rows": int(self.offsets[-1]), "row_shape": list(self.data.row_shape)}
        return super().fingerprint(terms)

    def minibatches(self, epoch: int, epochs: int) -> tuple[Array, Array]:
        """The rows of epochs; of shards, those of this rank, with the bounds of whole minibatches."""
        if not isinstance(self.shares, ShardShares):
            return super().minibatches(epoch, epochs)
        count = self.shares.counts[self.group.rank]
        if not count or not self.shuffle:
            return np.arange(count), self.offsets
        orders = self.executor.orders(count, self.trainer.seed, epoch, 1)
        return orders.reshape(-1), self.offsets

    def whole_epochs(self, most: int) -> int:
        """0: a call has one step."""
        return 0

    def epochs(
        self, last_epoch: int, progress: Progress, ended: Callable[[dict[str, Any]], None]
    ) -> Waiting[None]:
        """Train an epoch; all ranks begin it and end it together."""
        group = self.group
        group.meet()
        if self.position.found is None:
            group.expects = self._vector
        yield from super().epochs(last_epoch, progress, ended)
        stops = group.meet(float(self.trainer.stop_training))
        if stops and not self.trainer.stop_training:
            self.trainer.stop_training = True
        self._say()

    def _end_epoch(self, found: dict[str, float], begun: float) -> Waiting[dict[str, Any]]:
        """The epoch's record is that of rank 0 everywhere, so that callbacks decide alike."""
        self._average_statistics()
        record = yield from super()._end_epoch(found, begun)
        self.group.meet()
        values = np.array([float(value) for value in record.values()])
        self.group.share(values)
        shared = dict(zip(record, values.tolist(), strict=True))
        return {**shared, "epoch": record["epoch"]}

    def _validate(self, data: Dataset) -> Waiting[dict[str, float]]:
        """The scores of the validation data, whose rows the ranks share where they can."""
        if self._validation is None:  # outputs depend on all rows
            return (yield from super()._validate(data))
        return (yield from self._validation.evaluating(self._pause))

    def _average_statistics(self) -> None:
        """Make running statistics, which differ where batchnorm is by rank, the mean over all ranks."""
        if self.group.size == 1 or self.synced:
            return
        for _, layer in self.trainer.model.layers:
            for p in layer._parameters.values():
                if p.buffer and p.value is not None and p.value.dtype.kind == "f":
                    mean = self.group.sums(p.value.astype(np.float64)) / self.group.size
                    np.copyto(p.value, mean, casting="unsafe")
        self.trainer.model.touch()

    # Steps.

    def resize(self, steps: int, seconds: float) -> None:
        """Make chunks of the length that rank 0 finds, so that all have the same."""
        super().resize(steps, seconds)
        chunk = np.array([self.chunk], np.int64)
        self.group.share(chunk)
        self.chunk = int(chunk[0])

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
        evaluation: Any = None,
    ) -> Loaded:
        """Make this rank's pieces of some minibatches ready, and the updates that follow them."""
        end = len(offsets) - 1 if end is None else end
        trainer, shares = self.trainer, self.shares
        state = trainer.model.optimizer_state(trainer.optimizer)
        epoch = self.offsets if epoch is None else epoch
        span = Span(epoch, begin, end, self.accumulation_steps, total=self.scores.total)
        update: Update = trainer._chain.chunk(trainer.model, state, span)
        self._update.load(update, end - begin)
        self._update.first_step = trainer.step
        self._sizes = np.diff(offsets[begin : end + 1])
        self._losses = np.zeros((end - begin, PARTS if self.deterministic else 1))
        self._first_step = trainer.step
        rows: list[list[Array]] = [[] for _ in self._executors]
        bounds: list[list[int]] = [[0] for _ in self._executors]
        self._pieces, at = [], 0
        for step in range(begin, end):
            pieces = []
            for place, (number, low, high) in enumerate(shares.of_step(step, self.deterministic)):
                which = place % len(self._executors)
                pieces.append(Piece(number, which, len(bounds[which]) - 1, at, low, high))
                at += high - low
                rows[which].append(shares.rows(index, offsets, step, low, high))
                bounds[which].append(bounds[which][-1] + high - low)
            self._pieces.append(pieces)
        self._steps = []
        for executor, own, ends in zip(self._executors, rows, bounds, strict=True):
            if not own:
                continue
            joined = np.concatenate(own)
            steps = Steps(joined, np.array(ends, np.int64), trainer.seed, trainer.step)
            steps.outputs, steps.decisions = outputs, decisions
            if len(self._executors) > 1:  # whose rows alternate
                steps.outputs, steps.decisions = (
                    None if room is None else np.empty((len(joined), *room.shape[1:]), room.dtype)
                    for room in (outputs, decisions)
                )
            self._steps.append(steps)
            executor.load(self.data, steps, None)
            if executor.plan.scheduled:
                self._schedule = self.executor._schedule_of(trainer.step, end - begin)
        self._room = outputs, decisions
        return Loaded(state, state.changes, span)

    def advance(self, loaded: Loaded, steps: int) -> Waiting[Array]:
        """Run so many more steps of what is loaded on all ranks; returns the losses of minibatches."""
        begin, trainer = loaded.done, self.trainer
        trainer._to_training()
        with held_back():
            for i in range(begin, begin + steps):
                self._step(loaded, i)
        parts = self._losses[begin : loaded.done]
        found = np.zeros(len(parts))
        for column in self.group.sums(parts).T:  # each part is one rank's: the sums are exact
            found += column
        return found
        yield

    def _step(self, loaded: Loaded, i: int) -> None:
        """One step: this rank's gradient, the sum over all ranks, and the update."""
        trainer, group, clock = self.trainer, self.group, time.perf_counter
        buffers = trainer.model.bind().segments["buffers"]
        before = buffers.copy()
        begun = clock()
        failed = self._gradient(i)
        computed = clock()
        last = self._is_last(i)
        try:
            group.add(self._vector, self._add_parts, failed)
            if last:
                group.expects = group.small
            summed = clock()
            self._update.run()
        except BaseException:
            np.copyto(buffers, before)
            raise
        self.seconds[0] += computed - begun
        self.seconds[1] += summed - computed
        self.seconds[2] += clock() - summed
        self._counted += 1
        trainer.model.touch(by_backend=True)
        loaded.done = i + 1
        vars(trainer)["step"] += 1
        loaded.state.steps += trainer._chain.stepped(loaded.span, i, i + 1)

    def _is_last(self, i: int) -> bool:
        """Whether a step of the chunk is the last of its epoch."""
        return self.position.done + i + 1 == self.scores.steps

    def _gradient(self, i: int) -> Exception | None:
        """Compute the gradients of this rank's pieces of a minibatch; returns why it failed, if it did."""
        pieces = self._pieces[i]
        self._ready = len(pieces)
        if not pieces and not self.deterministic:
            self._vector.numbers[:] = 0
        for number, piece in enumerate(pieces):
            if self._lockstep:
                self._set(i, number, piece)
                continue
            try:
                self._set(i, number, piece)
                self.executor.run(piece.local + 1)
                self._take(i, piece)
            except Exception as error:
                return error
        if not self._lockstep:
            return None
        total, parts = int(self._sizes[i]), self._losses.shape[1]
        if self.deterministic:
            sizes = np.diff(np.arange(parts + 1) * total // parts).tolist()
        else:
            sizes = self.shares.sizes_of(self._at(i))
        own = [
            (
                piece.number if self.deterministic else self.group.rank,
                self._executors[piece.which],
                piece.local,
            )
            for piece in pieces
        ]
        failed = self._lockstep.run(own, sizes, self._vector)
        if failed is None:
            for piece in pieces:
                self._take(i, piece)
        return failed

    def _set(self, i: int, number: int, piece: Piece) -> None:
        """Tell an executor where its next step's gradient goes, and of what its rows are part."""
        executor = self._executors[piece.which]
        fields, program = executor._train_context, executor._program
        for at, times, _ in self._dividing:
            program["scalar"][at, 0] = -float(int(self._sizes[i]) * times)
        fields["segment"][0, SEGMENT["grads"]] = self._blocks[number].ctypes.data
        step = self._first_step + i
        fields["step"][0] = random.at_place(step, self.shares.before(self._at(i)) + piece.low)
        if self._schedule:
            at = self._schedule + i * executor.plan.schedule_bytes
            fields["segment"][0, SEGMENT["schedule"]] = at
        self._steps[piece.which].first_step = step - piece.local  # for messages

    def _take(self, i: int, piece: Piece) -> None:
        """Take the loss of a piece, and what else its step has recorded."""
        executor = self._executors[piece.which]
        column = piece.number if self.deterministic else 0
        self._losses[i, column] = executor.losses[piece.local]
        if len(self._executors) > 1:
            steps, rows = self._steps[piece.which], piece.high - piece.low
            begin = int(steps.offsets[piece.local])
            for room, own in zip(self._room, (steps.outputs, steps.decisions), strict=True):
                if room is not None and own is not None:
                    room[piece.at : piece.at + rows] = own[begin : begin + rows]

    def _at(self, i: int) -> int:
        """The number within the epoch of a step of the chunk."""
        return self.position.done + i

    def _add_parts(self, sums: Array) -> None:
        """Add the gradients of this rank's parts in their order."""
        for block in self._blocks[: self._ready]:
            sums += block

    def unload(self) -> None:
        """Let go of the data, and of what only this run needs of the executor."""
        super().unload()
        for executor in self._executors[1:]:
            executor.unload()
        executor = self.executor
        grads = executor.storage.segments["grads"]
        for at, _, mean in self._dividing:
            executor.plan.step["scalar"][at, 0] = mean
        if executor._train_args is not None:
            executor._train_context["segment"][0, SEGMENT["grads"]] = grads.ctypes.data
        np.copyto(grads.view(self._vector.sums.dtype), self._vector.sums)

    # Whether it pays.

    def _say(self) -> None:
        """Say once, on rank 0, where several ranks take longer than one."""
        if self._said or self._counted < WATCHED or self.group.size == 1:
            return
        self._said = True
        gradient, exchange, update = (1e6 * part / self._counted for part in self.seconds)
        alone = gradient * self.group.size + update
        if self.speaks and gradient + exchange + update > alone:
            warnings.warn(
                f"{self.group.size} ranks take longer than one: of a step, the gradient takes "
                f"{gradient:.0f} µs here, the exchange between ranks {exchange:.0f} µs and the update "
                f"{update:.0f} µs; one rank alone would take about {alone:.0f} µs. Larger minibatches, or "
                "one fit for each process, use them better (see docs/scaling.md)",
                stacklevel=outside(),
            )
