"""Kernels that move rows: minibatches out of a data set, losses and outputs to where they are kept."""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.device import THREADS, blocks_for, cuda, kernel, launch
from fastnet.backends.cuda.failures import failed


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
        _launch(_gather, out.size, stream, out, source, index, begin)


def put(stream: Any, out: Any, begin: int, source: Any) -> None:
    """Write the rows of a matrix, converted, to those of another from `begin` on."""
    if source.size > 0:
        _launch(_put, source.size, stream, out, begin, source)


def _launch(kernel: Any, size: int, *arguments: Any) -> None:
    try:
        launch(kernel, blocks_for(size), THREADS, *arguments)
    except Exception as error:
        raise failed("moving rows", error) from error
