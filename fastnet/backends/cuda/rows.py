"""Kernels that move rows and numbers: minibatches from a data set, a step's numbers, and its results.

They read everything that differs between steps on the device, so that all steps have the same launches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends.cuda.device import THREADS, blocks_for, cuda, kernel, launch, syncthreads
from fastnet.backends.cuda.failures import failed


@kernel
def _turn(
    at: Any, counter: Any, starts: Any, hyper: Any, hypers: Any, scores: Any, width: int
) -> None:
    lane = cuda.threadIdx.x
    step = at[0] + 1
    syncthreads()
    for i in range(lane, hyper.size, THREADS):
        hyper[i] = hypers[step * hyper.size + i]
    for i in range(lane, width, THREADS):
        scores[width * step + i] = 0.0
    if lane == 0:
        at[0], at[1] = step, starts[step]
        counter[1] = counter[2] + np.uint64(step)


@kernel
def _take(out: Any, table: Any, at: Any) -> None:
    first = at[0] * out.size
    for i in range(cuda.threadIdx.x, out.size, THREADS):
        out[i] = table[first + i]


@kernel
def _gather(out: Any, source: Any, index: Any, begin: Any) -> None:
    width, first = out.shape[1], begin[0]
    for i in range(cuda.grid(1), out.shape[0] * width, cuda.gridsize(1)):
        row = i // width
        column = i - row * width
        out[row, column] = source[index[first + row], column]


@kernel
def _put(out: Any, begin: Any, source: Any) -> None:
    width = source.shape[1]
    for i in range(cuda.grid(1), source.shape[0] * width, cuda.gridsize(1)):
        row = i // width
        column = i - row * width
        out[begin + row, column] = source[row, column]


@kernel
def _put_at(out: Any, begin: Any, source: Any) -> None:
    width = source.shape[1]
    first = begin[0] * width
    for i in range(cuda.grid(1), source.shape[0] * width, cuda.gridsize(1)):
        row = i // width
        out[first + i] = source[row, i - row * width]


@kernel
def _score(scores: Any, at: Any, width: int, column: int, value: Any) -> None:
    if cuda.threadIdx.x == 0:
        scores[width * at[0] + column] = value[0]


def turn(
    stream: Any,
    at: Any,
    counter: Any,
    starts: Any,
    hyper: Any,
    hypers: Any,
    scores: Any,
    width: int,
) -> None:
    """Begin the next step: set its number and first row (`at`), its counter of draws and its numbers.

    at: int64, the step, initially −1, and starts[step]. counter: uint64: seed, step, first step of the
        chunk.
    hyper: float64, the step's part of hypers. scores: float64, `width` for each step; becomes 0.
    """
    _launch(_turn, 1, stream, at, counter, starts, hyper, hypers, scores, width)


def take(stream: Any, out: Any, table: Any, at: Any) -> None:
    """Copy the present step's row of a table of numbers, which `turn` has begun."""
    _launch(_take, 1, stream, out, table, at)


def score(stream: Any, scores: Any, at: Any, width: int, column: int, value: Any) -> None:
    """Write a number to a column of the current step's scores."""
    _launch(_score, 1, stream, scores, at, width, column, value)


def gather(stream: Any, out: Any, source: Any, index: Any, begin: Any) -> None:
    """Copy the rows index[begin[0]], index[begin[0] + 1], … of a matrix, converted to out's dtype."""
    if out.size > 0:
        _launch(_gather, out.size, stream, out, source, index, begin)


def put(stream: Any, out: Any, begin: int, source: Any) -> None:
    """Copy the rows of a matrix, converted, to another matrix from row `begin` on."""
    if source.size > 0:
        _launch(_put, source.size, stream, out, begin, source)


def put_at(stream: Any, out: Any, begin: Any, source: Any) -> None:
    """The same from row begin[0] on, to a flat array."""
    if source.size > 0:
        _launch(_put_at, source.size, stream, out, begin, source)


def _launch(kernel: Any, size: int, *arguments: Any) -> None:
    try:
        launch(kernel, blocks_for(size), THREADS, *arguments)
    except Exception as error:
        raise failed("moving rows", error) from error
