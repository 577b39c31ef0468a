"""Epochs at each of which somebody looks: with as little as possible between their native calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastnet.interrupts import held_back
from fastnet.op import Array
from fastnet.train.progress import Progress
from fastnet.train.standing import Loaded


def is_plain(run: Any) -> bool:
    """Whether a whole epoch of a run is one native call, with nothing to do after it but to be told."""
    trainer = run.trainer
    native = run.executor.joins and not run.joins and run.data.host is None and run.whole_calls
    return bool(native and run.validation is None and not trainer._has_points())


def train(
    run: Any,
    loaded: Loaded,
    index: Array,
    decisions: Array | None,
    done: int,
    count: int,
    progress: Progress,
    ended: Callable[[dict[str, Any]], None],
) -> float:
    """Train epochs done, done + 1, … of `count` that are loaded, each a native call; returns their seconds.

    It goes on while the steps that are loaded are those to be made, as `Run.epochs` does, whose bits and
    records these are. ended: gets each record.
    """
    trainer, executor, scores = run.trainer, run.executor, run.scores
    own, optimizer, state = vars(trainer), trainer.optimizer, loaded.state
    chain, span, storage = trainer._chain, loaded.span, executor.storage
    steps, rows, clock = scores.steps, scores.rows, time.perf_counter
    native, watches_begin, spent = executor.native_run(), run.hooks.epoch_begin, 0.0
    while True:
        begun, begin = clock(), loaded.done
        with held_back():  # until all that counts steps has counted these
            try:
                native(begin + steps)
            finally:
                end = loaded.done = executor.steps_done
                storage.version += 1
                own["step"] += end - begin
                state.steps += chain.stepped(span, begin, end)
        if end - begin < steps or executor.refused:
            executor.outcome()  # raises
        found = scores.of_epoch(executor.losses[begin:end], index, decisions, done)
        seconds = clock() - begun
        spent += seconds
        own["epoch"] += 1
        done += 1
        if progress.verbose:
            progress.advance(rows, partial(found.__getitem__, "loss"))
        ended(
            {
                "epoch": own["epoch"],
                **found,
                "seconds": seconds,
                "samples_per_second": rows / max(seconds, 1e-9),
            }
        )
        if trainer.stop_training or done == count or watches_begin:
            return spent
        if not (trainer.optimizer is optimizer and state.is_current(optimizer)):
            return spent
        if loaded.done == len(span.ends):
            return spent
