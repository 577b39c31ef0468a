"""Kernels that move rows: minibatches out of a data set, losses and outputs to where they are kept."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.device import THREADS, blocks_for, cuda, kernel, launch


@kernel
def _gather(out: Any, source: Any, index: Any, begin: Any) -> None:
    width = out.shape[1]
    for i in range(cuda.grid(1), out.shape[0] * width, cuda.gridsize(1)):
        row = i // width
        column = i - row * width
        out[row, column] = source[index[begin + row], column]


@kernel
def _put(out: Any, begin: Any, source: Any) -> None:
    width = source.shape[1]
    for i in range(cuda.grid(1), source.shape[0] * width, cuda.gridsize(1)):
        row = i // width
        column = i - row * width
        out[begin + row, column] = source[row, column]


def gather(stream: Any, out: Any, source: Any, index: Any, begin: int) -> None:
    """The rows index[begin], index[begin + 1], … of a matrix, converted to out's dtype."""
    if out.size > 0:
        launch(_gather, blocks_for(out.size), THREADS, stream, out, source, index, begin)


def put(stream: Any, out: Any, begin: int, source: Any) -> None:
    """Write the rows of a matrix, converted, to those of another from `begin` on."""
    if source.size > 0:
        launch(_put, blocks_for(source.size), THREADS, stream, out, begin, source)
