"""What a fit on several processes begins with: checked arguments, and each rank's share of the data."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor
from fastnet.data.dataset import Dataset
from fastnet.distributed import Group
from fastnet.errors import DataError, HyperparameterError, UsageError, check_flag
from fastnet.op import Array
from fastnet.train.across import AcrossRun
from fastnet.train.across_scores import AcrossScores
from fastnet.train.chain import has_statistics
from fastnet.train.run import Run
from fastnet.train.shares import PARTS, ShardShares, Shares


def checked(group: Group | None, deterministic: Any, synced: Any) -> tuple[bool, bool]:
    """The checked arguments `deterministic` and `sync_batchnorm`."""
    found = check_flag("deterministic", deterministic)
    if found and group is None:
        raise HyperparameterError(
            "deterministic is True without comm; expected comm=MPI.COMM_WORLD too: a fit on one process "
            "is reproducible as it is"
        )
    if found and group is not None and group.size > PARTS:
        raise HyperparameterError(
            f"deterministic is True with {group.size} ranks; expected at most {PARTS}, as minibatches are "
            "cut into so many parts"
        )
    sync = found if synced is None else check_flag("sync_batchnorm", synced)
    if found and not sync:
        raise HyperparameterError(
            "sync_batchnorm is False with deterministic=True; expected True or None, as statistics by rank "
            "depend on the number of ranks"
        )
    if sync and group is None:
        raise HyperparameterError(
            "sync_batchnorm is True without comm; expected comm=MPI.COMM_WORLD too"
        )
    return found, sync


def seeds(group: Group, *given: int) -> tuple[int, ...]:
    """The numbers of rank 0."""
    found = np.array(given, np.uint64)
    group.share(found)
    return tuple(int(number) for number in found)


def shard(group: Group | None, X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any, Array]:
    """The rows of this rank, and how many each rank has.

    A rank without rows gets one that it never uses.
    """
    if group is None:
        raise HyperparameterError("sharded is True without comm; expected Trainer(comm=...)")
    if y is None:
        raise UsageError("X gives minibatches; with sharded=True expected arrays X and y")
    count = len(X)
    group.meet()
    counts = group.gathered(np.array(float(count))).astype(np.int64)
    if not counts.any():
        raise DataError("X and y are empty on all ranks; expected at least one row")
    if counts.all():
        return X, y, weight, counts
    root = int(np.flatnonzero(counts)[0])
    one, its = (group.share_one(np.asarray(part)[:1] if count else None, root) for part in (X, y))
    return (X, y, weight, counts) if count else (one, its, None, counts)


def prepare(run: Any, trainer: Any, given: Any, batch_size: int) -> AcrossRun:
    """The run of one rank, out of one on the same data."""
    group: Group = trainer._group
    if type(run) is not Run and isinstance(run.data, Dataset):
        raise UsageError("sampler: with comm expected None, as samplers draw on one process")
    least = trainer.model.min_training_rows(run.respect_modes)
    if not isinstance(run.data, Dataset):
        raise UsageError(
            "X gives minibatches; with comm expected arrays or a memory map, whose rows all ranks share"
        )
    if run.data.host is not None:
        raise HyperparameterError(
            f"loss is {trainer.loss!r}, which Python computes; with comm expected one of fastnet's losses"
        )
    backend = run.executor.backend
    if type(backend).executor is not Backend.executor:
        raise HyperparameterError(
            f"the model's backend is {backend.name!r}; with comm expected one that works in the memory of "
            'the host, such as model.to("c")'
        )
    data, model = run.data, trainer.model
    if given.counts is not None and trainer._deterministic:
        raise HyperparameterError(
            "sharded is True with deterministic=True; expected all rows on every rank, or a memory map of "
            "them, as the parts of minibatches do not depend on the number of ranks"
        )
    if trainer.loss.reduction != "sum" and data.w is None:
        data = replace(data, w=np.ones(data.rows, model.dtype), by_rows=True)
    synced = trainer._sync_batchnorm
    if synced:
        least = 1
    shares = Shares(group.rank, group.size, run.offsets, least)
    if given.counts is not None:
        if trainer._has_points() and has_statistics(model):
            raise UsageError(
                "sharded: averages that are evaluated need batchnorm's statistics on all rows; expected "
                "sharded=False, or a memory map that all ranks read"
            )
        shares = ShardShares(group.rank, given.counts, batch_size)
        group.meet()
        data = _weighed(group, data, shares)
        _check_classes(group, given)
        if shares.fewest() < least:
            raise HyperparameterError(
                f"batch_size is {batch_size}, of which a rank gives {shares.fewest()} rows; batchnorm by "
                f"rank needs {least}: give a larger one, or sync_batchnorm=True"
            )
    offsets = np.append(0, np.cumsum(shares.sizes, dtype=np.int64))
    most = max(1, shares.most(trainer._deterministic))

    def find() -> Executor:
        args = data, most, trainer.loss, run.respect_modes
        found: Executor = model.training_executor(*args, synced=synced)
        return found

    executor = find()
    scores = AcrossScores(
        trainer.metrics,
        data,
        shares,
        executor.plan,
        run.scores.total,
        group,
        deterministic=trainer._deterministic,
    )
    made = AcrossRun(
        trainer,
        data,
        offsets,
        None,
        find,
        executor,
        scores,  # type: ignore[arg-type]
        rows=run.rows,
        group=group,
        deterministic=trainer._deterministic,
        synced=synced,
        shares=shares,
    )
    made.respect_modes = run.respect_modes
    return made


def _weighed(group: Group, data: Dataset, shares: ShardShares) -> Dataset:
    """The data set of a shard, whose weights are divided by the mean over the rows of all ranks."""
    if data.w is None or not data.by_rows:
        return data
    count = shares.counts[group.rank]
    total, rows = group.sums(np.array([data.weight_mean * count, float(count)]))
    mean = total / rows or 1.0
    return replace(data, w=(data.w * (data.weight_mean / mean)).astype(data.w.dtype))


def _check_classes(group: Group, given: Any) -> None:
    """Refuse labels that are not the same classes on all ranks."""
    named = given.terms.classes if given.terms.renames else ()
    digest = hashlib.sha256(repr(named).encode()).digest()
    remedy = "label the classes from 0 on, or give every rank rows of each"
    number = np.frombuffer(digest[:8], np.int64) >> 12
    group.check_equal("the labels in y", number, remedy)
