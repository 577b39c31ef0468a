"""A net whose training must give the same bits everywhere, and ways to run it."""

from __future__ import annotations

import hashlib
from itertools import chain, islice, pairwise, repeat

import numpy as np
from recorded import Recorder

import fastnet as fn
from fastnet import random
from fastnet.backends.steps import Steps, Update
from fastnet.data.dataset import Dataset
from fastnet.data.minibatches import batch_offsets, epoch_order
from fastnet.op import Array

ROWS, INPUTS, CLASSES, BATCH, SEED = (
    263,
    21,
    7,
    64,
    5,
)  # five minibatches an epoch, the last of 7 rows
LEARNING_RATE = 0.01


def numbers(stream: int, *shape: int, below: int = 0) -> Array:
    """Numbers in [−1, 1), or integers in [0, below), the same on every machine."""
    words = random.words(int(np.prod(shape)), SEED, stream).reshape(shape).astype(np.int64)
    return words % below if below else (words - 2**31) / 2**31


X, LABELS = numbers(1, ROWS, INPUTS), numbers(2, ROWS, below=CLASSES)


def net(dtype: str = "float32", backend: str = "c", precision: str | None = None) -> fn.Sequential:
    """Batchnorm, dropout, and every function that the C backend computes by itself."""
    return fn.Sequential(
        fn.Linear(INPUTS, 50, bias=False),
        fn.BatchNorm1d(50),
        fn.Tanh(),
        fn.Dropout(0.3),
        fn.Linear(50, 33),
        fn.BatchNorm1d(33),
        fn.Sigmoid(),
        fn.Dropout(0.1),
        fn.Linear(33, CLASSES),
        dtype=dtype,
        backend=backend,
        seed=SEED,
        precision=precision,
    )


def train(
    model: fn.Sequential,
    steps: int = 500,
    chunks: tuple[int, ...] = (),
    recorder: Recorder | None = None,
) -> Array:
    """Adam's steps as `fit` takes them, in chunks of so many and one of all that remain.

    Returns their losses."""
    data = Dataset(X.astype(model.dtype), LABELS, classes=CLASSES)
    runner = model.training_executor(data, BATCH, fn.CrossEntropyLoss())
    optimizer = fn.Adam(LEARNING_RATE)
    state = model.optimizer_state(optimizer)
    offsets = batch_offsets(ROWS, BATCH)
    sizes = chain.from_iterable(repeat(np.diff(offsets).tolist()))
    ends = np.cumsum([0, *islice(sizes, steps)])
    epochs = -(-steps // (len(offsets) - 1))
    order = np.concatenate([epoch_order(ROWS, SEED, epoch) for epoch in range(epochs)])
    losses, begins = [], [0, *np.cumsum(chunks, dtype=int).tolist()]
    for begin, end in pairwise([b for b in begins if b < steps] + [steps]):
        here = Steps(
            order[ends[begin] : ends[end]], ends[begin : end + 1] - ends[begin], SEED, begin
        )
        update = Update(state.rule.program, state.rule.segment, optimizer.hyper(begin, end - begin))
        if recorder is not None:
            recorder.watch(runner, data, here, update)
        losses.append(runner.train(data, here, update))
    model.touch()
    return np.concatenate(losses)


def digest(model: fn.Sequential) -> str:
    """SHA-256 of all parameters and buffers, as they lie in memory."""
    segments = model.bind().segments
    return hashlib.sha256(segments["params"].tobytes() + segments["buffers"].tobytes()).hexdigest()
